/// @file
/// Rows, the neurons that a thread processes through all of time: their blocks, the locations of their inputs and results in memory, and
/// the data to prefetch.
#pragma once

#include "memory.hpp"
#include "stages.hpp"
#include "store.hpp"

namespace exodus::cpu {
namespace {

template <class V>
constexpr int line_lanes = 64 / sizeof(V);   // a cache line

/// The neurons at places [begin, begin + lanes), divided into blocks.
struct Row {
  std::int64_t begin;
  int lanes;
  Access access;
  std::int64_t strips;        ///< outer indices, of a row of whole ones
  bool in_memory_order;       ///< whether neighbouring lanes are neighbouring neurons
  std::int64_t step_stride;   ///< elements between consecutive steps
  int block_count;
  Block* blocks;

  /// Whether neighbouring lanes have neighbouring places.
  bool places_in_order() const { return access != Access::strips || strips == lanes; }
  bool tiled() const { return access != Access::in_place; }
  /// Whether the next tile is fetched while one is processed.
  bool prefetched() const { return access == Access::strips || access == Access::pieces; }

  /// The place of a lane in the order of rows.
  std::int64_t place(std::int64_t lane) const {
    if (access != Access::strips) return begin + lane;
    return begin + lane % strips * (lanes / strips) + lane / strips;
  }
};

inline std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

/// Cuts a run of contiguous lanes into blocks of equal size, of at most `most` lanes.
void add_run(Row& row, std::int64_t offset, int lane, int lanes, int most) {
  const int pieces = (lanes + most - 1) / most;
  for (int k = 0, done = 0; k < pieces; ++k) {
    const int size = lanes / pieces + (k < lanes % pieces ? 1 : 0);
    row.blocks[row.block_count++] = {offset + done, lane + done, size};
    done += size;
  }
}

std::int64_t lanes_of(const Rows& rows, std::int64_t index) {
  return smaller(rows.lanes, rows.neurons - index * rows.lanes);
}

/// `most`: the most lanes of a block.
Row make_row(const Layout& layout, const Rows& rows, std::int64_t index, Block* blocks, int most) {
  Row row;
  row.begin = index * rows.lanes;
  row.lanes = static_cast<int>(lanes_of(rows, index));
  row.strips = row.lanes / layout.inner;
  const bool transposes = row.strips >= 4 || layout.inner == 1;   // the last row may have fewer, which do not fill the smallest square
  row.access = rows.access == Access::strips && !transposes ? Access::pieces : rows.access;
  row.in_memory_order = rows.repeat == 1 && row.places_in_order();
  row.blocks = blocks;
  row.step_stride = row.tiled() ? row.lanes : layout.inner;
  row.block_count = 0;
  if (row.tiled()) {
    add_run(row, 0, 0, row.lanes, most);
    return row;
  }
  for (int lane = 0; lane < row.lanes;) {
    const std::int64_t outer = (row.begin + lane) / layout.inner, first = (row.begin + lane) % layout.inner;
    const int lanes = static_cast<int>(smaller(layout.inner - first, row.lanes - lane));
    add_run(row, outer * layout.time * layout.inner + first, lane, lanes, most);
    lane += lanes;
  }
  return row;
}

/// The index in an array over time of the element at a step and a place in the order of rows.
EXODUS_SCALAR std::int64_t element_index(const Layout& layout, const Rows& rows, std::int64_t step, std::int64_t place) {
  const std::int64_t neuron = neuron_at(rows, place);
  return (neuron / layout.inner * layout.time + step) * layout.inner + neuron % layout.inner;
}

/// Calls copy(array, tile, count) for each contiguous piece of `steps` steps of the row from `begin` on, in the array's order. A tile has
/// the shape (steps, lanes).
template <class Array, class Tile, class Copy>
EXODUS_SCALAR void for_pieces(Array* array, Tile* tile, const Layout& layout, const Row& row, std::int64_t begin, std::int64_t steps,
                              Copy copy) {
  for (std::int64_t lane = 0; lane < row.lanes;) {
    const std::int64_t outer = (row.begin + lane) / layout.inner, first = (row.begin + lane) % layout.inner;
    const std::int64_t count = smaller(layout.inner - first, row.lanes - lane);
    Array* const piece = array + (outer * layout.time + begin) * layout.inner + first;
    for (std::int64_t n = 0; n < steps; ++n) copy(piece + n * layout.inner, tile + n * row.lanes + lane, count);
    lane += count;
  }
}

/// Strips: the steps of a tile are contiguous in memory for each outer index. Element i of strip o is lane i * strips + o of its step, so a
/// tile is the transpose of strips x (steps * inner) elements.
struct Strips {
  std::int64_t begin;    ///< the first element of the first strip, in the array
  std::int64_t stride;   ///< between neighbouring strips, in elements
  std::int64_t count, length;

