// Products of few rows with a large matrix, as when a language model generates: bound by the bytes of the matrix.
//
// c[i][j] = epilogue(sum over l of x[i][l] w[j][l]) for up to 8 rows i.
// gemv_*: rows of w stand together (linear layers). A warp takes two rows of w, 16 bytes a lane at a time, four such in
// flight; sums meet by shuffles, and where there are few rows several warps share them. gemv_t_*: columns stand together
// (w[l][j]); a lane takes 16 bytes of columns, eight warps walk l, and splits of l go through a workspace.
// Weights: f32, bf16, f16, E4M3 and bytes with a scale for each row (the epilogue's scale_b), and GGUF's Q8_0 and Q4_0
// in planes: the whole numbers of all blocks [n][k], then (at `scales`) their f16 scales [n][k / 32]. In a block of
// Q4_0 byte t holds weights t and t + 16.
// Threads 128 and 256; registers 40 to 72 for one row, 75 to 152 for eight; shared memory at most 8 KiB. In flight: 2 x 4 x 16 bytes x 32 lanes x 16
// warps an SM = 64 KiB, four times what an H100's latency asks for. Bound: bytes of w over bandwidth.
#include "gpu.cuh"
#include "epilogue.cuh"

constexpr int PLANES8 = 6, PLANES4 = 7, ROWS = 2;

// Values in 16 bytes.
template <int TYPE> struct Per { static constexpr int value = TYPE == F32 ? 4 : TYPE <= F16 ? 8 : TYPE == PLANES4 ? 32 : 16; };

// A whole number of 23 bits or fewer as f32: its bits below those of 2^23.
DEVFN float whole(uint32_t v, float less) { return __uint_as_float(0x4b000000u | v) - (8388608.f + less); }

// Values 4 q .. 4 q + 3 of the 16 bytes.
template <int TYPE>
DEVFN float4 decode(const uint4& w, int q, float d) {
  const uint32_t word[4] = {w.x, w.y, w.z, w.w};
  if (TYPE == F32) return make_float4(__uint_as_float(w.x), __uint_as_float(w.y), __uint_as_float(w.z), __uint_as_float(w.w));
  if (TYPE == BF16 || TYPE == F16) {
    uint32_t a = word[q * 2 & 3], b = word[(q * 2 + 1) & 3];
    if (TYPE == BF16)
      return make_float4(__uint_as_float(a << 16), __uint_as_float(a & 0xffff0000u), __uint_as_float(b << 16), __uint_as_float(b & 0xffff0000u));
    return make_float4(num_of<f16>((uint16_t)a), num_of<f16>((uint16_t)(a >> 16)), num_of<f16>((uint16_t)b), num_of<f16>((uint16_t)(b >> 16)));
  }
  uint32_t a = word[q & 3];
  if (TYPE == E4M3) return make_float4(num_of<e4m3>((uint8_t)a), num_of<e4m3>((uint8_t)(a >> 8)), num_of<e4m3>((uint8_t)(a >> 16)), num_of<e4m3>((uint8_t)(a >> 24)));
  if (TYPE == PLANES4) {
    a = q & 4 ? a >> 4 : a;
    return make_float4(d * whole(a & 15, 8.f), d * whole(a >> 8 & 15, 8.f), d * whole(a >> 16 & 15, 8.f), d * whole(a >> 24 & 15, 8.f));
  }
  a ^= 0x80808080u;
  float4 v = make_float4(whole(a & 255, 128.f), whole(a >> 8 & 255, 128.f), whole(a >> 16 & 255, 128.f), whole(a >> 24, 128.f));
  if (TYPE == PLANES8) v.x *= d, v.y *= d, v.z *= d, v.w *= d;
  return v;
}

template <int TYPE, int M>
DEVFN void rows(int m, int n, int k, int inner, int share, int vec, Operand x, Operand w, const uint16_t* scales,
                                            const Epilogue& e) {
  constexpr int PER = Per<TYPE>::value;
  constexpr bool BLOCKS = TYPE == PLANES8 || TYPE == PLANES4;
  DYN_SMEM(float, memory);
  float(*part)[M * ROWS] = (float(*)[M * ROWS])memory;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, bo = blockIdx.y / inner, bi = blockIdx.y % inner;
  int j0 = ((int)blockIdx.x * (4 / share) + warp / share) * ROWS, first = warp % share * 32 + lane;
  const float* xs = (const float*)x.at + x.index(0, 0, bo, bi);
  float sum[M][ROWS];
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < ROWS; r++) sum[i][r] = 0.f;
  // Rows that are not there are the last one: their sums are not stored.
  const float* xr[M];
