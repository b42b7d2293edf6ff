// The common iteration space of tensors of one shape.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace fastact {

using torch::stable::Tensor;

inline constexpr int max_operands = 8;

// Outermost dimension first, without those of size 1, merged where every operand allows it.
struct Walk {
  struct Dim {
    int64_t size;
    std::array<int64_t, max_operands> strides;  // in elements
  };
  std::vector<Dim> dims;

  // In the order of the strides of the first output.
  Walk(std::span<const Tensor> operands, int inputs) {
    const Tensor& leader = operands[inputs];
    std::vector<int64_t> order;
    for (int64_t d = 0; d < leader.dim(); ++d)
      if (leader.size(d) != 1) order.push_back(d);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return leader.stride(a) > leader.stride(b); });
    for (int64_t d : order) {
      Dim dim{leader.size(d), {}};
      for (size_t i = 0; i < operands.size(); ++i) dim.strides[i] = operands[i].stride(d);
      append(dim, operands.size());
    }
  }

  void append(Dim dim, size_t count) {
    bool merges = !dims.empty();
    for (size_t i = 0; merges && i < count; ++i)
      merges = dims.back().strides[i] == dim.strides[i] * dim.size;
    if (merges) {
      dim.size *= dims.back().size;
      dims.back() = dim;
    } else {
      dims.push_back(dim);
    }
  }

  // Whether an operand's elements lie side by side along the innermost dimension.
  bool has_runs(size_t operand) const { return dims.empty() || dims.back().strides[operand] == 1; }
};

// Calls run(walk, operands) with operands that all have runs, and that `fits` approves of: where one
// has none, with a dense copy in its place.
template <class Fits, class Run>
void walk_in_runs(std::span<Tensor> operands, int inputs, const Fits& fits, const Run& run) {
  const Walk walk(operands, inputs);
  const bool all = !fits(walk);
  std::vector<Tensor> dense(operands.begin(), operands.end());
  const auto is_copied = [&](size_t i) { return all || !walk.has_runs(i); };
  bool copied = false;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!is_copied(i)) continue;
    dense[i] = torch::stable::empty_like(operands[inputs]);
    if (i < size_t(inputs)) torch::stable::copy_(dense[i], operands[i]);
    copied = true;
  }
  run(copied ? Walk(dense, inputs) : walk, std::span<const Tensor>(dense));
  for (size_t i = inputs; i < operands.size(); ++i)
    if (is_copied(i)) torch::stable::copy_(operands[i], dense[i]);
}

}  // namespace fastact
