// The scan of a selective state space (Mamba, Mamba-2), forward and backward, in f32.
//
//   S_t[p, n] = exp(dt_t a[n]) S_{t-1}[p, n] + dt_t x_t[p] B_t[n]        y_t[p] = sum over n of C_t[n] S_t[p, n]
//
// A channel is one p of one head of one sequence; eight lanes keep its state in registers, K values each (state
// sizes to 8 K, K to 32), and walk through time; 32 channels a block of 256 threads. Loads of a step do not wait for the step
// before. Bound: Mamba: B T h n exponentials (16 a clock a multiprocessor); Mamba-2: latency of T steps.
//
// Backward, states are computed again: the forward scan leaves the state before every 64th step; then for one
// chunk of 64 steps after the other, from the last, a block repeats the chunk, leaves its states in scratch, and
// walks back. The block's channels share their group's B and C: their gradients are summed over the block
// each step (shuffles, shared memory), and over blocks by a second kernel, in one order. Scratch grows with T / 64 + 64
// states, not with T.
#include "gpu.cuh"

constexpr int LANES = 8, CHANNELS = 32, CHUNK = 64;

struct Scan {
  int batch, time, heads, channels, groups, size, scalar;  // scalar: one decay a head
  const int* lengths;
  __device__ __forceinline__ int length(int b) const {
    int n = lengths ? lengths[b] : time;
    return n < 0 ? 0 : n < time ? n : time;
  }
};
#define SCAN int batch, int time, int heads, int channels, int groups, int size, int scalar, const int *lengths
#define SCAN_ARGS                                                                                                \
  Scan { batch, time, heads, channels, groups, size, scalar, lengths }

template <int K>
__device__ __forceinline__ void decays(float (&a)[K], const float* decay, const Scan& s, int h, bool in) {
  int lane = threadIdx.x % LANES;
#pragma unroll
  for (int k = 0; k < K; k++) {
    int n = k * LANES + lane;
    a[k] = in && n < s.size ? decay[s.scalar ? h : h * s.size + n] : 0.f;
  }
}
template <int K> __device__ __forceinline__ void read(float (&v)[K], const float* from, int size, bool in) {
  int lane = threadIdx.x % LANES;
#pragma unroll
  for (int k = 0; k < K; k++) v[k] = in && k * LANES + lane < size ? from[k * LANES + lane] : 0.f;
}
template <int K> __device__ __forceinline__ void write(const float (&v)[K], float* to, int size) {
  int lane = threadIdx.x % LANES;
#pragma unroll
  for (int k = 0; k < K; k++)
    if (k * LANES + lane < size) to[k * LANES + lane] = v[k];
}
__device__ __forceinline__ float lanes_sum(float v) {
#pragma unroll
  for (int d = LANES / 2; d; d >>= 1) v += __shfl_xor_sync(~0u, v, d);
  return v;
}

// y and last may be null (a repeated scan); `kept` gets the state before every 64th step where it is not null.
template <int K>
__device__ __forceinline__ void forward(const float* x, const float* dt, const float* decay, const float* b_in,
                                        const float* c_in, const float* state, float* y, float* last, float* kept,
                                        const Scan& s) {
  long long total = (long long)s.batch * s.heads * s.channels;
  long long c = (long long)blockIdx.x * CHANNELS + threadIdx.x / LANES;
  bool in = c < total;
  int p = in ? (int)(c % s.channels) : 0, h = in ? (int)(c / s.channels % s.heads) : 0;
  int b = in ? (int)(c / s.channels / s.heads) : 0;
  int length = in ? s.length(b) : 0, g = h / (s.heads / s.groups);
  float a[K], S[K];
  decays(a, decay, s, h, in);
  read(S, state + c * s.size, s.size, in);
  for (int t = 0; t < s.time; t++) {
    bool on = t < length;
    size_t step = (size_t)b * s.time + t, at = (step * s.heads + h) * s.channels + p;
    if (kept && in && t % CHUNK == 0) write(S, kept + (t / CHUNK * total + c) * s.size, s.size);
    float d = on ? dt[step * s.heads + h] : 0.f, u = on ? d * x[at] : 0.f, sum = 0.f, B[K], C[K];
    read(B, b_in + (step * s.groups + g) * s.size, s.size, on);
    read(C, c_in + (step * s.groups + g) * s.size, s.size, on);
    if (s.scalar) {
      float e = expf(d * a[0]);  // lane 0 to 7 alike: n of lane k = 0 is below the size or the value is not used
#pragma unroll
      for (int k = 0; k < K; k++) S[k] = e * S[k] + u * B[k];
    } else {
#pragma unroll
      for (int k = 0; k < K; k++) S[k] = expf(d * a[k]) * S[k] + u * B[k];
    }
#pragma unroll
    for (int k = 0; k < K; k++) sum += C[k] * S[k];
    sum = lanes_sum(sum);
    if (y && in && threadIdx.x % LANES == 0) y[at] = sum;
  }
  if (last && in) write(S, last + c * s.size, s.size);
}

