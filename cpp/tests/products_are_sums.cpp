/// @file
/// Products with spikes are the sums of their definition: y bit for bit, in ascending order from the bias; gradients to rounding of the sum
/// of their terms' magnitudes; bits and numbers for every thread count. Witness: loops over every element, zeros included.
#include <exodus/exodus.hpp>

#include "spike_matrices.hpp"

namespace exodus::test {
namespace {

constexpr ProductShape shapes[] = {{1, 1, 1},      {3, 64, 16},    {7, 65, 17},   {100, 100, 128}, {513, 130, 129},
                                   {1030, 33, 20}, {5000, 70, 10}, {600, 3, 300}, {2, 1000, 5},    {5200, 128, 40}};
constexpr Spikes kinds[] = {{0.0}, {0.03}, {0.3}, {1.0}, {0.05, false}, {0.5, false}, {0.2, false, true}};

/// A product and its arrays.
template <class S>
struct Product {
  using V = arithmetic_t<S>;

  Product(Random& random, const ProductShape& s, const Spikes& kind)
      : shape(s),
        x(s.rows * s.inputs, 1),
        weights(s.inputs * s.outputs, 1),
        bias(s.outputs, 1),
        g(s.rows * s.outputs, 1),
        bits(s.rows * packed_words(s.inputs)),
        first(s.rows) {
    fill_with_spikes(random, x, s.rows * s.inputs, kind);
    fill(random, weights, s.inputs * s.outputs), fill(random, bias, s.outputs), fill(random, g, s.rows * s.outputs);
  }

  /// Packs x; an output of values as large as the spikes are many.
  void pack(int threads) {
    ASSERT_EQ(exodus::pack(shape, x.data(), bits.data(), &count, threads), Status::ok);
    values = std::make_unique<Output<S>>(count.spikes);
    if (!count.binary) {
      ASSERT_EQ(pack_values(shape, x.data(), bits.data(), first.data(), values->data(), threads), Status::ok);
    }
    ASSERT_TRUE(bits.zones_intact() && first.zones_intact() && values->zones_intact());
  }

  PackedSpikes<S> packed() const { return {bits.data(), count.binary ? nullptr : first.data(), count.binary ? nullptr : values->data()}; }

  ProductShape shape;
  Input<S> x, weights, bias, g;
  Output<std::uint64_t> bits;
  Output<std::int64_t> first;
  std::unique_ptr<Output<S>> values;
  SpikeCount count;
};

/// One column of y, or one input's row of the weights' gradient, may lie with a stride: torch's weights are (outputs, inputs).
struct Order {
  bool transposed;
  std::int64_t input_stride(const ProductShape& shape) const { return transposed ? 1 : shape.outputs; }
  std::int64_t output_stride(const ProductShape& shape) const { return transposed ? shape.inputs : 1; }
  std::int64_t at(const ProductShape& shape, std::int64_t k, std::int64_t j) const {
    return k * input_stride(shape) + j * output_stride(shape);
  }
};

template <class S>
class Products : public testing::Test {
 protected:
  using V = arithmetic_t<S>;

  static void expect_packed(const Product<S>& p) {
    std::int64_t spikes = 0;
    bool binary = true;
    for (std::int64_t r = 0; r < p.shape.rows; ++r) {
      for (std::int64_t k = 0; k < packed_words(p.shape.inputs) * 64; ++k) {
        const bool there = k < p.shape.inputs && number(p.x[r * p.shape.inputs + k]) != 0;
        const std::uint64_t word = p.bits[r * packed_words(p.shape.inputs) + k / 64];
        ASSERT_EQ(there, ((word >> (k % 64)) & 1) != 0) << r << ", " << k;
        if (!there) continue;
        const S x = p.x[r * p.shape.inputs + k];
        binary = binary && number(x) == 1;
        if (!p.count.binary) {
          ASSERT_EQ(bits_of((*p.values)[spikes]), bits_of(x)) << r << ", " << k;
        }
        ++spikes;
      }
    }
    EXPECT_EQ(p.count.spikes, spikes);
    EXPECT_EQ(p.count.binary, binary);
  }

