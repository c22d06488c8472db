/// @file
/// Convolutions of spikes (exodus/convolution.hpp) on the CPU, a frame at a time. The output of a frame, or its gradient, lies in a buffer
/// with margins, so that a spike adds, or reads, the same runs of numbers wherever it is. Either each output channel has a plane, and a run
/// has the taps of a kernel's row; or pixels have their channels together, and a run has those of all these taps.
#pragma once

#include "product.hpp"

namespace exodus::cpu {
namespace {

/// Calls visit(channel, pixel, index) for each spike of a frame; `index` counts the frame's spikes.
template <class Visit>
EXODUS_SCALAR void for_spikes(const std::uint64_t* bits, std::int64_t channels, std::int64_t pixels, Visit visit) {
  const std::int64_t words = packed_words(channels * pixels);
  std::int64_t channel = 0, begin = 0, index = 0;
  for (std::int64_t w = 0; w < words; ++w) {
    for (std::uint64_t word = bits[w]; word != 0; word &= word - 1) {
      const std::int64_t at = w * 64 + __builtin_ctzll(word);
      while (at - begin >= pixels) ++channel, begin += pixels;
      visit(channel, at - begin, index++);
    }
  }
}

/// Adds a spike's taps to the buffer. X is the vector of a run; lanes beyond the taps have a weight of -0.
template <class X, bool Binary, class V>
EXODUS_SCALAR void scatter(V* at, const std::int32_t* offsets, std::int64_t runs, const V* weights, V spike) {
  constexpr auto lanes = static_cast<std::int64_t>(sizeof(X) / sizeof(V));
  for (std::int64_t r = 0; r < runs; ++r) {
    X sum, weight;
    __builtin_memcpy(&sum, at + offsets[r], sizeof sum);
    __builtin_memcpy(&weight, weights + r * lanes, sizeof weight);
    sum = Binary ? sum + weight : sum + spike * weight;
    __builtin_memcpy(at + offsets[r], &sum, sizeof sum);
  }
}

/// The same for a NaN or an infinity, which must not meet lanes beyond the taps.
template <class X, class V>
void scatter_by_element(V* at, const std::int32_t* offsets, const std::int32_t* lengths, std::int64_t runs, const V* weights, V spike) {
  constexpr auto lanes = static_cast<std::int64_t>(sizeof(X) / sizeof(V));
  for (std::int64_t r = 0; r < runs; ++r) {
    for (std::int64_t l = 0; l < lengths[r]; ++l) at[offsets[r] + l] = at[offsets[r] + l] + spike * weights[r * lanes + l];
  }
}

/// Adds the numbers of the buffer that a spike meets to the sums of its channel.
template <class X, bool Binary, class V>
EXODUS_SCALAR void gather_taps(const V* at, const std::int32_t* offsets, std::int64_t runs, V* sums, V spike) {
  constexpr auto lanes = static_cast<std::int64_t>(sizeof(X) / sizeof(V));
  for (std::int64_t r = 0; r < runs; ++r) {
    X sum, g;
    __builtin_memcpy(&g, at + offsets[r], sizeof g);
    __builtin_memcpy(&sum, sums + r * lanes, sizeof sum);
    sum = Binary ? sum + g : sum + spike * g;
    __builtin_memcpy(sums + r * lanes, &sum, sizeof sum);
  }
}

/// The same for a NaN or an infinity, which must not meet the margins of the buffer.
template <class X, class V>
void gather_by_element(const ConvolutionPlan<V>& plan, const V* buffer, std::int64_t place, std::int64_t first, std::int64_t runs, V* sums,
                       V spike) {
  constexpr auto lanes = static_cast<std::int64_t>(sizeof(X) / sizeof(V));
  for (std::int64_t r = 0; r < runs; ++r) {
    for (std::int64_t l = 0; l < plan.lengths[first + r]; ++l) {
      const std::int64_t at = place + plan.offsets[first + r] + l, pixel = plan.planes ? at % plan.plane : at / plan.shape.outputs;
      const std::int64_t row = pixel / plan.buffer_width - plan.margin_y, column = pixel % plan.buffer_width - plan.margin_x;
      const bool inside = 0 <= row && row < plan.output_height && 0 <= column && column < plan.output_width;
      if (inside) sums[r * lanes + l] += spike * buffer[at];
    }
  }
}

/// The spikes of a frame with their values, and where they meet the buffer.
template <class V>
class Frame {
 public:
  Frame(const ConvolutionPlan<V>& plan, std::int64_t frame)
      : plan_(plan), bits_(plan.bits + frame * packed_words(plan.pixels * plan.shape.channels)) {
    first_ = plan.values == nullptr ? 0 : plan.first[frame];
  }

