/// @file
/// The small structs of the C++ interface: sizes, parameters, status, workspace. The caller owns all memory. Null means "not given" or "not
/// wanted".
#pragma once

#include <cstddef>
#include <cstdint>

#include "half.hpp"
#include "macros.hpp"

namespace exodus {

/// The three sizes of an array with time on any axis. Element (o, n, i) is at (o*time + n)*inner + i; neuron j = o*inner + i.
/// (T, N) is {1, T, N}; (B, T, C, H, W) is {B, T, C*H*W}; time last, (N, T), is {N, T, 1}. With `outer` or `inner` 0 there are no neurons:
/// a call does nothing but set the gradients of parameters to zero, and null is fine for every other array.
struct Layout {
  std::int64_t outer = 1;
  std::int64_t time = 0;
  std::int64_t inner = 1;
};

enum class [[nodiscard]] Status {
  ok,
  bad_layout,      ///< no time, a negative size, or a product of sizes beyond int64
  bad_parameter,   ///< a Param with count or repeat below 1, or max_spikes < 0, or an enumerator out of range, or neurons that are not
                   ///< whole batch entries of the recurrence
  null_pointer,    ///< an array that this call needs is null
  workspace_too_small,   ///< ask workspace() for the size
  unsupported,           ///< unknown method, surrogate or EXODUS_ISA; the gradient of a parameter that is tied to another or has no effect;
                         ///< recurrent weights of a neuron that does not fire; a potential to recompute, with taps or on a GPU;
                         ///< bits of spikes that are not in whole words, or on a GPU
  cuda,                  ///< the CUDA runtime reported an error
};

/// The meaning of a status, as one line of English. Never null.
constexpr const char* message(Status status) noexcept {
  switch (status) {
    case Status::ok:
      return "ok";
    case Status::bad_layout:
      return "the layout has no time or a negative size, or the product of its sizes is beyond 64 bits";
    case Status::bad_parameter:
      return "a parameter's count or repeat is below 1, its data is null, an option is out of range, or the neurons are not whole batch "
             "entries of the recurrence";
    case Status::null_pointer:
      return "an array that this call needs is null";
    case Status::workspace_too_small:
      return "the workspace is smaller than workspace() says";
    case Status::unsupported:
      return "unsupported: unknown method, surrogate or EXODUS_ISA, the gradient of a parameter that is tied to another or has no effect, "
             "recurrent weights of a neuron that does not fire, a potential to recompute, with taps or on a GPU, or bits of spikes that "
             "are not in whole words, or on a GPU";
    case Status::cuda:
      return "the CUDA runtime reported an error";
  }
  return "unknown status";
}

template <class S>
struct Arithmetic {
  using type = float;
};
template <>
struct Arithmetic<double> {
  using type = double;
};
/// The type of parameters, states and potentials: double for data of double, else float.
template <class S>
using arithmetic_t = typename Arithmetic<S>::type;

/// A parameter of the neurons: not given (the model's default), one value for all, or an array, of which neuron j uses
/// data[(j / repeat) % count]. One value per channel of (B, T, C, H, W) has count = C, repeat = H*W.
template <class V>
struct Param {
  V value{};
  const V* data = nullptr;
  std::int64_t count = 0;   ///< 0: not given
  std::int64_t repeat = 1;