  /// Those of steps [first, end).
  Strips(const Layout& layout, const Row& row, std::int64_t first, std::int64_t end)
      : begin(row.begin * layout.time + first * layout.inner),
        stride(layout.time * layout.inner),
        count(row.strips),
        length((end - first) * layout.inner) {}
};

/// Transposes strips into a tile.
template <class V>
void read_strips(const V* array, V* tile, const Strips& strips) {
  transpose(array + strips.begin, strips.stride, tile, strips.count, strips.count, strips.length);
}

/// Transposes a tile into strips.
template <class V>
void write_strips(V* array, const V* tile, const Strips& strips) {
  transpose(tile, strips.count, array + strips.begin, strips.stride, strips.length, strips.count);
}

/// Elements of strips that are converted at a time, as numbers on the stack.
constexpr std::int64_t converted_strips = 16, converted_elements = 64;

/// Calls f(first strip, strips, first element, elements) for the parts that are converted at a time.
template <class F>
EXODUS_SCALAR void for_converted(const Strips& strips, F f) {
  for (std::int64_t o = 0; o < strips.count; o += converted_strips) {
    for (std::int64_t k = 0; k < strips.length; k += converted_elements) {
      f(o, smaller(converted_strips, strips.count - o), k, smaller(converted_elements, strips.length - k));
    }
  }
}

template <class V, class E>
void read_strips(const E* array, V* tile, const Strips& strips) {
  V numbers[converted_strips * converted_elements];
  for_converted(strips, [&](std::int64_t first, std::int64_t count, std::int64_t k, std::int64_t elements) {
    const E* from = array + strips.begin + first * strips.stride + k;
    for (std::int64_t o = 0; o < count; ++o, from += strips.stride) read_lanes(numbers + o * converted_elements, from, elements);
    transpose(numbers, converted_elements, tile + k * strips.count + first, strips.count, count, elements);
  });
}

template <class V, class E>
void write_strips(E* array, const V* tile, const Strips& strips) {
  V numbers[converted_strips * converted_elements];
  for_converted(strips, [&](std::int64_t first, std::int64_t count, std::int64_t k, std::int64_t elements) {
    transpose(tile + k * strips.count + first, strips.count, numbers, converted_elements, elements, count);
    E* to = array + strips.begin + first * strips.stride + k;
    for (std::int64_t o = 0; o < count; ++o, to += strips.stride) write_lanes(to, numbers + o * converted_elements, elements);
  });
}

/// Calls copy(array, tile) for each element of a row whose entries interleave.
template <class Array, class Tile, class Copy>
void for_elements(Array* array, Tile* tile, const Layout& layout, const Rows& rows, const Row& row, std::int64_t begin, std::int64_t end,
                  Copy copy) {
  for (std::int64_t lane = 0; lane < row.lanes; ++lane) {
    Array* const first = array + element_index(layout, rows, begin, row.begin + lane);
    for (std::int64_t n = 0; n < end - begin; ++n) copy(first + n * layout.inner, tile + n * row.lanes + lane);
  }
}

/// Copies steps [begin, end) of a tiled row from an array to a tile.
template <class V, class E>
void load_tile(const E* array, V* tile, const Layout& layout, const Rows& rows, const Row& row, std::int64_t begin, std::int64_t end) {
  if (row.access == Access::strips) return read_strips(array, tile, Strips(layout, row, begin, end));
  if (row.access == Access::elements) {
    return for_elements(array, tile, layout, rows, row, begin, end, [](const E* element, V* place) { *place = number_of<V>(*element); });
  }
  for_pieces(array, tile, layout, row, begin, end - begin,
             [](const E* step, V* line, std::int64_t count) { read_lanes(line, step, count); });
}

/// Copies them back.
template <class V, class E>
void store_tile(E* array, const V* tile, const Layout& layout, const Rows& rows, const Row& row, std::int64_t begin, std::int64_t end) {
  if (row.access == Access::strips) return write_strips(array, tile, Strips(layout, row, begin, end));
  if (row.access == Access::elements) {
    return for_elements(array, tile, layout, rows, row, begin, end, [](E* element, const V* place) { set_element<V>(*element, *place); });
  }
  for_pieces(array, tile, layout, row, begin, end - begin,
             [](E* step, const V* line, std::int64_t count) { write_lanes(step, line, count); });
}

/// The tile after the present one, which is prefetched in shares while that one is processed.
struct NextTile {
  std::int64_t first = 0, outer_stride = 0, run = 0;   ///< elements: where it begins, from an outer index to the next, of each in the tile
  std::int64_t outers = 0, share = 0;                  ///< outer indices: all, and those of a share

