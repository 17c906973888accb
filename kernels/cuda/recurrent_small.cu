// LSTM and GRU whose recurrent weights fit into shared memory (160 KiB: 100 hidden units of an LSTM, 115 of a GRU), all steps in
// one launch.
//
// A block of 256 threads takes 4 sequences from their first step to their last. The weights lie in shared
// memory, rows of odd length (no bank is met twice); states lie as [unit][sequence], so that one 16-byte read that a whole warp
// shares serves 4 products. Forward, a thread owns rows of the weight; backward, a column and half of the rows.
// What a step reads from memory is asked for before its product. No other block is waited for.
// Bound: latency, about h reads of shared memory and two barriers a step.
#include "gpu.cuh"
#include "recurrent.cuh"

constexpr int SEQUENCES = 4, THREADS = 256, CELLS = 2;  // cells of a thread: 4 sequences of at most 128 units

struct Slice {
  float *w, *rows, *h;  // weights [gates][odd], products [gates][4], states [units][4]
  int stride, hidden;
  template <int N> __device__ __forceinline__ void open(float* shared, const float* weight, int hidden_) {
    hidden = hidden_;
    stride = hidden | 1;
    h = shared;
    rows = h + hidden * SEQUENCES;
    w = rows + N * hidden * SEQUENCES;
    for (int i = threadIdx.x; i < N * hidden * hidden; i += THREADS) w[i / hidden * stride + i % hidden] = weight[i];
  }
  // rows = W h
  template <int N> __device__ __forceinline__ void forward() const {
    for (int q = threadIdx.x; q < N * hidden; q += THREADS) {
      float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
      for (int k = 0; k < hidden; k++) {
        float v = w[q * stride + k];
        float4 x = *(const float4*)&h[k * SEQUENCES];
        sum.x += v * x.x;
        sum.y += v * x.y;
        sum.z += v * x.z;
        sum.w += v * x.w;
      }
      *(float4*)&rows[q * SEQUENCES] = sum;
    }
  }
  // h = W^T rows, by halves that the second barrier joins
  template <int N> __device__ __forceinline__ void backward() const {
    int m = threadIdx.x & 127, half = threadIdx.x >> 7, from = half ? N * hidden / 2 : 0;
    int end = half ? N * hidden : N * hidden / 2;
    float4 sum = make_float4(0.f, 0.f, 0.f, 0.f);
    if (m < hidden)
      for (int q = from; q < end; q++) {
        float v = w[q * stride + m];
        float4 x = *(const float4*)&rows[q * SEQUENCES];
        sum.x += v * x.x;
        sum.y += v * x.y;
        sum.z += v * x.z;
        sum.w += v * x.w;
      }
    __syncthreads();
    if (m < hidden && half) *(float4*)&rows[m * SEQUENCES] = sum;
    __syncthreads();
    if (m < hidden && !half) {
      float4 other = *(const float4*)&rows[m * SEQUENCES];
      *(float4*)&h[m * SEQUENCES] =
          make_float4(sum.x + other.x, sum.y + other.y, sum.z + other.z, sum.w + other.w);
    }
  }
};

// The cell `i` of this thread: a unit of a sequence; `in` where there is one.
struct Cell {
  int unit, s, b;
  bool in;
  __device__ __forceinline__ Cell(int i, const Steps& p) {
    int at = threadIdx.x + i * THREADS;
    unit = at % p.hidden;
    s = at / p.hidden;
    b = blockIdx.x * SEQUENCES + s;
    in = s < SEQUENCES && b < p.batch;
  }
};

