// The elementwise kernels, one instruction set's. No torch and no STL here (see formulas/macros.h).
#include "../formulas/activations.h"
#include "isa.h"
#include "storage.h"
#include "table.h"

namespace fastact {
namespace {

using cpu::GatedKernels;
using cpu::UnaryKernels;

template <class S>
FASTACT_FN const S* input(void* const* operands, int i) {
  return static_cast<const S*>(operands[i]);
}
template <class S>
FASTACT_FN S* output(void* const* operands, int i) {
  return static_cast<S*>(operands[i]);
}

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

// Storage type S, arithmetic in Compute<S>, formula F. The loops say "ivdep" because an output may be
// an input (in-place), element for element.
template <class S, template <class, class> class Formula>
struct Unary {
  using T = typename Arithmetic<S, Formula>::T;
  using F = typename Arithmetic<S, Formula>::F;

  static void forward(void* const* operands, int64_t n, const double* params) {
    const S* x = input<S>(operands, 0);
    S* y = output<S>(operands, 1);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = store<S>(f.value(T(load(x[i]))));
  }

  static void backward(void* const* operands, int64_t n, const double* params) {
    const S* grad = input<S>(operands, 0);
    const S* saved = input<S>(operands, 1);
    S* grad_x = output<S>(operands, 2);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i)
      grad_x[i] = store<S>(scaled<F>(T(load(grad[i])), f.slope(T(load(saved[i])))));
  }

  static void double_backward(void* const* operands, int64_t n, const double* params) {
    const S* v = input<S>(operands, 0);
    const S* grad = input<S>(operands, 1);
    const S* saved = input<S>(operands, 2);
    S* grad_grad = output<S>(operands, 3);
    S* grad_saved = output<S>(operands, 4);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      T vi = T(load(v[i])), gi = T(load(grad[i])), si = T(load(saved[i]));
      grad_grad[i] = store<S>(scaled<F>(vi, f.slope(si)));
      grad_saved[i] = store<S>(scaled<F>(vi * gi, f.curvature(si)));
    }
  }

  static constexpr UnaryKernels kernels = {forward, backward, double_backward};
};

// The gate's derivatives by its input, whatever the unary op saves.
template <class F, class T>
FASTACT_FN T gate_slope(const F& f, T x) {
  if constexpr (F::saves_output) return f.slope(f.value(x));
  return f.slope(x);
}
template <class F, class T>
FASTACT_FN T gate_curvature(const F& f, T x) {
  if constexpr (F::saves_output) return f.curvature(f.value(x)) * f.slope(f.value(x));
  return f.curvature(x);
}

template <class S, template <class, class> class Formula>
struct Gated {
  using T = typename Arithmetic<S, Formula>::T;
  using F = typename Arithmetic<S, Formula>::F;

  static void forward(void* const* operands, int64_t n, const double* params) {
    const S* gate = input<S>(operands, 0);
    const S* up = input<S>(operands, 1);
    S* y = output<S>(operands, 2);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = store<S>(f.value(T(load(gate[i]))) * T(load(up[i])));
  }

  static void backward(void* const* operands, int64_t n, const double* params) {
    const S* grad = input<S>(operands, 0);
    const S* gate = input<S>(operands, 1);
    const S* up = input<S>(operands, 2);
    S* grad_gate = output<S>(operands, 3);
    S* grad_up = output<S>(operands, 4);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      T g = T(load(grad[i])), a = T(load(gate[i])), b = T(load(up[i]));
      grad_gate[i] = store<S>(scaled<F>(g * b, gate_slope(f, a)));
      grad_up[i] = store<S>(g * f.value(a));
    }
  }

  // Of (g, a, b) -> (g b f'(a), g f(a)), applied to (v, w).
  static void double_backward(void* const* operands, int64_t n, const double* params) {
    const S* v_gate = input<S>(operands, 0);
    const S* v_up = input<S>(operands, 1);
    const S* grad = input<S>(operands, 2);
    const S* gate = input<S>(operands, 3);
    const S* up = input<S>(operands, 4);
    S* grad_grad = output<S>(operands, 5);
    S* grad_gate = output<S>(operands, 6);
    S* grad_up = output<S>(operands, 7);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) {
      T v = T(load(v_gate[i])), w = T(load(v_up[i]));
      T g = T(load(grad[i])), a = T(load(gate[i])), b = T(load(up[i]));
      T slope = gate_slope(f, a);
      grad_grad[i] = store<S>(scaled<F>(v * b, slope) + w * f.value(a));
      grad_gate[i] = store<S>(g * (scaled<F>(v * b, gate_curvature(f, a)) + scaled<F>(w, slope)));
      grad_up[i] = store<S>(scaled<F>(v * g, slope));
    }
  }

  static constexpr GatedKernels kernels = {forward, backward, double_backward};
};

template <class>
struct Tables;

template <template <class, class> class... Formulas>
struct Tables<List<Formulas...>> {
  static constexpr UnaryKernels unary[][cpu::dtype_count] = {
      {Unary<float, Formulas>::kernels, Unary<double, Formulas>::kernels,
       Unary<BFloat16, Formulas>::kernels, Unary<Half, Formulas>::kernels}...};
  static constexpr GatedKernels gated[][cpu::dtype_count] = {
      {Gated<float, Formulas>::kernels, Gated<double, Formulas>::kernels,
       Gated<BFloat16, Formulas>::kernels, Gated<Half, Formulas>::kernels}...};
};

}  // namespace

namespace cpu {
extern const PointwiseTable FASTACT_TABLE(pointwise);
const PointwiseTable FASTACT_TABLE(pointwise) = {Tables<Activations>::unary, Tables<Gates>::gated};
}  // namespace cpu

}  // namespace fastact
