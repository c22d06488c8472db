/// @file
/// The exported functions of products with spikes: checks, tasks, the sum of the parts of a gradient.
#include "exodus/product.hpp"

#include <algorithm>
#include <numeric>

#include "../checks.hpp"
#include "../floating_point.hpp"
#include "store.hpp"
#include "threads.hpp"
#include "work.hpp"

namespace exodus {
namespace {

// Elements of x in a task of packing, rows in a task of a product, and the least number in a part of a gradient.
constexpr std::int64_t pack_elements = 65536, product_rows = 256, least_part = 2048;
constexpr std::int64_t most_parts = 16;
constexpr std::int64_t sampled_word = 64, most_sampled_words = 256;   // elements that a sample has side by side, and the most such words

Status check(const ProductShape& shape) {
  if (shape.rows < 0 || shape.inputs < 0 || shape.outputs < 0) return Status::bad_layout;
  std::int64_t of_x, of_y, of_weights, bytes;
  constexpr std::int64_t most = 8 * sizeof(double);   // bytes per element, of arrays and workspace together
  constexpr std::int64_t padding = 256;
  const bool ok = shape.inputs < INT64_MAX - 64 && multiply(shape.rows, shape.inputs + 64, of_x) && multiply(of_x, most, bytes) &&
                  shape.outputs < INT64_MAX - padding && multiply(shape.rows, shape.outputs + padding, of_y) &&
                  multiply(of_y, most, bytes) && multiply(shape.inputs + 1, shape.outputs + padding, of_weights) &&
                  multiply(of_weights, most * most_parts, bytes);
  return ok ? Status::ok : Status::bad_layout;
}

template <class X>
bool valid(const WeightMatrix<X>& weights, const ProductShape& shape) {
  return weights.data != nullptr || shape.inputs == 0 || shape.outputs == 0;
}

template <class S>
bool valid(const PackedSpikes<S>& x, const ProductShape& shape) {
  return shape.rows == 0 || shape.inputs == 0 || valid(x);
}

/// The threads for a product with this many elements of x and y.
int threads_for(const ProductShape& shape, int threads) {
  return threads_for(Layout{1, shape.rows, shape.inputs + shape.outputs}, threads);
}

/// Rows of weights of this stride begin on cache lines, and vectors do not exceed them.
template <class V>
std::int64_t padded(std::int64_t outputs) {
  constexpr std::int64_t line = 64 / sizeof(V);
  return ceil_div(outputs, line) * line;
}

/// Copies the weights of some inputs to rows, one for each input. torch's matrix has a row for each output, so that this is a transpose.
template <class S, class V>
void read_weights(const WeightMatrix<const S>& weights, std::int64_t first, std::int64_t inputs, std::int64_t outputs, V* rows,
                  std::int64_t stride) {
  if (outputs == 0) return;   // the weights may be null
  const S* const from = weights.data + first * weights.input_stride;
  if constexpr (std::is_same_v<S, V>) {
    if (weights.input_stride == 1) return cpu::transpose(from, weights.output_stride, rows, stride, outputs, inputs);
  }
  for (std::int64_t k = 0; k < inputs; ++k) {
    for (std::int64_t j = 0; j < outputs; ++j) {
      rows[k * stride + j] = cpu::number_of<V>(from[k * weights.input_stride + j * weights.output_stride]);
    }
  }
}

/// Copies such rows back.
template <class S, class V>
void write_weights(const V* rows, std::int64_t stride, std::int64_t first, std::int64_t inputs, std::int64_t outputs,
                   const WeightMatrix<S>& weights) {
  S* const to = weights.data + first * weights.input_stride;
  if constexpr (std::is_same_v<S, V>) {
    if (weights.input_stride == 1) return cpu::transpose(rows, stride, to, weights.output_stride, inputs, outputs);
  }
  for (std::int64_t k = 0; k < inputs; ++k) {
    for (std::int64_t j = 0; j < outputs; ++j) {
      cpu::set_element<V>(to[k * weights.input_stride + j * weights.output_stride], rows[k * stride + j]);
    }
  }
}

/// The weights and the bias in the arithmetic type, in rows of padded(outputs) with zeros at their ends.
template <class V>
struct Weights {
  std::int64_t stride;
  V *weights, *bias;
  Weights(cpu::Arena& arena, const ProductShape& shape)
      : stride(padded<V>(shape.outputs)), weights(arena.take<V>(shape.inputs * stride)), bias(arena.take<V>(stride)) {}

