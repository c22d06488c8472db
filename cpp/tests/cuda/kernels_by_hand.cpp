/// @file
/// Cases of the CUDA kernels whose results are known without the CPU's: numbers of two bytes, gradients of states only, taps and the
/// workspace that they need.
#include <exodus/exp_leak.hpp>
#include <exodus/kernel_filter.hpp>
#include <exodus/lif.hpp>
#include <exodus/srm.hpp>

#include "../support.hpp"
#include "device.hpp"
#include "halves.hpp"

namespace exodus::test {
namespace {

template <class S>
class CudaHalves : public testing::Test {};
using Halves = testing::Types<float16, bfloat16>;
TYPED_TEST_SUITE(CudaHalves, Halves);

/// A leak that forgets at once gives back what it gets, so that every half becomes a float and every second float a half.
TYPED_TEST(CudaHalves, AreConvertedAsOnTheHost) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  for (const Layout layout : {Layout{1, 1, 1 << 16}, Layout{1 << 16, 1, 1}}) {
    std::vector<TypeParam> halves;
    std::vector<float> floats;
    Random random(1);
    for (std::int64_t k = 0; k < elements(layout); ++k) {
      halves.push_back({static_cast<std::uint16_t>(k)});
      floats.push_back(__builtin_bit_cast(float, static_cast<std::uint32_t>(random.bits())));
      if (random.coin()) floats.back() = number(halves.back()) * (1 + 0x1p-9f);   // between the others and beyond the last
    }
    ExpLeak<TypeParam> neuron;
    neuron.alpha = 0.0f;
    OnDevice device(1);
    typename ExpLeak<TypeParam>::Forward to{.current = device.in(halves.data(), elements(layout)),
                                            .potential = device.template out<float>(elements(layout))};
    ASSERT_EQ(device.forward(layout, neuron, to), Status::ok);
    typename ExpLeak<TypeParam>::Backward back{.grad_potential = device.in(floats.data(), elements(layout)),
                                               .grad_current = device.template out<TypeParam>(elements(layout))};
    ASSERT_EQ(device.backward(layout, neuron, Method::exodus, Surrogate<TypeParam>{}, back), Status::ok);
    const auto potential = device.fetch(to.potential, elements(layout));
    const auto grad_current = numbers(device.fetch(back.grad_current, elements(layout)));
    for (std::size_t k = 0; k < halves.size(); ++k) {
      const float wide = number(halves[k]), narrow = number(stored<TypeParam>(floats[k]));
      ASSERT_TRUE(wide == potential[k] || (std::isnan(wide) && std::isnan(potential[k]))) << wide << " is " << potential[k];
      ASSERT_TRUE(narrow == grad_current[k] || (std::isnan(narrow) && std::isnan(grad_current[k]))) << narrow << " is " << grad_current[k];
    }
  }
}

/// 3009 spikes are 3008 in float16 and in bfloat16, but the reset takes 3009.
TYPED_TEST(CudaHalves, CountsAreRoundedWhereTheyAreStoredAlone) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  const std::vector<TypeParam> current{stored<TypeParam>(3008), stored<TypeParam>(0)};
  Lif<TypeParam> neuron;
  neuron.gain = 3009.0f / 3008.0f;
  neuron.max_spikes = 0;
  OnDevice device(1);
  typename Lif<TypeParam>::Forward to{.current = device.in(current.data(), 2), .spikes = device.template out<TypeParam>(2)};
  ASSERT_EQ(device.forward({1, 2, 1}, neuron, to), Status::ok);
  EXPECT_EQ(numbers(device.fetch(to.spikes, 2)), (std::vector<float>{3008, 0}));
}

TEST(CudaState, GradientsOfStatesAlone) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  const Layout layout{1, 3, 40};
  const std::vector<float> final(40, 2.0f);
  ExpLeak<float> neuron;
  neuron.alpha = 0.5f;
  OnDevice device(1);
  ExpLeak<float>::Backward arrays;
  arrays.grad_final.potential = device.in(final.data(), 40);
  float* const initial = device.out<float>(40);
  arrays.grad_initial.potential = initial;
  ASSERT_EQ(device.backward(layout, neuron, Method::exodus, Surrogate<float>{}, arrays), Status::ok);
  for (const float gradient : device.fetch(initial, 40)) EXPECT_EQ(gradient, 0.25f);
}

