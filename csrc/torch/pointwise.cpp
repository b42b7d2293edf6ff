#include "pointwise.h"

#include <algorithm>
#include <array>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fastact {
namespace {

constexpr int max_operands = 8;
using Pointers = std::array<char*, max_operands>;

// Elements below which a second thread costs more than it brings; torch's own figure.
constexpr int64_t grain = 32768;

// torch's parallel_for costs microseconds even where it runs on the calling thread only.
template <class Body>
void parallel(int64_t n, const Body& body) {
  if (n <= grain) return body(int64_t(0), n);
  torch::stable::parallel_for(0, n, grain, body);
}

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

// The common iteration space: outermost dimension first, without those of size 1, merged where every
// operand allows it.
struct Walk {
  struct Dim {
    int64_t size;
    std::array<int64_t, max_operands> strides;  // in elements
  };
  std::vector<Dim> dims;

  // In the order of the strides of the first output.
  Walk(std::span<const Tensor> operands, int inputs) {
    const Tensor& leader = operands[inputs];
    std::vector<int64_t> order;
    for (int64_t d = 0; d < leader.dim(); ++d)
      if (leader.size(d) != 1) order.push_back(d);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return leader.stride(a) > leader.stride(b); });
    for (int64_t d : order) {
      Dim dim{leader.size(d), {}};
      for (size_t i = 0; i < operands.size(); ++i) dim.strides[i] = operands[i].stride(d);
      append(dim, operands.size());
    }
  }

  void append(Dim dim, size_t count) {
    bool merges = !dims.empty();
    for (size_t i = 0; merges && i < count; ++i)
      merges = dims.back().strides[i] == dim.strides[i] * dim.size;
    if (merges) {
      dim.size *= dims.back().size;
      dims.back() = dim;
    } else {
      dims.push_back(dim);
    }
  }

  bool has_runs(size_t operand) const { return dims.empty() || dims.back().strides[operand] == 1; }
};

void run(PointwiseKernel kernel, const double* params, const Walk& walk, const Pointers& data,
         size_t count, int64_t itemsize, int64_t numel) {
  const int64_t inner = walk.dims.empty() ? 1 : walk.dims.back().size;
  parallel(numel, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t column = begin % inner;
      const int64_t n = std::min(end - begin, inner - column);
      Pointers at = data;
      for (size_t i = 0; i < count; ++i) at[i] += column * itemsize;
      int64_t row = begin / inner;
      for (int64_t d = int64_t(walk.dims.size()) - 2; d >= 0; --d) {
        const auto& dim = walk.dims[d];
        for (size_t i = 0; i < count; ++i) at[i] += (row % dim.size) * dim.strides[i] * itemsize;
        row /= dim.size;
      }
      kernel(reinterpret_cast<void* const*>(at.data()), n, params);
      begin += n;
    }
  });
}

Pointers data_of(std::span<const Tensor> operands) {
  Pointers data{};
  for (size_t i = 0; i < operands.size(); ++i) data[i] = static_cast<char*>(operands[i].data_ptr());
  return data;
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

}  // namespace

Tensor allocate_like(const Tensor& x) {
  Tensor y = has_odd_strides(x) ? torch::stable::new_empty(x, x.sizes()) : torch::stable::empty_like(x);
  const int64_t bytes = y.numel() * int64_t(y.element_size());
  if (bytes >= int64_t(4) << 20) advise_huge_pages(y.data_ptr(), bytes);
  return y;
}

void pointwise(PointwiseKernel kernel, const double* params, std::span<Tensor> operands, int inputs) {
  const size_t count = operands.size();
  const int64_t numel = operands[inputs].numel();
  const auto itemsize = int64_t(operands[inputs].element_size());
  if (numel == 0) return;

  if (std::all_of(operands.begin(), operands.end(),
                  [](const Tensor& t) { return t.is_contiguous(); })) {
    const Pointers data = data_of(operands);
    return parallel(numel, [&](int64_t begin, int64_t end) {
      Pointers at = data;
      for (size_t i = 0; i < count; ++i) at[i] += begin * itemsize;
      kernel(reinterpret_cast<void* const*>(at.data()), end - begin, params);
    });
  }

  const Walk walk(operands, inputs);
  std::vector<Tensor> dense(operands.begin(), operands.end());
  bool copied = false;
  for (size_t i = 0; i < count; ++i) {
    if (walk.has_runs(i)) continue;
    dense[i] = torch::stable::empty_like(operands[inputs]);
    if (i < size_t(inputs)) torch::stable::copy_(dense[i], operands[i]);
    copied = true;
  }
  run(kernel, params, copied ? Walk(dense, inputs) : walk, data_of(dense), count, itemsize, numel);
  for (size_t i = inputs; i < count; ++i)
    if (!walk.has_runs(i)) torch::stable::copy_(operands[i], dense[i]);
}

}  // namespace fastact
