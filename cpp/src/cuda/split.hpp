/// @file
/// The backward pass of few neurons. Steps of a neuron run side by side, because one thread for each neuron would leave most of the GPU
/// waiting for memory.
///
/// An adjoint is linear in all gradients. Where it carries a single number, d, from step to step, a step is
///
///     d[n] = c[n] d[n+1] + w[n]
///
/// (docs/mathematics.md, LIF), and the potential tells c[n] and w[n] of all steps at once. So each warp of a block takes a chunk of the
/// steps of the same neurons. It computes the product of its c and the d that it would reach from 0; these give the d before and after each
/// chunk, in the order of time, and from there the warp computes its own steps. The sums are in an order that only the number of steps
/// decides.
#pragma once

#include "kernels.hpp"

namespace exodus::cuda {

constexpr int split_warps = 16;              // chunks that run side by side
constexpr std::int64_t few_neurons = 8192;   // with more, a thread for each keeps a GPU's memory busy

/// Whether a step of a model's adjoint (EXODUS, SLAYER) is d[n] = c[n] d[n+1] + w[n], with dL/da[n] = gain d[n].
template <template <class> class N>
constexpr bool carries_one_number =
    N<float>::fires && N<float>::carries_gradient && parameter_of<N<float>>(Role::gain) != -1 &&
    field_count<typename N<float>::template Carry<float>, float> == 1 && !surrogate_reads_hidden_state<N<float>>;

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

/// c d + w, where c or d is 0 without a product: a clipped step passes nothing of an infinite d, and where no gradient comes from later
/// steps, a product of factors may overflow.
template <class V>
EXODUS_DEVICE_SCALAR V step_back(V c, V d, V w) {
  return c == V(0) || d == V(0) ? w : multiply_add(c, d, w);
}

/// d[n] from d[n+1], by the model's adjoint.
template <template <class> class N, Method M, int Form, class V, class Parameters, class State>
EXODUS_DEVICE_SCALAR V adjoined(const Parameters& parameters, const StepRecord<V, State>& record, V later) {
  carry_of<N<V>, M, V> carry{later};
  Parameters terms;
  adjoint<M, Form>(parameters, record, carry, terms);
  return field<0, 1, decltype(carry), V>(carry);
}

/// c[n] and w[n] of a chunk.
template <class V, int D>
struct LinearSteps {
  V c[D], w[D];

  /// From u and the bits of e. Past the last step they are 0, and so is w.
  template <template <class> class N, Method M, int Form, class Parameters>
  EXODUS_DEVICE void take(const Formatted<BackwardCall, V>& call, Parameters& parameters, const V (&u)[D], V (&e)[D]) {
    using State = typename Traits<N<V>>::State;
    constexpr int threshold = parameter_of<N<V>>(Role::threshold);
    V h[D];
    decode(call.format, e);
    fill_surrogate(call.surrogate, field<threshold, Traits<N<V>>::parameters, Parameters, V>(parameters), u, h);
    EXODUS_UNROLL
    for (int k = 0; k < D; ++k) {
      c[k] = adjoined<N, M, Form>(parameters, StepRecord<V, State>{u[k], {}, {}, h[k], V(0), V(0), V(0)}, V(1));
      w[k] = adjoined<N, M, Form>(parameters, StepRecord<V, State>{u[k], {}, {}, h[k], e[k], V(0), V(0)}, V(0));
    }
  }
};

template <template <class> class N, Method M, int Form, class V>
EXODUS_KERNEL(split_warps* warp_threads)
split_kernel(EXODUS_GRID_CONSTANT Formatted<BackwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups) {
  using C = Traits<N<V>>;
  using Carry = carry_of<N<V>, M, V>;
  constexpr int chunk = whole_chunk<V>;
  EXODUS_SHARED(V, products, split_warps * warp_threads);
  EXODUS_SHARED(V, sums, split_warps * warp_threads);
  const Layout& layout = call.layout;
  const Sources<2> arrays = sources_of<true, true, false>(call);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % warp_threads, warp = thread / warp_threads;
  const int warps = groups.threads / warp_threads, round = warps * chunk;   // the steps of all warps
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = place_of(layout, groups, group, lane);
    auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    const V gain = field<parameter_of<N<V>>(Role::gain), C::parameters, decltype(parameters), V>(parameters);
    V later = V(0);   // d after the round's steps
    for (std::int64_t begin = (layout.time - 1) / round * round; begin >= 0; begin -= round) {
      const std::int64_t first = begin + warp * chunk;
      const int steps = steps_from(first, layout.time, chunk);   // less than one if the chunk is after the end
      V values[2][chunk];
      load_lanes(arrays, layout, place, first, steps, values);
      LinearSteps<V, chunk> at;
      at.template take<N, M, Form>(call, parameters, values[0], values[1]);
      V product = V(1), sum = V(0);   // d at the chunk's begin is product times the d after it, and sum
      EXODUS_UNROLL
      for (int k = chunk - 1; k >= 0; --k) product = step_back(at.c[k], product, V(0)), sum = step_back(at.c[k], sum, at.w[k]);
      products[thread] = product, sums[thread] = sum;
      __syncthreads();
      V d = V(0);
      for (int k = warps - 1; k >= 0; --k) {
        if (k == warp) d = later;
        later = step_back(V(products[k * warp_threads + lane]), later, V(sums[k * warp_threads + lane]));
      }
      __syncthreads();
      V grad[chunk];
      EXODUS_UNROLL
      for (int k = chunk - 1; k >= 0; --k) d = step_back(at.c[k], d, at.w[k]), grad[k] = gain * d;
      encode(call.format, grad);
      if (call.grad_current != nullptr)
        store_lanes(call.grad_current, call.format, layout, place, first, {0, place.active ? steps : 0, place.active && steps == chunk},
                    grad);
      if (first == 0) {
        auto initial = entries_of<typename C::State, C::states>(call.initial, place);
        auto grad_initial = initial_gradient<M, Form>(parameters, initial, Carry{d});
        store_entries<C::states>(call.grad_initial, place, grad_initial);
      }
    }
  }
}

}   // namespace exodus::cuda
