/// @file
/// The CPU engine: a row of neurons through all of time. Per step it runs the stages one after another over blocks of lanes, handing over
/// through L1; what a row carries from step to step stays there as arrays of lanes. It knows no model and no mathematics.
///
/// An array is used in place where its inner axis is wide enough to fill blocks; else some steps of it at a time are transposed into a
/// tile (time-last arrays included), and results back.
#pragma once

#include "stages.hpp"
#include "store.hpp"

namespace exodus::cpu {
namespace {

template <class V>
constexpr int line_lanes = 64 / sizeof(V);   // a cache line
constexpr int max_tile_elements = 4096;
// A row spans two segments at most, each of which may end with a partial block.
constexpr int max_blocks = max_row_lanes<float> / block_lanes + 2;

/// Neurons [begin, begin + lanes) cut into blocks, each contiguous in memory.
struct Block {
  std::int64_t offset;   ///< of its first element at step 0, in the array or tile
  int lane, lanes;
};

struct Row {
  std::int64_t begin;
  int lanes;
  bool tiled;
  std::int64_t step_stride;   ///< from a step to the next, in elements
  int block_count;
  Block blocks[max_blocks];
};

inline std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

/// Cuts `lanes` contiguous elements into blocks of equal size.
void add_segment(Row& row, std::int64_t offset, int lane, int lanes) {
  const int pieces = (lanes + block_lanes - 1) / block_lanes;
  for (int k = 0, done = 0; k < pieces; ++k) {
    const int size = lanes / pieces + (k < lanes % pieces ? 1 : 0);
    row.blocks[row.block_count++] = {offset + done, lane + done, size};
    done += size;
  }
}

void set_row(Row& row, const Layout& layout, const Rows& rows, std::int64_t index) {
  row.begin = index * rows.lanes;
  row.lanes = static_cast<int>(smaller(rows.lanes, rows.neurons - row.begin));
  row.tiled = rows.tile_steps > 0;
  row.step_stride = row.tiled ? row.lanes : layout.inner;
  row.block_count = 0;
  if (row.tiled) {
    add_segment(row, 0, 0, row.lanes);
    return;
  }
  for (int lane = 0; lane < row.lanes;) {
    const std::int64_t outer = (row.begin + lane) / layout.inner, first = (row.begin + lane) % layout.inner;
    const int lanes = static_cast<int>(smaller(layout.inner - first, row.lanes - lane));
    add_segment(row, outer * layout.time * layout.inner + first, lane, lanes);
    lane += lanes;
  }
}

/// Calls copy(array, tile) for each contiguous piece, `layout.inner` elements, of steps [begin, end) of the row, in the array's order. A
/// tile has the shape (steps, lanes); a tiled row has whole outer indices.
template <class Array, class Tile, class Copy>
EXODUS_SCALAR void for_pieces(Array* array, Tile* tile, const Layout& layout, const Row& row, std::int64_t steps, Copy copy) {
  for (std::int64_t lane = 0; lane < row.lanes; lane += layout.inner, array += layout.time * layout.inner) {
    for (std::int64_t n = 0; n < steps; ++n) copy(array + n * layout.inner, tile + n * row.lanes + lane);
  }
}

/// The first element of a tiled row at a step.
template <class Array>
EXODUS_SCALAR Array* tile_source(Array* array, const Layout& layout, const Row& row, std::int64_t step) {
  return array + (row.begin / layout.inner * layout.time + step) * layout.inner;
}

/// Steps [begin, end) of a tiled row from an array to a tile.
template <class V>
void load_tile(const V* array, V* tile, const Layout& layout, const Row& row, std::int64_t begin, std::int64_t end) {
  const V* const source = tile_source(array, layout, row, begin);
  if (layout.inner == 1) {
    transpose(source, layout.time, tile, row.lanes, row.lanes, end - begin);
  } else {
    for_pieces(source, tile, layout, row, end - begin, [&](const V* step, V* line) {
      for (std::int64_t i = 0; i < layout.inner; ++i) line[i] = step[i];
    });
  }
}

/// The way back.
template <class V>
void store_tile(V* array, const V* tile, const Layout& layout, const Row& row, std::int64_t begin, std::int64_t end) {
  V* const target = tile_source(array, layout, row, begin);
  if (layout.inner == 1) {
    transpose(tile, row.lanes, target, layout.time, end - begin, row.lanes);
  } else {
    for_pieces(target, tile, layout, row, end - begin, [&](V* step, const V* line) {
      for (std::int64_t i = 0; i < layout.inner; ++i) step[i] = line[i];
    });
  }
}

/// An input over time, in place or through a tile; a missing one reads as the same block of zeros at every step.
template <class V>
struct Input {
  const V* array = nullptr;
  V* tile = nullptr;
  const V* now = nullptr;    ///< where the present step begins
  std::int64_t stride = 0;   ///< from a step to the next; 0 if missing
  std::int64_t mask = 0;     ///< of a block's offset: 0 if missing, else all ones

