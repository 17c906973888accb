// Single elementwise operations, compiled ahead of time, so that small graphs need no compiler at run time.
// Chains of several are made as text (src/chain.rs).
//
// Up to three inputs over up to four joined dimensions; each is linear (as the output lies), repeated (one value)
// or strided. A thread computes 4 neighbouring positions: with vector loads (16 bytes of f32) where all
// inputs are linear or repeated and addresses allow, position by position else.
// Bound: bytes read and written. Registers 16 to 40, full occupancy: 32 KiB under way a multiprocessor and input.
#include "chain.cuh"

// Sizes of the last three of four dimensions, with what divides by them.
struct Sizes {
  unsigned n[3], m[3], h[3];
};
struct Place {
  int mode;  // 0 linear, 1 repeated, 2 strided
  unsigned s[4];
};

template <class T> __device__ __forceinline__ T value_at(const T* p, const Place& at, unsigned i, const Sizes& sizes) {
  if (at.mode == 0) return p[i];
  if (at.mode == 1) return p[0];
  size_t offset = 0;
#pragma unroll
  for (int d = 2; d >= 0; d--) {
    const unsigned q = quotient(i, sizes.m[d], sizes.h[d]);
    offset += (size_t)(i - q * sizes.n[d]) * at.s[d + 1];
    i = q;
  }
  return p[offset + (size_t)i * at.s[0]];
}
template <class T> __device__ __forceinline__ void values_at(T (&to)[4], const T* p, const Place& at, unsigned i, unsigned total, int even, const Sizes& sizes) {
  if (at.mode == 1) {
#pragma unroll
    for (int k = 0; k < 4; k++) to[k] = p[0];
  } else if (even && i + 4 <= total) {
    load<4>(to, p + i);
  } else {
#pragma unroll
    for (int k = 0; k < 4; k++) to[k] = i + k < total ? value_at(p, at, i + k, sizes) : (T)0;
  }
}
template <class R, class V> __device__ __forceinline__ void results_at(R* y, const V (&from)[4], unsigned i, unsigned total, int even) {
  if (even) return store_some<4>(y + i, from, (long long)(total - i));
#pragma unroll
  for (int k = 0; k < 4; k++)
    if (i + k < total) y[i + k] = (R)from[k];
}

#define SIZES unsigned total, int even, unsigned n1, unsigned m1, unsigned h1, unsigned n2, unsigned m2, unsigned h2, unsigned n3, unsigned m3, unsigned h3
#define PLACE(P) int P, unsigned P##0, unsigned P##1, unsigned P##2, unsigned P##3
#define START                                                                  \
  const unsigned i = ((unsigned)blockIdx.x * 256u + threadIdx.x) * 4u;         \
  if (i >= total) return;                                                      \
  const Sizes sizes = {{n1, n2, n3}, {m1, m2, m3}, {h1, h2, h3}};
#define AT(P) Place{P, {P##0, P##1, P##2, P##3}}
#define UNARY(NAME, F, A, V, R)                                                                                    \
  extern "C" __global__ void __launch_bounds__(256) NAME(const A* a, R* y, SIZES, PLACE(p)) {                      \
    START A v[4];                                                                                                  \
    V r[4];                                                                                                        \
    values_at<A>(v, a, AT(p), i, total, even, sizes);                                                              \
    for (int k = 0; k < 4; k++) r[k] = F(v[k]);                                                                    \
    results_at(y, r, i, total, even);                                                                              \
  }
#define BINARY(NAME, F, A, V, R)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256) NAME(const A* a, const A* b, R* y, SIZES, PLACE(p), PLACE(q)) {\
    START A v[4], w[4];                                                                                            \
    V r[4];                                                                                                        \
    values_at<A>(v, a, AT(p), i, total, even, sizes);                                                              \
    values_at<A>(w, b, AT(q), i, total, even, sizes);                                                              \
    for (int k = 0; k < 4; k++) r[k] = F(v[k], w[k]);                                                              \
    results_at(y, r, i, total, even);                                                                              \
  }
