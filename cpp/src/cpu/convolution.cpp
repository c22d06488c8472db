/// @file
/// The exported functions of convolutions of spikes: checks, the buffer's geometry, the runs of taps, the sum of the parts of a gradient.
#include "exodus/convolution.hpp"

#include "../checks.hpp"
#include "../floating_point.hpp"
#include "store.hpp"
#include "threads.hpp"
#include "work.hpp"

namespace exodus {
namespace {

constexpr std::int64_t most_parts = 16, most_tasks = 256;
constexpr std::int64_t slack = 512;          // elements beyond the buffer, that whole vectors may read or add zeros to
constexpr std::int64_t overlapping = 8;      // runs; a spike with fewer waits for those of its neighbour, which they overlap
constexpr double transposed_element = 0.7;   // the time to transpose an element, in that of a run (benchmarks/products.py)

bool valid(const ConvolutionAxis& axis) {
  constexpr std::int64_t most = 1 << 28;
  const auto in = [](std::int64_t x, std::int64_t least) { return least <= x && x <= most; };
  std::int64_t span;
  return in(axis.size, 0) && in(axis.kernel, 1) && in(axis.stride, 1) && in(axis.padding, 0) && in(axis.dilation, 1) &&
         multiply(axis.kernel, axis.dilation, span) && in(span, 1) && axis.output() >= 1;
}

/// The number of remainders by the stride that index + padding can have, and so the taps' offsets, which end within the padding.
std::int64_t remainders(const ConvolutionAxis& axis) {
  const std::int64_t places = axis.size + 2 * axis.padding;
  return axis.stride < places ? axis.stride : places;
}

/// An axis of the buffer: the output with margins.
struct BufferAxis {
  std::int64_t before, size;

  explicit BufferAxis(const ConvolutionAxis& axis) {
    const std::int64_t reach = (axis.kernel - 1) * axis.dilation - axis.padding, last = (axis.size - 1 + axis.padding) / axis.stride;
    before = reach > 0 ? ceil_div(reach, axis.stride) : 0;
    const std::int64_t output = axis.output();
    size = before + (last + 1 > output ? last + 1 : output);
  }
};

Status check(const ConvolutionShape& shape) {
  if (shape.frames < 0 || shape.channels < 1 || shape.outputs < 1 || shape.groups < 1) return Status::bad_layout;
  if (shape.channels % shape.groups != 0 || shape.outputs % shape.groups != 0) return Status::bad_layout;
  if (!valid(shape.y) || !valid(shape.x)) return Status::bad_layout;
  constexpr std::int64_t bytes = 16 * sizeof(double);
  const auto fits = [](std::int64_t most, auto... sizes) {
    std::int64_t product = bytes;
    return (multiply(product, sizes, product) && ...) && product / bytes <= most;
  };
  const std::int64_t height = shape.y.output(), width = shape.x.output();
  const BufferAxis y(shape.y), x(shape.x);
  const bool ok = fits(INT64_MAX, shape.frames, shape.channels + 64, shape.y.size + 1, shape.x.size + 1) &&
                  fits(INT64_MAX, shape.frames, shape.outputs, height, width) && fits(INT32_MAX / 2, shape.outputs, y.size, x.size) &&
                  fits(INT32_MAX / 2, shape.y.size + 1, shape.x.size + 1) &&
                  fits(INT32_MAX / 64, remainders(shape.y), remainders(shape.x)) &&
                  fits(INT32_MAX / 64, shape.outputs, shape.channels, shape.y.kernel, shape.x.kernel);
  return ok ? Status::ok : Status::bad_layout;
}

/// The number of kinds of pixels, which meet different taps.
std::int64_t kinds(const ConvolutionShape& shape) {
  return remainders(shape.y) * remainders(shape.x);
}

/// The runs of taps, in the order of kinds of pixels. A kind is a remainder of y + padding and x + padding by the strides.
template <class V>
class Runs {
 public:
  Runs(const ConvolutionShape& shape, bool planes, std::int64_t lanes, std::int64_t plane, std::int64_t buffer_width)
      : shape_(shape), planes_(planes), lanes_(lanes), plane_(plane), width_(buffer_width) {}

