/// @file
/// The Python extension: names, numbers and arrays to the structs of the C++ interface. The package has checked the arrays' dtypes, sizes
/// and order in memory; here only their addresses are taken. Every model of the registry is bound by the same code.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "registry.hpp"

namespace py = pybind11;

namespace {

using Sizes = std::array<std::int64_t, 3>;

/// An array's first element; null for None.
template <class X>
X* pointer(const py::handle& array) {
  if (array.is_none()) return nullptr;
  if (!py::isinstance<py::array>(array)) throw py::type_error("expected a numpy array or None");
  return static_cast<X*>(const_cast<void*>(py::reinterpret_borrow<py::array>(array).data()));
}

void check(exodus::Status status) {
  if (status != exodus::Status::ok) throw py::value_error(exodus::message(status));
}

template <class V>
exodus::Param<V> to_param(const py::handle& value) {
  if (py::isinstance<py::tuple>(value)) {
    const auto [values, repeat] = value.cast<std::tuple<py::array, std::int64_t>>();
    return {pointer<const V>(values), values.size(), repeat};
  }
  return exodus::Param<V>(static_cast<V>(value.cast<double>()));
}

/// Of an array of shape (taps, count).
template <class V>
exodus::Taps<V> to_taps(const py::handle& value) {
  const auto [values, repeat] = value.cast<std::tuple<py::array, std::int64_t>>();
  if (values.ndim() != 2) throw py::value_error("expected taps of shape (taps, count)");
  return {pointer<const V>(values), values.shape(0), values.shape(1), repeat};
}

/// Sets the options that are given by name; enumerators are numbers in the order of their declaration.
struct SetOptions {
  const py::dict& given;