  bool in_place(const Row& row) const { return array != nullptr && !row.tiled; }

  /// Makes steps [begin, end) readable and goes to one of them.
  void seek(const Layout& layout, const Row& row, std::int64_t begin, std::int64_t end, std::int64_t step, const V* zeros) {
    if (array == nullptr) {
      now = zeros;
      return;
    }
    mask = ~std::int64_t{0};
    stride = row.step_stride;
    now = array + step * stride;
    if (!row.tiled) return;
    load_tile(array, tile, layout, row, begin, end);
    now = tile + (step - begin) * stride;
  }

  const V* operator[](const Block& block) const { return now + (block.offset & mask); }
};

/// Fetches a block that is soon worked on into L1: rows jump from page to page, which the processor's prefetchers do not follow. `down`
/// touches the last line first: where a backward pass goes down in one piece of memory, lines touched upwards within that make the
/// prefetchers guess wrong (such an array took two to four times as long; where it jumps from page to page, upwards is the faster by a
/// tenth). Always inlined: GCC takes a function that only prefetches for one without effect, and drops calls of it.
template <class V>
EXODUS_SCALAR void prefetch(const V* elements, int lanes, bool down) {
  const int lines = (lanes + line_lanes<V> - 1) / line_lanes<V>;
  for (int k = 0; k < lines; ++k) __builtin_prefetch(elements + (down ? lines - 1 - k : k) * line_lanes<V>);
}

/// A result over time, in place or through a tile; a missing one is not written.
template <class V>
struct Output {
  V* array = nullptr;
  V* tile = nullptr;
  std::int64_t begin = 0;   ///< first step in the tile

  V* at(const Row& row, std::int64_t step) const {
    if (array == nullptr) return nullptr;
    return (row.tiled ? tile : array) + (step - begin) * row.step_stride;
  }

  void flush(const Layout& layout, const Row& row, std::int64_t from, std::int64_t to) const {
    if (row.tiled && array != nullptr) store_tile(array, tile, layout, row, from, to);
  }
};

/// Sets the parameters of a row; an array is read in place where neurons follow each other, else expanded into `storage`.
template <class V>
void set_parameters(ParameterLanes<V>& parameters, V (*storage)[max_row_lanes<V>], const Param<V>* params, int count, const Row& row) {
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
    } else if (p.repeat == 1 && row.begin % period + row.lanes <= period) {
      parameters.lanes[k] = p.data + row.begin % period;
    } else {
      std::int64_t index = row.begin / p.repeat % p.count, used = row.begin % p.repeat;
      for (int i = 0; i < row.lanes; ++i) {
        storage[k][i] = p.data[index];
        if (++used == p.repeat) used = 0, index = index + 1 == p.count ? 0 : index + 1;
      }
    }
  }
}

/// Which part of an input to prefetch while a block is worked on: a block of the same step or of a later one (in the order of work).
struct Ahead {
  std::int64_t offset;   ///< of the block, from the present step's beginning, in an array used in place
  int steps, lanes;
};

/// For each block, in the order of work: the one two kilobytes further on. (Twice as far was a twentieth slower.) `direction` is -1
/// where work goes from the last step to the first, `reversed` where it also begins with the last block.
template <class V>
void set_ahead(Ahead* ahead, const Row& row, int direction, bool reversed) {
  constexpr int lanes = 2048 / sizeof(V);
  const int distance = row.lanes / row.block_count >= lanes ? 1 : lanes / (row.lanes / row.block_count);
  for (int b = 0; b < row.block_count; ++b) {
    const int steps = (b + distance) / row.block_count, other = (b + distance) % row.block_count;
    const Block& block = row.blocks[reversed ? row.block_count - 1 - other : other];
    ahead[b] = {block.offset + direction * steps * row.step_stride, steps, block.lanes};
  }
}

