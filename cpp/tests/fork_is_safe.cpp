/// @file
/// fork() at any moment, also while another thread computes: parent and child go on with right results, and the child has threads again.
#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "workload.hpp"

namespace exodus::test {
namespace {

int threads_of_this_process() {
  DIR* const folder = opendir("/proc/self/task");
  if (folder == nullptr) return -1;
  int count = 0;
  while (const dirent* const entry = readdir(folder)) count += entry->d_name[0] == '.' ? 0 : 1;
  closedir(folder);
  return count;
}

class ForkIsSafe : public testing::Test {
 protected:
  const Workload work{{1, 25, 5000}, 1};
  Results expected = work.results(), mine = work.results();

  void SetUp() override { ASSERT_TRUE(work.run(expected, Method::exodus, 1)); }

  bool right() { return work.run(mine, Method::exodus, 4) && Workload::same_bits(mine, expected); }

  /// Forks; the child runs `body` and exits with 0 if it returns true. A child that hangs ends by its alarm.
  template <class Body>
  static pid_t child(Body body) {
    const pid_t id = fork();
    if (id == 0) {
      alarm(60);
      _exit(body() ? 0 : 1);
    }
    return id;
  }

  static bool succeeded(pid_t id) {
    int status = -1;
    return id > 0 && waitpid(id, &status, 0) == id && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
};

TEST_F(ForkIsSafe, BeforeTheFirstUse) {
  EXPECT_TRUE(succeeded(child([this] { return right(); })));
  EXPECT_TRUE(right());
}

TEST_F(ForkIsSafe, AfterAnUse) {
  ASSERT_TRUE(right());
  const pid_t id = child([this] {
    if (threads_of_this_process() > 1) return false;   // the workers stayed with the parent
    if (!right()) return false;
    return threads_of_this_process() != 1;   // and there are new ones
  });
  EXPECT_TRUE(succeeded(id));
  EXPECT_TRUE(right());
}

TEST_F(ForkIsSafe, InAChildOfAChild) {
  ASSERT_TRUE(right());
  const pid_t id = child([this] { return right() && succeeded(child([this] { return right(); })) && right(); });
  EXPECT_TRUE(succeeded(id));
}

// The next two tests allocate all memory and start all threads before the first fork. AddressSanitizer's allocator, unlike the C library's,
// hangs in a child that was forked while another thread was allocating.

TEST_F(ForkIsSafe, WhileOtherThreadsCompute) {
  constexpr int callers = 3;
  ASSERT_TRUE(right());
  std::vector<Results> results;
  for (int k = 0; k < callers; ++k) results.push_back(work.results());
  std::atomic<bool> enough{false};
  std::atomic<int> wrong{0}, computing{0};
  std::vector<std::thread> busy;
  for (Results& theirs : results) {
    busy.emplace_back([&] {
      for (bool first = true; !enough.load(); first = false) {
        if (!work.run(theirs, Method::exodus, 4) || !Workload::same_bits(theirs, expected)) ++wrong;
        if (first) ++computing;
      }
    });
  }
  while (computing.load() < callers) std::this_thread::yield();
  for (int round = 0; round < 20; ++round) {
    if (!succeeded(child([this] { return right() && right(); }))) {
      ADD_FAILURE() << "child " << round;
      break;
    }
  }
  enough = true;
  for (std::thread& thread : busy) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_TRUE(right());
}

TEST_F(ForkIsSafe, FromManyThreadsAtOnce) {
  constexpr int forkers = 4;
  std::vector<Results> results;
  for (int k = 0; k < forkers; ++k) results.push_back(work.results());
  std::atomic<int> failed{0}, waiting{forkers};
  std::vector<std::thread> parents;
  for (Results& theirs : results) {
    parents.emplace_back([&] {
      --waiting;
      while (waiting.load() > 0) std::this_thread::yield();
      for (int round = 0; round < 4; ++round) {
        if (!succeeded(child([&] { return work.run(theirs, Method::exodus, 3) && Workload::same_bits(theirs, expected); }))) ++failed;
      }
      --waiting;   // a thread that ends frees memory
      while (waiting.load() > -forkers) std::this_thread::yield();
    });
  }
  for (std::thread& parent : parents) parent.join();
  EXPECT_EQ(failed.load(), 0);
}

}   // namespace
}   // namespace exodus::test
