/// @file
/// Kernels for recurrent weights that do not depend on the model (docs/mathematics.md, Recurrence): products over the neurons of batch
/// entries, and the gradient of the weights.
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

/// The tiles of a product. A tile is the product of the values of one or several entries with the columns of some features; a block
/// computes one tile at a time.
struct ProductTiles {
  Entries entries;
  std::int64_t count;        ///< the number of entries
  Divisor columns, repeat;   ///< columns: the number of tiles per entry

  ProductTiles(const Entries& of, int features)
      : entries(of), count(of.neurons / of.features), columns((of.features + features - 1) / features), repeat(of.repeat) {}

  /// The neuron of an entry's first feature. The neurons of consecutive features are `repeat` apart.
  EXODUS_DEVICE std::int64_t first_of(std::int64_t entry) const {
    const std::int64_t turn = quotient(entry, repeat);
    return turn * entries.features * repeat.value + (entry - turn * repeat.value);
  }
};

/// A list of the nonzero spikes of an entry, in ascending order of their features. It covers `span` features at a time, `own` per thread.
template <class V>
class FiredList {
 public:
  static constexpr int own = 8, span = own * item_threads, warps = item_threads / warp_threads;

  EXODUS_DEVICE FiredList(SharedPointer<int> features, SharedPointer<V> spikes, SharedPointer<int> of_warps)
      : features_(features), spikes_(spikes), of_warps_(of_warps) {}

  /// Lists the spikes of features [begin, begin + span). All threads of a block must call this together.
  EXODUS_DEVICE void fill(const Entries& entries, const V* spikes, std::int64_t first, std::int64_t begin) {
    const int lane = static_cast<int>(threadIdx.x) % warp_threads, warp = static_cast<int>(threadIdx.x) / warp_threads;
    V values[own];
    EXODUS_UNROLL
    for (int d = 0; d < own; ++d) {
      const std::int64_t k = begin + (warp * own + d) * warp_threads + lane;
      values[d] = k < entries.features ? spikes[first + k * entries.repeat] : V(0);
    }
    std::uint32_t fired[own];
    int found = 0;
    EXODUS_UNROLL
    for (int d = 0; d < own; ++d) fired[d] = __ballot_sync(0xffffffffu, values[d] != V(0)), found += bits_set(fired[d]);
    if (lane == 0) of_warps_[warp] = found;
    __syncthreads();
    int slot = 0;
    size_ = 0;
    for (int k = 0; k < warps; ++k) {
      const int of_warp = of_warps_[k];
      if (k < warp) slot += of_warp;
      size_ += of_warp;
    }
    EXODUS_UNROLL
    for (int d = 0; d < own; ++d) {
      if (values[d] != V(0)) {
        const int at = slot + bits_set(fired[d] & ((1u << lane) - 1));
        features_[at] = (warp * own + d) * warp_threads + lane, spikes_[at] = values[d];
      }
      slot += bits_set(fired[d]);
    }
    __syncthreads();
  }

  /// sum + the products of the listed spikes with a column; column[0] is the weight of feature `begin`.
  EXODUS_DEVICE V add(const V* column, std::int64_t stride, V sum) const {
    for (int k = 0; k < size_; k += dense_rows_ahead) {
      V values[dense_rows_ahead], weights[dense_rows_ahead];
      EXODUS_UNROLL
      for (int d = 0; d < dense_rows_ahead; ++d) {
        values[d] = k + d < size_ ? V(spikes_[k + d]) : V(0);
        weights[d] = k + d < size_ ? column[int(features_[k + d]) * stride] : V(0);
      }
      sum = add_products(values, weights, sum);
    }
    return sum;
  }

 private:
  SharedPointer<int> features_;
  SharedPointer<V> spikes_;
  SharedPointer<int> of_warps_;
  int size_ = 0;
};

/// A block computes one entry at a time, with one column per thread.
template <class V>
EXODUS_KERNEL(item_threads)
multiply_spikes_kernel(EXODUS_GRID_CONSTANT ProductTiles tiles, const V* spikes, const V* weights, V* out) {
  using List = FiredList<V>;
  EXODUS_SHARED(int, fired_features, List::span);
  EXODUS_SHARED(V, fired_spikes, List::span);
  EXODUS_SHARED(int, of_warps, List::warps);
  List fired(fired_features, fired_spikes, of_warps);
  const Entries& entries = tiles.entries;
  for (std::int64_t tile = blockIdx.x; tile < tiles.count * tiles.columns.value; tile += gridDim.x) {
    const std::int64_t entry = quotient(tile, tiles.columns), first = tiles.first_of(entry);
    const std::int64_t feature = (tile - entry * tiles.columns.value) * item_threads + threadIdx.x;
    const bool active = feature < entries.features;
    V sum = V(0);
    for (std::int64_t begin = 0; spikes != nullptr && begin < entries.features; begin += List::span) {
      fired.fill(entries, spikes, first, begin);
      if (active) sum = fired.add(weights + begin * entries.features + feature, entries.features, sum);
    }
    if (active) out[first + feature * entries.repeat] = sum;
  }
}

