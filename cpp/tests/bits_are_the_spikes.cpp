/// @file
/// The bits that a forward pass writes beside the spikes are those of the spikes, for every model, layout and dtype; nothing else changes.
#include <cstring>

#include "every_model.hpp"
#include "example_of.hpp"
#include "support.hpp"

namespace exodus::test {
namespace {

/// Spikes and potential of a pass with bits or without, and the bits.
template <class N>
struct Pass {
  using S = typename N::Storage;
  Output<S> spikes;
  Output<arithmetic_t<S>> potential;
  Output<std::uint64_t> fired;
  std::int64_t count = -1;
  Status status;

  Pass(const Layout& layout, bool with_bits, std::int64_t features = 0)
      : spikes(elements(layout)), potential(elements(layout)), fired(elements(layout) / 64) {
    Input<S> current(elements(layout));
    Input<arithmetic_t<S>> weights(features * features);
    Random random(5);
    for (std::int64_t k = 0; k < elements(layout); ++k) current[k] = nearest<S>(static_cast<float>(random.uniform(-0.8, 1.2)));
    weights.fill(random, -0.1, 0.1);
    typename N::Forward to{.current = current.data(), .spikes = spikes.data(), .potential = potential.data()};
    if (with_bits) to.fired = {fired.data(), &count};
    if (features > 0) to.recurrent = {weights.data(), features, 1};
    status = run_forward(layout, example_of<N>(), to, 3);
  }
};

template <class N>
void check(const Layout& layout, std::int64_t features = 0) {
  SCOPED_TRACE(describe(layout) + " features " + std::to_string(features));
  const Pass<N> with(layout, true, features), without(layout, false, features);
  ASSERT_EQ(with.status, Status::ok);
  ASSERT_EQ(without.status, Status::ok);
  EXPECT_TRUE(with.spikes.same_bits(without.spikes));
  EXPECT_TRUE(with.potential.same_bits(without.potential));
  EXPECT_TRUE(with.fired.zones_intact());
  std::int64_t spikes = 0;
  for (std::int64_t k = 0; k < elements(layout); ++k) {
    const typename N::Storage spike = with.spikes[k], silent{};
    const bool fired = std::memcmp(&spike, &silent, sizeof spike) != 0;
    ASSERT_EQ(with.fired[k / 64] >> (k % 64) & 1, std::uint64_t{fired}) << k;
    spikes += fired;
  }
  EXPECT_EQ(with.count, spikes);
  EXPECT_EQ(without.count, -1);
  EXPECT_GT(spikes, 0);
  EXPECT_LT(spikes, elements(layout));
}

template <class N>
class Bits : public testing::Test {};

TYPED_TEST_SUITE(Bits, EveryFiringModel);

TYPED_TEST(Bits, OfEveryModelAndLayout) {
  for (const Layout& layout : {Layout{1, 9, 64}, Layout{1, 9, 1088 * 3}, Layout{5, 9, 1088}, Layout{4, 9, 192}, Layout{3, 9, 128}}) {
    check<TypeParam>(layout);
  }
  for (const Layout& layout : {Layout{1, 9, 128 * 7}, Layout{7, 9, 64}, Layout{3, 9, 192}}) {
    check<TypeParam>(layout, layout.inner % 192 == 0 ? 192 : 64);
  }
}

TEST(BitsOfHalves, AreTheSpikes) {
  check<Lif<float16>>({3, 40, 320});
  check<Lif<bfloat16>>({1, 40, 64 * 9});
}

TEST(BitsOfManySpikes, TellWhichNeuronsFire) {
  const Layout layout{1, 3, 64};
  const std::vector<float> current(192, 3.5f);
  std::vector<float> spikes(192);
  std::vector<std::uint64_t> fired(3);
  Lif<float> neuron;
  neuron.max_spikes = 0;
  ASSERT_EQ(run_forward(layout, neuron, {.current = current.data(), .spikes = spikes.data(), .fired = {fired.data()}}, 1), Status::ok);
  EXPECT_EQ(spikes[0], 3);
  for (const std::uint64_t word : fired) EXPECT_EQ(word, ~std::uint64_t{0});
}

TEST(BitsThatAreNoWholeWords, AreUnsupported) {
  const std::vector<float> current(9 * 192 * 192, 0.5f);
  std::vector<std::uint64_t> fired(9 * 192 * 3, 7);
  const Lif<float>::Forward to{.current = current.data(), .fired = {fired.data()}};
  for (const Layout& layout : {Layout{64, 9, 1}, Layout{1, 9, 63}, Layout{2, 9, 96}}) {
    EXPECT_EQ(run_forward(layout, Lif<float>{}, to, 1), Status::unsupported);
  }
  for (const Recurrence<float>& recurrent : {Recurrence<float>{current.data(), 96, 1}, Recurrence<float>{current.data(), 64, 3}}) {
    Lif<float>::Forward with = to;
    with.recurrent = recurrent;
    EXPECT_EQ(run_forward({1, 9, 192}, Lif<float>{}, with, 1), Status::unsupported);
  }
  EXPECT_EQ(fired[0], 7u);
}

}   // namespace
}   // namespace exodus::test
