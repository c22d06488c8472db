/// @file
/// Copying a block of lanes to its place in an array: the one function with intrinsics.
#pragma once

#include <cstdint>

#include "exodus/macros.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace exodus::cpu {
namespace {

template <class V>
EXODUS_SCALAR void copy_lanes(V* to, const V* from, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = from[i];
}

/// With `around_caches`, by streaming stores: a plain store reads the line that it overwrites. Call finish_streaming() after the last.
template <class V>
EXODUS_SCALAR void store_lanes(V* to, const V* from, int lanes, bool around_caches) {
#if defined(__SSE2__)
  if (around_caches) {
#if defined(__AVX512F__)
    using Vector = __m512i;
#elif defined(__AVX__)
    using Vector = __m256i;
#else
    using Vector = __m128i;
#endif
    constexpr int width = sizeof(Vector) / sizeof(V);
    const auto misaligned = static_cast<int>(reinterpret_cast<std::uintptr_t>(to) % sizeof(Vector) / sizeof(V));
    const int head = misaligned == 0 ? 0 : (width - misaligned < lanes ? width - misaligned : lanes);
    int i = 0;
    for (; i < head; ++i) to[i] = from[i];
    for (; i + width <= lanes; i += width) {
      Vector vector;
      __builtin_memcpy(&vector, from + i, sizeof vector);
#if defined(__AVX512F__)
      _mm512_stream_si512(reinterpret_cast<Vector*>(to + i), vector);
#elif defined(__AVX__)
      _mm256_stream_si256(reinterpret_cast<Vector*>(to + i), vector);
#else
      _mm_stream_si128(reinterpret_cast<Vector*>(to + i), vector);
#endif
    }
    for (; i < lanes; ++i) to[i] = from[i];
    return;
  }
#endif
  copy_lanes(to, from, lanes);
}

EXODUS_SCALAR void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}   // namespace
}   // namespace exodus::cpu
