/// @file
/// Run with EXODUS_ISA naming an instruction set that does not exist: isa() is null and every call says unsupported, without a crash and
/// without writing.
#include <gtest/gtest.h>

#include <exodus/exodus.hpp>

namespace exodus {
namespace {

TEST(UnknownIsa, IsRefused) {
  ASSERT_EQ(isa(), nullptr);
  const Layout layout{1, 2, 2};
  const float current[4] = {2, 2, 2, 2};
  float spikes[4] = {-7, -7, -7, -7}, potential[4] = {-7, -7, -7, -7};
  EXPECT_EQ(forward(layout, Lif<float>{}, {.current = current, .spikes = spikes, .potential = potential}), Status::unsupported);
  EXPECT_EQ(backward(layout, Lif<float>{}, Method::exodus, Surrogate<float>{}, {.potential = current, .grad_current = potential}),
            Status::unsupported);
  EXPECT_EQ(evaluate(Surrogate<float>{}, Param<float>(1), 4, current, potential), Status::unsupported);
  for (int k = 0; k < 4; ++k) {
    EXPECT_EQ(spikes[k], -7);
    EXPECT_EQ(potential[k], -7);
  }
  EXPECT_NE(version(), nullptr);
  EXPECT_GE(get_num_threads(), 1);
}

}   // namespace
}   // namespace exodus