extern "C" __global__ void __launch_bounds__(256)
    lstm_small_f32(const float* gates, const float* weight, const float* h0, const float* c0, float* y, float* act,
                   float* cells, STEPS) {
  DYN_SMEM(float, shared);
  Steps p = STEPS_ARGS;
  Slice w;
  w.open<4>(shared, weight, hidden);
  float c[CELLS] = {};
#pragma unroll
  for (int i = 0; i < CELLS; i++) {
    Cell x(i, p);
    if (x.s < SEQUENCES) w.h[x.unit * SEQUENCES + x.s] = x.in ? h0[(size_t)x.b * hidden + x.unit] : 0.f;
    if (x.in) c[i] = c0[(size_t)x.b * hidden + x.unit];
  }
  for (int step = 0; step < time; step++) {
    int t = backward ? time - 1 - step : step;
    float a[CELLS][4] = {};
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (x.in)
        for (int g = 0; g < 4; g++) a[i][g] = gates[(p.at(x.b, t) * 4 + g) * hidden + x.unit];
    }
    __syncthreads();
    w.forward<4>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (!x.in) continue;
      bool counts = t < p.length(x.b);
      float h = 0.f;
      if (counts) {
        for (int g = 0; g < 4; g++) a[i][g] += w.rows[(g * hidden + x.unit) * SEQUENCES + x.s];
        h = lstm_cell(a[i], c[i]);
        w.h[x.unit * SEQUENCES + x.s] = h;
      }
      for (int g = 0; g < 4; g++) act[(p.at(x.b, t) * 4 + g) * hidden + x.unit] = counts ? a[i][g] : 0.f;
      cells[p.at(x.b, t) * hidden + x.unit] = counts ? c[i] : 0.f;
      y[p.at(x.b, t) * hidden + x.unit] = h;
    }
  }
}
CUEMU_EXPORT(lstm_small_f32)

extern "C" __global__ void __launch_bounds__(256)
    gru_small_f32(const float* gates, const float* weight, const float* bias, const float* h0, float* y, float* saved,
                  STEPS) {
  DYN_SMEM(float, shared);
  Steps p = STEPS_ARGS;
  Slice w;
  w.open<3>(shared, weight, hidden);
#pragma unroll
  for (int i = 0; i < CELLS; i++) {
    Cell x(i, p);
    if (x.s < SEQUENCES) w.h[x.unit * SEQUENCES + x.s] = x.in ? h0[(size_t)x.b * hidden + x.unit] : 0.f;
  }
  for (int step = 0; step < time; step++) {
    int t = backward ? time - 1 - step : step;
    float a[CELLS][3] = {};
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (x.in)
        for (int g = 0; g < 3; g++) a[i][g] = gates[(p.at(x.b, t) * 3 + g) * hidden + x.unit];
    }
    __syncthreads();
    w.forward<3>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (!x.in) continue;
      float s[3] = {}, h = 0.f;
      if (t < p.length(x.b)) {
        for (int g = 0; g < 3; g++)
          s[g] = w.rows[(g * hidden + x.unit) * SEQUENCES + x.s] + bias[g * hidden + x.unit];
        h = gru_cell(a[i], s, w.h[x.unit * SEQUENCES + x.s]);
        w.h[x.unit * SEQUENCES + x.s] = h;
      } else {
        a[i][0] = a[i][1] = a[i][2] = 0.f;
      }
      for (int g = 0; g < 3; g++) saved[(p.at(x.b, t) * 4 + g) * hidden + x.unit] = a[i][g];
      saved[(p.at(x.b, t) * 4 + 3) * hidden + x.unit] = s[2];
      y[p.at(x.b, t) * hidden + x.unit] = h;
    }
  }
}
CUEMU_EXPORT(gru_small_f32)

