// Numbers of eight bits and their scales: greatest magnitudes, scales from them, values as codes (and codes transposed, for
// products that sum over the other dimension), or as what is left of them in f32. Bit for bit mobilis_kernels::fp8.
//
// quantize_amax: a pass over the values, a warp's maximum goes to memory by its bits. quantize_scaled: with a given scale,
// 64 x 64 values a block through shared memory, so that both ways of writing are by whole lines; the greatest magnitude in
// the same pass. quantize_tiles_*: a thread, a warp or a block finds a tile's greatest magnitude, its scale, and reads it
// again from cache. round_bf16, convert_*: without scales. Threads 256; registers at most 40; shared memory 17 KiB at most.
// Bound: bytes read and written over bandwidth.
#include "gpu.cuh"
#include "number.cuh"

constexpr int THREADS = 256;

// How a scale follows from a greatest magnitude: mobilis_kernels::fp8::Scale.
struct Rule {
  int e8m0, power_of_two;
  float epsilon, max;
};
#define RULE int e8m0, int power_of_two, float epsilon, float greatest
#define TAKE_RULE (Rule{e8m0, power_of_two, epsilon, greatest})

DEVFN float scale_of(const Rule& r, float amax) {
  if (!r.e8m0) {
    if (amax < r.epsilon) amax = r.epsilon;
    if (amax == 0.f || !(fabsf(amax) < INFINITY)) return 1.f;
    float scale = fminf(r.max / amax, __uint_as_float(0x7f7fffffu));
    return r.power_of_two ? __uint_as_float(__float_as_uint(scale) & 0xff800000u) : scale;
  }
  // The least power of two not below amax / max, as its exponent; its reciprocal.
  uint32_t bits = __float_as_uint(amax * (1.f / r.max)) & 0x7fffffffu, exponent = bits >> 23, fraction = bits & 0x7fffffu;
  if (bits > 0x7f800000u) return NAN;
  exponent += exponent == 0 ? fraction > 0x400000u : fraction > 0;
  if (exponent > 254) exponent = 254;
  if (exponent == 0) return 1.f;
  uint32_t back = 254 - exponent;
  return back == 0 ? __uint_as_float(0x400000u) : __uint_as_float(back << 23);
}

DEVFN uint8_t code_of(int type, float v) { return type == E4M3 ? e4m3(v).bits : e5m2(v).bits; }
DEVFN float value_of(int type, uint8_t c) { return type == E4M3 ? num_of<e4m3>(c) : num_of<e5m2>(c); }

// The maximum of a warp, by its first lane, to memory.
DEVFN void gather(float* amax, float most) {
  most = warp_max(most);
  if ((threadIdx.x & 31) == 0) atomicMax((unsigned*)amax, __float_as_uint(most));
}

extern "C" __global__ void quantize_clear(float* amax) { *amax = 0.f; }
CUEMU_EXPORT(quantize_clear)

// The greatest magnitude, NaN passed over; *amax holds something not negative before.
extern "C" __global__ void __launch_bounds__(THREADS) quantize_amax(const char* x, int type, long long count, float* amax) {
  float most = 0.f;
  for (long long i = (long long)blockIdx.x * THREADS + threadIdx.x; i < count; i += (long long)gridDim.x * THREADS)
    most = fmaxf(most, fabsf(num_load(x, type, i)));
  gather(amax, most);
}
CUEMU_EXPORT(quantize_amax)

// One scale: from amax alone, or of a history, where the old one stays if amax is 0 or not finite. room = 2^-margin.
extern "C" __global__ void quantize_scale(const float* amax, const float* old, float room, RULE, float* scale) {
  float a = *amax;
  if (!old) *scale = scale_of(TAKE_RULE, a);
  else *scale = a > 0.f && a < INFINITY ? fminf(greatest * room / a, __uint_as_float(0x7f7fffffu)) : *old;
}
CUEMU_EXPORT(quantize_scale)

// What a scale is undone by.
extern "C" __global__ void quantize_back(const float* scale, float* back) { *back = 1.f / *scale; }
CUEMU_EXPORT(quantize_back)

