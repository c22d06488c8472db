/// @file
/// How kernels are declared, share memory and are launched: the one place that knows whether a GPU runs them, or, in the tests, the CPU
/// under a shim (cpp/tests/cuda/shim.hpp), which checks what a GPU lets pass.
#pragma once

#include <cstddef>
#include <cstdint>

namespace exodus::cuda {

/// What a launch runs: blocks of threads, each with so much dynamic shared memory.
struct Grid {
  std::int64_t blocks;
  int threads;
  std::size_t shared_bytes = 0;
};

}   // namespace exodus::cuda

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#include <utility>

#include "exodus/types.hpp"

/// A kernel for blocks of so many threads, of which so many blocks fit a multiprocessor at once.
#define EXODUS_KERNEL_OF(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define EXODUS_KERNEL(threads) EXODUS_KERNEL_OF(threads, 1)
/// A function that kernels call, and a member function that they call.
#define EXODUS_DEVICE_SCALAR static __device__ __forceinline__
#define EXODUS_DEVICE __device__ __forceinline__
/// Makes the compiler inline a lambda wherever it is called.
#define EXODUS_INLINE __attribute__((always_inline))
/// A kernel's parameter that is read where it lies.
#define EXODUS_GRID_CONSTANT const __grid_constant__
/// Marks a loop that becomes straight code: its arrays then stay in registers.
#define EXODUS_UNROLL _Pragma("unroll")
/// Memory that the threads of a block share: `name[i]` is read and written, nothing else.
#define EXODUS_SHARED(T, name, count) __shared__ __align__(16) T name[count]
/// The same, as much of it as the launch says (Grid::shared_bytes).
#define EXODUS_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char exodus_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(exodus_dynamic_shared)
template <class T>
using SharedPointer = T*;

namespace exodus::cuda {

constexpr std::int64_t max_blocks = 0x7fffffff;

template <class... P, class... A>
void start(void (*kernel)(P...), Grid grid, cudaStream_t stream, A&&... arguments) {
  kernel<<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), grid.shared_bytes, stream>>>(
      std::forward<A>(arguments)...);
}

/// Why there is no usable device; null if there is. The runtime has one code for a driver that is missing and one that is too old.
inline const char* why_unavailable() {
  int driver = 0, devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices > 0) return nullptr;
  cudaGetLastError();
  if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "no CUDA driver is installed on this machine";
  if (driver < CUDART_VERSION / 1000 * 1000) return "the CUDA driver is too old: these kernels need one for CUDA 13";
  if (error == cudaSuccess || error == cudaErrorNoDevice) return "the CUDA driver sees no GPU";
  return cudaGetErrorString(error);
}

}   // namespace exodus::cuda

#else
#include "shim.hpp"
#endif

namespace exodus::cuda {

inline thread_local const char* last_words = nullptr;   ///< of the last error on this thread; null: there was none

/// An error's words are kept for last_error(), and the error is taken from the runtime, whose next call would report it again.
inline Status checked(cudaError_t error) {
  if (error == cudaSuccess) return Status::ok;
  last_words = cudaGetErrorString(error);
  cudaGetLastError();
  return Status::cuda;
}

/// Runs a kernel on a stream of the current device.
template <class... P, class... A>
Status launch(void (*kernel)(P...), Grid grid, cudaStream_t stream, A&&... arguments) {
  start(kernel, grid, stream, std::forward<A>(arguments)...);
  return checked(cudaGetLastError());
}

/// Makes the device of some memory the current one, and at the end the one before.
class DeviceOf {
 public:
  explicit DeviceOf(const void* memory) {
    cudaPointerAttributes attributes;
    ok_ = checked(cudaGetDevice(&before_)) == Status::ok && checked(cudaPointerGetAttributes(&attributes, memory)) == Status::ok;
    if (ok_ && attributes.devicePointer == nullptr) {
      // A kernel that used it would stop the program's other work, too.
      last_words = "an array is not in memory that a GPU can use";
      ok_ = false;
    }
    if (ok_ && attributes.device != before_) ok_ = changed_ = checked(cudaSetDevice(attributes.device)) == Status::ok;
  }
  ~DeviceOf() {
    if (changed_) (void)checked(cudaSetDevice(before_));
  }
  DeviceOf(const DeviceOf&) = delete;
  DeviceOf& operator=(const DeviceOf&) = delete;
  bool ok() const { return ok_; }

 private:
  int before_ = 0;
  bool ok_ = false, changed_ = false;
};

constexpr int warp_threads = 32;

/// A block for each piece of work, as far as a grid goes: blocks take further ones in turn.
inline std::int64_t blocks_for(std::int64_t work) {
  return work < max_blocks ? work : max_blocks;
}

/// Which is the lowest bit that is set, of a word that is not 0.
EXODUS_DEVICE_SCALAR int lowest_bit(std::uint32_t word) {
#if defined(__CUDACC__)
  return __ffs(static_cast<int>(word)) - 1;
#else
  return __builtin_ctz(word);
#endif
}

/// The number of bits that are set in a word.
EXODUS_DEVICE_SCALAR int bits_set(std::uint32_t word) {
#if defined(__CUDACC__)
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

/// A number of which the compiler does not know that it is always the same: what is computed from it is computed where it is needed, and
/// takes no registers all through a loop.
EXODUS_DEVICE_SCALAR float unforeseen(float value) {
#if defined(__CUDACC__)
  asm volatile("" : "+f"(value));
#endif
  return value;
}
EXODUS_DEVICE_SCALAR double unforeseen(double value) {
#if defined(__CUDACC__)
  asm volatile("" : "+d"(value));
#endif
  return value;
}

/// Reads what nobody reads again soon.
template <class T>
EXODUS_DEVICE_SCALAR T load_once(const T* at) {
#if defined(__CUDACC__)
  return __ldcs(at);
#else
  return *at;
#endif
}

/// Writes what nobody reads soon.
template <class T>
EXODUS_DEVICE_SCALAR void store_once(T* at, T value) {
#if defined(__CUDACC__)
  __stcs(at, value);
#else
  *at = value;
#endif
}

}   // namespace exodus::cuda
