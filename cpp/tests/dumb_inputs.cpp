/// @file
/// Impossible arguments return the right status, write nothing and never crash. Odd but possible ones work.
#include <exodus/cuba_lif.hpp>
#include <exodus/exp_leak.hpp>
#include <exodus/srm.hpp>
#include <functional>
#include <utility>

#include "support.hpp"

namespace exodus::test {
namespace {

constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();

template <class V>
class DumbInputs : public testing::Test {
 protected:
  static constexpr Layout layout{2, 4, 3};

  DumbInputs() {
    Random random(1);
    for (Input<V>* array : {&current_, &potential_, &gradient_}) array->fill(random, -1, 1);
  }

  typename Lif<V>::Forward forward_arrays() {
    return {.current = current_.data(), .spikes = spikes_.data(), .potential = out_.data(), .final = {final_u_.data(), final_s_.data()}};
  }

  /// Asks for everything that a neuron with no parameter given can have.
  typename Lif<V>::Backward backward_arrays() {
    return {.potential = potential_.data(),
            .current = current_.data(),
            .grad_spikes = gradient_.data(),
            .grad_potential = gradient_.data(),
            .grad_current = out_.data(),
            .grad_initial = {final_u_.data(), final_s_.data()},
            .grad = {.alpha = &grads_[0], .threshold = &grads_[1], .gain = &grads_[2], .v_min = &grads_[3]}};
  }

  /// Calls forward and backward with a given neuron.
  void expect_both(const Layout& of, const Lif<V>& neuron, Status expected, const std::string& what) {
    EXPECT_EQ(forward(of, neuron, forward_arrays(), workspace_), expected) << what;
    EXPECT_EQ(backward(of, neuron, Method::exodus, Surrogate<V>{}, backward_arrays(), workspace_), expected) << what;
    EXPECT_TRUE(untouched()) << what;
  }

  bool untouched() const {
    for (const double grad : grads_) {
      if (grad != -7) return false;
    }
    return spikes_.untouched() && out_.untouched() && final_u_.untouched() && final_s_.untouched();
  }

