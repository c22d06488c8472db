/// @file
/// Declares and launches kernels, and declares their shared memory. Only this file knows whether the kernels run on a GPU or, in the tests,
/// on the CPU under a shim (cpp/tests/cuda/shim.hpp), which detects errors that a GPU does not report.
#pragma once

#include <cstddef>
#include <cstdint>

namespace exodus::cuda {

/// The grid of a launch: blocks, threads per block, and bytes of dynamic shared memory per block.
struct Grid {
  std::int64_t blocks;
  int threads;
  std::size_t shared_bytes = 0;
};

}   // namespace exodus::cuda

#if defined(__CUDACC__)

#include <cuda_pipeline_primitives.h>
#include <cuda_runtime.h>

#include <utility>

#include "exodus/types.hpp"

/// A kernel for blocks of at most `threads` threads. The compiler limits registers so that `blocks` blocks fit on a multiprocessor.
#define EXODUS_KERNEL_OF(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define EXODUS_KERNEL(threads) EXODUS_KERNEL_OF(threads, 1)
/// A device function, and a device member function.
#define EXODUS_DEVICE_SCALAR static __device__ __forceinline__
#define EXODUS_DEVICE __device__ __forceinline__
/// Forces a lambda to be inlined at every call.
#define EXODUS_INLINE __attribute__((always_inline))
/// A kernel parameter that is read directly from constant memory, without a local copy.
#define EXODUS_GRID_CONSTANT const __grid_constant__
/// Unrolls a loop completely, so that the arrays it indexes stay in registers.
#define EXODUS_UNROLL _Pragma("unroll")
/// Keeps a loop as a loop, where its code would fill the cache of instructions.
#define EXODUS_ROLLED _Pragma("unroll 1")
/// Static shared memory. Kernels may only load and store its elements, `name[i]`.
#define EXODUS_SHARED(T, name, count) __shared__ __align__(16) T name[count]
/// Dynamic shared memory, of Grid::shared_bytes.
#define EXODUS_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char exodus_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(exodus_dynamic_shared)
template <class T>
using SharedPointer = T*;

namespace exodus::cuda {

constexpr std::int64_t max_blocks = 0x7fffffff;

/// Whether __pipeline_memcpy_async returns before the copy is done.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool copies_asynchronously = false;
#else
constexpr bool copies_asynchronously = true;
#endif

template <class... P, class... A>
void start(void (*kernel)(P...), Grid grid, cudaStream_t stream, A&&... arguments) {
  kernel<<<static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.threads), grid.shared_bytes, stream>>>(
      std::forward<A>(arguments)...);
}

/// The reason why no device is usable; null if one is. The runtime returns the same code for a missing driver and for one that is too old.
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

inline thread_local const char* last_words = nullptr;   ///< the message of the last error on this thread; null if there was none

/// Keeps the message of an error for last_error() and clears the error, which the next call of the runtime would otherwise report again.
inline Status checked(cudaError_t error) {
  if (error == cudaSuccess) return Status::ok;
  last_words = cudaGetErrorString(error);
  cudaGetLastError();
  return Status::cuda;
}

/// Launches a kernel on a stream of the current device.
template <class... P, class... A>
Status launch(void (*kernel)(P...), Grid grid, cudaStream_t stream, A&&... arguments) {
  start(kernel, grid, stream, std::forward<A>(arguments)...);
  return checked(cudaGetLastError());
}

