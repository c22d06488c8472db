/// @file
/// Delays (exodus/delay.hpp) on a processor. A pass counts steps r in its own direction: forward r = n, in the adjoint r = T-1-n. It then
/// is the same for both: step r of the result reads steps r-k and r-k-1. A row is a range of neurons that lie together, step by step, or,
/// where the inner axis is short, whole outer indices, whose neurons are taken one by one.
#pragma once

#include "exodus/delay.hpp"
#include "memory.hpp"
#include "plan.hpp"
#include "rows.hpp"
#include "store.hpp"
#include "vectors.hpp"

namespace exodus::cpu {
namespace {

/// Lanes between two steps. With `around_caches` by streaming stores, as store_lanes().
template <class V>
EXODUS_SCALAR void interpolate_lanes(V* to, const V* fraction, const V* near, const V* far, int lanes, bool around_caches) {
#if defined(__SSE2__)
  constexpr int width = group_lanes<V>;
  if (around_caches) {
    const auto past = static_cast<int>(reinterpret_cast<std::uintptr_t>(to) % vector_bytes / sizeof(V));
    int i = 0;
    for (; past > 0 && i < width - past && i < lanes; ++i) to[i] = interpolate(fraction[i], near[i], far[i]);
    for (; i + width <= lanes; i += width) {
      const Vector<V> between = interpolate(load(fraction + i), load(near + i), load(far + i));
      stream_vector(to + i, between);
    }
    for (; i < lanes; ++i) to[i] = interpolate(fraction[i], near[i], far[i]);
    return;
  }
#endif
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = interpolate(fraction[i], near[i], far[i]);
}

template <class V>
EXODUS_SCALAR void add_direct(V* to, const V* direct, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] += direct[i];
}

EXODUS_SCALAR void add_doubles(double* to, const double* from, int count) {
  EXODUS_LANES
  for (int i = 0; i < count; ++i) to[i] += from[i];
}

template <class V>
EXODUS_SCALAR void add_terms(double* sums, const V* x, const V* near, const V* far, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) sums[i] += static_cast<double>(lag_term(x[i], near[i], far[i]));
}

/// Delays lanes that follow each other, each by a number of steps of its own: a barrel shifter. Stage j keeps the last 2^j steps that came
/// to it, and delays the lanes whose delay has bit j. It takes whole vectors, where a gather would take the lanes one by one.
template <class V>
class LaneShifter {
  using Integer = typename IntegerOf<V>::type;

 public:
  LaneShifter() = default;
  LaneShifter(const LaneArrays<V>& steps, const Integer* delays, std::int64_t longest, int lanes)
      : delays_(delays), lanes_(lanes), stages_(shift_stages(longest)) {
    const int all = (1 << stages_) - 1;
    for (int j = 0; j < stages_; ++j) stage_[j] = {steps[(1 << j) - 1], steps.stride, 0};
    for (std::int64_t k = 0; k < all * steps.stride; ++k) steps.first[k] = V(0);
  }

  /// Takes a step's values and gives the delayed ones.
  void shift(V* to, const V* from) {
    V* kept[max_shift_stages];
    for (int j = 0; j < stages_; ++j) kept[j] = stage_[j].next(1 << j);
    int l = 0;
    for (; l + group_lanes<V> <= lanes_; l += group_lanes<V>) {
      Vector<V> value = load(from + l);
      const Vector<Integer> delay = load(delays_ + l);
      for (int j = 0; j < stages_; ++j) {
        const Vector<V> earlier = load(kept[j] + l);
        store(kept[j] + l, value);
        value = (delay & (Integer{1} << j)) != 0 ? earlier : value;
      }
      store(to + l, value);
    }
    for (; l < lanes_; ++l) {
      V value = from[l];
      for (int j = 0; j < stages_; ++j) {
        const V earlier = kept[j][l];
        kept[j][l] = value;
        value = (delays_[l] & (Integer{1} << j)) != 0 ? earlier : value;
      }
      to[l] = value;
    }
  }

 private:
  /// A ring of 2^j steps.
  struct Stage {
    V* first;
    std::int64_t stride;
    int at;

    V* next(int steps) {
      V* const oldest = first + at * stride;
      at = at + 1 == steps ? 0 : at + 1;
      return oldest;
    }
  };

  const Integer* delays_ = nullptr;
  int lanes_ = 0, stages_ = 0;
  Stage stage_[max_shift_stages];
};

