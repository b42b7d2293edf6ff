// softmax and log_softmax over rows of logits, for one storage type.
#include "dtype.h"
#include "launch_rows.h"
#include "row.h"

namespace fastact {
namespace {

using cpu::SoftmaxRows;
using cuda::Plan;
using cuda::SoftmaxKernels;

template <template <class> class Formula, class S, RowKind kind>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), 2)
    softmax_forward(const SoftmaxRows args, const Plan plan) {
  using T = Compute<S>;
  using F = Formula<T>;
  for_each_row<kind>(args.rows, plan, [&](Team<kind>& team, const RowPlace& row) {
    const Operands<S, 1, kind> logits{team, plan, row, row.classes, {row.in<S>(args.inputs[0])}};
    const auto sum = exponentials<in_flight<S>>(logits, [](T value) { return value; });
    const T scale = F::scale(sum.max, sum.rest);
    logits.map({row.out<S>(args.outputs[0])}, [&](int, const T(&a)[1], T(&b)[1]) {
      b[0] = F::template value<sizeof(S) == 2>(a[0] - sum.max, scale);
    });
  });
}

template <template <class> class Formula, class S, RowKind kind>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), 2)
    softmax_backward(const SoftmaxRows args, const Plan plan) {
  using T = Compute<S>;
  using F = Formula<T>;
  for_each_row<kind>(args.rows, plan, [&](Team<kind>& team, const RowPlace& row) {
    const Operands<S, 2, kind> operands{
        team, plan, row, row.classes, {row.in<S>(args.inputs[0]), row.in<S>(args.inputs[1])}};
    using Sum = Sums<T, 1>;
    const auto sums = operands.template sum<in_flight<S> / 2, Sum>([&](Sum& mine, int, int, auto& a) {
      T part = T(0);
#pragma unroll
      for (int k = 0; k < int(sizeof(a[0]) / sizeof(T)); ++k) part += F::vjp_term(a[0][k], a[1][k]);
      mine.at[0] += part;
    });
    const T total = sums.at[0];
    operands.map({row.out<S>(args.outputs[0])},
                 [&](int, const T(&a)[2], T(&b)[1]) { b[0] = F::backward(a[0], a[1], total); });
  });
}

template <template <class> class Formula, class S, RowKind kind>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), 1)
    softmax_double_backward(const SoftmaxRows args, const Plan plan) {
  using T = Compute<S>;
  using F = Formula<T>;
  for_each_row<kind>(args.rows, plan, [&](Team<kind>& team, const RowPlace& row) {
    const Operands<S, 3, kind> operands{
        team,
        plan,
        row,
        row.classes,
        {row.in<S>(args.inputs[0]), row.in<S>(args.inputs[1]), row.in<S>(args.inputs[2])}};
    using Sum = Sums<T, 2>;
    const auto totals = operands.template sum<1, Sum>([&](Sum& mine, int, int, auto& a) {
      Sum part;
#pragma unroll
      for (int k = 0; k < int(sizeof(a[0]) / sizeof(T)); ++k) {
        part.at[0] += F::jvp_term(a[0][k], a[2][k]);
        part.at[1] += F::vjp_term(a[1][k], a[2][k]);
      }
      mine = mine + part;
    });
    const T v_sum = totals.at[0], grad_sum = totals.at[1];
    operands.map({row.out<S>(args.outputs[0]), row.out<S>(args.outputs[1])},
                 [&](int, const T(&a)[3], T(&b)[2]) {
                   b[0] = F::jvp(a[0], a[2], v_sum);
                   b[1] = F::by_saved(a[0], a[1], a[2], grad_sum, v_sum);
                 });
  });
}

template <template <class> class F, class S>
constexpr SoftmaxKernels kernels = {
    [](const SoftmaxRows& rows, cudaStream_t stream) {
      constexpr RowKernels<SoftmaxRows> forward = {softmax_forward<F, S, RowKind::contiguous>,
                                                   softmax_forward<F, S, RowKind::strided>,
                                                   softmax_forward<F, S, RowKind::kept>};
      return launch_rows(forward, sizeof(S), 1, stream, rows);
    },
    [](const SoftmaxRows& rows, cudaStream_t stream) {
      constexpr RowKernels<SoftmaxRows> backward = {softmax_backward<F, S, RowKind::contiguous>,
                                                    softmax_backward<F, S, RowKind::strided>,
                                                    softmax_backward<F, S, RowKind::kept>};
      return launch_rows(backward, sizeof(S), 2, stream, rows);
    },
    [](const SoftmaxRows& rows, cudaStream_t stream) {
      constexpr RowKernels<SoftmaxRows> double_backward = {
          softmax_double_backward<F, S, RowKind::contiguous>,
          softmax_double_backward<F, S, RowKind::strided>};
      return launch_rows(double_backward, sizeof(S), 0, stream, rows);
    }};

}  // namespace

namespace cuda {
const SoftmaxKernels& FASTACT_TABLE(softmax)() { return kernels<Softmax, Storage>; }
const SoftmaxKernels& FASTACT_TABLE(log_softmax)() { return kernels<LogSoftmax, Storage>; }
}  // namespace cuda

}  // namespace fastact
