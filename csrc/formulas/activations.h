// One struct per activation, and the list of them at the bottom.
//
// A struct is constructed from its parameters and answers, for one element:
//   value(x)      the activation
//   slope(s)      its first derivative
//   curvature(s)  the derivative of slope(s) with respect to s
// where s is what autograd saves: the input x, or, with saves_output, the output y = value(x), which
// the next layer keeps anyway. zero_wins says that a zero slope stops even an infinite gradient, as
// torch's own piecewise functions do.
//
// Unless a comment says otherwise +-inf and NaN give what torch gives. The worst errors over a
// sweep of all float32 inputs (8 million), against float64, in ulp of the largest term, with FMA
// (without, on x86-64-v2):
//   value      GELU 5.9 (8.6), at x = -12; every other 3.9
//   slope      tanh GELU 5.7, every other 4.5 (5.3)
//   curvature  tanh GELU 7.9 (10), every other 7
// tests/test_accuracy.py holds them.
#pragma once

#include "self_gated.h"

namespace fastact {
namespace {

// ---------------------------------------------------------------------------------------------
// Self-gated (self_gated.h)

// x Phi(x). Slope Phi(x) + x phi(x). Hendrycks & Gimpel 2016, arXiv:1606.08415.
// +-0 at +-0, inf at inf, NaN at -inf (torch also gives NaN at inf where oneDNN computes it).
template <class T>
struct Gelu : SelfGated<T, NormalGate<T>> {
  static constexpr const char* name = "gelu";
  explicit Gelu(const double*) {}
};

// x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 = x sigmoid(w(x)). Same source.
template <class T>
struct GeluTanh : SelfGated<T, SigmoidGate<T, TanhGeluArgument<T>>> {
  static constexpr const char* name = "gelu_tanh";
  explicit GeluTanh(const double*) {}
};

// x sigmoid(1.702 x). Same source, section 2.
template <class T>
struct QuickGelu : SelfGated<T, SigmoidGate<T, QuickArgument<T>>> {
  static constexpr const char* name = "quick_gelu";
  explicit QuickGelu(const double*) {}
};

// x sigmoid(x). Elfwing et al. 2017, arXiv:1702.03118.
template <class T>
struct Silu : SelfGated<T, SigmoidGate<T, Identity<T>>> {
  static constexpr const char* name = "silu";
  explicit Silu(const double*) {}
};

// ---------------------------------------------------------------------------------------------
// Smooth, bounded or one-sided

// 1 / (1 + exp(-x)). Slope y (1 - y). 0 at -inf, 1/2 at 0, 1 at inf.
template <class T>
struct Sigmoid : Defaults {
  static constexpr const char* name = "sigmoid";
  static constexpr bool saves_output = true;
  explicit Sigmoid(const double*) {}
  static FASTACT_FN T value(T x) {
    T e = exp_lifted(-at_most(abs(x), Constants<T>::exp_limit), T(0)) * Constants<T>::unlift;
    return (x < T(0) ? e : T(1)) / (T(1) + e);
  }
  FASTACT_FN T slope(T y) const { return y * (T(1) - y); }
  FASTACT_FN T curvature(T y) const { return fma(T(-2), y, T(1)); }
};

// tanh(x). Slope 1 - y^2. -1 at -inf, +-0 at +-0, 1 at inf.
template <class T>
struct Tanh : Defaults {
  static constexpr const char* name = "tanh";
  static constexpr bool saves_output = true;
  explicit Tanh(const double*) {}
  FASTACT_FN T value(T x) const { return tanh(x); }
  FASTACT_FN T slope(T y) const { return (T(1) - y) * (T(1) + y); }
  FASTACT_FN T curvature(T y) const { return T(-2) * y; }
};

// log1p(exp(-|x|)) times Constants<T>::lift: the tail shared by softplus and logsigmoid.
template <class T>
FASTACT_FN T softplus_tail(T x) {
  T lifted = exp_lifted(-at_most(abs(x), Constants<T>::exp_limit), T(0));
  return lifted * log1p_over(lifted * Constants<T>::unlift);
}

// log(1 + exp(beta x)) / beta, and x itself where beta x > threshold. Slope sigmoid(beta x).
// 0 at -inf, inf at inf. Dugas et al. 2001.
template <class T>
struct Softplus : Defaults {
  static constexpr const char* name = "softplus";
  static constexpr int arity = 2;
  T beta, threshold;
  explicit Softplus(const double* p) : beta(T(p[0])), threshold(T(p[1])) {}
  FASTACT_FN T value(T x) const {
    T u = x * beta;
    T soft = fma(softplus_tail(u), Constants<T>::unlift, u > T(0) ? u : T(0)) / beta;
    return u > threshold ? x : soft;
  }
  FASTACT_FN T slope(T x) const {
    T u = x * beta;
    return u > threshold ? T(1) : Sigmoid<T>::value(u);
  }
  FASTACT_FN T curvature(T x) const {
    T u = x * beta;
    return u > threshold ? T(0) : beta * Sigmoid<T>::value(u) * Sigmoid<T>::value(-u);
  }
};

// log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|)). Slope sigmoid(-x). -inf at -inf, 0 at inf.
template <class T>
struct LogSigmoid : Defaults {
  static constexpr const char* name = "logsigmoid";
  explicit LogSigmoid(const double*) {}
  FASTACT_FN T value(T x) const {
    return (x < T(0) ? x : T(0)) - softplus_tail(x) * Constants<T>::unlift;
  }
  FASTACT_FN T slope(T x) const { return Sigmoid<T>::value(-x); }
  FASTACT_FN T curvature(T x) const { return -Sigmoid<T>::value(x) * Sigmoid<T>::value(-x); }
};

// x tanh(softplus(x)). With e = exp(-|x|), tanh(softplus) is
//   e (2 + e) / (2 + e (2 + e)) for x < 0,  (1 + 2e) / (1 + 2e + 2e^2) for x >= 0.
// Misra 2019, arXiv:1908.08681. NaN at -inf, inf at inf.
template <class T>
struct Mish : Defaults {
  static constexpr const char* name = "mish";
  explicit Mish(const double*) {}
  struct Terms {
    T lifted, e, d;  // d: the denominator above
    bool negative;
  };
  static FASTACT_FN Terms terms(T x) {
    T lifted = exp_lifted(-at_most(abs(x), Constants<T>::exp_limit), T(0));
    T e = lifted * Constants<T>::unlift;
    bool negative = x < T(0);
    T d = negative ? fma(e, T(2) + e, T(2)) : fma(fma(T(2), e, T(2)), e, T(1));
    return {lifted, e, d, negative};
  }
  FASTACT_FN T value(T x) const {
    Terms s = terms(x);
    T ratio = (s.negative ? s.lifted * (T(2) + s.e) : fma(T(2), s.e, T(1))) / s.d;
    T left = at_least(x, -Constants<T>::exp_limit) * ratio * Constants<T>::unlift;
    return s.negative ? fma(x, T(0), left) : x * ratio;
  }
  FASTACT_FN T slope(T x) const {
    Terms s = terms(x);
    T u = T(1) + s.e;
    T xc = at_most(at_least(x, -Constants<T>::exp_limit), Constants<T>::exp_limit);
    T left = s.lifted * fma(T(4) * xc, u, (T(2) + s.e) * s.d);
    T right = fma(T(4) * xc * s.e, s.e * u, fma(T(2), s.e, T(1)) * s.d);
    T sum = (s.negative ? left : right) / (s.d * s.d);
    return fma(x, T(0), s.negative ? sum * Constants<T>::unlift : sum);
  }
  // 2 F' + x F'', F the tanh: F' = 4 e (1 + e) / d^2 (left), 4 e^2 (1 + e) / d^2 (right).
  FASTACT_FN T curvature(T x) const {
    Terms s = terms(x);
    T e = s.e, d = s.d, u = T(1) + e;
    T xc = at_most(at_least(x, -Constants<T>::exp_limit), Constants<T>::exp_limit);
    T first = s.negative ? u : e * u;
    T second = s.negative ? fma(T(2), e, T(1)) * d - T(4) * e * u * u
                          : T(4) * e * e * u * fma(T(2), e, T(1)) - e * fma(T(3), e, T(2)) * d;
    T sum = fma(T(2) * first, d, xc * second) * T(4) / (d * d * d);
    return s.lifted * sum * Constants<T>::unlift;
  }
};

// scale (exp(input_scale x) - 1) alpha for x <= 0, scale x above: the family of ELU, SELU and CELU.
// Slope from the output: input_scale (y + scale alpha) for y <= 0; at NaN scale, as torch.
template <class T>
struct ExponentialUnit : Defaults {
  static constexpr bool saves_output = true;
  T negative, positive, input_scale;
  ExponentialUnit(double alpha, double scale, double input)
      : negative(T(alpha * scale)), positive(T(scale)), input_scale(T(input)) {}
  FASTACT_FN T value(T x) const {
    T left = negative * expm1(x * input_scale);
    return x < T(0) ? left : positive * x;
  }
  FASTACT_FN T slope(T y) const { return y <= T(0) ? (y + negative) * input_scale : positive; }
  FASTACT_FN T curvature(T y) const { return y <= T(0) ? input_scale : T(0); }
};

// Clevert et al. 2015, arXiv:1511.07289. With alpha < 0 the output no longer tells the side, and the
// input is saved instead (the registry's row decides; the sign tells).
template <class T>
struct Elu : ExponentialUnit<T> {
  static constexpr const char* name = "elu";
  static constexpr int arity = 1;
  explicit Elu(const double* p) : ExponentialUnit<T>(p[0], 1, 1) {}
  FASTACT_FN T left_slope(T s) const {
    T e = exp_lifted(at_least(s, -Constants<T>::exp_limit), T(0));
    return this->negative < T(0) ? this->negative * e * Constants<T>::unlift : s + this->negative;
  }
  FASTACT_FN T slope(T s) const { return s <= T(0) ? left_slope(s) : T(1); }
  FASTACT_FN T curvature(T s) const {
    T left = this->negative < T(0) ? left_slope(s) : T(1);
    return s <= T(0) ? left : T(0);
  }
};

// Klambauer et al. 2017, arXiv:1706.02515.
template <class T>
struct Selu : ExponentialUnit<T> {
  static constexpr const char* name = "selu";
  explicit Selu(const double*)
      : ExponentialUnit<T>(1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1) {}
};

// Barron 2017, arXiv:1704.07483.
template <class T>
struct Celu : ExponentialUnit<T> {
  static constexpr const char* name = "celu";
  static constexpr int arity = 1;
  explicit Celu(const double* p) : ExponentialUnit<T>(p[0], 1, 1 / p[0]) {}
};

// ---------------------------------------------------------------------------------------------
// Piecewise. Comparisons are written so that NaN comes out as NaN.

// max(x, 0). Slope 1 where y > 0; at NaN 1, as torch.
template <class T>
struct Relu : Defaults {
  static constexpr const char* name = "relu";
  static constexpr bool saves_output = true;
  static constexpr bool zero_wins = true;
  explicit Relu(const double*) {}
  FASTACT_FN T value(T x) const { return at_least(x, T(0)); }
  FASTACT_FN T slope(T y) const { return y <= T(0) ? T(0) : T(1); }
  FASTACT_FN T curvature(T) const { return T(0); }
};

// min(max(x, 0), 6). Slope 1 where 0 < y < 6.
template <class T>
struct Relu6 : Defaults {
  static constexpr const char* name = "relu6";
  static constexpr bool saves_output = true;
  static constexpr bool zero_wins = true;
  explicit Relu6(const double*) {}
  FASTACT_FN T value(T x) const { return at_most(at_least(x, T(0)), T(6)); }
  FASTACT_FN T slope(T y) const { return (y <= T(0)) | (y >= T(6)) ? T(0) : T(1); }
  FASTACT_FN T curvature(T) const { return T(0); }
};

// x for x > 0, negative_slope x below. The same formula serves the input and, with a slope >= 0, the
// output: they have the same sign. Maas et al. 2013.
template <class T>
struct LeakyRelu : Defaults {
  static constexpr const char* name = "leaky_relu";
  static constexpr int arity = 1;
  static constexpr bool saves_output = true;
  T negative_slope;
  explicit LeakyRelu(const double* p) : negative_slope(T(p[0])) {}
  FASTACT_FN T value(T x) const { return x > T(0) ? x : x * negative_slope; }
  FASTACT_FN T slope(T s) const { return s > T(0) ? T(1) : negative_slope; }
  FASTACT_FN T curvature(T) const { return T(0); }
};

// max(x, 0)^2. So et al. 2021 (Primer), arXiv:2109.08668.
template <class T>
struct SquaredRelu : Defaults {
  static constexpr const char* name = "squared_relu";
  static constexpr bool zero_wins = true;
  explicit SquaredRelu(const double*) {}
  FASTACT_FN T value(T x) const { return at_least(x, T(0)) * at_least(x, T(0)); }
  FASTACT_FN T slope(T x) const { return T(2) * at_least(x, T(0)); }
  FASTACT_FN T curvature(T x) const { return x > T(0) ? T(2) : T(0); }
};

// x min(max(x + 3, 0), 6) / 6. Howard et al. 2019 (MobileNetV3), arXiv:1905.02244. NaN at -inf.
template <class T>
struct Hardswish : Defaults {
  static constexpr const char* name = "hardswish";
  static constexpr bool zero_wins = true;
  explicit Hardswish(const double*) {}
  FASTACT_FN T value(T x) const {
    T middle = x * (at_least(x + T(3), T(0)) * T(1.0 / 6));
    return x >= T(3) ? x : middle;
  }
  FASTACT_FN T slope(T x) const {
    T middle = fma(x, T(1.0 / 3), T(0.5));
    T right = x < T(3) ? middle : T(1);
    return x <= T(-3) ? T(0) : right;
  }
  FASTACT_FN T curvature(T x) const { return (x > T(-3)) & (x < T(3)) ? T(1.0 / 3) : T(0); }
};

// min(max(x + 3, 0), 6) / 6. Courbariaux et al. 2015, arXiv:1511.00363.
template <class T>
struct Hardsigmoid : Defaults {
  static constexpr const char* name = "hardsigmoid";
  static constexpr bool zero_wins = true;
  explicit Hardsigmoid(const double*) {}
  FASTACT_FN T value(T x) const { return at_most(at_least(x + T(3), T(0)), T(6)) / T(6); }
  FASTACT_FN T slope(T x) const { return (x > T(-3)) & (x < T(3)) ? T(1.0 / 6) : T(0); }
  FASTACT_FN T curvature(T) const { return T(0); }
};

// ---------------------------------------------------------------------------------------------
// The lists every kernel family is instantiated from. A new activation is one struct above, one name
// here, and one row in src/fastact/_registry.py.

template <template <class> class... Formulas>
struct List {};

using Activations = List<Gelu, GeluTanh, QuickGelu, Silu, Sigmoid, Tanh, Softplus, LogSigmoid, Mish,
                         Elu, Selu, Celu, Relu, Relu6, LeakyRelu, SquaredRelu, Hardswish, Hardsigmoid>;

// Those that gate: value(gate) * up.
using Gates = List<Silu, Gelu, GeluTanh, Relu, Sigmoid>;

}  // namespace
}  // namespace fastact
