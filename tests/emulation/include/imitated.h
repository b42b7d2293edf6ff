// Stands in for instructions of a GPU (csrc/formulas/intrinsics.h), with errors as large as theirs may
// be, and their NaN. Included in the middle of a namespace.
inline constexpr bool has_exp2 = true;

// y, off by -2 to 2 ulp, as x's bits say.
inline float inexact(float y, float x, int most) {
  if (y != y) return __builtin_bit_cast(float, 0x7fffffffu);
  if (y == 0 || y - y != 0) return y;
  const uint32_t hash = __builtin_bit_cast(uint32_t, x) * 2654435769u >> 16;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, y) + (hash % (2 * most + 1) - most));
}
inline float flushed(float x) {
  return __builtin_fabsf(x) < 0x1p-126f ? __builtin_copysignf(0.0f, x) : x;
}

inline float reciprocal_instruction(float x) { return inexact(flushed(1 / flushed(x)), x, 1); }
inline float exp2_instruction(float x) {
  const float y = __builtin_exp2f(flushed(x));
  // Powers that are whole come out right.
  return x == __builtin_truncf(x) ? flushed(y) : flushed(inexact(y, x, 2));
}
