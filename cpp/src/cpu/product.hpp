/// @file
/// Products of spikes with weights (exodus/product.hpp) on the CPU. The spikes of a row, or of a column, choose rows of a matrix, whose sum
/// stays in registers.
#pragma once

#include "plan.hpp"
#include "rows.hpp"
#include "store.hpp"

namespace exodus::cpu {
namespace {

/// The bits of one word of a row: the elements that are not 0, and those that are neither 0 nor 1.
struct WordBits {
  std::uint64_t spikes = 0, others = 0;
};

template <class V>
WordBits pack_numbers(const V* x, std::int64_t count) {
  WordBits word;
  std::int64_t k = 0;
  for (; k + simd_lanes<V> <= count; k += simd_lanes<V>) {
    const Vector<V> values = load(x + k);
    const std::uint64_t spikes = nonzero_lanes<V>(values);
    word.spikes |= spikes << k;
    word.others |= (spikes & nonzero_lanes<V>(values - V(1))) << k;
  }
  for (; k < count; ++k) {
    word.spikes |= std::uint64_t{x[k] != V(0)} << k;
    word.others |= std::uint64_t{x[k] != V(0) && x[k] != V(1)} << k;
  }
  return word;
}

/// Packs elements, which are converted if they have two bytes.
template <class V, class E>
WordBits pack_word(const E* x, std::int64_t count) {
  if constexpr (std::is_same_v<E, V>) return pack_numbers(x, count);
  V numbers[64];
  read_lanes(numbers, x, count);
  return pack_numbers(numbers, count);
}

/// Packs the rows of a task.
template <class V>
void pack_rows(const PackPlan<V>& plan, std::int64_t task) {
  const ProductShape& shape = plan.shape;
  const std::int64_t words = packed_words(shape.inputs), begin = task * plan.task_rows, end = smaller(shape.rows, begin + plan.task_rows);
  SpikeCount count;
  with_elements<V>(plan.x, plan.format, [&](const auto* x) {
    for (std::int64_t row = begin; row < end; ++row) {
      for (std::int64_t w = 0; w < words; ++w) {
        const WordBits word = pack_word<V>(x + row * plan.row_stride + w * 64, smaller(std::int64_t{64}, shape.inputs - w * 64));
        plan.bits[row * words + w] = word.spikes;
        count.spikes += __builtin_popcountll(word.spikes);
        count.binary = count.binary && word.others == 0;
      }
    }
  });
  plan.counts[task] = count;
}

/// The numbers of spikes, read as V. Without `nothrow` GCC makes an exception table at -O0, with a symbol that objects could share.
template <class V>
struct SpikeValues {
  const void* values;
  Format format;
  [[gnu::nothrow]] V operator[](std::int64_t k) const {
    V number;
    with_elements<V>(values, format, [&](const auto* elements) { number = number_of<V>(elements[k]); });
    return number;
  }
};

/// Adds `Vectors` vectors of the weights' rows, from column `first`, where a row has spikes.
template <int Vectors, bool Binary, class V>
EXODUS_SCALAR void add_weights(const ProductPlan<V>& plan, const std::uint64_t* bits, std::int64_t value, std::int64_t first,
                               Vector<V> (&sums)[Vectors]) {
  const std::int64_t words = packed_words(plan.shape.inputs);
  const SpikeValues<V> values{plan.values, plan.format};
  for (std::int64_t w = 0; w < words; ++w) {
    const V* const weights = plan.weights.first + w * 64 * plan.weights.stride + first;
    for (std::uint64_t word = bits[w]; word != 0; word &= word - 1) {
      const V* const row = weights + __builtin_ctzll(word) * plan.weights.stride;
      if constexpr (Binary) {
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sums[v] += load(row + v * simd_lanes<V>);
      } else {
        const Vector<V> spike = broadcast(values[value++]);
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sums[v] = sums[v] + spike * load(row + v * simd_lanes<V>);
      }
    }
  }
}

/// Computes `Vectors` vectors of columns of y from column `first`, for the rows of a task.
template <int Vectors, bool Binary, class V>
void product_columns(const ProductPlan<V>& plan, std::int64_t begin, std::int64_t end, std::int64_t first) {
  const std::int64_t words = packed_words(plan.shape.inputs), outputs = plan.shape.outputs, columns = outputs - first;
  const bool whole = columns >= Vectors * simd_lanes<V> && plan.format == Format::arithmetic;
  for (std::int64_t row = begin; row < end; ++row) {
    Vector<V> sums[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sums[v] = load(plan.bias + first + v * simd_lanes<V>);
    add_weights<Vectors, Binary, V>(plan, plan.bits + row * words, Binary ? 0 : plan.first[row], first, sums);
    if (whole) {
      V* const y = static_cast<V*>(plan.y) + row * outputs + first;
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) store_vector(y + v * simd_lanes<V>, sums[v], plan.stream);
    } else {
      V numbers[Vectors * simd_lanes<V>];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) store(numbers + v * simd_lanes<V>, sums[v]);
      with_elements<V>(plan.y, plan.format, [&](auto* y) {
        write_lanes(y + row * outputs + first, numbers, smaller(columns, std::int64_t{Vectors} * simd_lanes<V>));
      });
    }
  }
  if (plan.stream) finish_streaming();
}

/// Calls f(std::integral_constant<int, vectors>) for 1 to product_vectors vectors.
template <int Most = product_vectors, class F>
EXODUS_SCALAR void with_vectors(std::int64_t vectors, F f) {
  if constexpr (Most == 1) {
    f(std::integral_constant<int, 1>{});
  } else if (vectors >= Most) {
    f(std::integral_constant<int, Most>{});
  } else {
    with_vectors<Most - 1>(vectors, f);
  }
}

/// The rows of a task of y = x w + b.
template <class V>
void product_rows(const ProductPlan<V>& plan, std::int64_t task) {
  const std::int64_t begin = task * plan.task_rows, end = smaller(plan.shape.rows, begin + plan.task_rows);
  for (std::int64_t first = 0; first < plan.shape.outputs; first += product_vectors * simd_lanes<V>) {
    with_vectors((plan.shape.outputs - first + simd_lanes<V> - 1) / simd_lanes<V>, [&](auto vectors) {
      if (plan.values == nullptr) {
        product_columns<vectors, true>(plan, begin, end, first);
      } else {
        product_columns<vectors, false>(plan, begin, end, first);
      }
    });
  }
}

/// Transposes a word of 512 rows: bit r % 64 of columns[k][r / 64] is bit k of the word of row r.
EXODUS_SCALAR void transpose_bits(std::uint64_t (&columns)[64][product_chunk / 64]) {
  constexpr int groups = product_chunk / 64;
  std::uint64_t mask = 0x00000000ffffffff;
  for (int distance = 32; distance != 0; distance /= 2, mask ^= mask << distance) {
    for (int k = 0; k < 64; k = (k + distance + 1) & ~distance) {
      for (int g = 0; g < groups; g += simd_lanes<std::uint64_t>) {
        const Vector<std::uint64_t> low = load(columns[k] + g), high = load(columns[k + distance] + g);
        const Vector<std::uint64_t> swapped = ((low >> distance) ^ high) & mask;
        store(columns[k + distance] + g, high ^ swapped);
        store(columns[k] + g, low ^ (swapped << distance));
      }
    }
  }
}

/// Part of the gradient of the weights: a range of rows, and a strip of columns.
template <class V>
class ProductGradientTile {
 public:
  ProductGradientTile(const ProductGradientPlan<V>& plan, std::int64_t task, int thread) : plan_(plan), shape_(plan.shape) {
    const std::int64_t part = task / plan.strips;
    first_ = task % plan.strips * plan.strip_lanes;
    begin_ = part * plan.part_rows, end_ = smaller(shape_.rows, begin_ + plan.part_rows);
    partial_ = plan.partials + part * (shape_.inputs + 1) * plan.stride + first_;
    Arena arena(plan.slots + static_cast<std::size_t>(thread) * plan.slot_bytes);
    const ProductMemory<V> memory(arena, plan.strip_lanes);
    g_ = memory.g, values_ = memory.values;
  }

