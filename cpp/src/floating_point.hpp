/// @file
/// The floating-point mode in which the library computes.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif !defined(__aarch64__)
#include <cfenv>
#endif

namespace exodus {

/// While an object exists, its thread rounds to nearest, keeps subnormal numbers and traps nothing, as the contract of forward bits needs.
/// The caller may have set another mode: flush-to-zero by torch.set_flush_denormal or a library built with -ffast-math, another rounding,
/// or traps by feenableexcept. The destructor restores it.
class FloatingPointMode {
 public:
  FloatingPointMode() : callers_(exchange_with(default_mode())) { keep_in_order(); }
  ~FloatingPointMode() {
    keep_in_order();
    exchange_with(callers_);
  }
  FloatingPointMode(const FloatingPointMode&) = delete;
  FloatingPointMode& operator=(const FloatingPointMode&) = delete;

 private:
  /// Keeps arithmetic on memory from moving across a change of the mode: the compiler does not know that it depends on the mode.
  static void keep_in_order() { asm volatile("" ::: "memory"); }

#if defined(__x86_64__)
  using Mode = unsigned;
  static Mode default_mode() { return 0x1f80; }   // of MXCSR: all exceptions masked
  static Mode exchange_with(Mode mode) {
    const Mode before = _mm_getcsr();
    if (mode != before) _mm_setcsr(mode);
    return before;
  }
#elif defined(__aarch64__)
  using Mode = std::uint64_t;
  static Mode default_mode() { return 0; }   // of FPCR
  static Mode exchange_with(Mode mode) {
    Mode before;
    asm volatile("mrs %0, fpcr" : "=r"(before));
    if (mode != before) asm volatile("msr fpcr, %0" : : "r"(mode));
    return before;
  }
#else
  struct Mode {
    bool is_default;
    std::fenv_t environment;
  };
  static Mode default_mode() { return {true, {}}; }
  static Mode exchange_with(const Mode& mode) {
    Mode before{false, {}};
    std::fegetenv(&before.environment);
    std::fesetenv(mode.is_default ? FE_DFL_ENV : &mode.environment);
    return before;
  }
#endif

  Mode callers_;
};

}   // namespace exodus
