// torch's dtypes, as the kernels' tables are indexed by them.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/headeronly/core/ScalarType.h>

#include "../cpu/dtype.h"

namespace fastact {

using torch::headeronly::ScalarType;

inline cpu::DType dtype_of(ScalarType type, const char* op) {
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

}  // namespace fastact
