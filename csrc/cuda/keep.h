// Whether rows can be kept in shared memory: by what the device has.
#pragma once

#include "launch.h"

namespace fastact::cuda {

// Whether such a launch is possible on the current device; then the kernel has leave for its shared
// memory. Counts those that are.
bool may_keep(const void* kernel, const Shape& shape);

}  // namespace fastact::cuda

#pragma GCC visibility push(default)
extern "C" {
// For tests and comparisons: whether rows are kept where they can be, as they are unless this says no;
// and how many launches so far have kept them.
void fastact_cuda_keep_rows(bool keep);
long long fastact_cuda_rows_kept();
}
#pragma GCC visibility pop