  void run() {
    const std::int64_t lanes = smaller(plan_.strip_lanes, plan_.stride - first_);
    for (std::int64_t k = 0; k <= shape_.inputs; ++k) clear_row(partial_ + k * plan_.stride, static_cast<int>(lanes));
    with_vectors(lanes / simd_lanes<V>, [&](auto vectors) {
      for (std::int64_t row = begin_; row < end_; row += product_chunk)
        add_chunk<vectors>(row, smaller(std::int64_t{product_chunk}, end_ - row));
    });
  }

 private:
  static constexpr int groups = product_chunk / 64;

  /// Adds some rows, at most product_chunk.
  template <int Vectors>
  void add_chunk(std::int64_t row, std::int64_t count) {
    const std::int64_t words = packed_words(shape_.inputs);
    const V* g = take_gradients(row, count);
    add_all<Vectors>(g, count, partial_ + shape_.inputs * plan_.stride);
    for (std::int64_t r = 0; plan_.values != nullptr && r < count; ++r) values_[r] = plan_.first[row + r];
    alignas(64) std::uint64_t columns[64][groups], of_rows[product_chunk];
    for (std::int64_t w = 0; w < words; ++w) {
      for (std::int64_t r = 0; r < product_chunk; ++r) {
        of_rows[r] = r < count ? plan_.bits[(row + r) * words + w] : 0;
        columns[r % 64][r / 64] = of_rows[r];
      }
      transpose_bits(columns);
      const int inputs = static_cast<int>(smaller(std::int64_t{64}, shape_.inputs - w * 64));
      for (int k = 0; k < inputs; ++k) {
        Vector<V> sums[Vectors] = {};
        if (plan_.values == nullptr) {
          add_column<Vectors, true>(columns[k], g, of_rows, k, sums);
        } else {
          add_column<Vectors, false>(columns[k], g, of_rows, k, sums);
        }
        add<Vectors>(sums, partial_ + (w * 64 + k) * plan_.stride);
      }
      for (std::int64_t r = 0; plan_.values != nullptr && r < count; ++r) values_[r] += __builtin_popcountll(of_rows[r]);
    }
  }

