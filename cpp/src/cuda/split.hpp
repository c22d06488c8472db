/// @file
/// The backward pass of few neurons. Steps of a neuron run side by side, because one thread for each neuron would leave most of the GPU
/// waiting for memory.
///
/// An adjoint is linear in all gradients. With the carry as a vector d, a step is
///
///     d[n] = C[n] d[n+1] + w[n]
///
/// (docs/mathematics.md), and if it reads no hidden states, the potential tells C[n] and w[n] of all steps at once. So each warp of a block
/// takes a chunk of the steps of the same neurons. It computes the product of its C and the d that it would reach from 0; these give the d
/// before and after each chunk, in the order of time, and from there the warp computes its own steps. The sums are in an order that only
/// the number of steps decides.
#pragma once

#include "kernels.hpp"

namespace exodus::cuda {

constexpr int split_warps = 16;              // chunks that run side by side
constexpr std::int64_t few_neurons = 8192;   // with more, a thread for each keeps a GPU's memory busy
constexpr int most_split_carries = 2;        // the products of more would not fit into registers

template <template <class> class N>
constexpr int carries_of = field_count<typename N<float>::template Carry<float>, float>;

/// Whether the steps of a model's adjoint (EXODUS, SLAYER; any method without spikes) can run side by side: it carries filters in a row,
/// the last of which is dL/d(gain a). Where two states act on one another (a resonator), products of C have twice the error of a loop.
template <template <class> class N>
constexpr bool splits = N<float>::carries_gradient && carries_of<N> <= most_split_carries && !surrogate_reads_hidden_state<N<float>>;

/// Whether steps of a layout should run side by side: neurons are few, a neuron has more than a chunk of them, and time is not the last
/// axis, so that a warp's loads of a step fill sectors of memory.
template <class V>
bool is_split(const Layout& layout, const Groups& groups) {
  return groups.neurons <= few_neurons && !groups.tiled && layout.time > whole_chunk<V>;
}

/// The groups of a split pass: a block takes as many neurons as a warp has lanes.
template <class V>
Groups split_groups(const Layout& layout, Groups groups) {
  const std::int64_t chunks = (layout.time + whole_chunk<V> - 1) / whole_chunk<V>;
  groups.lanes = warp_threads;
  groups.count = (groups.neurons + warp_threads - 1) / warp_threads;
  groups.threads = static_cast<int>(chunks < split_warps ? chunks : split_warps) * warp_threads;
  return groups;
}

/// A carry as a vector.
template <class Carry, class V, int K>
EXODUS_DEVICE_SCALAR Carry carry_from(const V (&d)[K]) {
  Carry carry{};
  for_each_field<K>(carry, [&](V& value, int k) { value = d[k]; });
  return carry;
}
template <class Carry, class V, int K>
EXODUS_DEVICE_SCALAR void read_carry(Carry& carry, V (&d)[K]) {
  for_each_field<K>(carry, [&](V& value, int k) { d[k] = value; });
}

/// c . d + w, where a factor is 0 without a product: a clipped step passes nothing of an infinite d, and where no gradient comes from later
/// steps, a product of factors may overflow.
template <class V, int K>
EXODUS_DEVICE_SCALAR V step_back(const V (&c)[K], const V (&d)[K], V w) {
  EXODUS_UNROLL
  for (int k = 0; k < K; ++k) w = c[k] == V(0) || d[k] == V(0) ? w : multiply_add(c[k], d[k], w);
  return w;
}

/// The steps of a chunk, by the model's adjoint.
template <template <class> class N, Method M, int Form, class V, int D>
class LinearSteps {
 public:
  using C = Traits<N<V>>;
  using Parameters = typename C::Parameters;
  using State = typename C::State;
  using Carry = carry_of<N<V>, M, V>;
  static constexpr bool fires = N<V>::fires;
  static constexpr int arrays = fires ? 2 : 1, carries = field_count<Carry, V>;

  /// u and e, or q where the neuron does not spike.
  EXODUS_DEVICE static Sources<arrays> sources(const Formatted<BackwardCall, V>& call) {
    if constexpr (fires) return {{{call.potential}, {call.grad_spikes, call.format}}};
    if constexpr (!fires) return {{{call.grad_potential}}};
  }

  /// From the bits of the arrays. Past the last step C and w are 0.
  EXODUS_DEVICE LinearSteps(const Formatted<BackwardCall, V>& call, Parameters& parameters, V (&values)[arrays][D])
      : parameters_(parameters), gradients_(values[arrays - 1]) {
    if constexpr (fires) {
      constexpr int threshold = parameter_of<N<V>>(Role::threshold);
      decode(call.format, values[1]);
      EXODUS_UNROLL
      for (int k = 0; k < D; ++k) u_[k] = values[0][k];
      fill_surrogate(call.surrogate, field<threshold, C::parameters, Parameters, V>(parameters), u_, h_);
    }
  }

