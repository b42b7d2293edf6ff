// The launch of kernels over rows.
#pragma once

#include "keep.h"
#include "launch.h"
#include "plan.h"

namespace fastact {
namespace {

template <class Rows>
using RowKernel = void (*)(Rows, cuda::Plan);

template <class Rows>
cudaError_t launch_rows(RowKernel<Rows> kernel, const cuda::Plan& plan, cudaStream_t stream,
                        const Rows& rows) {
  const Shape shape{dim3(unsigned(plan.blocks)), dim3(unsigned(plan.threads)), plan.for_sums()};
  return launch(kernel, shape, stream, rows, plan);
}

// By the kernel that keeps its rows, of so many tensors, where there is room; the results are the same.
template <class Rows>
cudaError_t launch_rows(RowKernel<Rows> kernel, RowKernel<Rows> keeps, const cuda::Plan& plan,
                        int tensors, cudaStream_t stream, const Rows& rows) {
  const Shape shape{dim3(unsigned(plan.blocks * plan.parts)), dim3(unsigned(plan.threads)),
                    plan.for_keeping(tensors), plan.parts};
  if (plan.lanes > 32 && cuda::may_keep(reinterpret_cast<const void*>(keeps), shape))
    return launch(keeps, shape, stream, rows, plan);
  return launch_rows(kernel, plan, stream, rows);
}

}  // namespace
}  // namespace fastact
