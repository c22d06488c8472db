/// @file
/// FIR kernels (kernel.hpp), operators outside the neuron. In the forward pass, the current is convolved with its taps for a group of steps
/// at once, and earlier spikes contribute the feedback of a step (spike_taps.hpp). The backward pass runs the transposes: correlations of
/// lam, the gradient of a kernel's output, with the taps.
///
/// Loops here process whole vectors of lanes in the row's own memory, where lanes beyond the row are zero.
#pragma once

#include "spike_taps.hpp"

namespace exodus::cpu {
namespace {

/// A kernel's taps for the lanes of a row: tap k of lane i is at[k * step + (Shared ? 0 : i)].
template <class V>
struct TapLanes {
  const V* at = nullptr;
  std::int64_t step = 0, count = 0;
  bool shared = true;
};

template <class V>
TapLanes<V> tap_lanes(const Taps<V>& taps, V* memory, const Rows& rows, const Row& row, std::int64_t stride) {
  if (taps.count == 1) {
    for (std::int64_t k = 0; k < taps.length; ++k) memory[k] = taps.data[k];
    return {memory, 1, taps.length, true};
  }
  for (std::int64_t k = 0; k < taps.length; ++k) {
    const V* const values = taps.data + k * taps.count;
    V* const lanes = memory + k * stride;
    expand(lanes, values, taps.count, taps.repeat, rows, row);
    clear(lanes + row.lanes, stride - row.lanes);
  }
  return {memory, stride, taps.length, false};
}

/// The first `count` taps, or all if there are fewer.
template <class V>
TapLanes<V> first_taps(const TapLanes<V>& taps, std::int64_t count) {
  return {taps.at, taps.step, smaller(taps.count, count), taps.shared};
}

/// The taps from tap k.
template <class V>
TapLanes<V> later_taps(const TapLanes<V>& taps, std::int64_t k) {
  return {taps.at + k * taps.step, taps.step, taps.count - k, taps.shared};
}

template <bool Shared, class V>
EXODUS_SCALAR Vector<V> tap(const V* at) {
  if constexpr (Shared) return broadcast(*at);
  return load(at);
}

/// Output p < R is the sum of tap[k] x[p + k] over k < K, in order of k, for `fir_vectors` vectors of lanes. `next` is the stride between
/// consecutive x. Without `Lead`, x begins at R - 1 and earlier values count as zero. K >= R.
template <int R, bool Lead, bool Shared, bool Fused, class V>
EXODUS_SCALAR void sum_vectors(const TapLanes<V>& taps, const V* x, std::int64_t next, V* out, std::int64_t next_out) {
  constexpr int own = Shared ? 1 : fir_vectors;          // vectors of taps
  Vector<V> sums[R][fir_vectors] = {}, recent[R][own];   // recent[k % R] is tap k
  const V* at = taps.at;
  const auto add_input = [&](int from, int to, auto&& tap_for) __attribute__((always_inline)) {
    Vector<V> input[fir_vectors];
#pragma GCC unroll 2
    for (int v = 0; v < fir_vectors; ++v) input[v] = load(x + v * simd_lanes<V>);
    x += next;
#pragma GCC unroll 8
    for (int p = from; p < to; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < fir_vectors; ++v) sums[p][v] = add_product<Fused, V>(tap_for(p, v < own ? v : 0), input[v], sums[p][v]);
    }
  };
  const auto take = [&](int k) __attribute__((always_inline)) {
#pragma GCC unroll 2
    for (int v = 0; v < own; ++v) recent[k][v] = tap<Shared>(at + v * simd_lanes<V>);
    at += taps.step;
  };
  const auto from_memory = [&](int p, int v) __attribute__((always_inline)) { return tap<Shared>(at - p * taps.step + v * simd_lanes<V>); };
#pragma GCC unroll 8
  for (int q = 0; q < R - 1; ++q) {
    take(q);
    if constexpr (Lead) add_input(0, q + 1, [&](int p, int v) __attribute__((always_inline)) { return recent[q - p][v]; });
  }
  std::int64_t left = taps.count - (R - 1);
  for (; left >= R; left -= R) {
#pragma GCC unroll 8
    for (int k = 0; k < R; ++k) {
      take((R - 1 + k) % R);
      add_input(0, R, [&](int p, int v) __attribute__((always_inline)) { return recent[(R - 1 + k - p + R) % R][v]; });
    }
  }
  for (; left > 0; --left, at += taps.step) add_input(0, R, from_memory);
#pragma GCC unroll 8
  for (int q = 0; q < R - 1; ++q, at += taps.step) add_input(q + 1, R, from_memory);
#pragma GCC unroll 8
  for (int p = 0; p < R; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < fir_vectors; ++v) store(out + p * next_out + v * simd_lanes<V>, sums[p][v]);
  }
}

