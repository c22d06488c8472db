/// @file
/// What the extensions of both engines share: from names, numbers and arrays to the structs of the C++ interface. The package has checked
/// the arrays' types, sizes and order in memory; here only their addresses are taken. Every model of the registry is bound by the same
/// code.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <unistd.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <stdexcept>
#include <string>
#include <tuple>

#include "checks.hpp"
#include "exodus/exodus.hpp"
#include "floating_point.hpp"
#include "registry.hpp"

namespace py = pybind11;

namespace exodus::python {

using Sizes = std::array<std::int64_t, 3>;

/// The first element of an array of `count` elements, which is one of NumPy's or, on a device, its address; null for None. The package
/// checks arrays and names them in its errors; that no memory is read or written beyond one of NumPy's is made sure here once more.
template <class X>
X* pointer(const py::handle& array, std::int64_t count) {
  if (array.is_none()) return nullptr;
  if (py::isinstance<py::int_>(array)) return reinterpret_cast<X*>(array.cast<std::uintptr_t>());
  if (!py::isinstance<py::array>(array)) throw py::type_error("expected a numpy array, an address or None");
  const auto values = py::reinterpret_borrow<py::array>(array);
  if (values.itemsize() != static_cast<py::ssize_t>(sizeof(X)) || values.size() != count) {
    throw py::value_error("an array has another size than the call needs");
  }
  if (!std::is_const_v<X> && !values.writeable()) throw py::value_error("a result cannot be written");
  return static_cast<X*>(const_cast<void*>(values.data()));
}

/// `words` are the CUDA runtime's, if it has any.
inline void check(Status status, const char* words = nullptr) {
  if (status == Status::cuda) throw std::runtime_error(message(status) + (words == nullptr ? std::string() : std::string(": ") + words));
  if (status != Status::ok) throw py::value_error(message(status));
}

/// Takes the interpreter's lock back. When the interpreter is ending, CPython before 3.14 ends a thread that asks for it, by an unwinding
/// of its stack that C++ answers with terminate(), and that would release Python's objects without the lock. Such a thread then waits here
/// for the end of the process, as it does in CPython from 3.14 on.
inline void lock_interpreter(PyThreadState* thread) {
  struct WaitsIfUnwound {
    bool locked = false;
    ~WaitsIfUnwound() {
      while (!locked) pause();
    }
  } waits;
  PyEval_RestoreThread(thread);
  waits.locked = true;
}

/// Calls f without the interpreter's lock and returns what it returns; f must not throw.
template <class F>
Status without_lock(F&& f) {
  PyThreadState* const thread = PyEval_SaveThread();
  const Status status = f();
  lock_interpreter(thread);
  return status;
}

/// Whether a module may be loaded into this interpreter; if not, an ImportError is set. pybind11 would wait for ever for the lock of the
/// main interpreter, which the thread has already.
inline bool is_main_interpreter(const char* module) {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) return true;
  PyErr_Format(PyExc_ImportError, "%s cannot be loaded into a sub-interpreter: it runs in Python's main interpreter only", module);
  return false;
}

template <class V>
Param<V> to_param(const py::handle& value) {
  if (py::isinstance<py::tuple>(value)) {
    const auto [values, count, repeat] = value.cast<std::tuple<py::object, std::int64_t, std::int64_t>>();
    return {pointer<const V>(values, count), count, repeat};
  }
  return Param<V>(static_cast<V>(value.cast<double>()));
}

template <class V>
Taps<V> to_taps(const py::handle& value) {
  const auto [values, length, count, repeat] = value.cast<std::tuple<py::object, std::int64_t, std::int64_t, std::int64_t>>();
  std::int64_t elements;
  if (!multiply(length, count, elements)) throw py::value_error("expected taps of a size that memory can have");
  return {pointer<const V>(values, elements), length, count, repeat};
}

/// None, or (weights, features, repeat).
template <class V>
Recurrence<V> to_recurrence(const py::object& value) {
  if (value.is_none()) return {};
  const auto [weights, features, repeat] = value.cast<std::tuple<py::object, std::int64_t, std::int64_t>>();
  std::int64_t elements;
  if (!multiply(features, features, elements)) throw py::value_error("expected recurrent weights of a size that memory can have");
  return {pointer<const V>(weights, elements), features, repeat};
}

