// Binary cross entropy of a logit x with target y, -(p y log s(x) + (1 - y) log s(-x)) for the sigmoid
// s and the weight p of the positive class, written so that nothing cancels:
//   value     (1 - y) softplus(x) + p y softplus(-x)
//   slope     (1 - y) s(x) - p y s(-x)
//   curvature (1 - y + p y) s(x) s(-x)
// At x = -inf: (inf if y > 0), -p y, 0. NaN stays NaN. Source: torch's BCEWithLogitsLoss.
#pragma once

#include "softmax.h"

namespace fastact {
namespace {

template <class T>
struct BinaryCrossEntropy {
  T negative, positive;  // 1 - y, p y
  FASTACT_FN BinaryCrossEntropy(T y, T p) : negative(T(1) - y), positive(p * y) {}

  // A coefficient of 0 stops even an infinite softplus.
  FASTACT_FN static T times(T coefficient, T softplus) {
    return coefficient == T(0) ? T(0) : coefficient * softplus;
  }
  FASTACT_FN T value(T x) const {
    T e = exp_negative(-abs(x));
    T tail = twice_atanh(quotient(e, T(2) + e));  // log(1 + e)
    T sum = times(negative, at_least(x, T(0)) + tail) + times(positive, at_least(-x, T(0)) + tail);
    return x != x ? x : sum;
  }
  FASTACT_FN T slope(T x) const {
    T e = exp_negative(-abs(x));
    T big = quotient(T(1), T(1) + e);
    T small = e * big;
    return x < T(0) ? negative * small - positive * big : negative * big - positive * small;
  }
  FASTACT_FN T curvature(T x) const {
    T e = exp_negative(-abs(x));
    T big = quotient(T(1), T(1) + e);
    return (negative + positive) * (e * big * big);
  }
};

}  // namespace
}  // namespace fastact