  /// Copies the weights. Without a bias it is zero.
  template <class S>
  void set(const ProductShape& shape, const WeightMatrix<const S>& from, const S* from_bias, int threads) const {
    for_some_rows(shape.inputs, stride, threads, [&](std::int64_t first, std::int64_t count) {
      V* const rows = weights + first * stride;
      read_weights(from, first, count, shape.outputs, rows, stride);
      for (std::int64_t k = 0; k < count; ++k) clear_from(shape.outputs, rows + k * stride);
    });
    for (std::int64_t j = 0; from_bias != nullptr && j < shape.outputs; ++j) bias[j] = cpu::number_of<V>(from_bias[j]);
    clear_from(from_bias == nullptr ? 0 : shape.outputs, bias);
  }

 private:
  void clear_from(std::int64_t first, V* row) const {
    for (std::int64_t j = first; j < stride; ++j) row[j] = V(0);
  }
};

/// Whether rows of so many elements of an array of results are written by streaming stores.
template <class S>
bool streams(std::int64_t rows, std::int64_t elements, const S* results) {
  constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(S));
  const bool lines = elements % line == 0 && reinterpret_cast<std::uintptr_t>(results) % 64 == 0;
  return lines && std::is_same_v<S, arithmetic_t<S>> && beyond_caches(Layout{1, rows, elements}, 2 * sizeof(S));
}

/// The division of a gradient into parts of the rows and strips of the columns. The parts depend on the shape only, as the bits do.
template <class V>
struct Division {
  std::int64_t parts, part_rows, strips, strip_lanes, stride;

  explicit Division(const ProductShape& shape) {
    stride = padded<V>(shape.outputs);
    const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
    strip_lanes = isa == nullptr ? stride : isa->product_lanes;
    strips = ceil_div(stride, strip_lanes);
    // The parts' sums should take no more memory than the arrays of the product.
    const std::int64_t of_sums = (shape.inputs + 1) * stride, of_arrays = shape.rows * (shape.inputs + shape.outputs);
    const std::int64_t affordable = of_sums == 0 ? 1 : of_arrays / of_sums, worthwhile = shape.rows / least_part;
    parts = affordable < worthwhile ? affordable : worthwhile;
    parts = parts < 1 ? 1 : (parts < most_parts ? parts : most_parts);
    part_rows = ceil_div(ceil_div(shape.rows, parts), cpu::product_chunk) * cpu::product_chunk;
  }

