// Convolution over planes, forward and both gradients, as products of matrices that are never in memory
// (implicit GEMM), in f32. One dimension is a plane of one row.
//
//   forward      y[f, (b q)]     = sum over (c k)   of w[f, (c k)] x[(c k), (b q)]     k the kernel's places
//   input grad   x[c, (b p)]     = sum over (f k)   of w[f, c, k]  y[f, (b q)]         p = q S - P + k D
//   weight grad  w[f, (c k)]     = sum over (b q)   of y[f, (b q)] x[(c k), (b q)]
//
// The input gradient of stride S takes the places p of one phase (p + P) mod S together: these meet the same
// places k of the kernel, k = k0 + j S / gcd(S, D), and no product with an inserted zero is made.
// The weight gradient's sum is cut into parts, which a second kernel adds in order: the same bits each time.
//
// Blocks of 256 threads. Tile 64 x 128 (4 x 8 values a thread) or 32 x 128 (4 x 4); slabs of depth 8, the next
// one on its way in registers while one is multiplied; shared memory 12.5 KiB or 10.5 KiB, two slabs.
// At most 128 registers: two blocks a multiprocessor. Bound: the f32 pipe, which gets 32 products for 12 values
// from shared memory, and about a third more instructions for finding places.
// The bf16 variants round both factors and sum in f32 (tiled_mma.cuh): tile 128 x 128, sm_80 tensor cores.
// Depthwise (one channel a group): a thread an output, 9 to 31 products each: bound by memory and L1.
#include "gpu.cuh"
#include "divide.cuh"
#include "tiled.cuh"
#include "tiled_mma.cuh"

struct Conv {
  int batch, groups, channels, filters, ih, iw, kh, kw, oh, ow, sh, sw, ph, pw, dh, dw;
};
#define SIZES                                                                                                    \
  int batch, int groups, int channels, int filters, int ih, int iw, int kh, int kw, int oh, int ow, int sh,      \
      int sw, int ph, int pw, int dh, int dw
#define CONV                                                                                                     \
  Conv { batch, groups, channels, filters, ih, iw, kh, kw, oh, ow, sh, sw, ph, pw, dh, dw }

// A matrix [rows, depth] in memory.
struct Matrix {
  static constexpr bool DEPTH_RUNS = true;
  typedef int Row;  // negative outside
  typedef int Depth;
  const float* base;
  int rows, stride;
  __device__ __forceinline__ Row row(int m) const { return m < rows ? m * stride : -1; }
  __device__ __forceinline__ Depth depth(int k) const { return k; }
  __device__ __forceinline__ float at(Row r, Depth k) const { return r >= 0 ? base[r + k] : 0.f; }
};

// A place (channel, row, column of the kernel) of one filter.
struct Tap {
  int base, h, w;  // base: the channel's plane
};
// An output (sequence, row, column), as where its window begins.
struct Spot {
  int plane, h, w;  // where the sequence begins; negative outside
};

// The input as the kernel sees it: `Spot`s by `Tap`s.
struct Windows {
  const float* x;  // the group's first channel
  Conv s;
  Divide places, columns, taps, tap_columns;
  __device__ __forceinline__ Windows(const float* x, const Conv& s)
      : x(x), s(s), places(s.oh * s.ow), columns(s.ow), taps(s.kh * s.kw), tap_columns(s.kw) {}
  __device__ __forceinline__ Spot spot(int n) const {
    int b = places.split(n);
    int h = columns.split(n);
    if (b >= s.batch) return Spot{-1, 0, 0};
    return Spot{b * s.groups * s.channels * s.ih * s.iw, h * s.sh - s.ph, n * s.sw - s.pw};
  }
  __device__ __forceinline__ Tap tap(int k) const {
    int c = taps.split(k);
    int h = tap_columns.split(k);
    return Tap{c * s.ih * s.iw, h * s.dh, k * s.dw};
  }
  __device__ __forceinline__ float value(const Spot& p, const Tap& t) const {
    int h = p.h + t.h, w = p.w + t.w;
    bool in = p.plane >= 0 && (unsigned)h < (unsigned)s.ih && (unsigned)w < (unsigned)s.iw;
    return in ? x[p.plane + t.base + h * s.iw + w] : 0.f;
  }
};
struct WindowsBySpot : Windows {
  static constexpr bool DEPTH_RUNS = false;
  typedef Spot Row;
  typedef Tap Depth;
  using Windows::Windows;
  __device__ __forceinline__ Row row(int n) const { return spot(n); }
  __device__ __forceinline__ Depth depth(int k) const { return tap(k); }
  __device__ __forceinline__ float at(const Row& r, const Depth& d) const { return value(r, d); }
};
struct WindowsByTap : Windows {
  static constexpr bool DEPTH_RUNS = true;
  typedef Tap Row;
  typedef Spot Depth;
  using Windows::Windows;
  __device__ __forceinline__ Row row(int n) const {
    // Beyond the last channel: a place that is in no plane.
    return n < s.channels * s.kh * s.kw ? tap(n) : Tap{0, -(1 << 30), 0};
  }
  __device__ __forceinline__ Depth depth(int k) const { return spot(k); }
  __device__ __forceinline__ float at(const Row& r, const Depth& d) const { return value(d, r); }
};

