/// @file
/// Random calls of a model, solved on the CPU and on the device, and how close their results must be: forward bit for bit, backward within
/// 1e-5 (float) of the largest gradient of the neuron, gradients of parameters within 1e-5 of the size of what is summed (TermSizes). The
/// CPU's neuron for halves is that of float, on the numbers that they hold.
#pragma once

#include "../example_of.hpp"
#include "../support.hpp"
#include "device.hpp"
#include "halves.hpp"

namespace exodus::test {
namespace {

void choose_options(auto& neuron, Random& random) {
  for_each_option(neuron, [&]<class Option>(const char*, Option& option) {
    if constexpr (std::is_same_v<Option, Reset>) option = static_cast<Reset>(random.below(3));
    if constexpr (std::is_same_v<Option, ResetTiming>) option = static_cast<ResetTiming>(random.below(2));
    if constexpr (std::is_same_v<Option, FilterTiming>) option = static_cast<FilterTiming>(random.below(2));
    if constexpr (std::is_same_v<Option, std::int64_t>) option = random.below(3);   // spikes in a step
    if constexpr (std::is_same_v<Option, bool>) option = random.coin();
  });
}

/// Half a unit in the last place, relative to a normal number.
template <class S>
constexpr double rounding = 0;
template <>
constexpr double rounding<float16> = 0x1p-11;
template <>
constexpr double rounding<bfloat16> = 0x1p-8;

/// A number, or the first that S takes for infinity in place of those beyond.
template <class S>
double within(double x) {
  return std::is_same_v<S, float16> ? std::clamp(x, -0x1p16, 0x1p16) : x;
}

/// The same neuron for the arithmetic's own type.
template <template <class> class N, class S>
N<arithmetic_t<S>> witness_of(const N<S>&);
template <class N>
using Witness = decltype(witness_of(N{}));

/// Arguments of a forward and a backward pass, some of them missing.
template <class N>
struct Problem {
  using S = typename N::Storage;
  using V = arithmetic_t<S>;
  static constexpr int states = static_cast<int>(std::size(N::state_names)), parameters = static_cast<int>(std::size(N::parameter_table));
  static constexpr int kernels = Traits<N>::kernels;

  Layout layout;
  Random options;   ///< chooses the neuron's options
  std::vector<Values<V>> values;
  Input<V> current, grad_spikes, grad_potential, surrogate_values;   // the first two are numbers that S has
  std::vector<Input<V>> initial, grad_final;
  Surrogate<S> surrogate;
  Recurrence<V> recurrent;   ///< with 0 features there are no recurrent weights
  Input<V> weights;
  std::vector<SomeTaps<V>> taps;   ///< for each kernel that may have taps; length 0 if it has none
  bool wanted[parameters] = {}, wanted_taps[2];
  bool with_initial, with_final, with_grad_spikes, with_grad_potential, with_surrogate_values;
  bool with_grad_weights;

