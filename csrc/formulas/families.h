// What the kernels of an activation compute for one element, from the formula's value, slope and
// curvature.
#pragma once

#include "activations.h"
#include "storage.h"

namespace fastact {
namespace {

// What a storage type needs of the arithmetic.
template <class S>
struct PrecisionOf {
  using type = Constants<Compute<S>>;
};
template <>
struct PrecisionOf<BFloat16> {
  using type = Brief;
};
template <>
struct PrecisionOf<Half> {
  using type = Halved;
};

// A formula with the arithmetic for a storage type: without FMA that of float32 is in double, as no
// float arithmetic of the same cost is within 3 ulp.
template <class S, template <class, class> class Formula>
struct Arithmetic {
  using T = Compute<S>;
  using F = Formula<T, typename PrecisionOf<S>::type>;
};
template <template <class, class> class Formula, bool wide>
struct FloatArithmetic {
  using T = float;
  using F = Formula<T, Constants<T>>;
};
template <template <class, class> class Formula>
struct FloatArithmetic<Formula, true> {
  using T = double;
  using F = Formula<T, Wide>;
};
template <template <class, class> class Formula>
struct Arithmetic<float, Formula>
    : FloatArithmetic<Formula, !has_fma && Formula<float, Constants<float>>::transcendental> {};

// factor * slope, where a zero slope may stop even an infinite gradient.
template <class F, class T>
FASTACT_FN T scaled(T factor, T slope) {
  if constexpr (F::zero_wins) return slope == T(0) ? T(0) : factor * slope;
  return factor * slope;
}

// f(x), of which `saved` is x or, where the formula says so, f(x).
template <class F, class T>
struct UnaryFamily {
  FASTACT_FN static T forward(const F& f, T x) { return f.value(x); }

  FASTACT_FN static T backward(const F& f, T grad, T saved) { return scaled<F>(grad, f.slope(saved)); }

  // Of the gradient v of backward's result: by grad, and by saved.
  FASTACT_FN static void double_backward(const F& f, T v, T grad, T saved, T& grad_grad,
                                         T& grad_saved) {
    grad_grad = scaled<F>(v, f.slope(saved));
    grad_saved = scaled<F>(v * grad, f.curvature(saved));
  }
};

// f(gate) * up
template <class F, class T>
struct GatedFamily {
  FASTACT_FN static T forward(const F& f, T gate, T up) { return f.value(gate) * up; }

  FASTACT_FN static void backward(const F& f, T grad, T gate, T up, T& grad_gate, T& grad_up) {
    grad_gate = scaled<F>(grad * up, slope(f, gate));
    grad_up = grad * f.value(gate);
  }

  // Of backward's results with the gradients v and w.
  FASTACT_FN static void double_backward(const F& f, T v, T w, T grad, T gate, T up, T& grad_grad,
                                         T& grad_gate, T& grad_up) {
    T df = slope(f, gate);
    grad_grad = scaled<F>(v * up, df) + w * f.value(gate);
    grad_gate = grad * (scaled<F>(v * up, curvature(f, gate)) + scaled<F>(w, df));
    grad_up = scaled<F>(v * grad, df);
  }

 private:
  // The derivatives by the input, whatever the unary op saves.
  FASTACT_FN static T slope(const F& f, T x) {
    if constexpr (F::saves_output) return f.slope(f.value(x));
    return f.slope(x);
  }
  FASTACT_FN static T curvature(const F& f, T x) {
    if constexpr (F::saves_output) return f.curvature(f.value(x)) * f.slope(f.value(x));
    return f.curvature(x);
  }
};

}  // namespace
}  // namespace fastact
