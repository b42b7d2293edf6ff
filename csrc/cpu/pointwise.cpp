// The elementwise kernels, one instruction set's. No torch and no STL here (see formulas/macros.h).
#include "../formulas/families.h"
#include "elements.h"
#include "isa.h"
#include "table.h"

namespace fastact {
namespace {

using cpu::GatedKernels;
using cpu::UnaryKernels;

// Applies f to the elements of `ins` operands, for those of the `outs` operands after them.
template <class S, int ins, int outs, class F>
FASTACT_FN void map_operands(void* const* operands, int64_t n, const F& f) {
  const S* x[ins];
  S* y[outs];
  for (int k = 0; k < ins; ++k) x[k] = static_cast<const S*>(operands[k]);
  for (int k = 0; k < outs; ++k) y[k] = static_cast<S*>(operands[ins + k]);
  map(x, y, n, f);
}

// Storage type S, arithmetic in T, which may be wider than what elements are loaded to; formula F.
template <class S, template <class, class> class Formula>
struct Unary {
  using T = typename Arithmetic<S, Formula>::T;
  using F = typename Arithmetic<S, Formula>::F;
  using Family = UnaryFamily<F, T>;
  using E = Compute<S>;

  static void forward(void* const* operands, int64_t n, const double* params) {
    const F f(params);
    map_operands<S, 1, 1>(operands, n, [&](const E(&x)[1], E(&y)[1]) __attribute__((always_inline)) {
      y[0] = E(Family::forward(f, T(x[0])));
    });
  }

  static void backward(void* const* operands, int64_t n, const double* params) {
    const F f(params);
    map_operands<S, 2, 1>(operands, n, [&](const E(&x)[2], E(&y)[1]) __attribute__((always_inline)) {
      y[0] = E(Family::backward(f, T(x[0]), T(x[1])));
    });
  }

  static void double_backward(void* const* operands, int64_t n, const double* params) {
    const F f(params);
    map_operands<S, 3, 2>(operands, n, [&](const E(&x)[3], E(&y)[2]) __attribute__((always_inline)) {
      T a, b;
      Family::double_backward(f, T(x[0]), T(x[1]), T(x[2]), a, b);
      y[0] = E(a), y[1] = E(b);
    });
  }

  static constexpr UnaryKernels kernels = {forward, backward, double_backward};
};

template <class S, template <class, class> class Formula>
struct Gated {
  using T = typename Arithmetic<S, Formula>::T;
  using F = typename Arithmetic<S, Formula>::F;
  using Family = GatedFamily<F, T>;
  using E = Compute<S>;

  static void forward(void* const* operands, int64_t n, const double* params) {
    const F f(params);
    map_operands<S, 2, 1>(operands, n, [&](const E(&x)[2], E(&y)[1]) __attribute__((always_inline)) {
      y[0] = E(Family::forward(f, T(x[0]), T(x[1])));
    });
  }

  static void backward(void* const* operands, int64_t n, const double* params) {
    const F f(params);
    map_operands<S, 3, 2>(operands, n, [&](const E(&x)[3], E(&y)[2]) __attribute__((always_inline)) {
      T a, b;
      Family::backward(f, T(x[0]), T(x[1]), T(x[2]), a, b);
      y[0] = E(a), y[1] = E(b);
    });
  }

  static void double_backward(void* const* operands, int64_t n, const double* params) {
    const F f(params);
    map_operands<S, 5, 3>(operands, n, [&](const E(&x)[5], E(&y)[3]) __attribute__((always_inline)) {
      T a, b, c;
      Family::double_backward(f, T(x[0]), T(x[1]), T(x[2]), T(x[3]), T(x[4]), a, b, c);
      y[0] = E(a), y[1] = E(b), y[2] = E(c);
    });
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
