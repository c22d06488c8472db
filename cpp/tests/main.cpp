/// @file
/// Runs a test executable under the instruction set that EXODUS_ISA names, and skips where the processor lacks it; with --unless-best also
/// where it is the best that the processor has, under which the suite runs without a name. A name that the library wrongly refuses is a
/// failure, so that a run can never pass by testing nothing.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exodus/exodus.hpp>

namespace {

bool processor_has(const char* isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (std::strcmp(isa, "avx512") == 0) return __builtin_cpu_supports("x86-64-v4") != 0;
  if (std::strcmp(isa, "avx2") == 0) return __builtin_cpu_supports("x86-64-v3") != 0;
  return true;   // x86-64-v2 is the least that is supported, and an unknown name must not pass as lacking
#else
  (void)isa;
  return true;
#endif
}

/// Whether a run without a name is under this instruction set.
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
