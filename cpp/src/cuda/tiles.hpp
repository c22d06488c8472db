/// @file
/// Assigns neurons to threads, and moves a chunk of their time steps between arrays and registers.
///
/// One thread per neuron. The inputs of a chunk are copied asynchronously into shared memory, some chunks ahead. Each thread copies the
/// steps of its own neuron, and the copies of a warp coalesce, unless time is the last axis. Then a warp copies the steps of its neurons in
/// the order of memory, and transposes them in shared memory.
#pragma once

#include "format.hpp"

namespace exodus::cuda {

constexpr int block_threads = 128;
/// The widest batch entry that one block processes. With more threads, a thread would not have enough registers.
constexpr int entry_threads = 512;
constexpr std::int64_t longest_tiled = 1 << 30;   // so that the number of a step is an int
/// The steps in a chunk. Passes that read more arrays use half_chunk to save registers and shared memory.
template <class V>
constexpr int whole_chunk = 64 / sizeof(V);
template <class V>
constexpr int half_chunk = 32 / sizeof(V);

/// The chunks in shared memory: the one that is computed, and those whose copies are in flight. As many as fit into what a block can have
/// on every GPU, up to four. GPUs that copy synchronously need one besides the one that is computed.
template <class V>
EXODUS_DEVICE_SCALAR constexpr int stages_of(int arrays, int chunk, int threads) {
  constexpr int shared_bytes = 48 << 10, least = 2, most = copies_asynchronously ? 4 : least;
  const int fit = shared_bytes / (arrays * chunk * threads * static_cast<int>(sizeof(V)));
  return fit < least ? least : (fit < most ? fit : most);
}

/// How the threads of a kernel access arrays over time.
enum class Access {
  direct,   ///< a thread accesses its neuron's elements, which have the type of the arithmetic; no array is missing
  lanes,    ///< so it does here, but formats and missing arrays are known at run time only
  tiled     ///< time is the last axis, and a warp accesses its neurons' elements in the order of memory; as for lanes
};

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

/// Whether Access is tiled. `stepped`: with FIR kernels or recurrent weights. Double is for checks, and does not justify the compile time.
template <class V>
bool is_tiled(const Layout& layout, bool stepped) {
  return std::is_same_v<V, float> && layout.inner == 1 && !stepped && layout.time <= longest_tiled;
}

/// The greatest Place::start.
template <class V>
int latest_start(const Layout& layout, bool stepped) {
  return is_tiled<V>(layout, stepped) ? whole_chunk<V> - 1 : 0;
}

/// The assignment of neurons to blocks, and of parameter values to neurons.
struct Groups {
  std::int64_t neurons, count;
  int threads = block_threads;   ///< threads per block
  int lanes = block_threads;     ///< neurons that a block processes at a time
  int features = 0;              ///< the width of a batch entry if a block processes whole entries, feature by feature; else 0
  bool tiled;                    ///< whether a warp accesses the elements of its neurons in the order of memory
  int latest_start;              ///< the greatest Place::start
  Divisor inner, apart;          ///< apart: the distance between neurons of consecutive features of an entry
  Divisor repeats[max_parameters], counts[max_parameters];
  Divisor taps_repeats[2], taps_counts[2];
  std::uint32_t whole_sums = 0;   ///< the parameters, one bit each, whose terms a warp sums over all its neurons