/// The product of a tile of entries with a tile of columns, computed by one block. Values and weights are staged in shared memory; those of
/// the next features are loaded while the current ones are multiplied.
template <class V>
class ProductTile {
 public:
  static constexpr int entries = 32, columns = 32, depth = 32;   // the size of a tile; depth: features per stage
  static constexpr int own_entries = 2, own_columns = 4;         // the outputs of a thread
  static constexpr int pitch = entries + 2;                      // the stores of neighbouring lanes are two banks apart
  static constexpr int parts = item_threads / warp_threads, loads = depth / parts;

  EXODUS_DEVICE ProductTile(const ProductTiles& tiles, const V* values, const V* matrix, SharedPointer<V> of_entries,
                            SharedPointer<V> of_columns, std::int64_t tile)
      : all_(tiles), values_(values), matrix_(matrix), of_entries_(of_entries), of_columns_(of_columns) {
    const std::int64_t row = quotient(tile, tiles.columns);
    entry_ = row * entries, column_ = (tile - row * tiles.columns.value) * columns;
    EXODUS_UNROLL
    for (int d = 0; d < loads; ++d) first_[d] = tiles.first_of(entry_ + part(d));
  }

  /// Sums over all features in ascending order.
  EXODUS_DEVICE void multiply() {
    const int first = own_entry(), column = own_column();
    load(0);
    for (std::int64_t begin = 0; begin < all_.entries.features; begin += depth) {
      __syncthreads();
      store();
      __syncthreads();
      load(begin + depth);
      EXODUS_UNROLL
      for (int k = 0; k < depth; ++k) {
        V value[own_entries], weight[own_columns];
        EXODUS_UNROLL
        for (int d = 0; d < own_entries; ++d) value[d] = of_entries_[k * pitch + first + d];
        EXODUS_UNROLL
        for (int d = 0; d < own_columns; ++d) weight[d] = of_columns_[k * columns + column + d];
        EXODUS_UNROLL
        for (int i = 0; i < own_entries; ++i) {
          EXODUS_UNROLL
          for (int j = 0; j < own_columns; ++j) sums_[i][j] = multiply_add(value[i], weight[j], sums_[i][j]);
        }
      }
    }
  }

  EXODUS_DEVICE void write(V* out, bool adds) const {
    EXODUS_UNROLL
    for (int i = 0; i < own_entries; ++i) {
      const std::int64_t entry = entry_ + own_entry() + i, first = all_.first_of(entry);
      EXODUS_UNROLL
      for (int j = 0; j < own_columns; ++j) {
        const std::int64_t column = column_ + own_column() + j;
        if (entry >= all_.count || column >= all_.entries.features) continue;
        V& to = out[first + column * all_.entries.repeat];
        to = adds ? to + sums_[i][j] : sums_[i][j];
      }
    }
  }

 private:
  static constexpr int columns_of_threads = columns / own_columns;
  EXODUS_DEVICE static int lane() { return static_cast<int>(threadIdx.x) % warp_threads; }
  EXODUS_DEVICE static int part(int d) { return static_cast<int>(threadIdx.x) / warp_threads + d * parts; }
  EXODUS_DEVICE static int own_entry() { return static_cast<int>(threadIdx.x) / columns_of_threads * own_entries; }
  EXODUS_DEVICE static int own_column() { return static_cast<int>(threadIdx.x) % columns_of_threads * own_columns; }

