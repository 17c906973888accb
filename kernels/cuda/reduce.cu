// Reductions of the middle of [outer, n, inner]: sums, sums of squares, extremes, log-sum-exp, any, all.
//
// Rows (inner = 1): a warp or a block of 512 a row, 16 bytes a load; long rows of few are cut in parts.
// Columns (inner >= 64): a block of 32 by 8 threads, 1 or 4 neighbouring columns a thread, 8 rows at once.
// Narrow (inner < 64): the [n, inner] of a block is read as it lies, by a number of threads that `inner`
//   divides, so that each thread stays in one column.
// A part gives one value a result; the host launches the same again over the parts. The order of additions
// follows from sizes alone: results are the same in every run. Bound: the bytes of x over copy bandwidth.
// Registers 16 to 40, 5 KiB of shared memory at most, full occupancy: 64 KiB under way a multiprocessor.
#include "rows.cuh"

// An operation: what of nothing, one more value, two joined over threads, the result.
struct SumOf {
  typedef float In; typedef float Acc; typedef float Out;
  static __device__ __forceinline__ Acc zero() { return 0.0f; }
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a + x; }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return a + b; }
  static __device__ __forceinline__ Acc shuffle(Acc a, int d) { return __shfl_xor_sync(~0u, a, d); }
  static __device__ __forceinline__ Out out(Acc a) { return a; }
};
struct SquaresOf : SumOf {
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a + x * x; }
};
// NaN where any is.
struct MaxOf : SumOf {
  static __device__ __forceinline__ Acc zero() { return -INFINITY; }
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a > x || a != a ? a : x; }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return add(a, b); }
};
struct MinOf : SumOf {
  static __device__ __forceinline__ Acc zero() { return INFINITY; }
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a < x || a != a ? a : x; }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return add(a, b); }
};
struct LogSumExp {
  typedef float In; typedef MaxSum Acc; typedef float Out;
  static __device__ __forceinline__ Acc zero() { return {-INFINITY, 0.0f}; }
  static __device__ __forceinline__ Acc add(Acc a, In x) {
    float one[1] = {x};
    a.add(one);
    return a;
  }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) {
    a.join(b);
    return a;
  }
  static __device__ __forceinline__ Acc shuffle(Acc a, int d) { return {__shfl_xor_sync(~0u, a.max, d), __shfl_xor_sync(~0u, a.sum, d)}; }
  // Where the largest is infinite it is the result, but NaN is NaN: a sum of 0 without a NaN is of -inf alone.
  static __device__ __forceinline__ Out out(Acc a) { return a.sum != a.sum && a.max == INFINITY ? a.max : a.log_sum(); }
};
struct SumInt {
  typedef int In; typedef int Acc; typedef int Out;
  static __device__ __forceinline__ Acc zero() { return 0; }
  static __device__ __forceinline__ Acc add(Acc a, In x) { return (int)((unsigned)a + (unsigned)x); }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return add(a, b); }
  static __device__ __forceinline__ Acc shuffle(Acc a, int d) { return __shfl_xor_sync(~0u, a, d); }
  static __device__ __forceinline__ Out out(Acc a) { return a; }
};
struct MaxInt : SumInt {
  static __device__ __forceinline__ Acc zero() { return -2147483647 - 1; }
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a > x ? a : x; }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return add(a, b); }
};
struct MinInt : SumInt {
  static __device__ __forceinline__ Acc zero() { return 2147483647; }
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a < x ? a : x; }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return add(a, b); }
};
struct AnyOf : SumInt {
  typedef unsigned char In; typedef unsigned char Out;
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a | (x != 0); }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return a | b; }
  static __device__ __forceinline__ Out out(Acc a) { return (Out)a; }
};
struct AllOf : AnyOf {
  static __device__ __forceinline__ Acc zero() { return 1; }
  static __device__ __forceinline__ Acc add(Acc a, In x) { return a & (x != 0); }
  static __device__ __forceinline__ Acc join(Acc a, Acc b) { return a & b; }
};

