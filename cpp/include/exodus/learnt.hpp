/// @file
/// Numbers that an optimiser learns. It may move them anywhere, so they are put into their ranges.
#pragma once

#include "decay.hpp"
#include "macros.hpp"

namespace exodus {

/// The range of a learnt number. It is a parameter of a model or, where `dt` is above 0, the time constant of a decay. Then `least` is a
/// fraction of dt, so that dt / tau stays finite.
struct LearntRange {
  double least, most, dt;
};

/// A learnt number in its range, and the parameter that is made of it.
struct LearntNumber {
  double own, model;
};

/// Makes a learnt number of a tensor's value. NaN stays NaN.
EXODUS_SCALAR LearntNumber learnt_number(const LearntRange& range, double given) {
  const double own = given < range.least ? range.least : given > range.most ? range.most : given;
  return {own, range.dt > 0 ? decay(range.dt, own) : own};
}

/// dL/d(own) from dL/d(model): d alpha / d tau = alpha dt / tau^2.
EXODUS_SCALAR double learnt_gradient(const LearntRange& range, const LearntNumber& number, double grad) {
  return range.dt > 0 ? grad * (number.model * (range.dt / number.own) / number.own) : grad;
}

}   // namespace exodus