#pragma unroll
  for (int i = 0; i < M; i++) xr[i] = xs + (i < m ? i : m - 1) * x.row;
  int chunks = vec || BLOCKS ? k / PER : 0;
  const char* ws[ROWS];
  long long jr[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) {
    jr[r] = j0 + r < n ? j0 + r : n - 1;
    ws[r] = BLOCKS ? w.at + jr[r] * chunks * 16 : w.at + w.index(0, (int)jr[r], bo, bi) * num_bytes(TYPE);
  }
#pragma unroll 4
  for (int c = first; c < chunks; c += share * 32) {
    uint4 raw[ROWS];
    float d[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      raw[r] = *(const uint4*)(ws[r] + (long long)c * 16);
      d[r] = BLOCKS ? num_of<f16>(scales[jr[r] * (k / 32) + c * PER / 32]) : 0.f;
    }
#pragma unroll
    for (int q = 0; q < PER / 4; q++) {
      float4 y[ROWS];
#pragma unroll
      for (int r = 0; r < ROWS; r++) y[r] = decode<TYPE>(raw[r], q, d[r]);
#pragma unroll
      for (int i = 0; i < M; i++) {
        float4 v = *(const float4*)(xr[i] + (c * PER + q * 4));
#pragma unroll
        for (int r = 0; r < ROWS; r++) sum[i][r] += v.x * y[r].x + v.y * y[r].y + v.z * y[r].z + v.w * y[r].w;
      }
    }
  }
  if (!BLOCKS)
    for (int l = chunks * PER + first; l < k; l += share * 32)
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        float y = num_load(ws[r], TYPE, l * w.row);
#pragma unroll
        for (int i = 0; i < M; i++) sum[i][r] += xr[i][l * x.col] * y;
      }
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      for (int d = 16; d; d >>= 1) sum[i][r] += __shfl_xor_sync(~0u, sum[i][r], d);
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int r = 0; r < ROWS; r++)
      if (lane == i * ROWS + r) part[warp][lane] = sum[i][r];
  __syncthreads();
  float most = 0.f;
  int i = lane / ROWS, j = j0 + lane % ROWS;
  if (warp % share == 0 && i < m && j < n) {
    float v = 0.f;
    for (int s = 0; s < share; s++) v += part[warp + s][lane];
    epilogue_store(e, v, i, j, bo, bi, most);
  }
  epilogue_amax(e, most);
}

// Grid: rows of w by 8 / share, batches. share: warps that share rows, 1, 2 or 4. vec: both by 16 bytes.
// Blocks are always read so.
#define GEMV(name, TYPE, M)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(128)                                                                               \
      name(int m, int n, int k, int inner, int share, int vec, OPERAND(x), OPERAND(w), const uint16_t* scales, EPILOGUE_PARAMS) { \
    rows<TYPE, M>(m, n, k, inner, share, vec, TAKE(x), TAKE(w), scales, EPILOGUE);                                                \
  }
GEMV(gemv_f32_1, F32, 1)
CUEMU_EXPORT(gemv_f32_1)
GEMV(gemv_f32_8, F32, 8)
CUEMU_EXPORT(gemv_f32_8)
GEMV(gemv_bf16_1, BF16, 1)
CUEMU_EXPORT(gemv_bf16_1)
GEMV(gemv_bf16_8, BF16, 8)
CUEMU_EXPORT(gemv_bf16_8)
GEMV(gemv_f16_1, F16, 1)
CUEMU_EXPORT(gemv_f16_1)
GEMV(gemv_f16_8, F16, 8)
CUEMU_EXPORT(gemv_f16_8)
GEMV(gemv_e4m3_1, E4M3, 1)
CUEMU_EXPORT(gemv_e4m3_1)
GEMV(gemv_e4m3_8, E4M3, 8)
CUEMU_EXPORT(gemv_e4m3_8)
GEMV(gemv_i8_1, I8, 1)
CUEMU_EXPORT(gemv_i8_1)
GEMV(gemv_i8_8, I8, 8)
CUEMU_EXPORT(gemv_i8_8)
GEMV(gemv_q8_0_1, PLANES8, 1)
CUEMU_EXPORT(gemv_q8_0_1)
GEMV(gemv_q8_0_8, PLANES8, 8)
CUEMU_EXPORT(gemv_q8_0_8)
GEMV(gemv_q4_0_1, PLANES4, 1)
CUEMU_EXPORT(gemv_q4_0_1)
GEMV(gemv_q4_0_8, PLANES4, 8)
CUEMU_EXPORT(gemv_q4_0_8)

