/// @file
/// Both engines rebuild hidden states from the true state before, potential and initial state included: all gradients of a model with
/// coupled states are those of dual numbers, and forward has the bits of the step. The engines are compiled for this model of the test's
/// own only, the CUDA kernels under the shim.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "cpu/engine.hpp"
#include "cpu/isa.hpp"
#include "device.hpp"

namespace exodus {

namespace cpu {
template <class V>
constexpr IsaFunctions<V> own = {.forward = forward_row<V>,
                                 .backward = backward_row<V>,
                                 .pack_spikes = pack_spikes<V>,
                                 .weight_gradient = weight_gradient<V>,
                                 .evaluate = evaluate_range<V>};

const IsaTable* isa_table() noexcept {
  static constexpr IsaTable table = {own<float>, own<double>};
  return &table;
}
}   // namespace cpu

namespace test {
namespace {

/// A number and its derivative by one of the arguments.
struct Dual {
  double value = 0, slope = 0;
};
Dual operator+(Dual a, Dual b) {
  return {a.value + b.value, a.slope + b.slope};
}
Dual operator*(Dual a, Dual b) {
  return {a.value * b.value, a.slope * b.value + a.value * b.slope};
}

constexpr int parameters = 7, states = 3;

/// A neuron's arguments, in one list: parameters, initial state, current.
struct Problem {
  std::int64_t time;
  std::vector<double> arguments, e, q;
  double final[states];

  Problem(Random& random, std::int64_t of) : time(of), arguments(static_cast<std::size_t>(parameters + states + of)) {
    const double low[] = {0.5, -0.5, -0.4, 0.5, 0.6, -1.1, 0.7}, high[] = {0.9, -0.1, 0.5, 0.9, 1.3, -0.5, 1.2};
    for (int k = 0; k < parameters; ++k) arguments[static_cast<std::size_t>(k)] = random.uniform(low[k], high[k]);
    for (std::size_t k = parameters; k < arguments.size(); ++k) arguments[k] = random.uniform(-0.5, 0.9);
    for (std::int64_t n = 0; n < time; ++n) e.push_back(random.uniform(-1, 1)), q.push_back(random.uniform(-1, 1));
    for (double& gradient : final) gradient = random.uniform(-1, 1);
  }

