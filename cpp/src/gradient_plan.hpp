/// @file
/// What a backward pass plans on either engine: which gradients it sums, which hidden states it rebuilds and how many steps at a time, and
/// what becomes of the sums after it, in which order.
#pragma once

#include "model.hpp"

namespace exodus {

/// Which parameters' terms a backward pass has to sum: those asked for, and those that a tie adds to them.
template <class N>
struct RequestedGradients {
  double* grad[Traits<N>::parameters];   ///< where the caller wants it
  double* taps[2] = {};                  ///< likewise, of the kernels' taps
  bool summed[Traits<N>::parameters];
  bool tied_away[Traits<N>::parameters] = {};
  int sums = 0;
  bool recurrent;   ///< the gradient of recurrent weights

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

  /// A tied parameter has no gradient of its own, and a kernel has either taps or parameters.
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

/// Whether a backward pass has to rebuild states that the recorded potential does not tell; those of FIR kernels are inputs as they came.
template <class N, class V>
bool rebuilds(Method method, const RequestedGradients<N>& requested, bool surrogate_given, const FirRole<V>* roles) {
  int hidden = Traits<N>::states - first_hidden<N>;
  for (int k = 0; k < Traits<N>::kernels; ++k) hidden -= roles[k].taps.length > 0 ? kernel_states : 0;
  if (hidden == 0) return false;
  if constexpr (requires { N::surrogate_reads_hidden_state; }) {
    if (!surrogate_given) return true;
  }
  return method == Method::bptt || requested.sums > 0;
}

/// Steps whose hidden states are rebuilt at a time: whole units, and about as many as there are segments of them.
inline std::int64_t rebuilt_steps(std::int64_t time, std::int64_t unit) {
  std::int64_t steps = unit;
  while (steps * steps < time) steps += unit;
  return steps;
}

/// A sum over the neurons that share a value of a parameter, or for taps as many as `rows`, each of `neurons` sums into `count` values.
struct Reduction {
  double* out;
  const double* sums;           ///< of each neuron
  std::int64_t count, repeat;   ///< as in Param
  std::int64_t rows;
  int sign;
  bool adds;   ///< to what is in `out`, which is set otherwise
};

/// Calls f(Reduction) for all that follow a pass, in the order in which they are to be done: parameters, ties, taps.
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