  Input<V> current_{24}, potential_{24}, gradient_{24};
  Output<V> spikes_{24}, out_{24}, final_u_{6}, final_s_{6};
  double grads_[4] = {-7, -7, -7, -7};
  double memory_[1 << 14] = {};
  Workspace workspace_{memory_, sizeof memory_, 1};
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(DumbInputs, Types, TypeName);

TYPED_TEST(DumbInputs, NoTimeNegativeSizesOrBeyond64Bits) {
  using V = TypeParam;
  const Layout bad[] = {{2, 0, 3},
                        {0, 0, 3},
                        {2, 0, 0},
                        {-1, 4, 3},
                        {-1, 4, 0},
                        {0, 4, -1},
                        {0, -4, 3},
                        {2, -4, 3},
                        {2, 4, -3},
                        {-2, -4, 3},
                        {std::numeric_limits<std::int64_t>::min(), 1, 1},
                        {huge, 1, 1},
                        {1, huge, 1},
                        {1, 1, huge},
                        {huge, huge, huge},
                        {1, 1, 768614336404564651},   // three sums of doubles would wrap to eight bytes
                        {std::int64_t{1} << 32, std::int64_t{1} << 32, 1},
                        {std::int64_t{1} << 21, std::int64_t{1} << 21, std::int64_t{1} << 22}};
  for (const Layout& layout : bad) {
    this->expect_both(layout, Lif<V>{}, Status::bad_layout, describe(layout));
    EXPECT_EQ(workspace(layout, Lif<V>{}, Method::bptt, Surrogate<V>{}, this->backward_arrays()).bytes, 0u) << describe(layout);
    EXPECT_EQ(forward(layout, ExpLeak<V>{}, {.current = this->current_.data(), .potential = this->out_.data()}), Status::bad_layout);
    EXPECT_TRUE(this->untouched());
  }
}

/// Nothing is written but the gradients of parameters, and every other array may be null.
TYPED_TEST(DumbInputs, NoNeurons) {
  using V = TypeParam;
  for (const Layout& layout : {Layout{0, 4, 3}, Layout{2, 4, 0}, Layout{0, 4, 0}, Layout{0, huge, huge}, Layout{huge, 1, 0}}) {
    const std::string what = describe(layout);
    EXPECT_EQ(workspace(layout, Lif<V>{}, this->forward_arrays()).bytes, 0u) << what;
    EXPECT_EQ(workspace(layout, Lif<V>{}, Method::bptt, Surrogate<V>{}, this->backward_arrays()).bytes, 0u) << what;
    EXPECT_EQ(forward(layout, Lif<V>{}, this->forward_arrays()), Status::ok) << what;
    EXPECT_EQ(forward(layout, Lif<V>{}, {}), Status::ok) << what;
    EXPECT_EQ(forward(layout, Srm<V>{}, {}), Status::ok) << what;
    EXPECT_TRUE(this->untouched()) << what;
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      EXPECT_EQ(backward(layout, Lif<V>{}, method, Surrogate<V>{}, {}), Status::ok) << what;
      for (double& grad : this->grads_) grad = -7;
      EXPECT_EQ(backward(layout, Lif<V>{}, method, Surrogate<V>{}, this->backward_arrays()), Status::ok) << what;
      for (double& grad : this->grads_) EXPECT_EQ(std::exchange(grad, -7), 0) << what;
      EXPECT_TRUE(this->untouched()) << what;
    }
    const V values[6] = {};
    double taps[6] = {1, 2, 3, 4, 5, 6}, threshold[2] = {7, 8};
    Srm<V> srm;
    srm.threshold = Param<V>(values, 2);
    srm.taps.nu = {values, 3, 2, 1};
    typename Srm<V>::Backward arrays;
    arrays.grad.threshold = threshold;
    arrays.grad_taps.nu = taps;
    EXPECT_EQ(backward(layout, srm, Method::exodus, Surrogate<V>{}, arrays), Status::ok) << what;
    for (const double grad : taps) EXPECT_EQ(grad, 0) << what;
    for (const double grad : threshold) EXPECT_EQ(grad, 0) << what;
    srm.max_spikes = -1;
    EXPECT_EQ(backward(layout, srm, Method::exodus, Surrogate<V>{}, arrays), Status::bad_parameter) << what;
    EXPECT_EQ(forward(layout, srm, {}), Status::bad_parameter) << what;
  }
}

TYPED_TEST(DumbInputs, ParametersThatDescribeNoArray) {
  using V = TypeParam;
  const V values[4] = {V(0.5), V(0.5), V(0.5), V(0.5)};
  const Param<V> bad[] = {Param<V>(values, -1),     Param<V>(values, 2, 0),    Param<V>(values, 2, -3),   Param<V>(nullptr, 2),
                          Param<V>(nullptr, 3, 2),  Param<V>(values, huge, 2), Param<V>(values, 2, huge), Param<V>(values, huge, huge),
                          Param<V>(values, -2, -2), Param<V>(values, -1, huge)};
  int number = 0;
  for (const Param<V>& param : bad) {
    for (int k = 0; k < 5; ++k, ++number) {
      Lif<V> neuron;
      Param<V>* const list[] = {&neuron.alpha, &neuron.threshold, &neuron.gain, &neuron.reset_amount, &neuron.v_min};
      *list[k] = param;
      EXPECT_EQ(forward(this->layout, neuron, this->forward_arrays()), Status::bad_parameter) << number;
      typename Lif<V>::Backward arrays = this->backward_arrays();
      arrays.grad = {};
      EXPECT_EQ(backward(this->layout, neuron, Method::bptt, Surrogate<V>{}, arrays, this->workspace_), Status::bad_parameter) << number;
    }
    ExpLeak<V> leak;
    leak.gain = param;
    EXPECT_EQ(forward(this->layout, leak, {.current = this->current_.data(), .potential = this->out_.data()}), Status::bad_parameter);
    V h = -7;
    EXPECT_EQ(evaluate(Surrogate<V>{}, param, 1, values, &h), Status::bad_parameter);
    EXPECT_EQ(h, -7);
  }
  EXPECT_TRUE(this->untouched());
}

TYPED_TEST(DumbInputs, EnumeratorsOutOfRange) {
  using V = TypeParam;
  for (const int value : {-1, 3, 99, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()}) {
    Lif<V> neuron;
    neuron.reset = static_cast<Reset>(value);
    this->expect_both(this->layout, neuron, Status::bad_parameter, "reset");
    neuron = {};
    neuron.reset_timing = static_cast<ResetTiming>(value == 3 ? 2 : value);
    this->expect_both(this->layout, neuron, Status::bad_parameter, "timing");
    EXPECT_EQ(backward(this->layout, Lif<V>{}, static_cast<Method>(value), Surrogate<V>{}, this->backward_arrays(), this->workspace_),
              Status::unsupported);
  }
  for (const std::int64_t spikes : {std::int64_t{-1}, -huge}) {
    Lif<V> neuron;
    neuron.max_spikes = spikes;
    this->expect_both(this->layout, neuron, Status::bad_parameter, "max_spikes");
  }
  for (const int value : {-1, static_cast<int>(SurrogateKind::count), 99}) {
    Surrogate<V> surrogate;
    surrogate.kind = static_cast<SurrogateKind>(value);
    EXPECT_EQ(backward(this->layout, Lif<V>{}, Method::exodus, surrogate, this->backward_arrays(), this->workspace_), Status::unsupported);
    V h = -7, u = 1;
    EXPECT_EQ(evaluate(surrogate, Param<V>(1), 1, &u, &h), Status::unsupported);
    EXPECT_EQ(h, -7);
    EXPECT_TRUE(this->untouched());
    surrogate.values = this->gradient_.data();   // with values, the kind is not read
    EXPECT_EQ(run_backward(this->layout, Lif<V>{}, Method::exodus, surrogate, {.potential = this->potential_.data()}), Status::ok);
  }
  EXPECT_TRUE(this->untouched());
}

TYPED_TEST(DumbInputs, MissingArrays) {
  using V = TypeParam;
  typename Lif<V>::Forward forwards = this->forward_arrays();
  forwards.current = nullptr;
  EXPECT_EQ(forward(this->layout, Lif<V>{}, forwards), Status::null_pointer);
  EXPECT_EQ(forward(this->layout, ExpLeak<V>{}, {.potential = this->out_.data()}), Status::null_pointer);

  const auto with = [this](const std::function<void(typename Lif<V>::Backward&)>& change, const Lif<V>& neuron = {}) {
    typename Lif<V>::Backward arrays = this->backward_arrays();
    change(arrays);
    return backward(this->layout, neuron, Method::exodus, Surrogate<V>{}, arrays, this->workspace_);
  };
  EXPECT_EQ(with([](auto& arrays) { arrays.potential = arrays.current = nullptr; }), Status::null_pointer);
  EXPECT_EQ(with([](auto& arrays) { arrays.potential = arrays.current = nullptr, arrays.grad = {}; }), Status::null_pointer);
  EXPECT_EQ(with([](auto& arrays) { arrays.current = nullptr; }), Status::null_pointer);
  Lif<V> tied;
  tied.gain_follows_alpha = true;
  EXPECT_EQ(with([](auto& arrays) { arrays.current = nullptr, arrays.grad.gain = nullptr; }, tied), Status::null_pointer);
  typename ExpLeak<V>::Backward leak;
  leak.grad_potential = this->gradient_.data(), leak.grad_current = this->out_.data(), leak.grad.alpha = &this->grads_[0];
  EXPECT_EQ(backward(this->layout, ExpLeak<V>{}, Method::exodus, Surrogate<V>{}, leak, this->workspace_), Status::null_pointer);

  V value = -7;
  EXPECT_EQ(evaluate(Surrogate<V>{}, Param<V>(1), 1, nullptr, &value), Status::null_pointer);
  EXPECT_EQ(evaluate(Surrogate<V>{}, Param<V>(1), 1, &value, nullptr), Status::null_pointer);
  EXPECT_EQ(evaluate(Surrogate<V>{}, Param<V>(1), -1, &value, &value), Status::bad_layout);
  EXPECT_EQ(evaluate(Surrogate<V>{}, Param<V>{}, 1, &value, &value), Status::bad_parameter);
  EXPECT_EQ(evaluate(Surrogate<V>{}, Param<V>(1), 0, nullptr, nullptr), Status::ok);
  EXPECT_EQ(value, -7);
  EXPECT_TRUE(this->untouched());
}

TYPED_TEST(DumbInputs, TooLittleWorkspace) {
  using V = TypeParam;
  const Workspace needed = workspace(this->layout, Lif<V>{}, Method::exodus, Surrogate<V>{}, this->backward_arrays());
  ASSERT_GT(needed.bytes, 0u);
  ASSERT_LE(needed.bytes, sizeof this->memory_);
  EXPECT_EQ(needed.data, nullptr);
  const auto with = [this](Workspace workspace) {
    return backward(this->layout, Lif<V>{}, Method::exodus, Surrogate<V>{}, this->backward_arrays(), workspace);
  };
  EXPECT_EQ(with({}), Status::workspace_too_small);
  EXPECT_EQ(with({this->memory_, needed.bytes - 1, 0}), Status::workspace_too_small);
  EXPECT_EQ(with({nullptr, needed.bytes, 0}), Status::null_pointer);
  EXPECT_TRUE(this->untouched());
  EXPECT_EQ(with({this->memory_, needed.bytes, 0}), Status::ok);
  EXPECT_FALSE(this->untouched());

  std::vector<V> spikes(elements(this->layout), V(-7));
  const typename Lif<V>::Forward forwards{.current = this->current_.data(), .spikes = spikes.data()};
  const std::size_t bytes = workspace(this->layout, Lif<V>{}, forwards).bytes;
  EXPECT_EQ(forward(this->layout, Lif<V>{}, forwards), Status::workspace_too_small);
  EXPECT_EQ(forward(this->layout, Lif<V>{}, forwards, {this->memory_, bytes - 1, 0}), Status::workspace_too_small);
  EXPECT_EQ(forward(this->layout, Lif<V>{}, forwards, {nullptr, bytes, 0}), Status::null_pointer);
  EXPECT_EQ(spikes, std::vector<V>(spikes.size(), V(-7)));
  EXPECT_EQ(forward(this->layout, Lif<V>{}, forwards, {this->memory_, bytes, 0}), Status::ok);
}

TYPED_TEST(DumbInputs, GradientsOfTiedParameters) {
  using V = TypeParam;
  typename Lif<V>::Backward arrays = this->backward_arrays();
  double grad = -7;
  arrays.grad.reset_amount = &grad;   // the amount is the threshold, which has the gradient
  EXPECT_EQ(backward(this->layout, Lif<V>{}, Method::exodus, Surrogate<V>{}, arrays, this->workspace_), Status::unsupported);
  arrays = this->backward_arrays();
  Lif<V> neuron;
  neuron.gain_follows_alpha = true;
  EXPECT_EQ(backward(this->layout, neuron, Method::exodus, Surrogate<V>{}, arrays, this->workspace_), Status::unsupported);
  CubaLif<V> cuba;
  cuba.gain_follows_alpha = true;
  EXPECT_EQ(backward(this->layout, cuba, Method::exodus, Surrogate<V>{},
                     {.potential = this->potential_.data(), .current = this->current_.data(), .grad = {.gain = &grad}}, this->workspace_),
            Status::unsupported);
  EXPECT_EQ(backward(this->layout, cuba, Method::exodus, Surrogate<V>{}, {.potential = this->potential_.data(), .grad = {.alpha = &grad}},
                     this->workspace_),
            Status::null_pointer);   // the gain is 1 - alpha, so that its gradient reads the current
  ExpLeak<V> leak;
  leak.gain_follows_alpha = true;
  EXPECT_EQ(backward(this->layout, leak, Method::exodus, Surrogate<V>{},
                     {.potential = this->potential_.data(), .current = this->current_.data(), .grad = {.gain = &grad}}, this->workspace_),
            Status::unsupported);
  EXPECT_EQ(grad, -7);
  EXPECT_TRUE(this->untouched());
}

/// Calls that are odd, but possible.
TYPED_TEST(DumbInputs, WhatIsAllowed) {
  using V = TypeParam;
  // Nothing wanted.
  EXPECT_EQ(run_forward(this->layout, Lif<V>{}, {.current = this->current_.data()}), Status::ok);
  EXPECT_EQ(run_backward(this->layout, Lif<V>{}, Method::exodus, Surrogate<V>{}, {.potential = this->potential_.data()}), Status::ok);
  EXPECT_TRUE(this->untouched());
  // Without a loss the gradients are zeros, whatever the arrays held before.
  typename Lif<V>::Backward arrays = this->backward_arrays();
  arrays.grad_spikes = arrays.grad_potential = nullptr;
  EXPECT_EQ(backward(this->layout, Lif<V>{}, Method::exodus, Surrogate<V>{}, arrays, this->workspace_), Status::ok);
  for (std::int64_t k = 0; k < 24; ++k) EXPECT_EQ(this->out_[k], 0);
  for (const double grad : this->grads_) EXPECT_EQ(grad, 0);
  // Numbers of threads beyond all reason.
  for (const int threads : {-1, 0, 1000, std::numeric_limits<int>::max(), std::numeric_limits<int>::min()}) {
    EXPECT_EQ(run_forward(this->layout, Lif<V>{}, this->forward_arrays(), threads), Status::ok);
  }
}

TEST(DumbInputs, DecaysOfNoArray) {
  double out[2] = {-7, -7};
  const double taus[2] = {2, 5};
  EXPECT_EQ(decay(Param<double>(1), Param<double>(taus, 2), -1, out), Status::bad_layout);
  EXPECT_EQ(decay(Param<double>(), Param<double>(taus, 2), 2, out), Status::bad_parameter);
  EXPECT_EQ(decay(Param<double>(1), Param<double>(nullptr, 2), 2, out), Status::bad_parameter);
  EXPECT_EQ(decay(Param<double>(1), Param<double>(taus, 2, 0), 2, out), Status::bad_parameter);
  EXPECT_EQ(decay(Param<double>(1), Param<double>(taus, 2), 2, nullptr), Status::null_pointer);
  EXPECT_EQ(decay(Param<double>(1), Param<double>(taus, 2), 0, nullptr), Status::ok);
  EXPECT_EQ(out[0], -7);
  EXPECT_EQ(decay(Param<double>(1), Param<double>(taus, 2), 2, out), Status::ok);
  EXPECT_NEAR(out[0], std::exp(-0.5), 1e-15);
  EXPECT_NEAR(out[1], std::exp(-0.2), 1e-15);
  for (const double tau : {0.0, -1.0, std::numeric_limits<double>::infinity(), 1e-320}) {
    EXPECT_EQ(decay(Param<double>(1), Param<double>(tau), 1, out), Status::ok);
    EXPECT_TRUE(out[0] == 0 || out[0] == 1) << tau;
  }
  EXPECT_EQ(decay(Param<double>(1), Param<double>(std::nan("")), 1, out), Status::ok);
  EXPECT_TRUE(std::isnan(out[0]));
}

TEST(DumbInputs, RotationsOfNoArray) {
  double c[2] = {-7, -7}, s[2] = {-7, -7};
  const double angles[2] = {0.5, -2};
  EXPECT_EQ(rotation(Param<double>(angles, 2), -1, c, s), Status::bad_layout);
  EXPECT_EQ(rotation(Param<double>(), 2, c, s), Status::bad_parameter);
  EXPECT_EQ(rotation(Param<double>(nullptr, 2), 2, c, s), Status::bad_parameter);
  EXPECT_EQ(rotation(Param<double>(angles, 2), 2, nullptr, s), Status::null_pointer);
  EXPECT_EQ(rotation(Param<double>(angles, 2), 2, c, nullptr), Status::null_pointer);
  EXPECT_EQ(rotation(Param<double>(angles, 2), 0, nullptr, nullptr), Status::ok);
  EXPECT_EQ(c[0], -7);
  EXPECT_EQ(rotation(Param<double>(angles, 2), 2, c, s), Status::ok);
  for (int k = 0; k < 2; ++k) {
    EXPECT_NEAR(c[k], std::cos(angles[k]), 1e-15);
    EXPECT_NEAR(s[k], std::sin(angles[k]), 1e-15);
  }
  for (const double angle : {std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), std::nan("")}) {
    EXPECT_EQ(rotation(Param<double>(angle), 1, c, s), Status::ok);
    EXPECT_TRUE(std::isnan(c[0]) && std::isnan(s[0])) << angle;
  }
  for (const double angle : {1e300, -1.7976931348623157e308, 5e-324, -0.0}) {
    EXPECT_EQ(rotation(Param<double>(angle), 1, c, s), Status::ok);
    EXPECT_NEAR(c[0] * c[0] + s[0] * s[0], 1, 1e-15) << angle;
  }
}

TEST(DumbInputs, EveryStatusHasAMessage) {
  for (const Status status : {Status::ok, Status::bad_layout, Status::bad_parameter, Status::null_pointer, Status::workspace_too_small,
                              Status::unsupported, Status::cuda, static_cast<Status>(-1), static_cast<Status>(99)}) {
    ASSERT_NE(message(status), nullptr);
    EXPECT_GT(std::strlen(message(status)), 1u);
  }
  EXPECT_STREQ(message(Status::ok), "ok");
}

TEST(DumbInputs, NumbersOfThreadsAreBounded) {
  const int before = get_num_threads();
  EXPECT_GE(before, 1);
  for (const int threads : {0, -1, std::numeric_limits<int>::min()}) {
    set_num_threads(threads);
    EXPECT_EQ(get_num_threads(), 1);
  }
  set_num_threads(7);
  EXPECT_EQ(get_num_threads(), 7);
  set_num_threads(std::numeric_limits<int>::max());
  EXPECT_GE(get_num_threads(), 7);
  EXPECT_LE(get_num_threads(), 1 << 16);
  set_num_threads(before);
}

TEST(DumbInputs, TheLibraryKnowsItself) {
  EXPECT_STREQ(version(), EXODUS_VERSION);
  ASSERT_NE(isa(), nullptr);
}

}   // namespace
}   // namespace exodus::test
