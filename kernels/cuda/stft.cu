// Short-time Fourier transforms of real signals, and their gradients by signal and window, in f32.
//
//   y[b, k, t] = sum over n of w[n] x[b, source(t hop + n - pad)] exp(-2 pi i k n / N),   k = 0 .. N / 2
//
// Frames are transformed in shared memory, two real frames as one complex one, by Stockham's self-sorting
// stages of any radix (4, 2, 3, 5, then whatever divides N: a prime N is the plain sum). A block has 256 threads and up
// to 4 pairs of neighbouring frames of one signal, so that results, which lie [bin][frame], are written 64
// bytes at a time. Factors come from a table of N in shared memory, made by each block. Shared memory
// (1 + 2 pairs) N float2: 36 KiB for N = 512. Windows of more than 6,826 values go term by term
// (`.._direct_..`).
// The gradients transform spectra back the same way (exp(+..), of bins made Hermitian) into frames in scratch;
// then each sample gathers the frames that it was in, mirrored places included, from the first to the last, and each
// place of the window sums over frames in parts: no atomics, one order.
// Bound: shared memory, about N (r + r) / 1 reads a stage of radix r; 0.7 ms for 128 signals of 1,500 frames of 512.
#include "gpu.cuh"
#include "divide.cuh"

constexpr int THREADS = 256;

struct Frames {
  int samples, n, frames, hop, pad, reflect;
  // The sample at a place of the padded signal, -1 for a zero.
  __device__ __forceinline__ int source(long long at) const {
    if (at >= 0 && at < samples) return (int)at;
    if (!reflect || samples == 0) return -1;
    long long period = 2ll * (samples - 1);
    if (period == 0) return 0;
    long long folded = at % period;
    if (folded < 0) folded += period;
    return (int)(folded < period - folded ? folded : period - folded);
  }
  __device__ __forceinline__ int source(int t, int i) const { return source((long long)t * hop + i - pad); }
};
#define FRAMES int samples, int n, int frames, int hop, int pad, int reflect
#define FRAMES_ARGS                                                                                              \
  Frames { samples, n, frames, hop, pad, reflect }

// exp(-2 pi i m / n) for 0 <= m < n, by the series of sine and cosine over an eighth of a turn (their next
// terms are below 2^-25): exact ends, and none of the library's paths for angles of any size.
__device__ __forceinline__ float2 factor(int m, int n) {
  long long eighths = 8ll * m;
  int turn = (int)(eighths / n);
  long long rest = eighths - (long long)turn * n;
  if (turn & 1) rest = n - rest;  // the odd ones backwards, so that the angle is from a quarter's nearer end
  float a = 0.785398163397448310f * ((float)rest / (float)n), q = a * a;
  float s = a * (1.f + q * (-1.f / 6 + q * (1.f / 120 + q * (-1.f / 5040 + q * (1.f / 362880)))));
  float c = 1.f + q * (-1.f / 2 + q * (1.f / 24 + q * (-1.f / 720 + q * (1.f / 40320))));
  // At turn / 8 and a on or, where odd, (turn + 1) / 8 and a back.
  if (turn & 1) s = -s;
  switch ((turn + 1) / 2 & 3) {
    case 0: return make_float2(c, -s);
    case 1: return make_float2(-s, -c);
    case 2: return make_float2(-c, s);
    default: return make_float2(s, c);
  }
}
__device__ __forceinline__ float2 times(float2 a, float2 b) {
  return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}

// Transforms `pairs` sequences of n values that lie one after the other, between two buffers; gives the one
// that holds the result. Begins and ends with a barrier.
__device__ __forceinline__ float2* transform(float2* from, float2* to, const float2* table, int n, int pairs) {
  __syncthreads();
  for (int length = n, s = 1; length > 1;) {
    int r = 2;
    if (length % 4 == 0) r = 4;
    else if (length % 2)
      for (r = 3; length % r; r += 2) {}
    int m = length / r, turn = n / r;
    Divide by_n(n), by_s(s), by_r(r);
    for (int i = threadIdx.x; i < pairs * n; i += THREADS) {
      int o = i, pair = by_n.split(o), q = o;
      int pk = by_s.split(q), k = pk;
      int p = by_r.split(k);
      const float2* x = from + pair * n + q + s * p;
      float2 sum = x[0];
      for (int j = 1, at = 0; j < r; j++) {
        at += k * turn;
        if (at >= n) at -= n;
        float2 v = times(x[s * m * j], table[at]);
        sum.x += v.x;
        sum.y += v.y;
      }
      to[i] = times(sum, table[p * k * s]);
    }
    __syncthreads();
    float2* other = from;
    from = to;
    to = other;
    length = m;
    s *= r;
  }
  return from;
}

