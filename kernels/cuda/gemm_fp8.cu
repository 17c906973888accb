// Matrix products of eight bits on Hopper's tensor cores, E4M3 and E5M2, sums in f32 (include/hopper.cuh).
//
// Both operands have k together, as the tensor cores ask: quantize.cu writes transposed copies with the values. One factor
// for each operand, or for each row and column, is part of the epilogue: 128 x 256 by 128 in four stages and clusters of
// two, or 128 x 128 in six. `*_blocks` (128 x 128, in clusters of two, without which such tiles would ask the second cache for 67
// bytes a cycle and multiprocessor, twice what it gives: so it is 50) adds sums of 128 values in full precision, scaled by the factors of
// a's rows by 128 of k and b's blocks of 128 x 128; without factors it is the product with exact sums that gradients ask for.
// `*_columns` has factors of b's columns by 128 of k instead, as the gradients of weights in block-wise recipes have: 32 more
// registers, read from the first cache.
// 384 threads, registers 40 and 232. Bound: 1,979 TFLOP/s; with blocks two thirds of it, as the additions take turns with
// the tensor cores of the other warpgroup.
#include "hopper.cuh"

#if HOPPER
#define BODY(A, B, BN, STAGES, CLUSTER, PROMOTE) Hopper<A, B, true, true, BN, STAGES, CLUSTER, PROMOTE>::run(&ma, &mb, &mc, HOPPER_SHAPE, EPILOGUE)
#else
#define BODY(A, B, BN, STAGES, CLUSTER, PROMOTE)
#endif
#define LARGE(name, A, B)                                                                              \
  extern "C" __global__ void CLUSTER(2, 1, 1) __launch_bounds__(384, 1) name(HOPPER_PARAMS) { \
    BODY(A, B, 256, 4, 2, 0);                                                                          \
  }
#define SMALL(name, A, B)                                                    \
  extern "C" __global__ void __launch_bounds__(384, 1) name(HOPPER_PARAMS) { \
    BODY(A, B, 128, 6, 1, 0);                                                \
  }
#define SCALED(name, A, B, PROMOTE)                                                                    \
  extern "C" __global__ void CLUSTER(2, 1, 1) __launch_bounds__(384, 1) name(HOPPER_PARAMS) { \
    BODY(A, B, 128, 6, 2, PROMOTE);                                                                    \
  }
LARGE(gemm_e4m3_e4m3_256, e4m3, e4m3)
CUEMU_EXPORT(gemm_e4m3_e4m3_256)
LARGE(gemm_e4m3_e5m2_256, e4m3, e5m2)
CUEMU_EXPORT(gemm_e4m3_e5m2_256)
LARGE(gemm_e5m2_e4m3_256, e5m2, e4m3)
CUEMU_EXPORT(gemm_e5m2_e4m3_256)
SMALL(gemm_e4m3_e4m3_128, e4m3, e4m3)
CUEMU_EXPORT(gemm_e4m3_e4m3_128)
SMALL(gemm_e4m3_e5m2_128, e4m3, e5m2)
CUEMU_EXPORT(gemm_e4m3_e5m2_128)
SMALL(gemm_e5m2_e4m3_128, e5m2, e4m3)
CUEMU_EXPORT(gemm_e5m2_e4m3_128)
SCALED(gemm_e4m3_e4m3_blocks, e4m3, e4m3, BLOCKS)
CUEMU_EXPORT(gemm_e4m3_e4m3_blocks)
SCALED(gemm_e4m3_e5m2_blocks, e4m3, e5m2, BLOCKS)
CUEMU_EXPORT(gemm_e4m3_e5m2_blocks)
SCALED(gemm_e5m2_e4m3_blocks, e5m2, e4m3, BLOCKS)
CUEMU_EXPORT(gemm_e5m2_e4m3_blocks)
SCALED(gemm_e4m3_e4m3_columns, e4m3, e4m3, COLUMNS)
CUEMU_EXPORT(gemm_e4m3_e4m3_columns)
SCALED(gemm_e4m3_e5m2_columns, e4m3, e5m2, COLUMNS)
CUEMU_EXPORT(gemm_e4m3_e5m2_columns)
SCALED(gemm_e5m2_e4m3_columns, e5m2, e4m3, COLUMNS)
CUEMU_EXPORT(gemm_e5m2_e4m3_columns)
