/// @file
/// Assigns neurons to threads, and moves a chunk of their time steps between arrays and registers.
///
/// One thread per neuron. The inputs of a chunk are copied asynchronously into shared memory, some chunks ahead: by each thread those of
/// its own neuron; or, four elements at once, by the warp those of its neurons, where they lie side by side. If time is the last axis, the
/// warp copies tiles, in the order of memory.
#pragma once

#include "format.hpp"

namespace exodus::cuda {

constexpr int block_threads = 128;
/// The most threads of a block that processes batch entries: in a forward pass without taps, in float, and in others. With more, a thread
/// would not have enough registers.
constexpr int forward_entry_threads = 1024, entry_threads = 512;
/// The widest batch entry that one block of these passes processes. In double, wider ones would leave too little shared memory for an
/// Exchange.
template <class V>
constexpr int widest_entry = sizeof(V) == 4 ? entry_threads : entry_threads - 32;
template <class V>
constexpr int widest_forward_entry = sizeof(V) == 4 ? forward_entry_threads : widest_entry<V>;
constexpr std::int64_t longest_tiled = 1 << 25;   // so that the offsets of a warp's elements are ints
/// The steps in a chunk. Passes that read more arrays use half_chunk to save registers and shared memory.
template <class V>
constexpr int whole_chunk = 64 / sizeof(V);
template <class V>
constexpr int half_chunk = 32 / sizeof(V);

/// If time is the last axis: the steps in a tile, which are 128 bytes of an array of float. A tile has several chunks.
constexpr int tile_steps = 32;
constexpr int tiled_threads = 64;   // threads per block then, so that tiles fit into shared memory

/// How the threads of a kernel access arrays over time.
enum class Access {
  direct,   ///< a thread accesses its neuron's elements, which have the type of the arithmetic; no array is missing
  lanes,    ///< so it does here, but formats and missing arrays are known at run time only
  tiled     ///< time is the last axis, and a warp accesses its neurons' elements in the order of memory; as for lanes
};

/// The shared memory of a block, which it can have on every GPU.
constexpr int shared_bytes = 48 << 10;

/// The steps that are copied together: a chunk, or the chunks of a tile. Tiles of many arrays are shorter, so that two of each fit.
template <Access A, class V>
EXODUS_DEVICE_SCALAR constexpr int stage_steps(int arrays, int chunk) {
  if (A != Access::tiled) return chunk;
  return 2 * arrays * tile_steps * tiled_threads * static_cast<int>(sizeof(V)) <= shared_bytes ? tile_steps : tile_steps / 2;
}

/// The stages in shared memory: the one that is computed, and those whose copies are in flight. As many as fit, up to four, or two of
/// tiles. GPUs that copy synchronously need one besides the one that is computed.
template <Access A, class V>
EXODUS_DEVICE_SCALAR constexpr int stages_of(int arrays, int chunk, int threads) {
  constexpr int least = 2, most = copies_asynchronously && A != Access::tiled ? 4 : least;
  const int fit = shared_bytes / (arrays * stage_steps<A, V>(arrays, chunk) * threads * static_cast<int>(sizeof(V)));
  return fit < least ? least : (fit < most ? fit : most);
}

/// A positive divisor with its inverse. A 64-bit division is a long routine, and a call of it spills registers. The product with the
/// inverse is off by at most one if the quotient and the dividend are below 2^52, as neuron indices are.
struct Divisor {
  std::int64_t value = 1;
  double inverse = 1;

