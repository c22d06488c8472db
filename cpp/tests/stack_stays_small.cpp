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

}   // namespace
}   // namespace exodus::test
