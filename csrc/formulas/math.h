// Branch-free elementary functions for float and double, written so that a loop over them
// vectorises (no calls, no branches, no float-to-int conversion), and so that they keep their
// relative accuracy down to the subnormals.
//
// Error bounds are in ulp of the result, measured against 100-bit arithmetic with FMA; without FMA
// (x86-64-v2) add one.
#pragma once

#include <stdint.h>

#include "constants.h"
#include "intrinsics.h"

namespace fastact {
namespace {

// Clamps that let NaN through: a comparison with NaN is false, so x itself is returned.
template <class T>
FASTACT_FN T at_most(T x, T limit) {
  return x > limit ? limit : x;
}
template <class T>
FASTACT_FN T at_least(T x, T limit) {
  return x < limit ? limit : x;
}

// c[0] + c[1] x + ... + c[n-1] x^(n-1), by Horner's rule. The coefficients are read while compiling: a
// GPU has no constexpr array of the host's to read from.
template <const auto& c, int i = 0, class T>
FASTACT_FN T polynomial(T x) {
  constexpr T first = c[i];
  if constexpr (i + 1 == sizeof(c) / sizeof(c[0]))
    return first;
  else
    return fma(polynomial<c, i + 1>(x), x, first);
}

// c[i] + c[i+1] x + ..., by Horner's rule in x^2 over pairs of terms, which need not wait for each
// other.
template <const auto& c, int i, class T>
FASTACT_FN T paired_polynomial(T x, T square) {
  if constexpr (i + 2 >= sizeof(c) / sizeof(c[0])) {
    return polynomial<c, i>(x);
  } else {
    constexpr T first = c[i], second = c[i + 1];
    return fma(paired_polynomial<c, i + 2>(x, square), square, fma(second, x, first));
  }
}

// min(|x|, limit) for a limit > 0, by the bits, which is one instruction on every CPU; NaN gives the
// limit.
template <class C, class T>
FASTACT_FN T magnitude_at_most(T x, T limit) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(T) == 4) return __builtin_fminf(abs(x), limit);  // and this on a GPU
#endif
  using Bits = typename C::Bits;
  Bits bits = __builtin_bit_cast(Bits, abs(x)), most = __builtin_bit_cast(Bits, limit);
  return __builtin_bit_cast(T, bits < most ? bits : most);
}

// a * b - p for p = round(a * b), exactly. Without FMA by Veltkamp's splitting, for |a|, |b| below
// 2^100 (float).
template <class C, class T>
FASTACT_FN T product_error(T a, T b, T p) {
  if constexpr (has_fma) {
    return fma(a, b, -p);
  } else {
    constexpr T splitter = T((typename C::Bits(1) << (C::mantissa_bits + 2) / 2) + 1);
    T a_big = a * splitter, b_big = b * splitter;
    T a_high = a_big - (a_big - a), b_high = b_big - (b_big - b);
    T a_low = a - a_high, b_low = b - b_high;
    return ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low;
  }
}

// a * b + c for a c that nearly cancels the product: rounded once where C compensates.
template <class C, class T>
FASTACT_FN T product_plus(T a, T b, T c) {
  if constexpr (has_fma || !C::compensates) {
    return fma(a, b, c);
  } else {
    T p = a * b;
    return (p + c) + product_error<C>(a, b, p);
  }
}

// a * b for a result that is rounded again, to a 16-bit type: made odd where it is not exact, so that
// what lies next to the middle of two neighbours does not land on it.
template <class C, class T>
FASTACT_FN T product_to_odd(T a, T b) {
  T p = a * b;
  if constexpr (!C::rounds_again) return p;
  using Bits = typename C::Bits;
  T error = product_error<C>(a, b, p);
  Bits bits = __builtin_bit_cast(Bits, p);
  // +1 where the error has p's sign, -1 where it has not.
  Bits step = ((bits ^ __builtin_bit_cast(Bits, error)) >> (sizeof(T) * 8 - 1)) | Bits(1);
  Bits inexact = abs(error) > T(0) ? Bits(-1) : Bits(0), even = (bits & Bits(1)) - Bits(1);
  return __builtin_bit_cast(T, bits + (step & inexact & even));
}

// 2^(a b) = scale 2^f / 2^shift with |f| <= 1/2, for a result that lies in the range of biased
// exponents 0 (which makes the scale 0) to 254. The caller adds to f what a and b have lost.
// Where a processor has an instruction for 2^x and C can do with it, f is the whole exponent.
template <class T>
struct Power {
  T f, scale;
};
template <class C>
inline constexpr bool is_one_instruction = has_exp2 && !C::compensates && sizeof(typename C::Bits) == 4;

// a / b as quotient has it, or within 2 ulp for results that are rounded to bfloat16.
template <class C, class T>
FASTACT_FN T ratio(T a, T b) {
  if constexpr (is_one_instruction<C>) return a * reciprocal_instruction(b);
  return quotient(a, b);
}

template <class C, int shift = C::lift_bits, class T>
FASTACT_FN Power<T> power(T a, T b) {
  if constexpr (is_one_instruction<C>) return {fma(a, b, T(shift)), T(1)};
  using Bits = typename C::Bits;
  constexpr T magic = C::round_magic + T(C::bias + shift);
  T k_magic = fma(a, b, magic);  // its low bits are k's biased exponent
  T f = product_plus<C>(a, b, magic - k_magic);
  return {f,
          __builtin_bit_cast(T, Bits(uint64_t(__builtin_bit_cast(Bits, k_magic)) << C::mantissa_bits))};
}

