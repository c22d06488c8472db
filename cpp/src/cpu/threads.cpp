#include "threads.hpp"

#include <pthread.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "../floating_point.hpp"
#include "exodus/functions.hpp"

namespace exodus {
namespace cpu {
namespace {

constexpr int max_workers = max_threads - 1;   // the caller works too

struct Job {
  std::int64_t count;
  void (*task)(void*, std::int64_t, int);
  void* context;
  std::atomic<std::int64_t> next{0};

  void run(int thread) {
    for (std::int64_t k; (k = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(context, k, thread);
  }
};

/// A job on a team, whose threads get their numbers in order of arrival. Threads beyond `threads` have no memory, so they return.
struct TeamJob {
  Job& job;
  int threads;
  std::atomic<int> joined{0};

  static void part(void* context) {
    auto& self = *static_cast<TeamJob*>(context);
    const int thread = self.joined.fetch_add(1, std::memory_order_relaxed);
    const FloatingPointMode mode;   // the thread is another library's
    if (thread < self.threads) self.job.run(thread);
  }
};

/// Workers wait for a new `generation`, and the first `wanted` of them take part. They are detached: the process ends without joining them,
/// so the pool is never destroyed.
class Pool {
 public:
  void run(Job& job, int workers) {
    grow(workers);
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      wanted_ = workers < started_ ? workers : started_;
      running_ = wanted_;
      ++generation_;
    }
    wake_.notify_all();
    job.run(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  /// If the system cannot create more threads, the existing ones do the work.
  void grow(int workers) {
    for (; started_ < workers && started_ < max_workers; ++started_) {
      try {
        std::thread(&Pool::work, this, started_, generation_).detach();
      } catch (const std::exception&) {
        return;
      }
    }
  }

  void work(int index, std::uint64_t seen) {
    const FloatingPointMode mode;   // a thread inherits its creator's mode
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= wanted_) continue;
      Job* const job = job_;
      lock.unlock();
      job->run(index + 1);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  Job* job_ = nullptr;
  int started_ = 0, wanted_ = 0, running_ = 0;
  std::uint64_t generation_ = 0;
};

/// Held by the call that uses the pool or the team. fork() takes it first, so that no worker is running at the fork. The child has no
/// workers, so it forgets the team and the pool, and makes another pool when it needs one.
constinit std::mutex run_lock;
constinit Pool* pool = nullptr;
constinit std::atomic<Team> team{nullptr};
/// Whether this thread holds the lock. Trying to lock it again would be undefined behaviour.
constinit thread_local bool holds_lock = false;

void before_fork() {
  run_lock.lock();
}
void after_fork_in_parent() {
  run_lock.unlock();
}
void after_fork_in_child() {
  new (&run_lock) std::mutex;   // its owner is a thread of the parent
  team = nullptr;
  pool = nullptr;   // leaked: threads that the child does not have may hold its mutexes
}

// At load, not at first use: a fork during a lazy initialisation would leave the child with a lock that nobody releases.
[[maybe_unused]] const int fork_handlers = pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);

/// The processors that this process may use: taskset, a batch system or a container may allow fewer than there are.
int usable_processors() {
#if defined(__linux__)
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) == 0) return CPU_COUNT(&usable);
#endif
  const unsigned processors = std::thread::hardware_concurrency();
  return processors == 0 ? 1 : static_cast<int>(processors);
}

/// A count is digits and nothing else: strtol would read "1e1" as 1 and "4,2" as 4.
int default_threads() {
  if (const char* const text = std::getenv("EXODUS_NUM_THREADS")) {
    const char* const end = text + std::strlen(text);
    unsigned value = 0;   // unsigned, so that a sign is rejected
    const auto [last, error] = std::from_chars(text, end, value);
    const bool beyond = error == std::errc::result_out_of_range;
    if (last == end && (beyond || value >= 1)) return beyond || value > max_workers ? max_workers : static_cast<int>(value);
  }
  return usable_processors();
}

std::atomic<int> thread_setting{default_threads()};

/// Runs a job on more than one thread, if there are any. The caller has the lock.
bool run_together(Job& job, int threads) {
  if (const Team others = team.load(std::memory_order_relaxed)) {
    TeamJob shared{job, threads};
    others(threads, &TeamJob::part, &shared);
    return true;
  }
  if (pool == nullptr) pool = new (std::nothrow) Pool;
  if (pool == nullptr) return false;
  pool->run(job, threads - 1);
  return true;
}

}   // namespace

void parallel_for(std::int64_t count, int threads, void (*task)(void*, std::int64_t, int), void* context) noexcept {
  Job job{count, task, context};
  if (threads > count) threads = static_cast<int>(count);
  if (threads > 1 && !holds_lock) {
    const std::unique_lock lock(run_lock, std::try_to_lock);
    if (lock.owns_lock()) {
      holds_lock = true;
      const bool done = run_together(job, threads);
      holds_lock = false;
      if (done) return;
    }
  }
  job.run(0);
}

}   // namespace cpu

int get_num_threads() noexcept {
  return cpu::thread_setting.load(std::memory_order_relaxed);
}

void set_num_threads(int threads) noexcept {
  const int most = cpu::max_threads;
  cpu::thread_setting.store(threads < 1 ? 1 : (threads > most ? most : threads), std::memory_order_relaxed);
}

void set_team(Team team) noexcept {
  cpu::team.store(team, std::memory_order_relaxed);
}

}   // namespace exodus
