// logsum.cuh: sums of numbers that are kept as logarithms. Minus infinity is 0.
#pragma once

__device__ __forceinline__ float log_add(float a, float b) {
  float m = a > b ? a : b, d = a > b ? b - a : a - b;
  // Of two zeros the difference is no number.
  return m == -INFINITY ? m : m + log1pf(expf(d));
}

// log sum exp of n values, by a warp; every lane has it. One pass.
__device__ __forceinline__ float row_logsum(const float* x, int n) {
  float m = -INFINITY, s = 0.f;
#pragma unroll 4
  for (int i = threadIdx.x & 31; i < n; i += 32) {
    float v = x[i];
    if (v > m) {
      s = s * expf(m - v) + 1.f;
      m = v;
    } else if (v > -INFINITY || v != v) {
      s += expf(v - m);
    }
  }
  for (int d = 16; d; d >>= 1) {
    float other = __shfl_xor_sync(~0u, m, d), more = __shfl_xor_sync(~0u, s, d);
    float top = other > m ? other : m;
    if (top > -INFINITY) s = s * expf(m - top) + more * expf(other - top);
    m = top;
  }
  return m + logf(s);
}
