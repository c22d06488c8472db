/// @file
/// Shared memory of the shim, which watches its use. It aborts where it is read before this block wrote it, where two threads use it, one
/// of them writing, without a barrier of the block or of their warp between, and beyond its end.
#pragma once

#include <algorithm>
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
inline std::size_t dynamic_bytes = 0;     ///< of shared memory, as the launch says

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "shim: block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, what);
  std::abort();
}

/// A thread's own time, which a barrier of its warp moves on, and what it knows of the other lanes' (a vector clock): what a lane did until
/// then comes before all that it does from now on.
struct Clock {
  std::uint32_t of[32] = {};
};
inline std::vector<Clock> clocks;

/// That a thread used memory: the barriers passed by then, and its time.
struct Use {
  std::uint32_t epoch = 0;   ///< 0: it did not
  std::uint32_t thread = 0, time = 0;

  static Use now() { return {shim::epoch, threadIdx.x, clocks[threadIdx.x].of[threadIdx.x % 32]}; }
  bool comes_before_me() const {
    if (epoch != shim::epoch || thread == threadIdx.x) return true;
    return thread / 32 == threadIdx.x / 32 && clocks[threadIdx.x].of[thread % 32] >= time;
  }
};

/// Shared memory that watches its use.
template <class T>
class Shared {
  struct Cell {
    T value;
    std::uint64_t block = 0;
    Use written, read;
    std::vector<Use> also_read;   ///< by others of its warp, none of them before another
    std::uint32_t crowded = 0;    ///< in which epoch several warps read it: no thread may write it then
  };

 public:
  /// `shared[k]`, and as `&shared[k]` where an asynchronous copy goes.
  class Reference {
   public:
    Reference(Shared& array, std::int64_t k) : array_(array), k_(k), cell_(array.cell(k)) {}
    Reference operator&() const { return *this; }
    Reference operator[](std::int64_t k) const { return array_[k_ + k]; }
    operator T() const {
      if (cell_.block != present_block) fail("shared memory is read before it was written");
      if (!cell_.written.comes_before_me()) fail("shared memory is read without a barrier after another's write");
      if (cell_.crowded != epoch) note_read();
      return cell_.value;
    }
    void operator=(T value) const {
      if (cell_.block != present_block)
        cell_.block = present_block, cell_.written = cell_.read = {}, cell_.also_read.clear(), cell_.crowded = 0;
      if (!cell_.written.comes_before_me()) fail("shared memory is written by two threads without a barrier");
      const auto before = [](const Use& use) { return use.comes_before_me(); };
      if (cell_.crowded == epoch || !before(cell_.read) || !std::all_of(cell_.also_read.begin(), cell_.also_read.end(), before))
        fail("shared memory is written without a barrier after another's read");
      cell_.value = value, cell_.written = Use::now();
    }
    Reference(const Reference&) = default;
    void operator=(const Reference& other) const { *this = static_cast<T>(other); }

   private:
    void note_read() const {
      std::erase_if(cell_.also_read, [](const Use& use) { return use.comes_before_me(); });
      if (!cell_.read.comes_before_me()) {
        if (cell_.read.thread / 32 != threadIdx.x / 32) cell_.crowded = epoch;
        cell_.also_read.push_back(cell_.read);
      }
      cell_.read = Use::now();
    }

    Shared& array_;
    std::int64_t k_;
    Cell& cell_;
  };

  explicit Shared(std::size_t count) : cells_(count) {}

  /// The dynamic shared memory of a launch, if it is no longer that of the one before.
  Shared& sized() {
    if (cells_.size() != dynamic_bytes / sizeof(T)) cells_ = std::vector<Cell>(dynamic_bytes / sizeof(T));
    return *this;
  }

  Reference operator[](std::int64_t k) { return Reference(*this, k); }

 private:
  Cell& cell(std::int64_t k) {
    if (k < 0 || k >= static_cast<std::int64_t>(cells_.size())) fail("shared memory is used beyond its end");
    return cells_[static_cast<std::size_t>(k)];
  }

  std::vector<Cell> cells_;
};

}   // namespace exodus::cuda::shim

// One array for all blocks, whose cells know in which block they were written.
#define EXODUS_SHARED(T, name, count) static exodus::cuda::shim::Shared<T> name(count)
#define EXODUS_DYNAMIC_SHARED(T, name)                        \
  static exodus::cuda::shim::Shared<T> name##_of_launches(0); \
  exodus::cuda::shim::Shared<T>& name = name##_of_launches.sized()

template <class T>
using SharedPointer = exodus::cuda::shim::Shared<T>&;
