/// @file
/// The stages of a step: loops over a block of at most `block_lanes` neurons that call the models' scalar functions. The compiler
/// vectorises them. A stage is instantiated once for each model and variant; the engine calls stages through function pointers.
#pragma once

#include <iterator>
#include <utility>

#include "../model.hpp"
#include "stage_tables.hpp"

namespace exodus::cpu {
namespace {

/// Pointers to lanes, held by value so that they stay in registers.
template <class Pointer, int Count>
struct LaneList {
  Pointer at[Count];
};

template <int Count, class V>
EXODUS_SCALAR LaneList<V*, Count> list(V* const* pointers, int lane = 0) {   // V may be const
  LaneList<V*, Count> lanes{};
  for (int k = 0; k < Count; ++k) lanes.at[k] = pointers[k] + lane;
  return lanes;
}

template <int Count, class V>
EXODUS_SCALAR LaneList<const V*, Count> list(const ParameterLanes<V>& parameters, int lane) {
  LaneList<const V*, Count> lanes{};
  for (int k = 0; k < Count; ++k) lanes.at[k] = parameters.lanes[k] + (lane & parameters.follow[k]);
  return lanes;
}

/// The fields of a struct that are in memory: all of them, or those that a model's variant has.
struct EveryField {
  template <int Count>
  static constexpr unsigned bits = ~0u;
};
template <template <class> class N, int Variant>
struct FieldsOf {
  template <int Count>
  static constexpr unsigned bits = fields_of<N, Variant>(Count);
};

template <class Fields, int Count>
constexpr bool has_field(int k) {
  constexpr unsigned bits = Fields::template bits<Count>;
  return (bits >> k & 1) != 0;
}

template <class Struct, class Fields, class Pointer, int Count, std::size_t... K>
EXODUS_SCALAR Struct gather(const LaneList<Pointer, Count>& lanes, int i, std::index_sequence<K...>) {
  return Struct{(has_field<Fields, Count>(K) ? lanes.at[K][i] : 0)...};
}

/// The struct of lane i. Fields that are not in memory are 0.
template <class Struct, class Fields = EveryField, class Pointer, int Count>
EXODUS_SCALAR Struct gather(const LaneList<Pointer, Count>& lanes, int i) {
  return gather<Struct, Fields>(lanes, i, std::make_index_sequence<Count>{});
}

template <class Fields = EveryField, class Struct, class V, int Count>
EXODUS_SCALAR void scatter(const LaneList<V*, Count>& lanes, int i, Struct& values) {
  for_each_field<Count>(values, [&](V value, int k) __attribute__((always_inline)) {
    if (has_field<Fields, Count>(k)) lanes.at[k][i] = value;
  });
}

/// The inputs of a step of lane i.
template <bool Feedback, class V>
EXODUS_SCALAR StepInputs<V, Feedback> inputs_of(const V* current, const V* feedback, int i) {
  if constexpr (Feedback) {
    return {current[i], feedback[i]};
  } else {
    return {current[i]};
  }
}

/// `lane` is the block's first lane in the row, `lanes` its size. With `Shared`, all parameters are scalars and stay in registers.
template <template <class> class N, int Variant, bool Shared, class V>
void step_stage(const StepRow<V>& row, int lane, int lanes, const V* current) {
  using C = Traits<N<V>>;
  using Fields = FieldsOf<N, Variant>;
  const auto parameters = list<C::parameters>(row.parameters, lane);
  const auto states = list<C::states>(row.state, lane);
  const auto shared = gather<typename C::Parameters>(parameters, 0);
  const V most_spikes = row.most_spikes;
  const V* const feedback = takes_feedback<N, Variant> ? row.feedback + lane : nullptr;
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) {
    auto state = gather<typename C::State, Fields>(states, i);
    step<Variant>(Shared ? shared : gather<typename C::Parameters>(parameters, i), most_spikes, state,
                  inputs_of<takes_feedback<N, Variant>>(current, feedback, i));
    scatter<Fields>(states, i, state);
  }
}

/// The spikes of a recorded potential, for a model whose potential determines them.
template <template <class> class N, int Variant, class V>
void record_stage(const AdjointRow<V>& row, int lane, int lanes, const V* potential, V* spikes) {
  using C = Traits<N<V>>;
  const auto parameters = list<C::parameters>(row.parameters, lane);
  const V most_spikes = row.most_spikes;
  if constexpr (N<V>::fires && !surrogate_reads_hidden_state<N<V>>) {
    EXODUS_LANES
    for (int i = 0; i < lanes; ++i) {
      spikes[i] =
          restore_state<Variant>(gather<typename C::Parameters>(parameters, i), most_spikes, typename C::State{}, potential[i], V(0))
              .spikes;
    }
  }
}

/// For a model with hidden states: the state after a step, from the state before it and the step's potential and current. The tape has the
/// states before and after at `from` and `to`, except for their potentials, which are `before` and `potential`.
template <template <class> class N, int Variant, class V>
void rebuild_stage(const AdjointRow<V>& row, int lane, int lanes, const V* potential, const V* before, const V* current, std::int64_t from,
                   std::int64_t to) {
  using C = Traits<N<V>>;
  using Fields = FieldsOf<N, Variant>;
  const auto parameters = list<C::parameters>(row.parameters, lane);
  const V most_spikes = row.most_spikes;
  if constexpr (C::states > first_hidden<N<V>>) {
    LaneList<const V*, C::states> befores{};
    LaneList<V*, C::states> afters{};
    for (int k = 0; k < C::states; ++k) befores.at[k] = k == 0 ? before : row.before[k] + from, afters.at[k] = row.before[k] + to;
    EXODUS_LANES
    for (int i = 0; i < lanes; ++i) {
      auto state = restore_state<Variant>(gather<typename C::Parameters>(parameters, i), most_spikes,
                                          gather<typename C::State, Fields>(befores, i), potential[i], current[i]);
      for_each_field<C::states>(state, [&](V value, int k) __attribute__((always_inline)) {
        if (k > 0 && has_field<Fields, C::states>(k)) afters.at[k][i] = value;
      });
    }
  }
}

/// The surrogate's argument, for a model whose spikes depend on a hidden state too. The state is in the tape at `at`.
template <template <class> class N, class V>
void surrogate_argument_stage(const AdjointRow<V>& row, int lanes, const V* potential, std::int64_t at, V* x) {
  using C = Traits<N<V>>;
  if constexpr (surrogate_reads_hidden_state<N<V>>) {
    LaneList<const V*, C::states> states{};
    for (int k = 0; k < C::states; ++k) states.at[k] = k == 0 ? potential : row.before[k] + at;
    EXODUS_LANES
    for (int i = 0; i < lanes; ++i) x[i] = surrogate_argument(gather<typename C::State>(states, i));
  }
}

/// With `OneThreshold` all neurons share the threshold, so divisions by it leave the loop.
template <SurrogateKind Kind, bool OneThreshold, class V>
void surrogate_stage(const SurrogateRow<V>& row, int lane, int lanes, const V* potential) {
  const V* const threshold = OneThreshold ? row.threshold : row.threshold + lane;
  const V one_threshold = row.threshold[0];
  V* const h = row.h;
  const V scale = row.scale, a = row.a, b = row.b, c = row.c;
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) h[i] = surrogate_at<Kind>(potential[i], OneThreshold ? one_threshold : threshold[i], scale, a, b, c);
}

