#include "pointwise.h"

#include <algorithm>
#include <array>
#include <vector>

#include "parallel.h"

namespace fastact {
namespace {

constexpr int max_operands = 8;
using Pointers = std::array<char*, max_operands>;

// The common iteration space: outermost dimension first, without those of size 1, merged where every
// operand allows it.
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

  bool has_runs(size_t operand) const { return dims.empty() || dims.back().strides[operand] == 1; }
};

void run(PointwiseKernel kernel, const double* params, const Walk& walk, const Pointers& data,
         size_t count, int64_t itemsize, int64_t numel) {
  const int64_t inner = walk.dims.empty() ? 1 : walk.dims.back().size;
  parallel(numel, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t column = begin % inner;
      const int64_t n = std::min(end - begin, inner - column);
      Pointers at = data;
      for (size_t i = 0; i < count; ++i) at[i] += column * itemsize;
      int64_t row = begin / inner;
      for (int64_t d = int64_t(walk.dims.size()) - 2; d >= 0; --d) {
        const auto& dim = walk.dims[d];
        for (size_t i = 0; i < count; ++i) at[i] += (row % dim.size) * dim.strides[i] * itemsize;
        row /= dim.size;
      }
      kernel(reinterpret_cast<void* const*>(at.data()), n, params);
      begin += n;
    }
  });
}

Pointers data_of(std::span<const Tensor> operands) {
  Pointers data{};
  for (size_t i = 0; i < operands.size(); ++i) data[i] = static_cast<char*>(operands[i].data_ptr());
  return data;
}

}  // namespace

void pointwise(PointwiseKernel kernel, const double* params, std::span<Tensor> operands, int inputs) {
  const size_t count = operands.size();
  const int64_t numel = operands[inputs].numel();
  const auto itemsize = int64_t(operands[inputs].element_size());
  if (numel == 0) return;

  if (std::all_of(operands.begin(), operands.end(),
                  [](const Tensor& t) { return t.is_contiguous(); })) {
    const Pointers data = data_of(operands);
    return parallel(numel, grain, [&](int64_t begin, int64_t end) {
      Pointers at = data;
      for (size_t i = 0; i < count; ++i) at[i] += begin * itemsize;
      kernel(reinterpret_cast<void* const*>(at.data()), end - begin, params);
    });
  }

  const Walk walk(operands, inputs);
  std::vector<Tensor> dense(operands.begin(), operands.end());
  bool copied = false;
  for (size_t i = 0; i < count; ++i) {
    if (walk.has_runs(i)) continue;
    dense[i] = torch::stable::empty_like(operands[inputs]);
    if (i < size_t(inputs)) torch::stable::copy_(dense[i], operands[i]);
    copied = true;
  }
  run(kernel, params, copied ? Walk(dense, inputs) : walk, data_of(dense), count, itemsize, numel);
  for (size_t i = inputs; i < count; ++i)
    if (!walk.has_runs(i)) torch::stable::copy_(operands[i], dense[i]);
}

}  // namespace fastact
