// Attention in bf16 or f16 with sums in float, forward and backward, for Ampere and whatever has mma.sync
// (FlashAttention-2, Dao 2023). Causal, windows, lengths, positions, the soft cap, grouped queries, and sequences packed
// one after another (`starts_q`, `starts_k`); neither masks nor dropout.
//
// Head sizes are multiples of 8 up to 256, in kernels of D = 64, 96, 128, 192, 256 features (backward 64, 128, 256);
// what is missing reads as zeros. The query heads of a key-value head are rows of one matrix.
// Tiles lie in shared memory in rows of P = D features (128 for 96), pieces of 16 bytes swizzled by the row, so
// that ldmatrix reads eight banks groups; they come by cp.async: V flies during the scores, the next K during the values.
//
// forward: 128 rows of queries, 64 keys a step. D <= 128: 4 warps of 32 rows, else 8 warps of 16: a warp keeps its
// queries' results and scores in registers (D 128: 128 + 64). Shared memory (128 + 2 * 64) * P * 2 bytes: 64 KB for 128.
// backward: `dq`: 64 rows of queries run through the keys; `dkv`: 64 keys run through the rows of queries that see
// them, scores transposed, so that weights go from accumulators to operands without shared memory. Every sum has one
// order; the scores are made twice for it (7 products for 5). Shared memory 4 (D 128: 6) tiles of 64 * P * 2 bytes.
// Bound: mma.sync; ldmatrix reads as many bytes as 32 rows of a warp use twice.
#include "attention.cuh"

namespace {
// Distances, the sequences' first rows where they are packed, and how many rows all have.
struct Packed {
  const int *starts_q, *starts_k;
  long long total_q;
};

// The sizes of example b, and the first row of its queries and keys.
ATTENTION_FN void unpack(Attend& a, const Packed& p, int b, long long& q0, long long& k0) {
  q0 = k0 = 0;
  if (!p.starts_q) return;
  q0 = p.starts_q[b];
  k0 = p.starts_k[b];
  a.t = p.starts_q[b + 1] - (int)q0;
  a.s = p.starts_k[b + 1] - (int)k0;
}

__device__ constexpr int pitch(int d) { return d == 96 ? 128 : d; }

// Where piece c (16 bytes) of row r of a tile lies.
template <int D, class T> ATTENTION_FN T* piece(T* tile, int r, int c) {
  return tile + r * pitch(D) + (((c & ~7) | ((c ^ r) & 7)) << 3);
}

// An operand's rows for one example and head.
template <class T> struct Rows {
  const T* base;
  long long t, h;
  int r, from, to, width;
};

// Starts the copy of `count` rows from row0 on.
template <int D, int THREADS, class T> ATTENTION_FN void fetch(T* tile, const Rows<T>& x, int row0, int count) {
  for (int n = threadIdx.x; n < count * (D / 8); n += THREADS) {
    int row = n / (D / 8), c = n % (D / 8), at = row0 + row;
    bool in = at >= x.from && at < x.to && c * 8 < x.width;
    const T* from = x.base;
    if (in) from += (x.r == 1 ? at * x.t : at / x.r * x.t + at % x.r * x.h) + c * 8;
    cp_async16(piece<D>(tile, row, c), from, in ? 16 : 0);
  }
}

// Piece 2 k + half of a row that is `row` beyond a multiple of 8; `half` is 0 or 1. Few registers for all k.
template <int D, class T> ATTENTION_FN T* piece_of(T* tile, int row, int half, int k) {
  int place = (half ^ (row & 7)) << 3;
  return tile + row * pitch(D) + k / 4 * 64 + (place ^ (k % 4 << 4));
}

// The fragment of 16 rows and features 16 k.. as the left operand.
template <int D, class T> ATTENTION_FN void left(uint32_t (&f)[4], T* tile, int row0, int k) {
  int lane = threadIdx.x & 31;
  ldmatrix_x4(f, piece_of<D>(tile + row0 * pitch(D), lane & 15, lane >> 4, k));
}
// Of 16 rows as columns of the right operand, features 16 k..: two fragments.
template <int D, class T> ATTENTION_FN void right(uint32_t (&f)[4], T* tile, int row0, int k) {
  int lane = threadIdx.x & 31;
  ldmatrix_x4(f, piece_of<D>(tile + row0 * pitch(D), (lane & 7) + (lane >> 4) * 8, lane >> 3 & 1, k));
}
// Of 16 rows as rows of the right operand, features 16 n..: two fragments.
template <int D, class T> ATTENTION_FN void below(uint32_t (&f)[4], T* tile, int row0, int n) {
  int lane = threadIdx.x & 31;
  ldmatrix_x4_trans(f, piece_of<D>(tile + row0 * pitch(D), lane & 15, lane >> 4, n));
}

// acc[m][n] = A B^T: 16 MT rows from a0, 64 rows of B.
template <int D, int MT, class T> ATTENTION_FN void scores(float (&acc)[MT][8][4], T* a, int a0, T* b) {
#pragma unroll
  for (int m = 0; m < MT; m++)
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int c = 0; c < 4; c++) acc[m][n][c] = 0.f;
  // Not all at once: addresses would fill the registers.
#pragma unroll 4
  for (int k = 0; k < D / 16; k++) {
    uint32_t x[MT][4], y[4];
#pragma unroll
    for (int m = 0; m < MT; m++) left<D>(x[m], a, a0 + 16 * m, k);
#pragma unroll
    for (int n = 0; n < 4; n++) {
      right<D>(y, b, 16 * n, k);
#pragma unroll
      for (int m = 0; m < MT; m++) {
        mma<T>(acc[m][2 * n], x[m], y[0], y[1]);
        mma<T>(acc[m][2 * n + 1], x[m], y[2], y[3]);
      }
    }
  }
}