/// Makes the device that owns `memory` current, and restores the previous one on destruction.
class DeviceOf {
 public:
  explicit DeviceOf(const void* memory) {
    cudaPointerAttributes attributes;
    ok_ = checked(cudaGetDevice(&before_)) == Status::ok && checked(cudaPointerGetAttributes(&attributes, memory)) == Status::ok;
    if (ok_ && attributes.devicePointer == nullptr) {
      // An illegal access would invalidate the context, and with it the rest of the program's work.
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

/// One block per piece of work, up to the largest grid. Kernels loop over the remaining work.
inline std::int64_t blocks_for(std::int64_t work) {
  return work < max_blocks ? work : max_blocks;
}

/// The index of the lowest set bit of a nonzero word.
EXODUS_DEVICE_SCALAR int lowest_bit(std::uint32_t word) {
#if defined(__CUDACC__)
  return __ffs(static_cast<int>(word)) - 1;
#else
  return __builtin_ctz(word);
#endif
}

/// The number of set bits in a word.
EXODUS_DEVICE_SCALAR int bits_set(std::uint32_t word) {
#if defined(__CUDACC__)
  return __popc(word);
#else
  return __builtin_popcount(word);
#endif
}

/// Hides from the compiler that a value is constant. Expressions of it are then evaluated where they are used, and not hoisted out of a
/// loop, where they would occupy registers throughout.
EXODUS_DEVICE_SCALAR float unforeseen(float value) {
#if defined(__CUDACC__)
  asm volatile("" : "+f"(value));
#endif
  return value;
}
EXODUS_DEVICE_SCALAR int unforeseen(int value) {
#if defined(__CUDACC__)
  asm volatile("" : "+r"(value));
#endif
  return value;
}
EXODUS_DEVICE_SCALAR double unforeseen(double value) {
#if defined(__CUDACC__)
  asm volatile("" : "+d"(value));
#endif
  return value;
}

/// Loads a value that is not reused soon (a streaming load).
template <class T>
EXODUS_DEVICE_SCALAR T load_once(const T* at) {
#if defined(__CUDACC__)
  return __ldcs(at);
#else
  return *at;
#endif
}

/// Four elements that a thread accesses at once. In memory they begin at a multiple of their size.
template <class T>
struct Four {
  T at[4];
};

/// Whether memory begins at a multiple of the size of four elements.
template <class T>
EXODUS_DEVICE_SCALAR bool in_fours(const T* array) {
  return reinterpret_cast<std::uintptr_t>(array) % (4 * sizeof(T)) == 0;
}

/// Loads and stores four elements of global memory, the latter under a condition without a branch. (Through a pointer to vectors, the
/// compiler stores each element for itself.)
#if defined(__CUDACC__)
EXODUS_DEVICE_SCALAR Four<std::uint16_t> load_four(const std::uint16_t* at) {
  const ushort4 four = __ldcs(reinterpret_cast<const ushort4*>(at));
  return {{four.x, four.y, four.z, four.w}};
}
EXODUS_DEVICE_SCALAR void store_four(bool condition, float* at, const Four<float>& four) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.v4.f32 [%1], {%2, %3, %4, %5}; }" ::"r"(static_cast<int>(condition)),
               "l"(__cvta_generic_to_global(at)), "f"(four.at[0]), "f"(four.at[1]), "f"(four.at[2]), "f"(four.at[3]));
}
EXODUS_DEVICE_SCALAR void store_four(bool condition, std::uint16_t* at, const Four<std::uint16_t>& four) {
  asm volatile("{ .reg .pred p; setp.ne.b32 p, %0, 0; @p st.global.v4.u16 [%1], {%2, %3, %4, %5}; }" ::"r"(static_cast<int>(condition)),
               "l"(__cvta_generic_to_global(at)), "h"(four.at[0]), "h"(four.at[1]), "h"(four.at[2]), "h"(four.at[3]));
}
#else
template <class T>
Four<T> load_four(const T* at) {
  if (!in_fours(at)) shim::fail("four elements are loaded from where they are not aligned");
  return {{at[0], at[1], at[2], at[3]}};
}
template <class T>
void store_four(bool condition, T* at, const Four<T>& four) {
  if (!condition) return;
  if (!in_fours(at)) shim::fail("four elements are stored where they are not aligned");
  for (int k = 0; k < 4; ++k) at[k] = four.at[k];
}
#endif

/// Loads and stores four elements of shared memory, of four bytes each, from number `k` on, a multiple of four.
template <class T>
EXODUS_DEVICE_SCALAR Four<T> load_shared_four(SharedPointer<T> memory, int k) {
  static_assert(sizeof(T) == 4);
#if defined(__CUDACC__)
  const float4 four = *reinterpret_cast<const float4*>(memory + k);
  return {{four.x, four.y, four.z, four.w}};
#else
  if (k % 4 != 0) shim::fail("four elements of shared memory are loaded where they are not aligned");
  return {{memory[k], memory[k + 1], memory[k + 2], memory[k + 3]}};
#endif
}
template <class T>
EXODUS_DEVICE_SCALAR void store_shared_four(SharedPointer<T> memory, int k, const Four<T>& four) {
  static_assert(sizeof(T) == 4);
#if defined(__CUDACC__)
  *reinterpret_cast<float4*>(memory + k) = make_float4(four.at[0], four.at[1], four.at[2], four.at[3]);
#else
  if (k % 4 != 0) shim::fail("four elements of shared memory are stored where they are not aligned");
  for (int i = 0; i < 4; ++i) memory[k + i] = four.at[i];
#endif
}

/// Stores a value that is not reused soon (a streaming store).
template <class T>
EXODUS_DEVICE_SCALAR void store_once(T* at, T value) {
#if defined(__CUDACC__)
  __stcs(at, value);
#else
  *at = value;
#endif
}
EXODUS_DEVICE_SCALAR void store_four_once(float* at, const Four<float>& four) {
#if defined(__CUDACC__)
  __stcs(reinterpret_cast<float4*>(at), make_float4(four.at[0], four.at[1], four.at[2], four.at[3]));
#else
  store_four(true, at, four);
#endif
}

}   // namespace exodus::cuda
