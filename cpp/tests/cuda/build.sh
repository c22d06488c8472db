#!/usr/bin/env bash
# build.sh ARCHITECTURE (90, say): builds the CUDA kernels' wheel (build/cu13) and their C++ tests (build/cuda) for one architecture, from the
# PTX that is shipped, and prints what the compiler made of each kernel. Nothing is downloaded.
set -euo pipefail
cd "$(dirname "$0")/../../.."

mkdir -p build
python3 -m pip wheel --verbose --no-index --no-build-isolation --no-deps --wheel-dir build/cu13 ./packaging/cu13 \
    --config-settings=build-dir=../../build/cuda --config-settings=cmake.define.EXODUS_CUDA_CODE="sm_$1" \
    "--config-settings=cmake.define.CMAKE_CUDA_FLAGS=--split-compile=0 -Xptxas -v" --config-settings=cmake.define.EXODUS_TESTS=ON \
    "--config-settings=build.targets=_cuda;gpu_kernels_are_the_cpu;gpu_cuda_says_why_not" >build/cuda.log 2>&1 ||
  { tail -50 build/cuda.log; exit 1; }
if grep -q 'Compiling entry function' build/cuda.log; then
  python3 cpp/tests/cuda/ptxas_report.py build/cuda.log
else
  echo "the kernels were built before: nothing to report"
fi
