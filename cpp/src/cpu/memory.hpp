/// @file
/// The working memory of a row: each thread has a slot of the workspace. No array as large as a row is on the stack, which belongs to the
/// caller and may be small.
#pragma once

#include "../arena.hpp"
#include "plan.hpp"
#include "simd.hpp"

namespace exodus::cpu {
namespace {   // a copy for each instruction set

using Arena = exodus::Arena<64>;   // pieces begin on a cache line

/// Contiguous neurons of a row, at most `block_lanes`, that a stage processes at a time.
struct Block {
  std::int64_t offset;   ///< the offset of its first element at step 0, in the array or tile
  int lane, lanes;
};

/// The part of an input to prefetch while a stage processes a block: a block that is processed later, in the same step or in another.
struct Ahead {
  std::int64_t offset;   ///< the offset from the start of the current step, in an array used in place
  int steps, lanes;
};

/// The blocks of a row.
struct BlockMemory {
  Block* blocks;
  Ahead* ahead;

  /// Runs of lanes have at least `narrow_lanes`, except for the first and the last.
  BlockMemory(Arena& arena, std::int64_t lanes) {
    const std::int64_t most = lanes / summing_block_lanes + lanes / narrow_lanes + 3;
    blocks = arena.take<Block>(most);
    ahead = arena.take<Ahead>(most);
  }
};

constexpr int max_fir_steps = 8;           // steps whose FIR outputs are summed together
constexpr int max_transposed_steps = 16;   // steps whose pending sums are transposed to lanes together

/// The stride between the lanes of consecutive steps in this memory: whole bands, plus one cache line. A power-of-two stride would map all
/// steps to a few sets of the first-level cache.
template <class V>
std::int64_t lane_stride(std::int64_t lanes) {
  constexpr std::int64_t line = 64 / sizeof(V), band = band_vectors * line;
  return (lanes + band - 1) / band * band + line;
}

/// Arrays over a row's lanes.
template <class X>
struct LaneArrays {
  X* first = nullptr;
  std::int64_t stride = 0;
  X* operator[](std::int64_t k) const { return first + k * stride; }
};

/// Neighbouring arrays are offset by a block within their pages. At equal offsets a load from one array would wait for stores to the other
/// (4K aliasing).
template <class V, class X = V>
LaneArrays<X> take_lanes(Arena& arena, std::int64_t arrays, std::int64_t lanes) {
  const std::int64_t stride = lane_stride<V>(lanes < block_lanes ? block_lanes : lanes) + block_lanes;
  return {arena.take<X>(arrays * stride), stride};
}

/// The number of elements of a kernel's taps as lanes; one per tap if all neurons share them.
template <class V>
std::int64_t taps_memory(const Taps<V>& taps, std::int64_t stride) {
  return taps.length * (taps.count == 1 ? 1 : stride);
}

/// Memory for FIR kernels, forward. The current's kernel has its taps as lanes, the inputs of a segment and the K-1 before it, and the
/// outputs of a group of steps. The spikes' kernel has each neuron's taps, tap 0 as lanes too, a ring buffer of pending contributions for
/// each neuron, the sums of a group of steps as lanes, and the feedback of one step.
template <class V>
struct FirForwardMemory {
  V* taps = nullptr;
  V* inputs = nullptr;
  std::int64_t inputs_size = 0;
  V* filtered = nullptr;
  V* spike_taps = nullptr;
  std::int64_t spike_taps_step = 0;
  V* newest_tap = nullptr;
  V* scratch = nullptr;   ///< lanes, used while the rest is filled
  V* pending = nullptr;
  std::int64_t ring_steps = 0;
  V* sums = nullptr;
  V* feedback = nullptr;

