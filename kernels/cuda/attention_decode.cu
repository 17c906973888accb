// Attention of few queries over long caches of keys and values (decoding), contiguous or in pages, in float, bf16 or
// f16: flash-decoding. Lengths, positions, windows and the soft cap; no masks, no dropout.
//
// A block of 128 threads has up to R = 1, 2, 4 or 8 rows (query * r + head of the group) of one key-value head, which
// share its loads, and one of `splits` parts of the keys, 128 at a time. Scores: eight lanes a key, 16 bytes a lane and
// load, queries in shared memory. Softmax: a warp for R / 4 rows. Values: as many lanes as a row has pieces of 16
// bytes, every group of lanes a key; the groups are summed at the end in a fixed order.
// Shared memory: queries R * d floats, scores 4 KB, at the end the sums 128 * R * 16 / sizeof(T) floats.
// Bound: one read of keys and values at the memory's speed; with 132 * 4 blocks about 64 KB a multiprocessor under way.
#include "attention.cuh"

namespace {
constexpr int KEYS = 128;

// Where keys lie: page * page_stride + (j % page) * t, or b * b_stride + j * t without a table.
struct Cache {
  const int* table;
  int table_step, page;
};

ATTENTION_FN long long key_at(const Cache& c, Strides n, int b, int j) {
  if (!c.table) return b * n.b + j * n.t;
  return c.table[(long long)b * c.table_step + j / c.page] * n.b + (j % c.page) * n.t;
}

template <class T, int R>
ATTENTION_FN void decode(const Attend& a, const T* q, const T* k, const T* v, Strides nq, Strides nk, Strides nv,
                         Cache cache, T* out, float* parts, float* lse, int splits) {
  constexpr int N = 16 / sizeof(T);
  DYN_SMEM(float, memory);  // queries, then at the end sums
  __shared__ float s[R][KEYS], m[R], l[R], shrink[R];
  int rows = a.t * a.r, chunks = (rows + R - 1) / R, n = blockIdx.x, tid = threadIdx.x, lane = tid & 31;
  int row0 = n % chunks * R, split = n / chunks % splits, g = n / chunks / splits % a.g, b = n / chunks / splits / a.g;
  int last = row0 + R < rows ? row0 + R : rows;
  for (int x = tid; x < R * a.d; x += 128) {
    int row = row0 + x / a.d;
    memory[x] = row < last ? to_f32(q[b * nq.b + row / a.r * nq.t + (g * a.r + row % a.r) * nq.h + x % a.d]) : 0.f;
  }
  if (tid < R) m[tid] = -INFINITY, l[tid] = 0.f;
  Span keys = span_of(a, b, row0 / a.r, (last - 1) / a.r + 1);
  int each = ((keys.to - keys.from + splits - 1) / splits + KEYS - 1) / KEYS * KEYS;
  int begin = keys.from + split * each, end = begin + each < keys.to ? begin + each : keys.to;
  int pieces = a.e / N, groups = 128 / pieces, piece = tid % pieces, group = tid / pieces;
  float acc[R][N];
#pragma unroll
  for (int x = 0; x < R; x++)
#pragma unroll
    for (int c = 0; c < N; c++) acc[x][c] = 0.f;
  k += g * nk.h;
  v += g * nv.h;
  for (int j0 = begin; j0 < end; j0 += KEYS) {
    __syncthreads();
    for (int y = tid >> 3; y < KEYS; y += 16) {
      int j = j0 + y;
      float z[R];
#pragma unroll
      for (int x = 0; x < R; x++) z[x] = 0.f;
      if (j < end) {
        const T* at = k + key_at(cache, nk, b, j);
#pragma unroll 4
        for (int p = lane & 7; p < a.d / N; p += 8) {
          Vec<T, N> w = load<N>(at + p * N);
#pragma unroll
          for (int x = 0; x < R; x++)
#pragma unroll
            for (int c = 0; c < N; c++) z[x] += memory[x * a.d + p * N + c] * to_f32(w[c]);
        }
      }
#pragma unroll
      for (int x = 0; x < R; x++) {
        z[x] += __shfl_xor_sync(~0u, z[x], 1);
        z[x] += __shfl_xor_sync(~0u, z[x], 2);
        z[x] += __shfl_xor_sync(~0u, z[x], 4);
        if ((lane & 7) == x) {
          float slope;
          int row = row0 + x, i = row / a.r;
          Span seen = row < last && j < end ? visible(a, b, i) : Span{0, 0};
          s[x][y] = score(a, b, 0, i, j, seen, z[x], &slope);
        }
      }
    }
    __syncthreads();
    for (int x = tid >> 5; x < R; x += 4) {
      float old = m[x], top = old, sum = 0.f;
      for (int y = lane; y < KEYS; y += 32) top = fmaxf(top, s[x][y]);
      for (int d = 16; d; d >>= 1) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
      float base = top == -INFINITY ? 0.f : top;
      for (int y = lane; y < KEYS; y += 32) sum += s[x][y] = expf(s[x][y] - base);
      for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
      __syncwarp();
      if (lane == 0) {
        shrink[x] = expf(old - base);
        l[x] = l[x] * shrink[x] + sum;
        m[x] = top;
      }
    }
    __syncthreads();
#pragma unroll
    for (int x = 0; x < R; x++)
#pragma unroll
      for (int c = 0; c < N; c++) acc[x][c] *= shrink[x];
    int count = end - j0 < KEYS ? end - j0 : KEYS;
    if (group < groups) {
#pragma unroll 4
      for (int y = group; y < count; y += groups) {
        Vec<T, N> w = load<N>(v + key_at(cache, nv, b, j0 + y) + piece * N);
#pragma unroll
        for (int x = 0; x < R; x++)
#pragma unroll
          for (int c = 0; c < N; c++) acc[x][c] += s[x][y] * to_f32(w[c]);
      }
    }
  }
  __syncthreads();
  if (group < groups)
#pragma unroll
    for (int x = 0; x < R; x++)
#pragma unroll
      for (int c = 0; c < N; c++) memory[(group * R + x) * a.e + piece * N + c] = acc[x][c];
  __syncthreads();
  long long all = (long long)a.b * a.t * a.g * a.r;
  for (int n = tid; n < R * a.e; n += 128) {
    int x = n / a.e, c = n % a.e, row = row0 + x;
    if (row >= last) continue;
    float sum = 0.f;
    for (int u = 0; u < groups; u++) sum += memory[(u * R + x) * a.e + c];
    sum = l[x] == 0.f ? 0.f : sum / l[x];
    long long at = (((long long)b * a.t + row / a.r) * a.g * a.r + g * a.r + row % a.r) * a.e + c;
    if (splits > 1) parts[split * all * a.e + at] = sum;
    else out[at] = from_f32<T>(sum);
  }
  int row = row0 + tid;
  if (tid < R && row < last)
    lse[(splits > 1 ? split * all : 0) + ((long long)b * a.g * a.r + g * a.r + row % a.r) * a.t + row / a.r] =
        l[tid] == 0.f ? -INFINITY : m[tid] + logf(l[tid]);
}
}  // namespace

