/// @file
/// The kernels of recurrent weights that all models share do what the CPU does, at sizes around those of their tiles and of their blocks'
/// shares. What differs between models is in kernels_are_the_cpu.
#include "exodus/lif.hpp"
#include "problem.hpp"

namespace exodus::test {
namespace {

template <class V>
class CudaWeights : public testing::Test {};
using Arithmetic = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaWeights, Arithmetic);

/// Entries of more features than a block has threads lie in the outer axis, or in the inner one, where a tile of the product has fewer
/// entries. The last entries have so many steps that rounding leaves none for the last of the blocks that share them.
TYPED_TEST(CudaWeights, AreTheCpu) {
  if (cuda::unavailable() != nullptr) GTEST_SKIP() << cuda::unavailable();
  struct Case {
    Layout layout;
    std::int64_t features;
  };
  constexpr Case cases[] = {{{520, 3, 1}, 520}, {{1, 2, 35 * 513}, 513}, {{257, 257, 1}, 1}};
  Random random(sizeof(TypeParam) + 50);
  for (int turn = 0; turn < static_cast<int>(std::size(cases)); ++turn) {
    const auto& [layout, features] = cases[turn];
    Problem<Lif<TypeParam>> problem(layout, random, {nullptr, features, 1});
    problem.with_initial = problem.with_grad_weights = true;
    ASSERT_NO_FATAL_FAILURE(expect_the_cpu(problem, static_cast<Method>(turn % 3), turn));
  }
}

}   // namespace
}   // namespace exodus::test