  FirForwardMemory(Arena& arena, const FirRole<V>* roles, std::int64_t lanes, std::int64_t segment_steps) {
    const std::int64_t stride = lane_stride<V>(lanes);
    if (const Taps<V>& of_current = roles[0].taps; of_current.length > 0) {
      taps = arena.take<V>(taps_memory(of_current, stride));
      inputs_size = (of_current.length - 1 + segment_steps) * stride;
      inputs = arena.take<V>(inputs_size);
      filtered = arena.take<V>(max_fir_steps * stride);
    }
    if (const Taps<V>& of_spikes = roles[1].taps; of_spikes.length > 0) {
      constexpr std::int64_t line = 64 / sizeof(V);
      const std::int64_t lines = (of_spikes.length + line - 1) / line;
      // Zeros follow the taps: they are read in whole vectors that begin at any tap.
      spike_taps_step = lines * line + max_transposed_steps;
      spike_taps = arena.take<V>(spike_taps_step * (of_spikes.count == 1 ? 1 : lanes));
      // An odd number of cache lines: a stride of a power of two would map all neurons to a few sets of the first-level cache.
      ring_steps = ((lines + max_transposed_steps / line) | 1) * line;
      newest_tap = arena.take<V>(stride);
      scratch = arena.take<V>(stride);
      pending = arena.take<V>(ring_steps * lanes);
      sums = arena.take<V>(2 * max_transposed_steps * stride);
      feedback = arena.take<V>(stride);
    }
  }
};

/// Memory for FIR kernels, backward: taps as lanes; lam of a segment and of the K steps after it; the gradients that a group of steps
/// gathers from it, or for BPTT those scattered so far to a segment and the K steps before it; a group's inputs; sums of the taps'
/// gradients; the gradient of the spikes before step 0.
template <class V>
struct FirBackwardMemory {
  V* taps[2] = {};
  V* lam = nullptr;
  std::int64_t lam_size = 0;
  V* gathered[2] = {};
  V* scattered[2] = {};
  std::int64_t scattered_size[2] = {};
  V* inputs[2] = {};
  V* partial[2] = {};
  V* grad_last_spikes = nullptr;

  FirBackwardMemory(Arena& arena, const FirRole<V>* roles, std::int64_t lanes, std::int64_t segment_steps, bool bptt) {
    const std::int64_t stride = lane_stride<V>(lanes);
    for (int k = 0; k < 2; ++k) {
      if (roles[k].taps.length == 0) continue;
      taps[k] = arena.take<V>(taps_memory(roles[k].taps, stride));
      gathered[k] = arena.take<V>(max_fir_steps * stride);
      scattered_size[k] = bptt ? (roles[k].taps.length + segment_steps) * stride : 0;
      if (bptt) scattered[k] = arena.take<V>(scattered_size[k]);
      if (!roles[k].summed) continue;
      inputs[k] = arena.take<V>(max_fir_steps * stride);
      partial[k] = arena.take<V>(roles[k].taps.length * stride);
    }
    if (!with_fir(roles)) return;
    lam_size = (longest(roles) + segment_steps + max_fir_steps) * stride;
    lam = arena.take<V>(lam_size);
    if (roles[1].taps.length > 0) grad_last_spikes = arena.take<V>(stride);
  }

  static std::int64_t longest(const FirRole<V>* roles) {
    return roles[0].taps.length < roles[1].taps.length ? roles[1].taps.length : roles[0].taps.length;
  }
};

/// Tiles: the transposed steps of several arrays.
template <class V>
struct Tiles {
  V* first = nullptr;
  std::int64_t size = 0;

  Tiles(Arena& arena, int count, const Rows& rows, std::int64_t lanes)
      // One step more, since backward reads the potential before the tile's first step.
      : size(rows.tile_steps > 0 ? (rows.tile_steps + 1) * lane_stride<V>(lanes) : 0) {
    first = arena.take<V>(count * size);
  }
  V* operator[](int k) const { return first + k * size; }
};

/// The numbers of parameters and states of a model, each an array of lanes.
struct ModelSize {
  int parameters, states;
};

/// Memory for a recurrence: s W or W g; the current with the recurrent contribution. Backward also dL/d(current) of the next step, the
/// gradient of the spikes with the recurrent contribution, and the spikes before a step.
template <class V>
struct RecurrentMemory {
  V *sums = nullptr, *current = nullptr, *grad_current = nullptr, *grad_spikes = nullptr, *spikes = nullptr;
  std::int64_t* fired = nullptr;   ///< the features of an entry that fired, ascending