/// Which neurons a pass is at, and what it reads of them.
template <class V>
struct DelayPlace {
  const DelayPlan<V>& plan;
  std::int64_t neuron = 0;   ///< the first
  std::int64_t base = 0;     ///< its step 0 in arrays over time

  std::int64_t time() const { return plan.layout.time; }
  std::int64_t neurons() const { return plan.layout.outer * plan.layout.inner; }
  /// From a step to the next in the pass's direction.
  std::int64_t stride() const { return plan.backwards ? -plan.layout.inner : plan.layout.inner; }
  std::int64_t at(std::int64_t r) const { return base + (plan.backwards ? time() - 1 - r : r) * plan.layout.inner; }
  /// In arrays of a state: before the pass's first step, or after its last.
  std::int64_t entry(std::int64_t k) const { return k * neurons() + neuron; }

  /// The values of step r, which may be before the first and after the last.
  const V* row(std::int64_t r, const V* zeros) const {
    if (r < 0) return plan.before == nullptr ? zeros : plan.before + entry(-1 - r);
    return r >= time() || plan.from == nullptr ? zeros : plan.from + at(r);
  }
  V value(std::int64_t r, std::int64_t lane) const {
    constexpr V zero = V(0);
    const V* const found = row(r, &zero);
    return found == &zero ? zero : found[lane];
  }
  /// What the final state tells step r directly.
  const V* direct(std::int64_t r) const { return plan.direct == nullptr || r > plan.most ? nullptr : plan.direct + entry(r); }
  bool has_tail() const { return plan.grad_initial != nullptr || (plan.sums != nullptr && plan.initial != nullptr); }
};

/// Neurons that lie together, step by step.
template <class V>
class DelaySteps {
 public:
  DelaySteps(const DelayPlan<V>& plan, const DelayMemory<V>& memory, std::int64_t row) : plan_(plan), memory_(memory), place_{plan} {
    const std::int64_t inner = plan.layout.inner, rows = (inner + plan.lanes - 1) / plan.lanes;
    const std::int64_t outer = row / rows, first = row % rows * plan.lanes;
    lanes_ = static_cast<int>(inner - first < plan.lanes ? inner - first : plan.lanes);
    place_.neuron = outer * inner + first;
    place_.base = outer * plan.layout.time * inner + first;
    set_lags();
    for (int l = 0; l < lanes_; ++l) memory_.zeros[l] = V(0), memory_.sums[l] = 0;
  }

  void run() {
    const std::int64_t time = place_.time();
    begin();
    for (std::int64_t r = 0; r < time; ++r) {
      const std::int64_t at = place_.at(r);
      step(r, plan_.to == nullptr ? nullptr : plan_.to + at, plan_.sums == nullptr ? nullptr : plan_.x + at, plan_.stream);
    }
    finish_streaming();
    for (std::int64_t k = 0; place_.has_tail() && k <= plan_.most; ++k) {
      const std::int64_t entry = place_.entry(k);
      step(time + k, plan_.grad_initial == nullptr ? nullptr : plan_.grad_initial + entry,
           plan_.sums == nullptr || plan_.initial == nullptr ? nullptr : plan_.initial + entry, false);
    }
    for (std::int64_t k = 0; plan_.final != nullptr && k <= plan_.most; ++k) {
      copy_lanes(plan_.final + place_.entry(k), place_.row(time - 1 - k, memory_.zeros), lanes_);
    }
    if (plan_.sums != nullptr) copy_lanes(plan_.sums + place_.neuron, memory_.sums, lanes_);
  }

 private:
  /// How the delayed values of a step are found: where runs of equal delays are long enough, in place.
  enum class Way { in_place, shifted, one_by_one };

  void set_lags() {
    constexpr int least = 256;
    int runs = 0;
    shortest_ = plan_.most, longest_ = 0;
    for (int l = 0; l < lanes_; ++l) {
      const Lag<V> lag = lag_of(value_of(plan_.steps, place_.neuron + l), plan_.most);
      memory_.whole[l] = lag.whole;
      memory_.bits[l] = static_cast<typename IntegerOf<V>::type>(lag.whole);
      memory_.fraction[l] = lag.fraction;
      memory_.offset[l] = l - lag.whole * place_.stride();
      if (l == 0 || lag.whole != memory_.whole[l - 1]) memory_.runs[runs++] = l;
      shortest_ = lag.whole < shortest_ ? lag.whole : shortest_;
      longest_ = lag.whole > longest_ ? lag.whole : longest_;
    }
    way_ = runs == 1 || runs * least <= lanes_ ? Way::in_place : (longest_ >> max_shift_stages == 0 ? Way::shifted : Way::one_by_one);
    if (way_ != Way::in_place) runs = 1;
    memory_.runs[runs] = lanes_;
    runs_ = runs;
  }

