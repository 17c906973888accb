// attention.cuh: what every attention kernel knows of its problem: sizes, which keys a query sees, masks, the soft
// cap and dropout. The operation's documentation (runtime/src/ops/attention) defines them.
#pragma once
#include "gpu.cuh"

#ifndef ATTENTION_FN
#ifdef CUEMU
#define ATTENTION_FN static inline
#else
#define ATTENTION_FN __device__ __forceinline__
#endif
#endif

// Distances in values between examples, positions and heads; features are neighbours.
struct Strides {
  long long b, t, h;
};

// b examples, t queries, s keys, g key-value heads, r query heads for each, d and e features of keys and of values.
struct Attend {
  int b, t, s, g, r, d, e;
  float scale, cap;      // cap 0: none
  int causal, window;    // window 0: none
  const int* lengths;    // visible keys of each example, or null
  const int* offset;     // position of the first query, or null: s - t
  int offset_step;       // 0: one offset for all
  const void* mask;      // or null
  int mask_real;         // 1: float, added; 0: bytes, not 0 is visible
  long long mb, mh, mt, ms;
  const int* key;        // seed and counter of dropout, or null
  unsigned drop_bound, stream;
  float kept;
};

// The parameters of kernels that take a whole problem, in the order in which `Problem::push` gives them.
#define ATTEND_PARAMS                                                                                                  \
  int b, int t, int s, int g, int r, int d, int e, float scale, float cap, int causal, int window, const int *lengths, \
      const int *offset, int offset_step, const void *mask, int mask_real, long long mb, long long mh, long long mt,   \
      long long ms, const int *key, unsigned drop_bound, unsigned stream, float kept
#define ATTEND_ARGS                                                                                                    \
  Attend {                                                                                                             \
    b, t, s, g, r, d, e, scale, cap, causal, window, lengths, offset, offset_step, mask, mask_real, mb, mh, mt, ms,    \
        key, drop_bound, stream, kept                                                                                  \
  }

struct Span {
  int from, to;
};

// The keys that query i of example b may see, before masks.
ATTENTION_FN Span visible(const Attend& a, int b, int i) {
  long long here = (a.offset ? (long long)a.offset[b * a.offset_step] : (long long)a.s - a.t) + i;
  long long end = a.s;
  if (a.lengths && a.lengths[b] < end) end = a.lengths[b];
  if (a.causal) end = end < here + 1 ? end : here + 1;
  else if (a.window) end = end < here + a.window ? end : here + a.window;
  if (end < 0) end = 0;
  long long from = a.window ? here - a.window + 1 : 0;
  from = from < 0 ? 0 : from > end ? end : from;
  return {(int)from, (int)end};
}

// The keys that any of the queries from..to may see: both ends grow with the query.
ATTENTION_FN Span span_of(const Attend& a, int b, int from, int to) {
  Span first = visible(a, b, from), last = visible(a, b, to - 1);
  return {first.from, last.to > first.from ? last.to : first.from};
}

// The queries from 0..t that may see any of the keys from..to: both ends of what is visible grow with the query.
ATTENTION_FN Span seen_by(const Attend& a, int b, int from, int to) {
  int low = 0, high = a.t;
  while (low < high) {  // the first query whose last key is behind `from`
    int mid = (low + high) / 2;
    if (visible(a, b, mid).to > from) high = mid;
    else low = mid + 1;
  }
  int first = low;
  high = a.t;
  while (low < high) {  // the first query whose first key is not before `to`
    int mid = (low + high) / 2;
    if (visible(a, b, mid).from >= to) high = mid;
    else low = mid + 1;
  }
  return {first, low};
}

// A product of query and key as a score; `slope` becomes the derivative of the soft cap.
ATTENTION_FN float score(const Attend& a, int b, int h, int i, int j, Span seen, float dot, float* slope) {
  float z = dot * a.scale;
  *slope = 1.f;
  if (a.cap != 0.f) {
    float bounded = tanhf(z / a.cap);
    z = a.cap * bounded;
    *slope = 1.f - bounded * bounded;
  }
  if (j < seen.from || j >= seen.to) return -INFINITY;
  if (a.mask) {
    long long at = b * a.mb + h * a.mh + i * a.mt + j * a.ms;
    if (a.mask_real) z += ((const float*)a.mask)[at];
    else if (!((const unsigned char*)a.mask)[at]) z = -INFINITY;
  }
  return z;
}

// Philox 4x32-10 (Salmon et al. 2011), as kernels/src/philox.rs.
ATTENTION_FN void attention_philox(unsigned (&c)[4], unsigned k0, unsigned k1) {
  for (int round = 0; round < 10; round++) {
    unsigned long long x = c[0] * 0xD2511F53ull, y = c[2] * 0xCD9E8D57ull;
    unsigned n0 = (unsigned)(y >> 32) ^ c[1] ^ k0, n2 = (unsigned)(x >> 32) ^ c[3] ^ k1;
    c[1] = (unsigned)y;
    c[3] = (unsigned)x;
    c[0] = n0;
    c[2] = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// What dropout multiplies the weights of keys 4 * quad .. 4 * quad + 3 by.
ATTENTION_FN void drop_factors(const Attend& a, int b, int h, int i, int quad, float (&f)[4]) {
  if (!a.key) {
    f[0] = f[1] = f[2] = f[3] = 1.f;
    return;
  }
  unsigned c[4] = {(unsigned)quad, (unsigned)i, (unsigned)(b * a.g * a.r + h), a.stream};
  attention_philox(c, (unsigned)a.key[0], (unsigned)a.key[1]);
  for (int n = 0; n < 4; n++) f[n] = c[n] < a.drop_bound ? 0.f : a.kept;
}

// ---- for the 16-bit kernels

#define LOG2E 1.4426950408889634f

// 2 ^ x to about 2^-22; 0 for minus infinity.
ATTENTION_FN float quick_exp2(float x) {
#ifndef CUEMU
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// tanh by one exponential: exact to a few units of the last place of a 16-bit number.
ATTENTION_FN float quick_tanh(float x) { return 1.f - 2.f / (quick_exp2(2.f * LOG2E * x) + 1.f); }
