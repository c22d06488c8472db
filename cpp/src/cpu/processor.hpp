/// @file
/// Which instruction sets an x86 processor has and the system lets programs use. Clang before 18 does not know the levels' names, so these
/// functions ask for each feature, and read those that its __builtin_cpu_supports does not know from CPUID.
#pragma once

#if defined(__x86_64__)

#include <cpuid.h>

namespace exodus::cpu {

/// The registers that CPUID returns for a leaf; zeros for a leaf that the processor does not have.
struct Features {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  explicit Features(unsigned leaf) { __get_cpuid_count(leaf, 0, &eax, &ebx, &ecx, &edx); }
};

inline bool has_x86_64_v2() {
  constexpr unsigned cx16 = 1u << 13, lahf = 1u << 0;
  __builtin_cpu_init();
  return __builtin_cpu_supports("popcnt") != 0 && __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("ssse3") != 0 &&
         (Features(1).ecx & cx16) != 0 && (Features(0x80000001).ecx & lahf) != 0;
}

/// x86-64-v3.
inline bool has_avx2() {
  constexpr unsigned movbe = 1u << 22, f16c = 1u << 29, lzcnt = 1u << 5;
  const unsigned both = movbe | f16c;
  return has_x86_64_v2() && __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0 &&
         __builtin_cpu_supports("bmi") != 0 && __builtin_cpu_supports("bmi2") != 0 && (Features(1).ecx & both) == both &&
         (Features(0x80000001).ecx & lzcnt) != 0;
}

/// x86-64-v4.
inline bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512cd") != 0 && __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}

}   // namespace exodus::cpu

#endif
