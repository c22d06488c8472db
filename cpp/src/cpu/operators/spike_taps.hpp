/// @file
/// The FIR kernel of a neuron's own spikes (kernel.hpp) in the forward pass. The feedback of a step is sum_k nu[k] s[n-1-k].
///
/// Each neuron has a ring buffer of pending contributions, one slot per future step. A spike adds the whole kernel to it: K / W vector
/// additions for K taps and vectors of W lanes, nothing for silent neurons. Before each group of steps, its slots are transposed to sums as
/// lanes, and spikes within the group add to these. Either way, a sum is in order from the oldest spike to the newest. Tap 0 of the newest
/// spikes is added to all lanes at once: loading a vector that was just written in parts would stall. A spike makes the same additions at
/// every step, so no branch depends on the step: additions beyond the taps add zeros, and those beyond the group go to unused sums.
#pragma once

#include "../rows.hpp"

namespace exodus::cpu {
namespace {

/// FIR kernels sum `fir_steps` steps and `fir_vectors` vectors of lanes together: each input and each tap is loaded once for all of them,
/// and additions to different sums overlap. All sums stay in registers.
constexpr int fir_steps = vector_bytes == 64 ? 8 : 4, fir_vectors = vector_bytes == 64 ? 1 : 2;
static_assert(fir_steps <= max_fir_steps && fir_segment_steps % fir_steps == 0);

/// Steps of a group, whose pending sums are transposed to lanes together.
template <class V>
constexpr int transposed_steps = simd_lanes<V> < 8 ? 8 : simd_lanes<V>;
static_assert(transposed_steps<float> <= max_transposed_steps);

template <class V>
class SpikeTaps {
 public:
  /// Without taps this does nothing.
  SpikeTaps(const ForwardPlan<V>& plan, const Row& row, const FirForwardMemory<V>& memory)
      : role_(plan.fir[1]), rows_(plan.rows), time_(plan.layout.time), row_(row), stride_(lane_stride<V>(row.lanes)), memory_(memory) {
    if (!given()) return;
    clear(memory_.pending, row.lanes * ring());
    clear(memory_.sums, 2 * transposed_steps<V> * stride_);
    set_taps();
    V* const spikes = memory_.scratch;
    clear(spikes, stride_);
    for (std::int64_t k = taps() - 2; k >= 0; --k) {
      copy_entry(spikes, role_.initial, k, rows_, row_);
      keep(-2 - k, spikes);
      for (int i = 0; role_.initial != nullptr && i < row.lanes; ++i) {
        if (spikes[i] != V(0)) add_by_tap(i, spikes[i], -1 - k, 0);
      }
    }
  }

  bool given() const { return taps() > 0; }

  /// Adds the spikes before a step, given in whole bands. feedback() is then the step's.
  void add(std::int64_t step, const V* spikes) {
    keep(step - 1, spikes);
    const std::int64_t ahead = step % transposed_steps<V>;
    if (ahead == 0) transpose_pending(step);
    add_but_first(step, spikes, step - ahead + transposed_steps<V>);
    const V* const sums = memory_.sums + ahead * stride_;
    for (int i = 0; i < row_.lanes; i += simd_lanes<V>) {
      store(memory_.feedback + i, load(sums + i) + load(memory_.newest_tap + i) * load(spikes + i));
    }
  }

  const V* feedback() const { return memory_.feedback; }

 private:
  std::int64_t taps() const { return role_.taps.length; }
  std::int64_t ring() const { return memory_.ring_steps; }

  /// Copies each neuron's taps, or the taps of all, and zeros behind them.
  void set_taps() {
    const Taps<V>& taps = role_.taps;
    const std::int64_t next = memory_.spike_taps_step;
    tap_step_ = taps.count == 1 ? 0 : next;
    clear(memory_.newest_tap, stride_);
    clear(memory_.spike_taps, next * (taps.count == 1 ? 1 : row_.lanes));
    expand(memory_.newest_tap, taps.data, taps.count, taps.repeat, rows_, row_);
    V* const values = memory_.scratch;
    for (std::int64_t k = 0; k < taps.length; ++k) {
      if (taps.count == 1) {
        memory_.spike_taps[k] = taps.data[k];
        continue;
      }
      expand(values, taps.data + k * taps.count, taps.count, taps.repeat, rows_, row_);
      for (int i = 0; i < row_.lanes; ++i) memory_.spike_taps[i * next + k] = values[i];
    }
  }