  constexpr Param() = default;
  constexpr Param(V v) : value(v), count(1) {}
  constexpr Param(const V* values, std::int64_t n, std::int64_t each = 1) : data(values), count(n), repeat(each) {}
};

/// The value of neuron j (of decay(): of element j).
template <class V>
EXODUS_SCALAR V value_of(const Param<V>& p, std::int64_t j) {
  return p.data == nullptr ? p.value : p.data[j / p.repeat % p.count];
}

/// The taps of a FIR kernel, newest input first: neuron j's tap k is data[k*count + (j / repeat) % count].
template <class V>
struct Taps {
  const V* data = nullptr;
  std::int64_t length = 0;   ///< 0: not given
  std::int64_t count = 1;
  std::int64_t repeat = 1;
};

/// The kernels of a model that has none.
template <class X>
struct NoKernels {};

/// Recurrent weights: a'[n] = a[n] + s[n-1] W in place of a[n] (docs/mathematics.md, Recurrence). Neuron j is feature
/// (j / repeat) % features of its batch entry, which has one neuron of each feature; weights[f * features + g] is what a spike of feature f
/// adds to feature g.
template <class V>
struct Recurrence {
  const V* weights = nullptr;   ///< null: none
  std::int64_t features = 0;
  std::int64_t repeat = 1;
};

/// The memory that a call works in. workspace() says how many bytes a call needs, and the caller provides `data`, aligned to 8 bytes.
struct Workspace {
  void* data = nullptr;
  std::size_t bytes = 0;
  int threads = 0;   ///< how many threads this call may use; 0: as many as set_num_threads() says. Results do not depend on it.
};

/// The algorithm of the backward pass (docs/mathematics.md, Backward).
enum class Method { exodus, slayer, bptt };

/// How a spike resets the membrane potential.
enum class Reset { subtract, zero, none };

/// Whether the reset of Reset::subtract acts after the decay (the paper) or before it (sinabs). Ignored by the other resets.
enum class ResetTiming { after_decay, before_decay };

/// The names of an enum's enumerators, in their order: what checks count and bindings export.
template <class Enum>
inline constexpr const char* enumerators[] = {nullptr};
template <>
inline constexpr const char* enumerators<Method>[] = {"exodus", "slayer", "bptt"};
template <>
inline constexpr const char* enumerators<Reset>[] = {"subtract", "zero", "none"};
template <>
inline constexpr const char* enumerators<ResetTiming>[] = {"after_decay", "before_decay"};

/// A bit for each element of an array.
struct ElementBits {
  std::uint64_t* words = nullptr;   ///< bit k % 64 of word k / 64 is that of element k, out; null if not wanted
  std::int64_t* count = nullptr;    ///< the number of bits that are set, out; null if not wanted
};

template <class S>
struct Surrogate;

/// What forward() reads and writes. `State` is the model's struct of state fields. Arrays with a time axis have the layout's
/// outer*time*inner elements; state arrays have one element per neuron, and those of FIR kernels one for each tap but the first
/// (kernel.hpp).
template <class S, template <class> class State>
struct ForwardArrays {
  using V = arithmetic_t<S>;
  const S* current = nullptr;   ///< a[n], in
  State<const V*> initial{};    ///< state before step 0, in; null fields are zero
  S* spikes = nullptr;          ///< s[n], out; null if not wanted
  V* potential = nullptr;       ///< u[n], before the reset, out; null if not wanted
  State<V*> final{};            ///< state after the last step, out; null fields are not wanted
  Recurrence<V> recurrent{};    ///< of a neuron that fires
  /// The elements that are spikes, on the CPU. Words must be whole: 64 divides `inner` and, with a recurrence of repeat 1, the features.
  ElementBits fired{};
  /// Likewise, those whose surrogate is not 0: everywhere else dL/ds affects no other gradient, if it is finite. For models whose
  /// surrogate reads the potential only.
  ElementBits support{};
  const Surrogate<V>* surrogate = nullptr;   ///< the one of `support`, from the table
};

/// What backward() reads and writes; doubles for the parameters, in each Param's own `count`, and for taps in their own order. `Kernels` is
/// the model's struct of kernels that may have taps.
template <class S, template <class> class State, template <class> class Parameters, template <class> class Kernels = NoKernels>
struct BackwardArrays {
  using V = arithmetic_t<S>;
  const V* potential = nullptr;        ///< u[n] of the forward pass, in; null: recomputed from the current, with the same results
  const S* current = nullptr;          ///< a[n], in; needed without the potential, and for some parameters (the model's reads_current)
  State<const V*> initial{};           ///< as given to forward
  const S* grad_spikes = nullptr;      ///< e[n] = dL/ds[n], in; null is zero
  const V* grad_potential = nullptr;   ///< q[n] = dL/du[n], in; null is zero
  State<const V*> grad_final{};        ///< dL/d(final state), in; null fields are zero
  S* grad_current = nullptr;           ///< dL/da[n], out; null if not wanted
  State<V*> grad_initial{};            ///< dL/d(initial state), out; null fields are not wanted
  Parameters<double*> grad{};          ///< dL/d(parameter), out; null fields are not wanted
  Kernels<double*> grad_taps{};        ///< dL/d(taps), out; null fields are not wanted
  Recurrence<V> recurrent{};           ///< as given to forward
  const S* spikes = nullptr;           ///< s[n] of the forward pass, in; only grad_recurrent needs it
  double* grad_recurrent = nullptr;    ///< dL/d(weights), features x features, out; needs grad_current too; null if not wanted
};

}   // namespace exodus
