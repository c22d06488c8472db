/// @file
/// Stands for libcuda.so.1 of an old CUDA driver, which knows hardly more than its version.
#include "exodus/macros.hpp"

extern "C" {

EXODUS_API int cuInit(unsigned) {
  return 0;
}

EXODUS_API int cuDriverGetVersion(int* version) {
  *version = 11040;
  return 0;
}
}