  /// Loads this thread's share of features from `begin`: the values of one feature in several entries, and the weights of several features
  /// in one column.
  EXODUS_DEVICE void load(std::int64_t begin) {
    const std::int64_t features = all_.entries.features, feature = begin + lane(), column = column_ + lane();
    EXODUS_UNROLL
    for (int d = 0; d < loads; ++d) {
      const std::int64_t entry = entry_ + part(d), row = begin + part(d);
      next_values_[d] = entry < all_.count && feature < features ? values_[first_[d] + feature * all_.entries.repeat] : V(0);
      next_weights_[d] = row < features && column < features ? matrix_[row * features + column] : V(0);
    }
  }
  EXODUS_DEVICE void store() {
    EXODUS_UNROLL
    for (int d = 0; d < loads; ++d) {
      of_entries_[lane() * pitch + part(d)] = next_values_[d];
      of_columns_[part(d) * columns + lane()] = next_weights_[d];
    }
  }

  const ProductTiles& all_;
  const V* const values_;
  const V* const matrix_;
  SharedPointer<V> of_entries_;
  SharedPointer<V> of_columns_;
  std::int64_t entry_, column_, first_[loads];   ///< first_: the first neurons of the entries whose values this thread loads
  V next_values_[loads], next_weights_[loads], sums_[own_entries][own_columns] = {};
};

template <class V>
EXODUS_KERNEL(item_threads)
multiply_kernel(EXODUS_GRID_CONSTANT ProductTiles tiles, const V* values, const V* matrix, V* out, bool adds, std::int64_t count) {
  using Tile = ProductTile<V>;
  EXODUS_SHARED(V, of_entries, Tile::depth * Tile::pitch);
  EXODUS_SHARED(V, of_columns, Tile::depth * Tile::columns);
  for (std::int64_t k = blockIdx.x; k < count; k += gridDim.x) {
    Tile tile(tiles, values, matrix, of_entries, of_columns, k);
    tile.multiply();
    tile.write(out, adds);
  }
}

// A warp computes the weight gradients from weight_sources features to one target feature per lane, and keeps them in registers.
constexpr int weight_sources = 8, weight_terms = 64;   // terms summed in V before they are added to the doubles
constexpr int weight_warps = item_threads / warp_threads;

/// The offset of step 0 of a neuron.
EXODUS_DEVICE_SCALAR std::int64_t offset_of(const Layout& layout, std::int64_t neuron) {
  return neuron / layout.inner * layout.time * layout.inner + neuron % layout.inner;
}

/// The neuron of an entry's feature.
EXODUS_DEVICE_SCALAR std::int64_t neuron_of(const Entries& entries, std::int64_t entry, std::int64_t feature) {
  return ((entry / entries.repeat) * entries.features + feature) * entries.repeat + entry % entries.repeat;
}

/// The weight gradients that a warp computes.
template <class V>
class WeightTile {
 public:
  EXODUS_DEVICE WeightTile(const WeightGradient<V>& gradient, std::int64_t tile)
      : gradient_(gradient), lane_(static_cast<int>(threadIdx.x) % warp_threads) {
    const std::int64_t features = gradient.entries.features, columns = (features + warp_threads - 1) / warp_threads;
    source_ = (tile / columns * weight_warps + static_cast<int>(threadIdx.x) / warp_threads) * weight_sources;
    target_ = tile % columns * warp_threads + lane_;
  }

  /// Adds the terms of an entry at steps [begin, end).
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

/// One block per tile and share of the entries and steps.
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
Status multiply_spikes(const Entries& entries, const V* spikes, const V* weights, V* out, cudaStream_t stream) {
  const ProductTiles tiles(entries, item_threads);
  return launch(multiply_spikes_kernel<V>, {blocks_for(tiles.count * tiles.columns.value), item_threads}, stream, tiles, spikes, weights,
                out);
}

template <class V>
Status multiply(const Entries& entries, const V* values, const V* matrix, V* out, bool adds, cudaStream_t stream) {
  const ProductTiles tiles(entries, ProductTile<V>::columns);
  const std::int64_t count = (tiles.count + ProductTile<V>::entries - 1) / ProductTile<V>::entries * tiles.columns.value;
  return launch(multiply_kernel<V>, {blocks_for(count), item_threads}, stream, tiles, values, matrix, out, adds, count);
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
template Status multiply_spikes(const Entries&, const float*, const float*, float*, cudaStream_t);
template Status multiply_spikes(const Entries&, const double*, const double*, double*, cudaStream_t);
template Status multiply(const Entries&, const float*, const float*, float*, bool, cudaStream_t);
template Status multiply(const Entries&, const double*, const double*, double*, bool, cudaStream_t);
template Status sum_weights(const WeightGradient<float>&, cudaStream_t);
template Status sum_weights(const WeightGradient<double>&, cudaStream_t);

}   // namespace exodus::cuda
