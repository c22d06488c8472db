/// @file
/// workspace() counts the bytes that a call needs: they are enough, and on one thread a byte less is refused. This holds for each model,
/// method, layout and choice of gradients, with operators, and with a surrogate given as values, which needs no tape.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "every_model.hpp"
#include "support.hpp"

namespace exodus::test {
namespace {

constexpr Layout layouts[] = {{1, 70, 200}, {3, 70, 100}, {4, 70, 5}, {20, 70, 1}, {1, 300, 2000}};
constexpr std::int64_t features = 5;

/// Options of a pass.
struct Wish {
  bool parameters = false, recurrent = false, taps = false, surrogate_values = false, recomputes = false;
};

std::string describe(const Wish& wish) {
  return std::string(wish.parameters ? " parameters" : "") + (wish.recurrent ? " recurrent" : "") + (wish.taps ? " taps" : "") +
         (wish.surrogate_values ? " surrogate's values" : "") + (wish.recomputes ? " recomputes" : "");
}

/// A neuron with all its arrays.
template <class N>
class Pass {
 public:
  using V = typename N::Storage;
  static constexpr int parameters = static_cast<int>(std::size(N::parameter_table));

  Pass(const Layout& layout, const Wish& wish)
      : layout_(layout),
        values_(elements(layout)),
        weights_(features * features),
        taps_(11, 1, 1, -0.2, 0.2),
        spikes_(elements(layout)),
        potential_(elements(layout)),
        grad_current_(elements(layout)),
        grads_(parameters + 2 * 11),
        grad_weights_(features * features) {
    Random random(3);
    values_.fill(random, -0.5, 1), weights_.fill(random, -0.1, 0.1);
    to_ = {.current = values_.data(), .spikes = spikes_.data(), .potential = potential_.data()};
    back_ = {.potential = potential_.data(),
             .current = values_.data(),
             .grad_spikes = values_.data(),
             .grad_potential = values_.data(),
             .grad_current = grad_current_.data()};
    back_.spikes = spikes_.data();
    if (wish.recurrent) {
      to_.recurrent = back_.recurrent = {weights_.data(), features, 1};
      back_.grad_recurrent = grad_weights_.data();
    }
    if (wish.surrogate_values) surrogate_.values = values_.data();
    if (wish.recomputes) back_.potential = nullptr;
    set_taps(wish);
    for_each_field<parameters>(back_.grad, [&](double*& grad, int k) {
      if (wish.parameters && may_want(k, wish)) grad = grads_.data() + k;
    });
  }

  Workspace asked() const { return workspace(layout_, neuron_, to_, 1); }
  Workspace asked(Method method) const { return workspace(layout_, neuron_, method, surrogate_, back_, 1); }
  Status run(const Workspace& memory) const { return forward(layout_, neuron_, to_, memory); }
  Status run(const Workspace& memory, Method method) const { return backward(layout_, neuron_, method, surrogate_, back_, memory); }

 private:
  static constexpr int kernels = field_count<decltype(typename N::Backward{}.grad_taps), double*>;

  void set_taps(const Wish& wish) {
    if constexpr (kernels > 0) {
      if (!wish.taps) return;
      for_each_field<kernels>(neuron_.taps, [&](Taps<V>& taps, int) { taps = taps_.taps(); });
      for_each_field<kernels>(back_.grad_taps, [&](double*& grad, int k) {
        if (wish.parameters) grad = grads_.data() + parameters + k * taps_.length;
      });
    }
  }

  /// A kernel with taps has no parameters.
  static bool may_want(int k, const Wish& wish) {
    const bool of_kernel = k < kernels * kernel_parameters;
    return !tied(k) && !(wish.taps && of_kernel);
  }
  static bool tied(int k) {
    bool found = false;
    for_each_tie(N{}, [&](const Tie& tie) { found = found || tie.source == k; });
    return found;
  }

  Layout layout_;
  N neuron_;
  Surrogate<V> surrogate_;
  Input<V> values_, weights_;
  SomeTaps<V> taps_;
  Output<V> spikes_, potential_, grad_current_;
  Output<double> grads_, grad_weights_;
  typename N::Forward to_;
  typename N::Backward back_;
};

/// Runs a call with a byte less than it asks for, and with all of them.
template <class Run>
void expect_exact(const Workspace& asked, Run run) {
  ASSERT_GT(asked.bytes, 0u);
  const CallMemory memory(asked);
  Workspace short_of_one = memory.workspace();
  short_of_one.bytes -= 1;
  EXPECT_EQ(run(short_of_one), Status::workspace_too_small);
  EXPECT_EQ(run(memory.workspace()), Status::ok);
  EXPECT_TRUE(memory.zones_intact());
}

template <class N>
class Workspaces : public testing::Test {};

TYPED_TEST_SUITE(Workspaces, EveryModel);

TYPED_TEST(Workspaces, OfAForwardPass) {
  for (const Layout& layout : layouts) {
    for (const Wish& wish : {Wish{}, Wish{.recurrent = TypeParam::fires}, Wish{.taps = true}}) {
      SCOPED_TRACE(test::describe(layout) + describe(wish));
      const Pass<TypeParam> pass(layout, wish);
      expect_exact(pass.asked(), [&](const Workspace& memory) { return pass.run(memory); });
    }
  }
}

TYPED_TEST(Workspaces, OfABackwardPassByEachMethod) {
  constexpr bool fires = TypeParam::fires;
  for (const Layout& layout : layouts) {
    for (int bits = 0; bits < 32; ++bits) {
      const Wish wish{(bits & 1) != 0, (bits & 2) != 0, (bits & 4) != 0, (bits & 8) != 0, (bits & 16) != 0};
      if (!fires && (wish.recurrent || wish.surrogate_values)) continue;
      if (wish.taps && wish.recomputes) continue;
      for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
        SCOPED_TRACE(test::describe(layout) + describe(wish) + ", method " + std::to_string(static_cast<int>(method)));
        const Pass<TypeParam> pass(layout, wish);
        expect_exact(pass.asked(method), [&](const Workspace& memory) { return pass.run(memory, method); });
      }
    }
  }
}

/// A tape for hidden states is large, and the gradient of the current does not read it.
TEST(Workspaces, OfTheCurrentsGradientHaveNoTape) {
  const Layout layout{1, 300, 2000};
  const Pass<CubaLif<float>> current(layout, {}), parameters(layout, {.parameters = true});
  for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
    EXPECT_LT(2 * current.asked(method).bytes, parameters.asked(method).bytes);
  }
}

/// ALIF's surrogate reads its hidden state, unless its values are given.
TEST(Workspaces, OfASurrogatesValuesHaveNoTape) {
  const Layout layout{1, 300, 2000};
  const Pass<Alif<float>> formula(layout, {}), values(layout, {.surrogate_values = true});
  EXPECT_LT(2 * values.asked(Method::exodus).bytes, formula.asked(Method::exodus).bytes);
}

}   // namespace
}   // namespace exodus::test
