// The elementwise kernels, one instruction set's. No torch and no STL here (see formulas/macros.h).
#include "../formulas/families.h"
#include "isa.h"
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

// Storage type S, arithmetic in Compute<S>, formula F. The loops say "ivdep" because an output may be
// an input (in-place), element for element.
template <class S, template <class, class> class Formula>
struct Unary {
  using T = typename Arithmetic<S, Formula>::T;
  using F = typename Arithmetic<S, Formula>::F;
  using Family = UnaryFamily<F, T>;

  static void forward(void* const* operands, int64_t n, const double* params) {
    const S* x = input<S>(operands, 0);
    S* y = output<S>(operands, 1);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) y[i] = store<S>(Family::forward(f, T(load(x[i]))));
  }

  static void backward(void* const* operands, int64_t n, const double* params) {
    const S* grad = input<S>(operands, 0);
    const S* saved = input<S>(operands, 1);
    S* grad_x = output<S>(operands, 2);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i)
      grad_x[i] = store<S>(Family::backward(f, T(load(grad[i])), T(load(saved[i]))));
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
      T by_grad, by_saved;
      Family::double_backward(f, T(load(v[i])), T(load(grad[i])), T(load(saved[i])), by_grad, by_saved);
      grad_grad[i] = store<S>(by_grad);
      grad_saved[i] = store<S>(by_saved);
    }
  }

  static constexpr UnaryKernels kernels = {forward, backward, double_backward};
};

template <class S, template <class, class> class Formula>
struct Gated {
  using T = typename Arithmetic<S, Formula>::T;
  using F = typename Arithmetic<S, Formula>::F;
  using Family = GatedFamily<F, T>;

  static void forward(void* const* operands, int64_t n, const double* params) {
    const S* gate = input<S>(operands, 0);
    const S* up = input<S>(operands, 1);
    S* y = output<S>(operands, 2);
    const F f(params);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i)
      y[i] = store<S>(Family::forward(f, T(load(gate[i])), T(load(up[i]))));
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
      T by_gate, by_up;
      Family::backward(f, T(load(grad[i])), T(load(gate[i])), T(load(up[i])), by_gate, by_up);
      grad_gate[i] = store<S>(by_gate);
      grad_up[i] = store<S>(by_up);
    }
  }

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
      T by_grad, by_gate, by_up;
      Family::double_backward(f, T(load(v_gate[i])), T(load(v_up[i])), T(load(grad[i])),
                              T(load(gate[i])), T(load(up[i])), by_grad, by_gate, by_up);
      grad_grad[i] = store<S>(by_grad);
      grad_gate[i] = store<S>(by_gate);
      grad_up[i] = store<S>(by_up);
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