  NextTile() = default;
  /// The tile has steps [begin, end). There is a share for each of the present tile's steps.
  NextTile(const Layout& layout, const Row& row, std::int64_t begin, std::int64_t end, std::int64_t shares)
      : first((row.begin / layout.inner * layout.time + begin) * layout.inner),
        outer_stride(layout.time * layout.inner),
        run((end - begin) * layout.inner),
        outers(row.lanes / layout.inner),
        share((outers + shares - 1) / shares) {}
};

/// Prefetches a share of a tile into the second-level cache. Each outer index is contiguous for these steps, but all lie in different
/// pages, where the hardware prefetches nothing. So the next tile is fetched, and its results' memory, while one is processed.
template <class V>
EXODUS_SCALAR void prefetch_tile(const void* array, Format format, const NextTile& tile, std::int64_t share) {
  constexpr int second_level = 2;
  if (array == nullptr) return;
  const std::int64_t bytes = format == Format::arithmetic ? static_cast<std::int64_t>(sizeof(V)) : 2;
  const std::int64_t begin = share * tile.share, end = smaller(begin + tile.share, tile.outers);
  for (std::int64_t o = begin; o < end; ++o) {
    const char* const from = static_cast<const char*>(array) + (tile.first + o * tile.outer_stride) * bytes;
    const auto past_line = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(from) % 64);
    for (std::int64_t at = 0; at < past_line + tile.run * bytes; at += 64) __builtin_prefetch(from + at, 0, second_level);
  }
}

/// An input over time, in place or through a tile, which also converts two-byte numbers. A missing input reads as the same block of zeros
/// at every step.
template <class V>
struct Input {
  const void* array = nullptr;
  V* tile = nullptr;
  Format format = Format::arithmetic;
  const V* now = nullptr;    ///< the start of the current step
  std::int64_t stride = 0;   ///< elements between consecutive steps; 0 if the input is missing
  std::int64_t mask = 0;     ///< for a block's offset: 0 if the input is missing, else all ones

  bool given() const { return mask != 0; }