  Problem(const Layout& of, Random& random, const Recurrence<V>& with = {})
      : layout(of),
        options(random.bits()),
        current(elements(of)),
        grad_spikes(elements(of)),
        grad_potential(elements(of)),
        surrogate_values(elements(of)),
        recurrent(with),
        weights(with.features * with.features),
        with_initial(random.coin()),
        with_final(random.coin()),
        with_grad_spikes(random.below(4) > 0),
        with_grad_potential(random.coin()),
        with_surrogate_values(random.below(6) == 0),
        with_grad_weights(with.features > 0 && random.below(4) > 0) {
    current.fill(random, -0.8, 1.2), grad_spikes.fill(random, -1, 1), grad_potential.fill(random, -1, 1);
    surrogate_values.fill(random, 0, 0.5);
    const double strength = 1 / std::sqrt(static_cast<double>(with.features) + 1);
    weights.fill(random, -strength, strength);
    recurrent.weights = nullptr;   // they are copied to where a call runs
    for (std::int64_t k = 0; k < elements(of); ++k) {
      current[k] = number(stored<S>(current[k])), grad_spikes[k] = number(stored<S>(grad_spikes[k]));
    }
    constexpr std::int64_t lengths[] = {1, 2, 3, 9, 40, 71};
    for (int k = 0; k < kernels; ++k) {
      const bool each = random.coin();
      taps.emplace_back(random.coin() ? 0 : lengths[random.below(std::size(lengths))], each ? of.inner : 1, each ? 1 : 7, -0.4, 0.5);
      wanted_taps[k] = taps.back().length > 0 && random.coin();
    }
    for (int s = 0; s < states; ++s) {
      initial.emplace_back(size_of(s)), grad_final.emplace_back(size_of(s));
      initial.back().fill(random, 0, 0.5), grad_final.back().fill(random, -1, 1);
    }
    const bool no_parameters = random.below(4) == 0;
    for (int k = 0; k < parameters; ++k) {
      const auto [low, high] = range_of(N::parameter_table[k]);
      values.emplace_back(random, static_cast<Shape>(random.below(static_cast<std::int64_t>(Shape::count))), of, low, high);
      wanted[k] = !no_parameters && random.below(4) > 0;   // each in every form of the neuron, in few turns
      if (has_taps_instead_of(k)) wanted[k] = false;
    }
    surrogate.kind = static_cast<SurrogateKind>(random.below(static_cast<std::int64_t>(SurrogateKind::count)));
    surrogate.scale = V(0.4);
    surrogate.shape[0] = surrogate.shape[1] = V(0.7), surrogate.shape[2] = V(2);
  }

  /// Whether a parameter belongs to a kernel that has taps, and so is not read.
  bool has_taps_instead_of(int parameter) const {
    return parameter < kernel_parameters * kernels && taps[static_cast<std::size_t>(parameter / kernel_parameters)].length > 0;
  }