// out += W X, W as accumulators of `scores`, X 64 rows.
template <int D, int MT, class T> ATTENTION_FN void values(float (&out)[MT][D / 8][4], const float (&w)[MT][8][4], T* x) {
#pragma unroll
  for (int k = 0; k < 4; k++) {
    uint32_t f[MT][4], y[4];
#pragma unroll
    for (int m = 0; m < MT; m++) {
      f[m][0] = pack2<T>(w[m][2 * k][0], w[m][2 * k][1]);
      f[m][1] = pack2<T>(w[m][2 * k][2], w[m][2 * k][3]);
      f[m][2] = pack2<T>(w[m][2 * k + 1][0], w[m][2 * k + 1][1]);
      f[m][3] = pack2<T>(w[m][2 * k + 1][2], w[m][2 * k + 1][3]);
    }
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      below<D>(y, x, 16 * k, n);
#pragma unroll
      for (int m = 0; m < MT; m++) {
        mma<T>(out[m][2 * n], f[m], y[0], y[1]);
        mma<T>(out[m][2 * n + 1], f[m], y[2], y[3]);
      }
    }
  }
}

template <class T, int D, int WARPS, int MT>
ATTENTION_FN void forward(Attend a, const T* q, const T* k, const T* v, Strides nq, Strides nk, Strides nv,
                          Packed packed, T* out, float* lse) {
  constexpr int BM = WARPS * MT * 16, THREADS = WARPS * 32;
  DYN_SMEM(T, qs);
  T *ks = qs + BM * pitch(D), *vs = ks + 64 * pitch(D);
  // The longest rows of a causal matrix first: they take longest.
  int tiles = (a.t * a.r + BM - 1) / BM, n = blockIdx.x;
  int g = n % a.g, b = n / a.g % a.b, tile = tiles - 1 - n / a.g / a.b;
  long long q0, k0;
  unpack(a, packed, b, q0, k0);
  int row0 = tile * BM, rows = a.t * a.r, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (row0 >= rows) return;
  int last = row0 + BM < rows ? row0 + BM : rows;
  int first_q = row0 / a.r, last_q = (last - 1) / a.r;
  Span keys = span_of(a, b, first_q, last_q + 1);
  // Keys that all rows see.
  Span all = {visible(a, b, last_q).from, visible(a, b, first_q).to};
  long long pb = packed.starts_q ? 0 : b;
  Rows<T> rq = {q + pb * nq.b + q0 * nq.t + g * a.r * nq.h, nq.t, nq.h, a.r, 0, rows, a.d};
  Rows<T> rk = {k + pb * nk.b + k0 * nk.t + g * nk.h, nk.t, 0, 1, keys.from, keys.to, a.d};
  Rows<T> rv = {v + pb * nv.b + k0 * nv.t + g * nv.h, nv.t, 0, 1, keys.from, keys.to, a.e};
  float m[MT][2], l[MT][2], acc[MT][D / 8][4];
  int own = row0 + warp * MT * 16 + (lane >> 2);
#pragma unroll
  for (int x = 0; x < MT; x++) {
#pragma unroll
    for (int y = 0; y < 2; y++) {
      m[x][y] = -INFINITY, l[x][y] = 0.f;
    }
#pragma unroll
    for (int c = 0; c < D / 8; c++)
#pragma unroll
      for (int y = 0; y < 4; y++) acc[x][c][y] = 0.f;
  }
  int kt = keys.from / 64, end = (keys.to + 63) / 64;
  fetch<D, THREADS>(qs, rq, row0, BM);
  fetch<D, THREADS>(ks, rk, kt * 64, 64);
  cp_async_commit();
  for (; kt < end; kt++) {
    cp_async_wait<0>();
    __syncthreads();
    fetch<D, THREADS>(vs, rv, kt * 64, 64);
    cp_async_commit();
    float z[MT][8][4];
    scores<D, MT>(z, qs, warp * MT * 16, ks);
    bool whole = kt * 64 >= all.from && kt * 64 + 64 <= all.to;
    float factor = a.scale * LOG2E;
    if (a.cap != 0.f) {
#pragma unroll
      for (int x = 0; x < MT; x++)
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int c = 0; c < 4; c++) z[x][n][c] = a.cap * quick_tanh(z[x][n][c] * (a.scale / a.cap));
      factor = LOG2E;
    }
#pragma unroll
    for (int x = 0; x < MT; x++)
#pragma unroll
      for (int y = 0; y < 2; y++) {
        float top = m[x][y];
        if (!whole) {
          int row = own + x * 16 + y * 8;
          Span seen = row < rows ? visible(a, b, row / a.r) : Span{0, 0};
#pragma unroll
          for (int n = 0; n < 8; n++)
#pragma unroll
            for (int c = 0; c < 2; c++) {
              int j = kt * 64 + n * 8 + (lane & 3) * 2 + c;
              if (j < seen.from || j >= seen.to) z[x][n][2 * y + c] = -INFINITY;
            }
        }
#pragma unroll
        for (int n = 0; n < 8; n++) top = fmaxf(top, fmaxf(z[x][n][2 * y], z[x][n][2 * y + 1]));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        float base = top == -INFINITY ? 0.f : top * factor, sum = 0.f;
        float shrink = quick_exp2(m[x][y] * factor - base);
        m[x][y] = top;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
          for (int c = 0; c < 2; c++) sum += z[x][n][2 * y + c] = quick_exp2(z[x][n][2 * y + c] * factor - base);
        l[x][y] = l[x][y] * shrink + sum;  // this thread's share
#pragma unroll
        for (int n = 0; n < D / 8; n++) acc[x][n][2 * y] *= shrink, acc[x][n][2 * y + 1] *= shrink;
      }
    cp_async_wait<0>();
    __syncthreads();
    if (kt + 1 < end) fetch<D, THREADS>(ks, rk, kt * 64 + 64, 64);
    cp_async_commit();
    values<D, MT>(acc, z, vs);
  }
  cp_async_wait<0>();
  float factor = a.cap != 0.f ? 1.f : a.scale;
