// softmax and log_softmax over rows of logits, one instruction set's.
#include "isa.h"
#include "online.h"
#include "table.h"

namespace fastact {
namespace {

using cpu::SoftmaxKernels;
using cpu::SoftmaxRows;

// What softmax and log_softmax have in common: how they follow from (max, rest), and that their
// derivatives are sums over a row and then a map over it. In the formulas y is the saved output.
template <class T>
struct Softmax {
  FASTACT_FN static T scale(T rest) { return T(1) / (T(1) + rest); }
  FASTACT_FN static T value(T d, T scale) { return exp_negative(d) * scale; }  // of d = z - max
  FASTACT_FN static T pulled(T grad, T y) { return grad * y; }  // what backward sums
  FASTACT_FN static T backward(T grad, T y, T sum) { return y * (grad - sum); }
  FASTACT_FN static T pushed(T v, T y) { return v * y; }  // what forward mode sums
  FASTACT_FN static T forward_mode(T v, T y, T sum) { return y * (v - sum); }
  // The gradient of sum(v * backward(grad, y)) by y, from the sums of grad and of v.
  FASTACT_FN static T by_saved(T v, T grad, T, T grad_sum, T v_sum) {
    return v * (grad - grad_sum) - grad * v_sum;
  }
};

template <class T>
struct LogSoftmax {
  FASTACT_FN static T scale(T rest) { return log1p(rest); }
  FASTACT_FN static T value(T d, T scale) { return d - scale; }
  FASTACT_FN static T pulled(T grad, T) { return grad; }
  FASTACT_FN static T backward(T grad, T y, T sum) {
    T p = exp_negative(y);
    return grad - (p == T(0) ? T(0) : p * sum);
  }
  FASTACT_FN static T pushed(T v, T y) {
    T p = exp_negative(y);
    return p == T(0) ? T(0) : v * p;
  }
  FASTACT_FN static T forward_mode(T v, T, T sum) { return v - sum; }
  FASTACT_FN static T by_saved(T v, T, T y, T grad_sum, T) { return -v * exp_negative(y) * grad_sum; }
};

template <template <class> class Formula, class S, bool lane_is_row>
struct Kernels {
  using T = Compute<S>;
  using F = Formula<T>;
  using G = Group<S, lane_is_row>;
  using PerRow = typename G::template PerRow<T>;
  static constexpr T infinity = SoftmaxConstants<T>::infinity;

  static void forward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    const int64_t classes = args.rows.classes;
    alignas(64) Block<T> z;
    for (int64_t g = begin; g < end; ++g) {
      const G group(args.rows, g);
      Exponentials<G> sum;
      for (int64_t first = 0; first < classes; first += G::width) {
        group.load(z, args.inputs[0], first, -infinity);
        sum.add(z, group.steps_from(first));
      }
      sum.finish();
      PerRow scale;
      for (int r = 0; r < G::rows; ++r) scale[r] = F::scale(sum.rest[r]);
      for (int64_t first = 0; first < classes; first += G::width) {
        group.load(z, args.inputs[0], first, -infinity);
        for (int k = 0; k < group.steps_from(first); ++k)
          for (int l = 0; l < lanes; ++l) z[k][l] = F::value(z[k][l] - sum.max[G::row(l)], scale[G::row(l)]);
        group.store(args.outputs[0], first, z);
      }
    }
  }

  static void backward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    const int64_t classes = args.rows.classes;
    alignas(64) Block<T> grad, y;
    for (int64_t g = begin; g < end; ++g) {
      const G group(args.rows, g);
      Lanes<T> sums;
      PerRow sum;
      fill(sums, T(0));
      for (int64_t first = 0; first < classes; first += G::width) {
        group.load(grad, args.inputs[0], first, T(0));
        group.load(y, args.inputs[1], first, T(0));
        add(group, first, sums, [&](int k, int l) { return F::pulled(grad[k][l], y[k][l]); });
      }
      G::sum(sums, sum);
      for (int64_t first = 0; first < classes; first += G::width) {
        group.load(grad, args.inputs[0], first, T(0));
        group.load(y, args.inputs[1], first, T(0));
        for (int k = 0; k < group.steps_from(first); ++k)
          for (int l = 0; l < lanes; ++l) grad[k][l] = F::backward(grad[k][l], y[k][l], sum[G::row(l)]);
        group.store(args.outputs[0], first, grad);
      }
    }
  }

  static void double_backward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    const int64_t classes = args.rows.classes;
    alignas(64) Block<T> v, grad, y;
    const auto load = [&](const G& group, int64_t first) {
      group.load(v, args.inputs[0], first, T(0));
      group.load(grad, args.inputs[1], first, T(0));
      group.load(y, args.inputs[2], first, T(0));
    };
    for (int64_t g = begin; g < end; ++g) {
      const G group(args.rows, g);
      Lanes<T> v_sums, grad_sums;
      PerRow v_sum, grad_sum;
      fill(v_sums, T(0));
      fill(grad_sums, T(0));
      for (int64_t first = 0; first < classes; first += G::width) {
        load(group, first);
        add(group, first, v_sums, [&](int k, int l) { return F::pushed(v[k][l], y[k][l]); });
        add(group, first, grad_sums, [&](int k, int l) { return F::pulled(grad[k][l], y[k][l]); });
      }
      G::sum(v_sums, v_sum);
      G::sum(grad_sums, grad_sum);
      for (int64_t first = 0; first < classes; first += G::width) {
        load(group, first);
        for (int k = 0; k < group.steps_from(first); ++k)
          for (int l = 0; l < lanes; ++l) {
            const T vi = v[k][l], gi = grad[k][l], yi = y[k][l];
            const int r = G::row(l);
            v[k][l] = F::forward_mode(vi, yi, v_sum[r]);
            grad[k][l] = F::by_saved(vi, gi, yi, grad_sum[r], v_sum[r]);
          }
        group.store(args.outputs[0], first, v);
        group.store(args.outputs[1], first, grad);
      }
    }
  }

  // A block's terms, added up apart from what came before it: fewer roundings on the way.
  template <class Term>
  static void add(const G& group, int64_t first, Lanes<T>& sums, const Term& term) {
    Lanes<T> part;
    fill(part, T(0));
    for (int k = 0; k < group.steps_from(first); ++k)
      for (int l = 0; l < lanes; ++l) part[l] += term(k, l);
    for (int l = 0; l < lanes; ++l) sums[l] += part[l];
  }

  static constexpr SoftmaxKernels kernels = {forward, backward, double_backward};
};

template <template <class> class F>
constexpr cpu::SoftmaxTable table = {{
    {Kernels<F, float, false>::kernels, Kernels<F, float, true>::kernels},
    {Kernels<F, double, false>::kernels, Kernels<F, double, true>::kernels},
    {Kernels<F, BFloat16, false>::kernels, Kernels<F, BFloat16, true>::kernels},
    {Kernels<F, Half, false>::kernels, Kernels<F, Half, true>::kernels},
}};

}  // namespace

namespace cpu {
extern const SoftmaxTable FASTACT_TABLE(softmax), FASTACT_TABLE(log_softmax);
const SoftmaxTable FASTACT_TABLE(softmax) = fastact::table<Softmax>;
const SoftmaxTable FASTACT_TABLE(log_softmax) = fastact::table<LogSoftmax>;
}  // namespace cpu

}  // namespace fastact
