/// @file
/// FIR kernels (kernel.hpp) on a device (docs/mathematics.md, Kernels). They are filters outside the neuron model. A launch before the
/// forward pass filters the current (filter()); with a recurrence, which adds to it, the pass filters it step by step. The pass scatters
/// each spike into a ring buffer of future steps. The backward pass stores lam of every step in the workspace, and correlates it with the
/// taps where a step needs the result (CorrelatedSteps). Separate launches compute the other gradients (correlate(), sum_taps()). All of
/// these compute several neighbouring results together, so that a value is loaded once for them.
#pragma once

#include "reduce.hpp"
#include "tiles.hpp"

namespace exodus::cuda {

/// The workspace of FIR kernels. Each member has one array over the neurons per step or ring slot; null if not needed.
template <class V>
struct FirMemory {
  V* filtered = nullptr;     ///< forward: the filtered current, in the call's layout, or its potential's array; null if the pass filters
  V* pending = nullptr;      ///< forward: the ring of contributions to future steps, one slot per tap; null if it is in shared memory
  V* past = nullptr;         ///< forward: the ring of the last spikes, one slot per tap but one
  V* inputs = nullptr;       ///< forward, where the pass filters: the ring of the last inputs, one slot per tap
  const V* last = nullptr;   ///< forward: the spikes of step -1
  V* lam = nullptr;          ///< backward: lam of all steps; of a pass that does not run step by step, in the call's layout
  V* spikes = nullptr;       ///< backward: the spikes of all steps
};

/// The taps of a neuron: tap k is at[k * stride].
template <class V>
struct OwnTaps {
  const V* at;
  std::int64_t stride, count;
  EXODUS_DEVICE V operator[](std::int64_t k) const { return at[k * stride]; }
};

template <class V>
EXODUS_DEVICE_SCALAR OwnTaps<V> taps_of(const Taps<V>& taps, const Divisor& repeat, const Divisor& count, std::int64_t neuron) {
  const std::int64_t turn = quotient(neuron, repeat);
  return {taps.data + (turn - quotient(turn, count) * taps.count), taps.count, taps.length};
}

constexpr std::size_t most_ring_bytes = 32 << 10;   // of a block's shared memory

/// Whether the ring of the spikes' kernel, one slot per tap, is in shared memory. With a recurrence threads exchange spikes there.
template <class V>
bool ring_in_shared(std::int64_t taps, std::int64_t features) {
  return features == 0 && taps <= static_cast<std::int64_t>(most_ring_bytes / (block_threads * sizeof(V)));
}

/// A ring buffer of a neuron: in shared memory, a slot for each thread after those of the slot before it, or in an array over the neurons
/// per slot.
template <class V>
class Ring {
 public:
  EXODUS_DEVICE Ring(V* arrays, std::int64_t neurons, std::int64_t neuron, SharedPointer<V> shared)
      : arrays_(arrays), neurons_(neurons), neuron_(neuron), shared_(shared) {}

  EXODUS_DEVICE V get(std::int64_t slot) const { return arrays_ == nullptr ? V(shared_[place(slot)]) : arrays_[slot * neurons_ + neuron_]; }
  EXODUS_DEVICE void set(std::int64_t slot, V value) const {
    if (arrays_ == nullptr) {
      shared_[place(slot)] = value;
    } else {
      arrays_[slot * neurons_ + neuron_] = value;
    }
  }

 private:
  EXODUS_DEVICE static int place(std::int64_t slot) { return static_cast<int>(slot) * block_threads + static_cast<int>(threadIdx.x); }

  V* const arrays_;
  const std::int64_t neurons_, neuron_;
  SharedPointer<V> shared_;
};

constexpr int fir_results = 8;   // steps or taps whose sums a thread computes together

/// sums[d] += the sum over m of taps[m - (D - 1) + d] value(m), in ascending order, for m in [begin, end) with such a tap. A tap and a
/// value are loaded once for all sums. Without `Fused` products are rounded, as in a forward pass.
template <bool Fused, int D, class V, class Value>
EXODUS_DEVICE_SCALAR void slide(const OwnTaps<V>& taps, std::int64_t begin, std::int64_t end, const Value& value, V (&sums)[D]) {
  V window[D];   // of taps
  EXODUS_UNROLL
  for (int d = 0; d < D; ++d) {
    const std::int64_t k = begin - D + d;
    window[d] = k >= 0 && k < taps.count ? taps[k] : V(0);
  }
  const auto add = [&](std::int64_t m, bool whole) EXODUS_INLINE {
    EXODUS_UNROLL
    for (int d = 0; d < D - 1; ++d) window[d] = window[d + 1];
    window[D - 1] = m < taps.count ? taps[m] : V(0);
    const V factor = value(m);
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      const std::int64_t k = m - (D - 1) + d;
      if (!whole && (k < 0 || k >= taps.count)) continue;
      sums[d] = Fused ? multiply_add(window[d], factor, sums[d]) : sums[d] + window[d] * factor;
    }
  };
  const std::int64_t last = end < taps.count ? end : taps.count;
  for (std::int64_t m = begin; m < end;) {
    if (m >= D - 1 && m + D <= last) {
      EXODUS_UNROLL
      for (int r = 0; r < D; ++r) add(m + r, true);
      m += D;
    } else {
      add(m++, false);
    }
  }
}

