/// @file
/// The extension with the CUDA kernels, apart from the other, so that nobody needs CUDA who does not use it.
#include <pybind11/pybind11.h>

#include <exodus/cuda.hpp>

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of exodus_core; use the package's functions, which check their arguments.";
  m.def("unavailable", &exodus::cuda::unavailable);
  m.attr("version") = EXODUS_VERSION;
}
