// The kernels by dtype, from the object files of each.
#include "../cpu/dtype.h"
#include "table.h"

namespace fastact::cuda {

#define FASTACT_KERNELS(dtype)                        \
  const PointwiseKernels* unary_##dtype();            \
  const PointwiseKernels* gated_##dtype();            \
  const SoftmaxKernels& softmax_##dtype();            \
  const SoftmaxKernels& log_softmax_##dtype();        \
  const CrossEntropyKernels& cross_entropy_##dtype(); \
  const BceKernels& bce_##dtype();                    \
  FinishKernel finish_##dtype();
FASTACT_KERNELS(float32)
FASTACT_KERNELS(float64)
FASTACT_KERNELS(bfloat16)
FASTACT_KERNELS(float16)

// In the order of cpu::DType.
#define FASTACT_BY_DTYPE(name)                                                             \
  static constexpr decltype(&name##_float32) by_dtype[] = {name##_float32, name##_float64, \
                                                           name##_bfloat16, name##_float16}

const PointwiseKernels& unary(cpu::DType dtype, int index) {
  FASTACT_BY_DTYPE(unary);
  return by_dtype[dtype]()[index];
}
const PointwiseKernels& gated(cpu::DType dtype, int index) {
  FASTACT_BY_DTYPE(gated);
  return by_dtype[dtype]()[index];
}
const SoftmaxKernels& softmax(cpu::DType dtype) {
  FASTACT_BY_DTYPE(softmax);
  return by_dtype[dtype]();
}
const SoftmaxKernels& log_softmax(cpu::DType dtype) {
  FASTACT_BY_DTYPE(log_softmax);
  return by_dtype[dtype]();
}
const CrossEntropyKernels& cross_entropy(cpu::DType dtype) {
  FASTACT_BY_DTYPE(cross_entropy);
  return by_dtype[dtype]();
}
const BceKernels& bce(cpu::DType dtype) {
  FASTACT_BY_DTYPE(bce);
  return by_dtype[dtype]();
}
FinishKernel finish(cpu::DType dtype) {
  FASTACT_BY_DTYPE(finish);
  return by_dtype[dtype]();
}

}  // namespace fastact::cuda
