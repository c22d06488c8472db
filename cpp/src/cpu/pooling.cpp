/// @file
/// The exported functions of average pooling: checks and tasks.
#include "exodus/pooling.hpp"

#include "../checks.hpp"
#include "../floating_point.hpp"
#include "threads.hpp"
#include "work.hpp"

namespace exodus {
namespace {

constexpr std::int64_t pool_elements = 65536;   // of x in a task

/// Runs a function of the instruction set by tasks of planes. `reads` is whether `from`, and not `to`, is x.
template <class S>
Status run(const PoolingShape& shape, const S* from, S* to, bool reads, int threads) {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  std::int64_t plane, elements, bytes;
  if (shape.planes < 0 || shape.height < 0 || shape.width < 0 || shape.window_height < 1 || shape.window_width < 1 ||
      !multiply(shape.height, shape.width, plane) || !multiply(shape.planes, plane, elements) ||
      !multiply(elements, static_cast<std::int64_t>(sizeof(S)), bytes) || !multiply(shape.window_height, shape.window_width, bytes)) {
    return Status::bad_layout;
  }
  const std::int64_t pooled = shape.planes * (shape.height / shape.window_height) * (shape.width / shape.window_width);
  const bool has_x = elements > 0, has_y = pooled > 0;
  if (reads ? !has_y : !has_x) return Status::ok;
  if (to == nullptr || (from == nullptr && has_y)) return Status::null_pointer;
  const FloatingPointMode mode;
  const cpu::PoolingPlan<V> plan{shape, ceil_div(pool_elements, plane), format_of<S>, from, to};
  auto task = [&](std::int64_t k, int /*thread*/) { (reads ? isa->pool : isa->spread)(plan, k); };
  cpu::parallel_for(ceil_div(shape.planes, plan.task_planes), threads_for(Layout{1, shape.planes, plane}, threads), task);
  return Status::ok;
}

}   // namespace

template <class S>
Status average_pool(const PoolingShape& shape, const S* x, S* y, int threads) noexcept {
  return run(shape, x, y, true, threads);
}

template <class S>
Status average_pool_gradient(const PoolingShape& shape, const S* grad_y, S* grad_x, int threads) noexcept {
  return run(shape, grad_y, grad_x, false, threads);
}

#define EXODUS_INSTANTIATE(S)                                                               \
  template EXODUS_API Status average_pool(const PoolingShape&, const S*, S*, int) noexcept; \
  template EXODUS_API Status average_pool_gradient(const PoolingShape&, const S*, S*, int) noexcept;
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)
EXODUS_INSTANTIATE(float16)
EXODUS_INSTANTIATE(bfloat16)

}   // namespace exodus
