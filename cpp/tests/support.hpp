/// @file
/// What the tests share: random numbers that are the same everywhere, arrays that notice writes beyond their ends, layouts, parameters of
/// every shape, and the formula of the surrogates as plain scalar code.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <exodus/functions.hpp>
#include <exodus/neuron.hpp>
#include <limits>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

namespace exodus::test {

/// A number of type S that is nearest to x.
template <class S>
S nearest(float x) {
  if constexpr (std::is_same_v<S, float16>) {
    return to_float16(x);
  } else if constexpr (std::is_same_v<S, bfloat16>) {
    return to_bfloat16(x);
  } else {
    return S(x);
  }
}

/// Names the types of a typed suite.
struct TypeName {
  template <class T>
  static std::string GetName(int) {
    return std::is_same_v<T, float> ? "float" : "double";
  }
};

/// splitmix64: the standard distributions differ between libraries.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::int64_t below(std::int64_t end) { return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(end)); }
  bool coin() { return below(2) == 1; }
  double uniform(double low, double high) { return low + (high - low) * (static_cast<double>(bits() >> 11) * 0x1p-53); }

 private:
  std::uint64_t state_;
};

/// An input: a heap block that ends where the data end, so that a sanitizer sees a read beyond. Begins `offset` elements after an
/// address that the allocator chose.
template <class T>
class Input {
 public:
  Input() = default;
  explicit Input(std::int64_t size, int offset = 0) : offset_(offset), storage_(static_cast<std::size_t>(size + offset)) {}

  T* data() { return storage_.empty() ? nullptr : storage_.data() + offset_; }
  const T* data() const { return storage_.empty() ? nullptr : storage_.data() + offset_; }
  T& operator[](std::int64_t k) { return storage_[static_cast<std::size_t>(k + offset_)]; }
  T operator[](std::int64_t k) const { return storage_[static_cast<std::size_t>(k + offset_)]; }

  Input& fill(Random& random, double low, double high) {
    for (T& x : storage_) x = static_cast<T>(random.uniform(low, high));
    return *this;
  }

 private:
  int offset_ = 0;
  std::vector<T> storage_;
};

/// An output: filled with a pattern, between two zones of it. The data begin `offset` elements after a multiple of 64 bytes.
template <class T>
class Output {
 public:
  explicit Output(std::int64_t size, int offset = 0)
      : size_(size),
        begin_(zone + offset),
        total_(begin_ + size + zone),
        storage_(static_cast<T*>(::operator new(static_cast<std::size_t>(total_) * sizeof(T), std::align_val_t{64}))) {
    std::memset(static_cast<void*>(storage_.get()), pattern, static_cast<std::size_t>(total_) * sizeof(T));
  }

  T* data() { return storage_.get() + begin_; }
  const T* data() const { return storage_.get() + begin_; }
  T operator[](std::int64_t k) const { return storage_.get()[begin_ + k]; }
  std::int64_t size() const { return size_; }

  bool zones_intact() const { return blank(0, begin_) && blank(begin_ + size_, total_); }
  bool untouched() const { return blank(0, total_); }
  bool same_bits(const T* expected) const { return std::memcmp(data(), expected, static_cast<std::size_t>(size_) * sizeof(T)) == 0; }
  bool same_bits(const Output& other) const { return same_bits(other.data()); }

 private:
  static constexpr int pattern = 0xff;         // NaN: a read before the write shows, even times 0
  static constexpr std::int64_t zone = 1024;   // elements: larger than any vector, tile edge or page that a kernel could round up to

  bool blank(std::int64_t from, std::int64_t to) const {
    const auto* const bytes = reinterpret_cast<const unsigned char*>(storage_.get());
    for (std::size_t k = static_cast<std::size_t>(from) * sizeof(T); k < static_cast<std::size_t>(to) * sizeof(T); ++k) {
      if (bytes[k] != pattern) return false;
    }
    return true;
  }

