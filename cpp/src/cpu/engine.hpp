/// @file
/// The CPU engine: the time loop of a row of neurons. At each step it runs the stages one after another over blocks of lanes. Intermediate
/// results and the row's state stay in the first-level cache as arrays of lanes. The engine contains nothing that is specific to a model.
///
/// An array whose inner axis is wide enough to fill blocks is used in place. For other arrays (also those with time last), a tile of
/// several steps is transposed on input and on output.
#pragma once

#include "models.hpp"
#include "operators/operators.hpp"
#include "rows.hpp"

namespace exodus::cpu {
namespace {

/// The argument of the stage that computes a surrogate of the table, for the threshold of this index.
template <class V>
SurrogateRow<V> surrogate_row_of(const Surrogate<V>& surrogate, const ParameterLanes<V>& parameters, int threshold, V* h) {
  return {parameters.lanes[threshold], surrogate.scale, surrogate.shape[0], surrogate.shape[1], surrogate.shape[2], h};
}

template <class V>
SurrogateStage<V> surrogate_stage_of(const Surrogate<V>& surrogate, const ParameterLanes<V>& parameters, int threshold) {
  const bool one_threshold = parameters.follow[threshold] == 0;
  return surrogate_stages<V>[static_cast<int>(surrogate.kind)][one_threshold ? 1 : 0];
}

/// The forward pass of a row.
template <class V>
class ForwardRow {
  static constexpr int word_lanes = 64;   // of a word of bits, which all are neurons of one step

 public:
  ForwardRow(const ForwardPlan<V>& plan, std::int64_t index, int thread)
      : plan_(plan),
        layout_(plan.layout),
        model_(stages_of<V>(plan.model)),
        segment_steps_(segment_steps_of(plan.fir, plan.rows, layout_.time)),
        arena_(plan.slots + thread * plan.slot_bytes),
        memory_(arena_, {model_.parameters, model_.states}, plan.fir, plan.rows, lanes_of(plan.rows, index), segment_steps_),
        row_(make_row(layout_, plan.rows, index, memory_.cut.blocks, block_lanes)),
        operators_(plan, row_, memory_.fir, memory_.recurrent, memory_.state[1]) {
    set_parameters(work_.parameters, memory_.parameters, plan.parameters, model_.parameters, plan.rows, row_);
    step_of_model_ = model_.forward[plan.variant][work_.parameters.all_scalar ? 1 : 0];
    work_.most_spikes = plan.most_spikes;
    work_.feedback = operators_.feedback();
    for (int k = 0; k < model_.states; ++k) {
      work_.state[k] = memory_.state[k];
      copy_entry(memory_.state[k], plan.initial[k], 0, plan.rows, row_);
    }
    const bool with_bits = plan.fired.words != nullptr || plan.support.words != nullptr;
    for (int k = 0; with_bits && k < row_.lanes / word_lanes; ++k) {
      memory_.words[k] = element_index(layout_, plan.rows, 0, row_.begin + k * word_lanes) / word_lanes;
    }
    if (plan.support.words != nullptr) {
      surrogate_row_ = surrogate_row_of(plan.surrogate, work_.parameters, model_.threshold, memory_.surrogate);
      surrogate_stage_ = surrogate_stage_of(plan.surrogate, work_.parameters, model_.threshold);
    }
    set_ahead<V>(ahead_, row_, +1, false, CacheLevel::first);
    for (int b = 0; operators_.filters_current() && b < row_.block_count; ++b) {
      // Two step groups ahead: the next group is copied before its sums begin, and while they run memory is free for the one after it.
      ahead_[b] = {row_.blocks[b].offset + 2 * fir_steps * row_.step_stride, 2 * fir_steps, row_.blocks[b].lanes};
    }
  }

  /// Runs steps [begin, end). Calls must be in order of time.
  void advance(std::int64_t begin, std::int64_t end) {
    for (; begin < end; begin += segment_steps_) run_segment(begin, smaller(begin + segment_steps_, end));
    if (stream_) finish_streaming();
  }

  /// Stores the final state, after the last step.
  void finish() const {
    for (int k = 0; k < model_.states; ++k) {
      if (plan_.final[k] != nullptr) store_entry(plan_.final[k], 0, memory_.state[k], plan_.rows, row_);
    }
    operators_.finish();
    add_count(plan_.fired, fired_);
    add_count(plan_.support, supported_);
  }

