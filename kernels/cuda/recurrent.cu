// LSTM and GRU of any width, forward and backward, over sequences with lengths, in both directions, in f32.
//
// A launch a step. A block has 32 sequences and 8 hidden units, 256 threads, each one unit of one
// sequence: it multiplies the state (32 x K) by the rows of the recurrent weight that make the unit's gates, in slabs of depth
// 64 through shared memory (the next one on its way in registers), and finishes the cell. Shared memory 17.5 KiB. States are not kept apart: the
// state before a step is a row of y (or of the cells), or the initial one.
// Backward, the product is with the transposed weight: dh = sum over gates of W[q, m] da[q], of the step that was
// walked before; da goes where the gradient of the gates goes.
// The weights' gradient is one product over all steps afterwards (tiled.cuh), the bias's one sum of columns.
// Bound: the weights from L2 each step (4 h^2 floats; h 640: 6.5 MB, about 2 us) and the launch.
// Layers whose weights fit into shared memory take all steps in one launch: recurrent_small.cu.
#include "gpu.cuh"
#include "recurrent.cuh"
#include "tiled.cuh"

constexpr int BATCH = 32, UNITS = 8, SLAB = 64;

// sum[g] = sum over k of state[k] w[g hidden + unit, k]: thread (sequence, unit) of the block, `from[s]` the state of
// the block's sequence s, null for none.
template <int N>
__device__ __forceinline__ void gates_of(float (&sum)[N], const float* const* from, const float* w, int unit0, int hidden) {
  alignas(16) __shared__ float states[BATCH][SLAB + 4];
  alignas(16) __shared__ float rows[N * UNITS][SLAB + 4];
  int s = threadIdx.x / UNITS, u = threadIdx.x % UNITS, lane = threadIdx.x % SLAB, line = threadIdx.x / SLAB;
  float a[BATCH / 4], b[N * UNITS / 4];
  auto fetch = [&](int k0) {
    int k = k0 + lane;
#pragma unroll
    for (int i = 0; i < BATCH / 4; i++) {
      const float* p = from[line + i * 4];
      a[i] = p && k < hidden ? p[k] : 0.f;
    }
#pragma unroll
    for (int i = 0; i < N * UNITS / 4; i++) {
      int r = line + i * 4, unit = unit0 + r % UNITS;
      b[i] = unit < hidden && k < hidden ? w[((size_t)(r / UNITS) * hidden + unit) * hidden + k] : 0.f;
    }
  };
#pragma unroll
  for (int g = 0; g < N; g++) sum[g] = 0.f;
  fetch(0);
  for (int k0 = 0; k0 < hidden; k0 += SLAB) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BATCH / 4; i++) states[line + i * 4][lane] = a[i];
#pragma unroll
    for (int i = 0; i < N * UNITS / 4; i++) rows[line + i * 4][lane] = b[i];
    __syncthreads();
    if (k0 + SLAB < hidden) fetch(k0 + SLAB);
#pragma unroll 4
    for (int k = 0; k < SLAB; k += 4) {
      float4 x = *(const float4*)&states[s][k];
#pragma unroll
      for (int g = 0; g < N; g++) {
        float4 y = *(const float4*)&rows[g * UNITS + u][k];
        sum[g] += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
      }
    }
  }
}

// The block's tile: 8 units by 32 sequences. Grid: hidden / 8, batch / 32.
struct Cell {
  int s, b, unit;
  __device__ __forceinline__ Cell()
      : s(threadIdx.x / UNITS), b(blockIdx.y * BATCH + s), unit(blockIdx.x * UNITS + threadIdx.x % UNITS) {}
};