template <int R, bool Lead, bool Fused, class V>
void sum_row(const TapLanes<V>& taps, const V* x, std::int64_t next, V* out, std::int64_t next_out, std::int64_t lanes) {
  TapLanes<V> vector = taps;
  for (std::int64_t i = 0; i < lanes; i += fir_vectors * simd_lanes<V>) {
    if (taps.shared) {
      sum_vectors<R, Lead, true, Fused>(vector, x + i, next, out + i, next_out);
    } else {
      vector.at = taps.at + i;
      sum_vectors<R, Lead, false, Fused>(vector, x + i, next, out + i, next_out);
    }
  }
}

/// The same for a row, with any number of outputs and taps. The sums do not depend on how many outputs are summed together.
template <bool Lead, bool Fused, class V>
void sum_taps(const TapLanes<V>& taps, const V* x, std::int64_t next, V* out, std::int64_t next_out, int outputs, std::int64_t lanes) {
  if (outputs == fir_steps && taps.count >= fir_steps) return sum_row<fir_steps, Lead, Fused>(taps, x, next, out, next_out, lanes);
  for (int p = 0; p < outputs; ++p) {
    const std::int64_t skipped = Lead ? 0 : outputs - 1 - p;
    if (skipped < taps.count) {
      sum_row<1, true, Fused>(later_taps(taps, skipped), Lead ? x + p * next : x, next, out + p * next_out, next_out, lanes);
    } else {
      clear(out + p * next_out, lanes);
    }
  }
}

/// to[i] += sum over k < count of tap[k][i] from[k * next + i], in order of k.
template <class V>
void add_taps(const TapLanes<V>& taps, std::int64_t count, const V* from, std::int64_t next, V* to, std::int64_t lanes) {
  for (std::int64_t i = 0; i < lanes; i += simd_lanes<V>) {
    Vector<V> sum = load(to + i);
    for (std::int64_t k = 0; k < count; ++k) {
      const V* const at = taps.at + k * taps.step;
      sum = add_product<true, V>(taps.shared ? tap<true>(at) : tap<false>(at + i), load(from + k * next + i), sum);
    }
    store(to + i, sum);
  }
}

/// to[-k * next + i] += tap[k][i] from[i] for all taps.
template <class V>
void scatter_taps(const TapLanes<V>& taps, const V* from, V* to, std::int64_t next, std::int64_t lanes) {
  for (std::int64_t i = 0; i < lanes; i += simd_lanes<V>) {
    const Vector<V> value = load(from + i);
    V* sum = to + i;
    for (std::int64_t k = 0; k < taps.count; ++k, sum -= next) {
      const V* const at = taps.at + k * taps.step;
      store(sum, add_product<true, V>(taps.shared ? tap<true>(at) : tap<false>(at + i), value, load(sum)));
    }
  }
}

template <class V>
EXODUS_SCALAR void add_lanes(V* to, const V* from, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] += from[i];
}

/// Copies the current step of an input to lanes.
template <class V>
void copy_step(V* to, const Input<V>& input, const Row& row) {
  for (int b = 0; b < row.block_count; ++b) copy_lanes(to + row.blocks[b].lane, input[row.blocks[b]], row.blocks[b].lanes);
}

