// number.cuh: stored numbers as f32 and back, by a code that the host passes: for kernels that take any element type.
#pragma once
#include "base.cuh"

// src/gemm/mod.rs, `Element`.
enum Element { F32 = 0, BF16 = 1, F16 = 2, E4M3 = 3, E5M2 = 4, I8 = 5 };

// Bytes of a value.
DEVFN int num_bytes(int type) { return type == F32 ? 4 : type <= F16 ? 2 : 1; }

// The value of bits.
template <class T, class B> DEVFN float num_of(B bits) {
  T v;
  v.bits = bits;
  return (float)v;
}

// Value i of an array.
DEVFN float num_load(const char* p, int type, long long i) {
  switch (type) {
    case F32: return ((const float*)p)[i];
    case BF16: return (float)((const bf16*)p)[i];
    case F16: return (float)((const f16*)p)[i];
    case E4M3: return (float)((const e4m3*)p)[i];
    case E5M2: return (float)((const e5m2*)p)[i];
    default: return (float)((const signed char*)p)[i];
  }
}

// Rounds to the nearest, ties to even; to eight bits the greatest number for what exceeds it.
DEVFN void num_store(char* p, int type, long long i, float v) {
  switch (type) {
    case F32: ((float*)p)[i] = v; return;
    case BF16: ((bf16*)p)[i] = bf16(v); return;
    case F16: ((f16*)p)[i] = f16(v); return;
    case E4M3: ((e4m3*)p)[i] = e4m3(v); return;
    default: ((e5m2*)p)[i] = e5m2(v); return;
  }
}
