// The CPU ops, registered for every activation of the list.
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/core/ScalarType.h>

#include "../cpu/dispatch.h"
#include "../formulas/activations.h"
#include "bce_ops.h"
#include "cross_entropy_ops.h"
#include "ops.h"
#include "softmax_ops.h"

namespace fastact {
namespace {

using torch::headeronly::ScalarType;

cpu::DType dtype_index(ScalarType type, const char* op) {
  switch (type) {
    case ScalarType::Float:
      return cpu::float32;
    case ScalarType::Double:
      return cpu::float64;
    case ScalarType::BFloat16:
      return cpu::bfloat16;
    case ScalarType::Half:
      return cpu::float16;
    default:
      STD_TORCH_CHECK(false, "fastact::", op, ": expected float32, float64, bfloat16 or float16");
  }
}

template <class F, size_t Index>
struct UnaryKernels {
  static constexpr const char* name = F::name;
  static constexpr int arity = F::arity;
  static const cpu::UnaryKernels& at(ScalarType t) {
    return cpu::table().pointwise.unary[Index][dtype_index(t, name)];
  }
  static PointwiseKernel forward(ScalarType t) { return at(t).forward; }
  static PointwiseKernel backward(ScalarType t) { return at(t).backward; }
  static PointwiseKernel double_backward(ScalarType t) { return at(t).double_backward; }
};

template <class F, size_t Index>
struct GatedKernels {
  static constexpr const char* name = F::name;
  static const cpu::GatedKernels& at(ScalarType t) {
    return cpu::table().pointwise.gated[Index][dtype_index(t, name)];
  }
  static PointwiseKernel forward(ScalarType t) { return at(t).forward; }
  static PointwiseKernel backward(ScalarType t) { return at(t).backward; }
  static PointwiseKernel double_backward(ScalarType t) { return at(t).double_backward; }
};

struct Softmax {
  static constexpr const char* name = "softmax";
  static const cpu::SoftmaxKernels& at(ScalarType t, bool lane_is_row) {
    return cpu::table().softmax.at[dtype_index(t, name)][lane_is_row];
  }
};

struct LogSoftmax {
  static constexpr const char* name = "log_softmax";
  static const cpu::SoftmaxKernels& at(ScalarType t, bool lane_is_row) {
    return cpu::table().log_softmax.at[dtype_index(t, name)][lane_is_row];
  }
};

struct CrossEntropy {
  static constexpr const char* name = "cross_entropy";
  static const cpu::CrossEntropyKernels& at(ScalarType t, bool lane_is_row) {
    return cpu::table().cross_entropy.at[dtype_index(t, name)][lane_is_row];
  }
};

struct BinaryCrossEntropy {
  static constexpr const char* name = "bce_with_logits";
  static const cpu::BceKernels& at(ScalarType t, bool reduced, bool weighted, bool pos_weighted) {
    return cpu::table().bce(dtype_index(t, name), reduced, weighted, pos_weighted);
  }
};

template <template <class, class> class... Formulas, class Library, size_t... I>
void implement_unary(List<Formulas...>, Library& m, std::index_sequence<I...>) {
  (UnaryOps<UnaryKernels<Formulas<float, Constants<float>>, I>>::implement(m), ...);
}

template <template <class, class> class... Formulas, class Library, size_t... I>
void implement_gated(List<Formulas...>, Library& m, std::index_sequence<I...>) {
  (GatedOps<GatedKernels<Formulas<float, Constants<float>>, I>>::implement(m), ...);
}

template <template <class, class> class... Formulas>
constexpr auto indices(List<Formulas...>) {
  return std::make_index_sequence<sizeof...(Formulas)>();
}

STABLE_TORCH_LIBRARY_IMPL(fastact, CPU, m) {
  implement_unary(Activations(), m, indices(Activations()));
  implement_gated(Gates(), m, indices(Gates()));
  SoftmaxOps<Softmax>::implement(m);
  SoftmaxOps<LogSoftmax>::implement(m);
  CrossEntropyOps<CrossEntropy>::implement(m);
  BceOps<BinaryCrossEntropy>::implement(m);
}

}  // namespace
}  // namespace fastact
