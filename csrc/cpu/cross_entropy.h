// A group of rows of logits in cross entropy: its operands, and the gradient that first and second
// derivatives are made of. formulas/cross_entropy.h has the mathematics, rows.h the operands.
#pragma once

#include "../formulas/cross_entropy.h"

#include "isa.h"
#include "online.h"

namespace fastact {
namespace {

using cpu::CrossEntropyRows;

// What all rows share: the operands, and what follows from the options.
template <class T>
struct Given {
  const CrossEntropyRows& args;
  const SoftCap<T> cap;
  const T share, uniform, z_loss;  // share of the target, and of every class
  T grad_of_sum = T(0);            // of each row's loss, where they are reduced

  explicit Given(const CrossEntropyRows& rows)
      : args(rows),
        cap(rows.softcap),
        share(T(1 - rows.label_smoothing)),
        uniform(T(rows.label_smoothing / double(rows.rows.classes))),
        z_loss(T(rows.z_loss)) {
    if (!rows.reduced || rows.grad_loss == nullptr) return;
    const double grad = double(*static_cast<const T*>(rows.grad_loss));
    grad_of_sum = T(rows.total ? grad / double(*static_cast<const T*>(rows.total)) : grad);
  }
};

template <class S, bool lane_is_row>
struct CrossEntropyGroup : Given<Compute<S>> {
  using T = Compute<S>;
  using G = Group<S, lane_is_row>;
  using PerRow = typename G::template PerRow<T>;
  using Given<T>::args, Given<T>::cap, Given<T>::share, Given<T>::uniform, Given<T>::z_loss;
  static constexpr T infinity = SoftmaxConstants<T>::infinity;

  G group;

  CrossEntropyGroup(const Given<T>& given, int64_t index) : Given<T>(given), group(args.rows, index) {}

  int64_t classes() const { return args.rows.classes; }
  // Whether coefficients other than that of the target's index exist.
  bool spread() const { return args.probabilities != nullptr || args.label_smoothing > 0; }

  // Whether the logits are only needed as they are, for sums and maps: no block has to hold them.
  bool is_plain() const {
    return !spread() && args.softcap == 0 && !args.entropy && !args.grad_entropy;
  }

  void load_logits(Block<T>& z, int64_t first) const {
    if (args.softcap > 0)
      group.load(z, args.logits, first, -infinity,
                 [this](T x) __attribute__((always_inline)) { return cap.value(x); });
    else
      group.load(z, args.logits, first, -infinity);
  }

  // dz/dx.
  void load_slopes(Block<T>& slope, int64_t first) const {
    group.load(slope, args.logits, first, T(0),
               [this](T x) __attribute__((always_inline)) { return cap.slope(x); });
  }

  // a_j without the target's index, and before it is multiplied by its class weight; 0 in padding.
  void load_unweighted(Block<T>& a, int64_t first) const {
    if (args.probabilities)
      group.load(a, args.probabilities, first, T(0),
                 [this](T q) __attribute__((always_inline)) { return share * q + uniform; });
    else
      for (int k = 0; k < group.steps_from(first); ++k) fill(a[k], uniform);
    if constexpr (!lane_is_row) fill_padding(a, first);
  }
  void fill_padding(Block<T>& block, int64_t first) const {
    T* flat = &block[0][0];
    for (int64_t j = group.classes_from(first); j < group.steps_from(first) * lanes; ++j)
      flat[j] = T(0);
  }
  // The class weights; 0 in padding.
  void load_weights(Block<T>& weights, int64_t first) const {
    const T* w = static_cast<const T*>(args.weight);
    const int64_t n = group.classes_from(first);
    if constexpr (!lane_is_row) {
      T* flat = &weights[0][0];
      for (int64_t j = 0; j < n; ++j) flat[j] = w ? w[first + j] : T(1);
      fill_padding(weights, first);
    } else {
      for (int64_t k = 0; k < n; ++k) fill(weights[k], w ? w[first + k] : T(1));
    }
  }
  // a_j without the target's index; 0 in padding.
  void load_coefficients(Block<T>& a, int64_t first) const {
    load_unweighted(a, first);
    if (!args.weight) return;
    alignas(64) Block<T> w;
    load_weights(w, first);
    for (int k = 0; k < group.steps_from(first); ++k)
      for (int l = 0; l < lanes; ++l) a[k][l] *= w[k][l];
  }

  // The target of each row: its logit, its coefficient share * w, its class weight.
  struct Target {
    bool any;          // is used
    bool used[lanes];  // false: ignored, or none
    int64_t index[lanes];
    PerRow logit, coefficient, weight;
    PerRow slope;  // of the cap
  };
  void load_target(Target& t) const {
    t.any = false;
    const T* w = static_cast<const T*>(args.weight);
    group.for_rows([&](int r) {
      t.used[r] = r < group.count;
      t.index[r] = 0;
      t.logit[r] = t.coefficient[r] = T(0);
      t.weight[r] = t.slope[r] = T(1);
      if (t.used[r] && args.target) {
        t.index[r] = args.target[group.first_row + r];
        t.used[r] = t.index[r] != args.ignore_index;
        if (t.used[r]) {
          if (w) t.weight[r] = w[t.index[r]];
          t.coefficient[r] = T(exact_coefficient(t, r));
          t.logit[r] = load(*group.at(args.logits, r, t.index[r]));
          if (args.softcap > 0) {
            t.slope[r] = cap.slope(t.logit[r]);
            t.logit[r] = cap.value(t.logit[r]);
          }
        }
      }
      t.any |= t.used[r];
    });
  }
  // Its coefficient, which as a T is rounded.
  double exact_coefficient(const Target& t, int r) const {
    return (1 - args.label_smoothing) * double(t.weight[r]);
  }
  // Whether any row is, of those whose turn it is.
  bool is_used(const Target& t) const { return lane_is_row ? t.any : t.used[group.row(0)]; }