// The output [filters, (sequence, place)].
struct Outputs {
  static constexpr bool DEPTH_RUNS = true;
  typedef int Row;  // negative outside
  typedef int Depth;
  const float* y;  // the group's first filter
  int filters, plane, sequence;
  Divide places;
  __device__ __forceinline__ Row row(int m) const { return m < filters ? m * plane : -1; }
  __device__ __forceinline__ Depth depth(int k) const {
    int b = places.split(k);
    return b * sequence + k;
  }
  __device__ __forceinline__ float at(Row r, Depth d) const { return r >= 0 ? y[r + d] : 0.f; }
};

// One dimension of one phase of an input gradient: its places p = first + j S, and the kernel's places
// k0 + i step that meet them, at the output (p + P - k D) / S = q0 + j - i back.
struct Phase {
  int first, count, k0, step, taps, q0, back;
  __device__ __forceinline__ Phase(int phase, int n, int k, int s, int p, int d) {
    first = ((phase - p) % s + s) % s;
    count = first < n ? (n - first + s - 1) / s : 0;
    int g = s, r = d % s;
    while (r) {
      int t = g % r;
      g = r;
      r = t;
    }
    step = s / g;
    for (k0 = 0; k0 < step && (phase - k0 * (long long)d) % s; k0++) {}
    taps = k0 < step && k0 < k ? (k - k0 + step - 1) / step : 0;
    back = d / g;
    q0 = taps ? (int)((first + p - k0 * (long long)d) / s) : 0;
  }
};

// The weights [channel, (filter, place)] of one phase.
struct Transposed {
  static constexpr bool DEPTH_RUNS = true;
  typedef int Row;  // negative outside
  typedef int Depth;
  const float* w;
  Conv s;
  Phase h, v;
  Divide taps, tap_columns;
  __device__ __forceinline__ Row row(int m) const { return m < s.channels ? m * s.kh * s.kw : -1; }
  __device__ __forceinline__ Depth depth(int k) const {
    int f = taps.split(k);
    int i = tap_columns.split(k);
    return (f * s.channels * s.kh + h.k0 + i * h.step) * s.kw + v.k0 + k * v.step;
  }
  __device__ __forceinline__ float at(Row r, Depth d) const { return r >= 0 ? w[r + d] : 0.f; }
};
// The output [(filter, place of the kernel), (sequence, place of the phase)].
struct Backward {
  static constexpr bool DEPTH_RUNS = false;
  typedef Spot Row;
  typedef Tap Depth;
  const float* y;
  Conv s;
  Phase h, v;
  Divide places, columns, taps, tap_columns;
  __device__ __forceinline__ Row row(int n) const {
    int b = places.split(n);
    int i = columns.split(n);
    if (b >= s.batch) return Spot{-1, 0, 0};
    return Spot{b * s.groups * s.filters * s.oh * s.ow, h.q0 + i, v.q0 + n};
  }
  __device__ __forceinline__ Depth depth(int k) const {
    int f = taps.split(k);
    int i = tap_columns.split(k);
    return Tap{f * s.oh * s.ow, i * h.back, k * v.back};
  }
  __device__ __forceinline__ float at(const Row& r, const Depth& d) const {
    int q = r.h - d.h, p = r.w - d.w;
    bool in = r.plane >= 0 && (unsigned)q < (unsigned)s.oh && (unsigned)p < (unsigned)s.ow;
    return in ? y[r.plane + d.base + q * s.ow + p] : 0.f;
  }
};

