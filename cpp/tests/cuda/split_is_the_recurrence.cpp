/// @file
/// The backward pass of few neurons (split.hpp), whose steps run side by side, computes the recurrence: cases that are known by hand, with
/// an error against float64 like that of a loop over time, and bits that only the number of steps decides.
#include <algorithm>
#include <cmath>
#include <exodus/cuba_lif.hpp>
#include <exodus/exp_leak.hpp>
#include <exodus/kernel_filter.hpp>
#include <exodus/lif.hpp>

#include "../support.hpp"
#include "device.hpp"

namespace exodus::test {
namespace {

constexpr float v_min = -0.5f, inside = 0.75f;   // a potential inside of the surrogate's window, of width 1 around the threshold, 1

/// dL/da and dL/du[-1].
template <class V>
struct Gradients {
  std::vector<V> current, initial;
};

/// A pass of LIFs. Their surrogate is a boxcar, which has no rounding.
struct Pass {
  Layout layout;
  float alpha, peak = 1;   ///< peak: h inside of the window
  Method method = Method::exodus;
  Reset reset = Reset::subtract;
  std::vector<float> potential, grad_spikes;

  Pass(const Layout& of, float decay)
      : layout(of),
        alpha(decay),
        potential(static_cast<std::size_t>(elements(of)), inside),
        grad_spikes(static_cast<std::size_t>(elements(of))) {}

  float& u(std::int64_t j, std::int64_t n) { return potential[static_cast<std::size_t>(at(layout, j, n))]; }
  float& e(std::int64_t j, std::int64_t n) { return grad_spikes[static_cast<std::size_t>(at(layout, j, n))]; }

  /// `direct`: with a gradient of the potential, of zeros, which a loop over time reads.
  template <class V, class Run>
  Gradients<V> run(Run& device, bool direct = false) const {
    Lif<V> neuron;
    neuron.alpha = V(alpha), neuron.v_min = V(v_min);
    neuron.reset = reset;
    Surrogate<V> surrogate{SurrogateKind::boxcar, V(peak)};
    surrogate.shape[0] = V(1);
    const std::vector<V> u(potential.begin(), potential.end()), given(grad_spikes.begin(), grad_spikes.end()), zeros(u.size());
    const std::int64_t size = elements(layout);
    typename Lif<V>::Backward arrays{
        .potential = device.in(u.data(), size), .grad_spikes = device.in(given.data(), size), .grad_current = device.template out<V>(size)};
    if (direct) arrays.grad_potential = device.in(zeros.data(), size);
    V* const initial = arrays.grad_initial.potential = device.template out<V>(neurons(layout));
    EXPECT_EQ(device.backward(layout, neuron, method, surrogate, arrays), Status::ok);
    return {device.fetch(arrays.grad_current, size), device.fetch(initial, neurons(layout))};
  }
};

constexpr std::int64_t times[] = {17, 32, 33, 255, 256, 257, 300, 513};   // around the edges of chunks and of what runs side by side

TEST(CudaSplit, DecaysFromTheLastStepToTheFirst) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  for (const std::int64_t time : times) {
    Pass pass({1, time, 37}, 0.875f);
    pass.reset = Reset::none;
    for (std::int64_t j = 0; j < 37; ++j) pass.e(j, time - 1) = static_cast<float>(j);
    OnDevice device(1);
    const auto found = pass.run<float>(device);
    for (std::int64_t j = 0; j < 37; ++j) {
      for (std::int64_t n = 0; n < time; ++n) {
        const double d = static_cast<double>(j) * std::pow(0.875, static_cast<double>(time - 1 - n));
        EXPECT_NEAR(found.current[static_cast<std::size_t>(at(pass.layout, j, n))], d, 1e-5 * d) << time << " steps, step " << n;
      }
      EXPECT_EQ(found.initial[static_cast<std::size_t>(j)], 0.875f * found.current[static_cast<std::size_t>(j)]);
    }
  }
}

/// Where the reset takes all that a spike's gradient gives, alpha - rho h = 0: each step has its own gradient alone.
TEST(CudaSplit, ForgetsWhereTheFactorIsZero) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  Pass pass({1, 40, 32}, 1);
  for (std::int64_t n = 0; n < 40; ++n) pass.e(5, n) = static_cast<float>(n);
  OnDevice device(1);
  const auto found = pass.run<float>(device);
  for (std::int64_t n = 0; n < 40; ++n) EXPECT_EQ(found.current[static_cast<std::size_t>(at(pass.layout, 5, n))], static_cast<float>(n));
}

