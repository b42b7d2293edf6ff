// Rows of logits: the scalar pieces of softmax, log-sum-exp and cross entropy.
//
// A row is described by its maximum and by `rest`, the sum of exp(z - max) without the one term that
// is the maximum's own: sum_j exp(z_j) = exp(max) (1 + rest). Both stay exact where one float for the
// log-sum-exp would not: at logits around 1e4 a float leaves 5e-4 in every probability, and of a
// confident row, rest = 1e-9, the digits of 1 + rest are gone.
#pragma once

#include "math.h"

namespace fastact {
namespace {

template <class T>
struct SoftmaxConstants;
template <>
struct SoftmaxConstants<float> {
  static constexpr float infinity = __builtin_inff();
  static constexpr int lift_bits = 24;
  static constexpr float unlift = 0x1p-24f;
  static constexpr float limit = -103.97f;    // below, exp rounds to 0
  static constexpr float integers = 0x1p23f;  // adding an integer's bits to these gives its sum
};
template <>
struct SoftmaxConstants<double> {
  static constexpr double infinity = __builtin_inf();
  static constexpr int lift_bits = 53;
  static constexpr double unlift = 0x1p-53;
  static constexpr double limit = -745.13;
  static constexpr double integers = 0x1p52;
};

// exp(x) times 2^lift_bits for x <= 0, down to the subnormals; 0 below them, and for -inf. 1 ulp.
template <class T>
FASTACT_FN T exp_negative_lifted(T x) {
  T k_magic;
  T p = exp_reduce(x, T(0), k_magic);
  T e = (T(1) + p) * power_of_two(k_magic, SoftmaxConstants<T>::lift_bits);
  return x < SoftmaxConstants<T>::limit ? T(0) : e;
}

// exp(x) for x <= 0.
template <class T>
FASTACT_FN T exp_negative(T x) {
  return exp_negative_lifted(x) * SoftmaxConstants<T>::unlift;
}

// 1 - exp(x) for x <= 0. 1.5 ulp.
template <class T>
FASTACT_FN T one_minus_exp(T x) {
  return -expm1(x);
}

// log(1 + r) for every r >= 0, by log(1 + r) = k log 2 + 2 atanh((f - 1) / (f + 1)), where
// 1 + r = 2^k f with 1 <= f < 2. 2 ulp.
template <class T>
FASTACT_FN T log1p(T r) {
  using C = Constants<T>;
  using Bits = typename C::Bits;
  constexpr Bits fraction = (Bits(1) << C::mantissa_bits) - 1;
  T sum = T(1) + r;
  T low = r < T(1) ? r - (sum - T(1)) : T(1) - (sum - r);  // what rounding took
  Bits bits = __builtin_bit_cast(Bits, sum);
  constexpr T integers = SoftmaxConstants<T>::integers;
  T k = __builtin_bit_cast(T, (bits >> C::mantissa_bits) | __builtin_bit_cast(Bits, integers));
  k = (k - integers) - T(C::bias);
  T f = __builtin_bit_cast(T, (bits & fraction) | __builtin_bit_cast(Bits, T(1)));
  T scale = __builtin_bit_cast(T, (Bits(2 * C::bias) << C::mantissa_bits) - (bits & ~fraction));
  T n = (f - T(1)) + low * scale;
  T s = n / (T(2) + n);
  T result = fma(k, T(0.693147180559945309417), T(2) * s * polynomial(s * s, C::atanh));
  return r < SoftmaxConstants<T>::infinity ? result : r;  // and NaN
}

// A bound on the logits: z = cap tanh(x / cap), with dz/dx and d2z/dx2 as functions of z. cap = 0:
// none.
template <class T>
struct SoftCap {
  T cap, inverse;
  explicit SoftCap(double c) : cap(T(c)), inverse(c > 0 ? T(1 / c) : T(0)) {}
  FASTACT_FN T value(T x) const { return cap * tanh(x * inverse); }
  FASTACT_FN T slope(T z) const { return (T(1) - z * inverse) * (T(1) + z * inverse); }
  FASTACT_FN T curvature(T z) const { return T(-2) * z * inverse * inverse * slope(z); }
};

// The class weights and the label smoothing of one row, as coefficients: loss = sum_j a_j (lse - z_j)
// with a_j = w_j (share q_j + uniform), q the target's distribution (1 at the target, if that is an
// index), share = 1 - smoothing and uniform = smoothing / classes.
template <class T>
struct Smoothing {
  T share, uniform;
  Smoothing(double smoothing, int64_t classes)
      : share(T(1 - smoothing)), uniform(T(smoothing / double(classes))) {}
};

}  // namespace
}  // namespace fastact
