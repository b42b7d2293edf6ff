// The one macro every formula carries. Formulas are plain scalar C++ for host and device: no torch,
// no STL, no CUDA runtime. Everything lives in an anonymous namespace, because the same text is
// compiled once per instruction set into one library: with external linkage the linker would keep
// one copy of each function, and could keep the AVX-512 one for a machine without AVX-512.
#pragma once

#if defined(__CUDACC__)
#define FASTACT_FN __host__ __device__ __forceinline__
#else
#define FASTACT_FN inline __attribute__((always_inline))
#endif