extern "C" __global__ void __launch_bounds__(256)
    lstm_step_f32(const float* gates, const float* weight, const float* h0, const float* c0, float* y, float* act,
                  float* cells, int t, STEPS) {
  Steps p = STEPS_ARGS;
  Cell x;
  __shared__ const float* from[BATCH];
  if (threadIdx.x < BATCH) {
    int b = blockIdx.y * BATCH + threadIdx.x, length = p.length(b), before = p.before(t, length);
    from[threadIdx.x] = t >= length ? nullptr : before < 0 ? h0 + (size_t)b * hidden : y + p.at(b, before) * hidden;
  }
  __syncthreads();
  float sum[4];
  gates_of<4>(sum, from, weight, blockIdx.x * UNITS, hidden);
  if (x.b >= batch || x.unit >= hidden) return;
  size_t step = p.at(x.b, t), wide = step * 4 * hidden + x.unit, narrow = step * hidden + x.unit;
  int length = p.length(x.b), before = p.before(t, length);
  float c = 0.f, h = 0.f;
  if (t < length) {
#pragma unroll
    for (int g = 0; g < 4; g++) sum[g] += gates[wide + (size_t)g * hidden];
    c = before < 0 ? c0[(size_t)x.b * hidden + x.unit] : cells[p.at(x.b, before) * hidden + x.unit];
    h = lstm_cell(sum, c);
  }
#pragma unroll
  for (int g = 0; g < 4; g++) act[wide + (size_t)g * hidden] = sum[g];
  cells[narrow] = c;
  y[narrow] = h;
}
CUEMU_EXPORT(lstm_step_f32)

extern "C" __global__ void __launch_bounds__(256)
    gru_step_f32(const float* gates, const float* weight, const float* bias, const float* h0, float* y, float* saved, int t,
                 STEPS) {
  Steps p = STEPS_ARGS;
  Cell x;
  __shared__ const float* from[BATCH];
  if (threadIdx.x < BATCH) {
    int b = blockIdx.y * BATCH + threadIdx.x, length = p.length(b), before = p.before(t, length);
    from[threadIdx.x] = t >= length ? nullptr : before < 0 ? h0 + (size_t)b * hidden : y + p.at(b, before) * hidden;
  }
  __syncthreads();
  float sum[3], a[3] = {};
  gates_of<3>(sum, from, weight, blockIdx.x * UNITS, hidden);
  if (x.b >= batch || x.unit >= hidden) return;
  size_t step = p.at(x.b, t), narrow = step * hidden + x.unit, wide = step * 4 * hidden + x.unit;
  float h = 0.f;
  if (t < p.length(x.b)) {
#pragma unroll
    for (int g = 0; g < 3; g++) {
      sum[g] += bias[g * hidden + x.unit];
      a[g] = gates[(step * 3 + g) * hidden + x.unit];
    }
    h = gru_cell(a, sum, from[x.s][x.unit]);
  }
#pragma unroll
  for (int g = 0; g < 3; g++) saved[wide + (size_t)g * hidden] = a[g];
  saved[wide + (size_t)3 * hidden] = sum[2];
  y[narrow] = h;
}
CUEMU_EXPORT(gru_step_f32)

// The state after the last step of each sequence: rows of `steps`, or of `initial`. Grid: values / 256.
extern "C" __global__ void __launch_bounds__(256)
    last_state_f32(const float* steps, const float* initial, float* out, STEPS) {
  Steps p = STEPS_ARGS;
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= batch * hidden) return;
  int b = i / hidden, length = p.length(b);
  out[i] = length == 0 ? initial[i] : steps[p.at(b, backward ? 0 : length - 1) * hidden + i % hidden];
}
CUEMU_EXPORT(last_state_f32)

// The gradient of the state after a step: sum over q of w[q, unit] e[q], for N hidden gates e of the step after
// it, in the block's sequence s at `from[s]`; the third ones times `scale[s]` where that is given (a GRU's r).
template <int N, bool SCALED>
__device__ __forceinline__ float state_of(const float* const* from, const float* const* scale, const float* w, int unit0,
                                          int hidden) {
  alignas(16) __shared__ float states[BATCH][SLAB + 4];
  alignas(16) __shared__ float rows[UNITS][SLAB + 4];
  int s = threadIdx.x / UNITS, u = threadIdx.x % UNITS, lane = threadIdx.x % SLAB, line = threadIdx.x / SLAB;
  float a[BATCH / 4], b[2];
  auto fetch = [&](int q0) {
    int q = q0 + lane;
#pragma unroll
    for (int i = 0; i < BATCH / 4; i++) {
      const float* p = from[line + i * 4];
      a[i] = p && q < N * hidden ? p[q] : 0.f;
      if (SCALED && p && q >= 2 * hidden && q < N * hidden) a[i] *= scale[line + i * 4][q - 2 * hidden];
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      int row = q0 + threadIdx.x / UNITS + i * 32;
      b[i] = row < N * hidden && unit0 + u < hidden ? w[(size_t)row * hidden + unit0 + u] : 0.f;
    }
  };
  float sum[4] = {};
  fetch(0);
  for (int q0 = 0; q0 < N * hidden; q0 += SLAB) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < BATCH / 4; i++) states[line + i * 4][lane] = a[i];
