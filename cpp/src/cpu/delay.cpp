/// @file
/// The exported functions of delays: checks, rows, the sum of the delay's gradient.
#include "exodus/delay.hpp"

#include "../checks.hpp"
#include "../floating_point.hpp"
#include "threads.hpp"
#include "work.hpp"

namespace exodus {
namespace {

/// The neurons in a row: at most a page of each array per step. If neurons have individual delays, the steps that a shifter keeps should
/// fit in the first-level cache, or in the second-level cache if rows would otherwise be too short to stream, or if the shifter works in
/// blocks. 0 means that the inner axis is too short, so rows are whole outer indices.
template <class V>
std::int64_t row_lanes(const Layout& layout, const Delay<V>& delays, int threads) {
  constexpr std::int64_t first_cache = 32 << 10, second_cache = 256 << 10, line = 64, enough = 256;
  if (layout.inner < line) return 0;
  const bool shared = delays.steps.count == 1 || delays.steps.repeat >= enough;
  const std::int64_t kept = shared ? 1 : cpu::kept_steps(cpu::shift_stages(delays.most));
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  const bool in_blocks = isa != nullptr && isa->delays_in_blocks;
  const auto fitting = [&](std::int64_t cache) { return cache / static_cast<std::int64_t>(sizeof(V)) / kept / line * line; };
  std::int64_t lanes = fitting(in_blocks ? second_cache : first_cache);
  if (lanes < enough) lanes = fitting(second_cache) < enough ? fitting(second_cache) : enough;
  lanes = lanes < line ? line : (lanes < cpu::max_row_lanes<V> ? lanes : cpu::max_row_lanes<V>);
  const std::int64_t share = ceil_div(ceil_div(layout.inner, ceil_div(threads, layout.outer)), line) * line;
  return lanes < share ? lanes : share;
}

/// The whole outer indices in a row: enough work to justify a thread.
std::int64_t row_outers(const Layout& layout) {
  constexpr std::int64_t elements = 16384, most = 1024;
  const std::int64_t neurons = elements / layout.time < most ? elements / layout.time : most, outers = neurons / layout.inner;
  return outers < 1 ? 1 : outers;
}

std::int64_t row_count(const Layout& layout, std::int64_t lanes) {
  return lanes > 0 ? layout.outer * ceil_div(layout.inner, lanes) : ceil_div(layout.outer, row_outers(layout));
}

/// The bytes of a thread's slot, for any number of threads.
template <class V>
std::size_t slot_size(const Layout& layout, const Delay<V>& delays) {
  const std::int64_t lanes = row_lanes(layout, delays, 1);
  return bytes_of([&](cpu::Arena& arena) {
    cpu::DelayMemory<V>(arena, lanes > 0 ? lanes : row_outers(layout) * layout.inner,
                        lanes > 0 ? cpu::kept_steps(cpu::shift_stages(delays.most)) : 0);
  });
}

template <class S>
std::size_t bytes_for(const Layout& layout, const Delay<S>& delays, bool with_sums, int threads) {
  if (check_delay(layout, delays) != Status::ok || empty(layout)) return 0;
  threads = threads_for(layout, threads);
  const std::int64_t rows = row_count(layout, row_lanes(layout, delays, threads));
  const std::size_t slots = static_cast<std::size_t>(rows < threads ? rows : threads) * slot_size(layout, delays);
  return slots + (with_sums ? static_cast<std::size_t>(layout.outer * layout.inner) * sizeof(double) : 0);
}

/// Whether the steps of a row begin and end on cache lines. With streaming stores, a line in which a step ends inside would be written to
/// memory more than once.
template <class V>
bool writes_whole_lines(const Layout& layout, std::int64_t lanes) {
  return lanes > 0 && layout.inner % (64 / static_cast<std::int64_t>(sizeof(V))) == 0;
}

/// Divides a pass into rows and runs them. The workspace has the sums first, then the threads' slots.
template <class V>
void run(cpu::DelayPlan<V>& plan, const cpu::IsaFunctions<V>& isa, const Workspace& workspace) {
  const Delay<V> delays{plan.steps, plan.most};
  const std::size_t slot = slot_size(plan.layout, delays);
  const std::size_t sums = plan.sums == nullptr ? 0 : static_cast<std::size_t>(plan.layout.outer * plan.layout.inner) * sizeof(double);
  const int threads = threads_with_slots(threads_for(plan.layout, workspace.threads), slot, workspace.bytes - sums);
  plan.lanes = row_lanes(plan.layout, delays, threads);
  plan.outers = row_outers(plan.layout);
  plan.stream = plan.to != nullptr && writes_whole_lines<V>(plan.layout, plan.lanes) && beyond_caches(plan.layout, 2 * sizeof(V));
  plan.slots = static_cast<char*>(workspace.data) + sums;
  plan.slot_bytes = slot;
  auto task = [&](std::int64_t row, int thread) { isa.delay(plan, row, thread); };
  cpu::parallel_for(row_count(plan.layout, plan.lanes), threads, task);
}

template <class S>
Status check(const Workspace& workspace, const Layout& layout, const Delay<S>& delays, bool with_sums) {
  if (workspace.bytes < bytes_for(layout, delays, with_sums, 1)) return Status::workspace_too_small;
  return workspace.data == nullptr ? Status::null_pointer : Status::ok;
}

template <class S>
cpu::DelayPlan<S> plan_of(const Layout& layout, const Delay<S>& delays) {
  cpu::DelayPlan<S> plan;
  plan.layout = layout;
  plan.steps = delays.steps;
  plan.most = delays.most;
  return plan;
}

/// Converted copies of arrays of two-byte numbers, at the start of a workspace.
template <class S>
class Converted {
 public:
  using V = arithmetic_t<S>;

