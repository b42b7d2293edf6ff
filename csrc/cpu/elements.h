// Loops over the elements of contiguous arrays, whatever they are stored as.
//
// A compiler that converts 16-bit elements one by one spends more on it than on most activations. So
// bfloat16 is taken in pairs, and float16 a block at a time.
#pragma once

#include <stdint.h>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "../formulas/storage.h"

namespace fastact {
namespace {

template <class S>
FASTACT_FN void widen(const S* x, Compute<S>* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = load(x[i]);
}
template <class S>
FASTACT_FN void narrow(const Compute<S>* x, S* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = store<S>(x[i]);
}

// F16C has an instruction for each direction, which GCC 12 does not use in loops: the integer
// arithmetic that it vectorises instead takes 27 to and fro. ("maskz" with all ones is the form that
// does not warn.)
#if defined(__F16C__)
template <>
FASTACT_FN void widen<Half>(const Half* x, float* y, int64_t n) {
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16)
    _mm512_storeu_ps(y + i,
                     _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256((const __m256i_u*)(x + i))));
#endif
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i_u*)(x + i))));
  for (; i < n; ++i) y[i] = _cvtsh_ss(x[i].bits);
}
template <>
FASTACT_FN void narrow<Half>(const float* x, Half* y, int64_t n) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 16 <= n; i += 16)
    _mm256_storeu_si256((__m256i_u*)(y + i),
                        _mm512_maskz_cvtps_ph(0xffff, _mm512_loadu_ps(x + i), nearest));
#endif
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128((__m128i_u*)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), nearest));
  for (; i < n; ++i) y[i].bits = _cvtss_sh(x[i], nearest);
}
#endif

// f(a, b) computes one element of each output, b, from one of each input, a. An output may be an input.
template <class S, int ins, int outs, class F>
FASTACT_FN void map_each(const S* const (&x)[ins], S* const (&y)[outs], int64_t n, const F& f) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    Compute<S> a[ins], b[outs];
    for (int k = 0; k < ins; ++k) a[k] = load(x[k][i]);
    f(a, b);
    for (int k = 0; k < outs; ++k) y[k][i] = store<S>(b[k]);
  }
}

template <class S, int ins, int outs, class F>
FASTACT_FN void map(const S* const (&x)[ins], S* const (&y)[outs], int64_t n, const F& f) {
  map_each(x, y, n, f);
}

// The two halves of a word are one float each, but for a shift or a mask: nothing has to be unpacked.
using Pair = uint32_t __attribute__((aligned(2), may_alias));

template <int ins, int outs, class F>
FASTACT_FN void map(const BFloat16* const (&x)[ins], BFloat16* const (&y)[outs], int64_t n,
                    const F& f) {
  constexpr uint32_t upper = 0xffff0000;
#pragma GCC ivdep
  for (int64_t i = 0; i < n / 2; ++i) {
    float a[2][ins], b[2][outs];
    for (int k = 0; k < ins; ++k) {
      const uint32_t pair = reinterpret_cast<const Pair*>(x[k])[i];
      a[0][k] = from_bits(pair << 16);
      a[1][k] = from_bits(pair & upper);
    }
    f(a[0], b[0]);
    f(a[1], b[1]);
    for (int k = 0; k < outs; ++k)
      reinterpret_cast<Pair*>(y[k])[i] =
          rounded_to_bfloat16(to_bits(b[0][k])) >> 16 | (rounded_to_bfloat16(to_bits(b[1][k])) & upper);
  }
  if (n % 2 == 0) return;
  const BFloat16* last_x[ins];
  BFloat16* last_y[outs];
  for (int k = 0; k < ins; ++k) last_x[k] = x[k] + n - 1;
  for (int k = 0; k < outs; ++k) last_y[k] = y[k] + n - 1;
  map_each(last_x, last_y, 1, f);
}

// Blocks of each array, read and written a cache line of each in turn. A loop that reads a whole block
// of one array, then of the next, gets no hardware prefetch where their addresses differ by 64 MiB,
// among other distances (docs/design.md).
template <int ins, int outs, class F>
FASTACT_FN void map(const Half* const (&x)[ins], Half* const (&y)[outs], int64_t n, const F& f) {
#if defined(__F16C__)
  constexpr int64_t size = 256, line = 64 / sizeof(Half);
  alignas(64) float from[ins][size], to[outs][size];
  const float* in[ins];
  float* out[outs];
  for (int k = 0; k < ins; ++k) in[k] = from[k];
  for (int k = 0; k < outs; ++k) out[k] = to[k];
  const auto take = [&](int64_t first, int64_t count, int64_t piece) __attribute__((always_inline)) {
    for (int64_t i = 0; i < count; i += piece)
      for (int k = 0; k < ins; ++k) widen(x[k] + first + i, from[k] + i, piece);
    map_each(in, out, count, f);
    for (int64_t i = 0; i < count; i += piece)
      for (int k = 0; k < outs; ++k) narrow(to[k] + i, y[k] + first + i, piece);
  };
  int64_t first = 0;
  for (; first + size <= n; first += size) take(first, size, line);
  take(first, n - first, n - first);
#else
  map_each(x, y, n, f);
#endif
}

}  // namespace
}  // namespace fastact