#pragma unroll
    for (int i = 0; i < 2; i++) rows[u][threadIdx.x / UNITS + i * 32] = b[i];
    __syncthreads();
    if (q0 + SLAB < N * hidden) fetch(q0 + SLAB);
#pragma unroll 4
    for (int k = 0; k < SLAB; k += 4) {
      float4 x = *(const float4*)&states[s][k], y = *(const float4*)&rows[u][k];
      sum[0] += x.x * y.x;
      sum[1] += x.y * y.y;
      sum[2] += x.z * y.z;
      sum[3] += x.w * y.w;
    }
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// One step back; t = -1 is the state before all steps. `dc0` carries the gradient of the cells.
extern "C" __global__ void __launch_bounds__(256)
    lstm_back_step_f32(const float* weight, const float* c0, const float* act, const float* cells, const float* dy,
                       const float* dh_last, const float* dc_last, float* dgates, float* dh0, float* dc0, int t, STEPS) {
  Steps p = STEPS_ARGS;
  Cell x;
  __shared__ const float* from[BATCH];
  if (threadIdx.x < BATCH) {
    int b = blockIdx.y * BATCH + threadIdx.x, length = p.length(b);
    int after = t < 0 ? (length ? p.first(length) : -1) : t < length ? p.after(t, length) : -1;
    from[threadIdx.x] = after < 0 ? nullptr : dgates + p.at(b, after) * 4 * hidden;
  }
  __syncthreads();
  float dh = state_of<4, false>(from, nullptr, weight, blockIdx.x * UNITS, hidden);
  if (x.b >= batch || x.unit >= hidden) return;
  size_t state = (size_t)x.b * hidden + x.unit;
  int length = p.length(x.b);
  bool start = !from[x.s];  // the walk back begins here
  if (start) dh = dh_last[state];
  if (t < 0) {
    dh0[state] = dh;
    if (start) dc0[state] = dc_last[state];
    return;
  }
  size_t step = p.at(x.b, t), wide = step * 4 * hidden + x.unit;
  float da[4] = {};
  if (t < length) {
    int before = p.before(t, length);
    float a[4], c_before = before < 0 ? c0[state] : cells[p.at(x.b, before) * hidden + x.unit];
#pragma unroll
    for (int g = 0; g < 4; g++) a[g] = act[wide + (size_t)g * hidden];
    float dc = start ? dc_last[state] : dc0[state];
    lstm_back(a, cells[step * hidden + x.unit], c_before, dh + dy[step * hidden + x.unit], dc, da);
    dc0[state] = dc;
  }
#pragma unroll
  for (int g = 0; g < 4; g++) dgates[wide + (size_t)g * hidden] = da[g];
}
CUEMU_EXPORT(lstm_back_step_f32)

// As above; `dh0` carries what goes to the state before past the product.
extern "C" __global__ void __launch_bounds__(256)
    gru_back_step_f32(const float* weight, const float* h0, const float* y, const float* saved, const float* dy,
                      const float* dh_last, float* dgates, float* dh0, int t, STEPS) {
  Steps p = STEPS_ARGS;
  Cell x;
  __shared__ const float *from[BATCH], *resets[BATCH];
  if (threadIdx.x < BATCH) {
    int b = blockIdx.y * BATCH + threadIdx.x, length = p.length(b);
    int after = t < 0 ? (length ? p.first(length) : -1) : t < length ? p.after(t, length) : -1;
    from[threadIdx.x] = after < 0 ? nullptr : dgates + p.at(b, after) * 3 * hidden;
    resets[threadIdx.x] = after < 0 ? nullptr : saved + p.at(b, after) * 4 * hidden;
  }
  __syncthreads();
  float dh = state_of<3, true>(from, resets, weight, blockIdx.x * UNITS, hidden);
  if (x.b >= batch || x.unit >= hidden) return;
  size_t state = (size_t)x.b * hidden + x.unit;
  int length = p.length(x.b);
  dh = from[x.s] ? dh + dh0[state] : dh_last[state];
  if (t < 0) {
    dh0[state] = dh;
    return;
  }
  size_t step = p.at(x.b, t);
  float da[3] = {};
  if (t < length) {
    int before = p.before(t, length);
    float s[4], h_before = before < 0 ? h0[state] : y[p.at(x.b, before) * hidden + x.unit];
#pragma unroll
    for (int g = 0; g < 4; g++) s[g] = saved[(step * 4 + g) * hidden + x.unit];
    dh0[state] = gru_back(s, h_before, dh + dy[step * hidden + x.unit], da);
  }
#pragma unroll
  for (int g = 0; g < 3; g++) dgates[(step * 3 + g) * hidden + x.unit] = da[g];
}
CUEMU_EXPORT(gru_back_step_f32)

