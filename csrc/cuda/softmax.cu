// softmax and log_softmax over rows of logits, for one storage type.
#include "dtype.h"
#include "launch.h"
#include "row.h"

namespace fastact {
namespace {

using cpu::SoftmaxRows;
using cuda::Plan;
using cuda::SoftmaxKernels;

template <template <class> class Formula, class S>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), 2)
    softmax_forward(const SoftmaxRows args, const Plan plan) {
  using T = Compute<S>;
  using F = Formula<T>;
  for_each_row(args.rows, plan, [&](const Team& team, const RowPlace& row) {
    const S* x = row.in<S>(args.inputs[0]);
    const auto sum =
        exponentials<in_flight<S>>(team, x, row.classes, row.stride, [](T value) { return value; });
    const T scale = F::scale(sum.rest);
    map(team, row.classes, row.stride, {x}, {row.out<S>(args.outputs[0])},
        [&](int, const T(&a)[1], T(&b)[1]) { b[0] = F::value(a[0] - sum.max, scale); });
  });
}

template <template <class> class Formula, class S>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), 2)
    softmax_backward(const SoftmaxRows args, const Plan plan) {
  using T = Compute<S>;
  using F = Formula<T>;
  for_each_row(args.rows, plan, [&](const Team& team, const RowPlace& row) {
    const S* inputs[] = {row.in<S>(args.inputs[0]), row.in<S>(args.inputs[1])};
    Sums<T, 1> mine;
    visit<in_flight<S> / 2>(team, row.classes, row.stride, inputs, [&](int, auto& a) {
      T part = T(0);
#pragma unroll
      for (int k = 0; k < int(sizeof(a[0]) / sizeof(T)); ++k) part += F::pulled(a[0][k], a[1][k]);
      mine.at[0] += part;
    });
    const T total = team.sum(mine).at[0];
    map(team, row.classes, row.stride, inputs, {row.out<S>(args.outputs[0])},
        [&](int, const T(&a)[2], T(&b)[1]) { b[0] = F::backward(a[0], a[1], total); });
  });
}

template <template <class> class Formula, class S>
__global__ void __launch_bounds__(Plan::most_threads(sizeof(S)), 2)
    softmax_double_backward(const SoftmaxRows args, const Plan plan) {
  using T = Compute<S>;
  using F = Formula<T>;
  for_each_row(args.rows, plan, [&](const Team& team, const RowPlace& row) {
    const S* inputs[] = {row.in<S>(args.inputs[0]), row.in<S>(args.inputs[1]),
                         row.in<S>(args.inputs[2])};
    Sums<T, 2> mine;
    visit<1>(team, row.classes, row.stride, inputs, [&](int, auto& a) {
      Sums<T, 2> part;
#pragma unroll
      for (int k = 0; k < int(sizeof(a[0]) / sizeof(T)); ++k) {
        part.at[0] += F::pushed(a[0][k], a[2][k]);
        part.at[1] += F::pulled(a[1][k], a[2][k]);
      }
      mine = mine + part;
    });
    const auto totals = team.sum(mine);
    const T v_sum = totals.at[0], grad_sum = totals.at[1];
    map(team, row.classes, row.stride, inputs,
        {row.out<S>(args.outputs[0]), row.out<S>(args.outputs[1])}, [&](int, const T(&a)[3], T(&b)[2]) {
          b[0] = F::forward_mode(a[0], a[2], v_sum);
          b[1] = F::by_saved(a[0], a[1], a[2], grad_sum, v_sum);
        });
  });
}

template <class S, void (*kernel)(SoftmaxRows, Plan)>
cudaError_t run(const SoftmaxRows& rows, cudaStream_t stream) {
  const Plan plan(rows.rows, sizeof(S));
  return launch(kernel, dim3(unsigned(plan.blocks)), dim3(unsigned(plan.threads)), stream, rows, plan);
}

template <template <class> class F, class S>
constexpr SoftmaxKernels kernels = {run<S, softmax_forward<F, S>>, run<S, softmax_backward<F, S>>,
                                    run<S, softmax_double_backward<F, S>>};

}  // namespace

namespace cuda {
const SoftmaxKernels& FASTACT_TABLE(softmax)() { return kernels<Softmax, Storage>; }
const SoftmaxKernels& FASTACT_TABLE(log_softmax)() { return kernels<LogSoftmax, Storage>; }
}  // namespace cuda

}  // namespace fastact
