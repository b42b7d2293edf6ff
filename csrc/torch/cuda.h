// What the ops need of a GPU: kernels, streams, and the sums of a reduced loss. Nothing here waits for
// the device.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <array>
#include <cstdint>

#include "../cuda/plan.h"
#include "../cuda/table.h"
#include "dtype.h"
#include "scalars.h"

namespace fastact {

// t's device, made current, and torch's stream there.
class OnDevice {
 public:
#if defined(FASTACT_EMULATION)
  explicit OnDevice(const Tensor&) {}
#else
  explicit OnDevice(const Tensor& t) : guard_(t.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device(), &stream_));
  }
#endif
  cudaStream_t stream() const { return static_cast<cudaStream_t>(stream_); }
  static void check(cudaError_t error) {
    STD_TORCH_CHECK(error == cudaSuccess,
                    "fastact: a CUDA kernel could not be launched: ", cudaGetErrorString(error));
  }

 private:
#if !defined(FASTACT_EMULATION)
  torch::stable::accelerator::DeviceGuard guard_;
#endif
  void* stream_ = nullptr;
};

template <class Rows>
void run(cudaError_t (*kernel)(const Rows&, cudaStream_t), const Rows& arguments, const Tensor& on) {
  // The kernels count in int, and a step beyond the last class must not overflow.
  STD_TORCH_CHECK(arguments.rows.classes < INT32_MAX - 65536,
                  "fastact: expected less than 2^31 classes");
  const OnDevice device(on);
  device.check(kernel(arguments, device.stream()));
}

inline void run(cudaError_t (*kernel)(const cpu::BceOperands&, int64_t, cudaStream_t),
                const cpu::BceOperands& operands, int64_t n, const Tensor& on) {
  if (n == 0) return;
  const OnDevice device(on);
  device.check(kernel(operands, n, device.stream()));
}

struct Cuda {
  static const cuda::PointwiseKernels& unary(int index, cpu::DType dtype) {
    return cuda::unary(dtype, index);
  }
  static const cuda::PointwiseKernels& gated(int index, cpu::DType dtype) {
    return cuda::gated(dtype, index);
  }
  static const cuda::SoftmaxKernels& softmax(cpu::DType dtype, const cpu::Rows&) {
    return cuda::softmax(dtype);
  }
  static const cuda::SoftmaxKernels& log_softmax(cpu::DType dtype, const cpu::Rows&) {
    return cuda::log_softmax(dtype);
  }
  static const cuda::CrossEntropyKernels& cross_entropy(cpu::DType dtype, const cpu::Rows&) {
    return cuda::cross_entropy(dtype);
  }
  static const cuda::BceKernels& bce(cpu::DType dtype, const cpu::BceOperands&) {
    return cuda::bce(dtype);
  }

  static int64_t sums_of(const cpu::Rows& rows, ScalarType storage) {
    return cuda::Plan(rows, itemsize(storage)).blocks;
  }

  class Sums {
   public:
    Sums(const Tensor& like, int64_t count)
        : count_(count), pairs_(allocate_small(like, std::array{2 * count}, ScalarType::Double)) {}
    double* data() { return static_cast<double*>(pairs_.data_ptr()); }

    void finish(bool mean, const Tensor& loss, const Tensor* total) const {
      const auto kernel = cuda::finish(dtype_of(loss.scalar_type(), "finish"));
      const OnDevice device(loss);
      device.check(kernel(static_cast<const double*>(pairs_.data_ptr()), count_, mean, loss.data_ptr(),
                          total ? total->data_ptr() : nullptr, device.stream()));
    }

   private:
    int64_t count_;
    Tensor pairs_;
  };

  // What Sums::finish writes a loss of that dtype in: the conversion would be one more launch.
  static ScalarType reduced_type(ScalarType storage) { return storage; }

  static void weigh(const cpu::CrossEntropyRows& args, const Tensor& logits) {
    run(cuda::cross_entropy(dtype_of(logits.scalar_type(), "cross_entropy")).weigh, args, logits);
  }

  // A look at the gradients would have to wait for them: the kernels look.
  static bool is_as_expected(const Tensor&, const Tensor&) { return false; }

  // A look at the targets would have to wait for them: the kernels give NaN for a row whose target is
  // out of range.
  static void check_targets(const cpu::CrossEntropyRows&) {}

 private:
  static int64_t itemsize(ScalarType t) {
    return t == ScalarType::Double ? 8 : t == ScalarType::Float ? 4 : 2;
  }
};

}  // namespace fastact
