// One struct per activation, and the list of them at the bottom.
//
// T is the type of the arithmetic, C its constants (constants.h).
// A struct is constructed from its parameters and answers, for one element:
//   value(x)      the activation
//   slope(s)      its first derivative
//   curvature(s)  the derivative of slope(s) with respect to s
// where s is what autograd saves: the input x, or, with saves_output, the output y = value(x), which
// the next layer keeps anyway. zero_wins says that a zero slope stops even an infinite gradient, as
// torch's own piecewise functions do.
//
// Unless a comment says otherwise +-inf and NaN give what torch gives. Over all float32 inputs values
// are within 3 ulp and slopes within 4, of max(|exact|, largest term): make exhaustive, and
// the table in docs/design.md. Curvatures are within 4.4 but for those of SiLU, quick and tanh GELU and
// Mish, up to 11: tests/test_accuracy.py.
#pragma once

#include "self_gated.h"

namespace fastact {
namespace {

// ---------------------------------------------------------------------------------------------
// Self-gated (self_gated.h)

// x Phi(x). Slope Phi(x) + x phi(x). Hendrycks & Gimpel 2016, arXiv:1606.08415.
// +-0 at +-0, inf at inf, NaN at -inf (torch also gives NaN at inf where oneDNN computes it).
template <class T, class C>
struct Gelu : SelfGated<T, C, NormalGate<T, C>> {
  static constexpr const char* name = "gelu";
  explicit Gelu(const double*) {}
};

// x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 = x sigmoid(w(x)). Same source.
template <class T, class C>
struct GeluTanh : SelfGated<T, C, SigmoidGate<T, C, TanhGeluArgument<T, C>>> {
  static constexpr const char* name = "gelu_tanh";
  explicit GeluTanh(const double*) {}
};

// x sigmoid(1.702 x). Same source, section 2.
template <class T, class C>
struct QuickGelu : SelfGated<T, C, SigmoidGate<T, C, QuickArgument<T, C>>> {
  static constexpr const char* name = "quick_gelu";
  explicit QuickGelu(const double*) {}
};

// x sigmoid(x). Elfwing et al. 2017, arXiv:1702.03118.
template <class T, class C>
struct Silu : SelfGated<T, C, SigmoidGate<T, C, Identity<T, C>>> {
  static constexpr const char* name = "silu";
  explicit Silu(const double*) {}
};

// ---------------------------------------------------------------------------------------------
// Smooth, bounded or one-sided

// 1 / (1 + exp(-x)). Slope y (1 - y). 0 at -inf, 1/2 at 0, 1 at inf.
template <class T, class C>
struct Sigmoid : Transcendental {
  static constexpr const char* name = "sigmoid";
  static constexpr bool saves_output = true;
  explicit Sigmoid(const double*) {}
  static FASTACT_FN T value(T x) {
    T e = exp_lifted<C>(at_most(abs(x), T(C::exp_limit))) * C::unlift;
    return ratio<C>(x < T(0) ? e : T(1), T(1) + e);
  }
  FASTACT_FN T slope(T y) const { return y * (T(1) - y); }
  FASTACT_FN T curvature(T y) const { return fma(T(-2), y, T(1)); }
};

// tanh(x). Slope 1 - y^2. -1 at -inf, +-0 at +-0, 1 at inf.
template <class T, class C>
struct Tanh : Transcendental {
  static constexpr const char* name = "tanh";
  static constexpr bool saves_output = true;
  explicit Tanh(const double*) {}
  FASTACT_FN T value(T x) const { return tanh<C>(x); }
  FASTACT_FN T slope(T y) const { return (T(1) - y) * (T(1) + y); }
  FASTACT_FN T curvature(T y) const { return T(-2) * y; }
};

// log1p(exp(-|x|)) times C::lift: the tail shared by softplus and logsigmoid. NaN gives a number.
template <class C, class T>
FASTACT_FN T softplus_tail(T x) {
  return log1p_lifted<C>(exp_lifted<C>(magnitude_at_most<C>(x, T(C::exp_limit))));
}

// log(1 + exp(beta x)) / beta, and x itself where beta x > threshold. Slope sigmoid(beta x).
// 0 at -inf, inf at inf. Dugas et al. 2001.
template <class T, class C>
struct Softplus : Transcendental {
  static constexpr const char* name = "softplus";
  static constexpr int arity = 2;
  T beta, inverse, threshold;
  explicit Softplus(const double* p) : beta(T(p[0])), inverse(T(1 / p[0])), threshold(T(p[1])) {}
  FASTACT_FN T value(T x) const {
    T u = x * beta;
    T soft = fma(softplus_tail<C>(u) * C::unlift, inverse, u < T(0) ? T(0) : x);
    return u > threshold ? x : soft;
  }
  FASTACT_FN T slope(T x) const {
    T u = x * beta;
    return u > threshold ? T(1) : Sigmoid<T, C>::value(u);
  }
  FASTACT_FN T curvature(T x) const {
    T u = x * beta;
    return u > threshold ? T(0) : beta * Sigmoid<T, C>::value(u) * Sigmoid<T, C>::value(-u);
  }
};

// log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|)). Slope sigmoid(-x). -inf at -inf, 0 at inf.
template <class T, class C>
struct LogSigmoid : Transcendental {
  static constexpr const char* name = "logsigmoid";
  explicit LogSigmoid(const double*) {}
  FASTACT_FN T value(T x) const { return fma(softplus_tail<C>(x), -C::unlift, at_most(x, T(0))); }
  FASTACT_FN T slope(T x) const { return Sigmoid<T, C>::value(-x); }
  FASTACT_FN T curvature(T x) const { return -Sigmoid<T, C>::value(x) * Sigmoid<T, C>::value(-x); }
};

// x tanh(softplus(x)). With e = exp(-|x|), and m = e (1 + e / 2), tanh(softplus) is
//   m / (1 + m) for x < 0,  (1 + 2e) / (1 + 2e + 2e^2) for x >= 0.
// Misra 2019, arXiv:1908.08681. NaN at -inf, inf at inf.
template <class T, class C>
struct Mish : Transcendental {
  static constexpr const char* name = "mish";
  explicit Mish(const double*) {}
  static FASTACT_FN T clamp(T x) { return magnitude_at_most<C>(x, T(C::exp_limit)); }
  // Left x e (1 - (e + e^2) / (2 + 2m)), right x (1 - 2 e^2 / (1 + 2e + 2e^2)).
  FASTACT_FN T value(T x) const {
    T t = clamp(x);
    Exponential<T, C> exponential(exp_power<C>(t));
    T e = exponential.value(), twice = T(2) * e;
    bool negative = x < T(0);
    T left = exponential.times(t), sum = fma(e, e, e);
    T g =
        quotient(negative ? sum : twice * e, negative ? sum + (T(2) + e) : fma(twice, e, T(1) + twice));
    T y = fma(negative ? left : t, -g, negative ? left : x);
    return negative ? fma(y, -C::unlift, x * T(0)) : y;
  }
  // Left:  e ((1 + m) (1 + e / 2) + x (1 + e)) / (1 + m)^2, of which all but 1 + x is e times a sum.
  // Right: ((1 + 2e) d + 4 x e^2 (1 + e)) / d^2, with d the denominator above.
  // Past the clamp e is exactly zero: so is x e, but for x = inf, where it is NaN as in torch.
  FASTACT_FN T slope(T x) const {
    T lifted = exp_lifted<C>(clamp(x)), e = lifted * C::unlift;
    T h = fma(T(0.5), e, T(1)), m = e * h;
    T left = lifted * fma(e, fma(h, h, T(0.5) + x), T(1) + x);
    T n = fma(T(2), e, T(1)), d = fma(T(2) * e, e, n);
    T right = fma(T(4) * (x * e), fma(e, e, e), n * d);
    bool negative = x < T(0);
    T ratio = quotient(negative ? left : right, negative ? fma(m, T(2) + m, T(1)) : d * d);
    return negative ? ratio * C::unlift : ratio;
  }
  // 2 F' + x F'', F the tanh: F' = 4 e (1 + e) / d^2 (left, d = 2 + 2m), 4 e^2 (1 + e) / d^2 (right).
  FASTACT_FN T curvature(T x) const {
    T lifted = exp_lifted<C>(at_most(abs(x), T(C::exp_limit))), e = lifted * C::unlift, u = T(1) + e;
    bool negative = x < T(0);
    T d = negative ? fma(e, T(2) + e, T(2)) : fma(fma(T(2), e, T(2)), e, T(1));
    T xc = at_most(at_least(x, -T(C::exp_limit)), T(C::exp_limit));
    T first = negative ? u : e * u;
    T second = negative ? fma(T(2), e, T(1)) * d - T(4) * e * u * u
                        : T(4) * e * e * u * fma(T(2), e, T(1)) - e * fma(T(3), e, T(2)) * d;
    T sum = quotient(fma(T(2) * first, d, xc * second) * T(4), d * d * d);
    return lifted * sum * C::unlift;
  }
};

// scale (exp(x / divisor) - 1) alpha for x <= 0, scale x above: the family of ELU, SELU and CELU.
// Slope at NaN scale, and curvature 0 at 0, as torch. The quotient is carried in two floats: with a
// negative divisor, exp grows to the left, and the rounding of its argument is worth 89 ulp.
template <class T, class C, bool divided = false>
struct ExponentialUnit : Transcendental {
  T negative, positive, inverse, inverse_low = T(0);
  ExponentialUnit(double alpha, double scale, double divisor = 1)
      : negative(T(alpha * scale)), positive(T(scale)), inverse(T(1 / divisor)) {
    double whole = 1 / divisor, product = whole * divisor;
    double lost = (1 - product) - product_error<Constants<double>>(whole, divisor, product);
    if (divided) inverse_low = T((whole - double(inverse)) + lost / divisor);
  }
  FASTACT_FN T quotient(T x, T& low) const {
    T u = divided ? x * inverse : x;
    low = -T(0);
    if constexpr (divided && C::compensates) {
      low = fma(x, inverse_low, product_error<C>(x, inverse, u));
      low = abs(u) < T(1000) ? low : T(0);  // where products are finite, and exp is too
    }
    return u;
  }
  FASTACT_FN T value(T x) const {
    T low, u = quotient(x, low);
    T left = negative * expm1<C>(u, low);
    return x < T(0) ? left : positive * x;
  }
  FASTACT_FN T left_slope(T x) const {
    T low, u = quotient(x, low), factor = divided ? negative * inverse : negative;
    Power<T> p = exp_power<C>(magnitude_at_most<C>(u, T(C::exp_limit)));
    if constexpr (!divided) return factor * exp2<C>(p) * C::unlift;
    p.f = fma(copysign(T(C::log2e), -u), low, p.f);
    T lifted = exp2<C>(p);
    return u > T(0) ? factor * (C::lift / lifted) : factor * lifted * C::unlift;
  }
  FASTACT_FN T slope(T x) const { return x <= T(0) ? left_slope(x) : positive; }
  FASTACT_FN T curvature(T x) const { return x < T(0) ? inverse * left_slope(x) : T(0); }
};

// Clevert et al. 2015, arXiv:1511.07289.
template <class T, class C>
struct Elu : ExponentialUnit<T, C> {
  static constexpr const char* name = "elu";
  static constexpr int arity = 1;
  explicit Elu(const double* p) : ExponentialUnit<T, C>(p[0], 1) {}
};

// Klambauer et al. 2017, arXiv:1706.02515.
template <class T, class C>
struct Selu : ExponentialUnit<T, C> {
  static constexpr const char* name = "selu";
  explicit Selu(const double*)
      : ExponentialUnit<T, C>(1.6732632423543772848170429916717, 1.0507009873554804934193349852946) {}
};

// Barron 2017, arXiv:1704.07483.
template <class T, class C>
struct Celu : ExponentialUnit<T, C, true> {
  static constexpr const char* name = "celu";
  static constexpr int arity = 1;
  explicit Celu(const double* p) : ExponentialUnit<T, C, true>(p[0], 1, p[0]) {}
};

// ---------------------------------------------------------------------------------------------
// Piecewise. Comparisons are written so that NaN comes out as NaN.

// max(x, 0). Slope 1 where y > 0; at NaN 1, as torch.
template <class T, class C>
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
template <class T, class C>
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
template <class T, class C>
struct LeakyRelu : Defaults {
  static constexpr const char* name = "leaky_relu";
  static constexpr int arity = 1;
  static constexpr bool saves_output = true;
  T negative_slope;
  explicit LeakyRelu(const double* p) : negative_slope(T(p[0])) {}
  FASTACT_FN T value(T x) const { return x > T(0) ? x : product_to_odd<C>(x, negative_slope); }
  FASTACT_FN T slope(T s) const { return s > T(0) ? T(1) : negative_slope; }
  FASTACT_FN T curvature(T) const { return T(0); }
};

// max(x, 0)^2. So et al. 2021 (Primer), arXiv:2109.08668.
template <class T, class C>
struct SquaredRelu : Defaults {
  static constexpr const char* name = "squared_relu";
  static constexpr bool zero_wins = true;
  explicit SquaredRelu(const double*) {}
  FASTACT_FN T value(T x) const { return at_least(x, T(0)) * at_least(x, T(0)); }
  FASTACT_FN T slope(T x) const { return T(2) * at_least(x, T(0)); }
  FASTACT_FN T curvature(T x) const { return x > T(0) ? T(2) : T(0); }
};

// x min(max(x + 3, 0), 6) / 6. Howard et al. 2019 (MobileNetV3), arXiv:1905.02244. NaN at -inf.
template <class T, class C>
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
template <class T, class C>
struct Hardsigmoid : Defaults {
  static constexpr const char* name = "hardsigmoid";
  static constexpr bool zero_wins = true;
  explicit Hardsigmoid(const double*) {}
  FASTACT_FN T value(T x) const { return at_most(at_least(x + T(3), T(0)), T(6)) * T(1.0 / 6); }
  FASTACT_FN T slope(T x) const { return (x > T(-3)) & (x < T(3)) ? T(1.0 / 6) : T(0); }
  FASTACT_FN T curvature(T) const { return T(0); }
};

// ---------------------------------------------------------------------------------------------
// The lists every kernel family is instantiated from. A new activation is one struct above, one name
// here, and one row in src/fastact/_registry.py.

template <template <class, class> class... Formulas>
struct List {};

using Activations = List<Gelu, GeluTanh, QuickGelu, Silu, Sigmoid, Tanh, Softplus, LogSigmoid, Mish,
                         Elu, Selu, Celu, Relu, Relu6, LeakyRelu, SquaredRelu, Hardswish, Hardsigmoid>;

// Those that gate: value(gate) * up.
using Gates = List<Silu, Gelu, GeluTanh, Relu, Sigmoid>;

}  // namespace
}  // namespace fastact
