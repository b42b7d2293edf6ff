// Uninitialised tensors for results.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <span>

namespace fastact {

using torch::stable::Tensor;

// One like x: its strides where x is dense, the same order of dimensions otherwise, as torch's
// pointwise ops return. Large ones ask for huge pages.
Tensor allocate_like(const Tensor& x);

// One of x's shape and dtype, contiguous.
Tensor allocate_contiguous(const Tensor& x);

// A small contiguous one on x's device, of a dtype that kernels compute in: float32 or float64.
Tensor allocate_small(const Tensor& x, std::span<const int64_t> sizes,
                      torch::headeronly::ScalarType dtype);

}  // namespace fastact