TEST(CudaDecay, HasTheBitsOfTheCpu) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  constexpr std::int64_t count = 5000;
  Random random(2);
  std::vector<double> taus(count), steps = {0.5, 1.0, 3.0}, expected(count);
  for (double& tau : taus) tau = std::ldexp(random.uniform(1, 2), static_cast<int>(random.below(30)) - 11);
  OnDevice device(1);
  const double* const on_device = device.in(taus.data(), count);
  const double* const steps_on_device = device.in(steps.data(), 3);
  double* const found = device.out<double>(count);
  for (const std::int64_t repeat : {1, 7}) {
    ASSERT_EQ(decay(Param<double>(steps.data(), 3, repeat), Param<double>(taus.data(), count), count, expected.data()), Status::ok);
    ASSERT_EQ(cuda::decay(Param<double>(steps_on_device, 3, repeat), Param<double>(on_device, count), count, found), Status::ok);
    ASSERT_TRUE(finish());
    const std::vector<double> values = device.fetch(found, count);
    for (std::size_t k = 0; k < values.size(); ++k) ASSERT_EQ(values[k], expected[k]) << steps[k / repeat % 3] << " / " << taus[k];
  }
  EXPECT_EQ(cuda::decay(Param<double>(1), Param<double>(1), 0, nullptr), Status::ok);
  EXPECT_EQ(cuda::decay(Param<double>(1), Param<double>(1), 1, nullptr), Status::null_pointer);
  EXPECT_EQ(cuda::decay(Param<double>(1), Param<double>(1), -1, found), Status::bad_layout);
  EXPECT_EQ(cuda::decay(Param<double>(1), Param<double>(), 1, found), Status::bad_parameter);
}

TEST(CudaRotation, HasTheBitsOfTheCpu) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  constexpr std::int64_t count = 5000;
  Random random(3);
  std::vector<double> angles(count), expected[2] = {std::vector<double>(count), std::vector<double>(count)};
  for (double& angle : angles) angle = std::ldexp(random.uniform(-1, 1), static_cast<int>(random.below(60)) - 11);
  angles[0] = std::numeric_limits<double>::infinity(), angles[1] = 1e300, angles[2] = -0.0;
  OnDevice device(1);
  const double* const on_device = device.in(angles.data(), count);
  double *const cosines = device.out<double>(count), *const sines = device.out<double>(count);
  ASSERT_EQ(rotation(Param<double>(angles.data(), count), count, expected[0].data(), expected[1].data()), Status::ok);
  ASSERT_EQ(cuda::rotation(Param<double>(on_device, count), count, cosines, sines), Status::ok);
  ASSERT_TRUE(finish());
  const std::vector<double> found[2] = {device.fetch(cosines, count), device.fetch(sines, count)};
  for (std::size_t k = 1; k < angles.size(); ++k) {
    ASSERT_EQ(found[0][k], expected[0][k]) << "cosine of " << angles[k];
    ASSERT_EQ(found[1][k], expected[1][k]) << "sine of " << angles[k];
  }
  EXPECT_TRUE(std::isnan(found[0][0]) && std::isnan(found[1][0]));
  EXPECT_EQ(cuda::rotation(Param<double>(1), 0, nullptr, nullptr), Status::ok);
  EXPECT_EQ(cuda::rotation(Param<double>(1), 1, cosines, nullptr), Status::null_pointer);
  EXPECT_EQ(cuda::rotation(Param<double>(1), -1, cosines, sines), Status::bad_layout);
  EXPECT_EQ(cuda::rotation(Param<double>(), 1, cosines, sines), Status::bad_parameter);
}

