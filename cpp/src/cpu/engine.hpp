/// @file
/// The CPU engine: a row of neurons through all of time. Per step it runs the stages one after another over blocks of lanes, handing over
/// through L1; what a row carries from step to step stays there as arrays of lanes. It knows no model and no mathematics.
///
/// An array is used in place where its inner axis is wide enough to fill blocks; else some steps of it at a time are transposed into a
/// tile (time-last arrays included), and results back.
#pragma once

#include "fir.hpp"
#include "models.hpp"
#include "operators/recurrence.hpp"
#include "rows.hpp"

namespace exodus::cpu {
namespace {

template <class V>
void forward_row(const ForwardPlan<V>& plan, std::int64_t index, int thread) {
  const ModelStages<V>& model = stages_of<V>(plan.model);
  const Layout& layout = plan.layout;
  const std::int64_t segment = segment_of(plan.fir, plan.rows, layout.time);
  Carver carver(plan.slots + thread * plan.slot_bytes);
  const ForwardMemory<V> memory(carver, {model.parameters, model.states}, plan.fir, plan.rows, lanes_of(plan.rows, index), segment);
  const Row row = make_row(layout, plan.rows, index, memory.cut.blocks);
  const LaneArrays<V>& state = memory.state;

  StepRow<V> work;
  set_parameters(work.parameters, memory.parameters, plan.parameters, model.parameters, plan.rows, row);
  const StepStage<V> step_of_model = model.forward[plan.variant][work.parameters.all_scalar ? 1 : 0];
  work.cap = plan.cap;
  for (int k = 0; k < model.states; ++k) {
    work.state[k] = state[k];
    copy_entry(state[k], plan.initial[k], 0, plan.rows, row);
  }

  Input<V> current{plan.current, memory.tiles[0]};
  Output<V> history[2] = {{plan.potential, memory.tiles[1]}, {plan.spikes, memory.tiles[2]}};   // the first two states
  const bool with_fir_kernels = with_fir(plan.fir);
  ForwardFir<V> fir(plan, row, memory.fir);
  const RecurrentRow<V> recurrence(plan.weights, {}, plan.rows, row, memory.recurrent);
  if (fir.of_spikes()) clear(state[1] + row.lanes, state.stride - row.lanes);   // spikes are read in whole bands
  const bool stream = plan.stream && !row.tiled;
  Ahead* const ahead = memory.cut.ahead;
  set_ahead<V>(ahead, row, +1, false);
  for (int b = 0; fir.of_current() && b < row.block_count; ++b) {
    // Two groups on: the next one is copied before its sums, which then leave memory to the one after it.
    ahead[b] = {row.blocks[b].offset + 2 * fir_steps * row.step_stride, 2 * fir_steps, row.blocks[b].lanes};
  }

  for (std::int64_t begin = 0; begin < layout.time; begin += segment) {
    const std::int64_t end = smaller(begin + segment, layout.time);
    current.seek(layout, plan.rows, row, begin, end, begin, nullptr);
    for (Output<V>& output : history) output.begin = row.tiled ? begin : 0;
    fir.enter(begin);
    for (std::int64_t step = begin; step < end; ++step, current.now += current.stride) {
      const std::int64_t steps_left = row.tiled ? -1 : layout.time - 1 - step;
      const V* lanes = nullptr;   // the current where an operator changed it
      if (recurrence.given()) {
        recurrence.feel_spikes(state[1]);
        for (int b = 0; b < row.block_count; ++b) recurrence.current(row.blocks[b], current[row.blocks[b]]);
        lanes = recurrence.currents();
      }
      if (fir.of_current()) {
        if (recurrence.given()) {
          fir.filter_step(lanes, step);
        } else if ((step - begin) % fir_steps == 0) {
          fir.before_group(current, step, smaller(step + fir_steps, end));
        }
        lanes = fir.filtered(step);
      }
      if (with_fir_kernels) fir.before_step(step, state, model.hidden);
      V* const results[2] = {history[0].at(row, step), history[1].at(row, step)};
      for (int b = 0; b < row.block_count; ++b) {
        const Block& block = row.blocks[b];
        if (ahead[b].steps <= steps_left) prefetch(current.now + ahead[b].offset, ahead[b].lanes, false);
        step_of_model(work, block.lane, block.lanes, lanes != nullptr ? lanes + block.lane : current[block]);
        for (int k = 0; k < 2; ++k) {
          if (results[k] != nullptr) store_lanes(results[k] + block.offset, state[k] + block.lane, block.lanes, stream);
        }
      }
    }
    for (const Output<V>& output : history) output.flush(layout, plan.rows, row, begin, end);
  }
  if (stream) finish_streaming();

  for (int k = 0; k < model.states; ++k) {
    if (plan.final[k] != nullptr) store_entry(plan.final[k], 0, state[k], plan.rows, row);
  }
  fir.finish();
}

/// dL/d(final state) is a direct gradient of the last step: the sum of both, or the one that is there.
template <class V>
const V* with_final(const V* direct, const V* final, const Rows& rows, const Row& row, const Block& block, V* sum) {
  if (final == nullptr) return direct;
  load_neurons(sum, final, rows, row, block.lane, block.lanes);
  EXODUS_LANES
  for (int i = 0; i < block.lanes; ++i) sum[i] = direct[i] + sum[i];
  return sum;
}

/// A block of a state, or of its gradient; zeros for arrays that were not given.
template <class V>
void load_state(const LaneArrays<V>& state, const V* const* arrays, int states, const Rows& rows, const Row& row, const Block& block) {
  for (int k = 0; k < states; ++k) {
    if (arrays[k] == nullptr) {
      clear(state[k], block_lanes);
    } else {
      load_neurons(state[k], arrays[k], rows, row, block.lane, block.lanes);
    }
  }
}

/// Terms of this many steps are summed in the arithmetic type before they go to the doubles.
constexpr std::int64_t partial_steps = 16;

/// The backward pass of a row, last step first.
template <class V>
class BackwardRow {
 public:
  BackwardRow(const BackwardPlan<V>& plan, std::int64_t index, int thread)
      : plan_(plan),
        layout_(plan.layout),
        model_(stages_of<V>(plan.model)),
        stages_(model_.backward[static_cast<int>(plan.method)][plan.variant]),
        with_terms_(wants_terms(plan)),
        carver_(plan.slots + thread * plan.slot_bytes),
        memory_(carver_, {model_.parameters, model_.states}, plan.fir, plan.rows, lanes_of(plan.rows, index), plan.segment, with_terms_,
                plan.method == Method::bptt),
        row_(make_row(layout_, plan.rows, index, memory_.cut.blocks)),
        fir_(plan, row_, memory_.fir),
        recurrence_(plan.weights, plan.transposed_weights, plan.rows, row_, memory_.recurrent) {
    if (plan.tape != nullptr) tape_ = plan.tape + index * plan.tape_elements;
    with_before_ = with_terms_ || plan.method == Method::bptt;
    if (!with_terms_ && !fir_.with_terms(0)) current_.array = nullptr;
    for (Input<V>* input : inputs_) {
      if (input->in_place(row_)) in_place_[in_place_count_++] = input;
    }
    set_ahead<V>(ahead_, row_, -1, down_);
    clear(memory_.zeros, block_lanes);
    clear(memory_.carry.first, model_.states * memory_.carry.stride);
    clear(memory_.before.first, model_.states * memory_.before.stride);
    if (with_terms_) {
      clear(memory_.sums.first, model_.parameters * memory_.sums.stride);
      clear(memory_.partial.first, model_.parameters * memory_.partial.stride);
    }
    set_work();
    set_surrogate();
  }

