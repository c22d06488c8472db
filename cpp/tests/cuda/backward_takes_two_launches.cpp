/// @file
/// A backward pass is one launch, and one more sums the gradients of all parameters, those that are tied included, of any shape. A forward
/// pass is one launch.
#include <exodus/cuba_lif.hpp>
#include <exodus/exp_leak.hpp>
#include <exodus/lif.hpp>

#include "device.hpp"

namespace exodus::test {
namespace {

/// How many kernels a backward pass starts that is asked for the gradients of the parameters in `wanted`, a bit each. The forward pass
/// before it is expected to start one.
template <class N>
int launches(const Layout& layout, const N& neuron, Method method, std::uint32_t wanted) {
  const std::vector<float> values(static_cast<std::size_t>(elements(layout)), 0.5f);
  OnDevice device(1);
  const float* const current = device.in(values.data(), elements(layout));
  typename N::Forward to{.current = current, .potential = device.template out<float>(elements(layout))};
  cuda::shim::runtime.launches = 0;
  EXPECT_EQ(device.forward(layout, neuron, to), Status::ok);
  EXPECT_EQ(cuda::shim::runtime.launches, 1);
  typename N::Backward arrays{.potential = to.potential,
                              .current = current,
                              .grad_spikes = current,
                              .grad_potential = current,
                              .grad_current = device.template out<float>(elements(layout))};
  for_each_field<Traits<N>::parameters>(arrays.grad, [&](double*& grad, int k) {
    if ((wanted >> k & 1) != 0) grad = device.template out<double>(neurons(layout));
  });
  cuda::shim::runtime.launches = 0;
  EXPECT_EQ(device.backward(layout, neuron, method, Surrogate<float>{}, arrays), Status::ok);
  return cuda::shim::runtime.launches;
}

/// Without gradients of parameters, of each alone, of all: of one value, of one for each feature, for each channel, for each neuron.
template <class N>
void count(N neuron, std::uint32_t tied_away) {
  const Layout layout{5, 3, 70};
  const std::vector<float> values(350, 0.5f);
  OnDevice device(1);
  const float* const data = device.in(values.data(), 350);
  for (const Param<float>& alpha : {Param<float>(0.5f), Param<float>(data, 70), Param<float>(data, 7, 10), Param<float>(data, 350)}) {
    neuron.alpha = alpha;
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      constexpr std::uint32_t all = (1u << Traits<N>::parameters) - 1;
      EXPECT_EQ(launches(layout, neuron, method, 0), 1);
      EXPECT_EQ(launches(layout, neuron, method, all & ~tied_away), 2);
      for (int k = 0; k < Traits<N>::parameters; ++k) {
        if ((tied_away >> k & 1) != 0) continue;
        EXPECT_EQ(launches(layout, neuron, method, 1u << k), 2) << k;
      }
    }
  }
}

template <class N>
std::uint32_t bit(const char* name) {
  return 1u << parameter_index<N>(name);
}

TEST(CudaLaunches, AreTwoWithAllParameters) {
  count(Lif<float>{}, bit<Lif<float>>("reset_amount"));   // not given, it is the threshold's
  count(CubaLif<float>{}, bit<CubaLif<float>>("reset_amount"));
  Lif<float> lif;
  lif.gain_follows_alpha = true;
  count(lif, bit<Lif<float>>("reset_amount") | bit<Lif<float>>("gain"));
  ExpLeak<float> leak;
  leak.gain_follows_alpha = true;
  count(leak, bit<ExpLeak<float>>("gain"));
}

/// The threads of a block that a pass without gradients of parameters starts.
unsigned threads(const Layout& layout, Method method) {
  const std::vector<float> values(static_cast<std::size_t>(elements(layout)), 0.5f);
  OnDevice device(1);
  const float* const given = device.in(values.data(), elements(layout));
  const Lif<float>::Backward arrays{.potential = given, .grad_spikes = given, .grad_current = device.out<float>(elements(layout))};
  cuda::shim::runtime.launches = 0;
  EXPECT_EQ(device.backward(layout, Lif<float>{}, method, Surrogate<float>{}, arrays), Status::ok);
  EXPECT_EQ(cuda::shim::runtime.launches, 1);
  return blockDim.x;
}

/// A block has a warp for each chunk of 16 steps, up to 16, where they run side by side, and four otherwise.
TEST(CudaLaunches, OfFewNeuronsHaveAWarpForEachChunk) {
  constexpr unsigned warp = 32;
  EXPECT_EQ(threads({2, 17, 32}, Method::exodus), 2 * warp);
  EXPECT_EQ(threads({2, 100, 40}, Method::slayer), 7 * warp);
  EXPECT_EQ(threads({1, 256, 40}, Method::exodus), 16 * warp);
  EXPECT_EQ(threads({1, 300, 40}, Method::exodus), 16 * warp);
  EXPECT_EQ(threads({1, 17, 8192}, Method::exodus), 2 * warp);
  EXPECT_EQ(threads({1, 17, 8193}, Method::exodus), 4 * warp);   // more neurons
  EXPECT_EQ(threads({2, 16, 32}, Method::exodus), 4 * warp);     // one chunk
  EXPECT_EQ(threads({9, 17, 4}, Method::exodus), 2 * warp);      // a narrow inner axis
  EXPECT_EQ(threads({40, 17, 1}, Method::exodus), 2 * warp);     // time last
  EXPECT_EQ(threads({2, 17, 32}, Method::bptt), 4 * warp);       // two numbers carried
}

}   // namespace
}   // namespace exodus::test
