// Every primitive once, for tests/emulator.rs, which knows what must come out.
#include "gpu.cuh"

// ---- numbers
extern "C" __global__ void t_narrow(const float* x, uint32_t* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i * 5] = bf16(x[i]).bits;
  out[i * 5 + 1] = f16(x[i]).bits;
  out[i * 5 + 2] = e4m3(x[i]).bits;
  out[i * 5 + 3] = e5m2(x[i]).bits;
  out[i * 5 + 4] = to_tf32(x[i]);
}
CUEMU_EXPORT(t_narrow)
extern "C" __global__ void t_widen(float* out) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  f16 h;
  h.bits = (uint16_t)i;
  out[i] = (float)h;
  bf16 b;
  b.bits = (uint16_t)i;
  out[65536 + i] = (float)b;
  if (i >= 256) return;
  e4m3 x;
  x.bits = (uint8_t)i;
  e5m2 y;
  y.bits = (uint8_t)i;
  out[131072 + i] = (float)x;
  out[131072 + 256 + i] = (float)y;
}
CUEMU_EXPORT(t_widen)

// ---- warps and blocks
extern "C" __global__ void t_reduce(const float* x, float* out) {
  int t = threadIdx.x;
  out[t] = block_sum<96>(x[t]);
  out[96 + t] = block_max<96>(x[t]);
  out[192 + t] = warp_scan(x[t], Sum());
  out[288 + t] = warp_sum<8>(x[t]);
  out[384 + t] = (float)__popc(__ballot_sync(~0u, x[t] > 0)) + __any_sync(~0u, x[t] > 1e9f) + __all_sync(~0u, x[t] < 1e9f);
  out[480 + t] = (float)__syncthreads_count(x[t] > 0);
}
CUEMU_EXPORT(t_reduce)
// Blocks add up in order, each waiting for the one before.
extern "C" __global__ void t_chain(volatile int* flag, volatile int* sum) {
  if (threadIdx.x == 0) {
    while (*flag != (int)blockIdx.x) {
    }
    *sum = *sum + (int)blockIdx.x + 1;
    __threadfence();
    *flag = (int)blockIdx.x + 1;
  }
}
CUEMU_EXPORT(t_chain)

// ---- copies
extern "C" __global__ void t_async(const float* x, float* out) {
  __shared__ __align__(16) float a[32 * 4], b[32 * 2], c[32];
  int t = threadIdx.x;
  cp_async16(a + 4 * t, x + 4 * t, t % 5 * 4 > 16 ? 16 : t % 5 * 4);
  cp_async_commit();
  cp_async8(b + 2 * t, x + 2 * t, t % 3 * 4);
  cp_async4(c + t, x + t, t % 2 * 4);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  for (int i = t; i < 128; i += 32) out[i] = a[i];
  cp_async_wait<0>();
  __syncthreads();
  for (int i = t; i < 64; i += 32) out[128 + i] = b[i];
  out[192 + t] = c[t];
}
CUEMU_EXPORT(t_async)

// A box of any rank: all bytes of the tile as they lie, and back out again at other coordinates.
#define T_TMA(NAME, R, AT, TO)                                                                            \
  extern "C" __global__ void NAME(const __grid_constant__ TensorMap from, const __grid_constant__ TensorMap to, \
                                  unsigned char* raw, int bytes, int add) {                               \
    DYN_SMEM(unsigned char, tile);                                                                        \
    __shared__ uint64_t bar;                                                                              \
    if (threadIdx.x == 0) {                                                                               \
      mbar_init(&bar, 1);                                                                                 \
      mbar_init_fence();                                                                                  \
    }                                                                                                     \
    __syncthreads();                                                                                      \
    if (threadIdx.x == 0) {                                                                               \
      mbar_expect(&bar, bytes);                                                                           \
      tma_load_##R##d(tile, &from, &bar, AT);                                                             \
    }                                                                                                     \
    mbar_wait(&bar, 0);                                                                                   \
    for (int i = threadIdx.x; i < bytes; i += blockDim.x) raw[i] = tile[i];                               \
    if (threadIdx.x == 0) {                                                                               \
      if (add) tma_reduce_add_##R##d(&to, tile, TO);                                                      \
      else tma_store_##R##d(&to, tile, TO);                                                               \
      tma_commit();                                                                                       \
      tma_wait<0>();                                                                                      \
    }                                                                                                     \
  }