/// The gradient of a kernel's inputs, step by step in reverse: the correlation of lam with the taps. The sums of some steps start together,
/// from lam of all steps after them, and each takes the rest from registers.
template <class V>
class CorrelatedSteps {
 public:
  /// `lead`: the steps between an input and its first use: 0 for the current, 1 for spikes. `lam`: one array over the neurons per step.
  EXODUS_DEVICE CorrelatedSteps(const V* lam, std::int64_t neurons, std::int64_t neuron, std::int64_t time, int lead)
      : lam_(lam), neurons_(neurons), neuron_(neuron), time_(time), lead_(lead) {}

  /// What later steps add to the gradient of the input of a step.
  EXODUS_DEVICE V from_later(const OwnTaps<V>& taps, std::int64_t step) {
    if (!started_ || (step + 1) % fir_results == 0) start(taps, step);
    return sums_[0];
  }

  /// Takes lam of that step.
  EXODUS_DEVICE void add(const OwnTaps<V>& taps, V lam) {
    EXODUS_UNROLL
    for (int d = 0; d < fir_results - 1; ++d) {
      const int k = d + 1 - lead_;
      sums_[d] = k < taps.count ? multiply_add(taps[k], lam, sums_[d + 1]) : sums_[d + 1];
    }
  }

 private:
  EXODUS_DEVICE void start(const OwnTaps<V>& taps, std::int64_t step) {
    EXODUS_UNROLL
    for (int d = 0; d < fir_results; ++d) sums_[d] = V(0);
    const std::int64_t first = step + lead_ - (fir_results - 1), all = taps.count + fir_results - 1;
    slide<true>(
        taps, fir_results - lead_, all < time_ - first ? all : time_ - first,
        [&](std::int64_t m) EXODUS_INLINE { return lam_[(first + m) * neurons_ + neuron_]; }, sums_);
    started_ = true;
  }

  const V* const lam_;
  const std::int64_t neurons_, neuron_, time_;
  const int lead_;
  bool started_ = false;
  V sums_[fir_results];   ///< sums_[d]: of the d-th step before the current one
};

/// The inputs of a FIR kernel before step 0, indexed by step. For the spikes' kernel, the spikes of step -1 are part of the neuron's state
/// and not of the history.
template <class V>
struct Before {
  const V* history;   ///< newest first
  const V* last;      ///< the spikes of step -1, for the spikes' kernel
  std::int64_t neurons, neuron;
  bool of_spikes;

  EXODUS_DEVICE bool given() const { return history != nullptr || last != nullptr; }
  EXODUS_DEVICE V operator[](std::int64_t step) const {
    if (of_spikes && step == -1) return last == nullptr ? V(0) : last[neuron];
    return history == nullptr ? V(0) : history[(-1 - (of_spikes ? 1 : 0) - step) * neurons + neuron];
  }
};

/// The FIR kernels of a neuron in the forward pass: that of the current, and that of the spikes. Only a pass that runs step by step filters
/// the current itself.
template <class V, bool OfCurrent, bool OfSpikes, bool Stepped>
class FirForward {
 public:
  /// Starts or resumes at step `begin`.
  EXODUS_DEVICE FirForward(const Formatted<ForwardCall, V>& call, const Groups& groups, const Place& place, const FirMemory<V>& memory,
                           SharedPointer<V> shared, std::int64_t begin)
      : call_(call), groups_(groups), place_(place), memory_(memory), pending_(memory.pending, groups.neurons, place.neuron, shared) {
    if constexpr (OfSpikes) {
      now_ = begin % taps(1).count;
      if (begin == 0) start_spikes();
    }
  }