  /// The number of elements of a state. For a kernel with taps, x holds its earlier inputs, and y is empty.
  std::int64_t size_of(int state) const {
    const int of_kernel = state - first_hidden<N>, kernel = of_kernel / kernel_states;
    if (of_kernel < 0 || kernel >= kernels || taps[static_cast<std::size_t>(kernel)].length == 0) return neurons(layout);
    return of_kernel % kernel_states == 0 ? (taps[static_cast<std::size_t>(kernel)].length - 1) * neurons(layout) : 0;
  }
};

/// The values that neurons share: neuron j has the one of index (j / repeat) % count.
struct Sharing {
  std::int64_t count = 1, repeat = 1;
  std::size_t operator()(std::size_t neuron) const { return neuron / static_cast<std::size_t>(repeat) % static_cast<std::size_t>(count); }
};

/// A problem's results.
template <class V>
struct Results {
  std::vector<Sharing> sharing;   ///< for each parameter
  std::vector<V> spikes, potential, grad_current;
  std::vector<std::vector<V>> final, grad_initial;
  std::vector<std::vector<double>> grads, grad_taps;
  std::vector<double> grad_weights;
  Status status = Status::ok;
};

/// Runs a problem on the CPU or the device (device.hpp). `run.in(values, size)` gives an address that holds them, `run.out(size)` one to
/// write to, `run.fetch(address, size)` what was written.
template <class N, class P, class Run>
Results<typename P::V> solve(const P& problem, Method method, Run& run) {
  using S = typename N::Storage;
  using V = typename P::V;
  const Layout& layout = problem.layout;
  const std::int64_t size = elements(layout);
  N neuron;
  Random options = problem.options;
  choose_options(neuron, options);
  Sharing sharing[P::parameters];
  bool wanted[P::parameters];
  typename N::template Parameters<Param<V>>& fields = neuron;
  for_each_field<P::parameters>(fields, [&](Param<V>& field, int k) {
    const Values<V>& values = problem.values[static_cast<std::size_t>(k)];
    field = values.param();
    if (field.data != nullptr) field.data = run.in(field.data, field.count);
    wanted[k] = problem.wanted[k];
  });
  if constexpr (P::kernels > 0) {
    for_each_field<P::kernels>(neuron.taps, [&](Taps<V>& field, int k) {
      const SomeTaps<V>& taps = problem.taps[static_cast<std::size_t>(k)];
      if (taps.length > 0) field = taps.taps(), field.data = run.in(field.data, taps.length * taps.count);
    });
  }
  for_each_tie(neuron, [&](const Tie& tie) { wanted[tie.source] = false; });
  for_each_field<P::parameters>(fields, [&](Param<V>& field, int k) {
    if (field.count > 0) sharing[k] = {field.count, field.repeat};
    if constexpr (requires { neuron.reset_amount; }) {   // its default is the threshold
      const bool follows = field.count == 0 && std::string(N::parameter_table[k].name) == "reset_amount" && neuron.threshold.count > 0;
      if (follows) sharing[k] = {neuron.threshold.count, neuron.threshold.repeat};
    }
  });

  const auto in_storage = [&](const Input<V>& values) {
    std::vector<S> list;
    for (std::int64_t k = 0; k < size; ++k) list.push_back(stored<S>(values[k]));
    return run.in(list.data(), size);
  };
  typename N::Forward to{
      .current = in_storage(problem.current), .spikes = run.template out<S>(size), .potential = run.template out<V>(size)};
  for_each_field<P::states>(to.initial, [&](const V*& field, int s) {
    if (problem.with_initial) field = run.in(problem.initial[static_cast<std::size_t>(s)].data(), problem.size_of(s));
  });
  for_each_field<P::states>(to.final, [&](V*& field, int s) { field = run.template out<V>(problem.size_of(s)); });
  to.recurrent = problem.recurrent;
  if (to.recurrent.features > 0) to.recurrent.weights = run.in(problem.weights.data(), to.recurrent.features * to.recurrent.features);
  Results<V> results;
  results.sharing.assign(sharing, sharing + P::parameters);
  results.status = run.forward(layout, neuron, to);
  if (results.status != Status::ok) return results;

  typename N::Backward back{
      .potential = to.potential, .current = to.current, .initial = to.initial, .grad_current = run.template out<S>(size)};
  if (problem.with_grad_spikes) back.grad_spikes = in_storage(problem.grad_spikes);
  if (problem.with_grad_potential) back.grad_potential = run.in(problem.grad_potential.data(), size);
  for_each_field<P::states>(back.grad_final, [&](const V*& field, int s) {
    if (problem.with_final) field = run.in(problem.grad_final[static_cast<std::size_t>(s)].data(), problem.size_of(s));
  });
  for_each_field<P::states>(back.grad_initial, [&](V*& field, int s) { field = run.template out<V>(problem.size_of(s)); });
  if constexpr (P::kernels > 0) {
    for_each_field<P::kernels>(back.grad_taps, [&](double*& field, int k) {
      const SomeTaps<V>& taps = problem.taps[static_cast<std::size_t>(k)];
      if (problem.wanted_taps[k]) field = run.template out<double>(taps.length * taps.count);
    });
  }
  for_each_field<P::parameters>(back.grad, [&](double*& field, int k) {
    if (wanted[k]) field = run.template out<double>(sharing[k].count);
  });
  back.recurrent = to.recurrent;
  const std::int64_t weights = problem.with_grad_weights ? to.recurrent.features * to.recurrent.features : 0;
  if (weights > 0) back.spikes = to.spikes, back.grad_recurrent = run.template out<double>(weights);
  Surrogate<S> surrogate{problem.surrogate.kind, problem.surrogate.scale};
  std::copy(problem.surrogate.shape, problem.surrogate.shape + 3, surrogate.shape);
  if (problem.with_surrogate_values) surrogate.values = run.in(problem.surrogate_values.data(), size);
  results.status = run.backward(layout, neuron, method, surrogate, back);
  if (results.status != Status::ok) return results;

  if (N::fires) results.spikes = numbers(run.fetch(to.spikes, size));
  results.potential = run.fetch(to.potential, size);
  results.grad_current = numbers(run.fetch(back.grad_current, size));
  if (weights > 0) results.grad_weights = run.fetch(back.grad_recurrent, weights);
  for_each_field<P::states>(to.final, [&](V*& field, int s) { results.final.push_back(run.fetch(field, problem.size_of(s))); });
  for_each_field<P::states>(back.grad_initial,
                            [&](V*& field, int s) { results.grad_initial.push_back(run.fetch(field, problem.size_of(s))); });
  if constexpr (P::kernels > 0) {
    for_each_field<P::kernels>(back.grad_taps, [&](double*& field, int k) {
      const SomeTaps<V>& taps = problem.taps[static_cast<std::size_t>(k)];
      results.grad_taps.push_back(field == nullptr ? std::vector<double>{} : run.fetch(field, taps.length * taps.count));
    });
  }
  for_each_field<P::parameters>(back.grad, [&](double*& field, int k) {
    results.grads.push_back(field == nullptr ? std::vector<double>{} : run.fetch(field, sharing[k].count));
  });
  return results;
}

template <class V>
bool same_bits(const std::vector<V>& a, const std::vector<V>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(V)) == 0);
}