template <int TYPE, int M>
DEVFN void columns(int m, int n, int k, int inner, int part, int vec, float* partial, Operand x, Operand w,
                                               const Epilogue& e) {
  constexpr int V = TYPE == F32 ? 4 : 8, W = 32 * V;
  DYN_SMEM(float, memory);
  float(*meet)[W] = (float(*)[W])memory;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, bo = blockIdx.z / inner, bi = blockIdx.z % inner;
  int j = blockIdx.x * W + lane * V, l0 = (int)blockIdx.y * part, l1 = k - l0 > part ? l0 + part : k;
  const float* xs = (const float*)x.at + x.index(0, 0, bo, bi);
  const char* ws = w.at + w.index(0, j < n ? j : 0, bo, bi) * num_bytes(TYPE);
  const float* xr[M];
#pragma unroll
  for (int i = 0; i < M; i++) xr[i] = xs + (i < m ? i : m - 1) * x.row;
  float sum[M][V];
#pragma unroll
  for (int i = 0; i < M; i++)
#pragma unroll
    for (int v = 0; v < V; v++) sum[i][v] = 0.f;
  bool whole = vec && j + V <= n;
  if (whole) {
#pragma unroll 4
    for (int l = l0 + warp; l < l1; l += 8) {
      uint4 raw = *(const uint4*)(ws + l * w.row * num_bytes(TYPE));
      float y[V];
#pragma unroll
      for (int q = 0; q < V / 4; q++) *(float4*)&y[q * 4] = decode<TYPE>(raw, q, 0.f);
#pragma unroll
      for (int i = 0; i < M; i++) {
        float v = xr[i][l * x.col];
#pragma unroll
        for (int c = 0; c < V; c++) sum[i][c] += v * y[c];
      }
    }
  } else {
    for (int l = l0 + warp; l < l1; l += 8)
#pragma unroll
      for (int c = 0; c < V; c++) {
        float y = j + c < n ? num_load(ws, TYPE, l * w.row + c * w.col) : 0.f;
#pragma unroll
        for (int i = 0; i < M; i++) sum[i][c] += xr[i][l * x.col] * y;
      }
  }
  float most = 0.f;
#pragma unroll 1
  for (int i = 0; i < m; i++) {
    __syncthreads();
#pragma unroll
    for (int r = 0; r < M; r++)
      if (r == i)
#pragma unroll
        for (int c = 0; c < V; c++) meet[warp][lane * V + c] = sum[r][c];
    __syncthreads();
    int at = blockIdx.x * W + threadIdx.x;
    if (threadIdx.x < W && at < n) {
      float v = 0.f;
      for (int s = 0; s < 8; s++) v += meet[s][threadIdx.x];
      if (partial) partial[(((long long)blockIdx.y * gridDim.z + blockIdx.z) * m + i) * n + at] = v;
      else epilogue_store(e, v, i, at, bo, bi, most);
    }
  }
  if (!partial) epilogue_amax(e, most);
}

// Grid: columns by 128 (f32) or 256, splits of `part` of k, batches. vec: columns by 16 bytes.
#define GEMV_T(name, TYPE, M)                                                                                                \
  extern "C" __global__ void __launch_bounds__(256)                                                                          \
      name(int m, int n, int k, int inner, int part, int vec, float* partial, OPERAND(x), OPERAND(w), EPILOGUE_PARAMS) {     \
    columns<TYPE, M>(m, n, k, inner, part, vec, partial, TAKE(x), TAKE(w), EPILOGUE);                                        \
  }
GEMV_T(gemv_t_f32_1, F32, 1)
CUEMU_EXPORT(gemv_t_f32_1)
GEMV_T(gemv_t_f32_8, F32, 8)
CUEMU_EXPORT(gemv_t_f32_8)
GEMV_T(gemv_t_bf16_1, BF16, 1)
CUEMU_EXPORT(gemv_t_bf16_1)
GEMV_T(gemv_t_bf16_8, BF16, 8)
CUEMU_EXPORT(gemv_t_bf16_8)
GEMV_T(gemv_t_f16_1, F16, 1)
CUEMU_EXPORT(gemv_t_f16_1)
GEMV_T(gemv_t_f16_8, F16, 8)
CUEMU_EXPORT(gemv_t_f16_8)

// Planes of Q8_0 (bits = 8) or Q4_0 as numbers of a type: a thread a value.
extern "C" __global__ void __launch_bounds__(256)
    dequantize_planes(int bits, const uint8_t* q, const uint16_t* scales, char* to, int type, long long count) {
  long long i = (long long)blockIdx.x * 256 + threadIdx.x;
  if (i >= count) return;
  float d = num_of<f16>(scales[i >> 5]);
  int v = bits == 8 ? (int)(signed char)q[i] : (int)((i & 16) ? q[(i >> 5) * 16 + (i & 15)] >> 4 : q[(i >> 5) * 16 + (i & 15)] & 15) - 8;
  num_store(to, type, i, d * (float)v);
}
CUEMU_EXPORT(dequantize_planes)
