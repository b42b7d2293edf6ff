// The storage types, as tables are indexed by them.
#pragma once

namespace fastact::cpu {

enum DType { float32, float64, bfloat16, float16, dtype_count };

}  // namespace fastact::cpu
