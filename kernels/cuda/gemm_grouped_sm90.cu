// Products with the matrices of chosen experts on Hopper's tensor cores: bf16 and f16, sums in f32 (include/hopper.cuh),
// on rows that experts.cu sorted into tiles of 128.
//
// Persistent, a producer and two consumer warpgroups, tiles of 128 x 256 by 64 in four stages. How many tiles there are
// stands in memory, so the host waits for nothing. gemm_grouped_n?: each tile of rows reads the tensor map of its expert's
// matrix from memory, and rows of results go back to the places of their choices through the epilogue.
// gemm_grouped_grad: a tile of an expert's matrix sums over all its rows of both sides, whose ends are zeros.
// 384 threads, registers 40 and 232, 226 KiB. Bound: 989 TFLOP/s for rows that fill their tiles; where they do not, the
// bytes of the chosen matrices.
#include "hopper.cuh"

#if HOPPER
#define BODY(T, KA, KB, GROUPED, ...) \
  HopperShape shape{__VA_ARGS__};      \
  Hopper<T, T, KA, KB, 256, 4, 1, 0, GROUPED>::run(&ma, mb, &ma, shape, EPILOGUE)
#else
#define BODY(...)
#endif

// Grid: the multiprocessors.
#define GROUPED(name, T, KB)                                                                                                          \
  extern "C" __global__ void __launch_bounds__(384, 1)                                                                                \
      name(const __grid_constant__ TensorMap ma, const TensorMap* mb, int n, int k, int experts, const int* tiles, const int* of,     \
           const int* rows, EPILOGUE_PARAMS) {                                                                                        \
    BODY(T, true, KB, BY_ROWS, 128, n, k, 1, 1, 0, 1, k, nullptr, 0, nullptr, 0, 0, nullptr, 0, 0, experts, nullptr, tiles, of, rows, \
         nullptr);                                                                                                                    \
  }
GROUPED(gemm_grouped_nn_bf16_sm90, bf16, false)
CUEMU_EXPORT(gemm_grouped_nn_bf16_sm90)
GROUPED(gemm_grouped_nt_bf16_sm90, bf16, true)
CUEMU_EXPORT(gemm_grouped_nt_bf16_sm90)
GROUPED(gemm_grouped_nn_f16_sm90, f16, false)
CUEMU_EXPORT(gemm_grouped_nn_f16_sm90)
GROUPED(gemm_grouped_nt_f16_sm90, f16, true)
CUEMU_EXPORT(gemm_grouped_nt_f16_sm90)

// Grid: the multiprocessors, at most the tiles of all experts.
#define GRADIENT(name, T)                                                                                                             \
  extern "C" __global__ void __launch_bounds__(384, 1)                                                                                \
      name(const __grid_constant__ TensorMap ma, const __grid_constant__ TensorMap b, int m, int n, int experts, const int* starts, \
           const int* tiles, const unsigned long long* table, EPILOGUE_PARAMS) {                                                      \
    [[maybe_unused]] const TensorMap* mb = &b;                                                                                        \
    BODY(T, false, false, BY_DEPTH, m, n, 0, 1, 1, 0, 1, 0, nullptr, 0, nullptr, 0, 0, nullptr, 0, 0, experts, starts, tiles, nullptr, \
         nullptr, table);                                                                                                             \
  }
GRADIENT(gemm_grouped_grad_bf16_sm90, bf16)
CUEMU_EXPORT(gemm_grouped_grad_bf16_sm90)
GRADIENT(gemm_grouped_grad_f16_sm90, f16)
CUEMU_EXPORT(gemm_grouped_grad_f16_sm90)
