/// @file
/// Delays on raw buffers: forward has the formula's bits on every layout, instruction set and number of threads; the adjoint is its
/// transpose; nothing is written outside of the results; impossible arguments give the status that says so and write nothing.
#include <exodus/delay.hpp>

#include "support.hpp"

namespace exodus::test {
namespace {

constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();

/// Arrays of a delay and of its adjoint.
template <class V>
struct Problem {
  Layout layout;
  std::int64_t most, entries;
  Values<V> steps;
  Input<V> x, initial, grad, grad_final;
  Output<V> output, final, grad_x, grad_initial;
  Output<double> grad_steps;

  Problem(const Layout& of, std::int64_t longest, Shape shape, std::uint64_t seed)
      : layout(of),
        most(longest),
        entries((longest + 1) * neurons(of)),
        x(elements(of), 1),
        initial(entries, 1),
        grad(elements(of), 1),
        grad_final(entries, 1),
        output(elements(of), static_cast<int>(seed % 3)),
        final(entries, 1),
        grad_x(elements(of), static_cast<int>(seed % 5)),
        grad_initial(entries, 1),
        grad_steps(0) {
    Random random(seed);
    steps = Values<V>(random, shape, of, -0.3, static_cast<double>(most) + 0.3);
    for (V& t : steps.list) {
      if (random.coin()) t = std::floor(t);
    }
    for (Input<V>* array : {&x, &initial, &grad, &grad_final}) array->fill(random, -1, 1);
    grad_steps = Output<double>(steps.count());
  }

  Delay<V> delays() const { return {steps.param(), most}; }
  V value(const Input<V>& array, const Input<V>& before, std::int64_t j, std::int64_t n) const {
    return n >= 0 ? array[at(layout, j, n)] : before[(-1 - n) * neurons(layout) + j];
  }
  double steps_of(std::int64_t j) const {
    const double t = static_cast<double>(steps.at(j, 0)), bound = static_cast<double>(most);
    return t < 0 ? 0 : (t > bound ? bound : t);
  }

