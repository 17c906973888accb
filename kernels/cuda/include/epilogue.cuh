// epilogue.cuh: what becomes of a product before it is stored, the same for every matrix product.
//
//   v = round(alpha * alpha_a * alpha_b * scale_a[i] * scale_b[j] * sum + beta * c[i][j])
//   v = round(activation(v + bias[i][j]) * gate[i][j] + residual[i][j])
//   amax = max(amax, |v|),  c[i][j] = v * scale  in the type of c
//
// Every operand is an address with strides (of values, not bytes) for rows, columns and two levels of a batch; a stride
// of 0 repeats; a null address leaves the step out. `alpha_a`, `alpha_b`, `scale` and `amax` are one f32 each on the device.
#pragma once
#include "number.cuh"

struct Operand {
  char* at;
  long long row, col, outer, inner;
  __device__ long long index(int i, int j, int outer_i, int inner_i) const {
    return i * row + j * col + outer_i * outer + inner_i * inner;
  }
};
#define OPERAND(x) char *x, long long x##_row, long long x##_col, long long x##_outer, long long x##_inner
#define TAKE(x) (Operand{x, x##_row, x##_col, x##_outer, x##_inner})

enum Activation { IDENTITY = 0, RELU = 1, GELU = 2, GELU_TANH = 3, SILU = 4, SIGMOID = 5, TANH = 6, RELU2 = 7 };

struct Epilogue {
  Operand c, bias, gate, residual;
  const float *scale_a, *scale_b, *scale;
  unsigned* amax;
  float alpha, beta;
  int activation;
  unsigned types;  // four bits each: c, bias, gate, residual, what sums are rounded to (F32: not), what results are
};
#define EPILOGUE_PARAMS                                                                                            \
  OPERAND(c), OPERAND(bias), OPERAND(gate), OPERAND(residual), const float *scale_a, const float *scale_b,         \
      const float *scale, unsigned *amax, const float *alpha_a, const float *alpha_b, float alpha, float beta, int activation, unsigned types
#define EPILOGUE                                                                                                   \
  (Epilogue{TAKE(c), TAKE(bias), TAKE(gate), TAKE(residual), scale_a, scale_b, scale, amax, epilogue_alpha(alpha, alpha_a, alpha_b), beta, activation, types})

// The factor on sums: a number times what stands on the device.
DEVFN float epilogue_alpha(float alpha, const float* a, const float* b) { return alpha * (a ? *a : 1.f) * (b ? *b : 1.f); }

DEVFN float activate(int kind, float v) {
  switch (kind) {
    case RELU: return v < 0.f ? 0.f : v;
    case GELU: return 0.5f * v * (1.f + erff(v * 0.70710678118654752f));
    case GELU_TANH: return 0.5f * v * (1.f + tanhf(0.79788456080286536f * (v + 0.044715f * v * v * v)));
    case SILU: return v / (1.f + expf(-v));
    case SIGMOID: return 1.f / (1.f + expf(-v));
    case TANH: return tanhf(v);
    case RELU2: return v < 0.f ? 0.f : v * v;
    default: return v;
  }
}

DEVFN float rounded(float v, unsigned type) { return type == BF16 ? (float)bf16(v) : type == F16 ? (float)f16(v) : v; }

// The value of the result at (i, j), before `scale`. `i` is the row of the result, `r` that of scales of rows.
DEVFN float epilogue_value(const Epilogue& e, float sum, int i, int j, int bo, int bi) {
  float v = e.alpha * sum;
  // Not known ahead of the loop: what follows from it would take a register each all along.
  unsigned types = e.types;
#ifndef CUEMU
  asm volatile("" : "+r"(types));
#endif
  if (e.scale_a) v *= e.scale_a[i];
  if (e.scale_b) v *= e.scale_b[j];
  if (e.beta != 0.f) v += e.beta * num_load(e.c.at, types & 15, e.c.index(i, j, bo, bi));
  v = rounded(v, types >> 16 & 15);
  if (e.bias.at) v += num_load(e.bias.at, types >> 4 & 15, e.bias.index(i, j, bo, bi));
  v = activate(e.activation, v);
  if (e.gate.at) v *= num_load(e.gate.at, types >> 8 & 15, e.gate.index(i, j, bo, bi));
  if (e.residual.at) v += num_load(e.residual.at, types >> 12 & 15, e.residual.index(i, j, bo, bi));
  return rounded(v, types >> 20 & 15);
}

// Stores one value; `most` gathers the thread's greatest magnitude.
DEVFN void epilogue_store(const Epilogue& e, float sum, int i, int j, int bo, int bi, float& most) {
  float v = epilogue_value(e, sum, i, j, bo, bi);
  most = fmaxf(most, fabsf(v));
  if (e.scale) v *= *e.scale;
  num_store(e.c.at, e.types & 15, e.c.index(i, j, bo, bi), v);
}

// Two neighbours of a row (j is even, both inside the result): one store where their place allows it.
DEVFN void epilogue_pair(const Epilogue& e, float s0, float s1, int i, int j, int bo, int bi, float& most) {
  int type = e.types & 15;
  long long at = e.c.index(i, j, bo, bi);
  float v[2] = {s0, s1};
#pragma unroll 1
  for (int h = 0; h < 2; h++) {
    float x = epilogue_value(e, s0, i, j + h, bo, bi);
    s0 = s1, v[0] = v[1], v[1] = x;
  }
  most = fmaxf(most, fmaxf(fabsf(v[0]), fabsf(v[1])));
  if (e.scale) v[0] *= *e.scale, v[1] *= *e.scale;
  if (e.c.col != 1 || (at & 1) || type > F16 || ((size_t)e.c.at & 7)) {
    num_store(e.c.at, type, at, v[0]);
    num_store(e.c.at, type, at + e.c.col, v[1]);
  } else if (type == F32) {
    *(float2*)((float*)e.c.at + at) = make_float2(v[0], v[1]);
  } else {
    *(uint32_t*)((uint16_t*)e.c.at + at) = type == BF16 ? pack_bf16(v[0], v[1]) : pack_f16(v[0], v[1]);
  }
}

// The epilogue of rows of sums that stand in shared memory: rows * width of them, `ld` apart, columns from j0 on. `row`
// gives the row of the result for a row of the stage, or -1. Neighbouring threads store neighbours; the loop stays a
// loop, so that its many cases are compiled once.
template <class Row>
DEVFN void epilogue_rows(const Epilogue& e, const float* stage, int ld, int rows, int width, Row row, int j0,
                                                     int n, int bo, int bi, int t, int threads, float& most) {
  int pairs = width / 2;
#pragma unroll 1
  for (int q = t; q < rows * pairs; q += threads) {
    int s = q / pairs, c = q % pairs * 2, i = row(s), j = j0 + c;
    if (i < 0 || j >= n) continue;
    float2 v = *(const float2*)(stage + s * ld + c);
    if (j + 1 < n) epilogue_pair(e, v.x, v.y, i, j, bo, bi, most);
    else epilogue_store(e, v.x, i, j, bo, bi, most);
  }
}

// The greatest magnitude of all threads so far; bits of numbers that are not negative are ordered as they are.
DEVFN void epilogue_amax(const Epilogue& e, float most) {
  if (!e.amax) return;
  for (int d = 16; d; d >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
  if ((threadIdx.x & 31) == 0) atomicMax(e.amax, __float_as_uint(most));
}
