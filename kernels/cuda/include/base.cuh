// base.cuh: what every kernel starts from. Macros, integers, the narrow floating-point formats with
// their conversions, vectors of 4 to 16 bytes.
//
// One text, three compilers: nvcc, NVRTC (which has no system header) and a C++17 compiler with
// `cuemu.h` included before (the emulator). Nothing of NVIDIA's headers is used. Wherever a line is
// not plain C++, both bodies stand side by side: PTX under `#ifndef CUEMU`, C++ under `#else`.
#pragma once

#ifdef CUEMU
#define DEVFN static inline
// Dynamic shared memory, aligned to 1,024 bytes (what the 128-byte swizzle asks for).
#define DYN_SMEM(T, name) T* name = (T*)cuemu::dynamic_shared()
#else
#define CUEMU_EXPORT(kernel)
#define DEVFN __device__ __forceinline__
#define DYN_SMEM(T, name)                                    \
  extern __shared__ __align__(1024) unsigned char name##_raw[]; \
  T* name = (T*)name##_raw
#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif
#endif

// Code that only Hopper runs (wgmma, setmaxnreg) stands under `#if HOPPER`; the kernel's symbol must
// exist everywhere, with an empty body else.
#if defined(CUEMU) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HOPPER 1
#else
#define HOPPER 0
#endif

// ---- addresses

// The 32-bit address that instructions on shared memory take.
DEVFN uint32_t s32(const void* p) {
#ifndef CUEMU
  return (uint32_t)__cvta_generic_to_shared(p);
#else
  return cuemu::shared_address(p);
#endif
}

// ---- vectors: one load or store of N values, aligned to their size (at most 16 bytes)

template <class T, int N> struct alignas(sizeof(T) * N) Vec {
  T at[N];
  __device__ __forceinline__ T& operator[](int i) { return at[i]; }
  __device__ __forceinline__ const T& operator[](int i) const { return at[i]; }
};

template <int BYTES> struct Raw;
template <> struct Raw<1> { typedef uint8_t type; };
template <> struct Raw<2> { typedef uint16_t type; };
template <> struct Raw<4> { typedef uint32_t type; };
template <> struct Raw<8> { typedef uint2 type; };
template <> struct Raw<16> { typedef uint4 type; };

// N neighbouring values in one load: `Vec<bf16, 8> v = load<8>(p)`.
template <int N, class T> DEVFN Vec<T, N> load(const T* p) {
  typedef typename Raw<sizeof(T) * N>::type R;
#ifdef CUEMU
  cuemu::aligned(p, sizeof(R), "load");
#endif
  Vec<T, N> v;
  *(R*)&v = *(const R*)p;
  return v;
}

// N neighbouring values in one store.
template <int N, class T> DEVFN void store(T* p, const Vec<T, N>& v) {
  typedef typename Raw<sizeof(T) * N>::type R;
#ifdef CUEMU
  cuemu::aligned(p, sizeof(R), "store");
#endif
  *(R*)p = *(const R*)&v;
}

// 16 bytes that are read once and by nobody written during the kernel: past the first cache.
DEVFN uint4 load16_once(const void* p) {
#ifndef CUEMU
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
  return v;
#else
  cuemu::aligned(p, 16, "load16_once");
  return *(const uint4*)p;
#endif
}

