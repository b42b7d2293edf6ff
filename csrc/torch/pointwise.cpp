#include "pointwise.h"

#include <algorithm>
#include <array>

#include "parallel.h"
#include "walk.h"

namespace fastact {
namespace {

using Pointers = std::array<char*, max_operands>;

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

  const auto any = [](const Walk&) { return true; };
  walk_in_runs(operands, inputs, any, [&](const Walk& walk, std::span<const Tensor> dense) {
    run(kernel, params, walk, data_of(dense), count, itemsize, numel);
  });
}

}  // namespace fastact