/// Learnt numbers of type T, for parameters of type V, as many as there may be: the last gradient is not wanted.
template <class T, class V>
void expect_learnt_numbers_of_the_host() {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  std::vector<LearntRange> ranges = {{0, 1, 0}, {0, 1, 0}, {0.25, infinity, 0.5}, {0.25, infinity, 0.5}};
  std::vector<T> values = {T(0.3), T(1.5), T(7.7), T(-2)}, own = {T(0.3), T(1), T(7.7), T(0.25)};
  std::vector<double> sums = {0.7, -1.3, 2.9, 3.1};
  constexpr int count = max_parameters;
  for (int k = 4; k < count; ++k) {
    ranges.push_back({-infinity, infinity, 0}), values.push_back(T(k)), own.push_back(T(k)), sums.push_back(0.1 * k);
  }
  OnDevice device(1);
  const T* const on_device = device.in(values.data(), count);
  const double* const sums_on_device = device.in(sums.data(), count);
  auto* const numbers = device.out<LearntNumber>(count);
  V *const parameters = device.out<V>(count), *const gradients = device.out<V>(count);
  std::vector<const T*> from;
  std::vector<const double*> sum;
  std::vector<V*> to;
  for (int k = 0; k < count; ++k) from.push_back(on_device + k), sum.push_back(sums_on_device + k), to.push_back(gradients + k);
  to.back() = nullptr;
  ASSERT_EQ(cuda::learnt_numbers(count, ranges.data(), from.data(), numbers, parameters), Status::ok);
  ASSERT_EQ(cuda::learnt_gradients(count, ranges.data(), numbers, sum.data(), to.data()), Status::ok);
  ASSERT_TRUE(finish());
  const auto found = device.fetch(numbers, count);
  const auto found_parameters = device.fetch(parameters, count), found_gradients = device.fetch(gradients, count);
  for (std::size_t k = 0; k < ranges.size(); ++k) {
    const double value = own[k];
    const bool is_tau = ranges[k].dt > 0;
    const double model = is_tau ? decay(0.5, value) : value;
    EXPECT_EQ(found[k].own, value);
    EXPECT_EQ(found[k].model, model);
    EXPECT_EQ(found_parameters[k], static_cast<V>(model));
    const double expected = sums[k] * (is_tau ? model * 0.5 / (value * value) : 1);
    if (to[k] == nullptr) continue;
    EXPECT_NEAR(found_gradients[k], expected, (sizeof(V) == 4 ? 1e-6 : 1e-14) * std::abs(expected));
  }
  EXPECT_NE(found_gradients.back(), found_gradients.back()) << "a gradient that nobody wanted was written";
}

TEST(CudaLearnt, NumbersAreThoseOfTheHost) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  expect_learnt_numbers_of_the_host<float, float>();
  expect_learnt_numbers_of_the_host<float, double>();
  expect_learnt_numbers_of_the_host<double, float>();
  expect_learnt_numbers_of_the_host<double, double>();
}

TEST(CudaLearnt, NumbersAreChecked) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  const LearntRange range{0, 1, 0};
  OnDevice device(1);
  const float value = 0.5f, *const on_device = device.in(&value, 1), *const nothing = nullptr;
  auto* const numbers = device.out<LearntNumber>(1);
  float* const parameters = device.out<float>(1);
  const double *const sums = device.out<double>(1), *const no_sum = nullptr;
  EXPECT_EQ(cuda::learnt_numbers(0, nullptr, static_cast<const float* const*>(nullptr), nullptr, parameters), Status::ok);
  EXPECT_EQ(cuda::learnt_numbers(-1, &range, &on_device, numbers, parameters), Status::bad_parameter);
  EXPECT_EQ(cuda::learnt_numbers(max_parameters + 1, &range, &on_device, numbers, parameters), Status::bad_parameter);
  EXPECT_EQ(cuda::learnt_numbers(1, &range, &nothing, numbers, parameters), Status::null_pointer);
  EXPECT_EQ(cuda::learnt_numbers(1, &range, &on_device, nullptr, parameters), Status::null_pointer);
  EXPECT_EQ(cuda::learnt_gradients(0, nullptr, nullptr, nullptr, static_cast<float* const*>(nullptr)), Status::ok);
  EXPECT_EQ(cuda::learnt_gradients(-1, &range, numbers, &sums, &parameters), Status::bad_parameter);
  EXPECT_EQ(cuda::learnt_gradients(max_parameters + 1, &range, numbers, &sums, &parameters), Status::bad_parameter);
  EXPECT_EQ(cuda::learnt_gradients(1, &range, numbers, &no_sum, &parameters), Status::null_pointer);
  EXPECT_EQ(cuda::learnt_gradients(1, &range, nullptr, &sums, &parameters), Status::null_pointer);
}