#define AT2 -3, 5
#define TO2 1, 2
#define AT3 2, -1, 3
#define TO3 1, 1, 0
#define AT4 -1, 0, 1, 1
#define TO4 0, 1, 0, 0
#define AT5 1, 0, 0, -1, 0
#define TO5 0, 0, 1, 0, 0
T_TMA(t_tma_2d, 2, AT2, TO2)
CUEMU_EXPORT(t_tma_2d)
T_TMA(t_tma_3d, 3, AT3, TO3)
CUEMU_EXPORT(t_tma_3d)
T_TMA(t_tma_4d, 4, AT4, TO4)
CUEMU_EXPORT(t_tma_4d)
T_TMA(t_tma_5d, 5, AT5, TO5)
CUEMU_EXPORT(t_tma_5d)

extern "C" __global__ void t_bulk(const float* x, float* out, float* sum) {
  DYN_SMEM(float, tile);
  __shared__ uint64_t bar;
  if (threadIdx.x == 0) {
    mbar_init(&bar, 1);
    mbar_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 256);
    tma_load_1d(tile, x, 256, &bar);
  }
  mbar_wait(&bar, 0);
  float v = tile[threadIdx.x];
  __syncthreads();
  tile[threadIdx.x] = 2 * v;
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store_1d(out, tile, 256);
    tma_commit();
    tma_reduce_add_1d(sum, tile, 256);
    tma_commit();
    tma_wait_read<0>();
  }
  __syncthreads();
  tile[threadIdx.x] = -1;
  if (threadIdx.x == 0) tma_wait<0>();
}
CUEMU_EXPORT(t_bulk)

// ---- clusters: each block loads a half of the tile for both, adds what it read of its neighbour
extern "C" __global__ void CLUSTER(2, 1, 1) t_cluster(const __grid_constant__ TensorMap map, float* out) {
  DYN_SMEM(float, tile);  // 8 rows of 32 floats, 4 from each block
  __shared__ uint64_t full, empty;
  __shared__ float mine[32];
  int t = threadIdx.x, rank = cluster_rank(), pair = blockIdx.x / 2;
  if (t == 0) {
    mbar_init(&full, 1);
    mbar_init(&empty, 2);
    mbar_init_fence();
  }
  mine[t] = (float)(rank * 100 + t);
  cluster_sync();
  float sum = cluster_map(mine, rank ^ 1)[t];
  for (int round = 0; round < 3; round++) {
    if (t == 0) {
      if (round) mbar_wait_cluster(&empty, (round - 1) & 1);
      mbar_expect(&full, 8 * 32 * 4);
      tma_load_2d_multicast(tile + rank * 128, &map, &full, 3, 0, (pair * 3 + round) * 8 + rank * 4);
    }
    mbar_wait(&full, round & 1);
    for (int r = 0; r < 8; r++) sum += tile[r * 32 + t];
    __syncwarp();
    if (t == 0 && round < 2) {
      mbar_arrive(&empty);
      mbar_arrive_at(&empty, rank ^ 1);
    }
  }
  out[blockIdx.x * 32 + t] = sum;
  cluster_sync();
}
CUEMU_EXPORT(t_cluster)

extern "C" __global__ void t_grid(int* values, unsigned* counter, int rounds) {
  int me = blockIdx.x, blocks = gridDim.x;
  for (int r = 0; r < rounds; r++) {
    int next = values[(me + 1) % blocks];
    grid_sync(counter);
    if (threadIdx.x == 0) values[me] += next;
    grid_sync(counter);
  }
}
CUEMU_EXPORT(t_grid)

