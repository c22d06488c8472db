/// @file
/// Recurrent weights on the CPU (docs/mathematics.md, Recurrence), an operator between a row and its inputs and results.
///
///     a'[n] = a[n] + s[n-1] W        e'[n] = e[n] + W g[n+1]        dL/dW = sum over steps and entries of s[n-1]^T g[n]
///
/// with g[n] = dL/da'[n]. Weights couple only the neurons of one batch entry, and a row has whole entries, so threads need no
/// synchronisation. The forward pass adds the rows of W whose features fired, in ascending order and without fused operations, as the
/// contract of forward bits requires. The backward pass is a matrix product over the entries of a row, and W stays in the second-level
/// cache.
#pragma once

#include "../rows.hpp"

namespace exodus::cpu {
namespace {

/// The vectors of sums that the product with spikes, and the dense product of the backward pass, keep in registers.
constexpr int spike_vectors = 8;
constexpr int dense_vectors = vector_bytes == 64 ? 4 : 2, dense_entries = 4;

/// Stores the vectors of sums that begin at `first` of `count`; the last one may be cut short.
template <int Vectors, class V>
EXODUS_SCALAR void store_sums(V* to, const Vector<V> (&sums)[Vectors], std::int64_t first, std::int64_t count) {
#pragma GCC unroll 8
  for (int v = 0; v < Vectors; ++v) {
    const std::int64_t at = first + v * simd_lanes<V>;
    if (at + simd_lanes<V> <= count) {
      store(to + at, sums[v]);
    } else if (at < count) {
      __builtin_memcpy(to + at, &sums[v], static_cast<std::size_t>(count - at) * sizeof(V));
    }
  }
}

/// Lists the features of an entry that fired, in ascending order, and returns their number. NaN and negative counts are spikes, too.
template <class V>
std::int64_t list_fired(const V* spikes, std::int64_t features, std::int64_t* fired) {
  std::int64_t count = 0, first = 0;
  for (; first + simd_lanes<V> <= features; first += simd_lanes<V>) {
    for (std::uint64_t bits = nonzero(spikes + first); bits != 0; bits &= bits - 1) fired[count++] = first + __builtin_ctzll(bits);
  }
  for (; first < features; ++first) {
    if (spikes[first] != V(0)) fired[count++] = first;
  }
  return count;
}

/// Computes `Vectors` vectors of columns of s W from column `first`: the sum of the rows of W whose features fired.
template <int Vectors, class V>
EXODUS_SCALAR void add_weight_rows(const WeightRows<V>& weights, const V* spikes, const std::int64_t* fired, std::int64_t count,
                                   std::int64_t first, std::int64_t features, V* out) {
  Vector<V> sums[Vectors] = {};
  for (std::int64_t k = 0; k < count; ++k) {
    const V* const row = weights.first + fired[k] * weights.stride + first;
    const Vector<V> spike = broadcast(spikes[fired[k]]);
#pragma GCC unroll 8
    for (int v = 0; v < Vectors; ++v) sums[v] = sums[v] + spike * load(row + v * simd_lanes<V>);
  }
  store_sums<Vectors, V>(out, sums, first, features);
}

/// s W for an entry.
template <class V>
void product_with_spikes(const WeightRows<V>& weights, const V* spikes, std::int64_t* fired, std::int64_t features, V* out) {
  const std::int64_t count = list_fired(spikes, features, fired);
  std::int64_t first = 0;
  for (; first + (spike_vectors - 1) * simd_lanes<V> < features; first += spike_vectors * simd_lanes<V>) {
    add_weight_rows<spike_vectors>(weights, spikes, fired, count, first, features, out);
  }
  for (; first < features; first += simd_lanes<V>) add_weight_rows<1>(weights, spikes, fired, count, first, features, out);
}

/// Computes `Vectors` vectors of elements of W g from element `first`, for `Entries` entries. `weights` is the transpose of W.
template <int Entries, int Vectors, class V>
EXODUS_SCALAR void multiply_columns(const WeightRows<V>& weights, const V* g, std::int64_t features, std::int64_t first, V* out) {
  Vector<V> sums[Entries][Vectors] = {};
  for (std::int64_t j = 0; j < features; ++j) {
    const V* const row = weights.first + j * weights.stride + first;
    Vector<V> weight[Vectors];
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) weight[v] = load(row + v * simd_lanes<V>);
#pragma GCC unroll 4
    for (int r = 0; r < Entries; ++r) {
      const Vector<V> value = broadcast(g[r * features + j]);
#pragma GCC unroll 4
      for (int v = 0; v < Vectors; ++v) sums[r][v] = add_product<true, V>(value, weight[v], sums[r][v]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < Entries; ++r) store_sums<Vectors, V>(out + r * features, sums[r], first, features);
}

template <int Entries, class V>
void dense_product(const WeightRows<V>& weights, const V* g, std::int64_t features, V* out) {
  std::int64_t first = 0;
  for (; first + (dense_vectors - 1) * simd_lanes<V> < features; first += dense_vectors * simd_lanes<V>) {
    multiply_columns<Entries, dense_vectors>(weights, g, features, first, out);
  }
  for (; first < features; first += simd_lanes<V>) multiply_columns<Entries, 1>(weights, g, features, first, out);
}

/// The recurrence of a row.
template <class V>
class RecurrentRow {
 public:
  RecurrentRow(const WeightRows<V>& weights, const WeightRows<V>& transposed, const Rows& rows, const Row& row,
               const RecurrentMemory<V>& memory)
      : weights_(weights), transposed_(transposed), features_(rows.features), row_(row), memory_(memory) {
    if (given() && memory_.grad_current != nullptr) clear(memory_.grad_current, row.lanes);
  }

  bool given() const { return features_ > 0; }

  /// a' of a step, as lanes of the whole row, from the current in memory and the spikes before the step.
  const V* receive(const V* spikes, const Input<V>& current) const {
    for (std::int64_t at = 0; at < row_.lanes; at += features_) {
      product_with_spikes(weights_, spikes + at, memory_.fired, features_, memory_.sums + at);
    }
    for (int b = 0; b < row_.block_count; ++b) add_sums(row_.blocks[b], current[row_.blocks[b]], memory_.current);
    return memory_.current;
  }

  /// Computes W g[n+1].
  void gather() const {
    std::int64_t at = 0;
    for (; at + dense_entries * features_ <= row_.lanes; at += dense_entries * features_) {
      dense_product<dense_entries>(transposed_, memory_.grad_current + at, features_, memory_.sums + at);
    }
    for (; at < row_.lanes; at += features_) dense_product<1>(transposed_, memory_.grad_current + at, features_, memory_.sums + at);
  }

  /// A block of e' = e + W g[n+1], where `direct` is e.
  const V* grad_spikes(const Block& block, const V* direct) const { return add_sums(block, direct, memory_.grad_spikes); }

  /// Adds the sums of gather() to other lanes of a block.
  void add_to(const Block& block, V* lanes) const {
    const V* const sums = memory_.sums + block.lane;
    EXODUS_LANES
    for (int i = 0; i < block.lanes; ++i) lanes[i] += sums[i];
  }

  V* gradient() const { return memory_.grad_current; }   ///< g[n], which gather() reads at step n-1

 private:
  const V* add_sums(const Block& block, const V* lanes, V* results) const {
    const V* const sums = memory_.sums + block.lane;
    V* const result = results + block.lane;
    EXODUS_LANES
    for (int i = 0; i < block.lanes; ++i) result[i] = lanes[i] + sums[i];
    return result;
  }

  const WeightRows<V> weights_, transposed_;
  const std::int64_t features_;
  const Row& row_;
  const RecurrentMemory<V> memory_;
};

/// The stride between consecutive features of an entry in an array over time; 0 if it is not constant, because the features span outer
/// indices.
EXODUS_SCALAR std::int64_t feature_stride(const Layout& layout, const Rows& rows) {
  if (layout.inner % (rows.features * rows.repeat) == 0) return rows.repeat;
  return rows.repeat % layout.inner == 0 ? rows.repeat * layout.time : 0;
}

/// The values of an entry's features at a step of an array over time.
template <class V>
class EntryValues {
 public:
  EntryValues(const void* array, const WeightGradientPlan<V>& plan, std::int64_t step, std::int64_t entry)
      : plan_(plan),
        array_(array),
        step_(step),
        place_(entry * plan.rows.features),
        first_(index_of(place_)),
        stride_(feature_stride(plan.layout, plan.rows)) {}

  /// Whether the values are contiguous and need no conversion.
  bool contiguous() const { return stride_ == 1 && plan_.format == Format::arithmetic; }
  const V* data() const { return static_cast<const V*>(array_) + first_; }
  V operator[](std::int64_t feature) const {
    const std::int64_t index = stride_ > 0 ? first_ + feature * stride_ : index_of(place_ + feature);
    V value;
    with_elements<V>(array_, plan_.format, [&](const auto* elements) { value = number_of<V>(elements[index]); });
    return value;
  }

 private:
  std::int64_t index_of(std::int64_t place) const { return element_index(plan_.layout, plan_.rows, step_, place); }

  const WeightGradientPlan<V>& plan_;
  const void* const array_;
  const std::int64_t step_, place_, first_, stride_;
};

/// A feature's spikes before a step; before step 0, those of the initial state.
template <class V>
V spike_before(const WeightGradientPlan<V>& plan, std::int64_t step, std::int64_t entry, std::int64_t feature) {
  if (step == 0) return plan.initial_spikes[neuron_at(plan.rows, entry * plan.rows.features + feature)];
  return EntryValues<V>(plan.spikes, plan, step - 1, entry)[feature];
}

/// Packs the features that fired before a step into bits.
template <class V>
void pack_spikes(const WeightGradientPlan<V>& plan, std::int64_t step) {
  const std::int64_t entries = plan.rows.neurons / plan.rows.features, words = words_of(plan.rows);
  for (std::int64_t entry = 0; entry < entries; ++entry) {
    std::uint64_t* const fired = plan.fired + (step * entries + entry) * words;
    for (std::int64_t word = 0; word < words; ++word) fired[word] = 0;
    if (step == 0 && plan.initial_spikes == nullptr) continue;
    std::int64_t feature = 0;
    if (step > 0) {
      const EntryValues<V> spikes(plan.spikes, plan, step - 1, entry);
      for (; spikes.contiguous() && feature + simd_lanes<V> <= plan.rows.features; feature += simd_lanes<V>) {
        fired[feature / 64] |= nonzero(spikes.data() + feature) << (feature % 64);
      }
    }
    for (; feature < plan.rows.features; ++feature) {
      fired[feature / 64] |= std::uint64_t{spike_before(plan, step, entry, feature) != V(0)} << (feature % 64);
    }
  }
}

/// One tile of the gradient of the weights. It sums some entries in the arithmetic type before it adds them to the doubles.
template <class V>
class WeightGradientTile {
 public:
  WeightGradientTile(const WeightGradientPlan<V>& plan, std::int64_t tile, V* partial)
      : plan_(plan), features_(plan.rows.features), partial_(partial) {
    const std::int64_t columns = (features_ + targets - 1) / targets;
    source_ = tile / columns * sources, target_ = tile % columns * targets;
    source_count_ = smaller(sources, features_ - source_), target_count_ = smaller(targets, features_ - target_);
  }

  void run() {
    const std::int64_t entries = plan_.rows.neurons / features_, time = plan_.layout.time;
    clear(partial_, source_count_ * targets);
    // Entries and steps in the order of memory.
    const bool by_step = plan_.layout.outer == 1;
    const std::int64_t slow = by_step ? time : entries, fast = by_step ? entries : time;
    std::int64_t added = 0;
    for (std::int64_t i = 0; i < slow; ++i) {
      for (std::int64_t k = 0; k < fast; ++k) {
        add(by_step ? i : k, by_step ? k : i);
        if (++added % partial_entries == 0) move();
      }
    }
    move();
  }

 private:
  static constexpr std::int64_t sources = weight_tile_sources, targets = weight_tile_targets;
  static constexpr std::int64_t partial_entries = 512;

  void add(std::int64_t step, std::int64_t entry) const {
    const std::int64_t entries = plan_.rows.neurons / features_;
    const std::uint64_t* const fired = plan_.fired + (step * entries + entry) * words_of(plan_.rows) + source_ / 64;
    std::uint64_t any = 0;
    for (std::int64_t word = 0; word * 64 < source_count_; ++word) any |= fired[word];
    if (any == 0) return;
    alignas(64) V g[targets] = {};
    load_gradient(step, entry, g);
    const bool counts = plan_.counts || step == 0;
    for (std::int64_t word = 0; word * 64 < source_count_; ++word) {
      for (std::uint64_t bits = fired[word]; bits != 0; bits &= bits - 1) {
        const std::int64_t source = word * 64 + __builtin_ctzll(bits);
        add_product_of(counts ? spike_before(plan_, step, entry, source_ + source) : V(1), g, partial_ + source * targets);
      }
    }
  }

  void load_gradient(std::int64_t step, std::int64_t entry, V* g) const {
    const EntryValues<V> gradient(plan_.grad_current, plan_, step, entry);
    if (gradient.contiguous()) return copy_lanes(g, gradient.data() + target_, static_cast<int>(target_count_));
    for (std::int64_t k = 0; k < target_count_; ++k) g[k] = gradient[target_ + k];
  }

  static void add_product_of(V count, const V* g, V* sums) {
    const Vector<V> factor = broadcast(count);
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < targets; k += simd_lanes<V>) store(sums + k, add_product<true, V>(factor, load(g + k), load(sums + k)));
  }

  void move() const {
    for (std::int64_t source = 0; source < source_count_; ++source) {
      move_sums(plan_.sums + (source_ + source) * features_ + target_, partial_ + source * targets, static_cast<int>(target_count_));
      clear(partial_ + source * targets, targets);
    }
  }

  const WeightGradientPlan<V>& plan_;
  const std::int64_t features_;
  V* const partial_;
  std::int64_t source_, target_, source_count_, target_count_;
};

template <class V>
void weight_gradient(const WeightGradientPlan<V>& plan, std::int64_t tile, int thread) {
  Arena arena(plan.slots + thread * plan.slot_bytes);
  WeightGradientTile<V>(plan, tile, arena.take<V>(weight_tile_sources * weight_tile_targets)).run();
}

}   // namespace
}   // namespace exodus::cpu
