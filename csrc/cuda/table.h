// What csrc/cuda exports: functions that launch a kernel on a stream, by dtype.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "../cpu/bce.h"
#include "../cpu/dtype.h"
#include "../cpu/rows.h"

namespace fastact::cuda {

inline constexpr int max_operands = 8;
inline constexpr int max_dims = 6;

// A walk over elements: `rows` times `inner` of them, which lie side by side in every operand. Where
// row r begins follows from its indices along `dims` dimensions, the last one fastest.
struct Pointwise {
  void* operands[max_operands];  // in the order of the op's schema, outputs last
  int64_t inner;
  unsigned rows;  // of at most 2^31: only a walk without dimensions is longer
  int dims;
  unsigned sizes[max_dims];
  int64_t strides[max_dims][max_operands];  // in elements
};

template <class... Arguments>
struct Kernels {
  cudaError_t (*forward)(Arguments..., cudaStream_t);
  cudaError_t (*backward)(Arguments..., cudaStream_t);
  cudaError_t (*double_backward)(Arguments..., cudaStream_t);
};
using PointwiseKernels = Kernels<const Pointwise&, const double*>;  // and the parameters
using SoftmaxKernels = Kernels<const cpu::SoftmaxRows&>;
struct CrossEntropyKernels : Kernels<const cpu::CrossEntropyRows&> {
  cudaError_t (*weigh)(const cpu::CrossEntropyRows&, cudaStream_t);  // the sums of the weights alone
};
using BceKernels = Kernels<const cpu::BceOperands&, int64_t>;

// loss = sum of sums[2 i], divided by the sum of sums[2 i + 1] if it is a mean; that goes to total. The
// loss is of the dtype, the total of its compute type.
using FinishKernel = cudaError_t (*)(const double* sums, int64_t count, bool mean, void* loss,
                                     void* total, cudaStream_t);

// By dtype, and of pointwise ones by position in the lists of formulas/activations.h.
const PointwiseKernels& unary(cpu::DType dtype, int index);
const PointwiseKernels& gated(cpu::DType dtype, int index);
const SoftmaxKernels& softmax(cpu::DType dtype);
const SoftmaxKernels& log_softmax(cpu::DType dtype);
const CrossEntropyKernels& cross_entropy(cpu::DType dtype);
const BceKernels& bce(cpu::DType dtype);
FinishKernel finish(cpu::DType dtype);

}  // namespace fastact::cuda
