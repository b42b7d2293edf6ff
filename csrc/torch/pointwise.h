// Runs a kernel for contiguous elements over tensors of any layout.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <span>

namespace fastact {

using torch::stable::Tensor;

// A serial loop over n elements of unit stride: inputs, then outputs.
using PointwiseKernel = void (*)(void* const* operands, int64_t n, const double* params);

// An uninitialised tensor like x: its strides where x is dense, the same order of dimensions
// otherwise, as torch's pointwise ops return. Large ones ask for huge pages.
Tensor allocate_like(const Tensor& x);

// Applies the kernel to tensors of one shape: the first `inputs` operands are read, the others
// written. They are walked together in runs that are contiguous in all of them, in parallel; an
// operand without such runs goes through a dense copy. Any two are the same or do not overlap.
void pointwise(PointwiseKernel kernel, const double* params, std::span<Tensor> operands, int inputs);

}  // namespace fastact
