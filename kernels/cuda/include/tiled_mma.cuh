// tiled_mma.cuh: the product of tiled.cuh on tensor cores: factors rounded to bf16, sums in f32 (mma.sync, sm_80).
//
// Tile 128 x 128 on 256 threads, 8 warps of 64 x 32 (64 sums a thread); slabs of depth 32 as bf16 in shared memory,
// both factors with their depth along a line of 80 bytes (ldmatrix and 16-byte stores meet no bank twice), two slabs, 40 KiB;
// the next slab is on its way in registers as f32 while one is multiplied. Operands and results as in tiled.cuh.
// Bound: finding the places of 32 values a thread and slab, about twice the time of its 32 mma a warp.
#pragma once
#include "tiled.cuh"

constexpr int WIDE = 128, MMA_DEPTH = 32, LINE = MMA_DEPTH + 8;

// Two runs of eight values along the depth that this thread brings.
template <class Op> struct Octets {
  static constexpr int KEPT = Op::DEPTH_RUNS ? 2 : 1;
  typename Op::Row rows[KEPT];
  float values[2][8];
  static __device__ __forceinline__ int row(int i) {
    return Op::DEPTH_RUNS ? (int)threadIdx.x / 4 + i * 64 : (int)threadIdx.x % WIDE;
  }
  static __device__ __forceinline__ int octet(int i) {
    return Op::DEPTH_RUNS ? (int)threadIdx.x % 4 : (int)threadIdx.x / WIDE + i * 2;
  }
  __device__ __forceinline__ void open(const Op& op, int from) {
#pragma unroll
    for (int i = 0; i < KEPT; i++) rows[i] = op.row(from + row(i));
  }
  __device__ __forceinline__ void fetch(const Op& op, int from, int end) {
    if constexpr (Op::DEPTH_RUNS) {
#pragma unroll
      for (int e = 0; e < 8; e++) {
        int k = from + octet(0) * 8 + e;
        typename Op::Depth at = op.depth(k < end ? k : from);
#pragma unroll
        for (int i = 0; i < 2; i++) values[i][e] = k < end ? op.at(rows[i], at) : 0.f;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int e = 0; e < 8; e++) {
          int k = from + octet(i) * 8 + e;
          values[i][e] = k < end ? op.at(rows[0], op.depth(k)) : 0.f;
        }
    }
  }
  __device__ __forceinline__ void put(bf16 (*slab)[LINE]) const {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const float* v = values[i];
      *(uint4*)&slab[row(i)][octet(i) * 8] =
          make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
    }
  }
};

// The tile at (m0, n0) of the product over depths k0 to k1, given to `out`.
template <class A, class B, class Out>
__device__ __forceinline__ void product_bf16(int m0, int n0, int k0, int k1, const A& a, const B& b, const Out& out) {
  alignas(16) __shared__ bf16 left[2][WIDE][LINE];
  alignas(16) __shared__ bf16 right[2][WIDE][LINE];
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, wm = warp / 4 * 64, wn = warp % 4 * 32;
  Octets<A> pa;
  Octets<B> pb;
  pa.open(a, m0);
  pb.open(b, n0);
  float sum[4][4][4] = {};
  if (k0 < k1) {
    pa.fetch(a, k0, k1);
    pb.fetch(b, k0, k1);
    pa.put(left[0]);
    pb.put(right[0]);
  }
  __syncthreads();
  int now = 0;
  for (int k = k0; k < k1; k += MMA_DEPTH, now ^= 1) {
    bool more = k + MMA_DEPTH < k1;
    if (more) {
      pa.fetch(a, k + MMA_DEPTH, k1);
      pb.fetch(b, k + MMA_DEPTH, k1);
    }
#pragma unroll
    for (int d = 0; d < MMA_DEPTH; d += 16) {
      uint32_t x[4][4], y[2][4];
#pragma unroll
      for (int i = 0; i < 4; i++) ldmatrix_x4(x[i], &left[now][wm + i * 16 + lane % 16][d + lane / 16 * 8]);
#pragma unroll
      for (int j = 0; j < 2; j++)
        ldmatrix_x4(y[j], &right[now][wn + j * 16 + lane / 16 * 8 + lane % 8][d + lane / 8 % 2 * 8]);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma<bf16>(sum[i][j], x[i], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]);
    }
    if (more) {
      pa.put(left[now ^ 1]);
      pb.put(right[now ^ 1]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < 4; j++)
#pragma unroll
    for (int e = 0; e < 2; e++) {
      auto column = out.column(n0 + wn + j * 8 + lane % 4 * 2 + e);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        out.put(m0 + wm + i * 16 + lane / 4, column, sum[i][j][e]);
        out.put(m0 + wm + i * 16 + lane / 4 + 8, column, sum[i][j][e + 2]);
      }
    }
}

// How a tile of a product is made: by the f32 pipe, or from factors rounded to bf16 by tensor cores.
template <int BM> struct Scalar {
  static constexpr int ROWS = BM;
  template <class A, class B, class Out>
  static __device__ __forceinline__ void tile(int m, int n, int k0, int k1, const A& a, const B& b, const Out& out) {
    product<BM, 128, 4, BM == 64 ? 8 : 4>(m, n, k0, k1, a, b, out);
  }
};
struct Tensor {
  static constexpr int ROWS = 128;
  template <class A, class B, class Out>
  static __device__ __forceinline__ void tile(int m, int n, int k0, int k1, const A& a, const B& b, const Out& out) {
    product_bf16(m, n, k0, k1, a, b, out);
  }
};
