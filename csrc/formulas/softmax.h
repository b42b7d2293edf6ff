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
  using Bits = uint32_t;
  static constexpr float infinity = __builtin_inff();
  static constexpr int lift_bits = 24;
  static constexpr float unlift = 0x1p-24f;
  static constexpr float limit = -103.97f;    // below, exp rounds to 0
  static constexpr float integers = 0x1p23f;  // adding an integer's bits to these gives its sum
  static constexpr float log2e = 1.44269504f;
  static constexpr float round_magic = 0x1.8p23f;
  static constexpr float log2e_low = 1.925963033500935e-8f;
  // 2^f for |f| <= 1/2: 1.9e-9
  static constexpr float exp2[] = {1.00000000055f,    0.693147205737f,   0.240226468906f,
                                   0.0555032877711f,  0.00961848895633f, 0.00133999311772f,
                                   0.000153458121613f};
  // and for results that are rounded to 16 bits: 2.6e-6
  static constexpr float exp2_short[] = {0.999999261442f, 0.693121814743f, 0.240247448315f,
                                         0.0559178603406f, 0.0095701018633f};
};
template <>
struct SoftmaxConstants<double> {
  using Bits = uint64_t;
  static constexpr double infinity = __builtin_inf();
  static constexpr int lift_bits = 53;
  static constexpr double unlift = 0x1p-53;
  static constexpr double limit = -745.13;
  static constexpr double integers = 0x1p52;
  static constexpr double log2e = 1.44269504088896340736;
  static constexpr double round_magic = 0x1.8p52;
  static constexpr double log2e_low = 2.0355273740931033e-17;
  // 2^f: 3e-18
  static constexpr double exp2[] = {
      0.9999999999999999971,     0.69314718055994533046,     0.24022650695910156204,
      0.055504108664819921605,   0.0096181291075883352443,   0.0013333558146789921722,
      0.00015403530462514432062, 0.000015252733489988525649, 1.321543308967639918e-6,
      1.0178198021671930844e-7,  7.0741056135081427963e-9,   4.4352827069572771511e-10};
};

// exp(x) for x <= 0, times 2^24 (double: 2^53), so that it is normal where exp(x) is not; 0 where that
// rounds to 0, and for -inf. The exponent is added to 2^24 2^f as an integer. 1 ulp; for results that
// are rounded to 16 bits, is_short, 2.6e-6 and 1.3e-8 |x| more. With keeps_nan = false a NaN may give
// any number: use it only where the factor it is multiplied by is NaN then, too. On a CPU it saves a
// seventh.
template <bool is_short = false, bool keeps_nan = true, class T>
FASTACT_FN T exp_negative_lifted(T x) {
  using C = SoftmaxConstants<T>;
  using Bits = typename C::Bits;
  if constexpr (is_short && has_exp2) return exp2_instruction(fma(x, C::log2e, T(24)));
  // The low bits of k_magic are the exponent. As a factor, biased, it keeps NaN, which added to the
  // bits of 2^f it does not: a GPU's NaN has them all set.
  constexpr bool is_factor = keeps_nan || has_exp2;
  constexpr T magic = C::round_magic + T(C::lift_bits + (is_factor ? Constants<T>::bias : 0));
  T k_magic = fma(x, C::log2e, magic);
  Bits exponent = __builtin_bit_cast(Bits, k_magic) << Constants<T>::mantissa_bits;
  T power;
  if constexpr (is_short) {
    power = polynomial<C::exp2_short>(fma(x, C::log2e, magic - k_magic));
  } else {
    T f = product_plus<Constants<T>>(x, C::log2e, magic - k_magic);
    f = fma(x, C::log2e_low, f);
    if constexpr (has_exp2 && sizeof(T) == 4)
      power = exp2_instruction(f);
    else
      power = polynomial<C::exp2>(f);
  }
  T result;
  if constexpr (is_factor)
    result = power * __builtin_bit_cast(T, exponent);
  else
    result = __builtin_bit_cast(T, Bits(__builtin_bit_cast(Bits, power) + exponent));
  return x < C::limit ? T(0) : result;
}

// exp(x) for x <= 0.
template <bool is_short = false, class T>
FASTACT_FN T exp_negative(T x) {
  if constexpr (is_short && has_exp2) return exp2_instruction(x * SoftmaxConstants<T>::log2e);
  return exp_negative_lifted<is_short>(x) * SoftmaxConstants<T>::unlift;
}

