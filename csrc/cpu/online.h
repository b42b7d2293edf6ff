// The sum of exponentials of a row, block by block, with a maximum that rises as it goes.
#pragma once

#include "../formulas/softmax.h"
#include "group.h"

namespace fastact {
namespace {

template <class G>
struct Exponentials {
  using T = typename G::T;
  static constexpr T infinity = SoftmaxConstants<T>::infinity;

  typename G::template PerRow<T> max;   // of what has been added, -inf at first
  typename G::template PerRow<T> rest;  // after finish(): the sum of exp(z - max), less 1
  // What exponents are taken from: the maximum, but 0 as long as there was nothing but -inf.
  typename G::template PerRow<T> shift;

  Exponentials() {
    fill(max, -infinity);
    fill(shift, T(0));
    fill(ones_, T(0));
    fill(others_, T(0));
  }

  // Where the maximum rises, all that was added before shrinks by `scale`, and shift by -`drop`.
  typename G::template PerRow<T> scale, drop;
  T total(int lane) const { return ones_[lane] + others_[lane]; }

  // Adds n steps. rise() can adjust sums of its own before `total` is rescaled.
  template <class Rise>
  void add(const Block<T>& z, int n, const Rise& rise) {
    const T* flat = &z[0][0];
    const auto at = [&](int64_t j) { return flat[j]; };
    add_elements(int64_t(n) * lanes, at, rise, [](int64_t) {});
  }
  void add(const Block<T>& z, int n) {
    add(z, n, [] {});
  }

  // Adds n elements of one row, no more than two blocks.
  void add_row(const typename G::Storage* x, int64_t n) {
    if constexpr (G::is_short) {
      alignas(64) T z[2 * sizeof(Block<T>) / sizeof(T)];
      widen(x, z, n);
      add_elements(n, [&](int64_t j) { return z[j]; }, [] {}, [](int64_t) {});
    } else {
      // What is next in memory, of this row or of the one after it, comes while exponentials are
      // computed: looking for the maximum leaves no time for it. 16 bits are half as much, and gain
      // nothing.
      const auto prefetch = [&](int64_t j) __attribute__((always_inline)) { prefetch_step(x + n + j); };
      add_elements(n, [&](int64_t j) { return load(x[j]); }, [] {}, prefetch);
    }
  }

  // Sums up the lanes of each row; sum_j exp(z_j) = exp(max) (1 + rest) from here on.
  void finish() {
    typename G::template PerRow<T> ones;
    G::sum(ones_, ones);
    G::sum(others_, rest);
    for (int r = 0; r < G::rows; ++r) {
      // A row of nothing but -inf, or one with +inf, has no softmax: NaN, as in torch.
      max[r] = max[r] - max[r] == T(0) ? max[r] : T(0) * infinity;
      rest[r] += ones[r] - T(1);  // -1 of nothing but -inf
    }
  }

 private:
  // each_step(j) may do something of its own at each step.
  template <class Z, class Rise, class Step>
  void add_elements(int64_t n, const Z& z, const Rise& rise, const Step& each_step) {
    Lanes<T> tops;
    for (int l = 0; l < lanes; ++l) tops[l] = max[G::row(l)];
    raise(tops, n, z);
    typename G::template PerRow<T> top;
    G::maximum(tops, top);
    if (!empty_) {
      for (int r = 0; r < G::rows; ++r) {
        scale[r] = top[r] == max[r] ? T(1) : exp_negative(max[r] - top[r]);
        drop[r] = shift[r] - (top[r] == -infinity ? T(0) : top[r]);
      }
      rise();
      for (int l = 0; l < lanes; ++l) {
        const int r = G::row(l);
        const T keeps = top[r] == max[r] ? T(1) : T(0);
        others_[l] = scale[r] * (others_[l] + (T(1) - keeps) * ones_[l]);
        ones_[l] *= keeps;
      }
    }
    for (int r = 0; r < G::rows; ++r) {
      shift[r] = top[r] == -infinity ? T(0) : top[r];
      max[r] = top[r];
    }
    empty_ = false;

    // With the maximum's own terms and without: their number is the difference, to the nearest integer.
    Lanes<T> all, others;
    fill(all, T(0));
    fill(others, T(0));
    const auto add = [&](int l, T zj, bool counts) {
      const T top = shift[G::row(l)], e = exp_negative_lifted<G::is_short>(zj - top);
      all[l] = counts ? all[l] + e : all[l];
      others[l] = counts && zj != top ? others[l] + e : others[l];
    };
    const int64_t whole = n / lanes * lanes;
    for (int64_t j = 0; j < whole; j += lanes) {
      each_step(j);
      for (int l = 0; l < lanes; ++l) add(l, z(j + l), true);
    }
    if (n < lanes)
      for (int64_t j = 0; j < n; ++j) add(int(j), z(j), true);
    else if (whole < n)
      for (int l = 0; l < lanes; ++l) add(l, z(n - lanes + l), n - lanes + l >= whole);
    for (int l = 0; l < lanes; ++l) {
      using C = Constants<T>;
      others_[l] += others[l] * SoftmaxConstants<T>::unlift;
      ones_[l] +=
          ((all[l] - others[l]) * SoftmaxConstants<T>::unlift + C::round_magic) - C::round_magic;
    }
  }

  bool empty_ = true;
  Lanes<T> ones_;    // how often the maximum occurred
  Lanes<T> others_;  // the sum of exp(z - max) over all else
};

}  // namespace
}  // namespace fastact
