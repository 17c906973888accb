// tiled.cuh: the product of two matrices that need not be in memory, in f32 on 256 threads.
//
// A tile BM x BN of the result, TM x TN values a thread; slabs of depth 8 in shared memory, the next one on
// its way in registers while one is multiplied. An operand `Op` says how its two indices are taken apart:
// `row(i)` (kept for the whole sum) and `depth(k)` (once a slab), `at(row, depth)` gives the value, and
// DEPTH_RUNS tells which of them runs along memory. A result takes `put(m, column(n), value)`.
#pragma once

constexpr int DEPTH = 8, THREADS = 256;

// The part of a factor that this thread brings to shared memory.
template <int ROWS, class Op> struct Part {
  static constexpr int SLOTS = ROWS * DEPTH / THREADS, KEPT = Op::DEPTH_RUNS ? SLOTS : 1;
  typename Op::Row rows[KEPT];
  float values[SLOTS];
  __device__ __forceinline__ void open(const Op& op, int from) {
#pragma unroll
    for (int i = 0; i < KEPT; i++)
      rows[i] = op.row(from + (Op::DEPTH_RUNS ? ((int)threadIdx.x + i * THREADS) / DEPTH : (int)threadIdx.x % ROWS));
  }
  __device__ __forceinline__ void fetch(const Op& op, int from, int end) {
    if constexpr (Op::DEPTH_RUNS) {
      int k = from + (int)threadIdx.x % DEPTH;
      typename Op::Depth at = op.depth(k < end ? k : from);
#pragma unroll
      for (int i = 0; i < SLOTS; i++) values[i] = k < end ? op.at(rows[i], at) : 0.f;
    } else {
#pragma unroll
      for (int i = 0; i < SLOTS; i++) {
        int k = from + ((int)threadIdx.x + i * THREADS) / ROWS;
        values[i] = k < end ? op.at(rows[0], op.depth(k)) : 0.f;
      }
    }
  }
  __device__ __forceinline__ void put(float (*slab)[ROWS + 4]) const {
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
      int e = (int)threadIdx.x + i * THREADS;
      if constexpr (Op::DEPTH_RUNS) slab[e % DEPTH][e / DEPTH] = values[i];
      else slab[e / ROWS][e % ROWS] = values[i];
    }
  }
};

// Values 4 apart by 4 of a thread: along M in N / 4 runs that lie SPAN apart.
template <int T, int SPAN> __device__ __forceinline__ int run(int lane, int i) { return i / 4 * (SPAN * 4 / T) + lane * 4 + i % 4; }

// The tile at (m0, n0) of the product over depths k0 to k1, given to `out(m, n, value)`.
template <int BM, int BN, int TM, int TN, class A, class B, class Out>
__device__ __forceinline__ void product(int m0, int n0, int k0, int k1, const A& a, const B& b, const Out& out) {
  alignas(16) __shared__ float left[2][DEPTH][BM + 4];
  alignas(16) __shared__ float right[2][DEPTH][BN + 4];
  constexpr int COLUMNS = BN / TN;
  int tx = threadIdx.x % COLUMNS, ty = threadIdx.x / COLUMNS;
  Part<BM, A> pa;
  Part<BN, B> pb;
  pa.open(a, m0);
  pb.open(b, n0);
  float sum[TM][TN] = {};
  if (k0 < k1) {
    pa.fetch(a, k0, k1);
    pb.fetch(b, k0, k1);
    pa.put(left[0]);
    pb.put(right[0]);
  }
  __syncthreads();
  int now = 0;
  for (int k = k0; k < k1; k += DEPTH, now ^= 1) {
    bool more = k + DEPTH < k1;
    if (more) {
      pa.fetch(a, k + DEPTH, k1);
      pb.fetch(b, k + DEPTH, k1);
    }
#pragma unroll
    for (int d = 0; d < DEPTH; d++) {
      float x[TM], y[TN];
#pragma unroll
      for (int i = 0; i < TM; i += 4) *(float4*)&x[i] = *(const float4*)&left[now][d][run<TM, BM>(ty, i)];
#pragma unroll
      for (int j = 0; j < TN; j += 4) *(float4*)&y[j] = *(const float4*)&right[now][d][run<TN, BN>(tx, j)];
#pragma unroll
      for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] += x[i] * y[j];
    }
    if (more) {
      pa.put(left[now ^ 1]);
      pb.put(right[now ^ 1]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < TN; j++) {
    auto column = out.column(n0 + run<TN, BN>(tx, j));
#pragma unroll
    for (int i = 0; i < TM; i++) out.put(m0 + run<TM, BM>(ty, i), column, sum[i][j]);
  }
}