  Converted(const Layout& layout, int threads)
      : isa_(isa_functions<V>()), count_(layout.outer * layout.time * layout.inner), threads_(threads_for(layout, threads)) {}

  /// The bytes of `arrays` copies.
  std::size_t bytes(int arrays) const { return static_cast<std::size_t>(arrays * stride()) * sizeof(V); }

  /// The rest of the workspace, after the copies.
  Workspace rest(const Workspace& workspace, int arrays) const {
    return {static_cast<char*>(workspace.data) + bytes(arrays), workspace.bytes - bytes(arrays), workspace.threads};
  }

  V* array(const Workspace& workspace, int k) const { return static_cast<V*>(workspace.data) + k * stride(); }

  const V* read(const S* elements, V* numbers) const {
    if (elements == nullptr) return nullptr;
    run([&](std::int64_t begin, std::int64_t end) { isa_->read(elements, format_of<S>, begin, end, numbers); });
    return numbers;
  }

  void write(const V* numbers, S* elements) const {
    if (elements == nullptr) return;
    run([&](std::int64_t begin, std::int64_t end) { isa_->write(numbers, format_of<S>, begin, end, elements); });
  }

 private:
  static constexpr std::int64_t line = 64 / sizeof(V), chunk = 16384;

  std::int64_t stride() const { return ceil_div(count_, line) * line; }

  template <class F>
  void run(F convert) const {
    auto task = [&](std::int64_t k, int /*thread*/) { convert(k * chunk, (k + 1) * chunk < count_ ? (k + 1) * chunk : count_); };
    cpu::parallel_for(ceil_div(count_, chunk), threads_, task);
  }

  const cpu::IsaFunctions<V>* const isa_;
  const std::int64_t count_;
  const int threads_;
};

/// The same delay for the arithmetic type.
template <class S>
Delay<arithmetic_t<S>> in_arithmetic(const Delay<S>& delays) {
  return {delays.steps, delays.most};
}

/// The number of arrays over time in each pass.
constexpr int forward_arrays = 2, backward_arrays = 3;

template <class S>
constexpr bool converts = !std::is_same_v<S, arithmetic_t<S>>;

/// Checks the arguments of a pass on two-byte numbers before it converts them.
template <class S>
Status check_converted(const Layout& layout, const Delay<S>& delays, const Workspace& needed, const Workspace& workspace) {
  if (isa_functions<arithmetic_t<S>>() == nullptr) return Status::unsupported;
  if (const Status status = check_delay(layout, delays); status != Status::ok || empty(layout)) return status;
  if (workspace.bytes < needed.bytes) return Status::workspace_too_small;
  return workspace.data == nullptr ? Status::null_pointer : Status::ok;
}

template <class S>
Workspace workspace_of(const Layout& layout, const Delay<S>& delays, int arrays, bool with_sums, int threads) {
  if (check_delay(layout, delays) != Status::ok) return {nullptr, 0, threads};
  const std::size_t bytes = bytes_for(layout, in_arithmetic(delays), with_sums, threads);
  return {nullptr, converts<S> && bytes > 0 ? bytes + Converted<S>(layout, threads).bytes(arrays) : bytes, threads};
}

template <class S>
Status delay_numbers(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward& arrays, const Workspace& workspace) {
  const cpu::IsaFunctions<S>* const isa = isa_functions<S>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check_delay(layout, delays); status != Status::ok) return status;
  if (empty(layout)) return Status::ok;
  if (arrays.x == nullptr) return Status::null_pointer;
  if (const Status status = check(workspace, layout, delays, false); status != Status::ok) return status;
  const FloatingPointMode mode;
  cpu::DelayPlan<S> plan = plan_of(layout, delays);
  plan.from = arrays.x;
  plan.before = arrays.initial;
  plan.to = arrays.output;
  plan.final = arrays.final;
  run(plan, *isa, workspace);
  return Status::ok;
}

template <class S>
Status adjoint_of_numbers(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays,
                          const Workspace& workspace) {
  const cpu::IsaFunctions<S>* const isa = isa_functions<S>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check_delay(layout, delays); status != Status::ok) return status;
  const bool with_sums = arrays.grad_steps != nullptr;
  if (!empty(layout)) {
    if (with_sums && arrays.x == nullptr) return Status::null_pointer;
    if (const Status status = check(workspace, layout, delays, with_sums); status != Status::ok) return status;
  }
  const FloatingPointMode mode;
  for (std::int64_t c = 0; with_sums && c < delays.steps.count; ++c) arrays.grad_steps[c] = 0;
  if (empty(layout)) return Status::ok;
  cpu::DelayPlan<S> plan = plan_of(layout, delays);
  plan.backwards = true;
  plan.from = arrays.grad_output;
  plan.to = arrays.grad_x;
  plan.direct = arrays.grad_final;
  plan.grad_initial = arrays.grad_initial;
  if (with_sums) {
    plan.x = arrays.x;
    plan.initial = arrays.initial;
    plan.sums = static_cast<double*>(workspace.data);
  }
  run(plan, *isa, workspace);
  if (with_sums) {
    const cpu::Rows rows{.neurons = layout.outer * layout.inner};
    add_reduced(arrays.grad_steps, plan.sums, rows, delays.steps.count, delays.steps.repeat, +1);
  }
  return Status::ok;
}

}   // namespace

