// The functions of elementwise operations, by their names in graphs: `f_` over real numbers, `i_` over whole
// numbers and truth values (0 and 1). They are the formulas of the reference device; nothing is approximated
// beyond the last places of the libraries' own functions.
#pragma once

__device__ __forceinline__ float f_neg(float x) { return -x; }
__device__ __forceinline__ float f_exp(float x) { return expf(x); }
__device__ __forceinline__ float f_expm1(float x) { return expm1f(x); }
__device__ __forceinline__ float f_log(float x) { return logf(x); }
__device__ __forceinline__ float f_log1p(float x) { return log1pf(x); }
__device__ __forceinline__ float f_sqrt(float x) { return sqrtf(x); }
__device__ __forceinline__ float f_rsqrt(float x) { return 1.0f / sqrtf(x); }
__device__ __forceinline__ float f_recip(float x) { return 1.0f / x; }
__device__ __forceinline__ float f_abs(float x) { return fabsf(x); }
__device__ __forceinline__ float f_sign(float x) { return x == 0.0f || x != x ? x : copysignf(1.0f, x); }
__device__ __forceinline__ float f_sin(float x) { return sinf(x); }
__device__ __forceinline__ float f_cos(float x) { return cosf(x); }
__device__ __forceinline__ float f_tanh(float x) { return tanhf(x); }
__device__ __forceinline__ float f_erf(float x) { return erff(x); }
__device__ __forceinline__ float f_sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float f_floor(float x) { return floorf(x); }
__device__ __forceinline__ float f_ceil(float x) { return ceilf(x); }
__device__ __forceinline__ float f_round(float x) { return rintf(x); }
// To the nearest number of a format of 16 bits, ties to even: adding a power of two whose last bit is the last one to
// keep rounds there.
__device__ __forceinline__ float f_bf16(float x) {
  unsigned u = __float_as_uint(x);
  return x != x ? x : __uint_as_float((u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u);
}
__device__ __forceinline__ float f_f16(float x) {
  unsigned a = __float_as_uint(x) & 0x7fffffffu, e = a & 0x7f800000u;
  if (x != x) return x;
  if (a >= 0x477ff000u) return copysignf(__uint_as_float(0x7f800000u), x);
  float magic = __uint_as_float((e > 113u << 23 ? e : 113u << 23) + (13u << 23));
  return copysignf((__uint_as_float(a) + magic) - magic, x);
}

__device__ __forceinline__ float f_add(float x, float y) { return x + y; }
__device__ __forceinline__ float f_sub(float x, float y) { return x - y; }
__device__ __forceinline__ float f_mul(float x, float y) { return x * y; }
__device__ __forceinline__ float f_div(float x, float y) { return x / y; }
__device__ __forceinline__ float f_pow(float x, float y) { return powf(x, y); }
// NaN where either is.
__device__ __forceinline__ float f_min(float x, float y) { return x < y || x != x ? x : y; }
__device__ __forceinline__ float f_max(float x, float y) { return x > y || x != x ? x : y; }
__device__ __forceinline__ float f_rem(float x, float y) { return x - y * floorf(x / y); }

__device__ __forceinline__ int f_eq(float x, float y) { return x == y; }
__device__ __forceinline__ int f_ne(float x, float y) { return x != y; }
__device__ __forceinline__ int f_lt(float x, float y) { return x < y; }
__device__ __forceinline__ int f_le(float x, float y) { return x <= y; }
__device__ __forceinline__ int f_gt(float x, float y) { return x > y; }
__device__ __forceinline__ int f_ge(float x, float y) { return x >= y; }

// Whole numbers wrap around.
__device__ __forceinline__ int i_neg(int x) { return (int)(0u - (unsigned)x); }
__device__ __forceinline__ int i_abs(int x) { return x < 0 ? i_neg(x) : x; }
__device__ __forceinline__ int i_sign(int x) { return (x > 0) - (x < 0); }
__device__ __forceinline__ int i_not(int x) { return !x; }
__device__ __forceinline__ int i_add(int x, int y) { return (int)((unsigned)x + (unsigned)y); }
__device__ __forceinline__ int i_sub(int x, int y) { return (int)((unsigned)x - (unsigned)y); }
__device__ __forceinline__ int i_mul(int x, int y) { return (int)((unsigned)x * (unsigned)y); }
// Towards minus infinity, 0 where the divisor is 0.
__device__ __forceinline__ int i_div(int x, int y) {
  if (y == 0) return 0;
  if (y == -1) return i_neg(x);
  int q = x / y;
  return x % y != 0 && (x < 0) != (y < 0) ? q - 1 : q;
}
__device__ __forceinline__ int i_rem(int x, int y) { return y == 0 ? 0 : i_sub(x, i_mul(y, i_div(x, y))); }
__device__ __forceinline__ int i_min(int x, int y) { return x < y ? x : y; }
__device__ __forceinline__ int i_max(int x, int y) { return x > y ? x : y; }
__device__ __forceinline__ int i_and(int x, int y) { return x & y; }
__device__ __forceinline__ int i_or(int x, int y) { return x | y; }
__device__ __forceinline__ int i_xor(int x, int y) { return x ^ y; }

__device__ __forceinline__ int i_eq(int x, int y) { return x == y; }
__device__ __forceinline__ int i_ne(int x, int y) { return x != y; }
__device__ __forceinline__ int i_lt(int x, int y) { return x < y; }
__device__ __forceinline__ int i_le(int x, int y) { return x <= y; }
__device__ __forceinline__ int i_gt(int x, int y) { return x > y; }
__device__ __forceinline__ int i_ge(int x, int y) { return x >= y; }

// Towards zero; beyond the range its end, 0 for NaN.
__device__ __forceinline__ int to_i32(float x) {
  if (x != x) return 0;
  if (x >= 2147483648.0f) return 2147483647;
  return x <= -2147483648.0f ? -2147483647 - 1 : (int)x;
}
