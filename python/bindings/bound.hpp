/// @file
/// Calls of a neuron that is bound to a layout: dense arrays, from rest. In a small layer the arguments of a call take longer than its
/// steps, so that those which stay the same are converted once (benchmarks/overhead.py).
#pragma once

#include <memory>
#include <vector>

#include "calls.hpp"
#include "exodus/learnt.hpp"

namespace exodus::python {

/// A neuron, some of whose parameters, the `learnt` ones, are numbers that are passed to each call. Addresses may be 0: not wanted.
class BoundNeuron {
 public:
  using Address = std::uintptr_t;

  virtual ~BoundNeuron() = default;
  /// Returns the numbers of bits that are set in `fired` and in `support`, that of `surrogate`.
  virtual py::tuple forward(const py::tuple& learnt, Address current, Address spikes, Address potential, Address fired, Address support,
                            const py::object& surrogate, const py::object& execution) const = 0;
  /// Returns the gradients of the parameters of these indices, or stores them at `sums`, one after another, if that is not 0.
  virtual py::tuple backward(const py::tuple& learnt, const std::string& method, const py::object& surrogate, Address potential,
                             Address current, Address grad_spikes, Address grad_potential, Address grad_current,
                             const std::vector<int>& wanted, Address sums, const py::object& execution) const = 0;
  /// Whether the surrogate reads more than the potential; there is no support then.
  virtual bool surrogate_reads_hidden_state() const = 0;
};

template <class N, class Engine>
class BoundModel final : public BoundNeuron {
  using S = typename N::Storage;
  using V = arithmetic_t<S>;

 public:
  BoundModel(const Sizes& sizes, const py::dict& parameters, const py::dict& options, std::vector<int> learnt)
      : neuron_(to_neuron<N>(parameters, options)),
        layout_{sizes[0], sizes[1], sizes[2]},
        learnt_(std::move(learnt)),
        parameters_(parameters) {
    elements_ = Counts(layout_).elements;
  }

  py::tuple forward(const py::tuple& learnt, Address current, Address spikes, Address potential, Address fired, Address support,
                    const py::object& surrogate, const py::object& execution) const override {
    const FloatingPointMode mode;   // numbers are rounded to the arrays' type
    const N neuron = with(learnt);
    typename N::Forward arrays;
    arrays.current = reinterpret_cast<const S*>(current);
    arrays.spikes = reinterpret_cast<S*>(spikes);
    arrays.potential = reinterpret_cast<V*>(potential);
    std::int64_t spikes_count = 0, support_count = 0;
    arrays.fired = {reinterpret_cast<std::uint64_t*>(fired), &spikes_count};
    arrays.support = {reinterpret_cast<std::uint64_t*>(support), &support_count};
    const Surrogate<V> native_surrogate = support == 0 ? Surrogate<V>{} : to_surrogate<V>(surrogate, elements_);
    arrays.surrogate = &native_surrogate;
    const Engine engine(execution);
    const auto memory = engine.memory(engine.workspace(layout_, neuron, arrays));
    engine.check(without_lock([&] { return engine.forward(layout_, neuron, arrays, memory.workspace()); }));
    return py::make_tuple(spikes_count, support_count);
  }

  py::tuple backward(const py::tuple& learnt, const std::string& method, const py::object& surrogate, Address potential, Address current,
                     Address grad_spikes, Address grad_potential, Address grad_current, const std::vector<int>& wanted, Address sums,
                     const py::object& execution) const override {
    const FloatingPointMode mode;
    const N neuron = with(learnt);
    const Surrogate<S> native_surrogate = to_surrogate<S>(surrogate, elements_);
    typename N::Backward arrays;
    arrays.potential = reinterpret_cast<const V*>(potential);
    arrays.current = reinterpret_cast<const S*>(current);
    arrays.grad_spikes = reinterpret_cast<const S*>(grad_spikes);
    arrays.grad_potential = reinterpret_cast<const V*>(grad_potential);
    arrays.grad_current = reinterpret_cast<S*>(grad_current);
    std::vector<double> own(wanted.size());
    double* const found = sums == 0 ? own.data() : reinterpret_cast<double*>(sums);
    for_each_field<std::size(N::parameter_table)>(arrays.grad, [&](double*& field, int k) {
      const auto place = std::find(wanted.begin(), wanted.end(), k);
      if (place != wanted.end()) field = found + (place - wanted.begin());
    });
    const Engine engine(execution);
    const auto algorithm = to_enumerator<Method>(method);
    const auto memory = engine.memory(engine.workspace(layout_, neuron, algorithm, native_surrogate, arrays));
    engine.check(without_lock([&] { return engine.backward(layout_, neuron, algorithm, native_surrogate, arrays, memory.workspace()); }));
    if (sums != 0) return py::tuple();
    py::tuple gradients(wanted.size());
    for (std::size_t k = 0; k < wanted.size(); ++k) gradients[k] = own[k];
    return gradients;
  }