template <class V>
void forward_row(const ForwardPlan<V>& plan, std::int64_t index) {
  const ModelStages<V>& model = stages_of_models<V>[static_cast<int>(plan.model)];
  const Layout& layout = plan.layout;
  Row row;
  set_row(row, layout, plan.rows, index);

  alignas(64) V parameters[max_parameters][max_row_lanes<V>];
  alignas(64) V state[max_states][max_row_lanes<V>];
  StepRow<V> work;
  set_parameters(work.parameters, parameters, plan.parameters, model.parameters, row);
  const StepStage<V> step_of_model = model.forward[plan.variant][work.parameters.all_scalar ? 1 : 0];
  work.cap = plan.cap;
  for (int k = 0; k < model.states; ++k) {
    work.state[k] = state[k];
    for (int i = 0; i < row.lanes; ++i) state[k][i] = plan.initial[k] == nullptr ? V(0) : plan.initial[k][row.begin + i];
  }

  alignas(64) V tiles[3][max_tile_elements];
  Input<V> current{plan.current, tiles[0]};
  Output<V> history[2] = {{plan.history[0], tiles[1]}, {plan.history[1], tiles[2]}};
  const std::int64_t tile_steps = row.tiled ? plan.rows.tile_steps : layout.time;
  const bool stream = plan.stream && !row.tiled;
  Ahead ahead[max_blocks];
  set_ahead<V>(ahead, row, +1, false);

  for (std::int64_t begin = 0; begin < layout.time; begin += tile_steps) {
    const std::int64_t end = smaller(begin + tile_steps, layout.time);
    current.seek(layout, row, begin, end, begin, nullptr);
    for (Output<V>& output : history) output.begin = row.tiled ? begin : 0;
    for (std::int64_t step = begin; step < end; ++step, current.now += current.stride) {
      const std::int64_t steps_left = row.tiled ? -1 : layout.time - 1 - step;
      V* const results[2] = {history[0].at(row, step), history[1].at(row, step)};
      for (int b = 0; b < row.block_count; ++b) {
        const Block& block = row.blocks[b];
        if (ahead[b].steps <= steps_left) prefetch(current.now + ahead[b].offset, ahead[b].lanes, false);
        step_of_model(work, block.lane, block.lanes, current[block]);
        for (int k = 0; k < 2; ++k) {
          if (results[k] != nullptr) store_lanes(results[k] + block.offset, state[k] + block.lane, block.lanes, stream);
        }
      }
    }
    for (const Output<V>& output : history) output.flush(layout, row, begin, end);
  }
  if (stream) finish_streaming();

  for (int k = 0; k < model.states; ++k) {
    if (plan.final[k] != nullptr) copy_lanes(plan.final[k] + row.begin, state[k], row.lanes);
  }
}

/// dL/d(final state) is a direct gradient of the last step: the sum of both, or the one that is there.
template <class V>
const V* with_final(const V* direct, const V* final, std::int64_t neuron, V* sum, int lanes) {
  if (final == nullptr) return direct;
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) sum[i] = direct[i] + final[neuron + i];
  return sum;
}

/// A block of the initial state, zeros where it was not given.
template <class V>
void load_initial(V (*state)[block_lanes], const V* const* initial, int states, std::int64_t neuron, int lanes) {
  for (int k = 0; k < states; ++k) {
    if (initial[k] == nullptr) {
      __builtin_memset(state[k], 0, sizeof state[k]);
    } else {
      copy_lanes(state[k], initial[k] + neuron, lanes);
    }
  }
}

/// Terms of this many steps are summed in the arithmetic type before they go to the doubles.
constexpr std::int64_t partial_steps = 16;

/// Adds partial sums to the sums and clears them.
template <class V>
void move_sums(double* sums, V* partial, int lanes) {
  EXODUS_LANES
  for (int i = 0; i < lanes; ++i) {
    sums[i] += static_cast<double>(partial[i]);
    partial[i] = V(0);
  }
}