template <class Op, int G, int THREADS>
DEVFN void reduce_rows(const typename Op::In* x, typename Op::Out* y, long long rows, long long n, int parts, long long part, int even) {
  typedef typename Op::In In;
  constexpr int W = 16 / sizeof(In);
  const long long unit = (long long)blockIdx.x * (THREADS / G) + threadIdx.x / G;
  const bool mine = unit < rows * parts;
  const long long r = mine ? unit / parts : 0, first = mine ? unit % parts * part : 0;
  const long long end = !mine ? 0 : first + part < n ? first + part : n;
  const In* row = x + r * n;
  const int t = threadIdx.x % G;
  typename Op::Acc a = Op::zero();
  if (even) {
#pragma unroll 4
    for (long long at = first + t * W; at < end; at += G * W) {
      Vec<In, W> v = load<W>(row + at);
#pragma unroll
      for (int k = 0; k < W; k++) a = Op::add(a, v[k]);
    }
  } else {
#pragma unroll 4
    for (long long at = first + t; at < end; at += G) a = Op::add(a, row[at]);
  }
#pragma unroll
  for (int d = 16; d; d >>= 1) a = Op::join(a, Op::shuffle(a, d));
  if (G > 32) {
    __shared__ typename Op::Acc part_of[THREADS / 32];
    if (threadIdx.x % 32 == 0) part_of[threadIdx.x / 32] = a;
    __syncthreads();
    a = part_of[0];
    for (int w = 1; w < THREADS / 32; w++) a = Op::join(a, part_of[w]);
  }
  if (mine && t == 0) y[unit] = Op::out(a);
}

// Block `b` of columns, part `p` of outer index `o`: y[(o * parts + p) * inner + c].
template <class Op, int C>
DEVFN void reduce_columns(const typename Op::In* x, typename Op::Out* y, long long blocks, long long n, long long inner, int parts, long long part) {
  typedef typename Op::In In;
  __shared__ typename Op::Acc rest[8][32][C];
  const int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
  const long long c = (blockIdx.x % blocks * 32 + tx) * C, op = blockIdx.x / blocks;
  const long long o = op / parts, first = op % parts * part, end = first + part < n ? first + part : n;
  typename Op::Acc a[C];
#pragma unroll
  for (int k = 0; k < C; k++) a[k] = Op::zero();
  if (c < inner) {
    const In* at = x + (o * n + first + ty) * inner + c;
#pragma unroll 4
    for (long long i = first + ty; i < end; i += 8, at += 8 * inner) {
      Vec<In, C> v = load<C>(at);
#pragma unroll
      for (int k = 0; k < C; k++) a[k] = Op::add(a[k], v[k]);
    }
  }
#pragma unroll
  for (int k = 0; k < C; k++) rest[ty][tx][k] = a[k];
  __syncthreads();
  if (ty == 0 && c < inner) {
#pragma unroll
    for (int k = 0; k < C; k++) {
      for (int w = 1; w < 8; w++) a[k] = Op::join(a[k], rest[w][tx][k]);
      y[op * inner + c + k] = Op::out(a[k]);
    }
  }
}

template <class Op>
DEVFN void reduce_narrow(const typename Op::In* x, typename Op::Out* y, long long n, int inner, int parts, long long part) {
  __shared__ typename Op::Acc all[256];
  const int used = 256 / inner * inner, t = threadIdx.x;
  const long long o = blockIdx.x / parts, first = blockIdx.x % parts * part;
  const long long end = (first + part < n ? first + part : n) * inner;
  const typename Op::In* at = x + o * n * inner;
  typename Op::Acc a = Op::zero();
  if (t < used) {
#pragma unroll 4
    for (long long i = first * inner + t; i < end; i += used) a = Op::add(a, at[i]);
  }
  all[t] = a;
  __syncthreads();
  if (t < inner) {
    for (int i = t + inner; i < used; i += inner) a = Op::join(a, all[i]);
    y[(long long)blockIdx.x * inner + t] = Op::out(a);
  }
}