  void run() {
    if (tape_ != nullptr) mark_segments();
    for (std::int64_t k = (layout_.time + plan_.segment - 1) / plan_.segment - 1; k >= 0; --k) {
      const std::int64_t begin = k * plan_.segment, end = smaller(begin + plan_.segment, layout_.time);
      segment_begin_ = begin;
      seek(begin, end);
      if (tape_ != nullptr) rebuild_segment(k, end);
      if (with_fir_) fir_.enter(begin);
      for (std::int64_t step = end - 1; step > begin; --step, step_back()) run_step(step);
      run_step(begin);
      grad_current_.flush(layout_, plan_.rows, row_, begin, end);
    }
    if (stream_) finish_streaming();
    for (int k = 0; k < model_.parameters; ++k) {
      if (plan_.sums[k] != nullptr) copy_lanes(plan_.sums[k] + row_.begin, memory_.sums[k], row_.lanes);
    }
    if (recurrence_.given()) recurrence_.gather();
    if (with_fir_) {
      fir_.finish(memory_.carry[spikes_carry()]);
      for (int k = 0; k < model_.states; ++k) work_.carry[k] = memory_.carry[k];
    }
    for (int b = 0; b < row_.block_count; ++b) finish_block(row_.blocks[b]);
  }

 private:
  struct Step {
    std::int64_t n;
    bool first, last;
    V* result;
  };