  Status forward(int threads = 1) {
    const typename Delay<V>::Forward arrays{x.data(), initial.data(), output.data(), final.data()};
    const CallMemory memory(workspace(layout, delays(), arrays, threads));
    return delay(layout, delays(), arrays, memory.workspace());
  }
  Status backward(int threads = 1) {
    const typename Delay<V>::Backward arrays{grad.data(),         x.data(),         initial.data(), grad_final.data(), grad_x.data(),
                                             grad_initial.data(), grad_steps.data()};
    const CallMemory memory(workspace(layout, delays(), arrays, threads));
    return delay_adjoint(layout, delays(), arrays, memory.workspace());
  }
  bool zones_intact() const {
    return output.zones_intact() && final.zones_intact() && grad_x.zones_intact() && grad_initial.zones_intact() &&
           grad_steps.zones_intact();
  }
};

template <class V>
void expect_formula(const Problem<V>& problem) {
  const Layout& layout = problem.layout;
  for (std::int64_t j = 0; j < neurons(layout); ++j) {
    const V t = static_cast<V>(problem.steps_of(j)), whole = std::floor(t), f = t - whole;
    const auto k = static_cast<std::int64_t>(whole);
    for (std::int64_t n = 0; n < layout.time; ++n) {
      const V near = problem.value(problem.x, problem.initial, j, n - k);
      const V far = problem.value(problem.x, problem.initial, j, n - k - 1);
      const V expected = f == 0 ? near : ((1 - f) * near) + (f * far);
      ASSERT_EQ(problem.output[at(layout, j, n)], expected) << describe(layout) << " neuron " << j << " step " << n << " delay " << t;
    }
    for (std::int64_t e = 0; e <= problem.most; ++e) {
      ASSERT_EQ(problem.final[e * neurons(layout) + j], problem.value(problem.x, problem.initial, j, layout.time - 1 - e));
    }
  }
}

/// sum(grad output') + sum(grad_final final') of other inputs x' is the same sum taken with the gradients; the delay's gradient is the sum
/// over all steps.
template <class V>
void expect_adjoint(Problem<V>& problem) {
  const Layout& layout = problem.layout;
  const double tolerance = sizeof(V) == 4 ? 1e-4 : 1e-10;
  std::vector<double> of_delay(static_cast<std::size_t>(problem.steps.count())), terms(of_delay.size());
  for (std::int64_t j = 0; j < neurons(layout); ++j) {
    double forth = 0, back = 0, size = 1;
    const auto k = static_cast<std::int64_t>(problem.steps_of(j));
    for (std::int64_t n = 0; n < layout.time; ++n) {
      const double g = problem.grad[at(layout, j, n)];
      forth += g * problem.output[at(layout, j, n)];
      back += double(problem.grad_x[at(layout, j, n)]) * problem.x[at(layout, j, n)];
      const double near = problem.value(problem.x, problem.initial, j, n - k);
      const double far = problem.value(problem.x, problem.initial, j, n - k - 1);
      const auto c = static_cast<std::size_t>(problem.steps.index(j));
      of_delay[c] += g * (far - near), terms[c] += std::abs(g) * (std::abs(far) + std::abs(near));
      size += std::abs(g);
    }
    for (std::int64_t e = 0; e <= problem.most; ++e) {
      const std::int64_t entry = e * neurons(layout) + j;
      forth += double(problem.grad_final[entry]) * problem.final[entry];
      back += double(problem.grad_initial[entry]) * problem.initial[entry];
      size += 1;
    }
    ASSERT_NEAR(forth, back, tolerance * size) << describe(layout) << " neuron " << j;
  }
  for (std::size_t c = 0; c < of_delay.size(); ++c) {
    ASSERT_NEAR(problem.grad_steps[static_cast<std::int64_t>(c)], of_delay[c], (sizeof(V) == 4 ? 1e-6 : 1e-12) * terms[c])
        << describe(layout) << " value " << c;
  }
}

template <class V>
class DelaysAreTheFormula : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(DelaysAreTheFormula, Types, TypeName);

TYPED_TEST(DelaysAreTheFormula, OnEveryLayout) {
  std::uint64_t seed = 0;
  for (const Layout& layout : layouts(20000)) {
    for (const std::int64_t most : {0, 1, 13, 40}) {
      const auto shape = static_cast<Shape>(1 + seed % (static_cast<int>(Shape::count) - 1));
      Problem<TypeParam> problem(layout, most, shape, ++seed);
      ASSERT_EQ(problem.forward(), Status::ok);
      ASSERT_NO_FATAL_FAILURE(expect_formula(problem));
      ASSERT_EQ(problem.backward(), Status::ok);
      ASSERT_NO_FATAL_FAILURE(expect_adjoint(problem));
      ASSERT_TRUE(problem.zones_intact()) << describe(layout);
    }
  }
}

TYPED_TEST(DelaysAreTheFormula, BeyondTheCachesAndForLongDelays) {
  constexpr std::pair<Layout, std::int64_t> cases[] = {
      {{1, 20, 150003}, 5}, {{1, 35, 64000}, 70}, {{33000, 80, 1}, 5}, {{9000, 90, 3}, 20},
      {{2, 1200000, 1}, 9}, {{1, 300, 70}, 2000}, {{2, 90, 70}, 1023},
  };
  for (const auto& [layout, most] : cases) {
    for (const Shape shape : {Shape::scalar, Shape::per_neuron}) {
      Problem<TypeParam> problem(layout, most, shape, 7);
      ASSERT_EQ(problem.forward(2), Status::ok);
      ASSERT_NO_FATAL_FAILURE(expect_formula(problem));
      ASSERT_EQ(problem.backward(2), Status::ok);
      ASSERT_NO_FATAL_FAILURE(expect_adjoint(problem));
      ASSERT_TRUE(problem.zones_intact());
    }
  }
}

TYPED_TEST(DelaysAreTheFormula, OnAnyNumberOfThreads) {
  for (const Layout& layout : {Layout{1, 30, 3000}, Layout{9, 30, 130}, Layout{700, 30, 3}, Layout{3000, 30, 1}}) {
    Problem<TypeParam> alone(layout, 9, Shape::per_neuron, 3);
    ASSERT_EQ(alone.forward(), Status::ok);
    ASSERT_EQ(alone.backward(), Status::ok);
    for (const int threads : {2, 3, 8}) {
      Problem<TypeParam> many(layout, 9, Shape::per_neuron, 3);
      ASSERT_EQ(many.forward(threads), Status::ok);
      ASSERT_EQ(many.backward(threads), Status::ok);
      EXPECT_TRUE(many.output.same_bits(alone.output) && many.final.same_bits(alone.final));
      EXPECT_TRUE(many.grad_x.same_bits(alone.grad_x) && many.grad_initial.same_bits(alone.grad_initial));
      EXPECT_TRUE(many.grad_steps.same_bits(alone.grad_steps));
    }
  }
}

TYPED_TEST(DelaysAreTheFormula, WhateverIsWanted) {
  for (const Layout& layout : {Layout{2, 7, 70}, Layout{5, 7, 3}}) {
    Problem<TypeParam> all(layout, 4, Shape::per_neuron, 3);
    ASSERT_EQ(all.backward(), Status::ok);
    for (int wanted = 0; wanted < 8; ++wanted) {
      Problem<TypeParam> some(layout, 4, Shape::per_neuron, 3);
      typename Delay<TypeParam>::Backward arrays{.grad_output = some.grad.data(), .grad_final = some.grad_final.data()};
      if (wanted & 1) arrays.grad_x = some.grad_x.data();
      if (wanted & 2) arrays.grad_initial = some.grad_initial.data();
      if (wanted & 4) arrays.x = some.x.data(), arrays.initial = some.initial.data(), arrays.grad_steps = some.grad_steps.data();
      const CallMemory memory(workspace(layout, some.delays(), arrays, 1));
      ASSERT_EQ(delay_adjoint(layout, some.delays(), arrays, memory.workspace()), Status::ok);
      EXPECT_TRUE(wanted & 1 ? some.grad_x.same_bits(all.grad_x) : some.grad_x.untouched());
      EXPECT_TRUE(wanted & 2 ? some.grad_initial.same_bits(all.grad_initial) : some.grad_initial.untouched());
      EXPECT_TRUE(wanted & 4 ? some.grad_steps.same_bits(all.grad_steps) : some.grad_steps.untouched());
    }
  }
}

TYPED_TEST(DelaysAreTheFormula, OfAGradientThatIsMissingIsThatOfTheState) {
  for (const Layout& layout : {Layout{2, 7, 70}, Layout{5, 7, 3}}) {
    Problem<TypeParam> problem(layout, 4, Shape::per_neuron, 3);
    const typename Delay<TypeParam>::Backward arrays{.grad_final = problem.grad_final.data(), .grad_x = problem.grad_x.data()};
    const CallMemory memory(workspace(layout, problem.delays(), arrays, 1));
    ASSERT_EQ(delay_adjoint(layout, problem.delays(), arrays, memory.workspace()), Status::ok);
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      for (std::int64_t n = 0; n < 7; ++n) {
        const TypeParam expected = n < 2 ? 0 : problem.grad_final[(6 - n) * neurons(layout) + j];
        EXPECT_EQ(problem.grad_x[at(layout, j, n)], expected);
      }
    }
  }
}

TYPED_TEST(DelaysAreTheFormula, AnyValueIsADelay) {
  using V = TypeParam;
  constexpr V infinity = std::numeric_limits<V>::infinity(), nan = std::numeric_limits<V>::quiet_NaN();
  for (const Layout& layout : {Layout{1, 9, 64}, Layout{1, 9, 8}}) {
    Problem<V> problem(layout, 3, Shape::per_neuron, 5);
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      const V odd[] = {nan, infinity, -infinity, V(-0.0), V(1e30), V(-1e30), V(3), std::numeric_limits<V>::denorm_min()};
      problem.steps.list[static_cast<std::size_t>(j)] = odd[j % 8];
    }
    ASSERT_EQ(problem.forward(), Status::ok);
    ASSERT_EQ(problem.backward(), Status::ok);
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      for (std::int64_t n = 0; n < 9; ++n) {
        const V found = problem.output[at(layout, j, n)];
        const V now = problem.value(problem.x, problem.initial, j, n), longest = problem.value(problem.x, problem.initial, j, n - 3);
        const V expected[] = {nan, longest, now, now, longest, now, longest, now};
        EXPECT_TRUE(j % 8 == 0 ? std::isnan(found) : found == expected[j % 8]) << j << " " << n;
      }
    }
    EXPECT_TRUE(problem.zones_intact());
  }
}

