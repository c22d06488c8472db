/// @file
/// Kernels whose threads take one item after another, of as many as there are.
#pragma once

#include "launch.hpp"

namespace exodus::cuda {

constexpr int item_threads = 128;   // of a block

/// The threads of a grid take what there is in turn.
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
