// Copies between strided layouts, along one dimension from a place that is known on the device only,
// into rows of caches, and over the edges of padding.
//
// copy_b{1,2,4,8,16}: a thread an element of that many bytes, in steps of the grid; elements are as wide as
// neighbours and alignment allow (the host chooses), so that contiguous rows move 16 bytes a thread.
// turn_b4: rows that are columns of the source, in tiles of 32 by 32 through shared memory (4.1 KiB, padded
// against bank conflicts), 32 by 8 threads. The others: a thread an element.
// Registers 16 to 40. Bound: one read and one write of every byte.
#include "gpu.cuh"

struct Dims { unsigned n[8]; long long stride[8]; };
struct Strides { long long stride[8]; };

// Copies count elements; d.n from the slowest to the fastest of rank dimensions.
template <class T> static __device__ __forceinline__ void copy(const T* x, T* y, unsigned count, int rank, const Dims& d, const Strides& to) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    unsigned rest = i;
    long long a = 0, b = 0;
    for (int k = rank - 1; k > 0; k--) {
      unsigned q = rest / d.n[k], r = rest - q * d.n[k];
      a += r * d.stride[k];
      b += r * to.stride[k];
      rest = q;
    }
    y[b + rest * to.stride[0]] = x[a + rest * d.stride[0]];
  }
}
#define COPY(name, T) \
  extern "C" __global__ void __launch_bounds__(256) name(const T* x, T* y, unsigned count, int rank, const __grid_constant__ Dims d, const __grid_constant__ Strides to) { copy(x, y, count, rank, d, to); }
COPY(copy_b1, unsigned char)
COPY(copy_b2, unsigned short)
COPY(copy_b4, unsigned)
COPY(copy_b8, uint2)
COPY(copy_b16, uint4)
CUEMU_EXPORT(copy_b1)
CUEMU_EXPORT(copy_b2)
CUEMU_EXPORT(copy_b4)
CUEMU_EXPORT(copy_b8)
CUEMU_EXPORT(copy_b16)

// y[r][c] = x[r + c * across] for rows by columns, blockIdx.z counts the outer dimension.
extern "C" __global__ void __launch_bounds__(256) turn_b4(const unsigned* x, unsigned* y, unsigned rows, unsigned columns, long long across, long long outer_x, long long outer_y, long long row_y) {
  __shared__ unsigned tile[32][33];
  x += blockIdx.z * outer_x;
  y += blockIdx.z * outer_y;
  unsigned r0 = blockIdx.x * 32, c0 = blockIdx.y * 32;
  for (unsigned k = threadIdx.y; k < 32; k += 8)
    if (r0 + threadIdx.x < rows && c0 + k < columns) tile[k][threadIdx.x] = x[r0 + threadIdx.x + (c0 + k) * across];
  __syncthreads();
  for (unsigned k = threadIdx.y; k < 32; k += 8)
    if (r0 + k < rows && c0 + threadIdx.x < columns) y[(r0 + k) * row_y + c0 + threadIdx.x] = tile[threadIdx.x][k];
}
CUEMU_EXPORT(turn_b4)

// Notes a value that was refused; the host asks when all has run.
static __device__ __forceinline__ void refuse(int* found, int a, int b) {
  found[1] = a;
  found[2] = b;
  found[0] = 1;
}

// Rows of block values to or from position *start of rows of n positions; inner values a position.
template <class T> static __device__ __forceinline__ void move(const T* x, T* y, const int* start, int* found, unsigned outer, unsigned n, unsigned length, unsigned inner, int into) {
  int s = *start;
  if (s < 0 || (unsigned long long)s + length > n) {
    if (blockIdx.x == 0 && threadIdx.x == 0) refuse(found, s, 0);
    return;
  }
  unsigned row = length * inner, count = outer * row;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    unsigned o = i / row;
    size_t at = ((size_t)o * n + s) * inner + (i - o * row);
    if (into) y[at] = x[i]; else y[i] = x[at];
  }
}
#define MOVE(name, T) \
  extern "C" __global__ void __launch_bounds__(256) name(const T* x, T* y, const int* start, int* found, unsigned outer, unsigned n, unsigned length, unsigned inner, int into) { move(x, y, start, found, outer, n, length, inner, into); }
MOVE(move_b1, unsigned char)
MOVE(move_b4, unsigned)
CUEMU_EXPORT(move_b1)
CUEMU_EXPORT(move_b4)

// The first count[b] of t entries of block[b] into y[b] from slot start[b] on; blockIdx.y is b.
extern "C" __global__ void __launch_bounds__(256) write_rows_b4(const unsigned* block, unsigned* y, const int* start, const int* count, int* found, unsigned t, unsigned slots, unsigned inner, int wrap) {
  unsigned b = blockIdx.y;
  int s = start[b], c = count[b];
  bool fits = s >= 0 && c >= 0 && (unsigned)c <= t && (c == 0 || (slots > 0 && (wrap || (unsigned long long)s + c <= slots)));
  if (!fits) {
    if (blockIdx.x == 0 && threadIdx.x == 0) refuse(found, s, c);
    return;
  }
  // Of more entries than slots the last ones stay.
  unsigned first = (unsigned)c > slots ? c - slots : 0, values = (c - first) * inner;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < values; i += gridDim.x * blockDim.x) {
    unsigned e = first + i / inner;
    unsigned slot = (unsigned)(((unsigned long long)s + e) % slots);
    y[((size_t)b * slots + slot) * inner + i % inner] = block[((size_t)b * t + e) * inner + i % inner];
  }
}
CUEMU_EXPORT(write_rows_b4)

// Rows of n positions from `before` before them to m in all. mode 1 mirrors, 2 repeats the edge, 3 goes round.
template <class T> static __device__ __forceinline__ void pad(const T* x, T* y, unsigned count, unsigned n, unsigned m, unsigned inner, int before, int mode) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    unsigned o = i / (m * inner), rest = i - o * (m * inner);
    long long p = (long long)(rest / inner) - before, last = (long long)n - 1;
    if (mode == 1) p = p < 0 ? -p : p > last ? 2 * last - p : p;
    if (mode == 2) p = p < 0 ? 0 : p > last ? last : p;
    if (mode == 3) p = (p % (long long)n + n) % n;
    y[i] = x[((size_t)o * n + p) * inner + rest % inner];
  }
}
#define PAD(name, T) \
  extern "C" __global__ void __launch_bounds__(256) name(const T* x, T* y, unsigned count, unsigned n, unsigned m, unsigned inner, int before, int mode) { pad(x, y, count, n, m, inner, before, mode); }
PAD(pad_b1, unsigned char)
PAD(pad_b4, unsigned)
CUEMU_EXPORT(pad_b1)
CUEMU_EXPORT(pad_b4)

// y = value everywhere.
extern "C" __global__ void __launch_bounds__(256) fill_b4(unsigned* y, unsigned value, unsigned count) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) y[i] = value;
}
CUEMU_EXPORT(fill_b4)