/// The backward pass of a row, last step first.
template <class V>
class BackwardRow {
 public:
  BackwardRow(const BackwardPlan<V>& plan, std::int64_t index)
      : plan_(plan),
        layout_(plan.layout),
        model_(stages_of_models<V>[static_cast<int>(plan.model)]),
        stages_(model_.backward[static_cast<int>(plan.method)][plan.variant]) {
    set_row(row_, layout_, plan.rows, index);
    if (plan.tape != nullptr) tape_ = plan.tape + index * plan.tape_elements;
    for (int k = 0; k < model_.parameters; ++k) with_terms_ = with_terms_ || plan.sums[k] != nullptr;
    with_before_ = with_terms_ || plan.method == Method::bptt;
    if (!with_terms_) current_.array = nullptr;
    for (Input<V>* input : inputs_) {
      if (input->in_place(row_)) in_place_[in_place_count_++] = input;
    }
    set_ahead<V>(ahead_, row_, -1, down_);
    set_work();
    set_surrogate();
    __builtin_memset(carry_, 0, sizeof carry_);
    __builtin_memset(before_, 0, sizeof before_);
    __builtin_memset(zeros_, 0, sizeof zeros_);
    if (with_terms_) __builtin_memset(sums_, 0, sizeof sums_), __builtin_memset(partial_, 0, sizeof partial_);
  }

