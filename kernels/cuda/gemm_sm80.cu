// Matrix products on Ampere's tensor cores: bf16, f16 and TF32 operands, sums in f32, all transpositions, batched.
//
// Tiles of 128 x 128 (256 threads, warps of 64 x 32) or 64 x 64 (128 threads, warps of 32 x 32) by 64 bytes of k, four
// stages of cp.async. Operands whose k stands together lie in shared memory as rows of 64 bytes, chunk c of row r at
// c ^ (r / 2 & 3); the others as rows of the tile's width for each k, chunk c at c ^ (k & 7): so eight rows of an ldmatrix
// (transposed for the latter) meet all banks. TF32 reads transposed operands value by value, with chunks at c ^ 2 (k & 3).
// Sums pass through shared memory in two halves, so that the epilogue stores whole lines.
// Shared memory 64 or 32 KiB, registers at most 128 (two or four blocks an SM), but 164 to 181 (one block) for large tiles of
// `tt` and of TF32 with a transposed. Bound: 312 TFLOP/s on an A100, 0.8 in reach.
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

template <class T, bool KA, bool KB, int W, int WARPS_M, int WARPS_N>
DEVFN void product(int m, int n, int k, int inner, int part, float* partial, const Operand& a, const Operand& b,
                                               const Epilogue& e) {
  constexpr int THREADS = WARPS_M * WARPS_N * 32, WM = W / WARPS_M, WN = W / WARPS_N, LD = W + 4;
  typedef Tile<T, W, KA, THREADS> A;
  typedef Tile<T, W, KB, THREADS> B;
  DYN_SMEM(char, memory);
  char *sa = memory, *sb = memory + STAGES * A::BYTES;
  TileOrder order(m, n, W, W);
  int batch = blockIdx.x / order.count, bo = batch / inner, bi = batch % inner, i0, j0;
  order.at(blockIdx.x % order.count, i0, j0);
  int l0 = (int)blockIdx.y * part, l1 = k - l0 > part ? l0 + part : k, steps = l1 > l0 ? (l1 - l0 + A::K - 1) / A::K : 0;
  const T* pa = (const T*)a.at + a.index(0, 0, bo, bi);
  const T* pb = (const T*)b.at + b.index(0, 0, bo, bi);
  auto bring = [&](int step) {
    if (step < steps) {
      int slot = step % STAGES, l = l0 + step * A::K;
      A::bring(sa + slot * A::BYTES, pa, KA ? a.row : a.col, i0, m, l, l1);
      B::bring(sb + slot * B::BYTES, pb, KB ? b.col : b.row, j0, n, l, l1);
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
  float* to = partial + ((long long)blockIdx.y * (gridDim.x / order.count) + batch) * m * n;
  int g = (threadIdx.x & 31) >> 2, t = threadIdx.x & 3;
  float most = 0.f;
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
    int first = i0 + pass * WM;
    auto row = [=](int s) { return first + s < m ? first + s : -1; };
    if (partial) store_rows(to, stage, LD, WM, W, row, j0, n, threadIdx.x, THREADS);
    else epilogue_rows(e, stage, LD, WM, W, row, j0, n, bo, bi, threadIdx.x, THREADS, most);
  }
  if (!partial) epilogue_amax(e, most);
}

// Grid: tiles of all batches, splits of `part` of k. The first letter: n where the k of a stands together; the second: t where
// that of b does. Operands begin at 16 bytes, and so do all their rows.
#define PRODUCT(name, T, KA, KB, W, WM, WN, BLOCKS)                                                                              \
  extern "C" __global__ void __launch_bounds__(WM* WN * 32, BLOCKS)                                                              \
      name(int m, int n, int k, int inner, int part, float* partial, OPERAND(a), OPERAND(b), int, int, EPILOGUE_PARAMS) {        \
    product<T, KA, KB, W, WM, WN>(m, n, k, inner, part, partial, TAKE(a), TAKE(b), EPILOGUE);                                    \
  }
PRODUCT(gemm_nn_bf16_sm80_128, bf16, true, false, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_nn_bf16_sm80_128)
PRODUCT(gemm_nt_bf16_sm80_128, bf16, true, true, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_nt_bf16_sm80_128)
PRODUCT(gemm_tn_bf16_sm80_128, bf16, false, false, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_tn_bf16_sm80_128)
PRODUCT(gemm_tt_bf16_sm80_128, bf16, false, true, 128, 2, 4, 1)
CUEMU_EXPORT(gemm_tt_bf16_sm80_128)
PRODUCT(gemm_nn_bf16_sm80_64, bf16, true, false, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_nn_bf16_sm80_64)
PRODUCT(gemm_nt_bf16_sm80_64, bf16, true, true, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_nt_bf16_sm80_64)
PRODUCT(gemm_tn_bf16_sm80_64, bf16, false, false, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_tn_bf16_sm80_64)
PRODUCT(gemm_tt_bf16_sm80_64, bf16, false, true, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_tt_bf16_sm80_64)
PRODUCT(gemm_nn_f16_sm80_128, f16, true, false, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_nn_f16_sm80_128)
PRODUCT(gemm_nt_f16_sm80_128, f16, true, true, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_nt_f16_sm80_128)
PRODUCT(gemm_tn_f16_sm80_128, f16, false, false, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_tn_f16_sm80_128)
PRODUCT(gemm_tt_f16_sm80_128, f16, false, true, 128, 2, 4, 1)
CUEMU_EXPORT(gemm_tt_f16_sm80_128)
PRODUCT(gemm_nn_f16_sm80_64, f16, true, false, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_nn_f16_sm80_64)
PRODUCT(gemm_nt_f16_sm80_64, f16, true, true, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_nt_f16_sm80_64)
PRODUCT(gemm_tn_f16_sm80_64, f16, false, false, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_tn_f16_sm80_64)
PRODUCT(gemm_tt_f16_sm80_64, f16, false, true, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_tt_f16_sm80_64)
PRODUCT(gemm_nn_tf32_sm80_128, float, true, false, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_nn_tf32_sm80_128)
PRODUCT(gemm_nt_tf32_sm80_128, float, true, true, 128, 2, 4, 2)
CUEMU_EXPORT(gemm_nt_tf32_sm80_128)
PRODUCT(gemm_tn_tf32_sm80_128, float, false, false, 128, 2, 4, 1)
CUEMU_EXPORT(gemm_tn_tf32_sm80_128)
PRODUCT(gemm_tt_tf32_sm80_128, float, false, true, 128, 2, 4, 1)
CUEMU_EXPORT(gemm_tt_tf32_sm80_128)
PRODUCT(gemm_nn_tf32_sm80_64, float, true, false, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_nn_tf32_sm80_64)
PRODUCT(gemm_nt_tf32_sm80_64, float, true, true, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_nt_tf32_sm80_64)
PRODUCT(gemm_tn_tf32_sm80_64, float, false, false, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_tn_tf32_sm80_64)
PRODUCT(gemm_tt_tf32_sm80_64, float, false, true, 64, 2, 2, 4)
CUEMU_EXPORT(gemm_tt_tf32_sm80_64)
