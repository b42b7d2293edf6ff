#include "pointwise_cuda.h"

#include <cstdint>

#include "cuda.h"
#include "walk.h"

namespace fastact {

static_assert(max_operands == cuda::max_operands);

namespace {

// Whether the kernels' index arithmetic has room for it.
bool fits(const Walk& walk) {
  if (walk.dims.size() > cuda::max_dims + 1) return false;
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < walk.dims.size(); ++d) rows *= walk.dims[d].size;
  return rows <= INT32_MAX;
}

}  // namespace

void pointwise(cudaError_t (*kernel)(const cuda::Pointwise&, const double*, cudaStream_t),
               const double* params, std::span<Tensor> operands, int inputs) {
  if (operands[inputs].numel() == 0) return;
  const OnDevice device(operands[inputs]);
  const auto run = [&](const Walk& walk, std::span<const Tensor> in_runs) {
    cuda::Pointwise arguments{};
    arguments.inner = walk.dims.empty() ? 1 : walk.dims.back().size;
    arguments.rows = 1;
    arguments.dims = std::max(int(walk.dims.size()) - 1, 0);
    for (int d = 0; d < arguments.dims; ++d) {
      arguments.sizes[d] = unsigned(walk.dims[d].size);
      arguments.rows *= arguments.sizes[d];
      for (size_t i = 0; i < in_runs.size(); ++i) arguments.strides[d][i] = walk.dims[d].strides[i];
    }
    for (size_t i = 0; i < in_runs.size(); ++i) arguments.operands[i] = in_runs[i].data_ptr();
    device.check(kernel(arguments, params, device.stream()));
  };
  walk_in_runs(operands, inputs, fits, run);
}

}  // namespace fastact
