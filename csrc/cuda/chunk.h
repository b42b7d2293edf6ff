// 16 bytes of a tensor at a time, at any address.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

#include "../formulas/storage.h"

namespace fastact {
namespace {

template <class S>
inline constexpr int per_chunk = 16 / sizeof(S);

template <class S>
struct alignas(16) Chunk {
  S at[per_chunk<S>];
};

template <class S>
FASTACT_FN int elements_past_boundary(const S* p) {
  return int(uintptr_t(p) % 16 / sizeof(S));
}

// The chunk that begins at p. Where p is not at a multiple of 16 bytes, the two aligned vectors that
// hold it are read, and shifted: the second one comes from the first-level cache, and memory is read
// at full width. It reaches less than 16 bytes past either end.
template <class S>
__device__ __forceinline__ Chunk<S> load_chunk(const S* p) {
  const unsigned past = unsigned(uintptr_t(p) % 16);
  // (Pointer arithmetic: through an integer, the compiler would forget that this is global memory.)
  const uint4* aligned = reinterpret_cast<const uint4*>(p - past / sizeof(S));
  uint4 v = *aligned;
  if (past != 0) {
    const uint4 next = aligned[1];
    uint32_t w[8] = {v.x, v.y, v.z, v.w, next.x, next.y, next.z, next.w};
    if (past & 8)
#pragma unroll
      for (int i = 0; i < 6; ++i) w[i] = w[i + 2];
    if (past & 4)
#pragma unroll
      for (int i = 0; i < 5; ++i) w[i] = w[i + 1];
    if constexpr (sizeof(S) == 2) {
      const unsigned bits = past % 4 * 8;
      v = {__funnelshift_r(w[0], w[1], bits), __funnelshift_r(w[1], w[2], bits),
           __funnelshift_r(w[2], w[3], bits), __funnelshift_r(w[3], w[4], bits)};
    } else {
      v = {w[0], w[1], w[2], w[3]};
    }
  }
  return __builtin_bit_cast(Chunk<S>, v);
}

// In one piece where p allows it.
template <class S>
__device__ __forceinline__ void store_chunk(S* p, const Chunk<S>& chunk) {
  if (elements_past_boundary(p) == 0) {
    const uint4 v = __builtin_bit_cast(uint4, chunk);
#if defined(__CUDA_ARCH__)
    // An assignment would be broken up, to share stores with the other branch.
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
                 :
                 : "l"(__cvta_generic_to_global(p)), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#else
    *reinterpret_cast<uint4*>(p) = v;
#endif
  } else {
#pragma unroll
    for (int i = 0; i < per_chunk<S>; ++i) p[i] = chunk.at[i];
  }
}

}  // namespace
}  // namespace fastact
