// Values picked by indices, and values added by indices in one order.
//
// take: y[o, j, i] = x[o, ids[j], i]; a unit is 1, 4 or 16 bytes, a thread a unit, neighbours side by side.
// gather: y[o, j, i] = x[o, ids[o, j, i], i].
// add_lines: y[o, ids[o, j, i], i] += s[o, j, i], a thread a line (o, i), j after j: for few additions.
// add_sorted: y[o, ids[j], i] += s[o, j, i] for many: ids come sorted with the places they came from; a block adds
//   a chunk of 32 of them for 256 columns (o, i). What meets within a chunk is written at once; sums that
//   reach into a chunk or out of it go to `heads` and `tails`, and add_joined adds those of one index up in
//   the order of chunks. Each order is fixed by the indices: the same in every run.
// embedding: rows of 16-bit tables as f32, 8 values a thread.
// A wrong index is noted (status.cuh) and taken as 0. Bound: bytes read and written; full occupancy.
#include "status.cuh"
#include "warp.cuh"

DEVFN void split(long long n, long long d, long long& q, long long& r) {
  if ((n | d) >> 31 == 0) {
    q = (unsigned)n / (unsigned)d;
    r = (unsigned)n % (unsigned)d;
  } else {
    q = n / d;
    r = n % d;
  }
}

template <class T> DEVFN void take(const T* x, const int* ids, T* y, long long total, int n, int picks, long long inner, int what, int* status) {
  const long long at = (long long)blockIdx.x * 256 + threadIdx.x;
  if (at >= total) return;
  long long row, i, o, j;
  split(at, inner, row, i);
  split(row, picks, o, j);
  y[at] = x[(o * n + checked(status, what, ids[j], n)) * inner + i];
}
template <class T> DEVFN void gather(const T* x, const int* ids, T* y, long long total, int n, int picks, long long inner, int* status) {
  const long long at = (long long)blockIdx.x * 256 + threadIdx.x;
  if (at >= total) return;
  long long row, i, o, j;
  split(at, inner, row, i);
  split(row, picks, o, j);
  y[at] = x[(o * n + checked(status, STATUS_INDEX, ids[at], n)) * inner + i];
}

#define TAKE(NAME, T)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256) NAME(const T* x, const int* ids, T* y, long long total, int n, \
                                                         int picks, long long inner, int what, int* status) {      \
    take<T>(x, ids, y, total, n, picks, inner, what, status);                                                      \
  }
TAKE(take_1, unsigned char) CUEMU_EXPORT(take_1)
TAKE(take_4, uint32_t) CUEMU_EXPORT(take_4)
TAKE(take_16, uint4) CUEMU_EXPORT(take_16)

#define GATHER(NAME, T)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256) NAME(const T* x, const int* ids, T* y, long long total, int n, \
                                                         int picks, long long inner, int* status) {                \
    gather<T>(x, ids, y, total, n, picks, inner, status);                                                          \
  }
GATHER(gather_1, unsigned char) CUEMU_EXPORT(gather_1)
GATHER(gather_4, uint32_t) CUEMU_EXPORT(gather_4)

template <class T> DEVFN void embedding(const T* table, const int* ids, float* y, long long total, int n, int width, int* status) {
  const long long at = ((long long)blockIdx.x * 256 + threadIdx.x) * 8;
  if (at >= total) return;
  long long row, i;
  split(at, width, row, i);
  Vec<T, 8> v = load<8>(table + (long long)checked(status, STATUS_ROW, ids[row], n) * width + i);
  Vec<float, 4> a, b;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    a[k] = (float)v[k];
    b[k] = (float)v[k + 4];
  }
  store<4>(y + at, a);
  store<4>(y + at + 4, b);
}
extern "C" __global__ void __launch_bounds__(256)
    embedding_bf16(const bf16* table, const int* ids, float* y, long long total, int n, int width, int* status) {
  embedding(table, ids, y, total, n, width, status);
}
CUEMU_EXPORT(embedding_bf16)
extern "C" __global__ void __launch_bounds__(256)
    embedding_f16(const f16* table, const int* ids, float* y, long long total, int n, int width, int* status) {
  embedding(table, ids, y, total, n, width, status);
}
CUEMU_EXPORT(embedding_f16)

// `each`: whether every (o, j, i) has an index of its own, else one for each j.
extern "C" __global__ void __launch_bounds__(256)
    add_lines_f32(const int* ids, const float* s, float* y, long long lines, int n, int picks, long long inner, int each, int what, int* status) {
  const long long line = (long long)blockIdx.x * 256 + threadIdx.x;
  if (line >= lines) return;
  long long o, i;
  split(line, inner, o, i);
  const float* from = s + o * picks * inner + i;
  const int* own = each ? ids + o * picks * inner + i : ids;
  float* to = y + o * n * inner + i;
  for (int j = 0; j < picks; j++) {
    const int id = checked(status, what, own[each ? j * inner : j], n);
    to[id * inner] += from[j * inner];
  }
}
CUEMU_EXPORT(add_lines_f32)

// Sorted `ids` came from `places`. Block: chunk of 32 by 256 columns.
extern "C" __global__ void __launch_bounds__(256)
    add_sorted_f32(const int* ids, const int* places, const float* s, float* y, float* heads, float* tails, long long columns, int n, int picks,
                   long long inner, int chunks, int what, int* status) {
  const int chunk = blockIdx.x % chunks;
  const long long c = (long long)(blockIdx.x / chunks) * 256 + threadIdx.x;
  if (c >= columns) return;
  long long o, i;
  split(c, inner, o, i);
  const int first = chunk * 32, end = first + 32 < picks ? first + 32 : picks;
  bool whole = first == 0 || ids[first - 1] != ids[first];
  float sum = 0.0f;
  for (int e = first; e < end; e++) {
    const int id = ids[e];
    sum += s[(o * picks + places[e]) * inner + i];
    const bool last = e + 1 == picks || ids[e + 1] != id;
    if (!last && e + 1 < end) continue;
    // An index that reaches in from the chunk before leaves its sum there to be fetched.
    if (!whole) heads[chunk * columns + c] = sum;
    else if (!last) tails[chunk * columns + c] = sum;
    else y[(o * n + checked(status, what, id, n)) * inner + i] += sum;
    whole = true;
    sum = 0.0f;
  }
}
CUEMU_EXPORT(add_sorted_f32)

extern "C" __global__ void __launch_bounds__(256)
    add_joined_f32(const int* ids, float* y, const float* heads, const float* tails, long long columns, int n, int picks, long long inner, int chunks,
                   int what, int* status) {
  const int chunk = blockIdx.x % chunks, end = (chunk + 1) * 32;
  const long long c = (long long)(blockIdx.x / chunks) * 256 + threadIdx.x;
  // Only chunks with a sum that reaches out and began in them.
  if (c >= columns || end >= picks || ids[end - 1] != ids[end]) return;
  const int id = ids[end - 1];
  if (ids[chunk * 32] == id && chunk > 0 && ids[chunk * 32 - 1] == id) return;
  long long o, i;
  split(c, inner, o, i);
  float sum = tails[chunk * columns + c];
  for (int k = chunk + 1; k < chunks && ids[k * 32] == id; k++) sum += heads[k * columns + c];
  y[(o * n + checked(status, what, id, n)) * inner + i] += sum;
}
CUEMU_EXPORT(add_joined_f32)
