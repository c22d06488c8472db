/// @file
/// Where an array on a device lies, as its library tells: by the CUDA array interface or by DLPack.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

#include "dlpack.hpp"

namespace exodus::python {

namespace py = pybind11;

/// An interned string, for the life of the process.
inline py::handle word(const char* text) {
  return PyUnicode_InternFromString(text);
}

/// Words of the two protocols.
struct Words {
  py::handle interface = word("__cuda_array_interface__"), dlpack = word("__dlpack__"), stream = word("stream"), shape = word("shape"),
             strides = word("strides"), data = word("data"), typestr = word("typestr");

  static const Words& get() {
    static const Words words;
    return words;
  }
};

/// A type that has kernels: its name in the package, its code and bits in DLPack, and in the interface, which has no bfloat16.
struct Type {
  py::handle name;
  std::uint8_t code, bits;
  const char* typestr;

  template <class F>
  static const Type* find(F&& is_it) {
    static const std::array<Type, 4> types = {{{word("float32"), dl_float, 32, "<f4"},
                                               {word("float64"), dl_float, 64, "<f8"},
                                               {word("float16"), dl_float, 16, "<f2"},
                                               {word("bfloat16"), dl_bfloat, 16, ""}}};
    const auto found = std::find_if(types.begin(), types.end(), is_it);
    return found == types.end() ? nullptr : &*found;
  }
};

/// A library's answer about an array: an interface or a tensor. An interface that names no stream, as JAX's, counts only where there is no
/// DLPack, which waits for the array's values.
struct Answer {
  py::dict interface;
  py::capsule capsule;   ///< the owner of the tensor
  const DlTensor* tensor = nullptr;

  explicit Answer(const py::object& array) {
    static auto& by_dlpack = *new py::set;   // classes; the interpreter may end before static objects do
    const Words& words = Words::get();
    const py::handle kind = py::type::handle_of(array);
    if (!by_dlpack.contains(kind)) {
      const py::object given = py::getattr(array, words.interface, py::none());
      if (!given.is_none()) {
        interface = given;
        if (find(words.stream) || !py::hasattr(array, words.dlpack)) return;
      }
    }
    capsule = exported(array);
    if (std::strcmp(capsule.name(), "dltensor") != 0) throw py::value_error("expected a capsule of DLPack");
    tensor = capsule.get_pointer<const DlTensor>();
    by_dlpack.add(kind);
  }

  py::object address() const {
    if (tensor == nullptr) return py::tuple(get(Words::get().data))[0];
    return py::int_(reinterpret_cast<std::uintptr_t>(tensor->data) + tensor->byte_offset);
  }
  /// That of the array's last use, or None.
  py::object stream() const {
    const py::handle found = tensor == nullptr ? find(Words::get().stream) : py::handle();
    return found ? py::reinterpret_borrow<py::object>(found) : py::none();
  }

  /// An entry of the interface, or null.
  py::handle find(py::handle key) const { return PyDict_GetItemWithError(interface.ptr(), key.ptr()); }
  /// One that the protocol requires.
  py::object get(py::handle key) const {
    if (const py::handle found = find(key)) return py::reinterpret_borrow<py::object>(found);
    throw py::key_error(key.cast<std::string>());
  }

 private:
  /// array.__dlpack__(stream=1), where 1 is the default stream.
  static py::object exported(const py::object& array) {
    static PyObject* const one = PyLong_FromLong(1);
    static PyObject* const names = PyTuple_Pack(1, Words::get().stream.ptr());
    PyObject* const arguments[] = {array.ptr(), one};
    PyObject* const found = PyObject_VectorcallMethod(Words::get().dlpack.ptr(), arguments, 1, names);
    if (found == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(found);
  }
};

/// Strides of C order, in bytes.
inline py::tuple dense_strides(const py::tuple& shape, std::int64_t itemsize) {
  py::tuple strides(shape.size());
  for (std::size_t axis = shape.size(); axis-- > 0;) {
    strides[axis] = itemsize;
    itemsize *= shape[axis].cast<std::int64_t>();
  }
  return strides;
}

inline py::tuple describe_interface(const py::object& array, const Answer& answer) {
  const Words& words = Words::get();
  const py::object typestr = answer.get(words.typestr);
  const Type* const type = Type::find([&](const Type& one) { return PyUnicode_CompareWithASCIIString(typestr.ptr(), one.typestr) == 0; });
  const py::tuple shape = answer.get(words.shape), data = answer.get(words.data);
  const py::handle given = answer.find(words.strides);
  const bool dense = !given || given.is_none();
  const py::tuple strides =
      dense ? dense_strides(shape, type == nullptr ? 1 : type->bits / 8) : py::tuple(py::reinterpret_borrow<py::object>(given));
  return py::make_tuple(array, shape, data[0], strides, type == nullptr ? typestr : type->name, data[1], answer.stream());
}

inline py::tuple describe_tensor(const py::object& array, const Answer& answer) {
  const DlTensor& tensor = *answer.tensor;
  const Type* const type = Type::find([&](const Type& one) { return one.code == tensor.code && one.bits == tensor.bits; });
  py::object name = py::reinterpret_borrow<py::object>(type == nullptr ? py::handle() : type->name);
  if (type == nullptr) name = py::str("of code " + std::to_string(tensor.code) + " and " + std::to_string(tensor.bits) + " bits");
  const auto axes = static_cast<std::size_t>(tensor.dimensions);
  py::tuple shape(axes), strides(axes);
  for (std::size_t axis = 0; axis < axes; ++axis) {
    shape[axis] = tensor.shape[axis];
    if (tensor.strides != nullptr) strides[axis] = tensor.strides[axis] * (tensor.bits / 8);
  }
  if (tensor.strides == nullptr) strides = dense_strides(shape, tensor.bits / 8);
  return py::make_tuple(array, shape, answer.address(), strides, name, false, answer.stream());
}

/// (array, shape, address, strides in bytes, name of the type, whether nobody may write, stream or None). A type without kernels has a name
/// that none of theirs is.
inline py::tuple describe(const py::object& array) {
  const Answer answer(array);
  return answer.tensor == nullptr ? describe_interface(array, answer) : describe_tensor(array, answer);
}

/// (address, stream or None) of an array.
inline py::tuple locate(const py::object& array) {
  const Answer answer(array);
  return py::make_tuple(answer.address(), answer.stream());
}

}   // namespace exodus::python