// ---- mma.sync
template <class T, int PER> __device__ __forceinline__ uint32_t gather(const float* m, int row, int k, int stride, int along) {
  uint32_t r = 0;
#pragma unroll
  for (int e = 0; e < PER; e++) r |= (uint32_t)T(m[row * stride + (k + e) * along]).bits << (e * 32 / PER);
  return r;
}
// a [16][K], b [K][8], c [16][8]
template <class A, class B, int K, class F> __device__ __forceinline__ void product(const float* a, const float* b, float* c, F f) {
  const int PER = K == 16 ? 2 : 4, HALF = K / 2;
  int lane = threadIdx.x, g = lane / 4, t = lane % 4 * PER;
  uint32_t fa[4], fb[2];
  for (int h = 0; h < 4; h++) fa[h] = gather<A, PER>(a, g + h % 2 * 8, t + h / 2 * HALF, K, 1);
  for (int h = 0; h < 2; h++) fb[h] = gather<B, PER>(b, g, t + h * HALF, 1, 8);
  float d[4] = {0.5f, 0.5f, 0.5f, 0.5f};
  f(d, fa, fb);
  for (int e = 0; e < 4; e++) c[(g + e / 2 * 8) * 8 + lane % 4 * 2 + e % 2] = d[e];
}
extern "C" __global__ void t_mma(const float* a, const float* b, float* c) {
  typedef float D[4];
  typedef uint32_t A[4];
  product<bf16, bf16, 16>(a, b, c, [](D& d, A& x, uint32_t* y) { mma<bf16>(d, x, y[0], y[1]); });
  product<f16, f16, 16>(a, b, c + 128, [](D& d, A& x, uint32_t* y) { mma<f16>(d, x, y[0], y[1]); });
#if defined(CUEMU) || __CUDA_ARCH__ >= 890
  product<e4m3, e4m3, 32>(a, b, c + 256, [](D& d, A& x, uint32_t* y) { mma_fp8<e4m3, e4m3>(d, x, y[0], y[1]); });
  product<e5m2, e4m3, 32>(a, b, c + 384, [](D& d, A& x, uint32_t* y) { mma_fp8<e5m2, e4m3>(d, x, y[0], y[1]); });
#endif
  int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  uint32_t fa[4], fb[2];
  for (int h = 0; h < 4; h++) fa[h] = to_tf32(a[(g + h % 2 * 8) * 8 + t + h / 2 * 4]);
  for (int h = 0; h < 2; h++) fb[h] = to_tf32(b[(t + h * 4) * 8 + g]);
  float d[4] = {0.5f, 0.5f, 0.5f, 0.5f};
  mma_tf32(d, fa, fb[0], fb[1]);
  for (int e = 0; e < 4; e++) c[512 + (g + e / 2 * 8) * 8 + t * 2 + e % 2] = d[e];
  for (int h = 0; h < 4; h++) fa[h] = 0;
  for (int h = 0; h < 2; h++) fb[h] = 0;
  for (int e = 0; e < 4; e++) {
    for (int h = 0; h < 4; h++) fa[h] |= (uint32_t)(uint8_t)(int)(a[(g + h % 2 * 8) * 32 + t * 4 + e + h / 2 * 16] * 8) << 8 * e;
    for (int h = 0; h < 2; h++) fb[h] |= (uint32_t)(uint8_t)(int)(b[(t * 4 + e + h * 16) * 8 + g] * 8) << 8 * e;
  }
  int i[4] = {1, 1, 1, 1};
  mma_s8(i, fa, fb[0], fb[1]);
  for (int e = 0; e < 4; e++) c[640 + (g + e / 2 * 8) * 8 + t * 2 + e % 2] = (float)i[e];
}
CUEMU_EXPORT(t_mma)
// c = a b through shared memory: a [16][16] row-major, b [16][8] row-major (so that it is transposed on the way).
extern "C" __global__ void t_ldmatrix(const float* a, const float* b, float* c, uint16_t* back) {
  __shared__ __align__(16) bf16 sa[16][16], sb[16][8], out[16][16];
  int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) sa[i / 16][i % 16] = bf16(a[i]);
  for (int i = lane; i < 128; i += 32) sb[i / 8][i % 8] = bf16(b[i]);
  __syncwarp();
  uint32_t fa[4], fb[2];
  ldmatrix_x4(fa, &sa[lane % 16][lane / 16 * 8]);
  ldmatrix_x2_trans(fb, &sb[lane % 16][0]);
  float d[4] = {};
  mma<bf16>(d, fa, fb[0], fb[1]);
  int g = lane / 4, t = lane % 4 * 2;
  for (int e = 0; e < 4; e++) c[(g + e / 2 * 8) * 8 + t + e % 2] = d[e];
