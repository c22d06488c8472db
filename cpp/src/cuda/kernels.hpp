/// @file
/// The forward and backward kernels: the time loop of a neuron, which calls the model's scalar functions on a chunk of steps held in
/// registers. They contain nothing that is specific to a model.
#pragma once

#include "fir.hpp"
#include "model.hpp"
#include "recurrence.hpp"

namespace exodus::cuda {

/// The parameter values of a neuron.
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

/// A neuron's entries of arrays over the neurons; 0 for missing arrays.
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

/// The number of steps from `first` to `end`, at most `most`.
EXODUS_DEVICE_SCALAR int steps_from(std::int64_t first, std::int64_t end, int most) {
  return static_cast<int>(end - first < most ? end - first : most);
}

/// The neurons that a block processes at a time.
template <bool Stepped>
EXODUS_DEVICE_SCALAR Place taken_place(const Layout& layout, const Groups& groups, std::int64_t group) {
  if constexpr (Stepped) {
    if (groups.features > 0) return place_of_entries(layout, groups, group);
  }
  return place_of(layout, groups, group, static_cast<int>(threadIdx.x));
}

/// The most threads of a block.
template <bool Stepped>
constexpr int most_threads = Stepped ? entry_threads : block_threads;

/// If the neuron has FIR kernels or recurrent weights (`Stepped`), a chunk is one step: the time is spent outside this loop.
template <template <class> class N, int Variant, class V, bool Stepped>
EXODUS_KERNEL(most_threads<Stepped>)
forward_kernel(EXODUS_GRID_CONSTANT Formatted<ForwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups, const FirMemory<V> memory,
               EXODUS_GRID_CONSTANT RecurrentMemory<V> recurrent) {
  using C = Traits<N<V>>;
  constexpr int chunk = Stepped ? 1 : whole_chunk<V>;
  constexpr bool of_current = has_taps<N, Variant>(0), of_spikes = has_taps<N, Variant>(1);
  EXODUS_SHARED(V, tile, chunk * tile_pitch);
  EXODUS_DYNAMIC_SHARED(V, exchanged);
  Exchange<V> exchange(call.recurrent, groups, recurrent, exchanged);
  const std::int64_t begin = Stepped ? recurrent.begin : 0, end = Stepped ? recurrent.end : call.layout.time;
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = taken_place<Stepped>(call.layout, groups, group);
    const auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    auto state = entries_of<typename C::State, C::states>(call.initial, place);
    FirForward<V, of_current, of_spikes> fir(call, groups, place, memory, begin);
    exchange.enter(place);
    const Sources<1> inputs{{{call.current, call.format}}};
    V current[chunk] = {}, next[1][chunk] = {}, potential[chunk], spikes[chunk];
    for (std::int64_t first = begin - chunk; first < end; first += chunk) {
      const std::int64_t later = first + chunk;
      // The loads of the next chunk are in flight while this chunk is computed. The first iteration only loads.
      if (later < end) load_steps(inputs, call.layout, place, later, steps_from(later, end, chunk), next, tile);
      const auto advance = [&](int steps) EXODUS_INLINE {
        EXODUS_UNROLL
        for (int d = 0; d < chunk; ++d) {
          if constexpr (Stepped && N<V>::fires) {
            if (exchange.given()) current[d] = current[d] + exchange.from_spikes(state.spikes);
          }
          V spikes_before = V(0);
          if constexpr (of_spikes) spikes_before = state.spikes;
          const auto in = fir.inputs(first, current[d], spikes_before);
          if (d < steps) step<Variant>(parameters, call.most_spikes, state, in);
          potential[d] = state.potential;
          if constexpr (N<V>::fires) spikes[d] = state.spikes;
          if constexpr (of_spikes) fir.add_spikes(state.spikes);
        }
      };
      if (first >= begin) {
        const int steps = steps_from(first, end, chunk);
        decode(call.format, current);
        if (chunk == 1 || steps == chunk) {   // full chunks need no test per step
          advance(chunk);
        } else {
          advance(steps);
        }
        store_steps(call.potential, Format::arithmetic, call.layout, place, first, steps, potential, tile);
        if constexpr (N<V>::fires) store_steps(call.spikes, call.format, call.layout, place, first, steps, spikes, tile);
      }
      EXODUS_UNROLL
      for (int d = 0; d < chunk; ++d) current[d] = next[0][d];
    }
    store_entries<C::states>(call.final, place, state);
    if constexpr (of_current || of_spikes) {
      if (end == call.layout.time) fir.finish();
    }
  }
}

