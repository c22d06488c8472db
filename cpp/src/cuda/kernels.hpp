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

/// The neuron that this thread processes.
template <bool Stepped>
EXODUS_DEVICE_SCALAR Place taken_place(const Layout& layout, const Groups& groups, std::int64_t group) {
  if constexpr (Stepped) {
    if (groups.features > 0) return place_of_entries(layout, groups, group);
  }
  return place_of(layout, groups, group, static_cast<int>(threadIdx.x));
}

/// The steps of this thread's neuron that a launch computes, by their numbers (see Place), and those of its block.
template <bool Stepped, class V>
EXODUS_DEVICE_SCALAR Steps steps_of(const Layout& layout, const Place& place, const RecurrentMemory<V>& recurrent) {
  if (!place.active) return {0, 0};
  return Stepped ? Steps{recurrent.begin, recurrent.end} : Steps{place.start, place.start + layout.time};
}
template <bool Stepped, class V>
EXODUS_DEVICE_SCALAR Steps steps_of_block(const Groups& groups, const RecurrentMemory<V>& recurrent) {
  return Stepped ? Steps{recurrent.begin, recurrent.end} : Steps{0, groups.steps};
}

/// The most threads of a block.
template <bool Stepped, Access A>
constexpr int most_threads = Stepped ? entry_threads : (A == Access::tiled ? tiled_threads : block_threads);

/// The most threads of a block of the forward kernels, of which those without taps can be wider (see widest_forward() of model.cu).
template <template <class> class N, int Variant, class V, bool Stepped, Access A>
constexpr int most_forward_threads =
    Stepped && sizeof(V) == 4 && !has_taps<N, Variant>(0) && !has_taps<N, Variant>(1) ? forward_entry_threads : most_threads<Stepped, A>;

/// The number of blocks that must fit on a multiprocessor: the most that do not cause register spills.
template <class V, bool Stepped, Access A>
constexpr int blocks_forward = std::is_same_v<V, float> && !Stepped && A == Access::lanes ? 4 : 1;

/// Whether a block has shared memory for `elements` of the kernel's own, and for the exchange of a recurrence (`Recurs`) or the ring of the
/// spikes' kernel (`WithRing`). A launch has at most one of the two.
template <class V, bool Recurs, bool WithRing>
EXODUS_DEVICE_SCALAR constexpr bool leaves_room(int elements, int threads) {
  const int widest = threads > entry_threads ? widest_forward_entry<V> : widest_entry<V>;
  const std::size_t exchanged = Recurs ? exchange_bytes<V>(widest) : 0, ring = WithRing ? most_ring_bytes : 0;
  return static_cast<std::size_t>(elements) * sizeof(V) + (exchanged < ring ? ring : exchanged) <= shared_bytes;
}