#if defined(CUEMU) || __CUDA_ARCH__ >= 900
  stmatrix_x4_trans(&out[lane % 16][lane / 16 * 8], fa);
  __syncwarp();
  for (int i = lane; i < 256; i += 32) back[i] = out[i / 16][i % 16].bits;
#endif
}
CUEMU_EXPORT(t_ldmatrix)

// ---- wgmma: d[64][N] = a[64][K] b[N][K]', through layouts as wgmma.cuh states them
template <class T, int SWIZZLE, int MN> __device__ __forceinline__ int lies(int r, int k, int rows, int depth) {
  const int S = SWIZZLE ? SWIZZLE : 16, per = S / (int)sizeof(T);
  int at;
  if (!MN && SWIZZLE) at = r / 8 * 8 * S + r % 8 * S + k * (int)sizeof(T);
  else if (!MN) at = r / 8 * (depth * (int)sizeof(T) / 16) * 128 + k * (int)sizeof(T) / 16 * 128 + r % 8 * 16 + k * (int)sizeof(T) % 16;
  else if (SWIZZLE) at = r / per * (depth / 8 * 8 * S) + k / 8 * 8 * S + k % 8 * S + r % per * (int)sizeof(T);
  else at = r / 8 * (depth / 8) * 128 + k / 8 * 128 + k % 8 * 16 + r % 8 * (int)sizeof(T);
  if (SWIZZLE) at ^= at >> 3 & (SWIZZLE - 16);
  return at;
}
template <class T, int SWIZZLE, int MN> __device__ __forceinline__ uint64_t behind(const unsigned char* p, int step, int depth) {
  const int S = SWIZZLE;
  if (!MN && S) return wgmma_desc<SWIZZLE>(p + step * 32, 16, 8 * S);
  if (!MN) return wgmma_desc<SWIZZLE>(p + step * 256, 128, depth * (int)sizeof(T) / 16 * 128);
  if (S) return wgmma_desc<SWIZZLE>(p + step * 2 * 8 * S, depth / 8 * 8 * S, 8 * S);
  return wgmma_desc<SWIZZLE>(p + step * 2 * 128, 128, depth / 8 * 128);
}
template <int N, class A, class B, int SWIZZLE, int TA, int TB, int RS>
__device__ __forceinline__ void warpgroup(const float* a, const float* b, float* out, int depth) {
#if HOPPER
  DYN_SMEM(unsigned char, operands);
  unsigned char *tile = operands, *other = tile + 16384;
  int t = threadIdx.x;
  for (int i = t; i < 64 * depth; i += 128) *(A*)(tile + lies<A, SWIZZLE, TA>(i / depth, i % depth, 64, depth)) = A(a[i]);
  for (int i = t; i < N * depth; i += 128) *(B*)(other + lies<B, SWIZZLE, TB>(i / depth, i % depth, N, depth)) = B(b[i]);
  fence_async();
  __syncthreads();
  float d[N / 2];
  for (int i = 0; i < N / 2; i++) d[i] = 7.f;
  const int K = 32 / (int)sizeof(A), PER = 4 / (int)sizeof(A);
  wgmma_fence();
  for (int s = 0; s < depth / K; s++) {
    uint64_t y = behind<B, SWIZZLE, TB>(other, s, depth);
    if (RS) {
      uint32_t f[4];
      for (int h = 0; h < 4; h++) f[h] = gather<A, PER>(a, t / 32 * 16 + t % 32 / 4 + h % 2 * 8, s * K + t % 4 * PER + h / 2 * 4 * PER, depth, 1);
      wgmma_fence();
      wgmma_rs<N, A, B, TB>(d, f, y, s > 0);
    } else wgmma<N, A, B, TA, TB>(d, behind<A, SWIZZLE, TA>(tile, s, depth), y, s > 0);
  }
  wgmma_commit();
  wgmma_wait<0>();
  int row = t / 32 * 16 + t % 32 / 4;
  for (int i = 0; i < N / 2; i++) out[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + t % 4 * 2 + i % 2] = d[i];
#endif
}
#define T_WGMMA(NAME, N, A, B, SWIZZLE, TA, TB, RS)                                                        \
  extern "C" __global__ void __launch_bounds__(128) NAME(const float* a, const float* b, float* out, int depth) { \
    warpgroup<N, A, B, SWIZZLE, TA, TB, RS>(a, b, out, depth);                                             \
  }
