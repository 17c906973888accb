// Matrix products on Ampere's tensor cores: bf16, f16 and TF32 operands, sums in f32, all transpositions, batched
// (include/ampere.cuh).
//
// Tiles of 128 x 128 (256 threads, warps of 64 x 32) or 64 x 64 (128 threads, warps of 32 x 32).
// Shared memory 64 or 32 KiB, registers at most 128 (two or four blocks an SM), but 164 to 181 (one block) for large tiles of
// `tt` and of TF32 with a transposed. Bound: 312 TFLOP/s on an A100, 0.8 in reach.
#include "ampere.cuh"

template <class T, bool KA, bool KB, int W, int WARPS_M, int WARPS_N>
DEVFN void product(int m, int n, int k, int inner, int part, float* partial, const Operand& a, const Operand& b,
                                               const Epilogue& e) {
  constexpr int THREADS = WARPS_M * WARPS_N * 32;
  TileOrder order(m, n, W, W);
  int batch = blockIdx.x / order.count, bo = batch / inner, bi = batch % inner, i0, j0;
  order.at(blockIdx.x % order.count, i0, j0);
  int l0 = (int)blockIdx.y * part, l1 = k - l0 > part ? l0 + part : k;
  const T* pa = (const T*)a.at + a.index(0, 0, bo, bi);
  const T* pb = (const T*)b.at + b.index(0, 0, bo, bi);
  float* to = partial + ((long long)blockIdx.y * (gridDim.x / order.count) + batch) * m * n;
  float most = 0.f;
  auto store = [&](const float* stage, int ld, int rows, int first) {
    first += i0;
    auto row = [=](int s) { return first + s < m ? first + s : -1; };
    if (partial) store_rows(to, stage, ld, rows, W, row, j0, n, threadIdx.x, THREADS);
    else epilogue_rows(e, stage, ld, rows, W, row, j0, n, bo, bi, threadIdx.x, THREADS, most);
  };
  ampere_tile<T, KA, KB, W, WARPS_M, WARPS_N>(pa, KA ? a.row : a.col, m, pb, KB ? b.col : b.row, n, i0, j0, l0, l1, store);
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
