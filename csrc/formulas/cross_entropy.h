// Cross entropy of one row, given what softmax.h keeps of it. With z the (capped) logits, p their
// softmax, lse = log sum_j exp(z_j) and a_j the coefficients of the target,
//   loss    = sum_j a_j (lse - z_j) + z_loss lse^2
//   entropy = lse - sum_j p_j z_j
// The coefficient of the target's own index is treated apart: it has neither to be looked for nor to
// cancel, as p - 1 would; `mass` is the sum of the others. Of label smoothing s, every class has s / C.
#pragma once

#include "softmax.h"

namespace fastact {
namespace {

// dot: sum_j a_j (z_j - max) without the target's index; log_sum: lse - max.
template <class T>
FASTACT_FN T row_loss(T max, T log_sum, T mass, T dot, T coefficient, T target_logit, T z_loss) {
  T lse = max + log_sum;
  return mass * log_sum - dot + z_loss * lse * lse + coefficient * (log_sum + (max - target_logit));
}

// The remainder of a + b, rounded to sum: exactly.
template <class T>
FASTACT_FN T sum_error(T a, T b, T sum) {
  T of_b = sum - a;
  return (a - (sum - of_b)) + (b - of_b);
}

// (u (coefficient + mass) + (kappa - its float)) / (1 + rest), rounded once but for some 2^-40.
template <class T>
FASTACT_FN T quotient_of_sum(T u, T coefficient, T mass, T kappa, T rest) {
  T c = coefficient + mass, product = u * c, others = kappa - product, n = product + others;
  T n_low = sum_error(product, others, n) + fma(u, c, -product) + u * sum_error(coefficient, mass, c);
  T d = T(1) + rest, d_low = sum_error(T(1), rest, d);
  T q = quotient(n, d), correction = quotient(fma(-q, d, n) + fma(-q, d_low, n_low), d);
  return correction - correction == T(0) ? q + correction : q;  // of infinities there is none
}

// The gradient by z is p (kappa - h (z - max - mean)) - u a, for the gradients u of the loss, q of lse
// and h of the entropy; `mean` is that of z - max under the softmax.
template <class T>
struct RowGradient {
  T u, kappa;
  T factor;  // kappa / sum_j exp(z_j - max), unlifted: see exp_negative_lifted

  // The coefficient, that of the target's index, may be more exact than all else.
  template <class C>
  FASTACT_FN RowGradient(T u, T q, C coefficient, T mass, T rest, T lse, T z_loss)
      : u(u), kappa(u * (T(coefficient) + mass) + q + T(2) * z_loss * u * lse) {
    // Every element of the row has this one's error: in double there is none. A GPU has little
    // arithmetic in double, and every thread of the row does this.
    if constexpr (has_exp2 && sizeof(T) == 4) {
      factor = quotient_of_sum(u, T(coefficient), mass, kappa, rest) * SoftmaxConstants<T>::unlift;
      return;
    }
    double exact = double(u) * (double(coefficient) + double(mass));
    exact += double(kappa - u * (T(coefficient) + mass));
    factor = T(exact / (1.0 + double(rest))) * SoftmaxConstants<T>::unlift;
  }
};

// What the entropy's gradient h takes from a class d = z - max.
template <class T>
FASTACT_FN T entropy_gradient(T d, T inverse, T h, T mean) {
  T p = exp_negative(d) * inverse;
  return h * p * (at_least(d, SoftmaxConstants<T>::limit) - mean);  // below the limit p is 0
}

// e factor - u a w: what is subtracted is exact, as the two nearly cancel where there are few classes.
template <class T>
FASTACT_FN T minus_coefficient(T e, T factor, T u, T a, T w) {
  T aw = a * w, uaw = u * aw;
  T low = fma(u, aw, -uaw) + u * fma(a, w, -aw);
  return fma(e, factor, -uaw) - low;
}

// The whole of the gradient at the target, d = z - max there. `inverse` is 1 / (1 + rest).
template <class T>
FASTACT_FN T target_gradient(T d, T inverse, T rest, T u, T kappa, T coefficient, T uniform, T h,
                             T mean) {
  T p = exp_negative(d) * inverse;
  T one_minus_p = p < T(0.5) ? T(1) - p : (rest + one_minus_exp(d)) * inverse;
  T own = u * coefficient, others = kappa - own;
  others -= h == T(0) || p == T(0) ? T(0) : h * (d - mean);
  return p * others - own * one_minus_p - u * uniform;
}

// Of y = v dz/dx, counted from its value at the target: what the derivative of the gradient by z takes
// of a class, from y's mean and covariance with z under the softmax. by_lse is lse's derivative.
template <class T>
FASTACT_FN T gradient_tangent(T d, T inverse, T y, T y_mean, T by_lse, T covariance, T u, T kappa, T h,
                              T mean, T z_loss) {
  T p = exp_negative(d) * inverse, centred = y - y_mean;
  T of_entropy = (d - mean + T(1)) * centred - covariance;
  T sum = kappa * centred + T(2) * z_loss * u * by_lse - h * of_entropy;
  return p == T(0) ? T(0) : p * sum;
}

}  // namespace
}  // namespace fastact
