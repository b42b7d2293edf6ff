// What src/fastact/_library.py asks libfastact_cpu for.
#include <string_view>

#pragma GCC visibility push(default)
extern "C" {
const char* fastact_cpu_isas() { return "emulation"; }
const char* fastact_cpu_isa() { return "emulation"; }
bool fastact_cpu_use_isa(const char* name) { return std::string_view(name) == "emulation"; }
}
#pragma GCC visibility pop
