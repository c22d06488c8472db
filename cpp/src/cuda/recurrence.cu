/// @file
/// What passes over recurrent weights need beside the models' kernels: products over the neurons of entries, and the gradient of the
/// weights.
#include "recurrence.hpp"

#include "items.hpp"

namespace exodus::cuda {
namespace {

template <class V>
EXODUS_KERNEL(item_threads)
transpose_kernel(const V* from, std::int64_t features, V* to) {
  for (std::int64_t item = first_item(); item < features * features; item += next_item()) {
    to[item] = from[item % features * features + item / features];
  }
}

/// A thread for each neuron.
template <class V>
EXODUS_KERNEL(item_threads)
multiply_kernel(EXODUS_GRID_CONSTANT Entries entries, const V* values, const V* matrix, V* out, bool adds) {
  for (std::int64_t neuron = first_item(); neuron < entries.neurons; neuron += next_item()) {
    const std::int64_t feature = neuron / entries.repeat % entries.features;
    const std::int64_t first = neuron - feature * entries.repeat;   // of the entry
    V sum = V(0);
    for (std::int64_t k = 0; values != nullptr && k < entries.features; k += rows_ahead) {
      V value[rows_ahead], weights[rows_ahead];
      EXODUS_UNROLL
      for (int d = 0; d < rows_ahead; ++d) value[d] = k + d < entries.features ? values[first + (k + d) * entries.repeat] : V(0);
      EXODUS_UNROLL
      for (int d = 0; d < rows_ahead; ++d) weights[d] = value[d] != V(0) ? matrix[(k + d) * entries.features + feature] : V(0);
      sum = add_products(value, weights, sum);
    }
    out[neuron] = adds ? out[neuron] + sum : sum;
  }
}

// A warp sums the gradients of the weights from some features, which it keeps in registers, to as many as it has lanes.
constexpr int weight_sources = 8, weight_terms = 64;   // terms summed in V before they go to the doubles
constexpr int weight_warps = item_threads / warp_threads;

/// Where step 0 of a neuron lies.
EXODUS_DEVICE_SCALAR std::int64_t offset_of(const Layout& layout, std::int64_t neuron) {
  return neuron / layout.inner * layout.time * layout.inner + neuron % layout.inner;
}

/// The neuron of an entry's feature.
EXODUS_DEVICE_SCALAR std::int64_t neuron_of(const Entries& entries, std::int64_t entry, std::int64_t feature) {
  return ((entry / entries.repeat) * entries.features + feature) * entries.repeat + entry % entries.repeat;
}

/// What a warp sums.
template <class V>
class WeightTile {
 public:
  EXODUS_DEVICE WeightTile(const WeightGradient<V>& gradient, std::int64_t tile)
      : gradient_(gradient), lane_(static_cast<int>(threadIdx.x) % warp_threads) {
    const std::int64_t features = gradient.entries.features, columns = (features + warp_threads - 1) / warp_threads;
    source_ = (tile / columns * weight_warps + static_cast<int>(threadIdx.x) / warp_threads) * weight_sources;
    target_ = tile % columns * warp_threads + lane_;
  }

  /// The terms of an entry at steps [begin, end).
  EXODUS_DEVICE void add(std::int64_t entry, std::int64_t begin, std::int64_t end) {
    const Entries& entries = gradient_.entries;
    const bool has_source = lane_ < weight_sources && source_ + lane_ < entries.features, has_target = target_ < entries.features;
    const std::int64_t source = neuron_of(entries, entry, has_source ? source_ + lane_ : 0);
    const std::int64_t of_source = offset_of(gradient_.layout, source), inner = gradient_.layout.inner;
    const std::int64_t of_target = offset_of(gradient_.layout, neuron_of(entries, entry, has_target ? target_ : 0));
    for (std::int64_t step = begin; step < end; ++step) {
      V count = V(0);
      if (has_source && step > 0) count = element<V>(gradient_.spikes, of_source + (step - 1) * inner);
      if (has_source && step == 0 && gradient_.initial != nullptr) count = gradient_.initial[source];
      const unsigned fired = __ballot_sync(0xffffffffu, count != V(0));
      if (fired == 0) continue;
      const V g = has_target ? element<V>(gradient_.gradient, of_target + step * inner) : V(0);
      EXODUS_UNROLL
      for (int k = 0; k < weight_sources; ++k) {
        const V own = __shfl_sync(0xffffffffu, count, k);
        if ((fired >> k & 1) != 0) partial_[k] = multiply_add(own, g, partial_[k]);
      }
      if (++terms_ == weight_terms) move();
    }
  }