  static void expect_product(const Product<S>& p, const Order& order, bool with_bias, int threads, int offset) {
    const ProductShape& shape = p.shape;
    Output<S> y(shape.rows * shape.outputs, offset);
    const CallMemory memory(product_workspace<S>(shape, threads));
    const WeightMatrix<const S> weights{p.weights.data(), order.input_stride(shape), order.output_stride(shape)};
    ASSERT_EQ(product(shape, p.packed(), weights, with_bias ? p.bias.data() : nullptr, y.data(), memory.workspace()), Status::ok);
    ASSERT_TRUE(y.zones_intact() && memory.zones_intact());
    for (std::int64_t r = 0; r < shape.rows; ++r) {
      for (std::int64_t j = 0; j < shape.outputs; ++j) {
        V sum = with_bias ? number(p.bias[j]) : V(0);
        for (std::int64_t k = 0; k < shape.inputs; ++k) {
          const V x = number(p.x[r * shape.inputs + k]);
          if (x != 0) sum = sum + x * number(p.weights[order.at(shape, k, j)]);
        }
        const S expected = element<S>(static_cast<double>(sum)), found = y[r * shape.outputs + j];
        ASSERT_TRUE(same_number(found, expected)) << r << ", " << j << ": " << number(found) << ", not " << sum;
      }
    }
  }

  static void expect_gradients(const Product<S>& p, const Order& order, int threads) {
    const ProductShape& shape = p.shape;
    Output<S> grad(shape.inputs * shape.outputs), grad_bias(shape.outputs);
    run_gradients(p, order, threads, grad, grad_bias);
    for (std::int64_t k = 0; k <= shape.inputs; ++k) {
      for (std::int64_t j = 0; j < shape.outputs; ++j) {
        double sum = 0, size = 0;
        for (std::int64_t r = 0; r < shape.rows; ++r) {
          const double x = k == shape.inputs ? 1 : static_cast<double>(number(p.x[r * shape.inputs + k]));
          const double term = x == 0 ? 0 : x * static_cast<double>(number(p.g[r * shape.outputs + j]));
          sum += term, size += std::fabs(term);
        }
        const auto found = static_cast<double>(number(k == shape.inputs ? grad_bias[j] : grad[order.at(shape, k, j)]));
        ASSERT_TRUE(near<S>(found, sum, size)) << k << ", " << j;
      }
    }
  }

  static void run_gradients(const Product<S>& p, const Order& order, int threads, Output<S>& grad, Output<S>& grad_bias) {
    const ProductShape& shape = p.shape;
    const CallMemory memory(product_gradients_workspace<S>(shape, threads));
    const WeightMatrix<S> weights{grad.data(), order.input_stride(shape), order.output_stride(shape)};
    ASSERT_EQ(product_gradients(shape, p.packed(), p.g.data(), weights, grad_bias.data(), memory.workspace()), Status::ok);
    ASSERT_TRUE(grad.zones_intact() && grad_bias.zones_intact() && memory.zones_intact());
  }

  /// Checks the gradient of x at the elements that a matrix of other spikes wants.
  static void expect_input_gradient(const Product<S>& p, const Product<S>& wanted, const Order& order, int threads, int offset) {
    const ProductShape& shape = p.shape;
    Output<S> grad(shape.rows * shape.inputs, offset);
    run_input_gradient(p, wanted, order, threads, grad);
    for (std::int64_t r = 0; r < shape.rows; ++r) {
      for (std::int64_t k = 0; k < shape.inputs; ++k) {
        const std::int64_t place = r * shape.inputs + k;
        if (number(wanted.x[place]) == 0) {
          ASSERT_EQ(bits_of(grad[place]), 0u) << r << ", " << k;
          continue;
        }
        double sum = 0, size = 0;
        for (std::int64_t j = 0; j < shape.outputs; ++j) {
          const double term =
              static_cast<double>(number(p.g[r * shape.outputs + j])) * static_cast<double>(number(p.weights[order.at(shape, k, j)]));
          sum += term, size += std::fabs(term);
        }
        ASSERT_TRUE(near<S>(static_cast<double>(number(grad[place])), sum, size)) << r << ", " << k;
      }
    }
  }

