// Thread-block clusters, and a block's shared memory, whose size the launch says. A cluster's blocks
// run at the same time and reach each other's shared memory. Before sm_90 there are none.
#pragma once

#include <cuda_runtime.h>

namespace fastact {
namespace {

// 16-byte aligned.
#if defined(FASTACT_EMULATION)
inline unsigned char* shared_memory() { return emulation::shared_memory(); }
#else
__device__ __forceinline__ unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char fastact_shared[];
  return fastact_shared;
}
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
// Never called: no plan makes clusters there.
__device__ __forceinline__ int rank_in_cluster() { return 0; }
__device__ __forceinline__ void cluster_sync() {}
template <class T>
__device__ __forceinline__ T* in_block(T* p, int) {
  return p;
}
#else
__device__ __forceinline__ int rank_in_cluster() { return int(__clusterRelativeBlockRank()); }

// What any thread of the cluster has written, all see from here on.
__device__ __forceinline__ void cluster_sync() {
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
}

// Where another block of the cluster has what p points at in this one's shared memory.
template <class T>
__device__ __forceinline__ T* in_block(T* p, int rank) {
  return static_cast<T*>(__cluster_map_shared_rank(p, unsigned(rank)));
}
#endif

}  // namespace
}  // namespace fastact
