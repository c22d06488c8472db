/// @file
/// Sums over the neurons that share a parameter.
#pragma once

#include "tiles.hpp"

namespace exodus::cuda {

/// Neuron j has value (j / repeat) % count of a parameter.
struct Repeats {
  std::int64_t count, repeat;
};

/// An array of terms, one per neuron or one per group of neurons of a block. It may have several rows, stored one after another.
struct Summand {
  const double* from = nullptr;
  std::int64_t length = 0;   ///< the number of terms in a row
  int sign = +1;
};

/// out[c] = the sum of the terms of value c over one or two arrays. An array of several rows has `count` results per row.
struct Sum {
  double* out = nullptr;
  Divisor count, repeat;
  std::int64_t values = 0;   ///< the number of results of all rows
  Summand summands[2];       ///< the second belongs to a parameter tied to this one
  int wide = 1;              ///< values that a block computes at a time
  std::int64_t end = 0;      ///< one past the last block of this sum
};

/// The sums after a pass, computed by one launch.
class Sums {
 public:
  static constexpr int most = max_parameters + 2 + 1;   // parameters, the taps of two kernels, recurrent weights

  /// Appends a sum, which overwrites `out`.
  void set(double* out, Repeats shape, Summand summand, std::int64_t rows = 1);
  /// Adds a second summand to the sum that writes `out`.
  void add(const double* out, Summand summand);
  /// Computes all sums. The order of the additions is the same on every run.
  Status launch(cudaStream_t stream) const;

 private:
  Sum sums_[most];
  int count_ = 0;
};

}   // namespace exodus::cuda
