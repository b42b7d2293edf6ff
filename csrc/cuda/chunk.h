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

// A chunk that does not begin at a multiple of 16 bytes is read as the two aligned vectors that hold
// it, and shifted: the second one comes from the first-level cache, and memory is read at full width.
// That reaches less than 16 bytes past either end.

// The aligned vector that holds p's first byte; the next follows it. (Pointer arithmetic: through an
// integer, the compiler would forget that this is global memory.)
template <class S>
__device__ __forceinline__ const uint4* aligned_at(const S* p) {
  return reinterpret_cast<const uint4*>(p - elements_past_boundary(p));
}

// The chunk that begins so many bytes into v.
template <class S>
__device__ __forceinline__ uint4 shifted_by(unsigned past, uint4 v, uint4 next) {
  uint32_t w[8] = {v.x, v.y, v.z, v.w, next.x, next.y, next.z, next.w};
  if (past & 8)
#pragma unroll
    for (int i = 0; i < 6; ++i) w[i] = w[i + 2];
  if (past & 4)
#pragma unroll
    for (int i = 0; i < 5; ++i) w[i] = w[i + 1];
  if constexpr (sizeof(S) > 2) return {w[0], w[1], w[2], w[3]};
  const unsigned bits = past % 4 * 8;
  return {__funnelshift_r(w[0], w[1], bits), __funnelshift_r(w[1], w[2], bits),
          __funnelshift_r(w[2], w[3], bits), __funnelshift_r(w[3], w[4], bits)};
}

// The chunk that begins at p.
template <class S>
__device__ __forceinline__ Chunk<S> load_chunk(const S* p) {
  const uint4* from = aligned_at(p);
  uint4 v = from[0];
  if (const unsigned past = unsigned(uintptr_t(p) % 16); past != 0) v = shifted_by<S>(past, v, from[1]);
  return __builtin_bit_cast(Chunk<S>, v);
}

// Several chunks, all of whose loads are under way before the first is needed.
template <class S, int depth>
__device__ __forceinline__ void load_chunks(const S* const (&p)[depth], Chunk<S> (&chunks)[depth]) {
  uint4 v[depth];
#pragma unroll
  for (int u = 0; u < depth; ++u) v[u] = *aligned_at(p[u]);
  const unsigned past = unsigned(uintptr_t(p[0]) % 16);  // the same for all
  if (past != 0) {
    uint4 next[depth];
#pragma unroll
    for (int u = 0; u < depth; ++u) next[u] = aligned_at(p[u])[1];
#pragma unroll
    for (int u = 0; u < depth; ++u) v[u] = shifted_by<S>(past, v[u], next[u]);
  }
#pragma unroll
  for (int u = 0; u < depth; ++u) chunks[u] = __builtin_bit_cast(Chunk<S>, v[u]);
}

// Two results in 16 bits, which a GPU converts together.
__device__ __forceinline__ uint32_t stored(BFloat16, float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return store<BFloat16>(low).bits | uint32_t(store<BFloat16>(high).bits) << 16;
#endif
}
__device__ __forceinline__ uint32_t stored(Half, float low, float high) {
#if defined(__CUDA_ARCH__)
  uint32_t both;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return store<Half>(low).bits | uint32_t(store<Half>(high).bits) << 16;
#endif
}

// The results of a chunk.
template <class S>
__device__ __forceinline__ Chunk<S> stored(const Compute<S> (&x)[per_chunk<S>]) {
  if constexpr (sizeof(S) == 2) {
    const uint4 v = {stored(S{}, x[0], x[1]), stored(S{}, x[2], x[3]), stored(S{}, x[4], x[5]),
                     stored(S{}, x[6], x[7])};
    return __builtin_bit_cast(Chunk<S>, v);
  } else {
    Chunk<S> chunk;
#pragma unroll
    for (int k = 0; k < per_chunk<S>; ++k) chunk.at[k] = x[k];
    return chunk;
  }
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
