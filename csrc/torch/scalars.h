// Reductions, and the dtypes of their results.
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

}  // namespace fastact