/// The size of the terms whose sum is the gradient of a parameter or of a tap. A term is a gradient at a step of a neuron times a number of
/// that step: a state, the current, a count of spikes. The bound for the gradient is the sum of the gradients that enter the neuron and of
/// those of its current. The bound for the number is the neuron's largest one. Nothing is taken from the device's results.
template <class N, class V>
class TermSizes {
 public:
  TermSizes(const Problem<N>& problem, const Results<V>& cpu) {
    const Layout& layout = problem.layout;
    for (std::int64_t j = 0; j < neurons(layout); ++j) {
      double gradients = 0, number = 1;
      for (std::int64_t n = 0; n < layout.time; ++n) {
        const std::int64_t k = at(layout, j, n);
        const auto element = static_cast<std::size_t>(k);
        gradients += size(cpu.grad_current[element]);
        if (problem.with_grad_spikes) gradients += size(problem.grad_spikes[k]);
        if (problem.with_grad_potential) gradients += size(problem.grad_potential[k]);
        number = std::max({number, size(cpu.potential[element]), size(problem.current[k])});
        if (N::fires) number = std::max(number, size(cpu.spikes[element]));
        if (n + 1 < layout.time) gradients += from_next_step(problem, cpu, j, n + 1);
      }
      for (int s = 0; s < Problem<N>::states; ++s) {
        const auto state = static_cast<std::size_t>(s);
        for (std::int64_t k = j; k < problem.size_of(s); k += neurons(layout)) {
          if (problem.with_final) gradients += size(problem.grad_final[state][k]);
          if (problem.with_initial) number = std::max(number, size(problem.initial[state][k]));
          number = std::max(number, size(cpu.final[state][static_cast<std::size_t>(k)]));
        }
      }
      of_neurons_.push_back(gradients * number);
    }
  }

  /// For each value, of the terms of all neurons that have it.
  std::vector<double> of_values(const Sharing& sharing) const {
    std::vector<double> sums(static_cast<std::size_t>(sharing.count));
    for (std::size_t j = 0; j < of_neurons_.size(); ++j) sums[sharing(j)] += of_neurons_[j];
    return sums;
  }

 private:
  static double size(double x) { return std::abs(x); }

  /// A bound of W g, the gradient that a neuron's spikes get from the next step through recurrent weights.
  static double from_next_step(const Problem<N>& problem, const Results<V>& cpu, std::int64_t j, std::int64_t step) {
    const std::int64_t features = problem.recurrent.features, repeat = problem.recurrent.repeat;
    double sum = 0;
    for (std::int64_t k = 0; k < features; ++k) {
      const std::int64_t other = j / (features * repeat) * features * repeat + j % repeat + k * repeat;
      const auto gradient = cpu.grad_current[static_cast<std::size_t>(at(problem.layout, other, step))];
      sum += size(problem.weights[j / repeat % features * features + k]) * size(gradient);
    }
    return sum;
  }

  std::vector<double> of_neurons_;
};

