// The launch of kernels over rows.
#pragma once

#include "keep.h"
#include "launch.h"
#include "plan.h"

namespace fastact {
namespace {

template <class Rows>
using RowKernel = void (*)(Rows, cuda::Plan);

// The kernels for each kind of rows; of one that reads rows once or does not keep them there is none
// that keeps.
template <class Rows>
struct RowKernels {
  RowKernel<Rows> contiguous, strided, kept = nullptr;
};

// `tensors` would be kept; the results are the same where there is no room.
template <class Rows>
cudaError_t launch_rows(const RowKernels<Rows>& kernels, int64_t itemsize, int tensors,
                        cudaStream_t stream, const Rows& rows) {
  const cuda::Plan plan(rows.rows, itemsize, kernels.kept ? tensors : 0);
  const dim3 blocks(unsigned(plan.blocks)), threads(unsigned(plan.threads));
  if (kernels.kept && plan.may_keep()) {
    const Shape shape{dim3(unsigned(plan.blocks * plan.parts)), threads, plan.for_keeping(tensors),
                      plan.parts};
    if (cuda::may_keep(reinterpret_cast<const void*>(kernels.kept), shape))
      return launch(kernels.kept, shape, stream, rows, plan);
  }
  return launch(plan.strided ? kernels.strided : kernels.contiguous, {blocks, threads, plan.for_sums()},
                stream, rows, plan);
}

}  // namespace
}  // namespace fastact
