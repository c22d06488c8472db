#!/usr/bin/env bash
# build_for_gpu.sh ARCHITECTURE [CARRIED]: builds on this machine what on_gpu.sh would build on one with a GPU, whose time is dearer, and puts
# it into CARRIED/built.tar.gz (carried/ by default). The python3 on PATH must have the version of that machine's, and scikit-build-core,
# pybind11, cmake and ninja; GoogleTest must be installed.
set -euo pipefail
cd "$(dirname "$0")/../../.."
carried=${2:-carried}

mkdir -p build/on_gpu "$carried"
python3 -m pip wheel --quiet --no-index --no-build-isolation --no-deps --wheel-dir build/on_gpu/cpu .
cpp/tests/cuda/build.sh "$1"
pwd >build/on_gpu/root
mapfile -t lists < <(find build/cuda -type f -name '*.cmake' -not -path '*/CMakeFiles/*')
tar czf "$carried/built.tar.gz" build/on_gpu/root build/on_gpu/cpu build/cu13 build/cuda/build.log build/cuda/libexodus_core.so \
  build/cuda/cpp/src/cuda/libexodus_cuda.so build/cuda/cpp/tests/cuda/{gpu_kernels_are_the_cpu,gpu_cuda_says_why_not,old_driver} "${lists[@]}"
