/// @file
/// Recurrent weights on a device (docs/mathematics.md, Recurrence):
///
///     a'[n] = a[n] + s[n-1] W        e'[n] = e[n] + W g[n+1]        dL/dW = sum over steps and entries of s[n-1]^T g[n]
///
/// with g[n] = dL/da'[n]. If a block can have a thread for each neuron of a batch entry, a pass is one launch, and the neurons exchange
/// spikes and gradients through shared memory. Wider entries run step by step: one launch for the product, one for the step, and the
/// neurons' state between steps is in the workspace.
///
/// In the forward pass, the order of the sum is part of the interface: over the features that fired, in ascending order, starting from 0,
/// without fused multiply-adds. The backward pass first recomputes the total current a' if the adjoint reads it.
#pragma once

#include "reduce.hpp"
#include "tiles.hpp"

namespace exodus::cuda {

/// The steps of a launch, and the workspace of passes with recurrent weights; null if not needed.
template <class V>
struct RecurrentMemory {
  std::int64_t begin = 0, end = 0;            ///< steps
  V* transposed = nullptr;                    ///< backward: the transposed weights
  V* total_current = nullptr;                 ///< backward: a' of all steps, one array over the neurons per step
  bool sums_current = true, adjoins = true;   ///< backward: whether the launch computes a', and whether it runs the adjoint

  // Arrays over the neurons, for passes that run step by step:
  V* sums = nullptr;           ///< the product s W or W g of the current step
  V* gradient = nullptr;       ///< g of the following step
  V* carry = nullptr;          ///< the carry of the adjoint, one array per field
  V* state[max_states] = {};   ///< the state before the current step
};

/// Rows of the weights that are loaded at once, in a sum over the features that fired and in one over all features.
constexpr int rows_ahead = 4, dense_rows_ahead = 8;

/// sum + values[0] weights[0] + ..., skipping values that are 0, in this order.
template <class V, int Rows>
EXODUS_DEVICE_SCALAR V add_products(const V (&values)[Rows], const V (&weights)[Rows], V sum) {
  EXODUS_UNROLL
  for (int k = 0; k < Rows; ++k) sum = values[k] != V(0) ? sum + values[k] * weights[k] : sum;
  return sum;
}

/// Exchanges spikes and gradients between the neurons of a batch entry. Shared memory has two buffers, used alternately, so that one
/// barrier per exchange is enough. Each buffer has one value per thread, and one word per warp whose bits are the threads that fired.
template <class V>
class Exchange {
 public:
  EXODUS_DEVICE Exchange(const Recurrence<V>& recurrent, const Groups& groups, const RecurrentMemory<V>& memory, SharedPointer<V> shared)
      : recurrent_(recurrent), groups_(groups), memory_(memory), shared_(shared) {}

  EXODUS_DEVICE bool given() const { return recurrent_.weights != nullptr; }

  /// Selects the neurons of a place.
  EXODUS_DEVICE void enter(const Place& place) {
    neuron_ = place.neuron, active_ = place.active;
    if (groups_.features == 0) return;
    first_ = static_cast<int>(threadIdx.x) / groups_.features * groups_.features;
    feature_ = static_cast<int>(threadIdx.x) - first_;
  }

  /// s W, for the spikes of the previous step. All threads of a block must call this together; give() and gathered() too.
  EXODUS_DEVICE V from_spikes(V spikes) {
    if (groups_.features == 0) return active_ ? memory_.sums[neuron_] : V(0);
    const unsigned fired = __ballot_sync(0xffffffffu, active_ && spikes != V(0));
    next_turn();
    const int thread = static_cast<int>(threadIdx.x);
    shared_[turn_ + thread] = spikes;
    if (thread % warp_threads == 0) shared_[word(thread / warp_threads)] = __builtin_bit_cast(V, BitsOf<V>{fired});
    __syncthreads();
    return active_ ? sum_of_fired() : V(0);
  }

  /// Publishes g of this step for the previous step, which the pass processes next.
  EXODUS_DEVICE void give(V gradient) {
    if (groups_.features == 0) {
      if (active_) memory_.gradient[neuron_] = gradient;
      return;
    }
    next_turn();
    shared_[turn_ + static_cast<int>(threadIdx.x)] = gradient;
    __syncthreads();
  }

