/// @file
/// Kernels with taps: forward has the bits of the sum written out, backward the values of the sums over all steps, in every layout, with
/// the taps of neurons in every arrangement; the workspace suffices to the last byte; bad taps are refused.
#include <algorithm>
#include <exodus/kernel_filter.hpp>
#include <exodus/srm.hpp>

#include "support.hpp"

namespace exodus::test {
namespace {

/// A pass of an SRM with two FIR kernels, and its expected results, neuron by neuron from the definition.
template <class V>
struct Pass {
  Layout layout;
  SomeTaps<V> epsilon, nu;
  Input<V> current, grad_spikes, initial_spikes, inputs, earlier, final_inputs, final_earlier, final_spikes;
  Output<V> spikes, potential, grad_current, last_spikes, last_inputs, last_earlier, grad_initial_spikes, grad_inputs, grad_earlier;
  Output<double> grad_epsilon, grad_nu, grad_threshold;

  static constexpr V threshold = V(0.8);

  Pass(const Layout& of, std::int64_t long_one, std::int64_t long_two, std::int64_t count, std::int64_t repeat)
      : layout(of),
        epsilon(long_one, count, repeat, -0.4, 0.8),
        nu(long_two, count, repeat, -0.9, 0.3),
        current(elements(of)),
        grad_spikes(elements(of)),
        initial_spikes(neurons(of)),
        inputs((long_one - 1) * neurons(of)),
        earlier((long_two - 1) * neurons(of)),
        final_inputs((long_one - 1) * neurons(of)),
        final_earlier((long_two - 1) * neurons(of)),
        final_spikes(neurons(of)),
        spikes(elements(of)),
        potential(elements(of)),
        grad_current(elements(of)),
        last_spikes(neurons(of)),
        last_inputs((long_one - 1) * neurons(of)),
        last_earlier((long_two - 1) * neurons(of)),
        grad_initial_spikes(neurons(of)),
        grad_inputs((long_one - 1) * neurons(of)),
        grad_earlier((long_two - 1) * neurons(of)),
        grad_epsilon(long_one * count),
        grad_nu(long_two * count),
        grad_threshold(1) {
    Random random(3);
    current.fill(random, -1, 1.2), grad_spikes.fill(random, -1, 1), inputs.fill(random, -1, 1);
    for (Input<V>* const fired : {&initial_spikes, &earlier}) {
      for (std::int64_t k = 0, size = fired == &earlier ? (long_two - 1) * neurons(of) : neurons(of); k < size; ++k) {
        (*fired)[k] = random.below(9) == 0 ? V(1) : V(0);
      }
    }
    for (Input<V>* const gradient : {&final_inputs, &final_earlier, &final_spikes}) gradient->fill(random, -1, 1);
  }

  Srm<V> neuron() const {
    Srm<V> srm;
    srm.taps = {epsilon.taps(), nu.taps()};
    srm.threshold = threshold;
    return srm;
  }

  /// `slots` is for how many threads there is memory.
  Status run(Method method, int threads, int slots) {
    const Srm<V> srm = neuron();
    typename Srm<V>::Forward to{.current = current.data(), .spikes = spikes.data(), .potential = potential.data()};
    to.initial = {nullptr, initial_spikes.data(), inputs.data(), nullptr, earlier.data(), nullptr};
    to.final = {nullptr, last_spikes.data(), last_inputs.data(), nullptr, last_earlier.data(), nullptr};
    typename Srm<V>::Backward back{.potential = potential.data(),
                                   .current = current.data(),
                                   .initial = to.initial,
                                   .grad_spikes = grad_spikes.data(),
                                   .grad_current = grad_current.data()};
    back.grad_final = {nullptr, final_spikes.data(), final_inputs.data(), nullptr, final_earlier.data(), nullptr};
    back.grad_initial = {nullptr, grad_initial_spikes.data(), grad_inputs.data(), nullptr, grad_earlier.data(), nullptr};
    back.grad_taps = {grad_epsilon.data(), grad_nu.data()}, back.grad.threshold = grad_threshold.data();

    Workspace forwards = workspace(layout, srm, to, slots);
    Workspace backwards = workspace(layout, srm, method, Surrogate<V>{}, back, slots);
    Output<char> memory(static_cast<std::int64_t>(std::max(forwards.bytes, backwards.bytes)));
    forwards.data = backwards.data = memory.data();
    forwards.threads = backwards.threads = threads;
    Status status = forward(layout, srm, to, forwards);
    if (status == Status::ok) status = backward(layout, srm, method, Surrogate<V>{}, back, backwards);
    EXPECT_TRUE(memory.zones_intact());
    for (const Output<V>* const array : {&spikes, &potential, &grad_current, &last_spikes, &last_inputs, &last_earlier,
                                         &grad_initial_spikes, &grad_inputs, &grad_earlier}) {
      EXPECT_TRUE(array->zones_intact());
    }
    return status;
  }

