/// @file
/// Makes the plan of a call on the CPU: its division into rows, and the layout of its workspace. workspace() sizes the same plan. Nothing
/// here depends on a model: a pass states how many parameters and states it has.
#pragma once

#include "plan.hpp"

namespace exodus::cpu {

/// The data that the plan of a pass depends on.
template <class V>
struct Pass {
  Layout layout;
  int parameters = 0, states = 0;   ///< of the model
  const FirRole<V>* fir = nullptr;
  Recurrence<V> recurrent;
  Format format = Format::arithmetic;   ///< two-byte numbers are converted in tiles
};

/// The additional data that the plan of a backward pass depends on.
template <class V>
struct BackwardPass : Pass<V> {
  Method method{};
  const bool* summed = nullptr;    ///< for each parameter, whether its terms are summed
  bool reads_current = false;      ///< whether the pass needs the current
  bool weights_gradient = false;   ///< whether the gradient of the recurrent weights is wanted
  Taped taped = Taped::none;       ///< the states that are recomputed
};

/// The bytes that a call needs on at most `threads` threads (0 means the setting of set_num_threads()).
template <class V>
std::size_t workspace_bytes(const Pass<V>& pass, int threads);
template <class V>
std::size_t workspace_bytes(const BackwardPass<V>& pass, int threads);

/// Divides a pass into rows for the threads that have slots in the workspace, and sets the plan's pointers into the workspace. Fails if
/// there is no room for a slot.
template <class V>
Status make_plan(const Pass<V>& pass, const Workspace& workspace, ForwardPlan<V>& plan);
template <class V>
Status make_plan(const BackwardPass<V>& pass, const Workspace& workspace, BackwardPlan<V>& plan);

}   // namespace exodus::cpu
