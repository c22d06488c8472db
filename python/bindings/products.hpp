/// @file
/// Products with spikes, and pooling, on the CPU.
#pragma once

#include <memory>
#include <utility>

#include "calls.hpp"
#include "dlpack.hpp"

namespace exodus::python {

/// The sizes of a product, and of its arrays.
struct ProductSizes {
  ProductShape shape;
  std::int64_t x, y, weights, bits;

  explicit ProductSizes(const Sizes& sizes) : shape{sizes[0], sizes[1], sizes[2]} {
    const auto& [rows, inputs, outputs] = shape;
    if (rows < 0 || inputs < 0 || outputs < 0 || !multiply(rows, inputs, x) || !multiply(rows, outputs, y) ||
        !multiply(inputs, outputs, weights) || !multiply(rows, packed_words(inputs), bits)) {
      throw py::value_error("expected sizes of arrays that memory can have");
    }
  }
};

/// Memory for a workspace.
class OwnWorkspace {
 public:
  explicit OwnWorkspace(Workspace needed)
      : memory_(std::make_unique_for_overwrite<double[]>((needed.bytes + sizeof(double) - 1) / sizeof(double))), workspace_(needed) {
    workspace_.data = memory_.get();
  }
  Workspace workspace() const { return workspace_; }

 private:
  std::unique_ptr<double[]> memory_;
  Workspace workspace_;
};

/// Packed spikes in Python: (bits, first, values), the last two of which are None where all spikes are 1.
using Packed = std::tuple<py::object, py::object, py::object>;
using Strides = std::pair<std::int64_t, std::int64_t>;   // of inputs and outputs

template <class S>
PackedSpikes<S> to_packed(const Packed& packed, const ProductSizes& sizes, std::int64_t spikes) {
  const auto& [bits, first, values] = packed;
  return {pointer<const std::uint64_t>(bits, sizes.bits), pointer<const std::int64_t>(first, sizes.shape.rows),
          pointer<const S>(values, spikes)};
}

inline py::tuple pack(const std::string& type_name, const Sizes& sizes, const py::object& x, const py::object& bits, int threads) {
  const ProductSizes own(sizes);
  SpikeCount count;
  with_type(type_name, [&]<class S>(S) {
    const S* const from = pointer<const S>(x, own.x);
    auto* const to = pointer<std::uint64_t>(bits, own.bits);
    check(without_lock([&] { return exodus::pack(own.shape, from, to, &count, threads); }));
  });
  return py::make_tuple(count.spikes, count.binary);
}

/// Keeps the interpreter's lock, since it reads only a sample.
inline double estimate_share(const std::string& type_name, const Sizes& sizes, const py::object& x, double enough) {
  const ProductSizes own(sizes);
  double share = 0;
  with_type(type_name, [&]<class S>(S) { check(exodus::estimate_share(own.shape, pointer<const S>(x, own.x), &share, enough)); });
  return share;
}

/// Whether an array of elements of type S lies on the CPU, in C order and with these lengths of its axes.
template <class S>
bool is_in_order(const DlTensor& array, PyObject* shape) {
  constexpr std::uint8_t code = std::is_same_v<S, bfloat16> ? dl_bfloat : dl_float;
  if (array.device_type != dl_cpu || array.code != code || array.bits != 8 * sizeof(S) || array.lanes != 1) return false;
  if (array.dimensions != PyTuple_GET_SIZE(shape) || array.data == nullptr) return false;
  std::int64_t stride = 1;
  for (std::int32_t axis = array.dimensions - 1; axis >= 0; --axis) {
    if (array.shape[axis] != PyLong_AsLongLong(PyTuple_GET_ITEM(shape, axis))) return false;
    if (array.strides != nullptr && array.strides[axis] != stride) return false;
    stride *= array.shape[axis];
  }
  return true;
}

/// The arguments are those of Python: an array, the exchange functions of its library, a shape, a type's name, and the share that is
/// enough. Returns what estimate_share() does, or None for an array that has another shape or type, is not in C order or not on the CPU.
///
/// The call before may have left neither code nor data of this one in the caches. Then pybind11's way to a function takes longer than all
/// that is done here.
inline PyObject* estimate_share_of_array(PyObject* /*module*/, PyObject* const* arguments, Py_ssize_t count) try {
  if (count != 5 || !PyTuple_Check(arguments[2]) || !PyFloat_Check(arguments[4])) {
    throw py::type_error("expected an array, a capsule, a tuple, a name and a float");
  }
  PyObject *const x = arguments[0], *const shape = arguments[2];
  const DlExchange* const exchange = DlExchange::of(arguments[1]);
  const double enough = PyFloat_AsDouble(arguments[4]);
  DlTensor array;
  if (exchange == nullptr || exchange->describe(x, &array) != 0) {
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  bool is_known = false;
  double share = 0;
  with_type(py::handle(arguments[3]).cast<std::string>(), [&]<class S>(S) {
    is_known = is_in_order<S>(array, shape);
    if (!is_known) return;
    std::int64_t elements = 1;
    for (std::int32_t axis = 0; axis < array.dimensions; ++axis) elements *= array.shape[axis];
    const auto* const values = reinterpret_cast<const S*>(static_cast<const char*>(array.data) + array.byte_offset);
    check(exodus::estimate_share(ProductShape{1, elements, 0}, values, &share, enough));
  });
  if (!is_known) Py_RETURN_NONE;
  return PyFloat_FromDouble(share);
} catch (const std::exception& error) {
  PyErr_SetString(PyExc_TypeError, error.what());
  return nullptr;
}

inline void pack_values(const std::string& type_name, const Sizes& sizes, std::int64_t spikes, const py::object& x, const Packed& packed,
                        int threads) {
  const ProductSizes own(sizes);
  with_type(type_name, [&]<class S>(S) {
    const auto& [bits, first, values] = packed;
    const S* const from = pointer<const S>(x, own.x);
    const auto* const words = pointer<const std::uint64_t>(bits, own.bits);
    auto* const begins = pointer<std::int64_t>(first, own.shape.rows);
    S* const to = pointer<S>(values, spikes);
    check(without_lock([&] { return exodus::pack_values(own.shape, from, words, begins, to, threads); }));
  });
}

inline void product(const std::string& type_name, const Sizes& sizes, std::int64_t spikes, const Packed& packed, const py::object& weights,
                    const Strides& strides, const py::object& bias, const py::object& y, int threads) {
  const ProductSizes own(sizes);
  with_type(type_name, [&]<class S>(S) {
    const PackedSpikes<S> x = to_packed<S>(packed, own, spikes);
    const WeightMatrix<const S> w{pointer<const S>(weights, own.weights), strides.first, strides.second};
    const S* const b = pointer<const S>(bias, own.shape.outputs);
    S* const to = pointer<S>(y, own.y);
    const OwnWorkspace memory(product_workspace<S>(own.shape, threads));
    check(without_lock([&] { return exodus::product(own.shape, x, w, b, to, memory.workspace()); }));
  });
}

inline void product_gradients(const std::string& type_name, const Sizes& sizes, std::int64_t spikes, const Packed& packed,
                              const py::object& grad_y, const py::object& grad_weights, const Strides& strides, const py::object& grad_bias,
                              int threads) {
  const ProductSizes own(sizes);
  with_type(type_name, [&]<class S>(S) {
    const PackedSpikes<S> x = to_packed<S>(packed, own, spikes);
    const WeightMatrix<S> w{pointer<S>(grad_weights, own.weights), strides.first, strides.second};
    const S* const g = pointer<const S>(grad_y, own.y);
    S* const b = pointer<S>(grad_bias, own.shape.outputs);
    const OwnWorkspace memory(product_gradients_workspace<S>(own.shape, threads));
    check(without_lock([&] { return exodus::product_gradients(own.shape, x, g, w, b, memory.workspace()); }));
  });
}

inline void product_input_gradient(const std::string& type_name, const Sizes& sizes, const py::object& wanted, const py::object& grad_y,
                                   const py::object& weights, const Strides& strides, const py::object& grad_x, int threads) {
  const ProductSizes own(sizes);
  with_type(type_name, [&]<class S>(S) {
    const auto* const bits = pointer<const std::uint64_t>(wanted, own.bits);
    const S* const g = pointer<const S>(grad_y, own.y);
    const WeightMatrix<const S> w{pointer<const S>(weights, own.weights), strides.first, strides.second};
    S* const to = pointer<S>(grad_x, own.x);
    const OwnWorkspace memory(product_input_gradient_workspace<S>(own.shape, threads));
    check(without_lock([&] { return exodus::product_input_gradient(own.shape, bits, g, w, to, memory.workspace()); }));
  });
}

using Axis = std::array<std::int64_t, 5>;   // size, kernel, stride, padding, dilation

/// The sizes of a convolution, and of its arrays.
struct ConvolutionSizes {
  ConvolutionShape shape;
  std::int64_t frame, x, y, weights, bits;

  ConvolutionSizes(const std::array<std::int64_t, 4>& sizes, const Axis& of_y, const Axis& of_x)
      : shape{sizes[0], sizes[1], sizes[2], sizes[3], axis(of_y), axis(of_x)} {
    const auto& [frames, channels, outputs, groups, y_axis, x_axis] = shape;
    if (frames < 0 || channels < 1 || outputs < 1 || groups < 1 || !multiply(channels, y_axis.size, frame) ||
        !multiply(frame, x_axis.size, frame) || !multiply(frames, frame, x) || !multiply(frames, outputs, y) ||
        !multiply(y, y_axis.output(), y) || !multiply(y, x_axis.output(), y) || !multiply(outputs, channels / groups, weights) ||
        !multiply(weights, y_axis.kernel, weights) || !multiply(weights, x_axis.kernel, weights) ||
        !multiply(frames, packed_words(frame), bits)) {
      throw py::value_error("expected sizes of arrays that memory can have");
    }
  }

  static ConvolutionAxis axis(const Axis& numbers) {
    for (const std::int64_t number : numbers) {
      if (number < 0 || number > 1 << 28) throw py::value_error("expected an axis of sizes that memory can have");
    }
    if (numbers[1] < 1 || numbers[2] < 1 || numbers[4] < 1) throw py::value_error("expected kernel, stride and dilation of 1 or more");
    return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
  }
};

using FrameSizes = std::array<std::int64_t, 4>;   // frames, channels, outputs, groups

template <class S>
PackedSpikes<S> to_packed(const Packed& packed, const ConvolutionSizes& sizes, std::int64_t spikes) {
  const auto& [bits, first, values] = packed;
  return {pointer<const std::uint64_t>(bits, sizes.bits), pointer<const std::int64_t>(first, sizes.shape.frames),
          pointer<const S>(values, spikes)};
}

inline void convolution(const std::string& type_name, const FrameSizes& sizes, const Axis& of_y, const Axis& of_x, std::int64_t spikes,
                        const Packed& packed, const py::object& weights, const py::object& bias, const py::object& y, int threads) {
  const ConvolutionSizes own(sizes, of_y, of_x);
  with_type(type_name, [&]<class S>(S) {
    const PackedSpikes<S> x = to_packed<S>(packed, own, spikes);
    const S* const w = pointer<const S>(weights, own.weights);
    const S* const b = pointer<const S>(bias, own.shape.outputs);
    S* const to = pointer<S>(y, own.y);
    const OwnWorkspace memory(convolution_workspace<S>(own.shape, spikes, threads));
    check(without_lock([&] { return exodus::convolution(own.shape, x, spikes, w, b, to, memory.workspace()); }));
  });
}

inline void convolution_gradients(const std::string& type_name, const FrameSizes& sizes, const Axis& of_y, const Axis& of_x,
                                  std::int64_t spikes, const Packed& packed, const py::object& grad_y, const py::object& grad_weights,
                                  const py::object& grad_bias, const py::object& weights, const py::object& grad_x, int threads) {
  const ConvolutionSizes own(sizes, of_y, of_x);
  with_type(type_name, [&]<class S>(S) {
    const PackedSpikes<S> x = to_packed<S>(packed, own, spikes);
    const ConvolutionGradients<S> arrays{pointer<const S>(grad_y, own.y), pointer<S>(grad_weights, own.weights),
                                         pointer<S>(grad_bias, own.shape.outputs), pointer<const S>(weights, own.weights),
                                         pointer<S>(grad_x, own.x)};
    const OwnWorkspace memory(convolution_gradients_workspace<S>(own.shape, spikes, arrays, threads));
    check(without_lock([&] { return exodus::convolution_gradients(own.shape, x, spikes, arrays, memory.workspace()); }));
  });
}

/// The sizes of a pooling, and of its arrays.
struct PoolingSizes {
  PoolingShape shape;
  std::int64_t x, y;

  explicit PoolingSizes(const std::array<std::int64_t, 5>& sizes) : shape{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4]} {
    const auto& [planes, height, width, window_height, window_width] = shape;
    if (planes < 0 || height < 0 || width < 0 || window_height < 1 || window_width < 1 || !multiply(planes, height, x) ||
        !multiply(x, width, x)) {
      throw py::value_error("expected sizes of arrays that memory can have");
    }
    y = planes * (height / window_height) * (width / window_width);
  }
};

inline void average_pool(const std::string& type_name, const std::array<std::int64_t, 5>& sizes, const py::object& x, const py::object& y,
                         int threads) {
  const PoolingSizes own(sizes);
  with_type(type_name, [&]<class S>(S) {
    const S* const from = pointer<const S>(x, own.x);
    S* const to = pointer<S>(y, own.y);
    check(without_lock([&] { return exodus::average_pool(own.shape, from, to, threads); }));
  });
}

inline void average_pool_gradient(const std::string& type_name, const std::array<std::int64_t, 5>& sizes, const py::object& grad_y,
                                  const py::object& grad_x, int threads) {
  const PoolingSizes own(sizes);
  with_type(type_name, [&]<class S>(S) {
    const S* const from = pointer<const S>(grad_y, own.y);
    S* const to = pointer<S>(grad_x, own.x);
    check(without_lock([&] { return exodus::average_pool_gradient(own.shape, from, to, threads); }));
  });
}

}   // namespace exodus::python
