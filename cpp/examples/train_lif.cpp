/// @file
/// Teaches one neuron to fire at given times, by gradient descent: a first look at the C++ interface.
///
/// A hundred Poisson inputs drive a LIF neuron through weights. The loss compares its spike train with a target, both smoothed by a
/// leaky integrator (the van Rossum distance). One step of training is
///
///     current = weights * inputs               ours, a product
///     spikes  = LIF(current)                   exodus::forward
///     v       = ExpLeak(spikes - target)       exodus::forward,  loss = 1/2 sum of v^2
///     dL/d(spikes)                             exodus::backward of ExpLeak, from dL/dv = v
///     dL/d(current)                            exodus::backward of LIF
///     dL/d(weights) = dL/d(current) * inputs   ours
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exodus/exodus.hpp>
#include <vector>

#include "calls.hpp"

namespace {

constexpr std::int64_t steps = 200, inputs = 100;
constexpr int epochs = 300;

void print_train(const char* name, const std::vector<float>& train) {
  std::printf("%-8s", name);
  for (std::int64_t n = 0; n < steps; n += 2) std::putchar(train[n] + train[n + 1] > 0 ? '|' : '.');
  std::putchar('\n');
}

}   // namespace

int main() {
  std::printf("exodus_core %s, %s kernels\n", exodus::version(), exodus::isa());

  // The problem: which input is active when, and when the neuron should fire.
  std::vector<float> active(steps * inputs), target(steps), weights(inputs);
  for (float& x : active) x = uniform() < 0.05f ? 1 : 0;
  for (const int n : {30, 75, 110, 160}) target[n] = 1;
  for (float& w : weights) w = 0.03f * uniform();

  // A neuron is a value. What is not set has its default: threshold 1, reset by subtraction, one spike in a step.
  exodus::Lif<float> neuron;
  neuron.alpha = std::exp(-1.0f / 20);
  exodus::ExpLeak<float> smooth;
  smooth.alpha = std::exp(-1.0f / 10);

  // One neuron, `steps` steps. All memory is ours.
  const exodus::Layout layout{.outer = 1, .time = steps, .inner = 1};
  std::vector<float> current(steps), spikes(steps), potential(steps), error(steps), smoothed(steps), grad_spikes(steps),
      grad_current(steps);
  Memory memory;

  std::printf("%8s %10s %8s\n", "epoch", "loss", "spikes");
  double loss = 0;
  for (int epoch = 0; epoch <= epochs; ++epoch) {
    for (std::int64_t n = 0; n < steps; ++n) {
      current[n] = 0;
      for (std::int64_t k = 0; k < inputs; ++k) current[n] += weights[k] * active[n * inputs + k];
    }
    forward(layout, neuron, {.current = current.data(), .spikes = spikes.data(), .potential = potential.data()}, memory);

    double fired = 0;
    for (std::int64_t n = 0; n < steps; ++n) error[n] = spikes[n] - target[n], fired += spikes[n];
    forward(layout, smooth, {.current = error.data(), .potential = smoothed.data()}, memory);
    loss = 0;
    for (const float v : smoothed) loss += 0.5 * v * v;
    if (epoch % 50 == 0) std::printf("%8d %10.4f %8.0f\n", epoch, loss, fired);
    if (epoch == epochs) break;

    // Backwards: dL/dv is v itself. The integrator has no spikes, so that method and surrogate do not matter to it.
    backward(layout, smooth, {.grad_potential = smoothed.data(), .grad_current = grad_spikes.data()}, memory);
    backward(layout, neuron, {.potential = potential.data(), .grad_spikes = grad_spikes.data(), .grad_current = grad_current.data()},
             memory);

    constexpr float rate = 5e-5f;
    for (std::int64_t k = 0; k < inputs; ++k) {
      float grad = 0;
      for (std::int64_t n = 0; n < steps; ++n) grad += grad_current[n] * active[n * inputs + k];
      weights[k] -= rate * grad;
    }
  }

  print_train("target", target);
  print_train("neuron", spikes);
  const bool learnt = loss < 1;   // a silent neuron has 11, one whose spikes are all a step aside 2
  std::puts(learnt ? "learnt" : "NOT LEARNT");
  return learnt ? 0 : 1;
}