/// The largest gradient of each neuron. With recurrent weights it is that of the whole entry, through which rounding errors spread. Errors
/// are relative to it, because terms cancel.
template <class N, class V>
std::vector<double> largest_gradients(const Problem<N>& problem, const Results<V>& cpu) {
  const Layout& layout = problem.layout;
  std::vector<double> largest(static_cast<std::size_t>(neurons(layout)), 0.05);
  for (std::size_t j = 0; j < largest.size(); ++j) {
    for (std::int64_t n = 0; n < layout.time; ++n) {
      const auto k = static_cast<std::size_t>(at(layout, static_cast<std::int64_t>(j), n));
      largest[j] = std::max(largest[j], std::abs(double(cpu.grad_current[k])));
    }
    for (const auto& state : cpu.grad_initial) {   // a kernel with taps has several values for each neuron
      for (std::size_t k = j; k < state.size(); k += largest.size()) largest[j] = std::max(largest[j], std::abs(double(state[k])));
    }
  }
  if (problem.recurrent.features == 0) return largest;
  const auto repeat = static_cast<std::size_t>(problem.recurrent.repeat),
             group = static_cast<std::size_t>(problem.recurrent.features) * repeat;
  std::vector<double> of_entries(largest.size());
  for (std::size_t j = 0; j < largest.size(); ++j) {
    for (std::size_t k = j / group * group + j % repeat; k < (j / group + 1) * group; k += repeat)
      of_entries[j] = std::max(of_entries[j], largest[k]);
  }
  return of_entries;
}

/// The size of the terms whose sum is the gradient of a weight. There is a term for each spike of the weight's row, and it is at most as
/// large as the gradients of the entry.
template <class N, class V>
std::vector<double> weight_sizes(const Problem<N>& problem, const Results<V>& cpu, const std::vector<double>& largest) {
  const Layout& layout = problem.layout;
  const std::int64_t features = problem.recurrent.features;
  std::vector<double> sizes(cpu.grad_weights.size());
  for (std::int64_t j = 0; !sizes.empty() && j < neurons(layout); ++j) {
    double spikes = problem.with_initial ? std::abs(double(problem.initial[1][j])) : 0;
    for (std::int64_t n = 0; n + 1 < layout.time; ++n) spikes += std::abs(double(cpu.spikes[static_cast<std::size_t>(at(layout, j, n))]));
    const std::int64_t row = j / problem.recurrent.repeat % features * features;
    for (std::int64_t k = row; k < row + features; ++k) sizes[static_cast<std::size_t>(k)] += spikes * largest[static_cast<std::size_t>(j)];
  }
  return sizes;
}

