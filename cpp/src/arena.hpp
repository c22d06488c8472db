/// @file
/// Hands out a workspace piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>

namespace exodus {
namespace {   // a copy for each instruction set

/// Pieces of memory, one behind another, that begin at multiples of `Line` bytes; without memory it only counts.
template <std::size_t Line>
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<char*>(memory)), used_(-reinterpret_cast<std::uintptr_t>(memory) % Line) {}

  /// Null if there are none to take.
  template <class X>
  X* take(std::int64_t count) {
    char* const piece = memory_ == nullptr || count == 0 ? nullptr : memory_ + used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(X) + Line - 1) / Line * Line;
    return reinterpret_cast<X*>(piece);
  }

  /// Enough wherever the memory begins, which is aligned to 8 bytes.
  std::size_t bytes() const { return used_ == 0 ? 0 : used_ + Line - 8; }

 private:
  char* memory_;
  std::size_t used_;
};

}   // namespace
}   // namespace exodus
