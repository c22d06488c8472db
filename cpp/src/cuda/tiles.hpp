/// @file
/// Assigns neurons to blocks of threads, and moves a chunk of their time steps between arrays and registers.
///
/// One thread per neuron. If the inner axis is at least as wide as a warp, each thread loads the steps of its own neuron, and the loads of
/// a warp coalesce. If it is narrower (also if time is the last axis), a block loads the steps of whole outer indices in the order of
/// memory and transposes them through shared memory.
#pragma once

#include "format.hpp"

namespace exodus::cuda {

constexpr int block_threads = 128;
/// The widest batch entry that one block processes. With more threads, a thread would not have enough registers.
constexpr int entry_threads = 512;
/// The steps in a chunk. The loads of the next chunk, of this many steps of each array, are in flight while a thread computes the current
/// one. Passes that read more arrays use half_chunk to save registers.
template <class V>
constexpr int whole_chunk = 64 / sizeof(V);
template <class V>
constexpr int half_chunk = 32 / sizeof(V);
constexpr int tile_pitch = block_threads + 1;   // odd, so that a warp that traverses steps or neurons has no bank conflicts

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

/// The assignment of neurons to blocks, and of parameter values to neurons.
struct Groups {
  std::int64_t neurons, count;
  int threads = block_threads;   ///< threads per block
  int lanes;                     ///< neurons that a block processes at a time
  int features = 0;              ///< the width of a batch entry if a block processes whole entries, feature by feature; else 0
  bool tiled;                    ///< whether a block processes whole outer indices, in the order of memory
  Divisor inner, apart;          ///< apart: the distance between neurons of consecutive features of an entry
  Divisor repeats[max_parameters], counts[max_parameters];
  Divisor taps_repeats[2], taps_counts[2];
  std::uint32_t whole_sums = 0;   ///< the parameters, one bit each, whose terms a block sums over all its neurons

  template <class V>
  Groups(const Layout& layout, const Param<V> (&parameters)[max_parameters], const FirRole<V> (&fir)[2], const Recurrence<V>& recurrent)
      : neurons(layout.outer * layout.inner), lanes(block_threads), tiled(layout.inner < warp_threads), inner(layout.inner) {
    if (tiled) lanes = static_cast<int>(block_threads / layout.inner * layout.inner);
    if (0 < recurrent.features && recurrent.features <= entry_threads) {   // one wide entry, or as many narrow ones as fit in a warp
      features = static_cast<int>(recurrent.features), apart = Divisor(recurrent.repeat), tiled = false;
      lanes = features < warp_threads ? warp_threads / features * features : features;
      threads = (lanes + warp_threads - 1) / warp_threads * warp_threads;
    }
    count = (neurons + lanes - 1) / lanes;
    for (int k = 0; k < max_parameters; ++k) {
      if (parameters[k].count > 0) repeats[k] = Divisor(parameters[k].repeat), counts[k] = Divisor(parameters[k].count);
    }
    for (int k = 0; k < 2; ++k) taps_repeats[k] = Divisor(fir[k].taps.repeat), taps_counts[k] = Divisor(fir[k].taps.count);
  }
};

/// The neurons that a block currently processes, and the one of this thread.
struct Place {
  std::int64_t neuron;   ///< the neuron of this thread
  std::int64_t offset;   ///< the offset of its step 0
  std::int64_t begin;    ///< the offset of step 0 of the block's first outer index
  int lanes;             ///< the number of neurons of this block
  bool active;           ///< whether this thread has a neuron
  bool tiled;            ///< as in Groups
};

/// `lane` is this thread's neuron in the block.
EXODUS_DEVICE_SCALAR Place place_of(const Layout& layout, const Groups& groups, std::int64_t group, int lane) {
  const std::int64_t first = group * groups.lanes, left = groups.neurons - first;
  Place place;
  place.tiled = groups.tiled;
  place.lanes = static_cast<int>(left < groups.lanes ? left : groups.lanes);
  place.active = lane < place.lanes;
  place.neuron = first + lane;
  const std::int64_t outer = quotient(place.neuron, groups.inner);
  place.offset = outer * layout.time * layout.inner + (place.neuron - outer * layout.inner);
  place.begin = quotient(first, groups.inner) * layout.time * layout.inner;
  return place;
}

/// The same if a block processes whole batch entries.
EXODUS_DEVICE_SCALAR Place place_of_entries(const Layout& layout, const Groups& groups, std::int64_t group) {
  const std::int64_t left = groups.neurons - group * groups.lanes;
  const int thread = static_cast<int>(threadIdx.x), within = thread / groups.features;
  Place place{};
  place.lanes = static_cast<int>(left < groups.lanes ? left : groups.lanes);
  place.active = thread < place.lanes;
  const std::int64_t entry = group * (groups.lanes / groups.features) + within, turn = quotient(entry, groups.apart);
  // Groups of `apart` entries are interleaved: consecutive neurons in a group belong to consecutive entries.
  place.neuron = turn * groups.features * groups.apart.value + (entry - turn * groups.apart.value) +
                 (thread - within * groups.features) * groups.apart.value;
  const std::int64_t outer = quotient(place.neuron, groups.inner);
  place.offset = outer * layout.time * layout.inner + (place.neuron - outer * layout.inner);
  return place;
}

/// The elements of a range of steps of the block's outer indices. Neighbouring threads access neighbouring elements. The numbers are small
/// enough to divide by a multiplication and a shift.
class TileWalk {
 public:
  EXODUS_DEVICE TileWalk(const Layout& layout, const Place& place, std::int64_t first, int steps)
      : elements(static_cast<unsigned>(place.lanes * steps)),
        begin_(place.begin + first * layout.inner),
        apart_(layout.time * layout.inner),
        inner_(static_cast<unsigned>(layout.inner)),
        run_(static_cast<unsigned>(steps) * inner_),
        by_run_((1u << of_run) / run_ + 1),
        by_inner_((1u << of_inner) / inner_ + 1) {}

