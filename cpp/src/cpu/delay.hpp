/// @file
/// Delays (exodus/delay.hpp) on the CPU. A pass counts steps r in its own direction: r = n in the forward pass, and r = T-1-n in the
/// adjoint. Both are then the same operation: step r of the result reads steps r-k and r-k-1. A row is either a range of contiguous
/// neurons, processed step by step (DelaySteps), or, if the inner axis is short, several whole outer indices, processed neuron by neuron
/// (DelayLines).
#pragma once

#include "exodus/delay.hpp"
#include "memory.hpp"
#include "plan.hpp"
#include "rows.hpp"
#include "store.hpp"

namespace exodus::cpu {
namespace {

/// Interpolates lanes between two steps, with streaming stores if `around_caches`.
template <class V>
EXODUS_SCALAR void interpolate_lanes(V* to, const V* fraction, const V* near, const V* far, int lanes, bool around_caches) {
  if (has_streaming_stores && around_caches) {
    return stream_lanes(
        to, lanes, [&](int i) __attribute__((always_inline)) { return interpolate(fraction[i], near[i], far[i]); },
        [&](int i) __attribute__((always_inline)) -> Vector<V> { return interpolate(load(fraction + i), load(near + i), load(far + i)); });
  }
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] = interpolate(fraction[i], near[i], far[i]);
}

/// The same for elements that share a delay.
template <class V>
EXODUS_SCALAR void interpolate_shared(V* to, V fraction, const V* near, const V* far, std::int64_t count) {
  EXODUS_LANES
  for (std::int64_t i = 0; i < count; ++i) to[i] = interpolate(fraction, near[i], far[i]);
}

template <class V>
EXODUS_SCALAR void add_direct(V* to, const V* direct, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) to[i] += direct[i];
}

template <class V>
EXODUS_SCALAR void add_terms(double* sums, const V* x, const V* near, const V* far, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) sums[i] += static_cast<double>(lag_term(x[i], near[i], far[i]));
}

/// Adds the terms of a block of delayed steps to dL/dt. `far` is the delayed step before the block.
template <class V>
EXODUS_SCALAR void add_block_terms(double* sums, const V* const* x, int lane, const Vector<V>& far, const Vector<V>* block) {
  constexpr int parts = sizeof(double) / sizeof(V), width = simd_lanes<double>;
  Vector<double> sum[parts];
  for (int p = 0; p < parts; ++p) sum[p] = load(sums + p * width);
  for (int s = 0; s < block_steps; ++s) {
    add_to_doubles<V>(sum, lag_term<Vector<V>>(load(x[s] + lane), block[s], s == 0 ? far : block[s - 1]));
  }
  for (int p = 0; p < parts; ++p) store(sums + p * width, sum[p]);
}

/// Delays the chosen lanes of a block by `Distance` steps, fewer than the block has. `kept` holds the last steps of the previous block.
template <int Distance, class V, class Lanes>
EXODUS_SCALAR void shift_within(Vector<V>* block, Vector<V>* kept, const Lanes& chosen) {
  Vector<V> earlier[Distance];
  for (int s = 0; s < Distance; ++s) earlier[s] = kept[s], kept[s] = block[block_steps - Distance + s];
  for (int s = block_steps - 1; s >= Distance; --s) block[s] = chosen ? block[s - Distance] : block[s];
  for (int s = 0; s < Distance; ++s) block[s] = chosen ? earlier[s] : block[s];
}

/// Delays the chosen lanes by whole blocks. `kept` is the earlier block; it counts as zero until the ring is `filled`.
template <class V, class Lanes>
EXODUS_SCALAR void shift_blocks(Vector<V>* block, Vector<V>* kept, bool filled, const Lanes& chosen) {
  for (int s = 0; s < block_steps; ++s) {
    const Vector<V> earlier = filled ? kept[s] : Vector<V>{};
    kept[s] = block[s];
    block[s] = chosen ? earlier : block[s];
  }
}