  /// Before step 0: `far` is what step -1 would have read.
  void begin() {
    if (way_ == Way::one_by_one) fetch(memory_.far, -1);
    if (way_ != Way::shifted) return;
    shifter_ = LaneShifter<V>(memory_.shifted, memory_.bits, longest_, lanes_);
    for (int l = 0; l < lanes_; ++l) memory_.far[l] = V(0);
    for (std::int64_t r = -1 - longest_; plan_.before != nullptr && r < 0; ++r) fetch(memory_.far, r);
  }

  /// The delayed values of step r; shifted, of one step after the other.
  void fetch(V* to, std::int64_t r) {
    if (way_ == Way::shifted) {
      shifter_.shift(to, place_.row(r, memory_.zeros));
    } else if (plan_.from != nullptr && r >= longest_ && r < place_.time()) {
      const V* const from = plan_.from + place_.at(r);
      for (int l = 0; l < lanes_; ++l) to[l] = from[memory_.offset[l]];
    } else {
      for (int l = 0; l < lanes_; ++l) to[l] = place_.value(r - memory_.whole[l], l);
    }
  }

  void step(std::int64_t r, V* to, const V* x, bool stream) {
    const bool in_place = way_ == Way::in_place;
    if (!in_place) fetch(memory_.near, r);
    for (int k = 0; k < runs_; ++k) {
      const auto begin = static_cast<int>(memory_.runs[k]), end = static_cast<int>(memory_.runs[k + 1]);
      const std::int64_t delayed = r - memory_.whole[begin];
      const V* const near = in_place ? place_.row(delayed, memory_.zeros) : memory_.near;
      const V* const far = in_place ? place_.row(delayed - 1, memory_.zeros) : memory_.far;
      lanes(r, to, x, near, far, begin, end, stream);
    }
    V* const read = memory_.far;
    memory_.far = memory_.near, memory_.near = read;
  }

  void lanes(std::int64_t r, V* to, const V* x, const V* near, const V* far, int begin, int end, bool stream) const {
    const V* const direct = place_.direct(r);
    const V* const ahead = next_read(r, memory_.whole[begin]);
    const V* const x_ahead = x == nullptr || r + 2 >= place_.time() ? nullptr : plan_.x + place_.at(r + 2);
    const bool down = plan_.backwards && lanes_ == plan_.layout.inner;   // in one piece of memory
    const bool all_have_terms = r >= longest_ && r <= place_.time() + shortest_;
    V result[block_lanes];
    for (int l = begin; l < end; l += block_lanes) {
      const int count = end - l < block_lanes ? end - l : block_lanes;
      if (ahead != nullptr) prefetch(ahead + l, count, down);
      if (x_ahead != nullptr) prefetch(x_ahead + l, count, down);
      if (to != nullptr && direct == nullptr) {
        interpolate_lanes(to + l, memory_.fraction + l, near + l, far + l, count, stream);
      } else if (to != nullptr) {
        interpolate_lanes(result, memory_.fraction + l, near + l, far + l, count, false);
        add_direct(result, direct + l, count);
        store_lanes(to + l, result, count, stream);
      }
      if (x == nullptr) continue;
      if (all_have_terms) {
        add_terms(memory_.sums + l, x + l, near + l, far + l, count);
      } else {
        add_some_terms(r, x, near, far, l, l + count);
      }
    }
  }

  /// What is to be fetched from memory: the input of a step that comes soon.
  const V* next_read(std::int64_t r, std::int64_t delay) const {
    const std::int64_t next = r + 2 - (way_ == Way::shifted ? 0 : (way_ == Way::in_place ? delay : shortest_));
    return plan_.from == nullptr || next < 0 || next >= place_.time() ? nullptr : plan_.from + place_.at(next);
  }

