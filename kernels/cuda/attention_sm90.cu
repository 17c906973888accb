// Attention in bf16, f16 or e4m3 for Hopper, forward (FlashAttention-3, Shah et al. 2024). Causal, windows, positions,
// lengths, the soft cap, grouped queries, and (16 bits) sequences packed one after another; neither masks nor dropout.
//
// A block stays on its multiprocessor and takes tiles of C * 64 rows of queries of one head in turn. Warpgroup 0
// produces: one thread loads Q, and K and V in steps of N keys, by TMA into two slots each. Warpgroups 1 .. C consume 64
// rows each: scores by wgmma from shared memory, softmax in registers, weights as the register operand of the second
// wgmma, whose V lies as loaded (MN-major). Two overlaps: inside a warpgroup the softmax of step j runs beside the
// values of step j - 1; between warpgroups a ring of named barriers has one's softmax run beside another's products.
//
// Features D = 64, 96, 128, 192, 256 in blocks of 64 (128-byte swizzle); what is missing reads as zeros.
//   D    C  N    registers O + S + P   shared memory Q + 2 K + 2 V
//   64   3  128  32 + 64 + 32           24 + 64 = 88 KB
//   96   2  128  48 + 64 + 32           32 + 128 = 160 KB
//   128  2  128  64 + 64 + 32           32 + 128 = 160 KB
//   192  2  96   96 + 48 + 24           48 + 144 = 192 KB
//   256  2  64   128 + 32 + 16          64 + 128 = 192 KB
// e4m3: N = 128, C = 2, blocks of 128 features, scales for each example and key-value head, results in bf16, weights
// times 2^8. The second wgmma wants eight-bit values by keys: `attention_fp8_values` turns V beforehand, and orders the keys
// of each 32 so that accumulators are operands: place 16 h + 4 t + 2 j + e has key 8 (2 h + j) + 2 t + e.
// Threads 128 * (C + 1); the producer keeps 24 or 32 registers, consumers have 240 (C = 3: 160).
// What lies behind a length, or belongs to the next sequence, may be infinite, and TMA brings whole steps: consumers write
// zeros over such values (a weight of 0 would not hide them) before they multiply by the last step.
// Heavy tiles come first; heads go in sections whose keys and values fit the second cache.
// Bound: wgmma, 4 * D operations for each pair of query and key; at N = 128 an exponential costs as much time as 2 * D / 4
// of them, which the overlaps hide.
#include "attention.cuh"