template <class N, class V>
void expect_same(const Problem<N>& problem, const Results<V>& cpu, const Results<V>& cuda, const std::string& what) {
  using S = typename N::Storage;
  constexpr double tolerance = std::is_same_v<V, float> ? 1e-5 : 1e-12;
  ASSERT_EQ(cpu.status, Status::ok) << what;
  ASSERT_EQ(cuda.status, Status::ok) << what;
  std::vector<S> spikes;
  for (const V count : cpu.spikes) spikes.push_back(stored<S>(count));
  ASSERT_TRUE(same_bits(numbers(spikes), cuda.spikes)) << what << " spikes";
  ASSERT_TRUE(same_bits(cpu.potential, cuda.potential)) << what << " potential";
  const Layout& layout = problem.layout;
  for (std::size_t s = 0; s < cpu.final.size(); ++s) ASSERT_TRUE(same_bits(cpu.final[s], cuda.final[s])) << what << " final state " << s;
  const std::vector<double> largest_of = largest_gradients(problem, cpu);
  for (std::int64_t j = 0; j < neurons(layout); ++j) {
    const auto neuron = static_cast<std::size_t>(j);
    const double largest = largest_of[neuron];
    for (std::int64_t n = 0; n < layout.time; ++n) {
      const auto k = static_cast<std::size_t>(at(layout, j, n));
      const double expected = within<S>(cpu.grad_current[k]), got = within<S>(cuda.grad_current[k]), off = tolerance * largest;
      ASSERT_NEAR(expected, got, off + rounding<S> * std::max(std::abs(expected) + off, 0x1p-14))
          << what << " neuron " << j << ", step " << n;
    }
    for (std::size_t s = 0; s < cpu.grad_initial.size(); ++s) {
      for (std::size_t k = neuron; k < cpu.grad_initial[s].size(); k += static_cast<std::size_t>(neurons(layout))) {
        ASSERT_NEAR(cpu.grad_initial[s][k], cuda.grad_initial[s][k], tolerance * largest)
            << what << " neuron " << j << ", " << N::state_names[s] << " " << k;
      }
    }
  }
  const TermSizes sizes(problem, cpu);
  for (std::size_t k = 0; k < cpu.grads.size(); ++k) {
    const auto of_values = sizes.of_values(cpu.sharing[k]);
    for (std::size_t c = 0; c < cpu.grads[k].size(); ++c) {
      ASSERT_NEAR(cpu.grads[k][c], cuda.grads[k][c], tolerance * of_values[c]) << what << " " << N::parameter_table[k].name << " " << c;
    }
  }
  const std::vector<double> sizes_of_weights = weight_sizes(problem, cpu, largest_of);
  ASSERT_EQ(cpu.grad_weights.size(), cuda.grad_weights.size());
  for (std::size_t k = 0; k < cpu.grad_weights.size(); ++k) {
    ASSERT_NEAR(cpu.grad_weights[k], cuda.grad_weights[k], sizes_of_weights[k] * (tolerance + 2 * rounding<S>)) << what << " weight " << k;
  }
  for (std::size_t k = 0; k < cpu.grad_taps.size(); ++k) {
    const Taps<V> taps = problem.taps[k].taps();
    const auto of_values = sizes.of_values({taps.count, taps.repeat});
    for (std::size_t c = 0; c < cpu.grad_taps[k].size(); ++c) {
      ASSERT_NEAR(cpu.grad_taps[k][c], cuda.grad_taps[k][c], tolerance * of_values[c % of_values.size()])
          << what << " tap " << c << " of kernel " << k;
    }
  }
}

template <class V>
void expect_same_bits(const Results<V>& first, const Results<V>& results, const std::string& what) {
  EXPECT_TRUE(same_bits(first.grad_current, results.grad_current)) << what << " gradient of the current";
  EXPECT_TRUE(same_bits(first.grad_weights, results.grad_weights)) << what << " gradient of the weights";
  for (std::size_t s = 0; s < first.grad_initial.size(); ++s) {
    EXPECT_TRUE(same_bits(first.grad_initial[s], results.grad_initial[s])) << what << " gradient of initial state " << s;
  }
  for (std::size_t k = 0; k < first.grads.size(); ++k) {
    EXPECT_TRUE(same_bits(first.grads[k], results.grads[k])) << what << " gradient of parameter " << k;
  }
  for (std::size_t k = 0; k < first.grad_taps.size(); ++k) {
    EXPECT_TRUE(same_bits(first.grad_taps[k], results.grad_taps[k])) << what << " gradient of taps " << k;
  }
}

/// Two runs have the CPU's results, but for rounding, and the same bits. Each run has memory of its own, where arrays begin `skipped`
/// elements late, and under the shim its own order of blocks and threads, by the seeds from `seed` on.
template <class N>
void expect_the_cpu(const Problem<N>& problem, Method method, int seed, std::int64_t skipped = 0) {
  const int runs = problem.recurrent.features > 200 ? 1 : 2;   // wide entries take a while under the shim
  std::string what = describe(problem.layout) + " features " + std::to_string(problem.recurrent.features);
  for (const auto& taps : problem.taps) what += " taps " + std::to_string(taps.length);
  what += " method " + std::to_string(static_cast<int>(method)) + " seed " + std::to_string(seed);
  OnCpu cpu;
  const auto expected = solve<Witness<N>>(problem, method, cpu);
  Results<typename Problem<N>::V> first;
  for (int run = 0; run < runs; ++run) {
    OnDevice device(static_cast<unsigned>(seed + run), skipped);
    auto results = solve<N>(problem, method, device);
    ASSERT_NO_FATAL_FAILURE(expect_same(problem, expected, results, what));
    if (run == 0) {
      first = std::move(results);
    } else {
      expect_same_bits(first, results, what);
    }
  }
}

}   // namespace
}   // namespace exodus::test
