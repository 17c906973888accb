// Matrix products on Hopper's tensor cores: bf16 and f16, sums in f32, all transpositions, batched (include/hopper.cuh).
//
// 384 threads: a producer (40 registers) and two consumer warpgroups (232). Tiles of 128 x 256 by 64 in four stages, in
// clusters of two that share b (192 KiB of ring, 34 KiB to store from), for large results; 128 x 128 in six stages for
// small ones. Bound: 989 TFLOP/s (about 800 at the clocks that a loaded H100 keeps).
#include "hopper.cuh"

#if HOPPER
#define BODY(T, KA, KB, BN, STAGES, CLUSTER) Hopper<T, T, KA, KB, BN, STAGES, CLUSTER, 0>::run(&ma, &mb, &mc, HOPPER_SHAPE, EPILOGUE)
#else
#define BODY(T, KA, KB, BN, STAGES, CLUSTER)
#endif
#define LARGE(name, T, KA, KB)                                                                    \
  extern "C" __global__ void CLUSTER(2, 1, 1) __launch_bounds__(384, 1) name(HOPPER_PARAMS) { \
    BODY(T, KA, KB, 256, 4, 2);                                                                   \
  }
#define SMALL(name, T, KA, KB)                                              \
  extern "C" __global__ void __launch_bounds__(384, 1) name(HOPPER_PARAMS) { \
    BODY(T, KA, KB, 128, 6, 1);                                             \
  }
LARGE(gemm_nn_bf16_sm90_256, bf16, true, false)
CUEMU_EXPORT(gemm_nn_bf16_sm90_256)
LARGE(gemm_nt_bf16_sm90_256, bf16, true, true)
CUEMU_EXPORT(gemm_nt_bf16_sm90_256)
LARGE(gemm_tn_bf16_sm90_256, bf16, false, false)
CUEMU_EXPORT(gemm_tn_bf16_sm90_256)
LARGE(gemm_tt_bf16_sm90_256, bf16, false, true)
CUEMU_EXPORT(gemm_tt_bf16_sm90_256)
SMALL(gemm_nn_bf16_sm90_128, bf16, true, false)
CUEMU_EXPORT(gemm_nn_bf16_sm90_128)
SMALL(gemm_nt_bf16_sm90_128, bf16, true, true)
CUEMU_EXPORT(gemm_nt_bf16_sm90_128)
SMALL(gemm_tn_bf16_sm90_128, bf16, false, false)
CUEMU_EXPORT(gemm_tn_bf16_sm90_128)
SMALL(gemm_tt_bf16_sm90_128, bf16, false, true)
CUEMU_EXPORT(gemm_tt_bf16_sm90_128)
LARGE(gemm_nn_f16_sm90_256, f16, true, false)
CUEMU_EXPORT(gemm_nn_f16_sm90_256)
LARGE(gemm_nt_f16_sm90_256, f16, true, true)
CUEMU_EXPORT(gemm_nt_f16_sm90_256)
LARGE(gemm_tn_f16_sm90_256, f16, false, false)
CUEMU_EXPORT(gemm_tn_f16_sm90_256)
LARGE(gemm_tt_f16_sm90_256, f16, false, true)
CUEMU_EXPORT(gemm_tt_f16_sm90_256)
SMALL(gemm_nn_f16_sm90_128, f16, true, false)
CUEMU_EXPORT(gemm_nn_f16_sm90_128)
SMALL(gemm_nt_f16_sm90_128, f16, true, true)
CUEMU_EXPORT(gemm_nt_f16_sm90_128)
SMALL(gemm_tn_f16_sm90_128, f16, false, false)
CUEMU_EXPORT(gemm_tn_f16_sm90_128)
SMALL(gemm_tt_f16_sm90_128, f16, false, true)
CUEMU_EXPORT(gemm_tt_f16_sm90_128)
