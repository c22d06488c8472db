/// @file
/// Teaches a recurrent layer to remember, by gradient descent: recurrent weights in C++.
///
/// A cue excites one half of the neurons or the other for three steps. From then on that half should fire at a steady rate and the other be
/// silent, without any input: only recurrent weights can keep what the cue was. One step of training is
///
///     spikes = LIF(cue + earlier spikes * weights)      exodus::forward, with the weights
///     rates  = ExpLeak(spikes)                          exodus::forward,  loss = 1/2 sum of (rates - target)^2 / batch
///     dL/d(spikes)                                      exodus::backward of ExpLeak, from dL/d(rates) = (rates - target) / batch
///     dL/d(weights)                                     exodus::backward of LIF
///
/// The last line of the output compares the loss with that of a layer without recurrent weights.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exodus/exodus.hpp>
#include <vector>

#include "calls.hpp"

namespace {

constexpr std::int64_t steps = 40, batch = 8, neurons = 32, cue_steps = 3;
constexpr int epochs = 400;
constexpr float wanted_rate = 0.4f, learning_rate = 1e-3f;

// Arrays are (time, batch, neurons), so that an entry's neurons follow each other. A recurrence finds them by their number: neuron j is
// feature (j / repeat) % features of its entry, with repeat = 1 here.
const exodus::Layout layout{.outer = 1, .time = steps, .inner = batch * neurons};
constexpr std::size_t size = steps * batch * neurons;

std::size_t at(std::int64_t step, std::int64_t entry, std::int64_t neuron) {
  return (step * batch + entry) * neurons + neuron;
}

/// Entries have the first and the second cue in turn.
bool is_cued(std::int64_t entry, std::int64_t neuron) {
  return neuron / (neurons / 2) == entry % 2;
}

/// The input: the cue with noise, then nothing.
std::vector<float> cues() {
  std::vector<float> current(size);
  for (std::int64_t n = 0; n < cue_steps; ++n) {
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t k = 0; k < neurons; ++k) current[at(n, b, k)] = uniform() * (is_cued(b, k) ? 2.0f : 0.5f);
    }
  }
  return current;
}

/// Half the squared distance of the rates from what they should be, and its gradient.
double loss_of(const std::vector<float>& rates, std::vector<float>& grad_rates) {
  double loss = 0;
  for (std::int64_t n = 0; n < steps; ++n) {
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t k = 0; k < neurons; ++k) {
        const float error = rates[at(n, b, k)] - (is_cued(b, k) ? wanted_rate : 0);
        loss += 0.5 * error * error / batch;
        grad_rates[at(n, b, k)] = error / batch;
      }
    }
  }
  return loss;
}

void print(const std::vector<float>& spikes) {
  for (std::int64_t b = 0; b < 2; ++b) {
    for (std::int64_t k = 0; k < neurons; k += 8) {
      std::printf("cue %d, neuron %2d  ", static_cast<int>(b), static_cast<int>(k));
      for (std::int64_t n = 0; n < steps; ++n) std::putchar(spikes[at(n, b, k)] > 0 ? '|' : '.');
      std::putchar('\n');
    }
  }
}

}   // namespace

int main() {
  std::printf("exodus_core %s, %s kernels\n", exodus::version(), exodus::isa());

  exodus::Lif<float> neuron;
  neuron.alpha = std::exp(-1.0f / 5);
  exodus::ExpLeak<float> smooth;
  smooth.alpha = std::exp(-1.0f / 10);
  smooth.gain = 1 - smooth.alpha.value;

  const std::vector<float> current = cues();
  std::vector<float> weights(neurons * neurons), spikes(size), potential(size), rates(size), grad_rates(size), grad_spikes(size),
      grad_current(size);
  std::vector<double> grad_weights(weights.size());
  Memory memory;

  const auto run = [&](const exodus::Recurrence<float>& recurrent) {
    forward(layout, neuron, {.current = current.data(), .spikes = spikes.data(), .potential = potential.data(), .recurrent = recurrent},
            memory);
    forward(layout, smooth, {.current = spikes.data(), .potential = rates.data()}, memory);
    return loss_of(rates, grad_rates);
  };
  const double without = run({});

  // weights[from * neurons + to]: what a spike of one neuron adds to the current of another in the next step.
  for (float& w : weights) w = 0.2f * (uniform() - 0.5f);
  const exodus::Recurrence<float> recurrent{.weights = weights.data(), .features = neurons};
  std::printf("%8s %10s\n", "epoch", "loss");
  double loss = 0;
  for (int epoch = 0; epoch <= epochs; ++epoch) {
    loss = run(recurrent);
    if (epoch % 50 == 0) std::printf("%8d %10.3f\n", epoch, loss);
    if (epoch == epochs) break;

    backward(layout, smooth, {.grad_potential = grad_rates.data(), .grad_current = grad_spikes.data()}, memory);
    backward(layout, neuron,
             {.potential = potential.data(),
              .grad_spikes = grad_spikes.data(),
              .grad_current = grad_current.data(),   // the gradient of the weights is made of it
              .recurrent = recurrent,
              .spikes = spikes.data(),
              .grad_recurrent = grad_weights.data()},
             memory);
    for (std::size_t k = 0; k < weights.size(); ++k) weights[k] -= learning_rate * static_cast<float>(grad_weights[k]);
  }

  print(spikes);
  const bool learnt = loss < without / 3;
  std::printf("%s: loss %.3f, without recurrent weights %.3f\n", learnt ? "learnt" : "NOT LEARNT", loss, without);
  return learnt ? 0 : 1;
}
