#!/usr/bin/env bash
# All tests, on a fresh machine with Python 3.11+ and a C++ compiler: sets up .venv-test, builds, runs ctest and pytest.
# Arguments go to pytest. EXODUS_TESTS=OFF leaves out the C++ tests, which need GoogleTest.
set -euo pipefail
cd "$(dirname "$0")"

tests="${EXODUS_TESTS:-ON}"
python3 -m venv .venv-test
pip=(.venv-test/bin/python -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet -c constraints.txt cmake ninja pybind11 scikit-build-core
export PATH="$PWD/.venv-test/bin:$PATH"

if [ "$tests" = ON ]; then
  # GoogleTest: the system's, else Debian's package where apt can install it; else CMake says what to do.
  probe=(cmake -S . -B build/probe -G Ninja)
  if ! "${probe[@]}"; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libgtest-dev
    "${probe[@]}"
  fi
fi

# The package and the C++ tests are built in one folder, so that nothing is compiled twice.
"${pip[@]}" install --quiet -c constraints.txt --no-build-isolation --config-settings=build-dir=build/test \
  --config-settings=cmake.define.EXODUS_TESTS="$tests" '.[test]'
if [ "$tests" != ON ]; then
  exec python -m pytest "$@"
fi
# Side by side, pytest in two processes: ctest ends first, and then both cores still have work.
ctest --test-dir build/test --output-on-failure --parallel 2 >build/test/ctest.log 2>&1 &
ctest=$!
export EXODUS_SHIM="$PWD/build/test/cpp/tests/cuda"   # the CUDA kernels' Python extension, on the CPU
status=0
python -m pytest -n 2 --dist worksteal "$@" || status=$?
wait "$ctest" || status=$?
cat build/test/ctest.log
exit "$status"