// [rows, columns] with one scale: codes, codes transposed, what is left as f32, the greatest magnitude; each may be null.
// Grid: columns by 64, rows by 64.
extern "C" __global__ void __launch_bounds__(THREADS)
    quantize_scaled(const char* x, int type, int rows, int columns, const float* scale, int format, uint8_t* codes, uint8_t* turned, float* left,
                    float* amax) {
  __shared__ uint8_t tile[64][68];
  float s = *scale, back = 1.f / s, most = 0.f;
  int i0 = blockIdx.y * 64, j0 = blockIdx.x * 64;
  for (int q = threadIdx.x; q < 64 * 64; q += THREADS) {
    int i = i0 + q / 64, j = j0 + q % 64;
    if (i >= rows || j >= columns) continue;
    long long at = (long long)i * columns + j;
    float v = num_load(x, type, at);
    most = fmaxf(most, fabsf(v));
    uint8_t code = code_of(format, v * s);
    if (codes) codes[at] = code;
    if (left) left[at] = value_of(format, code) * back;
    tile[q / 64][q % 64] = code;
  }
  __syncthreads();
  if (turned)
    for (int q = threadIdx.x; q < 64 * 64; q += THREADS) {
      int j = j0 + q / 64, i = i0 + q % 64;
      if (i < rows && j < columns) turned[(long long)j * rows + i] = tile[q % 64][q / 64];
    }
  if (amax) gather(amax, most);
}
CUEMU_EXPORT(quantize_scaled)

// Tiles of high x wide of [outer, rows, columns], TEAM threads each; one thread for tiles one column wide. back: the reciprocals of scales, at
// outer * bands * strips + band * band_far + strip * strip_far. Codes lie as the values or, `turned`, as [outer, columns, rows].
template <int TEAM>
DEVFN void tiles(const char* x, int type, int outer, int rows, int columns, int high, int wide, RULE, int format, uint8_t* codes, uint8_t* turned,
                 float* left, float* back_to, long long band_far, long long strip_far) {
  int bands = (rows + high - 1) / high, strips = (columns + wide - 1) / wide;
  long long all = (long long)outer * bands * strips, t = ((long long)blockIdx.x * THREADS + threadIdx.x) / TEAM;
  if (TEAM < 256 && t >= all) return;
  int me = threadIdx.x % TEAM, strip = (int)(t % strips), band = (int)(t / strips % bands);
  long long matrix = t / strips / bands, start = matrix * rows * columns;
  int i0 = band * high, j0 = strip * wide, h = rows - i0 < high ? rows - i0 : high, w = columns - j0 < wide ? columns - j0 : wide;
  float most = 0.f;
  for (long long v = me; v < (long long)h * w; v += TEAM)
    most = fmaxf(most, fabsf(num_load(x, type, start + (long long)(i0 + (TEAM == 1 ? v : v / w)) * columns + j0 + (TEAM == 1 ? 0 : v % w))));
  if (TEAM == 32) most = warp_max(most);
  if (TEAM == 256) most = block_max<THREADS>(most);
  float s = scale_of(TAKE_RULE, most), back = 1.f / s;
  if (me == 0 && back_to) back_to[matrix * bands * strips + band * band_far + strip * strip_far] = back;
  for (long long v = me; v < (long long)h * w; v += TEAM) {
    // Codes that lie the other way are written along their own lines where one thread is not all.
    bool down = TEAM == 256 && turned && !codes && !left;
    int i = i0 + (int)(TEAM == 1 ? v : down ? v % h : v / w), j = j0 + (int)(TEAM == 1 ? 0 : down ? v / h : v % w);
    long long at = start + (long long)i * columns + j;
    uint8_t code = code_of(format, num_load(x, type, at) * s);
    if (codes) codes[at] = code;
    if (left) left[at] = value_of(format, code) * back;
    if (turned) turned[start + (long long)j * rows + i] = code;
  }
}
#define TILES(name, TEAM)                                                                                                               \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                                 \
      name(const char* x, int type, int outer, int rows, int columns, int high, int wide, RULE, int format, uint8_t* codes,             \
           uint8_t* turned, float* left, float* back, long long band_far, long long strip_far) {                                        \
    tiles<TEAM>(x, type, outer, rows, columns, high, wide, e8m0, power_of_two, epsilon, greatest, format, codes, turned, left, back,    \
                band_far, strip_far);                                                                                                   \
  }
