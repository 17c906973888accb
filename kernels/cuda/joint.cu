// A transducer's joint network with its last linear layer, a few frames at a time, so that the logits of all nodes
// (sequence, frame, label) are never in memory at once; for the loss (transducer.cu), forward and backward.
//
//   h[b, t, u] = act(e[b, t] + p[b, u])      logits = W h + bias          act relu or tanh
//   dh = (dl W) act'(h)      de[b, t] = sum over u of dh      dp[b, u] = sum over t of dh      dW = sum of dl h^T
//
// h is an operand of the products that is computed where it is read (tiled.cuh, tiled_mma.cuh): it is not in memory either.
// Tiles 64 x 128 in f32, 128 x 128 of factors rounded to bf16; 256 threads; shared memory 12.5 or 40 KiB. The sums over all frames
// (dW, dbias, dp) are added to from one range of frames to the next: each value by one thread, in one order.
// Bound: as the products of conv.cu; 4 nodes J V operations.
#include "gpu.cuh"
#include "divide.cuh"
#include "tiled_mma.cuh"

// The hidden values of the nodes of frames t0 .. t0 + n of every sequence.
struct Hidden {
  const float *e, *p;  // [batch, time, width], [batch, labels + 1, width]
  int batch, time, t0, n, nodes, width, tanh_;  // nodes: labels + 1
  Divide by_nodes, by_n;
  __device__ __forceinline__ int rows() const { return batch * n * nodes; }
  // Where a node's two rows begin; negative outside.
  __device__ __forceinline__ int2 places(int row) const {
    if (row >= rows()) return make_int2(-1, -1);
    int u = row, bt = by_nodes.split(u), t = bt, b = by_n.split(t);
    return make_int2((b * time + t0 + t) * width, (b * nodes + u) * width);
  }
  __device__ __forceinline__ float value(int2 at, int j) const {
    if (at.x < 0 || j >= width) return 0.f;
    float x = e[at.x + j] + p[at.y + j];
    return tanh_ ? tanhf(x) : x > 0.f || x != x ? x : 0.f;
  }
};
#define HIDDEN const float *e, const float *p, int batch, int time, int t0, int n, int nodes, int width, int tanh_
#define HIDDEN_ARGS                                                                                              \
  Hidden { e, p, batch, time, t0, n, nodes, width, tanh_, Divide(nodes), Divide(n) }

// Nodes by hidden values.
struct HiddenByNode : Hidden {
  static constexpr bool DEPTH_RUNS = true;
  typedef int2 Row;
  typedef int Depth;
  __device__ __forceinline__ explicit HiddenByNode(const Hidden& h) : Hidden(h) {}
  __device__ __forceinline__ Row row(int m) const { return places(m); }
  __device__ __forceinline__ Depth depth(int k) const { return k; }
  __device__ __forceinline__ float at(Row r, Depth d) const { return value(r, d); }
};
// Hidden values by nodes.
struct HiddenByValue : Hidden {
  static constexpr bool DEPTH_RUNS = false;
  typedef int Row;
  typedef int2 Depth;
  __device__ __forceinline__ explicit HiddenByValue(const Hidden& h) : Hidden(h) {}
  __device__ __forceinline__ Row row(int m) const { return m; }
  __device__ __forceinline__ Depth depth(int k) const { return places(k); }
  __device__ __forceinline__ float at(Row r, Depth d) const { return value(d, r); }
};

// A matrix in memory, whose depth is the neighbouring index.
struct Lines {
  static constexpr bool DEPTH_RUNS = true;
  typedef long long Row;
  typedef int Depth;
  const float* base;
  int rows, stride;
  __device__ __forceinline__ Row row(int m) const { return m < rows ? (long long)m * stride : -1; }
  __device__ __forceinline__ Depth depth(int k) const { return k; }
  __device__ __forceinline__ float at(Row r, Depth k) const { return r >= 0 ? base[r + k] : 0.f; }
};
// A matrix in memory, whose rows are the neighbouring index.
struct Columns {
  static constexpr bool DEPTH_RUNS = false;
  typedef int Row;
  typedef long long Depth;
  const float* base;
  int rows, stride;
  __device__ __forceinline__ Row row(int m) const { return m < rows ? m : -1; }
  __device__ __forceinline__ Depth depth(int k) const { return (long long)k * stride; }
  __device__ __forceinline__ float at(Row r, Depth k) const { return r >= 0 ? base[r + k] : 0.f; }
};

struct Logits {
  float* y;
  const float* bias;
  int rows, columns;
  __device__ __forceinline__ int column(int n) const { return n; }
  __device__ __forceinline__ void put(int m, int n, float v) const {
    if (m < rows && n < columns) y[(size_t)m * columns + n] = v + (bias ? bias[n] : 0.f);
  }
};
struct HiddenGradient {
  float* dh;
  const Hidden& h;
  __device__ __forceinline__ int column(int n) const { return n; }
  __device__ __forceinline__ void put(int m, int n, float v) const {
    if (m >= h.rows() || n >= h.width) return;
    float x = h.value(h.places(m), n);
    dh[(size_t)m * h.width + n] = h.tanh_ ? v * (1.f - x * x) : x > 0.f ? v : 0.f;
  }
};
struct Added {
  float* w;
  int rows, columns, first;
  __device__ __forceinline__ int column(int n) const { return n; }
  __device__ __forceinline__ void put(int m, int n, float v) const {
    if (m >= rows || n >= columns) return;
    float* at = &w[(size_t)m * columns + n];
    *at = first ? v : *at + v;
  }
};

