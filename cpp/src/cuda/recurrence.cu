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

// A block computes the gradients of the weights from 64 source features to 128 target features: a warp those from weight_sources of the
// sources, a lane those to weight_targets of the targets. Their sums in V are in registers, those in double in the workspace. Spikes and
// gradients of weight_steps steps are staged in shared memory; those of the next ones are loaded meanwhile.
constexpr int weight_threads = 256, weight_sources = 8, weight_targets = 4, weight_steps = 16;
constexpr int block_sources = weight_threads / warp_threads * weight_sources, block_targets = warp_threads * weight_targets;
constexpr int weight_terms = 256;   // summed in V before they are added to the doubles

/// The offset of step 0 of a neuron.
EXODUS_DEVICE_SCALAR std::int64_t offset_of(const Layout& layout, std::int64_t neuron) {
  return neuron / layout.inner * layout.time * layout.inner + neuron % layout.inner;
}

/// The neuron of an entry's feature.
EXODUS_DEVICE_SCALAR std::int64_t neuron_of(const Entries& entries, std::int64_t entry, std::int64_t feature) {
  return ((entry / entries.repeat) * entries.features + feature) * entries.repeat + entry % entries.repeat;
}

/// The gradients of the weights that a block computes, over steps of some entries.
template <class V>
class WeightTile {
 public:
  EXODUS_DEVICE WeightTile(const WeightGradient<V>& gradient, SharedPointer<V> spikes, SharedPointer<V> gradients, std::int64_t tile,
                           double* sums)
      : gradient_(gradient), sums_(sums), spikes_(spikes), gradients_(gradients) {
    const std::int64_t columns = (gradient.entries.features + block_targets - 1) / block_targets;
    source_ = tile / columns * block_sources, target_ = tile % columns * block_targets;
  }

  /// Adds the terms of the steps numbered from `begin` to `end`, entry by entry. All threads of a block must call this together.
  EXODUS_DEVICE void add(std::int64_t begin, std::int64_t end) {
    left_ = end - begin, entry_ = begin / gradient_.layout.time, step_ = begin % gradient_.layout.time;
    if (left_ > 0) enter(), load();
    while (loaded_ > 0) {
      __syncthreads();
      store();
      __syncthreads();
      load();
      multiply();
    }
    move();
  }

 private:
  // A thread loads spikes of one feature, of every so many steps, and gradients of one.
  static constexpr int spike_stride = weight_threads / block_sources, own_spikes = weight_steps / spike_stride;
  static constexpr int gradient_stride = weight_threads / block_targets, own_gradients = weight_steps / gradient_stride;

