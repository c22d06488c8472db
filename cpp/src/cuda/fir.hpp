/// @file
/// Kernels with taps (kernel.hpp) on a device. Forward, a thread sums the current over the taps at each step, and adds what a spike is
/// worth to a ring of the steps that come; the recursion is the identity. Backward, lam of each step goes into the workspace; the spikes'
/// correlation is summed as the steps need it, and the rest follows in kernels of its own (correlate(), sum_taps()).
#pragma once

#include "reduce.hpp"
#include "tiles.hpp"

namespace exodus::cuda {

/// Where a pass keeps what kernels with taps need, in arrays over the neurons, one for each of some steps; null: not needed.
template <class V>
struct FirMemory {
  V* coming = nullptr;       ///< forward: a ring of as many steps as the spikes' kernel has taps
  V* past = nullptr;         ///< forward: a ring of one step less, of the last spikes
  V* inputs = nullptr;       ///< forward: a ring of as many steps as the current's kernel has taps, where the current is not its input
  const V* last = nullptr;   ///< forward: the spikes before step 0
  V* lam = nullptr;          ///< backward: of all steps
  V* spikes = nullptr;       ///< backward: likewise
  V* pending[2] = {};        ///< BPTT: a ring of as many steps as the kernel has taps
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

/// What an input gets that is first felt at step `first`: the correlation of lam with the taps, and its direct gradient as one of those
/// that are remembered at the end, newest first.
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

/// What a kernel with taps was given before step 0, by step: of the current, its inputs; of the spikes, those of step -1 are the state's
/// own.
template <class V>
struct Before {
  const V* history;   ///< newest first
  const V* last;      ///< of the spikes: those of step -1
  std::int64_t neurons, neuron;
  bool of_spikes;

  EXODUS_DEVICE bool given() const { return history != nullptr || last != nullptr; }
  EXODUS_DEVICE V operator[](std::int64_t step) const {
    if (of_spikes && step == -1) return last == nullptr ? V(0) : last[neuron];
    return history == nullptr ? V(0) : history[(-1 - (of_spikes ? 1 : 0) - step) * neurons + neuron];
  }
};

/// The kernels with taps of a neuron, forward.
template <class V, int Kernels, int FirstHidden>
class FirForward {
 public:
  /// Goes on from a step.
  EXODUS_DEVICE FirForward(const Formatted<ForwardCall, V>& call, const Groups& groups, const Place& place, const FirMemory<V>& memory,
                           std::int64_t begin)
      : call_(call), groups_(groups), place_(place), memory_(memory) {
    if (of_spikes()) now_ = begin % taps(1).count;
    if (of_spikes() && begin == 0) start_spikes();
  }

  /// Sets what a step's recursions take, and gives its input: nothing from before, in place of the current its sum, and in place of the
  /// spikes before it what all up to them are worth now.
  template <class State>
  EXODUS_DEVICE V before_step(std::int64_t step, State& state, V current) {
    if (!place_.active) return current;
    if (memory_.inputs != nullptr) at(memory_.inputs, step % taps(0).count) = current;
    if constexpr (Kernels > 1) {   // but for those of the last step, which are a state of their own
      if (memory_.past != nullptr && step > 0) at(memory_.past, (step - 1) % (taps(1).count - 1)) = state.spikes;
    }
    for_each_field<FirstHidden + kernel_states * Kernels>(state, [&](V& value, int k) {
      if (k >= FirstHidden && given((k - FirstHidden) / kernel_states)) value = V(0);
      if (k == 1 && of_spikes()) value = take();
    });
    return given(0) ? filtered(step) : current;
  }

  EXODUS_DEVICE void after_step(V spikes) {
    if (!place_.active || !of_spikes()) return;
    add(spikes, 0);
  }