  std::int64_t partials(const ProductShape& shape) const { return parts * (shape.inputs + 1) * stride; }
  std::size_t partial_bytes(const ProductShape& shape) const {
    return bytes_of([&](cpu::Arena& arena) { arena.take<V>(partials(shape)); });
  }
  std::size_t slot_bytes() const {
    return bytes_of([&](cpu::Arena& arena) { cpu::ProductMemory<V>(arena, strip_lanes); });
  }
};

template <class V>
std::size_t input_slot_bytes(const ProductShape& shape) {
  return bytes_of([&](cpu::Arena& arena) { cpu::ProductInputMemory<V>(arena, shape, padded<V>(shape.outputs)); });
}

template <class S>
Status pack_numbers(const ProductShape& shape, const S* x, std::uint64_t* bits, SpikeCount& count, int threads) {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check(shape); status != Status::ok) return status;
  count = {};
  if (shape.rows == 0 || shape.inputs == 0) return Status::ok;
  if (x == nullptr || bits == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  constexpr std::int64_t most_tasks = 256;
  std::int64_t task_rows = ceil_div(pack_elements, shape.inputs);
  if (ceil_div(shape.rows, task_rows) > most_tasks) task_rows = ceil_div(shape.rows, most_tasks);
  SpikeCount counts[most_tasks];
  const cpu::PackPlan<V> plan{shape, shape.inputs, task_rows, format_of<S>, x, bits, counts};
  const std::int64_t tasks = ceil_div(shape.rows, task_rows);
  auto task = [&](std::int64_t k, int /*thread*/) { isa->pack(plan, k); };
  cpu::parallel_for(tasks, threads_for(shape, threads), task);
  for (std::int64_t k = 0; k < tasks; ++k) {
    count.spikes += counts[k].spikes;
    count.binary = count.binary && counts[k].binary;
  }
  return Status::ok;
}

/// Requests so many words from memory, which is faster than one after the other.
template <class S>
void prefetch_words(const S* x, std::int64_t words, std::int64_t distance) {
  constexpr std::int64_t line = 64 / sizeof(S);
  for (std::int64_t k = 0; k < words; ++k) {
    for (std::int64_t i = 0; i < sampled_word; i += line) __builtin_prefetch(x + k * distance * sampled_word + i, 0, 2);
  }
}

/// The share of elements that are not 0 in words that are at least `distance` words apart. The distance has no factor in common with the
/// number of words of the matrix, so that these are in all columns, and in all parts of the rows, which may be steps of time.
template <class S>
double share_of_words(const cpu::IsaFunctions<arithmetic_t<S>>& isa, const S* x, std::int64_t words, std::int64_t distance) {
  while (std::gcd(distance, words) > 1) ++distance;
  const std::int64_t runs = ceil_div(words, distance);
  prefetch_words(x, runs, distance);
  std::uint64_t bits[most_sampled_words];
  SpikeCount count;
  isa.pack({{runs, sampled_word, 0}, distance * sampled_word, runs, format_of<S>, x, bits, &count}, 0);
  return static_cast<double>(count.spikes) / static_cast<double>(runs * sampled_word);
}

/// The share of elements that are not 0 in a sample. It reads a few words first, and no more where their share is above `enough`, since all
/// of them may have to come from memory. The share is 0 where so few words would tell little, or where any share is enough.
template <class S>
double share_of_sample(const cpu::IsaFunctions<arithmetic_t<S>>& isa, const S* x, std::int64_t elements, double enough) {
  constexpr std::int64_t few = 32, least_distance = 16;
  const std::int64_t words = elements / sampled_word;
  if (words < few * least_distance || enough < 0) return 0;
  const double first = share_of_words(isa, x, words, ceil_div(words, few));
  if (first > enough) return first;
  return share_of_words(isa, x, words, std::max(ceil_div(words, most_sampled_words), least_distance));
}

/// Adds the parts of a gradient to the first one, in order, for `count` rows of sums from `first`, and returns these.
template <class V>
const V* sum_parts(const ProductShape& shape, const Division<V>& division, V* partials, std::int64_t first, std::int64_t count) {
  const std::int64_t part_size = (shape.inputs + 1) * division.stride;
  V* const sums = partials + first * division.stride;
  for (std::int64_t part = 1; part < division.parts; ++part) {
    const V* const terms = sums + part * part_size;
    for (std::int64_t i = 0; i < count * division.stride; ++i) sums[i] += terms[i];
  }
  return sums;
}

}   // namespace

template <class S>
Status pack(const ProductShape& shape, const S* x, std::uint64_t* bits, SpikeCount* count, int threads) noexcept {
  if (count == nullptr) return Status::null_pointer;
  return pack_numbers(shape, x, bits, *count, threads);
}

template <class S>
Status estimate_share(const ProductShape& shape, const S* x, double* share, double enough) noexcept {
  const auto* const isa = isa_functions<arithmetic_t<S>>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check(shape); status != Status::ok) return status;
  if (share == nullptr) return Status::null_pointer;
  *share = 0;
  const std::int64_t elements = shape.rows * shape.inputs;
  if (elements == 0) return Status::ok;
  if (x == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  *share = share_of_sample(*isa, x, elements, enough);
  return Status::ok;
}

template <class S>
Status pack_values(const ProductShape& shape, const S* x, const std::uint64_t* bits, std::int64_t* first, S* values, int threads) noexcept {
  if (const Status status = check(shape); status != Status::ok) return status;
  if (shape.rows == 0 || shape.inputs == 0) return Status::ok;
  if (x == nullptr || bits == nullptr || first == nullptr) return Status::null_pointer;
  const std::int64_t words = packed_words(shape.inputs);
  std::int64_t spikes = 0;
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    first[row] = spikes;
    for (std::int64_t w = 0; w < words; ++w) spikes += __builtin_popcountll(bits[row * words + w]);
  }
  if (spikes == 0) return Status::ok;
  if (values == nullptr) return Status::null_pointer;
  auto task = [&](std::int64_t k, int /*thread*/) {
    for (std::int64_t row = k * product_rows; row < shape.rows && row < (k + 1) * product_rows; ++row) {
      std::int64_t next = first[row];
      for (std::int64_t w = 0; w < words; ++w) {
        for (std::uint64_t word = bits[row * words + w]; word != 0; word &= word - 1) {
          values[next++] = x[row * shape.inputs + w * 64 + __builtin_ctzll(word)];
        }
      }
    }
  };
  cpu::parallel_for(ceil_div(shape.rows, product_rows), threads_for(shape, threads), task);
  return Status::ok;
}

