/// @file
/// Models whose states the potential does not tell: the workspace that they ask for suffices to the last byte, and gradients have the same
/// bits whatever the layout, the number of threads, and whether gradients of parameters are wanted, without which few states are rebuilt.
/// That they are right is tested against autograd, from Python. Of every model: gradients have the same bits if the potential is not kept,
/// and recomputed.
#include <optional>

#include "every_model.hpp"
#include "example_of.hpp"
#include "support.hpp"

namespace exodus::test {
namespace {

template <class N>
class HiddenStates : public testing::Test {
 public:
  using V = typename N::Storage;
  static constexpr int states = static_cast<int>(std::size(N::state_names)), parameters = static_cast<int>(std::size(N::parameter_table));

  struct Options {
    std::optional<bool> second_options{};   ///< of the neuron; by default where gradients of parameters are wanted
    bool keeps_potential = true;
    Recurrence<V> recurrent{};
  };

  /// A pass over the layout; neuron j at step n has the same data whatever the layout.
  struct Pass {
    Layout layout;
    Input<V> current, grad_spikes, grad_potential;
    std::vector<Input<V>> initial, grad_final;
    Output<V> spikes, potential, grad_current;
    std::vector<Output<V>> final, grad_initial;
    double grads[parameters] = {};

    explicit Pass(const Layout& of)
        : layout(of),
          current(elements(of)),
          grad_spikes(elements(of)),
          grad_potential(elements(of)),
          spikes(elements(of)),
          potential(elements(of)),
          grad_current(elements(of)) {
      for (std::int64_t j = 0; j < neurons(of); ++j) {
        Random random(static_cast<std::uint64_t>(j));
        for (std::int64_t n = 0; n < of.time; ++n) {
          const std::int64_t k = at(of, j, n);
          current[k] = static_cast<V>(random.uniform(-0.8, 1.2));
          grad_spikes[k] = static_cast<V>(random.uniform(-1, 1));
          grad_potential[k] = static_cast<V>(random.uniform(-1, 1));
        }
      }
      for (int s = 0; s < states; ++s) {
        Random random(static_cast<std::uint64_t>(1000 + s));
        initial.emplace_back(neurons(of)), grad_final.emplace_back(neurons(of));
        initial.back().fill(random, 0, 0.5), grad_final.back().fill(random, -1, 1);
        final.emplace_back(neurons(of)), grad_initial.emplace_back(neurons(of));
      }
    }

    template <class Struct, class List>
    static Struct fields(List& arrays) {
      Struct result{};
      for_each_field<states>(result, [&](auto& field, int s) { field = arrays[static_cast<std::size_t>(s)].data(); });
      return result;
    }

    bool run(Method method, int threads, bool with_parameters, const Options& options = {}) {
      const N neuron = example_of<N>(options.second_options.value_or(with_parameters));
      typename N::Forward to{.current = current.data(), .spikes = spikes.data(), .potential = potential.data()};
      to.initial = fields<typename N::template State<const V*>>(initial);
      to.final = fields<typename N::template State<V*>>(final);
      to.recurrent = options.recurrent;
      typename N::Backward back{.potential = options.keeps_potential ? potential.data() : nullptr,
                                .grad_spikes = grad_spikes.data(),
                                .grad_potential = grad_potential.data(),
                                .grad_current = grad_current.data()};
      back.initial = to.initial;
      back.grad_final = fields<typename N::template State<const V*>>(grad_final);
      back.grad_initial = fields<typename N::template State<V*>>(grad_initial);
      back.recurrent = options.recurrent;
      if (with_parameters || !options.keeps_potential) back.current = current.data();
      if (with_parameters) {
        for_each_free_parameter(neuron, [&](int free) {
          for_each_field<parameters>(back.grad, [&](double*& grad, int k) {
            if (k == free) grad = &grads[k];
          });
        });
      }
      const bool done = run_forward(layout, neuron, to, threads) == Status::ok &&
                        run_backward(layout, neuron, method, Surrogate<V>{}, back, threads) == Status::ok;
      return done && grad_current.zones_intact() && spikes.zones_intact() && potential.zones_intact();
    }
  };

