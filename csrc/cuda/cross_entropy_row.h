// One row of logits in cross entropy, as the threads of a team see it: formulas/cross_entropy.h has the
// mathematics, cpu/rows.h the operands.
#pragma once

#include "../formulas/cross_entropy.h"

#include "row.h"

namespace fastact {
namespace {

using cpu::CrossEntropyRows;
using cuda::Plan;

// Whether coefficients other than that of the target's index exist.
FASTACT_FN bool is_spread(const CrossEntropyRows& args) {
  return args.probabilities != nullptr || args.label_smoothing > 0;
}
// Without options that need more than the logits as they are.
FASTACT_FN bool is_plain(const CrossEntropyRows& args) {
  return !is_spread(args) && args.softcap == 0 && !args.entropy && !args.grad_entropy;
}

// What the kernels are given: the operands, and what follows from the options, which a GPU would have
// to divide for in double.
template <class T>
struct Given : CrossEntropyRows {
  SoftCap<T> cap;
  T share, uniform;  // of the target, and of every class

  explicit Given(const CrossEntropyRows& of)
      : CrossEntropyRows(of),
        cap(of.softcap),
        share(T(1 - of.label_smoothing)),
        uniform(T(of.label_smoothing / double(of.rows.classes))) {}
};

// One row as the threads of a team see it, each with all of this. `plain` is is_plain(args).
template <class S, bool plain, RowKind kind>
struct CrossEntropy {
  using T = Compute<S>;
  static constexpr T infinity = SoftmaxConstants<T>::infinity;

  const Given<T>& args;
  const Plan& plan;
  Team<kind>& team;
  const RowPlace& row;
  const SoftCap<T>& cap;
  const T share, uniform, z_loss;

  // The target
  bool used = false, valid = true;  // false: ignored; out of range
  int index = -1;
  T logit = T(0), slope = T(1);  // capped, and the slope of the cap
  T coefficient = T(0), weight = T(1);

  __device__ CrossEntropy(const Given<T>& rows, const Plan& how, Team<kind>& members,
                          const RowPlace& place)
      : args(rows),
        plan(how),
        team(members),
        row(place),
        cap(rows.cap),
        share(plain ? T(1) : rows.share),
        uniform(plain ? T(0) : rows.uniform),
        z_loss(T(rows.z_loss)) {
    used = row.exists;
    if (!row.exists || !args.target) return;
    const int64_t target = args.target[row.index];
    used = target != args.ignore_index;
    if (!used) return;
    used = valid = uint64_t(target) < uint64_t(row.classes);
    if (!valid) return;
    index = int(target);
    if (args.weight) weight = static_cast<const T*>(args.weight)[index];
    coefficient = share * weight;
    logit = load(logits()[index * stride()]);
    if (is_capped()) {
      slope = cap.slope(logit);
      logit = cap.value(logit);
    }
  }

  FASTACT_FN int64_t stride() const { return row.template step<kind>(); }
  FASTACT_FN bool is_capped() const { return !plain && args.softcap > 0; }
  FASTACT_FN const S* logits() const { return row.in<S>(args.logits); }
  FASTACT_FN T z(T x) const { return is_capped() ? cap.value(x) : x; }
  // a_j without the target's index, from the probability q where there are any.
  FASTACT_FN T coefficient_of(int j, T q) const {
    T a = args.probabilities ? share * q + uniform : uniform;
    return args.weight ? a * static_cast<const T*>(args.weight)[j] : a;
  }
  // Without any, the logits stand in: they are at hand.
  FASTACT_FN const S* probabilities() const {
    return args.probabilities ? row.in<S>(args.probabilities) : logits();
  }

  FASTACT_FN static T get(const void* numbers, int64_t i) {
    return numbers ? static_cast<const T*>(numbers)[i] : T(0);
  }
  FASTACT_FN void put(void* numbers, T value) const {
    if (numbers) static_cast<T*>(numbers)[row.index] = value;
  }

  // What a row is known by, once it has been gone over.
  struct Known {
    T max = T(0), rest = T(0), mass = T(0), mean = T(0);
  };