/// Workspace for the hidden states, which cannot be computed from the potential. Each slot has `states` - 1 arrays over the neurons. There
/// is one slot per step of a segment and one more, and one checkpoint per segment.
template <class V>
struct Tape {
  V* steps = nullptr;   ///< null if not needed
  V* marks = nullptr;
  std::int64_t segment = 0;   ///< steps in a segment, a multiple of the chunk
  std::int64_t segments = 0;
};

/// The state after a step, from its potential. The variant (one spike per step, or several) is chosen at run time: separate kernels would
/// double their number.
template <template <class> class N, int Form, class V, class State, class Parameters>
EXODUS_DEVICE_SCALAR State restored_state(int variant, const Parameters& parameters, V most_spikes, const State& before, V u, V a) {
  constexpr int forms = Traits<N<V>>::adjoint_variants;
  if constexpr (N<V>::variants > forms) {
    if (variant >= forms) return restore_state<Form + forms>(parameters, most_spikes, before, u, a);
  }
  return restore_state<Form>(parameters, most_spikes, before, u, a);
}

/// Recomputes the hidden states of a neuron onto its tape. It loads the inputs of `Ahead` steps at a time.
template <template <class> class N, int Form, class V, int Ahead, bool Stepped>
class Rebuilt {
 public:
  using C = Traits<N<V>>;
  using State = typename C::State;

  /// `total_current`: a', the current including the recurrence; null if there is none.
  EXODUS_DEVICE Rebuilt(const Formatted<BackwardCall, V>& call, const Tape<V>& tape, const Place& place, std::int64_t neurons,
                        const typename C::Parameters& parameters, const V* total_current, SharedPointer<V> tile)
      : call_(call), tape_(tape), place_(place), neurons_(neurons), parameters_(parameters), total_current_(total_current), tile_(tile) {}

  /// Computes a' for steps [begin, end). `state` is the state before the first step on entry, and after the last step on return.
  EXODUS_DEVICE void sum_current(Exchange<V>& exchange, V* total_current, std::int64_t begin, std::int64_t end, State& state) const {
    for (std::int64_t n = begin; n < end; ++n) {
      const V sum = exchange.from_spikes(state.spikes);
      if (!place_.active) continue;
      const std::int64_t at = place_.offset + n * call_.layout.inner;
      const V current = element<V>({call_.current, call_.format}, at) + sum;
      total_current[n * neurons_ + place_.neuron] = current;
      state = restored(state, call_.potential == nullptr ? V(0) : call_.potential[at], current);
    }
  }

  /// Recomputes the states of all steps, and stores the one before each segment as a checkpoint. All threads of a block must call this
  /// together; rebuild() too.
  EXODUS_DEVICE void mark(State state) const {
    std::int64_t mark = 0;
    run(
        0, call_.layout.time, state,
        [&](std::int64_t n) {
          if (n == mark * tape_.segment) write(tape_.marks, mark++, state);
        },
        [](std::int64_t) {});
  }

  /// Recomputes the states of a segment from its checkpoint. The potential before the segment is in the array or, before step 0, is the
  /// initial one.
  EXODUS_DEVICE void rebuild(V initial_potential, std::int64_t mark, std::int64_t begin, std::int64_t end) const {
    State state{};
    if (place_.active) state = read(tape_.marks, mark);
    state.potential = initial_potential;
    if (begin > 0 && call_.potential != nullptr && place_.active) {
      state.potential = call_.potential[place_.offset + (begin - 1) * call_.layout.inner];
    }
    write(tape_.steps, 0, state);
    run(begin, end, state, [](std::int64_t) {}, [&](std::int64_t n) { write(tape_.steps, n - begin + 1, state); });
  }

