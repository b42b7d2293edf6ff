// The C interface that src/fastact/_library.py calls through ctypes.
#pragma once

#pragma GCC visibility push(default)
extern "C" {
// Whether kernels can be launched here: null, or a sentence that says why not. Does not start
// the driver, let alone a context.
const char* fastact_cuda_problem();
// The CUDA version the kernels were built with, as 13000 for 13.0.
int fastact_cuda_version();
// The architectures they were built for, separated by spaces.
const char* fastact_cuda_architectures();
}
#pragma GCC visibility pop
