// Softmax and log-softmax of rows, and their gradients; along a dimension that is not the last, of columns.
//
// y = exp(x - max) / sum, or x - max - log(sum). A row that is -inf everywhere gives 0, or -inf; NaN spreads.
// gx = y (g - sum(g y)), or g - exp(y) sum(g).
// Rows: the row stays in registers (rows.cuh), so it is read once and written once. G threads a row:
//   g8 8 threads of 1 vector (32 floats), w1 and w4 a warp of 1 and 4 vectors, b4 a block of 256 threads of 4,
//   x4 a block of 1024 of 4 (16384 floats); s a block of 512 that reads the row twice, the second time from L2.
// Columns: a thread a column, neighbours side by side, online in one pass, written in a second.
// Bound: 8 bytes a value forward, 12 backward. Registers: 18 (g8) to 48 (backward x4); at 64 warps by 64
// bytes (w4) 128 KiB are under way per multiprocessor.
#include "rows.cuh"

template <class T, int G, int V, int THREADS>
DEVFN void softmax_rows(const T* x, T* y, long long rows, int n, int log, int even) {
  constexpr int W = Lanes<T>::W, ROWS = THREADS / G;
  long long r = (long long)blockIdx.x * ROWS + threadIdx.x / G;
  const int t = threadIdx.x % G;
  // Threads without a row keep the others company in shuffles.
  const int len = r < rows ? n : 0;
  const T* row = x + (r < rows ? r : 0) * n;
  float a[V][W];
  read_row<T, G, V, W>(a, row, t, len, even, -INFINITY);
  float m = -INFINITY;
#pragma unroll
  for (int v = 0; v < V; v++)
#pragma unroll
    for (int k = 0; k < W; k++) m = fmaxf(m, a[v][k]);
  m = row_max<G>(m);
  const float shift = m == -INFINITY ? 0.0f : m;
  float s = 0.0f;
#pragma unroll
  for (int v = 0; v < V; v++)
#pragma unroll
    for (int k = 0; k < W; k++) {
      float e = expf(a[v][k] - shift);
      s += e;
      a[v][k] = log ? a[v][k] : e;
    }
  s = row_sum<G>(s);
  const float by = s == 0.0f ? 0.0f : 1.0f / s, less = shift + logf(s);
#pragma unroll
  for (int v = 0; v < V; v++)
#pragma unroll
    for (int k = 0; k < W; k++) a[v][k] = !log ? a[v][k] * by : s == 0.0f ? -INFINITY : a[v][k] - less;
  if (r < rows) write_row<T, G, V, W>(y + r * n, a, t, len, even);
}

template <class T, int THREADS> DEVFN void softmax_stream(const T* x, T* y, long long rows, int n, int log, int even) {
  constexpr int W = Lanes<T>::W;
  const T* row = x + (long long)blockIdx.x * n;
  T* out = y + (long long)blockIdx.x * n;
  MaxSum own = {-INFINITY, 0.0f};
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W];
    read_part<T, W>(a, row, at, n, even, -INFINITY);
    own.add(a);
  }
  const MaxSum all = row_join<THREADS>(own);
  const float shift = all.shift(), by = all.sum == 0.0f ? 0.0f : 1.0f / all.sum, less = shift + logf(all.sum);
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W];
    read_part<T, W>(a, row, at, n, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) a[k] = !log ? expf(a[k] - shift) * by : all.sum == 0.0f ? -INFINITY : a[k] - less;
    write_part<T, W>(out, a, at, n, even);
  }
}

