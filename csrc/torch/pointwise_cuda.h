// Runs a kernel for elements that lie side by side over CUDA tensors of any layout.
#pragma once

#include <span>

#include "../cuda/table.h"
#include "allocate.h"

namespace fastact {

// As pointwise.h has it.
void pointwise(cudaError_t (*kernel)(const cuda::Pointwise&, const double*, cudaStream_t),
               const double* params, std::span<Tensor> operands, int inputs);

}  // namespace fastact