T_WGMMA(t_wgmma_64_bf16_128, 64, bf16, bf16, 128, 0, 0, 0)
CUEMU_EXPORT(t_wgmma_64_bf16_128)
T_WGMMA(t_wgmma_96_f16_64, 96, f16, f16, 64, 0, 0, 0)
CUEMU_EXPORT(t_wgmma_96_f16_64)
T_WGMMA(t_wgmma_128_bf16_32, 128, bf16, bf16, 32, 0, 0, 0)
CUEMU_EXPORT(t_wgmma_128_bf16_32)
T_WGMMA(t_wgmma_32_bf16_0, 32, bf16, bf16, 0, 0, 0, 0)
CUEMU_EXPORT(t_wgmma_32_bf16_0)
T_WGMMA(t_wgmma_192_bf16_128_tb, 192, bf16, bf16, 128, 0, 1, 0)
CUEMU_EXPORT(t_wgmma_192_bf16_128_tb)
T_WGMMA(t_wgmma_256_f16_128_ta_tb, 256, f16, f16, 128, 1, 1, 0)
CUEMU_EXPORT(t_wgmma_256_f16_128_ta_tb)
T_WGMMA(t_wgmma_64_bf16_64_ta, 64, bf16, bf16, 64, 1, 0, 0)
CUEMU_EXPORT(t_wgmma_64_bf16_64_ta)
T_WGMMA(t_wgmma_64_bf16_0_ta_tb, 64, bf16, bf16, 0, 1, 1, 0)
CUEMU_EXPORT(t_wgmma_64_bf16_0_ta_tb)
T_WGMMA(t_wgmma_64_bf16_128_rs, 64, bf16, bf16, 128, 0, 0, 1)
CUEMU_EXPORT(t_wgmma_64_bf16_128_rs)
T_WGMMA(t_wgmma_128_e4m3_128, 128, e4m3, e4m3, 128, 0, 0, 0)
CUEMU_EXPORT(t_wgmma_128_e4m3_128)
T_WGMMA(t_wgmma_256_e4m3_e5m2_64, 256, e4m3, e5m2, 64, 0, 0, 0)
CUEMU_EXPORT(t_wgmma_256_e4m3_e5m2_64)
T_WGMMA(t_wgmma_64_e5m2_e4m3_128_rs, 64, e5m2, e4m3, 128, 0, 0, 1)
CUEMU_EXPORT(t_wgmma_64_e5m2_e4m3_128_rs)
