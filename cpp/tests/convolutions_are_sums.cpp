/// @file
/// Convolutions of spikes are the sums of their definition: y bit for bit, in ascending order of the spikes from the bias; gradients to
/// rounding of the sum of their terms' magnitudes; the same bits for every thread count and order of channels in the buffer. Witness: loops
/// over every element and tap.
#include <exodus/exodus.hpp>

#include "spike_matrices.hpp"

namespace exodus::test {
namespace {

constexpr Spikes kinds[] = {{0.0}, {0.03}, {0.4}, {1.0}, {0.1, false}, {0.2, false, true}};

/// frames, channels, outputs, groups, then size, kernel, stride, padding, dilation of y and of x.
const ConvolutionShape shapes[] = {
    {1, 1, 1, 1, {1, 1, 1, 0, 1}, {1, 1, 1, 0, 1}},          {5, 2, 3, 1, {9, 3, 1, 1, 1}, {11, 3, 1, 1, 1}},
    {4, 4, 6, 2, {9, 3, 1, 1, 1}, {70, 3, 1, 1, 1}},         {3, 4, 40, 2, {7, 3, 1, 1, 1}, {7, 3, 1, 1, 1}},
    {4, 3, 5, 1, {11, 5, 2, 2, 1}, {12, 4, 3, 1, 1}},        {3, 3, 40, 1, {11, 3, 3, 0, 2}, {17, 3, 2, 1, 2}},
    {3, 3, 5, 1, {5, 2, 1, 4, 1}, {6, 3, 1, 5, 2}},          {5, 8, 64, 1, {6, 1, 1, 0, 1}, {6, 1, 1, 0, 1}},
    {3, 6, 33, 1, {6, 3, 1, 2, 2}, {6, 3, 1, 2, 2}},         {40, 2, 3, 1, {1, 1, 1, 0, 1}, {50, 4, 2, 3, 1}},
    {3, 2, 3, 1, {5, 3, 100000, 1, 1}, {4, 2, 60000, 1, 1}}, {3, 2, 3, 1, {1, 5, 90000, 2, 1}, {4, 2, 1, 0, 1}},
    {2, 6, 6, 6, {8, 3, 1, 1, 1}, {8, 5, 1, 2, 1}},          {2, 5, 7, 1, {0, 2, 1, 2, 1}, {3, 1, 1, 0, 1}},
};

std::string describe(const ConvolutionShape& s, const Spikes& kind) {
  std::ostringstream text;
  text << s.frames << " frames, " << s.channels << " -> " << s.outputs << " by " << s.groups << ", y " << s.y.size << ", x " << s.x.size
       << ", rate " << kind.rate << (kind.binary ? "" : " of numbers");
  return text.str();
}

/// A convolution and its arrays.
template <class S>
struct Frames {
  Frames(Random& random, const ConvolutionShape& s, const Spikes& kind)
      : shape(s),
        height(s.y.output()),
        width(s.x.output()),
        of_x(s.frames * s.channels * s.y.size * s.x.size),
        of_y(s.frames * s.outputs * height * width),
        of_weights(s.outputs * (s.channels / s.groups) * s.y.kernel * s.x.kernel),
        x(of_x),
        weights(of_weights),
        bias(s.outputs),
        g(of_y),
        bits(s.frames * packed_words(s.packed().inputs)),
        first(s.frames) {
    fill_with_spikes(random, x, of_x, kind);
    fill(random, weights, of_weights), fill(random, bias, s.outputs), fill(random, g, of_y);
    EXPECT_EQ(pack(s.packed(), x.data(), bits.data(), &count, 1), Status::ok);
    values = std::make_unique<Output<S>>(count.spikes);
    if (count.binary) return;
    EXPECT_EQ(pack_values(s.packed(), x.data(), bits.data(), first.data(), values->data(), 1), Status::ok);
  }

  PackedSpikes<S> packed() const { return {bits.data(), count.binary ? nullptr : first.data(), count.binary ? nullptr : values->data()}; }

  std::int64_t x_at(std::int64_t f, std::int64_t c, std::int64_t p, std::int64_t q) const {
    return ((f * shape.channels + c) * shape.y.size + p) * shape.x.size + q;
  }
  std::int64_t y_at(std::int64_t f, std::int64_t o, std::int64_t i, std::int64_t j) const {
    return ((f * shape.outputs + o) * height + i) * width + j;
  }

