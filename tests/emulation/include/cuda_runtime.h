// A stand-in for CUDA's header of the same name, for a host compiler: what csrc/cuda uses of CUDA C++,
// run on the CPU. Blocks run one after another. The threads of a block are fibers, which give way to
// each other at barriers and shuffles; emulation.cpp has the scheduler.
#pragma once

#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __forceinline__ inline
#define __host__
#define __shared__ static  // blocks run one after another
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {
// Waits until all threads of the block, or those of this warp in `members`, have come.
void wait_for_block();
void wait_for_warp(unsigned members);
// 8 bytes for each lane of this warp.
uint64_t& slot(unsigned lane);
unsigned lane();
void run(dim3 blocks, dim3 threads, const std::function<void()>& kernel);
}  // namespace emulation

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __syncwarp(unsigned members) { emulation::wait_for_warp(members); }

template <class T>
T __shfl_xor_sync(unsigned members, T value, int distance) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  memcpy(&emulation::slot(emulation::lane()), &value, sizeof(T));
  emulation::wait_for_warp(members);
  memcpy(&value, &emulation::slot(emulation::lane() ^ unsigned(distance)), sizeof(T));
  emulation::wait_for_warp(members);  // before anyone writes again
  return value;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration = 9 };
inline const char* cudaGetErrorString(cudaError_t) { return "invalid configuration argument"; }

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 &blocks = config->gridDim, &threads = config->blockDim;
  const unsigned size = threads.x * threads.y * threads.z;
  if (blocks.x == 0 || blocks.y == 0 || blocks.y > 65535 || size == 0 || size > 1024)
    return cudaErrorInvalidConfiguration;
  emulation::run(blocks, threads, [&] { kernel(arguments...); });
  return cudaSuccess;
}