  /// What the kernels remember.
  EXODUS_DEVICE void finish() const {
    if (!place_.active) return;
    const std::int64_t time = call_.layout.time;
    for (int role = 0; role < Kernels; ++role) {
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
  EXODUS_DEVICE bool given(int role) const { return call_.fir[role].taps.length > 0; }
  EXODUS_DEVICE bool of_spikes() const { return Kernels > 1 && given(1); }
  EXODUS_DEVICE OwnTaps<V> taps(int role) const {
    return taps_of(call_.fir[role].taps, groups_.taps_repeats[role], groups_.taps_counts[role], place_.neuron);
  }
  EXODUS_DEVICE V& at(V* arrays, std::int64_t slot) const { return arrays[slot * groups_.neurons + place_.neuron]; }
  EXODUS_DEVICE V input(std::int64_t step) const {
    if (memory_.inputs != nullptr) return at(memory_.inputs, step % taps(0).count);
    return element<V>({call_.current, call_.format}, place_.offset + step * call_.layout.inner);
  }
  EXODUS_DEVICE Before<V> before(int role) const {
    return {call_.fir[role].initial, role == 1 ? memory_.last : nullptr, groups_.neurons, place_.neuron, role == 1};
  }

  /// From the newest to the oldest.
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
    for (std::int64_t slot = 0; slot < count; ++slot) at(memory_.coming, slot) = V(0);
    const Before<V> earlier = before(1);
    for (std::int64_t step = -count; earlier.given() && step < 0; ++step) add(earlier[step], -1 - step);
  }

  /// What is there for the present step, which begins.
  EXODUS_DEVICE V take() {
    V& slot = at(memory_.coming, now_);
    const V value = slot;
    slot = V(0);
    now_ = now_ + 1 == taps(1).count ? 0 : now_ + 1;
    return value;
  }

  /// Adds what spikes are worth in the steps that come, from tap `first` on.
  EXODUS_DEVICE void add(V spikes, std::int64_t first) {
    if (spikes == V(0)) return;
    const OwnTaps<V> own = taps(1);
    std::int64_t slot = now_;
    for (std::int64_t k = first; k < own.count; ++k) {
      V& sum = at(memory_.coming, slot);
      sum = sum + own[k] * spikes;
      slot = slot + 1 == own.count ? 0 : slot + 1;
    }
  }

  const Formatted<ForwardCall, V>& call_;
  const Groups& groups_;
  const Place& place_;
  const FirMemory<V>& memory_;
  std::int64_t now_ = 0;   ///< the ring's slot of the next step
};

/// The kernels with taps of a neuron, backward. EXODUS and SLAYER gather what the spikes of a step get from later steps: a correlation of
/// lam with the taps (of the current, after the pass: correlate()). BPTT scatters it: the reverse of out[n] = sum of tap[k] in[n-k] adds
/// tap[k] lam[n] to the gradient of in[n-k].
template <Method M, class V, int Kernels, int FirstHidden>
class FirBackward {
 public:
  static constexpr bool scatters = M == Method::bptt;

  /// Goes back from a step's beginning.
  EXODUS_DEVICE FirBackward(const Formatted<BackwardCall, V>& call, const Groups& groups, const Place& place, const FirMemory<V>& memory,
                            std::int64_t end)
      : call_(call), groups_(groups), place_(place), memory_(memory) {
    for (int role = 0; scatters && place_.active && end == call.layout.time && role < Kernels; ++role) {
      for (std::int64_t slot = 0; slot < length(role); ++slot) pending(role, slot) = V(0);
    }
  }

  /// Sets what an adjoint takes for kernels with taps: nothing from later, and of the spikes what the later steps' lam give them.
  template <class Carry>
  EXODUS_DEVICE void before_step(std::int64_t step, Carry& carry) const {
    for_each_field<hidden + kernel_states * Kernels>(carry, [&](V& value, int k) {
      if (k >= hidden && given((k - hidden) / kernel_states)) value = V(0);
    });
    if (!place_.active || !of_spikes() || M == Method::slayer) return;
    set_spikes(carry, scatters ? take(1, step) : gathered(step));
  }

  /// Keeps lam, and the spikes of the step; `grad`, what the adjoint gave, becomes the gradient of the step's input if the pass needs it.
  template <class Carry>
  EXODUS_DEVICE void after_step(std::int64_t step, Carry& carry, V& grad, V spikes) const {
    if (!place_.active || memory_.lam == nullptr) return;
    V lam = grad;
    for_each_field<hidden + kernel_states * Kernels>(carry, [&](V& value, int k) {
      if (of_spikes() && k == lam_carry) lam = value;
    });
    memory_.lam[step * groups_.neurons + place_.neuron] = lam;
    if (memory_.spikes != nullptr) memory_.spikes[step * groups_.neurons + place_.neuron] = spikes;
    for (int role = 0; scatters && role < Kernels; ++role) scatter(role, step - role, lam);
    if (!given(0)) return;
    if (scatters) {
      grad = take(0, step);
    } else if (call_.recurrent.features > 0) {
      grad = correlation(taps(0), memory_.lam, call_.fir[0].grad_final, groups_.neurons, place_.neuron, step, call_.layout.time);
    }
  }

