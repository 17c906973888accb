// Matrix products in f32 on ordinary multipliers: any strides, any element types, batches, groups of rows by expert.
//
// c[i][j] = epilogue(sum over l of a[i][l] b[l][j]), for each matrix of a batch.
// Tiles of 128 x 128 or 64 x 64 by 8 of k, 256 threads with 8 x 8 or 4 x 4 results each. Tiles of a and b lie in shared
// memory with k outermost (2 x 2 x 8 x 132 x 4 = 17 KiB or 9 KiB), so that a thread's operands are two 16-byte reads;
// the next tile waits in registers while this one is multiplied. Operands are read by 16 bytes along whichever
// dimension has stride 1; by single values where there is none, where the type is not f32 or the place is not aligned.
// Few tiles with a long k are split over k: each split stores its sums, `gemm_reduce` adds them in order.
// Registers 128 and 80; two blocks an SM. Bound: 67 TFLOP/s of f32 on an H100, about 0.75 of it in reach.
#include "gpu.cuh"
#include "epilogue.cuh"
#include "status.cuh"
#include "tiles.cuh"

constexpr int BK = 8, THREADS = 256;

// One side of a product. `i` walks rows of a (columns of b), `l` what is summed over. A map renames one of the two:
// value i stands at map[i] / div.
struct Side {
  const char* at;
  long long i, l;
  int type, mode;  // mode: 1 reads four neighbours along i instead of l, 2 reads them at once
  const int* map;
  int div;
};

template <int MAP>
DEVFN float4 quad(const Side& s, int i, int l, int ni, int nl) {
  float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
  if (i >= ni || l >= nl) return v;
  bool along = s.mode & 1;
  int left = along ? ni - i : nl - l;
  long long ii = MAP == 1 ? s.map[i] / s.div : i, ll = MAP == 2 ? s.map[l] / s.div : l;
  if ((s.mode & 2) && left >= 4) return *(const float4*)((const float*)s.at + ii * s.i + ll * s.l);
  float* out = &v.x;
#pragma unroll
  for (int e = 0; e < 4; e++) {
    if (e >= left) break;
    if (e && along) ii = MAP == 1 ? s.map[i + e] / s.div : i + e;
    if (e && !along) ll = MAP == 2 ? s.map[l + e] / s.div : l + e;
    out[e] = num_load(s.at, s.type, ii * s.i + ll * s.l);
  }
  return v;
}

// Where thread t's four values of a tile of W rows go: (i, l).
template <int W>
DEVFN void place(int mode, int t, int& i, int& l) {
  if (mode & 1) i = t % (W / 4) * 4, l = t / (W / 4);
  else i = t / (BK / 4), l = t % (BK / 4) * 4;
}
// Shared memory of a tile: two stages of both operands, and then rows of sums.
template <int W> struct Tiles {
  union {
    struct { float a[2][BK][W + 4], b[2][BK][W + 4]; };
    float stage[16][W + 4];
  };
};
template <int W>
DEVFN void put(float (*tile)[W + 4], int mode, int i, int l, float4 v) {
  if (mode & 1) *(float4*)&tile[l][i] = v;
  else tile[l][i] = v.x, tile[l + 1][i] = v.y, tile[l + 2][i] = v.z, tile[l + 3][i] = v.w;
}