  void set_work() {
    set_parameters(work_.parameters, memory_.parameters, plan_.parameters, model_.parameters, plan_.rows, row_);
    work_.cap = plan_.cap;
    work_.grad_current = memory_.grad;
    for (int k = 0; k < model_.states; ++k) {
      work_.before[k] = work_.initial[k] = memory_.before[k];
      work_.direct[k] = memory_.zeros;
      work_.carry[k] = memory_.carry[k], work_.grad_initial[k] = memory_.grad_initial[k];
    }
    if (tape_ != nullptr) {
      for (int k = 1; k < model_.states; ++k) work_.before[k] = tape_ + (k - 1) * (plan_.segment + 1) * plan_.rows.lanes;
    }
    for (int k = 0; k < model_.parameters; ++k) {
      work_.sums[k] = plan_.sums[k] == nullptr ? memory_.unwanted_terms : memory_.partial[k];
      work_.sums_follow[k] = plan_.sums[k] == nullptr ? 0 : ~0;
    }
    adjoint_ = with_terms_ ? stages_.adjoint_with_terms : work_.parameters.all_scalar ? stages_.adjoint_shared : stages_.adjoint;
    from_carry_ = stages_.carries_gradient && adjoint_ == stages_.adjoint_shared;
    if (model_.gain >= 0) gain_ = work_.parameters.lanes[model_.gain][0];
  }

  void set_surrogate() {
    if (!model_.fires || plan_.surrogate.values != nullptr) return;
    const Surrogate<V>& surrogate = plan_.surrogate;
    bend_ = {
        work_.parameters.lanes[model_.threshold], surrogate.scale, surrogate.shape[0], surrogate.shape[1], surrogate.shape[2], memory_.h};
    const bool one_threshold = work_.parameters.follow[model_.threshold] == 0;
    surrogate_stage_ = surrogate_stages<V>[static_cast<int>(surrogate.kind)][one_threshold ? 1 : 0];
  }

  /// Makes steps [begin, end) readable and goes to the last of them.
  void seek(std::int64_t begin, std::int64_t end) {
    for (Input<V>* input : inputs_) seek_input(*input, begin, end);
    grad_current_.begin = row_.tiled ? begin : 0;
  }

  void seek_input(Input<V>& input, std::int64_t begin, std::int64_t end) const {
    // One step more of the potential, for the state before the tile's first step.
    const bool earlier = &input == &potential_ && begin > 0 && (with_before_ || tape_ != nullptr);
    input.seek(layout_, plan_.rows, row_, earlier ? begin - 1 : begin, end, end - 1, memory_.zeros);
  }

