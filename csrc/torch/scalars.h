// Reductions, and the numbers they give: tensors of one or of a few elements, in host memory.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

#include "allocate.h"

namespace fastact {

using torch::headeronly::ScalarType;

enum class Reduction : int64_t { none, mean, sum };  // torch's numbers

inline ScalarType compute_type(ScalarType storage) {
  return storage == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// t itself, or a contiguous copy, in a dtype.
inline Tensor converted(const Tensor& t, ScalarType dtype) {
  if (t.scalar_type() == dtype) return torch::stable::contiguous(t);
  Tensor result = torch::stable::new_empty(t, t.sizes(), dtype);
  return torch::stable::copy_(result, t);
}

// Element i of a contiguous float32 or float64 tensor.
inline double get_scalar(const Tensor& t, int64_t i) {
  return t.scalar_type() == ScalarType::Double ? static_cast<const double*>(t.data_ptr())[i]
                                               : double(static_cast<const float*>(t.data_ptr())[i]);
}
inline void set_scalar(const Tensor& t, double value) {
  if (t.scalar_type() == ScalarType::Double)
    *static_cast<double*>(t.data_ptr()) = value;
  else
    *static_cast<float*>(t.data_ptr()) = float(value);
}

}  // namespace fastact
