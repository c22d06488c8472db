/// @file
/// Where the tests of the CUDA kernels run: a GPU, or under the shim the host's own memory.
#pragma once

#include <exodus/cuda_functions.hpp>

#include "../support.hpp"
#include "model.hpp"
#if defined(EXODUS_CUDA_SHIM)
#include "cuda/launch.hpp"
#else
#include <cuda_runtime.h>
#endif

namespace exodus::test {

/// The value of each byte of new memory. Floating-point numbers of it are NaN, so that a test notices if one is read.
constexpr int not_written = 0xff;

/// Memory whose ends are watched, for one call after another. Arrays begin `skipped` elements after an address that is aligned for vectors.
class HostMemory {
 public:
  explicit HostMemory(std::int64_t skipped = 0) : skipped_(skipped) {}

  /// Memory for a workspace.
  void* bytes(std::size_t count) {
    blocks_.emplace_back(::operator new(count));
    return std::memset(blocks_.back().get(), not_written, count);
  }
  template <class T>
  const T* in(const T* values, std::int64_t count) {
    T* const copy = out<T>(count);
    std::copy(values, values + count, copy);
    return copy;
  }
  template <class T>
  T* out(std::int64_t count) {
    // As long as it is: a sanitizer sees what is read beyond.
    return static_cast<T*>(bytes(static_cast<std::size_t>(skipped_ + count) * sizeof(T))) + skipped_;
  }
  template <class T>
  std::vector<T> fetch(const T* array, std::int64_t count) {
    return {array, array + count};
  }

 private:
  struct Free {
    void operator()(void* block) const { ::operator delete(block); }
  };
  std::int64_t skipped_;
  std::vector<std::unique_ptr<void, Free>> blocks_;
};

class OnCpu : public HostMemory {
 public:
  template <class N>
  Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays) {
    Workspace memory = workspace(layout, neuron, arrays);
    memory.data = bytes(memory.bytes);
    return exodus::forward(layout, neuron, arrays, memory);
  }
  template <class N>
  Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                  const typename N::Backward& arrays) {
    Workspace memory = workspace(layout, neuron, method, surrogate, arrays);
    memory.data = bytes(memory.bytes);
    return exodus::backward(layout, neuron, method, surrogate, arrays, memory);
  }
};

#if defined(EXODUS_CUDA_SHIM)
using DeviceMemory = HostMemory;
inline void prepare(unsigned seed) {
  cuda::shim::seed(seed);
}
inline bool finish() {
  return true;
}
#else
class DeviceMemory {
 public:
  explicit DeviceMemory(std::int64_t skipped = 0) : skipped_(skipped) {}

  /// Memory for a workspace.
  void* bytes(std::size_t count) {
    void* block = nullptr;
    EXPECT_EQ(cudaMalloc(&block, count + 1), cudaSuccess);
    blocks_.emplace_back(block);
    EXPECT_EQ(cudaMemset(block, not_written, count), cudaSuccess);
    return block;
  }
  template <class T>
  const T* in(const T* values, std::int64_t count) {
    T* const copy = out<T>(count);
    EXPECT_EQ(cudaMemcpy(copy, values, static_cast<std::size_t>(count) * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    return copy;
  }
  template <class T>
  T* out(std::int64_t count) {
    return static_cast<T*>(bytes(static_cast<std::size_t>(skipped_ + count) * sizeof(T))) + skipped_;
  }
  template <class T>
  std::vector<T> fetch(const T* array, std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    EXPECT_EQ(cudaMemcpy(values.data(), array, values.size() * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return values;
  }

 private:
  struct Free {
    void operator()(void* block) const { cudaFree(block); }
  };
  std::int64_t skipped_;
  std::vector<std::unique_ptr<void, Free>> blocks_;
};
inline void prepare(unsigned) {}
inline bool finish() {
  return cudaDeviceSynchronize() == cudaSuccess;
}
#endif

class OnDevice : public DeviceMemory {
 public:
  explicit OnDevice(unsigned seed, std::int64_t skipped = 0) : DeviceMemory(skipped) { prepare(seed); }

  template <class N>
  Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays) {
    Workspace memory = cuda::workspace(layout, neuron, arrays);
    if (memory.bytes > 0) memory.data = bytes(memory.bytes);
    const Status status = cuda::forward(layout, neuron, arrays, memory);
    return finish() ? status : Status::cuda;
  }
  template <class N>
  Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                  const typename N::Backward& arrays) {
    Workspace memory = cuda::workspace(layout, neuron, arrays);
    if (memory.bytes > 0) memory.data = bytes(memory.bytes);
    const Status status = cuda::backward(layout, neuron, method, surrogate, arrays, memory);
    return finish() ? status : Status::cuda;
  }
};

}   // namespace exodus::test
