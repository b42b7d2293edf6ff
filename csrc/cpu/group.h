// Blocks of logits as kernels see them: lanes side by side in vectors, steps one after another. The
// same loops serve a group whose rows come one after another, each spread over all lanes, and one with
// a row in each lane; all that differs is where elements lie, and that the lanes of one row add up.
#pragma once

#include "../formulas/math.h"
#include "elements.h"
#include "rows.h"

namespace fastact {
namespace {

constexpr int lanes = cpu::Rows::lanes;
constexpr int steps = 32;

template <class T>
using Lanes = T[lanes];
template <class T>
using Block = T[steps][lanes];

template <class T, int n>
FASTACT_FN void fill(T (&a)[n], T value) {
  for (int i = 0; i < n; ++i) a[i] = value;
}

// Asks the memory for a step of elements, which need not exist.
template <class S>
FASTACT_FN void prefetch_step(const S* x) {
  constexpr int line = 64 / sizeof(S);
  for (int i = 0; i < lanes; i += line) __builtin_prefetch(x + i);
}

// Sums of term(j) over [0, n), each lane for itself, where n is at least `lanes`. The last step reaches
// back over what it would otherwise fall short of, and takes the new part: no loop over single
// elements.
template <class T, class Term>
FASTACT_FN void add_terms(Lanes<T>& sums, int64_t n, const Term& term) {
  const int64_t whole = n / lanes * lanes;
  Lanes<T> part;
  fill(part, T(0));
  for (int64_t j = 0; j < whole; j += lanes)
    for (int l = 0; l < lanes; ++l) part[l] += term(j + l);
  if (whole < n)
    for (int l = 0; l < lanes; ++l) {
      const T last = term(n - lanes + l);
      part[l] += n - lanes + l >= whole ? last : T(0);
    }
  for (int l = 0; l < lanes; ++l) sums[l] += part[l];
}

// The largest of tops and z[j] over [0, n), likewise.
template <class T>
FASTACT_FN void raise(Lanes<T>& tops, int64_t n, const T* z) {
  const auto larger = [](T a, T b) { return a > b ? a : b; };
  for (int64_t j = 0; j + lanes <= n; j += lanes)
    for (int l = 0; l < lanes; ++l) tops[l] = larger(z[j + l], tops[l]);
  if (n % lanes)
    for (int l = 0; l < lanes; ++l) tops[l] = larger(z[n - lanes + l], tops[l]);
}

// How many bytes a register has.
#if defined(__AVX512F__)
constexpr int register_bytes = 64;
#elif defined(__AVX__)
constexpr int register_bytes = 32;
#else
constexpr int register_bytes = 16;
#endif

// a = op(a, b) of the halves of a vector, until one number is left.
template <class T, class V, class Op>
FASTACT_FN void fold_vector(const V& v, T& result, const Op& op) {
  if constexpr (sizeof(V) == 2 * sizeof(T)) {
    result = v[0];
    op(result, v[1]);
  } else {
    using Narrower __attribute__((vector_size(sizeof(V) / 2))) = T;
    Narrower half[2];
    __builtin_memcpy(half, &v, sizeof(v));
    op(half[0], half[1]);
    fold_vector(half[0], result, op);
  }
}

// The same of an array: in registers from the beginning, as the compiler makes loops over short arrays,
// and vectors longer than a register, into work on single numbers.
template <class T, class Op>
FASTACT_FN void fold(const Lanes<T>& a, T& result, const Op& op) {
  constexpr int width = register_bytes / sizeof(T);
  using V __attribute__((vector_size(register_bytes))) = T;
  V v[lanes / width];
  __builtin_memcpy(v, a, sizeof(v));
#pragma GCC unroll 8
  for (int half = lanes / width / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; ++i) op(v[i], v[i + half]);
  fold_vector(v[0], result, op);
}

template <class S, bool lane_is_row>
class Group {
 public:
  using T = Compute<S>;
  using Storage = S;
  // Whether gradients are rounded to 16 bits, and their exponentials need not be exact in float.
  static constexpr bool is_short = sizeof(S) == 2;
  // A number for each row of the group; and for each of those that are worked at together.
  template <class U>
  using PerRow = Lanes<U>;
  static constexpr int together = lane_is_row ? lanes : 1;
  template <class U>
  using Together = U[together];
  // Which of these a lane works at, and which row of the group that is.
  FASTACT_FN static constexpr int slot(int lane) { return lane_is_row ? lane : 0; }
  FASTACT_FN int row(int lane) const { return lane_is_row ? lane : turn_; }
  // How many classes a block holds.
  static constexpr int64_t width = lane_is_row ? steps : steps * lanes;
  // Of all rows of a group together, at most.
  static constexpr int64_t longest = cpu::Rows::classes_per_group;
  static_assert(longest >= width + lanes);
  // How many classes of one row to take at once from `first` on, where no block is needed; never fewer
  // than there are lanes.
  int64_t part_from(int64_t first) const {
    const int64_t left = rows_.classes - first;
    return left < width + lanes ? left : width;
  }

  Group(const cpu::Rows& rows, int64_t index) : Group(rows, rows.group(index)) {}

  const int64_t first_row;
  const int count;  // of rows that exist, no more than there are lanes
  FASTACT_FN int64_t classes() const { return rows_.classes; }