/// The FIR kernels of a row in the forward pass.
template <class V>
class ForwardTaps {
 public:
  ForwardTaps(const ForwardPlan<V>& plan, const Row& row, const FirForwardMemory<V>& memory)
      : plan_(plan),
        row_(row),
        stride_(lane_stride<V>(row.lanes)),
        memory_(memory),
        taps_(tap_lanes(plan.fir[0].taps, memory_.taps, plan.rows, row, stride_)),
        spikes_(plan, row, memory_) {
    if (of_current()) start_current();
  }

  bool of_current() const { return taps_.count > 0; }
  bool of_spikes() const { return spikes_.given(); }

  /// Moves the window of inputs to the segment that begins at a step.
  void enter(std::int64_t begin) {
    if (of_current() && begin > begin_) {
      const V* const last = memory_.inputs + (begin - begin_) * stride_;
      __builtin_memmove(memory_.inputs, last, static_cast<std::size_t>((taps_.count - 1) * stride_) * sizeof(V));
    }
    begin_ = begin;
  }

  /// Filters the current of steps [first, end); `current` is at `first`. It filters a group of steps at a time, so that the loads of the
  /// next group overlap with sums.
  void filter_steps(Input<V> current, std::int64_t first, std::int64_t end) {
    if (!of_current()) return;
    for (std::int64_t n = first; n < end; ++n, current.now += current.stride) copy_step(input(n), current, row_);
    filter(first, end);
  }

  /// The same for one step, whose current depends on the spikes of the previous step and is given as lanes.
  void filter_step(const V* current, std::int64_t step) {
    copy_lanes(input(step), current, row_.lanes);
    filter(step, step + 1);
  }

  V* filtered(std::int64_t step) const { return memory_.filtered + (step - begin_) % fir_steps * stride_; }

  /// Adds the spikes before a step. feedback() is then the step's.
  void add_spikes(std::int64_t step, const V* spikes) { spikes_.add(step, spikes); }
  const V* feedback() const { return spikes_.feedback(); }

  /// Stores the final history of the current's kernel.
  void finish() const {
    for (std::int64_t k = 0; plan_.fir[0].final != nullptr && k < taps_.count - 1; ++k) {
      store_entry(plan_.fir[0].final, k, input(end_ - 1 - k), plan_.rows, row_);
    }
  }

 private:
  V* input(std::int64_t step) const { return memory_.inputs + (step - begin_ + taps_.count - 1) * stride_; }

  void filter(std::int64_t first, std::int64_t end) {
    const std::int64_t used = plan_.fir[0].initial == nullptr ? end : taps_.count;   // without a history, nothing precedes step 0
    const int outputs = static_cast<int>(end - first);
    sum_taps<true, false>(first_taps(taps_, used), input(end - 1), -stride_, filtered(end - 1), -stride_, outputs, row_.lanes);
    end_ = end;
  }

  void start_current() {
    clear(memory_.inputs, memory_.inputs_size);
    for (std::int64_t k = 0; k < taps_.count - 1; ++k) copy_entry(input(-1 - k), plan_.fir[0].initial, k, plan_.rows, row_);
  }

  const ForwardPlan<V>& plan_;
  const Row& row_;
  const std::int64_t stride_;
  const FirForwardMemory<V> memory_;
  const TapLanes<V> taps_;
  SpikeTaps<V> spikes_;
  std::int64_t begin_ = 0;   ///< of the segment
  std::int64_t end_ = 0;     ///< of the current group of steps
};

