/// @file
/// The plan of a call, which the functions of an instruction set execute: its division into rows, and their memory.
#pragma once

#include <cstdint>

#include "../call.hpp"
#include "exodus/convolution.hpp"
#include "exodus/delay.hpp"
#include "exodus/pooling.hpp"

namespace exodus::cpu {

inline constexpr int block_lanes = 256;           // the most lanes that a stage processes at a time
inline constexpr int summing_block_lanes = 128;   // if it also sums parameters' terms (benchmarks/bandwidth.py)
inline constexpr int narrow_lanes = 64;           // an inner axis shorter than this uses tiles
inline constexpr int half_lanes = 256;            // neurons in a row, and steps in a tile, if two-byte numbers are converted
inline constexpr std::int64_t half_steps = 16;

template <class V>
inline constexpr int max_row_lanes = 4096 / sizeof(V);   // a page of each array per step

/// How a row reads and writes its arrays over time.
enum class Access {
  in_place,   ///< where they are
  strips,     ///< by tiles of some steps, for which each outer index is contiguous: these strips of memory are transposed
  pieces,     ///< by tiles, to which each step of each outer index is copied
  elements,   ///< by tiles, element for element: batch entries interleave
};

/// The division of neurons into rows, and of time into tiles. A row is a range of neurons through all of time, processed by one thread.
struct Rows {
  Access access = Access::in_place;
  std::int64_t neurons = 0;      ///< in the layout
  std::int64_t lanes = 0;        ///< neurons in a row; the last row may have fewer
  std::int64_t count = 0;        ///< the number of rows
  std::int64_t tile_steps = 0;   ///< steps of a tile; 0 if arrays are used in place
  std::int64_t features = 0;     ///< with a recurrence, the neurons of a batch entry. A row has whole entries, one after another
  std::int64_t repeat = 1;       ///< the distance between the neurons of an entry
};

/// The index in memory of the neuron at a place in the order of rows. They differ if batch entries interleave.
static inline std::int64_t neuron_at(const Rows& rows, std::int64_t place) {
  if (rows.repeat == 1) return place;
  const std::int64_t entry = place / rows.features, feature = place % rows.features;
  return (entry / rows.repeat * rows.features + feature) * rows.repeat + entry % rows.repeat;
}

/// Recurrent weights, or their transpose, as rows that begin on a cache line.
template <class V>
struct WeightRows {
  V* first = nullptr;   ///< null without a recurrence
  std::int64_t stride = 0;
};

/// The states that a backward pass recomputes onto its tape: none; those that do not follow from the recorded potential (all but the
/// potential); or, where the potential is not recorded, all.
enum class Taped { none, hidden, all };

/// The first state on the tape. The others follow it.
static inline int first_taped(Taped taped) {
  return taped == Taped::all ? 0 : 1;
}

/// The elements of a row's tape. For each of its states it has the recomputed values of a segment's steps and of the step before them, and
/// a checkpoint for each segment.
static inline std::int64_t tape_size(Taped taped, std::int64_t states, std::int64_t lanes, std::int64_t time, std::int64_t segment_steps) {
  if (taped == Taped::none) return 0;
  return (states - first_taped(taped)) * lanes * (segment_steps + 1 + (time + segment_steps - 1) / segment_steps);
}

inline constexpr std::int64_t fir_segment_steps = 128;   // for FIR kernels without tiles

/// The steps of a segment, the unit of time in which a row is processed, for a pass that does not recompute states.
template <class V>
static inline std::int64_t segment_steps_of(const FirRole<V>* fir, const Rows& rows, std::int64_t time) {
  if (rows.tile_steps > 0) return rows.tile_steps;
  return with_fir(fir) ? fir_segment_steps : time;
}

/// The division of a pass into rows, and the working memory of its threads.
struct RowPlan {
  Rows rows;
  int threads = 1;
  char* slots = nullptr;   ///< `slot_bytes` of memory for each thread (memory.hpp)
  std::size_t slot_bytes = 0;
  bool stream = false;   ///< whether results exceed the caches and are written by streaming stores
};

template <class V>
struct ForwardPlan : ForwardCall<V, void>, RowPlan {
  Format format = Format::arithmetic;   ///< of current and spikes
  WeightRows<V> weights;
};

template <class V>
struct BackwardPlan : BackwardCall<V, void>, RowPlan {
  Format format = Format::arithmetic;   ///< of the current, and of the gradients of spikes and current
  WeightRows<V> weights, transposed_weights;
  std::int64_t segment_steps = 0;   ///< steps of a segment, whose states are recomputed together
  Taped taped = Taped::none;
  std::uint64_t* fired = nullptr;   ///< bits for the gradient of recurrent weights; null if it is not wanted
};

/// A delay or its adjoint. The adjoint is the same operation with time reversed, applied to dL/dy.
template <class V>
struct DelayPlan {
  Layout layout;
  Param<V> steps;
  std::int64_t most = 0;
  bool backwards = false;
  const V* from = nullptr;      ///< x, or dL/dy in the adjoint; null means zero
  const V* before = nullptr;    ///< forward: the most + 1 values of x before step 0; null means zero
  V* to = nullptr;              ///< y, or dL/dx
  V* final = nullptr;           ///< forward: the last steps of x
  const V* direct = nullptr;    ///< adjoint: dL/d(final state), which is added to the gradients of the last most + 1 steps of x
  V* grad_initial = nullptr;    ///< adjoint: dL/d(initial state)
  const V* x = nullptr;         ///< adjoint, with `sums`: x
  const V* initial = nullptr;   ///< adjoint, with `sums`: x before step 0
  double* sums = nullptr;       ///< adjoint: for each neuron, the gradient of its own delay
  std::int64_t lanes = 0;       ///< neurons in a row; 0 if a row has `outers` whole outer indices
  std::int64_t outers = 0;
  bool stream = false;
  char* slots = nullptr;   ///< `slot_bytes` of memory for each thread (DelayMemory)
  std::size_t slot_bytes = 0;
};

/// Whether a parameter's gradient is wanted.
template <class V>
static inline bool wants_terms(const BackwardPlan<V>& plan) {
  for (const double* const sum : plan.sums) {
    if (sum != nullptr) return true;
  }
  return false;
}

inline constexpr std::int64_t weight_tile_sources = 256,
                              weight_tile_targets = 64;   // features; a tile of sums stays in the second-level cache

/// The gradient of recurrent weights, after the pass: the sum over steps and entries of s[n-1]^T g[n] (docs/mathematics.md, Recurrence),
/// tile by tile.
template <class V>
struct WeightGradientPlan : RowPlan {   // a slot holds a tile
  Layout layout;
  bool counts = false;                  ///< whether a neuron may spike more than once in a step
  Format format = Format::arithmetic;   ///< of spikes and grad_current
  const void* spikes = nullptr;         ///< s[n]
  const V* initial_spikes = nullptr;    ///< s[-1]; null if there are none
  const void* grad_current = nullptr;   ///< g[n]
  std::uint64_t* fired = nullptr;       ///< one bit per step, entry and feature: whether it fired in the previous step
  double* sums = nullptr;               ///< features x features
};

/// Words of 64 bits for the features of an entry.
static inline std::int64_t words_of(const Rows& rows) {
  return (rows.features + 63) / 64;
}

inline constexpr int product_vectors = 8;   // of sums, that a product of spikes keeps in registers
inline constexpr int product_chunk = 512;   // rows whose spikes are transposed together

/// The packing of a matrix of spikes, some rows after others.
template <class V>
struct PackPlan {
  ProductShape shape;
  std::int64_t row_stride = 0;   ///< elements from a row of x to the next
  std::int64_t task_rows = 0;
  Format format = Format::arithmetic;   ///< of x
  const void* x = nullptr;
  std::uint64_t* bits = nullptr;
  SpikeCount* counts = nullptr;   ///< of each task
};

/// A product of packed spikes with weights.
template <class V>
struct ProductPlan {
  ProductShape shape;
  std::int64_t task_rows = 0;
  Format format = Format::arithmetic;   ///< of values and y
  const std::uint64_t* bits = nullptr;
  const std::int64_t* first = nullptr;
  const void* values = nullptr;   ///< null if all are 1
  WeightRows<const V> weights;    ///< rows of zeros beyond the outputs, up to the stride
  const V* bias = nullptr;        ///< likewise
  void* y = nullptr;
  bool stream = false;
};

/// The gradient of the weights, by parts of the rows and strips of the columns.
template <class V>
struct ProductGradientPlan {
  ProductShape shape;
  std::int64_t part_rows = 0, strips = 0, strip_lanes = 0;
  Format format = Format::arithmetic;   ///< of values and grad_y
  const std::uint64_t* bits = nullptr;
  const std::int64_t* first = nullptr;
  const void* values = nullptr;
  const void* grad_y = nullptr;
  bool with_bias = false;
  V* partials = nullptr;   ///< for each part, inputs + 1 rows of `stride`: the weights' sums, then the bias's
  std::int64_t stride = 0;
  char* slots = nullptr;   ///< `slot_bytes` of memory for each thread (ProductMemory)
  std::size_t slot_bytes = 0;
};

/// The gradient of x where it is wanted.
template <class V>
struct ProductInputPlan {
  ProductShape shape;
  std::int64_t task_rows = 0;
  Format format = Format::arithmetic;   ///< of grad_y and grad_x
  const std::uint64_t* wanted = nullptr;
  const void* grad_y = nullptr;
  WeightRows<const V> weights;   ///< rows of zeros beyond the outputs, up to the stride
  void* grad_x = nullptr;
  bool stream = false;
  char* slots = nullptr;   ///< `slot_bytes` of memory for each thread (ProductInputMemory)
  std::size_t slot_bytes = 0;
};

/// Where a pixel's spikes meet the buffer of a convolution, and which runs of taps they have.
struct ConvolutionPlace {
  std::int32_t offset, kind;
};

/// The runs of a kind of pixels, in the list of all runs.
struct ConvolutionRuns {
  std::int64_t first, count;
};

/// A convolution of packed spikes, or its gradients, by tasks of frames.
template <class V>
struct ConvolutionPlan {
  ConvolutionShape shape;
  std::int64_t pixels = 0, output_height = 0, output_width = 0, group_channels = 0;
  Format format = Format::arithmetic;   ///< of values, y, grad_y and grad_x
  std::int64_t task_frames = 0;
  const std::uint64_t* bits = nullptr;
  const std::int64_t* first = nullptr;
  const void* values = nullptr;

