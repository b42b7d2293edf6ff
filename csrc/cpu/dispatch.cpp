#include "dispatch.h"

#include <string>
#include <string_view>
#include <vector>

namespace fastact::cpu {
// The tables of an instruction set, from its object files.
#define FASTACT_TABLES(isa)                                                            \
  extern const PointwiseTable pointwise_##isa;                                         \
  extern const SoftmaxTable softmax_##isa, log_softmax_##isa;                          \
  extern const CrossEntropyTable cross_entropy_##isa;                                  \
  const BceKernels& bce_##isa(DType, bool, bool, bool);                                \
  static const Table table_##isa = {pointwise_##isa, softmax_##isa, log_softmax_##isa, \
                                    cross_entropy_##isa, bce_##isa};

#if defined(__x86_64__)
FASTACT_TABLES(v2)
FASTACT_TABLES(v3)
FASTACT_TABLES(v4)
#else
FASTACT_TABLES(generic)
#endif

namespace {

struct Build {
  std::string_view name;
  const Table* table;
  bool supported;
};

// Best first.
const std::vector<Build>& builds() {
  static const std::vector<Build> all = {
#if defined(__x86_64__)
      {"v4", &table_v4, bool(__builtin_cpu_supports("x86-64-v4"))},
      {"v3", &table_v3, bool(__builtin_cpu_supports("x86-64-v3"))},
      {"v2", &table_v2, bool(__builtin_cpu_supports("x86-64-v2"))},
#else
      {"generic", &table_generic, true},
#endif
  };
  return all;
}

const Build*& current() {
  static const Build* chosen = [] {
    for (const Build& build : builds())
      if (build.supported) return &build;
    return static_cast<const Build*>(nullptr);
  }();
  return chosen;
}

}  // namespace

const Table& table() { return *current()->table; }

}  // namespace fastact::cpu

const char* fastact_cpu_isas() {
  static const std::string names = [] {
    std::string joined;
    for (const auto& build : fastact::cpu::builds())
      if (build.supported) joined.append(joined.empty() ? "" : " ").append(build.name);
    return joined;
  }();
  return names.c_str();
}

const char* fastact_cpu_isa() {
  const auto* build = fastact::cpu::current();
  return build ? build->name.data() : "";
}

bool fastact_cpu_use_isa(const char* name) {
  for (const auto& build : fastact::cpu::builds())
    if (build.supported && build.name == name) {
      fastact::cpu::current() = &build;
      return true;
    }
  return false;
}
