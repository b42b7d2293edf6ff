// Uninitialised tensors for results.
#pragma once

#include <torch/csrc/stable/tensor.h>

namespace fastact {

using torch::stable::Tensor;

// One like x: its strides where x is dense, the same order of dimensions otherwise, as torch's
// pointwise ops return. Large ones ask for huge pages.
Tensor allocate_like(const Tensor& x);

// One of x's shape and dtype, contiguous.
Tensor allocate_contiguous(const Tensor& x);

}  // namespace fastact
