// Rotary embedding: tables of cosines and sines, and the rotation of pairs of features.
//
// rope_table: cos(p w_i) and sin(p w_i) times a factor, for position p and pair i, in double precision (angles of
//   long texts are large); a thread a value of each. Frequencies w come from the host, or follow from the
//   length of the text: a larger base (dynamic), or a second set of them (LongRoPE).
// rope: (a, b) -> (a c - b s, b c + a s), features behind the pairs pass. A row of features has units of 16
//   bytes: a unit is as many pairs (two loads, two stores) or features that pass; a thread a unit.
//   The table's row follows from the row of x through up to four of its dimensions. The result is of a type that the host passes.
// Bound: x read and written; tables are read from L2. Registers 40: full occupancy.
#include "rows.cuh"

// mode 0: `frequencies`; 1: base `theta` stretched by `factor` beyond `original` positions; 2: `frequencies` up to
// `original` positions, `more` beyond. `lengths`: of each position's text, else all are of one text.
extern "C" __global__ void __launch_bounds__(256)
    rope_table(const int* positions, const int* lengths, const double* frequencies, const double* more, float* cosines,
               float* sines, long long count, int half, int mode, const double* numbers) {
  // numbers: factor on cosines and sines, theta, factor of dynamic scaling, original.
  const double by = numbers[0], original = numbers[3];
  double length = 0.0;
  if (mode != 0 && !lengths) {
    int last = -1;
    for (long long i = threadIdx.x; i < count; i += 256) last = positions[i] > last ? positions[i] : last;
    length = (double)block_reduce<256>(last, Max()) + 1.0;
  }
  const long long at = (long long)blockIdx.x * 256 + threadIdx.x;
  if (at >= count * half) return;
  const long long p = at / half;
  const int i = (int)(at % half);
  if (lengths) length = lengths[p];
  double w;
  if (mode == 0) {
    w = frequencies[i];
  } else if (mode == 1) {
    const double dim = 2.0 * half, l = length > original ? length : original;
    const double theta = numbers[1] * pow(numbers[2] * l / original - (numbers[2] - 1.0), dim / (dim - 2.0));
    w = pow(theta, -2.0 * i / dim);
  } else {
    w = (length > original ? more : frequencies)[i];
  }
  const double angle = (double)positions[p] * w;
  cosines[at] = (float)(cos(angle) * by);
  sines[at] = (float)(sin(angle) * by);
}
CUEMU_EXPORT(rope_table)

// For each dimension that the table follows: rows of x from one index to the next, its size, rows of the table.
struct Follow {
  int count;
  long long step[4], size[4], table[4];
};

template <class T>
DEVFN void rope(const T* x, const float* cosines, const float* sines, char* y, int type, long long rows, int features, int half, int interleaved, int inverse,
                const Follow& follow, int even) {
  constexpr int W = Lanes<T>::W;
  // Units of W pairs, then units of W features that pass.
  const int turning = (half + W - 1) / W, passing = (features - 2 * half + W - 1) / W;
  const long long id = (long long)blockIdx.x * 256 + threadIdx.x;
  if (id >= rows * (turning + passing)) return;
  const long long r = id / (turning + passing);
  const int unit = (int)(id - r * (turning + passing));
  const T* from = x + r * features;
  const long long first = r * features;
  float a[W], b[W];
  if (unit >= turning) {
    const int at = 2 * half + (unit - turning) * W;
    read_part<T, W>(a, from, at, features, even, 0.0f);
    write_as<W>(y, type, first, a, at, features, even);
    return;
  }
  long long row = 0;
#pragma unroll
  for (int d = 0; d < 4; d++)
    if (d < follow.count) row += r / follow.step[d] % follow.size[d] * follow.table[d];
  const int i = unit * W;
  float c[W], s[W];
#pragma unroll
  for (int k = 0; k < W; k++) {
    const bool in = i + k < half;
    c[k] = in ? cosines[row * half + i + k] : 0.0f;
    s[k] = in ? sines[row * half + i + k] : 0.0f;
    if (inverse) s[k] = -s[k];
  }
  if (!interleaved) {
    read_part<T, W>(a, from, i, half, even, 0.0f);
    read_part<T, W>(b, from + half, i, half, even, 0.0f);
  } else {
    // 2 W neighbours: pairs side by side.
    float p[W], q[W];
    read_part<T, W>(p, from, 2 * i, 2 * half, even, 0.0f);
    read_part<T, W>(q, from, 2 * i + W, 2 * half, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) {
      a[k] = 2 * k < W ? p[2 * k % W] : q[2 * k % W];
      b[k] = 2 * k < W ? p[(2 * k + 1) % W] : q[(2 * k + 1) % W];
    }
  }
#pragma unroll
  for (int k = 0; k < W; k++) {
    const float x1 = a[k] * c[k] - b[k] * s[k], x2 = b[k] * c[k] + a[k] * s[k];
    a[k] = x1;
    b[k] = x2;
  }
  if (!interleaved) {
    write_as<W>(y, type, first, a, i, half, even);
    write_as<W>(y, type, first + half, b, i, half, even);
  } else {
    float p[W], q[W];
#pragma unroll
    for (int k = 0; k < W; k++) {
      p[k] = k % 2 ? b[k / 2] : a[k / 2];
      q[k] = k % 2 ? b[W / 2 + k / 2] : a[W / 2 + k / 2];
    }
    write_as<W>(y, type, first, p, 2 * i, 2 * half, even);
    write_as<W>(y, type, first, q, 2 * i + W, 2 * half, even);
  }
}

#define ROPE(NAME, T)                                                                                                       \
  extern "C" __global__ void __launch_bounds__(256)                                                                         \
      NAME(const T* x, const float* cosines, const float* sines, char* y, int type, long long rows, int features, int half, \
           int interleaved, int inverse, int even, int count, long long p0, long long n0, long long t0, long long p1,       \
           long long n1, long long t1, long long p2, long long n2, long long t2, long long p3, long long n3, long long t3) {\
    const Follow follow = {count, {p0, p1, p2, p3}, {n0, n1, n2, n3}, {t0, t1, t2, t3}};                                    \
    rope<T>(x, cosines, sines, y, type, rows, features, half, interleaved, inverse, follow, even);                                \
  }
ROPE(rope_f32, float) CUEMU_EXPORT(rope_f32)
ROPE(rope_bf16, bf16) CUEMU_EXPORT(rope_bf16)
ROPE(rope_f16, f16) CUEMU_EXPORT(rope_f16)
