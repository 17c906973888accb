// Attention in single precision with every option of the operation, forward and backward. The scores are never in
// memory (FlashAttention, Dao et al. 2022).
//
// The query heads of one key-value head are rows of one matrix: row = query * r + head in the group. A block has 128
// threads, 16 by 8, and makes a tile of 64 by 64 scores, each thread 4 rows and 8 columns, from chunks of 32 features
// in shared memory; then a product of the tile with 64 rows of up to W (64 or 128) features. Wider results are several
// blocks, which make the scores again; so any number of features is right. Shared memory 34 KB; fp32-bound: 4 fused
// multiply-adds for every float4 read of shared memory, about half of the 67 TFLOP/s of an H100.
//
// Forward: rows are queries, online softmax; with `splits` > 1 a block has a part of the keys and leaves its result and
// its log-sum-exp, which `attention_combine_f32` (attention_decode.cu) joins.
// Backward: dq has rows of queries, dk and dv have rows of keys and run through the queries that see them, so every
// value is summed by one thread in a fixed order; dmask has one head's queries and sums over what the mask lacks.
#include "attention.cuh"

namespace {
constexpr int TILE = 64, CHUNK = 32, ROW = TILE + 4;

// An operand's rows for one example and head: `r` heads are neighbouring rows of a position.
struct Rows {
  const float* base;
  long long t, h;
  int r, from, to;  // other rows read as zeros
};

ATTENTION_FN long long row_at(const Rows& x, int row) {
  if (row < x.from || row >= x.to) return -1;
  return x.r == 1 ? row * x.t : (row / x.r) * x.t + (row % x.r) * x.h;
}

// The rows that this thread loads.
ATTENTION_FN void own_rows(const Rows& x, int row0, long long (&at)[4]) {
#pragma unroll
  for (int n = 0; n < 4; n++) at[n] = row_at(x, row0 + (int)(threadIdx.x >> 3) + 16 * n);
}

// 32 features of 64 rows, transposed. Eight lanes read a sector; 32 lanes write 32 banks.
ATTENTION_FN void load_chunk(float* to, const float* base, const long long (&at)[4], int k0, int width) {
  int k = threadIdx.x & 7, row = threadIdx.x >> 3;
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int n = 0; n < 4; n++) {
      bool in = at[n] >= 0 && k0 + k + 8 * m < width;
      to[(k + 8 * m) * ROW + row + 16 * n] = in ? base[at[n] + k0 + k + 8 * m] : 0.f;
    }
}

ATTENTION_FN void get4(float (&to)[4], const float* from) {
  float4 v = *(const float4*)from;
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}

// acc = A B^T over `width` features. Leaves no barrier behind the last reading.
ATTENTION_FN void products(float (&acc)[4][8], float* as, float* bs, const Rows& a, int a0, const Rows& b, int b0,
                           int width) {
  int ty = threadIdx.x >> 3, tx = threadIdx.x & 7;
  long long pa[4], pb[4];
  own_rows(a, a0, pa);
  own_rows(b, b0, pb);
#pragma unroll
  for (int m = 0; m < 4; m++)
#pragma unroll
    for (int n = 0; n < 8; n++) acc[m][n] = 0.f;
  for (int k0 = 0; k0 == 0 || k0 < width; k0 += CHUNK) {  // barriers also without features
    __syncthreads();
    load_chunk(as, a.base, pa, k0, width);
    load_chunk(bs, b.base, pb, k0, width);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < CHUNK; k++) {
      float x[4], y[4], z[4];
      get4(x, as + k * ROW + ty * 4);
      get4(y, bs + k * ROW + tx * 4);
      get4(z, bs + k * ROW + 32 + tx * 4);
#pragma unroll
      for (int m = 0; m < 4; m++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
          acc[m][n] += x[m] * y[n];
          acc[m][n + 4] += x[m] * z[n];
        }
    }
  }
}

// This thread's column n of the tile.
ATTENTION_FN int column(int n) { return (int)(threadIdx.x & 7) * 4 + (n & 3) + (n >> 2) * 32; }

