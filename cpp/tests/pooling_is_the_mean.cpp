/// @file
/// Average pooling is the mean of its windows, bit for bit for the order of its header, and the gradient is the window's divided by its
/// size; both with the same bits for every thread count. Witness: loops over every element, and for the gradient the transpose: the
/// products of pooled planes with gradients are those of planes with spread gradients.
#include <exodus/exodus.hpp>

#include "spike_matrices.hpp"

namespace exodus::test {
namespace {

const PoolingShape shapes[] = {
    {1, 1, 1, 1, 1},     {3, 4, 4, 2, 2}, {5, 7, 9, 2, 2}, {4, 8, 70, 2, 2}, {3, 9, 64, 3, 3}, {2, 5, 100, 5, 4}, {2, 1, 33, 1, 4},
    {700, 16, 16, 2, 2}, {3, 2, 5, 4, 2}, {2, 6, 3, 2, 5}, {0, 4, 4, 2, 2},  {3, 0, 4, 2, 2},  {2, 33, 1, 4, 1},  {3, 300, 301, 2, 3},
};

template <class S>
struct Pooling : testing::Test {};
TYPED_TEST_SUITE(Pooling, ElementTypes, ElementName);

TYPED_TEST(Pooling, IsTheMeanOfEachWindow) {
  using S = TypeParam;
  using V = arithmetic_t<S>;
  Random random(1);
  for (const PoolingShape& s : shapes) {
    const std::int64_t height = s.height / s.window_height, width = s.width / s.window_width;
    Input<S> x(s.planes * s.height * s.width);
    fill(random, x, s.planes * s.height * s.width);
    for (int threads : {1, 3}) {
      Output<S> y(s.planes * height * width);
      ASSERT_EQ(average_pool(s, x.data(), y.data(), threads), Status::ok);
      for (std::int64_t p = 0; p < s.planes; ++p) {
        for (std::int64_t i = 0; i < height; ++i) {
          for (std::int64_t j = 0; j < width; ++j) {
            V sum = 0;
            for (std::int64_t k = 0; k < s.window_height; ++k) {
              for (std::int64_t l = 0; l < s.window_width; ++l) {
                sum += number(x[(p * s.height + i * s.window_height + k) * s.width + j * s.window_width + l]);
              }
            }
            const S expected = element<S>(sum / static_cast<V>(s.window_height * s.window_width));
            ASSERT_EQ(number(y.data()[(p * height + i) * width + j]), number(expected)) << s.planes << " " << s.height << " " << s.width;
          }
        }
      }
    }
  }
}

TYPED_TEST(Pooling, GradientIsTheWindowsShare) {
  using S = TypeParam;
  using V = arithmetic_t<S>;
  Random random(2);
  for (const PoolingShape& s : shapes) {
    const std::int64_t height = s.height / s.window_height, width = s.width / s.window_width;
    Input<S> g(s.planes * height * width);
    fill(random, g, s.planes * height * width);
    for (int threads : {1, 3}) {
      Output<S> grad(s.planes * s.height * s.width);
      ASSERT_EQ(average_pool_gradient(s, g.data(), grad.data(), threads), Status::ok);
      for (std::int64_t p = 0; p < s.planes; ++p) {
        for (std::int64_t n = 0; n < s.height; ++n) {
          for (std::int64_t m = 0; m < s.width; ++m) {
            const std::int64_t i = n / s.window_height, j = m / s.window_width;
            const bool inside = i < height && j < width;
            const V size = static_cast<V>(s.window_height * s.window_width);
            const V share = inside ? number(g[(p * height + i) * width + j]) / size : V(0);
            ASSERT_EQ(number(grad.data()[(p * s.height + n) * s.width + m]), number(element<S>(share)));
          }
        }
      }
    }
  }
}

TEST(PoolingOfFloats, BadArgumentsAreRefused) {
  float x[4] = {}, y[1] = {};
  EXPECT_EQ(average_pool<float>({1, 2, 2, 2, 2}, nullptr, y), Status::null_pointer);
  EXPECT_EQ(average_pool<float>({1, 2, 2, 2, 2}, x, nullptr), Status::null_pointer);
  EXPECT_EQ(average_pool_gradient<float>({1, 2, 2, 2, 2}, nullptr, x), Status::null_pointer);
  EXPECT_EQ(average_pool_gradient<float>({1, 2, 2, 3, 3}, nullptr, x), Status::ok);   // no window, so no gradient is read
  EXPECT_EQ(average_pool<float>({-1, 2, 2, 2, 2}, x, y), Status::bad_layout);
  EXPECT_EQ(average_pool<float>({1, 2, 2, 0, 2}, x, y), Status::bad_layout);
  EXPECT_EQ(average_pool<float>({1, INT64_MAX / 2, 3, 2, 2}, x, y), Status::bad_layout);
  EXPECT_EQ(average_pool<float>({1, 2, 2, INT64_MAX, 3}, x, y), Status::bad_layout);
}

}   // namespace
}   // namespace exodus::test
