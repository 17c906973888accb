// mma.cuh: tensor cores as of Ampere: fragments from shared memory and products of 16 by 8 tiles, by whole
// warps.
//
// Fragments of mma.sync m16n8 (lane = 4 g + t): C: {(g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)}. Of 16-bit A (16 x 16,
// row-major): {(g, 2t..), (g+8, 2t..), (g, 2t+8..), (g+8, 2t+8..)}; of 16-bit B (16 x 8, column-major): {(2t.., g), (2t+8.., g)}.
// 8-bit A and B likewise with quadruples (4t.., 4t+16..). TF32 (16 x 8 x 8): A {(g, t), (g+8, t), (g, t+4), (g+8, t+4)}, B {(t, g), (t+4, g)}.
#pragma once
#include "base.cuh"

// One to four 8 x 8 matrices of 16-bit values. Lane i gives the address of row i % 8 of matrix i / 8; of each
// matrix lane 4 g + t gets (g, 2t..2t+1), transposed (2t..2t+1, g). Rows are aligned to 16 bytes.
#ifndef CUEMU
#define LDMATRIX_(NAME, FORM, COUNT, OUT, ...)                                                                     \
  DEVFN void NAME(uint32_t (&r)[COUNT], const void* row) {                                                         \
    asm volatile("ldmatrix.sync.aligned.m8n8." FORM ".shared.b16 " OUT ";" : __VA_ARGS__ : "r"(s32(row)) : "memory"); \
  }
#define O1_ "=r"(r[0])
#define O2_ O1_, "=r"(r[1])
#define O4_ O2_, "=r"(r[2]), "=r"(r[3])
LDMATRIX_(ldmatrix_x1, "x1", 1, "{%0}, [%1]", O1_)
LDMATRIX_(ldmatrix_x2, "x2", 2, "{%0,%1}, [%2]", O2_)
LDMATRIX_(ldmatrix_x4, "x4", 4, "{%0,%1,%2,%3}, [%4]", O4_)
LDMATRIX_(ldmatrix_x1_trans, "x1.trans", 1, "{%0}, [%1]", O1_)
LDMATRIX_(ldmatrix_x2_trans, "x2.trans", 2, "{%0,%1}, [%2]", O2_)
LDMATRIX_(ldmatrix_x4_trans, "x4.trans", 4, "{%0,%1,%2,%3}, [%4]", O4_)
#undef LDMATRIX_
#undef O1_
#undef O2_
#undef O4_
#else
DEVFN void ldmatrix_x1(uint32_t (&r)[1], const void* row) { cuemu::ldmatrix(r, 1, false, row); }
DEVFN void ldmatrix_x2(uint32_t (&r)[2], const void* row) { cuemu::ldmatrix(r, 2, false, row); }
DEVFN void ldmatrix_x4(uint32_t (&r)[4], const void* row) { cuemu::ldmatrix(r, 4, false, row); }
DEVFN void ldmatrix_x1_trans(uint32_t (&r)[1], const void* row) { cuemu::ldmatrix(r, 1, true, row); }
DEVFN void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row) { cuemu::ldmatrix(r, 2, true, row); }
DEVFN void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row) { cuemu::ldmatrix(r, 4, true, row); }
#endif

// The way back (sm_90): what ldmatrix would give is stored.
DEVFN void stmatrix_x2(void* row, const uint32_t (&r)[2]) {
#ifndef CUEMU
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1,%2};" ::"r"(s32(row)), "r"(r[0]), "r"(r[1]) : "memory");
#else
  cuemu::stmatrix(row, r, 2, false);
#endif
}
DEVFN void stmatrix_x4(void* row, const uint32_t (&r)[4]) {
#ifndef CUEMU
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(s32(row)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
#else
  cuemu::stmatrix(row, r, 4, false);
#endif
}
DEVFN void stmatrix_x4_trans(void* row, const uint32_t (&r)[4]) {
#ifndef CUEMU
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};" ::"r"(s32(row)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3]) : "memory");
#else
  cuemu::stmatrix(row, r, 4, true);
#endif
}

#ifndef CUEMU
#define MMA_(SHAPE, TYPES, OUT, C)                                                                                    \
  asm volatile("mma.sync.aligned." SHAPE ".row.col." TYPES " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"     \
               : OUT(C[0]), OUT(C[1]), OUT(C[2]), OUT(C[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
#define MMA_F_(SHAPE, TYPES, KIND) MMA_(SHAPE, TYPES, "+f", c)
#define MMA_I_(SHAPE, TYPES, KIND) MMA_(SHAPE, TYPES, "+r", c)
#else
#define MMA_F_(SHAPE, TYPES, KIND) cuemu::mma(cuemu::KIND, c, a, b0, b1)
#define MMA_I_(SHAPE, TYPES, KIND) cuemu::mma(cuemu::KIND, c, a, b0, b1)
#endif

// c += a b, 16 x 8 x 16, T bf16 or f16.
template <class T> DEVFN void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void mma<bf16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_F_("m16n8k16", "f32.bf16.bf16.f32", MmaBf16); }
template <> __device__ __forceinline__ void mma<f16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_F_("m16n8k16", "f32.f16.f16.f32", MmaF16); }
DEVFN void mma16816(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma<bf16>(c, a, b0, b1); }

// c += a b, 16 x 8 x 8, floats whose lower 13 bits are not looked at (`to_tf32` rounds).
DEVFN void mma_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_F_("m16n8k8", "f32.tf32.tf32.f32", MmaTf32); }

// c += a b, 16 x 8 x 32, integers of eight bits.
DEVFN void mma_s8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_I_("m16n8k32", "s32.s8.s8.s32", MmaS8); }

// c += a b, 16 x 8 x 32, floats of eight bits (sm_89 and later).
template <class A, class B> DEVFN void mma_fp8(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
template <> __device__ __forceinline__ void mma_fp8<e4m3, e4m3>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_F_("m16n8k32", "f32.e4m3.e4m3.f32", MmaE4M3E4M3); }
template <> __device__ __forceinline__ void mma_fp8<e4m3, e5m2>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_F_("m16n8k32", "f32.e4m3.e5m2.f32", MmaE4M3E5M2); }
template <> __device__ __forceinline__ void mma_fp8<e5m2, e4m3>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_F_("m16n8k32", "f32.e5m2.e4m3.f32", MmaE5M2E4M3); }
template <> __device__ __forceinline__ void mma_fp8<e5m2, e5m2>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { MMA_F_("m16n8k32", "f32.e5m2.e5m2.f32", MmaE5M2E5M2); }
#undef MMA_F_
#undef MMA_I_
#ifndef CUEMU
#undef MMA_
#endif
