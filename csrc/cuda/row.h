// The elements of a row, shared out among the threads of a team.
#pragma once

#include <type_traits>

#include "chunk.h"
#include "plan.h"
#include "team.h"

namespace fastact {
namespace {

using cuda::RowKind;

// Row r of tensors that are laid out alike.
struct RowPlace {
  int64_t index;  // among all rows
  bool exists;
  int64_t offset, stride;  // in elements; stride from class to class
  int classes;

  __device__ RowPlace(const cpu::Rows& rows, int64_t r)
      : index(r), exists(r < rows.count()), stride(rows.class_stride), classes(int(rows.classes)) {
    const int64_t outer = rows.outer == 1 ? 0 : r / rows.inner;
    offset = outer * rows.outer_stride + (r - outer * rows.inner) * rows.row_stride;
  }
  // The stride, which the compiler knows of contiguous rows.
  template <RowKind kind>
  FASTACT_FN int64_t step() const {
    return kind == RowKind::strided ? stride : 1;
  }
  template <class S>
  FASTACT_FN const S* in(const void* tensor) const {
    return static_cast<const S*>(tensor) + offset;
  }
  template <class S>
  FASTACT_FN S* out(void* tensor) const {
    return static_cast<S*>(tensor) + offset;
  }
};

// Calls f(team, row) for each row of this block or cluster, and as often for each of its threads; rows
// that do not exist have no classes.
template <RowKind kind, class F>
__device__ void for_each_row(const cpu::Rows& rows, const cuda::Plan& plan, const F& f) {
  Team<kind> team(plan);
  const unsigned blocks = team.kept ? unsigned(plan.parts) : 1;
  for (int64_t r = int64_t(blockIdx.x / blocks) * plan.rows_per_block; r < rows.count();
       r += plan.blocks * plan.rows_per_block) {
    RowPlace row(rows, r + team.row());
    if (!row.exists) row.index = row.offset = row.classes = 0;
    f(team, row);
    if constexpr (team.kept) __syncthreads();  // what has been kept of this row is no longer needed
  }
}

// How many chunks of one tensor a thread asks for before it needs the first: 32 KiB or more for a
// multiprocessor, as far as 64 registers go.
template <class S>
constexpr int in_flight = sizeof(S) == 4 ? 3 : 2;

// What becomes of elements that have been visited: nothing, or they are kept.
struct Forget {
  template <class Raw>
  FASTACT_FN void chunk(int, const Raw&) const {}
  template <class X>
  FASTACT_FN void element(int, int, const X&) const {}
};
template <class S, int inputs>
struct Keep {
  S* to[inputs];
  FASTACT_FN void chunk(int c, const Chunk<S> (&raw)[inputs]) const {
#pragma unroll
    for (int i = 0; i < inputs; ++i)
      reinterpret_cast<uint4*>(to[i])[c] = __builtin_bit_cast(uint4, raw[i]);
  }
  FASTACT_FN void element(int i, int j, S x) const { to[i][j] = x; }
};

// Calls f(count, j) for what comes in no chunk: elements j, j + step, ... of n. Where that is all of
// the row, several at a time, so that as many loads are under way.
template <int inputs, bool is_all, class F>
__device__ __forceinline__ void one_by_one(int j, int n, int step, const F& f) {
  if constexpr (is_all) {
    constexpr std::integral_constant<int, inputs <= 2 ? 4 : 2> several;
#pragma unroll 1
    for (; j + (several - 1) * step < n; j += several * step) f(several, j);
  }
#pragma unroll 1
  for (; j < n; j += step) f(std::integral_constant<int, 1>(), j);
}

// Calls f(j, step, a) for a few elements at a time, `depth` chunks of them, a[i][k] being element
// j + k step of x[i]; to add something up. Which elements come to which thread, and in which order,
// does not depend on addresses.
template <int depth, class Team, class S, int inputs, class F, class Kept = Forget>
__device__ void visit(const Team& team, int n, int64_t stride, const S* const (&x)[inputs], const F& f,
                      const Kept& keep = {}) {
  using T = Compute<S>;
  constexpr int width = per_chunk<S>;
  int chunks = 0;
  if constexpr (!Team::strided) {
    chunks = n / width;
    bool aligned = true;
#pragma unroll
    for (int i = 0; i < inputs; ++i) aligned &= elements_past_boundary(x[i]) == 0;
    // A shifted load reads up to a chunk less one element past its end, which may be the tensor's;
    // one by one instead, in the same order and by the same thread.
    const int safe = aligned || n - chunks * width >= width - 1 ? chunks : chunks - 1;
    const auto process = [&](int at, const Chunk<S>(&raw)[inputs]) {
      keep.chunk(at, raw);
      T a[inputs][width];
#pragma unroll
      for (int i = 0; i < inputs; ++i)
#pragma unroll
        for (int k = 0; k < width; ++k) a[i][k] = load(raw[i].at[k]);
      f(at * width, 1, a);
    };
    int c = team.rank;
    if constexpr (depth > 1)
      for (; c + (depth - 1) * team.lanes < safe; c += depth * team.lanes) {
        Chunk<S> raw[inputs][depth];
#pragma unroll
        for (int i = 0; i < inputs; ++i) {
          const S* from[depth];
#pragma unroll
          for (int u = 0; u < depth; ++u) from[u] = x[i] + int64_t(c + u * team.lanes) * width;
          load_chunks(from, raw[i]);
        }
#pragma unroll
        for (int u = 0; u < depth; ++u) {
          Chunk<S> one[inputs];
#pragma unroll
          for (int i = 0; i < inputs; ++i) one[i] = raw[i][u];
          process(c + u * team.lanes, one);
        }
      }
    for (; c < chunks; c += team.lanes) {
      Chunk<S> raw[inputs];
#pragma unroll
      for (int i = 0; i < inputs; ++i) {
        const S* from = x[i] + int64_t(c) * width;
        if (c < safe) {
          raw[i] = load_chunk(from);
        } else {
#pragma unroll
          for (int k = 0; k < width; ++k) raw[i].at[k] = from[k];
        }
      }
      process(c, raw);
    }
  }
  one_by_one<inputs, Team::strided>(chunks * width + team.rank, n, team.lanes,
                                    [&](auto count, int begin) {
                                      T a[inputs][count];
                                      S raw[inputs][count];
#pragma unroll
                                      for (int u = 0; u < count; ++u)
#pragma unroll
                                        for (int i = 0; i < inputs; ++i)
                                          raw[i][u] = x[i][(begin + u * team.lanes) * stride];
#pragma unroll
                                      for (int u = 0; u < count; ++u)
#pragma unroll
                                        for (int i = 0; i < inputs; ++i) {
                                          a[i][u] = load(raw[i][u]);
                                          keep.element(i, begin + u * team.lanes, raw[i][u]);
                                        }
                                      f(begin, team.lanes, a);
                                    });
}

// Writes the elements of y: f(j, a, b) computes b[i], element j of y[i], from a[i], element j of x[i].
// Chunks are those of y[0]'s addresses.
template <class Team, class S, int inputs, int outputs, class F>
__device__ void map(const Team& team, int n, int64_t stride, const S* const (&x)[inputs],
                    S* const (&y)[outputs], const F& f) {
  using T = Compute<S>;
  constexpr int width = per_chunk<S>, depth = inputs == 1 ? 2 : 1;
  int head = n, chunks = 0;
  if constexpr (!Team::strided) {
    head = (width - elements_past_boundary(y[0])) % width;
    head = head < n ? head : n;
    chunks = (n - head) / width;
    bool aligned = true;
#pragma unroll
    for (int i = 0; i < inputs; ++i) aligned &= elements_past_boundary(x[i] + head) == 0;
    if (!aligned && chunks > 0 && n - head - chunks * width < width - 1) --chunks;  // as above
    for (int c = team.rank; c < chunks; c += depth * team.lanes) {
      Chunk<S> raw[depth][inputs];
#pragma unroll
      for (int u = 0; u < depth; ++u)
        if (const int at = c + u * team.lanes; at < chunks)
#pragma unroll
          for (int i = 0; i < inputs; ++i) raw[u][i] = load_chunk(x[i] + head + int64_t(at) * width);
#pragma unroll
      for (int u = 0; u < depth; ++u) {
        const int at = c + u * team.lanes;
        if (at >= chunks) continue;
        T results[outputs][width];
#pragma unroll
        for (int k = 0; k < width; ++k) {
          T a[inputs], b[outputs];
#pragma unroll
          for (int i = 0; i < inputs; ++i) a[i] = load(raw[u][i].at[k]);
          f(head + at * width + k, a, b);
#pragma unroll
          for (int i = 0; i < outputs; ++i) results[i][k] = b[i];
        }
#pragma unroll
        for (int i = 0; i < outputs; ++i)
          store_chunk(y[i] + head + int64_t(at) * width, stored<S>(results[i]));
      }
    }
  }
  const int middle = chunks * width;
  one_by_one<inputs, Team::strided>(team.rank, n - middle, team.lanes, [&](auto count, int begin) {
    S raw[inputs][count];
    int j[count];
#pragma unroll
    for (int u = 0; u < count; ++u) {
      const int e = begin + u * team.lanes;
      j[u] = e < head ? e : e + middle;
#pragma unroll
      for (int i = 0; i < inputs; ++i) raw[i][u] = x[i][j[u] * stride];
    }
#pragma unroll
    for (int u = 0; u < count; ++u) {
      T a[inputs], b[outputs];
#pragma unroll
      for (int i = 0; i < inputs; ++i) a[i] = load(raw[i][u]);
      f(j[u], a, b);
#pragma unroll
      for (int i = 0; i < outputs; ++i) y[i][j[u] * stride] = store<S>(b[i]);
    }
  });
}

template <class Team, class S>
__device__ void fill_zero(const Team& team, S* y, int n, int64_t stride) {
  constexpr int width = per_chunk<S>;
  int head = n, chunks = 0;
  if constexpr (!Team::strided) {
    head = (width - elements_past_boundary(y)) % width;
    head = head < n ? head : n;
    chunks = (n - head) / width;
    for (int c = team.rank; c < chunks; c += team.lanes)
      store_chunk(y + head + int64_t(c) * width, Chunk<S>{});
  }
  for (int e = team.rank; e < n - chunks * width; e += team.lanes)
    y[(e < head ? e : e + chunks * width) * stride] = S{};
}

// A row's maximum, and the sum of exp(z - max) without the one term that is the maximum's own.
template <class T, bool is_short>
struct Exponentials {
  static constexpr T infinity = SoftmaxConstants<T>::infinity;
  T max = -infinity, rest = T(0);

