// warp.cuh: reductions and scans over warps and blocks, by shuffles.
//
// Shuffles, votes and `__syncwarp` are spelled as in CUDA (`__shfl_xor_sync`, `__ballot_sync`, ...): the
// compilers know them, the emulator defines them. A shuffle exchanges registers; it does not order
// memory: between a lane's write to shared memory and another lane's read stands `__syncwarp()`.
#pragma once
#include "base.cuh"

struct Sum { template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a + b; } };
struct Max { template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return a < b ? b : a; } };
struct Min { template <class T> __device__ __forceinline__ T operator()(T a, T b) const { return b < a ? b : a; } };

// `op` over groups of W neighbouring lanes (a power of two); every lane has the result, the same bits in each.
template <int W = 32, class T, class Op> DEVFN T warp_reduce(T v, Op op) {
#pragma unroll
  for (int d = W / 2; d; d >>= 1) v = op(v, __shfl_xor_sync(~0u, v, d));
  return v;
}
template <int W = 32> DEVFN float warp_sum(float v) { return warp_reduce<W>(v, Sum()); }
// NaN is passed over, as `fmaxf` does.
template <int W = 32> DEVFN float warp_max(float v) {
#pragma unroll
  for (int d = W / 2; d; d >>= 1) v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
  return v;
}

// `op` over the lanes up to and with this one.
template <class T, class Op> DEVFN T warp_scan(T v, Op op) {
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int d = 1; d < 32; d <<= 1) {
    T below = __shfl_up_sync(~0u, v, d);
    if (lane >= d) v = op(below, v);
  }
  return v;
}

// `op` over a block of THREADS threads (a multiple of 32, one-dimensional); every thread has the result.
// All threads must call it. Two barriers, so it can be called again at once.
template <int THREADS, class T, class Op> DEVFN T block_reduce(T v, Op op) {
  __shared__ T part[THREADS / 32];
  v = warp_reduce(v, op);
  if (THREADS == 32) return v;
  __syncthreads();
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
  __syncthreads();
  v = part[0];
#pragma unroll
  for (int w = 1; w < THREADS / 32; w++) v = op(v, part[w]);
  return v;
}
template <int THREADS> DEVFN float block_sum(float v) { return block_reduce<THREADS>(v, Sum()); }
// NaN is passed over, as `fmaxf` does.
struct FMax { __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); } };
template <int THREADS> DEVFN float block_max(float v) { return block_reduce<THREADS>(v, FMax()); }

// One lane of a converged warp: the one that issues what the whole warp needs once.
DEVFN bool elect_one() {
#ifndef CUEMU
  uint32_t is;
  asm volatile("{.reg .pred p;\n elect.sync _|p, 0xffffffff;\n selp.u32 %0, 1, 0, p;}" : "=r"(is));
  return is != 0;
#else
  __syncwarp();
  return cuemu::self()->lane == 0;
#endif
}