  /// Where delayed steps end, for those of the lanes that have a term: others' x may be infinite.
  void add_some_terms(std::int64_t r, const V* x, const V* near, const V* far, int begin, int end) const {
    for (int l = begin; l < end; ++l) {
      const std::int64_t delayed = r - memory_.whole[l];
      if (0 <= delayed && delayed <= place_.time()) memory_.sums[l] += static_cast<double>(lag_term(x[l], near[l], far[l]));
    }
  }

  const DelayPlan<V>& plan_;
  DelayMemory<V> memory_;
  DelayPlace<V> place_;
  LaneShifter<V> shifter_;
  Way way_ = Way::in_place;
  int lanes_ = 0, runs_ = 0;
  std::int64_t shortest_ = 0, longest_ = 0;
};

/// Neurons of whole outer indices, one by one; an outer index in one piece through time where its neurons share a delay.
template <class V>
class DelayLines {
 public:
  DelayLines(const DelayPlan<V>& plan, const DelayMemory<V>& memory, std::int64_t row)
      : plan_(plan), memory_(memory), inner_(plan.layout.inner), first_(row * plan.outers) {
    const std::int64_t last = first_ + plan.outers < plan.layout.outer ? first_ + plan.outers : plan.layout.outer;
    outers_ = last - first_;
    // By its place, not by its value, since each value has a gradient of its own.
    together_ = inner_ == 1 || plan.steps.count == 1 || plan.steps.repeat % inner_ == 0;
    for (std::int64_t j = 0; j < outers_ * inner_; ++j) {
      const Lag<V> lag = lag_of(value_of(plan.steps, first_ * inner_ + j), plan.most);
      memory_.whole[j] = lag.whole;
      memory_.fraction[j] = lag.fraction;
      memory_.sums[j] = 0;
    }
  }

  void run() {
    for (std::int64_t o = 0; o < outers_; ++o) {
      const DelayPlace<V> place = place_of(o);
      for (std::int64_t i = 0; i < inner_; ++i) edge(place, o, i);
      if (together_) {
        run_together(place, o);
      } else {
        for (std::int64_t i = 0; i < inner_; ++i) run_line(place, o, i);
      }
    }
    finish_streaming();
    run_states();
    if (plan_.sums != nullptr) copy_lanes(plan_.sums + first_ * inner_, memory_.sums, static_cast<int>(outers_ * inner_));
  }

 private:
  DelayPlace<V> place_of(std::int64_t o) const { return {plan_, (first_ + o) * inner_, (first_ + o) * inner_ * plan_.layout.time}; }

  /// The first step that reads inside of the array alone, and that the final state tells nothing.
  std::int64_t first_inside(std::int64_t j) const {
    const std::int64_t told = plan_.direct == nullptr ? 0 : plan_.most + 1, read = memory_.whole[j] + 1, time = plan_.layout.time;
    const std::int64_t first = told < read ? read : told;
    return plan_.from != nullptr && first < time ? first : time;
  }

  /// The steps before.
  void edge(const DelayPlace<V>& place, std::int64_t o, std::int64_t i) {
    const std::int64_t j = o * inner_ + i, end = first_inside(j);
    std::int64_t r = 0;
    if (plan_.before == nullptr && plan_.direct == nullptr && plan_.to != nullptr) {
      const V at_rest = interpolate(memory_.fraction[j], V(0), V(0));
      V* to = plan_.to + place.at(0) + i;
      for (; r < memory_.whole[j] && r < end; ++r, to += place.stride()) *to = at_rest;
    }
    for (; r < end; ++r) element(place, r, o, i, plan_.to, plan_.x, place.at(r) + i);
  }

  void element(const DelayPlace<V>& place, std::int64_t r, std::int64_t o, std::int64_t i, V* to, const V* x, std::int64_t at) {
    const std::int64_t j = o * inner_ + i, delayed = r - memory_.whole[j];
    const V near = place.value(delayed, i), far = place.value(delayed - 1, i);
    if (to != nullptr) {
      const V* const direct = place.direct(r);
      const V result = interpolate(memory_.fraction[j], near, far);
      to[at] = direct == nullptr ? result : result + direct[i];
    }
    if (plan_.sums == nullptr || x == nullptr || delayed < 0 || delayed > place.time()) return;
    memory_.sums[j] += static_cast<double>(lag_term(x[at], near, far));
  }