  FASTACT_FN static T exponential(T d) { return exp_negative < is_short && has_exp2 > (d); }

  template <int n>
  FASTACT_FN void add(const T (&z)[n]) {
    T top = max, part = T(0);
#pragma unroll
    for (int k = 0; k < n; ++k) top = z[k] > top ? z[k] : top;
    if (top > max) {
      rest = max == -infinity ? rest : (rest + T(1)) * exponential(max - top);
      max = top;
      bool seen = false;
#pragma unroll
      for (int k = 0; k < n; ++k) {
        const bool own = !seen & (z[k] == top);
        seen |= own;
        part += own ? T(0) : exponential(z[k] - top);
      }
    } else {  // nearly always
      const T shift = max == -infinity ? T(0) : max;
#pragma unroll
      for (int k = 0; k < n; ++k) part += exponential(z[k] - shift);
    }
    rest += part;
  }

  // Of two parts of a row; the same whichever comes first.
  FASTACT_FN friend Exponentials operator+(const Exponentials& a, const Exponentials& b) {
    const bool above = a.max > b.max;
    const T low = above ? b.max : a.max, low_rest = above ? b.rest : a.rest;
    Exponentials sum;
    sum.max = above ? a.max : b.max;
    const T shrunk = (low_rest + T(1)) * exponential(low - sum.max);
    sum.rest = (above ? a.rest : b.rest) + (low == -infinity ? low_rest : shrunk);
    if (a.max == b.max && low != -infinity) sum.rest = (a.rest + b.rest) + T(1);
    return sum;
  }

