// softmax and log_softmax over rows of logits, one instruction set's.
#include "isa.h"
#include "online.h"
#include "table.h"

namespace fastact {
namespace {

using cpu::SoftmaxKernels;
using cpu::SoftmaxRows;

// A row in each lane.
template <template <class> class Formula, class S>
struct RowsInLanes {
  using T = Compute<S>;
  using F = Formula<T>;
  using G = Group<S, true>;

  static void forward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    if (args.rows.classes <= G::width)
      forward_groups<true>(args, begin, end);
    else
      forward_groups<false>(args, begin, end);
  }

  // With one_block, what has been loaded and computed is still there.
  template <bool one_block>
  static void forward_groups(const SoftmaxRows& args, int64_t begin, int64_t end) {
    alignas(64) Block<T> z;
    constexpr bool keeps = one_block && F::has_exponentials;
    for (int64_t g = begin; g < end; ++g) {
      const G group(args.rows, g);
      Exponentials<G> sum;
      sum.clear();
      for (int64_t first = 0; first < args.rows.classes; first += G::width) {
        group.load(z, args.inputs[0], first, -sum.infinity);
        if constexpr (keeps)
          sum.add_and_keep(z, group.steps_from(first));
        else
          sum.add(z, group.steps_from(first));
      }
      sum.finish();
      Lanes<T> scale;
      for (int l = 0; l < lanes; ++l) scale[l] = F::scale(sum.max[l], sum.rest[l]);
      for (int64_t first = 0; first < args.rows.classes; first += G::width) {
        if constexpr (!one_block) group.load(z, args.inputs[0], first, -sum.infinity);
        for (int k = 0; k < group.steps_from(first); ++k)
          for (int l = 0; l < lanes; ++l)
            if constexpr (keeps)
              z[k][l] = F::of_exponential(z[k][l], scale[l]);
            else
              z[k][l] = F::template value<G::is_short>(z[k][l] - sum.max[l], scale[l]);
        group.store(args.outputs[0], first, z);
      }
    }
  }

  static void backward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    alignas(64) Block<T> grad, y;
    const auto load = [&](const G& group, int64_t first) {
      group.load(grad, args.inputs[0], first, T(0));
      group.load(y, args.inputs[1], first, T(0));
      return group.steps_from(first);
    };
    for (int64_t g = begin; g < end; ++g) {
      const G group(args.rows, g);
      Lanes<T> sum;
      fill(sum, T(0));
      for (int64_t first = 0; first < args.rows.classes; first += G::width)
        add(sum, load(group, first), [&](int k, int l) { return F::vjp_term(grad[k][l], y[k][l]); });
      for (int64_t first = 0; first < args.rows.classes; first += G::width) {
        const int n = load(group, first);
        for (int k = 0; k < n; ++k)
          for (int l = 0; l < lanes; ++l) grad[k][l] = F::backward(grad[k][l], y[k][l], sum[l]);
        group.store(args.outputs[0], first, grad);
      }
    }
  }

  static void double_backward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    alignas(64) Block<T> v, grad, y;
    const auto load = [&](const G& group, int64_t first) {
      group.load(v, args.inputs[0], first, T(0));
      group.load(grad, args.inputs[1], first, T(0));
      group.load(y, args.inputs[2], first, T(0));
      return group.steps_from(first);
    };
    for (int64_t g = begin; g < end; ++g) {
      const G group(args.rows, g);
      Lanes<T> v_sum, grad_sum;
      fill(v_sum, T(0));
      fill(grad_sum, T(0));
      for (int64_t first = 0; first < args.rows.classes; first += G::width) {
        const int n = load(group, first);
        add(v_sum, n, [&](int k, int l) { return F::jvp_term(v[k][l], y[k][l]); });
        add(grad_sum, n, [&](int k, int l) { return F::vjp_term(grad[k][l], y[k][l]); });
      }
      for (int64_t first = 0; first < args.rows.classes; first += G::width) {
        const int n = load(group, first);
        for (int k = 0; k < n; ++k)
          for (int l = 0; l < lanes; ++l) {
            const T vi = v[k][l], gi = grad[k][l], yi = y[k][l];
            v[k][l] = F::jvp(vi, yi, v_sum[l]);
            grad[k][l] = F::by_saved(vi, gi, yi, grad_sum[l], v_sum[l]);
          }
        group.store(args.outputs[0], first, v);
        group.store(args.outputs[1], first, grad);
      }
    }
  }

  // A block's terms, added up apart from what came before it: fewer roundings on the way.
  template <class Term>
  static void add(Lanes<T>& sums, int n, const Term& term) {
    Lanes<T> part;
    fill(part, T(0));
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < lanes; ++l) part[l] += term(k, l);
    for (int l = 0; l < lanes; ++l) sums[l] += part[l];
  }

  static constexpr SoftmaxKernels kernels = {forward, backward, double_backward};
};

// A row over all lanes: its classes are contiguous.
template <template <class> class Formula, class S>
struct WholeRows {
  using T = Compute<S>;
  using F = Formula<T>;
  using G = Group<S, false>;

  // How many exponentials of a row are kept from the sum for the output: of 16 bits in memory of their
  // own, else in the output itself, as long as that and the logits stay in the second-level cache.
  static constexpr int64_t kept_bytes = 128 * 1024;
  static constexpr int64_t kept_at_most = G::is_short ? G::longest : kept_bytes / int64_t(sizeof(T));

