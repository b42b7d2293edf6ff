// GELU, its tanh form, quick GELU and SiLU, which are x F(x) with F(x) + F(-x) = 1.
#pragma once

#include "math.h"

namespace fastact {
namespace {

// What a formula's struct says of itself (activations.h).
struct Defaults {
  static constexpr int arity = 0;  // number of parameters
  static constexpr bool saves_output = false;
  static constexpr bool zero_wins = false;
  static constexpr bool transcendental = false;  // many roundings
};
struct Transcendental : Defaults {
  static constexpr bool transcendental = true;
};

// What they share. With t = |x| and Q(t) = F(-t), the small side, nothing cancels:
//   value = max(x, 0) - t Q(t)
//   slope = S(t) for x < 0, 1 - S(t) for x > 0, with S = Q + t Q'
// A gate returns t Q, S and the curvature, each times C::lift, from t, clamped to where Q is exactly 0.

template <class T, class C, class Gate>
struct SelfGated : Transcendental {
  static FASTACT_FN T clamp(T x) { return magnitude_at_most<C>(x, T(Gate::limit)); }

  FASTACT_FN T value(T x) const {
    // x * 0 is -0 below zero and NaN at -inf, where torch computes -inf * 0.
    return fma(Gate::value(clamp(x)), -C::unlift, x < T(0) ? x * T(0) : x);
  }
  FASTACT_FN T slope(T x) const {
    T s = fma(Gate::slope(clamp(x)), C::unlift, x * T(0));  // NaN at +-inf, as torch
    return x < T(0) ? s : T(1) - s;
  }
  FASTACT_FN T curvature(T x) const {
    T c = Gate::curvature(clamp(x)) * C::unlift;
    return x != x ? x : c;
  }
};

// F = Phi, the normal distribution function: Q(t) = exp(-t^2/2) R(t), S = exp(-t^2/2) (R - c t).
// 1 / (2 R) = t / (2 c) + N(t) / D(t) with N / D ~ 1 / (2 c t): far out the roundings of N and D hardly
// count. The exponential is computed halved, so that N begins with 1.
template <class T, class C>
struct NormalGate {
  static constexpr T limit = C::erf_limit;
  static constexpr T c = T(0.398942280401432677940), half_inverse_c = T(1.253314137315500251208);

  // 2^lift exp(-t^2/2) / 2: the rounding error of t^2 is worth up to 50 ulp in the tail, so it is
  // carried along (it is zero where t has 11 bits or fewer).
  static FASTACT_FN Exponential<T, C> density(T t) {
    constexpr T half_log2e = C::log2e / 2;
    T square = t * t;
    Power<T> p = power<C, C::lift_bits - 1>(square, -half_log2e);
    if constexpr (C::compensates) {
      T lost = fma(product_error<C>(t, t, square), half_log2e, square * T(C::log2e_low / 2));
      p.f -= lost;
    }
    return Exponential<T, C>(p);
  }
  // The denominator of the ratio without its 1, from a = t D. The 1 is added last: near zero the rest
  // is small, and its roundings hardly count.
  static FASTACT_FN T denominator(T t, T a) {
    return fma(a, half_inverse_c, t * paired_polynomial<C::mills_num, 0>(t, t * t));
  }
  static FASTACT_FN T value(T t) {
    T a = fma(t * t, polynomial<C::mills_den>(t), t);
    T rest = denominator(t, a), sum = rest + T(1);
    // Near zero, where the roundings are the most, what the sum has lost goes to the small 2^f - 1.
    T regained = -T(0);
    if constexpr (C::compensates) regained = t < T(0.5) ? (sum - T(1)) - rest : T(0);
    return density(t).times(ratio<C>(a, sum), regained);
  }
  static FASTACT_FN T slope(T t) {
    T d = fma(t, polynomial<C::mills_den>(t), T(1));
    return density(t).times(fma(T(-2) * c, t, ratio<C>(d, denominator(t, t * d) + T(1))));
  }
  static FASTACT_FN T curvature(T t) { return density(t).times(T(2) * c * fma(-t, t, T(2))); }
};

// F = sigmoid(w(x)) for an odd w: Q = e / (1 + e) with e = exp(-w(t)) <= 1, and with r = 1 / (1 + e)
//   S = e (1 + e - t w') r^2,  curvature = Q r (2 w' + x w'' - t w'^2 (1 - e) r).
template <class T, class C, class Argument>
struct SigmoidGate {
  static constexpr T limit = Argument::limit;

