/// @file
/// What the objects of an instruction set hand to each other: the stages of a model as a table of functions, and the structs that these
/// take. They have external linkage, so they hold data only: no member functions, which several objects could define.
#pragma once

#include "plan.hpp"

namespace exodus::cpu {

/// The parameters of a row as lanes. One block of a scalar serves all blocks: `follow` is 0 there, else all ones.
template <class V>
struct ParameterLanes {
  const V* lanes[max_parameters];
  int follow[max_parameters];
  bool all_scalar;
};

// What stays the same for all blocks and steps of a row is in these structs, written once; what changes are arguments. (Pointers that are
// stored one by one and loaded two at a time right after would stall the processor.)

template <class V>
struct StepRow {
  ParameterLanes<V> parameters;
  V* state[max_states];
  V cap;
  const V* feedback;   ///< what earlier spikes give the potential through an operator; null: there is none
};

template <class V>
struct SurrogateRow {
  const V* threshold;
  V scale, a, b, c;
  V* h;   ///< of a block
};

template <class V>
struct AdjointRow {
  ParameterLanes<V> parameters;
  V cap;
  V* before[max_states];         ///< the state before a step but its potential: of a block, or for models with hidden states a tape
  const V* direct[max_states];   ///< of a block: direct gradients of hidden states
  V* initial[max_states];        ///< of a block
  V* carry[max_states];
  V* grad_current;   ///< of a block, `grad_current_follows` 0, or of the row, all ones
  int grad_current_follows;
  V* grad_feedback;          ///< of the row; null: there is none
  V* sums[max_parameters];   ///< of the terms of some steps; `sums_follow` is 0 where nobody wants them, and they go to a block that nobody
                             ///< reads
  int sums_follow[max_parameters];
  V* grad_initial[max_states];   ///< of a block
};

template <class V>
using StepStage = void (*)(const StepRow<V>&, int lane, int lanes, const V* current);
template <class V>
using SurrogateStage = void (*)(const SurrogateRow<V>&, int lane, int lanes, const V* potential);
template <class V>
using RecordStage = void (*)(const AdjointRow<V>&, int lane, int lanes, const V* potential, V* spikes);
template <class V>
using RebuildStage = void (*)(const AdjointRow<V>&, int lane, int lanes, const V* potential, const V* before, const V* current,
                              std::int64_t from, std::int64_t to);
template <class V>
using SurrogateArgumentStage = void (*)(const AdjointRow<V>&, int lanes, const V* potential, std::int64_t at, V* x);
template <class V>
using AdjointStage = void (*)(const AdjointRow<V>&, int lane, int lanes, const V* u, const V* before, std::int64_t from, const V* h,
                              const V* e, const V* q, const V* a);
template <class V>
using InitialStage = void (*)(const AdjointRow<V>&, int lane, int lanes);

/// The stages of a model's variant, as an engine sees them.
template <class V>
struct BackwardStages {
  RecordStage<V> record;
  RebuildStage<V> rebuild;
  SurrogateArgumentStage<V> surrogate_argument;
  AdjointStage<V> adjoint, adjoint_shared, adjoint_with_terms;
  InitialStage<V> initial;
  bool carries_gradient;   ///< adjoint_shared leaves the gradient of the current to be taken from the first carry
};

template <class V>
struct ModelStages {
  static constexpr int max_variants = 18;
  int parameters, states;
  int hidden;   ///< the first state beyond potential and spikes
  bool fires;
  bool surrogate_reads_hidden_state;             ///< the surrogate sees the surrogate_argument stage's result
  int threshold;                                 ///< which parameter the surrogate reads
  int gain;                                      ///< which parameter multiplies the current; -1: none
  StepStage<V> forward[max_variants][2];         ///< by whether all parameters are scalars
  BackwardStages<V> backward[3][max_variants];   ///< by method
};

/// The stages of a model, as the object of that model exports them.
struct ModelTable {
  ModelStages<float> f32;
  ModelStages<double> f64;
};

}   // namespace exodus::cpu
