/// @file
/// Access to arrays that may be stored in two bytes per element. Kernels are compiled for the arithmetic type only and receive the format
/// at run time; it is the same for all threads. Compiling them for each format would double their number.
///
/// Loaded values stay bits, in registers and in shared memory, until they are used: converting them at once would wait for the load.
/// Doubles have a single format, so none of this is compiled for them.
#pragma once

#include <type_traits>

#include "call.hpp"
#include "launch.hpp"

namespace exodus::cuda {

/// A call with its storage format, as passed to kernels.
template <template <class, class> class Call, class V>
struct Formatted : Call<V, void> {
  Format format = Format::arithmetic;
};

/// An array to read; null if it is missing.
struct Source {
  const void* data = nullptr;
  Format format = Format::arithmetic;
};

template <class V>
EXODUS_DEVICE_SCALAR bool in_halves(Format format) {
  return std::is_same_v<V, float> && format != Format::arithmetic;
}

template <class V>
using BitsOf = std::conditional_t<sizeof(V) == 4, std::uint32_t, std::uint64_t>;

/// The bits of an element, held in a V.
template <class V>
EXODUS_DEVICE_SCALAR V carried(std::uint16_t half) {
  return __builtin_bit_cast(V, BitsOf<V>{half});
}
template <class V>
EXODUS_DEVICE_SCALAR V carried(V whole) {
  return whole;
}

/// The element of type T (the bits of a half, or V) that a V holds.
template <class T, class V>
EXODUS_DEVICE_SCALAR T from_bits(V bits) {
  if constexpr (std::is_same_v<T, V>) {
    return bits;
  } else {
    return static_cast<T>(__builtin_bit_cast(BitsOf<V>, bits));
  }
}

/// Converts the bits of elements to numbers, in place.
template <class V, int D>
EXODUS_DEVICE_SCALAR void decode(Format format, V (&values)[D]) {
  if (!in_halves<V>(format)) return;
  if (format == Format::float16) {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) values[d] = V(to_float(float16{from_bits<std::uint16_t>(values[d])}));
  } else {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) values[d] = V(to_float(bfloat16{from_bits<std::uint16_t>(values[d])}));
  }
}

/// Converts numbers to the bits of elements, in place.
template <class V, int D>
EXODUS_DEVICE_SCALAR void encode(Format format, V (&values)[D]) {
  if (!in_halves<V>(format)) return;
  if (format == Format::float16) {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) values[d] = carried<V>(to_float16(static_cast<float>(values[d])).bits);
  } else {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) values[d] = carried<V>(to_bfloat16(static_cast<float>(values[d])).bits);
  }
}

/// The bits of element k.
template <class V>
EXODUS_DEVICE_SCALAR V bits_at(const Source& source, std::int64_t k) {
  if (in_halves<V>(source.format)) return carried<V>(static_cast<const std::uint16_t*>(source.data)[k]);
  return static_cast<const V*>(source.data)[k];
}

template <class V>
EXODUS_DEVICE_SCALAR void put_bits(void* array, Format format, std::int64_t k, V bits) {
  if (in_halves<V>(format)) {
    static_cast<std::uint16_t*>(array)[k] = from_bits<std::uint16_t>(bits);
  } else {
    static_cast<V*>(array)[k] = bits;
  }
}

/// Element k as a number.
template <class V>
EXODUS_DEVICE_SCALAR V element(const Source& source, std::int64_t k) {
  V value[1] = {bits_at<V>(source, k)};
  decode(source.format, value);
  return value[0];
}

}   // namespace exodus::cuda