  Divisor() = default;
  explicit Divisor(std::int64_t divisor) : value(divisor), inverse(1.0 / static_cast<double>(divisor)) {}
};

EXODUS_DEVICE_SCALAR std::int64_t quotient(std::int64_t a, const Divisor& b) {
  const std::int64_t near = static_cast<std::int64_t>(static_cast<double>(a) * b.inverse);
  const std::int64_t rest = a - near * b.value;
  return rest < 0 ? near - 1 : (rest >= b.value ? near + 1 : near);
}

/// Whether a pass has neither FIR kernels nor recurrent weights.
template <class V>
bool is_neuron_alone(const FirRole<V> (&fir)[2], const Recurrence<V>& recurrent) {
  return !with_fir(fir) && recurrent.features == 0;
}

/// Whether Access is tiled. Double is for checks, and does not justify the compile time.
template <class V>
bool is_tiled(const Layout& layout, const FirRole<V> (&fir)[2], const Recurrence<V>& recurrent) {
  return std::is_same_v<V, float> && layout.inner == 1 && is_neuron_alone(fir, recurrent) && layout.time <= longest_tiled;
}

/// The steps of a block, by their numbers (see Place): if time is the last axis, whole tiles from 0 to the end of the neuron that starts
/// last.
inline std::int64_t numbered_steps(const Layout& layout, bool tiled) {
  return tiled ? (layout.time + 2 * tile_steps - 2) / tile_steps * tile_steps : layout.time;
}

/// Whether each launch runs a single step, because the entries of a recurrence are wider than `widest`, which a block can just process.
template <class V>
bool launches_each_step(const Recurrence<V>& recurrent, int widest) {
  return recurrent.features > widest;
}

/// The assignment of neurons to blocks, and of parameter values to neurons.
struct Groups {
  std::int64_t neurons, count;
  int threads = block_threads;   ///< threads per block
  int lanes = block_threads;     ///< neurons that a block processes at a time
  int features = 0;              ///< the width of a batch entry if a block processes whole entries, feature by feature; else 0
  bool tiled;                    ///< whether a warp accesses the elements of its neurons in the order of memory
  bool in_rows = false;          ///< whether a warp's neurons lie side by side, and direct access moves four of them at once
  std::int64_t steps;            ///< see numbered_steps()
  Divisor inner, apart;          ///< apart: the distance between neurons of consecutive features of an entry
  Divisor repeats[max_parameters], counts[max_parameters];
  Divisor taps_repeats[2], taps_counts[2];
  std::uint32_t whole_sums = 0;   ///< the parameters, one bit each, whose terms a warp sums over all its neurons

  template <class V>
  Groups(const Layout& layout, const Param<V> (&parameters)[max_parameters], const FirRole<V> (&fir)[2], const Recurrence<V>& recurrent,
         int widest)
      : neurons(layout.outer * layout.inner),
        tiled(is_tiled(layout, fir, recurrent)),
        steps(numbered_steps(layout, tiled)),
        inner(layout.inner) {
    if (recurrent.features > 0 && !launches_each_step(recurrent, widest)) {   // one wide entry, or as many narrow ones as fit in a warp
      features = static_cast<int>(recurrent.features), apart = Divisor(recurrent.repeat);
      lanes = features < warp_threads ? warp_threads / features * features : features;
      threads = (lanes + warp_threads - 1) / warp_threads * warp_threads;
    }
    if (tiled) threads = lanes = tiled_threads;
    count = (neurons + lanes - 1) / lanes;
    for (int k = 0; k < max_parameters; ++k) {
      if (parameters[k].count > 0) repeats[k] = Divisor(parameters[k].repeat), counts[k] = Divisor(parameters[k].count);
    }
    for (int k = 0; k < 2; ++k) taps_repeats[k] = Divisor(fir[k].taps.repeat), taps_counts[k] = Divisor(fir[k].taps.count);
  }

