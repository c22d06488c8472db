/// @file
/// Shared memory of the shim, which watches its use. It aborts where it is read before this block wrote it, where it is read or written by
/// two threads without a barrier between, one of them writing, and beyond its end.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

struct Dim {
  unsigned x = 0;
};
inline Dim threadIdx, blockIdx, blockDim, gridDim;

namespace exodus::cuda::shim {

inline std::uint64_t present_block = 0;   ///< running number of the block that runs
inline std::uint32_t epoch = 0;           ///< barriers that it has passed, and 1

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "shim: block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, what);
  std::abort();
}

/// Shared memory that watches its use.
template <class T>
class Shared {
  struct Cell {
    T value;
    std::uint64_t block;
    std::uint32_t written, read;   ///< the last epochs in which that was done; 0: not in this block
    unsigned writer, reader;
    bool many;   ///< several threads read in that epoch
  };

  struct Reference {
    Cell& cell;
    operator T() const {
      if (cell.block != present_block) fail("shared memory is read before it was written");
      if (cell.written == epoch && cell.writer != threadIdx.x) fail("shared memory is read without a barrier after another's write");
      cell.many = cell.read == epoch && (cell.many || cell.reader != threadIdx.x);
      cell.read = epoch, cell.reader = threadIdx.x;
      return cell.value;
    }
    void operator=(T value) const {
      if (cell.block != present_block) cell = {value, present_block, 0, 0, 0, 0, false};
      if (cell.written == epoch && cell.writer != threadIdx.x) fail("shared memory is written by two threads without a barrier");
      if (cell.read == epoch && (cell.many || cell.reader != threadIdx.x))
        fail("shared memory is written without a barrier after another's read");
      cell.value = value, cell.written = epoch, cell.writer = threadIdx.x;
    }
  };
  std::vector<Cell> cells_;

 public:
  explicit Shared(std::size_t count) : cells_(count) {}
  Reference operator[](std::int64_t k) {
    if (k < 0 || k >= static_cast<std::int64_t>(cells_.size())) fail("shared memory is used beyond its end");
    return {cells_[static_cast<std::size_t>(k)]};
  }
};

}   // namespace exodus::cuda::shim

/// One array for all blocks, whose cells know in which block they were written.
#define EXODUS_SHARED(T, name, count) static exodus::cuda::shim::Shared<T> name(count)

template <class T>
using SharedPointer = exodus::cuda::shim::Shared<T>&;