  /// states[d] = the state before step first + d, without its potential, for d <= steps; the rest is 0. The segment starts at `begin`.
  template <int D>
  EXODUS_DEVICE void read_chunk(std::int64_t first, std::int64_t begin, int steps, State (&states)[D + 1]) const {
    if (!place_.active) return;
    if (steps == D) {
      EXODUS_UNROLL
      for (int d = 0; d <= D; ++d) states[d] = read(tape_.steps, first - begin + d);
    } else {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) states[d] = d <= steps ? read(tape_.steps, first - begin + d) : State{};
    }
  }

 private:
  /// Recomputes steps [begin, end). Calls `at_chunk` before each chunk and `after_step` after each step.
  template <class F, class G>
  EXODUS_DEVICE void run(std::int64_t begin, std::int64_t end, State& state, const F& at_chunk, const G& after_step) const {
    V now[2][Ahead] = {}, next[2][Ahead] = {};
    for (std::int64_t first = begin - Ahead; first < end; first += Ahead) {
      const std::int64_t later = first + Ahead;
      if (later < end) load(later, steps_from(later, end, Ahead), next);
      if (first >= begin) {
        const int steps = steps_from(first, end, Ahead);
        if (!Stepped || total_current_ == nullptr) decode(call_.format, now[1]);
        at_chunk(first);
        EXODUS_UNROLL
        for (int d = 0; d < Ahead; ++d) {
          if (d >= steps) continue;
          state = restored(state, now[0][d], now[1][d]);
          after_step(first + d);
        }
      }
      EXODUS_UNROLL
      for (int d = 0; d < Ahead; ++d) now[0][d] = next[0][d], now[1][d] = next[1][d];
    }
  }

  /// Loads the potential and the bits of the current.
  EXODUS_DEVICE void load(std::int64_t first, int steps, V (&values)[2][Ahead]) const {
    const Source current{call_.current, call_.format};
    if constexpr (!Stepped) {
      load_steps(Sources<2>{{{call_.potential}, current}}, call_.layout, place_, first, steps, values, tile_);
    } else {
      const std::int64_t at = place_.offset + first * call_.layout.inner;
      const int there = place_.active ? steps : 0;
      load_lane<V>({call_.potential}, at, call_.layout.inner, there, values[0]);
      if (total_current_ != nullptr) {
        load_lane<V>({total_current_}, first * neurons_ + place_.neuron, neurons_, there, values[1]);
      } else {
        load_lane<V>(current, at, call_.layout.inner, there, values[1]);
      }
    }
  }

  EXODUS_DEVICE State restored(const State& before, V u, V a) const {
    return restored_state<N, Form>(call_.variant, parameters_, call_.most_spikes, before, u, a);
  }

  EXODUS_DEVICE std::int64_t entry(std::int64_t slot, int state) const {
    return (slot * (C::states - 1) + state - 1) * neurons_ + place_.neuron;
  }
  EXODUS_DEVICE void write(V* slots, std::int64_t slot, State& state) const {
    if (!place_.active) return;
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

  const Formatted<BackwardCall, V>& call_;
  const Tape<V>& tape_;
  const Place& place_;
  const std::int64_t neurons_;
  const typename C::Parameters& parameters_;
  const V* const total_current_;
  SharedPointer<V> tile_;
};

