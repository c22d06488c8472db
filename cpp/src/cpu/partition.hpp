/// @file
/// The plan of a call on the CPU: how it is cut into rows, and where the parts of its workspace lie. workspace() counts the bytes of the
/// same plan. Nothing here knows a model: a pass tells how many parameters and states it has.
#pragma once

#include "plan.hpp"

namespace exodus::cpu {

/// What the plan of a pass depends on.
template <class V>
struct Pass {
  Layout layout;
  int parameters = 0, states = 0;   ///< of the model
  const FirRole<V>* fir = nullptr;
  Recurrence<V> recurrent;
  Format format = Format::arithmetic;   ///< numbers of two bytes go through tiles
};

/// What the plan of a backward pass depends on besides.
template <class V>
struct BackwardPass : Pass<V> {
  Method method{};
  const bool* summed = nullptr;    ///< for each parameter, whether its terms are summed
  bool reads_current = false;      ///< a sum needs the current
  bool weights_gradient = false;   ///< the gradient of the recurrent weights is wanted
  bool with_tapes = false;         ///< hidden states are rebuilt
};

/// The bytes that a call needs on at most `threads` threads (0: as many as set_num_threads() says).
template <class V>
std::size_t workspace_bytes(const Pass<V>& pass, int threads);
template <class V>
std::size_t workspace_bytes(const BackwardPass<V>& pass, int threads);

/// Cuts a pass into rows for as many threads as the workspace has slots for, and points the plan at the workspace's parts. Refuses a
/// workspace without a slot.
template <class V>
Status make_plan(const Pass<V>& pass, const Workspace& workspace, ForwardPlan<V>& plan);
template <class V>
Status make_plan(const BackwardPass<V>& pass, const Workspace& workspace, BackwardPlan<V>& plan);

}   // namespace exodus::cpu