  void run() {
    if (tape_ != nullptr) mark_segments();
    for (std::int64_t k = (layout_.time + plan_.segment - 1) / plan_.segment - 1; k >= 0; --k) {
      const std::int64_t begin = k * plan_.segment, end = smaller(begin + plan_.segment, layout_.time);
      segment_begin_ = begin;
      seek(begin, end);
      if (tape_ != nullptr) rebuild_segment(k, end);
      for (std::int64_t step = end - 1; step > begin; --step, step_back()) run_step(step);
      run_step(begin);
      grad_current_.flush(layout_, row_, begin, end);
    }
    if (stream_) finish_streaming();
    for (int k = 0; k < model_.parameters; ++k) {
      if (plan_.sums[k] != nullptr) copy_lanes(plan_.sums[k] + row_.begin, sums_[k], row_.lanes);
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
    set_parameters(work_.parameters, parameters_, plan_.parameters, model_.parameters, row_);
    work_.cap = plan_.cap;
    work_.grad_current = grad_;
    for (int k = 0; k < max_states; ++k) {
      work_.before[k] = work_.initial[k] = before_[k];
      work_.direct[k] = zeros_;
      work_.carry[k] = carry_[k], work_.grad_initial[k] = grad_initial_[k];
    }
    if (tape_ != nullptr) {
      for (int k = 1; k < model_.states; ++k) work_.before[k] = tape_ + (k - 1) * (plan_.segment + 1) * plan_.rows.lanes;
    }
    for (int k = 0; k < max_parameters; ++k) {
      work_.sums[k] = plan_.sums[k] == nullptr ? waste_ : partial_[k];
      work_.sums_follow[k] = plan_.sums[k] == nullptr ? 0 : ~0;
    }
    adjoint_ = with_terms_ ? stages_.adjoint_with_terms : work_.parameters.all_scalar ? stages_.adjoint_shared : stages_.adjoint;
    from_carry_ = stages_.carries_gradient && adjoint_ == stages_.adjoint_shared;
    if (model_.gain >= 0) gain_ = work_.parameters.lanes[model_.gain][0];
  }

  void set_surrogate() {
    if (!model_.fires || plan_.surrogate.values != nullptr) return;
    const Surrogate<V>& surrogate = plan_.surrogate;
    bend_ = {work_.parameters.lanes[model_.threshold], surrogate.scale, surrogate.shape[0], surrogate.shape[1], surrogate.shape[2], h_};
    const bool one_threshold = work_.parameters.follow[model_.threshold] == 0;
    surrogate_stage_ = surrogate_stages<V>[static_cast<int>(surrogate.kind)][one_threshold ? 1 : 0];
  }

  /// Makes steps [begin, end) readable and goes to the last of them.
  void seek(std::int64_t begin, std::int64_t end) {
    // One step more of the potential, for the state before the tile's first step.
    const std::int64_t earlier = begin > 0 && with_before_ ? begin - 1 : begin;
    for (Input<V>* input : inputs_) input->seek(layout_, row_, input == &potential_ ? earlier : begin, end, end - 1, zeros_);
    grad_current_.begin = row_.tiled ? begin : 0;
  }

  /// Where the state after a step of the present segment (-1: before its first) begins in the tape's array of a state.
  std::int64_t slot(std::int64_t step) const { return (step - segment_begin_ + 1) * plan_.rows.lanes; }

  /// The state before a segment.
  V* mark(std::int64_t segment, int state) const {
    const std::int64_t arrays = model_.states - 1, steps = plan_.segment + 1;
    return tape_ + (arrays * (steps + segment) + state - 1) * plan_.rows.lanes;
  }

  void rebuild_step(std::int64_t from, std::int64_t to, std::int64_t back) const {
    for (int b = 0; b < row_.block_count; ++b) {
      const Block& block = row_.blocks[b];
      stages_.rebuild(work_, block.lane, block.lanes, potential_[block] - back * potential_.stride,
                      current_[block] - back * current_.stride, from + block.lane, to + block.lane);
    }
  }

  /// Runs the hidden states forward through all of time and keeps the ones before each segment.
  void mark_segments() {
    for (int k = 1; k < model_.states; ++k) {
      V* const first = mark(0, k);
      for (int i = 0; i < row_.lanes; ++i) first[i] = plan_.initial[k] == nullptr ? V(0) : plan_.initial[k][row_.begin + i];
    }
    for (std::int64_t segment = 0, begin = 0; begin + plan_.segment < layout_.time; ++segment, begin += plan_.segment) {
      const std::int64_t end = begin + plan_.segment;
      for (Input<V>* input : {&potential_, &current_}) input->seek(layout_, row_, begin, end, end - 1, zeros_);
      for (int k = 1; k < model_.states; ++k) copy_lanes(work_.before[k], mark(segment, k), row_.lanes);
      // The tape's first two slots in turn.
      for (std::int64_t n = begin; n < end; ++n) {
        rebuild_step((n - begin) % 2 * plan_.rows.lanes, (n - begin + 1) % 2 * plan_.rows.lanes, end - 1 - n);
      }
      const std::int64_t last = plan_.segment % 2 * plan_.rows.lanes;
      for (int k = 1; k < model_.states; ++k) copy_lanes(mark(segment + 1, k), work_.before[k] + last, row_.lanes);
    }
  }

  /// The hidden states of the steps of a segment, which is loaded.
  void rebuild_segment(std::int64_t segment, std::int64_t end) {
    for (int k = 1; k < model_.states; ++k) copy_lanes(work_.before[k], mark(segment, k), row_.lanes);
    for (std::int64_t n = segment_begin_; n < end; ++n) rebuild_step(slot(n - 1), slot(n), end - 1 - n);
  }

  void step_back() {
    for (Input<V>* input : inputs_) input->now -= input->stride;
  }

  void run_step(std::int64_t n) {
    const Step step{n, n == 0, n == layout_.time - 1, grad_current_.at(row_, n)};
    // Where the next step lies in other pages, two lines of each at once: the second-level cache's prefetcher then follows, which was
    // faster by a twentieth.
    for (int k = 0; !down_ && !step.first && k < in_place_count_; ++k) {
      prefetch(in_place_[k]->now - row_.step_stride + row_.blocks[0].offset, 2 * line_lanes<V>, false);
    }
    for (int b = 0; b < row_.block_count; ++b) {
      const int inputs = n >= ahead_[b].steps ? in_place_count_ : 0;
      run_block(row_.blocks[down_ ? row_.block_count - 1 - b : b], step, ahead_[b], inputs);
    }
    if (step.last) {
      for (const V*& direct : work_.direct) direct = zeros_;
    }
    if (with_terms_ && n % partial_steps == 0) {
      for (int k = 0; k < model_.parameters; ++k) {
        if (plan_.sums[k] != nullptr) move_sums(sums_[k], partial_[k], row_.lanes);
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
      q = with_final(q, plan_.grad_final[0], row_.begin + block.lane, q_sum_, block.lanes);
      if (model_.fires) e = with_final(e, plan_.grad_final[1], row_.begin + block.lane, e_sum_, block.lanes);
      for (int k = model_.hidden; k < model_.states; ++k) {
        work_.direct[k] = plan_.grad_final[k] == nullptr ? zeros_ : plan_.grad_final[k] + row_.begin + block.lane;
      }
    }
    const V* h = h_;
    if (surrogate_stage_ != nullptr) {
      if (model_.fires_by_hidden) stages_.drive(work_, block.lanes, u, slot(step.n) + block.lane, drive_);
      surrogate_stage_(bend_, block.lane, block.lanes, model_.fires_by_hidden ? drive_ : u);
    } else {
      h = surrogate_[block];
    }
    for (int k = 1; k < inputs; ++k) prefetch(in_place_[k]->now + ahead.offset, ahead.lanes, down_);
    const V* u_before = zeros_;
    std::int64_t from = 0;
    if (with_before_ && !step.first) {
      u_before = u - potential_.stride;
      if (tape_ == nullptr) stages_.record(work_, block.lane, block.lanes, u_before);
    } else if (with_before_) {
      load_initial(before_, plan_.initial, model_.states, row_.begin + block.lane, block.lanes);
      u_before = before_[0];
    }
    if (tape_ != nullptr) from = slot(step.n - 1) + block.lane;
    adjoint_(work_, block.lane, block.lanes, u, u_before, from, h, e, q, current_[block]);
    if (step.result == nullptr) return;
    if (from_carry_) {
      store_scaled(step.result + block.offset, carry_[0] + block.lane, gain_, block.lanes, stream_);
    } else {
      store_lanes(step.result + block.offset, grad_, block.lanes, stream_);
    }
  }

  /// dL/d(initial state).
  void finish_block(const Block& block) {
    load_initial(before_, plan_.initial, model_.states, row_.begin + block.lane, block.lanes);
    stages_.initial(work_, block.lane, block.lanes);
    for (int k = 0; k < model_.states; ++k) {
      if (plan_.grad_initial[k] != nullptr) copy_lanes(plan_.grad_initial[k] + row_.begin + block.lane, grad_initial_[k], block.lanes);
    }
  }

  // Arrays of the whole row, of a block, and tiles.
  alignas(64) V parameters_[max_parameters][max_row_lanes<V>];
  alignas(64) V carry_[max_states][max_row_lanes<V>];
  alignas(64) double sums_[max_parameters][max_row_lanes<V>];
  alignas(64) V partial_[max_parameters][max_row_lanes<V>];
  alignas(64) V before_[max_states][block_lanes];
  alignas(64) V grad_initial_[max_states][block_lanes];
  alignas(64) V h_[block_lanes], e_sum_[block_lanes], q_sum_[block_lanes], grad_[block_lanes], waste_[block_lanes], zeros_[block_lanes],
      drive_[block_lanes];
  alignas(64) V tiles_[6][max_tile_elements + max_row_lanes<V>];

  const BackwardPlan<V>& plan_;
  const Layout& layout_;
  const ModelStages<V>& model_;
  const BackwardStages<V>& stages_;
  Row row_;
  V* tape_ = nullptr;   ///< null: no hidden states are needed
  std::int64_t segment_begin_ = 0;
  Input<V> potential_{plan_.potential, tiles_[0]};
  Input<V> grad_spikes_{plan_.grad_spikes, tiles_[1]};
  Input<V> grad_potential_{plan_.grad_potential, tiles_[2]};
  Input<V> current_{plan_.current, tiles_[3]};
  Input<V> surrogate_{plan_.surrogate.values, tiles_[4]};
  Input<V>* const inputs_[5] = {&potential_, &grad_spikes_, &grad_potential_, &current_, &surrogate_};
  Input<V>* in_place_[5];
  int in_place_count_ = 0;
  Ahead ahead_[max_blocks];
  Output<V> grad_current_{plan_.grad_current, tiles_[5]};
  AdjointRow<V> work_;
  SurrogateRow<V> bend_{};
  AdjointStage<V> adjoint_ = nullptr;
  SurrogateStage<V> surrogate_stage_ = nullptr;   ///< null where h is given, or not needed
  V gain_ = V(1);
  bool from_carry_ = false;    ///< the gradient of the current is the gain times the first carry
  bool with_terms_ = false;    ///< gradients of parameters are wanted
  bool with_before_ = false;   ///< the state before each step is needed
  const bool stream_ = plan_.stream && plan_.rows.tile_steps == 0;
  const bool down_ = plan_.rows.lanes == layout_.inner;   ///< the row is one piece of memory through all of time
};

template <class V>
void backward_row(const BackwardPlan<V>& plan, std::int64_t index) {
  BackwardRow<V>(plan, index).run();
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