// Results [rows, (sequence, place)], with a bias where there is one.
struct Planes {
  float* y;  // of the group
  const float* bias;
  int rows, batch;
  size_t plane, sequence;
  Divide places;
  __device__ __forceinline__ float* column(int n) const {
    int b = places.split(n);
    return b < batch ? y + b * sequence + n : nullptr;
  }
  __device__ __forceinline__ void put(int m, float* at, float v) const {
    if (at && m < rows) at[m * plane] = v + (bias ? bias[m] : 0.f);
  }
};
struct PhasePlanes {
  float* x;
  const float* bias;
  Conv s;
  Phase h, v;
  Divide places, columns;
  __device__ __forceinline__ float* column(int n) const {
    int b = places.split(n);
    int i = columns.split(n);
    if (b >= s.batch) return nullptr;
    size_t plane = (size_t)b * s.groups * s.channels * s.ih * s.iw;
    return x + plane + (h.first + i * s.sh) * s.iw + v.first + n * s.sw;
  }
  __device__ __forceinline__ void put(int m, float* at, float v) const {
    if (at && m < s.channels) at[(size_t)m * s.ih * s.iw] = v + (bias ? bias[m] : 0.f);
  }
};
struct Weights {
  float* w;
  int rows, columns;
  __device__ __forceinline__ int column(int n) const { return n; }
  __device__ __forceinline__ void put(int m, int n, float v) const {
    if (m < rows && n < columns) w[(size_t)m * columns + n] = v;
  }
};

__device__ __forceinline__ int at_least_one(int n) { return n > 0 ? n : 1; }

template <class Way>
__device__ __forceinline__ void forward(const float* x, const float* w, const float* bias, float* y, const Conv& s) {
  int places = s.oh * s.ow, tiles = (s.batch * places + 127) / 128, g = blockIdx.x / tiles;
  int depth = s.channels * s.kh * s.kw;
  Matrix a{w + (size_t)g * s.filters * depth, s.filters, depth};
  WindowsBySpot b(x + (size_t)g * s.channels * s.ih * s.iw, s);
  Planes out{y + (size_t)g * s.filters * places, bias ? bias + g * s.filters : nullptr, s.filters, s.batch,
             (size_t)places, (size_t)s.groups * s.filters * places, Divide(places)};
  Way::tile(blockIdx.y * Way::ROWS, (blockIdx.x % tiles) * 128, 0, depth, a, b, out);
}

// The grid's first number is tiles x groups x phases, tiles those of the largest phase.
template <class Way>
__device__ __forceinline__ void input_grad(const float* y, const float* w, const float* bias, float* x, const Conv& s) {
  int largest = s.batch * ((s.ih + s.sh - 1) / s.sh) * ((s.iw + s.sw - 1) / s.sw);
  int tiles = (largest + 127) / 128, z = blockIdx.x / tiles, phase = z / s.groups, g = z % s.groups;
  Phase h(phase / s.sw, s.ih, s.kh, s.sh, s.ph, s.dh), v(phase % s.sw, s.iw, s.kw, s.sw, s.pw, s.dw);
  int count = h.count * v.count, taps = h.taps * v.taps, n0 = (blockIdx.x % tiles) * 128;
  if (n0 >= s.batch * count) return;
  Transposed a{w + (size_t)g * s.filters * s.channels * s.kh * s.kw, s, h, v, Divide(at_least_one(taps)),
               Divide(at_least_one(v.taps))};
  Backward b{y + (size_t)g * s.filters * s.oh * s.ow, s, h, v, Divide(count), Divide(v.count),
             Divide(at_least_one(taps)), Divide(at_least_one(v.taps))};
  PhasePlanes out{x + (size_t)g * s.channels * s.ih * s.iw, bias ? bias + g * s.channels : nullptr, s, h, v,
                  Divide(count), Divide(v.count)};
  Way::tile(blockIdx.y * Way::ROWS, n0, 0, s.filters * taps, a, b, out);
}

