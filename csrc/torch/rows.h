// Tensors as rows of classes.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../cpu/rows.h"
#include "allocate.h"

namespace fastact {

// The rows along dimension dim of a contiguous tensor.
inline cpu::Rows contiguous_rows(const Tensor& x, int64_t dim) {
  int64_t outer = 1, inner = 1;
  for (int64_t d = 0; d < dim; ++d) outer *= x.size(d);
  for (int64_t d = dim + 1; d < x.dim(); ++d) inner *= x.size(d);
  return cpu::Rows::dense(outer, x.dim() == 0 ? 1 : x.size(dim), inner);
}

// Whether x is contiguous once dimension dim has been moved to the end (channels last, say).
inline bool is_contiguous_with_last(const Tensor& x, int64_t dim) {
  int64_t expected = 1;
  const auto fits = [&](int64_t d) {
    const bool fits = x.size(d) == 1 || x.stride(d) == expected;
    expected *= x.size(d);
    return fits;
  };
  if (!fits(dim)) return false;
  for (int64_t d = x.dim() - 1; d >= 0; --d)
    if (d != dim && !fits(d)) return false;
  return true;
}

}  // namespace fastact
