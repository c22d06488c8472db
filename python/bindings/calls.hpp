/// @file
/// What the extensions of both engines share: from names, numbers and arrays to the structs of the C++ interface. The package has checked
/// the arrays' types, sizes and order in memory; here only their addresses are taken. Every model of the registry is bound by the same
/// code.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <stdexcept>
#include <string>
#include <tuple>

#include "exodus/exodus.hpp"
#include "registry.hpp"

namespace py = pybind11;

namespace exodus::python {

using Sizes = std::array<std::int64_t, 3>;

/// The first element of an array, which is one of NumPy's or, on a device, its address; null for None.
template <class X>
X* pointer(const py::handle& array) {
  if (array.is_none()) return nullptr;
  if (py::isinstance<py::int_>(array)) return reinterpret_cast<X*>(array.cast<std::uintptr_t>());
  if (!py::isinstance<py::array>(array)) throw py::type_error("expected a numpy array, an address or None");
  return static_cast<X*>(const_cast<void*>(py::reinterpret_borrow<py::array>(array).data()));
}

inline void check(Status status) {
  if (status == Status::cuda) throw std::runtime_error(message(status));
  if (status != Status::ok) throw py::value_error(message(status));
}

template <class V>
Param<V> to_param(const py::handle& value) {
  if (py::isinstance<py::tuple>(value)) {
    const auto [values, count, repeat] = value.cast<std::tuple<py::object, std::int64_t, std::int64_t>>();
    return {pointer<const V>(values), count, repeat};
  }
  return Param<V>(static_cast<V>(value.cast<double>()));
}

template <class V>
Taps<V> to_taps(const py::handle& value) {
  const auto [values, length, count, repeat] = value.cast<std::tuple<py::object, std::int64_t, std::int64_t, std::int64_t>>();
  return {pointer<const V>(values), length, count, repeat};
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
  using V = arithmetic_t<typename N::Storage>;
  N neuron;
  typename N::template Parameters<Param<V>>& fields = neuron;
  for_each_field<std::size(N::parameter_names)>(fields, [&](Param<V>& field, int k) {
    if (parameters.contains(N::parameter_names[k])) field = to_param<V>(parameters[N::parameter_names[k]]);
  });
  if constexpr (has_taps<N>) {
    for_each_field<std::size(N::taps_names)>(neuron.taps, [&](Taps<V>& field, int k) {
      if (parameters.contains(N::taps_names[k])) field = to_taps<V>(parameters[N::taps_names[k]]);
    });
  }
  for_each_option(neuron, SetOptions{options});
  return neuron;
}

/// Arrays in the order of the struct's fields; an empty tuple leaves them null.
template <class Struct, class X>
Struct to_fields(const py::tuple& arrays) {
  Struct fields{};
  constexpr int count = field_count<Struct, X*>;
  if (arrays.empty()) return fields;
  if (arrays.size() != count) throw py::value_error("expected " + std::to_string(count) + " arrays");
  for_each_field<count>(fields, [&](X*& field, int k) { field = pointer<X>(arrays[static_cast<std::size_t>(k)]); });
  return fields;
}

/// Calls f with a default neuron of the model.
template <class S, class F>
void with_model(const std::string& model, F&& f) {
#define EXODUS_MODEL(name) \
  if (model == #name) return f(name<S>{});
  EXODUS_MODELS(EXODUS_MODEL)
#undef EXODUS_MODEL
  throw py::value_error("unknown model " + model);
}

/// The same, for arrays of a type by its name; those of two bytes if the engine has `halves`.
template <class Engine, class F>
void with_neuron(const std::string& model, const std::string& type_name, F&& f) {
  if (type_name == "float32") return with_model<float>(model, f);
  if (type_name == "float64") return with_model<double>(model, f);
  if constexpr (Engine::halves) {
    if (type_name == "float16") return with_model<float16>(model, f);
    if (type_name == "bfloat16") return with_model<bfloat16>(model, f);
  }
  throw py::type_error("no kernels for arrays of " + type_name);
}

/// `Engine`, here and in backward(): where a call runs, made from the last argument. It has `memory(workspace(...))`, which keeps a
/// workspace while it is used, and the library's functions.
template <class Engine>
void forward(const std::string& model, const std::string& type_name, const Sizes& sizes, const py::dict& parameters,
             const py::dict& options, const py::object& current, const py::tuple& initial, const py::object& spikes,
             const py::object& potential, const py::tuple& final, const py::object& where) {
  with_neuron<Engine>(model, type_name, [&]<template <class> class N, class S>(const N<S>&) {
    using V = arithmetic_t<S>;
    using State = typename N<S>::template State<const V*>;
    using Final = typename N<S>::template State<V*>;
    const N<S> neuron = to_neuron<N<S>>(parameters, options);
    typename N<S>::Forward arrays;
    arrays.current = pointer<const S>(current);
    arrays.initial = to_fields<State, const V>(initial);
    arrays.spikes = pointer<S>(spikes);
    arrays.potential = pointer<V>(potential);
    arrays.final = to_fields<Final, V>(final);
    const Layout layout{sizes[0], sizes[1], sizes[2]};
    const Engine engine(where);
    const auto memory = engine.memory(engine.workspace(layout, neuron, arrays));
    const py::gil_scoped_release release;
    check(engine.forward(layout, neuron, arrays, memory.workspace()));
  });
}

/// `surrogate` is (kind, scale, a, b, c), or an array of values.
template <class S>
Surrogate<S> to_surrogate(const py::object& surrogate) {
  using V = arithmetic_t<S>;
  Surrogate<S> result;
  if (py::isinstance<py::tuple>(surrogate)) {
    const auto [kind, scale, a, b, c] = surrogate.cast<std::tuple<int, double, double, double, double>>();
    result.kind = static_cast<SurrogateKind>(kind);
    result.scale = static_cast<V>(scale);
    result.shape[0] = static_cast<V>(a), result.shape[1] = static_cast<V>(b), result.shape[2] = static_cast<V>(c);
  } else {
    result.values = pointer<const V>(surrogate);
  }
  return result;
}

template <class Engine>
void backward(const std::string& model, const std::string& type_name, const Sizes& sizes, const py::dict& parameters,
              const py::dict& options, int method, const py::object& surrogate, const py::object& potential, const py::object& current,
              const py::tuple& initial, const py::object& grad_spikes, const py::object& grad_potential, const py::tuple& grad_final,
              const py::object& grad_current, const py::tuple& grad_initial, const py::tuple& grad_parameters, const py::tuple& grad_taps,
              const py::object& where) {
  with_neuron<Engine>(model, type_name, [&]<template <class> class N, class S>(const N<S>&) {
    using V = arithmetic_t<S>;
    using State = typename N<S>::template State<const V*>;
    using Grads = typename N<S>::template State<V*>;
    const N<S> neuron = to_neuron<N<S>>(parameters, options);
    const Surrogate<S> bend = to_surrogate<S>(surrogate);
    const Layout layout{sizes[0], sizes[1], sizes[2]};
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
    const Engine engine(where);
    const auto memory = engine.memory(engine.workspace(layout, neuron, arrays));
    const py::gil_scoped_release release;
    check(engine.backward(layout, neuron, static_cast<Method>(method), bend, arrays, memory.workspace()));
  });
}

}   // namespace exodus::python
