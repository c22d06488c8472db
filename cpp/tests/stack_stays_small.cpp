/// @file
/// A pass puts less than 16 KB on its caller's stack, whatever the model, the layout and the gradients that are wanted: threads of other
/// people's programs may have as little as 64 KB.
#include <pthread.h>
#include <sys/mman.h>

#include <exodus/exodus.hpp>
#include <type_traits>

#include "every_model.hpp"
#include "support.hpp"

namespace exodus::test {
namespace {

constexpr std::size_t most = 16 << 10;

/// Runs f on a thread whose stack is filled with a pattern; the bytes of it that changed.
template <class F>
std::size_t stack_used(F f) {
  constexpr std::size_t size = 1 << 20;
  constexpr unsigned char pattern = 0xa5;
  auto* const stack = static_cast<unsigned char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  std::memset(stack, pattern, size);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  EXPECT_EQ(pthread_attr_setstack(&attributes, stack, size), 0);
  pthread_t thread;
  EXPECT_EQ(pthread_create(
                &thread, &attributes,
                [](void* body) -> void* {
                  (*static_cast<F*>(body))();
                  return nullptr;
                },
                &f),
            0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  std::size_t untouched = 0;
  while (untouched < size && stack[untouched] == pattern) ++untouched;
  munmap(stack, size);
  return size - untouched;
}

/// Arrays of a call, which are made before its thread is.
template <class N>
struct Call {
  using V = typename N::Storage;
  static constexpr int parameters = static_cast<int>(std::size(N::parameter_table));
  Layout layout;
  N neuron;
  std::vector<V> in, spikes, potential, grad_current;
  double grads[parameters] = {};
  typename N::Forward forwards;
  typename N::Backward backwards;

  Call(const Layout& of, bool with_parameters)
      : layout(of), in(elements(of), V(0.6)), spikes(elements(of)), potential(elements(of)), grad_current(elements(of)) {
    forwards = {.current = in.data(), .spikes = spikes.data(), .potential = potential.data()};
    backwards = {.potential = potential.data(), .current = in.data(), .grad_spikes = in.data(), .grad_current = grad_current.data()};
    bool tied[parameters] = {};
    for_each_tie(neuron, [&](const Tie& tie) { tied[tie.source] = true; });
    for_each_field<parameters>(backwards.grad, [&](double*& grad, int k) {
      if (with_parameters && !tied[k]) grad = &grads[k];
    });
  }

  void expect_small_stack() {
    const std::size_t idle = stack_used([] {});
    const CallMemory memory(workspace(layout, neuron, forwards, 1));
    Status status{};
    const std::size_t forward_pass = stack_used([&] { status = forward(layout, neuron, forwards, memory.workspace()); });
    EXPECT_EQ(status, Status::ok);
    EXPECT_LT(forward_pass - idle, most) << describe(layout);
    for (const Method method : {Method::exodus, Method::slayer, Method::bptt}) {
      const CallMemory more(workspace(layout, neuron, method, Surrogate<V>{}, backwards, 1));
      const std::size_t backward_pass =
          stack_used([&] { status = backward(layout, neuron, method, Surrogate<V>{}, backwards, more.workspace()); });
      EXPECT_EQ(status, Status::ok);
      EXPECT_LT(backward_pass - idle, most) << describe(layout) << " method " << static_cast<int>(method);
    }
  }
};

template <class N>
class Stack : public testing::Test {};
TYPED_TEST_SUITE(Stack, EveryModel);

TYPED_TEST(Stack, OfEveryModelAndLayout) {
  for (const Layout& layout : {Layout{1, 3, 1}, Layout{1, 40, 3000}, Layout{40, 40, 130}, Layout{60, 40, 5}, Layout{500, 300, 1}}) {
    for (const bool with_parameters : {false, true}) Call<TypeParam>(layout, with_parameters).expect_small_stack();
  }
}

TYPED_TEST(Stack, WithTaps) {
  if constexpr (requires(TypeParam neuron) { neuron.taps; }) {
    using V = typename TypeParam::Storage;
    for (const Layout& layout : {Layout{1, 40, 3000}, Layout{500, 300, 1}}) {
      for (const bool each : {false, true}) {
        Call<TypeParam> call(layout, false);
        const SomeTaps<V> taps(64, each ? layout.inner : 1, 1, -0.5, 0.5);
        constexpr int kernels = static_cast<int>(std::size(TypeParam::taps_names));
        for_each_field<kernels>(call.neuron.taps, [&](Taps<V>& field, int) { field = taps.taps(); });
        std::vector<double> grads(static_cast<std::size_t>(64 * taps.count * kernels));
        for_each_field<kernels>(call.backwards.grad_taps,
                                [&](double*& field, int k) { field = &grads[static_cast<std::size_t>(64 * taps.count * k)]; });
        call.expect_small_stack();
      }
    }
  }
}

TEST(Stack, OfADelay) {
  for (const Layout& layout : {Layout{1, 40, 3000}, Layout{40, 40, 130}, Layout{60, 40, 5}, Layout{500, 300, 1}}) {
    std::vector<double> in(static_cast<std::size_t>(elements(layout)), 0.7), out(in.size()),
        steps(static_cast<std::size_t>(neurons(layout)), 7.5), grads(steps.size());
    steps[0] = 1.0;
    const Delay<double> delays{Param<double>(steps.data(), neurons(layout)), 30};
    const Delay<double>::Forward forwards{.x = in.data(), .output = out.data()};
    const Delay<double>::Backward backwards{.grad_output = in.data(), .x = in.data(), .grad_x = out.data(), .grad_steps = grads.data()};
    const CallMemory memory(workspace(layout, delays, forwards, 1)), more(workspace(layout, delays, backwards, 1));
    const std::size_t idle = stack_used([] {});
    Status status{};
    const std::size_t forward_pass = stack_used([&] { status = delay(layout, delays, forwards, memory.workspace()); });
    EXPECT_EQ(status, Status::ok);
    EXPECT_LT(forward_pass - idle, most) << describe(layout);
    const std::size_t backward_pass = stack_used([&] { status = delay_adjoint(layout, delays, backwards, more.workspace()); });
    EXPECT_EQ(status, Status::ok);
    EXPECT_LT(backward_pass - idle, most) << describe(layout);
  }
}

TEST(Stack, OfASurrogateOnArrays) {
  std::vector<double> values(100000, 0.7), h(values.size());
  const std::size_t used = stack_used([&] {
    EXPECT_EQ(evaluate(Surrogate<double>{}, Param<double>(1), static_cast<std::int64_t>(values.size()), values.data(), h.data()),
              Status::ok);
  });
  EXPECT_LT(used - stack_used([] {}), most);
}

TEST(Stack, OfAProduct) {
  const std::size_t idle = stack_used([] {});
  const ProductShape shape{2000, 130, 70};
  Random random(0);
  for (const bool binary : {true, false}) {
    Input<double> x(shape.rows * shape.inputs), weights(shape.inputs * shape.outputs), g(shape.rows * shape.outputs);
    for (std::int64_t k = 0; k < shape.rows * shape.inputs; ++k) x[k] = random.below(9) == 0 ? (binary ? 1 : 0.5) : 0;
    Output<double> y(shape.rows * shape.outputs), grad(shape.inputs * shape.outputs), values(shape.rows * shape.inputs);
    Output<std::uint64_t> bits(shape.rows * packed_words(shape.inputs));
    Output<std::int64_t> first(shape.rows);
    SpikeCount count;
    Status status{};
    const auto expect_small = [&](auto call, const char* name) {
      EXPECT_LT(stack_used(call) - idle, most) << name;
      EXPECT_EQ(status, Status::ok) << name;
    };
    expect_small([&] { status = pack(shape, x.data(), bits.data(), &count, 1); }, "pack");
    double share;
    expect_small([&] { status = estimate_share(shape, x.data(), &share); }, "estimate_share");
    expect_small([&] { status = pack_values(shape, x.data(), bits.data(), first.data(), values.data(), 1); }, "pack_values");
    const PackedSpikes<double> packed{bits.data(), binary ? nullptr : first.data(), binary ? nullptr : values.data()};
    const CallMemory memory(product_workspace<double>(shape, 1)), more(product_gradients_workspace<double>(shape, 1));
    expect_small([&] { status = product<double>(shape, packed, {weights.data(), 70, 1}, nullptr, y.data(), memory.workspace()); },
                 "product");
    expect_small([&] { status = product_gradients<double>(shape, packed, g.data(), {grad.data(), 70, 1}, nullptr, more.workspace()); },
                 "product_gradients");
    const CallMemory of_input(product_input_gradient_workspace<double>(shape, 1));
    Output<double> grad_x(shape.rows * shape.inputs);
    expect_small(
        [&] {
          status =
              product_input_gradient<double>(shape, bits.data(), g.data(), {weights.data(), 70, 1}, grad_x.data(), of_input.workspace());
        },
        "product_input_gradient");
  }
}

TEST(Stack, OfAConvolution) {
  const std::size_t idle = stack_used([] {});
  for (const std::int64_t outputs : {2, 40}) {
    const ConvolutionShape shape{20, 4, outputs, 1, {30, 3, 1, 1, 1}, {30, 3, 1, 1, 1}};
    const std::int64_t of_x = 20 * 4 * 900, of_y = 20 * outputs * 900;
    Input<double> x(of_x), weights(outputs * 4 * 9), g(of_y);
    for (std::int64_t k = 0; k < of_x; k += 7) x[k] = 1;
    Output<double> y(of_y), grad(outputs * 4 * 9), grad_x(of_x);
    Output<std::uint64_t> bits(20 * packed_words(4 * 900));
    SpikeCount count;
    ASSERT_EQ(pack(shape.packed(), x.data(), bits.data(), &count, 1), Status::ok);
    const PackedSpikes<double> packed{bits.data()};
    const ConvolutionGradients<double> arrays{g.data(), grad.data(), nullptr, weights.data(), grad_x.data()};
    const CallMemory memory(convolution_workspace<double>(shape, count.spikes, 1));
    const CallMemory more(convolution_gradients_workspace<double>(shape, count.spikes, arrays, 1));
    Status status{}, of_gradients{};
    const std::size_t forward_pass = stack_used(
        [&] { status = convolution<double>(shape, packed, count.spikes, weights.data(), nullptr, y.data(), memory.workspace()); });
    const std::size_t backward_pass =
        stack_used([&] { of_gradients = convolution_gradients(shape, packed, count.spikes, arrays, more.workspace()); });
    EXPECT_EQ(status, Status::ok);
    EXPECT_EQ(of_gradients, Status::ok);
    EXPECT_LT(forward_pass - idle, most);
    EXPECT_LT(backward_pass - idle, most);
  }
}

}   // namespace
}   // namespace exodus::test