// Grid: (frames / (2 pairs)) x signals. `power` writes [bin][frame] squares, else [bin][frame][2].
extern "C" __global__ void __launch_bounds__(256)
    stft_f32(const float* x, const float* w, float* y, int power, int pairs, FRAMES) {
  DYN_SMEM(float2, table);
  float2 *a = table + n, *b = a + pairs * n;
  Frames f = FRAMES_ARGS;
  int wide = 2 * pairs, tiles = (frames + wide - 1) / wide, signal = blockIdx.x / tiles, t0 = blockIdx.x % tiles * wide;
  int bins = n / 2 + 1;
  const float* from = x + (size_t)signal * samples;
  for (int i = threadIdx.x; i < n; i += THREADS) table[i] = factor(i, n);
  for (int i = threadIdx.x; i < pairs * n; i += THREADS) {
    int t = t0 + i / n * 2, k = i % n;
    float v[2];
    for (int e = 0; e < 2; e++) {
      int at = t + e < frames ? f.source(t + e, k) : -1;
      v[e] = at < 0 ? 0.f : w[k] * from[at];
    }
    a[i] = make_float2(v[0], v[1]);
  }
  const float2* z = transform(a, b, table, n, pairs);
  for (int i = threadIdx.x; i < bins * wide; i += THREADS) {
    int k = i / wide, e = i % wide, t = t0 + e;
    if (t >= frames) continue;
    // Of z = a + i b with real a, b: the spectra of both.
    float2 u = z[e / 2 * n + k], v = z[e / 2 * n + (k ? n - k : 0)];
    float2 out = e % 2 ? make_float2(0.5f * (u.y + v.y), 0.5f * (v.x - u.x))
                       : make_float2(0.5f * (u.x + v.x), 0.5f * (u.y - v.y));
    size_t at = ((size_t)signal * bins + k) * frames + t;
    if (power) y[at] = out.x * out.x + out.y * out.y;
    else ((float2*)y)[at] = out;
  }
}
CUEMU_EXPORT(stft_f32)

// Spectra back to frames [signal][frame][n]: the sum over bins of the real part of y exp(+2 pi i k n / N).
extern "C" __global__ void __launch_bounds__(256)
    stft_frames_f32(const float* y, float* out, int pairs, int n, int frames) {
  DYN_SMEM(float2, table);
  float2 *a = table + n, *b = a + pairs * n;
  int wide = 2 * pairs, tiles = (frames + wide - 1) / wide, signal = blockIdx.x / tiles, t0 = blockIdx.x % tiles * wide;
  int bins = n / 2 + 1;
  for (int i = threadIdx.x; i < n; i += THREADS) table[i] = factor(i, n);
  // Each pair as h + i g, where h and g are conjugate spectra of real frames: h[k] = conj(y[k]) / 2 and
  // h[n - k] = y[k] / 2; the bins at both ends stand for themselves.
  for (int i = threadIdx.x; i < bins * pairs; i += THREADS) {
    int k = i / pairs, p = i % pairs, mirror = k ? n - k : 0;
    float2 v[2];
    for (int e = 0; e < 2; e++) {
      int t = t0 + 2 * p + e;
      const float* from = y + (((size_t)signal * bins + k) * frames + t) * 2;  // of any alignment
      v[e] = t < frames ? make_float2(from[0], from[1]) : make_float2(0.f, 0.f);
    }
    if (mirror == k) {
      a[p * n + k] = make_float2(v[0].x, v[1].x);
    } else {
      a[p * n + k] = make_float2(0.5f * (v[0].x + v[1].y), 0.5f * (v[1].x - v[0].y));
      a[p * n + mirror] = make_float2(0.5f * (v[0].x - v[1].y), 0.5f * (v[1].x + v[0].y));
    }
  }
  const float2* z = transform(a, b, table, n, pairs);
  for (int i = threadIdx.x; i < wide * n; i += THREADS) {
    int e = i / n, t = t0 + e;
    if (t >= frames) continue;
    float2 v = z[e / 2 * n + i % n];
    out[((size_t)signal * frames + t) * n + i % n] = e % 2 ? v.y : v.x;
  }
}
CUEMU_EXPORT(stft_frames_f32)

