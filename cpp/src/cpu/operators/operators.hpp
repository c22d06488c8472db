/// @file
/// The operators of a row, in the order in which a step applies them: recurrent weights change its current (docs/mathematics.md,
/// Recurrence), and taps filter the current and compute feedback from spikes (kernel.hpp). Each is a gather in the forward pass, and its
/// transpose in the backward pass. Operators are outside the neuron, so models are independent of them.
///
///     forward:    a[n] -> recurrence (reads s[n-1]) -> taps of epsilon -> current;   taps of nu (read s[n-1], s[n-2], ...) -> feedback
///     backward:   g of later steps -> transposes -> e[n];   dL/d(current, feedback) of the step -> the operators' own memory
#pragma once

#include "../stage_tables.hpp"
#include "recurrence.hpp"
#include "taps.hpp"

namespace exodus::cpu {
namespace {

/// The operators of a row in the forward pass.
template <class V>
class ForwardOperators {
 public:
  /// `spikes` are the lanes of the row's state.
  ForwardOperators(const ForwardPlan<V>& plan, const Row& row, const FirForwardMemory<V>& taps, const RecurrentMemory<V>& recurrent,
                   V* spikes)
      : spikes_(spikes), recurrence_(plan.weights, {}, plan.rows, row, recurrent), taps_(plan, row, taps) {
    if (taps_.of_spikes()) clear(spikes + row.lanes, lane_stride<V>(row.lanes) - row.lanes);   // spikes are read in whole bands
  }

  bool given() const { return recurrence_.given() || taps_.of_current() || taps_.of_spikes(); }
  bool filters_current() const { return taps_.of_current(); }

  /// Enters the segment [begin, end).
  void enter(std::int64_t begin, std::int64_t end) {
    begin_ = begin, end_ = end;
    taps_.enter(begin);
  }

  /// The current that drives the neurons at a step, as lanes, from the current in memory and the spikes of the previous step; null if it is
  /// the current in memory. Also computes feedback() of the step.
  const V* gather(std::int64_t step, const Input<V>& current) {
    const V* lanes = nullptr;
    if (recurrence_.given()) lanes = recurrence_.receive(spikes_, current);
    if (taps_.of_current()) {
      if (recurrence_.given()) {
        taps_.filter_step(lanes, step);
      } else if ((step - begin_) % fir_steps == 0) {
        taps_.filter_steps(current, step, smaller(step + fir_steps, end_));
      }
      lanes = taps_.filtered(step);
    }
    if (taps_.of_spikes()) taps_.add_spikes(step, spikes_);
    return lanes;
  }

  const V* feedback() const { return taps_.feedback(); }   ///< null if there is none

  /// Stores the operators' final states.
  void finish() const { taps_.finish(); }

 private:
  const V* const spikes_;
  const RecurrentRow<V> recurrence_;
  ForwardTaps<V> taps_;
  std::int64_t begin_ = 0, end_ = 0;   ///< of the segment
};

/// The operators of a row in the backward pass: their transposes, last step first.
template <class V>
class BackwardOperators {
 public:
  BackwardOperators(const BackwardPlan<V>& plan, const Row& row, const FirBackwardMemory<V>& taps, const RecurrentMemory<V>& recurrent)
      : row_(row),
        last_(plan.layout.time - 1),
        recurrence_(plan.weights, plan.transposed_weights, plan.rows, row, recurrent),
        taps_(plan, row, taps) {}

  bool given() const { return recurrence_.given() || taps_.given(); }
  bool recurrent() const { return recurrence_.given(); }
  /// Whether the gradient of the neurons' current is not that of the current in memory.
  bool filters_current() const { return taps_.given(0); }
  bool reads_current() const { return taps_.with_terms(0); }

  /// Enters the segment that begins at a step.
  void enter(std::int64_t begin) {
    if (taps_.given()) taps_.enter(begin);
  }

  /// Before a step, gathers the gradient of its spikes through later steps, and sets the destinations of the gradients of its inputs.
  void gather(std::int64_t step, AdjointRow<V>& work) {
    if (recurrence_.given() && step < last_) recurrence_.gather();
    if (taps_.given()) {
      if (step == last_ || (step + 1) % fir_steps == 0) taps_.before_step_group(step / fir_steps * fir_steps, step);
      taps_.before_step(step);
    }
    work.grad_feedback = taps_.given(1) ? taps_.lam(step) : nullptr;
    if (taps_.given(0) || recurrence_.given()) {
      work.grad_current = taps_.given(0) ? taps_.lam(step) : recurrence_.gradient();
      work.grad_current_follows = ~0;
    }
  }

  /// A block of the gradient of a step's spikes: the direct one plus those through the operators.
  const V* grad_spikes(const Block& block, std::int64_t step, const V* direct) const {
    if (recurrence_.given() && step < last_) direct = recurrence_.grad_spikes(block, direct);
    if (!taps_.gives_spikes()) return direct;
    V* const gathered = taps_.gathered(1, step) + block.lane;
    add_lanes(gathered, direct, block.lanes);
    return gathered;
  }

  /// The current that drives the neurons at a step, including the recurrent contribution, as lanes.
  const V* receive(const V* spikes, const Input<V>& current) const { return recurrence_.receive(spikes, current); }

  /// The location where FIR kernels keep a step's inputs, the current and the spikes; null if they are not needed.
  V* kept_current(std::int64_t step) const { return taps_.input(0, step); }
  V* kept_spikes(std::int64_t step) const { return taps_.input(1, step); }

  /// After the adjoint of a step, applies the transposes. Returns the number of steps, starting with this one, for which grad_current() is
  /// now complete.
  std::int64_t scatter(std::int64_t step) {
    if (!taps_.given()) return 0;
    taps_.after_step(step);
    const bool ends_step_group = step % fir_steps == 0;
    const std::int64_t last = smaller((step / fir_steps + 1) * fir_steps, last_ + 1) - 1;
    std::int64_t done = 0;
    if (taps_.given(0) && recurrence_.given()) {
      taps_.gather_current(step, step);
      copy_lanes(recurrence_.gradient(), taps_.gathered(0, step), row_.lanes);
      done = 1;
    } else if (taps_.given(0) && ends_step_group) {
      taps_.gather_current(step, last);
      done = last + 1 - step;
    }
    if (ends_step_group) taps_.after_step_group(step, last);
    return done;
  }

  const V* grad_current(std::int64_t step) const { return taps_.gathered(0, step); }

  /// After step 0, computes the gradients of inputs and spikes before it.
  void finish() {
    if (recurrence_.given()) recurrence_.gather();
    if (taps_.given()) taps_.finish();
  }

  /// Adds, for a block, the gradient of the spikes of step -1 through the operators.
  void add_to_last_spikes(const Block& block, V* grad_spikes) const {
    if (recurrence_.given()) recurrence_.add_to(block, grad_spikes);
    if (taps_.gives_spikes()) add_lanes(grad_spikes, taps_.grad_last_spikes() + block.lane, block.lanes);
  }

 private:
  const Row& row_;
  const std::int64_t last_;   ///< the last step
  const RecurrentRow<V> recurrence_;
  BackwardTaps<V> taps_;
};

}   // namespace
}   // namespace exodus::cpu