  /// After step 0: what came before it gets.
  template <class Carry>
  EXODUS_DEVICE void finish(Carry& carry) const {
    if (!scatters || !place_.active) return;
    if (of_spikes()) set_spikes(carry, take(1, -1));
    for (int role = 0; role < Kernels; ++role) {
      V* const grad_initial = call_.fir[role].grad_initial;
      for (std::int64_t k = 0; grad_initial != nullptr && k < length(role) - 1; ++k) {
        grad_initial[k * groups_.neurons + place_.neuron] = take(role, -1 - role - k);
      }
    }
  }

  /// What the spikes of step -1 get; `own`, if it is not through taps that are correlated with lam.
  EXODUS_DEVICE V of_last_spikes(V own) const { return M == Method::exodus && of_spikes() && place_.active ? gathered(-1) : own; }

  /// Whether the gradient of the current is left to correlate().
  EXODUS_DEVICE bool leaves_current() const { return !scatters && given(0) && call_.recurrent.features == 0; }

 private:
  // For BPTT what is carried is the gradient of the state; else of the kernels alone, X and Y, of which Y is lam.
  static constexpr int hidden = M == Method::bptt && Kernels > 1 ? FirstHidden : 0;
  static constexpr int spikes_carry = M == Method::bptt ? 1 : kernel_states;
  static constexpr int lam_carry = M == Method::bptt ? 1 : kernel_states + 1;

  EXODUS_DEVICE std::int64_t length(int role) const { return call_.fir[role].taps.length; }
  EXODUS_DEVICE bool given(int role) const { return length(role) > 0; }
  EXODUS_DEVICE bool of_spikes() const { return Kernels > 1 && given(1); }
  EXODUS_DEVICE OwnTaps<V> taps(int role) const {
    return taps_of(call_.fir[role].taps, groups_.taps_repeats[role], groups_.taps_counts[role], place_.neuron);
  }

  template <class Carry>
  EXODUS_DEVICE void set_spikes(Carry& carry, V gradient) const {
    for_each_field<hidden + kernel_states * Kernels>(carry, [&](V& value, int k) {
      if (k == spikes_carry) value = gradient;
    });
  }

  EXODUS_DEVICE V gathered(std::int64_t step) const {
    return correlation(taps(1), memory_.lam, call_.fir[1].grad_final, groups_.neurons, place_.neuron, step + 1, call_.layout.time);
  }

  EXODUS_DEVICE V& pending(int role, std::int64_t slot) const { return memory_.pending[role][slot * groups_.neurons + place_.neuron]; }

  /// The ring's slot of a step, which may be before step 0, but not by more than there are taps.
  EXODUS_DEVICE std::int64_t slot_of(int role, std::int64_t step) const { return (step + 2 * length(role)) % length(role); }

  /// Adds what a step's lam gives the inputs from step `newest` back.
  EXODUS_DEVICE void scatter(int role, std::int64_t newest, V lam) const {
    if (!given(role)) return;
    const OwnTaps<V> own = taps(role);
    std::int64_t slot = slot_of(role, newest);
    for (std::int64_t k = 0; k < own.count; ++k) {
      V& gradient = pending(role, slot);
      gradient = multiply_add(own[k], lam, gradient);
      slot = slot == 0 ? own.count - 1 : slot - 1;
    }
  }

  /// What an input got from all later steps, its direct gradient as one of those that are remembered at the end included.
  EXODUS_DEVICE V take(int role, std::int64_t step) const {
    V& slot = pending(role, slot_of(role, step));
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

/// A kernel with taps after a backward pass.
template <class V>
struct FirAfter {
  Layout layout;
  FirRole<V> role;
  Divisor neurons, inner, repeat, count;
  int lead = 0;                  ///< steps from an input to where it is first felt: 0 of the current, 1 of spikes
  const V* lam = nullptr;        ///< of all steps, an array over the neurons each
  Source inputs;                 ///< likewise, or the current as it lies
  bool inputs_lie = false;       ///< that
  const V* last = nullptr;       ///< the spikes of step -1
  void* grad_inputs = nullptr;   ///< of the current

  FirAfter(const Layout& of, const FirRole<V>& kernel, int which)
      : layout(of),
        role(kernel),
        neurons(of.outer * of.inner),
        inner(of.inner),
        repeat(kernel.taps.repeat),
        count(kernel.taps.count),
        lead(which) {}
};

/// What the inputs get: the correlation of lam with the taps.
template <class V>
Status correlate(const FirAfter<V>& fir, cudaStream_t stream);
/// The gradient of the taps of each neuron, as doubles in fir.role.sums.
template <class V>
Status sum_taps(const FirAfter<V>& fir, cudaStream_t stream);

}   // namespace exodus::cuda