  struct Free {
    void operator()(T* storage) const { ::operator delete(storage, std::align_val_t{64}); }
  };
  std::int64_t size_, begin_, total_;
  std::unique_ptr<T, Free> storage_;
};

inline std::int64_t neurons(const Layout& layout) {
  return layout.outer * layout.inner;
}
inline std::int64_t elements(const Layout& layout) {
  return neurons(layout) * layout.time;
}
/// Where neuron j's element at step n is.
inline std::int64_t at(const Layout& layout, std::int64_t j, std::int64_t n) {
  return ((j / layout.inner) * layout.time + n) * layout.inner + j % layout.inner;
}

inline std::string describe(const Layout& layout) {
  std::ostringstream text;
  text << "layout {" << layout.outer << ", " << layout.time << ", " << layout.inner << "}";
  return text.str();
}

/// The widths around every edge of a block, tile or row, with every outer size and duration that keeps the array within `most` elements.
inline std::vector<Layout> layouts(std::int64_t most) {
  std::vector<Layout> list;
  for (const std::int64_t inner : {1, 3, 8, 63, 64, 65, 127, 128, 129, 1000, 1025, 3000}) {
    for (const std::int64_t outer : {1, 2, 5, 33, 200}) {
      for (const std::int64_t time : {1, 2, 17, 250}) {
        const Layout layout{outer, time, inner};
        if (elements(layout) <= most) list.push_back(layout);
      }
    }
  }
  return list;
}

/// Results of more than 16 MiB, which no longer fit the caches: wide rows, rows across outer indices, tiles, time last.
inline std::vector<Layout> large_layouts() {
  return {{1, 20, 100003}, {7, 32, 8001}, {3, 510, 1100}, {340, 40, 131}, {2100, 41, 20}, {6100, 301, 1}};
}

/// How the values of a parameter lie over the neurons.
enum class Shape { absent, scalar, array_of_one, per_inner, per_outer, per_channel, per_neuron, uneven, longer, count };

/// A parameter as a test knows it.
template <class V>
struct Values {
  std::vector<V> list;
  std::int64_t repeat = 1;
  bool as_scalar = false;

  Values() = default;
  Values(Random& random, Shape shape, const Layout& layout, double low, double high) {
    std::int64_t count = 1;
    switch (shape) {
      case Shape::absent:
      case Shape::count:
        return;
      case Shape::scalar:
        as_scalar = true;
        break;
      case Shape::array_of_one:
        repeat = 3;
        break;
      case Shape::per_inner:
        count = layout.inner;
        break;
      case Shape::per_outer:
        count = layout.outer, repeat = layout.inner;
        break;
      case Shape::per_channel:   // inner = channels * pixels where it can be divided
        for (const std::int64_t pixels : {5, 4, 3, 2, 1}) {
          if (layout.inner % pixels == 0) {
            count = layout.inner / pixels, repeat = pixels;
            break;
          }
        }
        break;
      case Shape::per_neuron:
        count = neurons(layout);
        break;
      case Shape::uneven:   // the period divides nothing
        count = 7, repeat = 11;
        break;
      case Shape::longer:   // more values than neurons
        count = neurons(layout) + 3, repeat = 2;
        break;
    }
    for (std::int64_t c = 0; c < count; ++c) list.push_back(static_cast<V>(random.uniform(low, high)));
  }

  bool given() const { return !list.empty(); }
  std::int64_t count() const { return given() ? static_cast<std::int64_t>(list.size()) : 1; }
  std::int64_t index(std::int64_t j) const { return (j / repeat) % count(); }
  V at(std::int64_t j, V otherwise) const { return given() ? list[static_cast<std::size_t>(index(j))] : otherwise; }
  Param<V> param() const {
    if (!given()) return {};
    return as_scalar ? Param<V>(list[0]) : Param<V>(list.data(), count(), repeat);
  }
};

