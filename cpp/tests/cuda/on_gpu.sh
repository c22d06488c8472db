#!/usr/bin/env bash
# on_gpu.sh [CARRIED]: everything that needs a GPU, within nine minutes: the C++ tests, Python's tests, the benchmark, compute-sanitizer. It
# also prints what the compiler made of the kernels for this GPU.
#
# The machine needs nvcc 13 and a python3 with scikit-build-core, pybind11, cmake, ninja and pytest; torch, CuPy and JAX are tested as far as
# they are there. Nothing is downloaded: CARRIED (carried/ by default) is a folder with GoogleTest's sources (googletest/) and with wheels of
# what python3 lacks: array-api-compat, pytest-xdist with execnet and, for the benchmark to compare with, spikingjelly, loguru and
# SciencePlots. If it has built.tar.gz, which build_for_gpu.sh makes on another machine, nothing is compiled. After a failed step the next one
# runs, unless no kernel can run at all. The last lines say what failed, and which steps did not finish in their time.
set -uo pipefail
cd "$(dirname "$0")/../../.."
carried=$PWD/${1:-carried}
site=$PWD/build/on_gpu/site       # what is installed for this run
prefix=$PWD/build/on_gpu/prefix
rm -rf "$site" && mkdir -p "$site"
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH} CMAKE_PREFIX_PATH=$prefix
export CMAKE_BUILD_PARALLEL_LEVEL=16 CTEST_PARALLEL_LEVEL=16 XLA_PYTHON_CLIENT_PREALLOCATE=false PYTHONUNBUFFERED=1
deadline=540
failed=()
unfinished=()

# step SECONDS NAME COMMAND...
step() {
  local limit=$1 name=$2 left=$((deadline - SECONDS)) code
  shift 2
  if ((left <= 0)); then
    unfinished+=("$name")
    return 124
  fi
  ((left > limit)) || limit=$left
  printf '\n== %s (at %s s, for at most %s s)\n' "$name" $SECONDS "$limit"
  timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "build/on_gpu/$name.log"
  code=${PIPESTATUS[0]}
  case $code in
    0) ;;
    124 | 137) unfinished+=("$name") ;;
    *) failed+=("$name") ;;
  esac
  return "$code"
}

finish() {
  local IFS=,
  printf '\n%s failed: %s\n%s did not finish: %s\n' ${#failed[@]} "${failed[*]}" ${#unfinished[@]} "${unfinished[*]}"
  ((${#failed[@]} == 0 && ${#unfinished[@]} == 0))
  exit
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d '.')
install=(python3 -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site")
export architecture carried prefix

# Unpacks the archive of build_for_gpu.sh. The lists of tests name the folder that they were built in.
unpack() {
  tar xzf "$carried/built.tar.gz" && find build/cuda -type f -name '*.cmake' -exec sed -i "s#$(<build/on_gpu/root)#$PWD#g" {} +
}

step 30 packages "${install[@]}" "$carried"/*.whl
if [ -e "$carried/built.tar.gz" ]; then
  unpack || failed+=(unpack)
  export LD_LIBRARY_PATH=$PWD/build/cuda:$PWD/build/cuda/cpp/src/cuda${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
else
  # shellcheck disable=SC2016  # the inner shell expands them
  step 60 googletest bash -c 'cmake -S "$carried/googletest" -B build/on_gpu/googletest -DCMAKE_INSTALL_PREFIX="$prefix" -DBUILD_GMOCK=OFF \
    -DCMAKE_BUILD_TYPE=Release >/dev/null && cmake --build build/on_gpu/googletest --target install >/dev/null'
  # Side by side: each of them has a file or two that take most of its time.
  # shellcheck disable=SC2016
  step 360 build bash -c 'python3 -m pip wheel --quiet --no-index --no-build-isolation --no-deps --wheel-dir build/on_gpu/cpu . & cpu=$!
    cpp/tests/cuda/build.sh "$architecture"; cuda=$?
    wait $cpu && exit $cuda' || finish
fi
step 60 install "${install[@]}" build/on_gpu/cpu/*.whl build/cu13/*.whl || finish
step 60 available python3 -c 'import sys; from exodus_core import cuda; sys.exit(cuda._unavailable())' || finish

step 10 occupancy python3 cpp/tests/cuda/ptxas_report.py build/cuda/build.log
step 150 ctest ctest --test-dir build/cuda -L gpu --output-on-failure
step 150 pytest python3 -m pytest -q -rs -n 8 --durations=10 tests/test_on_a_gpu.py && ! grep -q ' passed' build/on_gpu/pytest.log && failed+=("pytest ran no test")
step 90 benchmark python3 benchmarks/bandwidth.py --device cuda --rounds 7
for tool in memcheck racecheck initcheck synccheck; do
  step 120 $tool compute-sanitizer --tool $tool --error-exitcode 1 build/cuda/cpp/tests/cuda/gpu_kernels_are_the_cpu \
      --gtest_filter='*_float.*:*_bfloat16.*:CudaTaps*:CudaState*'
done
finish