  /// Where the state after a step of the present segment (-1: before its first) begins in the tape's array of a state.
  std::int64_t slot(std::int64_t step) const { return (step - segment_begin_ + 1) * plan_.rows.lanes; }

  /// The state before a segment.
  V* mark(std::int64_t segment, int state) const {
    const std::int64_t arrays = model_.states - 1, steps = plan_.segment + 1;
    return tape_ + (arrays * (steps + segment) + state - 1) * plan_.rows.lanes;
  }

  /// The hidden states after a step, which is `back` steps before the inputs' present one, from those before it; these are `from` and `to`
  /// in the tape.
  void rebuild_step(std::int64_t step, std::int64_t from, std::int64_t to, std::int64_t back) const {
    const bool recurrent = recurrence_.given() && current_.array != nullptr;
    if (recurrent) recurrence_.feel_spikes(work_.before[1] + from);
    for (int b = 0; b < row_.block_count; ++b) {
      const Block& block = row_.blocks[b];
      const V* const potential = potential_[block] - back * potential_.stride;
      const V* before = potential - potential_.stride;
      if (step == 0) {
        load_state(memory_.before, plan_.initial, 1, plan_.rows, row_, block);
        before = memory_.before[0];
      }
      const V* current = current_[block] - back * current_.stride;
      if (recurrent) current = recurrence_.current(block, current);
      stages_.rebuild(work_, block.lane, block.lanes, potential, before, current, from + block.lane, to + block.lane);
    }
  }

  /// Runs the hidden states forward through all of time and keeps the ones before each segment.
  void mark_segments() {
    for (int k = 1; k < model_.states; ++k) {
      copy_entry(mark(0, k), plan_.initial[k], 0, plan_.rows, row_);
    }
    for (std::int64_t segment = 0, begin = 0; begin + plan_.segment < layout_.time; ++segment, begin += plan_.segment) {
      const std::int64_t end = begin + plan_.segment;
      seek_input(potential_, begin, end);
      seek_input(current_, begin, end);
      for (int k = 1; k < model_.states; ++k) copy_lanes(work_.before[k], mark(segment, k), row_.lanes);
      // The tape's first two slots in turn.
      for (std::int64_t n = begin; n < end; ++n) {
        rebuild_step(n, (n - begin) % 2 * plan_.rows.lanes, (n - begin + 1) % 2 * plan_.rows.lanes, end - 1 - n);
      }
      const std::int64_t last = plan_.segment % 2 * plan_.rows.lanes;
      for (int k = 1; k < model_.states; ++k) copy_lanes(mark(segment + 1, k), work_.before[k] + last, row_.lanes);
    }
  }

  /// The hidden states of the steps of a segment, which is loaded.
  void rebuild_segment(std::int64_t segment, std::int64_t end) {
    for (int k = 1; k < model_.states; ++k) copy_lanes(work_.before[k], mark(segment, k), row_.lanes);
    for (std::int64_t n = segment_begin_; n < end; ++n) rebuild_step(n, slot(n - 1), slot(n), end - 1 - n);
  }

  void step_back() {
    for (Input<V>* input : inputs_) input->now -= input->stride;
  }

