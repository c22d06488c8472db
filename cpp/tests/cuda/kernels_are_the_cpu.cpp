/// @file
/// The CUDA kernels of one model, EXODUS_CUDA_MODEL, do what the CPU's do, for every method, surrogate and kind of parameter, at sizes
/// around the edges of warps, tiles and blocks, and give the same bits on every run. Without a GPU the shim runs them, in several orders of
/// threads. Compiled once for each model.
#include EXODUS_MODEL_HEADER

#include "problem.hpp"

namespace exodus::test {
namespace {

template <class N>
class Cuda : public testing::Test {};

#define EXODUS_QUOTED(name) #name
#define EXODUS_NAME_OF(model) EXODUS_QUOTED(model)

struct ModelName {
  template <class N>
  static std::string GetName(int) {
    const std::string name = EXODUS_NAME_OF(EXODUS_CUDA_MODEL);
    using S = typename N::Storage;
    return name + (std::is_same_v<S, float16>    ? "_float16"
                   : std::is_same_v<S, bfloat16> ? "_bfloat16"
                   : sizeof(S) == 4              ? "_float"
                                                 : "_double");
  }
};

using Neurons =
    testing::Types<EXODUS_CUDA_MODEL<float>, EXODUS_CUDA_MODEL<double>, EXODUS_CUDA_MODEL<float16>, EXODUS_CUDA_MODEL<bfloat16>>;
TYPED_TEST_SUITE(Cuda, Neurons, ModelName);

/// Widths around those of a warp and a block, and 49, whose inverse times 49 is below 1; durations around those of chunks.
constexpr std::int64_t inners[] = {1, 2, 3, 5, 31, 32, 33, 43, 49, 64, 127, 128, 129, 300}, outers[] = {1, 2, 5, 64, 129, 400},
                       times[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 70, 150};

TYPED_TEST(Cuda, IsTheCpu) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  Random random(sizeof(typename TypeParam::Storage));
  constexpr int turns = sizeof(typename TypeParam::Storage) == 2 ? 50 : 150;   // halves run in the kernels of float
  for (int turn = 0; turn < turns; ++turn) {
    const Layout layout{outers[random.below(std::size(outers))], times[random.below(std::size(times))],
                        inners[random.below(std::size(inners))]};
    if (elements(layout) > (Traits<TypeParam>::kernels > 0 ? 15000 : 40000)) continue;   // taps take a while under the shim
    const Problem<TypeParam> problem(layout, random);
    const Method method = static_cast<Method>(turn % 3);
    ASSERT_NO_FATAL_FAILURE(expect_the_cpu(problem, method, turn));
  }
}

/// As most networks call it, with neurons so few that steps may run side by side (split.hpp), around the edges of what does.
TYPED_TEST(Cuda, IsTheCpuWithFewNeurons) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  Random random(sizeof(typename TypeParam::Storage) + 20);
  constexpr std::int64_t steps[] = {16, 17, 32, 33, 250, 256, 257, 530};
  for (int turn = 0; turn < 24; ++turn) {
    const Layout layout{1 + random.below(3), steps[turn % std::size(steps)], std::int64_t{31} + random.below(9)};
    Problem<TypeParam> problem(layout, random);
    problem.with_final = problem.with_grad_potential = problem.with_surrogate_values = false;
    std::fill(std::begin(problem.wanted), std::end(problem.wanted), false);
    const Method method = static_cast<Method>(random.below(3));
    ASSERT_NO_FATAL_FAILURE(expect_the_cpu(problem, method, turn));
  }
}

/// As most networks call it, without the rarely used arrays: time last, where a warp's neurons start at different numbers of steps or,
/// where their steps are whole tiles, at the same number, and time first, whole warps of neurons side by side or not, with all gradients of
/// parameters, some or none. Every other time the arrays begin where no vector of elements can.
TYPED_TEST(Cuda, IsTheCpuInPlainPasses) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  Random random(sizeof(typename TypeParam::Storage) + 30);
  constexpr Layout layouts[] = {{33, 1, 1},  {64, 15, 1}, {70, 16, 1}, {129, 17, 1}, {31, 33, 1}, {64, 64, 1},
                                {70, 96, 1}, {5, 150, 1}, {40, 70, 1}, {3, 33, 4},   {2, 150, 7}, {1, 48, 130},
                                {30, 31, 2}, {25, 70, 3}, {1, 48, 64}, {3, 33, 32},  {1, 9, 160}};
  static_assert(std::size(layouts) % 2 == 1, "each of them is tried where a vector can begin and where it cannot");
  constexpr int turns = 3 * static_cast<int>(std::size(layouts));
  for (int turn = 0; turn < turns; ++turn) {
    const Layout& layout = layouts[static_cast<std::size_t>(turn) % std::size(layouts)];
    Problem<TypeParam> problem(layout, random);
    problem.with_final = problem.with_grad_potential = problem.with_surrogate_values = false;
    problem.with_grad_spikes = true;
    const bool none = random.below(3) == 0;
    for (bool& wanted : problem.wanted) wanted = wanted && !none;
    const Method method = static_cast<Method>(turn / static_cast<int>(std::size(layouts)));
    ASSERT_NO_FATAL_FAILURE(expect_the_cpu(problem, method, turn, turn % 2));
  }
}

