// The 16-bit storage types: loaded to float, rounded once to nearest even on the way back, by integer
// arithmetic that vectorises on every instruction set.
#pragma once

#include <stdint.h>

#include "macros.h"

namespace fastact {
namespace {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

template <class S>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeType<S>::type;

FASTACT_FN uint32_t to_bits(float x) { return __builtin_bit_cast(uint32_t, x); }
FASTACT_FN float from_bits(uint32_t x) { return __builtin_bit_cast(float, x); }

FASTACT_FN float load(float x) { return x; }
FASTACT_FN double load(double x) { return x; }
FASTACT_FN float load(BFloat16 x) { return from_bits(uint32_t(x.bits) << 16); }
#if defined(__CUDA_ARCH__)
// A GPU has instructions for these.
FASTACT_FN float load(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
#else
FASTACT_FN float load(Half x) {
  uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13;
  // The exponent is re-biased by a multiplication, which makes subnormals right; infinity and NaN,
  // whose exponent is all ones, keep it so.
  uint32_t finite = to_bits(from_bits(magnitude) * 0x1p112f);
  uint32_t special = magnitude | 0x7f800000u;
  uint32_t sign = uint32_t(x.bits & 0x8000) << 16;
  return from_bits((magnitude >= 0x0f800000u ? special : finite) | sign);
}
#endif

template <class S>
FASTACT_FN S store(Compute<S> x);
template <>
FASTACT_FN float store<float>(float x) {
  return x;
}
template <>
FASTACT_FN double store<double>(double x) {
  return x;
}
#if defined(__CUDA_ARCH__)
template <>
FASTACT_FN BFloat16 store<BFloat16>(float x) {
  BFloat16 y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
template <>
FASTACT_FN Half store<Half>(float x) {
  Half y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
  return y;
}
#else
// The upper half has the result. A NaN needs no care: those that come of bfloat16 operands have 16 low
// bits of zero, and the sum does not carry.
FASTACT_FN uint32_t rounded_to_bfloat16(uint32_t bits) { return bits + 0x7fff + ((bits >> 16) & 1); }
template <>
FASTACT_FN BFloat16 store<BFloat16>(float x) {
#if defined(FASTACT_IMITATED)  // intrinsics.h
  if (x != x) return {0x7fff};
#endif
  return {uint16_t(rounded_to_bfloat16(to_bits(x)) >> 16)};
}
template <>
FASTACT_FN Half store<Half>(float x) {
  uint32_t bits = to_bits(x);
  uint32_t sign = (bits >> 16) & 0x8000;
  uint32_t magnitude = bits & 0x7fffffff;
  // Normal results: re-bias the exponent and round the 13 low bits; past 65504 the carry runs into
  // the exponent of infinity.
  uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Below 2^-14: adding 1/2 aligns the subnormal's last bit with the float's, and rounds.
  uint32_t subnormal = to_bits(from_bits(magnitude) + 0.5f) - to_bits(0.5f);
  uint32_t result = magnitude < (113u << 23) ? subnormal : normal;
  result = magnitude >= (143u << 23) ? 0x7c00u : result;
  result = magnitude > 0x7f800000u ? 0x7e00u : result;
  return {uint16_t(result | sign)};
}
#endif

}  // namespace
}  // namespace fastact
