/// @file
/// Compiler glue shared by the headers; nothing here concerns neurons.
#pragma once

/// A scalar function of the mathematics. It has internal linkage, so that an object compiled for AVX-512 can never lend its copy to one
/// compiled for an older processor, and it is always inlined, so that the loop around it vectorises.
#if defined(__CUDACC__)
#define EXODUS_SCALAR static __host__ __device__ __forceinline__
/// Before a function that calls its argument: nvcc then accepts one that only the host, or only the device, can call.
#define EXODUS_CALLS_ITS_ARGUMENT _Pragma("nv_exec_check_disable")
#else
#define EXODUS_CALLS_ITS_ARGUMENT
#if defined(__clang__) && defined(__x86_64__)
// By the usual calling convention Clang returns a struct of two to four floats as vectors, even from an inlined function, and then does not
// vectorise the loop around it.
#define EXODUS_SCALAR [[maybe_unused]] static inline __attribute__((always_inline, regcall))
#else
#define EXODUS_SCALAR [[maybe_unused]] static inline __attribute__((always_inline))
#endif
#endif

/// Marks a loop over lanes: iterations are independent, whatever the pointers look like. A test checks that each of them is vectorised.
#if defined(__clang__)
#define EXODUS_LANES _Pragma("clang loop vectorize(assume_safety)")
#else
#define EXODUS_LANES _Pragma("GCC ivdep")
#endif

/// A function that the shared library exports.
#define EXODUS_API __attribute__((visibility("default")))
