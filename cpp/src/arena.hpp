/// @file
/// An arena over a workspace.
#pragma once

#include <cstddef>
#include <cstdint>

namespace exodus {
namespace {   // a copy for each instruction set

/// Hands out pieces of memory one after another, each at a multiple of `Line` bytes. Without memory it only counts.
template <std::size_t Line>
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<char*>(memory)), used_(-reinterpret_cast<std::uintptr_t>(memory) % Line) {}

  /// A piece of `count` elements; null if that is 0, or without memory.
  template <class X>
  X* take(std::int64_t count) {
    char* const piece = memory_ == nullptr || count == 0 ? nullptr : memory_ + used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(X) + Line - 1) / Line * Line;
    return reinterpret_cast<X*>(piece);
  }

  /// The bytes of all pieces so far: enough for any memory that is aligned to 8 bytes.
  std::size_t bytes() const { return used_ == 0 ? 0 : used_ + Line - 8; }

 private:
  char* memory_;
  std::size_t used_;
};

}   // namespace
}   // namespace exodus
