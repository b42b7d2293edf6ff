// Binary cross entropy with logits, for one storage type. A block takes a part of the elements.
#include "../formulas/bce.h"

#include "dtype.h"
#include "launch.h"
#include "row.h"

namespace fastact {
namespace {

using cpu::BceOperands;
using cuda::BceKernels;

constexpr int threads_per_block = 256;

template <class S>
struct Bce {
  using T = Compute<S>;
  const BceOperands& o;
  const Team<RowKind::contiguous> team{threads_per_block};
  const int64_t begin;
  const int n;

  __device__ Bce(const BceOperands& operands, int64_t numel)
      : o(operands),
        begin(int64_t(blockIdx.x) * cpu::bce_part),
        n(int(numel - begin < cpu::bce_part ? numel - begin : cpu::bce_part)) {}

  // This block's part of an operand; where there is none, x stands in for it, which is at hand.
  FASTACT_FN const S* at(const void* operand) const {
    return static_cast<const S*>(operand ? operand : o.x) + begin;
  }
  FASTACT_FN S* at(void* result) const { return static_cast<S*>(result) + begin; }

  FASTACT_FN BinaryCrossEntropy<T> formula(T target, T pos_weight) const {
    return {target, o.pos_weight ? pos_weight : T(1)};
  }
  FASTACT_FN T weighted(T value, T weight) const { return o.weight ? weight * value : value; }

  // f(a) of the elements a of inputs: written, or added up.
  template <int inputs, class F>
  __device__ void results(const S* const (&x)[inputs], const F& f) const {
    if (!o.reduced) {
      map(team, n, 1, x, {at(o.loss)}, [&](int, const T(&a)[inputs], T(&b)[1]) { b[0] = f(a); });
      return;
    }
    Sums<double, 2> mine;
    visit<1>(team, n, 1, x, [&](int, int, auto& a) {
      T part = T(0);
#pragma unroll
      for (int k = 0; k < int(sizeof(a[0]) / sizeof(T)); ++k) {
        T element[inputs];
#pragma unroll
        for (int i = 0; i < inputs; ++i) element[i] = a[i][k];
        part += f(element);
      }
      mine.at[0] += double(part);
    });
    mine.at[1] = team.leads() ? double(n) : 0.0;
    block_sums(mine, o.sums + 2 * int64_t(blockIdx.x));
  }

  __device__ void forward() const {
    const S* x[] = {at(o.x), at(o.target), at(o.weight), at(o.pos_weight)};
    results(x, [&](const T(&a)[4]) { return weighted(formula(a[1], a[3]).value(a[0]), a[2]); });
  }

  FASTACT_FN T gradient_of_sum() const {
    return o.reduced ? T(double(*static_cast<const T*>(o.grad)) / o.divisor) : T(0);
  }

  __device__ void backward() const {
    const T of_sum = gradient_of_sum();
    const S* x[] = {at(o.x), at(o.target), at(o.weight), at(o.pos_weight),
                    at(o.reduced ? nullptr : o.grad)};
    map(team, n, 1, x, {at(o.grad_x)}, [&](int, const T(&a)[5], T(&b)[1]) {
      b[0] = (o.reduced ? of_sum : a[4]) * weighted(formula(a[1], a[3]).slope(a[0]), a[2]);
    });
  }

  __device__ void double_backward() const {
    const S* x[] = {at(o.x),          at(o.target), at(o.weight),
                    at(o.pos_weight), at(o.v),      at(o.reduced ? nullptr : o.grad)};
    results(x, [&](const T(&a)[6]) { return a[4] * weighted(formula(a[1], a[3]).slope(a[0]), a[2]); });
    const T of_sum = gradient_of_sum();
    map(team, n, 1, x, {at(o.grad_x)}, [&](int, const T(&a)[6], T(&b)[1]) {
      b[0] = a[4] * (o.reduced ? of_sum : a[5]) * weighted(formula(a[1], a[3]).curvature(a[0]), a[2]);
    });
  }
};

enum class Pass { forward, backward, double_backward };

template <class S, Pass pass>
__global__ void __launch_bounds__(threads_per_block, 2) bce(const BceOperands operands, int64_t numel) {
  const Bce<S> part(operands, numel);
  if constexpr (pass == Pass::forward) part.forward();
  if constexpr (pass == Pass::backward) part.backward();
  if constexpr (pass == Pass::double_backward) part.double_backward();
}

template <class S, Pass pass>
cudaError_t run(const BceOperands& operands, int64_t numel, cudaStream_t stream) {
  const int64_t parts = (numel + cpu::bce_part - 1) / cpu::bce_part;
  return launch(bce<S, pass>, {dim3(unsigned(parts)), dim3(threads_per_block)}, stream, operands,
                numel);
}

template <class S>
constexpr BceKernels kernels = {run<S, Pass::forward>, run<S, Pass::backward>,
                                run<S, Pass::double_backward>};

}  // namespace

namespace cuda {
const BceKernels& FASTACT_TABLE(bce)() { return kernels<Storage>; }
}  // namespace cuda

}  // namespace fastact
