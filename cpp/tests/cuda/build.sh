#!/usr/bin/env bash
# build.sh ARCHITECTURE [ISAS]: builds the CUDA kernels' wheel (build/cu13) and their C++ tests (build/cuda) for one architecture (90, say),
# from the PTX that is shipped. The CPU's kernels, which the tests compare with, are built for all instruction sets or for ISAS. Nothing is
# downloaded. What the compiler made of each kernel is in build/cuda/build.log, which gathers all builds in that folder: a build compiles
# only what has changed.
set -euo pipefail
cd "$(dirname "$0")/../../.."

mkdir -p build/cuda
log=build/cuda/build.log
python3 -m pip wheel --verbose --no-index --no-build-isolation --no-deps --wheel-dir build/cu13 ./packaging/cu13 \
    --config-settings=build-dir=../../build/cuda --config-settings=cmake.define.EXODUS_CUDA_CODE="sm_$1" \
    "--config-settings=cmake.define.CMAKE_CUDA_FLAGS=--split-compile=0 -Xptxas -v" --config-settings=cmake.define.EXODUS_TESTS=ON \
    "--config-settings=cmake.define.EXODUS_ISAS=${2:-all}" \
    "--config-settings=build.targets=_cuda;gpu_kernels_are_the_cpu;gpu_cuda_says_why_not" >>"$log" 2>&1 ||
  { tail -50 "$log"; exit 1; }
