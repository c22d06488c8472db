/// @file
/// FIR kernels (kernel.hpp) on a device (docs/mathematics.md, Kernels). They are filters outside the neuron model. A launch before the
/// forward pass filters the current (filter()); with a recurrence, which adds to it, the pass filters it step by step. The pass scatters
/// each spike into a ring buffer of future steps. The backward pass stores lam of every step in the workspace and evaluates the correlation
/// for the spikes when a step needs it. Separate launches compute the other gradients (correlate(), sum_taps()). In these launches a thread
/// computes several neighbouring results, so that it loads a value once for all of them.
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
  V* lam = nullptr;          ///< backward: lam of all steps
  V* spikes = nullptr;       ///< backward: the spikes of all steps
  V* scattered[2] = {};      ///< BPTT: the ring of gradients of earlier inputs, one slot per tap
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

/// The gradient of an input that is first used at step `first`: the correlation of lam with the taps, plus the direct gradient if the input
/// is part of the final history (`direct`, newest first).
template <class V>
EXODUS_DEVICE_SCALAR V correlation(const OwnTaps<V>& taps, const V* lam, const V* direct, std::int64_t neurons, std::int64_t neuron,
                                   std::int64_t first, std::int64_t time) {
  V sum = V(0);
  for (std::int64_t k = first < 0 ? -first : 0; k < taps.count && first + k < time; ++k) {
    sum = multiply_add(taps[k], lam[(first + k) * neurons + neuron], sum);
  }
  const std::int64_t entry = time - 1 - first;
  if (direct != nullptr && entry >= 0 && entry < taps.count - 1) sum += direct[entry * neurons + neuron];
  return sum;
}

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