// The sums of the tile at (i0, j0) over l0 .. l1.
template <int W, int MAPA, int MAPB>
DEVFN void tile_sums(Tiles<W>& shared, const Side& a, const Side& b, int m, int n, int i0, int j0, int l0, int l1,
                                                 float (&sum)[W / 16][W / 16]) {
  float(*sa)[BK][W + 4] = shared.a, (*sb)[BK][W + 4] = shared.b;
  constexpr int T = W / 16;
  int t = threadIdx.x, ty = t / 16 * 4, tx = t % 16 * 4, ai, al, bi, bl;
  bool loads = t < W * BK / 4;
  place<W>(a.mode, t, ai, al);
  place<W>(b.mode, t, bi, bl);
#pragma unroll
  for (int i = 0; i < T; i++)
#pragma unroll
    for (int j = 0; j < T; j++) sum[i][j] = 0.f;
  if (l0 >= l1) return;
  if (loads) {
    put<W>(sa[0], a.mode, ai, al, quad<MAPA>(a, i0 + ai, l0 + al, m, l1));
    put<W>(sb[0], b.mode, bi, bl, quad<MAPB>(b, j0 + bi, l0 + bl, n, l1));
  }
  __syncthreads();
  int now = 0;
  for (int l = l0; l < l1; l += BK, now ^= 1) {
    float4 va, vb;
    bool more = l + BK < l1 && loads;
    if (more) va = quad<MAPA>(a, i0 + ai, l + BK + al, m, l1), vb = quad<MAPB>(b, j0 + bi, l + BK + bl, n, l1);
#pragma unroll
    for (int k = 0; k < BK; k++) {
      float x[T], y[T];
#pragma unroll
      for (int c = 0; c < T; c += 4) {
        *(float4*)&x[c] = *(const float4*)&sa[now][k][ty + c * 16];
        *(float4*)&y[c] = *(const float4*)&sb[now][k][tx + c * 16];
      }
#pragma unroll
      for (int i = 0; i < T; i++)
#pragma unroll
        for (int j = 0; j < T; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
    }
    if (more) put<W>(sa[now ^ 1], a.mode, ai, al, va), put<W>(sb[now ^ 1], b.mode, bi, bl, vb);
    __syncthreads();
  }
}

// Brings sums to f(stage, row), 16 rows a pass: row(s) is the tile's row of row s of the stage.
template <int W, class F>
DEVFN void each(Tiles<W>& shared, float (&sum)[W / 16][W / 16], F f) {
  int s = threadIdx.x / 16, tx = threadIdx.x % 16 * 4;
#pragma unroll 1
  for (int pass = 0; pass < W / 16; pass++) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W / 16; i++)
      if (i == pass)
#pragma unroll
        for (int c = 0; c < W / 16; c += 4)
          *(float4*)&shared.stage[s][tx + c * 16] = make_float4(sum[i][c], sum[i][c + 1], sum[i][c + 2], sum[i][c + 3]);
    __syncthreads();
    f(&shared.stage[0][0], [=](int s) { return pass / 4 * 64 + s * 4 + pass % 4; });
  }
}
template <int W>
DEVFN void product(int m, int n, int k, int inner, int part, float* partial, Operand a, Operand b,
                                               int a_kind, int b_kind, const Epilogue& e) {
  TileOrder order(m, n, W, W);
  int tiles = order.count, batch = blockIdx.x / tiles, bo = batch / inner, bi = batch % inner, i0, j0;
  order.at(blockIdx.x % tiles, i0, j0);
  int l0 = (int)blockIdx.y * part, l1 = k - l0 > part ? l0 + part : k;
  int ta = a_kind & 15, tb = b_kind & 15;
  Side sa{a.at + a.index(0, 0, bo, bi) * num_bytes(ta), a.row, a.col, ta, a_kind >> 4, nullptr, 1};
  Side sb{b.at + b.index(0, 0, bo, bi) * num_bytes(tb), b.col, b.row, tb, b_kind >> 4, nullptr, 1};
  DYN_SMEM(char, tile_memory);
  Tiles<W>& shared = *(Tiles<W>*)tile_memory;
  float sum[W / 16][W / 16], most = 0.f;
  tile_sums<W, 0, 0>(shared, sa, sb, m, n, i0, j0, l0, l1, sum);
  float* to = partial + ((long long)blockIdx.y * (gridDim.x / tiles) + batch) * m * n;
  each<W>(shared, sum, [&](const float* stage, auto row) {
    auto inside = [&](int s) { return i0 + row(s) < m ? i0 + row(s) : -1; };
    if (partial) store_rows(to, stage, W + 4, 16, W, inside, j0, n, threadIdx.x, THREADS);
    else epilogue_rows(e, stage, W + 4, 16, W, inside, j0, n, bo, bi, threadIdx.x, THREADS, most);
  });
  if (!partial) epilogue_amax(e, most);
}

// Grid: tiles of all batches, splits of `part` of k. a_kind: type + 16 * mode.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    gemm_f32_128(int m, int n, int k, int inner, int part, float* partial, OPERAND(a), OPERAND(b), int a_kind, int b_kind,
                 EPILOGUE_PARAMS) {
  product<128>(m, n, k, inner, part, partial, TAKE(a), TAKE(b), a_kind, b_kind, EPILOGUE);
}
CUEMU_EXPORT(gemm_f32_128)

extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_f32_64(int m, int n, int k, int inner, int part, float* partial, OPERAND(a), OPERAND(b), int a_kind, int b_kind,
                EPILOGUE_PARAMS) {
  product<64>(m, n, k, inner, part, partial, TAKE(a), TAKE(b), a_kind, b_kind, EPILOGUE);
}
CUEMU_EXPORT(gemm_f32_64)

// Adds what `splits` splits stored, in order. A thread a result; grid: batch * m * n / 256.
extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_reduce(int m, int n, int inner, int batches, int splits, const float* partial, EPILOGUE_PARAMS) {
  Epilogue e = EPILOGUE;
  long long all = (long long)batches * m * n, at = (long long)blockIdx.x * THREADS + threadIdx.x;
  float most = 0.f;
  if (at < all) {
    float sum = 0.f;
    for (int s = 0; s < splits; s++) sum += partial[s * all + at];
    int j = (int)(at % n), i = (int)(at / n % m), batch = (int)(at / n / m);
    epilogue_store(e, sum, i, j, batch / inner, batch % inner, most);
  }
  epilogue_amax(e, most);
}
CUEMU_EXPORT(gemm_reduce)

// Writes up to 16 addresses into a table on the device.
extern "C" __global__ void pointer_table(unsigned long long* table, int first, int count, char* p0, char* p1, char* p2, char* p3,
                                         char* p4, char* p5, char* p6, char* p7, char* p8, char* p9, char* p10, char* p11,
                                         char* p12, char* p13, char* p14, char* p15) {
  char* const all[16] = {p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13, p14, p15};
#pragma unroll
  for (int i = 0; i < 16; i++)
    if (threadIdx.x == 0 && i < count) table[first + i] = (unsigned long long)all[i];
}
CUEMU_EXPORT(pointer_table)