  static void run_input_gradient(const Product<S>& p, const Product<S>& wanted, const Order& order, int threads, Output<S>& grad) {
    const ProductShape& shape = p.shape;
    const CallMemory memory(product_input_gradient_workspace<S>(shape, threads));
    const WeightMatrix<const S> weights{p.weights.data(), order.input_stride(shape), order.output_stride(shape)};
    ASSERT_EQ(product_input_gradient(shape, wanted.bits.data(), p.g.data(), weights, grad.data(), memory.workspace()), Status::ok);
    ASSERT_TRUE(grad.zones_intact() && memory.zones_intact());
  }
};

TYPED_TEST_SUITE(Products, ElementTypes, ElementName);

TYPED_TEST(Products, AreTheSumsOfTheirDefinition) {
  Random random(1);
  for (const ProductShape& shape : shapes) {
    for (const Spikes& kind : kinds) {
      if (shape.rows * shape.inputs * shape.outputs > 6'000'000 && kind.rate > 0.1) continue;
      Product<TypeParam> p(random, shape, kind);
      p.pack(1 + static_cast<int>(random.below(3)));
      this->expect_packed(p);
      for (const bool transposed : {false, true}) {
        this->expect_product(p, {transposed}, random.coin(), 1 + static_cast<int>(random.below(3)), static_cast<int>(random.below(2)));
        this->expect_gradients(p, {transposed}, 1 + static_cast<int>(random.below(3)));
        this->expect_input_gradient(p, p, {transposed}, 1 + static_cast<int>(random.below(3)), static_cast<int>(random.below(2)));
      }
    }
  }
}

TYPED_TEST(Products, HaveTheSameBitsForEveryThreadCount) {
  Random random(2);
  const Order order{true};
  for (const ProductShape& shape : {ProductShape{9000, 130, 70}, ProductShape{2100, 530, 500}}) {   // threads share large weights, too
    Product<TypeParam> p(random, shape, {0.1, false});
    p.pack(1);
    const std::int64_t of_weights = shape.inputs * shape.outputs, of_x = shape.rows * shape.inputs;
    Output<TypeParam> grad(of_weights), grad_bias(shape.outputs), grad_x(of_x);
    this->run_gradients(p, order, 1, grad, grad_bias);
    this->run_input_gradient(p, p, order, 1, grad_x);
    for (const int threads : {2, 3, 5}) {
      Output<TypeParam> other(of_weights), other_bias(shape.outputs), other_x(of_x);
      this->run_gradients(p, order, threads, other, other_bias);
      EXPECT_TRUE(other.same_bits(grad) && other_bias.same_bits(grad_bias)) << threads;
      this->run_input_gradient(p, p, order, threads, other_x);
      EXPECT_TRUE(other_x.same_bits(grad_x)) << threads;
    }
  }
}

/// Streaming stores: results that exceed the caches.
TYPED_TEST(Products, OfManyRowsAreStoredWhole) {
  Random random(3);
  Product<TypeParam> p(random, {20000, 20, 128}, {0.05});
  p.pack(2);
  this->expect_product(p, {false}, true, 2, 0);
  this->expect_product(p, {false}, true, 2, 1);
  Product<TypeParam> wide(random, {20000, 128, 20}, {0.05});
  wide.pack(2);
  this->expect_input_gradient(wide, wide, {true}, 2, 0);
  this->expect_input_gradient(wide, wide, {true}, 2, 1);
}

TYPED_TEST(Products, NeedTheirWorkspace) {
  Random random(4);
  const ProductShape shape{300, 70, 33};
  Product<TypeParam> p(random, shape, {0.1});
  p.pack(1);
  Output<TypeParam> y(300 * 33), grad(70 * 33);
  const WeightMatrix<const TypeParam> weights{p.weights.data(), 33, 1};
  const CallMemory memory(product_workspace<TypeParam>(shape, 1)), gradients(product_gradients_workspace<TypeParam>(shape, 1));
  const CallMemory of_input(product_input_gradient_workspace<TypeParam>(shape, 1));
  Output<TypeParam> grad_x(300 * 70);
  Workspace less = memory.workspace(), fewer = gradients.workspace(), little = of_input.workspace();
  --less.bytes, --fewer.bytes, --little.bytes;
  EXPECT_EQ(product_input_gradient(shape, p.bits.data(), p.g.data(), weights, grad_x.data(), little), Status::workspace_too_small);
  little.data = nullptr, ++little.bytes;
  EXPECT_EQ(product_input_gradient(shape, p.bits.data(), p.g.data(), weights, grad_x.data(), little), Status::null_pointer);
  EXPECT_EQ(product<TypeParam>(shape, p.packed(), weights, nullptr, y.data(), less), Status::workspace_too_small);
  EXPECT_EQ(product_gradients<TypeParam>(shape, p.packed(), p.g.data(), {grad.data(), 33, 1}, nullptr, fewer), Status::workspace_too_small);
  less.data = fewer.data = nullptr, ++less.bytes, ++fewer.bytes;
  EXPECT_EQ(product<TypeParam>(shape, p.packed(), weights, nullptr, y.data(), less), Status::null_pointer);
  EXPECT_EQ(product_gradients<TypeParam>(shape, p.packed(), p.g.data(), {grad.data(), 33, 1}, nullptr, fewer), Status::null_pointer);
  EXPECT_TRUE(y.untouched() && grad.untouched() && grad_x.untouched());
}

/// The estimated share of spikes in a matrix whose element (row, input) is 1 where `spikes` says so, else 0.
template <class S, class F>
double estimated_share(const ProductShape& shape, F spikes, double enough = 1) {
  Input<S> x(shape.rows * shape.inputs);
  for (std::int64_t r = 0; r < shape.rows; ++r) {
    for (std::int64_t k = 0; k < shape.inputs; ++k) x[r * shape.inputs + k] = element<S>(spikes(r, k) ? 1 : 0);
  }
  double share = -1;
  EXPECT_EQ(estimate_share(shape, x.data(), &share, enough), Status::ok);
  return share;
}

TYPED_TEST(Products, AreEstimatedFromAllRowsAndColumns) {
  Random random(7);
  for (const ProductShape& shape :
       {ProductShape{4000, 128, 1}, ProductShape{2500, 130, 1}, ProductShape{300, 2048, 1}, ProductShape{1700, 128, 1}}) {
    const auto share = [&](auto spikes) { return estimated_share<TypeParam>(shape, spikes); };
    EXPECT_EQ(share([](auto, auto) { return false; }), 0);
    EXPECT_EQ(share([](auto, auto) { return true; }), 1);
    EXPECT_NEAR(share([&](auto, auto) { return random.below(20) == 0; }), 0.05, 0.01);
    EXPECT_NEAR(share([&](auto row, auto) { return row >= shape.rows / 4; }), 0.75, 0.02);
    EXPECT_NEAR(share([&](auto row, auto) { return row % 4 == 3; }), 0.25, 0.02);
    EXPECT_NEAR(share([&](auto, auto input) { return input >= shape.inputs / 2; }), 0.5, 0.02);
  }
  EXPECT_EQ(estimated_share<TypeParam>({256, 128, 1}, [](auto, auto) { return true; }), 1) << "the smallest that is sampled";
  EXPECT_EQ(estimated_share<TypeParam>({255, 128, 1}, [](auto, auto) { return true; }), 0) << "of a small matrix";
  EXPECT_EQ(estimated_share<TypeParam>({0, 100, 1}, [](auto, auto) { return true; }), 0);
}

TYPED_TEST(Products, AreEstimatedFromAFewElementsWhereTheseAreEnough) {
  Random random(11);
  for (const ProductShape& shape : {ProductShape{4000, 128, 1}, ProductShape{2500, 130, 1}, ProductShape{300, 2048, 1}}) {
    const auto spikes = [&](double rate) { return [&random, rate](auto, auto) { return random.below(1000) < 1000 * rate; }; };
    const auto in_units_of = [](double share, int words) { return share * 64 * words; };
    for (const double rate : {0.2, 0.5, 0.9}) {
      const double few = estimated_share<TypeParam>(shape, spikes(rate), rate / 2);
      EXPECT_NEAR(few, rate, 0.05);
      EXPECT_NEAR(in_units_of(few, 32), std::round(in_units_of(few, 32)), 1e-9) << "2048 elements are read";
      EXPECT_NEAR(estimated_share<TypeParam>(shape, spikes(rate), 1.5 * rate), rate, 0.02) << "the whole sample is read";
    }
    const auto in_columns = [&](auto, auto input) { return input >= shape.inputs / 2; };
    EXPECT_NEAR(estimated_share<TypeParam>(shape, in_columns, 0.25), 0.5, 0.1);
    EXPECT_NEAR(estimated_share<TypeParam>(shape, [&](auto row, auto) { return row < shape.rows / 2; }, 0.25), 0.5, 0.1);
    EXPECT_EQ(estimated_share<TypeParam>(shape, [](auto, auto) { return true; }, -1), 0) << "none is read";
  }
}

TYPED_TEST(Products, OfNothingAreTheBiasOrZero) {
  Random random(5);
  for (const ProductShape& shape : {ProductShape{0, 5, 3}, ProductShape{4, 0, 3}, ProductShape{4, 5, 0}, ProductShape{4, 70, 0}}) {
    Product<TypeParam> p(random, shape, {0.5});
    p.pack(1);
    for (const bool transposed : {false, true}) {
      this->expect_product(p, {transposed}, true, 1, 0);
      this->expect_gradients(p, {transposed}, 1);
      this->expect_input_gradient(p, p, {transposed}, 1, 0);
    }
  }
}

TYPED_TEST(Products, RefuseWhatTheyCannotCompute) {
  using S = TypeParam;
  Random random(6);
  const ProductShape shape{30, 70, 33};
  Product<S> p(random, shape, {0.1});
  p.pack(1);
  Output<S> y(30 * 33);
  const CallMemory memory(product_workspace<S>(shape, 1)), gradients(product_gradients_workspace<S>(shape, 1));
  const WeightMatrix<const S> weights{p.weights.data(), 33, 1};
  SpikeCount count;
  EXPECT_EQ(pack<S>(shape, nullptr, p.bits.data(), &count, 1), Status::null_pointer);
  EXPECT_EQ(pack<S>(shape, p.x.data(), nullptr, &count, 1), Status::null_pointer);
  EXPECT_EQ(pack<S>(shape, p.x.data(), p.bits.data(), nullptr, 1), Status::null_pointer);
  double share;
  EXPECT_EQ(estimate_share<S>(shape, nullptr, &share), Status::null_pointer);
  EXPECT_EQ(estimate_share<S>(shape, p.x.data(), nullptr), Status::null_pointer);
  EXPECT_EQ(pack_values<S>(shape, p.x.data(), p.bits.data(), nullptr, y.data(), 1), Status::null_pointer);
  EXPECT_EQ(product<S>(shape, {}, weights, nullptr, y.data(), memory.workspace()), Status::null_pointer);
  EXPECT_EQ(product<S>(shape, {p.bits.data(), nullptr, p.x.data()}, weights, nullptr, y.data(), memory.workspace()), Status::null_pointer);
  EXPECT_EQ(product<S>(shape, p.packed(), {}, nullptr, y.data(), memory.workspace()), Status::null_pointer);
  EXPECT_EQ(product<S>(shape, p.packed(), weights, nullptr, nullptr, memory.workspace()), Status::null_pointer);
  EXPECT_EQ(product_gradients<S>(shape, p.packed(), nullptr, {y.data(), 33, 1}, nullptr, gradients.workspace()), Status::null_pointer);
  const CallMemory of_input(product_input_gradient_workspace<S>(shape, 1));
  const auto input_gradient = [&](const ProductShape& own, const std::uint64_t* wanted, const S* g, const WeightMatrix<const S>& w, S* to) {
    return product_input_gradient<S>(own, wanted, g, w, to, of_input.workspace());
  };
  EXPECT_EQ(input_gradient(shape, nullptr, p.g.data(), weights, y.data()), Status::null_pointer);
  EXPECT_EQ(input_gradient(shape, p.bits.data(), nullptr, weights, y.data()), Status::null_pointer);
  EXPECT_EQ(input_gradient(shape, p.bits.data(), p.g.data(), {}, y.data()), Status::null_pointer);
  EXPECT_EQ(input_gradient(shape, p.bits.data(), p.g.data(), weights, nullptr), Status::null_pointer);
  for (const ProductShape& wrong :
       {ProductShape{-1, 5, 3}, ProductShape{4, -1, 3}, ProductShape{4, 5, -3}, ProductShape{1LL << 40, 1LL << 40, 1},
        ProductShape{1, 1LL << 40, 1LL << 40}, ProductShape{INT64_MAX, 1, 1}, ProductShape{1, INT64_MAX, 1}}) {
    EXPECT_EQ(pack<S>(wrong, p.x.data(), p.bits.data(), &count, 1), Status::bad_layout);
    EXPECT_EQ(product<S>(wrong, p.packed(), weights, nullptr, y.data(), memory.workspace()), Status::bad_layout);
    EXPECT_EQ(product_gradients<S>(wrong, p.packed(), p.g.data(), {y.data(), 33, 1}, nullptr, gradients.workspace()), Status::bad_layout);
    EXPECT_EQ(input_gradient(wrong, p.bits.data(), p.g.data(), weights, y.data()), Status::bad_layout);
    EXPECT_EQ(product_input_gradient_workspace<S>(wrong, 1).bytes, 0u);
    EXPECT_EQ(product_workspace<S>(wrong, 1).bytes, 0u);
    EXPECT_EQ(product_gradients_workspace<S>(wrong, 1).bytes, 0u);
  }
  EXPECT_TRUE(y.untouched());
}

/// Weights that no spike chooses may be anything.
TEST(ProductsOfFloats, SkipWeightsWithoutSpikes) {
  const float x[] = {0, 1, -0.0f}, w[] = {NAN, 2, INFINITY};
  std::uint64_t bits;
  SpikeCount count;
  float y = -1;
  ASSERT_EQ(pack<float>({1, 3, 1}, x, &bits, &count, 1), Status::ok);
  const CallMemory memory(product_workspace<float>({1, 3, 1}, 1));
  ASSERT_EQ(product<float>({1, 3, 1}, {&bits}, {w, 1, 1}, nullptr, &y, memory.workspace()), Status::ok);
  EXPECT_EQ(y, 2);
}

}   // namespace
}   // namespace exodus::test
