/// @file
/// The extension with the CUDA kernels, apart from the other, so that nobody needs CUDA who does not use it.
#include <exodus/cuda.hpp>
#include <vector>

#include "bound.hpp"
#include "calls.hpp"
#include "described.hpp"

namespace {

namespace py = pybind11;

/// On a stream, in memory that the arrays' own library gives: `execution` is the stream and a function from bytes to an array and its
/// address.
class OnStream {
 public:
  static constexpr bool binds_halves = true;

  explicit OnStream(const py::object& execution) {
    std::uintptr_t stream;
    std::tie(stream, allocate_) = execution.cast<std::tuple<std::uintptr_t, py::object>>();
    stream_ = reinterpret_cast<exodus::cuda::Stream>(stream);
  }

  class Memory {
   public:
    Memory(exodus::Workspace needed, const py::object& allocate) : workspace_(needed) {
      if (needed.bytes == 0) return;
      std::uintptr_t address;
      std::tie(array_, address) = allocate(needed.bytes).cast<std::tuple<py::object, std::uintptr_t>>();
      workspace_.data = reinterpret_cast<void*>(address);
    }
    exodus::Workspace workspace() const { return workspace_; }

   private:
    py::object array_;
    exodus::Workspace workspace_;
  };
  Memory memory(exodus::Workspace needed) const { return {needed, allocate_}; }

  template <class N, class Arrays>
  exodus::Workspace workspace(const exodus::Layout& layout, const N& neuron, const Arrays& arrays) const {
    return exodus::cuda::workspace(layout, neuron, arrays);
  }
  /// Of a backward pass, whose memory on a device does not depend on the method.
  template <class N, class S, class Arrays>
  exodus::Workspace workspace(const exodus::Layout& layout, const N& neuron, exodus::Method, const exodus::Surrogate<S>&,
                              const Arrays& arrays) const {
    return exodus::cuda::workspace(layout, neuron, arrays);
  }
  template <class... Arguments>
  exodus::Status forward(const Arguments&... arguments) const {
    return exodus::cuda::forward(arguments..., stream_);
  }
  template <class... Arguments>
  exodus::Status backward(const Arguments&... arguments) const {
    return exodus::cuda::backward(arguments..., stream_);
  }
  template <class... Arguments>
  exodus::Status delay(const Arguments&... arguments) const {
    return exodus::cuda::delay(arguments..., stream_);
  }
  template <class... Arguments>
  exodus::Status delay_adjoint(const Arguments&... arguments) const {
    return exodus::cuda::delay_adjoint(arguments..., stream_);
  }
  static void check(exodus::Status status) { exodus::python::check(status, exodus::cuda::last_error()); }

 private:
  exodus::cuda::Stream stream_;
  py::object allocate_;
};

void decay(const py::object& dt, const py::object& tau, std::int64_t count, const py::object& decays, std::uintptr_t stream) {
  using namespace exodus::python;
  OnStream::check(exodus::cuda::decay(to_param<double>(dt), to_param<double>(tau), count, pointer<double>(decays, count),
                                      reinterpret_cast<exodus::cuda::Stream>(stream)));
}

void rotation(const py::object& angle, std::int64_t count, const py::object& cosines, const py::object& sines, std::uintptr_t stream) {
  using namespace exodus::python;
  OnStream::check(exodus::cuda::rotation(to_param<double>(angle), count, pointer<double>(cosines, count), pointer<double>(sines, count),
                                         reinterpret_cast<exodus::cuda::Stream>(stream)));
}

using Addresses = std::vector<std::uintptr_t>;

template <class X>
std::vector<X*> pointers(const Addresses& addresses, std::size_t count) {
  if (addresses.size() != count) throw py::value_error("expected " + std::to_string(count) + " addresses");
  std::vector<X*> result;
  for (const std::uintptr_t address : addresses) result.push_back(reinterpret_cast<X*>(address));
  return result;
}

/// The values have one type, and the parameters another.
void learnt_numbers(const exodus::python::Ranges& given, const std::string& value_type, const Addresses& values, std::uintptr_t numbers,
                    const std::string& parameter_type, std::uintptr_t parameters, std::uintptr_t stream) {
  const auto ranges = exodus::python::learnt_ranges(given);
  exodus::python::with_arithmetic(value_type, [&]<class T>(T) {
    exodus::python::with_arithmetic(parameter_type, [&]<class V>(V) {
      OnStream::check(exodus::cuda::learnt_numbers(static_cast<int>(ranges.size()), ranges.data(),
                                                   pointers<const T>(values, ranges.size()).data(),
                                                   reinterpret_cast<exodus::LearntNumber*>(numbers), reinterpret_cast<V*>(parameters),
                                                   reinterpret_cast<exodus::cuda::Stream>(stream)));
    });
  });
}

void learnt_gradients(const exodus::python::Ranges& given, std::uintptr_t numbers, const Addresses& sums, const std::string& type_name,
                      const Addresses& gradients, std::uintptr_t stream) {
  const auto ranges = exodus::python::learnt_ranges(given);
  exodus::python::with_arithmetic(type_name, [&]<class V>(V) {
    OnStream::check(exodus::cuda::learnt_gradients(
        static_cast<int>(ranges.size()), ranges.data(), reinterpret_cast<const exodus::LearntNumber*>(numbers),
        pointers<const double>(sums, ranges.size()).data(), pointers<V>(gradients, ranges.size()).data(),
        reinterpret_cast<exodus::cuda::Stream>(stream)));
  });
}

void wait(std::uintptr_t memory, std::uintptr_t stream) {
  OnStream::check(exodus::python::without_lock(
      [&] { return exodus::cuda::wait(reinterpret_cast<const void*>(memory), reinterpret_cast<exodus::cuda::Stream>(stream)); }));
}

}   // namespace

// pybind11's entry point gets another name, since ours has to come before it.
#define PyInit__cuda PyInit_unguarded_cuda
PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of exodus_core; use the package's functions, which check their arguments.";
  m.def("forward", &exodus::python::forward<OnStream>);
  m.def("backward", &exodus::python::backward<OnStream>);
  exodus::python::add_bound_neuron<OnStream>(m);
  m.def("delay", &exodus::python::delay<OnStream>);
  m.def("delay_adjoint", &exodus::python::delay_adjoint<OnStream>);
  m.def("decay", &decay);
  m.def("rotation", &rotation);
  m.def("learnt_numbers", &learnt_numbers);
  m.def("learnt_gradients", &learnt_gradients);
  m.def("wait", &wait);
  m.def("describe", &exodus::python::describe);
  m.def("locate", &exodus::python::locate);
  m.def("unavailable", &exodus::cuda::unavailable);
  m.attr("version") = EXODUS_VERSION;
}

#undef PyInit__cuda

extern "C" PYBIND11_EXPORT PyObject* PyInit__cuda() {
  return exodus::python::is_main_interpreter("exodus_core's CUDA kernels") ? PyInit_unguarded_cuda() : nullptr;
}
