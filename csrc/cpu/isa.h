// The name of a table in the object file of the instruction set that is being compiled for: every other
// symbol of such a file is in an anonymous namespace (formulas/macros.h).
#pragma once

#define FASTACT_JOIN(name, isa) name##_##isa
#define FASTACT_NAME(name, isa) FASTACT_JOIN(name, isa)
#define FASTACT_TABLE(name) FASTACT_NAME(name, FASTACT_ISA)
