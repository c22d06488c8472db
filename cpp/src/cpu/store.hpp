/// @file
/// Moving lanes between arrays and tiles: copies, transposes, and the one function with intrinsics, streaming stores.
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

template <class V>
using Quad __attribute__((vector_size(4 * sizeof(V)), may_alias)) = V;

/// to[c * to_stride + r] = from[r * from_stride + c] for 4 x 4 elements.
template <class V>
EXODUS_SCALAR void transpose_quad(const V* from, std::int64_t from_stride, V* to, std::int64_t to_stride) {
  Quad<V> row[4];
  for (int r = 0; r < 4; ++r) __builtin_memcpy(&row[r], from + r * from_stride, sizeof row[r]);
  const Quad<V> low01 = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5), high01 = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
  const Quad<V> low23 = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5), high23 = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
  const Quad<V> column[4] = {__builtin_shufflevector(low01, low23, 0, 1, 4, 5), __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
                             __builtin_shufflevector(high01, high23, 0, 1, 4, 5), __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
  for (int c = 0; c < 4; ++c) __builtin_memcpy(to + c * to_stride, &column[c], sizeof column[c]);
}

/// The same for rows x columns elements.
template <class V>
void transpose(const V* from, std::int64_t from_stride, V* to, std::int64_t to_stride, std::int64_t rows, std::int64_t columns) {
  const std::int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (std::int64_t r = 0; r < whole_rows; r += 4) {
    for (std::int64_t c = 0; c < whole_columns; c += 4) {
      transpose_quad(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
    }
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = r < whole_rows ? whole_columns : 0; c < columns; ++c) to[c * to_stride + r] = from[r * from_stride + c];
  }
}

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class V>
using Vector __attribute__((vector_size(vector_bytes), may_alias)) = V;

#if defined(__SSE2__)
/// A streaming store of a vector of any type.
template <class X>
EXODUS_SCALAR void stream_vector(void* to, X vector) {
#if defined(__AVX512F__)
  _mm512_stream_si512(static_cast<__m512i*>(to), (__m512i)vector);
#elif defined(__AVX__)
  _mm256_stream_si256(static_cast<__m256i*>(to), (__m256i)vector);
#else
  _mm_stream_si128(static_cast<__m128i*>(to), (__m128i)vector);
#endif
}
#endif

/// to[i] = factor * from[i]. With `around_caches`, by streaming stores: a plain store reads the line that it overwrites. Call
/// finish_streaming() after the last.
template <class V>
EXODUS_SCALAR void store_scaled(V* to, const V* from, V factor, int lanes, bool around_caches) {
#if defined(__SSE2__)
  if (around_caches) {
    constexpr int width = vector_bytes / sizeof(V);
    const auto misaligned = static_cast<int>(reinterpret_cast<std::uintptr_t>(to) % vector_bytes / sizeof(V));
    const int head = misaligned == 0 ? 0 : (width - misaligned < lanes ? width - misaligned : lanes);
    int i = 0;
    for (; i < head; ++i) to[i] = factor * from[i];
    for (; i + width <= lanes; i += width) {
      Vector<V> vector;
      __builtin_memcpy(&vector, from + i, sizeof vector);
      stream_vector(to + i, factor * vector);
    }
    for (; i < lanes; ++i) to[i] = factor * from[i];
    return;
  }
#endif
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = factor * from[i];
}

/// The same without a factor (multiplying by the constant 1 is nothing).
template <class V>
EXODUS_SCALAR void store_lanes(V* to, const V* from, int lanes, bool around_caches) {
  store_scaled(to, from, V(1), lanes, around_caches);
}

EXODUS_SCALAR void finish_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}   // namespace
}   // namespace exodus::cpu
