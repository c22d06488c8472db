/// @file
/// What of the shim is no template: the fibers and the watch over shared memory. Kernels spend most of their time under the shim here, so
/// this is compiled once, with optimization, and the kernels without.

// The longjmp that it checks refuses to go to another fiber's stack.
#undef _FORTIFY_SOURCE

#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "fibers.hpp"
#include "watched_memory.hpp"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

Dim threadIdx, blockIdx, blockDim, gridDim;

namespace exodus::cuda::shim {

std::uint64_t present_block = 0;
std::size_t dynamic_bytes = 0;

namespace {

/// The most threads of a block, and the most bytes of dynamic shared memory, that every GPU accepts.
constexpr int most_threads = 1024;
constexpr std::size_t most_shared_bytes = 48 << 10;

std::uint32_t epoch = 0;   ///< barriers that the block has passed, and 1

/// A thread's own time, which a barrier of its warp moves on, and what it knows of the other lanes' (a vector clock): what a lane did until
/// then comes before all that it does from now on.
struct Clock {
  std::uint32_t of[32] = {};
};
std::vector<Clock> clocks;

// The point at which a fiber or the scheduler continues. swapcontext() makes a system call for the mask of signals at each switch, which
// takes longer than the kernels do. But it is the only switch that AddressSanitizer follows.
#if defined(__SANITIZE_ADDRESS__)
using Point = ucontext_t;
void go(Point& from, Point& to) {
  swapcontext(&from, &to);
}
void begin(Point& from, ucontext_t& fiber) {
  swapcontext(&from, &fiber);
}
#else
using Point = std::jmp_buf;
[[gnu::noinline]] void go(Point& from, Point& to) {
  if (_setjmp(from) == 0) std::longjmp(to, 1);
}
[[gnu::noinline]] void begin(Point& from, ucontext_t& fiber) {
  if (_setjmp(from) == 0) setcontext(&fiber);
}
#endif

/// A thread of one block after another.
struct Fiber {
  static constexpr std::size_t stack_bytes = 256 << 10;
  Point at;
  bool begun = false;
  std::unique_ptr<char[]> stack = std::make_unique_for_overwrite<char[]>(stack_bytes);
  Wait wait;
  std::uint64_t given = 0, taken[32] = {};                 // this lane's value in a warp operation, and those of all lanes
  std::deque<std::vector<std::function<void()>>> copies;   // groups of asynchronous copies under way; the last group is open
};

struct Machine {
  std::vector<std::unique_ptr<Fiber>> fibers;   ///< kept from kernel to kernel, so that their number never falls
  std::vector<unsigned> order;
  std::function<void()> body;
  Point scheduler;
  const void* stack = nullptr;   ///< the scheduler's
  std::size_t stack_bytes = 0;
  std::mt19937 random{1};
};
Machine machine;

Fiber& present() {
  return *machine.fibers[threadIdx.x];
}

/// Tells AddressSanitizer of a switch to a stack, and, after the switch back, which stack the switch came from.
#if defined(__SANITIZE_ADDRESS__)
class Switch {
 public:
  Switch(const void* stack, std::size_t bytes) { __sanitizer_start_switch_fiber(&fake_, stack, bytes); }
  void done(const void** from, std::size_t* bytes) { __sanitizer_finish_switch_fiber(fake_, from, bytes); }

 private:
  void* fake_ = nullptr;
};
#else
struct Switch {
  Switch(const void*, std::size_t) {}
  void done(const void**, std::size_t*) {}
};
#endif

/// A fiber's life.
void live() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &machine.stack, &machine.stack_bytes);
#endif
  while (true) {
    machine.body();
    pause({Wait::ended});
  }
}

/// Runs a fiber until it waits.
void resume(Fiber& fiber) {
  Switch there(fiber.stack.get(), Fiber::stack_bytes);
  if (fiber.begun) {
    go(machine.scheduler, fiber.at);
  } else {
    fiber.begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get(), context.uc_stack.ss_size = Fiber::stack_bytes, context.uc_link = nullptr;
    makecontext(&context, live, 0);
    begin(machine.scheduler, context);
  }
  there.done(nullptr, nullptr);
}

/// What all of some lanes know together, of the warp that begins at a thread.
Clock joint_clock(unsigned first, std::uint32_t lanes) {
  Clock joint;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    for (unsigned k = 0; k < 32; ++k) joint.of[k] = std::max(joint.of[k], clocks[first + lane].of[k]);
  }
  return joint;
}

/// Lets some lanes of the warp that begins at a thread go on: each gets what all gave, and after a barrier knows what all did.
void finish_lanes(unsigned first, std::uint32_t lanes, bool barrier) {
  const Clock joint = barrier ? joint_clock(first, lanes) : Clock{};
  std::uint64_t given[32] = {};
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) != 0) given[lane] = machine.fibers[first + lane]->given;
  }
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((lanes >> lane & 1) == 0) continue;
    Fiber& fiber = *machine.fibers[first + lane];
    std::copy(given, given + 32, fiber.taken);
    fiber.wait = {};
    if (!barrier) continue;
    clocks[first + lane] = joint;
    ++clocks[first + lane].of[lane];
  }
}

/// Lets the lanes [first, last) of a warp go on whose operation has all of its mask there; whether there were any.
bool finish_warp(unsigned first, unsigned last) {
  bool finished = false;
  for (unsigned t = first; t < last; ++t) {
    const Wait wait = machine.fibers[t]->wait;
    if (!wait.of_warp()) continue;
    std::uint32_t there = 0;
    for (unsigned other = first; other < last; ++other) there |= machine.fibers[other]->wait == wait ? 1u << (other - first) : 0;
    if (there != wait.mask) continue;
    finish_lanes(first, there, wait.kind == Wait::warp_barrier);
    finished = true;
  }
  return finished;
}

