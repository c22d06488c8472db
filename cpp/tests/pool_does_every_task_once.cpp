/// @file
/// The pool of threads, and a team of others: every task exactly once, done when the call returns, whoever calls: nested, from many
/// threads, with odd numbers.
#include "cpu/threads.hpp"

#include <gtest/gtest.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <atomic>
#include <limits>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "exodus/functions.hpp"

namespace exodus::cpu {
namespace {

/// Plain ints on purpose: the test also shows that their writes are visible after the call, without a race.
bool every_task_once(std::int64_t count, int threads) {
  std::vector<int> done(static_cast<std::size_t>(count), 0);
  auto task = [&done](std::int64_t k, int) { ++done[static_cast<std::size_t>(k)]; };
  parallel_for(count, threads, task);
  for (const int times : done) {
    if (times != 1) return false;
  }
  return true;
}

TEST(Pool, DoesEveryTaskOnce) {
  for (const std::int64_t count : {0, 1, 2, 3, 7, 100, 5000}) {
    for (const int threads : {1, 2, 3, 4, 9, 1, 40, 2}) EXPECT_TRUE(every_task_once(count, threads)) << count << " " << threads;
  }
  for (const int threads : {0, -1, std::numeric_limits<int>::min(), std::numeric_limits<int>::max()}) {
    EXPECT_TRUE(every_task_once(3, threads)) << threads;
  }
}

TEST(Pool, UsesAtMostTheThreadsAskedFor) {
  every_task_once(100, 8);   // more workers exist than are asked for below
  for (const int threads : {1, 2, 3}) {
    std::mutex lock;
    std::set<std::thread::id> seen;
    auto task = [&](std::int64_t, int) {
      std::this_thread::yield();
      const std::lock_guard guard(lock);
      seen.insert(std::this_thread::get_id());
    };
    parallel_for(500, threads, task);
    EXPECT_LE(seen.size(), static_cast<std::size_t>(threads));
    EXPECT_TRUE(threads > 1 || seen.count(std::this_thread::get_id()) == 1);
  }
}

/// Tasks that wait for each other end only if as many threads as promised take part.
void expect_tasks_at_the_same_time() {
  std::atomic<int> arrived{0};
  auto task = [&](std::int64_t, int) {
    ++arrived;
    while (arrived.load() < 4) std::this_thread::yield();
  };
  parallel_for(4, 4, task);
  EXPECT_EQ(arrived.load(), 4);
}

TEST(Pool, RunsTasksAtTheSameTime) {
  expect_tasks_at_the_same_time();
}

/// A thread's number is its own while a task runs: memory of its own may go by it.
void expect_numbered_threads() {
  for (const int threads : {1, 2, 5}) {
    std::vector<int> of_thread(static_cast<std::size_t>(threads), 0);   // plain on purpose
    std::atomic<int> wrong{0};
    auto task = [&](std::int64_t, int thread) {
      if (thread < 0 || thread >= threads) ++wrong;
      int& mine = of_thread.at(static_cast<std::size_t>(thread));
      const int before = mine++;
      std::this_thread::yield();
      if (mine != before + 1) ++wrong;
    };
    parallel_for(500, threads, task);
    EXPECT_EQ(wrong.load(), 0);
  }
}

TEST(Pool, NumbersItsThreads) {
  expect_numbered_threads();
}

void expect_nested_calls_on_their_caller() {
  std::atomic<int> wrong{0}, inner_tasks{0};
  auto outer = [&](std::int64_t, int) {
    const std::thread::id here = std::this_thread::get_id();
    auto inner = [&](std::int64_t, int) {
      ++inner_tasks;
      if (std::this_thread::get_id() != here) ++wrong;
    };
    parallel_for(50, 4, inner);
  };
  parallel_for(20, 4, outer);
  EXPECT_EQ(inner_tasks.load(), 1000);
  EXPECT_EQ(wrong.load(), 0);
}

TEST(Pool, NestedCallsRunOnTheirCaller) {
  expect_nested_calls_on_their_caller();
}

void expect_service_of_many_callers() {
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int k = 0; k < 8; ++k) {
    callers.emplace_back([&wrong, k] {
      for (int round = 0; round < 60; ++round) {
        if (!every_task_once(1 + 37 * ((k + round) % 5), 1 + (k + round) % 6)) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong.load(), 0);
}

TEST(Pool, ServesManyCallersAtOnce) {
  expect_service_of_many_callers();
}

/// A runtime in miniature: it has a number of threads of its own, however many are asked for. The caller is the last to take part.
template <int Size>
void team_of(int, void (*part)(void* context), void* context) {
  std::vector<std::thread> others;
  for (int k = 1; k < Size; ++k) others.emplace_back(part, context);
  part(context);
  for (std::thread& other : others) other.join();
}

/// While an object exists, calls run on a team.
struct OnTeam {
  explicit OnTeam(Team team) { set_team(team); }
  ~OnTeam() { set_team(nullptr); }
};

TEST(Team, DoesEveryTaskOnceWhateverItsSize) {
  for (const Team team : {Team{team_of<1>}, Team{team_of<3>}, Team{team_of<8>}}) {
    const OnTeam on(team);
    for (const std::int64_t count : {0, 1, 2, 7, 500}) {
      for (const int threads : {1, 2, 3, 9}) EXPECT_TRUE(every_task_once(count, threads)) << count << " " << threads;
    }
  }
}

TEST(Team, RunsTasksAtTheSameTime) {
  const OnTeam on(team_of<4>);
  expect_tasks_at_the_same_time();
}

TEST(Team, NumbersItsThreads) {
  const OnTeam on(team_of<6>);   // more than have a number
  expect_numbered_threads();
}

TEST(Team, NestedCallsRunOnTheirCaller) {
  const OnTeam on(team_of<4>);
  expect_nested_calls_on_their_caller();
}

TEST(Team, ServesManyCallersAtOnce) {
  const OnTeam on(team_of<3>);
  expect_service_of_many_callers();
}

/// The threads of a team may have any mode: torch.set_flush_denormal, or a library that was built with -ffast-math, sets it.
TEST(Team, ComputesInTheModeOfTheLibrary) {
#if defined(__x86_64__)
  const OnTeam on([](int, void (*part)(void* context), void* context) {
    std::thread other([=] {
      _mm_setcsr(_mm_getcsr() | 0x8040);   // flush to zero, denormals are zero
      part(context);
      EXPECT_EQ(_mm_getcsr() & 0x8040, 0x8040u);
    });
    other.join();
    part(context);
  });
  std::atomic<int> kept{0};
  auto task = [&kept](std::int64_t, int) {
    volatile float least = std::numeric_limits<float>::min();
    volatile float half = least / 2;
    if (half > 0) ++kept;
  };
  parallel_for(100, 2, task);
  EXPECT_EQ(kept.load(), 100);
#else
  GTEST_SKIP() << "the test sets the mode of x86-64";
#endif
}

}   // namespace
}   // namespace exodus::cpu
