/// @file
/// Sums over the neurons that share a parameter.
#pragma once

#include "launch.hpp"

namespace exodus::cuda {

/// Neuron j has value (j / repeat) % count of a parameter.
struct Repeats {
  std::int64_t count, repeat;
};

/// out[c] = sign * (sum over the neurons with value c), or adds it to out[c]; in the same order on every run. Of some rows of `neurons`
/// sums, each into `shape.count` values.
Status reduce(const double* sums, std::int64_t neurons, Repeats shape, double* out, int sign, bool adds, cudaStream_t stream,
              std::int64_t rows = 1);

}   // namespace exodus::cuda
