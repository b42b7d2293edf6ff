// The CUDA ops; under emulation (tests/emulation) they take the place of the CPU's.
#include "cuda.h"
#include "pointwise_cuda.h"
#include "register.h"

#if defined(FASTACT_EMULATION)
STABLE_TORCH_LIBRARY_IMPL(fastact, CPU, m) { fastact::implement<fastact::Cuda>(m); }
#else
STABLE_TORCH_LIBRARY_IMPL(fastact, CUDA, m) { fastact::implement<fastact::Cuda>(m); }
#endif
