/// @file
/// Moving lanes between arrays and tiles: copies, transposes, stores that scale.
#pragma once

#include <type_traits>

#include "../call.hpp"
#include "simd.hpp"

namespace exodus::cpu {
namespace {

template <class V>
EXODUS_SCALAR void copy_lanes(V* to, const V* from, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = from[i];
}

template <class V>
EXODUS_SCALAR V number_of(V element) {
  return element;
}
template <class V>
EXODUS_SCALAR V number_of(float16 element) {
  return V(to_float(element));
}
template <class V>
EXODUS_SCALAR V number_of(bfloat16 element) {
  return V(to_float(element));
}

template <class V>
EXODUS_SCALAR void set_element(V& element, V number) {
  element = number;
}
template <class V>
EXODUS_SCALAR void set_element(float16& element, V number) {
  element = to_float16(static_cast<float>(number));
}
template <class V>
EXODUS_SCALAR void set_element(bfloat16& element, V number) {
  element = to_bfloat16(static_cast<float>(number));
}

/// Whether a processor converts elements by an instruction.
template <class V, class E>
constexpr bool has_conversion = std::is_same_v<V, float> && (std::is_same_v<E, float16> && half_vector > 0);

/// Reads elements as numbers, and writes numbers as elements.
template <class V, class E>
EXODUS_SCALAR void read_lanes(V* numbers, const E* elements, std::int64_t count) {
  if constexpr (std::is_same_v<V, E>) return copy_by_vectors(numbers, elements, count);
  std::int64_t i = 0;
  if constexpr (has_conversion<V, E>) {
    for (; i + half_vector <= count; i += half_vector) halves_to_floats(numbers + i, elements + i);
  }
  EXODUS_LANES
  for (; i < count; ++i) numbers[i] = number_of<V>(elements[i]);
}

template <class V, class E>
EXODUS_SCALAR void write_lanes(E* elements, const V* numbers, std::int64_t count) {
  if constexpr (std::is_same_v<V, E>) return copy_by_vectors(elements, numbers, count);
  std::int64_t i = 0;
  if constexpr (has_conversion<V, E>) {
    for (; i + half_vector <= count; i += half_vector) floats_to_halves(elements + i, numbers + i);
  }
  EXODUS_LANES
  for (; i < count; ++i) set_element<V>(elements[i], numbers[i]);
}

/// Calls f with an array of the elements that a format names. Doubles have one format only.
template <class V, class Array, class F>
EXODUS_SCALAR void with_elements(Array* array, Format format, F f) {
  using Wide = std::conditional_t<std::is_const_v<Array>, const V, V>;
  if constexpr (std::is_same_v<V, float>) {
    if (format == Format::float16) return f(static_cast<std::conditional_t<std::is_const_v<Array>, const float16, float16>*>(array));
    if (format == Format::bfloat16) return f(static_cast<std::conditional_t<std::is_const_v<Array>, const bfloat16, bfloat16>*>(array));
  }
  f(static_cast<Wide*>(array));
}

/// Calls f with the beginnings of pieces of `size` that cover `count` >= size. The last may overlap the one before it.
template <class F>
EXODUS_SCALAR void for_overlapping(std::int64_t count, std::int64_t size, F f) {
  std::int64_t begin = 0;
  for (; begin + size <= count; begin += size) f(begin);
  if (begin < count) f(count - size);
}

/// Transposes rows x columns elements: to[c * to_stride + r] = from[r * from_stride + c].
template <class V>
void transpose(const V* from, std::int64_t from_stride, V* to, std::int64_t to_stride, std::int64_t rows, std::int64_t columns) {
  const std::int64_t least = rows < columns ? rows : columns, size = least < 4 ? 1 : (least < simd_lanes<V> ? 4 : simd_lanes<V>);
  for_overlapping(rows, size, [&](std::int64_t r) {
    for_overlapping(columns, size, [&](std::int64_t c) {
      const V* const square = from + r * from_stride + c;
      V* const transposed = to + c * to_stride + r;
      if (size == simd_lanes<V>) {
        transpose_square(square, from_stride, transposed, to_stride);
      } else if (size == 4) {
        transpose_quad(square, from_stride, transposed, to_stride);
      } else {
        *transposed = *square;
      }
    });
  });
}

/// to[i] = factor * from[i], with streaming stores if `around_caches`. Call finish_streaming() after the last.
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

/// The same without a factor (multiplying by the constant 1 costs nothing).
template <class V>
EXODUS_SCALAR void store_lanes(V* to, const V* from, int lanes, bool around_caches) {
  store_scaled(to, from, V(1), lanes, around_caches);
}

}   // namespace
}   // namespace exodus::cpu
