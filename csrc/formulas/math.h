// Branch-free elementary functions for float and double, written so that a loop over them
// vectorises (no calls, no branches, no float-to-int conversion), and so that they keep their
// relative accuracy down to the subnormals.
//
// Error bounds are in ulp of the result, measured against 100-bit arithmetic with FMA; without FMA
// (x86-64-v2) add one.
#pragma once

#include <stdint.h>

#include "macros.h"

namespace fastact {
namespace {

// fma(a, b, c): one rounding where the target has the instruction, two where it has not. The
// compiler may not contract on its own (-ffp-contract=off): a vector body and its scalar tail
// could then round differently, and a result would depend on its position in the tensor.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDA_ARCH__)
inline constexpr bool has_fma = true;
FASTACT_FN float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FASTACT_FN double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
#else
inline constexpr bool has_fma = false;
FASTACT_FN float fma(float a, float b, float c) { return a * b + c; }
FASTACT_FN double fma(double a, double b, double c) { return a * b + c; }
#endif

FASTACT_FN float abs(float x) { return __builtin_fabsf(x); }
FASTACT_FN double abs(double x) { return __builtin_fabs(x); }
FASTACT_FN float copysign(float x, float sign) { return __builtin_copysignf(x, sign); }
FASTACT_FN double copysign(double x, double sign) { return __builtin_copysign(x, sign); }

// Clamps that let NaN through: a comparison with NaN is false, so x itself is returned.
template <class T>
FASTACT_FN T at_most(T x, T limit) {
  return x > limit ? limit : x;
}
template <class T>
FASTACT_FN T at_least(T x, T limit) {
  return x < limit ? limit : x;
}

// c[0] + c[1] x + ... + c[N-1] x^(N-1), by Horner's rule.
template <class T, int N>
FASTACT_FN T polynomial(T x, const T (&c)[N]) {
  T sum = c[N - 1];
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; --i) sum = fma(sum, x, c[i]);
  return sum;
}

// What differs between float and double: formats, coefficients, ranges. The comments give the relative
// error of the approximation itself; tools/fit.py prints the coefficients.
template <class T>
struct Constants;

template <>
struct Constants<float> {
  using Bits = uint32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr int bias = 127;
  static constexpr float round_magic = 0x1.8p23f;  // adding it rounds to an integer
  // exp is returned times 2^lift where its result may be subnormal.
  static constexpr int lift_bits = 64;
  static constexpr float lift = 0x1p64f;
  static constexpr float unlift = 0x1p-64f;
  static constexpr float exp_limit = 120.0f;      // exp(-120) * 120 rounds to 0
  static constexpr float expm1_overflow = 89.0f;  // exp(89) overflows
  static constexpr float erf_limit = 15.0f;       // 15 * Phi(-15) rounds to 0
  static constexpr float tanh_limit = 20.0f;      // tanh(10) rounds to 1; the doubled argument
  static constexpr float ln2_high = 0x1.63p-1f;   // 10 bits: k * ln2_high is exact
  static constexpr float ln2_low = -2.12194440054690583e-4f;
  // (expm1(r) - r) / r^2 for |r| <= ln(2)/2: 1.3e-7
  static constexpr float expm1[] = {0.5f, 0.166665767f, 0.0416665542f, 0.00836323288f, 0.00139262508f};
  // atanh(s) / s in s^2 for s <= 1/3: 4e-9
  static constexpr float atanh[] = {1.0f, 0.333331608f, 0.200122976f, 0.139825789f, 0.140788892f};
  // Phi(-t) exp(t^2/2) for 0 <= t <= 14.6: 6e-9; all coefficients positive, so nothing cancels
  static constexpr float mills_num[] = {0.500000003f, 0.4384961503f, 0.1833842778f, 0.0406835257f,
                                        0.0041237816f};
  static constexpr float mills_den[] = {1.0f,          1.6748772867f, 1.203122442f,
                                        0.4698643688f, 0.1019848542f, 0.0103366694f};
};

template <>
struct Constants<double> {
  using Bits = uint64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr int bias = 1023;
  static constexpr double round_magic = 0x1.8p52;
  static constexpr int lift_bits = 256;
  static constexpr double lift = 0x1p256;
  static constexpr double unlift = 0x1p-256;
  static constexpr double exp_limit = 800.0;
  static constexpr double expm1_overflow = 710.0;
  static constexpr double erf_limit = 39.0;
  static constexpr double tanh_limit = 40.0;
  static constexpr double ln2_high = 0x1.62e42feep-1;  // 32 bits
  static constexpr double ln2_low = 0x1.a39ef35793c76p-33;
  // 2e-16 of a term that is at most 0.06 of the result
  static constexpr double expm1[] = {
      0.500000000000000103,   0.166666666666666675,   0.0416666666666238205,    0.0083333333333300382,
      0.00138888889173670806, 0.00019841269863171556, 0.0000248015210578682052, 2.75572682769056962e-6,
      2.76202015910315488e-7, 2.5100472505694996e-8};
  // 1.3e-18
  static constexpr double atanh[] = {1.0,
                                     0.333333333333330748,
                                     0.200000000000928737,
                                     0.142857142727270573,
                                     0.111111120403738366,
                                     0.0909087041625240226,
                                     0.0769330702115200388,
                                     0.0665018701633731217,
                                     0.0605508436403460883,
                                     0.0416225325593041029,
                                     0.0852208178139069906};
  // 1e-17 for 0 <= t <= 39
  static constexpr double mills_num[] = {0.5,
                                         0.8106527557732642833,
                                         0.6527055819749111866,
                                         0.3366220518417720046,
                                         0.1219039231150041005,
                                         0.03222513481436846431,
                                         0.006285652036800922398,
                                         0.0008938235487977431232,
                                         0.00008894056469191476001,
                                         5.623867092993770775e-6,
                                         1.732637662771394512e-7};
  static constexpr double mills_den[] = {1.0,
                                         2.419190072349393926,
                                         2.735645572324970448,
                                         1.912339953763284437,
                                         0.920223053640060834,
                                         0.3208820600803727246,
                                         0.0829887242185342141,
                                         0.01597786541665669285,
                                         0.002254580324751680762,
                                         0.0002233752420649001367,
                                         0.00001409694426815704351,
                                         4.343078555189087724e-7};
};

// a * b - p for p = round(a * b), exactly. Without FMA by Veltkamp's splitting, for |a|, |b| below
// 2^100 (float).
template <class T>
FASTACT_FN T product_error(T a, T b, T p) {
  if constexpr (has_fma) {
    return fma(a, b, -p);
  } else {
    constexpr T splitter =
        T((typename Constants<T>::Bits(1) << (Constants<T>::mantissa_bits + 2) / 2) + 1);
    T a_big = a * splitter, b_big = b * splitter;
    T a_high = a_big - (a_big - a), b_high = b_big - (b_big - b);
    T a_low = a - a_high, b_low = b - b_high;
    return ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low;
  }
}

// exp(x) = 2^k (1 + p): k is returned as the sum k + round_magic, whose low bits are the integer k.
template <class T>
FASTACT_FN T exp_reduce(T x, T x_low, T& k_magic) {
  using C = Constants<T>;
  constexpr T log2e = T(1.44269504088896340736);
  k_magic = fma(x, log2e, C::round_magic);
  T k = k_magic - C::round_magic;
  T r = fma(k, -C::ln2_low, fma(k, -C::ln2_high, x)) + x_low;
  return fma(r * r, polynomial(r, C::expm1), r);
}

// 2^(k + shift), from the bits of k + round_magic.
template <class T>
FASTACT_FN T power_of_two(T k_magic, int shift) {
  using Bits = typename Constants<T>::Bits;
  Bits exponent = __builtin_bit_cast(Bits, k_magic) + Bits(Constants<T>::bias + shift);
  return __builtin_bit_cast(T, Bits(exponent << Constants<T>::mantissa_bits));
}

// 2^lift_bits * exp(x + x_low) for -exp_limit <= x <= 0 and |x_low| << 1: the result is normal
// although exp(x) may not be, so that a product with it rounds once, at the end. 1 ulp.
template <class T>
FASTACT_FN T exp_lifted(T x, T x_low) {
  T k_magic;
  T p = exp_reduce(x, x_low, k_magic);
  return (T(1) + p) * power_of_two(k_magic, Constants<T>::lift_bits);
}

// exp(x) - 1 for every x, infinite from expm1_overflow. 1.5 ulp.
template <class T>
FASTACT_FN T expm1(T x) {
  T k_magic;
  T p = exp_reduce(at_most(at_least(x, T(-40)), Constants<T>::expm1_overflow), T(0), k_magic);
  T half = power_of_two(k_magic, -1);  // half of 2^k: 2^128 has no float
  return fma(half, p, half - T(0.5)) * T(2);
}

// tanh(x). 2.5 ulp.
template <class T>
FASTACT_FN T tanh(T x) {
  T m = expm1(-at_most(abs(x) * T(2), Constants<T>::tanh_limit));
  return copysign(m / (T(2) + m), x);
}

// log1p(e) / e for 0 <= e <= 1, by log1p(e) = 2 atanh(e / (2 + e)). 2 ulp.
template <class T>
FASTACT_FN T log1p_over(T e) {
  T inverse = T(1) / (T(2) + e);
  T s = e * inverse;
  return T(2) * inverse * polynomial(s * s, Constants<T>::atanh);
}

}  // namespace
}  // namespace fastact
