// Layer and RMS norm of rows, forward and backward; a residual may be added first. Forward, weights are f32 and the result is of a
// type that the host passes, so that rounding to 16 bits takes no pass of its own.
//
// y = (x - mean) r w + b with r = 1 / sqrt(var + eps); RMS norm without the mean and with mean(x^2).
// gx = r (d - mean(d) - xhat mean(d xhat)), d = g w (RMS norm without mean(d)); gw = sum g xhat, gb = sum g.
// The row stays in registers (rows.cuh: g8, w1, w4, b4, c4 and c8 a block of 512), so that mean and
// variance are taken one after the other and the row is read once. `s`, a block of 512 for longer rows,
// joins means and variances of vectors (Chan et al. 1979) in a first pass and reads the row again from L2.
// Backward keeps sums of gw and gb of its columns in registers over all rows of a block, which walks through
// rows in steps of the grid; each group of threads leaves one partial row, which `reduce.cu` adds up. Longer
// rows leave mean and r, and `columns` makes partial rows of them.
// Bound: 8 bytes a value forward (16 with the residual), 12 backward. Registers: 26 to 48 forward, up to 108
// backward (b4, c4: two blocks of 256 or one of 512 a multiprocessor, 64 KiB under way).
#include "rows.cuh"

template <int G, int V, int W> DEVFN void statistics(const float (&a)[V][W], int t, int n, float eps, int centred, float& mean, float& r) {
  float s = 0.0f;
  if (centred) {
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
      for (int k = 0; k < W; k++) s += a[v][k];
    s = row_sum<G>(s);
  }
  mean = s / (float)n;
  float q = 0.0f;
#pragma unroll
  for (int v = 0; v < V; v++)
#pragma unroll
    for (int k = 0; k < W; k++) {
      float d = (v * G + t) * W + k < n ? a[v][k] - mean : 0.0f;
      q += d * d;
    }
  r = 1.0f / sqrtf(row_sum<G>(q) / (float)n + eps);
}

// Count, mean and sum of squared distances from it.
struct Moments {
  float n, mean, m2;
  __device__ __forceinline__ void join(Moments o) {
    float sum = n + o.n;
    if (o.n == 0.0f) return;
    float d = o.mean - mean, part = o.n / sum;
    m2 += o.m2 + d * d * n * part;
    mean += d * part;
    n = sum;
  }
  template <int W> __device__ __forceinline__ void add(const float (&x)[W], int count) {
    Moments o = {(float)count, 0.0f, 0.0f};
#pragma unroll
    for (int k = 0; k < W; k++) o.mean += k < count ? x[k] : 0.0f;
    o.mean /= o.n;
#pragma unroll
    for (int k = 0; k < W; k++) o.m2 += k < count ? (x[k] - o.mean) * (x[k] - o.mean) : 0.0f;
    join(o);
  }
};

// Mean and r of a long row, by a block.
template <class T, int THREADS> DEVFN void stream_statistics(const T* row, const T* more, T* sums, int n, float eps, int centred, int even, float& mean, float& r) {
  constexpr int W = Lanes<T>::W;
  Moments own = {0.0f, 0.0f, 0.0f};
  float q = 0.0f;
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W];
    read_part<T, W>(a, row, at, n, even, 0.0f);
    if (more) {
      float b[W];
      read_part<T, W>(b, more, at, n, even, 0.0f);
#pragma unroll
      for (int k = 0; k < W; k++) a[k] += b[k];
      write_part<T, W>(sums, a, at, n, even);
    }
    if (centred) {
      own.add(a, n - at < W ? n - at : W);
    } else {
#pragma unroll
      for (int k = 0; k < W; k++) q += a[k] * a[k];
    }
  }
  if (!centred) {
    mean = 0.0f;
    r = 1.0f / sqrtf(row_sum<THREADS>(q) / (float)n + eps);
    return;
  }
