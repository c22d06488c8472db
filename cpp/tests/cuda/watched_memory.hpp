/// @file
/// Shared memory of the shim, which watches its use. It aborts where it is read before this block wrote it, where two threads use it, one
/// of them writing, without a barrier of the block or of their warp between, and beyond its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

struct Dim {
  unsigned x = 0;
};
extern Dim threadIdx, blockIdx, blockDim, gridDim;

namespace exodus::cuda::shim {

extern std::uint64_t present_block;   ///< running number of the block that runs
extern std::size_t dynamic_bytes;     ///< the bytes of dynamic shared memory that the launch asks for

[[noreturn]] void fail(const char* what);

/// A use of memory by a thread: the number of barriers that it had passed, and its time.
struct Use {
  std::uint32_t epoch = 0;   ///< 0 if there was no use
  std::uint32_t thread = 0, time = 0;

  static Use now();
  bool comes_before_me() const;
};

/// The uses of an element of shared memory. A thread reports each use before it makes it. A use that is a race aborts.
class Watch {
 public:
  void read();
  void write();

 private:
  std::uint64_t block_ = 0;   ///< the block that wrote the element
  Use written_, read_;
  std::vector<Use> also_read_;   ///< the reads by other lanes of the same warp, which have no order among them
  std::uint32_t crowded_ = 0;    ///< the epoch in which several warps read it, and in which no thread may write it
};

/// Shared memory that watches its use.
template <class T>
class Shared {
  struct Cell {
    T value;
    Watch watch;
  };

 public:
  /// `shared[k]`, and as `&shared[k]` where an asynchronous copy goes.
  class Reference {
   public:
    Reference(Shared& array, std::int64_t k) : array_(array), k_(k), cell_(array.cell(k)) {}
    Reference operator&() const { return *this; }
    Reference operator[](std::int64_t k) const { return array_[k_ + k]; }
    operator T() const {
      cell_.watch.read();
      return cell_.value;
    }
    void operator=(T value) const {
      cell_.watch.write();
      cell_.value = value;
    }
    Reference(const Reference&) = default;
    void operator=(const Reference& other) const { *this = static_cast<T>(other); }

   private:
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