/// sums[k] += sum over `fir_steps` steps r of lam[r + k] x[r], for k < K, for a row.
template <class V>
void add_tap_terms(const V* lam, const V* x, V* sums, std::int64_t taps, std::int64_t stride, std::int64_t lanes) {
  for (std::int64_t i = 0; i < lanes; i += simd_lanes<V>) {
    Vector<V> inputs[fir_steps];
#pragma GCC unroll 8
    for (int r = 0; r < fir_steps; ++r) inputs[r] = load(x + r * stride + i);
    const V* at = lam + i;
    V* sum = sums + i;
    for (std::int64_t k = 0; k < taps; ++k, at += stride, sum += stride) {
      Vector<V> total = load(sum);
#pragma GCC unroll 8
      for (int r = 0; r < fir_steps; ++r) total = add_product<true, V>(load(at + r * stride), inputs[r], total);
      store(sum, total);
    }
  }
}

/// sums[k] += lam[k] x for k < K, for the bands in which x is not all zero.
template <class V>
void add_spike_terms(const V* lam, const V* x, V* sums, std::int64_t taps, std::int64_t stride, std::int64_t lanes) {
  for (std::int64_t i = 0; i < lanes; i += band_lanes<V>) {
    if (!any(x + i)) continue;
    for (std::int64_t k = 0; k < taps; ++k) {
#pragma GCC unroll 4
      for (std::int64_t at = k * stride + i, v = 0; v < band_vectors; ++v, at += simd_lanes<V>) {
        store(sums + at, add_product<true, V>(load(lam + at), load(x + i + v * simd_lanes<V>), load(sums + at)));
      }
    }
  }
}

/// The FIR kernels of a row in the backward pass. Steps are processed in groups of `fir_steps`, counted from step 0 in any layout, last
/// step first.
///
/// EXODUS gathers an input's gradient from later steps, as a correlation of lam with the taps. BPTT scatters: the reverse of
/// out[n] = sum_k tap[k] in[n-k] adds tap[k] lam[n] to the gradient of in[n-k].
template <class V>
class BackwardTaps {
 public:
  BackwardTaps(const BackwardPlan<V>& plan, const Row& row, const FirBackwardMemory<V>& memory)
      : plan_(plan), row_(row), stride_(lane_stride<V>(row.lanes)), bptt_(plan.method == Method::bptt), memory_(memory) {
    longest_ = memory_.longest(plan.fir);
    if (longest_ == 0) return;
    clear(memory_.lam, memory_.lam_size);   // after the last step it is zero
    if (memory_.grad_last_spikes != nullptr) clear(memory_.grad_last_spikes, stride_);
    base_ = (plan.layout.time - 1) / plan.segment_steps * plan.segment_steps;
    for (int k = 0; k < 2; ++k) {
      const std::int64_t count = plan.fir[k].taps.length;
      taps_[k] = tap_lanes(plan.fir[k].taps, memory_.taps[k], plan.rows, row, stride_);
      if (count > 0) clear(memory_.gathered[k], max_fir_steps * stride_);
      if (memory_.scattered[k] != nullptr) clear(memory_.scattered[k], memory_.scattered_size[k]);
      if (memory_.partial[k] == nullptr) continue;
      clear(memory_.partial[k], count * stride_);
      clear(memory_.inputs[k], max_fir_steps * stride_);
      for (std::int64_t tap = 0; tap < count; ++tap) clear(sums(k, tap) + row.begin, row.lanes);
    }
  }

  bool given() const { return longest_ > 0; }
  bool given(int role) const { return taps_[role].count > 0; }
  /// Whether spikes have a gradient through their kernel. It is part of the reset, which SLAYER detaches.
  bool gives_spikes() const { return given(1) && plan_.method != Method::slayer; }
  bool with_terms(int role) const { return memory_.partial[role] != nullptr; }

  /// The location of lam of a step, and of the input of a kernel whose taps' gradient is wanted.
  V* lam(std::int64_t step) const { return memory_.lam + (step - base_) * stride_; }
  V* input(int role, std::int64_t step) const { return with_terms(role) ? memory_.inputs[role] + in_step_group(step) * stride_ : nullptr; }

  /// The gradient of a step's current (role 0) or spikes (role 1) through their kernel, once all later steps are done.
  V* gathered(int role, std::int64_t step) const {
    return bptt_ ? scattered(role, step) : memory_.gathered[role] + in_step_group(step) * stride_;
  }

