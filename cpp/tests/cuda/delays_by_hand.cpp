/// @file
/// Delays on a device: forward has the CPU's bits and the adjoint agrees to rounding, on layouts around the edges of a block; results that
/// are not wanted are not needed; numbers of two bytes are rounded once.
#include <exodus/cuda_delay.hpp>

#include "device.hpp"
#include "halves.hpp"

namespace exodus::test {
namespace {

template <class S>
struct DeviceDelay {
  using V = arithmetic_t<S>;
  Layout layout;
  std::int64_t most, entries;
  std::vector<V> steps;
  std::vector<S> x, grad;
  std::vector<V> initial, grad_final;

  DeviceDelay(const Layout& of, std::int64_t longest, std::int64_t count) : layout(of), most(longest), entries((most + 1) * neurons(of)) {
    Random random(static_cast<std::uint64_t>(of.inner + longest));
    for (std::int64_t c = 0; c < count; ++c) {
      const double t = random.uniform(-0.5, static_cast<double>(most) + 0.5);
      steps.push_back(static_cast<V>(random.coin() ? std::floor(t) : t));
    }
    for (auto* list : {&x, &grad}) {
      for (std::int64_t k = 0; k < elements(of); ++k) list->push_back(stored<S>(static_cast<V>(random.uniform(-1, 1))));
    }
    for (auto* list : {&initial, &grad_final}) {
      for (std::int64_t k = 0; k < entries; ++k) list->push_back(static_cast<V>(random.uniform(-1, 1)));
    }
  }

  /// What a place, OnCpu or OnDevice, makes of it: output, final; gradients of x, initial and steps.
  template <class T>
  struct Results {
    std::vector<T> output, grad_x;
    std::vector<V> final, grad_initial;
    std::vector<double> grad_steps;
  };

  template <class T, class Memory, class Run>
  Results<T> run(Memory& memory, const std::vector<T>& in, const std::vector<T>& grads, bool with_state, Run call) const {
    const auto count = static_cast<std::int64_t>(steps.size());
    const Delay<T> delays{Param<V>(memory.in(steps.data(), count), count, 2), most};
    typename Delay<T>::Forward forwards{.x = memory.in(in.data(), elements(layout)),
                                        .output = memory.template out<T>(elements(layout)),
                                        .final = memory.template out<V>(entries)};
    typename Delay<T>::Backward backwards{.grad_output = memory.in(grads.data(), elements(layout)),
                                          .x = forwards.x,
                                          .grad_x = memory.template out<T>(elements(layout)),
                                          .grad_initial = memory.template out<V>(entries),
                                          .grad_steps = memory.template out<double>(count)};
    if (with_state) {
      forwards.initial = backwards.initial = memory.in(initial.data(), entries);
      backwards.grad_final = memory.in(grad_final.data(), entries);
    }
    call(delays, forwards, backwards);
    return {memory.fetch(forwards.output, elements(layout)), memory.fetch(backwards.grad_x, elements(layout)),
            memory.fetch(forwards.final, entries), memory.fetch(backwards.grad_initial, entries),
            memory.fetch(backwards.grad_steps, count)};
  }

  Results<V> on_cpu(bool with_state) const {
    OnCpu memory;
    return run<V>(memory, numbers(x), numbers(grad), with_state, [&](const auto& delays, const auto& forwards, const auto& backwards) {
      const auto with = [&](Workspace workspace) {
        workspace.data = memory.template out<char>(static_cast<std::int64_t>(workspace.bytes));
        return workspace;
      };
      ASSERT_EQ(delay(layout, delays, forwards, with(workspace(layout, delays, forwards))), Status::ok);
      ASSERT_EQ(delay_adjoint(layout, delays, backwards, with(workspace(layout, delays, backwards))), Status::ok);
    });
  }
  Results<S> on_device(bool with_state) const {
    OnDevice memory(1);
    return run<S>(memory, x, grad, with_state, [&](const auto& delays, const auto& forwards, const auto& backwards) {
      Workspace space = cuda::workspace(layout, delays, backwards);
      space.data = memory.template out<char>(static_cast<std::int64_t>(space.bytes));
      EXPECT_EQ(cuda::workspace(layout, delays, forwards).bytes, 0u);
      ASSERT_EQ(cuda::delay(layout, delays, forwards), Status::ok);
      ASSERT_EQ(cuda::delay_adjoint(layout, delays, backwards, space), Status::ok);
      ASSERT_TRUE(finish());
    });
  }
};

template <class V>
void expect_near(const std::vector<V>& found, const std::vector<V>& expected, double tolerance) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t k = 0; k < found.size(); ++k) EXPECT_NEAR(found[k], expected[k], tolerance) << k;
}