// The grid's first number is tiles x groups x parts; part p goes to w + p (all weights).
template <class Way>
__device__ __forceinline__ void weight_grad(const float* x, const float* y, float* w, int part, const Conv& s) {
  int columns = s.channels * s.kh * s.kw, tiles = (columns + 127) / 128, z = blockIdx.x / tiles;
  int g = z % s.groups, p = z / s.groups, places = s.oh * s.ow, depth = s.batch * places;
  Outputs a{y + (size_t)g * s.filters * places, s.filters, places, s.groups * s.filters * places,
            Divide(places)};
  WindowsByTap b(x + (size_t)g * s.channels * s.ih * s.iw, s);
  Weights out{w + ((size_t)p * s.groups + g) * s.filters * columns, s.filters, columns};
  int k0 = p * part, k1 = depth - k0 < part ? depth : k0 + part;
  Way::tile(blockIdx.y * Way::ROWS, (blockIdx.x % tiles) * 128, k0, k1, a, b, out);
}

#define PRODUCTS(FORWARD, INPUT, WEIGHT, BLOCKS, ...)                                                            \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                      \
      FORWARD(const float* x, const float* w, const float* bias, float* y, SIZES) {                              \
    forward<__VA_ARGS__>(x, w, bias, y, CONV);                                                                   \
  }                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                      \
      INPUT(const float* y, const float* w, const float* bias, float* x, SIZES) {                                \
    input_grad<__VA_ARGS__>(y, w, bias, x, CONV);                                                                \
  }                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                      \
      WEIGHT(const float* x, const float* y, float* w, int part, SIZES) {                                        \
    weight_grad<__VA_ARGS__>(x, y, w, part, CONV);                                                               \
  }
PRODUCTS(conv_64_f32, conv_input_64_f32, conv_weight_64_f32, 2, Scalar<64>)
PRODUCTS(conv_32_f32, conv_input_32_f32, conv_weight_32_f32, 2, Scalar<32>)
PRODUCTS(conv_bf16, conv_input_bf16, conv_weight_bf16, 1, Tensor)
CUEMU_EXPORT(conv_bf16)
CUEMU_EXPORT(conv_input_bf16)
CUEMU_EXPORT(conv_weight_bf16)
CUEMU_EXPORT(conv_64_f32)
CUEMU_EXPORT(conv_input_64_f32)
CUEMU_EXPORT(conv_weight_64_f32)
CUEMU_EXPORT(conv_32_f32)
CUEMU_EXPORT(conv_input_32_f32)
CUEMU_EXPORT(conv_weight_32_f32)

// Depthwise forward: one channel a group. Grid: places / 256 x (sequence, filter).
extern "C" __global__ void __launch_bounds__(256)
    conv_depthwise_f32(const float* x, const float* w, const float* bias, float* y, SIZES) {
  int places = oh * ow, tiles = (places + 255) / 256, row = blockIdx.x / tiles;  // (b, g, f)
  int p = (blockIdx.x % tiles) * 256 + threadIdx.x;
  if (p >= places) return;
  int filter = row % (groups * filters);
  const float* plane = x + (size_t)(row / filters) * ih * iw;  // (b, g)
  const float* taps = w + (size_t)filter * kh * kw;
  int h0 = p / ow * sh - ph, w0 = p % ow * sw - pw;
  float sum = 0.f;
  for (int i = 0; i < kh; i++) {
    int h = h0 + i * dh;
    if ((unsigned)h >= (unsigned)ih) continue;
    for (int j = 0, v = w0; j < kw; j++, v += dw)
      if ((unsigned)v < (unsigned)iw) sum += plane[h * iw + v] * taps[i * kw + j];
  }
  y[(size_t)row * places + p] = sum + (bias ? bias[filter] : 0.f);
}
CUEMU_EXPORT(conv_depthwise_f32)