#pragma unroll
  for (int x = 0; x < MT; x++)
#pragma unroll
    for (int y = 0; y < 2; y++) {
      float sum = l[x][y];
      sum += __shfl_xor_sync(~0u, sum, 1);
      sum += __shfl_xor_sync(~0u, sum, 2);
      int row = own + x * 16 + y * 8, i = row / a.r, h = g * a.r + row % a.r;
      if (row >= rows) continue;
      float by = sum == 0.f ? 0.f : 1.f / sum;
      T* to = out + ((pb * a.t + q0 + i) * a.g * a.r + h) * a.e;
#pragma unroll
      for (int n = 0; n < D / 8; n++) {
        int c = n * 8 + (lane & 3) * 2;
        if (c < a.e) *(uint32_t*)(to + c) = pack2<T>(acc[x][n][2 * y] * by, acc[x][n][2 * y + 1] * by);
      }
      if ((lane & 3) == 0)
        lse[(pb * a.g * a.r + h) * (packed.starts_q ? packed.total_q : a.t) + q0 + i] =
            sum == 0.f ? -INFINITY : m[x][y] * factor + logf(sum);
    }
}

enum Kind { DQ = 1, DK = 2, DV = 4, DKV = 6 };

// Writes 16 rows of a gradient.
template <int D, class T>
ATTENTION_FN void put(T* to, const float (&acc)[1][D / 8][4], int width, int lane, int half) {
#pragma unroll
  for (int n = 0; n < D / 8; n++) {
    int c = n * 8 + (lane & 3) * 2;
    if (c < width) *(uint32_t*)(to + c) = pack2<T>(acc[0][n][2 * half], acc[0][n][2 * half + 1]);
  }
}

