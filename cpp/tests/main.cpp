/// @file
/// Runs a test executable under the instruction set that EXODUS_ISA names, and skips where the processor lacks it; with --unless-best also
/// where it is the best that the processor has, under which the suite runs without a name. A name that the library wrongly refuses is a
/// failure, so that a run can never pass by testing nothing.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exodus/functions.hpp>
#include <fstream>
#include <sstream>
#include <string>

namespace {

/// Whether Linux lists all of some features (the library asks CPUID).
bool processor_lists(const char* features) {
  std::ifstream file("/proc/cpuinfo");
  std::string line, feature;
  while (std::getline(file, line) && line.compare(0, 5, "flags") != 0) {
  }
  std::istringstream wanted(features);
  while (wanted >> feature) {
    if ((line + ' ').find(' ' + feature + ' ') == std::string::npos) return false;
  }
  return true;
}

bool processor_has(const char* isa) {
  const bool avx2 = processor_lists("avx2 fma bmi1 bmi2 f16c abm movbe");
  if (std::strcmp(isa, "avx512") == 0) return avx2 && processor_lists("avx512f avx512bw avx512cd avx512dq avx512vl");
  if (std::strcmp(isa, "avx2") == 0) return avx2;
  return true;   // every processor has the others; an unknown name must fail, and not be skipped as lacking
}

/// Whether the library chooses this instruction set if none is named.
bool is_the_best(const char* isa) {
  for (const char* const better : {"avx512", "avx2"}) {
    if (processor_has(better)) return std::strcmp(isa, better) == 0;
  }
  return true;
}

}   // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  if (GTEST_FLAG_GET(list_tests)) return RUN_ALL_TESTS();
  const char* const wanted = std::getenv("EXODUS_ISA");
  const char* const got = exodus::isa();
  if (wanted != nullptr && *wanted != '\0') {
    if (got == nullptr && !processor_has(wanted)) {
      std::printf("[  SKIPPED ] this processor lacks %s\n", wanted);
      return 0;
    }
    if (got == nullptr || std::strcmp(wanted, got) != 0) {
      std::printf("[  FAILED  ] EXODUS_ISA=%s, but the library chose %s\n", wanted, got == nullptr ? "nothing" : got);
      return 1;
    }
    if (argc > 1 && std::strcmp(argv[1], "--unless-best") == 0 && is_the_best(wanted)) {
      std::printf("[  SKIPPED ] %s is the best that this processor has: the suite runs under it anyway\n", wanted);
      return 0;
    }
  }
  return RUN_ALL_TESTS();
}
