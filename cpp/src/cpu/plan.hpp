/// @file
/// What a call hands to the kernels of an instruction set: plain structs, the model's name gone, its parameters and states as lists.
#pragma once

#include <cstdint>

#include "../registry.hpp"

namespace exodus::cpu {

inline constexpr int max_parameters = 7;   // of a model
inline constexpr int max_states = 6;
inline constexpr int block_lanes = 128;   // that a stage takes at a time, at most

template <class V>
inline constexpr int max_row_lanes = 4096 / sizeof(V);   // a page of every array per step

/// How the neurons are cut into rows, the unit of work of a thread (a row is a range of neurons through all of time), and time into tiles.
struct Rows {
  std::int64_t neurons = 0;      ///< of the layout
  std::int64_t lanes = 0;        ///< neurons in a row; the last may have fewer
  std::int64_t count = 0;        ///< rows
  std::int64_t tile_steps = 0;   ///< 0: arrays are used in place; else steps that are transposed at a time
};

/// A row's tape, in elements: for every state but the potential, (a segment's steps + 1) x lanes for what is rebuilt, and as much per
/// segment as one step for where to begin.
inline std::int64_t tape_size(std::int64_t states, std::int64_t lanes, std::int64_t time, std::int64_t segment) {
  return (states - 1) * lanes * (segment + 1 + (time + segment - 1) / segment);
}

inline constexpr std::int64_t fir_segment = 128;   // steps that FIR kernels go at a time, where tiles do not say it

/// A FIR kernel: of the current (role 0), or of the spikes (role 1). Arrays of its state have (taps - 1) x neurons elements.
template <class V>
struct FirRole {
  Taps<V> taps;   ///< none: the role's kernel, if there is one, is recursive
  const V* initial = nullptr;
  V* final = nullptr;
  const V* grad_final = nullptr;
  V* grad_initial = nullptr;
  bool summed = false;      ///< the gradient of the taps is wanted
  double* sums = nullptr;   ///< taps x neurons: of each neuron's own copies
};

template <class V>
static inline bool with_fir(const FirRole<V>* fir) {
  return fir[0].taps.length > 0 || fir[1].taps.length > 0;
}

/// Steps that a pass goes at a time, unless it has to rebuild states.
template <class V>
static inline std::int64_t segment_of(const FirRole<V>* fir, const Rows& rows, std::int64_t time) {
  if (rows.tile_steps > 0) return rows.tile_steps;
  return with_fir(fir) ? fir_segment : time;
}

template <class V>
struct ForwardPlan {
  Layout layout;
  Rows rows;
  Model model{};
  int variant = 0;
  V cap{};               ///< spikes in a step, at most
  bool stream = false;   ///< results are larger than the caches: write around them
  Param<V> parameters[max_parameters];
  const V* current = nullptr;
  const V* initial[max_states] = {};
  V* history[2] = {};   ///< potential and spikes over time: the first two states
  V* final[max_states] = {};
  FirRole<V> fir[2];
  char* slots = nullptr;   ///< memory for FIR kernels, `slot_bytes` for each thread
  std::size_t slot_bytes = 0;
};

template <class V>
struct BackwardPlan {
  Layout layout;
  Rows rows;
  Model model{};
  int variant = 0;
  V cap{};
  bool stream = false;
  Method method{};
  Surrogate<V> surrogate;
  Param<V> parameters[max_parameters];
  const V* potential = nullptr;
  const V* current = nullptr;
  const V* initial[max_states] = {};
  const V* grad_spikes = nullptr;
  const V* grad_potential = nullptr;
  const V* grad_final[max_states] = {};
  V* grad_current = nullptr;
  V* grad_initial[max_states] = {};
  std::int64_t segment = 0;   ///< steps whose hidden states are rebuilt at a time
  V* tape = nullptr;          ///< for hidden states: `tape_elements` for each row; null: not needed
  std::int64_t tape_elements = 0;
  double* sums[max_parameters] = {};   ///< per neuron: the gradient of its own copy of the parameter; null: not wanted
  FirRole<V> fir[2];
  char* slots = nullptr;
  std::size_t slot_bytes = 0;
};

template <class V>
struct Kernels {
  void (*forward)(const ForwardPlan<V>&, std::int64_t row, int thread);
  void (*backward)(const BackwardPlan<V>&, std::int64_t row, int thread);
  void (*evaluate)(const Surrogate<V>&, const Param<V>& threshold, std::int64_t begin, std::int64_t end, const V* potential, V* h);
};

/// What an object file compiled for one instruction set exports.
struct KernelTable {
  Kernels<float> f32;
  Kernels<double> f64;
};

}   // namespace exodus::cpu