#pragma unroll
  for (int d = 16; d; d >>= 1) {
    // The lower lane first in both, so that all lanes have the same bits.
    Moments o = {__shfl_xor_sync(~0u, own.n, d), __shfl_xor_sync(~0u, own.mean, d), __shfl_xor_sync(~0u, own.m2, d)};
    Moments low = threadIdx.x & d ? o : own, high = threadIdx.x & d ? own : o;
    if (low.n == 0.0f) low = high;
    else low.join(high);
    own = low;
  }
  __shared__ Moments part[THREADS / 32];
  __syncthreads();
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = own;
  __syncthreads();
  own = part[0];
  for (int w = 1; w < THREADS / 32; w++) own.join(part[w]);
  mean = own.mean;
  r = 1.0f / sqrtf(own.m2 / (float)n + eps);
}

template <class T, int G, int V, int THREADS>
DEVFN void norm_rows(const T* x, const T* more, const float* w, const float* b, T* sums, char* y, int to, long long rows, int n, float eps, int centred, int even) {
  constexpr int W = Lanes<T>::W;
  const long long r = (long long)blockIdx.x * (THREADS / G) + threadIdx.x / G;
  const int t = threadIdx.x % G, len = r < rows ? n : 0;
  const long long at = (r < rows ? r : 0) * n;
  float a[V][W];
  read_row<T, G, V, W>(a, x + at, t, len, even, 0.0f);
  if (more) {
    float c[V][W];
    read_row<T, G, V, W>(c, more + at, t, len, even, 0.0f);
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
      for (int k = 0; k < W; k++) a[v][k] += c[v][k];
    if (r < rows) write_row<T, G, V, W>(sums + at, a, t, len, even);
  }
  float mean, scale;
  statistics<G, V, W>(a, t, n, eps, centred, mean, scale);
#pragma unroll
  for (int v = 0; v < V; v++) {
    float p[W], q[W];
    const int i = (v * G + t) * W;
    if (w) read_wide<float, W>(p, w, i, len, even, 0.0f);
    if (b) read_wide<float, W>(q, b, i, len, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) {
      a[v][k] = (a[v][k] - mean) * scale;
      if (w) a[v][k] *= p[k];
      if (b) a[v][k] += q[k];
    }
    if (r < rows) write_as<W>(y, to, at, a[v], i, len, even);
  }
}

template <class T, int THREADS>
DEVFN void norm_stream(const T* x, const T* more, const float* w, const float* b, T* sums, char* y, int to, int n, float eps, int centred, int even) {
  constexpr int W = Lanes<T>::W;
  const long long first = (long long)blockIdx.x * n;
  float mean, r;
  stream_statistics<T, THREADS>(x + first, more ? more + first : nullptr, more ? sums + first : nullptr, n, eps, centred, even, mean, r);
  const T* from = more ? sums : x;
  // Each thread reads what it wrote itself.
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W], p[W], q[W];
    read_part<T, W>(a, from + first, at, n, even, 0.0f);
    if (w) read_wide<float, W>(p, w, at, n, even, 0.0f);
    if (b) read_wide<float, W>(q, b, at, n, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) {
      a[k] = (a[k] - mean) * r;
      if (w) a[k] *= p[k];
      if (b) a[k] += q[k];
    }
    write_as<W>(y, to, first, a, at, n, even);
  }
}

