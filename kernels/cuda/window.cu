// Sliding windows over one dimension, and their sum back to where they came from (overlap-add).
//
//   unfold  y[o, w, k, i] = x[o, w S + k D, i]        fold  x[o, n, i] = sum of y[o, w, k, i] with w S + k D = n
//
// A thread a value of the result; a fold visits its windows from the first to the last: one order of addition.
// Bound: memory.
#include "gpu.cuh"
#include "divide.cuh"

template <class T>
__device__ __forceinline__ void unfold(const T* x, T* y, int outer, int n, int windows, int kernel, int inner, int stride,
                                       int dilation) {
  int total = outer * windows * kernel * inner, at = blockIdx.x * 256 + threadIdx.x;
  if (at >= total) return;
  Divide by_inner(inner), by_kernel(kernel), by_windows(windows);
  int rest = at;
  int q = by_inner.split(rest);
  int i = rest, k = q;
  q = by_kernel.split(k);
  int w = q, o = by_windows.split(w);
  y[at] = x[((size_t)o * n + w * stride + k * dilation) * inner + i];
}
#define UNFOLD(NAME, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256)                                                              \
      NAME(const T* x, T* y, int outer, int n, int windows, int kernel, int inner, int stride, int dilation) {   \
    unfold(x, y, outer, n, windows, kernel, inner, stride, dilation);                                            \
  }
UNFOLD(unfold_b4, unsigned)
UNFOLD(unfold_b2, unsigned short)
UNFOLD(unfold_b1, unsigned char)
CUEMU_EXPORT(unfold_b4)
CUEMU_EXPORT(unfold_b2)
CUEMU_EXPORT(unfold_b1)

extern "C" __global__ void __launch_bounds__(256)
    fold_f32(const float* y, float* x, int outer, int n, int windows, int kernel, int inner, int stride, int dilation) {
  int total = outer * n * inner, at = blockIdx.x * 256 + threadIdx.x;
  if (at >= total) return;
  Divide by_inner(inner), by_n(n);
  int i = at, p = by_inner.split(i), o = by_n.split(p);
  const float* from = y + (size_t)o * windows * kernel * inner + i;
  int reach = p - (kernel - 1) * dilation, w = reach > 0 ? (reach + stride - 1) / stride : 0;
  float sum = 0.f;
  for (; w < windows && w * stride <= p; w++) {
    int k = p - w * stride;
    if (k % dilation == 0) sum += from[((size_t)w * kernel + k / dilation) * inner];
  }
  x[at] = sum;
}
CUEMU_EXPORT(fold_f32)
