// Runs a kernel for contiguous elements over tensors of any layout.
#pragma once

#include <cstdint>
#include <span>

#include "allocate.h"

namespace fastact {

// A serial loop over n elements of unit stride: inputs, then outputs.
using PointwiseKernel = void (*)(void* const* operands, int64_t n, const double* params);

// Applies the kernel to tensors of one shape: the first `inputs` operands are read, the others
// written. They are walked together in runs that are contiguous in all of them, in parallel; an
// operand without such runs goes through a dense copy. Any two are the same or do not overlap.
void pointwise(PointwiseKernel kernel, const double* params, std::span<Tensor> operands, int inputs);

}  // namespace fastact
