/// @file
/// Moving lanes between arrays and tiles: copies, transposes, stores that scale.
#pragma once

#include "simd.hpp"

namespace exodus::cpu {
namespace {

template <class V>
EXODUS_SCALAR void copy_lanes(V* to, const V* from, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = from[i];
}

/// Transposes rows x columns elements: to[c * to_stride + r] = from[r * from_stride + c].
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

/// to[i] = factor * from[i], for `around_caches` by streaming stores. Call finish_streaming() after the last.
template <class V>
EXODUS_SCALAR void store_scaled(V* to, const V* from, V factor, int lanes, bool around_caches) {
  if (has_streaming_stores && around_caches) {
    return stream_lanes(
        to, lanes, [&](int i) __attribute__((always_inline)) { return factor * from[i]; },
        [&](int i) __attribute__((always_inline)) -> Vector<V> { return factor * load(from + i); });
  }
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = factor * from[i];
}

/// The same without a factor (multiplying by the constant 1 is nothing).
template <class V>
EXODUS_SCALAR void store_lanes(V* to, const V* from, int lanes, bool around_caches) {
  store_scaled(to, from, V(1), lanes, around_caches);
}

}   // namespace
}   // namespace exodus::cpu
