/// @file
/// The CUDA runtime under the shim: devices that share the host's memory, and errors where a test wants them.
#pragma once

#include <cstdlib>
#include <string_view>

using cudaStream_t = struct CUstream_st*;

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorIllegalAddress = 700 };

struct cudaPointerAttributes {
  int device;
  void* devicePointer;
};

namespace exodus::cuda::shim {

/// A machine with two devices.
struct Runtime {
  int current = 0;                   ///< the current device
  int of_memory = 0;                 ///< the device that all memory is of
  int synchronized = -1;             ///< the device that was current when a stream was waited for
  const char* fault = nullptr;       ///< the operation that fails: "launch", "attributes", "set", "wait"
  cudaError_t error = cudaSuccess;   ///< the last one, until somebody asks
  int launches = 0;                  ///< kernels that were started
};
inline Runtime runtime;

/// Whether an operation fails: a test, or the environment variable EXODUS_SHIM_FAULT, says so. The runtime then remembers the error.
inline bool fails(std::string_view operation) {
  const char* const wanted = runtime.fault != nullptr ? runtime.fault : std::getenv("EXODUS_SHIM_FAULT");
  if (wanted == nullptr || wanted != operation) return false;
  runtime.error = cudaErrorIllegalAddress;
  return true;
}

}   // namespace exodus::cuda::shim

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorIllegalAddress ? "an illegal memory access was encountered" : "invalid argument";
}

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = exodus::cuda::shim::runtime.error;
  exodus::cuda::shim::runtime.error = cudaSuccess;
  return error;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = exodus::cuda::shim::runtime.current;
  return cudaSuccess;
}

inline cudaError_t cudaSetDevice(int device) {
  auto& runtime = exodus::cuda::shim::runtime;
  if (exodus::cuda::shim::fails("set")) return runtime.error;
  if (device < 0 || device > 1) return runtime.error = cudaErrorInvalidValue;
  runtime.current = device;
  return cudaSuccess;
}

/// Null is no memory.
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  if (exodus::cuda::shim::fails("attributes")) return exodus::cuda::shim::runtime.error;
  *attributes = {exodus::cuda::shim::runtime.of_memory, const_cast<void*>(memory)};
  return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  auto& runtime = exodus::cuda::shim::runtime;
  runtime.synchronized = runtime.current;
  return exodus::cuda::shim::fails("wait") ? runtime.error : cudaSuccess;
}