/// If the neuron has a FIR kernel of the spikes, or recurrent weights (`Stepped`), a chunk is one step: the time is spent outside this
/// loop.
template <template <class> class N, int Variant, class V, bool Stepped, Access A>
EXODUS_KERNEL_OF((most_forward_threads<N, Variant, V, Stepped, A>), (blocks_forward<V, Stepped, A>))
forward_kernel(EXODUS_GRID_CONSTANT Formatted<ForwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups, const FirMemory<V> fir_memory,
               EXODUS_GRID_CONSTANT RecurrentMemory<V> recurrent) {
  using C = Traits<N<V>>;
  constexpr int threads = most_forward_threads<N, Variant, V, Stepped, A>;
  constexpr int chunk = Stepped ? 1 : whole_chunk<V>, stages = stages_of<A, V>(1, chunk, threads);
  constexpr bool of_current = has_taps<N, Variant>(0), of_spikes = has_taps<N, Variant>(1), recurs = Stepped && N<V>::fires;
  using Input = Pipe<A, 1, chunk, stages, false, V, 1>;
  static_assert(leaves_room<V, recurs, of_spikes>(Input::elements(threads), threads));
  EXODUS_SHARED(V, memory, Input::elements(threads));
  EXODUS_DYNAMIC_SHARED(V, exchanged);
  Exchange<V> exchange(call.recurrent, groups, recurrent, exchanged);
  const Steps all = steps_of_block<Stepped>(groups, recurrent);
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = taken_place<Stepped>(call.layout, groups, group);
    const Steps own = steps_of<Stepped>(call.layout, place, recurrent);
    const auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    auto state = entries_of<typename C::State, C::states>(call.initial, place);
    FirForward<V, of_current, of_spikes, Stepped> fir(call, groups, place, fir_memory, exchanged, all.begin);
    exchange.enter(place);
    const Sources<1> sources{{fir.source()}};
    Input input(sources, call.layout, place, own, memory);
    input.start(all.begin);
    for (std::int64_t first = all.begin; first < all.end; first += chunk) {
      const Span span = own.template in_chunk<chunk>(first);
      V current[1][chunk], potential[chunk], spikes[chunk];
      input.take(first, span, current);
      if constexpr (A != Access::direct) decode(sources.at[0].format, current[0]);
      const auto advance = [&](const Span& computed) EXODUS_INLINE {
        EXODUS_UNROLL
        for (int d = 0; d < chunk; ++d) {
          if constexpr (recurs) {
            if (exchange.given()) current[0][d] = current[0][d] + exchange.from_spikes(state.spikes);
          }
          V spikes_before = V(0);
          if constexpr (of_spikes) spikes_before = state.spikes;
          const auto in = fir.inputs(first, current[0][d], spikes_before);
          if (computed.whole || computed.has(d)) step<Variant>(parameters, call.most_spikes, state, in);
          potential[d] = state.potential;
          if constexpr (N<V>::fires) spikes[d] = state.spikes;
          if constexpr (of_spikes) fir.add_spikes(state.spikes);
        }
      };
      if (span.whole) {   // without a test per step
        advance({0, chunk, true});
      } else {
        advance(span);
      }
      input.template store<0>(call.potential, Format::arithmetic, first, span, potential);
      if constexpr (N<V>::fires) input.template store<1>(call.spikes, call.format, first, span, spikes);
      input.release(first);
    }
    store_entries<C::states>(call.final, place, state);
    if constexpr (of_current || of_spikes) {
      if (all.end == call.layout.time) fir.finish();
    }
  }
}

/// Workspace for the hidden states, which cannot be computed from the potential. The states before each segment are kept as a checkpoint,
/// and those inside of it are recomputed. Each slot has `states` - 1 arrays over the neurons.
template <class V>
struct Tape {
  V* marks = nullptr;         ///< a slot for each segment; null if not needed
  V* steps = nullptr;         ///< a slot for each step of a segment and one more; only stepped passes need it, others have registers
  std::int64_t segment = 0;   ///< steps in a segment: a chunk, or for stepped passes more of them
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

/// Recomputes the hidden states of a neuron.
template <template <class> class N, int Form, class V>
class HiddenStates {
 public:
  using C = Traits<N<V>>;
  using State = typename C::State;

  EXODUS_DEVICE HiddenStates(const Formatted<BackwardCall, V>& call, const Tape<V>& tape, const Place& place, std::int64_t neurons,
                             const typename C::Parameters& parameters)
      : call_(call), tape_(tape), place_(place), neurons_(neurons), parameters_(parameters) {}

  /// The checkpoint before a segment, without the potential. Before the first segment, and in a thread without a neuron, it is any other
  /// one, which nobody uses: so the loads are under no condition.
  EXODUS_DEVICE State marked(std::int64_t segment) const { return read(tape_.marks, segment < 0 ? 0 : segment); }