TEST(CudaTaps, ForgetAnInfinityAfterTheLast) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  const Layout layout{1, 12, 40};
  const float taps[] = {0.5f, -0.25f, 0.125f};
  std::vector<float> current(480), grad_potential(480);
  current[2 * 40 + 3] = grad_potential[9 * 40 + 3] = INFINITY;
  OnDevice device(1);
  KernelFilter<float> filter;
  filter.taps.kernel = {device.in(taps, 3), 3, 1, 1};
  KernelFilter<float>::Forward to{.current = device.in(current.data(), 480), .potential = device.out<float>(480)};
  ASSERT_EQ(device.forward(layout, filter, to), Status::ok);
  KernelFilter<float>::Backward back{
      .potential = to.potential, .grad_potential = device.in(grad_potential.data(), 480), .grad_current = device.out<float>(480)};
  ASSERT_EQ(device.backward(layout, filter, Method::exodus, Surrogate<float>{}, back), Status::ok);
  const auto potential = device.fetch(to.potential, 480), grad_current = device.fetch(back.grad_current, 480);
  for (int n = 0; n < 12; ++n) {
    for (int j = 0; j < 40; ++j) {
      const auto k = static_cast<std::size_t>(n * 40 + j);
      EXPECT_EQ(std::isfinite(potential[k]), !(j == 3 && n >= 2 && n < 5)) << "neuron " << j << ", step " << n;
      EXPECT_EQ(std::isfinite(grad_current[k]), !(j == 3 && n >= 7 && n < 10)) << "neuron " << j << ", step " << n;
    }
  }
}

/// The filtered current is in the potential's array where that is wanted and is not the current's own. The CPU is the witness.
TEST(CudaTaps, FilterTheCurrentWhereverThePotentialIs) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  constexpr std::int64_t length = 9;
  for (const std::int64_t time : {5, 50}) {
    const Layout layout{3, time, 37};
    const std::int64_t size = elements(layout), history = (length - 1) * layout.outer * layout.inner;
    Random random(11);
    Input<float> current(size), taps(length), initial(history);
    current.fill(random, -0.8, 1.2), taps.fill(random, -0.2, 1), initial.fill(random, -0.5, 0.5);
    const auto run = [&](auto& place, float* potential, const float* input) {
      Srm<float> neuron;
      neuron.taps.epsilon = {place.in(taps.data(), length), length, 1, 1};
      Srm<float>::Forward to{.current = input, .spikes = place.template out<float>(size), .potential = potential};
      to.initial.epsilon_x = place.in(initial.data(), history), to.final.epsilon_x = place.template out<float>(history);
      EXPECT_EQ(place.forward(layout, neuron, to), Status::ok);
      return std::pair{place.fetch(to.spikes, size), place.fetch(to.final.epsilon_x, history)};
    };
    OnCpu cpu;
    auto* const on_cpu = cpu.out<float>(size);
    const auto expected = run(cpu, on_cpu, cpu.in(current.data(), size));
    OnDevice device(1);
    const auto copy = [&] { return device.in(current.data(), size); };
    auto* const own = device.out<float>(size);
    auto* const both = const_cast<float*>(copy());
    EXPECT_GT(std::count(expected.first.begin(), expected.first.end(), 1.0f), 5 * time);
    EXPECT_EQ(run(device, own, copy()), expected);
    EXPECT_EQ(run(device, nullptr, copy()), expected);
    EXPECT_EQ(run(device, both, both), expected);
    EXPECT_EQ(device.fetch(own, size), cpu.fetch(on_cpu, size));
    EXPECT_EQ(device.fetch(both, size), cpu.fetch(on_cpu, size));
  }
}

TEST(CudaTaps, NeedTheWorkspaceThatIsSaid) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  const Layout layout{1, 4, 3};
  const std::vector<float> values(12);
  OnDevice device(1);
  Srm<float> neuron;
  neuron.taps.nu = {device.in(values.data(), 5), 5, 1, 1};
  const Srm<float>::Forward to{.current = device.in(values.data(), 12), .potential = device.out<float>(12)};
  Workspace memory = cuda::workspace(layout, neuron, to);
  EXPECT_EQ(cuda::forward(layout, neuron, to, memory), Status::null_pointer);
  memory.data = device.out<char>(static_cast<std::int64_t>(memory.bytes));
  EXPECT_EQ(cuda::forward(layout, neuron, to, memory), Status::ok);
  EXPECT_TRUE(finish());
  EXPECT_EQ(cuda::forward(layout, neuron, to, {memory.data, memory.bytes - 1}), Status::workspace_too_small);
}

}   // namespace
}   // namespace exodus::test
