// The threads that share a row: a part of a warp, a block, or the blocks of a cluster.
#pragma once

#include <cuda_runtime.h>

#include "../formulas/softmax.h"
#include "cluster.h"
#include "plan.h"

namespace fastact {
namespace {

constexpr unsigned whole_warp = 0xffffffffu;

// The value of the lane whose number differs by `distance`; `members` of the warp take part.
template <class T>
FASTACT_FN T shuffled(T value, unsigned members, int distance) {
  return __shfl_xor_sync(members, value, distance);
}

// A part of a row, in elements.
struct Part {
  int begin, size;
};

// `kept`: the blocks of a cluster have a part of the row each, and keep it in shared memory; else one
// block has them all.
template <bool kept>
class Team {
 public:
  int lanes, rank;

  // Of so many threads, a power of two, and the blocks that have the other parts.
  __device__ explicit Team(int size, int parts = 1, int part_size = 0)
      : lanes(size), rank(int(threadIdx.x) & (size - 1)), parts_(parts), part_size_(part_size) {
    if (size < 32) members_ = ((1u << size) - 1) << (threadIdx.x % 32 & ~unsigned(size - 1));
    if constexpr (kept) {
      if (parts > 1) {
        block_ = rank_in_cluster();
        cluster_sync();  // all have begun, and have shared memory
      }
    }
  }
  // Which of the rows that a block takes at a time.
  FASTACT_FN int row() const { return int(threadIdx.x) / lanes; }
  FASTACT_FN bool leads() const { return rank == 0 && block_ == 0; }
  // What one of the block has written, all of it see from here on.
  __device__ void sync() const {
    if (lanes > 32)
      __syncthreads();
    else
      __syncwarp(members_);
  }

  // This block's part of a row of n elements, or the first.
  FASTACT_FN Part part(int n) const { return part(block_, n); }

  // The sum of what f(mine, part) adds to `mine` in each thread and for each part, in an order that
  // does not depend on anything; all get it. V() is the sum of nothing, and a + b = b + a to the last
  // bit.
  template <class V, class F>
  __device__ V sum(int n, const F& f) {
    const int count = kept ? 1 : parts_;
#pragma unroll 1
    for (int p = block_;; ++p) {
      V mine;
      f(mine, part(p, n));
      mine = sum_of_warp(mine, lanes < 32 ? lanes : 32);
      if (lanes <= 32) return mine;
      hand_in(p, mine);
      if (p - block_ + 1 == count) break;
    }
    return sum_of_all<V>();
  }

 private:
  FASTACT_FN Part part(int p, int n) const {
    if (parts_ == 1) return {0, n};
    const int begin = p * part_size_, rest = n - begin;
    return {begin, rest < 0 ? 0 : rest < part_size_ ? rest : part_size_};
  }

  template <class V>
  __device__ V sum_of_warp(V value, int width) const {
    for (int distance = width / 2; distance > 0; distance /= 2)
      value = value + value.shuffled(members_, distance);
    return value;
  }

  // One for each warp of each part. Two sums take turns: whoever hands in for the next but one has been
  // at the barrier of the next, so that all have read this one.
  template <class V>
  __device__ V* handed_in() const {
    return reinterpret_cast<V*>(shared_memory() + (turn_ ? cuda::Plan::sum_bytes / 2 : 0));
  }

  template <class V>
  __device__ void hand_in(int p, const V& value) const {
    V* mine = handed_in<V>() + p * (lanes / 32) + rank / 32;
    if constexpr (kept) {
      if (parts_ > 1) {
        if (rank % 32 < parts_) *in_block(mine, rank % 32) = value;
        return;
      }
    }
    if (rank % 32 == 0) *mine = value;
  }

  template <class V>
  __device__ V sum_of_all() {
    sync_parts();
    const int lane = rank % 32, warps = lanes / 32;
    const V* from = handed_in<V>() + lane;
    V total = lane < warps ? from[0] : V();
    for (int p = 1; p < parts_; ++p)
      if (lane < warps) total = total + from[p * warps];
    turn_ = !turn_;
    return sum_of_warp(total, 32);
  }

  __device__ void sync_parts() const {
    if constexpr (kept) {
      if (parts_ > 1) {
        cluster_sync();
        return;
      }
    }
    __syncthreads();
  }

  unsigned members_ = whole_warp;  // those of this warp
  int parts_, part_size_, block_ = 0;
  bool turn_ = false;
};

// Sums over a row: N of them at a time.
template <class T, int N>
struct Sums {
  T at[N] = {};
  FASTACT_FN Sums shuffled(unsigned members, int distance) const {
    Sums result;
    for (int i = 0; i < N; ++i) result.at[i] = fastact::shuffled(at[i], members, distance);
    return result;
  }
  FASTACT_FN friend Sums operator+(const Sums& a, const Sums& b) {
    Sums result;
    for (int i = 0; i < N; ++i) result.at[i] = a.at[i] + b.at[i];
    return result;
  }
};

// Two sums over a block: to[0] and to[1].
__device__ inline void block_sums(Sums<double, 2> mine, double* to) {
  __shared__ __align__(16) unsigned char memory[32 * sizeof(mine)];
  Sums<double, 2>* each = reinterpret_cast<Sums<double, 2>*>(memory);
  for (int distance = 16; distance > 0; distance /= 2)
    mine = mine + mine.shuffled(whole_warp, distance);
  if (threadIdx.x % 32 == 0) each[threadIdx.x / 32] = mine;
  __syncthreads();
  if (threadIdx.x == 0) {
    Sums<double, 2> total;
    for (unsigned w = 0; w < blockDim.x / 32; ++w) total = total + each[w];
    to[0] = total.at[0];
    to[1] = total.at[1];
  }
}

}  // namespace
}  // namespace fastact
