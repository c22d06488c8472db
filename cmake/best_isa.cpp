// Prints the name of the best instruction set that this processor has.
#include <cstdio>

#include "processor.hpp"

int main() {
  using namespace exodus::cpu;
  std::fputs(has_avx512() ? "avx512" : has_avx2() ? "avx2" : "x86-64-v2", stdout);
}