  /// What the neuron's current is read from.
  EXODUS_DEVICE Source source() const {
    if (OfCurrent && memory_.filtered != nullptr) return {memory_.filtered};
    return {call_.current, call_.format};
  }

  /// The filtered inputs of a step: from the current, and from the spikes of earlier steps.
  EXODUS_DEVICE StepInputs<V, OfSpikes> inputs(std::int64_t step, V current, V spikes) {
    StepInputs<V, OfSpikes> in;
    in.current = current;
    if (!place_.active) return in;
    if constexpr (OfCurrent && Stepped) {
      if (memory_.filtered == nullptr) {
        at(memory_.inputs, step % taps(0).count) = current;
        in.current = filtered(step);
      }
    }
    if constexpr (OfSpikes) {   // the spikes of the last step are stored in the state, older ones in this ring
      if (memory_.past != nullptr && step > 0) at(memory_.past, (step - 1) % (taps(1).count - 1)) = spikes;
      in.feedback = take();
    }
    return in;
  }

  EXODUS_DEVICE void add_spikes(V spikes) {
    if constexpr (OfSpikes) {
      if (place_.active) add(spikes, 0);
    }
  }

  /// Stores the final history of the kernels that the pass filters with.
  EXODUS_DEVICE void finish() const {
    if (!place_.active) return;
    const std::int64_t time = call_.layout.time;
    for (int role = memory_.filtered != nullptr ? 1 : 0; role < 2; ++role) {
      V* const final = call_.fir[role].final;
      for (std::int64_t k = 0; given(role) && final != nullptr && k < taps(role).count - 1; ++k) {
        const std::int64_t step = time - 1 - role - k;
        V value;
        if (step < 0) {
          value = before(role)[step];
        } else {
          value = role == 0 ? input(step) : V(at(memory_.past, step % (taps(1).count - 1)));
        }
        at(final, k) = value;
      }
    }
  }

 private:
  EXODUS_DEVICE static bool given(int role) { return role == 0 ? OfCurrent : OfSpikes; }
  EXODUS_DEVICE OwnTaps<V> taps(int role) const {
    return taps_of(call_.fir[role].taps, groups_.taps_repeats[role], groups_.taps_counts[role], place_.neuron);
  }
  EXODUS_DEVICE V& at(V* arrays, std::int64_t slot) const { return arrays[slot * groups_.neurons + place_.neuron]; }
  EXODUS_DEVICE V input(std::int64_t step) const { return at(memory_.inputs, step % taps(0).count); }
  EXODUS_DEVICE Before<V> before(int role) const {
    return {call_.fir[role].initial, role == 1 ? memory_.last : nullptr, groups_.neurons, place_.neuron, role == 1};
  }

  /// Sums from the newest input to the oldest.
  EXODUS_DEVICE V filtered(std::int64_t step) const {
    const OwnTaps<V> own = taps(0);
    V sum = V(0);
    std::int64_t k = 0;
    for (; k < own.count && k <= step; ++k) sum = sum + own[k] * input(step - k);
    const Before<V> earlier = before(0);
    for (; k < own.count && earlier.given(); ++k) sum = sum + own[k] * earlier[step - k];
    return sum;
  }

  EXODUS_DEVICE void start_spikes() {
    if (!place_.active) return;
    const std::int64_t count = taps(1).count;
    for (std::int64_t slot = 0; slot < count; ++slot) pending_.set(slot, V(0));
    const Before<V> earlier = before(1);
    for (std::int64_t step = -count; earlier.given() && step < 0; ++step) add(earlier[step], -1 - step);
  }

  /// Returns and clears the contributions to the current step, and advances the ring.
  EXODUS_DEVICE V take() {
    const V value = pending_.get(now_);
    pending_.set(now_, V(0));
    now_ = now_ + 1 == taps(1).count ? 0 : now_ + 1;
    return value;
  }

  /// Scatters spikes into the following steps, from tap `first`.
  EXODUS_DEVICE void add(V spikes, std::int64_t first) {
    if (spikes == V(0)) return;
    const OwnTaps<V> own = taps(1);
    std::int64_t slot = now_;
    for (std::int64_t k = first; k < own.count; ++k) {
      pending_.set(slot, pending_.get(slot) + own[k] * spikes);
      slot = slot + 1 == own.count ? 0 : slot + 1;
    }
  }

  const Formatted<ForwardCall, V>& call_;
  const Groups& groups_;
  const Place& place_;
  const FirMemory<V>& memory_;
  const Ring<V> pending_;
  std::int64_t now_ = 0;   ///< the ring slot of the next step
};