  // Calls f(group) for the rows of the group in turn: once where they are all worked at together.
  template <class F>
  FASTACT_FN void in_turn(const F& f) {
    const int turns = lane_is_row ? 1 : count;
    for (turn_ = 0; turn_ < turns; ++turn_) f(*this);
    turn_ = 0;
  }
  // Calls f(row) for every row of the group, and for some more where that fills vectors: for every lane
  // where each has a row, as they are all computed.
  template <class F>
  FASTACT_FN void for_rows(const F& f) const {
    constexpr int width = 8;
    const int rows = lane_is_row ? lanes : count;
    for (int first = 0; first < rows; first += width)
      for (int r = first; r < first + width; ++r) f(r);
  }

  // What was found of the rows whose turn it is, kept for the group.
  template <class U>
  FASTACT_FN void keep(PerRow<U>& all, const Together<U>& found) const {
    for (int s = 0; s < together; ++s) all[row(s)] = found[s];
  }

  // The steps that the block from class `first` on has.
  int steps_from(int64_t first) const {
    const int64_t n = classes_from(first);
    return int(lane_is_row ? n : (n + lanes - 1) / lanes);
  }

  const S* at(const void* x, int row, int64_t c) const {
    return static_cast<const S*>(x) + offset_ + row * rows_.row_stride + c * rows_.class_stride;
  }
  S* at(void* x, int row, int64_t c) const {
    return const_cast<S*>(at(static_cast<const void*>(x), row, c));
  }

  // In the first of the rows whose turn it is.
  const S* at(const void* x, int64_t c) const { return at(x, row(0), c); }
  S* at(void* x, int64_t c) const { return at(x, row(0), c); }

  // Applies f to the elements from class `first` on: f(x) for each that exists; pad where a row ends
  // before the last step's lanes do.
  template <class F>
  void load(Block<T>& block, const void* x, int64_t first, T pad, const F& f) const {
    const S* from = at(x, first);
    const int64_t n = classes_from(first);
    if constexpr (!lane_is_row) {
      T* flat = &block[0][0];
      widen(from, flat, n);
      for (int64_t j = 0; j < n; ++j) flat[j] = f(flat[j]);
      for (int64_t j = n; j < (n + lanes - 1) / lanes * lanes; ++j) flat[j] = pad;
      return;
    }
    if (count < lanes)
      for (int64_t k = 0; k < n; ++k) fill(block[k], pad);
    if (rows_.row_stride != 1) {
      for (int l = 0; l < count; ++l)
        for (int64_t k = 0; k < n; ++k) block[k][l] = fastact::load(from[l * rows_.row_stride + k]);
      for (int64_t k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) block[k][l] = f(block[k][l]);
    } else if (count == lanes) {
      for (int64_t k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l)
          block[k][l] = f(fastact::load(from[k * rows_.class_stride + l]));
    } else {
      for (int64_t k = 0; k < n; ++k)
        for (int l = 0; l < count; ++l)
          block[k][l] = f(fastact::load(from[k * rows_.class_stride + l]));
    }
  }
  void load(Block<T>& block, const void* x, int64_t first, T pad) const {
    load(block, x, first, pad, [](T value) { return value; });
  }

  void store(void* y, int64_t first, const Block<T>& block) const {
    S* to = at(y, first);
    const int64_t n = classes_from(first);
    if constexpr (!lane_is_row) {
      narrow(&block[0][0], to, n);
    } else if (rows_.row_stride != 1) {
      for (int l = 0; l < count; ++l)
        for (int64_t k = 0; k < n; ++k) to[l * rows_.row_stride + k] = fastact::store<S>(block[k][l]);
    } else if (count == lanes) {
      for (int64_t k = 0; k < n; ++k)
        for (int l = 0; l < lanes; ++l) to[k * rows_.class_stride + l] = fastact::store<S>(block[k][l]);
    } else {
      for (int64_t k = 0; k < n; ++k)
        for (int l = 0; l < count; ++l) to[k * rows_.class_stride + l] = fastact::store<S>(block[k][l]);
    }
  }

  // One number for each row, from memory and back.
  void load_rows(PerRow<T>& a, const void* from) const {
    if (count < lanes) fill(a, T(0));
    for (int r = 0; r < count; ++r) a[r] = (static_cast<const T*>(from) + first_row)[r];
  }
  void store_rows(void* to, const PerRow<T>& a) const {
    for (int r = 0; r < count; ++r) (static_cast<T*>(to) + first_row)[r] = a[r];
  }

  // Over the lanes of each row, in a fixed order.
  template <class U>
  FASTACT_FN static void sum(const Lanes<U>& a, Together<U>& total) {
    reduce(a, total, [](auto& x, const auto& y) { x = x + y; });
  }
  FASTACT_FN static void maximum(const Lanes<T>& a, Together<T>& total) {
    reduce(a, total, [](auto& x, const auto& y) { x = y > x ? y : x; });
  }

  int64_t classes_from(int64_t first) const {
    const int64_t left = rows_.classes - first;
    return left < width ? left : width;
  }

 private:
  template <class U, class Op>
  FASTACT_FN static void reduce(const Lanes<U>& a, Together<U>& total, const Op& op) {
    if constexpr (lane_is_row) {
      for (int s = 0; s < together; ++s) total[s] = a[s];
    } else {
      fold(a, total[0], op);
    }
  }

  Group(const cpu::Rows& rows, cpu::Rows::Part part)
      : first_row(part.first_row), count(part.count), rows_(rows), offset_(part.offset) {}

  const cpu::Rows& rows_;
  const int64_t offset_;
  int turn_ = 0;
};

}  // namespace
}  // namespace fastact
