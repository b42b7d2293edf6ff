// Cross entropy over rows of logits, one instruction set's: formulas/cross_entropy.h has the
// mathematics, rows.h the operands.
#include "../formulas/cross_entropy.h"

#include "isa.h"
#include "online.h"
#include "table.h"

namespace fastact {
namespace {

using cpu::CrossEntropyKernels;
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
struct CrossEntropy : Given<Compute<S>> {
  using T = Compute<S>;
  using G = Group<S, lane_is_row>;
  using PerRow = typename G::template PerRow<T>;
  using Given<T>::args, Given<T>::cap, Given<T>::share, Given<T>::uniform, Given<T>::z_loss;
  static constexpr T infinity = SoftmaxConstants<T>::infinity;

  G group;

  CrossEntropy(const Given<T>& given, int64_t index) : Given<T>(given), group(args.rows, index) {}

  static void forward(const CrossEntropyRows& args, int64_t begin, int64_t end) {
    const Given<T> given(args);
    for (int64_t g = begin; g < end; ++g) CrossEntropy(given, g).forward_group(args.sums + 2 * g);
  }
  static void backward(const CrossEntropyRows& args, int64_t begin, int64_t end) {
    const Given<T> given(args);
    for (int64_t g = begin; g < end; ++g) CrossEntropy(given, g).backward_group();
  }
  static void double_backward(const CrossEntropyRows& args, int64_t begin, int64_t end) {
    const Given<T> given(args);
    for (int64_t g = begin; g < end; ++g)
      CrossEntropy(given, g).double_backward_group(args.sums + 2 * g);
  }
  static constexpr CrossEntropyKernels kernels = {forward, backward, double_backward};

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

