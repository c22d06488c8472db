/// @file
/// The kernels: the time loop of a neuron around the models' scalar functions, some steps in registers at a time. They know no model and no
/// mathematics.
#pragma once

#include "fir.hpp"
#include "model.hpp"

namespace exodus::cuda {

/// A neuron's own parameters.
template <class Parameters, int Count, class V>
EXODUS_DEVICE_SCALAR Parameters parameters_of(const Param<V>* params, const Groups& groups, std::int64_t neuron) {
  Parameters own{};
  for_each_field<Count>(own, [&](V& value, int k) {
    value = params[k].value;
    if (params[k].data == nullptr) return;
    const std::int64_t turn = quotient(neuron, groups.repeats[k]);
    value = params[k].data[turn - quotient(turn, groups.counts[k]) * params[k].count];
  });
  return own;
}

/// A neuron's entries of arrays over the neurons; those of missing arrays are 0.
template <class State, int Count, class V>
EXODUS_DEVICE_SCALAR State entries_of(const V* const* arrays, const Place& place) {
  State entries{};
  for_each_field<Count>(entries, [&](V& value, int k) {
    if (arrays[k] != nullptr && place.active) value = arrays[k][place.neuron];
  });
  return entries;
}

template <int Count, class State, class V>
EXODUS_DEVICE_SCALAR void store_entries(V* const* arrays, const Place& place, State& entries) {
  for_each_field<Count>(entries, [&](V& value, int k) {
    if (arrays[k] != nullptr && place.active) arrays[k][place.neuron] = value;
  });
}

/// How many of `most` steps there are from `first` on.
EXODUS_DEVICE_SCALAR int steps_from(std::int64_t first, std::int64_t end, int most) {
  return static_cast<int>(end - first < most ? end - first : most);
}

/// With kernels that have taps, `Fir`, steps are taken one by one: what they cost is elsewhere.
template <template <class> class N, int Variant, class V, bool Fir>
EXODUS_KERNEL(block_threads)
forward_kernel(EXODUS_GRID_CONSTANT Formatted<ForwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups, const FirMemory<V> memory) {
  using C = Traits<N<V>>;
  constexpr int chunk = Fir ? 1 : forward_steps<V>;
  EXODUS_SHARED(V, tile, chunk * tile_pitch);
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = place_of(call.layout, groups, group);
    const auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    auto state = entries_of<typename C::State, C::states>(call.initial, place);
    FirForward<V, C::kernels, first_hidden<N<V>>> fir(call, groups, place, memory);
    const Sources<1> inputs{{{call.current, call.format}}};
    V current[chunk] = {}, next[1][chunk], potential[chunk], spikes[chunk];
    for (std::int64_t first = -chunk; first < call.layout.time; first += chunk) {
      const std::int64_t later = first + chunk;
      // Under way while this chunk is worked on; at first there is none.
      if (later < call.layout.time) load_steps(inputs, call.layout, place, later, steps_from(later, call.layout.time, chunk), next, tile);
      if (first >= 0) {
        const int steps = steps_from(first, call.layout.time, chunk);
        decode(call.format, current);
        EXODUS_UNROLL
        for (int d = 0; d < chunk; ++d) {
          if constexpr (Fir) current[d] = fir.before_step(first, state, current[d]);
          if (d < steps) step<Variant>(parameters, call.cap, state, current[d]);
          if constexpr (Fir && N<V>::fires) fir.after_step(state.spikes);
          potential[d] = state.potential;
          if constexpr (N<V>::fires) spikes[d] = state.spikes;
        }
        store_steps(call.potential, Format::arithmetic, call.layout, place, first, steps, potential, tile);
        if constexpr (N<V>::fires) store_steps(call.spikes, call.format, call.layout, place, first, steps, spikes, tile);
      }
      EXODUS_UNROLL
      for (int d = 0; d < chunk; ++d) current[d] = next[0][d];
    }
    store_entries<C::states>(call.final, place, state);
    if constexpr (Fir) fir.finish();
  }
}

