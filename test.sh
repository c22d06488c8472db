#!/usr/bin/env bash
# Runs all tests on a fresh machine with Python 3.11+ and a C++ compiler: makes .venv-test, builds, runs ctest and pytest.
# Arguments are passed to pytest. EXODUS_TESTS=OFF omits the C++ tests, which need GoogleTest.
set -euo pipefail
cd "$(dirname "$0")"

tests="${EXODUS_TESTS:-ON}"
python3 -m venv .venv-test
pip=(.venv-test/bin/python -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet -c constraints.txt cmake ninja pybind11 scikit-build-core
export PATH="$PWD/.venv-test/bin:$PATH"

if [ "$tests" = ON ]; then
  # Use the system's GoogleTest, or install Debian's package if apt can. Otherwise CMake says what to do.
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
# ctest runs next to pytest. It ends first, and two pytest processes keep both cores busy after that.
ctest --test-dir build/test --output-on-failure --parallel 2 >build/test/ctest.log 2>&1 &
ctest=$!
export EXODUS_SHIM="$PWD/build/test/cpp/tests/cuda"   # has the Python extension of the CUDA kernels that runs on the CPU
status=0
python -m pytest -n 2 --dist worksteal "$@" || status=$?
wait "$ctest" || status=$?
cat build/test/ctest.log
exit "$status"
