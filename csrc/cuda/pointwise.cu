// The elementwise kernels of one storage type.
#include "../formulas/families.h"
#include "chunk.h"
#include "dtype.h"
#include "launch.h"

namespace fastact {
namespace {

using cuda::Pointwise;
using cuda::PointwiseKernels;

constexpr int threads_per_block = 256;

// What a kernel needs to know of each of the three: how many tensors, and what becomes of an element.
template <class F, class T, bool gated>
struct Forward {
  static constexpr bool has_flat = !gated;  // a kernel for the common case
  static constexpr int inputs = gated ? 2 : 1, outputs = 1;
  FASTACT_FN static void apply(const F& f, const T (&in)[inputs], T (&out)[outputs]) {
    if constexpr (gated)
      out[0] = GatedFamily<F, T>::forward(f, in[0], in[1]);
    else
      out[0] = UnaryFamily<F, T>::forward(f, in[0]);
  }
};

template <class F, class T, bool gated>
struct Backward {
  static constexpr bool has_flat = !gated;
  static constexpr int inputs = gated ? 3 : 2, outputs = gated ? 2 : 1;
  FASTACT_FN static void apply(const F& f, const T (&in)[inputs], T (&out)[outputs]) {
    if constexpr (gated)
      GatedFamily<F, T>::backward(f, in[0], in[1], in[2], out[0], out[1]);
    else
      out[0] = UnaryFamily<F, T>::backward(f, in[0], in[1]);
  }
};

template <class F, class T, bool gated>
struct DoubleBackward {
  static constexpr bool has_flat = false;
  static constexpr int inputs = gated ? 5 : 3, outputs = gated ? 3 : 2;
  FASTACT_FN static void apply(const F& f, const T (&in)[inputs], T (&out)[outputs]) {
    if constexpr (gated)
      GatedFamily<F, T>::double_backward(f, in[0], in[1], in[2], in[3], in[4], out[0], out[1], out[2]);
    else
      UnaryFamily<F, T>::double_backward(f, in[0], in[1], in[2], out[0], out[1]);
  }
};

// How many chunks of each tensor a thread asks for before it needs the first.
template <class Pass>
constexpr int chunks_in_flight = Pass::inputs == 1 ? 2 : 1;

// How many blocks of a kernel a multiprocessor is to hold: as many registers as that leaves are enough.
template <class S, class Pass>
constexpr int blocks_at_once = sizeof(S) == 8 || Pass::inputs > 2 ? 2 : 4;

enum class Address { any, aligned };

// The results of a chunk.
template <class Pass, Address address = Address::any, class F, class S>
__device__ __forceinline__ void apply(const F& f, const Chunk<S> (&in)[Pass::inputs],
                                      S* const (&to)[Pass::outputs]) {
  using T = Compute<S>;
  T out[Pass::outputs][per_chunk<S>];
#pragma unroll
  for (int k = 0; k < per_chunk<S>; ++k) {
    T a[Pass::inputs], b[Pass::outputs];
#pragma unroll
    for (int i = 0; i < Pass::inputs; ++i) a[i] = load(in[i].at[k]);
    Pass::apply(f, a, b);
#pragma unroll
    for (int i = 0; i < Pass::outputs; ++i) out[i][k] = b[i];
  }
#pragma unroll
  for (int i = 0; i < Pass::outputs; ++i)
    if constexpr (address == Address::aligned)
      *reinterpret_cast<uint4*>(to[i]) = __builtin_bit_cast(uint4, stored<S>(out[i]));
    else
      store_chunk(to[i], stored<S>(out[i]));
}

// Where row r of each operand begins.
template <int count>
FASTACT_FN void find_row(const Pointwise& walk, unsigned r, int64_t (&offset)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) offset[i] = 0;
#pragma unroll 1
  for (int d = walk.dims - 1; d >= 0; --d) {
    const unsigned size = walk.sizes[d], rest = d > 0 ? r / size : 0;
    const unsigned at = r - rest * size;
#pragma unroll
    for (int i = 0; i < count; ++i) offset[i] += at * walk.strides[d][i];
    r = rest;
  }
}

// Threads along x share a row, threads along y have rows of their own. The chunks of a row are those
// of its first output's addresses; what lies before and after them is done one by one.
template <class S, class Pass, class F>
__global__ void __launch_bounds__(threads_per_block, blocks_at_once<S, Pass>)
    pointwise(const F f, const Pointwise walk) {
  using T = Compute<S>;
  constexpr int inputs = Pass::inputs, outputs = Pass::outputs;
  constexpr int width = per_chunk<S>, in_flight = chunks_in_flight<Pass>;
  const int64_t first = int64_t(blockIdx.x) * blockDim.x * in_flight + threadIdx.x;

  for (unsigned r = blockIdx.y * blockDim.y + threadIdx.y; r < walk.rows; r += gridDim.y * blockDim.y) {
    int64_t offset[inputs + outputs];
    find_row(walk, r, offset);
    const S* x[inputs];
    S* y[outputs];
#pragma unroll
    for (int i = 0; i < inputs; ++i) x[i] = static_cast<const S*>(walk.operands[i]) + offset[i];
#pragma unroll
    for (int i = 0; i < outputs; ++i)
      y[i] = static_cast<S*>(walk.operands[inputs + i]) + offset[inputs + i];

    int64_t head = (width - elements_past_boundary(y[0])) % width;
    head = head < walk.inner ? head : walk.inner;
    int64_t chunks = (walk.inner - head) / width;
    bool aligned = true;
#pragma unroll
    for (int i = 0; i < inputs; ++i) aligned &= elements_past_boundary(x[i] + head) == 0;
    // A shifted load reads up to a chunk less one element past its end, which may be the tensor's.
    if (!aligned && chunks > 0 && walk.inner - head - chunks * width < width - 1) --chunks;

    Chunk<S> in[in_flight][inputs];
#pragma unroll
    for (int c = 0; c < in_flight; ++c)
      if (const int64_t chunk = first + c * int(blockDim.x); chunk < chunks)
#pragma unroll
        for (int i = 0; i < inputs; ++i) in[c][i] = load_chunk(x[i] + head + chunk * width);
#pragma unroll
    for (int c = 0; c < in_flight; ++c)
      if (const int64_t chunk = first + c * int(blockDim.x); chunk < chunks) {
        S* to[outputs];
#pragma unroll
        for (int i = 0; i < outputs; ++i) to[i] = y[i] + head + chunk * width;
        apply<Pass>(f, in[c], to);
      }

    const int64_t middle = chunks * width;
    for (int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; e < walk.inner - middle;
         e += int64_t(gridDim.x) * blockDim.x) {
      const int64_t j = e < head ? e : e + middle;
      T a[inputs], b[outputs];
#pragma unroll
      for (int i = 0; i < inputs; ++i) a[i] = load(x[i][j]);
      Pass::apply(f, a, b);
#pragma unroll
      for (int i = 0; i < outputs; ++i) y[i][j] = store<S>(b[i]);
    }
  }
}

// What most calls are, one row of operands that all begin at a multiple of 16 bytes, without the
// arithmetic that other layouts take: instructions may be what is short. Where more operands are read
// for an element they are not.
template <int count>
struct Flat {
  void* operands[count];
  int64_t n;
};

template <class S, class Pass, class F>
__global__ void __launch_bounds__(threads_per_block, blocks_at_once<S, Pass>)
    flat(const F f, const Flat<Pass::inputs + Pass::outputs> walk) {
  using T = Compute<S>;
  constexpr int inputs = Pass::inputs, outputs = Pass::outputs;
  constexpr int width = per_chunk<S>, in_flight = chunks_in_flight<Pass>;
  const unsigned first = blockIdx.x * (threads_per_block * in_flight) + threadIdx.x;
  const unsigned chunks = unsigned(walk.n / width);

  uint4 in[in_flight][inputs];
#pragma unroll
  for (int c = 0; c < in_flight; ++c)
    if (const unsigned chunk = first + c * threads_per_block; chunk < chunks)
#pragma unroll
      for (int i = 0; i < inputs; ++i) in[c][i] = static_cast<const uint4*>(walk.operands[i])[chunk];
#pragma unroll
  for (int c = 0; c < in_flight; ++c)
    if (const unsigned chunk = first + c * threads_per_block; chunk < chunks) {
      Chunk<S> x[inputs];
      S* y[outputs];
#pragma unroll
      for (int i = 0; i < inputs; ++i) x[i] = __builtin_bit_cast(Chunk<S>, in[c][i]);
#pragma unroll
      for (int i = 0; i < outputs; ++i)
        y[i] = static_cast<S*>(walk.operands[inputs + i]) + int64_t(chunk) * width;
      apply<Pass, Address::aligned>(f, x, y);
    }

  const int64_t j = walk.n / width * width + threadIdx.x;
  if (blockIdx.x > 0 || j >= walk.n) return;
  T a[inputs], b[outputs];
#pragma unroll
  for (int i = 0; i < inputs; ++i) a[i] = load(static_cast<const S*>(walk.operands[i])[j]);
  Pass::apply(f, a, b);
#pragma unroll
  for (int i = 0; i < outputs; ++i) static_cast<S*>(walk.operands[inputs + i])[j] = store<S>(b[i]);
}

// Whether the kernel above can do it.
template <class S, class Pass>
bool is_flat(const Pointwise& walk) {
  constexpr int64_t in_block = threads_per_block * chunks_in_flight<Pass>;
  if (walk.rows > 1 || walk.inner / per_chunk<S> > UINT32_MAX - in_block) return false;
  for (int i = 0; i < Pass::inputs + Pass::outputs; ++i)
    if (uintptr_t(walk.operands[i]) % 16 != 0) return false;
  return true;
}

template <class S, class Pass, class F>
cudaError_t launch_flat(const F& f, const Pointwise& walk, cudaStream_t stream) {
  Flat<Pass::inputs + Pass::outputs> operands;
  for (int i = 0; i < Pass::inputs + Pass::outputs; ++i) operands.operands[i] = walk.operands[i];
  operands.n = walk.inner;
  const int64_t in_block = int64_t(threads_per_block) * per_chunk<S> * chunks_in_flight<Pass>;
  const int64_t blocks = (walk.inner + in_block - 1) / in_block;
  return launch(flat<S, Pass, F>, {dim3(unsigned(blocks)), dim3(threads_per_block)}, stream, f,
                operands);
}

template <class S, template <class, class> class Formula, template <class, class, bool> class Pass,
          bool gated>
cudaError_t launch_pointwise(const Pointwise& walk, const double* params, cudaStream_t stream) {
  using F = typename Arithmetic<S, Formula>::F;
  using Chosen = Pass<F, Compute<S>, gated>;
  // In double the arithmetic takes longer than the rest.
  if constexpr (Chosen::has_flat && sizeof(S) < 8)
    if (is_flat<S, Chosen>(walk)) return launch_flat<S, Chosen>(F(params), walk, stream);
  const int64_t chunks = walk.inner / per_chunk<S> + 1;
  unsigned along = 1;  // threads along a row
  while (along < threads_per_block && along * chunks_in_flight<Chosen> < chunks) along *= 2;
  const unsigned across = threads_per_block / along;
  const int64_t blocks =
      (chunks + along * chunks_in_flight<Chosen> - 1) / (along * chunks_in_flight<Chosen>);
  const unsigned sets = (walk.rows + across - 1) / across;
  return launch(pointwise<S, Chosen, F>,
                {dim3(unsigned(blocks), sets < 65535 ? sets : 65535), dim3(along, across)}, stream,
                F(params), walk);
}

template <template <class, class> class Formula, bool gated>
constexpr PointwiseKernels kernels = {launch_pointwise<Storage, Formula, Forward, gated>,
                                      launch_pointwise<Storage, Formula, Backward, gated>,
                                      launch_pointwise<Storage, Formula, DoubleBackward, gated>};

template <bool gated, template <class, class> class... Formulas>
const PointwiseKernels* all_of(List<Formulas...>) {
  static constexpr PointwiseKernels all[] = {kernels<Formulas, gated>...};
  return all;
}

}  // namespace

namespace cuda {
#if FASTACT_GATED
const PointwiseKernels* FASTACT_TABLE(gated)() { return all_of<true>(Gates()); }
#else
const PointwiseKernels* FASTACT_TABLE(unary)() { return all_of<false>(Activations()); }
#endif
}  // namespace cuda

}  // namespace fastact