/// The enumerator of a name.
template <class Enum>
Enum to_enumerator(const std::string& name) {
  const auto* const found = std::find(std::begin(enumerators<Enum>), std::end(enumerators<Enum>), name);
  if (found == std::end(enumerators<Enum>)) throw py::value_error("expected the name of an enumerator, got " + name);
  return static_cast<Enum>(found - std::begin(enumerators<Enum>));
}

/// Sets the options that are given; enumerators by name.
struct SetOptions {
  const py::dict& given;

  template <class Option>
  void operator()(const char* name, Option& option) const {
    if (!given.contains(name)) return;
    if constexpr (std::is_enum_v<Option>) {
      option = to_enumerator<Option>(given[name].template cast<std::string>());
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
  for_each_field<std::size(N::parameter_table)>(fields, [&](Param<V>& field, int k) {
    if (parameters.contains(N::parameter_table[k].name)) field = to_param<V>(parameters[N::parameter_table[k].name]);
  });
  if constexpr (has_taps<N>) {
    for_each_field<std::size(N::taps_names)>(neuron.taps, [&](Taps<V>& field, int k) {
      if (parameters.contains(N::taps_names[k])) field = to_taps<V>(parameters[N::taps_names[k]]);
    });
  }
  for_each_option(neuron, SetOptions{options});
  return neuron;
}

/// How many elements the arrays of a call have, if it may be.
struct Counts {
  std::int64_t neurons, elements;

  explicit Counts(const Layout& layout) {
    if (!valid(layout)) throw py::value_error(message(Status::bad_layout));
    neurons = layout.outer * layout.inner;
    elements = neurons * layout.time;
  }
};

/// How many elements the arrays of a model's states have.
template <class N>
std::array<std::int64_t, Traits<N>::states> state_sizes(const N& neuron, std::int64_t neurons) {
  std::array<std::int64_t, Traits<N>::states> sizes;
  sizes.fill(neurons);
  FirRole<typename Traits<N>::V> roles[2];
  if (!set_taps(neuron, neurons, roles)) throw py::value_error(message(Status::bad_parameter));
  for (int k = 0; k < Traits<N>::kernels; ++k) {
    if (roles[k].taps.length == 0) continue;
    std::int64_t* const own = sizes.data() + first_hidden<N> + kernel_states * k;
    own[0] = (roles[k].taps.length - 1) * neurons, own[1] = 0;
  }
  return sizes;
}

/// The sizes of the arrays of parameters' gradients.
template <class N>
std::array<std::int64_t, Traits<N>::parameters> parameter_sizes(const N& neuron) {
  using V = typename Traits<N>::V;
  FirRole<V> roles[2];
  if (!set_taps(neuron, 0, roles)) throw py::value_error(message(Status::bad_parameter));
  Param<V> parameters[Traits<N>::parameters];
  check(set_parameters(neuron, roles, parameters));
  std::array<std::int64_t, Traits<N>::parameters> sizes;
  for (std::size_t k = 0; k < sizes.size(); ++k) sizes[k] = parameters[k].count;
  return sizes;
}

/// The sizes of the arrays of taps' gradients.
template <class N>
auto taps_sizes(const N& neuron) {
  std::array<std::int64_t, std::size(N::taps_names)> sizes;
  for_each_field<std::size(N::taps_names)>(neuron.taps,
                                           [&](const auto& taps, int k) { sizes[static_cast<std::size_t>(k)] = taps.length * taps.count; });
  return sizes;
}

/// Arrays of these sizes in the order of the struct's fields; an empty tuple leaves them null.
template <class Struct, class X, std::size_t Count>
Struct to_fields(const py::tuple& arrays, const std::array<std::int64_t, Count>& sizes) {
  Struct fields{};
  constexpr int count = field_count<Struct, X*>;
  if (arrays.empty()) return fields;
  if (arrays.size() != count) throw py::value_error("expected " + std::to_string(count) + " arrays");
  static_assert(count == Count);
  for_each_field<count>(fields, [&](X*& field, int k) {
    const auto place = static_cast<std::size_t>(k);
    field = pointer<X>(arrays[place], sizes[place]);
  });
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

/// Calls f with an element of a type in which the kernels compute, by its name.
template <class F>
void with_arithmetic(const std::string& type_name, F&& f) {
  if (type_name == "float32") return f(float{});
  if (type_name == "float64") return f(double{});
  throw py::type_error("no kernels for arrays of " + type_name);
}

/// Calls f with an element of the arrays' type, by its name.
template <class F>
void with_type(const std::string& type_name, F&& f) {
  if (type_name == "float16") return f(float16{});
  if (type_name == "bfloat16") return f(bfloat16{});
  with_arithmetic(type_name, f);
}

/// Calls f with a default neuron of the model for arrays of a type.
template <class F>
void with_neuron(const std::string& model, const std::string& type_name, F&& f) {
  with_type(type_name, [&]<class S>(S) { with_model<S>(model, f); });
}

/// `Engine`, here and in backward(): where a call runs, made from the last argument. It has `memory(workspace(...))`, which keeps a
/// workspace while it is used, and the library's functions.
template <class Engine>
void forward(const std::string& model, const std::string& type_name, const Sizes& sizes, const py::dict& parameters,
             const py::dict& options, const py::object& current, const py::object& recurrent, const py::tuple& initial,
             const py::object& spikes, const py::object& potential, const py::tuple& final, const py::object& execution) {
  const FloatingPointMode mode;   // numbers are rounded to the arrays' type
  with_neuron(model, type_name, [&]<template <class> class N, class S>(const N<S>&) {
    using V = arithmetic_t<S>;
    using State = typename N<S>::template State<const V*>;
    using Final = typename N<S>::template State<V*>;
    const N<S> neuron = to_neuron<N<S>>(parameters, options);
    const Layout layout{sizes[0], sizes[1], sizes[2]};
    const auto [neurons, elements] = Counts(layout);
    const auto of_states = state_sizes(neuron, neurons);
    typename N<S>::Forward arrays;
    arrays.current = pointer<const S>(current, elements);
    arrays.initial = to_fields<State, const V>(initial, of_states);
    arrays.spikes = pointer<S>(spikes, elements);
    arrays.potential = pointer<V>(potential, elements);
    arrays.final = to_fields<Final, V>(final, of_states);
    arrays.recurrent = to_recurrence<V>(recurrent);
    const Engine engine(execution);
    const auto memory = engine.memory(engine.workspace(layout, neuron, arrays));
    engine.check(without_lock([&] { return engine.forward(layout, neuron, arrays, memory.workspace()); }));
  });
}

/// `surrogate` is (kind, scale, a, b, c), or an array of values.
template <class S>
Surrogate<S> to_surrogate(const py::object& surrogate, std::int64_t elements) {
  using V = arithmetic_t<S>;
  Surrogate<S> result;
  if (py::isinstance<py::tuple>(surrogate)) {
    const auto [kind, scale, a, b, c] = surrogate.cast<std::tuple<int, double, double, double, double>>();
    result.kind = static_cast<SurrogateKind>(kind);
    result.scale = static_cast<V>(scale);
    result.shape[0] = static_cast<V>(a), result.shape[1] = static_cast<V>(b), result.shape[2] = static_cast<V>(c);
  } else {
    result.values = pointer<const V>(surrogate, elements);
  }
  return result;
}

template <class Engine>
void backward(const std::string& model, const std::string& type_name, const Sizes& sizes, const py::dict& parameters,
              const py::dict& options, const std::string& method, const py::object& surrogate, const py::object& potential,
              const py::object& current, const py::object& recurrent, const py::object& spikes, const py::tuple& initial,
              const py::object& grad_spikes, const py::object& grad_potential, const py::tuple& grad_final, const py::object& grad_current,
              const py::tuple& grad_initial, const py::tuple& grad_parameters, const py::tuple& grad_taps, const py::object& grad_recurrent,
              const py::object& execution) {
  const FloatingPointMode mode;   // numbers are rounded to the arrays' type
  with_neuron(model, type_name, [&]<template <class> class N, class S>(const N<S>&) {
    using V = arithmetic_t<S>;
    using State = typename N<S>::template State<const V*>;
    using Grads = typename N<S>::template State<V*>;
    const N<S> neuron = to_neuron<N<S>>(parameters, options);
    const Layout layout{sizes[0], sizes[1], sizes[2]};
    const auto [neurons, elements] = Counts(layout);
    const auto of_states = state_sizes(neuron, neurons);
    const Surrogate<S> native_surrogate = to_surrogate<S>(surrogate, elements);
    typename N<S>::Backward arrays;
    arrays.potential = pointer<const V>(potential, elements);
    arrays.current = pointer<const S>(current, elements);
    arrays.initial = to_fields<State, const V>(initial, of_states);
    arrays.grad_spikes = pointer<const S>(grad_spikes, elements);
    arrays.grad_potential = pointer<const V>(grad_potential, elements);
    arrays.grad_final = to_fields<State, const V>(grad_final, of_states);
    arrays.grad_current = pointer<S>(grad_current, elements);
    arrays.grad_initial = to_fields<Grads, V>(grad_initial, of_states);
    arrays.grad = to_fields<typename N<S>::template Parameters<double*>, double>(grad_parameters, parameter_sizes(neuron));
    if constexpr (has_taps<N<S>>) arrays.grad_taps = to_fields<decltype(arrays.grad_taps), double>(grad_taps, taps_sizes(neuron));
    arrays.recurrent = to_recurrence<V>(recurrent);
    arrays.spikes = pointer<const S>(spikes, elements);
    arrays.grad_recurrent = pointer<double>(grad_recurrent, arrays.recurrent.features * arrays.recurrent.features);
    const Engine engine(execution);
    const auto algorithm = to_enumerator<Method>(method);
    const auto memory = engine.memory(engine.workspace(layout, neuron, algorithm, native_surrogate, arrays));
    engine.check(without_lock([&] { return engine.backward(layout, neuron, algorithm, native_surrogate, arrays, memory.workspace()); }));
  });
}

template <class S>
Delay<S> to_delay(const py::handle& steps, std::int64_t most) {
  return {to_param<arithmetic_t<S>>(steps), most};
}

/// The size of a delay's state.
inline std::int64_t delay_state_size(std::int64_t most, std::int64_t neurons) {
  std::int64_t entries, size;
  if (__builtin_add_overflow(most, 1, &entries) || !multiply(entries, neurons, size)) {
    throw py::value_error("expected a state of a size that memory can have");
  }
  return size;
}

template <class Engine>
void delay(const std::string& type_name, const Sizes& sizes, const py::object& steps, std::int64_t most, const py::object& x,
           const py::object& initial, const py::object& output, const py::object& final, const py::object& execution) {
  const FloatingPointMode mode;   // numbers are rounded to the arrays' type
  with_type(type_name, [&]<class S>(S) {
    using V = arithmetic_t<S>;
    const Delay<S> delays = to_delay<S>(steps, most);
    const Layout layout{sizes[0], sizes[1], sizes[2]};
    const auto [neurons, elements] = Counts(layout);
    const std::int64_t of_state = delay_state_size(most, neurons);
    typename Delay<S>::Forward arrays;
    arrays.x = pointer<const S>(x, elements);
    arrays.initial = pointer<const V>(initial, of_state);
    arrays.output = pointer<S>(output, elements);
    arrays.final = pointer<V>(final, of_state);
    const Engine engine(execution);
    const auto memory = engine.memory(engine.workspace(layout, delays, arrays));
    engine.check(without_lock([&] { return engine.delay(layout, delays, arrays, memory.workspace()); }));
  });
}

template <class Engine>
void delay_adjoint(const std::string& type_name, const Sizes& sizes, const py::object& steps, std::int64_t most,
                   const py::object& grad_output, const py::object& x, const py::object& initial, const py::object& grad_final,
                   const py::object& grad_x, const py::object& grad_initial, const py::object& grad_steps, const py::object& execution) {
  const FloatingPointMode mode;   // numbers are rounded to the arrays' type
  with_type(type_name, [&]<class S>(S) {
    using V = arithmetic_t<S>;
    const Delay<S> delays = to_delay<S>(steps, most);
    const Layout layout{sizes[0], sizes[1], sizes[2]};
    const auto [neurons, elements] = Counts(layout);
    const std::int64_t of_state = delay_state_size(most, neurons);
    typename Delay<S>::Backward arrays;
    arrays.grad_output = pointer<const S>(grad_output, elements);
    arrays.x = pointer<const S>(x, elements);
    arrays.initial = pointer<const V>(initial, of_state);
    arrays.grad_final = pointer<const V>(grad_final, of_state);
    arrays.grad_x = pointer<S>(grad_x, elements);
    arrays.grad_initial = pointer<V>(grad_initial, of_state);
    arrays.grad_steps = pointer<double>(grad_steps, delays.steps.count);
    const Engine engine(execution);
    const auto memory = engine.memory(engine.workspace(layout, delays, arrays));
    engine.check(without_lock([&] { return engine.delay_adjoint(layout, delays, arrays, memory.workspace()); }));
  });
}

}   // namespace exodus::python
