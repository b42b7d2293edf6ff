// A stand-in for CUDA's header of the same name, for a host compiler: what csrc/cuda uses of CUDA C++,
// run on the CPU, as a GPU of sm_90. Clusters of blocks run one after another. The threads of a cluster
// are fibers, which give way to each other at barriers and shuffles; emulation.cpp has the scheduler.
#pragma once

#include <stdint.h>
#include <string.h>

#include <functional>

#define __global__
#define __device__
#define __forceinline__ inline
#define __host__
// Of a fixed size: one for all, so no two blocks of a cluster may use it.
#define __shared__ static
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
// Waits until all threads of the cluster or of the block, or those of this warp in `members`, have
// come.
void wait_for_cluster();
void wait_for_block();
void wait_for_warp(unsigned members);
// What the lane has handed in whose number differs by `distance`.
uint64_t exchange(unsigned members, uint64_t value, int distance);
// The block's, of the size that the launch says; and where another block of the cluster has what p
// points at in this one's.
unsigned char* shared_memory();
void* in_block(const void* p, unsigned rank);
unsigned rank_in_cluster();
void run(dim3 blocks, dim3 threads, unsigned cluster, size_t shared,
         const std::function<void()>& kernel);

// The device's.
inline constexpr int most_shared = 227 << 10, ordinary_shared = 48 << 10, most_in_cluster = 8;
// What a kernel has declared of it, as if each had as much.
inline constexpr int declared_shared = 512;
// What cudaFuncSetAttribute has allowed a kernel.
size_t& shared_allowed(const void* kernel);
}  // namespace emulation

inline void __syncthreads() { emulation::wait_for_block(); }
inline void __cluster_barrier_arrive() {}  // all at once, in the wait
inline void __cluster_barrier_wait() { emulation::wait_for_cluster(); }
inline unsigned __clusterRelativeBlockRank() { return emulation::rank_in_cluster(); }
inline void* __cluster_map_shared_rank(const void* p, unsigned rank) {
  return emulation::in_block(p, rank);
}
inline void __syncwarp(unsigned members) { emulation::wait_for_warp(members); }

template <class T>
T __shfl_xor_sync(unsigned members, T value, int distance) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = emulation::exchange(members, bits, distance);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return unsigned((uint64_t(high) << 32 | low) >> (shift & 31));
}

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration = 9 };
inline const char* cudaGetErrorString(cudaError_t) { return "invalid configuration argument"; }

inline cudaError_t cudaGetLastError() { return cudaSuccess; }

enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = emulation::most_shared;
  return cudaSuccess;
}

struct cudaFuncAttributes {
  size_t sharedSizeBytes;
  int ptxVersion;
};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* of, const void*) {
  *of = {emulation::declared_shared, 90};
  return cudaSuccess;
}

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  if (value > emulation::most_shared - emulation::declared_shared) return cudaErrorInvalidConfiguration;
  emulation::shared_allowed(kernel) = size_t(value);
  return cudaSuccess;
}

enum cudaLaunchAttributeID { cudaLaunchAttributeClusterDimension };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    struct {
      unsigned x, y, z;
    } clusterDim;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

inline cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, const void*,
                                                  const cudaLaunchConfig_t* config) {
  const bool fits = config->dynamicSmemBytes + emulation::declared_shared <= emulation::most_shared;
  *clusters = fits ? 16 : 0;
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  const dim3 &blocks = config->gridDim, &threads = config->blockDim;
  const unsigned size = threads.x * threads.y * threads.z;
  const unsigned cluster = config->numAttrs ? config->attrs->val.clusterDim.x : 1;
  if (blocks.x == 0 || blocks.y == 0 || blocks.y > 65535 || size == 0 || size > 1024 ||
      cluster > emulation::most_in_cluster || blocks.x % cluster != 0 ||
      config->dynamicSmemBytes > emulation::shared_allowed(reinterpret_cast<const void*>(kernel)))
    return cudaErrorInvalidConfiguration;
  emulation::run(blocks, threads, cluster, config->dynamicSmemBytes, [&] { kernel(arguments...); });
  return cudaSuccess;
}
