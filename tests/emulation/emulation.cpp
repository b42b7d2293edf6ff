// The fibers behind include/cuda_runtime.h.
#include <cuda_runtime.h>
#include <ucontext.h>

#include <array>
#include <cstddef>
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

// Who has come; the round ends when all have.
struct Barrier {
  unsigned arrived = 0;
  unsigned long round = 0;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[stack_size]};
  dim3 index;
  bool done;
  const Barrier* barrier;  // at which it waits, if at any, for the end of
  unsigned long round;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

// Some lanes of a warp, and what they exchange: two rounds take turns.
struct Group {
  Barrier barrier;
  std::array<uint64_t, 32> slots[2];
};

using Warp = std::map<unsigned, Group>;  // by the lanes that take part

struct Block {
  Barrier barrier;
  std::vector<Warp> warps;
  unsigned threads;                     // that have not ended
  std::unique_ptr<std::byte[]> shared;  // of its exact size, for AddressSanitizer
};

std::mutex one_kernel;  // at a time
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Block> cluster;
Barrier cluster_barrier;
size_t shared_size;
// The fiber that runs, of so many in a block; those of a cluster's blocks follow each other.
unsigned current, thread_count;
unsigned first_block;  // of the cluster
bool moved;            // whether anything has happened since the scheduler last looked
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

unsigned thread() { return current % thread_count; }
unsigned lane() { return thread() % 32; }
Block& block() { return cluster[current / thread_count]; }
Warp& warp() { return block().warps[thread() / 32]; }

void enter_fiber(Fiber& fiber) {
  threadIdx = fiber.index;
  blockIdx.x = first_block + current / thread_count;
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
  --block().threads;
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
  Fiber& fiber = *fibers[current];
  fiber.barrier = &barrier;
  fiber.round = round;
  leave_fiber(false);
}

bool can_go_on(Fiber& fiber) {
  if (fiber.done) return false;
  if (fiber.barrier && fiber.barrier->round == fiber.round) return false;
  fiber.barrier = nullptr;
  return true;
}

Group& group(unsigned members) {
  if (!(members >> lane() & 1)) {
    std::fputs("emulation: a thread is not among those it waits for\n", stderr);
    std::abort();
  }
  return warp()[members];
}

void wait(Group& group, unsigned members) {
  const unsigned in_warp = thread_count - thread() / 32 * 32;
  if (in_warp < 32) members &= (1u << in_warp) - 1;
  wait(group.barrier, unsigned(__builtin_popcount(members)));
}

void run_cluster() {
  const unsigned count = unsigned(cluster.size()) * thread_count;
  cluster_barrier = {};
  for (Block& block : cluster) {
    block.barrier = {};
    block.threads = thread_count;
    block.warps.assign((thread_count + 31) / 32, {});
    block.shared.reset(new std::byte[shared_size]);
    memset(block.shared.get(), 0xff, shared_size);  // NaN
  }
  for (unsigned f = 0; f < count; ++f) {
    Fiber& fiber = *fibers[f];
    const unsigned i = f % thread_count;
    fiber.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    fiber.done = false;
    fiber.barrier = nullptr;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = stack_size;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
  }
  // Turn by turn in the other direction, and some warps stay behind: what no barrier orders comes in
  // many orders, the same ones each time.
  unsigned left = count;
  for (unsigned turn = 0; left > 0; ++turn) {
    moved = false;
    bool held = false;
    left = 0;
    for (unsigned f = 0; f < count; ++f) {
      current = turn % 2 ? count - 1 - f : f;
      if (can_go_on(*fibers[current])) {
        if ((current / 32 * 7 + turn / 64 * 5) % 11 < 4)
          held = true;
        else
          enter_fiber(*fibers[current]);
      }
      left += !fibers[current]->done;
    }
    if (moved) continue;
    turn |= 63;  // it is the turn of those that were held
    if (left > 0 && !held) {
      std::fputs("emulation: threads wait at a barrier that others never reach\n", stderr);
      std::abort();
    }
  }
}

}  // namespace

void wait_for_cluster() { wait(cluster_barrier, unsigned(cluster.size()) * thread_count); }

void wait_for_block() { wait(block().barrier, thread_count); }

void wait_for_warp(unsigned members) { wait(group(members), members); }

uint64_t exchange(unsigned members, uint64_t value, int distance) {
  Group& with = group(members);
  auto& slots = with.slots[with.barrier.round % 2];
  slots[lane()] = value;
  wait(with, members);
  return slots[lane() ^ unsigned(distance)];
}

unsigned char* shared_memory() { return reinterpret_cast<unsigned char*>(block().shared.get()); }

unsigned rank_in_cluster() { return current / thread_count; }

void* in_block(const void* p, unsigned rank) {
  const ptrdiff_t offset = static_cast<const std::byte*>(p) - block().shared.get();
  const bool exists = offset >= 0 && size_t(offset) < shared_size && rank < cluster.size();
  if (!exists || cluster_barrier.round == 0 || cluster[rank].threads == 0) {
    std::fputs("emulation: shared memory that is not there, not yet or no longer\n", stderr);
    std::abort();
  }
  return cluster[rank].shared.get() + offset;
}

size_t& shared_allowed(const void* kernel) {
  static std::mutex mutex;
  static std::map<const void*, size_t> allowed;
  const std::lock_guard lock(mutex);
  return allowed.try_emplace(kernel, ordinary_shared).first->second;
}

void run(dim3 blocks, dim3 threads, unsigned in_cluster, size_t shared,
         const std::function<void()>& kernel) {
  const std::lock_guard lock(one_kernel);
  gridDim = blocks;
  blockDim = threads;
  thread_count = threads.x * threads.y * threads.z;
  shared_size = shared;
  cluster.resize(in_cluster);
  while (fibers.size() < in_cluster * thread_count) fibers.push_back(std::make_unique<Fiber>());
  kernel_body = &kernel;
  for (blockIdx.y = 0; blockIdx.y < blocks.y; ++blockIdx.y)
    for (first_block = 0; first_block < blocks.x; first_block += in_cluster) run_cluster();
}

}  // namespace emulation