 private:
  void run_segment(std::int64_t begin, std::int64_t end) {
    current_.seek(layout_, plan_.rows, row_, begin, end, begin, nullptr);
    for (Output<V>& output : history_) output.begin = row_.tiled() ? begin : 0;
    operators_.enter(begin, end);
    const bool prefetches = row_.prefetched() && end < layout_.time;
    const NextTile next = prefetches ? NextTile(layout_, row_, end, smaller(end + segment_steps_, layout_.time), end - begin) : NextTile();
    for (std::int64_t step = begin; step < end; ++step, current_.now += current_.stride) {
      if (prefetches) prefetch_next(next, step - begin);
      run_step(step);
    }
    for (const Output<V>& output : history_) output.flush(layout_, plan_.rows, row_, begin, end);
  }

  /// Prefetches a share of the next tiles. Always inlined, as prefetch() is.
  [[gnu::always_inline]] void prefetch_next(const NextTile& next, std::int64_t share) const {
    prefetch_tile<V>(current_.array, current_.format, next, share);
    for (const Output<V>& output : history_) prefetch_tile<V>(output.array, output.format, next, share);
  }

  void run_step(std::int64_t step) {
    const std::int64_t steps_left = row_.tiled() ? -1 : layout_.time - 1 - step;
    const V* const lanes = with_operators_ ? operators_.gather(step, current_) : nullptr;
    V* const results[2] = {history_[0].at(row_, step), history_[1].at(row_, step)};
    // Local copies: for the compiler, a stored vector may change members.
    const StepStage<V> step_of_model = step_of_model_;
    const Input<V> current = current_;
    const Row row = row_;
    const Ahead* const ahead = ahead_;
    const V* const state[2] = {work_.state[0], work_.state[1]};
    const bool stream = stream_;
    for (int b = 0; b < row.block_count; ++b) {
      const Block& block = row.blocks[b];
      if (ahead[b].steps <= steps_left) prefetch(current.now + ahead[b].offset, ahead[b].lanes, false);
      step_of_model(work_, block.lane, block.lanes, lanes != nullptr ? lanes + block.lane : current[block]);
#pragma GCC unroll 2
      for (int k = 0; k < 2; ++k) {
        if (results[k] != nullptr) store_lanes(results[k] + block.offset, state[k] + block.lane, block.lanes, stream);
      }
    }
    if (plan_.fired.words != nullptr) fired_ += write_bits(plan_.fired.words, step, work_.state[1]);
    if (plan_.support.words != nullptr) {
      surrogate_stage_(surrogate_row_, 0, row_.lanes, work_.state[0]);
      supported_ += write_bits(plan_.support.words, step, surrogate_row_.h);
    }
  }

  /// Writes which lanes are not 0 at a step, while they are in the first-level cache, and returns their number.
  std::int64_t write_bits(std::uint64_t* words, std::int64_t step, const V* lanes) const {
    words += step * (layout_.inner / word_lanes);
    std::int64_t count = 0;
    for (int k = 0; k < row_.lanes / word_lanes; ++k) {
      const std::uint64_t word = nonzero_word(lanes + k * word_lanes);
      words[memory_.words[k]] = word;
      count += __builtin_popcountll(word);
    }
    return count;
  }

  /// Adds to what all rows count.
  static void add_count(const ElementBits& bits, std::int64_t count) {
    if (bits.words != nullptr && bits.count != nullptr) __atomic_fetch_add(bits.count, count, __ATOMIC_RELAXED);
  }