#define SELECT(NAME, T)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                \
      NAME(const unsigned char* c, const T* a, const T* b, T* y, SIZES, PLACE(o), PLACE(p), PLACE(q)) {            \
    START unsigned char u[4];                                                                                      \
    T v[4], w[4];                                                                                                  \
    values_at<unsigned char>(u, c, AT(o), i, total, even, sizes);                                                  \
    values_at<T>(v, a, AT(p), i, total, even, sizes);                                                              \
    values_at<T>(w, b, AT(q), i, total, even, sizes);                                                              \
    for (int k = 0; k < 4; k++) v[k] = u[k] ? v[k] : w[k];                                                         \
    results_at(y, v, i, total, even);                                                                              \
  }
__device__ __forceinline__ float cast_f(int x) { return (float)x; }
__device__ __forceinline__ int cast_i(int x) { return x; }
__device__ __forceinline__ int cast_truth_f(float x) { return x != 0.0f; }
__device__ __forceinline__ int cast_truth_i(int x) { return x != 0; }

UNARY(neg_f32, f_neg, float, float, float) CUEMU_EXPORT(neg_f32)
UNARY(exp_f32, f_exp, float, float, float) CUEMU_EXPORT(exp_f32)
UNARY(expm1_f32, f_expm1, float, float, float) CUEMU_EXPORT(expm1_f32)
UNARY(log_f32, f_log, float, float, float) CUEMU_EXPORT(log_f32)
UNARY(log1p_f32, f_log1p, float, float, float) CUEMU_EXPORT(log1p_f32)
UNARY(sqrt_f32, f_sqrt, float, float, float) CUEMU_EXPORT(sqrt_f32)
UNARY(rsqrt_f32, f_rsqrt, float, float, float) CUEMU_EXPORT(rsqrt_f32)
UNARY(recip_f32, f_recip, float, float, float) CUEMU_EXPORT(recip_f32)
UNARY(abs_f32, f_abs, float, float, float) CUEMU_EXPORT(abs_f32)
UNARY(sign_f32, f_sign, float, float, float) CUEMU_EXPORT(sign_f32)
UNARY(sin_f32, f_sin, float, float, float) CUEMU_EXPORT(sin_f32)
UNARY(cos_f32, f_cos, float, float, float) CUEMU_EXPORT(cos_f32)
UNARY(tanh_f32, f_tanh, float, float, float) CUEMU_EXPORT(tanh_f32)
UNARY(erf_f32, f_erf, float, float, float) CUEMU_EXPORT(erf_f32)
UNARY(sigmoid_f32, f_sigmoid, float, float, float) CUEMU_EXPORT(sigmoid_f32)
UNARY(floor_f32, f_floor, float, float, float) CUEMU_EXPORT(floor_f32)
UNARY(ceil_f32, f_ceil, float, float, float) CUEMU_EXPORT(ceil_f32)
UNARY(round_f32, f_round, float, float, float) CUEMU_EXPORT(round_f32)
UNARY(neg_i32, i_neg, int, int, int) CUEMU_EXPORT(neg_i32)
UNARY(abs_i32, i_abs, int, int, int) CUEMU_EXPORT(abs_i32)
UNARY(sign_i32, i_sign, int, int, int) CUEMU_EXPORT(sign_i32)
UNARY(not_u8, i_not, unsigned char, int, unsigned char) CUEMU_EXPORT(not_u8)
BINARY(add_f32, f_add, float, float, float) CUEMU_EXPORT(add_f32)
BINARY(sub_f32, f_sub, float, float, float) CUEMU_EXPORT(sub_f32)
BINARY(mul_f32, f_mul, float, float, float) CUEMU_EXPORT(mul_f32)
BINARY(div_f32, f_div, float, float, float) CUEMU_EXPORT(div_f32)
BINARY(pow_f32, f_pow, float, float, float) CUEMU_EXPORT(pow_f32)
BINARY(min_f32, f_min, float, float, float) CUEMU_EXPORT(min_f32)
BINARY(max_f32, f_max, float, float, float) CUEMU_EXPORT(max_f32)
BINARY(rem_f32, f_rem, float, float, float) CUEMU_EXPORT(rem_f32)
BINARY(add_i32, i_add, int, int, int) CUEMU_EXPORT(add_i32)
BINARY(sub_i32, i_sub, int, int, int) CUEMU_EXPORT(sub_i32)
BINARY(mul_i32, i_mul, int, int, int) CUEMU_EXPORT(mul_i32)
BINARY(div_i32, i_div, int, int, int) CUEMU_EXPORT(div_i32)
BINARY(min_i32, i_min, int, int, int) CUEMU_EXPORT(min_i32)
BINARY(max_i32, i_max, int, int, int) CUEMU_EXPORT(max_i32)
BINARY(rem_i32, i_rem, int, int, int) CUEMU_EXPORT(rem_i32)
BINARY(and_u8, i_and, unsigned char, int, unsigned char) CUEMU_EXPORT(and_u8)
BINARY(or_u8, i_or, unsigned char, int, unsigned char) CUEMU_EXPORT(or_u8)
BINARY(xor_u8, i_xor, unsigned char, int, unsigned char) CUEMU_EXPORT(xor_u8)
BINARY(eq_f32, f_eq, float, int, unsigned char) CUEMU_EXPORT(eq_f32)
BINARY(eq_i32, i_eq, int, int, unsigned char) CUEMU_EXPORT(eq_i32)
BINARY(eq_u8, i_eq, unsigned char, int, unsigned char) CUEMU_EXPORT(eq_u8)
BINARY(ne_f32, f_ne, float, int, unsigned char) CUEMU_EXPORT(ne_f32)
BINARY(ne_i32, i_ne, int, int, unsigned char) CUEMU_EXPORT(ne_i32)
BINARY(ne_u8, i_ne, unsigned char, int, unsigned char) CUEMU_EXPORT(ne_u8)
BINARY(lt_f32, f_lt, float, int, unsigned char) CUEMU_EXPORT(lt_f32)
BINARY(lt_i32, i_lt, int, int, unsigned char) CUEMU_EXPORT(lt_i32)
BINARY(lt_u8, i_lt, unsigned char, int, unsigned char) CUEMU_EXPORT(lt_u8)
BINARY(le_f32, f_le, float, int, unsigned char) CUEMU_EXPORT(le_f32)
BINARY(le_i32, i_le, int, int, unsigned char) CUEMU_EXPORT(le_i32)
BINARY(le_u8, i_le, unsigned char, int, unsigned char) CUEMU_EXPORT(le_u8)
BINARY(gt_f32, f_gt, float, int, unsigned char) CUEMU_EXPORT(gt_f32)
BINARY(gt_i32, i_gt, int, int, unsigned char) CUEMU_EXPORT(gt_i32)
BINARY(gt_u8, i_gt, unsigned char, int, unsigned char) CUEMU_EXPORT(gt_u8)
BINARY(ge_f32, f_ge, float, int, unsigned char) CUEMU_EXPORT(ge_f32)
BINARY(ge_i32, i_ge, int, int, unsigned char) CUEMU_EXPORT(ge_i32)
BINARY(ge_u8, i_ge, unsigned char, int, unsigned char) CUEMU_EXPORT(ge_u8)
SELECT(select_f32, float) CUEMU_EXPORT(select_f32)
SELECT(select_i32, int) CUEMU_EXPORT(select_i32)
SELECT(select_u8, unsigned char) CUEMU_EXPORT(select_u8)
UNARY(cast_f32_i32, to_i32, float, int, int) CUEMU_EXPORT(cast_f32_i32)
UNARY(cast_f32_u8, cast_truth_f, float, int, unsigned char) CUEMU_EXPORT(cast_f32_u8)
UNARY(cast_i32_f32, cast_f, int, float, float) CUEMU_EXPORT(cast_i32_f32)
UNARY(cast_i32_u8, cast_truth_i, int, int, unsigned char) CUEMU_EXPORT(cast_i32_u8)
UNARY(cast_u8_f32, cast_f, unsigned char, float, float) CUEMU_EXPORT(cast_u8_f32)
UNARY(cast_u8_i32, cast_i, unsigned char, int, int) CUEMU_EXPORT(cast_u8_i32)
