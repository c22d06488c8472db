#include "isa.hpp"

#include <cstdlib>
#include <cstring>

#include "exodus/functions.hpp"
#include "processor.hpp"

namespace exodus {
namespace cpu {

// The build defines EXODUS_WITH_<name> for each instruction set that it compiles the engine for.
#if defined(EXODUS_WITH_avx512)
namespace avx512 {
extern const IsaTable table;
}
#endif
#if defined(EXODUS_WITH_avx2)
namespace avx2 {
extern const IsaTable table;
}
#endif
#if defined(EXODUS_WITH_x86_64_v2)
namespace x86_64_v2 {
extern const IsaTable table;
}
#endif
#if defined(EXODUS_WITH_generic)
namespace generic {
extern const IsaTable table;
}
#endif

namespace {

struct Choice {
  const char* name;
  const IsaTable* table;
  bool (*available)();
};

/// Best first.
const Choice choices[] = {
#if defined(EXODUS_WITH_avx512)
    {"avx512", &avx512::table, has_avx512},
#endif
#if defined(EXODUS_WITH_avx2)
    {"avx2", &avx2::table, has_avx2},
#endif
#if defined(EXODUS_WITH_x86_64_v2)
    {"x86-64-v2", &x86_64_v2::table, has_x86_64_v2},
#endif
#if defined(EXODUS_WITH_generic)
    {"generic", &generic::table, [] { return true; }},
#endif
};

const Choice* choose() {
  const char* const forced = std::getenv("EXODUS_ISA");
  for (const Choice& choice : choices) {
    const bool named = forced == nullptr || *forced == '\0' || std::strcmp(forced, choice.name) == 0;
    if (named && choice.available()) return &choice;
  }
  return nullptr;
}

const Choice* const chosen = choose();

}   // namespace

const IsaTable* isa_table() noexcept {
  return chosen == nullptr ? nullptr : chosen->table;
}

}   // namespace cpu

const char* isa() noexcept {
  return cpu::chosen == nullptr ? nullptr : cpu::chosen->name;
}

}   // namespace exodus
