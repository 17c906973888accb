// Pooling over planes: the largest value of each window, or the mean of each, with both gradients.
//
// A thread a value of the result, in the order of memory; windows are read through L1. Bound: memory.
// Sliding and adaptive means are one kernel: each dimension says which inputs an output joins; the gradient
// visits, for an input, the outputs from the first that may hold it to the first that begins beyond it.
// The gradient of the maximum adds each window's value at the position that won. A warp takes a plane, 32
// windows at a time in their order; equal positions among the 32 are summed by the first lane that has them, so
// there are no atomics and each sum has one order.
#include "gpu.cuh"

// Grid: planes x places / 256.
extern "C" __global__ void __launch_bounds__(256)
    max_pool_f32(const float* x, float* y, int* positions, int planes, int ih, int iw, int oh, int ow, int kh, int kw,
                 int sh, int sw, int ph, int pw, int dh, int dw) {
  int places = oh * ow, tiles = (places + 255) / 256, plane = blockIdx.x / tiles;
  int p = (blockIdx.x % tiles) * 256 + threadIdx.x;
  if (p >= places) return;
  const float* from = x + (size_t)plane * ih * iw;
  int h0 = p / ow * sh - ph, w0 = p % ow * sw - pw, at = -1;
  float best = -INFINITY;
  for (int i = 0; i < kh; i++) {
    int h = h0 + i * dh;
    if ((unsigned)h >= (unsigned)ih) continue;
    for (int j = 0; j < kw; j++) {
      int w = w0 + j * dw;
      if ((unsigned)w >= (unsigned)iw) continue;
      float v = from[h * iw + w];
      // The first value counts even if it is minus infinity, and NaN beats everything.
      if (at < 0 || v > best || (v != v && best == best)) {
        best = v;
        at = h * iw + w;
      }
    }
  }
  y[(size_t)plane * places + p] = best;
  positions[(size_t)plane * places + p] = at;
}
CUEMU_EXPORT(max_pool_f32)

// Grid: planes / 4; x holds zeros.
extern "C" __global__ void __launch_bounds__(128)
    max_pool_grad_f32(const float* g, const int* positions, float* x, int planes, int windows, int places) {
  int plane = blockIdx.x * 4 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (plane >= planes) return;
  const float* from = g + (size_t)plane * windows;
  const int* where = positions + (size_t)plane * windows;
  float* to = x + (size_t)plane * places;
  for (int first = 0; first < windows; first += 32) {
    int i = first + lane;
    float v = i < windows ? from[i] : 0.f;
    int at = i < windows ? where[i] : -1;
    float sum = 0.f;
    int leader = 32;
    for (int l = 0; l < 32; l++) {
      float other = __shfl_sync(~0u, v, l);
      if (__shfl_sync(~0u, at, l) == at) {
        sum += other;
        if (l < leader) leader = l;
      }
    }
    if (leader == lane && (unsigned)at < (unsigned)places) to[at] += sum;
    __syncwarp();
  }
}
CUEMU_EXPORT(max_pool_grad_f32)

extern "C" __global__ void __launch_bounds__(256) max_pool_zeros_f32(float* x, long long n) {
  for (long long i = blockIdx.x * 256ll + threadIdx.x; i < n; i += gridDim.x * 256ll) x[i] = 0.f;
}
CUEMU_EXPORT(max_pool_zeros_f32)

// The inputs lo to hi that output q of one dimension joins, and what it divides by.
struct Span {
  int lo, hi, divisor;
};
struct Means {
  int in, out, kernel, stride, before, mode;  // 0 divides by what it joins, 1 by the kernel, 2 adaptive
  __device__ __forceinline__ Span at(int q) const {
    if (mode == 2) {
      int lo = (int)((long long)q * in / out), hi = (int)(((q + 1ll) * in + out - 1) / out);
      return Span{lo, hi, hi - lo};
    }
    int first = q * stride - before, lo = first > 0 ? first : 0, end = first + kernel, hi = end < in ? end : in;
    if (hi < lo) hi = lo;
    return Span{lo, hi, mode == 1 ? kernel : hi - lo};
  }
  // The first output that may hold input p; those from it on hold p until one begins beyond p.
  __device__ __forceinline__ int first(int p) const {
    if (mode == 2) {
      int q = (int)((long long)p * out / in) - 1;  // its end is (q + 1) in / out or more
      return q > 0 ? q : 0;
    }
    int reach = p + before - kernel + 1;
    return reach > 0 ? (reach + stride - 1) / stride : 0;
  }
};
#define MEANS int ih, int oh, int kh, int sh, int ph, int iw, int ow, int kw, int sw, int pw, int mode_h, int mode_w

extern "C" __global__ void __launch_bounds__(256) average_pool_f32(const float* x, float* y, int planes, MEANS) {
  int places = oh * ow, tiles = (places + 255) / 256, plane = blockIdx.x / tiles;
  int p = (blockIdx.x % tiles) * 256 + threadIdx.x;
  if (p >= places) return;
  Span r = Means{ih, oh, kh, sh, ph, mode_h}.at(p / ow), c = Means{iw, ow, kw, sw, pw, mode_w}.at(p % ow);
  const float* from = x + (size_t)plane * ih * iw;
  float sum = 0.f;
  for (int h = r.lo; h < r.hi; h++)
    for (int w = c.lo; w < c.hi; w++) sum += from[h * iw + w];
  // A window that lies wholly in the padding joins nothing.
  y[(size_t)plane * places + p] = r.lo < r.hi && c.lo < c.hi ? sum / ((float)r.divisor * c.divisor) : 0.f;
}
CUEMU_EXPORT(average_pool_f32)

extern "C" __global__ void __launch_bounds__(256) average_pool_grad_f32(const float* g, float* x, int planes, MEANS) {
  int places = ih * iw, tiles = (places + 255) / 256, plane = blockIdx.x / tiles;
  int p = (blockIdx.x % tiles) * 256 + threadIdx.x;
  if (p >= places) return;
  Means rows{ih, oh, kh, sh, ph, mode_h}, columns{iw, ow, kw, sw, pw, mode_w};
  const float* from = g + (size_t)plane * oh * ow;
  int h = p / iw, w = p % iw;
  float sum = 0.f;
  for (int i = rows.first(h); i < oh; i++) {
    Span r = rows.at(i);
    if (r.lo > h) break;
    if (r.hi <= h) continue;
    for (int j = columns.first(w); j < ow; j++) {
      Span c = columns.at(j);
      if (c.lo > w) break;
      if (c.hi > w) sum += from[i * ow + j] / ((float)r.divisor * c.divisor);
    }
  }
  x[(size_t)plane * places + p] = sum;
}
CUEMU_EXPORT(average_pool_grad_f32)