template <class S>
class CudaDelay : public testing::Test {};
using Types = testing::Types<float, double, float16, bfloat16>;
TYPED_TEST_SUITE(CudaDelay, Types);

TYPED_TEST(CudaDelay, IsThatOfTheCpu) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  using S = TypeParam;
  for (const Layout& layout : {Layout{1, 9, 131}, Layout{3, 9, 40}, Layout{5, 7, 3}, Layout{7, 11, 1}, Layout{1, 1, 1}, Layout{1, 3, 128},
                               Layout{2, 50, 33}, Layout{1, 300, 2}, Layout{2, 600, 1}, Layout{3, 16, 31}, Layout{1, 32, 32}}) {
    for (const std::int64_t most : {0, 1, 5, 14}) {
      for (const std::int64_t count : {std::int64_t{1}, std::int64_t{7}, neurons(layout)}) {
        const DeviceDelay<S> problem(layout, most, count);
        for (const bool with_state : {false, true}) {
          const auto expected = problem.on_cpu(with_state);
          const auto found = problem.on_device(with_state);
          for (std::size_t k = 0; k < expected.output.size(); ++k) {
            ASSERT_EQ(number(found.output[k]), number(stored<S>(expected.output[k])))
                << describe(layout) << " most " << most << " at " << k;
            ASSERT_EQ(number(found.grad_x[k]), number(stored<S>(expected.grad_x[k])))
                << describe(layout) << " most " << most << " at " << k;
          }
          EXPECT_EQ(found.final, expected.final);
          EXPECT_EQ(found.grad_initial, expected.grad_initial);
          expect_near(found.grad_steps, expected.grad_steps, 1e-12 * static_cast<double>(elements(layout)));
        }
      }
    }
  }
}

TEST(CudaDelayArguments, ThatAreImpossibleHaveAStatus) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  constexpr Layout layout{1, 4, 3};
  OnDevice memory(1);
  const std::vector<float> values(12, 1.0f);
  const float* const x = memory.in(values.data(), 12);
  float* const out = memory.out<float>(12);
  double* const grad = memory.out<double>(1);
  const Delay<float> delays{1.0f, 2};
  EXPECT_EQ(cuda::delay({1, 0, 3}, delays, {.x = x, .output = out}), Status::bad_layout);
  EXPECT_EQ(cuda::delay(layout, Delay<float>{1.0f, -1}, {.x = x, .output = out}), Status::bad_parameter);
  EXPECT_EQ(cuda::delay(layout, delays, {.output = out}), Status::null_pointer);
  EXPECT_EQ(cuda::delay_adjoint(layout, delays, {.grad_output = x, .grad_steps = grad}), Status::null_pointer);
  const Delay<float>::Backward with_steps{.grad_output = x, .x = x, .grad_steps = grad};
  EXPECT_EQ(cuda::delay_adjoint(layout, delays, with_steps), Status::workspace_too_small);
  EXPECT_EQ(cuda::delay_adjoint(layout, delays, with_steps, {nullptr, 24}), Status::null_pointer);
  EXPECT_EQ(cuda::delay_adjoint(layout, delays, {.grad_output = x}), Status::ok);
  EXPECT_EQ(cuda::delay({0, 4, 3}, delays, {}), Status::ok);
  ASSERT_EQ(cuda::delay_adjoint({0, 4, 3}, delays, {.grad_steps = grad}), Status::ok);
  ASSERT_TRUE(finish());
  EXPECT_EQ(memory.fetch(grad, 1)[0], 0.0);
}

}   // namespace
}   // namespace exodus::test
