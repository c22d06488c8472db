/// @file
/// Sums over the neurons that share a parameter.
#pragma once

#include "tiles.hpp"

namespace exodus::cuda {

/// Neuron j has value (j / repeat) % count of a parameter.
struct Repeats {
  std::int64_t count, repeat;
};

/// An array of terms, one for each neuron or one for each group of neurons that a block took. It may have several rows, one after another.
struct Summand {
  const double* from = nullptr;
  std::int64_t length = 0;   ///< of a row
  int sign = +1;
};

/// out[c] = the sum of the terms of value c, in one array or two. An array of several rows has `count` results for each row.
struct Sum {
  double* out = nullptr;
  Divisor count, repeat;
  std::int64_t values = 0;   ///< of all rows
  Summand summands[2];       ///< the second: of a parameter that is tied to this one
  int wide = 1;              ///< values that a block takes at a time
  std::int64_t end = 0;      ///< this sum's blocks, and those of the sums before
};

/// The sums that follow a pass, in one launch.
class Sums {
 public:
  static constexpr int most = max_parameters + 2 + 1;   // with those of taps and recurrent weights

  /// Adds a sum to the list. It sets `out`.
  void set(double* out, Repeats shape, Summand summand, std::int64_t rows = 1);
  /// Adds to one that is there.
  void add(const double* out, Summand summand);
  /// Each in the same order on every run.
  Status launch(cudaStream_t stream) const;

 private:
  Sum sums_[most];
  int count_ = 0;
};

}   // namespace exodus::cuda
