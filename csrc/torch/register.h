// The ops of a device, for every activation of the list. Device is Cpu or Cuda.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/core/ScalarType.h>

#include "../cpu/dtype.h"
#include "../formulas/activations.h"
#include "bce_ops.h"
#include "cross_entropy_ops.h"
#include "dtype.h"
#include "ops.h"
#include "softmax_ops.h"

namespace fastact {
namespace {

template <class Device, class F, int index>
struct UnaryKernels {
  static constexpr const char* name = F::name;
  static constexpr int arity = F::arity;
  static const auto& at(ScalarType t) { return Device::unary(index, dtype_of(t, name)); }
  static auto forward(ScalarType t) { return at(t).forward; }
  static auto backward(ScalarType t) { return at(t).backward; }
  static auto double_backward(ScalarType t) { return at(t).double_backward; }
};

template <class Device, class F, int index>
struct GatedKernels {
  static constexpr const char* name = F::name;
  static const auto& at(ScalarType t) { return Device::gated(index, dtype_of(t, name)); }
  static auto forward(ScalarType t) { return at(t).forward; }
  static auto backward(ScalarType t) { return at(t).backward; }
  static auto double_backward(ScalarType t) { return at(t).double_backward; }
};

template <class Device>
struct SoftmaxKernels {
  static constexpr const char* name = "softmax";
  static const auto& at(ScalarType t, const cpu::Rows& rows) {
    return Device::softmax(dtype_of(t, name), rows);
  }
};

template <class Device>
struct LogSoftmaxKernels {
  static constexpr const char* name = "log_softmax";
  static const auto& at(ScalarType t, const cpu::Rows& rows) {
    return Device::log_softmax(dtype_of(t, name), rows);
  }
};

template <class Device, template <class, class> class... Formulas, class Library, int... I>
void implement_unary(List<Formulas...>, Library& m, std::integer_sequence<int, I...>) {
  (UnaryOps<UnaryKernels<Device, Formulas<float, Constants<float>>, I>>::implement(m), ...);
}

template <class Device, template <class, class> class... Formulas, class Library, int... I>
void implement_gated(List<Formulas...>, Library& m, std::integer_sequence<int, I...>) {
  (GatedOps<GatedKernels<Device, Formulas<float, Constants<float>>, I>>::implement(m), ...);
}

template <template <class, class> class... Formulas>
constexpr auto indices(List<Formulas...>) {
  return std::make_integer_sequence<int, int(sizeof...(Formulas))>();
}

template <class Device, class Library>
void implement(Library& m) {
  implement_unary<Device>(Activations(), m, indices(Activations()));
  implement_gated<Device>(Gates(), m, indices(Gates()));
  SoftmaxOps<SoftmaxKernels<Device>>::implement(m);
  SoftmaxOps<LogSoftmaxKernels<Device>>::implement(m);
  CrossEntropyOps<Device>::implement(m);
  BceOps<Device>::implement(m);
}

}  // namespace
}  // namespace fastact