/// A barrel shifter: delays a vector of lanes, each by its own number of steps. Stage j delays the lanes whose delay has bit j by 2^j
/// steps. Unlike a gather it works on whole vectors. The block of steps stays in registers, and only the steps that stages keep for the
/// next block go through memory. `kept` begins with a block for the short stages, which do not use its last step.
template <class V>
EXODUS_SCALAR void shift_lanes(Vector<V>* block, Vector<V>* kept, int stages, std::int64_t number,
                               const Vector<typename IntegerOf<V>::type>& delays) {
  constexpr int within = 3;
  static_assert(block_steps == 1 << within);
  Vector<V>* longer = kept + block_steps;
  for (int j = within; j < stages; ++j) {
    const std::int64_t blocks = std::int64_t{1} << (j - within);
    shift_blocks<V>(block, longer + (number & (blocks - 1)) * block_steps, number >= blocks, (delays & 1 << j) != 0);
    longer += blocks * block_steps;
  }
  if (stages > 2) shift_within<4, V>(block, kept + 3, (delays & 4) != 0);
  if (stages > 1) shift_within<2, V>(block, kept + 1, (delays & 2) != 0);
  if (stages > 0) shift_within<1, V>(block, kept, (delays & 1) != 0);
}

/// The same shifter for all lanes of a row, one step at a time. Stage j keeps its last 2^j inputs. It is used if vectors are shorter than a
/// cache line: with blocks, these would access each line in parts, with other lines in between (benchmarks/delays.py).
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

  /// Shifts in the values of a step, and stores the delayed values in `to`.
  void shift(V* to, const V* from) {
    V* kept[max_shift_stages];
    for (int j = 0; j < stages_; ++j) kept[j] = stage_[j].next(1 << j);
    int l = 0;
    for (; l + simd_lanes<V> <= lanes_; l += simd_lanes<V>) {
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
  /// A ring buffer of 2^j steps.
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

/// Calls give(index, lag) for the neurons from `first` on.
template <class V, class Give>
EXODUS_SCALAR void for_lags(const DelayPlan<V>& plan, std::int64_t first, std::int64_t count, Give give) {
  const Param<V>& steps = plan.steps;
  std::int64_t index = first / steps.repeat % steps.count, used = first % steps.repeat;
  for (std::int64_t j = 0; j < count; ++j) {
    give(j, lag_of(steps.data == nullptr ? steps.value : steps.data[index], plan.most));
    if (++used == steps.repeat) used = 0, index = index + 1 == steps.count ? 0 : index + 1;
  }
}

/// Contiguous neurons of a pass, and the locations of their steps in its arrays.
template <class V>
struct DelayPlace {
  const DelayPlan<V>& plan;
  std::int64_t neuron = 0;   ///< the first neuron
  std::int64_t base = 0;     ///< the offset of its step 0 in arrays over time

  std::int64_t time() const { return plan.layout.time; }
  std::int64_t neurons() const { return plan.layout.outer * plan.layout.inner; }
  /// The stride from a step to the next one in the pass's direction.
  std::int64_t stride() const { return plan.backwards ? -plan.layout.inner : plan.layout.inner; }
  std::int64_t at(std::int64_t r) const { return base + (plan.backwards ? time() - 1 - r : r) * plan.layout.inner; }
  /// Entry k of a state array.
  std::int64_t entry(std::int64_t k) const { return k * neurons() + neuron; }

  /// The values of step r, which may be before the first step or after the last.
  const V* row(std::int64_t r, const V* zeros) const {
    if (r < 0) return plan.before == nullptr || -1 - r > plan.most ? zeros : plan.before + entry(-1 - r);
    return r >= time() || plan.from == nullptr ? zeros : plan.from + at(r);
  }
  V value(std::int64_t r, std::int64_t lane) const {
    constexpr V zero = V(0);
    const V* const found = row(r, &zero);
    return found == &zero ? zero : found[lane];
  }
  /// dL/d(final state) for step r; null without one.
  const V* direct(std::int64_t r) const { return plan.direct == nullptr || r > plan.most ? nullptr : plan.direct + entry(r); }
  bool has_tail() const { return plan.grad_initial != nullptr || (plan.sums != nullptr && plan.initial != nullptr); }
  /// The number of steps of a pass; in the adjoint it includes those of the initial state.
  std::int64_t end() const { return time() + (has_tail() ? plan.most + 1 : 0); }
  /// The location of the result of step r; null if it is not wanted.
  V* target(std::int64_t r) const {
    if (r < 0 || r >= end()) return nullptr;
    if (r < time()) return plan.to == nullptr ? nullptr : plan.to + at(r);
    return plan.grad_initial == nullptr ? nullptr : plan.grad_initial + entry(r - time());
  }
  /// The input in the term of step r; null if there is no term.
  const V* input(std::int64_t r) const {
    if (plan.sums == nullptr || r < 0 || r >= end()) return nullptr;
    if (r < time()) return plan.x + at(r);
    return plan.initial == nullptr ? nullptr : plan.initial + entry(r - time());
  }
};

/// A row of contiguous neurons, processed step by step, or block by block with a shifter.
template <class V>
class DelaySteps {
  using Integer = typename IntegerOf<V>::type;
  static constexpr int width = simd_lanes<V>;

 public:
  static constexpr bool in_blocks = width == line_lanes<V>;   // whether the shifter runs in blocks

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
    if (way_ == Way::shifted && in_blocks) {
      run_blocks();
    } else {
      begin();
      for (std::int64_t r = 0; r < place_.end(); ++r) step(r, place_.target(r), place_.input(r), plan_.stream && r < place_.time());
    }
    finish_streaming();
    for (std::int64_t k = 0; plan_.final != nullptr && k <= plan_.most; ++k) {
      copy_lanes(plan_.final + place_.entry(k), place_.row(place_.time() - 1 - k, memory_.zeros), lanes_);
    }
    if (plan_.sums != nullptr) copy_lanes(plan_.sums + place_.neuron, memory_.sums, lanes_);
  }

 private:
  /// How the delayed values of a step are read: in place if runs of equal delays are long enough, by a shifter, or one by one if a delay is
  /// too long for a shifter.
  enum class Way { in_place, shifted, one_by_one };

  /// The rows of a block of steps, and of the next block to prefetch: inputs, results, dL/d(final state), and the inputs of terms.
  struct BlockRows {
    std::int64_t first;
    const V* from[block_steps];
    const V* next[block_steps];
    V* to[block_steps];
    const V* direct[block_steps];
    const V* x[block_steps];
    const V* next_x[block_steps];
    bool stream, with_terms, all_have_terms;
  };

  void set_lags() {
    constexpr int least = 256;
    int runs = 0;
    shortest_ = plan_.most, longest_ = 0;
    for_lags(plan_, place_.neuron, lanes_, [&](std::int64_t l, const Lag<V>& lag) {
      memory_.whole[l] = lag.whole;
      memory_.bits[l] = static_cast<Integer>(lag.whole);
      memory_.fraction[l] = lag.fraction;
      memory_.offset[l] = l - lag.whole * place_.stride();
      if (l == 0 || lag.whole != memory_.whole[l - 1]) memory_.runs[runs++] = l;
      shortest_ = lag.whole < shortest_ ? lag.whole : shortest_;
      longest_ = lag.whole > longest_ ? lag.whole : longest_;
    });
    way_ = runs == 1 || runs * least <= lanes_ ? Way::in_place : (longest_ >> max_shift_stages == 0 ? Way::shifted : Way::one_by_one);
    if (way_ != Way::in_place) runs = 1;
    memory_.runs[runs] = lanes_;
    runs_ = runs;
  }

  /// Runs the shifter over all steps, in blocks; in each block, one vector of lanes after another. With streaming stores, vectors begin on
  /// cache lines.
  void run_blocks() {
    stages_ = shift_stages(longest_);
    const int past =
        plan_.stream ? static_cast<int>(reinterpret_cast<std::uintptr_t>(plan_.to + place_.base) % vector_bytes / sizeof(V)) : 0;
    const int columns = (past + lanes_ + width - 1) / width;
    for (int c = 0; c < columns; ++c) clear(memory_.shifted + c * kept_steps(stages_) * width, block_steps * width);
    const std::int64_t before = plan_.before == nullptr ? 0 : (longest_ + block_steps) / block_steps;
    for (std::int64_t number = 0; (number - before) * block_steps < place_.end(); ++number) {
      const BlockRows rows = rows_of((number - before) * block_steps);
      for (int c = 0; c < columns; ++c) {
        const int begin = c == 0 ? 0 : c * width - past, after = (c + 1) * width - past, end = after < lanes_ ? after : lanes_;
        if (end - begin == width) {
          column<true>(rows, number, kept_of(c), begin, width);
        } else {
          column<false>(rows, number, kept_of(c), begin, end - begin);
        }
      }
    }
  }

  Vector<V>* kept_of(int column) const { return reinterpret_cast<Vector<V>*>(memory_.shifted) + column * kept_steps(stages_); }

  BlockRows rows_of(std::int64_t first) const {
    BlockRows rows;
    rows.first = first;
    rows.stream = plan_.stream && first + block_steps <= place_.time();
    rows.with_terms = false;
    rows.all_have_terms = first >= longest_ && first + block_steps - 1 <= place_.time() + shortest_;
    for (int s = 0; s < block_steps; ++s) {
      const std::int64_t r = first + s;
      rows.from[s] = place_.row(r, memory_.zeros);
      rows.next[s] = place_.row(r + block_steps, memory_.zeros);
      rows.to[s] = place_.target(r);
      rows.direct[s] = r < 0 ? nullptr : place_.direct(r);
      rows.x[s] = place_.input(r);
      const V* const next_x = place_.input(r + block_steps);
      rows.next_x[s] = next_x == nullptr ? memory_.zeros : next_x;
      rows.with_terms = rows.with_terms || rows.x[s] != nullptr;
      rows.all_have_terms = rows.all_have_terms && rows.x[s] != nullptr;
    }
    return rows;
  }

  /// Prefetches the vector four vectors on, in these rows or the next.
  EXODUS_SCALAR void prefetch_ahead(const V* const* rows, const V* const* next, int begin, int lanes) {
    const int ahead = begin + 4 * width;
    for (int s = 0; s < block_steps; ++s) __builtin_prefetch(ahead < lanes ? rows[s] + ahead : next[s] + (ahead - lanes), 0, 2);
  }

  /// Processes a block of steps for `count` lanes from `begin`. With `Whole`, they fill a vector.
  template <bool Whole>
  void column(const BlockRows& rows, std::int64_t number, Vector<V>* kept, int begin, int count) {
    const auto take = [&](const auto* lanes) __attribute__((always_inline)) { return Whole ? load(lanes) : load_some(lanes, count); };
    const auto give = [&](V* lanes, const Vector<V>& values) __attribute__((always_inline)) {
      if (!Whole) return store_some(lanes, values, count);
      store_vector(lanes, values, rows.stream);
    };
    prefetch_ahead(rows.from, rows.next, begin, lanes_);
    if (rows.all_have_terms) prefetch_ahead(rows.x, rows.next_x, begin, lanes_);
    Vector<V> block[block_steps];
    for (int s = 0; s < block_steps; ++s) block[s] = take(rows.from[s] + begin);
    Vector<V>* const last = kept + block_steps - 1;
    const Vector<V> far = *last, fraction = take(memory_.fraction + begin);
    shift_lanes<V>(block, kept, stages_, number, take(memory_.bits + begin));
    *last = block[block_steps - 1];
    if (Whole && rows.all_have_terms) {
      add_block_terms<V>(memory_.sums + begin, rows.x, begin, far, block);
    } else if (rows.with_terms) {
      store(memory_.delayed, far);
      for (int s = 0; s < block_steps; ++s) store(memory_.delayed + (s + 1) * width, block[s]);
      add_some_terms_of_block(rows, begin, count);
    }
    for (int s = block_steps - 1; s > 0; --s) block[s] = interpolate(fraction, block[s], block[s - 1]);
    block[0] = interpolate(fraction, block[0], far);
    for (int s = 0; s < block_steps; ++s) {
      if (rows.direct[s] != nullptr) block[s] += take(rows.direct[s] + begin);
      if (rows.to[s] != nullptr) give(rows.to[s] + begin, block[s]);
    }
  }

  /// memory_.delayed holds the delayed values of the step before the block and of its steps.
  void add_some_terms_of_block(const BlockRows& rows, int begin, int count) {
    for (int s = 0; s < block_steps; ++s) {
      const V* const far = memory_.delayed + s * width - begin;
      if (rows.x[s] != nullptr) add_some_terms(rows.first + s, rows.x[s], far + width, far, begin, begin + count);
    }
  }

  /// Before step 0: sets `far` to the values that step -1 would have read.
  void begin() {
    if (way_ == Way::one_by_one) fetch(memory_.far, -1);
    if (way_ != Way::shifted) return;
    shifter_ = LaneShifter<V>({memory_.shifted, lane_stride<V>(plan_.lanes)}, memory_.bits, longest_, lanes_);
    clear(memory_.far, lanes_);
    for (std::int64_t r = -1 - longest_; plan_.before != nullptr && r < 0; ++r) fetch(memory_.far, r);
  }

  /// Reads the delayed values of step r. A shifter requires consecutive steps.
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
    const bool down = plan_.backwards && lanes_ == plan_.layout.inner;   // the row is contiguous through time
    const V* const ahead = next_read(r, memory_.whole[begin]);
    const V* const x_ahead = x == nullptr || r + 2 >= place_.time() ? nullptr : plan_.x + place_.at(r + 2);
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

  /// The input to prefetch for a later step; null if there is none.
  const V* next_read(std::int64_t r, std::int64_t delay) const {
    const std::int64_t next = r + 2 - (way_ == Way::shifted ? 0 : (way_ == Way::in_place ? delay : shortest_));
    return plan_.from == nullptr || next < 0 || next >= place_.time() ? nullptr : plan_.from + place_.at(next);
  }

  /// Near the ends of time, adds terms only for the lanes that have one: x of the others may be infinite.
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
  int lanes_ = 0, runs_ = 0, stages_ = 0;
  std::int64_t shortest_ = 0, longest_ = 0;
};

/// A row of whole outer indices, processed neuron by neuron. An outer index whose neurons share a delay is processed as one contiguous
/// array.
template <class V>
class DelayLines {
 public:
  DelayLines(const DelayPlan<V>& plan, const DelayMemory<V>& memory, std::int64_t row)
      : plan_(plan), memory_(memory), inner_(plan.layout.inner), first_(row * plan.outers) {
    const std::int64_t last = first_ + plan.outers < plan.layout.outer ? first_ + plan.outers : plan.layout.outer;
    outers_ = last - first_;
    // Shared by index, not by value, since each value has its own gradient.
    together_ = inner_ == 1 || plan.steps.count == 1 || plan.steps.repeat % inner_ == 0;
    for_lags(plan, first_ * inner_, outers_ * inner_, [&](std::int64_t j, const Lag<V>& lag) {
      memory_.whole[j] = lag.whole;
      memory_.fraction[j] = lag.fraction;
      memory_.sums[j] = 0;
    });
  }

  void run() {
    for (std::int64_t o = 0; o < outers_; ++o) {
      const DelayPlace<V> place = place_of(o);
      if (together_) {
        run_together(place, o);
      } else {
        for (std::int64_t i = 0; i < inner_; ++i) edge(place, o, i), run_line(place, o, i);
      }
    }
    run_states();
    if (plan_.sums != nullptr) copy_lanes(plan_.sums + first_ * inner_, memory_.sums, static_cast<int>(outers_ * inner_));
  }

 private:
  DelayPlace<V> place_of(std::int64_t o) const { return {plan_, (first_ + o) * inner_, (first_ + o) * inner_ * plan_.layout.time}; }

  /// The first step from which reads stay inside the array and dL/d(final state) adds nothing.
  std::int64_t first_inside(std::int64_t j) const {
    const std::int64_t told = plan_.direct == nullptr ? 0 : plan_.most + 1, read = memory_.whole[j] + 1, time = plan_.layout.time;
    const std::int64_t first = told < read ? read : told;
    return plan_.from != nullptr && first < time ? first : time;
  }

  /// The steps before first_inside().
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

  /// Processes all neurons of an outer index in the order of memory, piece by piece. The gradient of their shared delay is accumulated in
  /// the sum of the first one.
  void run_together(const DelayPlace<V>& place, std::int64_t o) {
    const std::int64_t j = o * inner_, size = place.time() * inner_, with_terms = (place.time() - memory_.whole[j]) * inner_;
    const V fraction = memory_.fraction[j];
    double sums[sum_lanes] = {};
    for (std::int64_t begin = 0, count; begin < size; begin += count) {
      const std::int64_t first = begin + (plan_.backwards ? memory_.whole[j] : -memory_.whole[j] - 1) * inner_;
      const bool inside = plan_.from != nullptr && 0 <= first && first + inner_ < size;
      count = smaller(size - begin, inside ? size - inner_ - first : smaller(first < 0 ? -first : size, delay_piece));
      const V* const delayed = inside ? plan_.from + place.base + first : take_delayed(place, first, count + inner_);
      const V* const near = delayed + (plan_.backwards ? 0 : inner_);
      const V* const far = delayed + (plan_.backwards ? inner_ : 0);
      V* const to = plan_.to == nullptr ? nullptr : plan_.to + place.base + begin;
      if (to != nullptr) interpolate_shared(to, fraction, near, far, count);
      if (plan_.sums == nullptr) continue;
      const std::int64_t terms = with_terms - begin < count ? with_terms - begin : count;
      for (std::int64_t i = 0; i < terms; i += sum_lanes) {
        const V* const x = plan_.x + place.base + begin;
        add_terms(sums, x + i, near + i, far + i, static_cast<int>(terms - i < sum_lanes ? terms - i : sum_lanes));
      }
    }
    for (int half = plan_.sums == nullptr ? 0 : sum_lanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
    }
    memory_.sums[j] += sums[0];
    for (std::int64_t r = 0; plan_.to != nullptr && plan_.direct != nullptr && r < place.time() && r <= plan_.most; ++r) {
      add_direct(plan_.to + place.at(r), place.direct(r), static_cast<int>(inner_));
    }
  }

  /// Copies elements [first, first + count) of an outer index. Elements before it come from the initial state, those after it are zero.
  const V* take_delayed(const DelayPlace<V>& place, std::int64_t first, std::int64_t count) {
    const std::int64_t size = plan_.from == nullptr ? 0 : place.time() * inner_;
    V* const to = memory_.delayed;
    const std::int64_t before = smaller(first < 0 ? -first : 0, count),
                       after = smaller(size - first < before ? before : size - first, count);
    for (std::int64_t i = 0; i < before; ++i) to[i] = V(0);
    for (std::int64_t i = 0; plan_.before != nullptr && i < before; ++i) {
      const std::int64_t back = -1 - first - i;
      to[i] = plan_.before[place.entry(back / inner_) + inner_ - 1 - back % inner_];
    }
    for (std::int64_t i = before; i < after; ++i) to[i] = plan_.from[place.base + first + i];
    for (std::int64_t i = after; i < count; ++i) to[i] = V(0);
    return to;
  }

  /// Computes the states entry by entry, since the neurons of an entry are contiguous.
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

  static constexpr int sum_lanes = 32;

  const DelayPlan<V>& plan_;
  DelayMemory<V> memory_;
  std::int64_t inner_, first_, outers_ = 0;
  bool together_ = false;
};

template <class V>
void delay_row(const DelayPlan<V>& plan, std::int64_t row, int thread) {
  Arena arena(plan.slots + static_cast<std::size_t>(thread) * plan.slot_bytes);
  if (plan.lanes > 0) {
    DelaySteps<V>(plan, DelayMemory<V>(arena, plan.lanes, kept_steps(shift_stages(plan.most))), row).run();
  } else {
    DelayLines<V>(plan, DelayMemory<V>(arena, plan.outers * plan.layout.inner, 0), row).run();
  }
}

}   // namespace
}   // namespace exodus::cpu
