/// @file
/// Without a usable GPU the library loads, says what is missing, and refuses calls; bad arguments are told from that. With one, calls with
/// memory of the host are refused. CPU calls go on either way. EXODUS_EXPECTED_REASON names words of what is missing.
#include <cstdlib>
#include <exodus/cuda.hpp>

#include "../support.hpp"

namespace exodus::test {
namespace {

TEST(WithoutGpu, CallsAreRefusedAndTheCpuGoesOn) {
  const char* const reason = cuda::unavailable();
  if (reason != nullptr) {
    const std::string text = reason;
    EXPECT_TRUE(text.find("driver") != std::string::npos || text.find("GPU") != std::string::npos) << text;
  }
  if (const char* const expected = std::getenv("EXODUS_EXPECTED_REASON"); expected != nullptr) {
    ASSERT_NE(reason, nullptr);
    EXPECT_NE(std::string(reason).find(expected), std::string::npos) << reason;
  }
  float current[4] = {1, 2, 3, 4}, spikes[4] = {}, potential[4] = {}, gradient[4] = {};
  const Layout layout{1, 2, 2};
  const Lif<float> neuron;
  const Lif<float>::Forward arrays{.current = current, .spikes = spikes, .potential = potential};
  EXPECT_EQ(cuda::forward(layout, neuron, arrays), Status::cuda);
  EXPECT_EQ(spikes[0], 0);
  EXPECT_EQ(cuda::backward(layout, neuron, Method::exodus, Surrogate<float>{}, {.potential = potential, .grad_current = gradient}),
            Status::cuda);
  EXPECT_EQ(run_forward(layout, neuron, arrays), Status::ok);
  EXPECT_EQ(spikes[0], 1);
}

TEST(WithoutGpu, ArgumentsAreCheckedFirst) {
  float current[4] = {};
  const Lif<float> neuron;
  EXPECT_EQ(cuda::forward({1, 0, 2}, neuron, {.current = current}), Status::bad_layout);
  EXPECT_EQ(cuda::forward({1, 2, 2}, neuron, {}), Status::null_pointer);
  double grad = 0;
  Lif<float>::Backward arrays{.potential = current};
  arrays.grad.alpha = &grad;
  EXPECT_EQ(cuda::backward({1, 2, 2}, neuron, Method::exodus, Surrogate<float>{}, arrays), Status::workspace_too_small);
  EXPECT_GE(cuda::workspace({1, 2, 2}, neuron, arrays).bytes, 2 * sizeof(double));
}

}   // namespace
}   // namespace exodus::test
