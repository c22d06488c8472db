/// @file
/// A pass with recurrent weights is one launch where a block can have a thread for each neuron of a batch entry, and forward takes wider
/// entries than backward; backward, another launch transposes the weights. Still wider ones take 2 T launches for T steps.
#include <exodus/lif.hpp>

#include "device.hpp"

namespace exodus::test {
namespace {

constexpr std::int64_t steps = 3;

/// The launches of a forward and of a backward pass over one entry.
template <class V>
std::pair<int, int> launches(std::int64_t features) {
  using N = Lif<V>;
  const N neuron;
  const Layout layout{1, steps, features};
  const std::vector<V> values(static_cast<std::size_t>(elements(layout)), V(0.5));
  const std::vector<V> weights(static_cast<std::size_t>(features * features), V(0.001));
  OnDevice device(1);
  const V* const given = device.in(values.data(), elements(layout));
  const Recurrence<V> recurrent{device.in(weights.data(), features * features), features};
  const typename N::Forward forward{.current = given, .spikes = device.template out<V>(elements(layout)), .recurrent = recurrent};
  cuda::shim::runtime.launches = 0;
  EXPECT_EQ(device.forward(layout, neuron, forward), Status::ok);
  const int of_forward = cuda::shim::runtime.launches;
  const typename N::Backward backward{
      .potential = given, .grad_spikes = given, .grad_current = device.template out<V>(elements(layout)), .recurrent = recurrent};
  cuda::shim::runtime.launches = 0;
  EXPECT_EQ(device.backward(layout, neuron, Method::exodus, {}, backward), Status::ok);
  return {of_forward, cuda::shim::runtime.launches};
}

constexpr std::pair<int, int> whole{1, 2}, forward_only{1, 2 * steps}, by_steps{2 * steps, 2 * steps};

TEST(CudaRecurrence, IsOneLaunchUpToTheWidestEntry) {
  EXPECT_EQ(launches<float>(512), whole);
  EXPECT_EQ(launches<float>(513), forward_only);
  EXPECT_EQ(launches<float>(1024), forward_only);
  EXPECT_EQ(launches<float>(1025), by_steps);
  EXPECT_EQ(launches<double>(480), whole);
  EXPECT_EQ(launches<double>(481), by_steps);
}

}   // namespace
}   // namespace exodus::test
