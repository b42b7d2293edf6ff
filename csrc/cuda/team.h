// The threads that share a row: a part of a warp, or a block.
#pragma once

#include <cuda_runtime.h>

#include "../formulas/softmax.h"

namespace fastact {
namespace {

constexpr unsigned whole_warp = 0xffffffffu;

// The value of the lane whose number differs by `distance`; `members` of the warp take part.
template <class T>
FASTACT_FN T shuffled(T value, unsigned members, int distance) {
  return __shfl_xor_sync(members, value, distance);
}

class Team {
 public:
  int lanes, rank;

  // Of so many threads, a power of two.
  __device__ explicit Team(int size) : lanes(size), rank(int(threadIdx.x) & (size - 1)) {
    if (size < 32) members_ = ((1u << size) - 1) << (threadIdx.x % 32 & ~unsigned(size - 1));
  }
  // Which of the rows that a block takes at a time.
  FASTACT_FN int row() const { return int(threadIdx.x) / lanes; }
  FASTACT_FN bool leads() const { return rank == 0; }
  // What one has written, all see from here on.
  __device__ void sync() const {
    if (lanes > 32)
      __syncthreads();
    else
      __syncwarp(members_);
  }

  // The sum of what all threads of the team have, in an order that does not depend on anything; all get
  // it. V() is the sum of nothing, and a + b = b + a to the last bit.
  template <class V>
  __device__ V sum(V value) const {
    const int width = lanes < 32 ? lanes : 32;
    for (int distance = width / 2; distance > 0; distance /= 2)
      value = value + value.shuffled(members_, distance);
    if (lanes <= 32) return value;
    __shared__ __align__(16) unsigned char memory[32 * sizeof(V)];
    V* each_warp = reinterpret_cast<V*>(memory);
    const int warp = rank / 32, warps = lanes / 32;
    __syncthreads();  // the last result has been read
    if (rank % 32 == 0) each_warp[warp] = value;
    __syncthreads();
    value = rank % 32 < warps ? each_warp[rank % 32] : V();
    for (int distance = 16; distance > 0; distance /= 2)
      value = value + value.shuffled(whole_warp, distance);
    return value;
  }

 private:
  unsigned members_ = whole_warp;  // those of this warp
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