  static void forward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    if constexpr (F::has_exponentials)
      if (args.rows.classes <= kept_at_most) return forward_groups<true>(args, begin, end);
    forward_groups<false>(args, begin, end);
  }

  template <bool keeps>
  static void forward_groups(const SoftmaxRows& args, int64_t begin, int64_t end) {
    const int64_t classes = args.rows.classes;
    alignas(64) T own[keeps && G::is_short ? G::longest : 1];
    T* kept[lanes];
    for (int64_t g = begin; g < end; ++g) {
      G group(args.rows, g);
      if constexpr (keeps)
        for (int r = 0; r < group.count; ++r) {
          if constexpr (G::is_short)
            kept[r] = own + r * classes;
          else
            kept[r] = group.at(args.outputs[0], r, 0);
        }
      Lanes<T> maxima, rests, scales;
      fill(maxima, T(0));
      fill(rests, T(0));
      sum_up_rows<keeps>(group, args.inputs[0], [](int) { return true; }, maxima, rests, kept);
      group.for_rows([&](int r) { scales[r] = F::scale(maxima[r], rests[r]); });
      group.in_turn([&](const G&) {
        const int r = group.row(0);
        S* y = group.at(args.outputs[0], 0);
        const T max = maxima[r], scale = scales[r];
        if constexpr (keeps) {
          T* e = kept[r];
          map({e}, {e}, classes, [&](const T(&a)[1], T(&p)[1]) __attribute__((always_inline)) {
            p[0] = F::of_exponential(a[0], scale);
          });
          if constexpr (G::is_short) narrow(e, y, classes);
        } else {
          const S* x = group.at(args.inputs[0], 0);
          map({x}, {y}, classes, [&](const T(&z)[1], T(&p)[1]) __attribute__((always_inline)) {
            p[0] = F::template value<G::is_short>(z[0] - max, scale);
          });
        }
      });
    }
  }

  static void backward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    const int64_t classes = args.rows.classes;
    for (int64_t g = begin; g < end; ++g) {
      G(args.rows, g).in_turn([&](const G& group) {
        const S* grad = group.at(args.inputs[0], 0);
        const S* y = group.at(args.inputs[1], 0);
        S* grad_x = group.at(args.outputs[0], 0);
        const T sum = total(group, grad, y, F::vjp_term);
        map({grad, y}, {grad_x}, classes, [&](const T(&a)[2], T(&b)[1]) __attribute__((always_inline)) {
          b[0] = F::backward(a[0], a[1], sum);
        });
      });
    }
  }

  static void double_backward(const SoftmaxRows& args, int64_t begin, int64_t end) {
    const int64_t classes = args.rows.classes;
    for (int64_t g = begin; g < end; ++g) {
      G(args.rows, g).in_turn([&](const G& group) {
        const S* v = group.at(args.inputs[0], 0);
        const S* grad = group.at(args.inputs[1], 0);
        const S* y = group.at(args.inputs[2], 0);
        S* grad_grad = group.at(args.outputs[0], 0);
        S* grad_y = group.at(args.outputs[1], 0);
        const T v_sum = total(group, v, y, F::jvp_term), grad_sum = total(group, grad, y, F::vjp_term);
        map({v, grad, y}, {grad_grad, grad_y}, classes,
            [&](const T(&a)[3], T(&b)[2]) __attribute__((always_inline)) {
              b[0] = F::jvp(a[0], a[2], v_sum);
              b[1] = F::by_saved(a[0], a[1], a[2], grad_sum, v_sum);
            });
      });
    }
  }

  // The sum of term(a, b) over the row.
  template <class Term>
  FASTACT_FN static T total(const G& group, const S* a, const S* b, const Term& term) {
    Lanes<T> sums;
    fill(sums, T(0));
    for (int64_t first = 0, n; (n = group.part_from(first)) > 0; first += n) {
      if constexpr (G::is_short) {
        alignas(64) T p[G::width + lanes], q[G::width + lanes];
        widen(a + first, p, n);
        widen(b + first, q, n);
        add_terms(sums, n, [&](int64_t j) { return term(p[j], q[j]); });
      } else {
        add_terms(sums, n, [&](int64_t j) { return term(load(a[first + j]), load(b[first + j])); });
      }
    }
    T result[1];
    G::sum(sums, result);
    return result[0];
  }

  static constexpr SoftmaxKernels kernels = {forward, backward, double_backward};
};

template <template <class> class F>
constexpr cpu::SoftmaxTable table = {{
    {WholeRows<F, float>::kernels, RowsInLanes<F, float>::kernels},
    {WholeRows<F, double>::kernels, RowsInLanes<F, double>::kernels},
    {WholeRows<F, BFloat16>::kernels, RowsInLanes<F, BFloat16>::kernels},
    {WholeRows<F, Half>::kernels, RowsInLanes<F, Half>::kernels},
}};

}  // namespace

namespace cpu {
extern const SoftmaxTable FASTACT_TABLE(softmax), FASTACT_TABLE(log_softmax);
const SoftmaxTable FASTACT_TABLE(softmax) = fastact::table<Softmax>;
const SoftmaxTable FASTACT_TABLE(log_softmax) = fastact::table<LogSoftmax>;
}  // namespace cpu

}  // namespace fastact