// 16 bytes that nobody reads soon.
DEVFN void store16_once(void* p, uint4 v) {
#ifndef CUEMU
  asm volatile("st.global.cs.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w) : "memory");
#else
  cuemu::aligned(p, 16, "store16_once");
  *(uint4*)p = v;
#endif
}

// ---- rounding in integers, what devices without an instruction and the emulator do: to the nearest, ties
// to even, M fraction bits, exponents biased by BIAS, subnormals. No specials: infinity and what is
// too large come out as codes past the format's greatest.
template <int M, int BIAS> DEVFN uint32_t narrow(uint32_t magnitude) {
  if (magnitude < (uint32_t)(128 - BIAS) << 23) {
    // Adding 2^k where a float's last place is the format's least step rounds to that step.
    const uint32_t c = (uint32_t)(127 + 23 + 1 - BIAS - M) << 23;
    return __float_as_uint(__uint_as_float(magnitude) + __uint_as_float(c)) - c;
  }
  uint32_t r = magnitude + ((1u << (22 - M)) - 1) + (magnitude >> (23 - M) & 1);
  return (r >> (23 - M)) - ((uint32_t)(127 - BIAS) << M);
}

template <int M, int BIAS> DEVFN float widen(uint32_t magnitude) {
  if (magnitude >> M == 0) return (float)magnitude * __uint_as_float((uint32_t)(128 - BIAS - M) << 23);
  return __uint_as_float((magnitude << (23 - M)) + ((uint32_t)(127 - BIAS) << 23));
}

// ---- bf16: 1, 8, 7 bits

struct bf16 {
  uint16_t bits;
  bf16() = default;
  __device__ __forceinline__ explicit bf16(float x) {
#ifndef CUEMU
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    uint32_t u = __float_as_uint(x);
    bits = (u & 0x7fffffff) > 0x7f800000 ? 0x7fff : (u + 0x7fff + (u >> 16 & 1)) >> 16;
#endif
  }
  __device__ __forceinline__ explicit operator float() const { return __uint_as_float((uint32_t)bits << 16); }
};

// ---- f16: 1, 5, 10 bits

struct f16 {
  uint16_t bits;
  f16() = default;
  __device__ __forceinline__ explicit f16(float x) {
#ifndef CUEMU
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    uint32_t u = __float_as_uint(x), a = u & 0x7fffffff;
    uint32_t code = narrow<10, 15>(a < 0x47800000 ? a : 0x47800000);
    bits = a > 0x7f800000 ? 0x7fff : (u >> 16 & 0x8000) | (code < 0x7c00 ? code : 0x7c00);
#endif
  }
  __device__ __forceinline__ explicit operator float() const {
    float x;
#ifndef CUEMU
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
#else
    uint32_t a = bits & 0x7fff, sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t wide = a >= 0x7c00 ? 0x7f800000 | (a & 0x3ff) << 13 : __float_as_uint(widen<10, 15>(a));
    x = __uint_as_float(wide | sign);
#endif
    return x;
  }
};

// ---- eight bits: the greatest number for what exceeds it (infinity included), 7f for NaN

#if !defined(CUEMU) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define FP8_INSTRUCTIONS 1
#else
#define FP8_INSTRUCTIONS 0
#endif

// 1, 4, 3 bits; the greatest is 448; no infinity.
struct e4m3 {
  uint8_t bits;
  e4m3() = default;
  __device__ __forceinline__ explicit e4m3(float x) {
#if FP8_INSTRUCTIONS
    uint16_t two;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(two) : "f"(0.f), "f"(x));
    bits = (uint8_t)two;
#else
    uint32_t u = __float_as_uint(x), a = u & 0x7fffffff;
    uint32_t code = narrow<3, 7>(a < 0x43e00000 ? a : 0x43e00000);
    bits = a > 0x7f800000 ? 0x7f : (u >> 24 & 0x80) | (code < 0x7e ? code : 0x7e);
#endif
  }
  __device__ __forceinline__ explicit operator float() const {
#if FP8_INSTRUCTIONS
    uint32_t two;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(two) : "h"((uint16_t)bits));
    f16 h;
    h.bits = (uint16_t)two;
    return (float)h;
#else
    uint32_t a = bits & 0x7f, sign = (uint32_t)(bits & 0x80) << 24;
    return __uint_as_float((a == 0x7f ? 0x7fffffffu : __float_as_uint(widen<3, 7>(a))) | sign);
#endif
  }
};

