/// @file
/// Stands for libcuda.so.1 of an old CUDA driver, which knows hardly more than its version.
extern "C" {

int cuInit(unsigned) {
  return 0;
}

int cuDriverGetVersion(int* version) {
  *version = 11040;
  return 0;
}
}
