// The threads that share a row: a part of a warp, a block, or the blocks of a cluster; or a column of a
// block whose threads have other rows beside them.
#pragma once

#include <cuda_runtime.h>

#include "../formulas/softmax.h"
#include "cluster.h"
#include "plan.h"

namespace fastact {
namespace {

constexpr unsigned whole_warp = 0xffffffffu;

// The value of the lane whose number differs by `distance`. The whole warp takes part: its teams go
// through their rows together, and a mask that is known beforehand costs no instructions.
template <class T>
FASTACT_FN T shuffled(T value, int distance) {
  return __shfl_xor_sync(whole_warp, value, distance);
}

// A part of a row, in elements.
struct Part {
  int begin, size;
};

// Of rows that are kept, the blocks of a cluster have a part each; else one block has all parts.
template <cuda::RowKind kind>
class Team {
 public:
  static constexpr bool kept = kind == cuda::RowKind::kept, strided = kind == cuda::RowKind::strided;
  int lanes, rank;

  __device__ explicit Team(const cuda::Plan& plan)
      : lanes(plan.lanes), across_(plan.across), parts_(plan.parts), part_size_(plan.part_size) {
    if constexpr (strided) {
      rank = int(threadIdx.x) / across_;
      row_ = int(threadIdx.x) - rank * across_;
      return;
    }
    rank = int(threadIdx.x) & (lanes - 1);
    row_ = int(threadIdx.x) / lanes;
    if (lanes < 32) members_ = ((1u << lanes) - 1) << (threadIdx.x % 32 & ~unsigned(lanes - 1));
    if constexpr (kept) {
      if (parts_ > 1) {
        block_ = rank_in_cluster();
        cluster_sync();  // all have begun, and have shared memory
      }
    }
  }
  // A whole block of so many threads.
  __device__ explicit Team(int threads) : lanes(threads), rank(int(threadIdx.x)) {}

  // Which of the rows that a block takes at a time.
  FASTACT_FN int row() const { return row_; }
  FASTACT_FN bool leads() const { return rank == 0 && block_ == 0; }
  // What one of the team has written, all of it see from here on. Teams that lie side by side have no
  // barrier of their own.
  __device__ void sync() const {
    static_assert(!strided);
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
    if constexpr (strided) return sum_of_column<V>(n, f);
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

  // Of `width` threads, or of every so many of them.
  template <class V>
  __device__ V sum_of_warp(V value, int width, int every = 1) const {
    for (int distance = width / 2; distance >= every; distance /= 2)
      value = value + value.shuffled(distance);
    return value;
  }

  // Two sums take turns: whoever hands in for the next but one has been at the barrier of the next, so
  // that all have read this one.
  template <class V>
  __device__ V* handed_in() const {
    constexpr int bytes = strided ? cuda::Plan::tile_bytes : cuda::Plan::sum_bytes;
    return reinterpret_cast<V*>(shared_memory() + (turn_ ? bytes / 2 : 0));
  }

  // One for each warp of each part.
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

  // Each thread adds up its classes run by run; those of a warp that share a row, what they have;
  // then warps. Every thread of the block has to come, whether or not its row has classes.
  template <class V, class F>
  __device__ V sum_of_column(int n, const F& f) {
    V mine;
    f(mine, part(0, n));
#pragma unroll 1
    for (int p = 1; p < parts_; ++p) {
      V of_run;
      f(of_run, part(p, n));
      mine = mine + of_run;
    }
    if (lanes == 1) return mine;
    mine = sum_of_warp(mine, 32, across_);
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    V* slots = handed_in<V>();
    if (lane < across_) slots[warp * across_ + lane] = mine;
    __syncthreads();
    V total;
    for (int i = lane; i < int(blockDim.x) / 32 * across_; i += 32) total = total + slots[i];
    turn_ = !turn_;
    return sum_of_warp(total, 32, across_);
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

  unsigned members_ = whole_warp;  // those of this warp that share the row
  int across_ = 1, row_ = 0, parts_ = 1, part_size_ = 0, block_ = 0;
  bool turn_ = false;
};

// Sums over a row: N of them at a time.
template <class T, int N>
struct Sums {
  T at[N] = {};
  FASTACT_FN Sums shuffled(int distance) const {
    Sums result;
    for (int i = 0; i < N; ++i) result.at[i] = fastact::shuffled(at[i], distance);
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
  for (int distance = 16; distance > 0; distance /= 2) mine = mine + mine.shuffled(distance);
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
