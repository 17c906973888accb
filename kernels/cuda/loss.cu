// Cross-entropy of rows of logits: losses and log-sum-exps, the gradient, and both in place.
//
// lse = log(sum(exp(x))), loss = lse - (1 - a) x[c] - a mean(x) + z lse^2,
// gx = g ((1 + 2 z lse) exp(x - lse) - (1 - a) [j = c] - a / n); 0 and 0 where c is the ignored index.
// A warp a row up to 1024 values (8 rows a block), a block of 512 a row beyond. Forward is one pass with a
// running maximum; `fused` reads the row again (from L2) and writes the gradient over it.
// Bound: 1 read (forward), 1 read and 1 write (backward), 2 reads of which one from L2 and 1 write (fused).
// Registers 32 to 40: 64 warps of 16 bytes by 4 loads are 128 KiB under way a multiprocessor.
#include "rows.cuh"
#include "status.cuh"

struct Options {
  int ignores, ignored;
  float smoothing, z;
};

template <class T, int G> DEVFN MaxSum row_lse(const T* row, int t, int n, int even, bool mean, float& total) {
  constexpr int W = Lanes<T>::W;
  MaxSum own = {-INFINITY, 0.0f};
  float sum = 0.0f;
#pragma unroll 2
  for (int at = t * W; at < n; at += G * W) {
    float a[W];
    read_part<T, W>(a, row, at, n, even, -INFINITY);
    own.add(a);
    if (mean) {
#pragma unroll
      for (int k = 0; k < W; k++) sum += at + k < n ? a[k] : 0.0f;
    }
  }
  if (mean) total = row_sum<G>(sum);
  return row_join<G>(own);
}

template <class T, int G, int THREADS>
DEVFN void losses(const T* x, const int* targets, float* loss, float* lses, long long rows, int n, Options o, int even, int* status) {
  const long long r = (long long)blockIdx.x * (THREADS / G) + threadIdx.x / G;
  const int t = threadIdx.x % G;
  const bool mine = r < rows;
  const T* row = x + (mine ? r : 0) * n;
  float total = 0.0f;
  const float lse = row_lse<T, G>(row, t, mine ? n : 0, even, o.smoothing != 0.0f, total).log_sum();
  if (!mine || t != 0) return;
  lses[r] = lse;
  if (o.ignores && targets[r] == o.ignored) {
    loss[r] = 0.0f;
    return;
  }
  const int c = checked(status, STATUS_TARGET, targets[r], n);
  const float spread = o.smoothing == 0.0f ? 0.0f : o.smoothing * total / (float)n;
  loss[r] = lse - (1.0f - o.smoothing) * (float)row[c] - spread + (o.z == 0.0f ? 0.0f : o.z * lse * lse);
}

template <class T, int G> DEVFN void row_gradient(const T* row, T* to, int t, int n, int c, float lse, float g, Options o, int even) {
  constexpr int W = Lanes<T>::W;
  const float by = 1.0f + 2.0f * o.z * lse, less = o.smoothing / (float)n, hit = 1.0f - o.smoothing;
#pragma unroll 2
  for (int at = t * W; at < n; at += G * W) {
    float a[W];
    read_part<T, W>(a, row, at, n, even, 0.0f);
#pragma unroll
    for (int k = 0; k < W; k++)
      a[k] = c < 0 ? 0.0f : g * ((o.z == 0.0f ? 1.0f : by) * expf(a[k] - lse) - (at + k == c ? hit : 0.0f) - less);
    write_part<T, W>(to, a, at, n, even);
  }
}

template <class T, int G, int THREADS>
DEVFN void gradients(const T* x, const int* targets, const float* lses, const float* g, T* gx, long long rows, int n, Options o, int even, int* status) {
  const long long r = (long long)blockIdx.x * (THREADS / G) + threadIdx.x / G;
  if (r >= rows) return;
  const int c = o.ignores && targets[r] == o.ignored ? -1 : checked(status, STATUS_TARGET, targets[r], n);
  row_gradient<T, G>(x + r * n, gx + r * n, threadIdx.x % G, n, c, lses[r], g[r], o, even);
}