// 4 warps, each 16 of 64 own rows: queries (DQ), else keys; in steps of 64 of the others.
template <class T, int D, int kind>
ATTENTION_FN void backward(Attend a, const T* q, const T* k, const T* v, const T* go, Strides nq, Strides nk,
                           Strides nv, Strides ng, Packed packed, const float* lse, const float* delta, T* to, T* to2) {
  constexpr bool turned = kind != DQ;
  constexpr int BUFFERS = D <= 128 ? 2 : 1, TILE = 64 * pitch(D);
  DYN_SMEM(T, own1);
  __shared__ float lses[2][64], deltas[2][64];
  T *own2 = own1 + TILE, *others = own2 + TILE;  // pairs of tiles
  int per = turned ? a.s : a.t * a.r, n = blockIdx.x;
  int g = n % a.g, b = n / a.g % a.b, tile = (per + 63) / 64 - 1 - n / a.g / a.b;
  long long q0, k0;
  unpack(a, packed, b, q0, k0);
  int rows = a.t * a.r, count = turned ? a.s : rows, row0 = tile * 64, warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  if (row0 >= count) return;
  int last = row0 + 64 < count ? row0 + 64 : count;
  Span other = turned ? seen_by(a, b, row0, last) : span_of(a, b, row0 / a.r, (last - 1) / a.r + 1);
  Span keys = turned ? Span{row0, last} : other;
  if (turned) other = {other.from * a.r, other.to * a.r};
  long long pb = packed.starts_q ? 0 : b, row_of_lse = packed.starts_q ? packed.total_q : a.t;
  Rows<T> rq = {q + pb * nq.b + q0 * nq.t + g * a.r * nq.h, nq.t, nq.h, a.r, 0, rows, a.d};
  Rows<T> rg = {go + pb * ng.b + q0 * ng.t + g * a.r * ng.h, ng.t, ng.h, a.r, 0, rows, a.e};
  Rows<T> rk = {k + pb * nk.b + k0 * nk.t + g * nk.h, nk.t, 0, 1, keys.from, keys.to, a.d};
  Rows<T> rv = {v + pb * nv.b + k0 * nv.t + g * nv.h, nv.t, 0, 1, keys.from, keys.to, a.e};
  float acc1[1][D / 8][4], acc2[1][D / 8][4];
#pragma unroll
  for (int c = 0; c < D / 8; c++)
#pragma unroll
    for (int y = 0; y < 4; y++) acc1[0][c][y] = 0.f, acc2[0][c][y] = 0.f;
  // The log-sum-exp of a row in base 2 (infinity where its weights are zeros), and its delta.
  auto numbers = [&](int row, float& x, float& y) {
    bool in = row < rows;
    long long at = (pb * a.g * a.r + g * a.r + row % a.r) * row_of_lse + q0 + row / a.r;
    x = in && lse[at] != -INFINITY ? lse[at] * LOG2E : INFINITY;
    y = in ? delta[at] : 0.f;
  };
  auto get = [&](int ot, int buffer) {
    T* x = others + buffer * 2 * TILE;
    fetch<D, 128>(x, turned ? rq : rk, ot * 64, 64);
    fetch<D, 128>(x + TILE, turned ? rg : rv, ot * 64, 64);
    cp_async_commit();
    if (turned && threadIdx.x < 64) numbers(ot * 64 + threadIdx.x, lses[buffer][threadIdx.x], deltas[buffer][threadIdx.x]);
  };
  fetch<D, 128>(own1, turned ? rk : rq, row0, 64);
  fetch<D, 128>(own2, turned ? rv : rg, row0, 64);
  cp_async_commit();
  int ot = other.from / 64, end = (other.to + 63) / 64, own = row0 + warp * 16 + (lane >> 2);
  float own_lse[2], own_delta[2];
  Span own_seen[2];
  if (!turned)
#pragma unroll
    for (int y = 0; y < 2; y++) {
      int row = own + 8 * y;
      numbers(row, own_lse[y], own_delta[y]);
      own_seen[y] = row < rows ? visible(a, b, row / a.r) : Span{0, 0};
    }
  if (ot < end) get(ot, 0);
  for (int buffer = 0; ot < end; ot++) {
    cp_async_wait<0>();
    __syncthreads();
    if (BUFFERS == 2 && ot + 1 < end) get(ot + 1, buffer ^ 1);
    T *x1 = others + buffer * 2 * TILE, *x2 = x1 + TILE;
    float z[1][8][4], dp[1][8][4];
    scores<D, 1>(z, own1, warp * 16, x1);
    if (kind != DV) scores<D, 1>(dp, own2, warp * 16, x2);
    // Keys that all rows of queries see.
    int from = turned ? ot * 64 : row0, to_ = turned ? (ot * 64 + 64 < rows ? ot * 64 + 64 : rows) : last;
    Span all = {visible(a, b, (to_ - 1) / a.r).from, visible(a, b, from / a.r).to};
    int key0 = turned ? row0 : ot * 64;
    bool whole = key0 >= all.from && key0 + 64 <= all.to && (!turned || ot * 64 + 64 <= rows);
    // Bit 4 n + 2 c + y: whether that score counts.
    unsigned sees = ~0u;
    if (!whole) {
      sees = 0;
#pragma unroll 1
      for (int n = 0; n < 16; n++) {
        int column = ot * 64 + (n >> 1) * 8 + (lane & 3) * 2 + (n & 1);
        Span seen = {0, 0};
        if (turned && column < rows) seen = visible(a, b, column / a.r);
#pragma unroll
        for (int y = 0; y < 2; y++) {
          if (!turned) seen = own_seen[y];
          int j = turned ? own + 8 * y : column;
          sees |= (unsigned)(j >= seen.from && j < seen.to) << (2 * n + y);
        }
      }
    }
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        int column = n * 8 + (lane & 3) * 2 + c;
        float x = turned ? lses[buffer][column] : 0.f, d = turned ? deltas[buffer][column] : 0.f;
#pragma unroll
        for (int y = 0; y < 2; y++) {
          if (!turned) x = own_lse[y], d = own_delta[y];
          float s = z[0][n][2 * y + c] * a.scale, slope = a.scale;
          if (a.cap != 0.f) {
            float bounded = quick_tanh(s / a.cap);
            s = a.cap * bounded;
            slope *= 1.f - bounded * bounded;
          }
          float p = sees >> (4 * n + 2 * c + y) & 1 ? quick_exp2(s * LOG2E - x) : 0.f;
          z[0][n][2 * y + c] = p;
          if (kind != DV) dp[0][n][2 * y + c] = p == 0.f ? 0.f : p * (dp[0][n][2 * y + c] - d) * slope;
        }
      }
    if (kind & DV) values<D, 1>(acc2, z, x2);
    if (kind != DV) values<D, 1>(acc1, dp, x1);
    if (BUFFERS == 2) buffer ^= 1;
    else if (ot + 1 < end) {
      __syncthreads();
      get(ot + 1, 0);
    }
  }
  cp_async_wait<0>();
