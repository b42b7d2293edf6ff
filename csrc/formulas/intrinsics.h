// The operations that processors differ in. On a GPU division and exp2 are worth their own ways: a
// correctly rounded division there is a call of nine instructions or more.
#pragma once

#include <stdint.h>

#include "macros.h"

namespace fastact {
namespace {

// fma(a, b, c): one rounding where the target has the instruction, two where it has not. The
// compiler may not contract on its own (-ffp-contract=off): a vector body and its scalar tail
// could then round differently, and a result would depend on its position in the tensor.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__CUDACC__)
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

// Instructions of a GPU: 1 / x within 1 ulp for a normal x of at most 2^126, and 2^x within 2 ulp,
// where results below 2^-126 are 0. FASTACT_IMITATED has a header that stands in for them.
#if defined(__CUDA_ARCH__)
inline constexpr bool has_exp2 = true;
FASTACT_FN float reciprocal_instruction(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FASTACT_FN float exp2_instruction(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#elif defined(FASTACT_IMITATED)
#include FASTACT_IMITATED
#else
inline constexpr bool has_exp2 = false;
FASTACT_FN float reciprocal_instruction(float x) { return 1 / x; }
FASTACT_FN float exp2_instruction(float x) { return x; }
#endif

// a / b for finite a and a normal b of at most 2^126: correctly rounded on a CPU, within 1 ulp on a
// GPU.
FASTACT_FN float quotient(float a, float b) {
  if constexpr (!has_exp2) return a / b;
  float r = reciprocal_instruction(b), q = a * r;
  return fma(fma(-b, q, a), r, q);
}
FASTACT_FN double quotient(double a, double b) { return a / b; }

}  // namespace
}  // namespace fastact