// Grids: columns / 128 of the result by its rows / 64 or 128, as one number, columns first.
template <class Way> __device__ __forceinline__ void logits(const float* w, const float* bias, float* y, int classes, const Hidden& h) {
  int tiles = (classes + 127) / 128;
  Way::tile(blockIdx.x / tiles * Way::ROWS, blockIdx.x % tiles * 128, 0, h.width, HiddenByNode(h), Lines{w, classes, h.width},
            Logits{y, bias, h.rows(), classes});
}
template <class Way> __device__ __forceinline__ void back(const float* dl, const float* w, float* dh, int classes, const Hidden& h) {
  int tiles = (h.width + 127) / 128;
  Way::tile(blockIdx.x / tiles * Way::ROWS, blockIdx.x % tiles * 128, 0, classes, Lines{dl, h.rows(), classes},
            Columns{w, h.width, h.width}, HiddenGradient{dh, h});
}
template <class Way>
__device__ __forceinline__ void weight(const float* dl, float* dw, int classes, int first, const Hidden& h) {
  int tiles = (h.width + 127) / 128;
  Way::tile(blockIdx.x / tiles * Way::ROWS, blockIdx.x % tiles * 128, 0, h.rows(), Columns{dl, classes, classes},
            HiddenByValue(h), Added{dw, classes, h.width, first});
}

#define JOINT(LOGITS, BACK, WEIGHT, BLOCKS, ...)                                                                 \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                      \
      LOGITS(const float* w, const float* bias, float* y, int classes, HIDDEN) {                                 \
    logits<__VA_ARGS__>(w, bias, y, classes, HIDDEN_ARGS);                                                       \
  }                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                      \
      BACK(const float* dl, const float* w, float* dh, int classes, HIDDEN) {                                    \
    back<__VA_ARGS__>(dl, w, dh, classes, HIDDEN_ARGS);                                                          \
  }                                                                                                              \
  extern "C" __global__ void __launch_bounds__(256, BLOCKS)                                                      \
      WEIGHT(const float* dl, float* dw, int classes, int first, HIDDEN) {                                       \
    weight<__VA_ARGS__>(dl, dw, classes, first, HIDDEN_ARGS);                                                    \
  }
JOINT(joint_logits_f32, joint_back_f32, joint_weight_f32, 2, Scalar<64>)
JOINT(joint_logits_bf16, joint_back_bf16, joint_weight_bf16, 1, Tensor)
CUEMU_EXPORT(joint_logits_f32)
CUEMU_EXPORT(joint_back_f32)
CUEMU_EXPORT(joint_weight_f32)
CUEMU_EXPORT(joint_logits_bf16)
CUEMU_EXPORT(joint_back_bf16)
CUEMU_EXPORT(joint_weight_bf16)

// dbias: columns of dl summed over its rows, 32 columns a block, 8 lines, added in order. Grid: classes / 32.
extern "C" __global__ void __launch_bounds__(256)
    joint_bias_f32(const float* dl, float* bias, int rows, int classes, int first) {
  __shared__ float lines[8][32];
  int lane = threadIdx.x & 31, line = threadIdx.x >> 5, v = blockIdx.x * 32 + lane;
  float sum = 0.f;
  if (v < classes)
    for (int k = line; k < rows; k += 8) sum += dl[(size_t)k * classes + v];
  lines[line][lane] = sum;
  __syncthreads();
  if (line == 0 && v < classes) {
    for (int i = 1; i < 8; i++) sum += lines[i][lane];
    bias[v] = first ? sum : bias[v] + sum;
  }
}
CUEMU_EXPORT(joint_bias_f32)

// de of these frames and what they add to dp: a thread a value, de first. Grid: all values / 256.
extern "C" __global__ void __launch_bounds__(256)
    joint_sums_f32(const float* dh, float* de, float* dp, int first, int batch, int time, int t0, int n, int nodes,
                   int width) {
  int i = blockIdx.x * 256 + threadIdx.x, frames = batch * n * width;
  float sum = 0.f;
  if (i < frames) {
    int j = i % width, bt = i / width;
    for (int u = 0; u < nodes; u++) sum += dh[((size_t)bt * nodes + u) * width + j];
    de[((size_t)(bt / n) * time + t0 + bt % n) * width + j] = sum;
  } else if (i - frames < batch * nodes * width) {
    i -= frames;
    int j = i % width, u = i / width % nodes, b = i / width / nodes;
    for (int t = 0; t < n; t++) sum += dh[(((size_t)b * n + t) * nodes + u) * width + j];
    dp[i] = first ? sum : dp[i] + sum;
  }
}
CUEMU_EXPORT(joint_sums_f32)