  void run_line(const DelayPlace<V>& place, std::int64_t o, std::int64_t i) {
    const std::int64_t j = o * inner_ + i, begin = first_inside(j);
    if (begin == place.time()) return;
    const std::int64_t stride = place.stride(), delay = memory_.whole[j] * stride;
    const V fraction = memory_.fraction[j];
    std::int64_t at = place.at(begin) + i;
    V far = plan_.from[at - delay - stride];
    double sum = 0;
    for (std::int64_t r = begin; r < place.time(); ++r, at += stride) {
      const V near = plan_.from[at - delay];
      if (plan_.to != nullptr) plan_.to[at] = interpolate(fraction, near, far);
      if (plan_.sums != nullptr) sum += static_cast<double>(lag_term(plan_.x[at], near, far));
      far = near;
    }
    memory_.sums[j] += sum;
  }

  /// All neurons of an outer index: a step is as many elements away as there are of them. What their delay gets is in the first one's sum.
  void run_together(const DelayPlace<V>& place, std::int64_t o) {
    const std::int64_t j = o * inner_, first = first_inside(j), stride = place.stride(), delay = memory_.whole[j] * stride;
    const std::int64_t begin = plan_.backwards ? place.base : place.base + first * inner_, end = begin + (place.time() - first) * inner_;
    double sums[block_lanes];
    for (int i = 0; i < block_lanes; ++i) memory_.near[i] = memory_.fraction[j], sums[i] = 0;
    for (std::int64_t at = begin; at < end;) {
      const std::int64_t whole = block_lanes - (plan_.to == nullptr ? 0 : past_line(plan_.to + at));
      const int count = static_cast<int>(end - at < whole ? end - at : whole);
      const V* const near = plan_.from + at - delay;
      if (plan_.to != nullptr) interpolate_lanes(plan_.to + at, memory_.near, near, near - stride, count, plan_.stream);
      if (plan_.sums != nullptr) add_terms(sums, plan_.x + at, near, near - stride, count);
      at += count;
    }
    for (int width = block_lanes / 2; width > 0; width /= 2) add_doubles(sums, sums + width, width);
    memory_.sums[j] += sums[0];
  }

  /// Elements from the beginning of a cache line on: the block after ends at one.
  static int past_line(const V* to) { return static_cast<int>(reinterpret_cast<std::uintptr_t>(to) % 64 / sizeof(V)); }

  /// Entry by entry: the neurons of one lie together.
  void run_states() {
    for (std::int64_t k = 0; place_of(0).has_tail() && k <= plan_.most; ++k) {
      for_each_neuron([&](const DelayPlace<V>& place, std::int64_t o, std::int64_t i) {
        element(place, place.time() + k, o, i, plan_.grad_initial, plan_.initial, place.entry(k) + i);
      });
    }
    for (std::int64_t k = 0; plan_.final != nullptr && k <= plan_.most; ++k) copy_to_final(k);
  }

  void copy_to_final(std::int64_t k) {
    const DelayPlace<V> first = place_of(0);
    V* to = plan_.final + first.entry(k);
    if (k >= first.time()) {
      for_each_neuron([&](const DelayPlace<V>& place, std::int64_t, std::int64_t i) { *to++ = place.value(place.time() - 1 - k, i); });
      return;
    }
    const V* from = plan_.from + first.at(first.time() - 1 - k);
    for (std::int64_t o = 0; o < outers_; ++o, from += first.time() * inner_) {
      for (std::int64_t i = 0; i < inner_; ++i) *to++ = from[i];
    }
  }

  template <class F>
  void for_each_neuron(F f) {
    for (std::int64_t o = 0; o < outers_; ++o) {
      const DelayPlace<V> place = place_of(o);
      for (std::int64_t i = 0; i < inner_; ++i) f(place, o, i);
    }
  }

  const DelayPlan<V>& plan_;
  DelayMemory<V> memory_;
  std::int64_t inner_, first_, outers_ = 0;
  bool together_ = false;
};

template <class V>
void delay_row(const DelayPlan<V>& plan, std::int64_t row, int thread) {
  Carver carver(plan.slots + static_cast<std::size_t>(thread) * plan.slot_bytes);
  if (plan.lanes > 0) {
    DelaySteps<V>(plan, DelayMemory<V>(carver, plan.lanes, plan.most), row).run();
  } else {
    DelayLines<V>(plan, DelayMemory<V>(carver, plan.outers * plan.layout.inner, 0), row).run();
  }
}

}   // namespace
}   // namespace exodus::cpu