// 2^lift_bits exp(-t) in the same form, for 0 <= t <= exp_limit.
template <class C, class T>
FASTACT_FN Power<T> exp_power(T t) {
  Power<T> p = power<C>(t, -T(C::log2e));
  if constexpr (C::compensates) p.f = fma(t, -T(C::log2e_low), p.f);
  return p;
}

// The same number as scale (1 + rest): it rounds less often, and in fewer instructions, to put the two
// into a product or a quotient than to put in their product. For e = 2^-lift_bits of it, at most 1.
template <class T, class C>
struct Exponential {
  T scale, rest = T(0);
  explicit FASTACT_FN Exponential(Power<T> p) : scale(p.scale) {
    if constexpr (is_one_instruction<C>) {
      scale = exp2_instruction(p.f);
    } else {
      constexpr T first = C::exp2[0];
      T square = p.f * p.f;
      rest = fma(paired_polynomial<C::exp2, 1>(p.f, square), square, first * p.f);
    }
  }
  FASTACT_FN T lifted() const {
    if constexpr (is_one_instruction<C>) return scale;
    return fma(rest, scale, scale);
  }
  FASTACT_FN T value() const { return lifted() * C::unlift; }
  // factor (1 + rest + low) scale. (Adding -0 compiles to nothing.)
  FASTACT_FN T times(T factor, T low = -T(0)) const {
    if constexpr (is_one_instruction<C>) return factor * scale;
    return fma(factor, rest + low, factor) * scale;
  }
  // 1 + e. Where e is nothing beside 1 its scale may be 0, so that an integer subtraction can make it:
  // multiplications are what there are most of.
  FASTACT_FN T one_plus() const {
    if constexpr (is_one_instruction<C>) return fma(scale, C::unlift, T(1));
    Bits bits = __builtin_bit_cast(Bits, scale) - (Bits(C::lift_bits) << C::mantissa_bits);
    T unlifted = __builtin_bit_cast(T, bits > 0 ? bits : Bits(0));
    return fma(rest, unlifted, T(1) + unlifted);
  }
  // factor e / (1 + e), lifted. Both sides of the fraction are divided by the scale.
  FASTACT_FN T over_sum(T factor) const {
    if constexpr (is_one_instruction<C>) return ratio<C>(factor * scale, one_plus());
    return ratio<C>(fma(factor, rest, factor), fma(rest, C::unlift, inverse_scale() + C::unlift));
  }
  // factor e / (1 + e)^2, lifted, given 1 + e. The square is 1 + e (2 + e), which rounds less.
  FASTACT_FN T over_square(T factor, T sum) const {
    if constexpr (is_one_instruction<C>)
      return ratio<C>(factor * scale, fma(value(), T(1) + sum, T(1)));
    T square = fma(fma(rest, C::unlift, C::unlift), T(1) + sum, inverse_scale());
    return ratio<C>(fma(factor, rest, factor), square);
  }

 private:
  using Bits = typename C::Bits;
  // 1 / scale; of a scale of 0 the largest power of two, which the quotient is small enough with.
  FASTACT_FN T inverse_scale() const {
    constexpr Bits ones = Bits(2 * C::bias) << C::mantissa_bits;
    return __builtin_bit_cast(T, ones - __builtin_bit_cast(Bits, scale));
  }
};

// 2^lift_bits * exp(-t): the result is normal although exp(-t) may not be, so that a product with it
// rounds once, at the end. 1 ulp.
template <class C, class T>
FASTACT_FN T exp2(Power<T> p) {
  return Exponential<T, C>(p).lifted();
}

template <class C, class T>
FASTACT_FN T exp_lifted(T t) {
  return exp2<C>(exp_power<C>(t));
}

// (exp(x + low) - 1) / 2 for x from C::expm1_low to C::expm1_overflow. 1 ulp. (Adding -0 compiles to
// nothing.)
template <class C, class T>
FASTACT_FN T half_expm1(T x, T low = -T(0)) {
  using Bits = typename C::Bits;
  constexpr T magic = C::round_magic + T(C::bias - 1);  // half of 2^k: 2^128 has no float
  T k_magic = fma(x, T(C::log2e), magic);
  T k = k_magic - magic;
  T r = fma(k, -C::ln2_low, fma(k, -C::ln2_high, x)) + low;
  T p = fma(r * r, polynomial<C::expm1>(r), r);
  T half = __builtin_bit_cast(T, Bits(uint64_t(__builtin_bit_cast(Bits, k_magic)) << C::mantissa_bits));
  return fma(half, p, half - T(0.5));
}

// exp(x + low) - 1 for every x, infinite from expm1_overflow. 1 ulp.
template <class C, class T>
FASTACT_FN T expm1(T x, T low = -T(0)) {
  return half_expm1<C>(at_most(at_least(x, T(C::expm1_low)), T(C::expm1_overflow)), low) * T(2);
}

// tanh(x). 2.5 ulp.
template <class C, class T>
FASTACT_FN T tanh(T x) {
  T m = half_expm1<C>(T(-2) * magnitude_at_most<C>(x, T(C::tanh_limit)));
  return x != x ? x : copysign(quotient(m, T(1) + m), x);
}

// log1p(e) for e = lifted / lift <= 1, lifted, by log1p(e) = 2 atanh(s), s = e / (2 + e). 2 ulp.
template <class C, class T>
FASTACT_FN T log1p_lifted(T lifted) {
  T q = quotient(lifted, fma(lifted, C::unlift, T(2)));
  T s = q * C::unlift, z = s * s, twice = q + q;
  return fma(twice * z, polynomial<C::atanh>(z), twice);
}

}  // namespace
}  // namespace fastact