  bool planes = false;   ///< whether the buffer has a plane for each output channel, or all channels of a pixel together
  std::int64_t margin_y = 0, margin_x = 0, buffer_width = 0, buffer_size = 0;
  std::int64_t plane = 0;          ///< pixels of the buffer
  std::int64_t group_offset = 0;   ///< between the outputs of two groups

  std::int64_t all_runs = 0, run_lanes = 0;
  const ConvolutionPlace* places = nullptr;
  const ConvolutionRuns* runs = nullptr;
  const std::int32_t* offsets = nullptr;   ///< of each run, from a spike's place
  const std::int32_t* lengths = nullptr;   ///< of each run: the lanes that are taps, the first ones

  const V* weights = nullptr;   ///< forward: for each channel, the taps of all runs
  const V* bias = nullptr;      ///< forward
  void* y = nullptr;            ///< forward

  const void* grad_y = nullptr;
  bool with_weights = false, with_bias = false;
  V* partials = nullptr;   ///< for each task: sums as the weights lie, then `bias_size` of the bias
  std::int64_t partial_size = 0, bias_size = 0;
  void* grad_x = nullptr;
  std::int64_t grad_plane = 0;                 ///< elements of a plane of the gradient of x
  const V* tap_weights = nullptr;              ///< for grad_x: (outputs, channels / groups, taps)
  const std::int64_t* tap_offsets = nullptr;   ///< in the buffer, from a pixel's place in it