/// The parameters whose terms are summed, one bit each.
template <class N>
constexpr unsigned summed(Terms terms) {
  unsigned bits = 0;
  for (unsigned k = 0; k < std::size(N::parameter_table); ++k) {
    const ParameterFacts& facts = N::parameter_table[k];
    const bool decay = facts.domain == Domain::decay, of_threshold = facts.role == Role::threshold || facts.same_as != nullptr;
    const Terms first = decay                                     ? Terms::decays
                        : of_threshold                            ? Terms::usual
                        : facts.domain != Domain::below_threshold ? Terms::unclipped
                                                                  : Terms::all;
    if (terms >= first) bits |= 1u << k;
  }
  return bits;
}

/// Whether dL/d(current) is the gain times the first carry.
template <template <class> class N, Method M, int Variant, class V>
constexpr bool carries_gradient = N<V>::carries_gradient && !(M == Method::bptt && N<V>::fires) && !has_taps<N, Variant>(0);

/// Whether a model's spikes follow from its potential and no other state is hidden, so that no tape has them.
template <class N>
constexpr bool only_spikes_are_lost = N::fires && Traits<N>::states == first_hidden<N>;

/// Whether adjoint_stage reads the spikes of the step before, and with `Shared` takes them from that step's potential. To record them and
/// to load them again costs more (benchmarks/bandwidth.py, decay and threshold).
template <template <class> class N, Method M, int Variant, Terms Summed, class V>
constexpr bool restores_spikes = only_spikes_are_lost<N<V>> && (spike_readers<N, M, Variant>() & (summed<N<V>>(Summed) | carry_bit)) != 0;