  /// The number of warps that have neurons, unless a block processes whole entries.
  std::int64_t warps() const { return (neurons + warp_threads - 1) / warp_threads; }
};

/// The neuron of a thread, and where the steps of its warp's neurons lie.
///
/// The first step of a neuron has the number `start`. It is not 0 if time is the last axis: then the first number of each tile is that of
/// an element whose index is a multiple of tile_steps. So a tile covers whole lines of memory. A line that is stored in parts may be read,
/// completed and written several times.
struct Place {
  std::int64_t neuron;
  std::int64_t offset;   ///< the offset of the step with number 0
  std::int64_t begin;    ///< if time is the last axis: the offset of the first step of the warp's first neuron
  int start;
  int lanes;      ///< the number of neurons of this warp
  bool active;    ///< whether this thread has a neuron
  bool in_rows;   ///< see Groups
};

/// `lane` is this thread's neuron in the block.
EXODUS_DEVICE_SCALAR Place place_of(const Layout& layout, const Groups& groups, std::int64_t group, int lane) {
  Place place;
  place.neuron = group * groups.lanes + lane;
  const std::int64_t first = place.neuron - lane % warp_threads, left = groups.neurons - first;
  place.lanes = static_cast<int>(left < 0 ? 0 : (left < warp_threads ? left : warp_threads));
  place.active = place.neuron < groups.neurons;
  const std::int64_t outer = quotient(place.neuron, groups.inner);
  place.offset = outer * layout.time * layout.inner + (place.neuron - outer * layout.inner);
  place.begin = first * layout.time;
  place.start = groups.tiled ? static_cast<int>(place.offset & (tile_steps - 1)) : 0;
  place.offset -= place.start;
  place.in_rows = groups.in_rows;
  return place;
}

/// The same if a block processes whole batch entries.
EXODUS_DEVICE_SCALAR Place place_of_entries(const Layout& layout, const Groups& groups, std::int64_t group) {
  const std::int64_t left = groups.neurons - group * groups.lanes;
  const int thread = static_cast<int>(threadIdx.x), within = thread / groups.features;
  Place place{};
  place.active = thread < (left < groups.lanes ? left : groups.lanes);
  const std::int64_t entry = group * (groups.lanes / groups.features) + within, turn = quotient(entry, groups.apart);
  // Groups of `apart` entries are interleaved: consecutive neurons in a group belong to consecutive entries.
  place.neuron = turn * groups.features * groups.apart.value + (entry - turn * groups.apart.value) +
                 (thread - within * groups.features) * groups.apart.value;
  const std::int64_t outer = quotient(place.neuron, groups.inner);
  place.offset = outer * layout.time * layout.inner + (place.neuron - outer * layout.inner);
  return place;
}

/// The place, in shared memory, of the four steps with number `four` in a tile of S steps of the warp's neuron number `lane`. A neuron's
/// steps lie side by side. The exclusive or lets eight threads access four steps of as many neurons, or all steps of some, without bank
/// conflicts.
template <int S>
EXODUS_DEVICE_SCALAR int in_tile(int four, int lane) {
  constexpr int fours = S / 4;
  return lane * S + 4 * (four ^ (lane * fours / 8 & (fours - 1)));
}

/// The elements of S steps of a warp's neurons, shared among its threads in the order of memory: each takes four steps of some neurons.
template <int S>
class Tile {
 public:
  static constexpr int turns = S / 4;   ///< the neurons of a thread

  /// Four steps of a neuron.
  struct FourSteps {
    int turn;          ///< which of the thread's neurons it is
    int number;        ///< counts the first of them from the neuron's first step on; negative before that
    std::int64_t at;   ///< the offset of the first in the array
    int slot;          ///< its place in the tile
    bool in_array;     ///< whether all four are in the array
  };

  /// The tile's steps start with number `first`. (Offsets hoisted out of the loop over tiles would occupy registers throughout.)
  EXODUS_DEVICE Tile(const Layout& layout, const Place& place, std::int64_t first)
      : time_(unforeseen(static_cast<int>(layout.time))),
        lanes_(place.lanes),
        first_(static_cast<int>(first)),
        four_(static_cast<int>(threadIdx.x) % fours),
        lane_(static_cast<int>(threadIdx.x) % warp_threads / fours),
        base_(place.begin) {
    static_assert(warp_threads % tile_steps == 0, "the first neuron of a warp starts with a tile");
    constexpr std::int64_t most = 0x7fffffff;
    const std::int64_t left = layout.outer * layout.time - base_;
    end_ = static_cast<int>(left < most ? left : most);
  }

  /// Whether all steps are the neurons' own.
  EXODUS_DEVICE bool is_whole() const { return lanes_ == warp_threads && first_ >= tile_steps - 1 && first_ + S <= time_; }
  /// Whether the array ends with the warp's last neuron.
  EXODUS_DEVICE bool is_last() const { return end_ <= warp_threads * time_; }