  /// Makes steps [begin, end) readable and moves to `step`.
  void seek(const Layout& layout, const Rows& rows, const Row& row, std::int64_t begin, std::int64_t end, std::int64_t step,
            const V* zeros) {
    if (array == nullptr) {
      now = zeros;
      return;
    }
    mask = ~std::int64_t{0};
    stride = row.step_stride;
    if (!row.tiled()) {
      now = static_cast<const V*>(array) + step * stride;
      return;
    }
    with_elements<V>(array, format, [&](const auto* elements) { load_tile(elements, tile, layout, rows, row, begin, end); });
    now = tile + (step - begin) * stride;
  }

  const V* operator[](const Block& block) const { return now + (block.offset & mask); }
};

/// A level of the caches.
enum class CacheLevel { first, second };

/// Prefetches a block. The steps of a row are in different pages, and hardware prefetchers do not cross pages. With `down`, the last line
/// is first, for a backward pass that traverses contiguous memory downwards: touching lines upwards there misleads the hardware
/// (benchmarks/bandwidth.py, batch first). Always inlined: GCC drops calls of a function that only prefetches. The compiler wants a
/// constant for the level, hence the two calls.
template <class V>
EXODUS_SCALAR void prefetch(const V* elements, int lanes, bool down, CacheLevel level = CacheLevel::first) {
  const int lines = (lanes + line_lanes<V> - 1) / line_lanes<V>;
  for (int k = 0; k < lines; ++k) {
    const V* const line = elements + (down ? lines - 1 - k : k) * line_lanes<V>;
    if (level == CacheLevel::first) {
      __builtin_prefetch(line, 0, 3);
    } else {
      __builtin_prefetch(line, 0, 2);
    }
  }
}

/// A result over time, in place or through a tile. A missing one is not written.
template <class V>
struct Output {
  void* array = nullptr;
  V* tile = nullptr;
  Format format = Format::arithmetic;
  std::int64_t begin = 0;   ///< the tile's first step

  V* at(const Row& row, std::int64_t step) const {
    if (array == nullptr) return nullptr;
    return (row.tiled() ? tile : static_cast<V*>(array)) + (step - begin) * row.step_stride;
  }

