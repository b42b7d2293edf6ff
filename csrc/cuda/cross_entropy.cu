// Cross entropy over rows of logits, for one storage type: the kernels, and their launches.
#include "cross_entropy_row.h"

#include "dtype.h"
#include "launch_rows.h"

namespace fastact {
namespace {

using cuda::CrossEntropyKernels;

// f(row) gives what is to be added up over rows, next to their weights.
template <class S, bool plain, RowKind kind, class F>
__device__ void add_up_rows(const Given<Compute<S>>& args, const Plan& plan, const F& f) {
  Sums<double, 2> mine;
  for_each_row<kind>(args.rows, plan, [&](Team<kind>& team, const RowPlace& place) {
    const CrossEntropy<S, plain, kind> row(args, plan, team, place);
    const auto result = f(row);
    if (!team.leads()) return;
    mine.at[0] += double(result);
    mine.at[1] += row.used ? double(row.weight) : 0.0;
  });
  const unsigned blocks = kind == RowKind::kept ? unsigned(plan.parts) : 1;
  if (blockIdx.x % blocks == 0) block_sums(mine, args.sums + 2 * int64_t(blockIdx.x / blocks));
}

// Of 512 threads in a multiprocessor: where 64 registers are enough.
constexpr bool has_two_blocks(bool plain, bool with_gradient, RowKind kind) {
  const bool kept = kind == RowKind::kept;
  return with_gradient ? plain && kept : plain || kept;
}

template <class S, bool plain, bool with_gradient, RowKind kind>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)),
                                  has_two_blocks(plain, with_gradient, kind) ? 2 : 1)
    forward(const Given<Compute<S>> args, const Plan plan) {
  add_up_rows<S, plain, kind>(args, plan,
                              [](const auto& row) { return row.template forward<with_gradient>(); });
}

template <class S, bool plain, RowKind kind>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), plain ? 2 : 1)
    backward(const Given<Compute<S>> args, const Plan plan) {
  for_each_row<kind>(args.rows, plan, [&](Team<kind>& team, const RowPlace& place) {
    using Row = CrossEntropy<S, plain, kind>;
    if (!Row::is_as_expected(args, place)) Row(args, plan, team, place).backward();
  });
}

// The weights alone: of a row for each thread, and sums of nothing where fewer blocks are enough for
// that than there are sums.
template <class S, class T = Compute<S>>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)))
    weigh(const Given<T> args, int64_t sums) {
  Sums<double, 2> mine;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  const int64_t begin = blockIdx.x * int64_t(blockDim.x) + threadIdx.x;
  for (int64_t i = gridDim.x + begin; i < sums; i += step) args.sums[2 * i] = args.sums[2 * i + 1] = 0;
  for (int64_t i = begin; i < args.rows.count(); i += step) {
    const int64_t target = args.target ? args.target[i] : 0;
    if (args.target && (target == args.ignore_index || uint64_t(target) >= uint64_t(args.rows.classes)))
      continue;
    mine.at[1] += args.weight && args.target ? double(static_cast<const T*>(args.weight)[target]) : 1.0;
  }
  block_sums(mine, args.sums + 2 * int64_t(blockIdx.x));
}

template <class S, RowKind kind>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), 1)
    double_backward(const Given<Compute<S>> args, const Plan plan) {
  add_up_rows<S, false, kind>(args, plan, [](const auto& row) { return row.double_backward(); });
}

using Arguments = Given<Compute<Storage>>;
constexpr int itemsize = sizeof(Storage);

// Forward kernels that go over the logits twice.
template <bool plain, bool with_gradient>
constexpr RowKernels<Arguments> twice = {forward<Storage, plain, with_gradient, RowKind::contiguous>,
                                         forward<Storage, plain, with_gradient, RowKind::strided>,
                                         forward<Storage, plain, with_gradient, RowKind::kept>};

constexpr CrossEntropyKernels kernels = {
    [](const CrossEntropyRows& rows, cudaStream_t stream) {
      if (rows.grad_logits)
        return launch_rows(is_plain(rows) ? twice<true, true> : twice<false, true>, itemsize, 1, stream,
                           Arguments(rows));
      // Without options the logits are read once.
      constexpr RowKernels<Arguments> plain = {forward<Storage, true, false, RowKind::contiguous>,
                                               forward<Storage, true, false, RowKind::strided>};
      return launch_rows(is_plain(rows) ? plain : twice<false, false>, itemsize, 1, stream,
                         Arguments(rows));
    },
    [](const CrossEntropyRows& rows, cudaStream_t stream) {
      constexpr RowKernels<Arguments> plain = {backward<Storage, true, RowKind::contiguous>,
                                               backward<Storage, true, RowKind::strided>};
      constexpr RowKernels<Arguments> general = {backward<Storage, false, RowKind::contiguous>,
                                                 backward<Storage, false, RowKind::strided>};
      return launch_rows(is_plain(rows) ? plain : general, itemsize, 0, stream, Arguments(rows));
    },
    [](const CrossEntropyRows& rows, cudaStream_t stream) {
      constexpr RowKernels<Arguments> kernels = {double_backward<Storage, RowKind::contiguous>,
                                                 double_backward<Storage, RowKind::strided>};
      return launch_rows(kernels, itemsize, 0, stream, Arguments(rows));
    },
    [](const CrossEntropyRows& rows, cudaStream_t stream) {
      const Plan plan(rows.rows, itemsize);
      const int64_t enough = (rows.rows.count() + plan.threads - 1) / plan.threads;
      const dim3 blocks(unsigned(enough < plan.blocks ? enough : plan.blocks));
      return launch(weigh<Storage>, {blocks, dim3(unsigned(plan.threads))}, stream, Arguments(rows),
                    plan.blocks);
    }};

constexpr int finish_threads = 512;

// One block.
template <class S, class T = Compute<S>>
__global__ void __launch_bounds__(finish_threads)
    finish(const double* sums, int64_t count, bool mean, S* loss, T* total) {
  Sums<double, 2> mine;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    mine.at[0] += sums[2 * i];
    mine.at[1] += sums[2 * i + 1];
  }
  __shared__ double result[2];
  block_sums(mine, result);
  if (threadIdx.x > 0) return;
  *loss = store<S>(T(mean ? result[0] / result[1] : result[0]));
  if (total) *total = T(result[1]);
}

cudaError_t run_finish(const double* sums, int64_t count, bool mean, void* loss, void* total,
                       cudaStream_t stream) {
  return launch(finish<Storage>, {dim3(1), dim3(finish_threads)}, stream, sums, count, mean,
                static_cast<Storage*>(loss), static_cast<Compute<Storage>*>(total));
}

}  // namespace

namespace cuda {
const CrossEntropyKernels& FASTACT_TABLE(cross_entropy)() { return kernels; }
FinishKernel FASTACT_TABLE(finish)() { return run_finish; }
}  // namespace cuda

}  // namespace fastact