// out += weights X, where `ws` holds the tile's weights, columns first, and X has the tile's columns as rows.
template <int W>
ATTENTION_FN void gather(float (&out)[4][W / 8], const float* ws, float* xs, const Rows& x, int x0, int c0, int width) {
  int ty = threadIdx.x >> 3, tx = threadIdx.x & 7;
  for (int k0 = 0; k0 < TILE; k0 += CHUNK) {
    __syncthreads();
    for (int n = threadIdx.x; n < CHUNK * W; n += 128) {
      int row = n / W, c = n % W;
      long long at = row_at(x, x0 + k0 + row);
      xs[row * W + c] = at >= 0 && c0 + c < width ? x.base[at + c0 + c] : 0.f;
    }
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < CHUNK; k++) {
      float w[4], v[4];
      get4(w, ws + (k0 + k) * ROW + ty * 4);
#pragma unroll
      for (int c = 0; c < W / 32; c++) {
        get4(v, xs + k * W + c * 32 + tx * 4);
#pragma unroll
        for (int m = 0; m < 4; m++)
#pragma unroll
          for (int n = 0; n < 4; n++) out[m][c * 4 + n] += w[m] * v[n];
      }
    }
  }
}

ATTENTION_FN void put_weights(float* ws, const float (&w)[4][8]) {
  int ty = threadIdx.x >> 3;
#pragma unroll
  for (int n = 0; n < 8; n++) {
    float4 v;
    v.x = w[0][n], v.y = w[1][n], v.z = w[2][n], v.w = w[3][n];
    *(float4*)(ws + column(n) * ROW + ty * 4) = v;
  }
}

// The maximum or sum over the eight threads of a row.
ATTENTION_FN float row_max(float v) {
#pragma unroll
  for (int d = 1; d < 8; d *= 2) v = fmaxf(v, __shfl_xor_sync(~0u, v, d));
  return v;
}
ATTENTION_FN float row_sum(float v) {
#pragma unroll
  for (int d = 1; d < 8; d *= 2) v += __shfl_xor_sync(~0u, v, d);
  return v;
}

struct Shared {
  float weights[TILE * ROW];
  float chunks[2 * CHUNK * ROW];  // two chunks of factors, or one of at most 32 by 128 of rows
};
static_assert(2 * CHUNK * ROW >= CHUNK * 128, "");

// Rows of one key-value head's queries.
ATTENTION_FN Rows query_rows(const Attend& a, const float* x, Strides n, int b, int g) {
  return {x + b * n.b + g * a.r * n.h, n.t, n.h, a.r, 0, a.t * a.r};
}
ATTENTION_FN Rows key_rows(const float* x, Strides n, int b, int g, Span keys) {
  return {x + b * n.b + g * n.h, n.t, 0, 1, keys.from, keys.to};
}

template <int W>
ATTENTION_FN void forward(Shared& sh, const Attend& a, const float* q, const float* k, const float* v, Strides nq,
                          Strides nk, Strides nv, float* out, float* lse, int splits) {
  int tiles = (a.t * a.r + TILE - 1) / TILE, chunks = a.e > W ? (a.e + W - 1) / W : 1;
  int n = blockIdx.x;
  int tile = n % tiles, chunk = n / tiles % chunks, split = n / tiles / chunks % splits;
  int g = n / tiles / chunks / splits % a.g, b = n / tiles / chunks / splits / a.g;
  int ty = threadIdx.x >> 3, row0 = tile * TILE, last = row0 + TILE < a.t * a.r ? row0 + TILE : a.t * a.r;
  Span keys = span_of(a, b, row0 / a.r, (last - 1) / a.r + 1);
  int first_tile = keys.from / TILE, ends = (keys.to + TILE - 1) / TILE, each = (ends - first_tile + splits - 1) / splits;
  int begin = first_tile + split * each, end = begin + each < ends ? begin + each : ends;
  Rows rq = query_rows(a, q, nq, b, g), rk = key_rows(k, nk, b, g, keys), rv = key_rows(v, nv, b, g, keys);
  Span seen[4];
  float m[4], l[4], acc[4][W / 8];
#pragma unroll
  for (int x = 0; x < 4; x++) {
    int row = row0 + ty * 4 + x;
    seen[x] = row < last ? visible(a, b, row / a.r) : Span{0, 0};
    m[x] = -INFINITY, l[x] = 0.f;
#pragma unroll
    for (int c = 0; c < W / 8; c++) acc[x][c] = 0.f;
  }
  for (int kt = begin; kt < end; kt++) {
    float z[4][8], slope, f[4];
    products(z, sh.chunks, sh.chunks + CHUNK * ROW, rq, row0, rk, kt * TILE, a.d);
#pragma unroll
    for (int x = 0; x < 4; x++) {
      int row = row0 + ty * 4 + x, i = row / a.r, h = g * a.r + row % a.r;
      float top = m[x];
#pragma unroll
      for (int y = 0; y < 8; y++) {
        z[x][y] = score(a, b, h, i, kt * TILE + column(y), seen[x], z[x][y], &slope);
        top = fmaxf(top, z[x][y]);
      }
      top = row_max(top);
      float base = top == -INFINITY ? 0.f : top, sum = 0.f, shrink = expf(m[x] - base);
#pragma unroll
      for (int y = 0; y < 8; y++) sum += z[x][y] = expf(z[x][y] - base);
      l[x] = l[x] * shrink + row_sum(sum);
      m[x] = top;
#pragma unroll
      for (int c = 0; c < W / 8; c++) acc[x][c] *= shrink;
      if (a.key)
#pragma unroll
        for (int y = 0; y < 8; y += 4) {
          drop_factors(a, b, h, i, (kt * TILE + column(y)) / 4, f);
#pragma unroll
          for (int c = 0; c < 4; c++) z[x][y + c] *= f[c];
        }
    }
    // The barriers inside `products` and `gather` keep readers of the weights apart from this.
    put_weights(sh.weights, z);
    gather<W>(acc, sh.weights, sh.chunks, rv, kt * TILE, chunk * W, a.e);
  }
  long long rows = (long long)a.b * a.t * a.g * a.r;
  out += split * rows * a.e;
  lse += split * rows;
#pragma unroll
  for (int x = 0; x < 4; x++) {
    int row = row0 + ty * 4 + x, i = row / a.r, h = g * a.r + row % a.r;
    if (row >= last) continue;
    float* to = out + (((long long)b * a.t + i) * a.g * a.r + h) * a.e;
#pragma unroll
    for (int c = 0; c < W / 8; c++) {
      int at = chunk * W + column(c);
      if (at < a.e) to[at] = l[x] == 0.f ? 0.f : acc[x][c] / l[x];
    }
    if (chunk == 0 && (threadIdx.x & 7) == 0)
      lse[((long long)b * a.g * a.r + h) * a.t + i] = l[x] == 0.f ? -INFINITY : m[x] + logf(l[x]);
  }
}