  EXODUS_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }
  EXODUS_DEVICE static int lane() { return thread() % warp_threads; }
  EXODUS_DEVICE static int warp() { return thread() / warp_threads; }
  EXODUS_DEVICE std::int64_t loaded_source() const { return source_ + thread() % block_sources; }
  EXODUS_DEVICE std::int64_t loaded_target() const { return target_ + thread() % block_targets; }

  /// Finds the entry's neurons whose arrays this thread loads, and the spikes of step -1.
  EXODUS_DEVICE void enter() {
    const std::int64_t source = neuron_of(gradient_.entries, entry_, loaded_source());
    of_source_ = offset_of(gradient_.layout, source);
    of_target_ = offset_of(gradient_.layout, neuron_of(gradient_.entries, entry_, loaded_target()));
    const bool given = gradient_.initial != nullptr && loaded_source() < gradient_.entries.features;
    initial_ = given ? gradient_.initial[source] : V(0);
  }

  /// Loads the bits of this thread's share of the next steps, which are of one entry.
  EXODUS_DEVICE void load() {
    const std::int64_t time = gradient_.layout.time, inner = gradient_.layout.inner, features = gradient_.entries.features;
    if (step_ == time && left_ > 0) ++entry_, step_ = 0, enter();
    loaded_ = steps_up_to(left_ < time - step_ ? left_ : time - step_);
    const int of_spikes = thread() / block_sources, of_gradients = thread() / block_targets;   // the thread's first step among them
    const std::int64_t spikes = of_source_ + (step_ + of_spikes - 1) * inner, gradients = of_target_ + (step_ + of_gradients) * inner;
    EXODUS_UNROLL
    for (int d = 0; d < own_spikes; ++d) {
      const int k = of_spikes + d * spike_stride;
      const bool there = k < loaded_ && step_ + k > 0 && loaded_source() < features;
      next_spikes_[d] = there ? bits_at<V>(gradient_.spikes, spikes + d * (spike_stride * inner)) : V(0);
    }
    EXODUS_UNROLL
    for (int d = 0; d < own_gradients; ++d) {
      const bool there = of_gradients + d * gradient_stride < loaded_ && loaded_target() < features;
      next_gradients_[d] = there ? bits_at<V>(gradient_.gradient, gradients + d * (gradient_stride * inner)) : V(0);
    }
    step_ += loaded_, left_ -= loaded_;
  }
  EXODUS_DEVICE static int steps_up_to(std::int64_t count) { return static_cast<int>(count < weight_steps ? count : weight_steps); }

  EXODUS_DEVICE void store() {
    decode(gradient_.spikes.format, next_spikes_), decode(gradient_.gradient.format, next_gradients_);
    if (step_ == loaded_ && thread() < block_sources) next_spikes_[0] = initial_;
    EXODUS_UNROLL
    for (int d = 0; d < own_spikes; ++d) spikes_[thread() + d * weight_threads] = next_spikes_[d];
    EXODUS_UNROLL
    for (int d = 0; d < own_gradients; ++d) gradients_[thread() + d * weight_threads] = next_gradients_[d];
  }

  /// Adds the terms of the staged steps. A source that did not fire costs the test of a bit.
  EXODUS_DEVICE void multiply() {
    constexpr int together = warp_threads / weight_sources;
    for (int first = 0; first < weight_steps; first += together) {
      const V own = spikes_[(first + lane() / weight_sources) * block_sources + warp() * weight_sources + lane() % weight_sources];
      const unsigned fired = __ballot_sync(0xffffffffu, own != V(0));
      EXODUS_UNROLL
      for (int d = 0; d < together; ++d) {
        const unsigned now = fired >> (d * weight_sources) & ((1u << weight_sources) - 1);
        if (now == 0) continue;
        V gradients[weight_targets];
        read(first + d, gradients);
        EXODUS_UNROLL
        for (int k = 0; k < weight_sources; ++k) {
          if ((now >> k & 1) == 0) continue;
          const V spikes = __shfl_sync(0xffffffffu, own, d * weight_sources + k);
          EXODUS_UNROLL
          for (int j = 0; j < weight_targets; ++j) partial_[k][j] = multiply_add(spikes, gradients[j], partial_[k][j]);
        }
        ++terms_;
      }
    }
    if (terms_ > weight_terms - weight_steps) move();
  }

  EXODUS_DEVICE void read(int step, V (&gradients)[weight_targets]) const {
    const int at = step * block_targets + lane() * weight_targets;
    if constexpr (sizeof(V) == 4) {
      const Four<V> four = load_shared_four<V>(gradients_, at);
      EXODUS_UNROLL
      for (int j = 0; j < weight_targets; ++j) gradients[j] = four.at[j];
    } else {
      EXODUS_UNROLL
      for (int j = 0; j < weight_targets; ++j) gradients[j] = gradients_[at + j];
    }
  }

  /// Adds the sums in V to those in double; the first ones overwrite the memory.
  EXODUS_DEVICE void move() {
    const std::int64_t features = gradient_.entries.features;
    EXODUS_UNROLL
    for (int k = 0; k < weight_sources; ++k) {
      EXODUS_UNROLL
      for (int j = 0; j < weight_targets; ++j) {
        const std::int64_t source = source_ + warp() * weight_sources + k, target = target_ + lane() * weight_targets + j;
        if (source < features && target < features) {
          double& sum = sums_[source * features + target];
          sum = static_cast<double>(partial_[k][j]) + (moved_ ? sum : 0.0);
        }
        partial_[k][j] = V(0);
      }
    }
    terms_ = 0, moved_ = true;
  }

  const WeightGradient<V>& gradient_;
  double* const sums_;
  SharedPointer<V> spikes_, gradients_;
  std::int64_t source_, target_;         ///< the block's first features
  std::int64_t left_, entry_, step_;     ///< of the next load: the steps that are left, the entry, and the first step
  std::int64_t of_source_, of_target_;   ///< the offsets of step 0 of the neurons that this thread loads
  int loaded_ = 0;                       ///< steps
  V initial_, next_spikes_[own_spikes], next_gradients_[own_gradients];
  int terms_ = 0;   ///< the most terms that a sum in V has
  bool moved_ = false;
  V partial_[weight_sources][weight_targets] = {};
};

std::int64_t weight_tiles(std::int64_t features) {
  return (features + block_sources - 1) / block_sources * ((features + block_targets - 1) / block_targets);
}

/// One block per tile and share of the entries' steps.
template <class V>
EXODUS_KERNEL_OF(weight_threads, (sizeof(V) == 4 ? 2 : 1))
weight_gradient_kernel(EXODUS_GRID_CONSTANT WeightGradient<V> gradient, std::int64_t tiles, std::int64_t parts) {
  const std::int64_t features = gradient.entries.features;
  const std::int64_t items = gradient.entries.neurons / features * gradient.layout.time, share = (items + parts - 1) / parts;
  EXODUS_SHARED(V, spikes, weight_steps * block_sources);
  EXODUS_SHARED(V, gradients, weight_steps * block_targets);
  for (std::int64_t work = blockIdx.x; work < tiles * parts; work += gridDim.x) {
    const std::int64_t part = work / tiles, end = (part + 1) * share < items ? (part + 1) * share : items;
    WeightTile<V> tile(gradient, spikes, gradients, work % tiles, gradient.parts + part * features * features);
    tile.add(part * share, end);
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
  constexpr std::int64_t blocks = 512, least_items = 256;
  const std::int64_t items = layout.outer * layout.inner / features * layout.time;
  const std::int64_t wanted = blocks / weight_tiles(features), most = items / least_items;
  return wanted < 1 || most < 1 ? 1 : (wanted < most ? wanted : most);
}

template <class V>
Status sum_weights(const WeightGradient<V>& gradient, cudaStream_t stream) {
  const std::int64_t features = gradient.entries.features, tiles = weight_tiles(features);
  const std::int64_t parts = weight_parts(gradient.layout, features);
  return launch(weight_gradient_kernel<V>, {blocks_for(tiles * parts), weight_threads}, stream, gradient, tiles, parts);
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