  /// Enters the segment that begins at a step.
  void enter(std::int64_t begin) { shift(base_ - begin); }

  /// Before the steps [first, last] of a group: gathers their spikes' gradients from the steps after the group.
  void before_step_group(std::int64_t first, std::int64_t last) {
    if (!gives_spikes()) return;
    const int steps = static_cast<int>(last - first + 1);
    if (!bptt_) {
      const TapLanes<V> used = first_taps(taps_[1], plan_.layout.time - 1 - first);   // after the last step there is no lam
      sum_taps<false, true>(used, lam(last + 1), stride_, memory_.gathered[1], stride_, steps, row_.lanes);
    }
    for (std::int64_t n = first; n <= last; ++n) add_direct(1, n);
  }

  /// Before a step: adds its spikes' gradients from the later steps of its group.
  void before_step(std::int64_t step) {
    if (!given(1) || plan_.method != Method::exodus) return;
    const std::int64_t after = plan_.layout.time - 1 - step, after_in_step_group = fir_steps - 1 - in_step_group(step);
    const std::int64_t steps = smaller(smaller(after, after_in_step_group), taps_[1].count);
    if (steps > 0) add_taps(taps_[1], steps, lam(step + 1), stride_, gathered(1, step), row_.lanes);
  }

  /// After a step, when its lam is known: for BPTT, scatters it to earlier inputs.
  void after_step(std::int64_t step) {
    for (int role = 0; bptt_ && role < 2; ++role) {
      if (given(role)) scatter_taps(taps_[role], lam(step), scattered(role, step - role), stride_, row_.lanes);
    }
  }

  /// After steps [first, last] of a group: gathers the gradient of their current.
  void gather_current(std::int64_t first, std::int64_t last) {
    if (!bptt_) {
      const TapLanes<V> used = first_taps(taps_[0], plan_.layout.time - first);
      sum_taps<true, true>(used, lam(first), stride_, gathered(0, first), stride_, static_cast<int>(last - first + 1), row_.lanes);
    }
    for (std::int64_t n = first; n <= last; ++n) add_direct(0, n);
  }

  /// After the steps [first, last] of a group: adds their terms to the taps' gradients.
  void after_step_group(std::int64_t first, std::int64_t last) {
    add_terms(first, static_cast<int>(last - first + 1));
    if (first % terms_steps == 0) move_terms();
  }

  /// After step 0, computes the gradients of the initial history. Those of the spikes of step -1 are in grad_last_spikes().
  void finish() {
    for (int role = 0; role < 2; ++role) {
      const std::int64_t earlier = given(role) ? taps_[role].count - 1 + role : 0;
      const bool wanted = plan_.fir[role].grad_initial != nullptr || (role == 1 && plan_.grad_initial[1] != nullptr);
      for (std::int64_t done = 0; wanted && done < earlier; done += fir_steps) {
        // Only lam of step 0 and later counts. The last of these steps reaches step 0 through tap `seen`.
        const std::int64_t first = -done - fir_steps, seen = done + 1 - role;
        if (!bptt_) {
          sum_taps<false, true>(later_taps(taps_[role], seen), lam(0), stride_, memory_.gathered[role], stride_, fir_steps, row_.lanes);
        }
        for (std::int64_t n = -done - 1; n >= first && -n <= earlier; --n) finish_step(role, n);
      }
      const bool given_any = plan_.fir[role].initial != nullptr || (role == 1 && plan_.initial[1] != nullptr);
      for (std::int64_t n = -1; given_any && with_terms(role) && -n <= earlier; --n) add_initial_terms(role, n);
    }
    move_terms();
  }
  const V* grad_last_spikes() const { return memory_.grad_last_spikes; }

 private:
  /// Terms of this many steps are summed in V before they are added to the doubles.
  static constexpr std::int64_t terms_steps = 32;

  /// A step's place in its group of steps.
  static std::int64_t in_step_group(std::int64_t step) { return step & (fir_steps - 1); }