  /// Whether some, or all, of four steps are the neuron's.
  EXODUS_DEVICE bool has_some(const FourSteps& steps) const {
    return static_cast<unsigned>(steps.number + 3) < static_cast<unsigned>(time_ + 3);
  }
  EXODUS_DEVICE bool has_all(const FourSteps& steps) const { return steps.number >= 0 && steps.number + 4 <= time_; }

  /// Calls f(FourSteps) for all of this thread.
  template <class F>
  EXODUS_DEVICE void each(const F& f) const {
    EXODUS_UNROLL
    for (int i = 0; i < turns; ++i) f(steps_of(i));
  }

  /// Calls f(offset, place in the tile) for each of the neuron's own steps among those of which chosen(FourSteps) is true.
  template <class P, class F>
  EXODUS_DEVICE void each_single(const P& chosen, const F& f) const {
    EXODUS_ROLLED
    for (int i = 0; lane_ + i * neurons < lanes_; ++i) {
      const FourSteps steps = steps_of(i);
      if (!chosen(steps)) continue;
      EXODUS_ROLLED
      for (int k = steps.number < 0 ? -steps.number : 0; k < 4 && steps.number + k < time_; ++k) f(steps.at + k, steps.slot + k);
    }
  }

 private:
  static constexpr int fours = S / 4, neurons = warp_threads / fours;

  EXODUS_DEVICE FourSteps steps_of(int i) const {
    const int row = (lane_ + i * neurons) * time_, start = row & (tile_steps - 1), number = first_ + 4 * four_;
    const int offset = row - start + number;
    return {i, number - start, base_ + offset, in_tile<S>(four_, lane_ + i * neurons), offset + 4 <= end_};
  }

  const int time_, lanes_, first_, four_, lane_;
  const std::int64_t base_;   ///< the offset of the warp's first element
  int end_;                   ///< the array's end, from there
};

/// Arrays of the same layout, any of which may be missing.
template <int Count>
struct Sources {
  Source at[Count];
};

/// values[d] = the bits of element begin + d * stride for d < steps, else 0. Full chunks are loaded without a test per step, which would
/// prevent the loads from being issued back to back.
template <class T, class V, int D>
EXODUS_DEVICE_SCALAR void load_lane(const T* array, std::int64_t begin, std::int64_t stride, int steps, V (&values)[D]) {
  if (steps == D) {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) values[d] = carried<V>(load_once(array + (begin + d * stride)));
  } else {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) values[d] = d < steps ? carried<V>(load_once(array + (begin + d * stride))) : V(0);
  }
}

/// The same for a Source; all values are 0 if the array is missing.
template <class V, int D>
EXODUS_DEVICE_SCALAR void load_lane(const Source& source, std::int64_t begin, std::int64_t stride, int steps, V (&values)[D]) {
  const int there = source.data == nullptr ? 0 : steps;
  if (in_halves<V>(source.format)) {
    load_lane(static_cast<const std::uint16_t*>(source.data), begin, stride, there, values);
  } else {
    load_lane(static_cast<const V*>(source.data), begin, stride, there, values);
  }
}

/// values[k][d] = the bits (for decode()) of array k at step first + d of this thread's neuron, for d < steps. All other values, and those
/// of a missing array, are 0. Each thread loads its own neuron.
template <int Count, class V, int D>
EXODUS_DEVICE_SCALAR void load_lanes(const Sources<Count>& sources, const Layout& layout, const Place& place, std::int64_t first, int steps,
                                     V (&values)[Count][D]) {
  EXODUS_UNROLL
  for (int k = 0; k < Count; ++k) {
    load_lane<V>(sources.at[k], place.offset + first * layout.inner, layout.inner, place.active ? steps : 0, values[k]);
  }
}

/// The steps of a chunk that a thread computes: steps lo <= d < hi, or all of them.
struct Span {
  int lo, hi;
  bool whole;

