// Cross entropy over rows of logits, one instruction set's.
#include "cross_entropy.h"

#include "cross_entropy_double.h"
#include "table.h"

namespace fastact {
namespace {

template <class S, bool lane_is_row>
struct CrossEntropy : CrossEntropyGroup<S, lane_is_row> {
  using Base = CrossEntropyGroup<S, lane_is_row>;
  using Base::add_up, Base::classes, Base::is_plain, Base::is_used, Base::spread;
  using Base::args, Base::group, Base::infinity, Base::share, Base::uniform, Base::z_loss;
  using Base::Base;
  using Base::gradient, Base::hide_ignored, Base::store_target, Base::target_gradient, Base::zero;
  using Base::load_coefficients, Base::load_logits, Base::load_row, Base::load_slopes,
      Base::load_target;
  using typename Base::T, typename Base::G, typename Base::PerRow, typename Base::Row;
  using typename Base::Target;

  static void forward(const CrossEntropyRows& args, int64_t begin, int64_t end) {
    const Given<T> given(args);
    for (int64_t g = begin; g < end; ++g) {
      CrossEntropy group(given, g);
      group.forward_group(args.sums + 2 * g);
      if (args.grad_logits) group.backward_group();  // while the logits are in the cache
    }
  }
  static void backward(const CrossEntropyRows& args, int64_t begin, int64_t end) {
    const Given<T> given(args);
    for (int64_t g = begin; g < end; ++g) CrossEntropy(given, g).backward_group();
  }

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
};

template <class S, bool lane_is_row>
constexpr cpu::CrossEntropyKernels kernels = {CrossEntropy<S, lane_is_row>::forward,
                                              CrossEntropy<S, lane_is_row>::backward,
                                              CrossEntropyDouble<S, lane_is_row>::double_backward};

}  // namespace

namespace cpu {
extern const CrossEntropyTable FASTACT_TABLE(cross_entropy);
const CrossEntropyTable FASTACT_TABLE(cross_entropy) = {{
    {kernels<float, false>, kernels<float, true>},
    {kernels<double, false>, kernels<double, true>},
    {kernels<BFloat16, false>, kernels<BFloat16, true>},
    {kernels<Half, false>, kernels<Half, true>},
}};
}  // namespace cpu

}  // namespace fastact
