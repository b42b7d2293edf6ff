// The sum of exponentials of rows that are worked at together, block by block, with a maximum that
// rises as it goes.
#pragma once

#include "../formulas/softmax.h"
#include "group.h"

namespace fastact {
namespace {

template <class G>
struct Exponentials {
  using T = typename G::T;
  static constexpr T infinity = SoftmaxConstants<T>::infinity;
  static constexpr T unlift = SoftmaxConstants<T>::unlift;

  typename G::template Together<T> max;   // of what has been added, -inf at first
  typename G::template Together<T> rest;  // after finish(): the sum of exp(z - max), less 1
  // What exponents are taken from: the maximum, but 0 as long as there was nothing but -inf.
  typename G::template Together<T> shift;

  void clear() {
    is_empty_ = true;
    fill(max, -infinity);
    fill(shift, T(0));
    fill(ones_, T(0));
    fill(others_, T(0));
  }

  // Where the maximum rises, all that was added before shrinks by `scale`, and shift by -`drop`.
  typename G::template Together<T> scale, drop;
  T total(int lane) const { return (ones_[lane] + others_[lane]) * unlift; }

  // Adds n steps. on_rise() can adjust sums of its own before `total` is rescaled.
  template <class Rise>
  void add(const Block<T>& z, int n, const Rise& on_rise) {
    const T* flat = &z[0][0];
    rise(flat, int64_t(n) * lanes, on_rise);
    add_terms(flat, int64_t(n) * lanes);
  }
  void add(const Block<T>& z, int n) {
    add(z, n, [] {});
  }
  // The same for rows of one block, in which their lifted exponentials then are.
  void add_and_keep(Block<T>& z, int n) {
    T* flat = &z[0][0];
    rise(flat, int64_t(n) * lanes, [] {});
    add_terms(flat, int64_t(n) * lanes, [](int64_t) {}, [&](int64_t j, T e) { flat[j] = e; });
  }

  // The same in two halves, for n elements: the maximum, then the terms. on_step(j) may do something
  // of its own before each step, on_term(j, e) with each element's lifted exponential, of the
  // maximum so far.
  template <class Rise>
  void rise(const T* z, int64_t n, const Rise& on_rise) {
    Lanes<T> tops;
    for (int l = 0; l < lanes; ++l) tops[l] = max[G::slot(l)];
    raise(tops, n, z);
    typename G::template Together<T> top;
    G::maximum(tops, top);
    if (!is_empty_) {
      for (int r = 0; r < G::together; ++r) {
        scale[r] = top[r] == max[r] ? T(1) : exp_negative(max[r] - top[r]);
        drop[r] = shift[r] - (top[r] == -infinity ? T(0) : top[r]);
      }
      on_rise();
      for (int l = 0; l < lanes; ++l) {
        const int r = G::slot(l);
        const T keeps = top[r] == max[r] ? T(1) : T(0);
        others_[l] = scale[r] * (others_[l] + (T(1) - keeps) * ones_[l]);
        ones_[l] *= keeps;
      }
    }
    for (int r = 0; r < G::together; ++r) {
      shift[r] = top[r] == -infinity ? T(0) : top[r];
      max[r] = top[r];
    }
  }

  template <class Step, class Term>
  void add_terms(const T* z, int64_t n, const Step& on_step, const Term& on_term) {
    // With the maximum's own terms and without.
    Lanes<T> all, others;
    fill(all, T(0));
    fill(others, T(0));
    const auto add = [&](int l, int64_t j, bool counts) __attribute__((always_inline)) {
      const T zj = z[j], top = shift[G::slot(l)], e = exp_negative_lifted<G::is_short>(zj - top);
      on_term(j, e);
      all[l] = counts ? all[l] + e : all[l];
      others[l] = counts && zj != top ? others[l] + e : others[l];
    };
    const int64_t whole = n / lanes * lanes;
    for (int64_t j = 0; j < whole; j += lanes) {
      on_step(j);
#pragma GCC ivdep
      for (int l = 0; l < lanes; ++l) add(l, j + l, true);
    }
    if (whole < n) {
#pragma GCC ivdep
      for (int l = 0; l < lanes; ++l) add(l, n - lanes + l, n - lanes + l >= whole);
    }
    for (int l = 0; l < lanes; ++l) {
      ones_[l] += all[l] - others[l];
      others_[l] += others[l];
    }
    is_empty_ = false;
  }
  void add_terms(const T* z, int64_t n) {
    add_terms(z, n, [](int64_t) {}, [](int64_t, T) {});
  }

