/// @file
/// What a call hands to the kernels of an instruction set: how it is cut into work, and the memory to do it in.
#pragma once

#include <cstdint>

#include "../call.hpp"
#include "exodus/delay.hpp"

namespace exodus::cpu {

inline constexpr int block_lanes = 128;   // that a stage takes at a time, at most
inline constexpr int narrow_lanes = 64;   // of the narrowest row that is used in place

template <class V>
inline constexpr int max_row_lanes = 4096 / sizeof(V);   // a page of every array per step

/// How the neurons are cut into rows, the unit of work of a thread (a row is a range of neurons through all of time), and time into tiles.
struct Rows {
  std::int64_t neurons = 0;      ///< of the layout
  std::int64_t lanes = 0;        ///< neurons in a row; the last may have fewer
  std::int64_t count = 0;        ///< rows
  std::int64_t tile_steps = 0;   ///< 0: arrays are used in place; else steps that are transposed at a time
  std::int64_t features = 0;     ///< with a recurrence, a row has whole batch entries, one after another, of so many neurons each
  std::int64_t repeat = 1;       ///< how far apart the neurons of an entry are
};

/// Where in the order of memory the neuron is that comes at a place in the order of rows: the same, but for entries that interleave.
static inline std::int64_t neuron_at(const Rows& rows, std::int64_t place) {
  if (rows.repeat == 1) return place;
  const std::int64_t entry = place / rows.features, feature = place % rows.features;
  return (entry / rows.repeat * rows.features + feature) * rows.repeat + entry % rows.repeat;
}

/// Recurrent weights, or their transpose, as rows that begin on a vector.
template <class V>
struct WeightRows {
  V* first = nullptr;   ///< null: no recurrence
  std::int64_t stride = 0;
};

/// A row's tape, in elements: for every state but the potential, (a segment's steps + 1) x lanes for what is rebuilt, and as much per
/// segment as one step for where to begin.
inline std::int64_t tape_size(std::int64_t states, std::int64_t lanes, std::int64_t time, std::int64_t segment_steps) {
  return (states - 1) * lanes * (segment_steps + 1 + (time + segment_steps - 1) / segment_steps);
}

inline constexpr std::int64_t fir_segment_steps = 128;   // steps that FIR kernels go at a time, where tiles do not say it

/// Steps that a pass goes at a time, unless it has to rebuild states.
template <class V>
static inline std::int64_t segment_steps_of(const FirRole<V>* fir, const Rows& rows, std::int64_t time) {
  if (rows.tile_steps > 0) return rows.tile_steps;
  return with_fir(fir) ? fir_segment_steps : time;
}

/// How a pass is cut into rows, and the memory that its threads work in.
struct RowPlan {
  Rows rows;
  int threads = 1;
  char* slots = nullptr;   ///< `slot_bytes` of memory for each thread (memory.hpp)
  std::size_t slot_bytes = 0;
  bool stream = false;   ///< results are larger than the caches: write around them
};

template <class V>
struct ForwardPlan : ForwardCall<V>, RowPlan {
  WeightRows<V> weights;
};

template <class V>
struct BackwardPlan : BackwardCall<V>, RowPlan {
  WeightRows<V> weights, transposed_weights;
  std::int64_t segment_steps = 0;   ///< steps whose hidden states are rebuilt at a time
  V* tape = nullptr;                ///< for hidden states: `tape_elements` for each row; null: not needed
  std::int64_t tape_elements = 0;
  std::uint64_t* fired = nullptr;   ///< for the gradient of recurrent weights, after the pass; null: not wanted
};

/// A delay, or its adjoint: the same with time running backwards, from the gradient of the output to that of the input.
template <class V>
struct DelayPlan {
  Layout layout;
  Param<V> steps;
  std::int64_t most = 0;
  bool backwards = false;
  const V* from = nullptr;      ///< what is delayed: x, or dL/dy; null is zero
  const V* before = nullptr;    ///< it before the first step, most + 1 entries; null is zero, and always in the adjoint
  V* to = nullptr;              ///< y, or dL/dx
  V* final = nullptr;           ///< forward: the last steps of x
  const V* direct = nullptr;    ///< adjoint: dL/d(final state), which the last most + 1 steps of x get as well
  V* grad_initial = nullptr;    ///< adjoint
  const V* x = nullptr;         ///< adjoint, with `sums`: the input
  const V* initial = nullptr;   ///< and before step 0
  double* sums = nullptr;       ///< adjoint: per neuron, the gradient of its own delay
  std::int64_t lanes = 0;       ///< of a row: neurons of an outer index, or 0: rows are whole outer indices, so many:
  std::int64_t outers = 0;
  bool stream = false;
  char* slots = nullptr;   ///< `slot_bytes` of memory for each thread (DelayMemory)
  std::size_t slot_bytes = 0;
};

/// Whether any parameter's gradient is wanted.
template <class V>
static inline bool wants_terms(const BackwardPlan<V>& plan) {
  for (const double* const sum : plan.sums) {
    if (sum != nullptr) return true;
  }
  return false;
}

inline constexpr std::int64_t weight_tile_sources = 256, weight_tile_targets = 64;   // features; it stays in the second-level cache

/// The gradient of recurrent weights, after the pass: the sum over steps and entries of s[n-1]^T g[n], tile by tile.
template <class V>
struct WeightGradientPlan : RowPlan {   // its slots hold a tile each
  Layout layout;
  bool counts = false;                 ///< a spike may be more than one
  const V* spikes = nullptr;           ///< s[n]
  const V* initial_spikes = nullptr;   ///< s[-1]; null: none
  const V* grad_current = nullptr;     ///< g[n]
  std::uint64_t* fired = nullptr;      ///< packed: a bit for each feature of each entry of each step, of the spikes before it
  double* sums = nullptr;              ///< features x features
};

/// Words of 64 bits for the features of an entry.
static inline std::int64_t words_of(const Rows& rows) {
  return (rows.features + 63) / 64;
}

template <class V>
struct IsaFunctions {
  void (*forward)(const ForwardPlan<V>&, std::int64_t row, int thread);
  void (*backward)(const BackwardPlan<V>&, std::int64_t row, int thread);
  void (*pack_spikes)(const WeightGradientPlan<V>&, std::int64_t step);
  void (*weight_gradient)(const WeightGradientPlan<V>&, std::int64_t tile, int thread);
  void (*evaluate)(const Surrogate<V>&, const Param<V>& threshold, std::int64_t begin, std::int64_t end, const V* potential, V* h);
  void (*delay)(const DelayPlan<V>&, std::int64_t row, int thread);
  bool delays_in_blocks;   ///< of steps, where neurons have delays of their own
};

/// What an object file compiled for one instruction set exports.
struct IsaTable {
  IsaFunctions<float> f32;
  IsaFunctions<double> f64;
};

}   // namespace exodus::cpu
