// Binary cross entropy with logits, one instruction set's.
#include "../formulas/bce.h"
#include "../formulas/storage.h"
#include "isa.h"
#include "table.h"

namespace fastact {
namespace {

using cpu::BceKernels;
using cpu::BceOperands;

constexpr int lanes = 32;

// Sums up to 32 partial sums; what a compiler may not do with one sum without being told.
template <class T>
struct Sum {
  T lane[lanes] = {};
  double total() const {
    double sum = 0;
    for (int l = 0; l < lanes; ++l) sum += double(lane[l]);
    return sum;
  }
};

template <class S, bool reduced, bool weighted, bool pos_weighted>
struct Bce {
  using T = Compute<S>;

  // What is needed of element i.
  struct Element {
    T x, w;
    BinaryCrossEntropy<T> f;
    FASTACT_FN Element(const BceOperands& o, int64_t i)
        : x(load(at(o.x, i))),
          w(weighted ? load(at(o.weight, i)) : T(1)),
          f(load(at(o.target, i)), pos_weighted ? load(at(o.pos_weight, i)) : T(1)) {}
  };
  FASTACT_FN static S at(const void* p, int64_t i) { return static_cast<const S*>(p)[i]; }
  FASTACT_FN static void put(void* p, int64_t i, T value) { static_cast<S*>(p)[i] = store<S>(value); }

  // The gradient of the sum, where the loss is reduced.
  FASTACT_FN static T gradient_of_sum(const BceOperands& o) {
    return reduced ? T(double(*static_cast<const T*>(o.grad)) / o.divisor) : T(0);
  }

  // f(i) for each i: stored, or added up.
  template <class F>
  FASTACT_FN static void results(const BceOperands& o, int64_t begin, int64_t end, void* to,
                                 const F& f) {
    if constexpr (reduced) {
      Sum<T> sum;
      int64_t i = begin;
      for (; i + lanes <= end; i += lanes)
        for (int l = 0; l < lanes; ++l) sum.lane[l] += f(i + l);
      for (int l = 0; i < end; ++i, ++l) sum.lane[l] += f(i);
      double* pair = o.sums + 2 * (begin / cpu::bce_part);
      pair[0] = sum.total();
      pair[1] = double(end - begin);
    } else {
#pragma GCC ivdep
      for (int64_t i = begin; i < end; ++i) put(to, i, f(i));
    }
  }

  static void forward(const BceOperands& o, int64_t begin, int64_t end) {
    results(o, begin, end, o.loss, [&](int64_t i) {
      const Element e(o, i);
      return e.w * e.f.value(e.x);
    });
  }

  static void backward(const BceOperands& o, int64_t begin, int64_t end) {
    const T of_sum = gradient_of_sum(o);
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) {
      const Element e(o, i);
      T grad = reduced ? of_sum : load(at(o.grad, i));
      put(o.grad_x, i, grad * (e.w * e.f.slope(e.x)));
    }
  }

  static void double_backward(const BceOperands& o, int64_t begin, int64_t end) {
    results(o, begin, end, o.loss, [&](int64_t i) {
      const Element e(o, i);
      return load(at(o.v, i)) * (e.w * e.f.slope(e.x));
    });
    const T of_sum = gradient_of_sum(o);
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) {
      const Element e(o, i);
      T grad = reduced ? of_sum : load(at(o.grad, i));
      put(o.grad_x, i, load(at(o.v, i)) * grad * (e.w * e.f.curvature(e.x)));
    }
  }

  static constexpr BceKernels kernels = {forward, backward, double_backward};
};

template <class S>
struct Variants {
  template <bool reduced>
  static constexpr BceKernels of[2][2] = {
      {Bce<S, reduced, false, false>::kernels, Bce<S, reduced, false, true>::kernels},
      {Bce<S, reduced, true, false>::kernels, Bce<S, reduced, true, true>::kernels}};
};

}  // namespace

namespace cpu {

const BceKernels& FASTACT_TABLE(bce)(DType dtype, bool reduced, bool weighted, bool pos_weighted);
const BceKernels& FASTACT_TABLE(bce)(DType dtype, bool reduced, bool weighted, bool pos_weighted) {
  const auto of = [&]<class S>(S) -> const BceKernels& {
    return reduced ? Variants<S>::template of<true>[weighted][pos_weighted]
                   : Variants<S>::template of<false>[weighted][pos_weighted];
  };
  switch (dtype) {
    case float32:
      return of(float());
    case float64:
      return of(double());
    case bfloat16:
      return of(BFloat16());
    default:
      return of(Half());
  }
}

}  // namespace cpu
}  // namespace fastact