  EXODUS_DEVICE bool has(int d) const { return lo <= d && d < hi; }
};

/// Steps by their numbers, from `begin` on and before `end`.
struct Steps {
  std::int64_t begin, end;

  /// Those in a chunk of D steps that starts at `first`.
  template <int D>
  EXODUS_DEVICE Span in_chunk(std::int64_t first) const {
    if (begin <= first && first + D <= end) return {0, D, true};
    return {within<D>(begin - first), within<D>(end - first), false};
  }

 private:
  template <int D>
  EXODUS_DEVICE static int within(std::int64_t step) {
    return static_cast<int>(step < 0 ? 0 : (step < D ? step : D));
  }
};

/// Stores the bits of a span of steps. Whole chunks are stored without a test per step.
template <class T, class V, int D>
EXODUS_DEVICE_SCALAR void store_lane(T* array, std::int64_t begin, std::int64_t stride, const Span& span, const V (&bits)[D]) {
  if (span.whole) {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) store_once(array + (begin + d * stride), from_bits<T>(bits[d]));
  } else {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      if (span.has(d)) store_once(array + (begin + d * stride), from_bits<T>(bits[d]));
    }
  }
}

/// The same for this thread's neuron, in the chunk that starts at `first`.
template <class V, int D>
EXODUS_DEVICE_SCALAR void store_lanes(void* array, Format format, const Layout& layout, const Place& place, std::int64_t first,
                                      const Span& span, const V (&bits)[D]) {
  const std::int64_t begin = place.offset + first * layout.inner;
  if (in_halves<V>(format)) {
    store_lane(static_cast<std::uint16_t*>(array), begin, layout.inner, span, bits);
  } else {
    store_lane(static_cast<V*>(array), begin, layout.inner, span, bits);
  }
}

/// Chunks of D steps of several arrays, on their way to registers through a ring of `Stages` stages in shared memory. Chunks are taken in
/// order of time, or in reverse order.
///
/// A stage has the steps of a chunk, or with tiled access those of a tile (stage_steps). With `Outputs`, the ring is followed by so many
/// more arrays of a stage, for results. The first array of results takes the place of the first array.
template <Access A, int Count, int D, int Stages, bool Reverse, class V, int Outputs = 0>
class Pipe {
 public:
  static constexpr int steps = stage_steps<A, V>(Count, D);

  /// The elements of shared memory that a warp needs, and the warps of a block.
  static constexpr int warp_elements = (Stages * Count + (A == Access::tiled ? Outputs : 0)) * steps * warp_threads;
  EXODUS_DEVICE static constexpr int elements(int threads) { return warp_elements * (threads / warp_threads); }

  /// `own`: the steps of this thread's neuron that may be read, none if it has none. `warp`: the place of the warp's elements in shared
  /// memory.
  EXODUS_DEVICE Pipe(const Sources<Count>& sources, const Layout& layout, const Place& place, const Steps& own, SharedPointer<V> memory,
                     int warp)
      : sources_(sources),
        layout_(layout),
        place_(place),
        own_(own),
        memory_(memory),
        warp_(warp),
        lane_(static_cast<int>(threadIdx.x) % warp_threads) {}
  EXODUS_DEVICE Pipe(const Sources<Count>& sources, const Layout& layout, const Place& place, const Steps& own, SharedPointer<V> memory)
      : Pipe(sources, layout, place, own, memory, static_cast<int>(threadIdx.x) / warp_threads * warp_elements) {}

  /// Starts to copy the first stages. The first chunk to take will be the one at `first`, which opens a stage. All threads of a warp must
  /// call this together; so with all that follows.
  EXODUS_DEVICE void start(std::int64_t first) {
    for (int k = 0; k < Stages; ++k) ask(stage_of(first) + k * stride, k);
  }