  /// Calls visit(c, o, index of x, index of y, index of the weight) for every tap of a frame that meets an output, in the order of x.
  template <class Visit>
  void for_each_tap(std::int64_t f, Visit visit) const {
    const std::int64_t in = shape.channels / shape.groups, out = shape.outputs / shape.groups;
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      for (std::int64_t p = 0; p < shape.y.size; ++p) {
        for (std::int64_t q = 0; q < shape.x.size; ++q) {
          for (std::int64_t k = 0; k < shape.y.kernel; ++k) {
            for (std::int64_t l = 0; l < shape.x.kernel; ++l) {
              const std::int64_t i = p + shape.y.padding - k * shape.y.dilation, j = q + shape.x.padding - l * shape.x.dilation;
              if (i % shape.y.stride != 0 || j % shape.x.stride != 0) continue;
              const std::int64_t row = i / shape.y.stride, column = j / shape.x.stride;
              if (i < 0 || j < 0 || row >= height || column >= width) continue;
              for (std::int64_t o = c / in * out; o < (c / in + 1) * out; ++o) {
                visit(x_at(f, c, p, q), y_at(f, o, row, column), ((o * in + c % in) * shape.y.kernel + k) * shape.x.kernel + l);
              }
            }
          }
        }
      }
    }
  }

  ConvolutionShape shape;
  std::int64_t height, width, of_x, of_y, of_weights;
  Input<S> x, weights, bias, g;
  Output<std::uint64_t> bits;
  Output<std::int64_t> first;
  std::unique_ptr<Output<S>> values;
  SpikeCount count;
};

/// The results of a call for gradients.
template <class S>
struct Grads {
  explicit Grads(const Frames<S>& f) : weights(f.of_weights), bias(f.shape.outputs), x(f.of_x) {}
  bool intact() const { return weights.zones_intact() && bias.zones_intact() && x.zones_intact(); }
  Output<S> weights, bias, x;
};

template <class S>
class Convolutions : public testing::Test {
 protected:
  using V = arithmetic_t<S>;

  static bool has_grad_x(const ConvolutionShape& shape) { return shape.y.stride == 1 && shape.x.stride == 1; }

  /// The call is told of so many `spikes`, which decides how its buffer lies.
  static void expect_convolution(const Frames<S>& f, bool with_bias, std::int64_t spikes, int threads) {
    Output<S> y(f.of_y);
    const CallMemory memory(convolution_workspace<S>(f.shape, spikes, threads));
    const S* const bias = with_bias ? f.bias.data() : nullptr;
    ASSERT_EQ(convolution(f.shape, f.packed(), spikes, f.weights.data(), bias, y.data(), memory.workspace()), Status::ok);
    ASSERT_TRUE(y.zones_intact() && memory.zones_intact());
    std::vector<V> sums(static_cast<std::size_t>(f.of_y));
    for (std::int64_t k = 0; k < f.of_y; ++k) {
      sums[static_cast<std::size_t>(k)] = with_bias ? number(f.bias[k / (f.height * f.width) % f.shape.outputs]) : V(0);
    }
    for (std::int64_t frame = 0; frame < f.shape.frames; ++frame) {
      f.for_each_tap(frame, [&](std::int64_t x, std::int64_t to, std::int64_t weight) {
        V& sum = sums[static_cast<std::size_t>(to)];
        if (number(f.x[x]) != 0) sum = sum + number(f.x[x]) * number(f.weights[weight]);
      });
    }
    for (std::int64_t k = 0; k < f.of_y; ++k) {
      const S expected = element<S>(static_cast<double>(sums[static_cast<std::size_t>(k)]));
      ASSERT_TRUE(same_number(y[k], expected)) << k << ": " << number(y[k]) << ", not " << number(expected);
    }
  }

  static void run_gradients(const Frames<S>& f, bool with_x, std::int64_t spikes, int threads, Grads<S>& grads) {
    const ConvolutionGradients<S> arrays{f.g.data(), grads.weights.data(), grads.bias.data(), f.weights.data(),
                                         with_x ? grads.x.data() : nullptr};
    const CallMemory memory(convolution_gradients_workspace<S>(f.shape, spikes, arrays, threads));
    ASSERT_EQ(convolution_gradients(f.shape, f.packed(), spikes, arrays, memory.workspace()), Status::ok);
    ASSERT_TRUE(grads.intact() && memory.zones_intact());
  }

