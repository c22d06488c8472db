/// @file
/// Recurrent weights on a device (docs/mathematics.md, Recurrence):
///
///     a'[n] = a[n] + s[n-1] W        e'[n] = e[n] + W g[n+1]        dL/dW = sum over steps and entries of s[n-1]^T g[n]
///
/// with g[n] = dL/da'[n]. Where a block has a thread for each neuron of a batch entry, a pass is one launch, and what neurons give each
/// other goes through shared memory. Wider entries are taken step by step: a launch for the product, one for the step, and what a neuron
/// keeps from step to step in the workspace.
///
/// Forward, the order of the sum is part of the interface: over the features that fired, ascending, from 0, nothing fused. Backward, what
/// the current was with the recurrence, a', is summed again before the pass where something reads it.
#pragma once

#include "reduce.hpp"
#include "tiles.hpp"

namespace exodus::cuda {

/// Which steps a launch takes, and what passes over recurrent weights work in; null: not needed.
template <class V>
struct RecurrentMemory {
  std::int64_t begin = 0, end = 0;            ///< steps
  V* transposed = nullptr;                    ///< backward: the weights
  V* total_current = nullptr;                 ///< backward: a' of all steps, an array over the neurons each
  bool sums_current = true, adjoins = true;   ///< backward: whether the launch sums a', and whether it goes back

  // Step by step, arrays over the neurons:
  V* sums = nullptr;           ///< the product for the present step
  V* gradient = nullptr;       ///< g of the step after
  V* carry = nullptr;          ///< what an adjoint carries, one array for each field
  V* state[max_states] = {};   ///< the state before the present step
};

/// Values of a recurrence's matrix that are read at once, for those that fired and for all.
constexpr int rows_ahead = 4, dense_rows_ahead = 8;

/// sum + values[0] row[0] + ..., of the values that are not 0, in this order.
template <class V, int Rows>
EXODUS_DEVICE_SCALAR V add_products(const V (&values)[Rows], const V (&weights)[Rows], V sum) {
  EXODUS_UNROLL
  for (int k = 0; k < Rows; ++k) sum = values[k] != V(0) ? sum + values[k] * weights[k] : sum;
  return sum;
}

/// What the neurons of an entry give each other. In shared memory there are two turns, used alternately, so that a barrier per turn is
/// enough: each has a value of every thread, and a word for each warp of those that fired.
template <class V>
class Exchange {
 public:
  EXODUS_DEVICE Exchange(const Recurrence<V>& recurrent, const Groups& groups, const RecurrentMemory<V>& memory, SharedPointer<V> shared)
      : recurrent_(recurrent), groups_(groups), memory_(memory), shared_(shared) {}

  EXODUS_DEVICE bool given() const { return recurrent_.weights != nullptr; }

  /// Begins with the neurons of a place.
  EXODUS_DEVICE void enter(const Place& place) {
    neuron_ = place.neuron, active_ = place.active;
    if (groups_.features == 0) return;
    first_ = static_cast<int>(threadIdx.x) / groups_.features * groups_.features;
    feature_ = static_cast<int>(threadIdx.x) - first_;
  }

  /// s W, from the spikes before a step. All threads of a block come here together, as to the other two.
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

  /// Leaves g of a step for the step before.
  EXODUS_DEVICE void give(V gradient) {
    if (groups_.features == 0) {
      if (active_) memory_.gradient[neuron_] = gradient;
      return;
    }
    next_turn();
    shared_[turn_ + static_cast<int>(threadIdx.x)] = gradient;
    __syncthreads();
  }

  /// W g, of the step after.
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

  /// An entry is as wide as some warps, or there are several in one.
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

  /// Adds what the next features of a word give, and takes them out of it.
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
  int feature_ = 0;   ///< of this thread's neuron
  int turn_ = 0;      ///< where it begins
};

/// What a block needs for an Exchange.
template <class V>
std::size_t exchange_bytes(const Groups& groups) {
  return groups.features == 0 ? 0 : 2 * static_cast<std::size_t>(groups.threads + warp_threads) * sizeof(V);
}

/// Where the neurons of batch entries lie.
struct Entries {
  std::int64_t neurons, features, repeat;

  template <class V>
  Entries(const Layout& layout, const Recurrence<V>& recurrent)
      : neurons(layout.outer * layout.inner), features(recurrent.features), repeat(recurrent.repeat) {}
};

/// to[k][f] = from[f][k], both features x features.
template <class V>
Status transpose(const V* from, std::int64_t features, V* to, cudaStream_t stream);

/// out[j] = sum over the features k of j's entry of spikes[k] * weights[k][feature of j], of the spikes that are not 0, ascending, nothing
/// fused. Without spikes: 0.
template <class V>
Status multiply_spikes(const Entries& entries, const V* spikes, const V* weights, V* out, cudaStream_t stream);

/// The same product for values of which few are 0, with fused multiply-adds. With `adds`, it is added to out[j].
template <class V>
Status multiply(const Entries& entries, const V* values, const V* matrix, V* out, bool adds, cudaStream_t stream);

/// The gradient of recurrent weights, after a pass: sum over steps and entries of s[n-1]^T g[n].
template <class V>
struct WeightGradient {
  Layout layout;
  Entries entries;
  Source spikes, gradient;      ///< s and g of all steps
  const V* initial = nullptr;   ///< the spikes before step 0
  double* parts = nullptr;      ///< weight_parts() sums of features x features
};

/// Over how many shares of the steps and entries the sum goes.
std::int64_t weight_parts(const Layout& layout, std::int64_t features);

/// Computes each of these sums.
template <class V>
Status sum_weights(const WeightGradient<V>& gradient, cudaStream_t stream);

}   // namespace exodus::cuda
