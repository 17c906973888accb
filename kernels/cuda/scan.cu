// Running sums along the middle of [outer, n, inner], from either end.
//
// Rows: a warp a row up to 1024 values, else a block of 512 by tiles of 2048 (4 values a thread, a scan of the
// threads' sums by shuffles) with what came before carried along. Long rows of few are cut in parts: sums of
// parts, their running sums, then every part with what comes before it. Columns: a thread each.
// Sums within a tile are trees: their order follows from sizes alone. Bound: 8 bytes a value (12 in parts).
#include "warp.cuh"

// The scan of one value per thread of a block of 512, the total in `all`.
template <class T> DEVFN T block_scan(T v, T* part, T& all) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  v = warp_scan(v, Sum());
  if (lane == 31) part[warp] = v;
  __syncthreads();
  T before = 0;
  all = 0;
  for (int w = 0; w < 16; w++) {
    before += w < warp ? part[w] : 0;
    all += part[w];
  }
  __syncthreads();
  return v + before;
}

template <class T> DEVFN void scan_warps(const T* x, T* y, long long rows, int n, int reverse) {
  const long long r = (long long)blockIdx.x * 8 + threadIdx.x / 32;
  const int lane = threadIdx.x & 31;
  if (r >= rows) return;
  T carry = 0;
  for (int start = 0; start < n; start += 32) {
    const int i = start + lane;
    const long long at = r * n + (reverse ? n - 1 - i : i);
    T v = warp_scan(i < n ? x[at] : (T)0, Sum()) + carry;
    if (i < n) y[at] = v;
    carry = __shfl_sync(~0u, v, 31);
  }
}

// Part `p` of row `r` is block r * parts + p; `before` are the running sums of parts, or null.
template <class T> DEVFN void scan_blocks(const T* x, T* y, const T* before, int n, int parts, int length, int reverse) {
  __shared__ T part[16];
  const int p = blockIdx.x % parts;
  const long long row = (long long)(blockIdx.x / parts) * n;
  const int first = p * length, end = first + length < n ? first + length : n;
  T carry = before && p > 0 ? before[blockIdx.x - 1] : (T)0;
  for (int start = first; start < end; start += 2048) {
    T v[4], sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const int i = start + threadIdx.x * 4 + k;
      sum += i < end ? x[row + (reverse ? n - 1 - i : i)] : (T)0;
      v[k] = sum;
    }
    T all;
    const T less = block_scan(sum, part, all) - sum + carry;
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const int i = start + threadIdx.x * 4 + k;
      if (i < end) y[row + (reverse ? n - 1 - i : i)] = less + v[k];
    }
    carry += all;
  }
}

template <class T> DEVFN void scan_sums(const T* x, T* sums, int n, int parts, int length, int reverse) {
  const int p = blockIdx.x % parts;
  const long long row = (long long)(blockIdx.x / parts) * n;
  const int first = p * length, end = first + length < n ? first + length : n;
  T sum = 0;
#pragma unroll 4
  for (int i = first + threadIdx.x; i < end; i += 512) sum += x[row + (reverse ? n - 1 - i : i)];
  sum = block_reduce<512>(sum, Sum());
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class T> DEVFN void scan_columns(const T* x, T* y, long long columns, int n, long long inner, int reverse) {
  const long long c = (long long)blockIdx.x * 256 + threadIdx.x;
  if (c >= columns) return;
  const long long first = c / inner * n * inner + c % inner;
  T sum = 0;
#pragma unroll 4
  for (int i = 0; i < n; i++) {
    const long long at = first + (reverse ? n - 1 - i : i) * inner;
    y[at] = sum += x[at];
  }
}

// A whole number wraps around: sums of `unsigned`.
#define KERNELS(T, WARPS, BLOCKS, SUMS, COLUMNS)                                                                        \
  extern "C" __global__ void __launch_bounds__(256) WARPS(const T* x, T* y, long long rows, int n, int reverse) {       \
    scan_warps<T>(x, y, rows, n, reverse);                                                                              \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(512)                                                                     \
      BLOCKS(const T* x, T* y, const T* before, int n, int parts, int length, int reverse) {                            \
    scan_blocks<T>(x, y, before, n, parts, length, reverse);                                                            \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(512) SUMS(const T* x, T* sums, int n, int parts, int length, int reverse) { \
    scan_sums<T>(x, sums, n, parts, length, reverse);                                                                   \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256)                                                                     \
      COLUMNS(const T* x, T* y, long long columns, int n, long long inner, int reverse) {                               \
    scan_columns<T>(x, y, columns, n, inner, reverse);                                                                  \
  }
KERNELS(float, scan_f32_warps, scan_f32_blocks, scan_f32_sums, scan_f32_columns)
CUEMU_EXPORT(scan_f32_warps) CUEMU_EXPORT(scan_f32_blocks) CUEMU_EXPORT(scan_f32_sums) CUEMU_EXPORT(scan_f32_columns)
KERNELS(unsigned, scan_i32_warps, scan_i32_blocks, scan_i32_sums, scan_i32_columns)
CUEMU_EXPORT(scan_i32_warps) CUEMU_EXPORT(scan_i32_blocks) CUEMU_EXPORT(scan_i32_sums) CUEMU_EXPORT(scan_i32_columns)