  static FASTACT_FN T value(T t) { return Argument::exponential(t).over_sum(t); }
  static FASTACT_FN T slope(T t) {
    auto e = Argument::exponential(t);
    T sum = e.one_plus();
    return e.over_square(fma(-t, Argument::slope(t), sum), sum);
  }
  static FASTACT_FN T curvature(T t) {
    auto exponential = Argument::exponential(t);
    T e = exponential.value(), r = ratio<C>(T(1), exponential.one_plus());
    T d = Argument::slope(t);
    T bracket = fma(-t * d * d, (T(1) - e) * r, fma(T(2), d, Argument::x_curvature(t)));
    return exponential.lifted() * r * r * bracket;
  }
};

// Each argument w gives 2^lift exp(-w(t)), w' and t w''.

// w = x
template <class T, class C>
struct Identity {
  static constexpr T limit = C::exp_limit;
  static FASTACT_FN Exponential<T, C> exponential(T t) { return Exponential<T, C>(exp_power<C>(t)); }
  static FASTACT_FN T slope(T) { return T(1); }
  static FASTACT_FN T x_curvature(T) { return T(0); }
};

// w = 1.702 x; the factor in base 2 has two floats: its rounding is worth 40 ulp in the tail.
template <class T, class C>
struct QuickArgument {
  static constexpr T limit = C::quick_limit;
  static constexpr T factor = T(2.455466959593015719);  // 1.702 log2(e)
  static constexpr T factor_low = sizeof(T) == 4 ? T(-2.610949893e-8) : T(7.816541847e-17);
  static FASTACT_FN Exponential<T, C> exponential(T t) {
    Power<T> p = power<C>(t, -factor);
    if constexpr (C::compensates) p.f = fma(t, -factor_low, p.f);
    return Exponential<T, C>(p);
  }
  static FASTACT_FN T slope(T) { return T(1.702); }
  static FASTACT_FN T x_curvature(T) { return T(0); }
};

// w = t (b0 + b1 t^2), b0 = sqrt(8/pi), b1 = 0.044715 b0. In base 2 the factor of t is carried in two
// floats; its b0 is split so that the difference of b0_high and the sum is exact.
template <class T, class C>
struct TanhGeluArgument {
  static constexpr bool single = sizeof(T) == 4;
  static constexpr T limit = C::tanh_gelu_limit;
  static constexpr T b0 = T(1.59576912160573071176), b1 = T(0.07135481627260024877634);
  static constexpr T b0_high = T(single ? 2.30218505859375 : 2.302208198144171547028236);
  static constexpr T b0_low = T(single ? 2.313955057488913e-5 : 1.533421056586792997e-13);
  static constexpr T b1_high = T(0.1029432395800234876);
  static constexpr T b1_low = T(single ? -2.016198436e-9 : -5.978177401e-18);
  static FASTACT_FN Exponential<T, C> exponential(T t) {
    T square = t * t;
    if constexpr (!C::compensates)
      return Exponential<T, C>(power<C>(-t, fma(b1_high, square, b0_high + b0_low)));
    T sum = fma(b1_high, square, b0_high);
    T lost = fma(b1_high, product_error<C>(t, t, square), fma(b1_low, square, b0_low));
    T sum_low = product_plus<C>(b1_high, square, b0_high - sum) + lost;
    Power<T> p = power<C>(-t, sum);
    p.f = fma(-t, sum_low, p.f);
    return Exponential<T, C>(p);
  }
  static FASTACT_FN T slope(T t) {
    constexpr T b = T(0.2140644488178007463);  // 3 b1
    return fma(b, t * t, b0);
  }
  static FASTACT_FN T x_curvature(T t) { return T(6) * b1 * (t * t); }
};

}  // namespace
}  // namespace fastact