// The weights of a tile and the gradients of its scores. `turned`: rows are keys and columns queries.
struct Given {
  const float *lse, *delta;
};

// Replaces the products z by what the gradient sums: the weights with dropout, or, with `dp`, the gradient of the
// products (`by_score`: of the scores).
ATTENTION_FN void weigh(const Attend& a, const Given& given, int b, int g, int r, int row0, int key0, bool turned,
                        bool dv, bool by_score, float (&z)[4][8], const float (&dp)[4][8]) {
  int ty = threadIdx.x >> 3, rows = a.t * r, heads = a.g * a.r;
#pragma unroll
  for (int u = 0; u < 4; u++)
#pragma unroll
    for (int y = 0; y < 8; y += 4) {
      // One query and four keys at a time: a draw of dropout.
      int row = row0 + (turned ? column(y + u) : ty * 4 + u), key = key0 + (turned ? ty * 4 : column(y));
      int i = row / r, h = g * r + row % r;
      bool in = row < rows;
      Span seen = in ? visible(a, b, i) : Span{0, 0};
      long long at = ((long long)b * heads + h) * a.t + i;
      float lse = in ? given.lse[at] : -INFINITY, delta = in && !dv ? given.delta[at] : 0.f, f[4] = {1.f, 1.f, 1.f, 1.f};
      if (a.key && in) drop_factors(a, b, h, i, key / 4, f);
#pragma unroll
      for (int w = 0; w < 4; w++) {
        float& value = turned ? z[w][y + u] : z[u][y + w];
        float other = turned ? dp[w][y + u] : dp[u][y + w], slope;
        float score_ = in ? score(a, b, h, i, key + w, seen, value, &slope) : -INFINITY;
        float p = lse == -INFINITY || score_ == -INFINITY ? 0.f : expf(score_ - lse);
        if (dv) value = p * f[w];
        else if (p == 0.f) value = 0.f;
        else value = p * (f[w] * other - delta) * (by_score ? 1.f : slope * a.scale);
      }
    }
}

enum Kind { DQ, DK, DV };