  template <class Option>
  void operator()(const char* name, Option& option) const {
    if (!given.contains(name)) return;
    if constexpr (std::is_enum_v<Option>) {
      option = static_cast<Option>(given[name].template cast<int>());
    } else {
      option = given[name].template cast<Option>();
    }
  }
};

template <class N>
constexpr bool has_taps = requires { N::taps_names; };

template <class N>
N to_neuron(const py::dict& parameters, const py::dict& options) {
  using V = exodus::arithmetic_t<typename N::Storage>;
  N neuron;
  typename N::template Parameters<exodus::Param<V>>& fields = neuron;
  exodus::for_each_field<std::size(N::parameter_names)>(fields, [&](exodus::Param<V>& field, int k) {
    if (parameters.contains(N::parameter_names[k])) field = to_param<V>(parameters[N::parameter_names[k]]);
  });
  if constexpr (has_taps<N>) {
    exodus::for_each_field<std::size(N::taps_names)>(neuron.taps, [&](exodus::Taps<V>& field, int k) {
      if (parameters.contains(N::taps_names[k])) field = to_taps<V>(parameters[N::taps_names[k]]);
    });
  }
  exodus::for_each_option(neuron, SetOptions{options});
  return neuron;
}

/// Arrays in the order of the struct's fields; an empty tuple leaves them null.
template <class Struct, class X>
Struct to_fields(const py::tuple& arrays) {
  Struct fields{};
  constexpr int count = exodus::field_count<Struct, X*>;
  if (arrays.empty()) return fields;
  if (arrays.size() != count) throw py::value_error("expected " + std::to_string(count) + " arrays");
  exodus::for_each_field<count>(fields, [&](X*& field, int k) { field = pointer<X>(arrays[static_cast<std::size_t>(k)]); });
  return fields;
}

/// Calls f with a default neuron of the model for the data type.
template <class F>
auto with_neuron(const std::string& model, bool double_precision, F&& f) {
#define EXODUS_MODEL(name) \
  if (model == #name) return double_precision ? f(exodus::name<double>{}) : f(exodus::name<float>{});
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
  throw py::value_error("unknown model " + model);
}

/// Memory of the size that the library asks for.
class Memory {
 public:
  explicit Memory(exodus::Workspace needed)
      : memory_(std::make_unique_for_overwrite<double[]>((needed.bytes + sizeof(double) - 1) / sizeof(double))), workspace_(needed) {
    workspace_.data = memory_.get();
  }
  exodus::Workspace workspace() const { return workspace_; }

 private:
  std::unique_ptr<double[]> memory_;
  exodus::Workspace workspace_;
};

void forward(const std::string& model, bool double_precision, const Sizes& sizes, const py::dict& parameters, const py::dict& options,
             const py::object& current, const py::tuple& initial, const py::object& spikes, const py::object& potential,
             const py::tuple& final, int threads) {
  with_neuron(model, double_precision, [&]<template <class> class N, class S>(const N<S>&) {
    using V = exodus::arithmetic_t<S>;
    using State = typename N<S>::template State<const V*>;
    using Final = typename N<S>::template State<V*>;
    const N<S> neuron = to_neuron<N<S>>(parameters, options);
    typename N<S>::Forward arrays;
    arrays.current = pointer<const S>(current);
    arrays.initial = to_fields<State, const V>(initial);
    arrays.spikes = pointer<S>(spikes);
    arrays.potential = pointer<V>(potential);
    arrays.final = to_fields<Final, V>(final);
    const exodus::Layout layout{sizes[0], sizes[1], sizes[2]};
    const Memory memory(exodus::workspace(layout, neuron, arrays, threads));
    const py::gil_scoped_release release;
    check(exodus::forward(layout, neuron, arrays, memory.workspace()));
  });
}

/// `surrogate` is (kind, scale, a, b, c), or an array of values.
template <class S>
exodus::Surrogate<S> to_surrogate(const py::object& surrogate) {
  using V = exodus::arithmetic_t<S>;
  exodus::Surrogate<S> result;
  if (py::isinstance<py::tuple>(surrogate)) {
    const auto [kind, scale, a, b, c] = surrogate.cast<std::tuple<int, double, double, double, double>>();
    result.kind = static_cast<exodus::SurrogateKind>(kind);
    result.scale = static_cast<V>(scale);
    result.shape[0] = static_cast<V>(a), result.shape[1] = static_cast<V>(b), result.shape[2] = static_cast<V>(c);
  } else {
    result.values = pointer<const V>(surrogate);
  }
  return result;
}

void backward(const std::string& model, bool double_precision, const Sizes& sizes, const py::dict& parameters, const py::dict& options,
              int method, const py::object& surrogate, const py::object& potential, const py::object& current, const py::tuple& initial,
              const py::object& grad_spikes, const py::object& grad_potential, const py::tuple& grad_final, const py::object& grad_current,
              const py::tuple& grad_initial, const py::tuple& grad_parameters, const py::tuple& grad_taps, int threads) {
  with_neuron(model, double_precision, [&]<template <class> class N, class S>(const N<S>&) {
    using V = exodus::arithmetic_t<S>;
    using State = typename N<S>::template State<const V*>;
    using Grads = typename N<S>::template State<V*>;
    const N<S> neuron = to_neuron<N<S>>(parameters, options);
    const exodus::Surrogate<S> bend = to_surrogate<S>(surrogate);
    const exodus::Layout layout{sizes[0], sizes[1], sizes[2]};
    typename N<S>::Backward arrays;
    arrays.potential = pointer<const V>(potential);
    arrays.current = pointer<const S>(current);
    arrays.initial = to_fields<State, const V>(initial);
    arrays.grad_spikes = pointer<const S>(grad_spikes);
    arrays.grad_potential = pointer<const V>(grad_potential);
    arrays.grad_final = to_fields<State, const V>(grad_final);
    arrays.grad_current = pointer<S>(grad_current);
    arrays.grad_initial = to_fields<Grads, V>(grad_initial);
    arrays.grad = to_fields<typename N<S>::template Parameters<double*>, double>(grad_parameters);
    if constexpr (has_taps<N<S>>) arrays.grad_taps = to_fields<decltype(arrays.grad_taps), double>(grad_taps);
    const Memory memory(exodus::workspace(layout, neuron, arrays, threads));
    const py::gil_scoped_release release;
    check(exodus::backward(layout, neuron, static_cast<exodus::Method>(method), bend, arrays, memory.workspace()));
  });
}

void evaluate(bool double_precision, const py::object& surrogate, const py::handle& threshold, const py::array& potential, py::array& h) {
  const auto run = [&]<class S>(S) {
    const exodus::Surrogate<S> bend = to_surrogate<S>(surrogate);
    const auto param = to_param<S>(threshold);
    const S* const u = pointer<const S>(potential);
    S* const values = pointer<S>(h);
    const std::int64_t count = potential.size();
    const py::gil_scoped_release release;
    check(exodus::evaluate(bend, param, count, u, values));
  };
  double_precision ? run(double{}) : run(float{});
}

template <class N>
std::vector<std::string> taps_names() {
  if constexpr (has_taps<N>) return {std::begin(N::taps_names), std::end(N::taps_names)};
  return {};
}

/// The names of a model's parameters, states and kernels with taps, in the order in which addresses are passed.
py::dict models() {
  py::dict result;
#define EXODUS_MODEL(name)                                                                                                           \
  {                                                                                                                                  \
    using N = exodus::name<float>;                                                                                                   \
    result[#name] = py::make_tuple(std::vector<std::string>(std::begin(N::parameter_names), std::end(N::parameter_names)),           \
                                   std::vector<std::string>(std::begin(N::state_names), std::end(N::state_names)), taps_names<N>()); \
  }
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
  return result;
}

}   // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "Kernels of exodus_core; use the package's functions, which check their arguments.";
  m.def("forward", &forward);
  m.def("backward", &backward);
  m.def("evaluate", &evaluate);
  m.def("get_num_threads", &exodus::get_num_threads);
  m.def("set_num_threads", &exodus::set_num_threads);
  m.def("isa", &exodus::isa);
  m.attr("models") = models();
  m.attr("version") = exodus::version();
  m.attr("surrogates") = std::vector<std::string>{
#define EXODUS_KIND(name, expression) #name,
      EXODUS_SURROGATES(EXODUS_KIND)
#undef EXODUS_KIND
  };
}