  /// Calls visit(place, first, runs, taps, spike): the offset in the buffer, the first of the runs from there and their number, where
  /// these runs' taps begin in the weights or their sums, and the spike's number.
  template <class Visit>
  [[gnu::always_inline]] void for_each(Visit visit) const {
    for_spikes(bits_, plan_.shape.channels, plan_.pixels,
               [&](std::int64_t channel, std::int64_t pixel, std::int64_t index) __attribute__((always_inline)) {
                 const ConvolutionPlace& place = plan_.places[pixel];
                 const ConvolutionRuns& runs = plan_.runs[place.kind];
                 const std::int64_t group = plan_.shape.groups == 1 ? 0 : channel / plan_.group_channels;
                 visit(place.offset + group * plan_.group_offset, runs.first, runs.count,
                       (channel * plan_.all_runs + runs.first) * plan_.run_lanes, spike(index));
               });
  }

 private:
  V spike(std::int64_t index) const { return plan_.values == nullptr ? V(1) : SpikeValues<V>{plan_.values, plan_.format}[first_ + index]; }

  const ConvolutionPlan<V>& plan_;
  const std::uint64_t* const bits_;
  std::int64_t first_;
};

/// Calls f<X, Binary>(), with the vector of a run, and whether all spikes are 1.
template <class V, class F>
EXODUS_SCALAR void with_runs(const ConvolutionPlan<V>& plan, F f) {
  const bool binary = plan.values == nullptr;
  if (plan.planes) return binary ? f.template operator()<Quad<V>, true>() : f.template operator()<Quad<V>, false>();
  binary ? f.template operator()<Vector<V>, true>() : f.template operator()<Vector<V>, false>();
}

/// The rows of output channels in the buffer.
template <class V>
EXODUS_SCALAR V* buffer_row(const ConvolutionPlan<V>& plan, V* buffer, std::int64_t output, std::int64_t row) {
  const std::int64_t pixel = (row + plan.margin_y) * plan.buffer_width + plan.margin_x;
  return plan.planes ? buffer + output * plan.plane + pixel : buffer + pixel * plan.shape.outputs;
}

/// Fills the buffer with the bias.
template <class V>
void fill_with_bias(const ConvolutionPlan<V>& plan, V* buffer) {
  const std::int64_t outputs = plan.shape.outputs;
  if (plan.planes) {
    for (std::int64_t o = 0; o < outputs; ++o) {
      V* const plane = buffer + o * plan.plane;
      const V bias = plan.bias[o];
      EXODUS_LANES
      for (std::int64_t k = 0; k < plan.plane; ++k) plane[k] = bias;
    }
    return;
  }
  for (std::int64_t pixel = 0; pixel < plan.plane; ++pixel) {
    V* const to = buffer + pixel * outputs;
    EXODUS_LANES
    for (std::int64_t o = 0; o < outputs; ++o) to[o] = plan.bias[o];
  }
}

/// Writes the buffer as (outputs, height, width).
template <class V>
void write_frame(const ConvolutionPlan<V>& plan, V* buffer, V* rows, std::int64_t frame) {
  const std::int64_t outputs = plan.shape.outputs, height = plan.output_height, width = plan.output_width;
  with_elements<V>(plan.y, plan.format, [&](auto* y) {
    auto* const to = y + frame * outputs * height * width;
    for (std::int64_t row = 0; plan.planes && row < outputs * height; ++row) {
      write_lanes(to + row * width, buffer_row(plan, buffer, row / height, row % height), width);
    }
    for (std::int64_t row = 0; !plan.planes && row < height; ++row) {
      transpose(buffer_row(plan, buffer, 0, row), outputs, rows, width, width, outputs);
      for (std::int64_t o = 0; o < outputs; ++o) write_lanes(to + (o * height + row) * width, rows + o * width, width);
    }
  });
}

/// Reads the gradient of a frame into the buffer, whose margins are zero.
template <class V>
void read_frame(const ConvolutionPlan<V>& plan, V* buffer, V* rows, std::int64_t frame) {
  const std::int64_t outputs = plan.shape.outputs, height = plan.output_height, width = plan.output_width;
  with_elements<V>(static_cast<const void*>(plan.grad_y), plan.format, [&](const auto* grad_y) {
    const auto* const from = grad_y + frame * outputs * height * width;
    for (std::int64_t row = 0; plan.planes && row < outputs * height; ++row) {
      read_lanes(buffer_row(plan, buffer, row / height, row % height), from + row * width, width);
    }
    for (std::int64_t row = 0; !plan.planes && row < height; ++row) {
      for (std::int64_t o = 0; o < outputs; ++o) read_lanes(rows + o * width, from + (o * height + row) * width, width);
      transpose(rows, width, buffer_row(plan, buffer, 0, row), outputs, outputs, width);
    }
  });
}

/// The frames of a task of y = x * w + b.
template <class V>
void convolution_frames(const ConvolutionPlan<V>& plan, std::int64_t task, int thread) {
  Arena arena(plan.slots + static_cast<std::size_t>(thread) * plan.slot_bytes);
  const ConvolutionMemory<V> memory(arena, plan);
  const std::int64_t end = smaller(plan.shape.frames, (task + 1) * plan.task_frames);
  for (std::int64_t frame = task * plan.task_frames; frame < end; ++frame) {
    fill_with_bias(plan, memory.buffer);
    const Frame<V> spikes(plan, frame);
    with_runs(plan, [&]<class X, bool Binary>() {
      const auto add = [&](std::int64_t place, std::int64_t first, std::int64_t runs, std::int64_t taps, V spike)
                           __attribute__((always_inline)) {
                             V* const at = memory.buffer + place;
                             if (!Binary && spike - spike != V(0)) {
                               scatter_by_element<X>(at, plan.offsets + first, plan.lengths + first, runs, plan.weights + taps, spike);
                             } else {
                               scatter<X, Binary>(at, plan.offsets + first, runs, plan.weights + taps, spike);
                             }
                           };
      spikes.for_each(add);
    });
    write_frame(plan, memory.buffer, memory.rows, frame);
  }
}

/// Adds the gradient of the bias, the sum of each output channel.
template <class V>
void add_bias_gradient(const ConvolutionPlan<V>& plan, V* buffer, V* sums) {
  const std::int64_t outputs = plan.shape.outputs, height = plan.output_height, width = plan.output_width;
  for (std::int64_t row = 0; !plan.planes && row < height; ++row) {
    const V* from = buffer_row(plan, buffer, 0, row);
    for (std::int64_t k = 0; k < width; ++k, from += outputs) {
      EXODUS_LANES
      for (std::int64_t o = 0; o < outputs; ++o) sums[o] += from[o];
    }
  }
  for (std::int64_t row = 0; plan.planes && row < outputs * height; ++row) {
    const V* const from = buffer_row(plan, buffer, row / height, row % height);
    Vector<V> lanes{};
    std::int64_t k = 0;
    for (; k + simd_lanes<V> <= width; k += simd_lanes<V>) lanes += load(from + k);
    V total = V(0);
    for (int l = 0; l < simd_lanes<V>; ++l) total += lanes[l];
    for (; k < width; ++k) total += from[k];
    sums[row / height] += total;
  }
}

/// The vectors, and the input channels, whose gradients are summed together.
constexpr int direct_vectors = vector_bytes == 64 ? 4 : 2, direct_channels = 4;

/// Computes `Channels` planes of the gradient of x, from a pixel on: the sum over outputs and taps, along the rows of the buffer.
template <int Channels, class V>
EXODUS_SCALAR void direct_gradient(const ConvolutionPlan<V>& plan, const V* g, std::int64_t channel, std::int64_t pixel, V* to) {
  const std::int64_t taps = plan.shape.y.kernel * plan.shape.x.kernel, group_outputs = plan.shape.outputs / plan.shape.groups;
  const std::int64_t first = channel / plan.group_channels * group_outputs, own = channel % plan.group_channels;
  Vector<V> sums[Channels][direct_vectors] = {};
  for (std::int64_t o = 0; o < group_outputs; ++o) {
    const V* const plane = g + (first + o) * plan.plane + pixel;
    const V* const weights = plan.tap_weights + ((first + o) * plan.group_channels + own) * taps;
    for (std::int64_t t = 0; t < taps; ++t) {
      Vector<V> values[direct_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < direct_vectors; ++v) values[v] = load(plane + plan.tap_offsets[t] + v * simd_lanes<V>);
#pragma GCC unroll 4
      for (int c = 0; c < Channels; ++c) {
        const Vector<V> weight = broadcast(weights[c * taps + t]);
#pragma GCC unroll 4
        for (int v = 0; v < direct_vectors; ++v) sums[c][v] = add_product<true, V>(weight, values[v], sums[c][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < Channels; ++c) {
#pragma GCC unroll 4
    for (int v = 0; v < direct_vectors; ++v) store(to + c * plan.grad_plane + pixel + v * simd_lanes<V>, sums[c][v]);
  }
}

/// Computes all planes, `Channels` at a time.
template <int Channels, class V>
void direct_gradients(const ConvolutionPlan<V>& plan, const V* buffer, V* planes) {
  const std::int64_t pixels = (plan.shape.y.size - 1) * plan.buffer_width + plan.shape.x.size;
  for (std::int64_t c = 0; c < plan.shape.channels; c += Channels) {
    for (std::int64_t pixel = 0; pixel < pixels; pixel += direct_vectors * simd_lanes<V>) {
      direct_gradient<Channels>(plan, buffer, c, pixel, planes + c * plan.grad_plane);
    }
  }
}

/// The gradient of x of a frame, by planes as wide as the buffer, and its rows copied out.
template <class V>
void input_gradient(const ConvolutionPlan<V>& plan, const V* buffer, V* planes, std::int64_t frame) {
  const ConvolutionShape& shape = plan.shape;
  if (plan.group_channels % direct_channels == 0) {
    direct_gradients<direct_channels>(plan, buffer, planes);
  } else if (plan.group_channels % 2 == 0) {
    direct_gradients<2>(plan, buffer, planes);
  } else {
    direct_gradients<1>(plan, buffer, planes);
  }
  with_elements<V>(plan.grad_x, plan.format, [&](auto* grad_x) {
    auto* const to = grad_x + frame * shape.channels * plan.pixels;
    for (std::int64_t row = 0; row < shape.channels * shape.y.size; ++row) {
      write_lanes(to + row * shape.x.size, planes + row / shape.y.size * plan.grad_plane + row % shape.y.size * plan.buffer_width,
                  shape.x.size);
    }
  });
}

/// The frames of a part of the gradients. Its sums are those of all runs of all channels, then those of the bias.
template <class V>
void convolution_gradient_part(const ConvolutionPlan<V>& plan, std::int64_t part, int thread) {
  Arena arena(plan.slots + static_cast<std::size_t>(thread) * plan.slot_bytes);
  const ConvolutionMemory<V> memory(arena, plan);
  V* const sums = plan.partials + part * plan.partial_size;
  for (std::int64_t k = 0; k < plan.partial_size; ++k) sums[k] = V(0);
  for (std::int64_t k = 0; k < plan.buffer_size; ++k) memory.buffer[k] = V(0);
  const std::int64_t end = smaller(plan.shape.frames, (part + 1) * plan.task_frames);
  for (std::int64_t frame = part * plan.task_frames; frame < end; ++frame) {
    read_frame(plan, memory.buffer, memory.rows, frame);
    const Frame<V> spikes(plan, frame);
    if (plan.with_weights) {
      with_runs(plan, [&]<class X, bool Binary>() {
        const auto add = [&](std::int64_t place, std::int64_t first, std::int64_t runs, std::int64_t taps, V spike)
                             __attribute__((always_inline)) {
                               if (!Binary && spike - spike != V(0)) {
                                 gather_by_element<X>(plan, memory.buffer, place, first, runs, sums + taps, spike);
                               } else {
                                 gather_taps<X, Binary>(memory.buffer + place, plan.offsets + first, runs, sums + taps, spike);
                               }
                             };
        spikes.for_each(add);
      });
    }
    if (plan.with_bias) add_bias_gradient(plan, memory.buffer, sums + plan.partial_size - plan.bias_size);
    if (plan.grad_x != nullptr) input_gradient(plan, memory.buffer, memory.planes, frame);
  }
}

}   // namespace
}   // namespace exodus::cpu