  template <class V>
  Groups(const Layout& layout, const Param<V> (&parameters)[max_parameters], const FirRole<V> (&fir)[2], const Recurrence<V>& recurrent)
      : neurons(layout.outer * layout.inner),
        tiled(is_tiled<V>(layout, with_fir(fir) || recurrent.features > 0)),
        latest_start(exodus::cuda::latest_start<V>(layout, !tiled)),
        inner(layout.inner) {
    if (0 < recurrent.features && recurrent.features <= entry_threads) {   // one wide entry, or as many narrow ones as fit in a warp
      features = static_cast<int>(recurrent.features), apart = Divisor(recurrent.repeat);
      lanes = features < warp_threads ? warp_threads / features * features : features;
      threads = (lanes + warp_threads - 1) / warp_threads * warp_threads;
    }
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
/// The first step of a neuron has the number `start`. It is not 0 if time is the last axis: then the first number of each chunk is that of
/// an element whose index is a multiple of the chunk's length. So a chunk covers whole sectors of memory. A sector that is stored in parts
/// may be read, completed and written several times.
struct Place {
  std::int64_t neuron;
  std::int64_t offset;   ///< the offset of the step with number 0
  std::int64_t begin;    ///< if time is the last axis: the offset of the first step of the warp's first neuron
  int start;
  int lanes;     ///< the number of neurons of this warp
  bool active;   ///< whether this thread has a neuron
};

/// `lane` is this thread's neuron in the block.
template <class V>
EXODUS_DEVICE_SCALAR Place place_of(const Layout& layout, const Groups& groups, std::int64_t group, int lane) {
  Place place;
  place.neuron = group * groups.lanes + lane;
  const std::int64_t first = place.neuron - lane % warp_threads, left = groups.neurons - first;
  place.lanes = static_cast<int>(left < 0 ? 0 : (left < warp_threads ? left : warp_threads));
  place.active = place.neuron < groups.neurons;
  const std::int64_t outer = quotient(place.neuron, groups.inner);
  place.offset = outer * layout.time * layout.inner + (place.neuron - outer * layout.inner);
  place.begin = first * layout.time;
  place.start = groups.latest_start > 0 ? static_cast<int>(place.offset & (whole_chunk<V> - 1)) : 0;
  place.offset -= place.start;
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

/// The place, in a chunk's shared memory, of a step of the warp's neuron number `lane`. The exclusive or lets a warp access a step of its
/// neurons, and some steps of a few neurons, without bank conflicts.
template <int D>
EXODUS_DEVICE_SCALAR int in_tile(int step, int lane) {
  return step * warp_threads + (lane ^ (step * (warp_threads / D) & (warp_threads - 1)));
}

/// The elements of D steps of a warp's neurons, shared among its threads in the order of memory: 32 / D neurons at a time.
template <class V, int D>
class Tile {
 public:
  static constexpr int batch = D < 16 ? 2 : 4;

  EXODUS_DEVICE Tile(const Layout& layout, const Place& place, std::int64_t first)
      : layout_(layout),
        place_(place),
        lane_(static_cast<int>(threadIdx.x) % warp_threads),
        step_(lane_ % D),
        number_(static_cast<int>(first) + step_) {}

  /// Calls load(i, offset in the array) for some elements of this thread, then store(i, offset, place in the tile) for the same, and so on.
  /// Thus several loads are in flight. i is less than `batch`.
  template <class F, class G>
  EXODUS_DEVICE void each(const F& load, const G& store) const {
    constexpr int neurons = warp_threads / D, aligned = whole_chunk<V>;
    std::int64_t row = place_.begin + lane_ / D * layout_.time;
    EXODUS_ROLLED
    for (int lane = lane_ / D; lane < warp_threads; lane += batch * neurons) {
      std::int64_t at[batch];
      bool there[batch];
      EXODUS_UNROLL
      for (int i = 0; i < batch; ++i) {
        const unsigned since_start = static_cast<unsigned>(number_ - static_cast<int>(row & (aligned - 1)));
        at[i] = (row & ~std::int64_t{aligned - 1}) + number_;
        there[i] = since_start < static_cast<unsigned>(layout_.time) && lane + i * neurons < place_.lanes;
        if (there[i]) load(i, at[i]);
        row += neurons * layout_.time;
      }
      EXODUS_UNROLL
      for (int i = 0; i < batch; ++i) {
        if (there[i]) store(i, at[i], in_tile<D>(step_, lane + i * neurons));
      }
    }
  }

 private:
  const Layout& layout_;
  const Place& place_;
  const int lane_, step_, number_;
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
template <Access A, int Count, class V, int D>
EXODUS_DEVICE_SCALAR void load_lanes(const Sources<Count>& sources, const Layout& layout, const Place& place, std::int64_t first, int steps,
                                     V (&values)[Count][D]) {
  const std::int64_t begin = place.offset + first * layout.inner;
  EXODUS_UNROLL
  for (int k = 0; k < Count; ++k) {
    const int there = place.active && sources.at[k].data != nullptr ? steps : 0;
    if constexpr (A == Access::direct) {
      load_lane(static_cast<const V*>(sources.at[k].data), begin, layout.inner, there, values[k]);
    } else {
      load_lane<V>(sources.at[k], begin, layout.inner, there, values[k]);
    }
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

/// Chunks of D steps of several arrays, on their way to registers through a ring of `Stages` chunks in shared memory.
template <Access A, int Count, int D, int Stages, class V>
class Pipe {
 public:
  /// The elements of shared memory that the warps of a block need.
  EXODUS_DEVICE static constexpr int elements(int threads) { return Stages * stage_elements * (threads / warp_threads); }

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
      : Pipe(sources, layout, place, own, memory, static_cast<int>(threadIdx.x) / warp_threads * (Stages * stage_elements)) {}

  /// Starts to copy the chunk at `first`, which may be before the first step or after the last one. All threads of a warp must call this
  /// together; so with take(), sooner() and store().
  EXODUS_DEVICE void ask(std::int64_t first) {
    if constexpr (A == Access::tiled) __syncwarp();   // all threads have read the chunk that is overwritten
    EXODUS_UNROLL
    for (int k = 0; k < Count; ++k) {
      const Source& source = sources_.at[k];
      if (is_missing(source.data) || first < 0) continue;
      const int stage = warp_ + asked_ * stage_elements + k * (D * warp_threads);
      if (A != Access::direct && in_halves<V>(source.format)) {
        copy_halves(static_cast<const std::uint16_t*>(source.data), first, stage);
      } else {
        copy(static_cast<const V*>(source.data), first, stage);
      }
    }
    __pipeline_commit();
    asked_ = next(asked_);
  }

  /// Waits for the chunk that was asked for first of those that have not been taken. values[k][d] = the bits (for decode()) of array k at
  /// its step d, which is in the span. Other values, and those of a missing array, are 0.
  EXODUS_DEVICE void take(const Span& span, V (&values)[Count][D]) {
    __pipeline_wait_prior(Stages - 1);
    if constexpr (A == Access::tiled) __syncwarp();
    taken_ = ahead_, ahead_ = next(ahead_);
    EXODUS_UNROLL
    for (int k = 0; k < Count; ++k) {
      const int stage = warp_ + taken_ * stage_elements + k * (D * warp_threads);
      if (is_missing(sources_.at[k].data)) {
        EXODUS_UNROLL
        for (int d = 0; d < D; ++d) values[k][d] = V(0);
      } else if (!span.whole) {
        EXODUS_UNROLL
        for (int d = 0; d < D; ++d) values[k][d] = span.has(d) ? V(memory_[stage + slot(d)]) : V(0);
      } else {
        EXODUS_UNROLL
        for (int d = 0; d < D; ++d) values[k][d] = memory_[stage + slot(d)];
      }
    }
  }

  /// Waits for the chunk after the taken one, whose last step is `step`, and returns array 0's value there.
  EXODUS_DEVICE V sooner(std::int64_t step) const {
    __pipeline_wait_prior(Stages - 2);
    if constexpr (A == Access::tiled) __syncwarp();
    const bool there = !is_missing(sources_.at[0].data) && own_.begin <= step && step < own_.end;
    return there ? V(memory_[warp_ + ahead_ * stage_elements + slot(D - 1)]) : V(0);
  }

  /// Encodes and stores the values of the taken chunk, which starts at `first`. Does nothing if the array is missing.
  EXODUS_DEVICE void store(void* array, Format format, std::int64_t first, const Span& span, const V (&values)[D]) {
    if (is_missing(array)) return;
    V bits[D];
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) bits[d] = values[d];
    if constexpr (A != Access::direct) encode(format, bits);
    if constexpr (A == Access::tiled) {
      const int stage = spare();
      __syncwarp();
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) memory_[stage + in_tile<D>(d, lane_)] = bits[d];
      __syncwarp();
      if (in_halves<V>(format)) {
        store_tile(static_cast<std::uint16_t*>(array), first, stage);
      } else {
        store_tile(static_cast<V*>(array), first, stage);
      }
    } else {
      store_lanes(array, A == Access::direct ? Format::arithmetic : format, layout_, place_, first, span, bits);
    }
  }

  /// The place of the taken chunk in shared memory, of Count x D x 32 elements. It is not in use between take() and store().
  EXODUS_DEVICE int spare() const { return warp_ + taken_ * stage_elements; }

 private:
  static constexpr int stage_elements = Count * D * warp_threads;

  EXODUS_DEVICE static int next(int stage) { return stage + 1 == Stages ? 0 : stage + 1; }

  EXODUS_DEVICE static bool is_missing(const void* array) { return A != Access::direct && array == nullptr; }

  EXODUS_DEVICE int slot(int step) const { return A == Access::tiled ? in_tile<D>(step, lane_) : step * warp_threads + lane_; }

  EXODUS_DEVICE void copy(const V* array, std::int64_t first, int stage) {
    if constexpr (A == Access::tiled) {
      Tile<V, D>(layout_, place_, first)
          .each([](int, std::int64_t) {},
                [&](int, std::int64_t at, int slot) { __pipeline_memcpy_async(&memory_[stage + slot], array + at, sizeof(V)); });
      return;
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

  template <class T>
  EXODUS_DEVICE void store_tile(T* array, std::int64_t first, int stage) const {
    Tile<V, D>(layout_, place_, first)
        .each([](int, std::int64_t) {}, [&](int, std::int64_t at, int slot) { array[at] = from_bits<T>(V(memory_[stage + slot])); });
  }

  /// Two bytes are too few for an asynchronous copy.
  EXODUS_DEVICE void copy_halves(const std::uint16_t* array, std::int64_t first, int stage) {
    if constexpr (A == Access::tiled) {
      V bits[Tile<V, D>::batch];
      Tile<V, D>(layout_, place_, first)
          .each([&](int i, std::int64_t at) { bits[i] = carried<V>(load_once(array + at)); },
                [&](int i, std::int64_t, int slot) { memory_[stage + slot] = bits[i]; });
      return;
    }
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
  int asked_ = 0, taken_ = 0, ahead_ = 0;
};

}   // namespace exodus::cuda
