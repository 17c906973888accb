// Products with the matrices of chosen experts on Ampere's tensor cores: bf16, f16 and TF32, sums in f32
// (include/ampere.cuh), on rows that experts.cu sorted into tiles of 128.
//
// gemm_grouped_n?: a tile of rows by 128 columns of its expert's matrix, rows of results back to the places of their
// choices through the epilogue. gemm_grouped_grad: an expert's matrix from all its rows of both sides, split over nothing.
// 256 threads, warps of 64 x 32, 64 KiB of shared memory, registers at most 128 (but the gradient of TF32).
// Bound: 312 TFLOP/s on an A100 for rows that fill their tiles; where they do not, the bytes of the chosen matrices.
#include "ampere.cuh"

// Grid: tiles of n, and as many tiles of rows as there may be.
template <class T, bool KB>
DEVFN void grouped(int n, int k, int experts, const int* tiles, const int* of, const int* rows, const T* a, int line,
                   const unsigned long long* table, long long b_far, const Epilogue& e) {
  int tile = blockIdx.y, j0 = blockIdx.x * 128;
  if (tile >= tiles[experts]) return;
  rows += tile * 128;
  float most = 0.f;
  auto store = [&](const float* stage, int ld, int high, int first) {
    auto row = [=](int s) { return rows[first + s]; };
    epilogue_rows(e, stage, ld, high, 128, row, j0, n, 0, 0, threadIdx.x, 256, most);
  };
  ampere_tile<T, true, KB, 128, 2, 4>(a + (long long)tile * 128 * line, line, 128, (const T*)table[of[tile]], b_far, n, 0, j0, 0, k, store);
  epilogue_amax(e, most);
}
#define GROUPED(name, T, KB, BLOCKS)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                                           \
      name(int n, int k, int experts, const int* tiles, const int* of, const int* rows, const char* a, int line,                      \
           const unsigned long long* table, long long b_far, EPILOGUE_PARAMS) {                                                       \
    grouped<T, KB>(n, k, experts, tiles, of, rows, (const T*)a, line, table, b_far, EPILOGUE);                                        \
  }
GROUPED(gemm_grouped_nn_bf16_sm80, bf16, false, 2)
CUEMU_EXPORT(gemm_grouped_nn_bf16_sm80)
GROUPED(gemm_grouped_nt_bf16_sm80, bf16, true, 2)
CUEMU_EXPORT(gemm_grouped_nt_bf16_sm80)
GROUPED(gemm_grouped_nn_f16_sm80, f16, false, 2)
CUEMU_EXPORT(gemm_grouped_nn_f16_sm80)
GROUPED(gemm_grouped_nt_f16_sm80, f16, true, 2)
CUEMU_EXPORT(gemm_grouped_nt_f16_sm80)
GROUPED(gemm_grouped_nn_tf32_sm80, float, false, 2)
CUEMU_EXPORT(gemm_grouped_nn_tf32_sm80)
GROUPED(gemm_grouped_nt_tf32_sm80, float, true, 2)
CUEMU_EXPORT(gemm_grouped_nt_tf32_sm80)

// The sums over an expert's rows of a (m values) by b (n values), f32 to the expert's place in the table; zero for experts
// that nobody chose. Grid: tiles of m and n, experts.
template <class T>
DEVFN void grouped_grad(int m, int n, const int* starts, const int* tiles, const T* a, int a_line, const T* b, int b_line,
                        const unsigned long long* table) {
  int tm = (m + 127) / 128, i0 = blockIdx.x % tm * 128, j0 = blockIdx.x / tm * 128, expert = blockIdx.y;
  long long first = tiles[expert] * 128LL;
  int count = starts[expert + 1] - starts[expert];
  float* to = (float*)table[expert];
  auto store = [&](const float* stage, int ld, int high, int from) {
    auto row = [=](int s) { return i0 + from + s < m ? i0 + from + s : -1; };
    store_rows(to, stage, ld, high, 128, row, j0, n, threadIdx.x, 256);
  };
  ampere_tile<T, false, false, 128, 2, 4>(a + first * a_line, a_line, m, b + first * b_line, b_line, n, i0, j0, 0, count, store);
}
#define GRADIENT(name, T, BLOCKS)                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                                           \
      name(int m, int n, const int* starts, const int* tiles, const char* a, int a_line, const char* b, int b_line,                   \
           const unsigned long long* table) {                                                                                         \
    grouped_grad<T>(m, n, starts, tiles, (const T*)a, a_line, (const T*)b, b_line, table);                                            \
  }
GRADIENT(gemm_grouped_grad_bf16_sm80, bf16, 2)
CUEMU_EXPORT(gemm_grouped_grad_bf16_sm80)
GRADIENT(gemm_grouped_grad_f16_sm80, f16, 2)
CUEMU_EXPORT(gemm_grouped_grad_f16_sm80)
GRADIENT(gemm_grouped_grad_tf32_sm80, float, 1)
CUEMU_EXPORT(gemm_grouped_grad_tf32_sm80)
