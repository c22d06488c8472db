#!/usr/bin/env bash
# All that needs a GPU, in about ten minutes: the C++ tests, the same under compute-sanitizer, Python's tests, the benchmark. It needs nvcc
# 13, GoogleTest, and a python3 with this package's build requirements, array-api-compat, pytest, and torch, CuPy, JAX as far as they are
# there. It goes on after a failure, and says at the end what failed.
set -uo pipefail
cd "$(dirname "$0")/../../.."

failed=()
run() {
  printf '\n== %s (at %s s)\n' "$*" $SECONDS
  "$@" || failed+=("$*")
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
run python3 -m pip install --quiet --no-build-isolation --no-deps --force-reinstall .
run .ci/cuda native
tests=build/cuda/cpp/tests/cuda/gpu_kernels_are_the_cpu
run timeout 120 compute-sanitizer --tool memcheck --error-exitcode 1 $tests --gtest_filter='*_float.*:*_bfloat16.*:CudaTaps*:CudaState*'
for tool in racecheck initcheck synccheck; do
  run timeout 90 compute-sanitizer --tool $tool --error-exitcode 1 $tests --gtest_filter='*Lif_float.*:*Srm_float.*:CudaTaps*'
done
run python3 -m pytest -q tests/test_on_a_gpu.py
run python3 benchmarks/bandwidth.py --device cuda
printf '\n%s failed%s\n' ${#failed[@]} "${failed[*]/#/: }"
[ ${#failed[@]} = 0 ]