  const unsigned elements;

  /// The offset of element k in an array, and in a tile with one row per step and one column per neuron.
  EXODUS_DEVICE std::int64_t in_array(unsigned k) const { return begin_ + outer(k) * apart_ + rest(k); }
  EXODUS_DEVICE int in_tile(unsigned k) const {
    const unsigned step = rest(k) * by_inner_ >> of_inner;
    return static_cast<int>(step * tile_pitch + outer(k) * inner_ + rest(k) - step * inner_);
  }

 private:
  static constexpr unsigned of_run = 20, of_inner = 16, most_run = whole_chunk<float> * (warp_threads - 1);
  static_assert(whole_chunk<float> * block_threads * most_run < 1u << of_run && most_run * warp_threads < 1u << of_inner);
  EXODUS_DEVICE unsigned outer(unsigned k) const { return k * by_run_ >> of_run; }
  EXODUS_DEVICE unsigned rest(unsigned k) const { return k - outer(k) * run_; }

  const std::int64_t begin_, apart_;
  const unsigned inner_, run_, by_run_, by_inner_;
};

/// Arrays of the same layout, any of which may be missing.
template <int Count>
struct Sources {
  Source at[Count];

  /// Source k. It is selected by comparisons, because an array that is indexed by a loop variable would be placed in local memory.
  EXODUS_DEVICE Source pick(int k) const {
    Source picked = at[0];
    EXODUS_UNROLL
    for (int i = 1; i < Count; ++i) {
      picked.data = k == i ? at[i].data : picked.data;
      picked.format = k == i ? at[i].format : picked.format;
    }
    return picked;
  }
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

/// Loads steps of an array into rows of a tile, from `row`.
template <class T, class V>
EXODUS_DEVICE_SCALAR void load_tile(const T* array, const TileWalk& walk, int row, SharedPointer<V> tile) {
  constexpr unsigned ahead = 6;
  for (unsigned first = threadIdx.x; first < walk.elements; first += ahead * block_threads) {
    V bits[ahead];
    EXODUS_UNROLL
    for (unsigned d = 0; d < ahead; ++d) {
      const unsigned k = first + d * block_threads;
      bits[d] = k < walk.elements ? carried<V>(load_once(array + walk.in_array(k))) : V(0);
    }
    EXODUS_UNROLL
    for (unsigned d = 0; d < ahead; ++d) {
      const unsigned k = first + d * block_threads;
      if (k < walk.elements) tile[row * tile_pitch + walk.in_tile(k)] = bits[d];
    }
  }
}

/// values[k][d] = the bits (for decode()) of array k at step first + d of this thread's neuron, for d < steps. All other values, and those
/// of a missing array, are 0. Each thread loads its own neuron.
template <int Count, class V, int D>
EXODUS_DEVICE_SCALAR void load_lanes(const Sources<Count>& sources, const Layout& layout, const Place& place, std::int64_t first, int steps,
                                     V (&values)[Count][D]) {
  const std::int64_t begin = place.offset + first * layout.inner;
  EXODUS_UNROLL
  for (int k = 0; k < Count; ++k) {
    load_lane<V>(sources.at[k], begin, layout.inner, place.active ? steps : 0, values[k]);
  }
}

/// The same, in tiles where those are faster. All threads of a block must call this together.
template <int Count, class V, int D>
EXODUS_DEVICE_SCALAR void load_steps(const Sources<Count>& sources, const Layout& layout, const Place& place, std::int64_t first, int steps,
                                     V (&values)[Count][D], SharedPointer<V> tile) {
  if (place.tiled) {
    const TileWalk walk(layout, place, first, steps);
    __syncthreads();
    for (int k = 0; k < Count; ++k) {
      const Source source = sources.pick(k);
      if (source.data == nullptr) continue;
      if (in_halves<V>(source.format)) {
        load_tile<std::uint16_t, V>(static_cast<const std::uint16_t*>(source.data), walk, k * D, tile);
      } else {
        load_tile<V, V>(static_cast<const V*>(source.data), walk, k * D, tile);
      }
    }
    __syncthreads();
    EXODUS_UNROLL
    for (int k = 0; k < Count; ++k) {
      EXODUS_UNROLL
      for (int d = 0; d < D; ++d) {
        const bool there = sources.at[k].data != nullptr && place.active && d < steps;
        values[k][d] = there ? V(tile[(k * D + d) * tile_pitch + static_cast<int>(threadIdx.x)]) : V(0);
      }
    }
  } else {
    load_lanes(sources, layout, place, first, steps, values);
  }
}

template <class T, class V, int D>
EXODUS_DEVICE_SCALAR void store_lane(T* array, std::int64_t begin, std::int64_t stride, int steps, const V (&bits)[D]) {
  if (steps == D) {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) store_once(array + (begin + d * stride), from_bits<T>(bits[d]));
  } else {
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      if (d < steps) store_once(array + (begin + d * stride), from_bits<T>(bits[d]));
    }
  }
}