// `parts` and `lse` are those of the parts where splits > 1; then `out` is not touched.
#define DECODE(T, R)                                                                                                 \
  (const T* q, const T* k, const T* v, long long qb, long long qt, long long qh, long long kb, long long kt,         \
   long long kh, long long vb, long long vt, long long vh, const int* table, int table_step, int page, T* out,       \
   float* parts, float* lse, int splits, ATTEND_PARAMS) {                                                            \
    decode<T, R>(ATTEND_ARGS, q, k, v, {qb, qt, qh}, {kb, kt, kh}, {vb, vt, vh}, {table, table_step, page}, out,     \
                 parts, lse, splits);                                                                                \
  }
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_f32_1 DECODE(float, 1)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_f32_2 DECODE(float, 2)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_f32_4 DECODE(float, 4)
extern "C" __global__ void __launch_bounds__(128, 2) attention_decode_f32_8 DECODE(float, 8)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_bf16_1 DECODE(bf16, 1)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_bf16_2 DECODE(bf16, 2)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_bf16_4 DECODE(bf16, 4)
extern "C" __global__ void __launch_bounds__(128, 2) attention_decode_bf16_8 DECODE(bf16, 8)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_f16_1 DECODE(f16, 1)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_f16_2 DECODE(f16, 2)
extern "C" __global__ void __launch_bounds__(128, 4) attention_decode_f16_4 DECODE(f16, 4)
extern "C" __global__ void __launch_bounds__(128, 2) attention_decode_f16_8 DECODE(f16, 8)
CUEMU_EXPORT(attention_decode_f32_1)
CUEMU_EXPORT(attention_decode_f32_2)
CUEMU_EXPORT(attention_decode_f32_4)
CUEMU_EXPORT(attention_decode_f32_8)
CUEMU_EXPORT(attention_decode_bf16_1)
CUEMU_EXPORT(attention_decode_bf16_2)
CUEMU_EXPORT(attention_decode_bf16_4)
CUEMU_EXPORT(attention_decode_bf16_8)
CUEMU_EXPORT(attention_decode_f16_1)
CUEMU_EXPORT(attention_decode_f16_2)
CUEMU_EXPORT(attention_decode_f16_4)
CUEMU_EXPORT(attention_decode_f16_8)

namespace {
// lse = log sum exp(lse_p), out = sum exp(lse_p - lse) out_p. A warp a row [b t h]; the log-sum-exps lie [b h t].
template <class T>
ATTENTION_FN void combine(const float* parts, const float* part_lse, T* out, float* lse, int splits, long long rows,
                          int t, int heads, int e) {
  long long row = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
  int lane = threadIdx.x & 31;
  if (row >= rows) return;
  long long b = row / ((long long)t * heads), i = row / heads % t, h = row % heads, at = (b * heads + h) * t + i;
  float m = -INFINITY, l = 0.f;
  for (int p = 0; p < splits; p++) m = fmaxf(m, part_lse[p * rows + at]);
  float base = m == -INFINITY ? 0.f : m;
  for (int p = 0; p < splits; p++) l += expf(part_lse[p * rows + at] - base);
  for (int c = lane; c < e; c += 32) {
    float sum = 0.f;
    for (int p = 0; p < splits; p++) {
      float w = expf(part_lse[p * rows + at] - base);
      if (w != 0.f) sum += w * parts[(p * rows + row) * e + c];
    }
    out[row * e + c] = from_f32<T>(l == 0.f ? 0.f : sum / l);
  }
  if (lane == 0) lse[at] = l == 0.f ? -INFINITY : m + logf(l);
}
}  // namespace

#define COMBINE(T)                                                                                             \
  (const float* parts, const float* part_lse, T* out, float* lse, int splits, long long rows, int t, int heads, \
   int e) {                                                                                                    \
    combine<T>(parts, part_lse, out, lse, splits, rows, t, heads, e);                                          \
  }
extern "C" __global__ void __launch_bounds__(128) attention_combine_f32 COMBINE(float)
extern "C" __global__ void __launch_bounds__(128) attention_combine_bf16 COMBINE(bf16)
extern "C" __global__ void __launch_bounds__(128) attention_combine_f16 COMBINE(f16)
CUEMU_EXPORT(attention_combine_f32)
CUEMU_EXPORT(attention_combine_bf16)
CUEMU_EXPORT(attention_combine_f16)