  /// Runs through all steps, and stores the state before each chunk. The inputs, the current only if asked for, come through the warp's
  /// shared memory, `Elements` from `warp` on. All threads of a warp must call this together.
  template <Access A, bool WithCurrent, int D, int Elements>
  EXODUS_DEVICE void mark(State state, const Steps& own, std::int64_t end, SharedPointer<V> memory, int warp) const {
    constexpr int inputs = WithCurrent ? 2 : 1, fit = Elements / (inputs * stage_steps<A, V>(inputs, D) * warp_threads);
    constexpr int stages = fit < 4 ? fit : 4;
    static_assert(stages >= 2);
    Sources<inputs> sources{{{call_.potential}}};
    if constexpr (WithCurrent) sources.at[1] = {call_.current, call_.format};
    Pipe<A, inputs, D, stages, false, V> input(sources, call_.layout, place_, own, memory, warp);
    input.start(0);
    for (std::int64_t first = 0; first < end; first += D) {
      const Span span = own.template in_chunk<D>(first);
      V values[inputs][D], none[D] = {};
      input.take(first, span, values);
      if constexpr (WithCurrent && A != Access::direct) decode(call_.format, values[1]);
      write(tape_.marks, first / D, state);
      State states[D + 1] = {state};
      restore_chunk(span, values[0], WithCurrent ? values[inputs - 1] : none, states);
      state = states[D];
      input.release(first);
    }
  }

  /// states[d] = the state before step d of a chunk, and states[D] = that after the last one. Steps that are not of the neuron leave the
  /// state. states[0] is given.
  template <int D>
  EXODUS_DEVICE void restore_chunk(const Span& span, const V (&u)[D], const V (&a)[D], State (&states)[D + 1]) const {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) states[d + 1] = span.has(d) ? restored(states[d], u[d], a[d]) : states[d];
  }

 protected:
  EXODUS_DEVICE State restored(const State& before, V u, V a) const {
    return restored_state<N, Form>(call_.variant, parameters_, call_.most_spikes, before, u, a);
  }
  EXODUS_DEVICE std::int64_t entry(std::int64_t slot, int state) const {
    return (slot * (C::states - 1) + state - 1) * neurons_ + (place_.active ? place_.neuron : 0);
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
};

/// The same for stepped passes, whose segments are longer than a chunk of one step: they are recomputed onto the tape. It loads the inputs
/// of `Ahead` steps at a time.
template <template <class> class N, int Form, class V, int Ahead>
class SteppedHiddenStates : public HiddenStates<N, Form, V> {
 public:
  using Base = HiddenStates<N, Form, V>;
  using C = Traits<N<V>>;
  using State = typename C::State;
  using Base::Base, Base::call_, Base::tape_, Base::place_, Base::neurons_, Base::restored, Base::read, Base::write;

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

  /// Runs through all steps, and stores the state before each segment. `total_current`: a', the current including the recurrence; null if
  /// there is none.
  EXODUS_DEVICE void mark(State state, std::int64_t end, const V* total_current) const {
    std::int64_t mark = 0;
    run(
        0, end, total_current, state,
        [&](std::int64_t n) {
          if (n == mark * tape_.segment) write(tape_.marks, mark++, state);
        },
        [](std::int64_t) {});
  }

  /// Recomputes the states of a segment from its checkpoint. The potential before the segment is in the array or, before step 0, is the
  /// initial one.
  EXODUS_DEVICE void rebuild(V initial_potential, std::int64_t mark, std::int64_t begin, std::int64_t end, const V* total_current) const {
    State state = Base::marked(mark);
    state.potential = initial_potential;
    if (begin > 0 && call_.potential != nullptr && place_.active) {
      state.potential = call_.potential[place_.offset + (begin - 1) * call_.layout.inner];
    }
    write(tape_.steps, 0, state);
    run(begin, end, total_current, state, [](std::int64_t) {}, [&](std::int64_t n) { write(tape_.steps, n - begin + 1, state); });
  }

  /// The states before and after step n, without the potential. The segment starts at `begin`.
  EXODUS_DEVICE void read_step(std::int64_t n, std::int64_t begin, State (&states)[2]) const {
    if (!place_.active) return;
    states[0] = read(tape_.steps, n - begin), states[1] = read(tape_.steps, n - begin + 1);
  }