  EXODUS_DEVICE void store(double* sums) {
    move();
    EXODUS_UNROLL
    for (int k = 0; k < weight_sources; ++k) {
      const std::int64_t features = gradient_.entries.features, source = source_ + k;
      if (source < features && target_ < features) sums[source * features + target_] = sums_[k];
    }
  }

 private:
  EXODUS_DEVICE void move() {
    EXODUS_UNROLL
    for (int k = 0; k < weight_sources; ++k) sums_[k] += static_cast<double>(partial_[k]), partial_[k] = V(0);
    terms_ = 0;
  }

  const WeightGradient<V>& gradient_;
  const int lane_;
  std::int64_t source_, target_;
  int terms_ = 0;
  V partial_[weight_sources] = {};
  double sums_[weight_sources] = {};
};

std::int64_t weight_tiles(std::int64_t features) {
  const std::int64_t sources = weight_warps * weight_sources;
  return (features + sources - 1) / sources * ((features + warp_threads - 1) / warp_threads);
}

/// A block for each tile and share of the entries and steps.
template <class V>
EXODUS_KERNEL(item_threads)
weight_gradient_kernel(EXODUS_GRID_CONSTANT WeightGradient<V> gradient, std::int64_t tiles, std::int64_t parts) {
  const std::int64_t time = gradient.layout.time, features = gradient.entries.features;
  const std::int64_t items = gradient.entries.neurons / features * time, share = (items + parts - 1) / parts;
  for (std::int64_t work = blockIdx.x; work < tiles * parts; work += gridDim.x) {
    const std::int64_t part = work / tiles, last = (part + 1) * share < items ? (part + 1) * share : items;
    WeightTile<V> tile(gradient, work % tiles);
    for (std::int64_t item = part * share; item < last;) {
      const std::int64_t entry = item / time, begin = item - entry * time, left = last - item;
      const std::int64_t end = time - begin < left ? time : begin + left;
      tile.add(entry, begin, end);
      item += end - begin;
    }
    tile.store(gradient.parts + part * features * features);
  }
}

}   // namespace

template <class V>
Status transpose(const V* from, std::int64_t features, V* to, cudaStream_t stream) {
  return launch(transpose_kernel<V>, {blocks_of(features * features), item_threads}, stream, from, features, to);
}

template <class V>
Status multiply(const Entries& entries, const V* values, const V* matrix, V* out, bool adds, cudaStream_t stream) {
  return launch(multiply_kernel<V>, {blocks_of(entries.neurons), item_threads}, stream, entries, values, matrix, out, adds);
}

std::int64_t weight_parts(const Layout& layout, std::int64_t features) {
  constexpr std::int64_t blocks = 1024, least_items = 64;
  const std::int64_t items = layout.outer * layout.inner / features * layout.time;
  const std::int64_t wanted = blocks / weight_tiles(features), most = items / least_items;
  return wanted < 1 || most < 1 ? 1 : (wanted < most ? wanted : most);
}

template <class V>
Status sum_weights(const WeightGradient<V>& gradient, cudaStream_t stream) {
  const std::int64_t features = gradient.entries.features, tiles = weight_tiles(features);
  const std::int64_t parts = weight_parts(gradient.layout, features);
  return launch(weight_gradient_kernel<V>, {blocks_for(tiles * parts), item_threads}, stream, gradient, tiles, parts);
}

template Status transpose(const float*, std::int64_t, float*, cudaStream_t);
template Status transpose(const double*, std::int64_t, double*, cudaStream_t);
template Status multiply(const Entries&, const float*, const float*, float*, bool, cudaStream_t);
template Status multiply(const Entries&, const double*, const double*, double*, bool, cudaStream_t);
template Status sum_weights(const WeightGradient<float>&, cudaStream_t);
template Status sum_weights(const WeightGradient<double>&, cudaStream_t);

}   // namespace exodus::cuda
