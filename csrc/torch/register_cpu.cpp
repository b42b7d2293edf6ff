// The CPU ops.
#include "cpu.h"
#include "pointwise.h"
#include "register.h"

STABLE_TORCH_LIBRARY_IMPL(fastact, CPU, m) { fastact::implement<fastact::Cpu>(m); }
