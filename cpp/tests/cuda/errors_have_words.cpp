/// @file
/// Calls run on the device of their arrays and leave the current one as it was; an error of the runtime is that of its own call, not of the
/// next one, and has the runtime's words.
#include <exodus/lif.hpp>

#include "device.hpp"

namespace exodus::test {
namespace {

using cuda::shim::runtime;

class CudaRuntime : public testing::Test {
 protected:
  CudaRuntime() { runtime = {}; }
  ~CudaRuntime() override { runtime = {}; }

  Status run() { return cuda::forward(Layout{1, 2, 2}, Lif<float>{}, arrays_); }

  float current_[4] = {1, 2, 3, 4}, spikes_[4] = {}, potential_[4] = {};
  const Lif<float>::Forward arrays_{.current = current_, .spikes = spikes_, .potential = potential_};
};

TEST_F(CudaRuntime, WaitsOnTheDeviceOfTheMemory) {
  for (const int device : {0, 1}) {
    for (const int current : {0, 1}) {
      runtime = {.current = current, .of_memory = device};
      EXPECT_EQ(cuda::wait(current_), Status::ok);
      EXPECT_EQ(runtime.synchronized, device);
      EXPECT_EQ(runtime.current, current);
    }
  }
}

TEST_F(CudaRuntime, RunsOnTheDeviceOfTheMemory) {
  runtime.of_memory = 1;
  EXPECT_EQ(run(), Status::ok);
  EXPECT_EQ(runtime.current, 0);
  EXPECT_EQ(spikes_[0], 1);
}

TEST_F(CudaRuntime, ReportsAnErrorOnceAndInItsWords) {
  for (const char* const fault : {"launch", "attributes", "set", "wait"}) {
    runtime = {.of_memory = 1, .fault = fault};
    cuda::last_words = nullptr;
    EXPECT_EQ(std::string(fault) == "wait" ? cuda::wait(current_) : run(), Status::cuda) << fault;
    ASSERT_NE(cuda::last_error(), nullptr) << fault;
    EXPECT_STREQ(cuda::last_error(), "an illegal memory access was encountered") << fault;
    EXPECT_EQ(runtime.error, cudaSuccess) << fault;
    EXPECT_EQ(runtime.current, 0) << fault;
    runtime.fault = nullptr;
    EXPECT_EQ(run(), Status::ok) << "after " << fault;
  }
}

TEST_F(CudaRuntime, GoesBackEvenWhereThatFails) {
  runtime.of_memory = 1;
  {
    const cuda::DeviceOf device(current_);
    EXPECT_TRUE(device.ok());
    EXPECT_EQ(runtime.current, 1);
    runtime.fault = "set";
  }
  runtime.fault = nullptr;
  EXPECT_EQ(runtime.error, cudaSuccess);
  runtime.current = 0;
  EXPECT_EQ(run(), Status::ok);
}

TEST_F(CudaRuntime, RefusesMemoryThatNoDeviceCanUse) {
  EXPECT_EQ(cuda::wait(nullptr), Status::cuda);
  EXPECT_STREQ(cuda::last_error(), "an array is not in memory that a GPU can use");
}

}   // namespace
}   // namespace exodus::test