extern "C" __global__ void __launch_bounds__(256)
    lstm_back_small_f32(const float* weight, const float* c0, const float* act, const float* cells, const float* dy,
                        const float* dh_last, const float* dc_last, float* dgates, float* dh0, float* dc0, STEPS) {
  DYN_SMEM(float, shared);
  Steps p = STEPS_ARGS;
  Slice w;
  w.open<4>(shared, weight, hidden);
  float dh[CELLS] = {}, dc[CELLS] = {};
#pragma unroll
  for (int i = 0; i < CELLS; i++) {
    Cell x(i, p);
    if (x.in) {
      dh[i] = dh_last[(size_t)x.b * hidden + x.unit];
      dc[i] = dc_last[(size_t)x.b * hidden + x.unit];
    }
  }
  for (int step = time - 1; step >= 0; step--) {
    int t = backward ? time - 1 - step : step;
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (x.s >= SEQUENCES) continue;
      float da[4] = {};
      int length = p.length(x.b), before = p.before(t, length);
      if (t < length) {
        size_t at = p.at(x.b, t);
        float a[4], from = before < 0 ? c0[(size_t)x.b * hidden + x.unit] : cells[p.at(x.b, before) * hidden + x.unit];
        for (int g = 0; g < 4; g++) a[g] = act[(at * 4 + g) * hidden + x.unit];
        lstm_back(a, cells[at * hidden + x.unit], from, dh[i] + dy[at * hidden + x.unit], dc[i], da);
      }
      for (int g = 0; g < 4; g++) {
        w.rows[(g * hidden + x.unit) * SEQUENCES + x.s] = da[g];
        if (x.in) dgates[(p.at(x.b, t) * 4 + g) * hidden + x.unit] = da[g];
      }
    }
    __syncthreads();
    w.backward<4>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (x.in && t < p.length(x.b)) dh[i] = w.h[x.unit * SEQUENCES + x.s];
    }
  }
#pragma unroll
  for (int i = 0; i < CELLS; i++) {
    Cell x(i, p);
    if (x.in) {
      dh0[(size_t)x.b * hidden + x.unit] = dh[i];
      dc0[(size_t)x.b * hidden + x.unit] = dc[i];
    }
  }
}
CUEMU_EXPORT(lstm_back_small_f32)

extern "C" __global__ void __launch_bounds__(256)
    gru_back_small_f32(const float* weight, const float* h0, const float* y, const float* saved, const float* dy,
                       const float* dh_last, float* dgates, float* dh0, STEPS) {
  DYN_SMEM(float, shared);
  Steps p = STEPS_ARGS;
  Slice w;
  w.open<3>(shared, weight, hidden);
  float dh[CELLS] = {};
#pragma unroll
  for (int i = 0; i < CELLS; i++) {
    Cell x(i, p);
    if (x.in) dh[i] = dh_last[(size_t)x.b * hidden + x.unit];
  }
  for (int step = time - 1; step >= 0; step--) {
    int t = backward ? time - 1 - step : step;
    float kept[CELLS] = {};
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (x.s >= SEQUENCES) continue;
      float da[3] = {}, r = 0.f;
      int length = p.length(x.b), before = p.before(t, length);
      if (t < length) {
        size_t at = p.at(x.b, t);
        float s[4], from = before < 0 ? h0[(size_t)x.b * hidden + x.unit] : y[p.at(x.b, before) * hidden + x.unit];
        for (int g = 0; g < 4; g++) s[g] = saved[(at * 4 + g) * hidden + x.unit];
        kept[i] = gru_back(s, from, dh[i] + dy[at * hidden + x.unit], da);
        r = s[0];
      }
      for (int g = 0; g < 3; g++) {
        w.rows[(g * hidden + x.unit) * SEQUENCES + x.s] = g == 2 ? da[g] * r : da[g];
        if (x.in) dgates[(p.at(x.b, t) * 3 + g) * hidden + x.unit] = da[g];
      }
    }
    __syncthreads();
    w.backward<3>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < CELLS; i++) {
      Cell x(i, p);
      if (x.in && t < p.length(x.b)) dh[i] = w.h[x.unit * SEQUENCES + x.s] + kept[i];
    }
  }
#pragma unroll
  for (int i = 0; i < CELLS; i++) {
    Cell x(i, p);
    if (x.in) dh0[(size_t)x.b * hidden + x.unit] = dh[i];
  }
}
CUEMU_EXPORT(gru_back_small_f32)