/// u, h, e, q and a are blocks at step n; `before` is the potential of step n-1, and the rest of that state is in the row at `from`. The
/// gradient of the current is not stored in two cases. If `Shared` and it is the gain times the first carry, the engine computes it from
/// the carry, because stores bound this loop. If both kernels have taps, it equals the gradient of the feedback. Where `Shared` restores
/// spikes, step n-1 is one of the pass: at step 0 they are in the row.
template <template <class> class N, Method M, int Variant, Terms Summed, bool Shared, class V>
void adjoint_stage(const AdjointRow<V>& row, int lane, int lanes, const V* u, const V* before, std::int64_t from, const V* h, const V* e,
                   const V* q, const V* a) {
  using C = Traits<N<V>>;
  using Fields = FieldsOf<N, Variant>;
  using Carry = carry_of<N<V>, M, V>;
  constexpr bool feedback = takes_feedback<N, Variant>;
  constexpr bool stores_current = !(Shared && carries_gradient<N, M, Variant, V>) && !(feedback && has_taps<N, Variant>(0));
  constexpr bool restores = Shared && restores_spikes<N, M, Variant, Summed, V>;
  constexpr int carries = field_count<Carry, V>;
  static_assert(carries <= C::states);   // a row has memory for C::states carries
  const auto parameters = list<C::parameters>(row.parameters, lane);
  const auto carry_lanes = list<carries>(row.carry, lane);
  LaneList<V*, C::parameters> sums{};
  for (int k = 0; k < C::parameters; ++k) sums.at[k] = row.sums[k] + (lane & row.sums_follow[k]);
  const auto shared = gather<typename C::Parameters>(parameters, 0);
  LaneList<const V*, C::states> befores{};
  befores.at[0] = before;
  for (int k = 1; k < C::states; ++k) befores.at[k] = row.before[k] + from;
  const auto grad_states = list<C::states>(row.grad_state);
  const V most_spikes = row.most_spikes;
  V* const grad_current = row.grad_current + (lane & row.grad_current_follows);
  V* const grad_feedback = feedback ? row.grad_feedback + lane : nullptr;
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) {
    auto state_before = gather<typename C::State, Fields>(befores, i);
    if constexpr (restores) state_before = restore_state<Variant>(shared, most_spikes, state_before, before[i], V(0));
    const StepRecord<V, typename C::State> at{u[i], state_before, gather<typename C::State, Fields>(grad_states, i), h[i], e[i],
                                              q[i], a[i]};
    auto carry = gather<Carry, Fields>(carry_lanes, i);
    typename C::Parameters terms;
    const auto gradient = adjoint<M, Variant>(Shared ? shared : gather<typename C::Parameters>(parameters, i), at, carry, terms);
    if constexpr (stores_current) grad_current[i] = gradient.current;
    if constexpr (feedback) grad_feedback[i] = gradient.feedback;
    scatter<Fields>(carry_lanes, i, carry);
    for_each_field<C::parameters>(terms, [&](V term, int k) __attribute__((always_inline)) {
      constexpr unsigned bits = summed<N<V>>(Summed);   // a constant, since control flow would keep the loop from being vectorised
      if ((bits >> k & 1) != 0) sums.at[k][i] += term;
    });
  }
}