  void flush(const Layout& layout, const Rows& rows, const Row& row, std::int64_t from, std::int64_t to) const {
    if (!row.tiled() || array == nullptr) return;
    with_elements<V>(array, format, [&](auto* elements) { store_tile(elements, tile, layout, rows, row, from, to); });
  }
};

template <class V>
EXODUS_SCALAR void clear(V* lanes, std::int64_t count) {
  __builtin_memset(lanes, 0, static_cast<std::size_t>(count) * sizeof(V));
}

/// Loads lanes of a row, from `lane`, from an array over the neurons.
template <class V>
void load_neurons(V* to, const V* array, const Rows& rows, const Row& row, int lane, int lanes) {
  if (row.in_memory_order) return copy_lanes(to, array + row.begin + lane, lanes);
  for (int i = 0; i < lanes; ++i) to[i] = array[neuron_at(rows, row.place(lane + i))];
}

/// Copies them back.
template <class V>
void store_neurons(V* array, const V* from, const Rows& rows, const Row& row, int lane, int lanes) {
  if (row.in_memory_order) return copy_lanes(array + row.begin + lane, from, lanes);
  for (int i = 0; i < lanes; ++i) array[neuron_at(rows, row.place(lane + i))] = from[i];
}

/// Stores a row's lanes in an array that is in the order of rows.
inline void store_at_places(double* numbers, const double* from, const Row& row) {
  if (row.places_in_order()) return copy_lanes(numbers + row.begin, from, row.lanes);
  for (int i = 0; i < row.lanes; ++i) numbers[row.place(i)] = from[i];
}

/// Copies a row's part of entry k of a state array. An entry has one value per neuron; the state of a FIR kernel has several entries. A
/// missing array reads as zeros.
template <class V>
void copy_entry(V* to, const V* array, std::int64_t k, const Rows& rows, const Row& row) {
  if (array == nullptr) {
    clear(to, row.lanes);
  } else {
    load_neurons(to, array + k * rows.neurons, rows, row, 0, row.lanes);
  }
}

/// Copies it back.
template <class V>
void store_entry(V* array, std::int64_t k, const V* from, const Rows& rows, const Row& row) {
  store_neurons(array + k * rows.neurons, from, rows, row, 0, row.lanes);
}

/// Expands an array of `count` values, each used by `repeat` consecutive neurons, to the neurons of a row.
template <class V>
void expand(V* lanes, const V* values, std::int64_t count, std::int64_t repeat, const Rows& rows, const Row& row) {
  if (!row.in_memory_order) {
    for (int i = 0; i < row.lanes; ++i) lanes[i] = values[neuron_at(rows, row.place(i)) / repeat % count];
    return;
  }
  std::int64_t index = row.begin / repeat % count, used = row.begin % repeat;
  for (int i = 0; i < row.lanes; ++i) {
    lanes[i] = values[index];
    if (++used == repeat) used = 0, index = index + 1 == count ? 0 : index + 1;
  }
}

/// Sets the parameters of a row. An array is read in place if its values are in the order of the row, else it is expanded into `storage`.
template <class V>
void set_parameters(ParameterLanes<V>& parameters, const LaneArrays<V>& storage, const Param<V>* params, int count, const Rows& rows,
                    const Row& row) {
  parameters.all_scalar = true;
  for (int k = 0; k < count; ++k) {
    const Param<V>& p = params[k];
    const std::int64_t period = p.count * p.repeat;
    const bool scalar = p.data == nullptr || p.count == 1;
    parameters.follow[k] = scalar ? 0 : ~0;
    parameters.all_scalar = parameters.all_scalar && scalar;
    parameters.lanes[k] = storage[k];
    if (scalar) {
      const V value = p.data == nullptr ? p.value : p.data[0];
      for (int i = 0; i < block_lanes; ++i) storage[k][i] = value;
    } else if (p.repeat == 1 && row.in_memory_order && row.begin % period + row.lanes <= period) {
      parameters.lanes[k] = p.data + row.begin % period;
    } else {
      expand(storage[k], p.data, p.count, p.repeat, rows, row);
    }
  }
}

/// Sets the prefetch distance of each block: two kilobytes ahead in the order of processing, or four into the second level
/// (benchmarks/bandwidth.py, time first). `direction` is -1 if steps run in reverse; `reversed` means that each step also starts with its
/// last block.
template <class V>
void set_ahead(Ahead* ahead, const Row& row, int direction, bool reversed, CacheLevel level) {
  const int lanes = (level == CacheLevel::first ? 2048 : 4096) / static_cast<int>(sizeof(V));
  const int distance = row.lanes / row.block_count >= lanes ? 1 : lanes / (row.lanes / row.block_count);
  for (int b = 0; b < row.block_count; ++b) {
    const int steps = (b + distance) / row.block_count, other = (b + distance) % row.block_count;
    const Block& block = row.blocks[reversed ? row.block_count - 1 - other : other];
    ahead[b] = {block.offset + direction * steps * row.step_stride, steps, block.lanes};
  }
}

/// Adds partial sums to the sums and clears them.
template <class V>
void move_sums(double* sums, V* partial, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) {
    sums[i] += static_cast<double>(partial[i]);
    partial[i] = V(0);
  }
}

/// Adds a row's partial sums to sums of all neurons, in the order of rows, and clears them.
template <class V>
void move_sums_to_places(double* sums, V* partial, const Row& row) {
  if (row.places_in_order()) return move_sums(sums + row.begin, partial, row.lanes);
  for (int i = 0; i < row.lanes; ++i) {
    sums[row.place(i)] += static_cast<double>(partial[i]);
    partial[i] = V(0);
  }
}

}   // namespace
}   // namespace exodus::cpu