/// h[d] = f'(x[d]) for the steps of a chunk. The quotients that each kind of surrogate needs are recomputed here: hoisted out of the time
/// loop, those of all kinds would occupy registers.
template <class V, int D>
EXODUS_DEVICE_SCALAR void fill_surrogate(const Surrogate<V>& surrogate, V threshold, const V (&x)[D], V (&h)[D]) {
  const V scale = unforeseen(surrogate.scale);
  const V shape[] = {unforeseen(surrogate.shape[0]), unforeseen(surrogate.shape[1]), unforeseen(surrogate.shape[2])};
  switch (surrogate.kind) {
#define EXODUS_KIND(name, expression)                                                                 \
  case SurrogateKind::name:                                                                           \
    EXODUS_UNROLL for (int d = 0; d < D; ++d) {                                                       \
      h[d] = surrogate_at<SurrogateKind::name>(x[d], threshold, scale, shape[0], shape[1], shape[2]); \
    }                                                                                                 \
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

/// h of a chunk from u or, if the model's firing also depends on hidden states (ALIF), from the states; states[d + 1] is the state of step
/// d.
template <template <class> class N, class Parameters, class State, class V, int D>
EXODUS_DEVICE_SCALAR void fill_surrogate_chunk(const Surrogate<V>& surrogate, Parameters& parameters, const State (&states)[D + 1],
                                               const V (&u)[D], V (&h)[D]) {
  using C = Traits<N<V>>;
  const V threshold = field<parameter_of<N<V>>(Role::threshold), C::parameters, Parameters, V>(parameters);
  if constexpr (surrogate_reads_hidden_state<N, V>) {
    V x[D];
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      State state = states[d + 1];
      state.potential = u[d];
      x[d] = surrogate_argument(state);
    }
    fill_surrogate(surrogate, threshold, x, h);
  } else {
    fill_surrogate(surrogate, threshold, u, h);
  }
}

/// Loads and stores the carry of an adjoint, which is in the workspace between two launches.
template <int Count, class V, class Carry>
EXODUS_DEVICE_SCALAR void load_carry(const V* from, std::int64_t neurons, const Place& place, Carry& carry) {
  for_each_field<Count>(carry, [&](V& value, int k) { value = place.active ? from[k * neurons + place.neuron] : V(0); });
}
template <int Count, class V, class Carry>
EXODUS_DEVICE_SCALAR void store_carry(V* to, std::int64_t neurons, const Place& place, Carry& carry) {
  for_each_field<Count>(carry, [&](V& value, int k) {
    if (place.active) to[k * neurons + place.neuron] = value;
  });
}

/// Stores the sums of the terms of each requested parameter: one per neuron, or one per group, summed over the block by warp shuffles and
/// then across warps in order. All threads of a block must call this together.
template <int Count, class V>
EXODUS_DEVICE_SCALAR void store_sums(const Formatted<BackwardCall, V>& call, const Groups& groups, const Place& place, std::int64_t group,
                                     const double (&sums)[Count], SharedPointer<double> of_warps) {
  constexpr int warps = block_threads / warp_threads;
  const int thread = static_cast<int>(threadIdx.x);
  EXODUS_UNROLL
  for (int k = 0; k < Count; ++k) {
    if (call.sums[k] == nullptr) continue;
    double total = place.active ? sums[k] : 0.0;
    if ((groups.whole_sums >> k & 1) != 0) {
      for (unsigned delta = warp_threads / 2u; delta > 0; delta /= 2) total += __shfl_down_sync(0xffffffffu, total, delta);
      if (thread % warp_threads == 0) of_warps[k * warps + thread / warp_threads] = total;
    } else if (place.active) {
      call.sums[k][place.neuron] = total;
    }
  }
  if (groups.whole_sums == 0) return;
  __syncthreads();
  if (thread < Count && (groups.whole_sums >> thread & 1) != 0) {
    double total = 0;
    for (int warp = 0; warp < warps; ++warp) total += of_warps[thread * warps + warp];
    call.sums[thread][group] = total;
  }
  __syncthreads();
}

/// The number of arrays that a backward pass loads at every step. A pass is `Plain` if it computes the surrogate itself, and if the
/// potential and the final states have no direct gradients. It then loads so few arrays that registers hold chunks of twice the length.
/// Passes of a neuron that does not spike are always plain.
template <bool Fires, bool Plain, bool Terms>
constexpr int inputs_backward = (Plain ? 2 : 4) + (Terms ? 1 : 0);

template <bool Fires, bool Plain, bool Terms, class V>
EXODUS_DEVICE_SCALAR Sources<inputs_backward<Fires, Plain, Terms>> sources_of(const Formatted<BackwardCall, V>& call) {
  constexpr int count = inputs_backward<Fires, Plain, Terms>;
  Sources<count> arrays{{{call.potential}, {call.grad_spikes, call.format}}};
  if constexpr (!Fires) arrays.at[1] = {call.grad_potential};
  if constexpr (!Plain) arrays.at[2] = {call.grad_potential}, arrays.at[3] = {call.surrogate.values};
  if constexpr (Terms) arrays.at[count - 1] = {call.current, call.format};
  return arrays;
}

/// u, e, q, h and a of a StepRecord, for the steps of a chunk.
template <class V, int D>
struct ChunkRecord {
  V u[D] = {}, e[D] = {}, q[D] = {}, h[D] = {}, a[D] = {};

  template <bool Fires, bool Plain, bool Terms, int Count>
  EXODUS_DEVICE void take(Format format, const V (&values)[Count][D]) {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      u[d] = values[0][d];
      if constexpr (Fires) e[d] = values[1][d];
      if constexpr (!Fires) q[d] = values[1][d];
      if constexpr (!Plain) q[d] = values[2][d], h[d] = values[3][d];
      if constexpr (Terms) a[d] = values[Count - 1][d];
    }
    if constexpr (Fires) decode(format, e);
    if constexpr (Terms) decode(format, a);
  }
};

/// Whether the terms of parameters (see StepRecord) or the surrogate read hidden states.
template <template <class> class N, class V, bool Terms>
constexpr bool reads_hidden_states = (Terms || surrogate_reads_hidden_state<N, V>) && Traits<N<V>>::states > first_hidden<N<V>>;