namespace {
struct Packed {
  const int *starts_q, *starts_k;
  long long total_q;
};

// A tile of queries.
struct Work {
  int b, h, row0, begin, end;  // steps of keys
  int keys;                    // of its sequence
  long long q0, k0;
  bool any;  // it has queries
};

template <int ROWS, int N>
ATTENTION_FN Work work_of(Attend& a, const Packed& packed, int n, int most_t, int section, int heads_total) {
  int tiles = (most_t + ROWS - 1) / ROWS, heads = a.g * a.r;
  int part = n / (section * tiles), m = n - part * section * tiles;
  int size = heads_total - part * section < section ? heads_total - part * section : section;
  int head = part * section + m % size;
  Work w;
  w.b = head / heads, w.h = head % heads, w.row0 = (tiles - 1 - m / size) * ROWS;
  w.q0 = w.k0 = 0;
  if (packed.starts_q) {
    w.q0 = packed.starts_q[w.b];
    w.k0 = packed.starts_k[w.b];
    a.t = packed.starts_q[w.b + 1] - (int)w.q0;
    a.s = packed.starts_k[w.b + 1] - (int)w.k0;
  }
  w.any = w.row0 < a.t;
  w.keys = a.lengths && a.lengths[w.b] < a.s ? a.lengths[w.b] : a.s;
  w.begin = w.end = 0;
  if (w.any) {
    int last = w.row0 + ROWS < a.t ? w.row0 + ROWS : a.t;
    Span keys = span_of(a, w.b, w.row0, last);
    if (keys.to > keys.from) w.begin = keys.from / N, w.end = (keys.to + N - 1) / N;
  }
  return w;
}

// What e4m3 values are multiplied by, for each example and key-value head; null for 16 bits.
struct Scales {
  const float *q, *k, *v;
};

template <class T, class O, int D, int N, int C>
ATTENTION_FN void forward(const TensorMap& mq, const TensorMap& mk, const TensorMap& mv, Attend a, Packed packed,
                          Scales scales, O* out, float* lse, int section, int count) {
#if HOPPER
  constexpr bool EIGHT = sizeof(T) == 1;
  // Features of 128 bytes, and bytes of a block of so many.
  constexpr int F = 128 / sizeof(T), BLOCKS = (D + F - 1) / F, Q = 64 * 128, K = N * 128;
  constexpr int K_SLOT = BLOCKS * K, V_SLOT = EIGHT ? D * N : BLOCKS * K;
  static_assert(!EIGHT || N == 128, "rows of turned values are 128 bytes");
  DYN_SMEM(unsigned char, qs);  // [C][BLOCKS][64 rows][128 bytes]
  unsigned char *ks = qs + C * BLOCKS * Q, *vs = ks + 2 * K_SLOT;
  __shared__ uint64_t q_full, q_empty, k_full[2], k_empty[2], v_full[2], v_empty[2];
  int group = threadIdx.x / 128, total = a.b * a.g * a.r, most_t = a.t;
  if (threadIdx.x == 0) {
    tma_prefetch(&mq);
    tma_prefetch(&mk);
    tma_prefetch(&mv);
    mbar_init(&q_full, 1);
    mbar_init(&q_empty, C);
    for (int s = 0; s < 2; s++) {
      mbar_init(&k_full[s], 1);
      mbar_init(&v_full[s], 1);
      mbar_init(&k_empty[s], C);
      mbar_init(&v_empty[s], C);
    }
    mbar_init_fence();
  }
  __syncthreads();
  if (group == 0) {
    reg_dec<C == 3 ? 32 : 24>();
    if (threadIdx.x != 0) return;
    unsigned step = 0, tile = 0;
    for (int n = blockIdx.x; n < count; n += gridDim.x) {
      Work w = work_of<C * 64, N>(a, packed, n, most_t, section, total);
      if (w.end == w.begin) continue;
      int b = packed.starts_q ? 0 : w.b, kv = w.h / a.r;
      mbar_wait(&q_empty, (tile & 1) ^ 1);
      mbar_expect(&q_full, C * BLOCKS * Q);
      for (int c = 0; c < C; c++)
        for (int f = 0; f < BLOCKS; f++)
          tma_load_4d(qs + (c * BLOCKS + f) * Q, &mq, &q_full, f * F, (int)w.q0 + w.row0 + c * 64, w.h, b);
      tile++;
      for (int j = w.end - 1; j >= w.begin; j--, step++) {
        int s = step & 1;
        uint32_t parity = (step >> 1 & 1) ^ 1;
        mbar_wait(&k_empty[s], parity);
        mbar_expect(&k_full[s], K_SLOT);
        for (int f = 0; f < BLOCKS; f++)
          tma_load_4d(ks + s * K_SLOT + f * K, &mk, &k_full[s], f * F, (int)w.k0 + j * N, kv, b);
        mbar_wait(&v_empty[s], parity);
        mbar_expect(&v_full[s], V_SLOT);
        if (EIGHT) tma_load_4d(vs + s * V_SLOT, &mv, &v_full[s], j * N, 0, kv, b);
        else
          for (int f = 0; f < BLOCKS; f++)
            tma_load_4d(vs + s * V_SLOT + f * K, &mv, &v_full[s], f * F, (int)w.k0 + j * N, kv, b);
      }
    }
    return;
  }
  reg_inc<C == 3 ? 160 : 240>();
  int own = group - 1, thread = threadIdx.x % 128, lane = thread & 31, next = (own + 1) % C;
  bool one = thread == 0;
  uint64_t q_desc = desc128(qs + own * BLOCKS * Q), k_desc = desc128(ks);
  uint64_t v_desc = EIGHT ? desc128(vs) : wgmma_desc<128>(vs, K, 1024);
  unsigned step = 0, tile = 0;
  float o[D / 2], z[N / 2];
  uint32_t p[N * sizeof(T) / 32][4];
  // z = Q K^T of a slot.
  auto scores = [&](int s) {
    wgmma_hold(z);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D * (int)sizeof(T) / 32; k++) {
      int f = k / 4, x = k % 4;
      wgmma<N, T>(z, q_desc + (f * Q + x * 32) / 16, k_desc + (uint64_t)(s * K_SLOT + f * K + x * 32) / 16, k > 0);
    }
    wgmma_commit();
  };
  // Zeros over a slot's values from row `from` on, by all consumers.
  auto clear = [&](int s, int from) {
    for (int x = from * 8 + (int)threadIdx.x - 128; x < N * 8; x += C * 128)
#pragma unroll
      for (int f = 0; f < BLOCKS; f++) *(uint4*)(vs + s * V_SLOT + f * K + x * 16) = make_uint4(0, 0, 0, 0);
    fence_async();
    named_sync(1 + C, C * 128);
  };
  // o += P V of a slot.
  auto values = [&](int s) {
    wgmma_hold(o);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < N * (int)sizeof(T) / 32; k++)
      wgmma_rs<D, T, T, !EIGHT>(o, p[k], v_desc + (uint64_t)(s * V_SLOT + k * (EIGHT ? 32 : 16 * 128)) / 16);
    wgmma_commit();
  };
  for (int n = blockIdx.x; n < count; n += gridDim.x) {
    Work w = work_of<C * 64, N>(a, packed, n, most_t, section, total);
    if (!w.any) continue;
    int row0 = w.row0 + own * 64 + (thread >> 5) * 16 + (lane >> 2), steps = w.end - w.begin;
    float m[2] = {-INFINITY, -INFINITY}, l[2] = {0.f, 0.f}, shrink[2];
    Span seen[2];
#pragma unroll
    for (int y = 0; y < 2; y++) seen[y] = row0 + 8 * y < a.t ? visible(a, w.b, row0 + 8 * y) : Span{0, 0};
    int first = w.row0 + own * 64, last = first + 63 < a.t ? first + 63 : a.t - 1;
    // Keys that all 64 rows see.
    Span all = first < a.t ? Span{visible(a, w.b, last).from, visible(a, w.b, first).to} : Span{0, 0};
    float scale = a.scale, grow = 1.f;
    if (EIGHT) {
      int head = w.b * a.g + w.h / a.r;
      scale *= scales.q[head] * scales.k[head];
      grow = scales.v[head];
    }
    // Products to scores in base 2; e4m3 weights reach 2^8.
    float factor = a.cap != 0.f ? LOG2E : scale * LOG2E;
    constexpr float UP = EIGHT ? 8.f : 0.f;
#pragma unroll
    for (int c = 0; c < D / 2; c++) o[c] = 0.f;
    // Scores to weights, in place.
    auto softmax = [&](int j) {
      if (a.cap != 0.f) {
#pragma unroll
        for (int c = 0; c < N / 2; c++) z[c] = a.cap * quick_tanh(z[c] * (scale / a.cap));
      }
      if (j * N < all.from || j * N + N > all.to) {
#pragma unroll
        for (int c = 0; c < N / 2; c++) {
          int key = j * N + c / 4 * 8 + (lane & 3) * 2 + (c & 1), y = c >> 1 & 1;
          if (key < seen[y].from || key >= seen[y].to) z[c] = -INFINITY;
        }
      }
#pragma unroll
      for (int y = 0; y < 2; y++) {
        float top = m[y];
#pragma unroll
        for (int c = 0; c < N / 8; c++) top = fmaxf(top, fmaxf(z[4 * c + 2 * y], z[4 * c + 2 * y + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float base = top == -INFINITY ? 0.f : top * factor, sum = 0.f;
        shrink[y] = quick_exp2(m[y] * factor - base);
        base -= UP;
        m[y] = top;
#pragma unroll
        for (int c = 0; c < N / 8; c++)
#pragma unroll
          for (int e = 0; e < 2; e++) sum += z[4 * c + 2 * y + e] = quick_exp2(z[4 * c + 2 * y + e] * factor - base);
        l[y] = l[y] * shrink[y] + sum;  // this thread's share
      }
    };
    auto pack_weights = [&] {
#pragma unroll
      for (int k = 0; k < N * (int)sizeof(T) / 32; k++)
#pragma unroll
        for (int c = 0; c < 4; c++)
          if constexpr (EIGHT) {
            int x = 16 * k + (c >> 1) * 8 + (c & 1) * 2;
            p[k][c] = pack4<T>(z[x], z[x + 1], z[x + 4], z[x + 5]);
          } else p[k][c] = pack2<T>(z[8 * k + 2 * c], z[8 * k + 2 * c + 1]);
    };
    if (steps > 0) {
      // The ring: a warpgroup issues its products when it is its turn.
      if (steps > 1 && own == C - 1) named_arrive(1, 256);
      mbar_wait(&q_full, tile & 1);
      mbar_wait(&k_full[step & 1], step >> 1 & 1);
      scores(step & 1);
      wgmma_wait<0>();
      wgmma_hold(z);
      if (one) mbar_arrive(&k_empty[step & 1]);
      if (one && steps == 1) mbar_arrive(&q_empty);
      softmax(w.end - 1);
      pack_weights();
      if (!EIGHT && w.keys < w.end * N && (a.lengths || packed.starts_k)) {
        mbar_wait(&v_full[step & 1], step >> 1 & 1);
        clear(step & 1, w.keys - (w.end - 1) * N);
      }
      for (int j = w.end - 2; j >= w.begin; j--) {
        unsigned now = step + 1;
        mbar_wait(&k_full[now & 1], now >> 1 & 1);
        named_sync(1 + own, 256);
        scores(now & 1);
        mbar_wait(&v_full[step & 1], step >> 1 & 1);
        values(step & 1);
        if (j > w.begin || own != C - 1) named_arrive(1 + next, 256);
        wgmma_wait<1>();
        wgmma_hold(z);
        if (one) mbar_arrive(&k_empty[now & 1]);
        if (one && j == w.begin) mbar_arrive(&q_empty);
        softmax(j);
        wgmma_wait<0>();
        wgmma_hold(o);
        if (one) mbar_arrive(&v_empty[step & 1]);
#pragma unroll
        for (int c = 0; c < D / 2; c++) o[c] *= shrink[c >> 1 & 1];
        pack_weights();
        step = now;
      }
      mbar_wait(&v_full[step & 1], step >> 1 & 1);
      values(step & 1);
      wgmma_wait<0>();
      wgmma_hold(o);
      if (one) mbar_arrive(&v_empty[step & 1]);
      step++;
      tile++;
    }
    int heads = a.g * a.r;
    long long pb = packed.starts_q ? 0 : w.b;
#pragma unroll
    for (int y = 0; y < 2; y++) {
      float sum = l[y];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      int row = row0 + 8 * y;
      if (row >= a.t) continue;
      float by = sum == 0.f ? 0.f : grow / sum;
      O* to = out + ((pb * a.t + w.q0 + row) * heads + w.h) * a.e;
#pragma unroll
      for (int c = 0; c < D / 8; c++) {
        int f = c * 8 + (lane & 3) * 2;
        if (f < a.e) *(uint32_t*)(to + f) = pack2<O>(o[4 * c + 2 * y] * by, o[4 * c + 2 * y + 1] * by);
      }
      if ((lane & 3) == 0)
        lse[(pb * heads + w.h) * (packed.starts_q ? packed.total_q : a.t) + w.q0 + row] =
            sum == 0.f ? -INFINITY : m[y] * (a.cap != 0.f ? 1.f : scale) + logf(sum) - UP / LOG2E;
    }
  }
#endif
}

// V [b s g e] as e4m3 by keys, [b g e padded s] in the order of the second wgmma, zeros behind the last key and behind
// lengths: values over `scale`. A block turns 32 keys by 32 features; 128 threads.
template <class S>
ATTENTION_FN void turn(const S* v, Strides nv, const float* scale, const int* lengths, e4m3* to, int s, int g, int e,
                       int padded) {
  __shared__ float tile[32][33];
  int keys = padded / 32, features = (e + 31) / 32, n = blockIdx.x;
  int j0 = n % keys * 32, f0 = n / keys % features * 32, h = n / keys / features % g, b = n / keys / features / g;
  int x = threadIdx.x & 31;
  if (lengths && lengths[b] < s) s = lengths[b];
  for (int y = threadIdx.x >> 5; y < 32; y += 4)
    tile[y][x] = j0 + y < s && f0 + x < e ? to_f32(v[b * nv.b + (j0 + y) * nv.t + h * nv.h + f0 + x]) : 0.f;
  __syncthreads();
  float by = 1.f / scale[b * g + h];
  int key = 8 * (2 * (x >> 4) + (x >> 1 & 1)) + 2 * (x >> 2 & 3) + (x & 1);
  for (int y = threadIdx.x >> 5; y < 32; y += 4)
    if (f0 + y < e) to[(((long long)b * g + h) * e + f0 + y) * padded + j0 + x] = e4m3(tile[key][y] * by);
}
}  // namespace

#define FORWARD(T, D, N, C)                                                                                    \
  (const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,                                 \
   const __grid_constant__ TensorMap mv, const int* starts_q, const int* starts_k, long long total_q, T* out,  \
   float* lse, int section, int count, ATTEND_PARAMS) {                                                        \
    forward<T, T, D, N, C>(mq, mk, mv, ATTEND_ARGS, {starts_q, starts_k, total_q}, {nullptr, nullptr, nullptr}, \
                           out, lse, section, count);                                                          \
  }

#define FORWARD8(D)                                                                                            \
  (const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,                                 \
   const __grid_constant__ TensorMap mv, const float* scale_q, const float* scale_k, const float* scale_v,     \
   bf16* out, float* lse, int section, int count, ATTEND_PARAMS) {                                             \
    forward<e4m3, bf16, D, 128, 2>(mq, mk, mv, ATTEND_ARGS, {nullptr, nullptr, 0}, {scale_q, scale_k, scale_v}, \
                                   out, lse, section, count);                                                  \
  }
#define TURN(S)                                                                                                \
  (const S* v, long long vb, long long vt, long long vh, const float* scale, const int* lengths, e4m3* to,     \
   int s, int g, int e, int padded) {                                                                          \
    turn<S>(v, {vb, vt, vh}, scale, lengths, to, s, g, e, padded);                                             \
  }

extern "C" __global__ void __launch_bounds__(512, 1) attention_forward_bf16_64_sm90 FORWARD(bf16, 64, 128, 3)
CUEMU_EXPORT(attention_forward_bf16_64_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_bf16_96_sm90 FORWARD(bf16, 96, 128, 2)
CUEMU_EXPORT(attention_forward_bf16_96_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_bf16_128_sm90 FORWARD(bf16, 128, 128, 2)
CUEMU_EXPORT(attention_forward_bf16_128_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_bf16_192_sm90 FORWARD(bf16, 192, 96, 2)
CUEMU_EXPORT(attention_forward_bf16_192_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_bf16_256_sm90 FORWARD(bf16, 256, 64, 2)
CUEMU_EXPORT(attention_forward_bf16_256_sm90)
extern "C" __global__ void __launch_bounds__(512, 1) attention_forward_f16_64_sm90 FORWARD(f16, 64, 128, 3)
CUEMU_EXPORT(attention_forward_f16_64_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_f16_96_sm90 FORWARD(f16, 96, 128, 2)
CUEMU_EXPORT(attention_forward_f16_96_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_f16_128_sm90 FORWARD(f16, 128, 128, 2)
CUEMU_EXPORT(attention_forward_f16_128_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_f16_192_sm90 FORWARD(f16, 192, 96, 2)
CUEMU_EXPORT(attention_forward_f16_192_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_f16_256_sm90 FORWARD(f16, 256, 64, 2)
CUEMU_EXPORT(attention_forward_f16_256_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_e4m3_64_sm90 FORWARD8(64)
CUEMU_EXPORT(attention_forward_e4m3_64_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_e4m3_96_sm90 FORWARD8(96)
CUEMU_EXPORT(attention_forward_e4m3_96_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_e4m3_128_sm90 FORWARD8(128)
CUEMU_EXPORT(attention_forward_e4m3_128_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_e4m3_192_sm90 FORWARD8(192)
CUEMU_EXPORT(attention_forward_e4m3_192_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_forward_e4m3_256_sm90 FORWARD8(256)
CUEMU_EXPORT(attention_forward_e4m3_256_sm90)
extern "C" __global__ void __launch_bounds__(128) attention_fp8_values_f32 TURN(float)
CUEMU_EXPORT(attention_fp8_values_f32)
extern "C" __global__ void __launch_bounds__(128) attention_fp8_values_bf16 TURN(bf16)
CUEMU_EXPORT(attention_fp8_values_bf16)
extern "C" __global__ void __launch_bounds__(128) attention_fp8_values_f16 TURN(f16)
CUEMU_EXPORT(attention_fp8_values_f16)