  /// The input of a kernel at a step. Inputs before step 0 are in the state.
  V input(std::int64_t j, std::int64_t n) const {
    return n >= 0 ? current[at(layout, j, n)] : (-n < epsilon.length ? inputs[(-1 - n) * neurons(layout) + j] : V(0));
  }
  V spike(std::int64_t j, std::int64_t n) const {
    if (n >= 0) return spikes[at(layout, j, n)];
    if (n == -1) return initial_spikes[j];
    return -n - 1 < nu.length ? earlier[(-2 - n) * neurons(layout) + j] : V(0);
  }

  /// Compares the potential with the sums over the inputs and the spikes that the pass wrote.
  void expect_forward(const std::string& what) const {
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      for (std::int64_t n = 0; n < layout.time; ++n) {
        V z = 0, r = 0;
        for (std::int64_t k = 0; k < epsilon.length; ++k) z += epsilon.at(j, k) * input(j, n - k);
        for (std::int64_t k = nu.length - 1; k >= 0; --k) r += nu.at(j, k) * spike(j, n - 1 - k);   // the oldest first
        ASSERT_EQ(potential[at(layout, j, n)], z + r) << what << " neuron " << j << ", step " << n;
        ASSERT_EQ(spikes[at(layout, j, n)], z + r >= threshold ? V(1) : V(0)) << what << " neuron " << j << ", step " << n;
      }
      for (std::int64_t k = 0; k + 1 < epsilon.length; ++k) {
        ASSERT_EQ(last_inputs[k * neurons(layout) + j], input(j, layout.time - 1 - k)) << what << " neuron " << j << ", entry " << k;
      }
      for (std::int64_t k = 0; k + 1 < nu.length; ++k) {
        ASSERT_EQ(last_earlier[k * neurons(layout) + j], spike(j, layout.time - 2 - k)) << what << " neuron " << j << ", entry " << k;
      }
    }
  }

  /// A sum, and the sum of the magnitudes of its terms, to which rounding errors are relative.
  struct Sum {
    double value = 0, size = 0;
    void add(double term) { value += term, size += std::abs(term); }
    void add(const Sum& terms, double factor) { value += terms.value * factor, size += terms.size * std::abs(factor); }
    void expect(double got, double tolerance, const std::string& what) const { ASSERT_NEAR(got, value, tolerance * size) << what; }
  };