  bool surrogate_reads_hidden_state() const override { return exodus::surrogate_reads_hidden_state<N>; }

 private:
  N with(const py::tuple& learnt) const {
    if (learnt.size() != learnt_.size()) throw py::value_error("expected " + std::to_string(learnt_.size()) + " learnt numbers");
    N neuron = neuron_;
    typename N::template Parameters<Param<V>>& fields = neuron;
    for_each_field<std::size(N::parameter_table)>(fields, [&](Param<V>& field, int k) {
      const auto found = std::find(learnt_.begin(), learnt_.end(), k);
      if (found != learnt_.end()) field = to_param<V>(learnt[static_cast<std::size_t>(found - learnt_.begin())]);
    });
    return neuron;
  }

  N neuron_;
  Layout layout_;
  std::vector<int> learnt_;
  std::int64_t elements_;
  py::dict parameters_;   // keeps their arrays alive
};

template <class Engine>
std::unique_ptr<BoundNeuron> bind_neuron(const std::string& model, const std::string& type_name, const Sizes& sizes,
                                         const py::dict& parameters, const py::dict& options, std::vector<int> learnt) {
  std::unique_ptr<BoundNeuron> result;
  const FloatingPointMode mode;
  with_neuron(model, type_name, [&]<class N>(const N&) {
    if constexpr (sizeof(typename N::Storage) >= sizeof(float) || Engine::binds_halves) {
      result = std::make_unique<BoundModel<N, Engine>>(sizes, parameters, options, std::move(learnt));
    } else {
      throw py::type_error("no bound neurons for arrays of " + type_name);
    }
  });
  return result;
}

/// The class is local to a module: those of both engines have one.
template <class Engine>
void add_bound_neuron(py::module_& m) {
  py::class_<BoundNeuron>(m, "BoundNeuron", py::module_local())
      .def(py::init(&bind_neuron<Engine>))
      .def("forward", &BoundNeuron::forward)
      .def("backward", &BoundNeuron::backward)
      .def_property_readonly("surrogate_reads_hidden_state", &BoundNeuron::surrogate_reads_hidden_state);
}

using Ranges = std::vector<std::tuple<double, double, double>>;   // the fields of LearntRange

inline std::vector<LearntRange> learnt_ranges(const Ranges& given) {
  std::vector<LearntRange> ranges;
  for (const auto& [least, most, dt] : given) ranges.push_back({least, most, dt});
  return ranges;
}

/// Learnt numbers, each in a tensor of one element of type T: in their ranges, and as the model takes them.
template <class T>
class LearntNumbers {
 public:
  explicit LearntNumbers(const Ranges& ranges) : ranges_(learnt_ranges(ranges)) {}

  /// The numbers at these addresses, and the model's; None if one is not finite.
  py::object read(const py::tuple& addresses) const {
    const FloatingPointMode mode;
    const std::size_t count = checked(addresses);
    py::tuple own(count), model(count);
    for (std::size_t k = 0; k < count; ++k) {
      const double given = *reinterpret_cast<const T*>(addresses[k].template cast<std::uintptr_t>());
      if (given - given != 0) return py::none();
      const LearntNumber number = learnt_number(ranges_[k], given);
      own[k] = number.own, model[k] = number.model;
    }
    return py::make_tuple(own, model);
  }

  /// The gradients of the numbers, from those of the model's.
  py::tuple gradients(const py::tuple& own, const py::tuple& model, const py::tuple& grads) const {
    const FloatingPointMode mode;
    const std::size_t count = checked(own);
    if (checked(model) != grads.size()) throw py::value_error("expected a gradient for each learnt number");
    py::tuple result(count);
    for (std::size_t k = 0; k < count; ++k) {
      const LearntNumber number{own[k].template cast<double>(), model[k].template cast<double>()};
      result[k] = learnt_gradient(ranges_[k], number, grads[k].template cast<double>());
    }
    return result;
  }

 private:
  std::size_t checked(const py::tuple& values) const {
    if (values.size() != ranges_.size()) throw py::value_error("expected " + std::to_string(ranges_.size()) + " learnt numbers");
    return values.size();
  }

  std::vector<LearntRange> ranges_;
};

}   // namespace exodus::python
