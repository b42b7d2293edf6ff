// What the kernels over rows of logits are given. A row's classes lie class_stride apart; rows come in
// `outer` sets of `inner` rows, row_stride apart in memory.
#pragma once

#include <stdint.h>

#include "../formulas/macros.h"

namespace fastact::cpu {

struct Rows {
  int64_t outer, inner, classes;
  int64_t outer_stride, row_stride, class_stride;  // in elements

  // The classes are contiguous, or the rows are: (outer, classes, inner), dense.
  FASTACT_FN static constexpr Rows dense(int64_t outer, int64_t classes, int64_t inner) {
    if (inner == 1) return {1, outer, classes, outer * classes, classes, 1};
    return {outer, inner, classes, classes * inner, 1, inner};
  }
  FASTACT_FN constexpr int64_t count() const { return outer * inner; }

  // Rows are worked at in groups of up to `lanes`, so that what is computed once for each row fills
  // vectors. So do the classes of a row, one row after another; where there are too few of them, or
  // they do not lie side by side, each lane has a row of its own. A row's result does not depend on
  // its neighbours.
  static constexpr int64_t lanes = 32;
  FASTACT_FN constexpr bool lane_is_row() const { return class_stride > 1 || classes < lanes; }
  static constexpr int64_t classes_per_group = 1 << 12;  // of several rows; they stay in the cache
  FASTACT_FN constexpr int64_t rows_per_group() const {
    if (lane_is_row()) return lanes;
    const int64_t rows = classes_per_group / classes;
    return rows < 1 ? 1 : rows < lanes ? rows : lanes;
  }
  FASTACT_FN constexpr int64_t groups_per_outer() const {
    return (inner + rows_per_group() - 1) / rows_per_group();
  }
  FASTACT_FN constexpr int64_t groups() const { return outer * groups_per_outer(); }

  struct Part {
    int64_t first_row;
    int count;       // of rows, no more than `lanes`
    int64_t offset;  // of the first row in memory, in elements
  };
  FASTACT_FN constexpr Part group(int64_t index) const {
    const int64_t set = index / groups_per_outer();
    const int64_t first = index % groups_per_outer() * rows_per_group();
    const int64_t left = inner - first;
    return {set * inner + first, int(left < rows_per_group() ? left : rows_per_group()),
            set * outer_stride + first * row_stride};
  }
};

struct SoftmaxRows {
  Rows rows;
  const void* inputs[3];  // of the op's schema, all in the layout of rows
  void* outputs[2];
};

// T below is the compute type of the logits' storage type S. Pointers may be null where an option is
// not in use.
struct CrossEntropyRows {
  Rows rows;
  const void* logits;         // S
  const int64_t* target;      // a class for each row, or
  const void* probabilities;  // S, laid out as the logits
  const void* weight;         // T, for each class
  int64_t ignore_index;
  bool normalized;                          // the logits are log-probabilities already: nll_loss
  double label_smoothing, z_loss, softcap;  // 0: none

  // For each row, T: sum_j exp(z_j) = exp(max) (1 + rest); the sum of the coefficients that do not
  // belong to the target's index; the mean of z - max under the softmax.
  void *max, *rest, *mass, *mean;

  // Forward. The sums of loss and of weight, two for each group, are the reduction's; double backward
  // gives those of grad_grad_loss.
  void *loss, *lse, *entropy;  // T, for each row
  double* sums;

  // Backward: the gradients of the three results, T. That of a reduced loss is one number, to be
  // divided by `total` if there is one.
  const void *grad_loss, *grad_lse, *grad_entropy, *total;
  bool reduced;
  void* grad_logits;  // S; may be the logits themselves

  // Forward with gradient: as in backward of a reduced loss, whatever the reduction, grad_logits for
  // one number grad_loss. Backward after that, on a GPU: what that number was, T; rows that have the
  // same grad_loss now are left as they are. (On a CPU the op looks.)
  const void* expected;

  // Double backward: the gradient of grad_logits, and by the gradients, T for each row.
  const void* v;  // S
  void *grad_grad_loss, *grad_grad_lse, *grad_grad_entropy;
};

// Each takes groups [begin, end).
using SoftmaxKernel = void (*)(const SoftmaxRows& rows, int64_t begin, int64_t end);
using CrossEntropyKernel = void (*)(const CrossEntropyRows& rows, int64_t begin, int64_t end);

struct SoftmaxKernels {
  SoftmaxKernel forward;          // x; y
  SoftmaxKernel backward;         // grad, y; grad_x
  SoftmaxKernel double_backward;  // v, grad, y; grad_grad, grad_y
};

struct CrossEntropyKernels {
  CrossEntropyKernel forward, backward, double_backward;
};

}  // namespace fastact::cpu
