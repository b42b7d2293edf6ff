// Which instruction set's table answers.
#pragma once

#include "table.h"

namespace fastact::cpu {

// The table in use: at load, that of the best instruction set the machine has.
const Table& table();

}  // namespace fastact::cpu

// The C interface that src/fastact/_library.py calls through ctypes. Names are separated by spaces.
#pragma GCC visibility push(default)
extern "C" {
// The instruction sets this library was built for that this machine has, best first.
const char* fastact_cpu_isas();
// The one in use.
const char* fastact_cpu_isa();
// Uses the named one; false, and no change, where it is not among fastact_cpu_isas(). Not meant to
// be called while kernels run.
bool fastact_cpu_use_isa(const char* name);
}
#pragma GCC visibility pop