/// What a backward pass works in beside the call's arrays. `states` - 1 arrays over the neurons for every step of a segment and one more,
/// and as many for every segment, hold the states that the potential does not tell.
template <class V>
struct Tape {
  V* steps = nullptr;   ///< null: not needed
  V* marks = nullptr;
  std::int64_t segment = 0;   ///< steps, of whole chunks
  std::int64_t segments = 0;
};

/// The state after a step, from its potential. How many spikes a step may have is asked here, and not a kernel of its own: they would be
/// twice as many.
template <template <class> class N, int Form, class V, class State, class Parameters>
EXODUS_DEVICE_SCALAR State recorded_state(int variant, const Parameters& parameters, V cap, const State& before, V u, V a) {
  constexpr int forms = N<V>::adjoint_variants;
  if constexpr (N<V>::variants > forms) {
    if (variant >= forms) return recorded<Form + forms>(parameters, cap, before, u, a);
  }
  return recorded<Form>(parameters, cap, before, u, a);
}

/// The hidden states of a neuron on its tape.
template <template <class> class N, int Form, class V>
class Rebuilt {
 public:
  using C = Traits<N<V>>;
  using State = typename C::State;

  EXODUS_DEVICE Rebuilt(const Formatted<BackwardCall, V>& call, const Tape<V>& tape, const Place& place, std::int64_t neurons,
                        const typename C::Parameters& parameters)
      : tape_(tape), neuron_(place.neuron), neurons_(neurons), parameters_(parameters), cap_(call.cap) {}

  /// Runs the states forward through all of time and keeps the ones before each segment.
  EXODUS_DEVICE void mark(const Formatted<BackwardCall, V>& call, const Place& place, State state) {
    for (std::int64_t mark = 0, n = 0; mark < tape_.segments; ++mark) {
      write(tape_.marks, mark, state);
      for (std::int64_t end = n + tape_.segment; n < end && n < call.layout.time; ++n) state = after(call, place, n, state);
    }
  }

  /// The states of the steps of a segment, and that before it, whose potential is in the array or, before step 0, the initial one.
  EXODUS_DEVICE void rebuild(const Formatted<BackwardCall, V>& call, const Place& place, V initial_potential, std::int64_t mark,
                             std::int64_t begin, std::int64_t end) {
    State state = read(tape_.marks, mark);
    state.potential = initial_potential;
    if (begin > 0) state.potential = potential_at(call, place, begin - 1);

    write(tape_.steps, 0, state);
    for (std::int64_t n = begin; n < end; ++n) {
      state = after(call, place, n, state);
      write(tape_.steps, n - begin + 1, state);
    }
  }

  /// The state after step n of the segment that begins at `begin`, but for its potential.
  EXODUS_DEVICE State at(std::int64_t n, std::int64_t begin) const { return read(tape_.steps, n - begin + 1); }

 private:
  EXODUS_DEVICE State after(const Formatted<BackwardCall, V>& call, const Place& place, std::int64_t n, const State& before) const {
    const std::int64_t k = place.offset + n * call.layout.inner;
    return recorded_state<N, Form>(call.variant, parameters_, cap_, before, potential_at(call, place, n),
                                   call.current == nullptr ? V(0) : element<V>({call.current, call.format}, k));
  }

  EXODUS_DEVICE V potential_at(const Formatted<BackwardCall, V>& call, const Place& place, std::int64_t n) const {
    return call.potential == nullptr ? V(0) : call.potential[place.offset + n * call.layout.inner];
  }

  EXODUS_DEVICE std::int64_t entry(std::int64_t slot, int state) const { return (slot * (C::states - 1) + state - 1) * neurons_ + neuron_; }
  EXODUS_DEVICE void write(V* slots, std::int64_t slot, State& state) const {
    for_each_field<C::states>(state, [&](V& value, int k) {
      if (k > 0) slots[entry(slot, k)] = value;
    });
  }
  EXODUS_DEVICE State read(const V* slots, std::int64_t slot) const {
    State state{};
    for_each_field<C::states>(state, [&](V& value, int k) {
      if (k > 0) value = slots[entry(slot, k)];
    });
    return state;
  }