  // A row of nothing but -inf, or one with +inf, has no softmax: NaN, as in torch.
  FASTACT_FN void finish() { max = max - max == T(0) ? max : T(0) * infinity; }

  FASTACT_FN Exponentials shuffled(int distance) const {
    Exponentials other;
    other.max = fastact::shuffled(max, distance);
    other.rest = fastact::shuffled(rest, distance);
    return other;
  }
};

// A row of some tensors that is gone over more than once: added up, and then again, or mapped. Of rows
// that are kept each block keeps its part in shared memory.
template <class S, int inputs, RowKind kind>
struct Operands {
  Team<kind>& team;
  const cuda::Plan& plan;
  const RowPlace& row;
  int n;
  const S* x[inputs];
  static constexpr bool kept = kind == RowKind::kept;

  // The sum of what f(mine, j, step, a) adds to `mine`, as visit has it.
  template <int depth, class V, class F>
  __device__ V sum(const F& f) const {
    return team.template sum<V>(n, [&](V& mine, Part part) {
      const S* from[inputs];
#pragma unroll
      for (int i = 0; i < inputs; ++i) from[i] = x[i] + part.begin * stride();
      const auto g = [&](int j, int step, auto& a) { f(mine, part.begin + j, step, a); };
      if constexpr (kept) {
        Keep<S, inputs> keep;
#pragma unroll
        for (int i = 0; i < inputs; ++i) keep.to[i] = memory(i);
        visit<depth>(team, part.size, 1, from, g, keep);
      } else {
        visit<depth>(team, part.size, stride(), from, g);
      }
    });
  }

