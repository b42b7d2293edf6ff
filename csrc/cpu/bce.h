// What the kernels of binary cross entropy are given: n elements of unit stride each, or null.
#pragma once

#include <stdint.h>

namespace fastact::cpu {

struct BceOperands {
  const void *x, *target, *weight, *pos_weight;
  const void *grad, *v;
  bool reduced;    // grad is one number of the compute type, of a loss that is
  double divisor;  // divided by this
  void* loss;      // forward: of each element; double backward: the gradient by grad
  double* sums;    // in place of loss where it is reduced: of each part, and how many it has
  void* grad_x;
};

// Elements that are added up into one of the sums; the same for any number of threads.
inline constexpr int64_t bce_part = 8192;

// Takes elements [begin, end), a part of a reduced loss at a time.
using BceKernel = void (*)(const BceOperands& operands, int64_t begin, int64_t end);

struct BceKernels {
  BceKernel forward, backward, double_backward;
};

}  // namespace fastact::cpu
