/// @file
/// The bits of a surrogate's support are set where it is not 0 at the potential of the pass, for every model, layout, surrogate and dtype;
/// nothing else changes. Witness: evaluate() on the recorded potential, with the threshold of every element.
#include "every_model.hpp"
#include "example_of.hpp"
#include "support.hpp"

namespace exodus::test {
namespace {

template <class N>
constexpr bool reads_hidden_state = requires { N::surrogate_reads_hidden_state; };

/// Spikes and potential of a pass, and the bits of the support if there is a surrogate.
template <class N>
struct Pass {
  using S = typename N::Storage;
  using V = arithmetic_t<S>;
  Output<S> spikes;
  Output<V> potential;
  Output<std::uint64_t> support;
  std::int64_t count = -1;
  Status status;

  Pass(const Layout& layout, const N& neuron, const Surrogate<V>* surrogate, std::int64_t features = 0)
      : spikes(elements(layout)), potential(elements(layout)), support(elements(layout) / 64) {
    Input<S> current(elements(layout));
    Input<V> weights(features * features);
    Random random(5);
    for (std::int64_t k = 0; k < elements(layout); ++k) current[k] = nearest<S>(static_cast<float>(random.uniform(-0.8, 1.2)));
    weights.fill(random, -0.1, 0.1);
    typename N::Forward to{.current = current.data(), .spikes = spikes.data(), .potential = potential.data()};
    if (surrogate != nullptr) to.support = {support.data(), &count}, to.surrogate = surrogate;
    if (features > 0) to.recurrent = {weights.data(), features, 1};
    status = run_forward(layout, neuron, to, 3);
  }
};

template <class V>
Surrogate<V> surrogate_of(SurrogateKind kind, double width) {
  Surrogate<V> surrogate;
  surrogate.kind = kind;
  surrogate.shape[0] = static_cast<V>(width);
  return surrogate;
}

template <class N>
void check(const Layout& layout, const N& neuron, const Surrogate<arithmetic_t<typename N::Storage>>& surrogate,
           std::int64_t features = 0) {
  using V = arithmetic_t<typename N::Storage>;
  SCOPED_TRACE(describe(layout) + " features " + std::to_string(features));
  const Pass<N> with(layout, neuron, &surrogate, features), without(layout, neuron, nullptr, features);
  ASSERT_EQ(with.status, Status::ok);
  ASSERT_EQ(without.status, Status::ok);
  EXPECT_TRUE(with.spikes.same_bits(without.spikes));
  EXPECT_TRUE(with.potential.same_bits(without.potential));
  EXPECT_TRUE(with.support.zones_intact());
  std::vector<V> thresholds(static_cast<std::size_t>(elements(layout))), h(thresholds.size());
  for (std::size_t k = 0; k < thresholds.size(); ++k) {
    const auto j = static_cast<std::int64_t>(k);
    const std::int64_t own = j / (layout.time * layout.inner) * layout.inner + j % layout.inner;
    const Param<V>& threshold = neuron.threshold;
    thresholds[k] = threshold.data == nullptr ? threshold.value : threshold.data[own / threshold.repeat % threshold.count];
  }
  const Param<V> of_elements(thresholds.data(), elements(layout));
  ASSERT_EQ(evaluate(surrogate, of_elements, elements(layout), with.potential.data(), h.data()), Status::ok);
  std::int64_t set = 0;
  for (std::int64_t k = 0; k < elements(layout); ++k) {
    const bool bit = (with.support[k / 64] >> (k % 64) & 1) != 0;
    ASSERT_EQ(bit, h[static_cast<std::size_t>(k)] != 0) << k;
    set += bit;
  }
  EXPECT_EQ(with.count, set);
  EXPECT_GT(set, 0);
  EXPECT_LT(set, elements(layout));
}

template <class N>
class Support : public testing::Test {};

TYPED_TEST_SUITE(Support, EveryFiringModel);

TYPED_TEST(Support, OfEveryModelAndLayout) {
  using V = arithmetic_t<typename TypeParam::Storage>;
  const TypeParam neuron = example_of<TypeParam>();
  const auto boxcar = surrogate_of<V>(SurrogateKind::boxcar, 0.7), triangle = surrogate_of<V>(SurrogateKind::triangle, 0.4);
  if constexpr (reads_hidden_state<TypeParam>) {
    const Pass<TypeParam> pass({1, 9, 64}, neuron, &boxcar);
    EXPECT_EQ(pass.status, Status::unsupported);
    EXPECT_TRUE(pass.support.untouched() && pass.spikes.untouched());
  } else {
    for (const Layout& layout : {Layout{1, 9, 64}, Layout{1, 9, 1088 * 3}, Layout{5, 9, 1088}, Layout{4, 9, 192}, Layout{3, 9, 128}}) {
      check(layout, neuron, layout.outer % 2 == 0 ? triangle : boxcar);
    }
    check({1, 9, 128 * 7}, neuron, boxcar, 64);
    check({3, 9, 192}, neuron, triangle, 192);
  }
}

TEST(SupportOfHalves, IsThatOfTheirNumbers) {
  check({3, 40, 320}, example_of<Lif<float16>>(), surrogate_of<float>(SurrogateKind::boxcar, 0.5));
  check({1, 40, 64 * 9}, example_of<Lif<bfloat16>>(), surrogate_of<float>(SurrogateKind::triangle, 0.3));
}

TEST(SupportOfManyThresholds, IsAroundEach) {
  const std::vector<float> thresholds{0.5f, 0.9f, 1.3f, 0.2f, 2.0f};
  Lif<float> neuron = example_of<Lif<float>>();
  neuron.threshold = Param<float>(thresholds.data(), 5);
  check({3, 20, 320}, neuron, surrogate_of<float>(SurrogateKind::boxcar, 0.4));
  neuron.threshold = Param<float>(thresholds.data(), 5, 64);
  check({2, 20, 1088}, neuron, surrogate_of<float>(SurrogateKind::triangle, 0.4));
}

TEST(SupportOfEverySurrogate, IsWhereItIsNotZero) {
  const Layout layout{1, 40, 256};
  for (int kind = 0; kind < static_cast<int>(SurrogateKind::count); ++kind) {
    SCOPED_TRACE(kind);
    Surrogate<float> surrogate = surrogate_of<float>(static_cast<SurrogateKind>(kind), 0.3);
    surrogate.shape[1] = 0.5f, surrogate.shape[2] = 2;
    const bool everywhere = surrogate.kind != SurrogateKind::boxcar && surrogate.kind != SurrogateKind::triangle;
    if (!everywhere) {
      check(layout, example_of<Lif<float>>(), surrogate);
      continue;
    }
    const Pass<Lif<float>> pass(layout, example_of<Lif<float>>(), &surrogate);
    ASSERT_EQ(pass.status, Status::ok);
    for (std::int64_t k = 0; k < elements(layout) / 64; ++k) EXPECT_EQ(pass.support[k], ~std::uint64_t{0}) << k;
  }
}

TEST(SupportThatCannotBe, IsRefused) {
  const std::vector<float> current(9 * 192, 0.5f), values(9 * 192);
  std::vector<std::uint64_t> support(9 * 3, 7);
  const auto boxcar = surrogate_of<float>(SurrogateKind::boxcar, 0.5);
  Surrogate<float> custom, unknown;
  custom.values = values.data(), unknown.kind = SurrogateKind::count;
  const auto status = [&](const Layout& layout, const Surrogate<float>* surrogate) {
    return run_forward(layout, Lif<float>{}, {.current = current.data(), .support = {support.data()}, .surrogate = surrogate}, 1);
  };
  EXPECT_EQ(status({1, 9, 192}, nullptr), Status::null_pointer);
  EXPECT_EQ(status({1, 9, 192}, &custom), Status::unsupported);
  EXPECT_EQ(status({1, 9, 192}, &unknown), Status::unsupported);
  EXPECT_EQ(status({2, 9, 96}, &boxcar), Status::unsupported);
  EXPECT_EQ(support[0], 7u);
  EXPECT_EQ(status({1, 9, 192}, &boxcar), Status::ok);
}

}   // namespace
}   // namespace exodus::test
