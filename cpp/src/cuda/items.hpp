/// @file
/// Grid-stride loops: each thread processes one item after another.
#pragma once

#include "launch.hpp"

namespace exodus::cuda {

constexpr int item_threads = 128;   // threads per block

/// The first item of a thread, and its stride.
EXODUS_DEVICE_SCALAR std::int64_t first_item() {
  return std::int64_t{blockIdx.x} * item_threads + threadIdx.x;
}
EXODUS_DEVICE_SCALAR std::int64_t next_item() {
  return std::int64_t{gridDim.x} * item_threads;
}

inline std::int64_t blocks_of(std::int64_t items) {
  return blocks_for((items + item_threads - 1) / item_threads);
}

}   // namespace exodus::cuda