/// The number of blocks that must fit on a multiprocessor: the most that do not cause register spills.
template <template <class> class N, Method M, class V, bool Terms, bool Plain, bool Stepped>
constexpr int blocks_backward() {
  if (Stepped || !std::is_same_v<V, float>) return 1;
  constexpr bool with_tape = reads_hidden_states<N, V, Terms>;
  const bool few_sums = Plain && !Terms && !(with_tape && M == Method::bptt);
  return 2 + (few_sums ? 1 : 0) + (with_tape ? 0 : 1);
}

template <template <class> class N, Method M, int Form, class V, bool Terms, bool Plain, bool Stepped>
EXODUS_KERNEL_OF(most_threads<Stepped>, (blocks_backward<N, M, V, Terms, Plain, Stepped>()))
backward_kernel(EXODUS_GRID_CONSTANT Formatted<BackwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups, const Tape<V> tapes,
                const FirMemory<V> memory, EXODUS_GRID_CONSTANT RecurrentMemory<V> recurrent) {
  using C = Traits<N<V>>;
  using State = typename C::State;
  using Carry = carry_of<N<V>, M, V>;
  constexpr bool fires = N<V>::fires, hidden = C::states > first_hidden<N<V>>, with_final = !(Plain && fires);
  constexpr bool of_current = has_taps<N, Form>(0), of_spikes = has_taps<N, Form>(1);
  constexpr bool with_taps = of_current || of_spikes, recurs = Stepped && fires;
  constexpr int inputs = inputs_backward<fires, Plain, Terms>, carries = field_count<Carry, V>;
  constexpr bool on_tape = reads_hidden_states<N, V, Terms>;
  constexpr int chunk = Stepped ? 1 : (Plain && !(on_tape && C::states > 3) ? whole_chunk<V> : half_chunk<V>);
  constexpr int ahead = !Stepped ? chunk : (std::is_same_v<V, float> ? half_chunk<V> : 2);   // the chunk of recomputed states
  EXODUS_SHARED(V, tile, inputs * chunk * tile_pitch);
  EXODUS_SHARED(double, of_warps, C::parameters*(block_threads / warp_threads));
  EXODUS_DYNAMIC_SHARED(V, exchanged);
  const Layout& layout = call.layout;
  const Sources<inputs> arrays = sources_of<fires, Plain, Terms>(call);
  Exchange<V> exchange(call.recurrent, groups, recurrent, exchanged);
  const std::int64_t begin = Stepped ? recurrent.begin : 0, end = Stepped ? recurrent.end : layout.time;
  const V* const total_current = recurs ? recurrent.total_current : nullptr;
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = taken_place<Stepped>(layout, groups, group);
    exchange.enter(place);
    auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    const State initial = entries_of<State, C::states>(call.initial, place);
    State final{};   // the direct gradient of the state after the last step
    if constexpr (with_final) final = entries_of<State, C::states>(call.grad_final, place);
    const Rebuilt<N, Form, V, ahead, Stepped> rebuilt(call, tapes, place, groups.neurons, parameters, total_current, tile);
    if constexpr (recurs) {
      if (total_current != nullptr && recurrent.sums_current) {
        State state = begin == 0 ? initial : entries_of<State, C::states>(recurrent.state, place);
        rebuilt.sum_current(exchange, recurrent.total_current, begin, end, state);
        store_entries<C::states>(recurrent.state, place, state);
        if (!recurrent.adjoins) continue;
      }
    }
    const bool rebuilds = on_tape && tapes.steps != nullptr;
    if (rebuilds && end == layout.time) rebuilt.mark(initial);

    const FirBackward<M, V, of_current, of_spikes> fir(call, groups, place, memory, end);
    Carry carry{};
    double sums[C::parameters] = {};
    if constexpr (recurs) {
      if (end < layout.time) {
        load_carry<carries>(recurrent.carry, groups.neurons, place, carry);
        for (int k = 0; k < C::parameters; ++k) sums[k] = call.sums[k] != nullptr && place.active ? call.sums[k][place.neuron] : 0.0;
      }
    }
    V values[inputs][chunk] = {}, next[inputs][chunk] = {}, grad[chunk];
    // The segment on the tape, and its first step.
    std::int64_t mark = end == layout.time ? tapes.segments : end / tapes.segment, segment = mark * tapes.segment;
    for (std::int64_t first = (end - 1) / chunk * chunk + chunk; first >= begin; first -= chunk) {
      // The loads of the earlier chunk are in flight while this chunk is computed; it also needs the last potential of the earlier one. The
      // first iteration only loads.
      const std::int64_t sooner = first - chunk;
      if (sooner >= 0) load_steps(arrays, layout, place, sooner, steps_from(sooner, end, chunk), next, tile);
      if (first < end) {
        const int steps = steps_from(first, end, chunk), last = first + steps == layout.time ? steps - 1 : -1;
        ChunkRecord<V, chunk> at;
        at.template take<fires, Plain, Terms>(call.format, values);
        if (rebuilds && first < segment) {
          const std::int64_t stop = segment < layout.time ? segment : layout.time;
          segment -= tapes.segment;
          rebuilt.rebuild(initial.potential, --mark, segment, stop);
        }
        State states[chunk + 1] = {};   // the states before each step, and after the last
        if (rebuilds) rebuilt.template read_chunk<chunk>(first, segment, steps, states);
        if constexpr (fires) {
          if (Plain || call.surrogate.values == nullptr) fill_surrogate_chunk<N>(call.surrogate, parameters, states, at.u, at.h);
        }
        if constexpr (with_final) {
          EXODUS_UNROLL
          for (int d = chunk - 1; d >= 0; --d) {
            if (d != last) continue;
            at.q[d] += final.potential;
            if constexpr (fires) at.e[d] += final.spikes;
          }
        }
        if constexpr (recurs) {
          if (Terms && total_current != nullptr) at.a[0] = place.active ? total_current[first * groups.neurons + place.neuron] : V(0);
          if (exchange.given() && first < layout.time - 1) at.e[0] += exchange.gathered();
        }
        V partial[C::parameters] = {};
        EXODUS_UNROLL
        for (int d = chunk - 1; d >= 0; --d) {   // past the last step all inputs are 0, and so are the terms
          const std::int64_t n = first + d;
          State before = initial, direct{};
          if (d > 0 || first > 0) {
            const V u_before = d > 0 ? at.u[d > 0 ? d - 1 : 0] : next[0][chunk - 1];
            if (rebuilds) {
              before = states[d];
              before.potential = u_before;
            } else {
              before = restored_state<N, Form>(call.variant, parameters, call.most_spikes, State{}, u_before, V(0));
            }
          }
          if constexpr (with_final && hidden) {
            if (d == last) direct = final;
          }
          if constexpr (of_spikes) at.e[d] += fir.of_spikes(n);
          const StepRecord<V, State> record{at.u[d], before, direct, at.h[d], at.e[d], at.q[d], at.a[d]};
          typename C::Parameters terms;
          auto gradient = adjoint<M, Form>(parameters, record, carry, terms);
          if constexpr (with_taps) {
            V spikes = V(0);
            if constexpr (of_spikes) {
              spikes = restored_state<N, Form>(call.variant, parameters, call.most_spikes, State{}, at.u[d], V(0)).spikes;
            }
            fir.after_step(n, gradient, spikes);
          }
          grad[d] = gradient.current;
          if constexpr (recurs) {
            if (exchange.given()) exchange.give(grad[d]);
          }
          if constexpr (Terms) {
            for_each_field<C::parameters>(terms, [&](V& term, int k) { partial[k] += term; });
          }
        }
        if constexpr (Terms) {
          EXODUS_UNROLL
          for (int k = 0; k < C::parameters; ++k) sums[k] += static_cast<double>(partial[k]);
        }
        void* const result = with_taps && fir.leaves_current() ? nullptr : call.grad_current;
        store_steps(result, call.format, layout, place, first, steps, grad, tile);
      }
      EXODUS_UNROLL
      for (int k = 0; k < inputs; ++k) {
        EXODUS_UNROLL
        for (int d = 0; d < chunk; ++d) values[k][d] = next[k][d];
      }
    }
    if constexpr (recurs) {
      if (recurrent.carry != nullptr) store_carry<carries>(recurrent.carry, groups.neurons, place, carry);
    }
    if (begin == 0) {
      if constexpr (with_taps) fir.finish();
      State grad_initial = initial_gradient<M, Form>(parameters, initial, carry);
      if constexpr (of_spikes) grad_initial.spikes += fir.of_spikes(-1);
      if constexpr (recurs) {
        if (groups.features > 0) grad_initial.spikes += exchange.gathered();
      }
      store_entries<C::states>(call.grad_initial, place, grad_initial);
    }
    if constexpr (Terms) store_sums(call, groups, place, group, sums, of_warps);
  }
}

}   // namespace exodus::cuda