#define KERNELS(Op, WARP, BLOCK, COLUMNS, WIDE, NARROW)                                                                \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      WARP(const Op::In* x, Op::Out* y, long long rows, long long n, int parts, long long part, int even) {            \
    reduce_rows<Op, 32, 256>(x, y, rows, n, parts, part, even);                                                        \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(512)                                                                    \
      BLOCK(const Op::In* x, Op::Out* y, long long rows, long long n, int parts, long long part, int even) {           \
    reduce_rows<Op, 512, 512>(x, y, rows, n, parts, part, even);                                                       \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      COLUMNS(const Op::In* x, Op::Out* y, long long blocks, long long n, long long inner, int parts, long long part) {\
    reduce_columns<Op, 1>(x, y, blocks, n, inner, parts, part);                                                        \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      WIDE(const Op::In* x, Op::Out* y, long long blocks, long long n, long long inner, int parts, long long part) {   \
    reduce_columns<Op, 4>(x, y, blocks, n, inner, parts, part);                                                        \
  }                                                                                                                    \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      NARROW(const Op::In* x, Op::Out* y, long long n, int inner, int parts, long long part) {                         \
    reduce_narrow<Op>(x, y, n, inner, parts, part);                                                                    \
  }

KERNELS(SumOf, sum_f32_warp, sum_f32_block, sum_f32_columns, sum_f32_wide, sum_f32_narrow)
CUEMU_EXPORT(sum_f32_warp) CUEMU_EXPORT(sum_f32_block) CUEMU_EXPORT(sum_f32_columns) CUEMU_EXPORT(sum_f32_wide) CUEMU_EXPORT(sum_f32_narrow)
KERNELS(SquaresOf, squares_f32_warp, squares_f32_block, squares_f32_columns, squares_f32_wide, squares_f32_narrow)
CUEMU_EXPORT(squares_f32_warp) CUEMU_EXPORT(squares_f32_block) CUEMU_EXPORT(squares_f32_columns) CUEMU_EXPORT(squares_f32_wide) CUEMU_EXPORT(squares_f32_narrow)
KERNELS(MaxOf, max_f32_warp, max_f32_block, max_f32_columns, max_f32_wide, max_f32_narrow)
CUEMU_EXPORT(max_f32_warp) CUEMU_EXPORT(max_f32_block) CUEMU_EXPORT(max_f32_columns) CUEMU_EXPORT(max_f32_wide) CUEMU_EXPORT(max_f32_narrow)
KERNELS(MinOf, min_f32_warp, min_f32_block, min_f32_columns, min_f32_wide, min_f32_narrow)
CUEMU_EXPORT(min_f32_warp) CUEMU_EXPORT(min_f32_block) CUEMU_EXPORT(min_f32_columns) CUEMU_EXPORT(min_f32_wide) CUEMU_EXPORT(min_f32_narrow)
KERNELS(LogSumExp, logsumexp_f32_warp, logsumexp_f32_block, logsumexp_f32_columns, logsumexp_f32_wide, logsumexp_f32_narrow)
CUEMU_EXPORT(logsumexp_f32_warp) CUEMU_EXPORT(logsumexp_f32_block) CUEMU_EXPORT(logsumexp_f32_columns) CUEMU_EXPORT(logsumexp_f32_wide) CUEMU_EXPORT(logsumexp_f32_narrow)
KERNELS(SumInt, sum_i32_warp, sum_i32_block, sum_i32_columns, sum_i32_wide, sum_i32_narrow)
CUEMU_EXPORT(sum_i32_warp) CUEMU_EXPORT(sum_i32_block) CUEMU_EXPORT(sum_i32_columns) CUEMU_EXPORT(sum_i32_wide) CUEMU_EXPORT(sum_i32_narrow)
KERNELS(MaxInt, max_i32_warp, max_i32_block, max_i32_columns, max_i32_wide, max_i32_narrow)
CUEMU_EXPORT(max_i32_warp) CUEMU_EXPORT(max_i32_block) CUEMU_EXPORT(max_i32_columns) CUEMU_EXPORT(max_i32_wide) CUEMU_EXPORT(max_i32_narrow)
KERNELS(MinInt, min_i32_warp, min_i32_block, min_i32_columns, min_i32_wide, min_i32_narrow)
CUEMU_EXPORT(min_i32_warp) CUEMU_EXPORT(min_i32_block) CUEMU_EXPORT(min_i32_columns) CUEMU_EXPORT(min_i32_wide) CUEMU_EXPORT(min_i32_narrow)
KERNELS(AnyOf, any_u8_warp, any_u8_block, any_u8_columns, any_u8_wide, any_u8_narrow)
CUEMU_EXPORT(any_u8_warp) CUEMU_EXPORT(any_u8_block) CUEMU_EXPORT(any_u8_columns) CUEMU_EXPORT(any_u8_wide) CUEMU_EXPORT(any_u8_narrow)
KERNELS(AllOf, all_u8_warp, all_u8_block, all_u8_columns, all_u8_wide, all_u8_narrow)
CUEMU_EXPORT(all_u8_warp) CUEMU_EXPORT(all_u8_block) CUEMU_EXPORT(all_u8_columns) CUEMU_EXPORT(all_u8_wide) CUEMU_EXPORT(all_u8_narrow)
