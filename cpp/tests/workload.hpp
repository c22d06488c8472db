/// @file
/// A forward and backward pass with known results, large enough to occupy several threads, for the tests of threads and of fork().
#pragma once

#include <exodus/lif.hpp>

#include "support.hpp"

namespace exodus::test {

/// Memory for the results of one caller. Made once, so that a child of fork() need not allocate.
struct Results {
  Results(const Layout& layout, std::int64_t features)
      : spikes(elements(layout)), potential(elements(layout)), grad_current(elements(layout)), grad_weights(features * features) {}
  Output<float> spikes, potential, grad_current;
  Output<double> grad_weights;
  double grad_alpha = 0, grad_threshold = 0;
  std::vector<double> memory;
};

class Workload {
 public:
  /// With `features`, batch entries of that many neurons have recurrent weights.
  Workload(const Layout& layout, std::uint64_t seed, std::int64_t features = 0)
      : layout_(layout), features_(features), current_(elements(layout)), grad_spikes_(elements(layout)), weights_(features * features) {
    Random random(seed);
    current_.fill(random, -0.8, 1.2);
    grad_spikes_.fill(random, -1, 1);
    weights_.fill(random, -0.1, 0.1);
    neuron_.alpha = 0.9f;
  }

  /// With memory for as many threads as the tests ask for.
  Results results() const {
    constexpr int most_threads = 16;
    Results r(layout_, features_);
    const std::size_t forwards = workspace(layout_, neuron_, forward_arrays(r), most_threads).bytes;
    std::size_t most = forwards;
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      most = std::max(most, workspace(layout_, neuron_, method, Surrogate<float>{}, arrays(r), most_threads).bytes);
    }
    r.memory.resize(most / sizeof(double) + 1);
    return r;
  }

  /// `threads` 0: as many as set_num_threads() says.
  bool run(Results& r, Method method, int threads) const {
    const Workspace workspace{r.memory.data(), r.memory.size() * sizeof(double), threads};
    return forward(layout_, neuron_, forward_arrays(r), workspace) == Status::ok &&
           backward(layout_, neuron_, method, Surrogate<float>{}, arrays(r), workspace) == Status::ok;
  }

  static bool same_bits(const Results& a, const Results& b) {
    return a.spikes.same_bits(b.spikes) && a.potential.same_bits(b.potential) && a.grad_current.same_bits(b.grad_current) &&
           a.grad_weights.same_bits(b.grad_weights) && a.grad_alpha == b.grad_alpha && a.grad_threshold == b.grad_threshold &&
           a.grad_current.zones_intact();
  }

 private:
  Lif<float>::Forward forward_arrays(Results& r) const {
    return {.current = current_.data(), .spikes = r.spikes.data(), .potential = r.potential.data(), .recurrent = recurrence()};
  }
  Lif<float>::Backward arrays(Results& r) const {
    return {.potential = r.potential.data(),
            .grad_spikes = grad_spikes_.data(),
            .grad_current = r.grad_current.data(),
            .grad = {.alpha = &r.grad_alpha, .threshold = &r.grad_threshold},
            .recurrent = recurrence(),
            .spikes = r.spikes.data(),
            .grad_recurrent = features_ == 0 ? nullptr : r.grad_weights.data()};
  }
  Recurrence<float> recurrence() const { return {weights_.data(), features_, 1}; }

  Layout layout_;
  std::int64_t features_;
  Lif<float> neuron_;
  Input<float> current_, grad_spikes_, weights_;
};

}   // namespace exodus::test