#pragma unroll
  for (int y = 0; y < 2; y++) {
    int row = own + 8 * y;
    if (row >= count) continue;
    long long at = turned ? (pb * a.s + k0 + row) * a.g + g
                          : (pb * a.t + q0 + row / a.r) * a.g * a.r + g * a.r + row % a.r;
    if (kind != DV) put<D>(to + at * a.d, acc1, a.d, lane, y);
    if (kind & DV) put<D>((kind == DV ? to : to2) + at * a.e, acc2, a.e, lane, y);
  }
}

// delta = go . out - glse, a warp a row [t h] of `rows`; t queries of an example.
template <class T>
ATTENTION_FN void make_delta(const T* go, Strides ng, const T* out, const float* glse, float* delta, long long rows,
                             int t, int heads, int e) {
  long long row = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
  if (row >= rows) return;
  long long b = row / ((long long)t * heads), i = row / heads % t, h = row % heads, at = (b * heads + h) * t + i;
  const T *x = go + b * ng.b + i * ng.t + h * ng.h, *y = out + row * e;
  float sum = 0.f;
  for (int c = (threadIdx.x & 31) * 2; c < e; c += 64) {
    float2 u = unpack2<T>(*(const uint32_t*)(x + c)), w = unpack2<T>(*(const uint32_t*)(y + c));
    sum += u.x * w.x + u.y * w.y;
  }
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
  if ((threadIdx.x & 31) == 0) delta[at] = sum - (glse ? glse[at] : 0.f);
}
}  // namespace

