#include "isa.hpp"

#include <cstdlib>
#include <cstring>

namespace exodus {
namespace cpu {

#if defined(__x86_64__)
namespace avx512 {
extern const KernelTable kernels;
}
namespace avx2 {
extern const KernelTable kernels;
}
namespace x86_64_v2 {
extern const KernelTable kernels;
}
#else
namespace generic {
extern const KernelTable kernels;
}
#endif

namespace {

struct Choice {
  const char* name;
  const KernelTable* table;
  bool (*available)();
};

/// Best first.
const Choice choices[] = {
#if defined(__x86_64__)
    {"avx512", &avx512::kernels, [] { return __builtin_cpu_supports("x86-64-v4") != 0; }},
    {"avx2", &avx2::kernels, [] { return __builtin_cpu_supports("x86-64-v3") != 0; }},
    {"x86-64-v2", &x86_64_v2::kernels, [] { return __builtin_cpu_supports("x86-64-v2") != 0; }},
#else
    {"generic", &generic::kernels, [] { return true; }},
#endif
};

const Choice* choose() {
#if defined(__x86_64__)
  __builtin_cpu_init();
#endif
  const char* const forced = std::getenv("EXODUS_ISA");
  for (const Choice& choice : choices) {
    const bool named = forced == nullptr || *forced == '\0' || std::strcmp(forced, choice.name) == 0;
    if (named && choice.available()) return &choice;
  }
  return nullptr;
}

const Choice* const chosen = choose();

}   // namespace

const KernelTable* kernels() noexcept {
  return chosen == nullptr ? nullptr : chosen->table;
}

}   // namespace cpu

const char* isa() noexcept {
  return cpu::chosen == nullptr ? nullptr : cpu::chosen->name;
}

}   // namespace exodus
