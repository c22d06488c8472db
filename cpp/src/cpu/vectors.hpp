/// @file
/// Vectors of lanes: loads, stores, products, and which lanes are not zero.
#pragma once

#include "memory.hpp"
#include "store.hpp"

namespace exodus::cpu {
namespace {

template <class V>
constexpr int group_lanes = vector_bytes / sizeof(V);

template <class V>
EXODUS_SCALAR Vector<V> load(const V* lanes) {
  Vector<V> vector;
  __builtin_memcpy(&vector, lanes, sizeof vector);
  return vector;
}

template <class V, class X>   // X is Vector<V>, which cannot be deduced
EXODUS_SCALAR void store(V* lanes, const X& vector) {
  __builtin_memcpy(lanes, &vector, sizeof vector);
}

/// At most as many lanes as a vector has; the others are zero, and their memory is not read.
template <class V>
EXODUS_SCALAR Vector<V> load_some(const V* lanes, int count) {
  if (count == group_lanes<V>) return load(lanes);
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1;
  if constexpr (sizeof(V) == 4) return (Vector<V>)_mm512_maskz_loadu_epi32(static_cast<__mmask16>(mask), lanes);
  if constexpr (sizeof(V) == 8) return (Vector<V>)_mm512_maskz_loadu_epi64(static_cast<__mmask8>(mask), lanes);
#else
  Vector<V> vector{};
  __builtin_memcpy(&vector, lanes, static_cast<std::size_t>(count) * sizeof(V));
  return vector;
#endif
}

template <class V, class X>
EXODUS_SCALAR void store_some(V* lanes, const X& vector, int count) {
  __builtin_memcpy(lanes, &vector, static_cast<std::size_t>(count) * sizeof(V));
}

/// With `around_caches` by a streaming store, of lanes that begin on a vector.
template <class V, class X>
EXODUS_SCALAR void store_vector(V* lanes, const X& vector, bool around_caches) {
#if defined(__SSE2__)
  if (around_caches) return stream_vector(lanes, vector);
#endif
  store(lanes, vector);
}

/// Adds a vector to vectors of doubles with as many lanes together.
template <class V>
EXODUS_SCALAR void add_to_doubles(Vector<double>* sums, const Vector<V>& values) {
  if constexpr (sizeof(V) == sizeof(double)) {
    sums[0] += values;
  } else {
    using Half __attribute__((vector_size(vector_bytes / 2))) = V;
    Half half[2];
    __builtin_memcpy(half, &values, sizeof half);
    for (int h = 0; h < 2; ++h) sums[h] += __builtin_convertvector(half[h], Vector<double>);
  }
}

/// a*b + c; fused, as far as the instruction set can, for backward passes alone. (Written as a loop over the elements of a vector, GCC 12
/// took it apart and four times as long.)
template <bool Fused, class V>
EXODUS_SCALAR Vector<V> add_product(const Vector<V>& a, const Vector<V>& b, const Vector<V>& c) {
  if constexpr (Fused) {
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 4) return _mm512_fmadd_ps(a, b, c);
    if constexpr (sizeof(V) == 8) return _mm512_fmadd_pd(a, b, c);
#elif defined(__FMA__)
    if constexpr (sizeof(V) == 4) return _mm256_fmadd_ps(a, b, c);
    if constexpr (sizeof(V) == 8) return _mm256_fmadd_pd(a, b, c);
#endif
  }
  return (a * b) + c;
}

/// Clears the lanes of a row, at every step. (GCC expands a call of memset, and what it takes for one, to an instruction that took a
/// third of a forward pass; of a zero that it cannot see it makes stores.)
template <class V>
EXODUS_SCALAR void clear_row(V* lanes, int count) {
  static constexpr volatile V zero = 0;
  const Vector<V> zeros = zero - Vector<V>{};
  for (int i = 0; i < count; i += group_lanes<V>) store(lanes + i, zeros);
}

template <class V>
constexpr int band_lanes = band_vectors * group_lanes<V>;

/// Whether a band has an element that is not zero.
template <class V>
EXODUS_SCALAR bool any(const V* lanes) {
  Vector<std::uint64_t> bits{}, words;
  for (int v = 0; v < band_vectors; ++v) {
    __builtin_memcpy(&words, lanes + v * group_lanes<V>, sizeof words);
    bits |= words;
  }
  std::uint64_t all = 0;
  for (int k = 0; k < vector_bytes / 8; ++k) all |= bits[k];
  return all != 0;
}

/// A bit for each lane of a vector that is not zero; one that is not a number is not.
template <class V>
EXODUS_SCALAR std::uint64_t nonzero(const V* lanes) {
  const Vector<V> vector = load(lanes);
#if defined(__AVX512F__)
  // By an instruction, since GCC 12 may store the 16 or 8 bits of a mask to the stack and read 64 back (seen at -O1).
  std::uint32_t bits;
  if constexpr (sizeof(V) == 4) {
    asm("kmovw %1, %0" : "=r"(bits) : "k"(_mm512_cmp_ps_mask(vector, Vector<V>{}, _CMP_NEQ_UQ)));
  } else {
    asm("kmovb %1, %0" : "=r"(bits) : "k"(_mm512_cmp_pd_mask(vector, Vector<V>{}, _CMP_NEQ_UQ)));
  }
  return bits;
#elif defined(__AVX__)
  if constexpr (sizeof(V) == 4) return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(vector, Vector<V>{}, _CMP_NEQ_UQ)));
  if constexpr (sizeof(V) == 8) return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(vector, Vector<V>{}, _CMP_NEQ_UQ)));
#elif defined(__SSE2__)
  if constexpr (sizeof(V) == 4) return static_cast<unsigned>(_mm_movemask_ps(_mm_cmpneq_ps(vector, Vector<V>{})));
  if constexpr (sizeof(V) == 8) return static_cast<unsigned>(_mm_movemask_pd(_mm_cmpneq_pd(vector, Vector<V>{})));
#else
  std::uint64_t bits = 0;
  for (int i = 0; i < group_lanes<V>; ++i) bits |= std::uint64_t{vector[i] != 0} << i;
  return bits;
#endif
}

}   // namespace
}   // namespace exodus::cpu
