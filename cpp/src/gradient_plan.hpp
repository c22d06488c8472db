/// @file
/// The plan of a backward pass, for both engines: the gradients that it sums, the hidden states that it recomputes and the length of their
/// segments, and the order of the reductions after it.
#pragma once

#include "model.hpp"

namespace exodus {

/// The parameters whose terms a backward pass sums: those of the wanted gradients, and those that a tie adds to these.
template <class N>
struct RequestedGradients {
  double* grad[Traits<N>::parameters];   ///< the caller's arrays; null if not wanted
  double* taps[2] = {};                  ///< the caller's arrays for the kernels' taps; null if not wanted
  bool summed[Traits<N>::parameters];
  bool tied_away[Traits<N>::parameters] = {};
  int sums = 0;
  bool recurrent;   ///< whether the gradient of recurrent weights is wanted

  RequestedGradients(const N& neuron, const typename N::Backward& arrays)
      : recurrent(arrays.grad_recurrent != nullptr && arrays.recurrent.features > 0) {
    to_list<Traits<N>::parameters>(arrays.grad, grad);
    for (int k = 0; k < Traits<N>::parameters; ++k) summed[k] = grad[k] != nullptr;
    for_each_tie(neuron, [this](const Tie& tie) {
      tied_away[tie.source] = true;
      if (grad[tie.target] != nullptr) summed[tie.source] = true;
    });
    for (const bool wanted : summed) sums += wanted ? 1 : 0;
    if constexpr (Traits<N>::kernels > 0) to_list<Traits<N>::kernels>(arrays.grad_taps, taps);
  }

  bool reads_current() const {
    for (int k = 0; k < Traits<N>::parameters; ++k) {
      if (summed[k] && N::parameter_table[k].reads_current) return true;
    }
    return taps[0] != nullptr;
  }

  bool reads_hidden_states() const {
    for (int k = 0; k < Traits<N>::parameters; ++k) {
      if (summed[k] && N::parameter_table[k].reads_hidden_states) return true;
    }
    return false;
  }

  /// Whether the wanted gradients exist: a tied parameter has none of its own, and a kernel has either taps or parameters.
  template <class V>
  bool possible(const FirRole<V>* roles) const {
    for (int k = 0; k < Traits<N>::parameters; ++k) {
      if (grad[k] != nullptr && tied_away[k]) return false;
    }
    for (int k = 0; k < Traits<N>::kernels; ++k) {
      if (taps[k] != nullptr && roles[k].taps.length == 0) return false;
      for (int own = 0; roles[k].taps.length > 0 && own < kernel_parameters; ++own) {
        if (grad[kernel_parameters * k + own] != nullptr) return false;
      }
    }
    return true;
  }
};

/// Whether a backward pass recomputes states that do not follow from the recorded potential, because the surrogate reads them (see
/// StepRecord), or because the terms of parameters do (`for_terms`). The states of FIR kernels are recorded inputs.
template <class N, class V>
bool rebuilds(bool for_terms, bool surrogate_given, const FirRole<V>* roles) {
  int hidden = Traits<N>::states - first_hidden<N>;
  for (int k = 0; k < Traits<N>::kernels; ++k) hidden -= roles[k].taps.length > 0 ? kernel_states : 0;
  if (hidden == 0) return false;
  if constexpr (surrogate_reads_hidden_state<N>) {
    if (!surrogate_given) return true;
  }
  return for_terms;
}

/// Whether a backward pass reads the potential.
template <class N>
bool reads_potential(const RequestedGradients<N>& requested) {
  return N::fires || requested.sums > 0;
}

/// Whether a backward pass recomputes the potential from the current: it reads the potential, and the caller has not kept it.
template <class N>
bool recomputes_potential(const RequestedGradients<N>& requested, const typename N::Backward& arrays) {
  return reads_potential(requested) && arrays.potential == nullptr;
}

/// The steps of a segment, whose hidden states are recomputed together: a multiple of `unit`, and about the square root of `time`, so that
/// there are about as many steps as segments. This minimises the memory for both.
inline std::int64_t rebuilt_steps(std::int64_t time, std::int64_t unit) {
  std::int64_t steps = unit;
  while (steps * steps < time) steps += unit;
  return steps;
}

/// A sum over the neurons that share a value of a parameter: from one term per neuron to `count` values. Taps have `rows` of these.
struct Reduction {
  double* out;
  const double* sums;           ///< one term per neuron
  std::int64_t count, repeat;   ///< as in Param
  std::int64_t rows;
  int sign;
  bool adds;   ///< whether the sum is added to `out`, rather than stored
};

/// Calls f(Reduction) for each reduction after a pass, in their order: parameters, ties, taps.
template <class N, class V, class Element, class F>
void for_each_reduction(const N& neuron, const RequestedGradients<N>& requested, const BackwardCall<V, Element>& call, F&& f) {
  for (int k = 0; k < Traits<N>::parameters; ++k) {
    const Param<V>& p = call.parameters[k];
    if (requested.grad[k] != nullptr) f(Reduction{requested.grad[k], call.sums[k], p.count, p.repeat, 1, +1, false});
  }
  for_each_tie(neuron, [&](const Tie& tie) {
    const Param<V>& p = call.parameters[tie.target];
    double* const out = requested.grad[tie.target];
    if (out != nullptr) f(Reduction{out, call.sums[tie.source], p.count, p.repeat, 1, tie.sign, true});
  });
  for (int k = 0; k < Traits<N>::kernels; ++k) {
    const FirRole<V>& role = call.fir[k];
    if (requested.taps[k] != nullptr) {
      f(Reduction{requested.taps[k], role.sums, role.taps.count, role.taps.repeat, role.taps.length, +1, false});
    }
  }
}

}   // namespace exodus