  /// The rows of g of a chunk from this strip's first column, and sets their stride. They are copied if they are of two bytes, or if their
  /// vectors would exceed the last row.
  const V* take_gradients(std::int64_t row, std::int64_t count) {
    const std::int64_t lanes = smaller(plan_.strip_lanes, shape_.outputs - first_);
    if (plan_.format == Format::arithmetic && lanes % simd_lanes<V> == 0) {
      g_stride_ = shape_.outputs;
      return static_cast<const V*>(plan_.grad_y) + row * shape_.outputs + first_;
    }
    g_stride_ = plan_.strip_lanes;
    with_elements<V>(plan_.grad_y, plan_.format, [&](const auto* grad_y) {
      for (std::int64_t r = 0; r < count; ++r) {
        read_lanes(g_ + r * g_stride_, grad_y + (row + r) * shape_.outputs + first_, lanes);
        for (std::int64_t j = lanes; j % simd_lanes<V> != 0; ++j) g_[r * g_stride_ + j] = V(0);
      }
    });
    return g_;
  }

  /// Adds the sum of all rows, the gradient of the bias.
  template <int Vectors>
  void add_all(const V* g, std::int64_t count, V* to) const {
    if (!plan_.with_bias) return;
    Vector<V> sums[Vectors] = {};
    for (std::int64_t r = 0; r < count; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) sums[v] += load(g + r * g_stride_ + v * simd_lanes<V>);
    }
    add<Vectors>(sums, to);
  }

  /// Adds the rows in which a column has a spike.
  template <int Vectors, bool Binary>
  [[gnu::always_inline]] void add_column(const std::uint64_t (&column)[groups], const V* g, const std::uint64_t* of_rows, int k,
                                         Vector<V> (&sums)[Vectors]) const {
    const SpikeValues<V> values{plan_.values, plan_.format};
    for (int group = 0; group < groups; ++group) {
      for (std::uint64_t word = column[group]; word != 0; word &= word - 1) {
        const int r = group * 64 + __builtin_ctzll(word);
        const V* const row = g + r * g_stride_;
        if constexpr (Binary) {
#pragma GCC unroll 8
          for (int v = 0; v < Vectors; ++v) sums[v] += load(row + v * simd_lanes<V>);
        } else {
          const std::int64_t earlier = __builtin_popcountll(of_rows[r] & ((std::uint64_t{1} << k) - 1));
          const Vector<V> spike = broadcast(values[values_[r] + earlier]);
#pragma GCC unroll 8
          for (int v = 0; v < Vectors; ++v) sums[v] = add_product<true, V>(spike, load(row + v * simd_lanes<V>), sums[v]);
        }
      }
    }
  }

  template <int Vectors>
  static void add(const Vector<V> (&sums)[Vectors], V* to) {
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) store(to + v * simd_lanes<V>, load(to + v * simd_lanes<V>) + sums[v]);
  }

  const ProductGradientPlan<V>& plan_;
  const ProductShape& shape_;
  std::int64_t first_, begin_, end_, g_stride_ = 0;
  V *partial_, *g_;
  std::int64_t* values_;
};

template <class V>
void product_gradient_tile(const ProductGradientPlan<V>& plan, std::int64_t task, int thread) {
  ProductGradientTile<V>(plan, task, thread).run();
}

/// The product of a row of weights with a row of g, of which `Vectors` are in registers, as lanes that are still to be summed.
template <int Vectors, class V>
EXODUS_SCALAR Vector<V> product_of_rows(const Vector<V> (&g)[Vectors], const V* weights) {
  Vector<V> even = g[0] * load(weights), odd{};
#pragma GCC unroll 8
  for (int v = 1; v < Vectors; ++v) {
    Vector<V>& sum = v % 2 == 0 ? even : odd;
    sum = add_product<true, V>(g[v], load(weights + v * simd_lanes<V>), sum);
  }
  return even + odd;
}