  // A part of x[i] once more, after a sum.
  __device__ const S* again(int i, Part part) const {
    if constexpr (kept)
      return memory(i);
    else
      return x[i] + part.begin * stride();
  }

  // What of a row of so many classes these threads map.
  __device__ Part mapped(int classes) const { return kept ? team.part(classes) : Part{0, classes}; }

  // As fastact::map, after a sum.
  template <int outputs, class F>
  __device__ void map(S* const (&y)[outputs], const F& f) const {
    const Part part = mapped(n);
    const S* from[inputs];
    S* to[outputs];
#pragma unroll
    for (int i = 0; i < inputs; ++i) from[i] = again(i, part);
#pragma unroll
    for (int i = 0; i < outputs; ++i) to[i] = y[i] + part.begin;
    fastact::map(team, part.size, kept ? 1 : stride(), from, to, f);
  }

 private:
  __device__ int64_t stride() const { return row.template step<kind>(); }
  __device__ S* memory(int i) const {
    return reinterpret_cast<S*>(shared_memory() + cuda::Plan::sum_bytes + i * plan.kept);
  }
};

// Of the row of logits, each of them z(x).
template <int depth, class S, RowKind kind, class Z>
__device__ auto exponentials(const Operands<S, 1, kind>& logits, const Z& z) {
  using Sum = Exponentials<Compute<S>, sizeof(S) == 2>;
  Sum total = logits.template sum<depth, Sum>([&](Sum& mine, int, int, auto& a) {
    for (auto& value : a[0]) value = z(value);
    mine.add(a[0]);
  });
  total.finish();
  return total;
}

}  // namespace
}  // namespace fastact