/// The FIR kernels of a neuron in the forward pass: that of the current, and that of the spikes.
template <class V, bool OfCurrent, bool OfSpikes>
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
    if constexpr (OfCurrent) {
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

/// The FIR kernels of a neuron in the backward pass. EXODUS and SLAYER gather: the gradient of the spikes of a step is a correlation of lam
/// with the taps. (That of the current follows after the pass: correlate().) BPTT scatters: the reverse of out[n] = sum of tap[k] in[n-k]
/// adds tap[k] lam[n] to the gradient of in[n-k].
template <Method M, class V, bool OfCurrent, bool OfSpikes>
class FirBackward {
 public:
  static constexpr bool scatters = M == Method::bptt;

  /// Starts or resumes before step `end`, in reverse.
  EXODUS_DEVICE FirBackward(const Formatted<BackwardCall, V>& call, const Groups& groups, const Place& place, const FirMemory<V>& memory,
                            std::int64_t end)
      : call_(call), groups_(groups), place_(place), memory_(memory) {
    for (int role = 0; scatters && place_.active && end == call.layout.time && role < 2; ++role) {
      for (std::int64_t slot = 0; given(role) && slot < length(role); ++slot) scattered(role, slot) = V(0);
    }
  }

  /// The gradient of the spikes of a step from later steps. Their kernel belongs to the reset, which SLAYER detaches.
  EXODUS_DEVICE V of_spikes(std::int64_t step) const {
    if (!OfSpikes || !place_.active || M == Method::slayer) return V(0);
    return scatters ? take(1, step) : gathered(step);
  }

  /// Stores lam, the gradient of the kernels' output, and the spikes of the step if they are needed. If the pass needs the gradient of the
  /// current's kernel input, it replaces grad.current.
  EXODUS_DEVICE void after_step(std::int64_t step, StepInputs<V, OfSpikes>& grad, V spikes) const {
    if (!place_.active) return;
    V lam = grad.current;
    if constexpr (OfSpikes) lam = grad.feedback;
    memory_.lam[step * groups_.neurons + place_.neuron] = lam;
    if (memory_.spikes != nullptr) memory_.spikes[step * groups_.neurons + place_.neuron] = spikes;
    for (int role = 0; scatters && role < 2; ++role) scatter(role, step - role, lam);
    if constexpr (OfCurrent) {
      if (scatters) {
        grad.current = take(0, step);
      } else if (call_.recurrent.features > 0) {
        grad.current = correlation(taps(0), memory_.lam, call_.fir[0].grad_final, groups_.neurons, place_.neuron, step, call_.layout.time);
      }
    }
  }

  /// After step 0, stores the gradients of the initial history (BPTT), without those of the spikes of step -1.
  EXODUS_DEVICE void finish() const {
    for (int role = 0; scatters && place_.active && role < 2; ++role) {
      V* const grad_initial = call_.fir[role].grad_initial;
      for (std::int64_t k = 0; given(role) && grad_initial != nullptr && k < length(role) - 1; ++k) {
        grad_initial[k * groups_.neurons + place_.neuron] = take(role, -1 - role - k);
      }
    }
  }

  /// Whether the gradient of the current is left to correlate().
  EXODUS_DEVICE bool leaves_current() const { return OfCurrent && !scatters && call_.recurrent.features == 0; }

 private:
  EXODUS_DEVICE std::int64_t length(int role) const { return call_.fir[role].taps.length; }
  EXODUS_DEVICE static bool given(int role) { return role == 0 ? OfCurrent : OfSpikes; }
  EXODUS_DEVICE OwnTaps<V> taps(int role) const {
    return taps_of(call_.fir[role].taps, groups_.taps_repeats[role], groups_.taps_counts[role], place_.neuron);
  }

  EXODUS_DEVICE V gathered(std::int64_t step) const {
    return correlation(taps(1), memory_.lam, call_.fir[1].grad_final, groups_.neurons, place_.neuron, step + 1, call_.layout.time);
  }

  EXODUS_DEVICE V& scattered(int role, std::int64_t slot) const { return memory_.scattered[role][slot * groups_.neurons + place_.neuron]; }

  /// The ring slot of a step. The step may precede step 0 by at most twice the number of taps.
  EXODUS_DEVICE std::int64_t slot_of(int role, std::int64_t step) const { return (step + 2 * length(role)) % length(role); }

  /// Scatters lam of a step to the gradients of the inputs, from step `newest` backwards.
  EXODUS_DEVICE void scatter(int role, std::int64_t newest, V lam) const {
    if (!given(role)) return;
    const OwnTaps<V> own = taps(role);
    std::int64_t slot = slot_of(role, newest);
    for (std::int64_t k = 0; k < own.count; ++k) {
      V& gradient = scattered(role, slot);
      gradient = multiply_add(own[k], lam, gradient);
      slot = slot == 0 ? own.count - 1 : slot - 1;
    }
  }

  /// Returns and clears the gradient of an input. Adds its direct gradient if it is part of the final history.
  EXODUS_DEVICE V take(int role, std::int64_t step) const {
    V& slot = scattered(role, slot_of(role, step));
    V gradient = slot;
    slot = V(0);
    const std::int64_t entry = call_.layout.time - 1 - role - step;
    const V* const direct = call_.fir[role].grad_final;
    if (direct != nullptr && entry >= 0 && entry < length(role) - 1) gradient += direct[entry * groups_.neurons + place_.neuron];
    return gradient;
  }

  const Formatted<BackwardCall, V>& call_;
  const Groups& groups_;
  const Place& place_;
  const FirMemory<V>& memory_;
};

/// The arguments of the launches for a FIR kernel beside a pass.
template <class V>
struct FirLaunch {
  Layout layout;
  FirRole<V> role;
  Divisor neurons, inner, repeat, count;
  int lead = 0;                  ///< steps between an input and its first use: 0 for the current, 1 for spikes
  Source inputs;                 ///< the kernel's inputs, stored like lam or, if `inputs_lie`, in the call's layout
  bool inputs_lie = false;       ///< whether they are in the layout of the call
  V* filtered = nullptr;         ///< forward: the kernel's output, in the call's layout
  const V* lam = nullptr;        ///< lam of all steps, one array over the neurons per step
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