/// dL/d(initial state), from the carry after step 0 and the initial state.
template <template <class> class N, Method M, int Variant, class V>
void initial_stage(const AdjointRow<V>& row, int lane, int lanes) {
  using C = Traits<N<V>>;
  using Fields = FieldsOf<N, Variant>;
  using Carry = carry_of<N<V>, M, V>;
  const auto parameters = list<C::parameters>(row.parameters, lane);
  const auto initial = list<C::states>(row.initial);
  const auto carries = list<field_count<Carry, V>>(row.carry, lane);
  const auto grads = list<C::states>(row.grad_initial);
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) {
    auto grad = initial_gradient<M, Variant>(gather<typename C::Parameters>(parameters, i), gather<typename C::State>(initial, i),
                                             gather<Carry, Fields>(carries, i));
    scatter(grads, i, grad);
  }
}

/// How many spikes a step may have makes a difference to an adjoint only where it restores them.
template <template <class> class N, Method M, int Variant, Terms Summed, class V>
constexpr int shared_variant = restores_spikes<N, M, Variant, Summed, V> ? Variant : Variant % Traits<N<V>>::adjoint_variants;

template <template <class> class N, Method M, int Variant, Terms Summed, class V>
constexpr AdjointStage<V> adjoint_shared = adjoint_stage<N, M, shared_variant<N, M, Variant, Summed, V>, Summed, true, V>;

template <template <class> class N, Method M, int Variant, class V>
constexpr BackwardStages<V> backward_stages() {
  constexpr int adjoint_variant = Variant % Traits<N<V>>::adjoint_variants;
  return {record_stage<N, Variant, V>,
          rebuild_stage<N, Variant, V>,
          surrogate_argument_stage<N, V>,
          {adjoint_shared<N, M, Variant, Terms::none, V>, adjoint_shared<N, M, Variant, Terms::decays, V>,
           adjoint_shared<N, M, Variant, Terms::usual, V>, adjoint_shared<N, M, Variant, Terms::unclipped, V>},
          {adjoint_stage<N, M, adjoint_variant, Terms::none, false, V>, adjoint_stage<N, M, adjoint_variant, Terms::all, false, V>},
          initial_stage<N, M, adjoint_variant, V>,
          spike_readers<N, M, adjoint_variant>(),
          only_spikes_are_lost<N<V>>,
          carries_gradient<N, M, adjoint_variant, V>};
}

template <template <class> class N, class V, int... Variant>
constexpr ModelStages<V> model_stages(std::integer_sequence<int, Variant...>) {
  return {Traits<N<V>>::parameters,
          Traits<N<V>>::states,
          first_hidden<N<V>>,
          N<V>::fires,
          surrogate_reads_hidden_state<N<V>>,
          parameter_of<N<V>>(Role::threshold),
          parameter_of<N<V>>(Role::gain),
          {summed<N<V>>(Terms::none), summed<N<V>>(Terms::decays), summed<N<V>>(Terms::usual), summed<N<V>>(Terms::unclipped)},
          {{step_stage<N, Variant, false, V>, step_stage<N, Variant, true, V>}...},
          {{backward_stages<N, Method::exodus, Variant, V>()...},
           {backward_stages<N, Method::slayer, Variant, V>()...},
           {backward_stages<N, Method::bptt, Variant, V>()...}}};
}

template <class V>
constexpr SurrogateStage<V> surrogate_stages[][2] = {
#define EXODUS_KIND(name, expression) {surrogate_stage<SurrogateKind::name, false, V>, surrogate_stage<SurrogateKind::name, true, V>},
    EXODUS_SURROGATES(EXODUS_KIND)
#undef EXODUS_KIND
};

}   // namespace
}   // namespace exodus::cpu