  // a_j without the target's index; 0 in padding.
  void load_coefficients(Block<T>& a, int64_t first) const {
    const T* w = static_cast<const T*>(args.weight);
    const int64_t n = group.classes_from(first);
    if (args.probabilities)
      group.load(a, args.probabilities, first, T(0),
                 [this](T q) __attribute__((always_inline)) { return share * q + uniform; });
    else
      for (int k = 0; k < group.steps_from(first); ++k) fill(a[k], uniform);
    if constexpr (!lane_is_row) {
      T* flat = &a[0][0];
      if (w)
        for (int64_t j = 0; j < n; ++j) flat[j] *= w[first + j];
      for (int64_t j = n; j < (n + lanes - 1) / lanes * lanes; ++j) flat[j] = T(0);
    } else if (w) {
      for (int64_t k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) a[k][l] *= w[first + k];
    }
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
          t.coefficient[r] = share * t.weight[r];
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
  // Whether any row is, of those whose turn it is.
  bool is_used(const Target& t) const { return lane_is_row ? t.any : t.used[group.row(0)]; }

  void forward_group(double* sums) {
    Target target;
    load_target(target);
    PerRow max, rest, mean, mass, loss, lse, entropy;
    Lanes<double> dot, double_mass;
    fill(max, T(0));
    fill(rest, T(0));
    fill(mean, T(0));
    fill(dot, 0.0);
    fill(double_mass, 0.0);
    if (!args.normalized) {
      if (!lane_is_row && is_plain())
        sum_up_rows<false>(
            group, args.logits, [&](int r) { return target.used[r]; }, max, rest, nullptr);
      else
        group.in_turn([&](const G&) {
          if (is_used(target)) sum_up(max, rest, mean, dot, double_mass);
        });
    }
    group.for_rows([&](int r) {
      T log_sum = log1p(rest[r]);
      lse[r] = max[r] + log_sum;
      mean[r] /= T(1) + rest[r];
      entropy[r] = log_sum - mean[r];
      mass[r] = T(double_mass[r]);
      loss[r] =
          row_loss(max[r], log_sum, mass[r], T(dot[r]), target.coefficient[r], target.logit[r], z_loss);
    });
    double loss_sum = 0, weight_sum = 0;
    for (int r = 0; r < group.count; ++r) {
      if (!target.used[r]) max[r] = rest[r] = mass[r] = mean[r] = loss[r] = lse[r] = entropy[r] = T(0);
      if (target.used[r]) weight_sum += double(target.weight[r]);
      loss_sum += double(loss[r]);
    }
    sums[0] = loss_sum;
    sums[1] = weight_sum;
    if (args.max) group.store_rows(args.max, max);
    if (args.rest) group.store_rows(args.rest, rest);
    if (args.mass) group.store_rows(args.mass, mass);
    if (args.mean) group.store_rows(args.mean, mean);
    if (args.loss) group.store_rows(args.loss, loss);
    if (args.lse) group.store_rows(args.lse, lse);
    if (args.entropy) group.store_rows(args.entropy, entropy);
  }

  // What the classes of the rows whose turn it is add up to: with the maximum, and in `moment` (of the
  // entropy), dot and mass what formulas/cross_entropy.h sums.
  void sum_up(PerRow& max, PerRow& rest, PerRow& moment, Lanes<double>& dot,
              Lanes<double>& mass) const {
    Exponentials<G> exponentials;
    exponentials.clear();
    Lanes<T> moments;
    fill(moments, T(0));  // of exp(z - max) (z - max)
    // In double: coefficients may all be alike, but for one that is much larger, and float would round
    // each sum to the same side.
    Lanes<double> dots, masses;
    fill(dots, 0.0);    // of a (z - max)
    fill(masses, 0.0);  // of a
    for (int64_t first = 0; first < classes(); first += G::width)
      add_block(first, exponentials, moments, dots, masses);
    exponentials.finish();
    group.keep(max, exponentials.max);
    group.keep(rest, exponentials.rest);
    add_up(moments, moment);
    add_up(dots, dot);
    add_up(masses, mass);
  }
  template <class U>
  void add_up(Lanes<U>& a, Lanes<U>& sums) const {
    typename G::template Together<U> sum;
    G::sum(a, sum);
    group.keep(sums, sum);
  }

  void add_block(int64_t first, Exponentials<G>& exponentials, Lanes<T>& moments, Lanes<double>& dots,
                 Lanes<double>& masses) const {
    alignas(64) Block<T> z;
    load_logits(z, first);
    const int n = group.steps_from(first);
    exponentials.add(z, n, [&] {
      const auto &scale = exponentials.scale, &drop = exponentials.drop;
      if (args.entropy)
        for (int l = 0; l < lanes; ++l)
          moments[l] = scale[G::slot(l)] * (moments[l] + exponentials.total(l) * drop[G::slot(l)]);
      if (spread())
        for (int l = 0; l < lanes; ++l) dots[l] += masses[l] * double(drop[G::slot(l)]);
    });
    const auto& shift = exponentials.shift;
    if (args.entropy) {
      Lanes<T> part;
      fill(part, T(0));
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) {
          T d = z[k][l] - shift[G::slot(l)];
          part[l] += exp_negative(d) * at_least(d, SoftmaxConstants<T>::limit);  // below it, 0
        }
      for (int l = 0; l < lanes; ++l) moments[l] += part[l];
    }
    if (spread()) {
      alignas(64) Block<T> a;
      load_coefficients(a, first);
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) {
          T d = z[k][l] - shift[G::slot(l)];
          T counted = a[k][l] == T(0) ? T(0) : d;
          dots[l] += double(a[k][l] * counted);
          masses[l] += double(a[k][l]);
        }
    }
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
      const RowGradient<T> gradient(row.u[r], q[r], row.target.coefficient[r], row.mass[r], row.rest[r],
                                    row.lse[r], z_loss);
      row.kappa[r] = gradient.kappa;
      row.factor[r] = gradient.factor;
    });
  }

  // grad_z of a block of logits, the target's index left out.
  void gradient(const Row& row, int64_t first, const Block<T>& z, Block<T>& grad) const {
    const int n = group.steps_from(first);
    if (spread()) {
      load_coefficients(grad, first);
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) grad[k][l] *= -row.u[group.row(l)];
    } else {
      for (int k = 0; k < n; ++k) fill(grad[k], T(0));
    }
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < lanes; ++l) {
        const int r = group.row(l);
        T e = exp_negative_lifted<G::is_short, false>(z[k][l] - row.max[r]);
        grad[k][l] = fma(e, row.factor[r], grad[k][l]);
      }
    if (args.grad_entropy)
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) {
          const int r = group.row(l);
          grad[k][l] -= entropy_gradient(z[k][l] - row.max[r], row.inverse[r], row.h[r], row.mean[r]);
        }
  }

  // The whole of grad_z at the target, where p - 1 would cancel.
  void target_gradient(const Row& row, PerRow& grad) const {
    group.for_rows([&](int r) {
      grad[r] = fastact::target_gradient(row.target.logit[r] - row.max[r], row.inverse[r], row.rest[r],
                                         row.u[r], row.kappa[r], row.target.coefficient[r],
                                         uniform * row.target.weight[r], row.h[r], row.mean[r]);
    });
  }

  void backward_group() {
    Row row;
    load_row(row);
    PerRow at_target;
    if (args.normalized)
      group.for_rows([&](int r) { at_target[r] = -row.u[r] * row.target.coefficient[r]; });
    else
      target_gradient(row, at_target);
    group.for_rows([&](int r) { at_target[r] *= row.target.slope[r]; });
    group.in_turn([&](const G&) {
      if (args.normalized || !is_used(row.target))
        zero(args.grad_logits);
      else if (!lane_is_row && is_plain())
        scaled_softmax(row);
      else
        for (int64_t first = 0; first < classes(); first += G::width) store_gradient(row, first);
    });
    store_target(row.target, args.grad_logits, at_target);
  }

  void store_gradient(const Row& row, int64_t first) const {
    alignas(64) Block<T> z, grad;
    load_logits(z, first);
    gradient(row, first, z, grad);
    const int n = group.steps_from(first);
    if (args.softcap > 0) {
      alignas(64) Block<T> slope;
      load_slopes(slope, first);
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) grad[k][l] *= slope[k][l];
    }
    hide_ignored(row.target, n, grad);
    group.store(args.grad_logits, first, grad);
  }

  // The gradient of one row without options, in one loop from memory to memory.
  void scaled_softmax(const Row& row) const {
    const S* x = group.at(args.logits, 0);
    S* grad = group.at(args.grad_logits, 0);
    const T max = row.max[group.row(0)], factor = row.factor[group.row(0)];
    // Where a logit is NaN, so are max and factor.
    map({x}, {grad}, classes(), [&](const T(&z)[1], T(&y)[1]) __attribute__((always_inline)) {
      y[0] = exp_negative_lifted<G::is_short, false>(z[0] - max) * factor;
    });
  }

  void double_backward_group(double* sums) {
    Row row;
    load_row(row);
    const Target& target = row.target;
    Pushed pushed;
    fill(pushed.origin, T(0));
    for (int r = 0; args.target && r < group.count; ++r)
      if (target.used[r])
        pushed.origin[r] = load(*group.at(args.v, r, target.index[r])) * target.slope[r];
    PerRow dot;
    fill(pushed.mean, T(0));
    fill(pushed.covariance, T(0));
    fill(dot, T(0));
    group.in_turn([&](const G&) {
      if (is_used(target)) sum_up(row, pushed, dot);
    });
    PerRow by_loss, by_entropy;
    sums[0] = sums[1] = 0;
    group.for_rows([&](int r) {
      const T mean = pushed.mean[r];
      pushed.by_lse[r] = mean + pushed.origin[r];
      by_loss[r] = target.coefficient[r] * mean + row.mass[r] * mean - dot[r] +
                   T(2) * z_loss * row.lse[r] * pushed.by_lse[r];
      by_entropy[r] = -pushed.covariance[r];
      if (!target.used[r]) by_loss[r] = pushed.by_lse[r] = by_entropy[r] = T(0);
    });
    for (int r = 0; r < group.count; ++r) {
      sums[0] += double(by_loss[r]);
      if (target.used[r]) sums[1] += double(target.weight[r]);
    }
    if (args.grad_grad_loss) group.store_rows(args.grad_grad_loss, by_loss);
    if (args.grad_grad_lse) group.store_rows(args.grad_grad_lse, pushed.by_lse);
    if (args.grad_grad_entropy) group.store_rows(args.grad_grad_entropy, by_entropy);
    if (!args.grad_logits) return;

    PerRow at_target;
    target_gradient(row, at_target);
    group.in_turn([&](const G&) {
      if (is_used(target))
        for (int64_t first = 0; first < classes(); first += G::width)
          store_tangent(row, pushed, at_target, first);
      else
        zero(args.grad_logits);
    });
  }

  // Of y = v dz/dx, counted from its value at the target, as the loss depends on differences only: the
  // mean, and the covariance with z. by_lse is what lse takes of it.
  struct Pushed {
    PerRow origin, mean, covariance, by_lse;
  };

  // What the classes of the rows whose turn it is add up to; dot: of y and a.
  void sum_up(const Row& row, Pushed& pushed, PerRow& dot) const {
    Lanes<T> means, covariances, dots;
    fill(means, T(0));
    fill(covariances, T(0));
    fill(dots, T(0));
    alignas(64) Block<T> z, y, a;
    for (int64_t first = 0; first < classes(); first += G::width) {
      load_logits(z, first);
      load_y(first, y);
      const int n = group.steps_from(first);
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) {
          const int r = group.row(l);
          T d = z[k][l] - row.max[r], mean = row.mean[r];
          T p = exp_negative(d) * row.inverse[r];
          T from_origin = y[k][l] - pushed.origin[r];
          means[l] += p == T(0) ? T(0) : p * from_origin;
          covariances[l] += p == T(0) ? T(0) : p * (d - mean) * from_origin;
        }
      if (!spread()) continue;
      load_coefficients(a, first);
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) dots[l] += a[k][l] * (y[k][l] - pushed.origin[group.row(l)]);
    }
    add_up(means, pushed.mean);
    add_up(covariances, pushed.covariance);
    add_up(dots, dot);
  }

  void store_tangent(const Row& row, const Pushed& pushed, const PerRow& at_target,
                     int64_t first) const {
    alignas(64) Block<T> z, y, grad;
    load_logits(z, first);
    load_y(first, y);
    const int n = group.steps_from(first);
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < lanes; ++l) {
        const int r = group.row(l);
        T d = z[k][l] - row.max[r];
        grad[k][l] = gradient_tangent(d, row.inverse[r], y[k][l] - pushed.origin[r], pushed.mean[r],
                                      pushed.by_lse[r], pushed.covariance[r], row.u[r], row.kappa[r],
                                      row.h[r], row.mean[r], z_loss);
      }
    if (args.softcap > 0) add_curvature(row, first, z, grad, at_target);
    hide_ignored(row.target, n, grad);
    group.store(args.grad_logits, first, grad);
  }

  // dz/dx.
  void load_slopes(Block<T>& slope, int64_t first) const {
    group.load(slope, args.logits, first, T(0),
               [this](T x) __attribute__((always_inline)) { return cap.slope(x); });
  }

  // y = v dz/dx.
  void load_y(int64_t first, Block<T>& y) const {
    group.load(y, args.v, first, T(0));
    if (args.softcap == 0) return;
    alignas(64) Block<T> slope;
    load_slopes(slope, first);
    for (int k = 0; k < group.steps_from(first); ++k)
      for (int l = 0; l < lanes; ++l) y[k][l] *= slope[k][l];
  }

  // grad_z dz/dx + v d2z/dx2 (the gradient by z), in place of grad_z.
  void add_curvature(const Row& row, int64_t first, const Block<T>& z, Block<T>& grad,
                     const PerRow& at_target) const {
    alignas(64) Block<T> by_z, v, slope, curvature;
    gradient(row, first, z, by_z);
    group.load(v, args.v, first, T(0));
    load_slopes(slope, first);
    group.load(curvature, args.logits, first, T(0),
               [this](T x) __attribute__((always_inline)) { return cap.curvature(x); });
    for (int s = 0; args.target && s < G::together; ++s) {
      const int r = group.row(s);
      const int64_t j = row.target.index[r] - first;
      if (!row.target.used[r] || j < 0 || j >= group.classes_from(first)) continue;
      (lane_is_row ? by_z[j][s] : by_z[j / lanes][j % lanes]) = at_target[r];
    }
    for (int k = 0; k < group.steps_from(first); ++k)
      for (int l = 0; l < lanes; ++l)
        grad[k][l] = grad[k][l] * slope[k][l] + v[k][l] * curvature[k][l] * by_z[k][l];
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

namespace cpu {
extern const CrossEntropyTable FASTACT_TABLE(cross_entropy);
const CrossEntropyTable FASTACT_TABLE(cross_entropy) = {{
    {CrossEntropy<float, false>::kernels, CrossEntropy<float, true>::kernels},
    {CrossEntropy<double, false>::kernels, CrossEntropy<double, true>::kernels},
    {CrossEntropy<BFloat16, false>::kernels, CrossEntropy<BFloat16, true>::kernels},
    {CrossEntropy<Half, false>::kernels, CrossEntropy<Half, true>::kernels},
}};
}  // namespace cpu

}  // namespace fastact