  /// All gradients, in double.
  void expect_backward(Method method, double tolerance, const std::string& what) const {
    const std::int64_t T = layout.time, N = neurons(layout);
    std::vector<Sum> of_epsilon(static_cast<std::size_t>(epsilon.length * epsilon.count)),
        of_nu(static_cast<std::size_t>(nu.length * nu.count));
    Sum of_threshold;
    const auto index = [](std::int64_t k) { return static_cast<std::size_t>(k); };
    for (std::int64_t j = 0; j < N; ++j) {
      std::vector<Sum> lam(index(T));
      const auto lam_at = [&](std::int64_t n) { return n >= 0 && n < T ? lam[index(n)].value : 0.0; };
      const auto through_spike = [&](std::int64_t n) {
        double sum = 0;
        for (std::int64_t k = 0; k < nu.length; ++k) sum += double(nu.at(j, k)) * lam_at(n + 1 + k);
        return sum;
      };
      const auto direct = [&](const Input<V>& final, std::int64_t entry, std::int64_t length) {
        return entry >= 0 && entry < length - 1 ? double(final[entry * N + j]) : 0.0;
      };
      double largest = 0;
      for (std::int64_t n = T - 1; n >= 0; --n) {
        const double u = potential[at(layout, j, n)],
                     h = surrogate(SurrogateKind::single_exponential, double(Surrogate<V>{}.scale), shape, u, threshold);
        Sum S;
        S.add(grad_spikes[at(layout, j, n)]);
        if (n == T - 1) S.add(final_spikes[j]);
        if (method != Method::slayer) {
          S.add(direct(final_earlier, T - 2 - n, nu.length));
          for (std::int64_t k = 0; k < nu.length; ++k) S.add(double(nu.at(j, k)) * lam_at(n + 1 + k));
        }
        lam[index(n)].add(S, h), of_threshold.add(S, -h);
        largest = std::max(largest, std::abs(lam[index(n)].value));
      }
      const double allowed = tolerance * (1 + largest) * (1 + static_cast<double>(epsilon.length + nu.length));
      const auto of_input = [&](std::int64_t n) {
        double sum = direct(final_inputs, T - 1 - n, epsilon.length);
        for (std::int64_t k = 0; k < epsilon.length; ++k) sum += double(epsilon.at(j, k)) * lam_at(n + k);
        return sum;
      };
      for (std::int64_t n = 0; n < T; ++n) ASSERT_NEAR(grad_current[at(layout, j, n)], of_input(n), allowed) << what << j << ", step " << n;
      for (std::int64_t k = 0; k + 1 < epsilon.length; ++k) ASSERT_NEAR(grad_inputs[k * N + j], of_input(-1 - k), allowed) << what << j;
      ASSERT_NEAR(grad_initial_spikes[j], method == Method::slayer ? 0 : through_spike(-1) + direct(final_earlier, T - 1, nu.length),
                  allowed);
      for (std::int64_t k = 0; k + 1 < nu.length; ++k) {
        ASSERT_NEAR(grad_earlier[k * N + j], through_spike(-2 - k) + direct(final_earlier, T + k, nu.length), allowed) << what << j;
      }
      for (std::int64_t k = 0; k < epsilon.length; ++k) {
        for (std::int64_t n = 0; n < T; ++n)
          of_epsilon[index(k * epsilon.count + j / epsilon.repeat % epsilon.count)].add(lam[index(n)], input(j, n - k));
      }
      for (std::int64_t k = 0; k < nu.length; ++k) {
        for (std::int64_t n = 0; n < T; ++n) of_nu[index(k * nu.count + j / nu.repeat % nu.count)].add(lam[index(n)], spike(j, n - 1 - k));
      }
    }
    for (std::size_t k = 0; k < of_epsilon.size(); ++k) of_epsilon[k].expect(grad_epsilon[k], tolerance, what + " tap of the current");
    for (std::size_t k = 0; k < of_nu.size(); ++k) of_nu[k].expect(grad_nu[k], tolerance, what + " tap of the spikes");
    of_threshold.expect(grad_threshold[0], tolerance, what + " threshold");
  }