template <class T, int G, int V, int THREADS>
DEVFN void softmax_rows_back(const T* y, const T* g, T* gx, long long rows, int n, int log, int even) {
  constexpr int W = Lanes<T>::W, ROWS = THREADS / G;
  long long r = (long long)blockIdx.x * ROWS + threadIdx.x / G;
  const int t = threadIdx.x % G;
  const int len = r < rows ? n : 0;
  const long long at = (r < rows ? r : 0) * n;
  float a[V][W], b[V][W];
  read_row<T, G, V, W>(a, y + at, t, len, even, 0.0f);
  read_row<T, G, V, W>(b, g + at, t, len, even, 0.0f);
  float s = 0.0f;
#pragma unroll
  for (int v = 0; v < V; v++)
#pragma unroll
    for (int k = 0; k < W; k++) s += log ? b[v][k] : a[v][k] * b[v][k];
  s = row_sum<G>(s);
#pragma unroll
  for (int v = 0; v < V; v++)
#pragma unroll
    for (int k = 0; k < W; k++) a[v][k] = log ? b[v][k] - expf(a[v][k]) * s : a[v][k] * (b[v][k] - s);
  if (r < rows) write_row<T, G, V, W>(gx + at, a, t, len, even);
}

template <class T, int THREADS>
DEVFN void softmax_stream_back(const T* y, const T* g, T* gx, long long rows, int n, int log, int even) {
  constexpr int W = Lanes<T>::W;
  const long long first = (long long)blockIdx.x * n;
  float s = 0.0f;
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W], b[W];
    read_part<T, W>(a, y + first, at, n, even, 0.0f);
    read_part<T, W>(b, g + first, at, n, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) s += log ? b[k] : a[k] * b[k];
  }
  s = row_sum<THREADS>(s);
  for (int at = threadIdx.x * W; at < n; at += THREADS * W) {
    float a[W], b[W];
    read_part<T, W>(a, y + first, at, n, even, 0.0f);
    read_part<T, W>(b, g + first, at, n, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++) a[k] = log ? b[k] - expf(a[k]) * s : a[k] * (b[k] - s);
    write_part<T, W>(gx + first, a, at, n, even);
  }
}

