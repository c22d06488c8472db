/// @file
/// float16 and bfloat16 are what their fields say, and a float becomes the nearest of them, of two the even one.
#include <algorithm>

#include "support.hpp"

namespace exodus::test {
namespace {

/// A type as its fields: sign, exponent, mantissa.
template <int Mantissa, int Exponent>
struct Fields {
  static constexpr int bias = (1 << (Exponent - 1)) - 1;
  static constexpr std::uint16_t infinity = ((1 << Exponent) - 1) << Mantissa;

  /// |x|, as if numbers went on beyond the largest one.
  static double magnitude(int bits) {
    const int exponent = bits >> Mantissa, mantissa = bits & ((1 << Mantissa) - 1);
    return exponent == 0 ? std::ldexp(mantissa, 1 - bias - Mantissa) : std::ldexp((1 << Mantissa) + mantissa, exponent - bias - Mantissa);
  }
};

struct Float16 : Fields<10, 5> {
  using Type = float16;
  static Type of(float x) { return to_float16(x); }
};
struct Bfloat16 : Fields<7, 8> {
  using Type = bfloat16;
  static Type of(float x) { return to_bfloat16(x); }
};

template <class Half>
class Halves : public testing::Test {
 protected:
  Halves() {
    for (int bits = 0; bits <= Half::infinity; ++bits) magnitudes_.push_back(Half::magnitude(bits));
  }

  /// The nearest to a float that is not NaN, by comparison with its neighbours.
  std::uint16_t nearest(float x) const {
    const double magnitude = std::min(std::abs(double(x)), magnitudes_.back());
    const auto above = std::lower_bound(magnitudes_.begin(), magnitudes_.end(), magnitude);
    auto bits = static_cast<std::uint16_t>(above - magnitudes_.begin());
    if (*above != magnitude) {
      const double up = *above - magnitude, down = magnitude - above[-1];
      if (down < up || (down == up && bits % 2 == 1)) --bits;
    }
    return static_cast<std::uint16_t>(bits | (std::signbit(x) ? 0x8000 : 0));
  }

  void expect_nearest(float x) const {
    for (const float y : {x, -x}) ASSERT_EQ(Half::of(y).bits, nearest(y)) << y;
  }

  std::vector<double> magnitudes_;
};

struct HalfName {
  template <class Half>
  static std::string GetName(int) {
    return std::is_same_v<Half, Float16> ? "float16" : "bfloat16";
  }
};
using Types = testing::Types<Float16, Bfloat16>;
TYPED_TEST_SUITE(Halves, Types, HalfName);

TYPED_TEST(Halves, AreWhatTheirFieldsSay) {
  for (int bits = 0; bits < 1 << 16; ++bits) {
    const typename TypeParam::Type half{static_cast<std::uint16_t>(bits)};
    const int magnitude = bits & 0x7fff;
    const float x = to_float(half);
    if (magnitude > TypeParam::infinity) {
      ASSERT_TRUE(std::isnan(x)) << bits;
      ASSERT_EQ(TypeParam::of(x).bits, 0x7fff) << bits;
      continue;
    }
    ASSERT_EQ(std::abs(double(x)), magnitude == TypeParam::infinity ? INFINITY : TypeParam::magnitude(magnitude)) << bits;
    ASSERT_EQ(std::signbit(x), bits >= 0x8000) << bits;
    ASSERT_EQ(TypeParam::of(x).bits, bits);
  }
}

TYPED_TEST(Halves, RoundAtEveryMidpoint) {
  for (int bits = 0; bits < TypeParam::infinity; ++bits) {
    const double midpoint = (TypeParam::magnitude(bits) + TypeParam::magnitude(bits + 1)) / 2;
    for (const float x : {float(TypeParam::magnitude(bits)), float(midpoint)}) {
      ASSERT_NO_FATAL_FAILURE(this->expect_nearest(x));
      ASSERT_NO_FATAL_FAILURE(this->expect_nearest(std::nextafter(x, 0.0f)));
      ASSERT_NO_FATAL_FAILURE(this->expect_nearest(std::nextafter(x, INFINITY)));
    }
  }
}

TYPED_TEST(Halves, RoundAnyFloat) {
  Random random(1);
  for (int turn = 0; turn < 1000000; ++turn) {
    const auto bits = static_cast<std::uint32_t>(random.bits());
    const float x = __builtin_bit_cast(float, bits);
    if (std::isnan(x)) {
      ASSERT_EQ(TypeParam::of(x).bits, 0x7fff) << bits;
    } else {
      ASSERT_NO_FATAL_FAILURE(this->expect_nearest(x));
    }
  }
}

TYPED_TEST(Halves, KnowNoLargerNumberThanInfinity) {
  this->expect_nearest(std::numeric_limits<float>::max());
  this->expect_nearest(INFINITY);
  this->expect_nearest(std::numeric_limits<float>::denorm_min());
  for (const std::uint32_t nan : {0x7f800001u, 0xff800001u, 0x7fc00000u, 0xffc00000u, 0x7fffffffu, 0xffffffffu}) {
    EXPECT_EQ(TypeParam::of(__builtin_bit_cast(float, nan)).bits, 0x7fff) << nan;
  }
}

}   // namespace
}   // namespace exodus::test