// One chunk of steps, walked back. Grid: blocks of a group x (sequence, group).
// `ds` and `da` carry the gradients of the state and of each channel's decays from chunk to chunk; `sums` gets
// [block][sequence, group][step][dB, dC][n], `ddt` [sequence][step][head, channel] of this chunk.
template <int K>
__device__ __forceinline__ void backward(const float* x, const float* dt, const float* decay, const float* b_in,
                                         const float* c_in, const float* dy, const float* d_last, const float* kept,
                                         float* scratch, float* dx, float* ds, float* da, float* sums, float* ddt,
                                         int chunk, int chunks, const Scan& s) {
  __shared__ float part[2][8][2 * K * LANES];
  int of_group = s.heads / s.groups * s.channels, blocks = (of_group + CHANNELS - 1) / CHANNELS;
  int block = blockIdx.x % blocks, bg = blockIdx.x / blocks, b = bg / s.groups, g = bg % s.groups;
  int q = block * CHANNELS + threadIdx.x / LANES, lane = threadIdx.x % LANES;
  bool in = q < of_group;
  int h = g * (s.heads / s.groups) + (in ? q / s.channels : 0), p = in ? q % s.channels : 0;
  long long total = (long long)s.batch * s.heads * s.channels, c = ((long long)b * s.heads + h) * s.channels + p;
  int length = in ? s.length(b) : 0, t0 = chunk * CHUNK, t1 = t0 + CHUNK < s.time ? t0 + CHUNK : s.time;
  float a[K < 32 ? K : 1], S[K], D[K], A[K];
  if constexpr (K < 32) decays(a, decay, s, h, in);
  // The widest states leave no registers for decays: these are read again.
  auto rate = [&](int k) {
    if constexpr (K < 32) return a[k];
    int n = k * LANES + lane;
    return in && n < s.size ? decay[s.scalar ? h : h * s.size + n] : 0.f;
  };
  read(S, kept + (chunk * total + c) * s.size, s.size, in);
  for (int t = t0; t < t1; t++) {
    if (in) write(S, scratch + ((t - t0) * total + c) * s.size, s.size);
    bool on = t < length;
    size_t step = (size_t)b * s.time + t;
    float d = on ? dt[step * s.heads + h] : 0.f, u = on ? d * x[(step * s.heads + h) * s.channels + p] : 0.f, B[K];
    read(B, b_in + (step * s.groups + g) * s.size, s.size, on);
#pragma unroll
    for (int k = 0; k < K; k++) S[k] = expf(d * rate(k)) * S[k] + u * B[k];
  }
  bool first = chunk == chunks - 1;
  read(D, (first ? d_last : ds) + c * s.size, s.size, in);
  read(A, da + c * s.size, s.size, in && !first);
  for (int t = t1 - 1; t >= t0; t--) {
    bool on = t < length;
    size_t step = (size_t)b * s.time + t, at = (step * s.heads + h) * s.channels + p;
    float d = on ? dt[step * s.heads + h] : 0.f, v = on ? x[at] : 0.f, gy = on ? dy[at] : 0.f;
    float B[K], C[K], gx = 0.f, gd = 0.f;
    read(B, b_in + (step * s.groups + g) * s.size, s.size, on);
    read(C, c_in + (step * s.groups + g) * s.size, s.size, on);
    read(S, scratch + ((t - t0) * total + c) * s.size, s.size, in);
#pragma unroll
    for (int k = 0; k < K; k++) {
      float r = rate(k), e = expf(d * r), now = e * S[k] + d * v * B[k];
      D[k] += C[k] * gy;
      float de = on ? D[k] * S[k] * e : 0.f;
      A[k] += de * d;
      gx += D[k] * B[k];
      gd += de * r + D[k] * v * B[k];
      // What the group's B and C get from this channel takes their places.
      B[k] = d * D[k] * v;
      C[k] = gy * now;
      D[k] *= e;
    }
    gx = lanes_sum(gx);
    gd = lanes_sum(gd);
    if (in && lane == 0) {
      dx[at] = d * gx;
      ddt[(((size_t)b * CHUNK + t - t0) * s.heads + h) * s.channels + p] = on ? gd : 0.f;
    }
    float(*to)[2 * K * LANES] = part[t & 1];
#pragma unroll
    for (int k = 0; k < K; k++) {
#pragma unroll
      for (int m = LANES; m < 32; m <<= 1) {
        B[k] += __shfl_xor_sync(~0u, B[k], m);
        C[k] += __shfl_xor_sync(~0u, C[k], m);
      }
      if ((threadIdx.x & 31) < LANES) {
        to[threadIdx.x >> 5][k * LANES + lane] = B[k];
        to[threadIdx.x >> 5][(K + k) * LANES + lane] = C[k];
      }
    }
    // One barrier a step: the other half of `part` is read meanwhile.
    __syncthreads();
    float* out = sums + (((size_t)block * s.batch * s.groups + bg) * CHUNK + t - t0) * 2 * s.size;
    for (int i = threadIdx.x; i < 2 * s.size; i += 256) {
      int n = i < s.size ? i : i - s.size + K * LANES;
      float sum = 0.f;
      for (int w = 0; w < 8; w++) sum += to[w][n];
      out[i] = sum;
    }
  }
  if (in) {
    write(D, ds + c * s.size, s.size);
    write(A, da + c * s.size, s.size);
  }
}

