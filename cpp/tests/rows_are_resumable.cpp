/// @file
/// A row that advances in pieces of time gives the same bits as in one piece: states, all gradients, with and without operators, in every
/// layout. The engine is compiled for this test, which decides how its rows advance.
#include <gtest/gtest.h>

#include <vector>

#include "cpu/engine.hpp"
#include "cpu/isa.hpp"
#include "exodus/functions.hpp"
#include "support.hpp"

namespace exodus {

namespace cpu {
namespace {

bool in_pieces = false;
int pieces = 0;   // the number of pieces that have run

template <class V>
void forward_resumed(const ForwardPlan<V>& plan, std::int64_t index, int thread) {
  if (!in_pieces) return forward_row(plan, index, thread);
  constexpr std::int64_t steps = 7;   // neither whole segments nor whole groups of steps of kernels with taps
  const std::int64_t time = plan.layout.time;
  ForwardRow<V> row(plan, index, thread);
  for (std::int64_t begin = 0; begin < time; begin += steps, ++pieces) row.advance(begin, smaller(begin + steps, time));
  row.finish();
}

template <class V>
void backward_resumed(const BackwardPlan<V>& whole, std::int64_t index, int thread) {
  if (!in_pieces) return backward_row(whole, index, thread);
  BackwardPlan<V> plan = whole;
  if (plan.taped == Taped::none) plan.segment_steps = smaller(plan.segment_steps, max_fir_steps);
  BackwardRow<V> row(plan, index, thread);
  row.make_checkpoints();
  for (std::int64_t end = plan.layout.time; end > 0; ++pieces) {
    const std::int64_t begin = (end - 1) / (2 * plan.segment_steps) * (2 * plan.segment_steps);
    row.advance(begin, end);
    end = begin;
  }
  row.finish();
}

}   // namespace

template <class V>
constexpr IsaFunctions<V> resumed = {.forward = forward_resumed<V>,
                                     .backward = backward_resumed<V>,
                                     .pack_spikes = pack_spikes<V>,
                                     .weight_gradient = weight_gradient<V>,
                                     .evaluate = evaluate_range<V>};

const IsaTable* isa_table() noexcept {
  static constexpr IsaTable table = {resumed<float>, resumed<double>};
  return &table;
}
}   // namespace cpu

namespace test {
namespace {

constexpr std::int64_t features = 5;
constexpr Layout layouts[] = {{1, 70, 200}, {3, 70, 100}, {4, 70, 5}, {20, 70, 1}};

/// Everything that a call gives.
template <class N>
struct Results {
  using V = typename N::Storage;
  static constexpr int states = static_cast<int>(std::size(N::state_names)), parameters = static_cast<int>(std::size(N::parameter_table));

