// What one instruction set's object files export: tables of serial kernels on raw pointers.
#pragma once

#include <stdint.h>

#include "bce.h"
#include "dtype.h"
#include "rows.h"

namespace fastact::cpu {

// Operands in the order of the op's schema, outputs last; all with n elements, unit stride, and either
// identical to another operand or not overlapping it. params holds the activation's parameters.
using Kernel = void (*)(void* const* operands, int64_t n, const double* params);

struct UnaryKernels {
  Kernel forward;          // x, y
  Kernel backward;         // grad, saved, grad_x
  Kernel double_backward;  // v, grad, saved, grad_grad, grad_saved
};

struct GatedKernels {
  Kernel forward;          // gate, up, y
  Kernel backward;         // grad, gate, up, grad_gate, grad_up
  Kernel double_backward;  // v_gate, v_up, grad, gate, up, grad_grad, grad_gate, grad_up
};

// By position in the lists of formulas/activations.h.
struct PointwiseTable {
  const UnaryKernels (*unary)[dtype_count];
  const GatedKernels (*gated)[dtype_count];
};

// The second index is Rows::lane_is_row().
struct SoftmaxTable {
  SoftmaxKernels at[dtype_count][2];
};
struct CrossEntropyTable {
  CrossEntropyKernels at[dtype_count][2];
};

using BceTable = const BceKernels& (*)(DType dtype, bool reduced, bool weighted, bool pos_weighted);

struct Table {
  const PointwiseTable& pointwise;
  const SoftmaxTable &softmax, &log_softmax;
  const CrossEntropyTable& cross_entropy;
  BceTable bce;
};

}  // namespace fastact::cpu