  static constexpr double shape[3] = {0.5, 0, 0};
};

template <class V>
class Fir : public testing::Test {};
using Storages = testing::Types<float, double>;
TYPED_TEST_SUITE(Fir, Storages, TypeName);

constexpr double tolerance(float) {
  return 1e-5;
}
constexpr double tolerance(double) {
  return 1e-13;
}

/// Lengths around those that are summed at once, longer than there are steps, and one tap.
constexpr std::int64_t lengths[][2] = {{1, 1}, {2, 9}, {8, 3}, {16, 17}, {40, 1}, {5, 64}};

TYPED_TEST(Fir, IsTheSumInEveryLayout) {
  int turn = 0;
  for (const Layout& layout : layouts(6000)) {
    for (const auto& [one, two] : lengths) {
      const Method method = static_cast<Method>(++turn % 3);
      const std::int64_t arrangements[][2] = {{1, 1}, {neurons(layout), 1}, {layout.inner, 1}, {3, 2}, {layout.outer, layout.inner}};
      const auto& [count, repeat] = arrangements[turn % 5];
      Pass<TypeParam> pass(layout, one, two, count, repeat);
      const std::string what = describe(layout) + " taps " + std::to_string(one) + " " + std::to_string(two) + " count " +
                               std::to_string(count) + " method " + std::to_string(static_cast<int>(method)) + " neuron ";
      ASSERT_EQ(pass.run(method, 3, 3), Status::ok) << what;
      ASSERT_NO_FATAL_FAILURE(pass.expect_forward(what));
      ASSERT_NO_FATAL_FAILURE(pass.expect_backward(method, tolerance(TypeParam{}), what));
    }
  }
}

TYPED_TEST(Fir, HasTheSameBitsForAnyThreadsLayoutAndMemory) {
  for (const Layout& layout : {Layout{1, 100, 2500}, Layout{9, 77, 130}, Layout{300, 50, 7}, Layout{500, 90, 1}}) {
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      Pass<TypeParam> one(layout, 33, 20, 1, 1), other(layout, 33, 20, 1, 1), little(layout, 33, 20, 1, 1),
          plain({1, layout.time, neurons(layout)}, 33, 20, 1, 1);
      for (std::int64_t j = 0; j < neurons(layout); ++j) {
        for (std::int64_t n = 0; n < layout.time; ++n) {
          plain.current[at(plain.layout, j, n)] = one.current[at(layout, j, n)];
          plain.grad_spikes[at(plain.layout, j, n)] = one.grad_spikes[at(layout, j, n)];
        }
      }
      ASSERT_EQ(one.run(method, 1, 1), Status::ok);
      ASSERT_EQ(other.run(method, 4, 4), Status::ok);
      ASSERT_EQ(little.run(method, 4, 1), Status::ok);   // memory for one of four threads
      ASSERT_EQ(plain.run(method, 2, 2), Status::ok);
      for (const Pass<TypeParam>* const another : {&other, &little}) {
        EXPECT_TRUE(one.potential.same_bits(another->potential) && one.grad_current.same_bits(another->grad_current)) << describe(layout);
        EXPECT_TRUE(one.grad_epsilon.same_bits(another->grad_epsilon) && one.grad_nu.same_bits(another->grad_nu)) << describe(layout);
        EXPECT_TRUE(one.grad_threshold.same_bits(another->grad_threshold)) << describe(layout);
      }
      EXPECT_TRUE(one.grad_epsilon.same_bits(plain.grad_epsilon) && one.grad_nu.same_bits(plain.grad_nu)) << describe(layout);
      EXPECT_TRUE(one.grad_inputs.same_bits(plain.grad_inputs) && one.grad_earlier.same_bits(plain.grad_earlier)) << describe(layout);
      for (std::int64_t j = 0; j < neurons(layout); ++j) {
        for (std::int64_t n = 0; n < layout.time; ++n) {
          ASSERT_EQ(one.grad_current[at(layout, j, n)], plain.grad_current[at(plain.layout, j, n)]) << describe(layout) << j << " " << n;
        }
      }
    }
  }
}

TYPED_TEST(Fir, AWorkspaceAByteShortIsRefused) {
  using V = TypeParam;
  const Layout layout{2, 50, 70};
  const SomeTaps<V> taps(11, 1, 1, -1, 1);
  std::vector<V> in(7000, V(0.1));
  Output<V> out(7000), grad_current(7000);
  Output<double> grad(11);
  KernelFilter<V> filter;
  filter.taps.kernel = taps.taps();
  const typename KernelFilter<V>::Forward to{.current = in.data(), .potential = out.data()};
  typename KernelFilter<V>::Backward back{
      .potential = in.data(), .current = in.data(), .grad_potential = in.data(), .grad_current = grad_current.data()};
  back.grad_taps = {grad.data()};
  for (const bool forwards : {true, false}) {
    Workspace asked = forwards ? workspace(layout, filter, to, 1) : workspace(layout, filter, Method::bptt, Surrogate<V>{}, back, 1);
    const auto call = [&] {
      return forwards ? forward(layout, filter, to, asked) : backward(layout, filter, Method::bptt, Surrogate<V>{}, back, asked);
    };
    EXPECT_EQ(call(), Status::null_pointer);
    std::vector<double> memory(asked.bytes / sizeof(double) + 1);
    asked.data = memory.data();
    asked.bytes -= 1;
    EXPECT_EQ(call(), Status::workspace_too_small);
    EXPECT_TRUE((forwards ? out : grad_current).untouched() && grad.untouched());
    asked.bytes += 1;
    EXPECT_EQ(call(), Status::ok);
    EXPECT_TRUE(out.zones_intact() && grad_current.zones_intact() && grad.zones_intact());
    EXPECT_FALSE((forwards ? out : grad_current).untouched());
  }
}