  /// dL/da[n] of step k of the chunk; d is d[n+1] on entry, d[n] on return.
  EXODUS_DEVICE V adjoin(int k, V (&d)[carries]) const { return adjoin(k, gradients_[k], d); }

  /// C[n] P in place of P.
  EXODUS_DEVICE void multiply(int k, V (&product)[carries][carries]) const {
    V columns[carries][carries] = {}, before[carries][carries];   // columns of C, and those of P
    EXODUS_UNROLL
    for (int j = 0; j < carries; ++j) {
      columns[j][j] = V(1);
      adjoin(k, V(0), columns[j]);
      EXODUS_UNROLL
      for (int i = 0; i < carries; ++i) before[j][i] = product[i][j];
    }
    EXODUS_UNROLL
    for (int i = 0; i < carries; ++i) {
      V row[carries];
      EXODUS_UNROLL
      for (int j = 0; j < carries; ++j) row[j] = columns[j][i];
      EXODUS_UNROLL
      for (int j = 0; j < carries; ++j) product[i][j] = step_back(row, before[j], V(0));
    }
  }

 private:
  EXODUS_DEVICE V adjoin(int k, V gradient, V (&d)[carries]) const {
    auto carry = carry_from<Carry>(d);
    Parameters terms;
    const StepRecord<V, State> record{u_[k], {}, {}, h_[k], fires ? gradient : V(0), fires ? V(0) : gradient, V(0)};
    const V current = adjoint<M, Form>(parameters_, record, carry, terms).current;
    read_carry(carry, d);
    return current;
  }

  const Parameters& parameters_;
  const V (&gradients_)[D];
  V u_[D] = {}, h_[D] = {};
};

template <template <class> class N, Method M, int Form, class V>
EXODUS_KERNEL(split_warps* warp_threads)
split_kernel(EXODUS_GRID_CONSTANT Formatted<BackwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups) {
  using C = Traits<N<V>>;
  constexpr int chunk = whole_chunk<V>, threads = split_warps * warp_threads;
  using Chunk = LinearSteps<N, M, Form, V, chunk>;
  constexpr int carries = Chunk::carries;
  EXODUS_SHARED(V, products, carries * carries * threads);
  EXODUS_SHARED(V, sums, carries * threads);
  const Layout& layout = call.layout;
  const auto arrays = Chunk::sources(call);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_threads, warp = thread / warp_threads;
  const int warps = groups.threads / warp_threads, round = warps * chunk;   // the steps of all warps
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = place_of(layout, groups, group, lane);
    auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    V later[carries] = {};   // d after the round's steps
    for (std::int64_t begin = (layout.time - 1) / round * round; begin >= 0; begin -= round) {
      const std::int64_t first = begin + warp * chunk;
      const int steps = steps_from(first, layout.time, chunk);   // less than one if the chunk is after the end
      V values[Chunk::arrays][chunk];
      load_lanes(arrays, layout, place, first, steps, values);
      const Chunk at(call, parameters, values);
      V product[carries][carries] = {}, sum[carries] = {};   // d at the chunk's begin is product times the d after it, and sum
      EXODUS_UNROLL
      for (int i = 0; i < carries; ++i) product[i][i] = V(1);
      EXODUS_UNROLL
      for (int k = chunk - 1; k >= 0; --k) at.multiply(k, product), at.adjoin(k, sum);
      EXODUS_UNROLL
      for (int i = 0; i < carries; ++i) {
        sums[i * threads + thread] = sum[i];
        EXODUS_UNROLL
        for (int j = 0; j < carries; ++j) products[(i * carries + j) * threads + thread] = product[i][j];
      }
      __syncthreads();
      V d[carries] = {};
      for (int k = warps - 1; k >= 0; --k) {
        const int of_warp = k * warp_threads + lane;
        V next[carries];
        EXODUS_UNROLL
        for (int i = 0; i < carries; ++i) {
          if (k == warp) d[i] = later[i];
          V row[carries];
          EXODUS_UNROLL
          for (int j = 0; j < carries; ++j) row[j] = products[(i * carries + j) * threads + of_warp];
          next[i] = step_back(row, later, V(sums[i * threads + of_warp]));
        }
        EXODUS_UNROLL
        for (int i = 0; i < carries; ++i) later[i] = next[i];
      }
      __syncthreads();
      V grad[chunk];
      EXODUS_UNROLL
      for (int k = chunk - 1; k >= 0; --k) grad[k] = at.adjoin(k, d);
      encode(call.format, grad);
      if (call.grad_current != nullptr)
        store_lanes(call.grad_current, call.format, layout, place, first, {0, place.active ? steps : 0, place.active && steps == chunk},
                    grad);
      if (first == 0) {
        auto initial = entries_of<typename C::State, C::states>(call.initial, place);
        auto grad_initial = initial_gradient<M, Form>(parameters, initial, carry_from<typename Chunk::Carry>(d));
        store_entries<C::states>(call.grad_initial, place, grad_initial);
      }
    }
  }
}

}   // namespace exodus::cuda