// Depthwise over lines, stride and dilation 1, one filter a channel, forward; backward with the kernel's places in
// reverse. A block of 64 threads makes 256 outputs of a line: its inputs and the kernel lie in shared memory (an
// unused word after every 32, so that threads 4 apart meet no bank twice); a thread slides over 4 neighbouring
// outputs: one input and one factor read for 4 products. Grid: outputs / 256 x (sequence, channel).
extern "C" __global__ void __launch_bounds__(64)
    conv_line_f32(const float* x, const float* w, const float* bias, float* y, int channels, int in, int out, int taps,
                  int before, int reversed) {
  DYN_SMEM(float, line);
  float* factors = line + (256 + taps) / 32 * 33 + 33;
  int tiles = (out + 255) / 256, row = blockIdx.x / tiles, p0 = blockIdx.x % tiles * 256, channel = row % channels;
  auto at = [](int i) { return i + (i >> 5); };
  const float* from = x + (size_t)row * in;
  for (int i = threadIdx.x; i < 255 + taps; i += 64) {
    int p = p0 + i - before;
    line[at(i)] = (unsigned)p < (unsigned)in ? from[p] : 0.f;
  }
  for (int k = threadIdx.x; k < taps; k += 64) factors[k] = w[(size_t)channel * taps + (reversed ? taps - 1 - k : k)];
  __syncthreads();
  int first = threadIdx.x * 4;
  float a = line[at(first)], b = line[at(first + 1)], c = line[at(first + 2)], sum[4] = {};
#pragma unroll 4
  for (int k = 0; k < taps; k++) {
    float d = line[at(first + k + 3)], v = factors[k];
    sum[0] += v * a;
    sum[1] += v * b;
    sum[2] += v * c;
    sum[3] += v * d;
    a = b;
    b = c;
    c = d;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 4; i++) line[at(first + i)] = sum[i];
  __syncthreads();
  float more = bias ? bias[channel] : 0.f;
  for (int i = threadIdx.x; i < 256 && p0 + i < out; i += 64) y[(size_t)row * out + p0 + i] = line[at(i)] + more;
}
CUEMU_EXPORT(conv_line_f32)

// Depthwise input gradient. Grid: places of the input / 256 x (sequence, group).
extern "C" __global__ void __launch_bounds__(256)
    conv_depthwise_input_f32(const float* y, const float* w, const float* bias, float* x, SIZES) {
  int places = ih * iw, tiles = (places + 255) / 256, row = blockIdx.x / tiles;  // (b, g)
  int p = (blockIdx.x % tiles) * 256 + threadIdx.x;
  if (p >= places) return;
  int g = row % groups, h0 = p / iw + ph, w0 = p % iw + pw;
  float sum = 0.f;
  for (int f = 0; f < filters; f++) {
    const float* plane = y + ((size_t)row * filters + f) * oh * ow;
    const float* taps = w + ((size_t)g * filters + f) * kh * kw;
    for (int i = 0; i < kh; i++) {
      int h = h0 - i * dh;
      if (h < 0 || h % sh || h / sh >= oh) continue;
      const float* line = plane + h / sh * ow;
      for (int j = 0; j < kw; j++) {
        int v = w0 - j * dw;
        if (v >= 0 && v % sw == 0 && v / sw < ow) sum += line[v / sw] * taps[i * kw + j];
      }
    }
  }
  x[(size_t)row * places + p] = sum + (bias ? bias[g] : 0.f);
}
CUEMU_EXPORT(conv_depthwise_input_f32)

// Depthwise weight gradient: a block a filter and eight places of its kernel, over all sequences and places.
extern "C" __global__ void __launch_bounds__(256)
    conv_depthwise_weight_f32(const float* x, const float* y, float* w, SIZES) {
  __shared__ float part[8][8];
  int taps = kh * kw, runs = (taps + 7) / 8, filter = blockIdx.x / runs, first = blockIdx.x % runs * 8;
  int places = oh * ow, g = filter / filters;
  float sum[8] = {};
  int at_h[8], at_w[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    int k = first + i;
    at_h[i] = k < taps ? k / kw * dh - ph : -(1 << 30);  // beyond the last: in no plane
    at_w[i] = k % kw * dw - pw;
  }
  for (int b = 0; b < batch; b++) {
    const float* dy = y + ((size_t)b * groups * filters + filter) * places;
    const float* plane = x + ((size_t)b * groups + g) * ih * iw;
    for (int p = threadIdx.x; p < places; p += 256) {
      float d = dy[p];
      int h0 = p / ow * sh, w0 = p % ow * sw;
#pragma unroll
      for (int i = 0; i < 8; i++) {
        int h = h0 + at_h[i], v = w0 + at_w[i];
        if ((unsigned)h < (unsigned)ih && (unsigned)v < (unsigned)iw) sum[i] += d * plane[h * iw + v];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; i++) {
    for (int d = 16; d; d >>= 1) sum[i] += __shfl_xor_sync(~0u, sum[i], d);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5][i] = sum[i];
  }
  __syncthreads();
  if (threadIdx.x < 8 && first + (int)threadIdx.x < taps) {
    float all = 0.f;
    for (int v = 0; v < 8; v++) all += part[v][threadIdx.x];
    w[(size_t)filter * taps + first + threadIdx.x] = all;
  }
}
CUEMU_EXPORT(conv_depthwise_weight_f32)
