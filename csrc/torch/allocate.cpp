#include "allocate.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastact {
namespace {

// Fresh memory is zeroed by the kernel page by page at its first touch, which costs more than the
// activation; with 2 MiB pages it costs a fifth (docs/design.md, "Page faults").
void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(2) << 20;
  uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) & ~(page - 1);
  uintptr_t end = (reinterpret_cast<uintptr_t>(data) + uintptr_t(bytes)) & ~(page - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Whether x is contiguous, but not in its strides along dimensions of size 1, or being empty: outputs
// have the strides of a fresh tensor then.
bool has_odd_strides(const Tensor& x) {
  if (!x.is_contiguous()) return false;
  int64_t expected = 1;
  for (int64_t d = x.dim() - 1; d >= 0; --d) {
    if (x.stride(d) != expected) return true;
    expected *= std::max<int64_t>(x.size(d), 1);
  }
  return false;
}

Tensor advised(Tensor y) {
  const int64_t bytes = y.numel() * int64_t(y.element_size());
  if (bytes >= int64_t(4) << 20) advise_huge_pages(y.data_ptr(), bytes);
  return y;
}

}  // namespace

Tensor allocate_contiguous(const Tensor& x) {
  return advised(torch::stable::new_empty(x, x.sizes()));
}

Tensor allocate_like(const Tensor& x) {
  return has_odd_strides(x) ? allocate_contiguous(x) : advised(torch::stable::empty_like(x));
}

}  // namespace fastact
