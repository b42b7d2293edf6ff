// The derivatives of cross entropy's gradient.
#pragma once

#include "cross_entropy.h"

namespace fastact {
namespace {

template <class S, bool lane_is_row>
struct CrossEntropyDouble : CrossEntropyGroup<S, lane_is_row> {
  using Base = CrossEntropyGroup<S, lane_is_row>;
  using Base::add_up, Base::classes, Base::is_used, Base::spread;
  using Base::args, Base::cap, Base::group, Base::z_loss;
  using Base::Base;
  using Base::gradient, Base::hide_ignored, Base::target_gradient, Base::zero;
  using Base::load_coefficients, Base::load_logits, Base::load_row, Base::load_slopes;
  using typename Base::T, typename Base::G, typename Base::PerRow, typename Base::Row;
  using typename Base::Target;

  static void double_backward(const CrossEntropyRows& args, int64_t begin, int64_t end) {
    const Given<T> given(args);
    for (int64_t g = begin; g < end; ++g)
      CrossEntropyDouble(given, g).double_backward_group(args.sums + 2 * g);
  }

  void double_backward_group(double* sums) {
    Row row;
    load_row(row);
    const Target& target = row.target;
    Tangent tangent;
    fill(tangent.origin, T(0));
    for (int r = 0; args.target && r < group.count; ++r)
      if (target.used[r])
        tangent.origin[r] = load(*group.at(args.v, r, target.index[r])) * target.slope[r];
    PerRow dot;
    fill(tangent.mean, T(0));
    fill(tangent.covariance, T(0));
    fill(dot, T(0));
    group.in_turn([&](const G&) {
      if (is_used(target)) sum_up(row, tangent, dot);
    });
    PerRow by_loss, by_entropy;
    sums[0] = sums[1] = 0;
    group.for_rows([&](int r) {
      const T mean = tangent.mean[r];
      tangent.by_lse[r] = mean + tangent.origin[r];
      by_loss[r] = target.coefficient[r] * mean + row.mass[r] * mean - dot[r] +
                   T(2) * z_loss * row.lse[r] * tangent.by_lse[r];
      by_entropy[r] = -tangent.covariance[r];
      if (!target.used[r]) by_loss[r] = tangent.by_lse[r] = by_entropy[r] = T(0);
    });
    for (int r = 0; r < group.count; ++r) {
      sums[0] += double(by_loss[r]);
      if (target.used[r]) sums[1] += double(target.weight[r]);
    }
    if (args.grad_grad_loss) group.store_rows(args.grad_grad_loss, by_loss);
    if (args.grad_grad_lse) group.store_rows(args.grad_grad_lse, tangent.by_lse);
    if (args.grad_grad_entropy) group.store_rows(args.grad_grad_entropy, by_entropy);
    if (!args.grad_logits) return;

    PerRow at_target;
    target_gradient(row, at_target);
    group.in_turn([&](const G&) {
      if (is_used(target))
        for (int64_t first = 0; first < classes(); first += G::width)
          store_tangent(row, tangent, at_target, first);
      else
        zero(args.grad_logits);
    });
  }

  // Of y = v dz/dx, counted from its value at the target, as the loss depends on differences only: the
  // mean, and the covariance with z. by_lse is what lse takes of it.
  struct Tangent {
    PerRow origin, mean, covariance, by_lse;
  };

  // What the classes of the rows whose turn it is add up to; dot: of y and a.
  void sum_up(const Row& row, Tangent& tangent, PerRow& dot) const {
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
          T from_origin = y[k][l] - tangent.origin[r];
          means[l] += p == T(0) ? T(0) : p * from_origin;
          covariances[l] += p == T(0) ? T(0) : p * (d - mean) * from_origin;
        }
      if (!spread()) continue;
      load_coefficients(a, first);
      for (int k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) dots[l] += a[k][l] * (y[k][l] - tangent.origin[group.row(l)]);
    }
    add_up(means, tangent.mean);
    add_up(covariances, tangent.covariance);
    add_up(dots, dot);
  }

  void store_tangent(const Row& row, const Tangent& tangent, const PerRow& at_target,
                     int64_t first) const {
    alignas(64) Block<T> z, y, grad;
    load_logits(z, first);
    load_y(first, y);
    const int n = group.steps_from(first);
    for (int k = 0; k < n; ++k)
      for (int l = 0; l < lanes; ++l) {
        const int r = group.row(l);
        T d = z[k][l] - row.max[r];
        grad[k][l] = gradient_tangent(d, row.inverse[r], y[k][l] - tangent.origin[r], tangent.mean[r],
                                      tangent.by_lse[r], tangent.covariance[r], row.u[r], row.kappa[r],
                                      row.h[r], row.mean[r], z_loss);
      }
    if (args.softcap > 0) add_curvature(row, first, z, grad, at_target);
    hide_ignored(row.target, n, grad);
    group.store(args.grad_logits, first, grad);
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
};

}  // namespace
}  // namespace fastact