/// Nothing passes a clipped step, not even an infinity: in the last chunk, at its edges, and in those before.
TEST(CudaSplit, AClippedStepPassesNothing) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  constexpr std::int64_t time = 300;
  for (const float last : {1.0f, INFINITY}) {
    Pass pass({1, time, time}, 1);   // neuron j is clipped at step j
    pass.reset = Reset::none;
    for (std::int64_t j = 0; j < time; ++j) pass.u(j, j) = v_min, pass.e(j, time - 1) = last;
    OnDevice device(1);
    const auto found = pass.run<float>(device);
    for (std::int64_t j = 0; j < time; ++j) {
      for (std::int64_t n = 0; n < time; ++n) {
        EXPECT_EQ(found.current[static_cast<std::size_t>(at(pass.layout, j, n))], n > j ? last : 0) << "neuron " << j << ", step " << n;
      }
    }
  }
}

/// The product of a chunk's factors is infinite here, but there is no gradient for it to multiply.
TEST(CudaSplit, AnOverflowingProductMakesNothingOfZero) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  Pass pass({1, 64, 32}, 1);
  pass.peak = 1e30f;
  for (std::int64_t j = 0; j < 32; ++j) pass.e(j, 0) = 1;
  OnDevice device(1);
  const auto found = pass.run<float>(device);
  for (std::int64_t n = 0; n < 64; ++n) EXPECT_EQ(found.current[static_cast<std::size_t>(at(pass.layout, 3, n))], n == 0 ? 1e30f : 0);
}

/// Random potentials, half of them inside of the window, or if `clips` one in ten of them at v_min.
Pass random_pass(const Layout& layout, float alpha, bool clips, std::uint64_t seed) {
  Pass pass(layout, alpha);
  pass.peak = 0.25f;
  for (std::int64_t j = 0; j < neurons(layout); ++j) {
    Random random(seed + static_cast<std::uint64_t>(j));   // whatever the layout
    for (std::int64_t n = 0; n < layout.time; ++n) {
      pass.u(j, n) = clips && random.below(10) == 0 ? v_min : static_cast<float>(random.uniform(0, 2));
      pass.e(j, n) = static_cast<float>(random.uniform(-1, 1));
    }
  }
  return pass;
}

/// The root of the mean square of a result's errors, relative to the largest gradient of the neuron.
double error(const Layout& layout, const Gradients<float>& found, const Gradients<double>& exact) {
  double sum = 0;
  for (std::int64_t j = 0; j < neurons(layout); ++j) {
    double largest = 0, squares = 0;
    for (std::int64_t n = 0; n < layout.time; ++n) {
      const auto k = static_cast<std::size_t>(at(layout, j, n));
      largest = std::max(largest, std::abs(exact.current[k]));
      squares += (found.current[k] - exact.current[k]) * (found.current[k] - exact.current[k]);
    }
    if (largest > 0) sum += squares / (largest * largest);
  }
  return std::sqrt(sum / static_cast<double>(elements(layout)));
}

TEST(CudaSplit, HasTheErrorOfALoopOverTime) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  Random random(1);
  for (const std::int64_t time : {1, 2, 17, 50, 250, 1000, 2000}) {
    for (const float alpha : {0.5f, 0.9f, 0.99f, 0.999f}) {
      for (const Reset reset : {Reset::subtract, Reset::zero, Reset::none}) {
        Pass pass = random_pass({1, time, time > 100 ? 40 : 400}, alpha, random.coin(), random.bits());
        pass.reset = reset, pass.method = random.coin() ? Method::slayer : Method::exodus;
        OnCpu cpu;
        OnDevice split(1), loop(1);
        const auto exact = pass.run<double>(cpu);
        const double of_split = error(pass.layout, pass.run<float>(split), exact);
        const double of_loop = error(pass.layout, pass.run<float>(loop, true), exact);
        EXPECT_LE(of_split, 1.5 * of_loop) << time << " steps, alpha " << alpha << ", reset " << static_cast<int>(reset);
      }
    }
  }
}