template <int W, Kind kind>
ATTENTION_FN void backward(Shared& sh, const Attend& a, const float* q, const float* k, const float* v, const float* go,
                           Strides nq, Strides nk, Strides nv, Strides ng, Given given, float* to) {
  constexpr bool turned = kind != DQ;
  int width = kind == DV ? a.e : a.d, count = turned ? a.s : a.t * a.r;
  int tiles = (count + TILE - 1) / TILE, chunks = (width + W - 1) / W;
  int n = blockIdx.x;
  int tile = n % tiles, chunk = n / tiles % chunks, g = n / tiles / chunks % a.g, b = n / tiles / chunks / a.g;
  int ty = threadIdx.x >> 3, row0 = tile * TILE, last = row0 + TILE < count ? row0 + TILE : count;
  Rows rq = query_rows(a, q, nq, b, g), rg = query_rows(a, go, ng, b, g);
  Span other = turned ? seen_by(a, b, row0, last) : span_of(a, b, row0 / a.r, (last - 1) / a.r + 1);
  Span keys = turned ? Span{row0, last} : other;
  if (turned) other = {other.from * a.r, other.to * a.r};
  Rows rk = key_rows(k, nk, b, g, keys), rv = key_rows(v, nv, b, g, keys);
  float acc[4][W / 8];
#pragma unroll
  for (int x = 0; x < 4; x++)
#pragma unroll
    for (int c = 0; c < W / 8; c++) acc[x][c] = 0.f;
  for (int ot = other.from / TILE; ot * TILE < other.to; ot++) {
    float z[4][8], dp[4][8];
    products(z, sh.chunks, sh.chunks + CHUNK * ROW, turned ? rk : rq, row0, turned ? rq : rk, ot * TILE, a.d);
    if (kind != DV)
      products(dp, sh.chunks, sh.chunks + CHUNK * ROW, turned ? rv : rg, row0, turned ? rg : rv, ot * TILE, a.e);
    weigh(a, given, b, g, a.r, turned ? ot * TILE : row0, turned ? row0 : ot * TILE, turned, kind == DV, false, z, dp);
    put_weights(sh.weights, z);
    gather<W>(acc, sh.weights, sh.chunks, kind == DQ ? rk : kind == DK ? rq : rg, ot * TILE, chunk * W, width);
  }
#pragma unroll
  for (int x = 0; x < 4; x++) {
    int row = row0 + ty * 4 + x;
    if (row >= last) continue;
    long long at = turned ? ((long long)b * a.s + row) * a.g + g
                          : ((long long)b * a.t + row / a.r) * a.g * a.r + g * a.r + row % a.r;
#pragma unroll
    for (int c = 0; c < W / 8; c++)
      if (chunk * W + column(c) < width) to[at * width + chunk * W + column(c)] = acc[x][c];
  }
}
}  // namespace

#define FORWARD(W)                                                                                                 \
  (const float* q, const float* k, const float* v, long long qb, long long qt, long long qh, long long kb,         \
   long long kt, long long kh, long long vb, long long vt, long long vh, float* out, float* lse, int splits,       \
   ATTEND_PARAMS) {                                                                                                \
    __shared__ Shared sh;                                                                                          \
    forward<W>(sh, ATTEND_ARGS, q, k, v, {qb, qt, qh}, {kb, kt, kh}, {vb, vt, vh}, out, lse, splits);              \
  }
#define BACKWARD(W, KIND)                                                                                          \
  (const float* q, const float* k, const float* v, const float* go, long long qb, long long qt, long long qh,      \
   long long kb, long long kt, long long kh, long long vb, long long vt, long long vh, long long gb, long long gt, \
   long long gh, const float* lse, const float* delta, float* to, ATTEND_PARAMS) {                                 \
    __shared__ Shared sh;                                                                                          \
    backward<W, KIND>(sh, ATTEND_ARGS, q, k, v, go, {qb, qt, qh}, {kb, kt, kh}, {vb, vt, vh}, {gb, gt, gh},        \
                      {lse, delta}, to);                                                                           \
  }

extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_f32_64 FORWARD(64)
extern "C" __global__ void __launch_bounds__(128, 2) attention_forward_f32_128 FORWARD(128)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_f32_64 BACKWARD(64, DQ)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dq_f32_128 BACKWARD(128, DQ)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dk_f32_64 BACKWARD(64, DK)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dk_f32_128 BACKWARD(128, DK)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dv_f32_64 BACKWARD(64, DV)
extern "C" __global__ void __launch_bounds__(128, 2) attention_dv_f32_128 BACKWARD(128, DV)
CUEMU_EXPORT(attention_forward_f32_64)
CUEMU_EXPORT(attention_forward_f32_128)
CUEMU_EXPORT(attention_dq_f32_64)
CUEMU_EXPORT(attention_dq_f32_128)
CUEMU_EXPORT(attention_dk_f32_64)
CUEMU_EXPORT(attention_dk_f32_128)
CUEMU_EXPORT(attention_dv_f32_64)
CUEMU_EXPORT(attention_dv_f32_128)

