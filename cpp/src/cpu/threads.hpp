/// @file
/// Tasks on the team that set_team() gave, else on a small pool of threads of our own. We link no OpenMP: a second runtime beside torch's
/// would spin against it and hang after a fork.
#pragma once

#include <cstdint>

namespace exodus::cpu {

inline constexpr int max_threads = 256;   // the most threads of a call

/// Calls task(context, k, thread) for every k < count, on at most `threads` threads including the caller's, and returns when all are done.
/// `thread` is below `threads`, and no two tasks with the same `thread` run at a time. A call that finds the threads busy (nested, or from
/// another thread) runs on its own thread. Safe to use after fork().
void parallel_for(std::int64_t count, int threads, void (*task)(void* context, std::int64_t k, int thread), void* context) noexcept;

template <class F>
void parallel_for(std::int64_t count, int threads, F& task) noexcept {
  parallel_for(count, threads, [](void* context, std::int64_t k, int thread) { (*static_cast<F*>(context))(k, thread); }, &task);
}

}   // namespace exodus::cpu