  void run_step(std::int64_t n) {
    const Step step{n, n == 0, n == layout_.time - 1, fir_.given(0) ? nullptr : grad_current_.at(row_, n)};
    if (recurrence_.given()) before_recurrent_step(step);
    if (with_fir_) before_fir_step(n);
    // Where the next step lies in other pages, two lines of each at once: the second-level cache's prefetcher then follows, which was
    // faster by a twentieth.
    for (int k = 0; !down_ && !step.first && k < in_place_count_; ++k) {
      prefetch(in_place_[k]->now - row_.step_stride + row_.blocks[0].offset, 2 * line_lanes<V>, false);
    }
    for (int b = 0; b < row_.block_count; ++b) {
      const int inputs = n >= ahead_[b].steps ? in_place_count_ : 0;
      run_block(row_.blocks[down_ ? row_.block_count - 1 - b : b], step, ahead_[b], inputs);
    }
    if (with_fir_) after_fir_step(n);
    if (recurrence_.given() && fir_.given(0)) copy_lanes(recurrence_.gradient(), fir_.gathered(0, n), row_.lanes);
    if (step.last) {
      for (int k = 0; k < model_.states; ++k) work_.direct[k] = memory_.zeros;
    }
    if (with_terms_ && n % partial_steps == 0) {
      for (int k = 0; k < model_.parameters; ++k) {
        if (plan_.sums[k] != nullptr) move_sums(memory_.sums[k], memory_.partial[k], row_.lanes);
      }
    }
  }

  /// `ahead` is to be prefetched of the first `inputs` of `in_place_`.
  void run_block(const Block& block, const Step& step, const Ahead& ahead, int inputs) {
    // In two bursts, so that the processor has room for their misses.
    if (inputs > 0) prefetch(in_place_[0]->now + ahead.offset, ahead.lanes, down_);
    const V* const u = potential_[block];
    const V* e = grad_spikes_[block];
    const V* q = grad_potential_[block];
    if (step.last) {
      q = with_final(q, plan_.grad_final[0], plan_.rows, row_, block, memory_.q_sum);
      if (model_.fires) e = with_final(e, plan_.grad_final[1], plan_.rows, row_, block, memory_.e_sum);
      load_state(memory_.direct, plan_.grad_final, model_.states, plan_.rows, row_, block);
      for (int k = model_.hidden; k < model_.states; ++k) work_.direct[k] = memory_.direct[k];
    } else if (recurrence_.given()) {
      e = recurrence_.grad_spikes(block, e);
    }
    const V* h = memory_.h;
    if (surrogate_stage_ != nullptr) {
      if (model_.fires_by_hidden) stages_.drive(work_, block.lanes, u, slot(step.n) + block.lane, memory_.drive);
      surrogate_stage_(bend_, block.lane, block.lanes, model_.fires_by_hidden ? memory_.drive : u);
    } else {
      h = surrogate_[block];
    }
    for (int k = 1; k < inputs; ++k) prefetch(in_place_[k]->now + ahead.offset, ahead.lanes, down_);
    const V* u_before = memory_.zeros;
    std::int64_t from = 0;
    if (with_before_ && !step.first) {
      u_before = u - potential_.stride;
      if (tape_ == nullptr) stages_.record(work_, block.lane, block.lanes, u_before, memory_.before[1]);
    } else if (with_before_) {
      load_state(memory_.before, plan_.initial, model_.states, plan_.rows, row_, block);
      u_before = memory_.before[0];
    }
    if (tape_ != nullptr) from = slot(step.n - 1) + block.lane;
    const V* const a = felt_ ? recurrence_.currents() + block.lane : current_[block];
    adjoint_(work_, block.lane, block.lanes, u, u_before, from, h, e, q, a);
    if (with_fir_) note_fir_block(block, step.n, u, a);
    if (recurrence_.given() && !fir_.given(0)) note_gradient(block);
    if (step.result == nullptr) return;
    if (from_carry_) {
      store_scaled(step.result + block.offset, memory_.carry[0] + block.lane, gain_, block.lanes, stream_);
    } else {
      store_lanes(step.result + block.offset, memory_.grad, block.lanes, stream_);
    }
  }

  /// The carry of what the spikes of a step get from the steps after it.
  int spikes_carry() const { return bptt_ ? 1 : stages_.hidden_carry + kernel_states; }