  /// Calls run(kind, offset, tap_of), where tap_of(lane) is the lane's tap, as its index in the weights of a group's input channel: output
  /// * taps + tap; -1 if it has none.
  template <class Run>
  void for_each(Run run) const {
    const ConvolutionAxis &y = shape_.y, &x = shape_.x;
    const std::int64_t outputs = shape_.outputs / shape_.groups;
    const bool joined = x.stride == 1 && x.dilation == 1 && (planes_ || shape_.groups == 1);
    for (std::int64_t kind = 0; kind < kinds(shape_); ++kind) {
      const std::int64_t remainder_y = kind / remainders(x), remainder_x = kind % remainders(x);
      for (std::int64_t ky = 0; ky < y.kernel; ++ky) {
        if ((remainder_y - ky * y.dilation) % y.stride != 0) continue;
        const std::int64_t row = (remainder_y - ky * y.dilation) / y.stride * width_;
        for (std::int64_t kx = joined ? x.kernel - 1 : 0; kx < x.kernel; ++kx) {
          if ((remainder_x - kx * x.dilation) % x.stride != 0) continue;
          const std::int64_t pixel = row + (remainder_x - kx * x.dilation) / x.stride;
          // From here on lie the taps ky, kx and, if they are joined, those before kx.
          for (std::int64_t o = 0; o < (planes_ ? outputs : 1); ++o) {
            const std::int64_t taps = joined ? x.kernel : 1, channels = planes_ ? 1 : outputs;
            for (std::int64_t first = 0; first < taps * channels; first += lanes_) {
              const std::int64_t offset = (planes_ ? o * plane_ + pixel : pixel * shape_.outputs) + first;
              run(kind, offset, [&](std::int64_t lane) -> std::int64_t {
                const std::int64_t at = first + lane;
                if (at >= taps * channels) return -1;
                const std::int64_t output = planes_ ? o : at % channels, tap = ky * x.kernel + kx - at / channels;
                return output * y.kernel * x.kernel + tap;
              });
            }
          }
        }
      }
    }
  }

  std::int64_t count() const {
    std::int64_t count = 0;
    for_each([&](std::int64_t, std::int64_t, auto&&) { ++count; });
    return count;
  }

 private:
  const ConvolutionShape& shape_;
  const bool planes_;
  const std::int64_t lanes_, plane_, width_;
};

/// The plan of a call, and the memory that its threads share.
template <class V>
class Convolution {
 public:
  Convolution(const ConvolutionShape& shape, std::int64_t spikes, bool gradients, bool with_x) : gradients_(gradients) {
    const BufferAxis y(shape.y), x(shape.x);
    plan.shape = shape;
    plan.pixels = shape.y.size * shape.x.size;
    plan.output_height = shape.y.output(), plan.output_width = shape.x.output();
    plan.group_channels = shape.channels / shape.groups;
    plan.margin_y = y.before, plan.margin_x = x.before;
    plan.buffer_width = x.size, plan.plane = y.size * x.size;
    plan.buffer_size = shape.outputs * plan.plane + slack;
    plan.grad_plane = with_x ? ceil_div(shape.y.size * plan.buffer_width + slack / 2, 64) * 64 : 0;
    choose(spikes, with_x);
    plan.group_offset = shape.outputs / shape.groups * (plan.planes ? plan.plane : 1);
    plan.bias_size = ceil_div(shape.outputs, line) * line;
    plan.partial_size = shape.channels * plan.all_runs * plan.run_lanes + plan.bias_size;
    if (gradients) {
      // The parts' sums should take no more memory than the arrays of the convolution.
      const std::int64_t of_arrays = shape.frames * (shape.channels * plan.pixels + shape.outputs * plan.output_height * plan.output_width);
      tasks = smallest(smallest(most_parts, shape.frames), of_arrays / plan.partial_size);
    } else {
      tasks = smallest(most_tasks, shape.frames);
    }
    if (tasks < 1) tasks = 1;
    plan.task_frames = ceil_div(shape.frames, tasks);
  }

  /// The shared memory: tables, weights, and the sums of parts.
  void take(cpu::Arena& arena) {
    const ConvolutionShape& shape = plan.shape;
    places_ = arena.take<cpu::ConvolutionPlace>(plan.pixels);
    runs_ = arena.take<cpu::ConvolutionRuns>(kinds(shape));
    offsets_ = arena.take<std::int32_t>(plan.all_runs);
    lengths_ = arena.take<std::int32_t>(plan.all_runs);
    taps_ = arena.take<std::int32_t>(plan.all_runs * plan.run_lanes);
    weights_ = arena.take<V>(gradients_ ? 0 : shape.channels * plan.all_runs * plan.run_lanes);
    bias_ = arena.take<V>(gradients_ ? 0 : shape.outputs);
    const std::int64_t taps = shape.y.kernel * shape.x.kernel;
    tap_weights_ = arena.take<V>(plan.grad_plane == 0 ? 0 : shape.outputs * plan.group_channels * taps);
    tap_offsets_ = arena.take<std::int64_t>(plan.grad_plane == 0 ? 0 : taps);
    plan.partials = arena.take<V>(gradients_ ? tasks * plan.partial_size : 0);
  }

