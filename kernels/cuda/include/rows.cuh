// rows.cuh: rows of values in the registers of the threads that share them.
//
// A row of `n` values of type T belongs to G threads (8, 32, or a whole block of G); thread `t` of them holds
// the values (v * G + t) * W + k for v < V, k < W, where W values are 16 bytes. Loads and stores are 16 bytes
// wide where the row is `even` (its first value and its length are multiples of them), single values else.
// Everything is computed in `float`.
#pragma once
#include "number.cuh"
#include "warp.cuh"

template <class T> struct Lanes { static const int W = 16 / sizeof(T); };

// W values as numbers.
template <class T, int W> DEVFN void read16(float (&to)[W], const T* from) {
  Vec<T, W> v = load<W>(from);
#pragma unroll
  for (int k = 0; k < W; k++) to[k] = (float)v[k];
}
template <class T, int W> DEVFN void write16(T* to, const float (&from)[W]) {
  Vec<T, W> v;
#pragma unroll
  for (int k = 0; k < W; k++) v[k] = T(from[k]);
  store<W>(to, v);
}

// The same for W values from place `at` on in a row of `n`; `rest` stands for those beyond it.
template <class T, int W> DEVFN void read_part(float (&to)[W], const T* row, int at, int n, bool even, float rest) {
  if (even && at < n) {
    read16<T, W>(to, row + at);
    return;
  }
#pragma unroll
  for (int k = 0; k < W; k++) to[k] = at + k < n ? (float)row[at + k] : rest;
}
template <class T, int W> DEVFN void write_part(T* row, const float (&from)[W], int at, int n, bool even) {
  if (even && at < n) {
    write16<T, W>(row + at, from);
    return;
  }
#pragma unroll
  for (int k = 0; k < W; k++)
    if (at + k < n) row[at + k] = T(from[k]);
}

// W values of more than 16 bytes together go in two parts.
template <class T, int W> DEVFN void read_wide(float (&to)[W], const T* row, int at, int n, bool even, float rest) {
  if constexpr (sizeof(T) * W <= 16) {
    read_part<T, W>(to, row, at, n, even, rest);
  } else {
    float part[W / 2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
      read_wide<T, W / 2>(part, row, at + h * (W / 2), n, even, rest);
#pragma unroll
      for (int k = 0; k < W / 2; k++) to[h * (W / 2) + k] = part[k];
    }
  }
}
template <class T, int W> DEVFN void write_wide(T* row, const float (&from)[W], int at, int n, bool even) {
  if constexpr (sizeof(T) * W <= 16) {
    write_part<T, W>(row, from, at, n, even);
  } else {
    float part[W / 2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
      for (int k = 0; k < W / 2; k++) part[k] = from[h * (W / 2) + k];
      write_wide<T, W / 2>(row, part, at + h * (W / 2), n, even);
    }
  }
}
// To a row that begins at value `first` of `y`, whose type the host passes (number.cuh): f32 or 16 bits.
template <int W> DEVFN void write_as(char* y, int type, long long first, const float (&from)[W], int at, int n, bool even) {
  if (type == F32) write_wide<float, W>((float*)y + first, from, at, n, even);
  else if (type == BF16) write_wide<bf16, W>((bf16*)y + first, from, at, n, even);
  else write_wide<f16, W>((f16*)y + first, from, at, n, even);
}

// A thread's values of a row.
template <class T, int G, int V, int W> DEVFN void read_row(float (&to)[V][W], const T* row, int t, int n, bool even, float rest) {
#pragma unroll
  for (int v = 0; v < V; v++) read_part<T, W>(to[v], row, (v * G + t) * W, n, even, rest);
}
template <class T, int G, int V, int W> DEVFN void write_row(T* row, const float (&from)[V][W], int t, int n, bool even) {
#pragma unroll
  for (int v = 0; v < V; v++) write_part<T, W>(row, from[v], (v * G + t) * W, n, even);
}

// Sum and maximum over the G threads of a row; all threads of the block must call it.
template <int G> DEVFN float row_sum(float v) {
  if constexpr (G <= 32) return warp_sum<G>(v);
  else return block_sum<G>(v);
}
template <int G> DEVFN float row_max(float v) {
  if constexpr (G <= 32) return warp_max<G>(v);
  else return block_max<G>(v);
}

// A maximum with a sum of exponentials above it: sum of exp(x - max). Of nothing: max -inf, sum 0; no NaN
// comes of infinities that are only small, NaN stays.
struct MaxSum {
  float max, sum;
  __device__ __forceinline__ float shift() const { return max == -INFINITY ? 0.0f : max; }
  __device__ __forceinline__ void join(MaxSum o) {
    float m = fmaxf(max, o.max), s = m == -INFINITY ? 0.0f : m;
    sum = sum * expf(max - s) + o.sum * expf(o.max - s);
    max = m;
  }
  template <int W> __device__ __forceinline__ void add(const float (&x)[W]) {
    float m = max;
#pragma unroll
    for (int k = 0; k < W; k++) m = fmaxf(m, x[k]);
    float s = m == -INFINITY ? 0.0f : m;
    sum *= expf(max - s);
#pragma unroll
    for (int k = 0; k < W; k++) sum += expf(x[k] - s);
    max = m;
  }
  __device__ __forceinline__ float log_sum() const { return sum == 0.0f ? -INFINITY : shift() + logf(sum); }
};
// Over the G threads of a row: the maximum first, so that every thread scales its sum once.
template <int G> DEVFN MaxSum row_join(MaxSum a) {
  float m = row_max<G>(a.max), s = m == -INFINITY ? 0.0f : m;
  return {m, row_sum<G>(a.sum * expf(a.max - s))};
}