  static void expect_gradients(const Frames<S>& f, bool with_x, std::int64_t spikes, int threads) {
    Grads<S> grads(f);
    run_gradients(f, with_x, spikes, threads, grads);
    std::vector<double> sums(static_cast<std::size_t>(f.of_weights)), sizes = sums;
    std::vector<double> of_x(static_cast<std::size_t>(f.of_x)), sizes_of_x = of_x, of_bias(static_cast<std::size_t>(f.shape.outputs));
    std::vector<double> sizes_of_bias = of_bias;
    for (std::int64_t frame = 0; frame < f.shape.frames; ++frame) {
      f.for_each_tap(frame, [&](std::int64_t x, std::int64_t y, std::int64_t weight) {
        const double spike = number(f.x[x]), g = number(f.g[y]), w = number(f.weights[weight]);
        if (spike != 0)
          sums[static_cast<std::size_t>(weight)] += spike * g, sizes[static_cast<std::size_t>(weight)] += std::fabs(spike * g);
        of_x[static_cast<std::size_t>(x)] += w * g, sizes_of_x[static_cast<std::size_t>(x)] += std::fabs(w * g);
      });
    }
    for (std::int64_t k = 0; k < f.of_y; ++k) {
      const auto o = static_cast<std::size_t>(k / (f.height * f.width) % f.shape.outputs);
      of_bias[o] += number(f.g[k]), sizes_of_bias[o] += std::fabs(number(f.g[k]));
    }
    expect_near(grads.weights, sums, sizes, "weight");
    expect_near(grads.bias, of_bias, sizes_of_bias, "bias");
    if (with_x) expect_near(grads.x, of_x, sizes_of_x, "x");
  }