  // Returns the loss, to be added up.
  template <bool with_gradient>
  __device__ T forward() const {
    constexpr int depth = !plain ? 1 : with_gradient ? 2 : in_flight<S>;  // as far as registers go
    Known known;
    T dot = T(0);
    const int n = used ? row.classes : 0;
    const Operands<S, 1, kind> operands{team, plan, row, n, {logits()}};
    if (!args.normalized) {
      const auto sum = exponentials<depth>(operands, [&](T x) { return z(x); });
      known.max = sum.max;
      known.rest = sum.rest;
    }
    const T max = known.max, rest = known.rest, log_sum = log1p(rest), lse = max + log_sum;
    if constexpr (!plain) {
      using Sum = Sums<T, 3>;  // of exp(z - max) (z - max); of a (z - max); of a
      const auto sums = team.template sum<Sum>(n, [&](Sum& mine, Part part) {
        const S* x = operands.again(0, part);
        const S* inputs[] = {x, args.probabilities ? probabilities() + part.begin * stride() : x};
        visit<1>(team, part.size, stride(), inputs, [&](int j, int step, auto& a) {
          Sum sum;
#pragma unroll
          for (int k = 0; k < int(sizeof(a[0]) / sizeof(T)); ++k) {
            const T d = z(a[0][k]) - max;
            if (args.entropy) sum.at[0] += exp_negative(d) * at_least(d, SoftmaxConstants<T>::limit);
            if (is_spread(args)) {
              const T c = coefficient_of(part.begin + j + k * step, a[1][k]);
              sum.at[1] += c == T(0) ? T(0) : c * d;
              sum.at[2] += c;
            }
          }
          mine = mine + sum;
        });
      });
      known.mean = sums.at[0] / (T(1) + rest);
      dot = sums.at[1];
      known.mass = sums.at[2];
    }
    T loss = row_loss(max, log_sum, known.mass, dot, coefficient, logit, z_loss);
    if (!used) loss = valid ? T(0) : T(0) * infinity;
    if (team.leads() && row.exists) {
      put(args.max, used ? max : T(0));
      put(args.rest, used ? rest : T(0));
      put(args.mass, used ? known.mass : T(0));
      put(args.mean, used ? known.mean : T(0));
      put(args.loss, loss);
      put(args.lse, used ? lse : T(0));
      put(args.entropy, used ? log_sum - known.mean : T(0));
    }
    if constexpr (with_gradient)
      if (row.exists) write_gradient(operands, known);
    return row.exists ? loss : T(0);
  }

  // What the gradient of a row is made of.
  struct Gradient {
    T max, rest, mass, mean, lse, inverse, h;
    RowGradient<T> of;

    __device__ Gradient(const CrossEntropy& c, const Known& known)
        : max(known.max),
          rest(known.rest),
          mass(known.mass),
          mean(known.mean),
          lse(max + (c.z_loss != T(0) ? log1p(rest) : T(0))),
          inverse(T(1) / (T(1) + rest)),
          h(plain ? T(0) : get(c.args.grad_entropy, c.row.index)),
          of(c.gradient_of_loss(), get(c.args.grad_lse, c.row.index), c.coefficient, mass, rest, lse,
             c.z_loss) {}
  };
  // What the forward pass has left of the row.
  __device__ Known known() const {
    return {get(args.max, row.index), get(args.rest, row.index),
            plain ? T(0) : get(args.mass, row.index), plain ? T(0) : get(args.mean, row.index)};
  }
  FASTACT_FN T gradient_of_loss() const {
    if (!args.reduced) return get(args.grad_loss, row.index);
    const T grad = get(args.grad_loss, 0);
    return args.total ? grad / get(args.total, 0) : grad;
  }

  // The gradient by z of class j, of coefficient a; the target's index is left out.
  FASTACT_FN T gradient(const Gradient& g, T zj, T a) const {
    T grad = exp_negative_lifted<sizeof(S) == 2>(zj - g.max) * g.of.factor;
    if constexpr (!plain) {
      if (args.grad_entropy) grad -= entropy_gradient(zj - g.max, g.inverse, g.h, g.mean);
      if (is_spread(args)) grad -= g.of.u * a;
    }
    return grad;
  }
  FASTACT_FN T at_target(const Gradient& g) const {
    return target_gradient(logit - g.max, g.inverse, g.rest, g.of.u, g.of.kappa, coefficient,
                           uniform * weight, g.h, g.mean);
  }

  __device__ void backward() const {
    // The target's logit has been read, before another thread may write over it.
    if constexpr (!Team<kind>::strided) team.sync();
    if (!row.exists) return;
    const Operands<S, 1, kind> operands{team, plan, row, row.classes, {logits()}};
    if (!args.normalized) return write_gradient(operands, known());
    const Part all{0, row.classes};
    fill_zero(team, row.out<S>(args.grad_logits), row.classes, stride());
    if (used) put_at_target(all, -gradient_of_loss() * coefficient);
  }

