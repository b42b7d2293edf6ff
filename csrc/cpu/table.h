// What one instruction set's object file exports: a table of kernels on raw pointers, each a serial
// loop over n elements. Kernel k of an activation stands at the activation's position in the list of
// formulas/activations.h.
#pragma once

#include <stdint.h>

namespace fastact::cpu {

enum DType { float32, float64, bfloat16, float16, dtype_count };

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

struct Table {
  const UnaryKernels (*unary)[dtype_count];
  const GatedKernels (*gated)[dtype_count];
};

}  // namespace fastact::cpu