  static void expect_near(const Output<S>& found, const std::vector<double>& sums, const std::vector<double>& sizes, const char* name) {
    for (std::size_t k = 0; k < sums.size(); ++k) {
      const double one = number(found[static_cast<std::int64_t>(k)]);
      ASSERT_TRUE(near<S>(one, sums[k], sizes[k])) << name << " " << k << ": " << one << ", not " << sums[k];
    }
  }
};

TYPED_TEST_SUITE(Convolutions, ElementTypes, ElementName);

/// With few spikes the buffer has planes, with many it has the channels of a pixel together.
constexpr std::int64_t few = 0, many = std::int64_t{1} << 40;

TYPED_TEST(Convolutions, AreTheSumsOfTheirDefinition) {
  Random random(1);
  for (const ConvolutionShape& shape : shapes) {
    for (const Spikes& kind : kinds) {
      SCOPED_TRACE(describe(shape, kind));
      const Frames<TypeParam> f(random, shape, kind);
      for (const std::int64_t spikes : {few, many}) {
        this->expect_convolution(f, random.coin(), spikes, 1 + static_cast<int>(random.below(3)));
        this->expect_gradients(f, false, spikes, 1 + static_cast<int>(random.below(3)));
      }
      if (this->has_grad_x(shape)) this->expect_gradients(f, true, few, 1 + static_cast<int>(random.below(3)));
    }
  }
}

TYPED_TEST(Convolutions, HaveTheSameBitsForEveryThreadCount) {
  Random random(2);
  const Frames<TypeParam> f(random, {40, 3, 4, 1, {20, 3, 1, 1, 1}, {20, 3, 1, 1, 1}}, {0.1, false});
  for (const bool with_x : {false, true}) {
    Grads<TypeParam> alone(f);
    this->run_gradients(f, with_x, few, 1, alone);
    for (const int threads : {2, 3, 5}) {
      Grads<TypeParam> grads(f);
      this->run_gradients(f, with_x, few, threads, grads);
      EXPECT_TRUE(grads.weights.same_bits(alone.weights) && grads.bias.same_bits(alone.bias) && grads.x.same_bits(alone.x)) << threads;
    }
  }
}

TYPED_TEST(Convolutions, NeedTheirWorkspace) {
  using S = TypeParam;
  Random random(3);
  for (const std::int64_t spikes : {few, many}) {
    const Frames<S> f(random, {6, 3, 40, 1, {9, 3, 1, 1, 1}, {9, 3, 1, 1, 1}}, {0.1});
    Output<S> y(f.of_y);
    Grads<S> grads(f);
    const ConvolutionGradients<S> arrays{f.g.data(), grads.weights.data(), nullptr, f.weights.data(), grads.x.data()};
    const CallMemory memory(convolution_workspace<S>(f.shape, spikes, 1));
    const CallMemory more(convolution_gradients_workspace<S>(f.shape, spikes, arrays, 1));
    Workspace less = memory.workspace(), fewer = more.workspace();
    --less.bytes, --fewer.bytes;
    EXPECT_EQ(convolution<S>(f.shape, f.packed(), spikes, f.weights.data(), nullptr, y.data(), less), Status::workspace_too_small);
    EXPECT_EQ(convolution_gradients<S>(f.shape, f.packed(), spikes, arrays, fewer), Status::workspace_too_small);
    less.data = fewer.data = nullptr, ++less.bytes, ++fewer.bytes;
    EXPECT_EQ(convolution<S>(f.shape, f.packed(), spikes, f.weights.data(), nullptr, y.data(), less), Status::null_pointer);
    EXPECT_EQ(convolution_gradients<S>(f.shape, f.packed(), spikes, arrays, fewer), Status::null_pointer);
    EXPECT_TRUE(y.untouched() && grads.weights.untouched() && grads.x.untouched());
  }
}

TYPED_TEST(Convolutions, RefuseWhatTheyCannotCompute) {
  using S = TypeParam;
  Random random(4);
  const ConvolutionShape good{2, 4, 6, 2, {9, 3, 1, 1, 1}, {9, 3, 1, 1, 1}};
  const Frames<S> f(random, good, {0.1});
  Output<S> y(f.of_y);
  Grads<S> grads(f);
  const CallMemory memory(convolution_workspace<S>(good, 5, 1));
  const auto run = [&](const ConvolutionShape& shape, const PackedSpikes<S>& x, const S* weights, S* to) {
    return convolution<S>(shape, x, 5, weights, nullptr, to, memory.workspace());
  };
  EXPECT_EQ(run(good, {}, f.weights.data(), y.data()), Status::null_pointer);
  EXPECT_EQ(run(good, {f.bits.data(), nullptr, f.x.data()}, f.weights.data(), y.data()), Status::null_pointer);
  EXPECT_EQ(run(good, f.packed(), nullptr, y.data()), Status::null_pointer);
  EXPECT_EQ(run(good, f.packed(), f.weights.data(), nullptr), Status::null_pointer);
  const auto wrong = [&](auto change) {
    ConvolutionShape shape = good;
    change(shape);
    EXPECT_EQ(run(shape, f.packed(), f.weights.data(), y.data()), Status::bad_layout);
    EXPECT_EQ(convolution_gradients<S>(shape, f.packed(), 5, {f.g.data(), grads.weights.data()}, memory.workspace()), Status::bad_layout);
    EXPECT_EQ(convolution_workspace<S>(shape, 5, 1).bytes, 0u);
    EXPECT_EQ(convolution_gradients_workspace<S>(shape, 5, {f.g.data(), grads.weights.data()}, 1).bytes, 0u);
  };
  wrong([](auto& s) { s.frames = -1; });
  wrong([](auto& s) { s.channels = 3; });
  wrong([](auto& s) { s.outputs = 5; });
  wrong([](auto& s) { s.groups = 0; });
  wrong([](auto& s) { s.y.kernel = 12; });
  wrong([](auto& s) { s.x.kernel = 0; });
  wrong([](auto& s) { s.x.stride = 0; });
  wrong([](auto& s) { s.y.dilation = 0; });
  wrong([](auto& s) { s.y.padding = -1; });
  wrong([](auto& s) { s.y.size = -1; });
  wrong([](auto& s) { s.frames = INT64_MAX; });
  wrong([](auto& s) { s.y.size = s.x.size = 1 << 27; });
  wrong([](auto& s) { s.y.padding = 1LL << 40; });
  wrong([](auto& s) { s.y.padding = s.x.padding = s.y.stride = s.x.stride = 1 << 20; });
  ConvolutionShape strided = good;
  strided.y.stride = 2;
  EXPECT_EQ(convolution_gradients<S>(strided, f.packed(), 5, {f.g.data(), nullptr, nullptr, f.weights.data(), grads.x.data()},
                                     memory.workspace()),
            Status::unsupported);
  EXPECT_TRUE(y.untouched() && grads.weights.untouched() && grads.x.untouched());
}

}   // namespace
}   // namespace exodus::test
