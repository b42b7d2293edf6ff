// Each kernel file is compiled once for each storage type: this is the one, and the names of what the
// object file exports.
#pragma once

#include "../cpu/dtype.h"
#include "../formulas/storage.h"
#include "table.h"

#define FASTACT_JOIN(name, dtype) name##_##dtype
#define FASTACT_NAME(name, dtype) FASTACT_JOIN(name, dtype)
#define FASTACT_TABLE(name) FASTACT_NAME(name, FASTACT_DTYPE)

namespace fastact {
namespace {

template <cpu::DType>
struct StorageOf;
template <>
struct StorageOf<cpu::float32> {
  using type = float;
};
template <>
struct StorageOf<cpu::float64> {
  using type = double;
};
template <>
struct StorageOf<cpu::bfloat16> {
  using type = BFloat16;
};
template <>
struct StorageOf<cpu::float16> {
  using type = Half;
};

using Storage = StorageOf<cpu::FASTACT_DTYPE>::type;

}  // namespace
}  // namespace fastact