/// Rows of the gradient of x. The elements that are wanted are products of rows. As many as a vector has lanes are summed at a time.
template <class V>
class ProductInputRows {
  static constexpr std::int64_t rows_ahead = 4;   // a row has too few lines for the processor to find the next ones by itself

 public:
  ProductInputRows(const ProductInputPlan<V>& plan, int thread)
      : plan_(plan),
        shape_(plan.shape),
        arena_(plan.slots + static_cast<std::size_t>(thread) * plan.slot_bytes),
        memory_(arena_, plan.shape, plan.weights.stride) {
    for (std::int64_t j = shape_.outputs; j < plan.weights.stride; ++j) memory_.g[j] = V(0);
  }

  void run(std::int64_t row) {
    const V* const g = take_gradient(row);
    clear_row(memory_.grad_x, packed_words(shape_.inputs) * 64);
    for (std::int64_t first = 0; first < plan_.weights.stride; first += product_vectors * simd_lanes<V>) {
      with_vectors((plan_.weights.stride - first) / simd_lanes<V>, [&](auto vectors) { add_strip<vectors>(row, g, first); });
    }
    store_row(row);
  }

 private:
  /// A row of the incoming gradient as numbers, with zeros up to the stride.
  const V* take_gradient(std::int64_t row) const {
    if (plan_.format == Format::arithmetic && shape_.outputs == plan_.weights.stride) {
      const V* const g = static_cast<const V*>(plan_.grad_y) + row * shape_.outputs;
      for (std::int64_t j = 0; j < shape_.outputs; j += line_lanes<V>) __builtin_prefetch(g + rows_ahead * shape_.outputs + j);
      return g;
    }
    with_elements<V>(plan_.grad_y, plan_.format,
                     [&](const auto* grad_y) { read_lanes(memory_.g, grad_y + row * shape_.outputs, shape_.outputs); });
    return memory_.g;
  }

  /// Adds the products of a strip of columns, `Vectors` vectors of which g stays in registers.
  template <int Vectors>
  void add_strip(std::int64_t row, const V* g, std::int64_t first) {
    const std::int64_t words = packed_words(shape_.inputs);
    Vector<V> of_row[Vectors];
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) of_row[v] = load(g + first + v * simd_lanes<V>);
    int count = 0;
    for (std::int64_t w = 0; w < words; ++w) {
      for (std::uint64_t word = plan_.wanted[row * words + w]; word != 0; word &= word - 1) {
        const std::int64_t k = w * 64 + __builtin_ctzll(word);
        inputs_[count] = k;
        products_[count] = product_of_rows<Vectors, V>(of_row, plan_.weights.first + k * plan_.weights.stride + first);
        if (++count == simd_lanes<V>) add_sums(count), count = 0;
      }
    }
    if (count > 0) add_sums(count);
  }

  /// Adds the sums of the first products to the gradient.
  void add_sums(int count) {
    V sums[simd_lanes<V>];
    store(sums, sums_of_lanes<V>(products_));
    for (int k = 0; k < count; ++k) memory_.grad_x[inputs_[k]] += sums[k];
  }

  void store_row(std::int64_t row) const {
    if (plan_.stream) {
      V* const to = static_cast<V*>(plan_.grad_x) + row * shape_.inputs;
      for (std::int64_t k = 0; k < shape_.inputs; k += simd_lanes<V>) stream_vector(to + k, load(memory_.grad_x + k));
    } else {
      with_elements<V>(plan_.grad_x, plan_.format,
                       [&](auto* grad_x) { write_lanes(grad_x + row * shape_.inputs, memory_.grad_x, shape_.inputs); });
    }
  }

  const ProductInputPlan<V>& plan_;
  const ProductShape& shape_;
  Arena arena_;
  const ProductInputMemory<V> memory_;
  Vector<V> products_[simd_lanes<V>] = {};    ///< as lanes that are still to be summed; those beyond the last are of earlier rows
  std::int64_t inputs_[simd_lanes<V>] = {};   ///< whose gradients the sums are
};

/// The rows of a task of the gradient of x.
template <class V>
void product_input_rows(const ProductInputPlan<V>& plan, std::int64_t task, int thread) {
  ProductInputRows<V> rows(plan, thread);
  const std::int64_t begin = task * plan.task_rows, end = smaller(plan.shape.rows, begin + plan.task_rows);
  for (std::int64_t row = begin; row < end; ++row) rows.run(row);
  if (plan.stream) finish_streaming();
}

}   // namespace
}   // namespace exodus::cpu