TYPED_TEST(DelaysAreTheFormula, ImpossibleArgumentsHaveAStatus) {
  using V = TypeParam;
  constexpr Layout layout{2, 5, 3};
  const auto expect = [&](const Layout& of, const Delay<V>& delays, bool with_x, std::int64_t bytes, bool with_memory, Status expected) {
    Problem<V> problem(layout, 2, Shape::scalar, 1);
    std::vector<double> memory(1 << 14);
    const Workspace workspace{with_memory ? memory.data() : nullptr, static_cast<std::size_t>(bytes), 1};
    const V* const x = with_x ? problem.x.data() : nullptr;
    EXPECT_EQ(delay(of, delays, {x, problem.initial.data(), problem.output.data(), problem.final.data()}, workspace), expected);
    EXPECT_EQ(delay_adjoint(of, delays,
                            {problem.grad.data(), x, problem.initial.data(), problem.grad_final.data(), problem.grad_x.data(),
                             problem.grad_initial.data(), problem.grad_steps.data()},
                            workspace),
              expected);
    EXPECT_TRUE(problem.output.untouched() && problem.final.untouched() && problem.grad_x.untouched() && problem.grad_initial.untouched() &&
                problem.grad_steps.untouched());
  };
  constexpr std::int64_t enough = 1 << 17;
  const Delay<V> good{V(1), 2};
  expect({2, 0, 3}, good, true, enough, true, Status::bad_layout);
  expect({-1, 5, 3}, good, true, enough, true, Status::bad_layout);
  expect({huge, 5, 3}, good, true, enough, true, Status::bad_layout);
  expect(layout, {V(1), -1}, true, enough, true, Status::bad_parameter);
  expect(layout, {V(1), huge}, true, enough, true, Status::bad_parameter);
  expect(layout, {V(1), huge / 8}, true, enough, true, Status::bad_parameter);
  expect(layout, {Param<V>(nullptr, 3), 2}, true, enough, true, Status::bad_parameter);
  expect(layout, {Param<V>(), 2}, true, enough, true, Status::bad_parameter);
  const V values[] = {1, 2, 0};
  expect(layout, {Param<V>(values, 3, 0), 2}, true, enough, true, Status::bad_parameter);
  expect(layout, {Param<V>(values, -3), 2}, true, enough, true, Status::bad_parameter);
  expect(layout, good, false, enough, true, Status::null_pointer);
  expect(layout, good, true, 8, true, Status::workspace_too_small);
  expect(layout, good, true, enough, false, Status::null_pointer);
  EXPECT_EQ(workspace({2, 0, 3}, good, typename Delay<V>::Forward{}).bytes, 0u);
}

TYPED_TEST(DelaysAreTheFormula, WithoutNeuronsNothingIsNeeded) {
  using V = TypeParam;
  const std::vector<V> values{1, 2, 3};
  const Delay<V> delays{Param<V>(values.data(), 3), 5};
  for (const Layout& layout : {Layout{0, 5, 3}, Layout{2, 5, 0}}) {
    EXPECT_EQ(delay(layout, delays, typename Delay<V>::Forward{}), Status::ok);
    double grads[] = {7, 7, 7};
    EXPECT_EQ(delay_adjoint(layout, delays, typename Delay<V>::Backward{.grad_steps = grads}), Status::ok);
    for (const double grad : grads) EXPECT_EQ(grad, 0);
  }
}

}   // namespace
}   // namespace exodus::test