// delta [b h t] = go . out - glse. A warp a row.
extern "C" __global__ void __launch_bounds__(128) attention_delta_f32(const float* go, long long gb, long long gt,
                                                                      long long gh, const float* out, const float* glse,
                                                                      float* delta, long long rows, int t, int heads,
                                                                      int e) {
  long long row = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
  if (row >= rows) return;
  long long b = row / ((long long)t * heads), i = row / heads % t, h = row % heads, at = (b * heads + h) * t + i;
  const float *x = go + b * gb + i * gt + h * gh, *y = out + row * e;
  float sum = 0.f;
  for (int c = threadIdx.x & 31; c < e; c += 32) sum += x[c] * y[c];
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
  if ((threadIdx.x & 31) == 0) delta[at] = sum - (glse ? glse[at] : 0.f);
}
CUEMU_EXPORT(attention_delta_f32)

// The gradient by an additive mask: a block has a tile of what the mask has, and sums over what it lacks. `has`: bits
// 0 to 3 for b, h, t, s.
extern "C" __global__ void __launch_bounds__(128)
    attention_dmask_f32(const float* q, const float* k, const float* v, const float* go, long long qb, long long qt,
                        long long qh, long long kb, long long kt, long long kh, long long vb, long long vt,
                        long long vh, long long gb, long long gt, long long gh, const float* lse, const float* delta,
                        float* to, int has, ATTEND_PARAMS) {
  __shared__ Shared sh;
  Attend a = ATTEND_ARGS;
  bool has_b = has & 1, has_h = has & 2, has_t = has & 4, has_s = has & 8;
  int heads = a.g * a.r, t_tiles = (a.t + TILE - 1) / TILE, s_tiles = (a.s + TILE - 1) / TILE;
  int n = blockIdx.x, of_s = has_s ? s_tiles : 1, of_t = has_t ? t_tiles : 1, of_h = has_h ? heads : 1;
  int s0 = n % of_s, t0 = n / of_s % of_t, h0 = n / of_s / of_t % of_h, b0 = n / of_s / of_t / of_h;
  float acc[4][8];
#pragma unroll
  for (int x = 0; x < 4; x++)
#pragma unroll
    for (int y = 0; y < 8; y++) acc[x][y] = 0.f;
  for (int bi = b0; bi < (has_b ? b0 + 1 : a.b); bi++)
    for (int hi = h0; hi < (has_h ? h0 + 1 : heads); hi++)
      for (int ti = t0; ti < (has_t ? t0 + 1 : t_tiles); ti++)
        for (int si = s0; si < (has_s ? s0 + 1 : s_tiles); si++) {
          int last = ti * TILE + TILE < a.t ? ti * TILE + TILE : a.t, group = hi / a.r;
          Span keys = span_of(a, bi, ti * TILE, last);
          if (si * TILE >= keys.to || (si + 1) * TILE <= keys.from) continue;
          Rows rq = {q + bi * qb + hi * qh, qt, 0, 1, 0, a.t}, rg = {go + bi * gb + hi * gh, gt, 0, 1, 0, a.t};
          Rows rk = key_rows(k, {kb, kt, kh}, bi, group, keys), rv = key_rows(v, {vb, vt, vh}, bi, group, keys);
          float z[4][8], dp[4][8];
          products(z, sh.chunks, sh.chunks + CHUNK * ROW, rq, ti * TILE, rk, si * TILE, a.d);
          products(dp, sh.chunks, sh.chunks + CHUNK * ROW, rg, ti * TILE, rv, si * TILE, a.e);
          weigh(a, {lse, delta}, bi, hi, 1, ti * TILE, si * TILE, false, false, true, z, dp);
#pragma unroll
          for (int x = 0; x < 4; x++)
#pragma unroll
            for (int y = 0; y < 8; y++) acc[x][y] += z[x][y];
        }
  put_weights(sh.weights, acc);
  __syncthreads();
  // Sums over what is not there, by one thread each in order.
  int rows = has_t ? TILE : 1, columns = has_s ? TILE : 1;
  for (int m = threadIdx.x; m < rows * columns; m += 128) {
    int x = m / columns, y = m % columns;
    float sum = 0.f;
    for (int u = x; u < (has_t ? x + 1 : TILE); u++)
      for (int w = y; w < (has_s ? y + 1 : TILE); w++) sum += sh.weights[w * ROW + u];
    int i = t0 * TILE + x, j = s0 * TILE + y;
    if (has_t && i >= a.t || has_s && j >= a.s) continue;
    to[b0 * a.mb + h0 * a.mh + i * a.mt + j * a.ms] = sum;
  }
}
CUEMU_EXPORT(attention_dmask_f32)
