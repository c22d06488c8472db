/// @file
/// forward() gives the bits of the formula, evaluated neuron by neuron in plain scalar code, whatever the layout, the threads, the address
/// and the outputs asked for; and it writes nothing else.
#include <algorithm>
#include <exodus/exp_leak.hpp>

#include "lif_population.hpp"

namespace exodus::test {
namespace {

/// How a call is made.
struct Call {
  bool initial_potential = false, initial_spikes = false;
  bool wants_spikes = true, wants_potential = true, wants_final_potential = true, wants_final_spikes = true;
  int input_offset = 0, spikes_offset = 0, potential_offset = 0;
  int threads = 0;

  static Call any(Random& random) {
    Call call;
    call.initial_potential = random.coin();
    call.initial_spikes = random.coin();
    call.input_offset = static_cast<int>(random.below(3));
    call.spikes_offset = static_cast<int>(random.below(17));
    call.potential_offset = static_cast<int>(random.below(17));
    call.threads = static_cast<int>(1 + random.below(4));
    return call;
  }
};

template <class V>
struct Histories {
  std::vector<V> spikes, potential, final_spikes, final_potential;
};

template <class V>
Histories<V> by_formula(const Layout& layout, const Population<V>& neurons_, const Input<V>& current, const V* u0, const V* s0) {
  const auto count = static_cast<std::size_t>(elements(layout));
  const auto lanes = static_cast<std::size_t>(neurons(layout));
  Histories<V> expected{std::vector<V>(count), std::vector<V>(count), std::vector<V>(lanes), std::vector<V>(lanes)};
  for (std::int64_t j = 0; j < neurons(layout); ++j) {
    const Scalars<V> p = neurons_.scalars(j);
    V u = u0 == nullptr ? V(0) : u0[j], s = s0 == nullptr ? V(0) : s0[j];
    for (std::int64_t n = 0; n < layout.time; ++n) {
      const std::int64_t k = at(layout, j, n);
      u = potential(p, u, s, current[k]);
      s = spikes(p, u);
      expected.potential[static_cast<std::size_t>(k)] = u;
      expected.spikes[static_cast<std::size_t>(k)] = s;
    }
    expected.final_potential[static_cast<std::size_t>(j)] = u;
    expected.final_spikes[static_cast<std::size_t>(j)] = s;
  }
  return expected;
}

template <class V>
void expect_same(const char* what, const Output<V>& got, const std::vector<V>& expected, bool wanted) {
  if (!wanted) {
    EXPECT_TRUE(got.untouched()) << what << " was not asked for";
    return;
  }
  EXPECT_TRUE(got.zones_intact()) << what << ": written beyond its ends";
  if (got.same_bits(expected.data())) return;
  for (std::int64_t k = 0; k < got.size(); ++k) {
    const V a = got[k], b = expected[static_cast<std::size_t>(k)];
    if (std::memcmp(&a, &b, sizeof a) != 0) {
      ADD_FAILURE() << what << "[" << k << "] is " << a << ", the formula gives " << b << " (difference " << a - b << ")";
      return;
    }
  }
}

template <class V>
void check(const Layout& layout, const Population<V>& neurons_, const Call& call, const Input<V>& current, Random& random) {
  const std::int64_t lanes = neurons(layout);
  Input<V> u0(lanes, call.input_offset), s0(lanes, call.input_offset);
  u0.fill(random, -1, 2);
  for (std::int64_t j = 0; j < lanes; ++j) s0[j] = static_cast<V>(random.below(3));
  const V* const u0_given = call.initial_potential ? u0.data() : nullptr;
  const V* const s0_given = call.initial_spikes ? s0.data() : nullptr;

  Output<V> spikes(elements(layout), call.spikes_offset), potential(elements(layout), call.potential_offset);
  Output<V> final_spikes(lanes, call.potential_offset), final_potential(lanes, call.spikes_offset);
  typename Lif<V>::Forward arrays;
  arrays.current = current.data();
  arrays.initial = {u0_given, s0_given};
  arrays.spikes = call.wants_spikes ? spikes.data() : nullptr;
  arrays.potential = call.wants_potential ? potential.data() : nullptr;
  arrays.final.potential = call.wants_final_potential ? final_potential.data() : nullptr;
  arrays.final.spikes = call.wants_final_spikes ? final_spikes.data() : nullptr;
  ASSERT_EQ(run_forward(layout, neurons_.neuron(), arrays, call.threads), Status::ok);

  const Histories<V> expected = by_formula(layout, neurons_, current, u0_given, s0_given);
  expect_same("spikes", spikes, expected.spikes, call.wants_spikes);
  expect_same("potential", potential, expected.potential, call.wants_potential);
  expect_same("final spikes", final_spikes, expected.final_spikes, call.wants_final_spikes);
  expect_same("final potential", final_potential, expected.final_potential, call.wants_final_potential);
}

template <class V>
void check(const Layout& layout, const Population<V>& neurons_, const Call& call, Random& random) {
  SCOPED_TRACE(describe(layout) + " " + neurons_.describe());
  Input<V> current(elements(layout), call.input_offset);
  // Many spikes, sometimes several in a step; some potentials at the lower bound.
  current.fill(random, -0.8, neurons_.max_spikes == 1 ? 1.2 : 3.5);
  check(layout, neurons_, call, current, random);
}

template <class V>
class ForwardIsTheFormula : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ForwardIsTheFormula, Types, TypeName);

TYPED_TEST(ForwardIsTheFormula, InEveryLayout) {
  using V = TypeParam;
  Random random(1);
  int number = 0;
  for (const Layout& layout : layouts(300000)) {
    for (int k = 0; k < (elements(layout) < 20000 ? 4 : 2); ++k, ++number) {
      const Shapes shapes = number % 2 == 0 ? Shapes{} : Shapes::any(random);
      const std::int64_t max_spikes[] = {1, 1, 0, 3};
      check(layout, population<V>(random, layout, reset_forms[number % 4], max_spikes[number / 4 % 4], shapes), Call::any(random), random);
      if (this->HasFailure()) return;
    }
  }
}

TYPED_TEST(ForwardIsTheFormula, WithEveryOption) {
  using V = TypeParam;
  Random random(2);
  for (const Layout& layout : {Layout{1, 5, 65}, Layout{5, 17, 3}, Layout{2, 2, 129}, Layout{3, 20, 1}}) {
    for (const ResetForm& form : reset_forms) {
      for (const Shape v_min : {Shape::absent, Shape::scalar}) {
        for (const std::int64_t max_spikes : {1, 3, 0}) {
          for (int initial = 0; initial < 4; ++initial) {
            for (int wanted = 0; wanted < 16; ++wanted) {
              Call call = Call::any(random);
              call.initial_potential = (initial & 1) != 0;
              call.initial_spikes = (initial & 2) != 0;
              call.wants_spikes = (wanted & 1) != 0;
              call.wants_potential = (wanted & 2) != 0;
              call.wants_final_potential = (wanted & 4) != 0;
              call.wants_final_spikes = (wanted & 8) != 0;
              Shapes shapes;
              shapes.v_min = v_min;
              check(layout, population<V>(random, layout, form, max_spikes, shapes), call, random);
              if (this->HasFailure()) return;
            }
          }
        }
      }
    }
  }
}

TYPED_TEST(ForwardIsTheFormula, WithParametersOfEveryShape) {
  using V = TypeParam;
  Random random(3);
  for (const Layout& layout : {Layout{1, 3, 1025}, Layout{6, 4, 40}, Layout{2, 3, 1500}, Layout{150, 5, 1}, Layout{3, 4, 130}}) {
    for (int parameter = 0; parameter < 5; ++parameter) {
      for (int shape = 0; shape < static_cast<int>(Shape::count); ++shape) {
        Shapes shapes;
        Shape* const list[] = {&shapes.alpha, &shapes.threshold, &shapes.gain, &shapes.reset_amount, &shapes.v_min};
        *list[parameter] = static_cast<Shape>(shape);
        check(layout, population<V>(random, layout, reset_forms[shape % 2], 1, shapes), Call::any(random), random);
      }
    }
    for (int k = 0; k < 40; ++k) {
      check(layout, population<V>(random, layout, reset_forms[k % 4], k % 3, Shapes::any(random)), Call::any(random), random);
    }
    if (this->HasFailure()) return;
  }
}

TYPED_TEST(ForwardIsTheFormula, BeyondTheCaches) {
  using V = TypeParam;
  Random random(4);
  int number = 0;
  for (const Layout& layout : large_layouts()) {
    Call call;
    call.initial_potential = call.initial_spikes = true;
    const int offsets[][2] = {{0, 0}, {1, 1}, {3, 7}};
    call.input_offset = number % 2;
    call.spikes_offset = offsets[number % 3][0];
    call.potential_offset = offsets[number % 3][1];
    call.threads = 1 + number % 3;
    Shapes shapes;
    shapes.alpha = number % 2 == 0 ? Shape::scalar : Shape::per_inner;
    check(layout, population<V>(random, layout, reset_forms[number % 4], 1, shapes), call, random);
    ++number;
    if (this->HasFailure()) return;
  }
}

/// floor(u / threshold) where the quotient is a whole number, or one rounding away from it.
TYPED_TEST(ForwardIsTheFormula, AtMultiplesOfTheThreshold) {
  using V = TypeParam;
  Random random(5);
  for (const V threshold : {V(0.1), V(0.3), V(1), V(1.1), V(7)}) {
    for (const std::int64_t max_spikes : {0, 1, 2, 4, 1000}) {
      const Layout layout{1, 3, 513};
      Population<V> p;
      p.alpha = Values<V>(random, Shape::scalar, layout, 0.5, 1);
      p.threshold = Values<V>(random, Shape::scalar, layout, threshold, threshold);
      p.max_spikes = max_spikes;
      Input<V> current(elements(layout));
      for (std::int64_t k = 0; k < elements(layout); ++k) {
        const V multiple = static_cast<V>(k / 3) * threshold;
        current[k] = k % 3 == 0 ? multiple : std::nextafter(multiple, k % 3 == 1 ? V(-1e9) : V(1e9));
      }
      SCOPED_TRACE(p.describe());
      check(layout, p, Call{}, current, random);
    }
  }
}

/// Decays above 1, thresholds of either sign, no threshold at all: still the formula.
TYPED_TEST(ForwardIsTheFormula, ForAnyParameterValue) {
  using V = TypeParam;
  Random random(6);
  const Layout layout{2, 30, 70};
  const V values[] = {V(0), V(-1), V(1.5), V(1e-30), V(1e30)};
  for (int parameter = 0; parameter < 5; ++parameter) {
    for (const V value : values) {
      for (const ResetForm& form : reset_forms) {
        Population<V> p = population<V>(random, layout, form, 1, Shapes{});
        Values<V>* const list[] = {&p.alpha, &p.threshold, &p.gain, &p.reset_amount, &p.v_min};
        *list[parameter] = Values<V>(random, Shape::scalar, layout, value, value);
        SCOPED_TRACE(p.describe());
        Input<V> current(elements(layout));
        current.fill(random, -1, 1);
        const Histories<V> expected = by_formula<V>(layout, p, current, nullptr, nullptr);
        std::vector<V> spikes(expected.spikes.size()), potential(spikes.size());
        ASSERT_EQ(run_forward(layout, p.neuron(), {.current = current.data(), .spikes = spikes.data(), .potential = potential.data()}),
                  Status::ok);
        for (std::size_t k = 0; k < spikes.size(); ++k) {
          ASSERT_EQ(spikes[k], expected.spikes[k]) << k;
          if (std::isnan(expected.potential[k])) {   // inf - inf; its sign bit is the processor's choice
            ASSERT_TRUE(std::isnan(potential[k])) << k;
          } else {
            ASSERT_EQ(potential[k], expected.potential[k]) << k;
          }
        }
      }
    }
  }
}

/// NaN never fires, passes the clamp, and like infinity stays in its own neuron.
TYPED_TEST(ForwardIsTheFormula, NotANumberStaysInItsNeuron) {
  using V = TypeParam;
  const V inf = std::numeric_limits<V>::infinity(), nan = std::numeric_limits<V>::quiet_NaN();
  Random random(7);
  for (const Layout& layout : {Layout{1, 12, 300}, Layout{300, 12, 1}, Layout{20, 12, 9}}) {
    for (const std::int64_t max_spikes : {1, 0, 2}) {
      for (const ResetForm& form : reset_forms) {
        Shapes shapes;
        shapes.v_min = random.coin() ? Shape::scalar : Shape::absent;
        const Population<V> p = population<V>(random, layout, form, max_spikes, shapes);
        SCOPED_TRACE(describe(layout) + " " + p.describe());
        Input<V> current(elements(layout));
        current.fill(random, -0.5, 1);
        for (std::int64_t j = 0; j < neurons(layout); ++j) {
          if (j % 7 == 3) current[at(layout, j, 4)] = j % 3 == 0 ? nan : (j % 3 == 1 ? inf : -inf);
        }
        const Histories<V> expected = by_formula<V>(layout, p, current, nullptr, nullptr);
        std::vector<V> spikes(expected.spikes.size()), potential(spikes.size());
        ASSERT_EQ(run_forward(layout, p.neuron(), {.current = current.data(), .spikes = spikes.data(), .potential = potential.data()}),
                  Status::ok);
        for (std::int64_t j = 0; j < neurons(layout); ++j) {
          for (std::int64_t n = 0; n < layout.time; ++n) {
            const auto k = static_cast<std::size_t>(at(layout, j, n));
            ASSERT_TRUE(spikes[k] == expected.spikes[k] || (std::isnan(spikes[k]) && std::isnan(expected.spikes[k]))) << j << " " << n;
            ASSERT_TRUE(potential[k] == expected.potential[k] || (std::isnan(potential[k]) && std::isnan(expected.potential[k])))
                << j << " " << n;
            ASSERT_TRUE(j % 7 == 3 || std::isfinite(potential[k])) << j << " " << n;
            ASSERT_TRUE(!std::isnan(potential[k]) || spikes[k] == 0) << j << " " << n;
          }
        }
      }
    }
  }
}

/// The final state of one call as the initial state of the next: the same bits as one call.
TYPED_TEST(ForwardIsTheFormula, InChunksOfTime) {
  using V = TypeParam;
  Random random(8);
  for (const Layout& layout : {Layout{1, 50, 1100}, Layout{3, 50, 70}, Layout{9, 50, 5}, Layout{130, 50, 1}}) {
    for (const ResetForm& form : reset_forms) {
      const Population<V> p = population<V>(random, layout, form, 0, Shapes::any(random));
      SCOPED_TRACE(describe(layout) + " " + p.describe());
      Input<V> current(elements(layout));
      current.fill(random, -0.6, 1.5);
      const Histories<V> whole = by_formula<V>(layout, p, current, nullptr, nullptr);

      const std::int64_t lanes = neurons(layout);
      std::vector<V> u(static_cast<std::size_t>(lanes)), s(u.size());
      for (std::int64_t begin = 0; begin < layout.time;) {
        const std::int64_t steps = std::min(1 + random.below(20), layout.time - begin);
        const Layout chunk{layout.outer, steps, layout.inner};
        Input<V> part(elements(chunk));
        for (std::int64_t j = 0; j < lanes; ++j) {
          for (std::int64_t n = 0; n < steps; ++n) part[at(chunk, j, n)] = current[at(layout, j, begin + n)];
        }
        std::vector<V> spikes(static_cast<std::size_t>(elements(chunk))), potential(spikes.size()), next_u(u.size()), next_s(s.size());
        ASSERT_EQ(run_forward(chunk, p.neuron(),
                              {.current = part.data(),
                               .initial = {u.data(), s.data()},
                               .spikes = spikes.data(),
                               .potential = potential.data(),
                               .final = {next_u.data(), next_s.data()}}),
                  Status::ok);
        for (std::int64_t j = 0; j < lanes; ++j) {
          for (std::int64_t n = 0; n < steps; ++n) {
            const auto k = static_cast<std::size_t>(at(layout, j, begin + n)), l = static_cast<std::size_t>(at(chunk, j, n));
            ASSERT_EQ(potential[l], whole.potential[k]);
            ASSERT_EQ(spikes[l], whole.spikes[k]);
          }
        }
        u = next_u, s = next_s;
        begin += steps;
      }
    }
  }
}

/// The leaky integrator: u = (alpha u) + (gain a); it has no spikes to write.
TYPED_TEST(ForwardIsTheFormula, OfTheLeakyIntegrator) {
  using V = TypeParam;
  Random random(9);
  int number = 0;
  for (const Layout& layout : layouts(60000)) {
    ++number;
    const auto shape = [&] { return static_cast<Shape>(random.below(static_cast<std::int64_t>(Shape::count))); };
    const Values<V> alpha(random, shape(), layout, 0, 1), gain(random, shape(), layout, -2, 2);
    SCOPED_TRACE(describe(layout));
    ExpLeak<V> neuron;
    neuron.alpha = alpha.param();
    neuron.gain = gain.param();
    Input<V> current(elements(layout), number % 2), initial(neurons(layout));
    current.fill(random, -1, 1), initial.fill(random, -1, 1);
    const bool given = random.coin();
    Output<V> potential(elements(layout), number % 3), spikes(elements(layout)), final(neurons(layout), number % 5);
    typename ExpLeak<V>::Forward arrays;
    arrays.current = current.data();
    arrays.initial.potential = given ? initial.data() : nullptr;
    arrays.potential = potential.data();
    arrays.spikes = spikes.data();
    arrays.final.potential = final.data();
    ASSERT_EQ(run_forward(layout, neuron, arrays), Status::ok);

    std::vector<V> expected(static_cast<std::size_t>(elements(layout))), last(static_cast<std::size_t>(neurons(layout)));
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      V u = given ? initial[j] : V(0);
      for (std::int64_t n = 0; n < layout.time; ++n) {
        u = (alpha.at(j, V(1)) * u) + (gain.at(j, V(1)) * current[at(layout, j, n)]);
        expected[static_cast<std::size_t>(at(layout, j, n))] = u;
      }
      last[static_cast<std::size_t>(j)] = u;
    }
    expect_same("potential", potential, expected, true);
    expect_same("final potential", final, last, true);
    EXPECT_TRUE(spikes.untouched());
    if (this->HasFailure()) return;
  }
}

}   // namespace
}   // namespace exodus::test