  std::vector<V> spikes, potential, grad_current;
  std::vector<std::vector<V>> final, grad_initial;
  std::vector<double> grads, taps, weights;
  bool operator==(const Results&) const = default;
};

/// A model's arrays of states; with taps, the first of a kernel's holds the inputs that it remembers.
template <class Struct, int Count, class V>
Struct fields(std::vector<std::vector<V>>& arrays) {
  Struct result{};
  for_each_field<Count>(result, [&](auto& field, int k) { field = arrays[static_cast<std::size_t>(k)].data(); });
  return result;
}

template <class N>
Results<N> run(const N& neuron, const Layout& layout, Method method, bool recurrent, bool with_terms) {
  using R = Results<N>;
  using V = typename R::V;
  constexpr std::int64_t most_taps = 9;
  const auto size = static_cast<std::size_t>(elements(layout)), state_size = static_cast<std::size_t>(most_taps * neurons(layout));
  Random random(1);
  std::vector<V> current(size), e(size), q(size), weights(features * features);
  std::vector<std::vector<V>> initial(R::states, std::vector<V>(state_size)), grad_final = initial;
  for (auto* array : {&current, &e, &q, &weights}) {
    for (V& value : *array) value = static_cast<V>(random.uniform(-0.5, 1));
  }
  for (auto* state : {&initial, &grad_final}) {
    for (auto& field : *state) {
      for (V& value : field) value = random.coin() ? V(1) : V(0);
    }
  }
  R results{std::vector<V>(size),
            std::vector<V>(size),
            std::vector<V>(size),
            initial,
            initial,
            std::vector<double>(R::parameters),
            std::vector<double>(2 * most_taps),
            std::vector<double>(features * features)};

  typename N::Forward to{.current = current.data(), .spikes = results.spikes.data(), .potential = results.potential.data()};
  to.initial = fields<decltype(to.initial), R::states>(initial);
  to.final = fields<decltype(to.final), R::states>(results.final);
  if (recurrent) to.recurrent = {weights.data(), features, 1};
  std::vector<char> memory(workspace(layout, neuron, to, 1).bytes + 8);
  EXPECT_EQ(forward(layout, neuron, to, Workspace{memory.data(), memory.size(), 1}), Status::ok);

  typename N::Backward back{.potential = results.potential.data(),
                            .current = current.data(),
                            .grad_spikes = e.data(),
                            .grad_potential = q.data(),
                            .grad_current = results.grad_current.data()};
  back.initial = to.initial;
  back.grad_final = fields<decltype(back.grad_final), R::states>(grad_final);
  back.grad_initial = fields<decltype(back.grad_initial), R::states>(results.grad_initial);
  back.recurrent = to.recurrent, back.spikes = results.spikes.data();
  if (recurrent) back.grad_recurrent = results.weights.data();
  int kernels_with_taps = 0;
  if constexpr (requires { neuron.taps; }) {
    const Taps<V> taps[] = {neuron.taps.epsilon, neuron.taps.nu};
    double** const grads[] = {&back.grad_taps.epsilon, &back.grad_taps.nu};
    for (int k = 0; k < 2; ++k) {
      if (taps[k].length > 0 && with_terms) *grads[k] = results.taps.data() + k * most_taps;
      kernels_with_taps |= taps[k].length > 0 ? 1 << k : 0;
    }
  }
  for_each_field<R::parameters>(back.grad, [&](double*& field, int k) {
    const bool of_taps = kernels_with_taps != 0 && k < 2 * kernel_parameters && (kernels_with_taps >> k / kernel_parameters & 1) != 0;
    if (with_terms && !of_taps) field = &results.grads[static_cast<std::size_t>(k)];
  });
  memory.resize(workspace(layout, neuron, method, Surrogate<V>{}, back, 1).bytes + 8);
  EXPECT_EQ(backward(layout, neuron, method, Surrogate<V>{}, back, Workspace{memory.data(), memory.size(), 1}), Status::ok);
  return results;
}

template <class N>
void check(const N& neuron) {
  for (const Layout& layout : layouts) {
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      for (const bool recurrent : {false, true}) {
        for (const bool with_terms : {false, true}) {
          SCOPED_TRACE(describe(layout) + ", method " + std::to_string(static_cast<int>(method)) + (recurrent ? ", recurrent" : "") +
                       (with_terms ? ", with terms" : ""));
          cpu::in_pieces = false;
          const auto whole = run(neuron, layout, method, recurrent, with_terms);
          cpu::in_pieces = true, cpu::pieces = 0;
          EXPECT_TRUE(run(neuron, layout, method, recurrent, with_terms) == whole);
          EXPECT_GT(cpu::pieces, 2);
          double fired = 0;
          for (const auto spike : whole.spikes) fired += static_cast<double>(spike);
          EXPECT_GT(fired, 0);
          EXPECT_LT(fired, static_cast<double>(whole.spikes.size()));
        }
      }
    }
  }
}

TEST(RowsAreResumable, OfHiddenStates) {
  Alif<float> neuron;
  neuron.alpha = 0.9f, neuron.alpha_adapt = 0.95f, neuron.adapt_scale = 0.2f;
  check(neuron);
}

template <class V>
Srm<V> recursive() {
  Srm<V> neuron;
  neuron.epsilon_a = V(0.8), neuron.epsilon_b = V(0.6), neuron.epsilon_scale = V(0.4);
  neuron.nu_a = V(0.7), neuron.nu_scale = V(-0.9), neuron.threshold = V(0.3);
  return neuron;
}

TEST(RowsAreResumable, OfRecursiveKernels) {
  check(recursive<double>());
}

TEST(RowsAreResumable, OfKernelsWithTaps) {
  const float epsilon[] = {0.2f, 0.5f, 0.3f, 0.1f, -0.1f}, nu[] = {-1, -0.8f, -0.5f, -0.3f, -0.2f, -0.1f, 0.1f, 0.05f, 0.02f};
  for (const int with_taps : {1, 2, 3}) {
    Srm<float> neuron = recursive<float>();
    if ((with_taps & 1) != 0) neuron.taps.epsilon = {epsilon, 5, 1, 1};
    if ((with_taps & 2) != 0) neuron.taps.nu = {nu, 9, 1, 1};
    SCOPED_TRACE(with_taps);
    check(neuron);
  }
}

}   // namespace
}   // namespace test
}   // namespace exodus
