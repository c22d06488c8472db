/// @file
/// The functions of the C++ interface. exodus.hpp has them with all neurons, and the documentation. To compile a single neuron, include
/// this file and the neuron's own.
#pragma once

#include "decay.hpp"
#include "rotation.hpp"
#include "surrogate.hpp"
#include "types.hpp"

namespace exodus {

/// Runs the neurons over the layout's time. `N` is a model that exodus.hpp includes, of float, double, float16 or bfloat16. The results
/// have the same bits for every instruction set, thread count, layout and chunking of time. Outputs must not overlap inputs or each other.
template <class N>
EXODUS_API Status forward(const Layout& layout, const N& neuron, const typename N::Forward& arrays, Workspace workspace = {}) noexcept;

/// The gradients of a loss by the given method. Reads the potential that forward() wrote.
template <class N>
EXODUS_API Status backward(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                           const typename N::Backward& arrays, Workspace workspace = {}) noexcept;

/// The workspace that forward() needs with these arguments on `threads` threads (0: as many as set_num_threads() says), with `bytes` set
/// and `data` null. With less memory a call uses fewer threads, and with less than it needs for one it returns workspace_too_small. A call
/// puts less than 16 KB on its caller's stack.
template <class N>
EXODUS_API Workspace workspace(const Layout& layout, const N& neuron, const typename N::Forward& arrays, int threads = 0) noexcept;

/// The same for backward() with these arguments.
template <class N>
EXODUS_API Workspace workspace(const Layout& layout, const N& neuron, Method method, const Surrogate<typename N::Storage>& surrogate,
                               const typename N::Backward& arrays, int threads = 0) noexcept;

/// h[k] = f'(potential[k]) for k < count, with the threshold of element k.
template <class S>
EXODUS_API Status evaluate(const Surrogate<S>& surrogate, const Param<arithmetic_t<S>>& threshold, std::int64_t count,
                           const arithmetic_t<S>* potential, arithmetic_t<S>* h) noexcept;

/// decays[k] = e^(-dt / tau) for k < count, with dt and tau of element k: turns a time constant into a neuron's parameter. Forward results
/// depend on its last bit, in which the exponentials of libraries differ.
EXODUS_API Status decay(const Param<double>& dt, const Param<double>& tau, std::int64_t count, double* decays) noexcept;

/// cosines[k] = cos(angle), sines[k] = sin(angle) for k < count, with the angle of element k. They make the matrix of a resonating neuron
/// (state_space.hpp) and, like the decays, have the same bits everywhere.
EXODUS_API Status rotation(const Param<double>& angle, std::int64_t count, double* cosines, double* sines) noexcept;

/// How many threads a call uses unless its workspace says otherwise: the number set, else EXODUS_NUM_THREADS, else the number of processors
/// that this process may use. A value of the variable that is not a count, such as "many" or "0", is ignored.
EXODUS_API int get_num_threads() noexcept;
/// Sets it. Values below 1 count as 1.
EXODUS_API void set_num_threads(int threads) noexcept;

/// Runs part(context) on the calling thread and on others, about `threads` in all, and returns when all have ended. It may use any number:
/// the parts share the work out themselves.
using Team = void (*)(int threads, void (*part)(void* context), void* context);

/// Lets calls run on a team of another library, such as OpenMP's, in place of this library's own threads; null goes back to these. Threads
/// of two libraries in one process slow each other down, because idle ones may spin. A forked child has no team: few runtimes survive a
/// fork.
EXODUS_API void set_team(Team team) noexcept;

/// The instruction set in use: "avx512", "avx2", "x86-64-v2" or "generic". It is the best that the processor has, or the one that the
/// environment variable EXODUS_ISA names. Null if that is unknown or the processor lacks it.
EXODUS_API const char* isa() noexcept;

/// The library's version, "major.minor.patch".
EXODUS_API const char* version() noexcept;

}   // namespace exodus