  template <class U>
  void add_up(Lanes<U>& a, Lanes<U>& sums) const {
    typename G::template Together<U> sum;
    G::sum(a, sum);
    group.keep(sums, sum);
  }

  // What the gradient of a row is made of: grad_z = p (kappa - h (z - max - mean)) - u a.
  struct Row {
    Target target;
    PerRow max, rest, mass, mean;
    PerRow lse;      // max alone, without z_loss
    PerRow inverse;  // 1 / sum
    PerRow u, h;     // the gradients of loss and entropy
    PerRow kappa;
    PerRow factor;  // kappa / sum, unlifted
  };
  void load_row(Row& row) const {
    load_target(row.target);
    fill(row.max, T(0));
    fill(row.rest, T(0));
    fill(row.mass, T(0));
    fill(row.mean, T(0));
    fill(row.h, T(0));
    if (args.max) group.load_rows(row.max, args.max);
    if (args.rest) group.load_rows(row.rest, args.rest);
    if (args.mass) group.load_rows(row.mass, args.mass);
    if (args.mean) group.load_rows(row.mean, args.mean);
    if (args.grad_entropy) group.load_rows(row.h, args.grad_entropy);
    PerRow q;
    fill(q, T(0));
    if (args.grad_lse) group.load_rows(q, args.grad_lse);
    fill(row.u, this->grad_of_sum);
    if (args.grad_loss && !args.reduced) group.load_rows(row.u, args.grad_loss);
    group.for_rows([&](int r) {
      row.inverse[r] = T(1) / (T(1) + row.rest[r]);
      row.lse[r] = row.max[r] + (z_loss == T(0) ? T(0) : log1p(row.rest[r]));
      const double coefficient = args.target ? exact_coefficient(row.target, r) : 0.0;
      const RowGradient<T> gradient(row.u[r], q[r], coefficient, row.mass[r], row.rest[r], row.lse[r],
                                    z_loss);
      row.kappa[r] = gradient.kappa;
      row.factor[r] = gradient.factor;
    });
  }

  // grad_z of a block of logits, the target's index left out.
  void gradient(const Row& row, int64_t first, const Block<T>& z, Block<T>& grad) const {
    const int n = group.steps_from(first);
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < lanes; ++l)
        grad[k][l] = exp_negative_lifted<G::is_short, false>(z[k][l] - row.max[group.row(l)]);
    if (spread()) {
      alignas(64) Block<T> a, w;
      load_unweighted(a, first);
      load_weights(w, first);
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) {
          const int r = group.row(l);
          grad[k][l] = minus_coefficient(grad[k][l], row.factor[r], row.u[r], a[k][l], w[k][l]);
        }
    } else {
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) grad[k][l] *= row.factor[group.row(l)];
    }
    if (args.grad_entropy)
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) {
          const int r = group.row(l);
          grad[k][l] -= entropy_gradient(z[k][l] - row.max[r], row.inverse[r], row.h[r], row.mean[r]);
        }
  }

  // The whole of grad_z at the target, where p - 1 would cancel. Where coefficients are spread, in
  // double: it is the largest of its row, and made of more that rounds than the others.
  void target_gradient(const Row& row, PerRow& grad) const {
    if (spread()) {
      const double uniform_exact = args.label_smoothing / double(classes());
      group.for_rows([&](int r) {
        const double u = row.u[r], weight = row.target.weight[r], rest = row.rest[r];
        const double of_others = row.kappa[r] - row.u[r] * (row.target.coefficient[r] + row.mass[r]);
        const double coefficient = exact_coefficient(row.target, r);
        grad[r] = T(fastact::target_gradient<double>(
            double(row.target.logit[r]) - double(row.max[r]), 1 / (1 + rest), rest, u,
            u * (coefficient + double(row.mass[r])) + of_others, coefficient, uniform_exact * weight,
            row.h[r], row.mean[r]));
      });
      return;
    }
    group.for_rows([&](int r) {
      grad[r] = fastact::target_gradient(row.target.logit[r] - row.max[r], row.inverse[r], row.rest[r],
                                         row.u[r], row.kappa[r], row.target.coefficient[r],
                                         uniform * row.target.weight[r], row.h[r], row.mean[r]);
    });
  }

  // Rows that are ignored among others have no gradient, whatever they hold.
  void hide_ignored(const Target& target, int n, Block<T>& grad) const {
    if (!lane_is_row || args.target == nullptr) return;
    for (int r = 0; r < group.count; ++r)
      if (!target.used[r])
        for (int k = 0; k < n; ++k) grad[k][r] = T(0);
  }

  void store_target(const Target& target, void* grad, const PerRow& value) const {
    if (args.target == nullptr) return;
    for (int r = 0; r < group.count; ++r)
      if (target.used[r]) *group.at(grad, r, target.index[r]) = store<S>(value[r]);
  }

  void zero(void* grad) const {
    alignas(64) Block<T> none;
    for (int k = 0; k < steps; ++k) fill(none[k], T(0));
    for (int64_t first = 0; first < classes(); first += G::width) group.store(grad, first, none);
  }
};

}  // namespace
}  // namespace fastact
