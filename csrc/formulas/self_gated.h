// GELU, SiLU and quick GELU are x F(x) with F(x) + F(-x) = 1, and this is their common text.
#pragma once

#include "math.h"

namespace fastact {
namespace {

// What a formula's struct says of itself (activations.h).
struct Defaults {
  static constexpr int arity = 0;  // number of parameters
  static constexpr bool saves_output = false;
  static constexpr bool zero_wins = false;
};

// x F(x) with F(x) + F(-x) = 1: GELU, SiLU and quick GELU. With t = |x| and Q(t) = F(-t), the small
// side, nothing cancels:
//   value = max(x, 0) - t Q(t)
//   slope = S(t) for x < 0, 1 - S(t) for x > 0, with S = Q + t Q'
// A gate returns t Q, S and the curvature, each times Constants<T>::lift.

template <class T, class Gate>
struct SelfGated : Defaults {
  static FASTACT_FN T clamp(T x) { return at_most(abs(x), Gate::limit); }

  FASTACT_FN T value(T x) const {
    // x * 0 is -0 below zero and NaN at -inf, where torch computes -inf * 0.
    return (x < T(0) ? x * T(0) : x) - Gate::value(clamp(x)) * Constants<T>::unlift;
  }
  FASTACT_FN T slope(T x) const {
    T s = Gate::slope(clamp(x)) * Constants<T>::unlift;
    return fma(x, T(0), x < T(0) ? s : T(1) - s);  // NaN at +-inf, as torch
  }
  FASTACT_FN T curvature(T x) const { return Gate::curvature(clamp(x)) * Constants<T>::unlift; }
};

// F = Phi, the normal distribution function: Q(t) = exp(-t^2/2) R(t), S = exp(-t^2/2) (R - c t).
template <class T>
struct NormalGate {
  static constexpr T limit = Constants<T>::erf_limit;
  static constexpr T c = T(0.398942280401432677940);  // 1/sqrt(2 pi)

  // factor * exp(-t^2/2): the rounding error of t^2 is worth up to 50 ulp in the tail, so it is carried
  // along; and multiplying the factor by 1 + p in one fma saves the rounding of 1 + p.
  static FASTACT_FN T density(T t, T factor) {
    T square = t * t, k_magic;
    T p = exp_reduce(square * T(-0.5), product_error(t, t, square) * T(-0.5), k_magic);
    return fma(factor, p, factor) * power_of_two(k_magic, Constants<T>::lift_bits);
  }
  static FASTACT_FN T ratio(T t) {
    return polynomial(t, Constants<T>::mills_num) / polynomial(t, Constants<T>::mills_den);
  }
  static FASTACT_FN T value(T t) { return density(t, t * ratio(t)); }
  static FASTACT_FN T slope(T t) { return density(t, fma(-c, t, ratio(t))); }
  static FASTACT_FN T curvature(T t) { return density(t, c * fma(-t, t, T(2))); }
};

// F = sigmoid(w(x)) for an odd w: Q = e / (1 + e) with e = exp(-w(t)) <= 1, and with r = 1 / (1 + e)
//   S = Q (1 - t w' r),  curvature = Q r (2 w' + x w'' - t w'^2 (1 - e) r).
template <class T, class Argument>
struct SigmoidGate {
  static constexpr T limit = Argument::limit;

  struct Terms {
    T e, lifted_q, r;
  };
  static FASTACT_FN Terms terms(T t) {
    T low;
    T high = Argument::value(t, low);
    T lifted = exp_lifted(-high, -low);
    T e = lifted * Constants<T>::unlift;
    T r = T(1) / (T(1) + e);
    return {e, lifted * r, r};
  }
  static FASTACT_FN T value(T t) {
    T low;
    T high = Argument::value(t, low);
    T lifted = exp_lifted(-high, -low);
    return t * lifted / fma(lifted, Constants<T>::unlift, T(1));  // one rounding less than by terms
  }
  static FASTACT_FN T slope(T t) {
    Terms s = terms(t);
    return s.lifted_q * fma(-t * Argument::slope(t), s.r, T(1));
  }
  static FASTACT_FN T curvature(T t) {
    Terms s = terms(t);
    T d = Argument::slope(t);
    T bracket = fma(-t * d * d, (T(1) - s.e) * s.r, fma(T(2), d, Argument::x_curvature(t)));
    return s.lifted_q * s.r * bracket;
  }
};

// w = x
template <class T>
struct Identity {
  static constexpr T limit = Constants<T>::exp_limit;
  static FASTACT_FN T value(T t, T& low) {
    low = T(0);
    return t;
  }
  static FASTACT_FN T slope(T) { return T(1); }
  static FASTACT_FN T x_curvature(T) { return T(0); }
};

// w = 1.702 x, in two floats: one rounding of the product is worth 40 ulp in the tail.
template <class T>
struct QuickArgument {
  static constexpr T limit = Constants<T>::exp_limit / T(1.702);
  static constexpr T factor = T(1.702);
  static constexpr T factor_low = sizeof(T) == 4 ? T(-2.193450928e-8) : T(4.263256415e-17);
  static FASTACT_FN T value(T t, T& low) {
    T high = factor * t;
    low = fma(factor_low, t, product_error(factor, t, high));
    return high;
  }
  static FASTACT_FN T slope(T) { return factor; }
  static FASTACT_FN T x_curvature(T) { return T(0); }
};

// w = t (b0 + b1 t^2), b0 = sqrt(8/pi), b1 = 0.044715 b0, in two floats likewise.
template <class T>
struct TanhGeluArgument {
  static constexpr T limit = sizeof(T) == 4 ? T(11.25) : T(22);  // w(limit) = exp_limit
  static constexpr T b0 = T(1.59576912160573071176), b1 = T(0.07135481627260024877634);
  static constexpr T b0_low = sizeof(T) == 4 ? T(-4.534068042e-8) : T(-9.969308809e-17);
  static constexpr T b1_low = sizeof(T) == 4 ? T(2.398832396e-9) : T(-6.175149918e-19);
  static FASTACT_FN T value(T t, T& low) {
    T square = t * t;
    T square_low = product_error(t, t, square);
    T cubic = b1 * square;
    T cubic_low = fma(b1, square_low, fma(b1_low, square, product_error(b1, square, cubic)));
    T sum = b0 + cubic;  // Knuth's two-sum: either term can be the larger
    T part = sum - b0;
    T sum_low = ((b0 - (sum - part)) + (cubic - part)) + (cubic_low + b0_low);
    T high = t * sum;
    low = fma(t, sum_low, product_error(t, sum, high));
    return high;
  }
  static FASTACT_FN T slope(T t) { return fma(T(3) * b1, t * t, b0); }
  static FASTACT_FN T x_curvature(T t) { return T(6) * b1 * (t * t); }
};

}  // namespace
}  // namespace fastact