// Partial rows of gw and gb: one for each group of threads of the grid. PARAMETERS: whether they are wanted.
template <class T, int G, int V, int THREADS, bool PARAMETERS>
DEVFN void norm_rows_back(const T* x, const T* w, const T* g, T* gx, float* gw, float* gb, long long rows, int n, float eps, int centred, int even) {
  constexpr int W = Lanes<T>::W, ROWS = THREADS / G;
  const int t = threadIdx.x % G;
  float sw[V][W], sb[V][W];
  if (PARAMETERS) {
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
      for (int k = 0; k < W; k++) sw[v][k] = sb[v][k] = 0.0f;
  }
  // All threads go round as often, for the barriers of sums.
  for (long long first = (long long)blockIdx.x * ROWS; first < rows; first += (long long)gridDim.x * ROWS) {
    const long long r = first + threadIdx.x / G;
    const int len = r < rows ? n : 0;
    const long long at = (r < rows ? r : 0) * n;
    float a[V][W], d[V][W];
    read_row<T, G, V, W>(a, x + at, t, len, even, 0.0f);
    read_row<T, G, V, W>(d, g + at, t, len, even, 0.0f);
    float mean, scale;
    statistics<G, V, W>(a, t, n, eps, centred, mean, scale);
    float total = 0.0f, dot = 0.0f;
#pragma unroll
    for (int v = 0; v < V; v++) {
      float p[W];
      if (w) read_part<T, W>(p, w, (v * G + t) * W, len, even, 0.0f);
#pragma unroll
      for (int k = 0; k < W; k++) {
        a[v][k] = (v * G + t) * W + k < len ? (a[v][k] - mean) * scale : 0.0f;
        if (PARAMETERS) {
          sw[v][k] += d[v][k] * a[v][k];
          sb[v][k] += d[v][k];
        }
        if (w) d[v][k] *= p[k];
        total += d[v][k];
        dot += d[v][k] * a[v][k];
      }
    }
    total = centred ? row_sum<G>(total) / (float)n : 0.0f;
    dot = row_sum<G>(dot) / (float)n;
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
      for (int k = 0; k < W; k++) d[v][k] = scale * (d[v][k] - total - a[v][k] * dot);
    if (r < rows) write_row<T, G, V, W>(gx + at, d, t, len, even);
  }
  if (PARAMETERS) {
    const long long at = ((long long)blockIdx.x * ROWS + threadIdx.x / G) * n;
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
      for (int k = 0; k < W; k++) {
        const int i = (v * G + t) * W + k;
        if (gw && i < n) gw[at + i] = sw[v][k];
        if (gb && i < n) gb[at + i] = sb[v][k];
      }
  }
}

template <class T, int THREADS>
DEVFN void norm_stream_back(const T* x, const T* w, const T* g, T* gx, float* stats, int n, float eps, int centred, int even) {
  constexpr int W = Lanes<T>::W;
  const long long first = (long long)blockIdx.x * n;
  float mean, r;
  stream_statistics<T, THREADS>(x + first, nullptr, nullptr, n, eps, centred, even, mean, r);
  if (stats && threadIdx.x == 0) {
    stats[blockIdx.x * 2ll] = mean;
    stats[blockIdx.x * 2ll + 1] = r;
  }
  float total = 0.0f, dot = 0.0f;
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W], d[W], p[W];
    read_part<T, W>(a, x + first, at, n, even, mean);
    read_part<T, W>(d, g + first, at, n, even, 0.0f);
    if (w) read_part<T, W>(p, w, at, n, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) {
      if (w) d[k] *= p[k];
      total += d[k];
      dot += d[k] * (a[k] - mean);
    }
  }
  total = centred ? row_sum<THREADS>(total) / (float)n : 0.0f;
  dot = row_sum<THREADS>(dot) * r / (float)n;
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W], d[W], p[W];
    read_part<T, W>(a, x + first, at, n, even, 0.0f);
    read_part<T, W>(d, g + first, at, n, even, 0.0f);
    if (w) read_part<T, W>(p, w, at, n, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) {
      if (w) d[k] *= p[k];
      d[k] = r * (d[k] - total - (a[k] - mean) * r * dot);
    }
    write_part<T, W>(gx + first, d, at, n, even);
  }
}

// Partial rows of gw and gb from means and scales: block (columns, part), a thread a column.
template <class T> DEVFN void norm_columns(const T* x, const T* g, const float* stats, float* gw, float* gb, long long rows, int n, int blocks, long long part) {
  const long long c = (long long)(blockIdx.x % blocks) * 256 + threadIdx.x, p = blockIdx.x / blocks;
  if (c >= n) return;
  const long long end = (p + 1) * part < rows ? (p + 1) * part : rows;
  float sw = 0.0f, sb = 0.0f;
#pragma unroll 4
  for (long long r = p * part; r < end; r++) {
    const float d = (float)g[r * n + c];
    sw += d * ((float)x[r * n + c] - stats[2 * r]) * stats[2 * r + 1];
    sb += d;
  }
  if (gw) gw[p * n + c] = sw;
  if (gb) gb[p * n + c] = sb;
}