#define ROWS(FORWARD, BACKWARD, T, G, V, THREADS)                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                            \
      FORWARD(const T* x, T* y, long long rows, int n, int log, int even) {                                        \
    softmax_rows<T, G, V, THREADS>(x, y, rows, n, log, even);                                                      \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                            \
      BACKWARD(const T* y, const T* g, T* gx, long long rows, int n, int log, int even) {                          \
    softmax_rows_back<T, G, V, THREADS>(y, g, gx, rows, n, log, even);                                             \
  }
#define STREAM(FORWARD, BACKWARD, T)                                                                               \
  extern "C" __global__ void __launch_bounds__(512) FORWARD(const T* x, T* y, long long rows, int n, int log, int even) { \
    softmax_stream<T, 512>(x, y, rows, n, log, even);                                                              \
  }                                                                                                                \
  extern "C" __global__ void __launch_bounds__(512)                                                                \
      BACKWARD(const T* y, const T* g, T* gx, long long rows, int n, int log, int even) {                          \
    softmax_stream_back<T, 512>(y, g, gx, rows, n, log, even);                                                     \
  }

ROWS(softmax_f32_g8, softmax_back_f32_g8, float, 8, 1, 256)
CUEMU_EXPORT(softmax_f32_g8) CUEMU_EXPORT(softmax_back_f32_g8)
ROWS(softmax_f32_w1, softmax_back_f32_w1, float, 32, 1, 256)
CUEMU_EXPORT(softmax_f32_w1) CUEMU_EXPORT(softmax_back_f32_w1)
ROWS(softmax_f32_w4, softmax_back_f32_w4, float, 32, 4, 256)
CUEMU_EXPORT(softmax_f32_w4) CUEMU_EXPORT(softmax_back_f32_w4)
ROWS(softmax_f32_b4, softmax_back_f32_b4, float, 256, 4, 256)
CUEMU_EXPORT(softmax_f32_b4) CUEMU_EXPORT(softmax_back_f32_b4)
ROWS(softmax_f32_x4, softmax_back_f32_x4, float, 1024, 4, 1024)
CUEMU_EXPORT(softmax_f32_x4) CUEMU_EXPORT(softmax_back_f32_x4)
STREAM(softmax_f32_s, softmax_back_f32_s, float)
CUEMU_EXPORT(softmax_f32_s) CUEMU_EXPORT(softmax_back_f32_s)

ROWS(softmax_bf16_g8, softmax_back_bf16_g8, bf16, 8, 1, 256)
CUEMU_EXPORT(softmax_bf16_g8) CUEMU_EXPORT(softmax_back_bf16_g8)
ROWS(softmax_bf16_w1, softmax_back_bf16_w1, bf16, 32, 1, 256)
CUEMU_EXPORT(softmax_bf16_w1) CUEMU_EXPORT(softmax_back_bf16_w1)
ROWS(softmax_bf16_w4, softmax_back_bf16_w4, bf16, 32, 4, 256)
CUEMU_EXPORT(softmax_bf16_w4) CUEMU_EXPORT(softmax_back_bf16_w4)
ROWS(softmax_bf16_b4, softmax_back_bf16_b4, bf16, 256, 4, 256)
CUEMU_EXPORT(softmax_bf16_b4) CUEMU_EXPORT(softmax_back_bf16_b4)
STREAM(softmax_bf16_s, softmax_back_bf16_s, bf16)
CUEMU_EXPORT(softmax_bf16_s) CUEMU_EXPORT(softmax_back_bf16_s)

ROWS(softmax_f16_g8, softmax_back_f16_g8, f16, 8, 1, 256)
CUEMU_EXPORT(softmax_f16_g8) CUEMU_EXPORT(softmax_back_f16_g8)
ROWS(softmax_f16_w1, softmax_back_f16_w1, f16, 32, 1, 256)
CUEMU_EXPORT(softmax_f16_w1) CUEMU_EXPORT(softmax_back_f16_w1)
ROWS(softmax_f16_w4, softmax_back_f16_w4, f16, 32, 4, 256)
CUEMU_EXPORT(softmax_f16_w4) CUEMU_EXPORT(softmax_back_f16_w4)
ROWS(softmax_f16_b4, softmax_back_f16_b4, f16, 256, 4, 256)
CUEMU_EXPORT(softmax_f16_b4) CUEMU_EXPORT(softmax_back_f16_b4)
STREAM(softmax_f16_s, softmax_back_f16_s, f16)
CUEMU_EXPORT(softmax_f16_s) CUEMU_EXPORT(softmax_back_f16_s)

// Columns of [outer, n, inner]: value i of column c is x[(c / inner * n + i) * inner + c % inner].
extern "C" __global__ void __launch_bounds__(256)
    softmax_f32_columns(const float* x, float* y, long long columns, int n, long long inner, int log) {
  long long c = (long long)blockIdx.x * 256 + threadIdx.x;
  if (c >= columns) return;
  const long long first = c / inner * n * inner + c % inner;
  MaxSum all = {-INFINITY, 0.0f};
  for (int i = 0; i < n; i++) {
    float one[1] = {x[first + i * inner]};
    all.add(one);
  }
  const float shift = all.shift(), by = all.sum == 0.0f ? 0.0f : 1.0f / all.sum, less = shift + logf(all.sum);
  for (int i = 0; i < n; i++) {
    float a = x[first + i * inner];
    y[first + i * inner] = !log ? expf(a - shift) * by : all.sum == 0.0f ? -INFINITY : a - less;
  }
}
CUEMU_EXPORT(softmax_f32_columns)

extern "C" __global__ void __launch_bounds__(256) softmax_back_f32_columns(const float* y, const float* g, float* gx,
                                                                           long long columns, int n, long long inner, int log) {
  long long c = (long long)blockIdx.x * 256 + threadIdx.x;
  if (c >= columns) return;
  const long long first = c / inner * n * inner + c % inner;
  float s = 0.0f;
  for (int i = 0; i < n; i++) s += log ? g[first + i * inner] : y[first + i * inner] * g[first + i * inner];
  for (int i = 0; i < n; i++) {
    const long long at = first + i * inner;
    gx[at] = log ? g[at] - expf(y[at]) * s : y[at] * (g[at] - s);
  }
}
CUEMU_EXPORT(softmax_back_f32_columns)
