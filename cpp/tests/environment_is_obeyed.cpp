/// @file
/// The environment variables that are read when the library is loaded. Run once for each setting, see CMakeLists.txt: with EXODUS_ISA
/// naming an instruction set that does not exist, and with numbers of threads of all kinds.
#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <exodus/functions.hpp>
#include <exodus/lif.hpp>
#include <string>

namespace exodus {
namespace {

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// isa() is null and every call says unsupported, without a crash and without writing.
TEST(Environment, UnknownInstructionSetIsRefused) {
  if (variable("EXODUS_ISA") != "pentium") GTEST_SKIP() << "for EXODUS_ISA=pentium";
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
}

TEST(Environment, NumberOfThreads) {
  const std::string given = variable("EXODUS_NUM_THREADS");
  if (given == "3") {
    EXPECT_EQ(get_num_threads(), 3);
  } else if (given.starts_with("99999999")) {
    EXPECT_GE(get_num_threads(), 3);
    EXPECT_LE(get_num_threads(), 1 << 16);
  } else {   // not given, or not a number of threads
    cpu_set_t usable;
    ASSERT_EQ(sched_getaffinity(0, sizeof usable, &usable), 0);
    EXPECT_EQ(get_num_threads(), CPU_COUNT(&usable));
  }
  set_num_threads(5);
  EXPECT_EQ(get_num_threads(), 5);
}

}   // namespace
}   // namespace exodus