// 1 - exp(x) for x <= 0. 1.5 ulp.
template <class T>
FASTACT_FN T one_minus_exp(T x) {
  return -expm1<Constants<T>>(x);
}

// 2 atanh(s) for 0 <= s <= 1/3.
template <class T>
FASTACT_FN T twice_atanh(T s) {
  T z = s * s;
  return T(2) * fma(s * z, polynomial<Constants<T>::atanh>(z), s);
}

// log(1 + r) for every r >= 0, by log(1 + r) = k log 2 + 2 atanh((f - 1) / (f + 1)), where
// 1 + r = 2^k f with 1 <= f < 2. 2 ulp.
template <class T>
FASTACT_FN T log1p(T r) {
  using C = Constants<T>;
  using Bits = typename SoftmaxConstants<T>::Bits;
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
  T d = T(2) + n, s = n / d;
  s += (product_plus<C>(-s, d, n) - s * (n - (d - T(2)))) / d;  // what both roundings took
  T result = fma(k, T(0.693147180559945309417), twice_atanh(s));
  return r < SoftmaxConstants<T>::infinity ? result : r;  // and NaN
}

// A bound on the logits: z = cap tanh(x / cap), with dz/dx and d2z/dx2. cap = 0: none. Of the slope
// 1 - tanh^2 nothing would be left where tanh saturates; 4 e / (1 + e)^2 with e = exp(-2 |x| / cap) is.
template <class T>
struct SoftCap {
  T cap, inverse;
  FASTACT_FN explicit SoftCap(double c) : cap(T(c)), inverse(c > 0 ? T(1 / c) : T(0)) {}
  FASTACT_FN T value(T x) const { return cap * tanh<Constants<T>>(x * inverse); }
  FASTACT_FN T slope(T x) const {
    T e = exp_negative(T(-2) * abs(x * inverse));
    T s = quotient(T(1), T(1) + e);
    return T(4) * e * s * s;
  }
  FASTACT_FN T curvature(T x) const { return T(-2) * inverse * inverse * value(x) * slope(x); }
};

// What softmax and log_softmax have in common: how they follow from (max, rest), and that their
// derivatives are sums over a row and then a map over it. In the formulas y is the saved output.
template <class T>
struct Softmax {
  // max is NaN, and not always rest, where a row has no softmax.
  FASTACT_FN static T scale(T max, T rest) {
    return SoftmaxConstants<T>::unlift / (T(1) + rest) + T(0) * max;
  }
  // Of d = z - max. Where z is NaN, so is scale.
  template <bool is_short = false>
  FASTACT_FN static T value(T d, T scale) {
    return of_exponential(exp_negative_lifted<is_short, false>(d), scale);
  }
  static constexpr bool has_exponentials = true;
  FASTACT_FN static T of_exponential(T lifted, T scale) { return lifted * scale; }
  FASTACT_FN static T vjp_term(T grad, T y) { return grad * y; }  // what backward sums over a row
  FASTACT_FN static T backward(T grad, T y, T sum) { return y * (grad - sum); }
  FASTACT_FN static T jvp_term(T v, T y) { return v * y; }  // what forward mode sums over a row
  FASTACT_FN static T jvp(T v, T y, T sum) { return y * (v - sum); }
  // The gradient of sum(v * backward(grad, y)) by y, from the sums of grad and of v.
  FASTACT_FN static T by_saved(T v, T grad, T, T grad_sum, T v_sum) {
    return v * (grad - grad_sum) - grad * v_sum;
  }
};

template <class T>
struct LogSoftmax {
  static constexpr bool has_exponentials = false;
  FASTACT_FN static T scale(T, T rest) { return log1p(rest); }
  template <bool is_short = false>
  FASTACT_FN static T value(T d, T scale) {
    return d - scale;
  }
  FASTACT_FN static T vjp_term(T grad, T) { return grad; }
  FASTACT_FN static T backward(T grad, T y, T sum) {
    T p = exp_negative(y);
    return grad - (p == T(0) ? T(0) : p * sum);
  }
  FASTACT_FN static T jvp_term(T v, T y) {
    T p = exp_negative(y);
    return p == T(0) ? T(0) : v * p;
  }
  FASTACT_FN static T jvp(T v, T, T sum) { return v - sum; }
  FASTACT_FN static T by_saved(T v, T, T y, T grad_sum, T) { return -v * exp_negative(y) * grad_sum; }
};

}  // namespace
}  // namespace fastact
