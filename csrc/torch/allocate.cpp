#include "allocate.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <array>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastact {

using torch::headeronly::ScalarType;

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

// Through the C interface that torch::stable::new_empty reaches by way of the dispatcher, which takes
// longer than a small kernel.
Tensor empty(const Tensor& x, std::span<const int64_t> sizes, int32_t dtype) {
  constexpr size_t usual = 8;
  std::array<int64_t, usual> few;
  std::vector<int64_t> many(sizes.size() > usual ? sizes.size() : 0);
  int64_t* strides = many.empty() ? few.data() : many.data();
  int64_t stride = 1;
  for (size_t d = sizes.size(); d-- > 0;) {
    strides[d] = stride;
    stride *= std::max<int64_t>(sizes[d], 1);
  }
  int32_t device_type;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
  AtenTensorHandle handle;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.data(), strides, dtype,
                                                  device_type, x.get_device(), &handle));
  return Tensor(handle);
}

Tensor advised(Tensor y) {
  const int64_t bytes = y.is_cuda() ? 0 : y.numel() * int64_t(y.element_size());
  if (bytes >= int64_t(4) << 20) advise_huge_pages(y.data_ptr(), bytes);
  return y;
}

}  // namespace

Tensor allocate_small(const Tensor& x, std::span<const int64_t> sizes, ScalarType dtype) {
  return empty(x, sizes,
               dtype == ScalarType::Double ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32());
}

Tensor allocate_contiguous(const Tensor& x) {
  int32_t dtype;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  const auto sizes = x.sizes();
  return advised(empty(x, {sizes.data(), sizes.size()}, dtype));
}

Tensor allocate_like(const Tensor& x) {
  // A dense tensor keeps its strides, but those of a contiguous one may be odd where nothing hangs
  // on them, and a fresh tensor's are not.
  return x.is_contiguous() ? allocate_contiguous(x) : advised(torch::stable::empty_like(x));
}

}  // namespace fastact