  const Tape<V>& tape_;
  const std::int64_t neuron_, neurons_;
  const typename C::Parameters& parameters_;
  const V cap_;
};

/// h[d] = f'(x[d]) for the steps of a chunk.
template <class V, int D>
EXODUS_DEVICE_SCALAR void fill_surrogate(const Surrogate<V>& surrogate, V threshold, const V (&x)[D], V (&h)[D]) {
  switch (surrogate.kind) {
#define EXODUS_KIND(name, expression)                                                                                                      \
  case SurrogateKind::name:                                                                                                                \
    EXODUS_UNROLL for (int d = 0; d < D; ++d) {                                                                                            \
      h[d] =                                                                                                                               \
          surrogate_at<SurrogateKind::name>(x[d], threshold, surrogate.scale, surrogate.shape[0], surrogate.shape[1], surrogate.shape[2]); \
    }                                                                                                                                      \
    break;
    EXODUS_SURROGATES(EXODUS_KIND)
#undef EXODUS_KIND
    case SurrogateKind::count:
      break;
  }
}

template <int Index, int Count, class Struct, class V>
EXODUS_DEVICE_SCALAR V field(Struct& aggregate) {
  V result{};
  for_each_field<Count>(aggregate, [&](V& value, int k) {
    if (k == Index) result = value;
  });
  return result;
}

/// h of the steps of a chunk from u, or where the model fires by more from its states; `on_tape` of these steps are on the tape.
template <template <class> class N, class Parameters, class Tapes, class V, int D>
EXODUS_DEVICE_SCALAR void bend_chunk(const Surrogate<V>& surrogate, Parameters& parameters, const Tapes& rebuilt, int on_tape,
                                     std::int64_t first, std::int64_t segment, const V (&u)[D], V (&h)[D]) {
  using C = Traits<N<V>>;
  const V threshold = field<N<V>::threshold_index, C::parameters, Parameters, V>(parameters);
  if constexpr (fires_by_hidden<N, V>) {
    V x[D];
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      auto state = d < on_tape ? rebuilt.at(first + d, segment) : typename C::State{};
      state.potential = u[d];
      x[d] = drive(state);
    }
    fill_surrogate(surrogate, threshold, x, h);
  } else {
    fill_surrogate(surrogate, threshold, u, h);
  }
}