  // Of a row that exists, by the threads that have gone over it.
  __device__ void write_gradient(const Operands<S, 1, kind>& operands, const Known& known) const {
    const Part part = operands.mapped(row.classes);
    const int first = part.begin;
    S* grad = row.out<S>(args.grad_logits) + first * stride();
    if (!used) return fill_zero(team, grad, part.size, stride());
    const Gradient g(*this, known);
    // Before the others: what it is made of would take six registers meanwhile.
    const T own = args.target ? at_target(g) * slope : T(0);
    const S* x = operands.again(0, part);
    if constexpr (plain) {
      map(team, part.size, stride(), {x}, {grad},
          [&](int, const T(&a)[1], T(&b)[1]) { b[0] = gradient(g, a[0], T(0)); });
    } else {
      const S* inputs[] = {x, args.probabilities ? probabilities() + first * stride() : x};
      map(team, part.size, stride(), inputs, {grad}, [&](int j, const T(&a)[2], T(&b)[1]) {
        const T by_z = gradient(g, z(a[0]), is_spread(args) ? coefficient_of(first + j, a[1]) : T(0));
        b[0] = is_capped() ? by_z * cap.slope(a[0]) : by_z;
      });
    }
    if (args.target) put_at_target(part, own);
  }

  // Over what the row's threads have written of this part.
  __device__ void put_at_target(Part part, T value) const {
    S* grad = row.out<S>(args.grad_logits) + index * stride();
    if constexpr (Team<kind>::strided) {  // one thread wrote it, and there is no barrier for one row
      if (team.rank == (index & (team.lanes - 1))) *grad = store<S>(value);
    } else {
      team.sync();
      if (team.rank == 0 && unsigned(index - part.begin) < unsigned(part.size)) *grad = store<S>(value);
    }
  }

  // Whether the gradient is there already, from the forward pass.
  FASTACT_FN static bool is_as_expected(const Given<T>& args, const RowPlace& row) {
    return args.expected && get(args.grad_loss, args.reduced ? 0 : row.index) == get(args.expected, 0);
  }

  // Returns the gradient by the loss's gradient, to be added up.
  __device__ T double_backward() const {
    const int n = used ? row.classes : 0;
    const Gradient g(*this, known());
    const S* inputs[] = {logits(), row.in<S>(args.v), probabilities()};
    const T lse = g.max + log1p(g.rest);
    // y = v dz/dx, counted from its value at the target: the loss depends on differences only.
    const T origin = used && args.target ? load(inputs[1][index * stride()]) * slope : T(0);
    const auto y = [&](T x, T v) { return (is_capped() ? v * cap.slope(x) : v) - origin; };
    using Sum = Sums<T, 3>;  // of p y; of p y (z - max - mean); of a y
    const auto sums = team.template sum<Sum>(n, [&](Sum& mine, Part part) {
      const S* from[3];
#pragma unroll
      for (int i = 0; i < 3; ++i) from[i] = inputs[i] + part.begin * stride();
      visit<1>(team, part.size, stride(), from, [&](int j, int step, auto& a) {
        Sum sum;
#pragma unroll
        for (int k = 0; k < int(sizeof(a[0]) / sizeof(T)); ++k) {
          const T d = z(a[0][k]) - g.max, yj = y(a[0][k], a[1][k]);
          const T p = exp_negative(d) * g.inverse;
          sum.at[0] += p == T(0) ? T(0) : p * yj;
          sum.at[1] += p == T(0) ? T(0) : p * (d - g.mean) * yj;
          if (is_spread(args)) sum.at[2] += coefficient_of(part.begin + j + k * step, a[2][k]) * yj;
        }
        mine = mine + sum;
      });
    });
    if (!used) {
      if (row.exists && args.grad_logits)
        fill_zero(team, row.out<S>(args.grad_logits), row.classes, stride());
      put_second(T(0), T(0), T(0));
      return T(0);
    }
    const T mean = sums.at[0], covariance = sums.at[1], by_lse = mean + origin;
    const T by_loss = coefficient * mean + g.mass * mean - sums.at[2] + T(2) * z_loss * lse * by_lse;
    if (args.grad_logits) {
      map(team, row.classes, stride(), inputs, {row.out<S>(args.grad_logits)},
          [&](int j, const T(&a)[3], T(&b)[1]) {
            const T zj = z(a[0]);
            b[0] = gradient_tangent(zj - g.max, g.inverse, y(a[0], a[1]), mean, by_lse, covariance,
                                    g.of.u, g.of.kappa, g.h, g.mean, z_loss);
            if (!is_capped()) return;
            const T c = is_spread(args) ? coefficient_of(j, a[2]) : T(0);
            const T by_z = j == index ? at_target(g) : gradient(g, zj, c);
            b[0] = b[0] * cap.slope(a[0]) + a[1] * cap.curvature(a[0]) * by_z;
          });
    }
    put_second(by_loss, by_lse, -covariance);
    return by_loss;
  }
  __device__ void put_second(T by_loss, T by_lse, T by_entropy) const {
    if (!team.leads() || !row.exists) return;
    put(args.grad_grad_loss, by_loss);
    put(args.grad_grad_lse, by_lse);
    put(args.grad_grad_entropy, by_entropy);
  }
};

}  // namespace
}  // namespace fastact