/// The terms of one parameter may not read hidden states, which then are not recomputed.
TYPED_TEST(Cuda, IsTheCpuForEachParameterAlone) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  using T = Traits<TypeParam>;
  Random random(sizeof(typename TypeParam::Storage) + 40);
  constexpr Layout layouts[] = {{40, 70, 1}, {2, 33, 40}, {3, 17, 5}};
  for (int turn = 0; turn < 3 * T::parameters; ++turn) {
    const Layout& layout = layouts[turn % 3];
    Problem<TypeParam> problem(layout, random);
    for (int k = 0; k < T::parameters; ++k) problem.wanted[k] = k == turn / 3 && !problem.has_taps_instead_of(k);
    const Method method = static_cast<Method>(random.below(3));
    ASSERT_NO_FATAL_FAILURE(expect_the_cpu(problem, method, turn));
  }
}

TYPED_TEST(Cuda, TakesMemoryForHiddenStatesOnlyWhereTheyAreRead) {
  using N = TypeParam;
  if (surrogate_reads_hidden_state<N>) GTEST_SKIP() << "its surrogate reads them";
  const Layout layout{1, 1000, 64};
  const std::size_t sum = static_cast<std::size_t>(neurons(layout)) * sizeof(double);
  for (int wanted = 0; wanted < Traits<N>::parameters; ++wanted) {
    double gradient[1];
    typename N::Backward arrays;
    for_each_field<Traits<N>::parameters>(arrays.grad, [&](double*& grad, int k) { grad = k == wanted ? gradient : nullptr; });
    const std::size_t bytes = cuda::workspace(layout, N{}, arrays).bytes;
    if (bytes == 0) continue;   // of a parameter that is tied to another
    const ParameterFacts& facts = N::parameter_table[wanted];
    const bool hidden = Traits<N>::states > first_hidden<N>;
    if (hidden && facts.reads_hidden_states) {
      EXPECT_GT(bytes, 3 * sum) << facts.name;
    } else {
      EXPECT_LE(bytes, 2 * sum) << facts.name << ": a sum for it, and perhaps one for a parameter that is tied to it";
    }
  }
}

/// Entries of a recurrence: in the inner axis, in the outer one, interleaved, several in a warp, as wide as some warps and not, with more
/// neurons than a block has threads, and with more steps than the gradient of a weight sums at once.
struct Recurrent {
  Layout layout;
  std::int64_t features, repeat = 1;
};
constexpr Recurrent recurrent[] = {
    {{1, 9, 3 * 40}, 40},    {{4, 17, 12}, 3},   {{1, 7, 200}, 200},   {{3, 9, 130}, 130},   {{30, 18, 1}, 6},          {{7, 18, 1}, 7},
    {{1, 9, 5 * 33}, 33, 5}, {{8, 9, 6}, 4, 12}, {{10, 31, 1}, 5, 2},  {{2, 7, 96}, 32},     {{3, 40, 5}, 1},           {{128, 17, 1}, 64},
    {{1, 2, 512}, 512},      {{1, 1, 64}, 64},   {{1, 10, 50 * 8}, 8}, {{1, 2, 1000}, 1000}, {{1, 4, 2 * 513}, 513, 2},
};

TYPED_TEST(Cuda, IsTheCpuWithRecurrentWeights) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  if (!TypeParam::fires) GTEST_SKIP() << "it has no spikes";
  Random random(sizeof(typename TypeParam::Storage) + 10);
  constexpr int rounds = sizeof(typename TypeParam::Storage) == 2 ? 1 : 3;
  for (int turn = 0; turn < rounds * static_cast<int>(std::size(recurrent)); ++turn) {
    const auto& [layout, features, repeat] = recurrent[static_cast<std::size_t>(turn) % std::size(recurrent)];
    // Wide entries take a while under the shim. Only in float is a pass over 1000 features one launch.
    if (features > 150 && turn >= static_cast<int>(std::size(recurrent))) continue;
    if (features > 600 && sizeof(typename TypeParam::Storage) != 4) continue;
    const Problem<TypeParam> problem(layout, random, {nullptr, features, repeat});
    const Method method = static_cast<Method>((turn + turn / static_cast<int>(std::size(recurrent))) % 3);
    ASSERT_NO_FATAL_FAILURE(expect_the_cpu(problem, method, turn));
  }
}

/// Nothing is written but the gradients of parameters, and every other array may be null.
TYPED_TEST(Cuda, TakesNoNeurons) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  using N = TypeParam;
  OnDevice device(1);
  for (const Layout& layout : {Layout{0, 4, 3}, Layout{2, 4, 0}}) {
    EXPECT_EQ(cuda::workspace(layout, N{}, typename N::Forward{}).bytes, 0u);
    EXPECT_EQ(device.forward(layout, N{}, {}), Status::ok);
    int found = 0;
    for (int wanted = 0; wanted < Traits<N>::parameters; ++wanted) {
      typename N::Backward arrays;
      double* const gradient = device.template out<double>(1);
      for_each_field<Traits<N>::parameters>(arrays.grad, [&](double*& grad, int k) { grad = k == wanted ? gradient : nullptr; });
      const Status status = device.backward(layout, N{}, Method::exodus, {}, arrays);
      if (status == Status::unsupported) continue;   // of a parameter that is tied to another
      ASSERT_EQ(status, Status::ok);
      EXPECT_EQ(device.fetch(gradient, 1)[0], 0);
      ++found;
    }
    EXPECT_GT(found, 1);
  }
}

}   // namespace
}   // namespace exodus::test
