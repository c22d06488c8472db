/// @file
/// Vectors: all vector types and intrinsics of the CPU engine. Models and stages use none; loops over their lanes are vectorised by the
/// compiler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "exodus/half.hpp"
#include "exodus/macros.hpp"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace exodus::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class V>
using Vector __attribute__((vector_size(vector_bytes), may_alias)) = V;

/// Lanes of a vector.
template <class V>
constexpr int simd_lanes = vector_bytes / sizeof(V);

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

/// Loads the first `count` lanes of a vector. The others are zero, and their memory is not read.
template <class V>
EXODUS_SCALAR Vector<V> load_some(const V* lanes, int count) {
  if (count == simd_lanes<V>) return load(lanes);
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

/// Stores the first `count` lanes of a vector.
template <class V, class X>
EXODUS_SCALAR void store_some(V* lanes, const X& vector, int count) {
#if defined(__AVX512F__)
  const unsigned mask = (1u << count) - 1;
  if constexpr (sizeof(V) == 4) _mm512_mask_storeu_epi32(lanes, static_cast<__mmask16>(mask), (__m512i)vector);
  if constexpr (sizeof(V) == 8) _mm512_mask_storeu_epi64(lanes, static_cast<__mmask8>(mask), (__m512i)vector);
#else
  __builtin_memcpy(lanes, &vector, static_cast<std::size_t>(count) * sizeof(V));
#endif
}

/// Copies elements by vectors. GCC turns a plain loop into a string instruction, which is slow to start.
template <class V>
EXODUS_SCALAR void copy_by_vectors(V* to, const V* from, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + simd_lanes<V> <= count; i += simd_lanes<V>) store(to + i, load(from + i));
  if (i < count) store_some(to + i, load_some(from + i, static_cast<int>(count - i)), static_cast<int>(count - i));
}

/// x in every lane.
template <class V>
EXODUS_SCALAR Vector<V> broadcast(V x) {
  return x - Vector<V>{};
}

#if defined(__SSE2__)
constexpr bool has_streaming_stores = true;

/// Stores a vector of any type around the caches; `to` must be aligned to its size. A plain store would first load the line that it
/// overwrites.
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

/// Orders streaming stores before whatever this thread does next, such as telling another thread that it is done.
EXODUS_SCALAR void finish_streaming() {
  _mm_sfence();
}
#else
constexpr bool has_streaming_stores = false;

template <class X>
EXODUS_SCALAR void stream_vector(void* to, X vector) {
  __builtin_memcpy(to, &vector, sizeof vector);
}

EXODUS_SCALAR void finish_streaming() {}
#endif

/// Stores a vector; if `around_caches`, by a streaming store, which requires alignment to a vector.
template <class V, class X>
EXODUS_SCALAR void store_vector(V* lanes, const X& vector, bool around_caches) {
  if (has_streaming_stores && around_caches) return stream_vector(lanes, vector);
  store(lanes, vector);
}

/// Streams lanes of any alignment: vector(i) computes a whole vector from lane i, element(i) a single lane before or after the aligned
/// part.
template <class V, class Element, class Whole>
EXODUS_SCALAR void stream_lanes(V* to, int lanes, Element element, Whole vector) {
  const auto past = static_cast<int>(reinterpret_cast<std::uintptr_t>(to) % vector_bytes / sizeof(V));
  const int before = past == 0 ? 0 : simd_lanes<V> - past, head = before < lanes ? before : lanes;
  int i = 0;
  for (; i < head; ++i) to[i] = element(i);
  for (; i + simd_lanes<V> <= lanes; i += simd_lanes<V>) stream_vector(to + i, vector(i));
  for (; i < lanes; ++i) to[i] = element(i);
}

template <class V>
using Quad __attribute__((vector_size(4 * sizeof(V)), may_alias)) = V;

/// Transposes 4 x 4 elements: to[c * to_stride + r] = from[r * from_stride + c].
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

/// The lanes of two vectors whose number has, or has not, the bit `Bit`, in turn: a stage of a transpose.
template <bool With, int Bit, class X, int... Lane>
EXODUS_SCALAR X lanes_by_bit(X a, X b, std::integer_sequence<int, Lane...>) {
  constexpr int lanes = sizeof...(Lane);
  return __builtin_shufflevector(
      a, b, (With ? ((Lane & Bit) != 0 ? lanes + Lane : Lane + Bit) : ((Lane & Bit) != 0 ? lanes + Lane - Bit : Lane))...);
}

/// Swaps the blocks of `Bit` x `Bit` elements beside the diagonal of each block of twice the size, down to single elements.
template <class V, int Bit, class X>
EXODUS_SCALAR void transpose_blocks(X* row) {
  if constexpr (Bit > 0) {
    constexpr std::make_integer_sequence<int, simd_lanes<V>> lanes{};
#pragma GCC unroll 16
    for (int r = 0; r < simd_lanes<V>; ++r) {
      if ((r & Bit) != 0) continue;
      const X upper = row[r], lower = row[r + Bit];
      row[r] = lanes_by_bit<false, Bit>(upper, lower, lanes), row[r + Bit] = lanes_by_bit<true, Bit>(upper, lower, lanes);
    }
    transpose_blocks<V, Bit / 2>(row);
  }
}

/// Transposes as many rows as a vector has lanes: to[c * to_stride + r] = from[r * from_stride + c].
template <class V>
EXODUS_SCALAR void transpose_square(const V* from, std::int64_t from_stride, V* to, std::int64_t to_stride) {
  Vector<V> row[simd_lanes<V>];
#pragma GCC unroll 16
  for (int r = 0; r < simd_lanes<V>; ++r) row[r] = load(from + r * from_stride);
  transpose_blocks<V, simd_lanes<V> / 2>(row);
#pragma GCC unroll 16
  for (int c = 0; c < simd_lanes<V>; ++c) store(to + c * to_stride, row[c]);
}