  /// Waits for the chunk at `first`. values[k][d] = the bits (for decode()) of array k at its step d, which is in the span. Other values,
  /// and those of a missing array, are 0.
  EXODUS_DEVICE void take(std::int64_t first, const Span& span, V (&values)[Count][D]) {
    if (opens(first)) {
      __pipeline_wait_prior(Stages - 1);
      if constexpr (A != Access::lanes) __syncwarp();
      taken_ = next(taken_);
    }
    EXODUS_UNROLL
    for (int k = 0; k < Count; ++k) {
      const int stage = place_in(taken_, k), part = part_of(first);
      if (is_missing(sources_.at[k].data)) {
        EXODUS_UNROLL
        for (int d = 0; d < D; ++d) values[k][d] = V(0);
      } else if (!span.whole) {
        EXODUS_UNROLL
        for (int d = 0; d < D; ++d) values[k][d] = span.has(d) ? V(memory_[stage + slot(part + d)]) : V(0);
      } else if constexpr (A == Access::tiled) {
        EXODUS_UNROLL
        for (int d = 0; d < D; d += 4) {
          const Four<V> four = load_shared_four<V>(memory_, stage + slot(part + d));
          EXODUS_UNROLL
          for (int i = 0; i < 4; ++i) values[k][d + i] = four.at[i];
        }
      } else {
        EXODUS_UNROLL
        for (int d = 0; d < D; ++d) values[k][d] = memory_[stage + slot(part + d)];
      }
    }
  }

  /// Waits for the chunk after the one at `first`, where chunks are taken in reverse, and returns array 0's value at its last step.
  EXODUS_DEVICE V sooner(std::int64_t first) const {
    int stage = taken_, step = part_of(first) - 1;
    if (closes(first)) {
      __pipeline_wait_prior(Stages - 2);
      if constexpr (A != Access::lanes) __syncwarp();
      stage = next(taken_), step = steps - 1;
    }
    const bool there = !is_missing(sources_.at[0].data) && own_.begin < first && first <= own_.end;
    return there ? V(memory_[place_in(stage, 0) + slot(step)]) : V(0);
  }