TYPED_TEST(Fir, BadTapsAreRefused) {
  using V = TypeParam;
  const Layout layout{1, 4, 3};
  const std::vector<V> in(12, V(1)), values(6, V(0.5));
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max();
  const Taps<V> bad[] = {{nullptr, 2, 1, 1},          {values.data(), -1, 1, 1},   {values.data(), 2, 0, 1}, {values.data(), 2, 1, 0},
                         {values.data(), 2, huge, 2}, {values.data(), huge, 1, 1}, {values.data(), 2, -3, 1}};
  std::vector<double> memory(1 << 16);
  const Workspace work{memory.data(), memory.size() * sizeof(double), 1};
  for (const Taps<V>& taps : bad) {
    KernelFilter<V> filter;
    filter.taps.kernel = taps;
    Output<V> out(12);
    const typename KernelFilter<V>::Forward to{.current = in.data(), .potential = out.data()};
    EXPECT_EQ(forward(layout, filter, to, work), Status::bad_parameter) << taps.length << " " << taps.count << " " << taps.repeat;
    const typename KernelFilter<V>::Backward back{.grad_potential = in.data(), .grad_current = out.data()};
    EXPECT_EQ(backward(layout, filter, Method::exodus, Surrogate<V>{}, back, work), Status::bad_parameter);
    EXPECT_EQ(workspace(layout, filter, to).bytes, 0u);
    EXPECT_TRUE(out.untouched());
  }
}

/// A kernel has either taps or parameters, and only their gradients.
TYPED_TEST(Fir, TheGradientOfWhatHasNoEffectIsUnsupported) {
  using V = TypeParam;
  const Layout layout{1, 4, 3};
  const SomeTaps<V> taps(2, 1, 1, -1, 1);
  const std::vector<V> in(12, V(1));
  std::vector<double> memory(1 << 16);
  const Workspace work{memory.data(), memory.size() * sizeof(double), 1};
  for (const bool with_taps : {true, false}) {
    KernelFilter<V> filter;
    if (with_taps) filter.taps.kernel = taps.taps();
    Output<double> grad(2);
    typename KernelFilter<V>::Backward back{.potential = in.data(), .current = in.data(), .grad_potential = in.data()};
    (with_taps ? back.grad.scale : back.grad_taps.kernel) = grad.data();
    EXPECT_EQ(backward(layout, filter, Method::exodus, Surrogate<V>{}, back, work), Status::unsupported);
    EXPECT_TRUE(grad.untouched());
  }
}

/// Runs a neuron in memory that holds `byte`, and gives all results.
template <class N>
std::vector<typename N::Storage> results_in(const N& neuron, const Layout& layout, Method method, int byte) {
  using V = typename N::Storage;
  Random random(5);
  const std::int64_t size = elements(layout), count = neurons(layout);
  Input<V> current(size), grad_spikes(size), grad_potential(size);
  current.fill(random, -0.5, 1), grad_spikes.fill(random, -1, 1), grad_potential.fill(random, -1, 1);
  std::vector<V> potential(size), grad_current(size), grad_potential_of_state(count);
  typename N::Forward to{.current = current.data(), .potential = potential.data()};
  typename N::Backward back{.potential = potential.data(),
                            .grad_spikes = grad_spikes.data(),
                            .grad_potential = grad_potential.data(),
                            .grad_current = grad_current.data()};
  back.grad_initial.potential = grad_potential_of_state.data();
  Workspace forwards = workspace(layout, neuron, to, 1);
  Workspace backwards = workspace(layout, neuron, method, Surrogate<V>{}, back, 1);
  std::vector<char> memory(std::max(forwards.bytes, backwards.bytes), static_cast<char>(byte));
  forwards.data = backwards.data = memory.data();
  EXPECT_EQ(forward(layout, neuron, to, forwards), Status::ok);
  std::fill(memory.begin(), memory.end(), static_cast<char>(byte));
  EXPECT_EQ(backward(layout, neuron, method, Surrogate<V>{}, back, backwards), Status::ok);
  for (const auto& gradients : {grad_current, grad_potential_of_state})
    potential.insert(potential.end(), gradients.begin(), gradients.end());
  return potential;
}

