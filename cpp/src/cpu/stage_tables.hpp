/// @file
/// The interface between the object files of an instruction set: the stages of a model as a table of functions, and their arguments. The
/// types have external linkage and hold only data, because several object files would otherwise define the same member functions.
#pragma once

#include "plan.hpp"

namespace exodus::cpu {

/// The parameters of a row as lanes. A scalar has one block for all: its `follow`, a mask for the lane, is 0, else all ones.
template <class V>
struct ParameterLanes {
  const V* lanes[max_parameters];
  int follow[max_parameters];
  bool all_scalar;
};

// These structs hold the data that is constant over the blocks and steps of a row, and are written once. Data that varies is passed as
// arguments: a pointer stored just before a vector load of two pointers would stall that load.

template <class V>
struct StepRow {
  ParameterLanes<V> parameters;
  V* state[max_states];
  V most_spikes;
  const V* feedback;   ///< the contribution of earlier spikes to the potential through an operator; null if there is none
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
  V most_spikes;
  V* before[max_states];             ///< the state before a step, except its potential: of a block, or on a tape
  const V* grad_state[max_states];   ///< of a block: gradients of hidden states from the loss itself
  V* initial[max_states];            ///< of a block
  V* carry[max_states];
  V* grad_current;   ///< of a block, with `grad_current_follows` 0, or of the row, with all ones
  int grad_current_follows;
  V* grad_feedback;          ///< of the row; null if there is none
  V* sums[max_parameters];   ///< terms of some steps; those that are not wanted go to one block, with `sums_follow` 0
  int sums_follow[max_parameters];
  V* grad_initial[max_states];   ///< of a block
};

/// The terms of the parameters' gradients that an adjoint stage sums: none; those of decays; with them those of the threshold and of
/// parameters that equal it unless they are given; all but those of lower bounds, which few neurons have; or all. Each term costs a load
/// and a store (benchmarks/bandwidth.py).
enum class Terms { none, decays, usual, unclipped, all };

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

/// The backward stages of a model's variant.
template <class V>
struct BackwardStages {
  RecordStage<V> record;
  RebuildStage<V> rebuild;
  SurrogateArgumentStage<V> surrogate_argument;
  AdjointStage<V> adjoint_shared[4];   ///< by Terms up to `unclipped`, where all parameters are scalars; from step 1 on
  AdjointStage<V> adjoint[2];          ///< without terms, and with all
  InitialStage<V> initial;
  unsigned spike_readers;   ///< what reads the spikes of the step before (model.hpp)
  bool restores_spikes;     ///< but not in adjoint_shared, which takes them from the potential
  bool carries_gradient;    ///< adjoint_shared does not store dL/d(current), which is the gain times the first carry
};

template <class V>
struct ModelStages {
  static constexpr int max_variants = 18;
  int parameters, states;
  int hidden;   ///< the first state beyond potential and spikes
  bool fires;
  bool surrogate_reads_hidden_state;             ///< the surrogate takes the surrogate_argument stage's result
  int threshold;                                 ///< the parameter that is the threshold
  int gain;                                      ///< the parameter that multiplies the current, or -1
  unsigned summed[4];                            ///< the parameters whose terms are summed, one bit each, by Terms up to `unclipped`
  StepStage<V> forward[max_variants][2];         ///< by whether all parameters are scalars
  BackwardStages<V> backward[3][max_variants];   ///< by method
};

/// The stages of a model, which its object exports.
struct ModelTable {
  ModelStages<float> f32;
  ModelStages<double> f64;
};

}   // namespace exodus::cpu