  /// Encodes and stores the values of the taken chunk, which starts at `first`, as array number Output of the results. Does nothing if the
  /// array is missing.
  template <int Output>
  EXODUS_DEVICE void store(void* array, Format format, std::int64_t first, const Span& span, const V (&values)[D]) {
    if (is_missing(array)) return;
    V bits[D];
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) bits[d] = values[d];
    if constexpr (A != Access::direct) encode(format, bits);
    if constexpr (A == Access::tiled) {
      const int stage = Output == 0 ? place_in(taken_, 0) : place_in(Stages, Output - 1), part = part_of(first);
      EXODUS_UNROLL
      for (int d = 0; d < D; d += 4)
        store_shared_four<V>(memory_, stage + slot(part + d), {{bits[d], bits[d + 1], bits[d + 2], bits[d + 3]}});
      if (!closes(first)) return;
      __syncwarp();
      if (in_halves<V>(format)) {
        store_tile(static_cast<std::uint16_t*>(array), stage_of(first), stage);
      } else {
        store_tile(static_cast<V*>(array), stage_of(first), stage);
      }
    } else if constexpr (A == Access::direct) {
      if (place_.in_rows) return store_rows(static_cast<V*>(array), first, bits);
      store_lanes(array, Format::arithmetic, layout_, place_, first, span, bits);
    } else {
      store_lanes(array, format, layout_, place_, first, span, bits);
    }
  }

  /// Ends the use of the chunk at `first`, and starts to copy what comes after the stages that are under way.
  EXODUS_DEVICE void release(std::int64_t first) {
    if (closes(first)) ask(stage_of(first) + Stages * stride, taken_);
  }

  /// The place of the warp's elements in shared memory.
  EXODUS_DEVICE int base() const { return warp_; }

 private:
  static constexpr int array_elements = steps * warp_threads;
  static constexpr int stride = Reverse ? -steps : steps;

  EXODUS_DEVICE static int next(int stage) { return stage + 1 == Stages ? 0 : stage + 1; }

  /// The first step of a step's stage, and a step's number in its stage.
  EXODUS_DEVICE static std::int64_t stage_of(std::int64_t step) { return steps == D ? step : step & ~std::int64_t{steps - 1}; }
  EXODUS_DEVICE static int part_of(std::int64_t step) { return A != Access::tiled ? 0 : static_cast<int>(step) & (steps - 1); }
  /// Whether a chunk is the first, or the last, of its stage that is taken.
  EXODUS_DEVICE static bool opens(std::int64_t first) { return steps == D || part_of(first) == (Reverse ? steps - D : 0); }
  EXODUS_DEVICE static bool closes(std::int64_t first) { return steps == D || part_of(first) == (Reverse ? 0 : steps - D); }

  EXODUS_DEVICE static bool is_missing(const void* array) { return A != Access::direct && array == nullptr; }

  EXODUS_DEVICE int place_in(int stage, int array) const { return warp_ + (stage * Count + array) * array_elements; }
  EXODUS_DEVICE int slot(int step) const {
    return A == Access::tiled ? in_tile<steps>(step / 4, lane_) + step % 4 : step * warp_threads + lane_;
  }

  /// Starts to copy what begins with step `first`, which may be before the first step or after the last one.
  EXODUS_DEVICE void ask(std::int64_t first, int to) {
    if constexpr (A != Access::lanes) __syncwarp();   // all threads have read the stage that is overwritten, and the last results
    EXODUS_UNROLL
    for (int k = 0; k < Count; ++k) {
      const Source& source = sources_.at[k];
      if (is_missing(source.data) || first < 0) continue;
      const int stage = place_in(to, k);
      if (A != Access::direct && in_halves<V>(source.format)) {
        copy_halves(static_cast<const std::uint16_t*>(source.data), first, stage);
      } else {
        copy(static_cast<const V*>(source.data), first, stage);
      }
    }
    __pipeline_commit();
  }

  EXODUS_DEVICE void copy(const V* array, std::int64_t first, int stage) {
    if constexpr (A == Access::tiled) return copy_tile(array, first, stage);
    if constexpr (A == Access::direct) {
      if (place_.in_rows) return copy_rows(array, first, stage);
    }
    const V* const from = array + (place_.offset + first * layout_.inner);
    const Span span = own_.template in_chunk<D>(first);
    if (span.whole) {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) __pipeline_memcpy_async(&memory_[stage + d * warp_threads + lane_], from + d * layout_.inner, sizeof(V));
    } else {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) {
        if (span.has(d)) __pipeline_memcpy_async(&memory_[stage + d * warp_threads + lane_], from + d * layout_.inner, sizeof(V));
      }
    }
  }

  /// In rows, a step belongs to a quarter of a warp's threads, and four of its neurons to each of them.
  static constexpr int row_threads = warp_threads / 4;
  EXODUS_DEVICE std::int64_t in_rows(std::int64_t first) const {
    return place_.offset - lane_ + (first + lane_ / row_threads) * layout_.inner + lane_ % row_threads * 4;
  }

  EXODUS_DEVICE void copy_rows(const V* array, std::int64_t first, int stage) {
    const V* const from = array + in_rows(first);
    const bool whole = first + D <= own_.end;
    EXODUS_UNROLL
    for (int d = 0; d < D; d += 4) {
      if (whole || first + d + lane_ / row_threads < own_.end) {
        __pipeline_memcpy_async(&memory_[stage + d * warp_threads + lane_ * 4], from + d * layout_.inner, 4 * sizeof(V));
      }
    }
  }

  EXODUS_DEVICE void store_rows(V* array, std::int64_t first, const V (&values)[D]) {
    const int stage = place_in(taken_, 0);
    __syncwarp();   // all threads have read what is overwritten
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) memory_[stage + slot(d)] = values[d];
    __syncwarp();
    V* const to = array + in_rows(first);
    const bool whole = first + D <= own_.end;
    EXODUS_UNROLL
    for (int d = 0; d < D; d += 4) {
      if (whole || first + d + lane_ / row_threads < own_.end) {
        store_four_once(to + d * layout_.inner, load_shared_four<V>(memory_, stage + d * warp_threads + lane_ * 4));
      }
    }
  }

  using OwnTile = Tile<steps>;
  using FourSteps = typename OwnTile::FourSteps;

  EXODUS_DEVICE void copy_tile(const V* array, std::int64_t first, int stage) {
    const OwnTile tile(layout_, place_, first);
    const bool aligned = in_fours(array);
    if (aligned) {
      tile.each([&](const FourSteps& at) EXODUS_INLINE {
        if (at.in_array && tile.has_some(at)) __pipeline_memcpy_async(&memory_[stage + at.slot], array + at.at, 4 * sizeof(V));
      });
    }
    if (aligned && !tile.is_last()) return;
    tile.each_single([&](const FourSteps& at) { return !aligned || !at.in_array; },
                     [&](std::int64_t at, int slot) { __pipeline_memcpy_async(&memory_[stage + slot], array + at, sizeof(V)); });
  }

  EXODUS_DEVICE void copy_halves_of_tile(const std::uint16_t* array, std::int64_t first, int stage) {
    const OwnTile tile(layout_, place_, first);
    const bool aligned = in_fours(array);
    const auto is_loaded = [&](const FourSteps& at) EXODUS_INLINE { return at.in_array && tile.has_some(at); };
    if (aligned) {
      Four<std::uint16_t> loaded[OwnTile::turns];
      tile.each([&](const FourSteps& at) EXODUS_INLINE {
        if (is_loaded(at)) loaded[at.turn] = load_four(array + at.at);
      });
      tile.each([&](const FourSteps& at) EXODUS_INLINE {
        const Four<std::uint16_t>& four = loaded[at.turn];
        if (!is_loaded(at)) return;
        store_shared_four<V>(memory_, stage + at.slot,
                             {{carried<V>(four.at[0]), carried<V>(four.at[1]), carried<V>(four.at[2]), carried<V>(four.at[3])}});
      });
    }
    if (aligned && !tile.is_last()) return;
    tile.each_single([&](const FourSteps& at) { return !aligned || !at.in_array; },
                     [&](std::int64_t at, int slot) { memory_[stage + slot] = carried<V>(load_once(array + at)); });
  }

  template <class T>
  EXODUS_DEVICE void store_tile(T* array, std::int64_t first, int stage) {
    const OwnTile tile(layout_, place_, first);
    const bool aligned = in_fours(array);
    if (aligned) {
      tile.each([&](const FourSteps& at) EXODUS_INLINE {
        const Four<V> bits = load_shared_four<V>(memory_, stage + at.slot);
        const Four<T> four{{from_bits<T>(bits.at[0]), from_bits<T>(bits.at[1]), from_bits<T>(bits.at[2]), from_bits<T>(bits.at[3])}};
        store_four(at.in_array && tile.has_all(at), array + at.at, four);
      });
    }
    if (aligned && tile.is_whole()) return;
    tile.each_single([&](const FourSteps& at) { return !aligned || !at.in_array || !tile.has_all(at); },
                     [&](std::int64_t at, int slot) { array[at] = from_bits<T>(V(memory_[stage + slot])); });
  }

  /// Two bytes are too few for an asynchronous copy.
  EXODUS_DEVICE void copy_halves(const std::uint16_t* array, std::int64_t first, int stage) {
    if constexpr (A == Access::tiled) return copy_halves_of_tile(array, first, stage);
    const std::int64_t from = place_.offset + first * layout_.inner;
    const Span span = own_.template in_chunk<D>(first);
    V bits[D];
    if (span.whole) {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) bits[d] = carried<V>(load_once(array + (from + d * layout_.inner)));
    } else {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) bits[d] = span.has(d) ? carried<V>(load_once(array + (from + d * layout_.inner))) : V(0);
    }
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) memory_[stage + d * warp_threads + lane_] = bits[d];
  }

  const Sources<Count>& sources_;
  const Layout& layout_;
  const Place& place_;
  const Steps own_;
  SharedPointer<V> memory_;
  const int warp_, lane_;
  int taken_ = Stages - 1;   ///< the stage that is computed
};

}   // namespace exodus::cuda