// The same two, term by term, for windows that shared memory does not hold: a thread a value.
extern "C" __global__ void __launch_bounds__(256)
    stft_direct_f32(const float* x, const float* w, float* y, int power, int signals, FRAMES) {
  Frames f = FRAMES_ARGS;
  int bins = n / 2 + 1;
  long long i = blockIdx.x * 256ll + threadIdx.x;
  if (i >= (long long)signals * bins * frames) return;
  int t = (int)(i % frames), k = (int)(i / frames % bins);
  const float* from = x + (size_t)(i / frames / bins) * samples;
  float re = 0.f, im = 0.f;
  int turn = 0;
  for (int j = 0; j < n; j++) {
    int at = f.source(t, j);
    float v = at < 0 ? 0.f : w[j] * from[at];
    float2 e = factor(turn, n);
    re += v * e.x;
    im += v * e.y;
    turn = turn + k - (turn + k >= n ? n : 0);
  }
  if (power) y[i] = re * re + im * im;
  else ((float2*)y)[i] = make_float2(re, im);
}
CUEMU_EXPORT(stft_direct_f32)

extern "C" __global__ void __launch_bounds__(256)
    stft_frames_direct_f32(const float* y, float* out, int signals, int n, int frames) {
  int bins = n / 2 + 1;
  long long i = blockIdx.x * 256ll + threadIdx.x;
  if (i >= (long long)signals * frames * n) return;
  int j = (int)(i % n), t = (int)(i / n % frames);
  const float* from = y + ((size_t)(i / n / frames) * bins * frames + t) * 2;
  float sum = 0.f;
  int turn = 0;
  for (int k = 0; k < bins; k++) {
    const float* v = from + (size_t)k * frames * 2;
    float2 e = factor(turn, n);
    sum += v[0] * e.x + v[1] * e.y;
    turn = turn + j - (turn + j >= n ? n : 0);
  }
  out[i] = sum;
}
CUEMU_EXPORT(stft_frames_direct_f32)

// What a place of the padded signal gets from the frames that hold it.
__device__ __forceinline__ float held(const float* v, const float* w, long long at, const Frames& f) {
  long long place = at + f.pad, reach = place - f.n + 1;
  long long t = reach > 0 ? (reach + f.hop - 1) / f.hop : 0;
  float sum = 0.f;
  for (; t < f.frames && t * f.hop <= place; t++) {
    int j = (int)(place - t * f.hop);
    sum += w[j] * v[t * f.n + j];
  }
  return sum;
}

// The gradient by the signal: each sample from all places that it stands at. A thread a sample.
extern "C" __global__ void __launch_bounds__(256)
    stft_gather_f32(const float* v, const float* w, float* x, int signals, FRAMES) {
  Frames f = FRAMES_ARGS;
  long long i = blockIdx.x * 256ll + threadIdx.x;
  if (i >= (long long)signals * samples) return;
  int s = (int)(i % samples);
  v += (size_t)(i / samples) * frames * n;
  long long low = -(long long)pad, high = ((long long)frames - 1) * hop + n - 1 - pad;  // places that frames hold
  float sum = 0.f;
  if (!reflect || frames == 0) {
    if (frames) sum = held(v, w, s, f);
  } else if (samples == 1) {
    for (long long at = low; at <= high; at++) sum += held(v, w, at, f);
  } else {
    long long period = 2ll * (samples - 1);
    // The first place of either kind, s or -s and whole periods, from `low` on.
    long long a = low + ((s - low) % period + period) % period, b = low + ((-s - low) % period + period) % period;
    for (; a <= high; a += period) sum += held(v, w, a, f);
    if (s != 0 && s != samples - 1)
      for (; b <= high; b += period) sum += held(v, w, b, f);
  }
  x[i] = sum;
}
CUEMU_EXPORT(stft_gather_f32)

// The gradient by the window, a part of the frames: 32 places a block, 8 lines of frames, added in order.
// Grid: n / 32, parts.
extern "C" __global__ void __launch_bounds__(256)
    stft_window_f32(const float* v, const float* x, float* out, int signals, int part, FRAMES) {
  __shared__ float lines[8][32];
  Frames f = FRAMES_ARGS;
  int lane = threadIdx.x & 31, line = threadIdx.x >> 5, j = blockIdx.x * 32 + lane;
  int all = signals * frames, from = blockIdx.y * part, end = all - from < part ? all : from + part;
  float sum = 0.f;
  if (j < n)
    for (int i = from + line; i < end; i += 8) {
      int at = f.source(i % frames, j);
      if (at >= 0) sum += v[(size_t)i * n + j] * x[(size_t)(i / frames) * samples + at];
    }
  lines[line][lane] = sum;
  __syncthreads();
  if (line == 0 && j < n) {
    for (int i = 1; i < 8; i++) sum += lines[i][lane];
    out[blockIdx.y * n + j] = sum;
  }
}
CUEMU_EXPORT(stft_window_f32)