// Losses, and where there is a `g` the gradient over the logits.
template <class T, int G, int THREADS>
DEVFN void fused(T* x, const int* targets, const float* g, float* loss, long long rows, int n, Options o, int even, int* status) {
  const long long r = (long long)blockIdx.x * (THREADS / G) + threadIdx.x / G;
  const int t = threadIdx.x % G;
  const bool mine = r < rows;
  T* row = x + (mine ? r : 0) * n;
  const int c = !mine || (o.ignores && targets[r] == o.ignored) ? -1 : checked(status, STATUS_TARGET, targets[r], n);
  const float hit = c < 0 ? 0.0f : (float)row[c];
  float total = 0.0f;
  const float lse = row_lse<T, G>(row, t, mine ? n : 0, even, o.smoothing != 0.0f, total).log_sum();
  // The value at the target is read by all before any writes.
  if (G <= 32) __syncwarp();
  else __syncthreads();
  if (!mine) return;
  const float spread = o.smoothing == 0.0f ? 0.0f : o.smoothing * total / (float)n;
  if (t == 0) loss[r] = c < 0 ? 0.0f : lse - (1.0f - o.smoothing) * hit - spread + (o.z == 0.0f ? 0.0f : o.z * lse * lse);
  if (g) row_gradient<T, G>(row, row, t, n, c, lse, g[r], o, even);
}

#define KERNELS(T, FORWARD, BACKWARD, FUSED, G, THREADS)                                                             \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
      FORWARD(const T* x, const int* targets, float* loss, float* lses, long long rows, int n, int ignores,          \
              int ignored, float smoothing, float z, int even, int* status) {                                        \
    losses<T, G, THREADS>(x, targets, loss, lses, rows, n, {ignores, ignored, smoothing, z}, even, status);          \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
      BACKWARD(const T* x, const int* targets, const float* lses, const float* g, T* gx, long long rows, int n,      \
               int ignores, int ignored, float smoothing, float z, int even, int* status) {                          \
    gradients<T, G, THREADS>(x, targets, lses, g, gx, rows, n, {ignores, ignored, smoothing, z}, even, status);      \
  }                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS)                                                              \
      FUSED(T* x, const int* targets, const float* g, float* loss, long long rows, int n, int ignores, int ignored,  \
            float smoothing, float z, int even, int* status) {                                                       \
    fused<T, G, THREADS>(x, targets, g, loss, rows, n, {ignores, ignored, smoothing, z}, even, status);              \
  }

KERNELS(float, cross_entropy_f32_w, cross_entropy_back_f32_w, cross_entropy_fused_f32_w, 32, 256)
CUEMU_EXPORT(cross_entropy_f32_w) CUEMU_EXPORT(cross_entropy_back_f32_w) CUEMU_EXPORT(cross_entropy_fused_f32_w)
KERNELS(float, cross_entropy_f32_b, cross_entropy_back_f32_b, cross_entropy_fused_f32_b, 512, 512)
CUEMU_EXPORT(cross_entropy_f32_b) CUEMU_EXPORT(cross_entropy_back_f32_b) CUEMU_EXPORT(cross_entropy_fused_f32_b)
KERNELS(bf16, cross_entropy_bf16_w, cross_entropy_back_bf16_w, cross_entropy_fused_bf16_w, 32, 256)
CUEMU_EXPORT(cross_entropy_bf16_w) CUEMU_EXPORT(cross_entropy_back_bf16_w) CUEMU_EXPORT(cross_entropy_fused_bf16_w)
KERNELS(bf16, cross_entropy_bf16_b, cross_entropy_back_bf16_b, cross_entropy_fused_bf16_b, 512, 512)
CUEMU_EXPORT(cross_entropy_bf16_b) CUEMU_EXPORT(cross_entropy_back_bf16_b) CUEMU_EXPORT(cross_entropy_fused_bf16_b)
KERNELS(f16, cross_entropy_f16_w, cross_entropy_back_f16_w, cross_entropy_fused_f16_w, 32, 256)
CUEMU_EXPORT(cross_entropy_f16_w) CUEMU_EXPORT(cross_entropy_back_f16_w) CUEMU_EXPORT(cross_entropy_fused_f16_w)
KERNELS(f16, cross_entropy_f16_b, cross_entropy_back_f16_b, cross_entropy_fused_f16_b, 512, 512)
CUEMU_EXPORT(cross_entropy_f16_b) CUEMU_EXPORT(cross_entropy_back_f16_b) CUEMU_EXPORT(cross_entropy_fused_f16_b)