template <template <class> class N, Method M, int Form, class V, bool Terms, bool Fir>
EXODUS_KERNEL(block_threads)
backward_kernel(EXODUS_GRID_CONSTANT Formatted<BackwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups, const Tape<V> tapes,
                const FirMemory<V> memory) {
  using C = Traits<N<V>>;
  using State = typename C::State;
  using Carry = typename N<V>::template Carry<M, V>;
  constexpr bool hidden = C::states > first_hidden<N<V>>;
  constexpr int inputs = Terms ? 5 : 4, chunk = Fir ? 1 : backward_steps<V>;
  EXODUS_SHARED(V, tile, inputs * chunk * tile_pitch);
  const Layout& layout = call.layout;
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = place_of(layout, groups, group);
    auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    const State initial = entries_of<State, C::states>(call.initial, place);
    State final = entries_of<State, C::states>(call.grad_final, place);   // of the loss by the state after the last step
    Rebuilt<N, Form, V> rebuilt(call, tapes, place, groups.neurons, parameters);
    const bool rebuilds = hidden && tapes.steps != nullptr && place.active;
    if (rebuilds) rebuilt.mark(call, place, initial);

    const FirBackward<M, V, C::kernels, first_hidden<N<V>>> fir(call, groups, place, memory);
    Carry carry{};
    double sums[C::parameters] = {};
    V grad[chunk] = {};
    std::int64_t mark = tapes.segments, segment = tapes.segments * tapes.segment;   // the first step on the tape
    for (std::int64_t first = (layout.time - 1) / chunk * chunk; first >= 0; first -= chunk) {
      const int steps = steps_from(first, layout.time, chunk);
      V values[inputs][chunk];
      Sources<inputs> arrays{{{call.potential}, {call.grad_spikes, call.format}, {call.grad_potential}, {call.surrogate.values}}};
      if constexpr (Terms) arrays.at[4] = {call.current, call.format};
      load_steps(arrays, layout, place, first, steps, values, tile);
      auto& [u, e, q, h] = reinterpret_cast<V(&)[4][chunk]>(values);
      if (rebuilds && first < segment) {
        const std::int64_t end = segment < layout.time ? segment : layout.time;
        segment -= tapes.segment;
        rebuilt.rebuild(call, place, initial.potential, --mark, segment, end);
      }
      if constexpr (N<V>::fires) {
        if (call.surrogate.values == nullptr) {
          bend_chunk<N>(call.surrogate, parameters, rebuilt, rebuilds ? steps : 0, first, segment, u, h);
        }
      }
      decode(call.format, e);
      if constexpr (Terms) decode(call.format, values[4]);
      V earlier = V(0);   // the potential before the chunk
      if (first > 0 && place.active && call.potential != nullptr) earlier = call.potential[place.offset + (first - 1) * layout.inner];
      V partial[C::parameters] = {};
      EXODUS_UNROLL
      for (int d = chunk - 1; d >= 0; --d) {
        const std::int64_t n = first + d;
        if (d < steps) {
          State before = initial, direct{};
          if (n > 0) {
            const V u_before = d > 0 ? u[d > 0 ? d - 1 : 0] : earlier;
            if (rebuilds) {
              before = rebuilt.at(n - 1, segment);
              before.potential = u_before;
            } else if constexpr (!hidden) {
              before = recorded_state<N, Form>(call.variant, parameters, call.cap, State{}, u_before, V(0));
            }
          }
          if (n == layout.time - 1) {
            direct = final;
            q[d] += final.potential;
            if constexpr (N<V>::fires) e[d] += final.spikes;
          }
          const Moment<V, typename C::State> at{u[d], before, direct, h[d], e[d], q[d], Terms ? values[inputs - 1][d] : V(0)};
          typename C::Parameters terms;
          if constexpr (Fir) fir.before_step(n, carry);
          grad[d] = adjoint<M, Form>(parameters, at, carry, terms);
          if constexpr (Fir && N<V>::fires) {
            fir.after_step(n, carry, grad[d], recorded_state<N, Form>(call.variant, parameters, call.cap, State{}, u[d], V(0)).spikes);
          } else if constexpr (Fir) {
            fir.after_step(n, carry, grad[d], V(0));
          }
          if constexpr (Terms) {
            for_each_field<C::parameters>(terms, [&](V& term, int k) { partial[k] += term; });
          }
        }
      }
      if constexpr (Terms) {
        EXODUS_UNROLL
        for (int k = 0; k < C::parameters; ++k) sums[k] += static_cast<double>(partial[k]);
      }
      void* const result = Fir && fir.leaves_current() ? nullptr : call.grad_current;
      store_steps(result, call.format, layout, place, first, steps, grad, tile);
    }
    if constexpr (Fir) fir.finish(carry);
    State grad_initial = initial_gradient<M, Form>(parameters, initial, carry);
    store_entries<C::states>(call.grad_initial, place, grad_initial);
    if constexpr (Terms) {
      EXODUS_UNROLL
      for (int k = 0; k < C::parameters; ++k) {
        if (call.sums[k] != nullptr && place.active) call.sums[k][place.neuron] = sums[k];
      }
    }
  }
}

}   // namespace exodus::cuda