template <class S>
Status product(const ProductShape& shape, const PackedSpikes<S>& x, const WeightMatrix<const S>& weights, const S* bias, S* y,
               Workspace workspace) noexcept {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check(shape); status != Status::ok) return status;
  if (shape.rows == 0 || shape.outputs == 0) return Status::ok;
  if (!valid(x, shape) || !valid(weights, shape) || y == nullptr) return Status::null_pointer;
  if (workspace.bytes < product_workspace<S>(shape, 1).bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  cpu::Arena arena(workspace.data);
  const Weights<V> own(arena, shape);
  const int threads = threads_for(shape, workspace.threads);
  own.set(shape, weights, bias, threads);
  cpu::ProductPlan<V> plan{shape, product_rows, format_of<S>, x.bits, x.first, x.values, {own.weights, own.stride}, own.bias, y};
  plan.stream = streams(shape.rows, shape.outputs, y);
  auto task = [&](std::int64_t k, int /*thread*/) { isa->product(plan, k); };
  cpu::parallel_for(ceil_div(shape.rows, product_rows), threads, task);
  return Status::ok;
}

template <class S>
Status product_gradients(const ProductShape& shape, const PackedSpikes<S>& x, const S* grad_y, const WeightMatrix<S>& grad_weights,
                         S* grad_bias, Workspace workspace) noexcept {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check(shape); status != Status::ok) return status;
  if (shape.outputs == 0) return Status::ok;
  if (shape.rows > 0 && (!valid(x, shape) || grad_y == nullptr)) return Status::null_pointer;
  const Division<V> division(shape);
  const std::size_t partials = division.partial_bytes(shape), slot = division.slot_bytes();
  if (workspace.bytes < product_gradients_workspace<S>(shape, 1).bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  cpu::ProductGradientPlan<V> plan;
  plan.shape = shape;
  plan.part_rows = division.part_rows, plan.strips = division.strips, plan.strip_lanes = division.strip_lanes;
  plan.format = format_of<S>;
  plan.bits = x.bits, plan.first = x.first, plan.values = x.values, plan.grad_y = grad_y;
  plan.with_bias = grad_bias != nullptr;
  plan.stride = division.stride;
  cpu::Arena arena(workspace.data);
  plan.partials = arena.take<V>(division.partials(shape));
  plan.slots = static_cast<char*>(workspace.data) + partials;
  plan.slot_bytes = slot;
  const int threads = threads_with_slots(threads_for(shape, workspace.threads), slot, workspace.bytes - partials);
  auto task = [&](std::int64_t k, int thread) { isa->product_gradient(plan, k, thread); };
  cpu::parallel_for(division.parts * division.strips, threads, task);
  if (grad_weights.data != nullptr) {
    for_some_rows(shape.inputs, division.stride, threads, [&](std::int64_t first, std::int64_t count) {
      const V* const sums = sum_parts(shape, division, plan.partials, first, count);
      write_weights(sums, division.stride, first, count, shape.outputs, grad_weights);
    });
  }
  if (grad_bias != nullptr) {
    const V* const sums = sum_parts(shape, division, plan.partials, shape.inputs, 1);
    for (std::int64_t j = 0; j < shape.outputs; ++j) cpu::set_element<V>(grad_bias[j], sums[j]);
  }
  return Status::ok;
}