// The gates' gradients [steps, gate] as the first factor of the weight's gradient; a GRU's third ones times r.
struct GateGradients {
  static constexpr bool DEPTH_RUNS = false;
  typedef int Row;
  typedef size_t Depth;
  const float *dgates, *saved;  // saved is null for an LSTM
  int rows, hidden;
  __device__ __forceinline__ Row row(int m) const { return m < rows ? m : -1; }
  __device__ __forceinline__ Depth depth(int k) const { return k; }
  __device__ __forceinline__ float at(Row m, Depth k) const {
    if (m < 0) return 0.f;
    float d = dgates[k * rows + m];
    return saved && m >= 2 * hidden ? d * saved[k * 4 * hidden + m - 2 * hidden] : d;
  }
};
// The states before each step, [steps, unit].
struct StatesBefore {
  static constexpr bool DEPTH_RUNS = false;
  typedef int Row;
  typedef const float* Depth;
  const float *y, *h0;
  Steps p;
  __device__ __forceinline__ Row row(int n) const { return n < p.hidden ? n : -1; }
  __device__ __forceinline__ Depth depth(int k) const {
    int b = k / p.time, t = k % p.time, length = p.length(b), before = p.before(t, length);
    if (t >= length) return nullptr;
    return before < 0 ? h0 + (size_t)b * p.hidden : y + p.at(b, before) * p.hidden;
  }
  __device__ __forceinline__ float at(Row n, Depth d) const { return d && n >= 0 ? d[n] : 0.f; }
};
struct WeightGradient {
  float* w;
  int rows, columns;
  __device__ __forceinline__ int column(int n) const { return n; }
  __device__ __forceinline__ void put(int m, int n, float v) const {
    if (m < rows && n < columns) w[(size_t)m * columns + n] = v;
  }
};

// Grid: hidden / 128, gates / 64, parts of the steps.
extern "C" __global__ void __launch_bounds__(256)
    recurrent_weight_f32(const float* dgates, const float* saved, const float* y, const float* h0, float* w, int rows,
                         int part, STEPS) {
  Steps p = STEPS_ARGS;
  int depth = batch * time, k0 = blockIdx.z * part, k1 = depth - k0 < part ? depth : k0 + part;
  product<64, 128, 4, 8>(blockIdx.y * 64, blockIdx.x * 128, k0, k1, GateGradients{dgates, saved, rows, hidden},
                         StatesBefore{y, h0, p}, WeightGradient{w + (size_t)blockIdx.z * rows * hidden, rows, hidden});
}
CUEMU_EXPORT(recurrent_weight_f32)

// A GRU's bias: the sum of e over all steps. Grid: gates / 32; 8 lines of steps a block, added in order.
extern "C" __global__ void __launch_bounds__(256)
    gru_bias_f32(const float* dgates, const float* saved, float* bias, int steps, int hidden) {
  __shared__ float lines[8][32];
  int lane = threadIdx.x & 31, line = threadIdx.x >> 5, q = blockIdx.x * 32 + lane;
  float sum = 0.f;
  if (q < 3 * hidden)
    for (int k = line; k < steps; k += 8) {
      float d = dgates[(size_t)k * 3 * hidden + q];
      sum += q >= 2 * hidden ? d * saved[(size_t)k * 4 * hidden + q - 2 * hidden] : d;
    }
  lines[line][lane] = sum;
  __syncthreads();
  if (line == 0 && q < 3 * hidden) {
    for (int i = 1; i < 8; i++) sum += lines[i][lane];
    bias[q] = sum;
  }
}
CUEMU_EXPORT(gru_bias_f32)
