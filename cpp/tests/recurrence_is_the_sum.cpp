/// @file
/// Recurrent weights on raw buffers: a pass equals its steps run one by one without weights, with plain loops that add the recurrent
/// contribution: that of earlier spikes forward, that of the next step's gradient backward. Forward to the bit, in every layout, also where
/// batch entries interleave.
#include "every_model.hpp"
#include "example_of.hpp"
#include "support.hpp"

namespace exodus::test {
namespace {

/// A layout whose neurons are `features` wide, `repeat` apart.
struct Recurrent {
  Layout layout;
  std::int64_t features, repeat;

  std::int64_t feature(std::int64_t j) const { return j / repeat % features; }
  /// The neuron of the same entry with another feature.
  std::int64_t neuron(std::int64_t j, std::int64_t other) const { return j + (other - feature(j)) * repeat; }
};

constexpr Recurrent problems[] = {
    {{4, 5, 6}, 4, 3},       {{3, 7, 10}, 5, 2},      {{6, 5, 5}, 2, 3},  {{1, 13, 40}, 40, 1}, {{1, 13, 300}, 300, 1},
    {{1, 9, 6 * 70}, 70, 1}, {{5, 9, 130}, 130, 1},   {{5, 9, 7}, 7, 1},  {{4, 17, 12}, 3, 1},  {{30, 18, 1}, 6, 1},
    {{7, 18, 1}, 7, 1},      {{1, 9, 5 * 33}, 33, 5}, {{8, 9, 6}, 4, 12}, {{10, 9, 1}, 5, 2},   {{1, 5, 2 * 1100}, 1100, 1},
};

template <class N>
class RecurrenceIsTheSum : public testing::Test {
 public:
  using V = typename N::Storage;
  static constexpr int states = static_cast<int>(std::size(N::state_names)), parameters = static_cast<int>(std::size(N::parameter_table));
  using State = std::vector<std::vector<V>>;

  template <class Struct, class List>
  static Struct fields(List& arrays) {
    Struct result{};
    for_each_field<states>(result, [&](auto& field, int s) { field = arrays[static_cast<std::size_t>(s)].data(); });
    return result;
  }

  static State random_state(Random& random, std::int64_t count, double high) {
    State state(states, std::vector<V>(static_cast<std::size_t>(count)));
    for (auto& field : state) {
      for (V& value : field) value = static_cast<V>(random.uniform(-0.2, high));
    }
    for (V& spike : state[1]) spike = spike > V(0.3) ? V(1) : V(0);
    return state;
  }

  static std::vector<V> step_of(const Layout& layout, const V* array, std::int64_t n) {
    std::vector<V> values(static_cast<std::size_t>(neurons(layout)));
    for (std::int64_t j = 0; j < neurons(layout); ++j) values[static_cast<std::size_t>(j)] = array[at(layout, j, n)];
    return values;
  }