  /// A kernel with taps carries nothing from step to step: what its input gets was summed over the taps. The adjoint takes it where a
  /// recursion of the spikes' kernel has its X, and leaves lam where that has its Y (for BPTT: both in place of the spikes).
  void before_fir_step(std::int64_t n) {
    const bool ends_group = n == layout_.time - 1 || (n + 1) % fir_steps == 0;
    if (ends_group) fir_.before_group(n / fir_steps * fir_steps, n);
    fir_.before_step(n);
    if (fir_.given(1)) {
      work_.carry[spikes_carry()] = fir_.gathered(1, n);
      if (!bptt_) work_.carry[stages_.hidden_carry + kernel_states + 1] = fir_.lam(n);
    } else if (!bptt_) {
      work_.carry[stages_.hidden_carry + 1] = fir_.lam(n);
    }
    for (int k = 0; fir_.given(0) && !fir_.given(1) && k < kernel_states; ++k)
      clear_row(memory_.carry[stages_.hidden_carry + k], row_.lanes);
  }

  /// Keeps a block's lam, where it is not in its place, and the inputs of kernels.
  void note_fir_block(const Block& block, std::int64_t n, const V* u, const V* a) {
    if (bptt_) {
      const V* const of_current = from_carry_ ? memory_.carry[0] + block.lane : memory_.grad;
      copy_lanes(fir_.lam(n) + block.lane, fir_.given(1) ? work_.carry[1] + block.lane : of_current, block.lanes);
    }
    if (fir_.with_terms(0)) copy_lanes(fir_.input(0, n) + block.lane, a, block.lanes);
    if (fir_.with_terms(1)) stages_.record(work_, block.lane, block.lanes, u, fir_.input(1, n) + block.lane);
  }

  void after_fir_step(std::int64_t n) {
    fir_.after_step(n);
    if (recurrence_.given()) gather_current(n, n);
    if (n % fir_steps != 0) return;
    const std::int64_t last = smaller(n + fir_steps, layout_.time) - 1;
    if (!recurrence_.given()) gather_current(n, last);
    fir_.after_group(n, last);
  }

  /// What the current of some steps gets through its kernel with taps.
  void gather_current(std::int64_t first, std::int64_t last) {
    if (!fir_.given(0)) return;
    fir_.gather_current(first, last);
    for (std::int64_t step = first; plan_.grad_current != nullptr && step <= last; ++step) {
      V* const result = grad_current_.at(row_, step);
      for (int b = 0; b < row_.block_count; ++b) {
        const Block& block = row_.blocks[b];
        store_lanes(result + block.offset, fir_.gathered(0, step) + block.lane, block.lanes, stream_);
      }
    }
  }

  /// What a step gets from the step after it through the recurrence, and what it felt of the spikes before it.
  void before_recurrent_step(const Step& step) {
    felt_ = current_.array != nullptr;
    if (felt_) {
      recurrence_.feel_spikes(tape_ != nullptr ? work_.before[1] + slot(step.n - 1) : spikes_before(step));
      for (int b = 0; b < row_.block_count; ++b) recurrence_.current(row_.blocks[b], current_[row_.blocks[b]]);
    }
    if (!step.last) recurrence_.gather();
  }

  /// The spikes before a step, of a model whose potential tells them.
  V* spikes_before(const Step& step) {
    V* const spikes = recurrence_.spikes();
    if (step.first) {
      copy_entry(spikes, plan_.initial[1], 0, plan_.rows, row_);
      return spikes;
    }
    for (int b = 0; b < row_.block_count; ++b) {
      const Block& block = row_.blocks[b];
      stages_.record(work_, block.lane, block.lanes, potential_[block] - potential_.stride, spikes + block.lane);
    }
    return spikes;
  }

  /// Keeps a block's gradient of the current for the step before.
  void note_gradient(const Block& block) {
    V* const gradient = recurrence_.gradient() + block.lane;
    if (from_carry_) {
      store_scaled(gradient, memory_.carry[0] + block.lane, gain_, block.lanes, false);
    } else {
      copy_lanes(gradient, memory_.grad, block.lanes);
    }
  }