#define FORWARD(NAME, T, G, V, THREADS)                                                                                 \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
      NAME(const T* x, const T* more, const float* w, const float* b, T* sums, char* y, int to, long long rows, int n,  \
           float eps, int centred, int even) {                                                                          \
    norm_rows<T, G, V, THREADS>(x, more, w, b, sums, y, to, rows, n, eps, centred, even);                               \
  }
#define BACKWARD(NAME, T, G, V, THREADS, PARAMETERS)                                                                    \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                                 \
      NAME(const T* x, const T* w, const T* g, T* gx, float* gw, float* gb, long long rows, int n, float eps,           \
           int centred, int even) {                                                                                     \
    norm_rows_back<T, G, V, THREADS, PARAMETERS>(x, w, g, gx, gw, gb, rows, n, eps, centred, even);                     \
  }
#define STREAM(NAME, BACK, COLUMNS, T)                                                                                  \
  extern "C" __global__ void __launch_bounds__(512)                                                                     \
      NAME(const T* x, const T* more, const float* w, const float* b, T* sums, char* y, int to, long long rows, int n,  \
           float eps, int centred, int even) {                                                                          \
    norm_stream<T, 512>(x, more, w, b, sums, y, to, n, eps, centred, even);                                             \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(512)                                                                     \
      BACK(const T* x, const T* w, const T* g, T* gx, float* stats, int n, float eps, int centred, int even) {          \
    norm_stream_back<T, 512>(x, w, g, gx, stats, n, eps, centred, even);                                                \
  }                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(256)                                                                     \
      COLUMNS(const T* x, const T* g, const float* stats, float* gw, float* gb, long long rows, int n, int blocks,      \
              long long part) {                                                                                         \
    norm_columns<T>(x, g, stats, gw, gb, rows, n, blocks, part);                                                        \
  }

FORWARD(norm_f32_g8, float, 8, 1, 256) CUEMU_EXPORT(norm_f32_g8)
FORWARD(norm_f32_w1, float, 32, 1, 256) CUEMU_EXPORT(norm_f32_w1)
FORWARD(norm_f32_w4, float, 32, 4, 256) CUEMU_EXPORT(norm_f32_w4)
FORWARD(norm_f32_b4, float, 256, 4, 256) CUEMU_EXPORT(norm_f32_b4)
FORWARD(norm_f32_c8, float, 512, 8, 512) CUEMU_EXPORT(norm_f32_c8)
BACKWARD(norm_back_f32_g8, float, 8, 1, 256, true) CUEMU_EXPORT(norm_back_f32_g8)
BACKWARD(norm_data_f32_g8, float, 8, 1, 256, false) CUEMU_EXPORT(norm_data_f32_g8)
BACKWARD(norm_back_f32_w1, float, 32, 1, 256, true) CUEMU_EXPORT(norm_back_f32_w1)
BACKWARD(norm_data_f32_w1, float, 32, 1, 256, false) CUEMU_EXPORT(norm_data_f32_w1)
BACKWARD(norm_back_f32_w4, float, 32, 4, 256, true) CUEMU_EXPORT(norm_back_f32_w4)
BACKWARD(norm_data_f32_w4, float, 32, 4, 256, false) CUEMU_EXPORT(norm_data_f32_w4)
BACKWARD(norm_back_f32_b4, float, 256, 4, 256, true) CUEMU_EXPORT(norm_back_f32_b4)
BACKWARD(norm_data_f32_b4, float, 256, 4, 256, false) CUEMU_EXPORT(norm_data_f32_b4)
BACKWARD(norm_back_f32_c4, float, 512, 4, 512, true) CUEMU_EXPORT(norm_back_f32_c4)
BACKWARD(norm_data_f32_c4, float, 512, 4, 512, false) CUEMU_EXPORT(norm_data_f32_c4)
STREAM(norm_f32_s, norm_back_f32_s, norm_columns_f32_s, float)
CUEMU_EXPORT(norm_f32_s) CUEMU_EXPORT(norm_back_f32_s) CUEMU_EXPORT(norm_columns_f32_s)

FORWARD(norm_bf16_g8, bf16, 8, 1, 256) CUEMU_EXPORT(norm_bf16_g8)
FORWARD(norm_bf16_w1, bf16, 32, 1, 256) CUEMU_EXPORT(norm_bf16_w1)
FORWARD(norm_bf16_w4, bf16, 32, 4, 256) CUEMU_EXPORT(norm_bf16_w4)
FORWARD(norm_bf16_b4, bf16, 256, 4, 256) CUEMU_EXPORT(norm_bf16_b4)
BACKWARD(norm_back_bf16_g8, bf16, 8, 1, 256, true) CUEMU_EXPORT(norm_back_bf16_g8)
BACKWARD(norm_data_bf16_g8, bf16, 8, 1, 256, false) CUEMU_EXPORT(norm_data_bf16_g8)
BACKWARD(norm_back_bf16_w1, bf16, 32, 1, 256, true) CUEMU_EXPORT(norm_back_bf16_w1)
BACKWARD(norm_data_bf16_w1, bf16, 32, 1, 256, false) CUEMU_EXPORT(norm_data_bf16_w1)
BACKWARD(norm_back_bf16_w2, bf16, 32, 2, 256, true) CUEMU_EXPORT(norm_back_bf16_w2)
BACKWARD(norm_data_bf16_w2, bf16, 32, 2, 256, false) CUEMU_EXPORT(norm_data_bf16_w2)
BACKWARD(norm_back_bf16_b2, bf16, 256, 2, 256, true) CUEMU_EXPORT(norm_back_bf16_b2)
BACKWARD(norm_data_bf16_b2, bf16, 256, 2, 256, false) CUEMU_EXPORT(norm_data_bf16_b2)
BACKWARD(norm_back_bf16_c2, bf16, 512, 2, 512, true) CUEMU_EXPORT(norm_back_bf16_c2)
BACKWARD(norm_data_bf16_c2, bf16, 512, 2, 512, false) CUEMU_EXPORT(norm_data_bf16_c2)
STREAM(norm_bf16_s, norm_back_bf16_s, norm_columns_bf16_s, bf16)
CUEMU_EXPORT(norm_bf16_s) CUEMU_EXPORT(norm_back_bf16_s) CUEMU_EXPORT(norm_columns_bf16_s)

FORWARD(norm_f16_g8, f16, 8, 1, 256) CUEMU_EXPORT(norm_f16_g8)
FORWARD(norm_f16_w1, f16, 32, 1, 256) CUEMU_EXPORT(norm_f16_w1)
FORWARD(norm_f16_w4, f16, 32, 4, 256) CUEMU_EXPORT(norm_f16_w4)
FORWARD(norm_f16_b4, f16, 256, 4, 256) CUEMU_EXPORT(norm_f16_b4)
BACKWARD(norm_back_f16_g8, f16, 8, 1, 256, true) CUEMU_EXPORT(norm_back_f16_g8)
BACKWARD(norm_data_f16_g8, f16, 8, 1, 256, false) CUEMU_EXPORT(norm_data_f16_g8)
BACKWARD(norm_back_f16_w1, f16, 32, 1, 256, true) CUEMU_EXPORT(norm_back_f16_w1)
BACKWARD(norm_data_f16_w1, f16, 32, 1, 256, false) CUEMU_EXPORT(norm_data_f16_w1)
BACKWARD(norm_back_f16_w2, f16, 32, 2, 256, true) CUEMU_EXPORT(norm_back_f16_w2)
BACKWARD(norm_data_f16_w2, f16, 32, 2, 256, false) CUEMU_EXPORT(norm_data_f16_w2)
BACKWARD(norm_back_f16_b2, f16, 256, 2, 256, true) CUEMU_EXPORT(norm_back_f16_b2)
BACKWARD(norm_data_f16_b2, f16, 256, 2, 256, false) CUEMU_EXPORT(norm_data_f16_b2)
BACKWARD(norm_back_f16_c2, f16, 512, 2, 512, true) CUEMU_EXPORT(norm_back_f16_c2)
BACKWARD(norm_data_f16_c2, f16, 512, 2, 512, false) CUEMU_EXPORT(norm_data_f16_c2)
STREAM(norm_f16_s, norm_back_f16_s, norm_columns_f16_s, f16)
CUEMU_EXPORT(norm_f16_s) CUEMU_EXPORT(norm_back_f16_s) CUEMU_EXPORT(norm_columns_f16_s)

