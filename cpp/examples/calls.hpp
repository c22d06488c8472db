/// @file
/// What the examples share: calls with memory of their own, and random numbers.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exodus/exodus.hpp>
#include <vector>

/// Stops with the library's own words. Only impossible arguments can fail: nothing in the data does.
inline void must(exodus::Status status) {
  if (status == exodus::Status::ok) return;
  std::fprintf(stderr, "exodus: %s\n", exodus::message(status));
  std::exit(2);
}

/// Memory for calls, as much as the largest of them asks for: the library allocates nothing.
class Memory {
 public:
  exodus::Workspace for_call(exodus::Workspace asked) {
    if (bytes_.size() * sizeof(double) < asked.bytes) bytes_.resize(asked.bytes / sizeof(double) + 1);
    asked.data = bytes_.data();
    return asked;
  }

 private:
  std::vector<double> bytes_;
};

template <class Neuron>
void forward(const exodus::Layout& layout, const Neuron& neuron, const typename Neuron::Forward& arrays, Memory& memory) {
  must(exodus::forward(layout, neuron, arrays, memory.for_call(exodus::workspace(layout, neuron, arrays))));
}

template <class Neuron>
void backward(const exodus::Layout& layout, const Neuron& neuron, const typename Neuron::Backward& arrays, Memory& memory) {
  const exodus::Surrogate<float> surrogate;   // SLAYER's exponential, its peak at 1 / threshold
  must(exodus::backward(layout, neuron, exodus::Method::exodus, surrogate, arrays,
                        memory.for_call(exodus::workspace(layout, neuron, exodus::Method::exodus, surrogate, arrays))));
}

/// Uniform in [0, 1): the same numbers on every machine.
inline float uniform() {
  static std::uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return static_cast<float>(state >> 8) * 0x1p-24f;
}
