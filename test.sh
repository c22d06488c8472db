#!/usr/bin/env bash
# All tests, on a fresh machine with Python 3.11+ and a C++ compiler: sets up .venv-test, builds, runs ctest and pytest.
# Arguments go to pytest. EXODUS_TESTS=OFF leaves out the C++ tests, which need GoogleTest.
set -euo pipefail
cd "$(dirname "$0")"

python3 -m venv .venv-test
pip=(.venv-test/bin/python -m pip --disable-pip-version-check)
"${pip[@]}" install --quiet -c constraints.txt cmake ninja pybind11 '.[test]'
export PATH="$PWD/.venv-test/bin:$PATH"

if [ "${EXODUS_TESTS:-ON}" = ON ]; then
  # GoogleTest: the system's, else Debian's package where apt can install it; else CMake says what to do.
  configure=(cmake -S . -B build/test -G Ninja "-Dpybind11_DIR=$(python -m pybind11 --cmakedir)")
  if ! "${configure[@]}"; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq libgtest-dev
    "${configure[@]}"
  fi
  cmake --build build/test
  ctest --test-dir build/test --output-on-failure --parallel 2
  export EXODUS_SHIM="$PWD/build/test/cpp/tests/cuda"   # the CUDA kernels' Python extension, on the CPU
fi
python -m pytest "$@"
