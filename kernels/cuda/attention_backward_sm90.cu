// Gradients of attention in bf16 or f16 for Hopper: causal, windows, positions, lengths, the soft cap, grouped queries, and
// sequences packed one after another; neither masks nor dropout. D = 64 or 128 features; missing ones read as zeros.
//
// Two kernels of one shape, so that every sum has one order and nothing is added in memory (the scores are made twice for
// it: 7 products for 5). Own rows, 64 for each of two consumer warpgroups, stay in shared memory: queries and given
// gradients for `dq`, keys and values for `dkv`. The others come by TMA in steps of 64 rows into two slots, with the
// log-sum-exps and deltas of queries. A step makes scores and the gradients of weights by wgmma, own rows first (for
// `dkv` transposed), then weights and gradients of scores in registers, which are the register operands of the products
// with the other rows as they lie (MN-major). Other rows behind a length or of the next sequence become zeros first.
// Threads 384: a producing warpgroup (one warp works, 24 registers), two consumers of 240: gradients 64 or 128 for D = 128,
// scores and their gradients 64, packed operands 32. Shared memory for D = 128: own 64 KB, slots 2 * 32 KB.
// Bound: wgmma; one warpgroup's exponentials run beside the other's products.
#include "attention.cuh"

namespace {
struct Packed {
  const int *starts_q, *starts_k;
  long long total_q;
};

template <class T, int D, bool DKV>
ATTENTION_FN void backward(const TensorMap& mq, const TensorMap& mk, const TensorMap& mv, const TensorMap& mg, Attend a,
                           Packed packed, const float* lse, const float* delta, T* to, T* to2) {
#if HOPPER
  constexpr int BLOCKS = D / 64, B = 64 * 128, TILE = BLOCKS * B;  // bytes of a block of 64 features, of 64 rows
  DYN_SMEM(unsigned char, own);  // [2 operands][2 consumers][BLOCKS][64 rows][128 bytes]
  unsigned char* others = own + 4 * TILE;  // [2 slots][2 operands][BLOCKS]..
  __shared__ uint64_t own_full, full[2], empty[2];
  __shared__ float lses[2][64], deltas[2][64];
  int group = threadIdx.x / 128, most = DKV ? a.s : a.t, heads = a.g * a.r, over = DKV ? a.g : heads;
  int n = blockIdx.x, h = n % over, b = n / over % a.b, tiles = (most + 127) / 128, tile = n / over / a.b;
  // Causal: the first keys have most queries, the last queries most keys.
  int row0 = (DKV ? tile : tiles - 1 - tile) * 128;
  long long q0 = 0, k0 = 0;
  if (packed.starts_q) {
    q0 = packed.starts_q[b];
    k0 = packed.starts_k[b];
    a.t = packed.starts_q[b + 1] - (int)q0;
    a.s = packed.starts_k[b + 1] - (int)k0;
  }
  int count = DKV ? a.s : a.t, pb = packed.starts_q ? 0 : b;
  if (row0 >= count) return;
  int last = row0 + 128 < count ? row0 + 128 : count;
  Span other = DKV ? seen_by(a, b, row0, last) : span_of(a, b, row0, last);
  int begin = other.from / 64, per = other.to > other.from ? (other.to + 63) / 64 - begin : 0;
  // For keys: the queries of all heads of the group, one after another.
  int steps = DKV ? per * a.r : per;
  if (threadIdx.x == 0) {
    tma_prefetch(&mq);
    tma_prefetch(&mk);
    tma_prefetch(&mv);
    tma_prefetch(&mg);
    mbar_init(&own_full, 1);
    for (int s = 0; s < 2; s++) {
      mbar_init(&full[s], 1);
      mbar_init(&empty[s], 2);
    }
    mbar_init_fence();
  }
  __syncthreads();
  if (group == 0) {
    reg_dec<24>();
    if (threadIdx.x >= 32) return;
    bool one = threadIdx.x == 0;
    if (one && steps > 0) {
      mbar_expect(&own_full, 4 * TILE);
      for (int c = 0; c < 2; c++)
        for (int f = 0; f < BLOCKS; f++) {
          int row = (int)(DKV ? k0 : q0) + row0 + c * 64;
          tma_load_4d(own + c * TILE + f * B, DKV ? &mk : &mq, &own_full, f * 64, row, h, pb);
          tma_load_4d(own + (2 + c) * TILE + f * B, DKV ? &mv : &mg, &own_full, f * 64, row, h, pb);
        }
    }
    for (int j = 0; j < steps; j++) {
      int s = j & 1, head = DKV ? h * a.r + j / per : h / a.r, first = (begin + (DKV ? j % per : j)) * 64;
      if (one) mbar_wait(&empty[s], (j >> 1 & 1) ^ 1);
      __syncwarp();
      if (DKV)
        for (int x = threadIdx.x; x < 64; x += 32) {
          // Infinity where there are no weights.
          bool in = first + x < a.t;
          long long at = ((long long)pb * heads + head) * (packed.starts_q ? packed.total_q : a.t) + q0 + first + x;
          lses[s][x] = in && lse[at] != -INFINITY ? lse[at] * LOG2E : INFINITY;
          deltas[s][x] = in ? delta[at] : 0.f;
        }
      __syncwarp();
      if (one) {
        mbar_expect(&full[s], 2 * TILE);
        for (int f = 0; f < BLOCKS; f++) {
          int row = (int)(DKV ? q0 : k0) + first;
          tma_load_4d(others + 2 * s * TILE + f * B, DKV ? &mq : &mk, &full[s], f * 64, row, head, pb);
          tma_load_4d(others + (2 * s + 1) * TILE + f * B, DKV ? &mg : &mv, &full[s], f * 64, row, head, pb);
        }
      }
    }
    return;
  }
  reg_inc<240>();
  int c0 = group - 1, thread = threadIdx.x % 128, lane = thread & 31, mine = row0 + c0 * 64 + (thread >> 5) * 16 + (lane >> 2);
  uint64_t a1 = desc128(own + c0 * TILE), a2 = desc128(own + (2 + c0) * TILE), rows = desc128(others);
  uint64_t turned = wgmma_desc<128>(others, B, 1024);
  float acc1[D / 2], acc2[DKV ? D / 2 : 1], z[32], dp[32], own_lse[2], own_delta[2];
  Span own_seen[2];
#pragma unroll
  for (int c = 0; c < D / 2; c++) {
    acc1[c] = 0.f;
    if (DKV) acc2[c] = 0.f;
  }
  if (!DKV)
#pragma unroll
    for (int y = 0; y < 2; y++) {
      int row = mine + 8 * y;
      bool in = row < a.t;
      long long at = ((long long)pb * heads + h) * (packed.starts_q ? packed.total_q : a.t) + q0 + row;
      own_lse[y] = in && lse[at] != -INFINITY ? lse[at] * LOG2E : INFINITY;
      own_delta[y] = in ? delta[at] : 0.f;
      own_seen[y] = in ? visible(a, b, row) : Span{0, 0};
    }
  auto scores = [&](float (&to)[32], uint64_t left, int slot) {
    wgmma_hold(to);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
      wgmma<64, T>(to, left + (k / 4 * B + k % 4 * 32) / 16, rows + (uint64_t)(slot * TILE + k / 4 * B + k % 4 * 32) / 16, k > 0);
    wgmma_commit();
  };
  // Other rows that are multiplied by gradients and exist. TMA makes zeros of what lies behind an array alone.
  int exist = DKV ? a.t : a.lengths && a.lengths[b] < a.s ? a.lengths[b] : a.s;
  if (steps > 0) mbar_wait(&own_full, 0);
  for (int j = 0; j < steps; j++) {
    int s = j & 1, first = (begin + (DKV ? j % per : j)) * 64;
    mbar_wait(&full[s], j >> 1 & 1);
    if (first + 64 > exist) {
#pragma unroll 1
      for (int x = (exist - first) * 8 + (int)threadIdx.x - 128; x < 512; x += 256)
#pragma unroll
        for (int f = 0; f < (DKV ? 2 : 1) * BLOCKS; f++)
          *(uint4*)(others + 2 * s * TILE + f * B + x * 16) = make_uint4(0, 0, 0, 0);
      fence_async();
      named_sync(1, 256);
    }
    scores(z, a1, 2 * s);
    scores(dp, a2, 2 * s + 1);
    // Bit c: whether score c counts.
    int from = DKV ? first : row0 + c0 * 64, end = from + 64 < a.t ? from + 64 : a.t, key0 = DKV ? row0 + c0 * 64 : first;
    unsigned sees = ~0u;
    bool whole = from + 64 <= a.t && key0 >= visible(a, b, end - 1).from && key0 + 64 <= visible(a, b, from).to;
    if (!whole) {
      sees = 0;
#pragma unroll 1
      for (int c = 0; c < 16; c++) {
        int column = first + (c >> 1) * 8 + (lane & 3) * 2 + (c & 1);
        Span seen = {0, 0};
        if (DKV && column < a.t) seen = visible(a, b, column);
#pragma unroll
        for (int y = 0; y < 2; y++) {
          if (!DKV) seen = own_seen[y];
          int key = DKV ? mine + 8 * y : column;
          sees |= (unsigned)(key >= seen.from && key < seen.to) << ((c >> 1) * 4 + 2 * y + (c & 1));
        }
      }
    }
    wgmma_wait<0>();
    wgmma_hold(z);
    wgmma_hold(dp);
    uint32_t p[DKV ? 4 : 1][4], ds[4][4];
#pragma unroll
    for (int c = 0; c < 32; c++) {
      int column = c / 4 * 8 + (lane & 3) * 2 + (c & 1), y = c >> 1 & 1;
      float x = DKV ? lses[s][column] : own_lse[y], d = DKV ? deltas[s][column] : own_delta[y];
      float score_ = z[c] * a.scale, slope = a.scale;
      if (a.cap != 0.f) {
        float bounded = quick_tanh(score_ / a.cap);
        score_ = a.cap * bounded;
        slope *= 1.f - bounded * bounded;
      }
      z[c] = sees >> c & 1 ? quick_exp2(score_ * LOG2E - x) : 0.f;
      dp[c] = z[c] == 0.f ? 0.f : z[c] * (dp[c] - d) * slope;
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
      for (int c = 0; c < 4; c++) {
        if (DKV) p[k][c] = pack2<T>(z[8 * k + 2 * c], z[8 * k + 2 * c + 1]);
        ds[k][c] = pack2<T>(dp[8 * k + 2 * c], dp[8 * k + 2 * c + 1]);
      }
    wgmma_hold(acc1);
    if (DKV) wgmma_hold(acc2);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; k++) {
      uint64_t at = turned + (uint64_t)(2 * s * TILE + k * 16 * 128) / 16;
      if constexpr (DKV) wgmma_rs<D, T, T, 1>(acc2, p[k], at + TILE / 16);
      wgmma_rs<D, T, T, 1>(acc1, ds[k], at);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(acc1);
    if (DKV) wgmma_hold(acc2);
    if (thread == 0) mbar_arrive(&empty[s]);
  }
#pragma unroll
  for (int y = 0; y < 2; y++) {
    int row = mine + 8 * y;
    if (row >= count) continue;
    long long at = DKV ? ((long long)pb * a.s + k0 + row) * a.g + h : ((long long)pb * a.t + q0 + row) * heads + h;
#pragma unroll
    for (int c = 0; c < D / 8; c++) {
      int f = c * 8 + (lane & 3) * 2;
      if (f < a.d) *(uint32_t*)(to + at * a.d + f) = pack2<T>(acc1[4 * c + 2 * y], acc1[4 * c + 2 * y + 1]);
      if (DKV && f < a.e) *(uint32_t*)(to2 + at * a.e + f) = pack2<T>(acc2[4 * c + 2 * y], acc2[4 * c + 2 * y + 1]);
    }
  }
#endif
}
}  // namespace

#define BACKWARD(T, D, DKV)                                                                                       \
  (const __grid_constant__ TensorMap mq, const __grid_constant__ TensorMap mk,                                    \
   const __grid_constant__ TensorMap mv, const __grid_constant__ TensorMap mg, const int* starts_q,               \
   const int* starts_k, long long total_q, const float* lse, const float* delta, T* to, T* to2, ATTEND_PARAMS) {  \
    backward<T, D, DKV>(mq, mk, mv, mg, ATTEND_ARGS, {starts_q, starts_k, total_q}, lse, delta, to, to2);         \
  }

extern "C" __global__ void __launch_bounds__(384, 1) attention_dq_bf16_64_sm90 BACKWARD(bf16, 64, false)
CUEMU_EXPORT(attention_dq_bf16_64_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_dq_bf16_128_sm90 BACKWARD(bf16, 128, false)
CUEMU_EXPORT(attention_dq_bf16_128_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_dkv_bf16_64_sm90 BACKWARD(bf16, 64, true)
CUEMU_EXPORT(attention_dkv_bf16_64_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_dkv_bf16_128_sm90 BACKWARD(bf16, 128, true)
CUEMU_EXPORT(attention_dkv_bf16_128_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_dq_f16_64_sm90 BACKWARD(f16, 64, false)
CUEMU_EXPORT(attention_dq_f16_64_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_dq_f16_128_sm90 BACKWARD(f16, 128, false)
CUEMU_EXPORT(attention_dq_f16_128_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_dkv_f16_64_sm90 BACKWARD(f16, 64, true)
CUEMU_EXPORT(attention_dkv_f16_64_sm90)
extern "C" __global__ void __launch_bounds__(384, 1) attention_dkv_f16_128_sm90 BACKWARD(f16, 128, true)
CUEMU_EXPORT(attention_dkv_f16_128_sm90)