#define FORWARD(T, D, WARPS, MT)                                                                                   \
  (const T* q, const T* k, const T* v, long long qb, long long qt, long long qh, long long kb, long long kt,       \
   long long kh, long long vb, long long vt, long long vh, const int* starts_q, const int* starts_k,               \
   long long total_q, T* out, float* lse, ATTEND_PARAMS) {                                                         \
    forward<T, D, WARPS, MT>(ATTEND_ARGS, q, k, v, {qb, qt, qh}, {kb, kt, kh}, {vb, vt, vh},                       \
                             {starts_q, starts_k, total_q}, out, lse);                                             \
  }
#define BACKWARD(T, D, KIND)                                                                                       \
  (const T* q, const T* k, const T* v, const T* go, long long qb, long long qt, long long qh, long long kb,        \
   long long kt, long long kh, long long vb, long long vt, long long vh, long long gb, long long gt, long long gh, \
   const int* starts_q, const int* starts_k, long long total_q, const float* lse, const float* delta, T* to,       \
   T* to2, ATTEND_PARAMS) {                                                                                        \
    backward<T, D, KIND>(ATTEND_ARGS, q, k, v, go, {qb, qt, qh}, {kb, kt, kh}, {vb, vt, vh}, {gb, gt, gh},         \
                         {starts_q, starts_k, total_q}, lse, delta, to, to2);                                      \
  }
#define DELTA(T)                                                                                                   \
  (const T* go, long long gb, long long gt, long long gh, const T* out, const float* glse, float* delta,           \
   long long rows, int t, int heads, int e) {                                                                      \
    make_delta<T>(go, {gb, gt, gh}, out, glse, delta, rows, t, heads, e);                                          \
  }

extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_bf16_64_sm80 FORWARD(bf16, 64, 4, 2)
CUEMU_EXPORT(attention_forward_bf16_64_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_bf16_96_sm80 FORWARD(bf16, 96, 4, 2)
CUEMU_EXPORT(attention_forward_bf16_96_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_bf16_128_sm80 FORWARD(bf16, 128, 4, 2)
CUEMU_EXPORT(attention_forward_bf16_128_sm80)
extern "C" __global__ void __launch_bounds__(256) attention_forward_bf16_192_sm80 FORWARD(bf16, 192, 8, 1)
CUEMU_EXPORT(attention_forward_bf16_192_sm80)
extern "C" __global__ void __launch_bounds__(256) attention_forward_bf16_256_sm80 FORWARD(bf16, 256, 8, 1)
CUEMU_EXPORT(attention_forward_bf16_256_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_bf16_64_sm80 BACKWARD(bf16, 64, DQ)
CUEMU_EXPORT(attention_dq_bf16_64_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_bf16_128_sm80 BACKWARD(bf16, 128, DQ)
CUEMU_EXPORT(attention_dq_bf16_128_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_bf16_256_sm80 BACKWARD(bf16, 256, DQ)
CUEMU_EXPORT(attention_dq_bf16_256_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dkv_bf16_64_sm80 BACKWARD(bf16, 64, DKV)
CUEMU_EXPORT(attention_dkv_bf16_64_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dkv_bf16_128_sm80 BACKWARD(bf16, 128, DKV)
CUEMU_EXPORT(attention_dkv_bf16_128_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dk_bf16_256_sm80 BACKWARD(bf16, 256, DK)
CUEMU_EXPORT(attention_dk_bf16_256_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dv_bf16_256_sm80 BACKWARD(bf16, 256, DV)
CUEMU_EXPORT(attention_dv_bf16_256_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_delta_bf16 DELTA(bf16)
CUEMU_EXPORT(attention_delta_bf16)
extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_f16_64_sm80 FORWARD(f16, 64, 4, 2)
CUEMU_EXPORT(attention_forward_f16_64_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_f16_96_sm80 FORWARD(f16, 96, 4, 2)
CUEMU_EXPORT(attention_forward_f16_96_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_f16_128_sm80 FORWARD(f16, 128, 4, 2)
CUEMU_EXPORT(attention_forward_f16_128_sm80)
extern "C" __global__ void __launch_bounds__(256) attention_forward_f16_192_sm80 FORWARD(f16, 192, 8, 1)
CUEMU_EXPORT(attention_forward_f16_192_sm80)
extern "C" __global__ void __launch_bounds__(256) attention_forward_f16_256_sm80 FORWARD(f16, 256, 8, 1)
CUEMU_EXPORT(attention_forward_f16_256_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_f16_64_sm80 BACKWARD(f16, 64, DQ)
CUEMU_EXPORT(attention_dq_f16_64_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_f16_128_sm80 BACKWARD(f16, 128, DQ)
CUEMU_EXPORT(attention_dq_f16_128_sm80)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_f16_256_sm80 BACKWARD(f16, 256, DQ)
CUEMU_EXPORT(attention_dq_f16_256_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dkv_f16_64_sm80 BACKWARD(f16, 64, DKV)
CUEMU_EXPORT(attention_dkv_f16_64_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dkv_f16_128_sm80 BACKWARD(f16, 128, DKV)
CUEMU_EXPORT(attention_dkv_f16_128_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dk_f16_256_sm80 BACKWARD(f16, 256, DK)
CUEMU_EXPORT(attention_dk_f16_256_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_dv_f16_256_sm80 BACKWARD(f16, 256, DV)
CUEMU_EXPORT(attention_dv_f16_256_sm80)
extern "C" __global__ void __launch_bounds__(128) attention_delta_f16 DELTA(f16)
CUEMU_EXPORT(attention_delta_f16)
