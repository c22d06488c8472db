/// @file
/// evaluate() against the table of surrogates, written with <cmath> in double.
#include <algorithm>

#include "support.hpp"

namespace exodus::test {
namespace {

template <class V>
struct Named {
  const char* name;
  Surrogate<V> surrogate;
  double peak;    ///< the largest value, at scale 1
  double slope;   ///< the largest |dh / d(x / threshold)|, relative to the peak: bounds the effect of a rounding of u
};

template <class V>
std::vector<Named<V>> table() {
  using K = SurrogateKind;
  const auto make = [](K kind, double a = 0, double b = 0, double c = 0) {
    Surrogate<V> s;
    s.kind = kind;
    s.scale = 1;
    s.shape[0] = V(a), s.shape[1] = V(b), s.shape[2] = V(c);
    return s;
  };
  return {{"single_exponential", make(K::single_exponential, 0.5), 2.0, 2},
          {"single_exponential, narrow", make(K::single_exponential, 0.05), 20.0, 20},
          {"periodic_exponential", make(K::periodic_exponential, 0.5), 1.0, 6},
          {"boxcar", make(K::boxcar, 1.0), 1.0, 0},
          {"boxcar, wide", make(K::boxcar, 1.7), 1 / 1.7, 0},
          {"triangle", make(K::triangle, 1.0), 1.0, 1},
          {"triangle, narrow", make(K::triangle, 0.3), 1 / 0.3, 4},
          {"gaussian", make(K::gaussian, 0.0, 0.5), 0.8, 2},
          {"gaussian, off centre", make(K::gaussian, 0.3, 0.2), 2.0, 5},
          {"multi_gaussian", make(K::multi_gaussian, 0.5, 0.15, 6.0), 0.9, 2},
          {"fast_sigmoid", make(K::fast_sigmoid, 25.0), 1.0, 50},
          {"atan", make(K::atan, 2.0), 1.0, 3},
          {"sigmoid", make(K::sigmoid, 4.0), 1.0, 4},
          {"sigmoid, steep", make(K::sigmoid, 40.0), 10.0, 40},
          {"straight_through", make(K::straight_through), 1.0, 0}};
}

template <class V>
class SurrogatesAreTheTable : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(SurrogatesAreTheTable, Types, TypeName);

TYPED_TEST(SurrogatesAreTheTable, ToRounding) {
  using V = TypeParam;
  const double epsilon = std::numeric_limits<V>::epsilon();
  Random random(1);
  for (Named<V>& row : table<V>()) {
    for (const double threshold : {1.0, 0.7, 3.0}) {
      for (const double scale : {1.0, 0.3}) {
        // Dense around the threshold, where every curve bends, and some far away.
        const std::int64_t count = 5000;
        Input<V> u(count, 1);
        for (std::int64_t k = 0; k < count; ++k) u[k] = V(threshold * (1 + (k % 5 == 0 ? 40 : 2) * random.uniform(-1, 1)));
        for (std::int64_t k = 0; k < 8; ++k) u[k] = V(threshold) * V(k);
        Output<V> h(count, 1);
        Surrogate<V> surrogate = row.surrogate;
        surrogate.scale = V(scale);
        ASSERT_EQ(evaluate(surrogate, Param<V>(V(threshold)), count, u.data(), h.data()), Status::ok);
        EXPECT_TRUE(h.zones_intact()) << row.name;
        // The peak of the exponential that is relative to the threshold, and slopes in x, scale with 1 / threshold.
        const double peak = row.peak * scale / std::min(1.0, threshold);
        for (std::int64_t k = 0; k < count; ++k) {
          const double expected = test::surrogate(surrogate, static_cast<double>(u[k]), static_cast<double>(V(threshold)));
          const double argument = epsilon * (std::fabs(static_cast<double>(u[k])) + threshold) * row.slope / std::min(1.0, threshold);
          const double bound = peak * (8 * epsilon + argument);
          ASSERT_NEAR(static_cast<double>(h[k]), expected, bound)
              << row.name << " at u = " << u[k] << ", threshold " << threshold << ", scale " << scale;
        }
      }
    }
  }
}

/// On this grid u - threshold is exact, so that only the function itself can err, by a few roundings of its peak. The edges of boxcars lie
/// on the grid.
TYPED_TEST(SurrogatesAreTheTable, ToFewRoundingsOnAGrid) {
  using V = TypeParam;
  const std::int64_t count = 8 * 256;
  Input<V> u(count);
  for (std::int64_t k = 0; k < count; ++k) u[k] = V(k - count / 2) / 256;
  std::vector<V> h(static_cast<std::size_t>(count));
  for (Named<V>& row : table<V>()) {
    ASSERT_EQ(evaluate(row.surrogate, Param<V>(1), count, u.data(), h.data()), Status::ok);
    double worst = 0;
    for (std::int64_t k = 0; k < count; ++k) {
      const double error =
          std::fabs(static_cast<double>(h[static_cast<std::size_t>(k)]) - test::surrogate(row.surrogate, static_cast<double>(u[k]), 1.0));
      worst = std::max(worst, error / row.peak / std::numeric_limits<V>::epsilon());
    }
    EXPECT_LT(worst, 2) << row.name;   // the witness's own roundings count too
  }
}

TYPED_TEST(SurrogatesAreTheTable, WithThresholdsOfEveryShape) {
  using V = TypeParam;
  Random random(2);
  const Layout layout{4, 1, 35};
  for (Named<V>& row : table<V>()) {
    for (int shape = 1; shape < static_cast<int>(Shape::count); ++shape) {
      const Values<V> threshold(random, static_cast<Shape>(shape), layout, 0.8, 1.3);
      Input<V> u(neurons(layout));
      u.fill(random, -1, 3);
      Output<V> h(neurons(layout), 3);
      ASSERT_EQ(evaluate(row.surrogate, threshold.param(), neurons(layout), u.data(), h.data()), Status::ok);
      for (std::int64_t k = 0; k < neurons(layout); ++k) {
        const double expected = test::surrogate(row.surrogate, static_cast<double>(u[k]), static_cast<double>(threshold.at(k, V(0))));
        ASSERT_NEAR(static_cast<double>(h[k]), expected, 200 * std::numeric_limits<V>::epsilon() * row.peak) << row.name << " " << k;
      }
    }
  }
}

/// Counts beside every edge of a block and of a thread's piece: the same values wherever an element lies.
TYPED_TEST(SurrogatesAreTheTable, WhateverTheCountAndTheThreads) {
  using V = TypeParam;
  Random random(3);
  const std::int64_t most = 70001;
  Input<V> u(most, 1);
  u.fill(random, -2, 4);
  const int threads = get_num_threads();
  for (Named<V>& row : table<V>()) {
    set_num_threads(1);
    Output<V> whole(most, 1);
    ASSERT_EQ(evaluate(row.surrogate, Param<V>(1), most, u.data(), whole.data()), Status::ok);
    set_num_threads(3);
    for (const std::int64_t count : {0, 1, 63, 64, 65, 127, 128, 129, 1000, 16383, 16384, 16385, 70001}) {
      Output<V> h(count, 5);
      ASSERT_EQ(evaluate(row.surrogate, Param<V>(1), count, u.data(), h.data()), Status::ok);
      ASSERT_TRUE(h.zones_intact() && h.same_bits(whole.data())) << row.name << " " << count;
    }
  }
  set_num_threads(threads);
}

/// NaN gives NaN, except for the constant. Infinities and huge numbers give a value between 0 and the peak.
TYPED_TEST(SurrogatesAreTheTable, AtSpecialNumbers) {
  using V = TypeParam;
  const V inf = std::numeric_limits<V>::infinity(), max = std::numeric_limits<V>::max();
  const V nan = std::numeric_limits<V>::quiet_NaN(), tiny = std::numeric_limits<V>::denorm_min();
  for (Named<V>& row : table<V>()) {
    const SurrogateKind kind = row.surrogate.kind;
    const V u[] = {nan, -nan, inf, -inf, max, -max, V(1e20), V(-1e20), tiny, -tiny, V(0), V(-0.0)};
    constexpr int count = sizeof u / sizeof u[0];
    V h[count];
    ASSERT_EQ(evaluate(row.surrogate, Param<V>(1), count, u, h), Status::ok);
    for (int k = 0; k < count; ++k) {
      SCOPED_TRACE(std::string(row.name) + " at " + std::to_string(u[k]));
      if (kind == SurrogateKind::straight_through) {
        EXPECT_EQ(h[k], 1);
      } else if (std::isnan(u[k])) {
        EXPECT_TRUE(std::isnan(h[k])) << h[k];
      } else if (kind == SurrogateKind::periodic_exponential && u[k] == inf) {
        EXPECT_TRUE(std::isnan(h[k])) << h[k];   // the fraction of infinity
      } else if (kind == SurrogateKind::periodic_exponential && u[k] > 1e10) {
        EXPECT_TRUE(0 <= h[k] && h[k] <= 1) << h[k];   // the fraction is lost in rounding, not the range
      } else if (std::fabs(static_cast<double>(u[k])) > 1e10) {
        EXPECT_TRUE(std::fabs(static_cast<double>(h[k])) <= 1e-15 * row.peak) << h[k];
      } else {
        const double expected = test::surrogate(row.surrogate, static_cast<double>(u[k]), 1.0);
        EXPECT_NEAR(static_cast<double>(h[k]), expected, 64 * std::numeric_limits<V>::epsilon() * row.peak);
      }
    }
  }
}

/// Below the range of the exponential the curves fade to nothing, without a step back up.
TYPED_TEST(SurrogatesAreTheTable, FadeMonotonically) {
  using V = TypeParam;
  const std::int64_t count = 40000;
  Input<V> u(count);
  for (std::int64_t k = 0; k < count; ++k) u[k] = V(1 + 0.02 * static_cast<double>(k));
  for (Named<V>& row : table<V>()) {
    const SurrogateKind kind = row.surrogate.kind;
    if (kind == SurrogateKind::periodic_exponential || kind == SurrogateKind::multi_gaussian) continue;
    std::vector<V> h(static_cast<std::size_t>(count));
    ASSERT_EQ(evaluate(row.surrogate, Param<V>(1), count, u.data(), h.data()), Status::ok);
    for (std::size_t k = 0; k < h.size(); ++k) {
      ASSERT_GE(h[k], 0) << row.name;
      if (kind == SurrogateKind::gaussian && u[static_cast<std::int64_t>(k)] < V(1.4)) continue;   // its mean may lie above
      ASSERT_TRUE(k == 0 || h[k] <= h[k - 1] * (1 + 8 * std::numeric_limits<V>::epsilon())) << row.name << " at " << k;
    }
  }
}

}   // namespace
}   // namespace exodus::test