  /// The first neurons of both, bit for bit.
  static void expect_same(const Pass& one, const Pass& other, const std::string& what) {
    for (std::int64_t j = 0; j < neurons(one.layout); ++j) {
      for (std::int64_t n = 0; n < one.layout.time; ++n) {
        ASSERT_EQ(one.grad_current[at(one.layout, j, n)], other.grad_current[at(other.layout, j, n)]) << what << j << ", step " << n;
        ASSERT_EQ(one.potential[at(one.layout, j, n)], other.potential[at(other.layout, j, n)]) << what << j << ", step " << n;
      }
      for (int s = 0; s < states; ++s) {
        const auto k = static_cast<std::size_t>(s);
        ASSERT_EQ(one.grad_initial[k][j], other.grad_initial[k][j]) << what << j << ", " << N::state_names[s];
      }
    }
  }
};

TYPED_TEST_SUITE(HiddenStates, EveryModelWithHiddenStates);

TYPED_TEST(HiddenStates, InEveryLayout) {
  using Pass = typename TestFixture::Pass;
  for (const Layout& layout : layouts(60000)) {
    Pass pass(layout), plain({1, layout.time, neurons(layout)});
    for (const bool with_parameters : {false, true}) {
      const Method method = with_parameters ? Method::bptt : Method::exodus;
      ASSERT_TRUE(pass.run(method, 3, with_parameters)) << describe(layout);
      ASSERT_TRUE(plain.run(method, 1, with_parameters)) << describe(layout);
      this->expect_same(pass, plain, describe(layout) + " neuron ");
      for (int k = 0; k < TestFixture::parameters; ++k) {
        EXPECT_NEAR(pass.grads[k], plain.grads[k], 1e-9 * (1 + std::abs(plain.grads[k]))) << describe(layout) << " parameter " << k;
      }
    }
  }
}

TYPED_TEST(HiddenStates, LargeOrLong) {
  using Pass = typename TestFixture::Pass;
  for (const Layout& layout : {Layout{3, 510, 1100}, Layout{340, 40, 131}, Layout{1, 20000, 70}, Layout{70, 20000, 1}}) {
    Pass one(layout), two(layout);
    ASSERT_TRUE(one.run(Method::exodus, 1, true)) << describe(layout);
    ASSERT_TRUE(two.run(Method::exodus, 4, true)) << describe(layout);
    this->expect_same(one, two, describe(layout) + " neuron ");
    for (int k = 0; k < TestFixture::parameters; ++k) EXPECT_EQ(one.grads[k], two.grads[k]) << describe(layout) << " parameter " << k;
  }
}

TYPED_TEST(HiddenStates, ChangeNoBitWhereOnlyParametersReadThem) {
  using Pass = typename TestFixture::Pass;
  for (const Layout& layout : {Layout{1, 1, 5}, Layout{1, 70, 1100}, Layout{20, 7, 3}}) {
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      for (const bool second_options : {false, true}) {
        Pass with(layout), without(layout);
        ASSERT_TRUE(with.run(method, 2, true, {second_options}));
        ASSERT_TRUE(without.run(method, 2, false, {second_options}));
        this->expect_same(without, with, describe(layout) + ", method " + std::to_string(static_cast<int>(method)) + ", neuron ");
      }
    }
  }
}

template <class N>
class RecomputedPotential : public HiddenStates<N> {};

TYPED_TEST_SUITE(RecomputedPotential, EveryModel);

TYPED_TEST(RecomputedPotential, GivesTheSameBits) {
  using Pass = typename TestFixture::Pass;
  using V = typename TypeParam::Storage;
  constexpr std::int64_t features = 5;
  Input<V> weights(features * features);
  Random random(7);
  weights.fill(random, -0.4, 0.4);
  for (const Layout& layout : {Layout{1, 1, 5}, Layout{1, 70, 1100}, Layout{3, 70, 100}, Layout{4, 70, 5}, Layout{20, 70, 1}}) {
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      for (int bits = 0; bits < (TypeParam::fires ? 4 : 2); ++bits) {
        const bool with_parameters = (bits & 1) != 0;
        typename TestFixture::Options options;
        if ((bits & 2) != 0) options.recurrent = {weights.data(), features, 1};
        const std::string what = describe(layout) + ", method " + std::to_string(static_cast<int>(method)) + ", neuron ";
        Pass kept(layout), recomputed(layout);
        ASSERT_TRUE(kept.run(method, 2, with_parameters, options)) << what;
        options.keeps_potential = false;
        ASSERT_TRUE(recomputed.run(method, 2, with_parameters, options)) << what;
        this->expect_same(recomputed, kept, what);
        for (int k = 0; k < TestFixture::parameters; ++k) EXPECT_EQ(recomputed.grads[k], kept.grads[k]) << what << " parameter " << k;
      }
    }
  }
}

TEST(RecomputedPotentialOfTaps, IsUnsupported) {
  const float taps[] = {1, 0.5f};
  Srm<float> neuron;
  neuron.taps.epsilon = {taps, 2, 1, 1};
  std::vector<float> array(70, 0.1f), result(70, -7.0f);
  const Srm<float>::Backward arrays{.current = array.data(), .grad_spikes = array.data(), .grad_current = result.data()};
  EXPECT_EQ(run_backward({1, 7, 10}, neuron, Method::exodus, Surrogate<float>{}, arrays), Status::unsupported);
  EXPECT_EQ(result[0], -7);
}

TYPED_TEST(HiddenStates, AWorkspaceAByteShortIsRefused) {
  using V = typename TypeParam::Storage;
  const Layout layout{2, 50, 70};
  std::vector<V> array(7000, V(0.1));
  const TypeParam neuron;
  double grad = -7;
  typename TypeParam::Backward arrays{.potential = array.data(), .current = array.data()};
  for_each_field<TestFixture::parameters>(arrays.grad, [&](double*& wanted, int k) {
    if (k == 0) wanted = &grad;
  });
  Workspace asked = workspace(layout, neuron, Method::exodus, Surrogate<V>{}, arrays);
  ASSERT_GT(asked.bytes, 7000 / 50 * sizeof(double));
  std::vector<double> memory(asked.bytes / sizeof(double) + 1);
  asked.data = memory.data();
  asked.bytes -= 1;
  EXPECT_EQ(backward(layout, neuron, Method::exodus, Surrogate<V>{}, arrays, asked), Status::workspace_too_small);
  EXPECT_EQ(grad, -7);
  asked.bytes += 1;
  EXPECT_EQ(backward(layout, neuron, Method::exodus, Surrogate<V>{}, arrays, asked), Status::ok);
}

}   // namespace
}   // namespace exodus::test
