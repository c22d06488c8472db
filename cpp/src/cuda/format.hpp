/// @file
/// How the arrays that may be stored in two bytes lie in memory. Kernels are compiled for the type of the arithmetic alone and told the
/// format at run time, one for all threads: compiled for each, they would be twice as many.
///
/// What is read is carried as bits, in registers and in shared memory, and made a number where it is needed: made one at once, it would
/// wait for its load there. Doubles have one format alone, and nothing of this is compiled for them.
#pragma once

#include <type_traits>

#include "call.hpp"
#include "launch.hpp"

namespace exodus::cuda {

/// A call as kernels see it.
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

/// An element's bits, in a V.
template <class V>
EXODUS_DEVICE_SCALAR V carried(std::uint16_t half) {
  return __builtin_bit_cast(V, BitsOf<V>{half});
}
template <class V>
EXODUS_DEVICE_SCALAR V carried(V whole) {
  return whole;
}

/// The element of type T, a half's bits or V, that is carried.
template <class T, class V>
EXODUS_DEVICE_SCALAR T from_bits(V bits) {
  if constexpr (std::is_same_v<T, V>) {
    return bits;
  } else {
    return static_cast<T>(__builtin_bit_cast(BitsOf<V>, bits));
  }
}

/// Makes the bits of some elements their numbers.
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

/// Makes some numbers the bits of their elements.
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

/// Element k.
template <class V>
EXODUS_DEVICE_SCALAR V element(const Source& source, std::int64_t k) {
  V value[1] = {bits_at<V>(source, k)};
  decode(source.format, value);
  return value[0];
}

}   // namespace exodus::cuda