  const ForwardPlan<V>& plan_;
  const Layout& layout_;
  const ModelStages<V>& model_;
  const std::int64_t segment_steps_;   ///< steps in a tile, or steps that FIR kernels process at a time
  Arena arena_;
  const ForwardMemory<V> memory_;
  const Row row_;
  ForwardOperators<V> operators_;
  const bool with_operators_ = operators_.given();
  Input<V> current_{plan_.current, memory_.tiles[0], plan_.format};
  Output<V> history_[2] = {{plan_.potential, memory_.tiles[1]},   // the first two states
                           {plan_.spikes, memory_.tiles[2], plan_.format}};
  Ahead* const ahead_ = memory_.cut.ahead;
  StepRow<V> work_;
  StepStage<V> step_of_model_;
  SurrogateRow<V> surrogate_row_{};
  SurrogateStage<V> surrogate_stage_ = nullptr;
  std::int64_t fired_ = 0, supported_ = 0;   ///< bits that are set
  const bool stream_ = plan_.stream && !row_.tiled();
};

template <class V>
void forward_row(const ForwardPlan<V>& plan, std::int64_t index, int thread) {
  ForwardRow<V> row(plan, index, thread);
  row.advance(0, plan.layout.time);
  row.finish();
}

/// The direct gradient of the last step with dL/d(final state) added, if that is given.
template <class V>
const V* with_final(const V* direct, const V* final, const Rows& rows, const Row& row, const Block& block, V* sum) {
  if (final == nullptr) return direct;
  load_neurons(sum, final, rows, row, block.lane, block.lanes);
  EXODUS_LANES
  for (int i = 0; i < block.lanes; ++i) sum[i] = direct[i] + sum[i];
  return sum;
}

/// Loads a block of a state, or of its gradient. Arrays that were not given read as zeros.
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

/// Terms of this many steps are summed in the arithmetic type before they are added to the doubles.
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
        arena_(plan.slots + thread * plan.slot_bytes),
        memory_(arena_, {model_.parameters, model_.states}, plan.fir, plan.rows, lanes_of(plan.rows, index), layout_.time,
                plan.segment_steps, plan.taped, with_terms_, plan.method == Method::bptt),
        row_(make_row(layout_, plan.rows, index, memory_.cut.blocks, with_terms_ ? summing_block_lanes : block_lanes)),
        operators_(plan, row_, memory_.fir, memory_.recurrent) {
    with_before_ = with_terms_ || plan.method == Method::bptt;
    if (!with_terms_ && !operators_.reads_current() && !recomputes_) inputs_[Of::current].array = nullptr;
    receives_ = operators_.recurrent() && inputs_[Of::current].array != nullptr;
    if (with_terms_) to_first_read_ = -row_.step_stride;
    set_ahead<V>(ahead_, row_, -1, down_, to_level_);
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

  /// Runs steps [begin, end) in reverse; later steps must have run before. `begin` is a multiple of a segment, and so is `end` unless it is
  /// the end of time. Call make_checkpoints() first.
  void advance(std::int64_t begin, std::int64_t end) {
    for (std::int64_t k = (end - 1) / plan_.segment_steps; k * plan_.segment_steps >= begin; --k) run_segment(k, end);
    if (stream_) finish_streaming();
  }

  /// After step 0: stores the sums over the row's steps, and dL/d(initial state).
  void finish() {
    for (int k = 0; k < model_.parameters; ++k) {
      if (plan_.sums[k] != nullptr) store_at_places(plan_.sums[k], memory_.sums[k], row_);
    }
    if (with_operators_) operators_.finish();
    for (int b = 0; b < row_.block_count; ++b) finish_block(row_.blocks[b]);
  }

  /// Recomputes the states of all steps that the tape is for, and stores those before each segment as a checkpoint.
  void make_checkpoints() {
    if (tape_ == nullptr) return;
    for (int k = first_taped_; k < model_.states; ++k) copy_entry(checkpoint(0, k), plan_.initial[k], 0, plan_.rows, row_);
    for (std::int64_t segment = 0, begin = 0; begin + plan_.segment_steps < layout_.time; ++segment, begin += plan_.segment_steps) {
      const std::int64_t end = begin + plan_.segment_steps;
      seek_input(Of::potential, begin, end);
      seek_input(Of::current, begin, end);
      return_to_checkpoint(segment);
      // Alternates between the first two slots of the tape.
      for (std::int64_t n = begin; n < end; ++n) {
        rebuild_step(n, (n - begin) % 2 * plan_.rows.lanes, (n - begin + 1) % 2 * plan_.rows.lanes, end - 1 - n);
      }
      const std::int64_t last = plan_.segment_steps % 2 * plan_.rows.lanes;
      for (int k = first_taped_; k < model_.states; ++k) copy_lanes(checkpoint(segment + 1, k), work_.before[k] + last, row_.lanes);
    }
  }

 private:
  /// The inputs over time, by their place in `inputs_`.
  struct Of {
    enum : int { potential, grad_spikes, grad_potential, current, surrogate, count };
  };
  struct Inputs {
    Input<V> at[Of::count];
    Input<V>& operator[](int k) { return at[k]; }
    const Input<V>& operator[](int k) const { return at[k]; }

    void step_back() {
      for (Input<V>& input : at) input.now -= input.stride;
    }
  };

  struct Step {
    std::int64_t n;
    bool first, last;
    V* result;
  };

  void set_work() {
    set_parameters(work_.parameters, memory_.parameters, plan_.parameters, model_.parameters, plan_.rows, row_);
    work_.most_spikes = plan_.most_spikes;
    work_.grad_current = memory_.grad;
    work_.grad_current_follows = 0;
    work_.grad_feedback = nullptr;
    for (int k = 0; k < model_.states; ++k) {
      work_.before[k] = work_.initial[k] = memory_.before[k];
      work_.grad_state[k] = memory_.zeros;
      work_.carry[k] = memory_.carry[k], work_.grad_initial[k] = memory_.grad_initial[k];
    }
    for (int k = first_taped_; tape_ != nullptr && k < model_.states; ++k) {
      work_.before[k] = tape_ + (k - first_taped_) * (plan_.segment_steps + 1) * plan_.rows.lanes;
    }
    if (recomputes_) {
      step_of_model_ = model_.forward[plan_.variant][work_.parameters.all_scalar ? 1 : 0];
      step_work_ = {work_.parameters, {}, plan_.most_spikes, nullptr};
      for (int k = 0; k < model_.states; ++k) step_work_.state[k] = memory_.state[k];
    }
    for (int k = 0; k < model_.parameters; ++k) {
      work_.sums[k] = plan_.sums[k] == nullptr ? memory_.unwanted_terms : memory_.partial[k];
      work_.sums_follow[k] = plan_.sums[k] == nullptr ? 0 : ~0;
    }
    // A recurrence reads the gradient of the current as lanes, which the shared stage may not store.
    const bool shared = work_.parameters.all_scalar && !operators_.recurrent();
    const int terms = fewest_terms();
    const bool by_shared = shared && terms < static_cast<int>(Terms::all);
    first_adjoint_ = stages_.adjoint[with_terms_ ? 1 : 0];
    adjoint_ = by_shared ? stages_.adjoint_shared[terms] : first_adjoint_;
    from_carry_ = stages_.carries_gradient && by_shared;
    records_ = tape_ == nullptr && !(by_shared && stages_.restores_spikes) && (stages_.spike_readers & (wanted_terms() | carry_bit)) != 0;
    if (model_.gain >= 0) gain_ = work_.parameters.lanes[model_.gain][0];
  }

  /// The parameters whose gradients are wanted, one bit each.
  unsigned wanted_terms() const {
    unsigned wanted = 0;
    for (int k = 0; k < model_.parameters; ++k) wanted |= plan_.sums[k] == nullptr ? 0 : 1u << k;
    return wanted;
  }

  /// The fewest terms that have all wanted ones.
  int fewest_terms() const {
    int terms = 0;
    while (terms < static_cast<int>(Terms::all) && (wanted_terms() & ~model_.summed[terms]) != 0) ++terms;
    return terms;
  }

  void set_surrogate() {
    if (!model_.fires || plan_.surrogate.values != nullptr) return;
    surrogate_row_ = surrogate_row_of(plan_.surrogate, work_.parameters, model_.threshold, memory_.h);
    surrogate_stage_ = surrogate_stage_of(plan_.surrogate, work_.parameters, model_.threshold);
  }

  /// Makes steps [begin, end) of all inputs readable and moves to the last of them.
  void seek(std::int64_t begin, std::int64_t end) {
    for (int k = 0; k < Of::count; ++k) seek_input(k, begin, end);
    grad_current_.begin = row_.tiled() ? begin : 0;
  }

  void seek_input(int input, std::int64_t begin, std::int64_t end) {
    // The potential needs one step more, for the state before the tile's first step, or for its spikes, which the current receives.
    const bool earlier = input == Of::potential && begin > 0 && (with_before_ || tape_ != nullptr || receives_);
    inputs_[input].seek(layout_, plan_.rows, row_, earlier ? begin - 1 : begin, end, end - 1, memory_.zeros);
  }

  /// The offset, in the tape's array of a state, of the lanes after a step of the current segment. The state before the segment is first.
  std::int64_t tape_offset(std::int64_t step) const { return (step - segment_begin_ + 1) * plan_.rows.lanes; }

  /// The lanes of a state before a segment.
  V* checkpoint(std::int64_t segment, int state) const {
    const std::int64_t arrays = model_.states - first_taped_, steps = plan_.segment_steps + 1;
    return tape_ + (arrays * (steps + segment) + state - first_taped_) * plan_.rows.lanes;
  }

  void run_segment(std::int64_t segment, std::int64_t end) {
    const std::int64_t begin = segment * plan_.segment_steps;
    end = smaller(begin + plan_.segment_steps, end);
    segment_begin_ = begin;
    seek(begin, end);
    if (tape_ != nullptr) rebuild_segment(segment, end);
    operators_.enter(begin);
    const bool prefetches = row_.prefetched() && begin > 0;
    const NextTile next = prefetches ? NextTile(layout_, row_, begin - plan_.segment_steps, begin, end - begin) : NextTile();
    // Later steps first: those after the ordinary ones, these, and those before.
    const bool ordinary = !with_operators_ && !records_;
    const std::int64_t ordinary_begin = begin > 0 ? begin : 1, ordinary_end = ordinary ? smaller(end, layout_.time - 1) : begin;
    run_steps<false>(ordinary_end > begin ? ordinary_end : begin, end, end, next);
    run_steps<true>(ordinary_begin, ordinary_end, end, next);
    run_steps<false>(begin, smaller(ordinary_begin, ordinary_end), end, next);
    grad_current_.flush(layout_, plan_.rows, row_, begin, end);
  }

  /// Runs steps [begin, end) of a segment that ends at `segment_end`, in reverse. `Ordinary` steps are neither the first nor the last of
  /// all, take nothing from an operator and record no spikes. They run without the code for such, and with local inputs, because for the
  /// compiler a stage may change members: small blocks notice what the engine costs (benchmarks/bandwidth.py, batch first).
  template <bool Ordinary>
  void run_steps(std::int64_t begin, std::int64_t end, std::int64_t segment_end, const NextTile& next) {
    Inputs inputs = inputs_;
    for (std::int64_t n = end - 1; n >= begin; --n) {
      if (next.share > 0) prefetch_next(next, segment_end - 1 - n);
      run_step<Ordinary>(inputs, n);
      if (n > segment_begin_) inputs.step_back();
    }
    inputs_ = inputs;
  }

  /// Prefetches a share of the tiles before the present ones. Always inlined, as prefetch() is.
  [[gnu::always_inline]] void prefetch_next(const NextTile& next, std::int64_t share) const {
    for (const Input<V>& input : inputs_.at) prefetch_tile<V>(input.array, input.format, next, share);
    prefetch_tile<V>(grad_current_.array, grad_current_.format, next, share);
  }

  /// Recomputes the states after a step, at `to` in the tape, from those before it, at `from`. The inputs stand `back` steps later.
  void rebuild_step(std::int64_t step, std::int64_t from, std::int64_t to, std::int64_t back) const {
    Input<V> input = inputs_[Of::current];
    input.now -= back * input.stride;
    const V* const received = receives_ ? operators_.receive(work_.before[1] + from, input) : nullptr;
    if (recomputes_) return repeat_step(received, input, to);
    const Input<V>& potentials = inputs_[Of::potential];
    for (int b = 0; b < row_.block_count; ++b) {
      const Block& block = row_.blocks[b];
      const V* const potential = potentials[block] - back * potentials.stride;
      const V* before = potential - potentials.stride;
      if (step == 0) {
        load_state(memory_.before, plan_.initial, 1, plan_.rows, row_, block);
        before = memory_.before[0];
      }
      const V* const current = receives_ ? received + block.lane : input[block];
      stages_.rebuild(work_, block.lane, block.lanes, potential, before, current, from + block.lane, to + block.lane);
    }
  }

  /// Repeats a step of the forward pass, and stores the states after it at `to` in the tape.
  void repeat_step(const V* received, const Input<V>& input, std::int64_t to) const {
    for (int b = 0; b < row_.block_count; ++b) {
      const Block& block = row_.blocks[b];
      step_of_model_(step_work_, block.lane, block.lanes, received != nullptr ? received + block.lane : input[block]);
    }
    for (int k = 0; k < model_.states; ++k) copy_lanes(work_.before[k] + to, memory_.state[k], row_.lanes);
  }

  /// Sets the states before a segment to its checkpoint.
  void return_to_checkpoint(std::int64_t segment) const {
    for (int k = first_taped_; k < model_.states; ++k) {
      copy_lanes(work_.before[k], checkpoint(segment, k), row_.lanes);
      if (recomputes_) copy_lanes(memory_.state[k], checkpoint(segment, k), row_.lanes);
    }
  }

  /// Recomputes the states of a segment from its checkpoint. The inputs are loaded.
  void rebuild_segment(std::int64_t segment, std::int64_t end) {
    return_to_checkpoint(segment);
    for (std::int64_t n = segment_begin_; n < end; ++n) rebuild_step(n, tape_offset(n - 1), tape_offset(n), end - 1 - n);
    Input<V>& potential = inputs_[Of::potential];
    if (recomputes_) potential.now = work_.before[0] + tape_offset(end - 1), potential.stride = plan_.rows.lanes;
  }

  /// A block of the potential of the current step.
  const V* potential_of(const Inputs& inputs, const Block& block) const {
    const Input<V>& potential = inputs[Of::potential];
    return recomputes_ ? potential.now + block.lane : potential[block];
  }

  /// The offset, in the potential, from the step `steps` before n to the row that this step reads first: its own or the one before.
  std::int64_t to_first_read(std::int64_t n, std::int64_t steps) const { return n > steps ? to_first_read_ : 0; }

  template <bool Ordinary>
  [[gnu::always_inline]] void run_step(Inputs& inputs, std::int64_t n) {
    const Step step{n, !Ordinary && n == 0, !Ordinary && n == layout_.time - 1, filtered_ ? nullptr : grad_current_.at(row_, n)};
    if (!Ordinary && with_operators_) before_step(inputs, step);
    if (!row_.tiled() && !down_ && !step.first) touch_pages(inputs, n);
    for (int b = 0; b < row_.block_count; ++b) {
      const bool prefetches = !row_.tiled() && n >= ahead_[b].steps;
      run_block<Ordinary>(inputs, row_.blocks[down_ ? row_.block_count - 1 - b : b], step, ahead_[b], prefetches);
    }
    if (!Ordinary && with_operators_) store_filtered(n, operators_.scatter(n));
    if (step.last) {
      for (int k = 0; k < model_.states; ++k) work_.grad_state[k] = memory_.zeros;
    }
    if (with_terms_ && n % partial_steps == 0) move_terms();
  }

  /// Touches two lines of each page of the next step at once, which starts the prefetcher of the second-level cache.
  [[gnu::always_inline]] void touch_pages(const Inputs& inputs, std::int64_t n) const {
    for (int k = 0; k < Of::count; ++k) {
      if (!inputs[k].given()) continue;
      const V* const next = inputs[k].now + (k == Of::potential ? to_first_read(n, 1) : 0) - row_.step_stride;
      prefetch(next + row_.blocks[0].offset, 2 * line_lanes<V>, false);
    }
  }

  /// Adds the terms of some steps to the sums.
  void move_terms() {
    for (int k = 0; k < model_.parameters; ++k) {
      if (plan_.sums[k] != nullptr) move_sums(memory_.sums[k], memory_.partial[k], row_.lanes);
    }
  }

  /// Runs a step of a block. With `prefetches`, the inputs at `ahead` are within the pass.
  template <bool Ordinary>
  [[gnu::always_inline]] void run_block(const Inputs& inputs, const Block& block, const Step& step, const Ahead& ahead, bool prefetches) {
    // In two bursts, because a processor has a limited number of outstanding misses.
    if (prefetches && inputs[Of::potential].given()) {
      prefetch(inputs[Of::potential].now + to_first_read(step.n, ahead.steps) + ahead.offset, ahead.lanes, down_, to_level_);
    }
    const V* const u = potential_of(inputs, block);
    const V* e = inputs[Of::grad_spikes][block];
    const V* q = inputs[Of::grad_potential][block];
    if (step.last) {
      q = with_final(q, plan_.grad_final[0], plan_.rows, row_, block, memory_.q_sum);
      if (model_.fires) e = with_final(e, plan_.grad_final[1], plan_.rows, row_, block, memory_.e_sum);
      load_state(memory_.grad_state, plan_.grad_final, model_.states, plan_.rows, row_, block);
      for (int k = model_.hidden; k < model_.states; ++k) work_.grad_state[k] = memory_.grad_state[k];
    }
    if (!Ordinary && with_operators_) e = operators_.grad_spikes(block, step.n, e);
    const V* h = memory_.h;
    if (surrogate_stage_ == nullptr) {
      h = inputs[Of::surrogate][block];
    } else if (model_.surrogate_reads_hidden_state) {
      stages_.surrogate_argument(work_, block.lanes, u, tape_offset(step.n) + block.lane, memory_.surrogate_argument);
      surrogate_stage_(surrogate_row_, block.lane, block.lanes, memory_.surrogate_argument);
    } else {
      surrogate_stage_(surrogate_row_, block.lane, block.lanes, u);
    }
    if (prefetches) {
#pragma GCC unroll 4
      for (int k = Of::potential + 1; k < Of::count; ++k) {
        if (inputs[k].given()) prefetch(inputs[k].now + ahead.offset, ahead.lanes, down_, to_level_);
      }
      // Plain stores would wait for their lines, most where steps go down in contiguous memory
      // (benchmarks/bandwidth.py --steps 500 --batch 16).
      if (step.result != nullptr && !stream_) prefetch(step.result + ahead.offset, ahead.lanes, down_, to_level_);
    }
    const V* u_before = memory_.zeros;
    std::int64_t from = 0;
    if (with_before_ && !step.first) {
      u_before = u - inputs[Of::potential].stride;
      if (!Ordinary && records_) stages_.record(work_, block.lane, block.lanes, u_before, memory_.before[1]);
    } else if (with_before_) {
      load_state(memory_.before, plan_.initial, model_.states, plan_.rows, row_, block);
      u_before = memory_.before[0];
    }
    if (tape_ != nullptr) from = tape_offset(step.n - 1) + block.lane;
    const V* const a = !Ordinary && receives_ ? received_ + block.lane : inputs[Of::current][block];
    const AdjointStage<V> adjoint = step.first ? first_adjoint_ : adjoint_;
    adjoint(work_, block.lane, block.lanes, u, u_before, from, h, e, q, a);
    if (!Ordinary && with_operators_) keep_inputs(block, step.n, u, a);
    if (step.result == nullptr) return;
    if (from_carry_) {
      store_scaled(step.result + block.offset, memory_.carry[0] + block.lane, gain_, block.lanes, stream_);
    } else {
      const V* const gradient = work_.grad_current + (block.lane & work_.grad_current_follows);
      store_lanes(step.result + block.offset, gradient, block.lanes, stream_);
    }
  }

  /// Gets the inputs of the step from the operators, and sets the destinations of its gradients.
  void before_step(const Inputs& inputs, const Step& step) {
    if (receives_) {
      const V* const spikes = tape_ != nullptr ? work_.before[1] + tape_offset(step.n - 1) : spikes_before(inputs, step);
      received_ = operators_.receive(spikes, inputs[Of::current]);
    }
    operators_.gather(step.n, work_);
  }

  /// Keeps a block of the inputs that FIR kernels read at a step.
  void keep_inputs(const Block& block, std::int64_t n, const V* u, const V* a) {
    if (V* const current = operators_.kept_current(n); current != nullptr) copy_lanes(current + block.lane, a, block.lanes);
    if (V* const spikes = operators_.kept_spikes(n); spikes != nullptr) {
      stages_.record(work_, block.lane, block.lanes, u, spikes + block.lane);
    }
  }

  /// Stores the gradient of the current for `count` steps from `first`, which the operators compute.
  void store_filtered(std::int64_t first, std::int64_t count) {
    for (std::int64_t n = first; plan_.grad_current != nullptr && n < first + count; ++n) {
      V* const result = grad_current_.at(row_, n);
      for (int b = 0; b < row_.block_count; ++b) {
        const Block& block = row_.blocks[b];
        store_lanes(result + block.offset, operators_.grad_current(n) + block.lane, block.lanes, stream_);
      }
    }
  }

  /// The spikes before a step, for a model whose potential determines them.
  V* spikes_before(const Inputs& inputs, const Step& step) {
    V* const spikes = memory_.recurrent.spikes;
    if (step.first) {
      copy_entry(spikes, plan_.initial[1], 0, plan_.rows, row_);
      return spikes;
    }
    for (int b = 0; b < row_.block_count; ++b) {
      const Block& block = row_.blocks[b];
      const V* const before = potential_of(inputs, block) - inputs[Of::potential].stride;
      stages_.record(work_, block.lane, block.lanes, before, spikes + block.lane);
    }
    return spikes;
  }

  /// Stores dL/d(initial state).
  void finish_block(const Block& block) {
    load_state(memory_.before, plan_.initial, model_.states, plan_.rows, row_, block);
    stages_.initial(work_, block.lane, block.lanes);
    if (with_operators_) operators_.add_to_last_spikes(block, memory_.grad_initial[1]);
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
  Arena arena_;
  const BackwardMemory<V> memory_;
  const Row row_;
  BackwardOperators<V> operators_;
  const bool with_operators_ = operators_.given();
  const bool filtered_ = operators_.filters_current();
  V* const tape_ = memory_.tape;   ///< null if no states are recomputed
  const int first_taped_ = first_taped(plan_.taped);
  const bool recomputes_ = plan_.taped == Taped::all;   ///< the potential too
  std::int64_t segment_begin_ = 0;
  Inputs inputs_{{{plan_.potential, memory_.tiles[0]},
                  {plan_.grad_spikes, memory_.tiles[1], plan_.format},
                  {plan_.grad_potential, memory_.tiles[2]},
                  {plan_.current, memory_.tiles[3], plan_.format},
                  {plan_.surrogate.values, memory_.tiles[4]}}};
  std::int64_t to_first_read_ = 0;   ///< not 0 if terms read the potential of the step before, which is then loaded first
  Ahead* const ahead_ = memory_.cut.ahead;
  Output<V> grad_current_{plan_.grad_current, memory_.tiles[5], plan_.format};
  AdjointRow<V> work_;
  StepRow<V> step_work_{};
  StepStage<V> step_of_model_ = nullptr;
  SurrogateRow<V> surrogate_row_{};
  AdjointStage<V> adjoint_ = nullptr, first_adjoint_ = nullptr;   ///< of steps from 1 on, and of step 0
  SurrogateStage<V> surrogate_stage_ = nullptr;                   ///< null if h is given or not needed
  V gain_ = V(1);
  bool from_carry_ = false;    ///< the gradient of the current is the gain times the first carry
  bool with_before_ = false;   ///< the state before each step is needed
  bool records_ = false;       ///< and so are its spikes, which no tape has
  bool receives_ = false;      ///< the current with the recurrent contribution is needed
  const V* received_ = nullptr;
  const bool stream_ = plan_.stream && !row_.tiled();
  const bool down_ = plan_.rows.lanes == layout_.inner;   ///< the row is one piece of memory through all of time
  /// Where prefetches go. Those into the first level take its few outstanding misses from the stages' own loads, which costs more than
  /// to wait for the second level (benchmarks/bandwidth.py, time first). Two cases do not gain: a row that is one piece (batch first),
  /// unless terms read the current too, and inputs that the rebuilding of states has just left in the second level (benchmarks/models.py,
  /// ALIF).
  const CacheLevel to_level_ =
      (down_ && !(with_terms_ && plan_.current != nullptr)) || tape_ != nullptr ? CacheLevel::first : CacheLevel::second;
};

template <class V>
void backward_row(const BackwardPlan<V>& plan, std::int64_t index, int thread) {
  BackwardRow<V> row(plan, index, thread);
  row.make_checkpoints();
  row.advance(0, plan.layout.time);
  row.finish();
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

/// Converts elements [begin, end) of an array to numbers.
template <class V>
void read_range(const void* elements, Format format, std::int64_t begin, std::int64_t end, V* numbers) {
  with_elements<V>(elements, format, [&](const auto* from) { read_lanes(numbers + begin, from + begin, end - begin); });
}

/// Converts numbers to elements [begin, end) of an array.
template <class V>
void write_range(const V* numbers, Format format, std::int64_t begin, std::int64_t end, void* elements) {
  with_elements<V>(elements, format, [&](auto* to) { write_lanes(to + begin, numbers + begin, end - begin); });
}

}   // namespace
}   // namespace exodus::cpu