/// The table of surrogates as api documentation states it, from <cmath>, in double. `shape` holds its up to three numbers.
inline double surrogate(SurrogateKind kind, double scale, const double* shape, double u, double threshold) {
  const double x = u - threshold, pi = std::acos(-1.0);
  const auto normal = [pi](double y, double mean, double sigma) {
    return std::exp(-(y - mean) * (y - mean) / (2 * sigma * sigma)) / (sigma * std::sqrt(2 * pi));
  };
  const double a = shape[0], b = shape[1], c = shape[2];
  switch (kind) {
    case SurrogateKind::single_exponential:
      return scale * std::exp(-std::fabs(x) / (a * threshold)) / (a * threshold);
    case SurrogateKind::periodic_exponential: {
      const double phase = u / threshold - 0.5;
      const double y = u < threshold ? x : threshold * (2 * (phase - std::floor(phase)) - 1);
      return scale * std::exp(-std::fabs(y) / a);
    }
    case SurrogateKind::boxcar:
      return scale * (std::fabs(x) <= a / 2 ? 1 / a : 0);
    case SurrogateKind::triangle:
      return scale * std::fmax(0, 1 - std::fabs(x) / a) / a;
    case SurrogateKind::gaussian:
      return scale * normal(x, a, b);
    case SurrogateKind::multi_gaussian:
      return scale * ((1 + b) * normal(x, 0, a) - b * normal(x, a, c * a) - b * normal(x, -a, c * a));
    case SurrogateKind::fast_sigmoid:
      return scale / std::pow(a * std::fabs(x) + 1, 2);
    case SurrogateKind::atan:
      return scale * (a / 2) / (1 + std::pow(pi * a * x / 2, 2));
    case SurrogateKind::sigmoid: {
      const double g = 1 / (1 + std::exp(-a * x)), rest = 1 / (1 + std::exp(a * x));   // 1 - g would lose digits
      return scale * a * g * rest;
    }
    case SurrogateKind::straight_through:
      return scale;
    case SurrogateKind::count:
      break;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

template <class S>
double surrogate(const Surrogate<S>& sg, double u, double threshold) {
  const double shape[3] = {sg.shape[0], sg.shape[1], sg.shape[2]};
  return surrogate(sg.kind, sg.scale, shape, u, threshold);
}

/// Memory for a call, of as many bytes as it asks for, whose ends are watched.
class CallMemory {
 public:
  explicit CallMemory(const Workspace& asked)
      : memory_(static_cast<std::int64_t>((asked.bytes + sizeof(double) - 1) / sizeof(double))), workspace_(asked) {
    workspace_.data = memory_.data();
  }
  const Workspace& workspace() const { return workspace_; }
  bool zones_intact() const { return memory_.zones_intact(); }

 private:
  Output<double> memory_;
  Workspace workspace_;
};

/// A pass with a workspace of its own.
template <class N>
Status run_forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, int threads = 0) {
  const CallMemory memory(workspace(layout, neuron, arrays, threads));
  const Status status = forward(layout, neuron, arrays, memory.workspace());
  EXPECT_TRUE(memory.zones_intact());
  return status;
}
template <class N>
Status run_backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                    const typename N::Backward& arrays, int threads = 0) {
  const CallMemory memory(workspace(layout, neuron, method, surrogate, arrays, threads));
  const Status status = backward(layout, neuron, method, surrogate, arrays, memory.workspace());
  EXPECT_TRUE(memory.zones_intact());
  return status;
}

/// Taps for the neurons of a layout.
template <class V>
struct SomeTaps {
  std::int64_t length, count, repeat;
  Input<V> values;

  SomeTaps(std::int64_t of, std::int64_t each, std::int64_t rep, double low, double high)
      : length(of), count(each), repeat(rep), values(of * each) {
    Random random(static_cast<std::uint64_t>(of + 7 * each));
    values.fill(random, low, high);
  }
  Taps<V> taps() const { return {values.data(), length, count, repeat}; }
  V at(std::int64_t j, std::int64_t k) const { return values[k * count + j / repeat % count]; }
};

}   // namespace exodus::test