template <class S>
Status product_input_gradient(const ProductShape& shape, const std::uint64_t* wanted, const S* grad_y, const WeightMatrix<const S>& weights,
                              S* grad_x, Workspace workspace) noexcept {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check(shape); status != Status::ok) return status;
  if (shape.rows == 0 || shape.inputs == 0) return Status::ok;
  if (wanted == nullptr || !valid(weights, shape) || grad_x == nullptr) return Status::null_pointer;
  if (shape.outputs > 0 && grad_y == nullptr) return Status::null_pointer;
  if (workspace.bytes < product_input_gradient_workspace<S>(shape, 1).bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  cpu::Arena arena(workspace.data);
  const Weights<V> own(arena, shape);
  const S* const no_bias = nullptr;
  own.set(shape, weights, no_bias, threads_for(shape, workspace.threads));
  cpu::ProductInputPlan<V> plan{shape, product_rows, format_of<S>, wanted, grad_y, {own.weights, own.stride}, grad_x};
  plan.stream = streams(shape.rows, shape.inputs, grad_x);
  const std::size_t weight_bytes = bytes_of([&](cpu::Arena& sizes) { Weights<V>(sizes, shape); });
  plan.slots = static_cast<char*>(workspace.data) + weight_bytes;
  plan.slot_bytes = input_slot_bytes<V>(shape);
  const int threads = threads_with_slots(threads_for(shape, workspace.threads), plan.slot_bytes, workspace.bytes - weight_bytes);
  auto task = [&](std::int64_t k, int thread) { isa->product_input_gradient(plan, k, thread); };
  cpu::parallel_for(ceil_div(shape.rows, product_rows), threads, task);
  return Status::ok;
}

template <class S>
Workspace product_workspace(const ProductShape& shape, int threads) noexcept {
  if (check(shape) != Status::ok || shape.rows == 0 || shape.outputs == 0) return {nullptr, 0, threads};
  return {nullptr, bytes_of([&](cpu::Arena& arena) { Weights<arithmetic_t<S>>(arena, shape); }), threads};
}

template <class S>
Workspace product_gradients_workspace(const ProductShape& shape, int threads) noexcept {
  using V = arithmetic_t<S>;
  if (check(shape) != Status::ok || shape.outputs == 0) return {nullptr, 0, threads};
  const Division<V> division(shape);
  const std::int64_t tasks = division.parts * division.strips, most = threads_for(shape, threads);
  const std::size_t slots = static_cast<std::size_t>(tasks < most ? tasks : most) * division.slot_bytes();
  return {nullptr, division.partial_bytes(shape) + slots, threads};
}

template <class S>
Workspace product_input_gradient_workspace(const ProductShape& shape, int threads) noexcept {
  using V = arithmetic_t<S>;
  if (check(shape) != Status::ok || shape.rows == 0 || shape.inputs == 0) return {nullptr, 0, threads};
  const std::size_t weights = bytes_of([&](cpu::Arena& arena) { Weights<V>(arena, shape); });
  const std::int64_t tasks = ceil_div(shape.rows, product_rows), most = threads_for(shape, threads);
  return {nullptr, weights + static_cast<std::size_t>(tasks < most ? tasks : most) * input_slot_bytes<V>(shape), threads};
}

#define EXODUS_INSTANTIATE(S)                                                                                                             \
  template EXODUS_API Status pack<S>(const ProductShape&, const S*, std::uint64_t*, SpikeCount*, int) noexcept;                           \
  template EXODUS_API Status estimate_share<S>(const ProductShape&, const S*, double*, double) noexcept;                                  \
  template EXODUS_API Status pack_values<S>(const ProductShape&, const S*, const std::uint64_t*, std::int64_t*, S*, int) noexcept;        \
  template EXODUS_API Status product<S>(const ProductShape&, const PackedSpikes<S>&, const WeightMatrix<const S>&, const S*, S*,          \
                                        Workspace) noexcept;                                                                              \
  template EXODUS_API Status product_gradients<S>(const ProductShape&, const PackedSpikes<S>&, const S*, const WeightMatrix<S>&, S*,      \
                                                  Workspace) noexcept;                                                                    \
  template EXODUS_API Status product_input_gradient<S>(const ProductShape&, const std::uint64_t*, const S*, const WeightMatrix<const S>&, \
                                                       S*, Workspace) noexcept;                                                           \
  template EXODUS_API Workspace product_workspace<S>(const ProductShape&, int) noexcept;                                                  \
  template EXODUS_API Workspace product_gradients_workspace<S>(const ProductShape&, int) noexcept;                                        \
  template EXODUS_API Workspace product_input_gradient_workspace<S>(const ProductShape&, int) noexcept;
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)
EXODUS_INSTANTIATE(float16)
EXODUS_INSTANTIATE(bfloat16)

}   // namespace exodus
