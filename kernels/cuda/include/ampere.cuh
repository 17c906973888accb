// ampere.cuh: a tile of a product on Ampere's tensor cores: the body of gemm_sm80.cu and gemm_grouped_sm80.cu.
//
// Tiles of W x W by 64 bytes of k, four stages of cp.async. Operands whose k stands together lie in shared memory as rows of
// 64 bytes, chunk c of row r at c ^ (r / 2 & 3); the others as rows of the tile's width for each k, chunk c at c ^ (k & 7): so
// eight rows of an ldmatrix (transposed for the latter) meet all banks. TF32 reads transposed operands value by value, with
// chunks at c ^ 2 (k & 3). Sums pass through shared memory in as many parts as there are rows of warps, so that whole
// lines are stored.
#pragma once
#include "gpu.cuh"
#include "epilogue.cuh"
#include "tiles.cuh"

constexpr int STAGES = 4, ROW = 64;

template <class T> DEVFN void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma<T>(c, a, b0, b1); }
template <> __device__ __forceinline__ void multiply<float>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t r[4] = {to_tf32(__uint_as_float(a[0])), to_tf32(__uint_as_float(a[1])), to_tf32(__uint_as_float(a[2])), to_tf32(__uint_as_float(a[3]))};
  mma_tf32(c, r, to_tf32(__uint_as_float(b0)), to_tf32(__uint_as_float(b1)));
}

// One operand's tile: W rows or columns by ROW bytes of k. KMAJOR: k stands together.
template <class T, int W, bool KMAJOR, int THREADS> struct Tile {
  static constexpr int CHUNK = 16 / sizeof(T), K = ROW / sizeof(T), BYTES = W * ROW;

  static __device__ __forceinline__ int swizzle(int k) { return sizeof(T) == 4 ? (k & 3) * 2 : k & 7; }
  // The place of 16 bytes: row r of the tile as it lies, chunk c.
  static __device__ __forceinline__ char* at(char* tile, int r, int c) {
    return KMAJOR ? tile + r * ROW + (c ^ (r >> 1 & 3)) * 16 : tile + r * (W * (int)sizeof(T)) + (c ^ swizzle(r)) * 16;
  }

  // Brings in rows from i0 on (of `rows`), k from l0 on (to `end`); zeros beyond.
  static __device__ __forceinline__ void bring(char* tile, const T* from, long long far, int i0, int rows, int l0, int end) {
    constexpr int PER = KMAJOR ? ROW / 16 : W / CHUNK, ALL = BYTES / 16;
#pragma unroll
    for (int q = threadIdx.x; q < ALL; q += THREADS) {
      int r = q / PER, c = q % PER;
      int i = KMAJOR ? i0 + r : l0 + r, j = (KMAJOR ? l0 : i0) + c * CHUNK;
      int left = i < (KMAJOR ? rows : end) ? (KMAJOR ? end : rows) - j : 0;
      int bytes = left <= 0 ? 0 : left >= CHUNK ? 16 : left * (int)sizeof(T);
      cp_async16(at(tile, r, c), bytes ? from + i * far + j : from, bytes);
    }
  }

  // Fragments of 16 by two chunks at (i, k): FIRST orders quarters as a's, else as two neighbours of b's.
  template <bool FIRST> static __device__ __forceinline__ void fragment(uint32_t (&r)[4], char* tile, int i, int k) {
    int lane = threadIdx.x & 31, half = lane >> 3 & 1, other = lane >> 4;
    int wide = FIRST ? half : other, deep = FIRST ? other : half;
    if (KMAJOR) {
      ldmatrix_x4(r, at(tile, i + wide * 8 + (lane & 7), k / CHUNK + deep));
    } else if (sizeof(T) == 2) {
      ldmatrix_x4_trans(r, at(tile, k + deep * 8 + (lane & 7), i / CHUNK + wide));
    } else {
      int g = lane >> 2, t = lane & 3;
#pragma unroll
      for (int h = 0; h < 4; h++) {
        int w = i + g + (FIRST ? h & 1 : h >> 1) * 8, d = k + t + (FIRST ? h >> 1 : h & 1) * 4;
        r[h] = *(const uint32_t*)(at(tile, d, w / CHUNK) + w % CHUNK * 4);
      }
    }
  }
};

// The tile at (i0, j0) over l0 .. l1: a begins at `pa`, whose lines are `far_a` apart and of which there are m (rows where k
// stands together, else l1 is all that counts), b likewise with n. Sums go to store(stage, LD, rows, first): rows of
// W sums that stand in shared memory, LD apart, the first of them row `first` of the tile.
template <class T, bool KA, bool KB, int W, int WARPS_M, int WARPS_N, class Store>
DEVFN void ampere_tile(const T* pa, long long far_a, int m, const T* pb, long long far_b, int n, int i0, int j0, int l0, int l1,
                       Store store) {
  constexpr int THREADS = WARPS_M * WARPS_N * 32, WM = W / WARPS_M, WN = W / WARPS_N, LD = W + 4;
  typedef Tile<T, W, KA, THREADS> A;
  typedef Tile<T, W, KB, THREADS> B;
  DYN_SMEM(char, memory);
  char *sa = memory, *sb = memory + STAGES * A::BYTES;
  int steps = l1 > l0 ? (l1 - l0 + A::K - 1) / A::K : 0;
  auto bring = [&](int step) {
    if (step < steps) {
      int slot = step % STAGES, l = l0 + step * A::K;
      A::bring(sa + slot * A::BYTES, pa, far_a, i0, m, l, l1);
      B::bring(sb + slot * B::BYTES, pb, far_b, j0, n, l, l1);
    }
    cp_async_commit();
  };
  float sum[WM / 16][WN / 8][4];
#pragma unroll
  for (int i = 0; i < WM / 16; i++)
#pragma unroll
    for (int j = 0; j < WN / 8; j++) sum[i][j][0] = sum[i][j][1] = sum[i][j][2] = sum[i][j][3] = 0.f;
  int warp = threadIdx.x >> 5, wi = warp / WARPS_N, wj = warp % WARPS_N;
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) bring(s);
  for (int step = 0; step < steps; step++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    bring(step + STAGES - 1);
    char *ta = sa + step % STAGES * A::BYTES, *tb = sb + step % STAGES * B::BYTES;
#pragma unroll
    for (int l = 0; l < A::K; l += 2 * A::CHUNK) {
      uint32_t fa[WM / 16][4], fb[WN / 16][4];
#pragma unroll
      for (int i = 0; i < WM / 16; i++) A::template fragment<true>(fa[i], ta, wi * WM + i * 16, l);
#pragma unroll
      for (int j = 0; j < WN / 16; j++) B::template fragment<false>(fb[j], tb, wj * WN + j * 16, l);
#pragma unroll
      for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++) multiply<T>(sum[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
    }
  }
  cp_async_wait<0>();
  float* stage = (float*)memory;
  int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
#pragma unroll 1
  for (int pass = 0; pass < WARPS_M; pass++) {
    __syncthreads();
    if (wi == pass)
#pragma unroll
      for (int i = 0; i < WM / 16; i++)
#pragma unroll
        for (int j = 0; j < WN / 8; j++)
#pragma unroll
          for (int h = 0; h < 2; h++)
            *(float2*)(stage + (i * 16 + h * 8 + g) * LD + wj * WN + j * 8 + t * 2) = make_float2(sum[i][j][h * 2], sum[i][j][h * 2 + 1]);
    __syncthreads();
    store(stage, LD, WM, pass * WM);
  }
}