// 1, 5, 2 bits; the greatest is 57,344; 7c is infinity.
struct e5m2 {
  uint8_t bits;
  e5m2() = default;
  __device__ __forceinline__ explicit e5m2(float x) {
#if FP8_INSTRUCTIONS
    uint16_t two;
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(two) : "f"(0.f), "f"(x));
    bits = (uint8_t)two;
#else
    uint32_t u = __float_as_uint(x), a = u & 0x7fffffff;
    uint32_t code = narrow<2, 15>(a < 0x47600000 ? a : 0x47600000);
    bits = a > 0x7f800000 ? 0x7f : (u >> 24 & 0x80) | (code < 0x7b ? code : 0x7b);
#endif
  }
  // An e5m2 is the upper half of an f16.
  __device__ __forceinline__ explicit operator float() const {
    f16 h;
    h.bits = (uint16_t)(bits << 8);
    return (float)h;
  }
};

// ---- one spelling for templates over the element type

DEVFN float to_f32(float x) { return x; }
DEVFN float to_f32(bf16 x) { return (float)x; }
DEVFN float to_f32(f16 x) { return (float)x; }
DEVFN float to_f32(e4m3 x) { return (float)x; }
DEVFN float to_f32(e5m2 x) { return (float)x; }
template <class T> DEVFN T from_f32(float x) { return T(x); }

// ---- pairs and quadruples in a register, the first in the low bits

// Two bf16.
DEVFN uint32_t pack_bf16(float low, float high) {
#ifndef CUEMU
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
#else
  return bf16(low).bits | (uint32_t)bf16(high).bits << 16;
#endif
}
DEVFN uint32_t pack(float low, float high) { return pack_bf16(low, high); }

// Two f16.
DEVFN uint32_t pack_f16(float low, float high) {
#ifndef CUEMU
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
#else
  return f16(low).bits | (uint32_t)f16(high).bits << 16;
#endif
}

// Two of either 16-bit format.
template <class T> DEVFN uint32_t pack2(float low, float high);
template <> __device__ __forceinline__ uint32_t pack2<bf16>(float low, float high) { return pack_bf16(low, high); }
template <> __device__ __forceinline__ uint32_t pack2<f16>(float low, float high) { return pack_f16(low, high); }

// Both values of a register of two.
template <class T> DEVFN float2 unpack2(uint32_t v) {
  T low, high;
  low.bits = (uint16_t)v;
  high.bits = (uint16_t)(v >> 16);
  return make_float2((float)low, (float)high);
}

// Four values of eight bits.
template <class T> DEVFN uint32_t pack4(float a, float b, float c, float d);
template <> __device__ __forceinline__ uint32_t pack4<e4m3>(float a, float b, float c, float d) {
#if FP8_INSTRUCTIONS
  uint32_t r;
  asm("{.reg .b16 l, h;\n cvt.rn.satfinite.e4m3x2.f32 l, %2, %1;\n cvt.rn.satfinite.e4m3x2.f32 h, %4, %3;\n mov.b32 %0, {l, h};}" : "=r"(r) : "f"(a), "f"(b), "f"(c), "f"(d));
  return r;
#else
  return e4m3(a).bits | (uint32_t)e4m3(b).bits << 8 | (uint32_t)e4m3(c).bits << 16 | (uint32_t)e4m3(d).bits << 24;
#endif
}
template <> __device__ __forceinline__ uint32_t pack4<e5m2>(float a, float b, float c, float d) {
#if FP8_INSTRUCTIONS
  uint32_t r;
  asm("{.reg .b16 l, h;\n cvt.rn.satfinite.e5m2x2.f32 l, %2, %1;\n cvt.rn.satfinite.e5m2x2.f32 h, %4, %3;\n mov.b32 %0, {l, h};}" : "=r"(r) : "f"(a), "f"(b), "f"(c), "f"(d));
  return r;
#else
  return e5m2(a).bits | (uint32_t)e5m2(b).bits << 8 | (uint32_t)e5m2(c).bits << 16 | (uint32_t)e5m2(d).bits << 24;
#endif
}

// A float as TF32: 10 fraction bits, nearest, ties away from zero; the bits of a float still.
DEVFN uint32_t to_tf32(float x) {
#ifndef CUEMU
  uint32_t r;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
#else
  uint32_t u = __float_as_uint(x);
  return (u & 0x7f800000) == 0x7f800000 ? u : (u + 0x1000) & 0xffffe000;
#endif
}