/// A pass of neurons that `make`, a generic lambda, makes for each type. `with_sum`: with the gradient of the first parameter, which a loop
/// over time computes.
template <class V, class Make, class Run>
Gradients<V> gradients_of(const Make& make, const Pass& pass, Run& device, bool with_sum = false) {
  const auto neuron = make.template operator()<V>();
  using N = std::remove_cvref_t<decltype(neuron)>;
  const std::int64_t size = elements(pass.layout);
  const std::vector<V> u(pass.potential.begin(), pass.potential.end()), given(pass.grad_spikes.begin(), pass.grad_spikes.end());
  const V* const potential = device.in(u.data(), size);
  typename N::Backward arrays{.potential = potential, .current = potential, .grad_current = device.template out<V>(size)};
  (N::fires ? arrays.grad_spikes : arrays.grad_potential) = device.in(given.data(), size);
  V* const initial = arrays.grad_initial.potential = device.template out<V>(neurons(pass.layout));
  double* const sum = with_sum ? device.template out<double>(1) : nullptr;
  for_each_field<Traits<N>::parameters>(arrays.grad, [&](double*& grad, int k) { grad = k == 0 ? sum : nullptr; });
  Surrogate<V> surrogate{SurrogateKind::boxcar, V(pass.peak)};
  surrogate.shape[0] = V(1);
  EXPECT_EQ(device.backward(pass.layout, neuron, pass.method, surrogate, arrays), Status::ok);
  return {device.fetch(arrays.grad_current, size), device.fetch(initial, neurons(pass.layout))};
}

template <class Make>
void expect_error_of_a_loop(const Make& make, std::int64_t time, Random& random, const std::string& what) {
  Pass pass = random_pass({1, time, time > 100 ? 40 : 400}, 1, false, random.bits());
  pass.method = random.coin() ? Method::slayer : Method::exodus;
  OnCpu cpu;
  OnDevice split(1), loop(1);
  const auto exact = gradients_of<double>(make, pass, cpu);
  const auto found = gradients_of<float>(make, pass, split), in_order = gradients_of<float>(make, pass, loop, true);
  const double of_split = error(pass.layout, found, exact), of_loop = error(pass.layout, in_order, exact);
  EXPECT_LE(of_split, 1.5 * of_loop) << what << ", " << time << " steps";
  EXPECT_NE(found.current, in_order.current) << what << ": its steps do not run side by side";
}

/// Neurons whose adjoints carry one or two numbers. Decays that are not powers of two make each step round.
TEST(CudaSplit, OtherNeuronsHaveTheErrorOfALoopToo) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  Random random(2);
  for (const std::int64_t time : {50, 250, 1000}) {
    for (const float decay : {0.7f, 0.9f, 0.99f, 0.999f}) {
      const std::string what = "decay " + std::to_string(decay);
      const auto cuba_lif = [&]<class V>() {
        CubaLif<V> neuron;
        neuron.alpha = V(decay), neuron.alpha_syn = V(0.8f);
        return neuron;
      };
      const auto leak = [&]<class V>() {
        ExpLeak<V> neuron;
        neuron.alpha = V(decay), neuron.gain = V(0.3f);
        return neuron;
      };
      const auto filter = [&]<class V>() {
        KernelFilter<V> neuron;
        neuron.a = V(decay), neuron.b = V(0.6f), neuron.kernel = FilterTiming::late;
        return neuron;
      };
      expect_error_of_a_loop(cuba_lif, time, random, "CubaLIF, " + what);
      expect_error_of_a_loop(leak, time, random, "leaky integrator, " + what);
      expect_error_of_a_loop(filter, time, random, "filter, " + what);
    }
  }
}

TEST(CudaSplit, BitsFollowFromTheNumberOfSteps) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  for (const std::int64_t time : times) {
    const Pass plain = random_pass({1, time, 96}, 0.95f, true, 7);
    OnDevice device(1);
    const auto expected = plain.run<float>(device);
    for (const Layout& layout : {Layout{1, time, 96}, Layout{3, time, 32}, Layout{2, time, 41}, Layout{1, time, 33}}) {
      const Pass pass = random_pass(layout, 0.95f, true, 7);
      OnDevice again(2);
      const auto found = pass.run<float>(again);
      for (std::int64_t j = 0; j < neurons(layout); ++j) {
        for (std::int64_t n = 0; n < time; ++n) {
          ASSERT_EQ(found.current[static_cast<std::size_t>(at(layout, j, n))],
                    expected.current[static_cast<std::size_t>(at(plain.layout, j, n))])
              << describe(layout) << " neuron " << j << ", step " << n;
        }
        ASSERT_EQ(found.initial[static_cast<std::size_t>(j)], expected.initial[static_cast<std::size_t>(j)]) << describe(layout);
      }
    }
  }
}

}   // namespace
}   // namespace exodus::test
