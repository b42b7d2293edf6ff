// What src/fastact/_library.py asks libfastact_cpu for.
#include <string_view>

#include "../../csrc/cuda/plan.h"

#pragma GCC visibility push(default)
extern "C" {
const char* fastact_cpu_isas() { return "emulation"; }
const char* fastact_cpu_isa() { return "emulation"; }
bool fastact_cpu_use_isa(const char* name) { return std::string_view(name) == "emulation"; }

// How rows of (outer, classes, inner) are shared out (csrc/cuda/plan.h), for tests.
struct Shared {
  int lanes, across, threads, rows_per_block, parts;
};
Shared emulation_plan(int64_t outer, int64_t classes, int64_t inner, int64_t itemsize) {
  const fastact::cuda::Plan plan(fastact::cpu::Rows::dense(outer, classes, inner), itemsize);
  return {plan.lanes, plan.across, plan.threads, plan.rows_per_block, plan.parts};
}
}
#pragma GCC visibility pop