#define SSM(FORWARD, BACKWARD, K)                                                                                \
  extern "C" __global__ void __launch_bounds__(256)                                                              \
      FORWARD(const float* x, const float* dt, const float* a, const float* b, const float* c, const float* state, \
              float* y, float* last, float* kept, SCAN) {                                                        \
    forward<K>(x, dt, a, b, c, state, y, last, kept, SCAN_ARGS);                                                 \
  }                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                           \
      BACKWARD(const float* x, const float* dt, const float* a, const float* b, const float* c, const float* dy, \
               const float* d_last, const float* kept, float* scratch, float* dx, float* ds, float* da, float* sums, \
               float* ddt, int chunk, int chunks, SCAN) {                                                        \
    backward<K>(x, dt, a, b, c, dy, d_last, kept, scratch, dx, ds, da, sums, ddt, chunk, chunks, SCAN_ARGS);     \
  }
SSM(ssm_16_f32, ssm_back_16_f32, 2)
SSM(ssm_64_f32, ssm_back_64_f32, 8)
SSM(ssm_128_f32, ssm_back_128_f32, 16)
SSM(ssm_256_f32, ssm_back_256_f32, 32)
CUEMU_EXPORT(ssm_16_f32)
CUEMU_EXPORT(ssm_64_f32)
CUEMU_EXPORT(ssm_128_f32)
CUEMU_EXPORT(ssm_256_f32)
CUEMU_EXPORT(ssm_back_16_f32)
CUEMU_EXPORT(ssm_back_64_f32)
CUEMU_EXPORT(ssm_back_128_f32)
CUEMU_EXPORT(ssm_back_256_f32)

// What a chunk left, summed over blocks (dB, dC) and over a head's channels (ddt): a thread a value.
extern "C" __global__ void __launch_bounds__(256)
    ssm_chunk_f32(const float* sums, const float* ddt, float* db, float* dc, float* dt, int chunk, SCAN) {
  int t0 = chunk * CHUNK, steps = time - t0 < CHUNK ? time - t0 : CHUNK;
  long long wide = (long long)batch * groups * steps * 2 * size, all = wide + (long long)batch * steps * heads;
  long long i = blockIdx.x * 256ll + threadIdx.x;
  if (i >= all) return;
  if (i < wide) {
    int n = (int)(i % (2 * size)), t = (int)(i / (2 * size) % steps), bg = (int)(i / (2 * size) / steps);
    int blocks = (heads / groups * channels + CHANNELS - 1) / CHANNELS;
    float sum = 0.f;
    for (int k = 0; k < blocks; k++)
      sum += sums[(((size_t)k * batch * groups + bg) * CHUNK + t) * 2 * size + n];
    size_t at = (((size_t)(bg / groups) * time + t0 + t) * groups + bg % groups) * size;
    (n < size ? db : dc)[at + n % size] = sum;
  } else {
    i -= wide;
    int h = (int)(i % heads), t = (int)(i / heads % steps), b = (int)(i / heads / steps);
    const float* from = ddt + (((size_t)b * CHUNK + t) * heads + h) * channels;
    float sum = 0.f;
    for (int p = 0; p < channels; p++) sum += from[p];
    dt[((size_t)b * time + t0 + t) * heads + h] = sum;
  }
}
CUEMU_EXPORT(ssm_chunk_f32)

// The decays' gradient: each channel's, summed over sequences and channels (and states where one decay serves
// all). A block a head.
extern "C" __global__ void __launch_bounds__(256) ssm_decay_f32(const float* da, float* out, SCAN) {
  __shared__ float part[256];
  int h = blockIdx.x, each = channels * size;
  if (!scalar) {
    for (int n = threadIdx.x; n < size; n += 256) {
      float sum = 0.f;
      for (int b = 0; b < batch; b++)
        for (int p = 0; p < channels; p++) sum += da[((size_t)b * heads + h) * each + p * size + n];
      out[h * size + n] = sum;
    }
    return;
  }
  float sum = 0.f;
  for (int b = 0; b < batch; b++)
    for (int i = threadIdx.x; i < each; i += 256) sum += da[((size_t)b * heads + h) * each + i];
  part[threadIdx.x] = sum;
  __syncthreads();
  for (int d = 128; d; d >>= 1) {
    if (threadIdx.x < d) part[threadIdx.x] += part[threadIdx.x + d];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[h] = part[0];
}
CUEMU_EXPORT(ssm_decay_f32)