void begin_block(unsigned threads) {
  ++present_block, epoch = 1;
  while (machine.fibers.size() < threads) machine.fibers.push_back(std::make_unique<Fiber>());
  machine.order.resize(threads);
  clocks.assign(threads, {});
  for (unsigned t = 0; t < threads; ++t) {
    Fiber& fiber = *machine.fibers[t];
    machine.order[t] = t, fiber.wait = {}, fiber.copies.assign(1, {}), clocks[t].of[t % 32] = 1;
  }
}

void run_block(unsigned threads) {
  begin_block(threads);
  while (true) {
    std::shuffle(machine.order.begin(), machine.order.end(), machine.random);
    bool moved = false;
    for (const unsigned t : machine.order) {
      if (machine.fibers[t]->wait.kind != Wait::nothing) continue;
      moved = true, threadIdx.x = t;
      resume(*machine.fibers[t]);
    }
    for (unsigned first = 0; first < threads; first += 32) moved = finish_warp(first, std::min(first + 32, threads)) || moved;
    if (moved) continue;
    const Wait wait = machine.fibers[0]->wait;
    const auto same = [&wait](const auto& fiber) { return fiber->wait == wait; };
    if (!std::all_of(machine.fibers.begin(), machine.fibers.begin() + threads, same))
      fail("some threads wait where others do not, or ended");
    if (wait.kind == Wait::ended) return;
    if (wait.of_warp()) fail("a warp operation whose mask names lanes that never come");
    ++epoch;
    for (unsigned t = 0; t < threads; ++t) machine.fibers[t]->wait = {};
  }
}

}   // namespace

void fail(const char* what) {
  std::fprintf(stderr, "shim: block %u, thread %u: %s\n", blockIdx.x, threadIdx.x, what);
  std::abort();
}

void seed(unsigned value) {
  machine.random.seed(value);
}

void run(std::int64_t blocks, int threads, std::size_t shared_bytes, std::function<void()> body) {
  blockIdx.x = threadIdx.x = 0;   // fail() names them
  if (blocks < 1) fail("a launch has no blocks");
  if (threads < 1 || threads > most_threads) fail("a launch's blocks have no threads, or more than 1024");
  if (shared_bytes > most_shared_bytes) fail("a launch asks for more than 48 kB of shared memory");
  std::vector<unsigned> order(static_cast<std::size_t>(blocks));
  for (unsigned b = 0; b < order.size(); ++b) order[b] = b;
  std::shuffle(order.begin(), order.end(), machine.random);
  machine.body = std::move(body);
  blockDim.x = static_cast<unsigned>(threads), gridDim.x = static_cast<unsigned>(blocks);
  dynamic_bytes = shared_bytes;
  for (const unsigned b : order) {
    blockIdx.x = b;
    run_block(blockDim.x);
  }
}

void pause(Wait wait) {
  Fiber& fiber = present();
  fiber.wait = wait;
  Switch back(machine.stack, machine.stack_bytes);
  go(fiber.at, machine.scheduler);
  back.done(&machine.stack, &machine.stack_bytes);
}

const std::uint64_t* exchange(Wait::Kind kind, std::uint32_t mask, std::uint64_t value, std::uint32_t line) {
  if ((mask >> threadIdx.x % 32 & 1) == 0) fail("a lane takes part that is not in its mask");
  Fiber& fiber = present();
  fiber.given = value;
  pause({kind, mask, line});
  return fiber.taken;
}

void copy_later(std::function<void()> copy) {
  present().copies.back().push_back(std::move(copy));
}

void close_group() {
  present().copies.emplace_back();
}

void finish_groups(std::size_t newest) {
  for (auto& copies = present().copies; copies.size() > newest + 1; copies.pop_front()) {
    for (const auto& arrive : copies.front()) arrive();
  }
}

Use Use::now() {
  return {shim::epoch, threadIdx.x, clocks[threadIdx.x].of[threadIdx.x % 32]};
}

bool Use::comes_before_me() const {
  if (epoch != shim::epoch || thread == threadIdx.x) return true;
  return thread / 32 == threadIdx.x / 32 && clocks[threadIdx.x].of[thread % 32] >= time;
}

void Watch::read() {
  if (block_ != present_block) fail("shared memory is read before it was written");
  if (!written_.comes_before_me()) fail("shared memory is read without a barrier after another's write");
  if (crowded_ == epoch) return;
  std::erase_if(also_read_, [](const Use& use) { return use.comes_before_me(); });
  if (!read_.comes_before_me()) {
    if (read_.thread / 32 != threadIdx.x / 32) crowded_ = epoch;
    also_read_.push_back(read_);
  }
  read_ = Use::now();
}

void Watch::write() {
  if (block_ != present_block) block_ = present_block, written_ = read_ = {}, also_read_.clear(), crowded_ = 0;
  if (!written_.comes_before_me()) fail("shared memory is written by two threads without a barrier");
  const auto before = [](const Use& use) { return use.comes_before_me(); };
  if (crowded_ == epoch || !before(read_) || !std::all_of(also_read_.begin(), also_read_.end(), before))
    fail("shared memory is written without a barrier after another's read");
  written_ = Use::now();
}

}   // namespace exodus::cuda::shim