  // Sums up the lanes of each row; sum_j exp(z_j) = exp(max) (1 + rest) from here on.
  void finish() {
    typename G::template Together<T> ones;
    G::sum(ones_, ones);
    G::sum(others_, rest);
    for (int r = 0; r < G::together; ++r) {
      // A row of nothing but -inf, or one with +inf, has no softmax: NaN, as in torch.
      max[r] = max[r] - max[r] == T(0) ? max[r] : T(0) * infinity;
      // How often the maximum occurs is an integer. -1 of nothing but -inf.
      constexpr T magic = Constants<T>::round_magic;
      rest[r] = rest[r] * unlift + (((ones[r] * unlift + magic) - magic) - T(1));
    }
  }

 private:
  bool is_empty_;
  // Lifted by exp_negative_lifted.
  Lanes<T> ones_;    // of the maximum's own terms
  Lanes<T> others_;  // the sum of exp(z - max) over all else
};

// Sums up the rows of a group whose classes lie side by side, those that used(row) is true of. Each
// pass goes over all rows: the next one's maximum is looked for while the last one's is not known yet.
// A stretch is what the maximum is looked for in before its terms are added: a part; or with keeps,
// where kept[row] takes the row's lifted exp(z - max), the whole row. Terms are added part by part.
template <bool keeps, class G, class Used>
void sum_up_rows(G& group, const void* logits, const Used& used, Lanes<typename G::T>& max,
                 Lanes<typename G::T>& rest, typename G::T* const* kept) {
  using T = typename G::T;
  constexpr int64_t line = 64 / sizeof(T);
  Exponentials<G> sums[lanes];
  alignas(64) T widened[G::is_short ? G::longest + lanes * line : 1];
  const T* z[lanes];
  const auto each = [&](const auto& f) {
    group.in_turn([&](const G&) {
      if (used(group.row(0))) f(group.row(0));
    });
  };
  const auto stretch_from = [&](int64_t first) {
    return keeps ? group.classes() - first : group.part_from(first);
  };
  for (int64_t first = 0, n; (n = stretch_from(first)) > 0; first += n) {
    each([&](int r) {
      if (first == 0) sums[r].clear();
      const auto* x = group.at(logits, first);
      if constexpr (G::is_short) {
        T* to = widened + r * ((n + line - 1) / line * line);
        widen(x, to, n);
        z[r] = to;
      } else {
        z[r] = x;
      }
      sums[r].rise(z[r], n, [] {});
    });
    // What is next in memory, of these rows or of the next group's, comes while exponentials are
    // computed: looking for the maximum leaves no time for it.
    const int64_t to_next =
        stretch_from(first + n) > 0 ? n : group.at(logits, group.count, 0) - group.at(logits, 0, first);
    each([&](int r) {
      for (int64_t part = 0, size; part < n; part += size) {
        size = group.part_from(first + part);
        const T* from = z[r] + part;
        const auto* stored = group.at(logits, first + part);
        sums[r].add_terms(
            from, size,
            [&](int64_t j) __attribute__((always_inline)) { prefetch_step(stored + to_next + j); },
            [&](int64_t j, T e) __attribute__((always_inline)) {
              if constexpr (keeps) kept[r][part + j] = e;
            });
      }
    });
  }
  each([&](int r) {
    sums[r].finish();
    group.keep(max, sums[r].max);
    group.keep(rest, sums[r].rest);
  });
}

}  // namespace
}  // namespace fastact