// Sorts choices by expert, in their order: starts[e] .. starts[e + 1] of `order` are the places that chose e. A choice
// of an expert that does not exist is left out and noted. One block of 1024; warps take experts in turn.
extern "C" __global__ void __launch_bounds__(1024)
    experts_route(const int* chosen, int choices, int experts, int* starts, int* order, int* status) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int c = threadIdx.x; c < choices; c += 1024) checked(status, STATUS_EXPERT, chosen[c], experts);
  for (int pass = 0; pass < 2; pass++) {
    for (int e = warp; e < experts; e += 32) {
      int at = pass ? starts[e] : 0;
      for (int c = 0; c < choices; c += 32) {
        bool mine = c + lane < choices && chosen[c + lane] == e;
        unsigned who = __ballot_sync(~0u, mine);
        if (pass && mine) order[at + __popc(who & ((1u << lane) - 1))] = c + lane;
        at += __popc(who);
      }
      if (!pass && lane == 0) starts[e + 1] = at;
    }
    __syncthreads();
    if (!pass && threadIdx.x == 0) {
      starts[0] = 0;
      for (int e = 0; e < experts; e++) starts[e + 1] += starts[e];
    }
    __syncthreads();
  }
}
CUEMU_EXPORT(experts_route)

// Rows sorted by expert times the expert's matrix: c[order[r]] = a[order[r] / shared] b_e for r in starts[e] ..
// starts[e + 1]. Grid: tiles of n, and as many tiles of rows as there may be (choices / 64 + experts).
extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_grouped_f32(int n, int k, int experts, int shared, const int* starts, const int* order, const unsigned long long* table,
                     const char* a, long long a_row, long long b_row, long long b_col, int a_kind, int b_kind, EPILOGUE_PARAMS) {
  __shared__ int found[2];
  if (threadIdx.x == 0) {
    int slot = blockIdx.y, e = 0;
    for (; e < experts; e++) {
      int tiles = (starts[e + 1] - starts[e] + 63) / 64;
      if (slot < tiles) break;
      slot -= tiles;
    }
    found[0] = e, found[1] = slot;
  }
  __syncthreads();
  int expert = found[0], i0 = found[1] * 64, j0 = blockIdx.x * 64;
  if (expert >= experts) return;
  int first = starts[expert], m = starts[expert + 1] - first;
  const int* rows = order + first;
  Side sa{a, a_row, 1, a_kind & 15, a_kind >> 4, rows, shared};
  Side sb{(const char*)table[expert], b_col, b_row, b_kind & 15, b_kind >> 4, nullptr, 1};
  DYN_SMEM(char, memory);
  Tiles<64>& tiles = *(Tiles<64>*)memory;
  float sum[4][4], most = 0.f;
  tile_sums<64, 1, 0>(tiles, sa, sb, m, n, i0, j0, 0, k, sum);
  Epilogue e = EPILOGUE;
  each<64>(tiles, sum, [&](const float* stage, auto row) {
    auto place = [&](int s) { return i0 + row(s) < m ? rows[i0 + row(s)] : -1; };
    epilogue_rows(e, stage, 68, 16, 64, place, j0, n, 0, 0, threadIdx.x, THREADS, most);
  });
  epilogue_amax(e, most);
}
CUEMU_EXPORT(gemm_grouped_f32)

// The gradients by the experts' matrices: c_e[i][j] = sum over r in starts[e] .. starts[e + 1] of
// a[order[r] / a_shared][i] b[order[r] / b_shared][j]; zero for experts that nobody chose. Grid: tiles, experts.
extern "C" __global__ void __launch_bounds__(THREADS)
    gemm_grouped_grad_f32(int m, int n, int a_shared, int b_shared, const int* starts, const int* order,
                          const unsigned long long* table, const float* a, const float* b, int a_kind, int b_kind) {
  int tm = (m + 63) / 64, i0 = blockIdx.x % tm * 64, j0 = blockIdx.x / tm * 64, expert = blockIdx.y;
  int first = starts[expert], rows = starts[expert + 1] - first;
  Side sa{(const char*)a, 1, m, a_kind & 15, a_kind >> 4, order + first, a_shared};
  Side sb{(const char*)b, 1, n, b_kind & 15, b_kind >> 4, order + first, b_shared};
  DYN_SMEM(char, memory);
  Tiles<64>& tiles = *(Tiles<64>*)memory;
  float sum[4][4];
  tile_sums<64, 2, 2>(tiles, sa, sb, m, n, i0, j0, 0, rows, sum);
  float* to = (float*)table[expert];
  each<64>(tiles, sum, [&](const float* stage, auto row) {
    auto inside = [&](int s) { return i0 + row(s) < m ? i0 + row(s) : -1; };
    store_rows(to, stage, 68, 16, 64, inside, j0, n, threadIdx.x, THREADS);
  });
}
CUEMU_EXPORT(gemm_grouped_grad_f32)