/// Stores the bits of steps [first, first + steps). Each thread stores its own neuron.
template <class V, int D>
EXODUS_DEVICE_SCALAR void store_lanes(void* array, Format format, const Layout& layout, const Place& place, std::int64_t first, int steps,
                                      const V (&bits)[D]) {
  const std::int64_t begin = place.offset + first * layout.inner;
  const int there = place.active ? steps : 0;
  if (in_halves<V>(format)) {
    store_lane(static_cast<std::uint16_t*>(array), begin, layout.inner, there, bits);
  } else {
    store_lane(static_cast<V*>(array), begin, layout.inner, there, bits);
  }
}

/// Encodes and stores the values of steps [first, first + steps). Does nothing if the array is missing. All threads of a block must call
/// this together.
template <class V, int D>
EXODUS_DEVICE_SCALAR void store_steps(void* array, Format format, const Layout& layout, const Place& place, std::int64_t first, int steps,
                                      const V (&values)[D], SharedPointer<V> tile) {
  if (array == nullptr) return;
  V bits[D];
  EXODUS_UNROLL
  for (int d = 0; d < D; ++d) bits[d] = values[d];
  encode(format, bits);
  if (place.tiled) {
    __syncthreads();
    EXODUS_UNROLL
    for (int d = 0; d < D; ++d) {
      if (place.active && d < steps) tile[d * tile_pitch + static_cast<int>(threadIdx.x)] = bits[d];
    }
    __syncthreads();
    const TileWalk walk(layout, place, first, steps);
    for (unsigned k = threadIdx.x; k < walk.elements; k += block_threads)
      put_bits(array, format, walk.in_array(k), V(tile[walk.in_tile(k)]));
  } else {
    store_lanes(array, format, layout, place, first, steps, bits);
  }
}

}   // namespace exodus::cuda