  /// W g, for the g of the following step.
  EXODUS_DEVICE V gathered() const {
    if (!active_) return V(0);
    if (groups_.features == 0) return memory_.sums[neuron_];
    const int features = groups_.features;
    V sum = V(0);
    int k = 0;
    for (; k + dense_rows_ahead <= features; k += dense_rows_ahead) {
      V weights[dense_rows_ahead];
      EXODUS_UNROLL
      for (int d = 0; d < dense_rows_ahead; ++d) weights[d] = memory_.transposed[(k + d) * features + feature_];
      EXODUS_UNROLL
      for (int d = 0; d < dense_rows_ahead; ++d) sum = multiply_add(V(shared_[turn_ + first_ + k + d]), weights[d], sum);
    }
    for (; k < features; ++k) sum = multiply_add(V(shared_[turn_ + first_ + k]), memory_.transposed[k * features + feature_], sum);
    return sum;
  }

 private:
  EXODUS_DEVICE void next_turn() { turn_ = turn_ == 0 ? groups_.threads + warp_threads : 0; }
  EXODUS_DEVICE int word(int warp) const { return turn_ + groups_.threads + warp; }

  /// An entry spans several warps, or a warp contains several entries.
  EXODUS_DEVICE V sum_of_fired() const {
    const int features = groups_.features;
    const std::uint32_t own = features < warp_threads ? (1u << features) - 1 : 0xffffffffu;
    V sum = V(0);
    for (int begin = 0; begin < features; begin += warp_threads) {
      const auto all = static_cast<std::uint32_t>(__builtin_bit_cast(BitsOf<V>, V(shared_[word(begin / warp_threads)])));
      for (std::uint32_t fired = all >> first_ & own; fired != 0;) sum = add_some(fired, begin, sum);
    }
    return sum;
  }

  /// Adds the products of the next features of a word and clears their bits.
  EXODUS_DEVICE V add_some(std::uint32_t& fired, int begin, V sum) const {
    V values[rows_ahead], weights[rows_ahead];
    EXODUS_UNROLL
    for (int d = 0; d < rows_ahead; ++d) {
      const bool there = fired != 0;
      const int source = begin + (there ? lowest_bit(fired) : 0);
      values[d] = there ? V(shared_[turn_ + first_ + source]) : V(0);
      weights[d] = there ? recurrent_.weights[source * groups_.features + feature_] : V(0);
      fired &= fired - 1;
    }
    return add_products(values, weights, sum);
  }

  const Recurrence<V>& recurrent_;
  const Groups& groups_;
  const RecurrentMemory<V>& memory_;
  SharedPointer<V> shared_;
  std::int64_t neuron_ = 0;
  bool active_ = false;
  int first_ = 0;     ///< the thread of the entry's first feature
  int feature_ = 0;   ///< the feature of this thread's neuron
  int turn_ = 0;      ///< the offset of the current buffer
};

/// The shared memory of an Exchange, in bytes per block.
template <class V>
EXODUS_DEVICE_SCALAR constexpr std::size_t exchange_bytes(int threads) {
  return 2 * static_cast<std::size_t>(threads + warp_threads) * sizeof(V);
}

/// The layout of the neurons of batch entries.
struct Entries {
  std::int64_t neurons, features, repeat;

  template <class V>
  Entries(const Layout& layout, const Recurrence<V>& recurrent)
      : neurons(layout.outer * layout.inner), features(recurrent.features), repeat(recurrent.repeat) {}
};

/// to[k][f] = from[f][k], both features x features.
template <class V>
Status transpose(const V* from, std::int64_t features, V* to, cudaStream_t stream);

/// out[j] = the sum over the features k of j's entry of spikes[k] * weights[k][feature of j]. It skips spikes that are 0, in ascending
/// order, without fused multiply-adds. Null spikes give 0.
template <class V>
Status multiply_spikes(const Entries& entries, const V* spikes, const V* weights, V* out, cudaStream_t stream);

/// The same product for mostly nonzero values, with fused multiply-adds. If `adds`, it is added to out[j].
template <class V>
Status multiply(const Entries& entries, const V* values, const V* matrix, V* out, bool adds, cudaStream_t stream);

/// The gradient of recurrent weights, after a pass: sum over steps and entries of s[n-1]^T g[n].
template <class V>
struct WeightGradient {
  Layout layout;
  Entries entries;
  Source spikes, gradient;      ///< s and g of all steps
  const V* initial = nullptr;   ///< the spikes of step -1
  double* parts = nullptr;      ///< weight_parts() sums of features x features
};

/// The number of partial sums into which the steps and entries are divided.
std::int64_t weight_parts(const Layout& layout, std::int64_t features);

/// Computes these partial sums.
template <class V>
Status sum_weights(const WeightGradient<V>& gradient, cudaStream_t stream);

}   // namespace exodus::cuda