  void check(const Recurrent& problem, Method method, int threads) {
    SCOPED_TRACE(describe(problem.layout) + ", features " + std::to_string(problem.features) + ", " + std::to_string(problem.repeat) +
                 " apart, method " + std::to_string(static_cast<int>(method)));
    const Layout& layout = problem.layout;
    const std::int64_t count = neurons(layout), features = problem.features;
    Random random(static_cast<std::uint64_t>(elements(layout)));
    Input<V> current(elements(layout)), e(elements(layout)), q(elements(layout)), weights(features * features);
    current.fill(random, -0.6, 1.2), e.fill(random, -1, 1), q.fill(random, -1, 1), weights.fill(random, -0.5, 0.5);
    State initial = random_state(random, count, 0.5), grad_final = random_state(random, count, 0.5);
    const N neuron = example_of<N>();

    Output<V> spikes(elements(layout)), potential(elements(layout)), grad_current(elements(layout));
    State final = random_state(random, count, 0), grad_initial = final;
    std::vector<double> grads(parameters), grad_weights(static_cast<std::size_t>(features * features));
    typename N::Forward to{.current = current.data(), .spikes = spikes.data(), .potential = potential.data()};
    to.initial = fields<typename N::template State<const V*>>(initial);
    to.final = fields<typename N::template State<V*>>(final);
    to.recurrent = {weights.data(), features, problem.repeat};
    ASSERT_EQ(run_forward(layout, neuron, to, threads), Status::ok);
    typename N::Backward back{.potential = potential.data(),
                              .current = current.data(),
                              .grad_spikes = e.data(),
                              .grad_potential = q.data(),
                              .grad_current = grad_current.data()};
    back.initial = to.initial;
    back.grad_final = fields<typename N::template State<const V*>>(grad_final);
    back.grad_initial = fields<typename N::template State<V*>>(grad_initial);
    for_each_free_parameter(neuron, [&](int free) {
      for_each_field<parameters>(back.grad,
                                 [&](double*& field, int k) { field = k == free ? &grads[static_cast<std::size_t>(k)] : field; });
    });
    back.recurrent = to.recurrent, back.spikes = spikes.data(), back.grad_recurrent = grad_weights.data();
    ASSERT_EQ(run_backward(layout, neuron, method, Surrogate<V>{}, back, threads), Status::ok);
    EXPECT_TRUE(spikes.zones_intact() && potential.zones_intact() && grad_current.zones_intact());

    // Step by step. before[n] is the state before step n, driven[n] its total current.
    const Layout one{1, 1, count};
    std::vector<State> before{initial};
    std::vector<std::vector<V>> driven;
    bool any = false;
    for (std::int64_t n = 0; n < layout.time; ++n) {
      std::vector<V> a = step_of(layout, current.data(), n), s(a), u(a);
      for (std::int64_t j = 0; j < count; ++j) {
        V sum = 0;
        for (std::int64_t f = 0; f < features; ++f) {
          const V fired = before.back()[1][static_cast<std::size_t>(problem.neuron(j, f))];
          if (fired != V(0)) sum += fired * weights[f * features + problem.feature(j)];
        }
        a[static_cast<std::size_t>(j)] += sum;
      }
      State after = before.back();
      typename N::Forward step{.current = a.data(), .spikes = s.data(), .potential = u.data()};
      step.initial = fields<typename N::template State<const V*>>(before.back());
      step.final = fields<typename N::template State<V*>>(after);
      ASSERT_EQ(run_forward(one, neuron, step, 1), Status::ok);
      ASSERT_EQ(std::memcmp(u.data(), step_of(layout, potential.data(), n).data(), u.size() * sizeof(V)), 0) << "step " << n;
      ASSERT_EQ(std::memcmp(s.data(), step_of(layout, spikes.data(), n).data(), s.size() * sizeof(V)), 0) << "step " << n;
      for (const V spike : s) any = any || spike != V(0);
      driven.push_back(a), before.push_back(after);
    }
    EXPECT_TRUE(any);
    for (int k = 0; k < states; ++k) {
      EXPECT_EQ(std::memcmp(final[static_cast<std::size_t>(k)].data(), before.back()[static_cast<std::size_t>(k)].data(),
                            final[0].size() * sizeof(V)),
                0);
    }

    // Backward, step by step. Terms cancel, so that differences are relative to the largest value.
    std::vector<double> total(parameters), total_weights(grad_weights.size()), terms(parameters);
    std::vector<V> g(static_cast<std::size_t>(count));
    State carried = grad_final;
    double largest = 0, difference = 0;
    const auto compare = [&](V found, V expected) {
      largest = std::fmax(largest, std::fabs(static_cast<double>(expected)));
      difference = std::fmax(difference, std::fabs(static_cast<double>(found) - static_cast<double>(expected)));
    };
    const auto through_weights = [&](std::int64_t j) {
      double sum = 0;
      for (std::int64_t f = 0; f < features; ++f) {
        sum += static_cast<double>(weights[problem.feature(j) * features + f]) *
               static_cast<double>(g[static_cast<std::size_t>(problem.neuron(j, f))]);
      }
      return sum;
    };
    for (std::int64_t n = layout.time - 1; n >= 0; --n) {
      std::vector<V> u = step_of(layout, potential.data(), n), direct = step_of(layout, e.data(), n), on_u = step_of(layout, q.data(), n);
      for (std::int64_t j = 0; j < count; ++j) direct[static_cast<std::size_t>(j)] += static_cast<V>(through_weights(j));
      State earlier = carried;
      std::vector<double> own(parameters);
      typename N::Backward step{.potential = u.data(),
                                .current = driven[static_cast<std::size_t>(n)].data(),
                                .grad_spikes = direct.data(),
                                .grad_potential = on_u.data(),
                                .grad_current = g.data()};
      step.initial = fields<typename N::template State<const V*>>(before[static_cast<std::size_t>(n)]);
      step.grad_final = fields<typename N::template State<const V*>>(carried);
      step.grad_initial = fields<typename N::template State<V*>>(earlier);
      step.grad = back.grad;
      for_each_field<parameters>(step.grad,
                                 [&](double*& field, int k) { field = field == nullptr ? nullptr : &own[static_cast<std::size_t>(k)]; });
      ASSERT_EQ(run_backward(one, neuron, method, Surrogate<V>{}, step, 1), Status::ok);
      const std::vector<V> found = step_of(layout, grad_current.data(), n);
      for (std::size_t j = 0; j < found.size(); ++j) compare(found[j], g[j]);
      for (std::size_t k = 0; k < own.size(); ++k) total[k] += own[k], terms[k] += std::fabs(own[k]);
      for (std::int64_t j = 0; j < count; ++j) {
        const double fired = static_cast<double>(before[static_cast<std::size_t>(n)][1][static_cast<std::size_t>(j)]);
        for (std::int64_t f = 0; fired != 0 && f < features; ++f) {
          total_weights[static_cast<std::size_t>(problem.feature(j) * features + f)] +=
              fired * static_cast<double>(g[static_cast<std::size_t>(problem.neuron(j, f))]);
        }
      }
      carried = earlier;
    }
    for (std::int64_t j = 0; j < count; ++j) carried[1][static_cast<std::size_t>(j)] += static_cast<V>(through_weights(j));
    for (int k = 0; k < states; ++k) {
      for (std::size_t j = 0; j < carried[0].size(); ++j)
        compare(grad_initial[static_cast<std::size_t>(k)][j], carried[static_cast<std::size_t>(k)][j]);
    }
    const double rounding = 64 * std::numeric_limits<V>::epsilon() * static_cast<double>(layout.time);
    EXPECT_LE(difference, rounding * largest);
    for (std::size_t k = 0; k < total.size(); ++k)
      EXPECT_NEAR(grads[k], total[k], rounding * largest * static_cast<double>(elements(layout))) << k;
    const double spikes_of_weight = static_cast<double>(layout.time * count / features);
    for (std::size_t k = 0; k < total_weights.size(); ++k) {
      ASSERT_NEAR(grad_weights[k], total_weights[k], rounding * largest * spikes_of_weight) << k;
    }
  }
};

TYPED_TEST_SUITE(RecurrenceIsTheSum, EveryFiringModel);

TYPED_TEST(RecurrenceIsTheSum, InEveryLayout) {
  for (const Recurrent& problem : problems) {
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) this->check(problem, method, 1);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TYPED_TEST(RecurrenceIsTheSum, OnSomeThreads) {
  this->check({{1, 40, 64 * 10}, 64, 1}, Method::exodus, 3);
  this->check({{20, 40, 30}, 30, 1}, Method::bptt, 4);
  this->check({{1, 8, 2 * 1100}, 1100, 1}, Method::exodus, 3);   // threads share the copies of the weights, too
}

TEST(Recurrence, ImpossibleWeightsAreRefused) {
  float current[24] = {}, out[24], weights[9] = {};
  const auto status = [&](const Recurrence<float>& recurrent) {
    Lif<float>::Forward arrays{.current = current, .potential = out};
    arrays.recurrent = recurrent;
    return run_forward({2, 4, 3}, Lif<float>{}, arrays);
  };
  EXPECT_EQ(status({weights, 3, 1}), Status::ok);
  EXPECT_EQ(status({weights, 2, 3}), Status::ok);
  for (const Recurrence<float>& bad : {Recurrence<float>{weights, 4, 1},
                                       {weights, 3, 4},
                                       {weights, -3, 1},
                                       {weights, 3, 0},
                                       {weights, 0, 1},
                                       {weights, std::numeric_limits<std::int64_t>::max(), 2}}) {
    EXPECT_EQ(status(bad), Status::bad_parameter) << bad.features << ", " << bad.repeat;
  }
  EXPECT_EQ(status({nullptr, 3, 1}), Status::null_pointer);

  Lif<float>::Backward back{.potential = current, .grad_spikes = current};
  double grad[9];
  back.grad_recurrent = grad;
  EXPECT_EQ(run_backward({2, 4, 3}, Lif<float>{}, Method::exodus, Surrogate<float>{}, back), Status::unsupported);
  back.recurrent = {weights, 3, 1};
  EXPECT_EQ(run_backward({2, 4, 3}, Lif<float>{}, Method::exodus, Surrogate<float>{}, back), Status::null_pointer);
  back.spikes = current, back.grad_current = out;
  EXPECT_EQ(run_backward({2, 4, 3}, Lif<float>{}, Method::exodus, Surrogate<float>{}, back), Status::ok);
}

}   // namespace
}   // namespace exodus::test