  /// Stores spikes that are part of the final history. Those of the last step are in the neuron's state instead.
  void keep(std::int64_t step, const V* spikes) const {
    const std::int64_t entry = time_ - 2 - step;
    if (role_.final == nullptr || entry < 0 || entry >= taps() - 1) return;
    store_entry(role_.final, entry, spikes, rows_, row_);
  }

  /// Adds all taps but tap 0 of the spikes before a step: to the sums for steps before `sums_end`, to the ring buffer for later ones.
  void add_but_first(std::int64_t step, const V* spikes, std::int64_t sums_end) {
    const std::int64_t column = sums_end % ring();
    for (int i = 0; i < row_.lanes; i += band_lanes<V>) {
      std::uint64_t fired = 0;
      for (int v = 0; v < band_vectors; ++v) fired |= nonzero(spikes + i + v * simd_lanes<V>) << (v * simd_lanes<V>);
      for (; fired != 0; fired &= fired - 1) {
        const int lane = i + __builtin_ctzll(fired);
        const V spike = spikes[lane];
        if (spike - spike == V(0)) {
          add_spike(lane, spike, step, sums_end, column);
        } else {
          add_by_tap(lane, spike, step, sums_end);   // not finite: times a zero it would be NaN
        }
      }
    }
  }

  /// Adds a spike whose tap 0 belongs to `step`.
  __attribute__((always_inline)) void add_spike(int lane, V spike, std::int64_t step, std::int64_t sums_end, std::int64_t column) {
    const V* const at = memory_.spike_taps + lane * tap_step_;
    V* const sums = memory_.sums + step % transposed_steps<V> * stride_ + lane;
    for (int k = 1; k < transposed_steps<V>; ++k) sums[k * stride_] += at[k] * spike;
    V* const pending = memory_.pending + lane * ring();
    for (std::int64_t k = sums_end - step, left = taps(); left > 0; left -= simd_lanes<V>, k += simd_lanes<V>) {
      store(pending + column, load(pending + column) + load(at + k) * spike);
      column = column + simd_lanes<V> == ring() ? 0 : column + simd_lanes<V>;
    }
  }

  /// The same tap by tap, for any value, and for steps before step 0.
  void add_by_tap(int lane, V spike, std::int64_t step, std::int64_t sums_end) {
    const V* const at = memory_.spike_taps + lane * tap_step_;
    for (std::int64_t k = 1; k < taps(); ++k) {
      const std::int64_t n = step + k;
      if (n >= sums_end) {
        memory_.pending[lane * ring() + n % ring()] += at[k] * spike;
      } else if (n >= 0) {
        memory_.sums[n % transposed_steps<V> * stride_ + lane] += at[k] * spike;
      }
    }
  }

  /// Transposes the pending contributions of a group of steps to lanes, and clears their slots for later steps.
  void transpose_pending(std::int64_t step) {
    V* const pending = memory_.pending + step % ring();
    transpose(pending, ring(), memory_.sums, stride_, row_.lanes, transposed_steps<V>);
    for (int i = 0; i < row_.lanes; ++i) clear_row(pending + i * ring(), transposed_steps<V>);
  }

  const FirRole<V>& role_;
  const Rows& rows_;
  const std::int64_t time_;
  const Row& row_;
  const std::int64_t stride_;
  const FirForwardMemory<V>& memory_;
  std::int64_t tap_step_ = 0;   ///< elements between the taps of consecutive neurons; 0 if all share them
};

}   // namespace
}   // namespace exodus::cpu