  std::size_t shared_bytes() const {
    return bytes_of([copy = *this](cpu::Arena& arena) mutable { copy.take(arena); });
  }

  /// The bytes of a thread's slot. grad_x is set where it is wanted.
  std::size_t slot_bytes() const {
    return bytes_of([&](cpu::Arena& arena) { cpu::ConvolutionMemory<V>(arena, plan); });
  }

  void set_tables() {
    const ConvolutionAxis &y = plan.shape.y, &x = plan.shape.x;
    for (std::int64_t p = 0; p < y.size; ++p) {
      for (std::int64_t q = 0; q < x.size; ++q) {
        const std::int64_t at_y = p + y.padding, at_x = q + x.padding;
        const std::int64_t pixel = (at_y / y.stride + plan.margin_y) * plan.buffer_width + at_x / x.stride + plan.margin_x;
        places_[p * x.size + q] = {static_cast<std::int32_t>(plan.planes ? pixel : pixel * plan.shape.outputs),
                                   static_cast<std::int32_t>(at_y % y.stride * remainders(x) + at_x % x.stride)};
      }
    }
    for (std::int64_t kind = 0; kind < kinds(plan.shape); ++kind) runs_[kind] = {0, 0};
    std::int64_t r = 0;
    all().for_each([&](std::int64_t kind, std::int64_t offset, auto&& tap_of) {
      if (runs_[kind].count++ == 0) runs_[kind].first = r;
      offsets_[r] = static_cast<std::int32_t>(offset);
      lengths_[r] = 0;
      for (std::int64_t lane = 0; lane < plan.run_lanes; ++lane) {
        const auto tap = static_cast<std::int32_t>(tap_of(lane));
        taps_[r * plan.run_lanes + lane] = tap;
        lengths_[r] += tap >= 0;
      }
      ++r;
    });
    plan.places = places_, plan.runs = runs_, plan.offsets = offsets_, plan.lengths = lengths_;
  }

  template <class S>
  void set_weights(const S* weights, const S* bias) {
    for_each_tap([&](std::int64_t at, std::int64_t weight) { weights_[at] = weight < 0 ? -V(0) : cpu::number_of<V>(weights[weight]); });
    for (std::int64_t o = 0; o < plan.shape.outputs; ++o) bias_[o] = bias == nullptr ? V(0) : cpu::number_of<V>(bias[o]);
    plan.weights = weights_, plan.bias = bias_;
  }

  template <class S>
  void set_taps(const S* weights) {
    const ConvolutionAxis &y = plan.shape.y, &x = plan.shape.x;
    const std::int64_t taps = y.kernel * x.kernel;
    for (std::int64_t k = 0; k < plan.shape.outputs * plan.group_channels * taps; ++k) tap_weights_[k] = cpu::number_of<V>(weights[k]);
    const std::int64_t first = (y.padding + plan.margin_y) * plan.buffer_width + x.padding + plan.margin_x;
    for (std::int64_t t = 0; t < taps; ++t) {
      tap_offsets_[t] = first - t / x.kernel * y.dilation * plan.buffer_width - t % x.kernel * x.dilation;
    }
    plan.tap_weights = tap_weights_, plan.tap_offsets = tap_offsets_;
  }

  /// Sums the parts in order, and stores them.
  template <class S>
  void store(S* grad_weights, S* grad_bias) const {
    const auto sum = [&](std::int64_t at) {
      V total = V(0);
      for (std::int64_t part = 0; part < tasks; ++part) total += plan.partials[part * plan.partial_size + at];
      return total;
    };
    if (grad_weights != nullptr) {
      for_each_tap([&](std::int64_t at, std::int64_t weight) {
        if (weight >= 0) cpu::set_element<V>(grad_weights[weight], sum(at));
      });
    }
    for (std::int64_t o = 0; grad_bias != nullptr && o < plan.shape.outputs; ++o) {
      cpu::set_element<V>(grad_bias[o], sum(plan.partial_size - plan.bias_size + o));
    }
  }

  cpu::ConvolutionPlan<V> plan;
  std::int64_t tasks = 1;

 private:
  static constexpr std::int64_t line = 64 / sizeof(V), plane_lanes = 4;