TYPED_TEST(Fir, DoesNotDependOnWhatTheWorkspaceHeld) {
  using V = TypeParam;
  for (const std::int64_t length : {1, 2, 11, 90}) {
    const SomeTaps<V> taps(length, 1, 1, -0.5, 0.5);
    KernelFilter<V> filter;
    filter.taps.kernel = taps.taps();
    Srm<V> of_current, of_spikes;
    of_current.taps.epsilon = of_spikes.taps.nu = taps.taps();
    of_current.nu_a = of_spikes.epsilon_a = V(0.8);
    for (const Layout& layout : {Layout{1, 40, 15}, Layout{3, 40, 5}, Layout{15, 40, 1}, Layout{1, 300, 70}, Layout{1, 39, 64}}) {
      for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
        const std::string what = describe(layout) + " taps " + std::to_string(length);
        EXPECT_EQ(results_in(filter, layout, method, 0), results_in(filter, layout, method, 0xff)) << what;
        EXPECT_EQ(results_in(of_current, layout, method, 0), results_in(of_current, layout, method, 0xff)) << what;
        EXPECT_EQ(results_in(of_spikes, layout, method, 0), results_in(of_spikes, layout, method, 0xff)) << what;
      }
    }
  }
}

/// It is linear and has no reset, so the methods differ only in the order of their sums.
TYPED_TEST(Fir, AFilterHasTheSameGradientByEveryMethod) {
  using V = TypeParam;
  for (const std::int64_t length : {1, 3, 40}) {
    for (const std::int64_t each : {1, 5}) {
      const Layout layout{3, 33, 5};
      const SomeTaps<V> taps(length, each, 1, -0.5, 0.5);
      KernelFilter<V> filter;
      filter.taps.kernel = taps.taps();
      Random random(3);
      Input<V> current(elements(layout)), grad_potential(elements(layout)), potential(elements(layout));
      current.fill(random, -1, 1), grad_potential.fill(random, -1, 1);
      std::vector<V> first;
      std::vector<double> first_taps;
      for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
        std::vector<V> grad_current(static_cast<std::size_t>(elements(layout)));
        std::vector<double> grad_taps(static_cast<std::size_t>(length * each));
        typename KernelFilter<V>::Backward back{.potential = potential.data(),
                                                .current = current.data(),
                                                .grad_potential = grad_potential.data(),
                                                .grad_current = grad_current.data()};
        back.grad_taps = {grad_taps.data()};
        Workspace memory = workspace(layout, filter, method, Surrogate<V>{}, back, 1);
        std::vector<double> bytes(memory.bytes / sizeof(double) + 1);
        memory.data = bytes.data();
        ASSERT_EQ(backward(layout, filter, method, Surrogate<V>{}, back, memory), Status::ok);
        if (first.empty()) first = grad_current, first_taps = grad_taps;
        const double tolerance = sizeof(V) == 4 ? 1e-5 : 1e-13;
        for (std::size_t k = 0; k < first.size(); ++k) ASSERT_NEAR(first[k], grad_current[k], tolerance) << "element " << k;
        for (std::size_t k = 0; k < first_taps.size(); ++k) ASSERT_NEAR(first_taps[k], grad_taps[k], 100 * tolerance) << "tap " << k;
      }
    }
  }
}

}   // namespace
}   // namespace exodus::test