/// The sums of the lanes of as many vectors as a vector has lanes: lane k is that of vectors[k], which are overwritten.
template <class V, int Bit = 1, class X>
EXODUS_SCALAR X sums_of_lanes(X* vectors) {
  if constexpr (Bit == simd_lanes<V>) {
    return vectors[0];
  } else {
    constexpr std::make_integer_sequence<int, simd_lanes<V>> lanes{};
#pragma GCC unroll 8
    for (int k = 0; k < simd_lanes<V> / (2 * Bit); ++k) {
      const X even = vectors[2 * k], odd = vectors[2 * k + 1];
      vectors[k] = lanes_by_bit<false, Bit>(even, odd, lanes) + lanes_by_bit<true, Bit>(even, odd, lanes);
    }
    return sums_of_lanes<V, 2 * Bit>(vectors);
  }
}

/// Adds a vector to the same number of doubles, which fill one vector or two.
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

/// a*b + c. Only backward passes may ask for a fused one, since forward rounds the product. Intrinsics: GCC 12 scalarises the equivalent
/// element loop.
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

#if defined(__F16C__)
/// The lanes of float16 that are converted together.
constexpr int half_vector = vector_bytes / 4;
#if defined(__AVX512F__)
constexpr __mmask16 all = 0xffff;   // without a mask GCC 12 warns of its own uninitialised registers
#endif

/// Converts a vector of float16. NaN becomes the one of to_float(), whatever its bits.
EXODUS_SCALAR void halves_to_floats(float* to, const float16* from) {
#if defined(__AVX512F__)
  const __m512 numbers = _mm512_maskz_cvtph_ps(all, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  const __m512i nan = _mm512_set1_epi32(0x7fffffff);
  _mm512_storeu_ps(to, _mm512_mask_mov_ps(numbers, _mm512_cmp_ps_mask(numbers, numbers, _CMP_UNORD_Q), _mm512_castsi512_ps(nan)));
#else
  const __m256 numbers = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  _mm256_storeu_ps(to, _mm256_blendv_ps(numbers, nan, _mm256_cmp_ps(numbers, numbers, _CMP_UNORD_Q)));
#endif
}

/// Converts a vector to float16, as to_float16() does.
EXODUS_SCALAR void floats_to_halves(float16* to, const float* from) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
#if defined(__AVX512F__)
  const __m512 numbers = _mm512_loadu_ps(from);
  const __m512i nan = _mm512_set1_epi32(0x7fff), bits = _mm512_maskz_cvtepu16_epi32(all, _mm512_maskz_cvtps_ph(all, numbers, nearest));
  const __m512i halves = _mm512_mask_mov_epi32(bits, _mm512_cmp_ps_mask(numbers, numbers, _CMP_UNORD_Q), nan);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_maskz_cvtepi32_epi16(all, halves));
#else
  const __m256 numbers = _mm256_loadu_ps(from);
  const __m256i unordered = _mm256_castps_si256(_mm256_cmp_ps(numbers, numbers, _CMP_UNORD_Q));
  const __m128i is_nan = _mm_packs_epi32(_mm256_castsi256_si128(unordered), _mm256_extracti128_si256(unordered, 1));
  const __m128i halves = _mm_blendv_epi8(_mm256_cvtps_ph(numbers, nearest), _mm_set1_epi16(0x7fff), is_nan);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
#endif
}
#else
constexpr int half_vector = 0;   // no instruction for them
#endif

/// Sets lanes to zero by vector stores. GCC turns a memset, or a loop that it recognises as one, into a string instruction, which is slow
/// to start; the volatile zero keeps it from doing so.
template <class V>
EXODUS_SCALAR void clear_row(V* lanes, std::int64_t count) {
  static constexpr volatile V zero = 0;
  const Vector<V> zeros = zero - Vector<V>{};
  for (std::int64_t i = 0; i < count; i += simd_lanes<V>) store(lanes + i, zeros);
}

/// A band: the vectors of lanes that are searched for spikes together.
constexpr int band_vectors = 4;

template <class V>
constexpr int band_lanes = band_vectors * simd_lanes<V>;

/// Whether a band has an element that is not zero.
template <class V>
EXODUS_SCALAR bool any(const V* lanes) {
  Vector<std::uint64_t> bits{}, words;
  for (int v = 0; v < band_vectors; ++v) {
    __builtin_memcpy(&words, lanes + v * simd_lanes<V>, sizeof words);
    bits |= words;
  }
  std::uint64_t all = 0;
  for (int k = 0; k < vector_bytes / 8; ++k) all |= bits[k];
  return all != 0;
}

/// One bit per lane of a vector, set if the lane is not zero. NaN is not zero.
template <class V>
EXODUS_SCALAR std::uint64_t nonzero_lanes(const Vector<V>& vector) {
#if defined(__AVX512F__)
  // Inline assembly: at -O1 GCC 12 may store a mask of 16 or 8 bits to the stack and read 64 back.
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
  for (int i = 0; i < simd_lanes<V>; ++i) bits |= std::uint64_t{vector[i] != 0} << i;
  return bits;
#endif
}

/// The same for a vector in memory.
template <class V>
EXODUS_SCALAR std::uint64_t nonzero(const V* lanes) {
  return nonzero_lanes<V>(load(lanes));
}

/// The same for 64 elements.
template <class V>
EXODUS_SCALAR std::uint64_t nonzero_word(const V* elements) {
  std::uint64_t word = 0;
  for (int k = 0; k < 64; k += simd_lanes<V>) word |= nonzero(elements + k) << k;
  return word;
}

}   // namespace
}   // namespace exodus::cpu