/// The FIR kernels of a neuron in a backward pass that runs step by step.
template <Method M, class V, bool OfCurrent, bool OfSpikes>
class FirBackward {
 public:
  EXODUS_DEVICE FirBackward(const Formatted<BackwardCall, V>& call, const Groups& groups, const Place& place, const FirMemory<V>& memory)
      : call_(call),
        groups_(groups),
        place_(place),
        memory_(memory),
        current_(memory.lam, groups.neurons, place.neuron, call.layout.time, 0),
        spikes_(memory.lam, groups.neurons, place.neuron, call.layout.time, 1) {}

  /// The gradient of the spikes of a step from later steps. Their kernel belongs to the reset, which SLAYER detaches.
  EXODUS_DEVICE V of_spikes(std::int64_t step) {
    if (!correlates_spikes || !place_.active) return V(0);
    return spikes_.from_later(taps(1), step) + direct(1, step);
  }

  /// Stores lam, the gradient of the kernels' output, and the spikes of the step if they are needed. With a recurrence, replaces
  /// grad.current by the gradient of the input of the current's kernel.
  EXODUS_DEVICE void after_step(std::int64_t step, StepInputs<V, OfSpikes>& grad, V spikes) {
    if (!place_.active) return;
    V lam = grad.current;
    if constexpr (OfSpikes) lam = grad.feedback;
    const std::int64_t at = step * groups_.neurons + place_.neuron;
    if (memory_.spikes != nullptr) memory_.spikes[at] = spikes;
    if constexpr (OfCurrent) {
      if (!leaves_current()) {
        const OwnTaps<V> own = taps(0);
        grad.current = multiply_add(own[0], lam, current_.from_later(own, step)) + direct(0, step);
        current_.add(own, lam);
      }
    }
    if constexpr (correlates_spikes) spikes_.add(taps(1), lam);
    memory_.lam[at] = lam;
  }

  /// Whether the gradient of the current is left to correlate().
  EXODUS_DEVICE bool leaves_current() const { return OfCurrent && call_.recurrent.features == 0; }

 private:
  static constexpr bool correlates_spikes = OfSpikes && M != Method::slayer;

  EXODUS_DEVICE OwnTaps<V> taps(int role) const {
    return taps_of(call_.fir[role].taps, groups_.taps_repeats[role], groups_.taps_counts[role], place_.neuron);
  }

  /// The direct gradient of an input that is part of the final history.
  EXODUS_DEVICE V direct(int role, std::int64_t step) const {
    const V* const given = call_.fir[role].grad_final;
    const std::int64_t entry = call_.layout.time - 1 - role - step;
    if (given == nullptr || entry < 0 || entry >= call_.fir[role].taps.length - 1) return V(0);
    return given[entry * groups_.neurons + place_.neuron];
  }

  const Formatted<BackwardCall, V>& call_;
  const Groups& groups_;
  const Place& place_;
  const FirMemory<V>& memory_;
  CorrelatedSteps<V> current_, spikes_;
};

/// The arguments of the launches for a FIR kernel beside a pass. Arrays that are not in the layout of the call have one array over the
/// neurons per step.
template <class V>
struct FirLaunch {
  Layout layout;
  FirRole<V> role;
  Divisor neurons, inner, repeat, count;
  int lead = 0;    ///< steps between an input and its first use: 0 for the current, 1 for spikes
  Source inputs;   ///< the kernel's inputs
  bool inputs_in_layout = true;
  V* filtered = nullptr;    ///< forward: the kernel's output, in the call's layout
  const V* lam = nullptr;   ///< backward: lam of all steps
  bool lam_in_layout = true;
  const V* last = nullptr;       ///< the spikes of step -1
  void* grad_inputs = nullptr;   ///< the gradient of the current

  FirLaunch(const Layout& of, const FirRole<V>& kernel, int which)
      : layout(of),
        role(kernel),
        neurons(of.outer * of.inner),
        inner(of.inner),
        repeat(kernel.taps.repeat),
        count(kernel.taps.count),
        lead(which) {}
};

/// The output of a kernel of the current, whose inputs lie in the call's layout, and its final history.
template <class V>
Status filter(const FirLaunch<V>& fir, cudaStream_t stream);
/// The gradient of the inputs: the correlation of lam with the taps.
template <class V>
Status correlate(const FirLaunch<V>& fir, cudaStream_t stream);
/// The gradient of each neuron's taps, in double, stored in fir.role.sums.
template <class V>
Status sum_taps(const FirLaunch<V>& fir, cudaStream_t stream);

}   // namespace exodus::cuda