  RecurrentMemory(Arena& arena, const Rows& rows, std::int64_t lanes, bool backward) {
    if (rows.features == 0) return;
    const std::int64_t stride = lane_stride<V>(lanes);
    sums = arena.take<V>(stride);
    current = arena.take<V>(stride);
    fired = arena.take<std::int64_t>(rows.features);
    if (!backward) return;
    grad_current = arena.take<V>(stride);
    grad_spikes = arena.take<V>(stride);
    spikes = arena.take<V>(stride);
  }
};

/// Memory of a forward pass: parameters and states as lanes, tiles of current, potential and spikes, the row's blocks.
template <class V>
struct ForwardMemory {
  LaneArrays<V> parameters, state;
  V* surrogate;
  std::int64_t* words;   ///< where the bits of each 64 lanes are at step 0
  Tiles<V> tiles;
  FirForwardMemory<V> fir;
  RecurrentMemory<V> recurrent;
  BlockMemory cut;

  ForwardMemory(Arena& arena, const ModelSize& model, const FirRole<V>* roles, const Rows& rows, std::int64_t lanes,
                std::int64_t segment_steps)
      : parameters(take_lanes<V>(arena, model.parameters, lanes)),
        state(take_lanes<V>(arena, model.states, lanes)),
        surrogate(arena.take<V>(lanes)),
        words(arena.take<std::int64_t>(lanes / 64)),
        tiles(arena, 3, rows, lanes),
        fir(arena, roles, lanes, segment_steps),
        recurrent(arena, rows, lanes, false),
        cut(arena, lanes) {}
};

/// Memory of a backward pass: parameters, carries, and sums of the parameters' gradients as lanes; arrays of one block; tiles of the five
/// inputs and the result; the tape, and where it has all states the present one as lanes.
template <class V>
struct BackwardMemory {
  LaneArrays<V> parameters, carry, partial;
  LaneArrays<double> sums;
  LaneArrays<V> before, grad_initial;
  V *h, *e_sum, *q_sum, *grad, *unwanted_terms, *zeros, *surrogate_argument;
  Tiles<V> tiles;
  FirBackwardMemory<V> fir;
  RecurrentMemory<V> recurrent;
  LaneArrays<V> grad_state;
  BlockMemory cut;
  LaneArrays<V> state;
  V* tape;   ///< null if no states are recomputed