TILES(quantize_tiles_1, 1)
CUEMU_EXPORT(quantize_tiles_1)
TILES(quantize_tiles_32, 32)
CUEMU_EXPORT(quantize_tiles_32)
TILES(quantize_tiles_256, 256)
CUEMU_EXPORT(quantize_tiles_256)

// f32 rounded to bf16, as f32.
extern "C" __global__ void __launch_bounds__(THREADS) round_bf16(const float* x, float* y, long long count) {
  long long i = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (i < count) y[i] = (float)bf16(x[i]);
}
CUEMU_EXPORT(round_bf16)

// Eight neighbours as numbers, and back: in 16 bytes, or twice 16.
template <class T> DEVFN void eight_from(float (&v)[8], const T* x) {
  constexpr int W = 16 / sizeof(T);
#pragma unroll
  for (int h = 0; h < 8 / W; h++) {
    const Vec<T, W> part = load<W>(x + h * W);
#pragma unroll
    for (int k = 0; k < W; k++) v[h * W + k] = (float)part[k];
  }
}
template <class T> DEVFN void eight_to(T* y, const float (&v)[8]) {
  constexpr int W = 16 / sizeof(T);
#pragma unroll
  for (int h = 0; h < 8 / W; h++) {
    Vec<T, W> part;
#pragma unroll
    for (int k = 0; k < W; k++) part[k] = T(v[h * W + k]);
    store<W>(y + h * W, part);
  }
}

// Values one after the other as values of another type, of f32, bf16 and f16: eight a thread, by vectors where both places
// begin at 16 bytes (`even`).
extern "C" __global__ void __launch_bounds__(THREADS) convert_flat(const char* x, int from, char* y, int to, long long count, int even) {
  const long long i = ((long long)blockIdx.x * THREADS + threadIdx.x) * 8;
  float v[8];
  if (even && i + 8 <= count) {
    if (from == F32) eight_from(v, (const float*)x + i);
    else if (from == BF16) eight_from(v, (const bf16*)x + i);
    else eight_from(v, (const f16*)x + i);
    if (to == F32) eight_to((float*)y + i, v);
    else if (to == BF16) eight_to((bf16*)y + i, v);
    else eight_to((f16*)y + i, v);
    return;
  }
  for (int k = 0; k < 8; k++)
    if (i + k < count) num_store(y, to, i + k, num_load(x, from, i + k));
}
CUEMU_EXPORT(convert_flat)

// [outer, inner, rows, columns] of any strides, times a scale or none, as values of another type, the columns together, rows
// `line` apart.
extern "C" __global__ void __launch_bounds__(THREADS)
    convert_rows(const char* x, int from, int outer, int inner, int rows, int columns, long long far_outer, long long far_inner, long long far_row,
                 long long far_col, char* y, int to, long long line, const float* scale) {
  __shared__ float tile[32][33];
  int i0 = blockIdx.y * 32, j0 = blockIdx.x * 32, o = blockIdx.z / inner, n = blockIdx.z % inner;
  float s = scale ? *scale : 1.f;
  const char* base = x + (o * far_outer + n * far_inner) * num_bytes(from);
  // Threads go along whichever dimension stands together.
  bool down = far_row == 1;
  for (int q = threadIdx.x; q < 1024; q += THREADS) {
    int i = down ? q % 32 : q / 32, j = down ? q / 32 : q % 32;
    if (i0 + i < rows && j0 + j < columns) tile[i][j] = num_load(base, from, (i0 + i) * far_row + (j0 + j) * far_col);
  }
  __syncthreads();
  for (int q = threadIdx.x; q < 1024; q += THREADS) {
    int i = q / 32, j = q % 32;
    if (i0 + i < rows && j0 + j < columns) num_store(y, to, ((long long)blockIdx.z * rows + i0 + i) * line + j0 + j, s * tile[i][j]);
  }
}
CUEMU_EXPORT(convert_rows)
