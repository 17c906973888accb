// number.cuh: stored numbers as f32 and back, by code, on raw bits. What kernels use that take any element type; where
// the type is known they use the types of base.cuh. Every conversion to fewer bits rounds to the nearest, ties to even;
// to eight bits it saturates, and NaN becomes 7f, as mobilis_kernels::fp8 has it.
#pragma once

// The codes that hosts pass (src/gemm/mod.rs, `Element`).
enum Element { F32 = 0, BF16 = 1, F16 = 2, E4M3 = 3, E5M2 = 4, I8 = 5 };

#ifndef CUEMU
__device__ __forceinline__ float num_f16(uint16_t v) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v)); return f; }
__device__ __forceinline__ uint16_t num_to_f16(float v) { uint16_t h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v)); return h; }
#else
static inline float num_f16(uint16_t v) {
  uint32_t sign = (uint32_t)(v & 0x8000) << 16, e = v >> 10 & 31, m = v & 1023;
  if (e == 31) return __uint_as_float(sign | 0x7f800000 | m << 13);
  if (e) return __uint_as_float(sign | (e + 112) << 23 | m << 13);
  float f = (float)m * 0x1p-24f;
  return sign ? -f : f;
}
static inline uint16_t num_to_f16(float v) {
  uint32_t u = __float_as_uint(v), a = u & 0x7fffffff, sign = u >> 16 & 0x8000;
  if (a > 0x7f800000) return 0x7fff;
  if (a >= 0x477ff000) return sign | 0x7c00;
  if (a < 0x38800000) return sign | (uint16_t)std::nearbyint(__uint_as_float(a) * 0x1p24f);
  a += 0xfff + (a >> 13 & 1);
  return sign | (uint16_t)((a - 0x38000000) >> 13);
}
#endif

static __device__ __forceinline__ float num_bf16(uint16_t v) { return __uint_as_float((uint32_t)v << 16); }
static __device__ __forceinline__ uint16_t num_to_bf16(float v) {
  uint32_t u = __float_as_uint(v);
  if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

// The magnitude's bits become the upper end of an f32's; one multiplication puts the exponent right, numbers below the
// least normal one included.
static __device__ __forceinline__ float num_e4m3(uint8_t v) {
  uint32_t sign = (uint32_t)(v & 0x80) << 24, m = v & 0x7f;
  if (m == 0x7f) return __uint_as_float(0x7fc00000);
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(m << 20) * 0x1p120f));
}
static __device__ __forceinline__ float num_e5m2(uint8_t v) { return num_f16((uint16_t)(v << 8)); }

// FRACTION bits of fraction, the least normal number 2^LEAST, the greatest magnitude `max`.
template <int FRACTION, int LEAST>
static __device__ __forceinline__ uint8_t num_to_8(float x, float max) {
  uint32_t bits = __float_as_uint(x), a = bits & 0x7fffffff;
  if (a > 0x7f800000) return 0x7f;
  float y = fminf(__uint_as_float(a), max);
  // Adding a power of two whose last bit is the last one to keep rounds there.
  uint32_t e = __float_as_uint(y) & 0x7f800000, least = (uint32_t)(127 + LEAST) << 23;
  float magic = __uint_as_float((e > least ? e : least) + ((uint32_t)(23 - FRACTION) << 23));
#ifdef CUEMU
  volatile float sum = y + magic;
  y = sum - magic;
#else
  y = __fsub_rn(__fadd_rn(y, magic), magic);
#endif
  uint32_t m = __float_as_uint(y), code = (m >> (23 - FRACTION)) - ((uint32_t)(126 + LEAST) << FRACTION);
  if (m < least) code = (uint32_t)(y * __uint_as_float((uint32_t)(127 - LEAST + FRACTION) << 23));
  return (uint8_t)(bits >> 24 & 0x80 | code);
}
static __device__ __forceinline__ uint8_t num_to_e4m3(float v) { return num_to_8<3, -6>(v, 448.f); }
static __device__ __forceinline__ uint8_t num_to_e5m2(float v) { return num_to_8<2, -14>(v, 57344.f); }

// Bytes of a value.
static __device__ __forceinline__ int num_bytes(int type) { return type == F32 ? 4 : type <= F16 ? 2 : 1; }

// Value i of an array of any type.
static __device__ __forceinline__ float num_load(const char* p, int type, long long i) {
  switch (type) {
    case F32: return ((const float*)p)[i];
    case BF16: return num_bf16(((const uint16_t*)p)[i]);
    case F16: return num_f16(((const uint16_t*)p)[i]);
    case E4M3: return num_e4m3(((const uint8_t*)p)[i]);
    case E5M2: return num_e5m2(((const uint8_t*)p)[i]);
    default: return (float)((const signed char*)p)[i];
  }
}
static __device__ __forceinline__ void num_store(char* p, int type, long long i, float v) {
  switch (type) {
    case F32: ((float*)p)[i] = v; return;
    case BF16: ((uint16_t*)p)[i] = num_to_bf16(v); return;
    case F16: ((uint16_t*)p)[i] = num_to_f16(v); return;
    case E4M3: ((uint8_t*)p)[i] = num_to_e4m3(v); return;
    default: ((uint8_t*)p)[i] = num_to_e5m2(v); return;
  }
}
