// The fibers behind include/cuda_runtime.h.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
namespace {

constexpr size_t stack_size = 64 << 10;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack = std::make_unique<char[]>(stack_size);
  dim3 index;
  bool done;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// Who has come; the round ends when all have.
struct Barrier {
  unsigned arrived = 0;
  unsigned long round = 0;
};

struct Warp {
  std::map<unsigned, Barrier> barriers;  // by the lanes that take part
  std::array<uint64_t, 32> slots;
};

std::mutex one_kernel;  // at a time
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
Barrier block;
unsigned current, thread_count;
bool moved;  // whether anything has happened since the scheduler last looked
ucontext_t scheduler;
const std::function<void()>* kernel_body;
[[maybe_unused]] void* scheduler_fake_stack;
[[maybe_unused]] const void* scheduler_stack;
[[maybe_unused]] size_t scheduler_stack_size;

void leave_fiber([[maybe_unused]] bool for_good) {
  Fiber& fiber = *fibers[current];
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber.fake_stack, scheduler_stack,
                                 scheduler_stack_size);
#endif
  swapcontext(&fiber.context, &scheduler);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

void enter_fiber(Fiber& fiber) {
  threadIdx = fiber.index;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack.get(), stack_size);
#endif
  swapcontext(&scheduler, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void fiber_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_size);
#endif
  (*kernel_body)();
  fibers[current]->done = moved = true;
  leave_fiber(true);
}

void wait(Barrier& barrier, unsigned expected) {
  const unsigned long round = barrier.round;
  moved = true;
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.round;
    return;
  }
  while (barrier.round == round) leave_fiber(false);
}

void run_block() {
  block = {};
  warps.assign((thread_count + 31) / 32, {});
  for (unsigned i = 0; i < thread_count; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  for (unsigned left = thread_count; left > 0;) {
    moved = false;
    left = 0;
    for (current = 0; current < thread_count; ++current) {
      if (!fibers[current]->done) enter_fiber(*fibers[current]);
      left += !fibers[current]->done;
    }
    if (left > 0 && !moved) {
      std::fputs("emulation: threads wait at a barrier that others never reach\n", stderr);
      std::abort();
    }
  }
}

}  // namespace

unsigned lane() { return current % 32; }
uint64_t& slot(unsigned lane) { return warps[current / 32].slots[lane]; }

void wait_for_block() { wait(block, thread_count); }

void wait_for_warp(unsigned members) {
  if (!(members >> lane() & 1)) {
    std::fputs("emulation: a thread is not among those it waits for\n", stderr);
    std::abort();
  }
  const unsigned in_warp = thread_count - current / 32 * 32;
  if (in_warp < 32) members &= (1u << in_warp) - 1;
  wait(warps[current / 32].barriers[members], unsigned(__builtin_popcount(members)));
}

void run(dim3 blocks, dim3 threads, const std::function<void()>& kernel) {
  const std::lock_guard lock(one_kernel);
  gridDim = blocks;
  blockDim = threads;
  thread_count = threads.x * threads.y * threads.z;
  while (fibers.size() < thread_count) fibers.push_back(std::make_unique<Fiber>());
  kernel_body = &kernel;
  for (blockIdx.y = 0; blockIdx.y < blocks.y; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < blocks.x; ++blockIdx.x) run_block();
}

}  // namespace emulation
