/// @file
/// With arrays of two-byte numbers a pass does what it does with floats that hold the same numbers: the same bits of potential, states and
/// gradients of parameters, the same spikes, and the nearest gradient of the current. For each model and method, and layouts of each kind.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "every_model.hpp"
#include "example_of.hpp"
#include "support.hpp"

namespace exodus::test {
namespace {

constexpr Layout layouts[] = {{1, 37, 600}, {5, 20, 70}, {6, 33, 7}, {44, 70, 7}, {9, 70, 1}, {1, 1, 3}};

float number_of(float16 x) {
  return to_float(x);
}
float number_of(bfloat16 x) {
  return to_float(x);
}

/// The results of a pass forward and one backward, for data of type S.
template <class N>
struct Results {
  using S = typename N::Storage;
  static constexpr int parameters = static_cast<int>(std::size(N::parameter_table));

  Output<S> spikes, grad_current;
  Output<float> potential, final_potential, grad_initial;
  std::vector<double> grads = std::vector<double>(parameters, 0);

  Results(const Layout& layout, Method method, const S* current, const S* grad_spikes, const float* grad_potential)
      : spikes(elements(layout)),
        grad_current(elements(layout)),
        potential(elements(layout)),
        final_potential(neurons(layout)),
        grad_initial(neurons(layout)) {
    const N neuron = example_of<N>();
    typename N::Forward to{.current = current, .spikes = spikes.data(), .potential = potential.data()};
    to.final.potential = final_potential.data();
    const CallMemory memory(workspace(layout, neuron, to));
    EXPECT_EQ(forward(layout, neuron, to, memory.workspace()), Status::ok);
    typename N::Backward back{.potential = potential.data(),
                              .current = current,
                              .grad_spikes = grad_spikes,
                              .grad_potential = grad_potential,
                              .grad_current = grad_current.data()};
    back.grad_initial.potential = grad_initial.data();
    bool free[parameters] = {};
    for_each_free_parameter(neuron, [&](int k) { free[k] = true; });
    for_each_field<parameters>(back.grad, [&](double*& grad, int k) {
      if (free[k]) grad = grads.data() + k;
    });
    const Surrogate<S> surrogate;
    const CallMemory more(workspace(layout, neuron, method, surrogate, back));
    EXPECT_EQ(backward(layout, neuron, method, surrogate, back, more.workspace()), Status::ok);
    EXPECT_TRUE(spikes.zones_intact() && grad_current.zones_intact() && potential.zones_intact() && memory.zones_intact() &&
                more.zones_intact());
  }
};

template <class Types>
struct FloatAndHalf;
/// The same model for float and for a type of two bytes.
template <template <class> class N, class S>
struct FloatAndHalf<N<S>> {
  using Float = N<float>;
};

template <class N>
class Halves : public testing::Test {};

#define EXODUS_MODEL(name) , name<float16>, name<bfloat16>
using EveryHalf = AllBut<void EXODUS_MODELS(EXODUS_MODEL)>;
#undef EXODUS_MODEL
TYPED_TEST_SUITE(Halves, EveryHalf);

TYPED_TEST(Halves, AreFloatsRounded) {
  using S = typename TypeParam::Storage;
  Random random(5);
  for (const Layout& layout : layouts) {
    const auto count = static_cast<std::size_t>(elements(layout));
    std::vector<S> current(count), grad_spikes(count);
    std::vector<float> wide_current(count), wide_spikes(count), grad_potential(count);
    for (std::size_t k = 0; k < count; ++k) {
      current[k] = nearest<S>(static_cast<float>(random.uniform(-1, 2))), wide_current[k] = number_of(current[k]);
      grad_spikes[k] = nearest<S>(static_cast<float>(random.uniform(-1, 1))), wide_spikes[k] = number_of(grad_spikes[k]);
      grad_potential[k] = static_cast<float>(random.uniform(-1, 1));
    }
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      SCOPED_TRACE(describe(layout) + ", method " + std::to_string(static_cast<int>(method)));
      const Results<TypeParam> half(layout, method, current.data(), grad_spikes.data(), grad_potential.data());
      const Results<typename FloatAndHalf<TypeParam>::Float> wide(layout, method, wide_current.data(), wide_spikes.data(),
                                                                  grad_potential.data());
      EXPECT_TRUE(half.potential.same_bits(wide.potential));
      EXPECT_TRUE(half.final_potential.same_bits(wide.final_potential));
      EXPECT_TRUE(half.grad_initial.same_bits(wide.grad_initial));
      EXPECT_EQ(half.grads, wide.grads);
      for (std::int64_t k = 0; k < elements(layout); ++k) {
        if constexpr (TypeParam::fires) {
          ASSERT_EQ(number_of(half.spikes[k]), wide.spikes[k]) << k;
        }
        ASSERT_EQ(half.grad_current[k].bits, nearest<S>(wide.grad_current[k]).bits) << k;
      }
    }
  }
}

TYPED_TEST(Halves, NeedTheirWholeWorkspace) {
  const Layout layout{1, 40, 600};
  const TypeParam neuron;
  std::vector<typename TypeParam::Storage> current(24000), spikes(24000);
  const typename TypeParam::Forward to{.current = current.data(), .spikes = spikes.data()};
  const CallMemory memory(workspace(layout, neuron, to, 1));
  Workspace less = memory.workspace();
  less.bytes -= 1;
  EXPECT_EQ(forward(layout, neuron, to, less), Status::workspace_too_small);
  EXPECT_EQ(forward(layout, neuron, to, memory.workspace()), Status::ok);
}

}   // namespace
}   // namespace exodus::test
