// torch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

namespace fastact {

// Elements below which a second thread costs more than it brings; torch's own figure.
inline constexpr int64_t grain = 32768;

// body(begin, end) over [0, n), in parts of at least `least`. torch's parallel_for costs microseconds
// even where it runs on the calling thread only.
template <class Body>
void parallel(int64_t n, int64_t least, const Body& body) {
  if (n <= least) return body(int64_t(0), n);
  torch::stable::parallel_for(0, n, least, body);
}

}  // namespace fastact