  BackwardMemory(Arena& arena, const ModelSize& model, const FirRole<V>* roles, const Rows& rows, std::int64_t lanes, std::int64_t time,
                 std::int64_t segment_steps, Taped taped, bool with_terms, bool bptt)
      : parameters(take_lanes<V>(arena, model.parameters, lanes)),
        carry(take_lanes<V>(arena, model.states, lanes)),
        partial(take_lanes<V>(arena, with_terms ? model.parameters : 0, lanes)),
        sums(take_lanes<V, double>(arena, with_terms ? model.parameters : 0, lanes)),
        before(take_lanes<V>(arena, model.states, block_lanes)),
        grad_initial(take_lanes<V>(arena, model.states, block_lanes)),
        h(arena.take<V>(block_lanes)),
        e_sum(arena.take<V>(block_lanes)),
        q_sum(arena.take<V>(block_lanes)),
        grad(arena.take<V>(block_lanes)),
        unwanted_terms(arena.take<V>(block_lanes)),
        zeros(arena.take<V>(block_lanes)),
        surrogate_argument(arena.take<V>(block_lanes)),
        tiles(arena, 6, rows, lanes),
        fir(arena, roles, lanes, segment_steps, bptt),
        recurrent(arena, rows, lanes, true),
        grad_state(take_lanes<V>(arena, model.states, block_lanes)),
        cut(arena, lanes),
        state(take_lanes<V>(arena, taped == Taped::all ? model.states : 0, lanes)),
        tape(arena.take<V>(tape_size(taped, model.states, rows.lanes, time, segment_steps))) {}
};

/// The integer as wide as V.
template <class V>
struct IntegerOf {
  using type = std::int32_t;
};
template <>
struct IntegerOf<double> {
  using type = std::int64_t;
};

constexpr int max_shift_stages = 10;   // of a shifter, whose delays are below 2^stages steps

constexpr int block_steps = 8;      // steps that a shifter processes at a time
constexpr int delay_piece = 1024;   // elements that are delayed at a time if neurons share a delay

constexpr int shift_stages(std::int64_t longest) {
  int stages = 0;
  while (stages < max_shift_stages && longest >> stages != 0) ++stages;
  return stages;
}

/// The steps that the stages of a shifter keep, plus the last delayed one.
constexpr std::int64_t kept_steps(int stages) {
  const std::int64_t steps = std::int64_t{1} << stages;
  return steps < block_steps ? block_steps : steps;
}

/// Memory for a delay, as lanes: the whole part of each delay, also as an offset in elements and in the width of V, and its fraction; the
/// values of two steps, zeros, sums of terms; the first lane of each run of equal delays; delayed values of a block of steps or of a piece;
/// and `kept` steps of a shifter, whose first and last vector may have fewer lanes.
template <class V>
struct DelayMemory {
  std::int64_t *whole, *offset, *runs;
  typename IntegerOf<V>::type* bits;
  V *fraction, *near, *far, *zeros;
  double* sums;
  V *delayed, *shifted;

  DelayMemory(Arena& arena, std::int64_t lanes, std::int64_t kept) {
    constexpr std::int64_t line = 64 / sizeof(V);   // also the widest vector
    lanes = lanes < block_lanes ? block_lanes : lanes;
    whole = arena.take<std::int64_t>(lanes);
    offset = arena.take<std::int64_t>(lanes);
    runs = arena.take<std::int64_t>(lanes + 1);
    bits = arena.take<typename IntegerOf<V>::type>(lanes);
    fraction = arena.take<V>(lanes);
    near = arena.take<V>(lanes);
    far = arena.take<V>(lanes);
    zeros = arena.take<V>(lanes);
    sums = arena.take<double>(lanes);
    delayed = arena.take<V>(delay_piece + 64 + line);
    shifted = arena.take<V>((lane_stride<V>(lanes) + line) * kept);
  }
};

/// The slot of a thread that sums the gradient of a product's weights.
template <class V>
struct ProductMemory {
  V* g;                   ///< rows of a chunk
  std::int64_t* values;   ///< for each row of a chunk, the index of the next spike's value

  ProductMemory(Arena& arena, std::int64_t strip_lanes)
      : g(arena.take<V>(product_chunk * strip_lanes)), values(arena.take<std::int64_t>(product_chunk)) {}
};

/// The slot of a thread that computes the gradient of a product's input.
template <class V>
struct ProductInputMemory {
  V* g;        ///< a row of the incoming gradient, with zeros up to the weights' stride
  V* grad_x;   ///< a row of the gradient, in whole words

  ProductInputMemory(Arena& arena, const ProductShape& shape, std::int64_t stride)
      : g(arena.take<V>(stride)), grad_x(arena.take<V>(packed_words(shape.inputs) * 64)) {}
};

/// The slot of a thread that convolves frames.
template <class V>
struct ConvolutionMemory {
  V* buffer;   ///< the output of a frame, or its gradient
  V* rows;     ///< a row of the output
  V* planes;   ///< the gradient of a frame, as wide as the buffer; null if not wanted

  ConvolutionMemory(Arena& arena, const ConvolutionPlan<V>& plan)
      : buffer(arena.take<V>(plan.buffer_size)),
        rows(arena.take<V>(plan.planes ? 0 : plan.shape.outputs * plan.output_width)),
        planes(arena.take<V>(plan.grad_x == nullptr ? 0 : plan.shape.channels * plan.grad_plane)) {}
};

}   // namespace
}   // namespace exodus::cpu