  /// The loss's derivative by one of the arguments. The spike function has the surrogate's derivative; SLAYER detaches a spike's effect on
  /// the next potential.
  double gradient(std::size_t by, bool slayer) const {
    std::vector<Dual> x;
    for (const double value : arguments) x.push_back({value, 0});
    x[by].slope = 1;
    Dual u = x[parameters], s = x[parameters + 1], v = x[parameters + 2], loss;
    for (std::int64_t n = 0; n < time; ++n) {
      const Dual input = x[4] * x[static_cast<std::size_t>(parameters + states + n)];
      if (slayer) s.slope = 0;
      const Dual next_u = x[0] * u + x[1] * v + input + x[5] * s;
      v = x[2] * u + x[3] * v + input;
      u = next_u;
      const double h = surrogate(Surrogate<double>{}, u.value, x[6].value);
      s = {u.value >= x[6].value ? 1.0 : 0.0, h * (u.slope - x[6].slope)};
      const auto k = static_cast<std::size_t>(n);
      loss = loss + Dual{e[k], 0} * s + Dual{q[k], 0} * u;
    }
    return (loss + Dual{final[0], 0} * u + Dual{final[1], 0} * s + Dual{final[2], 0} * v).slope;
  }
};

/// The gradients of all neurons of a layout, each in the order of Problem::arguments, by an engine.
template <class Run>
std::vector<std::vector<double>> gradients(const Layout& layout, const std::vector<Problem>& problems, Method method, bool every,
                                           Run& run) {
  const std::int64_t lanes = neurons(layout), size = elements(layout);
  std::vector<double> own[parameters], initial[states], final[states];
  std::vector<double> current(static_cast<std::size_t>(size)), e(current.size()), q(current.size());
  for (std::int64_t j = 0; j < lanes; ++j) {
    const Problem& problem = problems[static_cast<std::size_t>(j)];
    for (std::size_t k = 0; k < parameters; ++k) own[k].push_back(problem.arguments[k]);
    for (std::size_t k = 0; k < states; ++k) initial[k].push_back(problem.arguments[parameters + k]), final[k].push_back(problem.final[k]);
    for (std::int64_t n = 0; n < layout.time; ++n) {
      const auto to = static_cast<std::size_t>(at(layout, j, n)), from = static_cast<std::size_t>(n);
      current[to] = problem.arguments[parameters + states + from], e[to] = problem.e[from], q[to] = problem.q[from];
    }
  }
  Coupled<double> neuron;
  CoupledParameters<Param<double>>& fields = neuron;
  for_each_field<parameters>(fields, [&](Param<double>& field, int k) { field = {run.in(own[k].data(), lanes), lanes, 1}; });
  const CoupledState<const double*> before{run.in(initial[0].data(), lanes), run.in(initial[1].data(), lanes),
                                           run.in(initial[2].data(), lanes)};
  Coupled<double>::Forward to{.current = run.in(current.data(), size),
                              .initial = before,
                              .spikes = run.template out<double>(size),
                              .potential = run.template out<double>(size)};
  EXPECT_EQ(run.forward(layout, neuron, to), Status::ok);
  Coupled<double>::Backward back{
      .potential = to.potential,
      .current = to.current,
      .initial = before,
      .grad_spikes = run.in(e.data(), size),
      .grad_potential = run.in(q.data(), size),
      .grad_final = {run.in(final[0].data(), lanes), run.in(final[1].data(), lanes), run.in(final[2].data(), lanes)},
      .grad_current = run.template out<double>(size),
      .grad_initial = {run.template out<double>(lanes), run.template out<double>(lanes), run.template out<double>(lanes)}};
  for_each_field<parameters>(back.grad, [&](double*& field, int k) {
    if (every || k == 3) field = run.template out<double>(lanes);
  });
  EXPECT_EQ(run.backward(layout, neuron, method, Surrogate<double>{}, back), Status::ok);

  std::vector<std::vector<double>> results(static_cast<std::size_t>(lanes)), of_neurons;
  const auto fetch = [&](double*& field, int) {
    of_neurons.push_back(field == nullptr ? std::vector<double>(results.size(), NAN) : run.fetch(field, lanes));
  };
  for_each_field<parameters>(back.grad, fetch);
  for_each_field<states>(back.grad_initial, fetch);
  const std::vector<double> grad_current = run.fetch(back.grad_current, size);
  for (std::int64_t j = 0; j < lanes; ++j) {
    std::vector<double>& list = results[static_cast<std::size_t>(j)];
    for (const auto& values : of_neurons) list.push_back(values[static_cast<std::size_t>(j)]);
    for (std::int64_t n = 0; n < layout.time; ++n) list.push_back(grad_current[static_cast<std::size_t>(at(layout, j, n))]);
  }
  return results;
}

template <class MakeRun>
void expect_dual_numbers(MakeRun make_run) {
  Random random(5);
  // Long enough for several segments of the tape; wide, narrow and time-last.
  for (const Layout& layout : {Layout{1, 7, 5}, Layout{1, 75, 70}, Layout{3, 90, 64}, Layout{9, 75, 3}, Layout{40, 100, 1}}) {
    std::vector<Problem> problems;
    for (std::int64_t j = 0; j < neurons(layout); ++j) problems.emplace_back(random, layout.time);
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      for (const bool every : {true, false}) {
        auto run = make_run();
        const auto results = gradients(layout, problems, method, every, run);
        for (std::size_t j = 0; j < problems.size(); j += problems.size() / 5) {
          for (std::size_t k = 0; k < problems[j].arguments.size(); ++k) {
            if (std::isnan(results[j][k])) continue;   // not wanted
            const double expected = problems[j].gradient(k, method == Method::slayer);
            ASSERT_NEAR(results[j][k], expected, 1e-10 * (1 + std::abs(expected)))
                << describe(layout) << " method " << static_cast<int>(method) << " neuron " << j << " argument " << k;
          }
        }
      }
    }
  }
}

TEST(CoupledStates, OnTheCpu) {
  expect_dual_numbers([] { return OnCpu(); });
}

TEST(CoupledStates, OnADevice) {
  expect_dual_numbers([] { return OnDevice(1); });
}

}   // namespace
}   // namespace test
}   // namespace exodus