  /// The sums of all neurons.
  double* sums(int role, std::int64_t tap) const { return plan_.fir[role].sums + tap * plan_.rows.neurons; }

  V* scattered(int role, std::int64_t step) const { return memory_.scattered[role] + (step - base_ + taps_[role].count) * stride_; }

  /// Moves the windows of lam and of scattered gradients to earlier steps.
  void shift(std::int64_t steps) {
    if (steps == 0) return;
    base_ -= steps;
    __builtin_memmove(memory_.lam + steps * stride_, memory_.lam, static_cast<std::size_t>(longest_ * stride_) * sizeof(V));
    clear(memory_.lam, steps * stride_);
    for (int role = 0; role < 2; ++role) {
      V* const window = memory_.scattered[role];
      if (window == nullptr) continue;
      __builtin_memmove(window + steps * stride_, window, static_cast<std::size_t>(taps_[role].count * stride_) * sizeof(V));
      clear(window, steps * stride_);
    }
  }

  /// Adds dL/d(final state) of an input that the final state remembers, at the step of that input.
  void add_direct(int role, std::int64_t step) {
    const std::int64_t entry = plan_.layout.time - 1 - role - step;
    const V* const direct = plan_.fir[role].grad_final;
    if (direct == nullptr || entry < 0 || entry >= taps_[role].count - 1) return;
    V* const lanes = gathered(role, step);
    if (row_.in_memory_order) return add_lanes(lanes, direct + entry * plan_.rows.neurons + row_.begin, row_.lanes);
    for (int i = 0; i < row_.lanes; ++i) lanes[i] += direct[entry * plan_.rows.neurons + neuron_at(plan_.rows, row_.place(i))];
  }

  void add_terms(std::int64_t first, int steps) {
    if (with_terms(0)) {
      for (int r = steps; r < fir_steps; ++r) clear(memory_.inputs[0] + r * stride_, row_.lanes);
      add_tap_terms(lam(first), memory_.inputs[0], memory_.partial[0], taps_[0].count, stride_, row_.lanes);
    }
    for (int r = 0; with_terms(1) && r < steps; ++r) {
      add_spike_terms(lam(first + r + 1), memory_.inputs[1] + r * stride_, memory_.partial[1], taps_[1].count, stride_, row_.lanes);
    }
  }

  void move_terms() {
    for (int role = 0; role < 2; ++role) {
      for (std::int64_t k = 0; with_terms(role) && k < taps_[role].count; ++k) {
        move_sums_to_places(sums(role, k), memory_.partial[role] + k * stride_, row_);
      }
    }
  }

  /// Stores the gradient of a step before step 0.
  void finish_step(int role, std::int64_t step) {
    add_direct(role, step);
    if (role == 1 && step == -1) {
      copy_lanes(memory_.grad_last_spikes, gathered(role, step), row_.lanes);
    } else if (plan_.fir[role].grad_initial != nullptr) {
      const std::int64_t entry = -1 - role - step;
      store_entry(plan_.fir[role].grad_initial, entry, gathered(role, step), plan_.rows, row_);
    }
  }

  void add_initial_terms(int role, std::int64_t step) {
    V* const input = memory_.inputs[role];
    const bool last_spikes = role == 1 && step == -1;
    const std::int64_t entry = -1 - role - step, seen = -step - role;
    copy_entry(input, last_spikes ? plan_.initial[1] : plan_.fir[role].initial, last_spikes ? 0 : entry, plan_.rows, row_);
    add_spike_terms(lam(0), input, memory_.partial[role] + seen * stride_, taps_[role].count - seen, stride_, row_.lanes);
  }

  const BackwardPlan<V>& plan_;
  const Row& row_;
  const std::int64_t stride_;
  const bool bptt_;
  const FirBackwardMemory<V> memory_;
  TapLanes<V> taps_[2];
  std::int64_t longest_ = 0;
  std::int64_t base_ = 0;   ///< the first step of the windows
};

}   // namespace
}   // namespace exodus::cpu
