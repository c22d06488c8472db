/// @file
/// How a call of the CPU is cut into rows, and what its workspace holds. Nothing here knows a model: of it only counts are asked.
#pragma once

#include "plan.hpp"

namespace exodus::cpu {

/// What a pass asks of its plan.
template <class V>
struct Pass {
  Layout layout;
  int parameters = 0, states = 0;   ///< of the model
  const FirRole<V>* fir = nullptr;
  Recurrence<V> recurrent;
};

/// What a backward pass asks besides.
template <class V>
struct BackwardPass : Pass<V> {
  int sums = 0;                    ///< parameters whose terms are summed
  bool reads_current = false;      ///< some of them need the current
  bool weights_gradient = false;   ///< that of the recurrence is wanted
  bool with_tapes = false;         ///< hidden states are rebuilt
  bool bptt = false;
};

/// What a thread works in.
struct Slots {
  std::int64_t lanes = 0;   ///< of the widest row
  std::size_t bytes = 0;    ///< of each
};

template <class V>
Slots slots_of(const Pass<V>& pass);
template <class V>
Slots slots_of(const BackwardPass<V>& pass);

/// The rows of a pass on so many threads, of at most the slots' lanes.
template <class V>
Rows partition(const Pass<V>& pass, const Slots& slots, int threads);

/// The bytes of the slots that a call on so many threads fills.
template <class V>
std::size_t slots_size(const Pass<V>& pass, const Slots& slots, int threads);

/// Steps that a backward pass goes at a time.
template <class V>
std::int64_t segment_of(const BackwardPass<V>& pass, const Rows& rows);

/// Where the parts of a backward pass's workspace begin, in bytes: sums of parameters (at 0) and of taps as doubles, what fired before each
/// step, the tapes, recurrent weights, the slots.
struct BackwardParts {
  std::size_t taps[2], fired, tapes, weights, transposed_weights, slots;
};

template <class V>
BackwardParts parts_of(const BackwardPass<V>& pass);

}   // namespace exodus::cpu