template <class S>
Status delay(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward& arrays, Workspace workspace) noexcept {
  if constexpr (!converts<S>) {
    return delay_numbers(layout, delays, arrays, workspace);
  } else {
    const Workspace needed = exodus::workspace(layout, delays, arrays, 1);
    if (const Status status = check_converted(layout, delays, needed, workspace); status != Status::ok || empty(layout)) return status;
    if (arrays.x == nullptr) return Status::null_pointer;
    const FloatingPointMode mode;
    const Converted<S> converted(layout, workspace.threads);
    auto* const output = arrays.output == nullptr ? nullptr : converted.array(workspace, 1);
    const auto* const x = converted.read(arrays.x, converted.array(workspace, 0));
    const Status status =
        delay_numbers(layout, in_arithmetic(delays), {x, arrays.initial, output, arrays.final}, converted.rest(workspace, forward_arrays));
    if (status == Status::ok) converted.write(output, arrays.output);
    return status;
  }
}

template <class S>
Status delay_adjoint(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays,
                     Workspace workspace) noexcept {
  if constexpr (!converts<S>) {
    return adjoint_of_numbers(layout, delays, arrays, workspace);
  } else {
    const Workspace needed = exodus::workspace(layout, delays, arrays, 1);
    if (const Status status = check_converted(layout, delays, needed, workspace); status != Status::ok) return status;
    if (arrays.grad_steps != nullptr && arrays.x == nullptr && !empty(layout)) return Status::null_pointer;
    const FloatingPointMode mode;
    const Converted<S> converted(layout, workspace.threads);
    typename Delay<arithmetic_t<S>>::Backward same;
    same.initial = arrays.initial, same.grad_final = arrays.grad_final;
    same.grad_initial = arrays.grad_initial, same.grad_steps = arrays.grad_steps;
    if (empty(layout)) return adjoint_of_numbers(layout, in_arithmetic(delays), same, workspace);
    same.grad_output = converted.read(arrays.grad_output, converted.array(workspace, 0));
    same.grad_x = arrays.grad_x == nullptr ? nullptr : converted.array(workspace, 1);
    if (arrays.grad_steps != nullptr) same.x = converted.read(arrays.x, converted.array(workspace, 2));
    const Status status = adjoint_of_numbers(layout, in_arithmetic(delays), same, converted.rest(workspace, backward_arrays));
    if (status == Status::ok) converted.write(same.grad_x, arrays.grad_x);
    return status;
  }
}

template <class S>
Workspace workspace(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Forward&, int threads) noexcept {
  return workspace_of(layout, delays, forward_arrays, false, threads);
}

template <class S>
Workspace workspace(const Layout& layout, const Delay<S>& delays, const typename Delay<S>::Backward& arrays, int threads) noexcept {
  return workspace_of(layout, delays, backward_arrays, arrays.grad_steps != nullptr, threads);
}

#define EXODUS_INSTANTIATE(S)                                                                                                 \
  template EXODUS_API Status delay<S>(const Layout&, const Delay<S>&, const Delay<S>::Forward&, Workspace) noexcept;          \
  template EXODUS_API Status delay_adjoint<S>(const Layout&, const Delay<S>&, const Delay<S>::Backward&, Workspace) noexcept; \
  template EXODUS_API Workspace workspace<S>(const Layout&, const Delay<S>&, const Delay<S>::Forward&, int) noexcept;         \
  template EXODUS_API Workspace workspace<S>(const Layout&, const Delay<S>&, const Delay<S>::Backward&, int) noexcept;
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)
EXODUS_INSTANTIATE(float16)
EXODUS_INSTANTIATE(bfloat16)

}   // namespace exodus