  static std::int64_t smallest(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

  Runs<V> runs_of(bool planes, std::int64_t lanes) const { return {plan.shape, planes, lanes, plan.plane, plan.buffer_width}; }
  Runs<V> all() const { return runs_of(plan.planes, plan.run_lanes); }

  /// Chooses how the buffer lies: planes need more runs for a spike, and channels that lie together are transposed.
  void choose(std::int64_t spikes, bool with_x) {
    const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
    const std::int64_t lanes = isa == nullptr ? plane_lanes : isa->lanes;
    const std::int64_t by_planes = runs_of(true, plane_lanes).count(), together = runs_of(false, lanes).count();
    const auto kinds_of_pixels = static_cast<double>(kinds(plan.shape));
    const double elements = static_cast<double>(plan.shape.frames * plan.shape.outputs) * static_cast<double>(plan.plane);
    const double of_planes = static_cast<double>(by_planes) / kinds_of_pixels, of_pixels = static_cast<double>(together) / kinds_of_pixels;
    const double more_runs = static_cast<double>(spikes) * (of_planes - (of_pixels < overlapping ? overlapping : of_pixels));
    plan.planes = with_x || more_runs <= transposed_element * elements;
    plan.run_lanes = plan.planes ? plane_lanes : lanes;
    plan.all_runs = plan.planes ? by_planes : together;
  }

  /// Calls visit(place in the runs' weights, index in the weights) for each lane of each run of each channel; the index is -1 for none.
  template <class Visit>
  void for_each_tap(Visit visit) const {
    const std::int64_t taps = plan.shape.y.kernel * plan.shape.x.kernel, lanes = plan.all_runs * plan.run_lanes;
    const std::int64_t group_outputs = plan.shape.outputs / plan.shape.groups;
    for (std::int64_t c = 0; c < plan.shape.channels; ++c) {
      const std::int64_t first = c / plan.group_channels * group_outputs, own = c % plan.group_channels;
      for (std::int64_t k = 0; k < lanes; ++k) {
        const std::int64_t output = taps_[k] / taps, tap = taps_[k] % taps;
        visit(c * lanes + k, taps_[k] < 0 ? -1 : ((first + output) * plan.group_channels + own) * taps + tap);
      }
    }
  }

  const bool gradients_;
  cpu::ConvolutionPlace* places_ = nullptr;
  cpu::ConvolutionRuns* runs_ = nullptr;
  std::int32_t *offsets_ = nullptr, *lengths_ = nullptr, *taps_ = nullptr;
  V *weights_ = nullptr, *bias_ = nullptr, *tap_weights_ = nullptr;
  std::int64_t* tap_offsets_ = nullptr;
};

/// The threads for a convolution with this many elements of x and y.
int threads_for(const ConvolutionShape& shape, int threads) {
  const std::int64_t outputs = shape.outputs * shape.y.output() * shape.x.output();
  return threads_for(Layout{1, shape.frames, shape.channels * shape.y.size * shape.x.size + outputs}, threads);
}

template <class S>
bool valid(const PackedSpikes<S>& x, const ConvolutionShape& shape) {
  return shape.frames == 0 || shape.y.size == 0 || shape.x.size == 0 || valid(x);
}

template <class V>
void set_spikes(cpu::ConvolutionPlan<V>& plan, Format format, const std::uint64_t* bits, const std::int64_t* first, const void* values) {
  plan.format = format;
  plan.bits = bits, plan.first = first, plan.values = values;
}

/// Runs the tasks of a plan on as many threads as have slots in the memory that is left.
template <class V, class Function>
void run(Convolution<V>& own, Function function, const Workspace& workspace) {
  const std::size_t shared = own.shared_bytes(), slot = own.slot_bytes();
  cpu::ConvolutionPlan<V>& plan = own.plan;
  plan.slots = static_cast<char*>(workspace.data) + shared;
  plan.slot_bytes = slot;
  const int threads = threads_with_slots(threads_for(plan.shape, workspace.threads), slot, workspace.bytes - shared);
  auto task = [&](std::int64_t k, int thread) { function(plan, k, thread); };
  cpu::parallel_for(own.tasks, threads, task);
}

template <class V>
Workspace needed(const Convolution<V>& own, int threads) {
  const std::int64_t most = threads_for(own.plan.shape, threads);
  return {nullptr, own.shared_bytes() + static_cast<std::size_t>(own.tasks < most ? own.tasks : most) * own.slot_bytes(), threads};
}

}   // namespace

template <class S>
Status convolution(const ConvolutionShape& shape, const PackedSpikes<S>& x, std::int64_t spikes, const S* weights, const S* bias, S* y,
                   Workspace workspace) noexcept {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check(shape); status != Status::ok) return status;
  if (shape.frames == 0) return Status::ok;
  if (weights == nullptr || y == nullptr || !valid(x, shape)) return Status::null_pointer;
  if (workspace.bytes < convolution_workspace<S>(shape, spikes, 1).bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  Convolution<V> own(shape, spikes, false, false);
  cpu::Arena arena(workspace.data);
  own.take(arena);
  own.set_tables();
  own.set_weights(weights, bias);
  set_spikes(own.plan, format_of<S>, x.bits, x.first, x.values);
  own.plan.y = y;
  run(own, isa->convolution, workspace);
  return Status::ok;
}

template <class S>
Status convolution_gradients(const ConvolutionShape& shape, const PackedSpikes<S>& x, std::int64_t spikes,
                             const ConvolutionGradients<S>& arrays, Workspace workspace) noexcept {
  using V = arithmetic_t<S>;
  const cpu::IsaFunctions<V>* const isa = isa_functions<V>();
  if (isa == nullptr) return Status::unsupported;
  if (const Status status = check(shape); status != Status::ok) return status;
  if (arrays.grad_x != nullptr && (shape.y.stride != 1 || shape.x.stride != 1)) return Status::unsupported;
  if (shape.frames > 0) {
    if (arrays.grad_y == nullptr || (arrays.grad_x != nullptr && arrays.weights == nullptr)) return Status::null_pointer;
    if (arrays.grad_weights != nullptr && !valid(x, shape)) return Status::null_pointer;
  }
  if (workspace.bytes < convolution_gradients_workspace<S>(shape, spikes, arrays, 1).bytes) return Status::workspace_too_small;
  if (workspace.data == nullptr) return Status::null_pointer;
  const FloatingPointMode mode;
  Convolution<V> own(shape, spikes, true, arrays.grad_x != nullptr);
  own.plan.grad_x = arrays.grad_x;
  cpu::Arena arena(workspace.data);
  own.take(arena);
  own.set_tables();
  if (arrays.grad_x != nullptr && shape.frames > 0) own.set_taps(arrays.weights);
  set_spikes(own.plan, format_of<S>, x.bits, x.first, x.values);
  own.plan.grad_y = arrays.grad_y;
  own.plan.with_weights = arrays.grad_weights != nullptr, own.plan.with_bias = arrays.grad_bias != nullptr;
  run(own, isa->convolution_gradient, workspace);
  own.store(arrays.grad_weights, arrays.grad_bias);
  return Status::ok;
}

template <class S>
Workspace convolution_workspace(const ConvolutionShape& shape, std::int64_t spikes, int threads) noexcept {
  if (check(shape) != Status::ok || shape.frames == 0) return {nullptr, 0, threads};
  Convolution<arithmetic_t<S>> own(shape, spikes, false, false);
  return needed(own, threads);
}

template <class S>
Workspace convolution_gradients_workspace(const ConvolutionShape& shape, std::int64_t spikes, const ConvolutionGradients<S>& arrays,
                                          int threads) noexcept {
  if (check(shape) != Status::ok) return {nullptr, 0, threads};
  Convolution<arithmetic_t<S>> own(shape, spikes, true, arrays.grad_x != nullptr);
  own.plan.grad_x = arrays.grad_x;
  return needed(own, threads);
}

#define EXODUS_INSTANTIATE(S)                                                                                                             \
  template EXODUS_API Status convolution<S>(const ConvolutionShape&, const PackedSpikes<S>&, std::int64_t, const S*, const S*, S*,        \
                                            Workspace) noexcept;                                                                          \
  template EXODUS_API Status convolution_gradients<S>(const ConvolutionShape&, const PackedSpikes<S>&, std::int64_t,                      \
                                                      const ConvolutionGradients<S>&, Workspace) noexcept;                                \
  template EXODUS_API Workspace convolution_workspace<S>(const ConvolutionShape&, std::int64_t, int) noexcept;                            \
  template EXODUS_API Workspace convolution_gradients_workspace<S>(const ConvolutionShape&, std::int64_t, const ConvolutionGradients<S>&, \
                                                                   int) noexcept;
EXODUS_INSTANTIATE(float)
EXODUS_INSTANTIATE(double)
EXODUS_INSTANTIATE(float16)
EXODUS_INSTANTIATE(bfloat16)

}   // namespace exodus