  char* slots = nullptr;   ///< `slot_bytes` of memory for each thread (ConvolutionMemory)
  std::size_t slot_bytes = 0;
};

/// Average pooling, or its gradient, by tasks of planes.
template <class V>
struct PoolingPlan {
  PoolingShape shape;
  std::int64_t task_planes = 0;
  Format format = Format::arithmetic;   ///< of both arrays
  const void* from = nullptr;
  void* to = nullptr;
};

template <class V>
struct IsaFunctions {
  void (*forward)(const ForwardPlan<V>&, std::int64_t row, int thread) = nullptr;
  void (*backward)(const BackwardPlan<V>&, std::int64_t row, int thread) = nullptr;
  void (*pack_spikes)(const WeightGradientPlan<V>&, std::int64_t step) = nullptr;
  void (*weight_gradient)(const WeightGradientPlan<V>&, std::int64_t tile, int thread) = nullptr;
  void (*evaluate)(const Surrogate<V>&, const Param<V>& threshold, std::int64_t begin, std::int64_t end, const V* potential,
                   V* h) = nullptr;
  void (*delay)(const DelayPlan<V>&, std::int64_t row, int thread) = nullptr;
  void (*read)(const void* elements, Format, std::int64_t begin, std::int64_t end, V* numbers) = nullptr;
  void (*write)(const V* numbers, Format, std::int64_t begin, std::int64_t end, void* elements) = nullptr;
  void (*pack)(const PackPlan<V>&, std::int64_t task) = nullptr;
  void (*product)(const ProductPlan<V>&, std::int64_t task) = nullptr;
  void (*product_gradient)(const ProductGradientPlan<V>&, std::int64_t task, int thread) = nullptr;
  void (*product_input_gradient)(const ProductInputPlan<V>&, std::int64_t task, int thread) = nullptr;
  void (*convolution)(const ConvolutionPlan<V>&, std::int64_t task, int thread) = nullptr;
  void (*convolution_gradient)(const ConvolutionPlan<V>&, std::int64_t part, int thread) = nullptr;
  void (*pool)(const PoolingPlan<V>&, std::int64_t task) = nullptr;
  void (*spread)(const PoolingPlan<V>&, std::int64_t task) = nullptr;
  int lanes = 0;                   ///< of a vector
  int product_lanes = 0;           ///< the most columns of a product that registers hold
  bool delays_in_blocks = false;   ///< whether neurons with individual delays are processed in blocks of steps
};

/// The exports of an object file compiled for one instruction set.
struct IsaTable {
  IsaFunctions<float> f32;
  IsaFunctions<double> f64;
};

}   // namespace exodus::cpu