 private:
  /// Recomputes steps [begin, end). Calls `at_chunk` before each chunk and `after_step` after each step.
  template <class F, class G>
  EXODUS_DEVICE void run(std::int64_t begin, std::int64_t end, const V* total_current, State& state, const F& at_chunk,
                         const G& after_step) const {
    for (std::int64_t first = begin; first < end; first += Ahead) {
      const int steps = steps_from(first, end, Ahead);
      V values[2][Ahead];
      load(first, steps, total_current, values);
      if (total_current == nullptr) decode(call_.format, values[1]);
      at_chunk(first);
      EXODUS_UNROLL
      for (int d = 0; d < Ahead; ++d) {
        if (d >= steps) continue;
        state = restored(state, values[0][d], values[1][d]);
        after_step(first + d);
      }
    }
  }

  /// Loads the potential and the bits of the current.
  EXODUS_DEVICE void load(std::int64_t first, int steps, const V* total_current, V (&values)[2][Ahead]) const {
    const std::int64_t at = place_.offset + first * call_.layout.inner;
    const int there = place_.active ? steps : 0;
    load_lane<V>({call_.potential}, at, call_.layout.inner, there, values[0]);
    if (total_current != nullptr) {
      load_lane<V>({total_current}, first * neurons_ + place_.neuron, neurons_, there, values[1]);
    } else {
      load_lane<V>({call_.current, call_.format}, at, call_.layout.inner, there, values[1]);
    }
  }
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
  if constexpr (surrogate_reads_hidden_state<N<V>>) {
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

/// Stores the sums of the terms of each requested parameter: one per neuron, or one per warp, summed by shuffles. All threads of a warp
/// must call this together.
template <int Count, class V>
EXODUS_DEVICE_SCALAR void store_sums(const Formatted<BackwardCall, V>& call, const Groups& groups, const Place& place, std::int64_t group,
                                     const double (&sums)[Count]) {
  const int warp = static_cast<int>(threadIdx.x) / warp_threads, lane = static_cast<int>(threadIdx.x) % warp_threads;
  EXODUS_UNROLL
  for (int k = 0; k < Count; ++k) {
    if (call.sums[k] == nullptr) continue;
    double total = place.active ? sums[k] : 0.0;
    if ((groups.whole_sums >> k & 1) != 0) {
      for (unsigned delta = warp_threads / 2u; delta > 0; delta /= 2) total += __shfl_down_sync(0xffffffffu, total, delta);
      if (lane == 0 && place.active) call.sums[k][group * (groups.threads / warp_threads) + warp] = total;
    } else if (place.active) {
      call.sums[k][place.neuron] = total;
    }
  }
}

/// The terms of so many steps are added up in V, as those of a chunk are.
constexpr int summed_steps = 8;

/// The same for passes that run step by step. These lack the registers for sums in double, so after some steps they add the terms to the
/// sums in the workspace, and clear them. The terms of the last steps, which come first, overwrite the memory.
template <int Parameters, class V>
EXODUS_DEVICE_SCALAR void add_to_sums(const Formatted<BackwardCall, V>& call, const Place& place, bool overwrites, V (&terms)[Parameters]) {
  EXODUS_UNROLL
  for (int k = 0; k < Parameters; ++k) {
    if (call.sums[k] != nullptr && place.active) {
      double& sum = call.sums[k][place.neuron];
      sum = static_cast<double>(terms[k]) + (overwrites ? 0.0 : sum);
    }
    terms[k] = V(0);
  }
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

  template <Access A, bool Fires, bool Plain, bool Terms, int Count>
  EXODUS_DEVICE void take(Format format, const V (&values)[Count][D]) {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      u[d] = values[0][d];
      if constexpr (Fires) e[d] = values[1][d];
      if constexpr (!Fires) q[d] = values[1][d];
      if constexpr (!Plain) q[d] = values[2][d], h[d] = values[3][d];
      if constexpr (Terms) a[d] = values[Count - 1][d];
    }
    if constexpr (Fires && A != Access::direct) decode(format, e);
    if constexpr (Terms && A != Access::direct) decode(format, a);
  }
};

/// Whether the terms of parameters (see StepRecord) or the surrogate read hidden states.
template <template <class> class N, class V, bool Terms>
constexpr bool reads_hidden_states = (Terms || surrogate_reads_hidden_state<N<V>>) && Traits<N<V>>::states > first_hidden<N<V>>;

/// The same for backward kernels.
template <template <class> class N, Method M, class V, bool Terms, bool Plain, bool Stepped, Access A>
constexpr int blocks_backward() {
  if (Stepped || !std::is_same_v<V, float>) return 1;
  if (A == Access::tiled) return 2;
  if (!Plain) return reads_hidden_states<N, V, Terms> || M == Method::bptt ? 2 : 3;
  if (reads_hidden_states<N, V, Terms>) return M != Method::bptt && Traits<N<V>>::states <= 3 ? 3 : 2;
  return Terms ? (M == Method::bptt ? 2 : 3) : 4;
}

template <template <class> class N, Method M, int Form, class V, bool Terms, bool Plain, bool Stepped, Access A>
EXODUS_KERNEL_OF((most_threads<Stepped, A>), (blocks_backward<N, M, V, Terms, Plain, Stepped, A>()))
backward_kernel(EXODUS_GRID_CONSTANT Formatted<BackwardCall, V> call, EXODUS_GRID_CONSTANT Groups groups, const Tape<V> tape,
                const FirMemory<V> fir_memory, EXODUS_GRID_CONSTANT RecurrentMemory<V> recurrent) {
  using C = Traits<N<V>>;
  using State = typename C::State;
  using Carry = carry_of<N<V>, M, V>;
  constexpr bool fires = N<V>::fires, hidden = C::states > first_hidden<N<V>>, with_final = !(Plain && fires);
  constexpr bool of_current = has_taps<N, Form>(0), of_spikes = has_taps<N, Form>(1);
  constexpr bool with_taps = Stepped && (of_current || of_spikes), recurs = Stepped && fires, leaves_lam = of_current && !Stepped;
  constexpr int inputs = inputs_backward<fires, Plain, Terms>, carries = field_count<Carry, V>;
  constexpr bool reads_hidden = reads_hidden_states<N, V, Terms>;
  constexpr int chunk = Stepped ? 1 : (Plain && !Terms ? whole_chunk<V> : half_chunk<V>);
  constexpr int stages = stages_of<A, V>(inputs, chunk, most_threads<Stepped, A>);
  using Input = Pipe<A, inputs, chunk, stages, true, V>;
  static_assert(leaves_room<V, recurs, false>(Input::elements(most_threads<Stepped, A>), most_threads<Stepped, A>));
  using Hidden =
      std::conditional_t<Stepped, SteppedHiddenStates<N, Form, V, std::is_same_v<V, float> ? half_chunk<V> : 2>, HiddenStates<N, Form, V>>;
  EXODUS_SHARED(V, memory, Input::elements(most_threads<Stepped, A>));
  EXODUS_DYNAMIC_SHARED(V, exchanged);
  const Layout& layout = call.layout;
  const Sources<inputs> sources = sources_of<fires, Plain, Terms>(call);
  Exchange<V> exchange(call.recurrent, groups, recurrent, exchanged);
  const Steps all = steps_of_block<Stepped>(groups, recurrent);
  const std::int64_t time = groups.steps;   // the end of all launches' steps
  const V* const total_current = recurs ? recurrent.total_current : nullptr;
  for (std::int64_t group = blockIdx.x; group < groups.count; group += gridDim.x) {
    const Place place = taken_place<Stepped>(layout, groups, group);
    const Steps own = steps_of<Stepped>(layout, place, recurrent);
    [[maybe_unused]] const std::int64_t closing = place.start + layout.time - 1;   // the neuron's last step
    exchange.enter(place);
    auto parameters = parameters_of<typename C::Parameters, C::parameters>(call.parameters, groups, place.neuron);
    // Read where they are needed, which is seldom: they would occupy registers throughout. The latter is the direct gradient of the state
    // after the last step.
    const auto initial = [&]() EXODUS_INLINE { return entries_of<State, C::states>(call.initial, place); };
    [[maybe_unused]] const auto final = [&]() EXODUS_INLINE { return entries_of<State, C::states>(call.grad_final, place); };
    const Hidden hidden_states(call, tape, place, groups.neurons, parameters);
    if constexpr (recurs) {
      if (total_current != nullptr && recurrent.sums_current) {
        State state = all.begin == 0 ? initial() : entries_of<State, C::states>(recurrent.state, place);
        hidden_states.sum_current(exchange, recurrent.total_current, all.begin, all.end, state);
        store_entries<C::states>(recurrent.state, place, state);
        if (!recurrent.adjoins) continue;
      }
    }
    // A step's potential is read with its own inputs and with those of the step after it.
    Input input(sources, layout, place, {Stepped && own.begin > 0 ? own.begin - 1 : own.begin, own.end}, memory);
    const bool restores = reads_hidden && tape.marks != nullptr;
    if constexpr (reads_hidden && Stepped) {
      if (restores && all.end == time) hidden_states.mark(initial(), time, total_current);
    } else if constexpr (reads_hidden) {
      if (restores) hidden_states.template mark<A, Terms, chunk, Input::warp_elements>(initial(), own, time, memory, input.base());
    }

    [[maybe_unused]] FirBackward<M, V, of_current, of_spikes> fir(call, groups, place, fir_memory);
    Carry carry{};
    const auto store_initial = [&](const Carry& first) EXODUS_INLINE {   // the carry after the neuron's first step
      State grad_initial = initial_gradient<M, Form>(parameters, initial(), first);
      if constexpr (of_spikes) grad_initial.spikes += fir.of_spikes(-1);
      if constexpr (recurs) {
        if (groups.features > 0) grad_initial.spikes += exchange.gathered();
      }
      store_entries<C::states>(call.grad_initial, place, grad_initial);
    };
    V terms[C::parameters] = {};   // over the steps since they were added to the sums
    [[maybe_unused]] double sums[C::parameters] = {};
    if constexpr (recurs) {
      if (all.end < time) load_carry<carries>(recurrent.carry, groups.neurons, place, carry);
    }
    const std::int64_t top = (all.end - 1) / chunk * chunk;
    // Stepped: the segment on the tape, and its first step. Else: the checkpoint before the chunk, which plain passes read a chunk ahead;
    // others lack the registers.
    [[maybe_unused]] std::int64_t mark = 0, segment = 0;
    [[maybe_unused]] State marked{};
    if constexpr (Stepped) {
      mark = all.end == time ? tape.segments : all.end / tape.segment, segment = mark * tape.segment;
    } else {
      if (Plain && restores) marked = hidden_states.marked(top / chunk);
    }
    [[maybe_unused]] const V initial_potential = reads_hidden && !Stepped ? initial().potential : V(0);
    input.start(top);
    for (std::int64_t first = top; first > all.begin - chunk; first -= chunk) {
      [[maybe_unused]] V gathered = V(0);   // first of all, since it takes many registers
      if constexpr (recurs) {
        if (exchange.given() && first < time - 1) gathered = exchange.gathered();
      }
      const Span span = own.template in_chunk<chunk>(first);
      // The neuron's first step, if it is in the chunk, and whether there are steps of this neuron before one.
      [[maybe_unused]] const int opening = first > place.start ? -1 : span.lo;
      const auto follows = [&](int d) EXODUS_INLINE { return A == Access::tiled ? d > opening : d > 0 || first > 0; };
      V values[inputs][chunk], grad[chunk];
      input.take(first, span, values);
      ChunkRecord<V, chunk> at;
      const auto before_step = [&](int d) EXODUS_INLINE { return d > 0 ? at.u[d > 0 ? d - 1 : 0] : input.sooner(first); };
      at.template take<A, fires, Plain, Terms>(call.format, values);
      State states[chunk + 1] = {};   // the states before each step, and after the last
      if constexpr (Stepped) {
        if (restores && first < segment) {
          const std::int64_t stop = segment < time ? segment : time;
          segment -= tape.segment;
          hidden_states.rebuild(initial().potential, --mark, segment, stop, total_current);
        }
        if (restores) {
          hidden_states.read_step(first, segment, states);
          states[0].potential = before_step(0);
        }
      } else {
        if (restores) {
          states[0] = Plain ? marked : hidden_states.marked(first / chunk);
          states[0].potential = before_step(0);
          if (first <= place.start) states[0].potential = initial_potential;
          hidden_states.restore_chunk(span, at.u, at.a, states);
          if constexpr (Plain) marked = hidden_states.marked(first / chunk - 1);
        }
      }
      if constexpr (fires) {
        if (Plain || call.surrogate.values == nullptr) fill_surrogate_chunk<N>(call.surrogate, parameters, states, at.u, at.h);
      }
      if constexpr (with_final) {
        EXODUS_UNROLL
        for (int d = chunk - 1; d >= 0; --d) {
          if (first + d != closing) continue;
          const State direct = final();
          at.q[d] += direct.potential;
          if constexpr (fires) at.e[d] += direct.spikes;
        }
      }
      if constexpr (recurs) {
        if (Terms && total_current != nullptr) at.a[0] = place.active ? total_current[first * groups.neurons + place.neuron] : V(0);
        at.e[0] += gathered;
      }
      [[maybe_unused]] Carry first_carry{};
      EXODUS_UNROLL
      for (int d = chunk - 1; d >= 0; --d) {   // the inputs and the carry of steps that are not this neuron's are 0, and so are the terms
        const std::int64_t n = first + d;
        State before, direct{};
        if (restores) {
          before = states[d];
        } else {
          before = restored_state<N, Form>(call.variant, parameters, call.most_spikes, State{}, before_step(d), V(0));
        }
        if (!follows(d)) before = initial();
        if constexpr (with_final && hidden) {
          if (n == closing) direct = final();
        }
        if constexpr (of_spikes) at.e[d] += fir.of_spikes(n);
        const StepRecord<V, State> record{at.u[d], before, direct, at.h[d], at.e[d], at.q[d], at.a[d]};
        typename C::Parameters of_step;
        auto gradient = adjoint<M, Form>(parameters, record, carry, of_step);
        if constexpr (with_taps) {
          V spikes = V(0);
          if constexpr (of_spikes) {
            spikes = restored_state<N, Form>(call.variant, parameters, call.most_spikes, State{}, at.u[d], V(0)).spikes;
          }
          fir.after_step(n, gradient, spikes);
        }
        grad[d] = gradient.current;
        if constexpr (A == Access::tiled) {
          if (d == opening) first_carry = carry, carry = Carry{};
        }
        if constexpr (recurs) {
          if (exchange.given()) exchange.give(grad[d]);
        }
        if constexpr (Terms) {
          for_each_field<C::parameters>(of_step, [&](V& term, int k) { terms[k] += term; });
        }
      }
      if constexpr (Terms && Stepped) {
        if (first % summed_steps == 0 || first == all.begin) {
          add_to_sums(call, place, all.end == time && first + summed_steps >= time, terms);
        }
      } else if constexpr (Terms) {
        EXODUS_UNROLL
        for (int k = 0; k < C::parameters; ++k) sums[k] += static_cast<double>(terms[k]), terms[k] = V(0);
      }
      if constexpr (leaves_lam) {
        input.template store<0>(fir_memory.lam, Format::arithmetic, first, span, grad);
      } else {
        input.template store<0>(with_taps && fir.leaves_current() ? nullptr : call.grad_current, call.format, first, span, grad);
      }
      input.release(first);
      if constexpr (A == Access::tiled) {
        if (0 <= opening && opening < chunk) store_initial(first_carry);
      }
    }
    if constexpr (recurs) {
      if (recurrent.carry != nullptr) store_carry<carries>(recurrent.carry, groups.neurons, place, carry);
    }
    if constexpr (A != Access::tiled) {
      if (all.begin == 0) store_initial(carry);
    }
    if constexpr (Terms && !Stepped) store_sums(call, groups, place, group, sums);
  }
}

}   // namespace exodus::cuda