  /// dL/d(initial state).
  void finish_block(const Block& block) {
    load_state(memory_.before, plan_.initial, model_.states, plan_.rows, row_, block);
    stages_.initial(work_, block.lane, block.lanes);
    if (recurrence_.given()) recurrence_.add_to(block, memory_.grad_initial[1]);
    for (int k = 0; k < model_.states; ++k) {
      if (plan_.grad_initial[k] != nullptr) {
        store_neurons(plan_.grad_initial[k], memory_.grad_initial[k], plan_.rows, row_, block.lane, block.lanes);
      }
    }
  }

  const BackwardPlan<V>& plan_;
  const Layout& layout_;
  const ModelStages<V>& model_;
  const BackwardStages<V>& stages_;
  const bool with_terms_;   ///< gradients of parameters are wanted
  Carver carver_;
  const BackwardMemory<V> memory_;
  const Row row_;
  BackwardFir<V> fir_;
  const RecurrentRow<V> recurrence_;
  const bool with_fir_ = with_fir(plan_.fir);
  const bool bptt_ = plan_.method == Method::bptt;
  V* tape_ = nullptr;   ///< null: no hidden states are needed
  std::int64_t segment_begin_ = 0;
  Input<V> potential_{plan_.potential, memory_.tiles[0]};
  Input<V> grad_spikes_{plan_.grad_spikes, memory_.tiles[1]};
  Input<V> grad_potential_{plan_.grad_potential, memory_.tiles[2]};
  Input<V> current_{plan_.current, memory_.tiles[3]};
  Input<V> surrogate_{plan_.surrogate.values, memory_.tiles[4]};
  Input<V>* const inputs_[5] = {&potential_, &grad_spikes_, &grad_potential_, &current_, &surrogate_};
  Input<V>* in_place_[5];
  int in_place_count_ = 0;
  Ahead* const ahead_ = memory_.cut.ahead;
  Output<V> grad_current_{plan_.grad_current, memory_.tiles[5]};
  AdjointRow<V> work_;
  SurrogateRow<V> bend_{};
  AdjointStage<V> adjoint_ = nullptr;
  SurrogateStage<V> surrogate_stage_ = nullptr;   ///< null where h is given, or not needed
  V gain_ = V(1);
  bool from_carry_ = false;    ///< the gradient of the current is the gain times the first carry
  bool with_before_ = false;   ///< the state before each step is needed
  bool felt_ = false;          ///< the recurrence holds the present step's current with what it felt
  const bool stream_ = plan_.stream && plan_.rows.tile_steps == 0;
  const bool down_ = plan_.rows.lanes == layout_.inner;   ///< the row is one piece of memory through all of time
};

template <class V>
void backward_row(const BackwardPlan<V>& plan, std::int64_t index, int thread) {
  BackwardRow<V>(plan, index, thread).run();
}

template <class V>
void evaluate_range(const Surrogate<V>& surrogate, const Param<V>& threshold, std::int64_t begin, std::int64_t end, const V* potential,
                    V* h) {
  alignas(64) V thresholds[block_lanes], values[block_lanes];
  const SurrogateRow<V> row{thresholds, surrogate.scale, surrogate.shape[0], surrogate.shape[1], surrogate.shape[2], values};
  for (std::int64_t first = begin; first < end; first += block_lanes) {
    const int lanes = static_cast<int>(smaller(block_lanes, end - first));
    for (int i = 0; i < lanes; ++i) {
      thresholds[i] = threshold.data == nullptr ? threshold.value : threshold.data[(first + i) / threshold.repeat % threshold.count];
    }
    surrogate_stages<V>[static_cast<int>(surrogate.kind)][0](row, 0, lanes, potential + first);
    copy_lanes(h + first, values, lanes);
  }
}

}   // namespace
}   // namespace exodus::cpu
