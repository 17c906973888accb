// Connectionist temporal classification (Graves et al. 2006): loss and gradient by logits, in f32 logarithms, with
// lengths of both sides.
//
// For a sequence's labels l_1 .. l_U, the S = 2 U + 1 states are blank, l_1, blank, .. , l_U, blank.
//   alpha_t(s) = log p_t(s) + logsum(alpha_{t-1}(s), alpha_{t-1}(s - 1), alpha_{t-1}(s - 2) if l_s is a label other than l_{s-2})
//   loss = -logsum(alpha_T(S - 1), alpha_T(S - 2)),     beta the same from the end, without p_t(s)
//   gradient by logit v at t = g (softmax_v - sum over states s of v of exp(alpha_t(s) + beta_t(s) + loss))
//
// 1 `ctc_rows`: log sum exp of each row of logits: a warp a row. 2 `ctc_alpha`, `ctc_beta`: a block a sequence, threads over
// states (1,024 at most, each several), two rows of states in shared memory, one barrier a step; what the next step
// reads from memory is asked for a step ahead. `ctc_beta` turns alpha in scratch into posteriors. 3 `ctc_grad`: a block
// a row: softmax, then each label's first state subtracts the posteriors of all states of that label, in their order
// (linked once by `ctc_links`): no atomics. Bound: 1 and 3 memory; 2 latency of T steps.
#include "gpu.cuh"
#include "logsum.cuh"
#include "status.cuh"

struct Lengths {
  const int *of_time, *of_labels;  // null: all
  int time, labels;
  __device__ __forceinline__ int clamp(int n, int most) const { return n < 0 ? 0 : n < most ? n : most; }
  __device__ __forceinline__ int frames(int b) const { return of_time ? clamp(of_time[b], time) : time; }
  __device__ __forceinline__ int states(int b) const {
    return 2 * (of_labels ? clamp(of_labels[b], labels) : labels) + 1;
  }
};
#define CTC const int *targets, const int *time_lengths, const int *label_lengths, int batch, int time, int labels, int classes, int blank
#define CTC_LENGTHS                                                                                              \
  Lengths { time_lengths, label_lengths, time, labels }

// Grid: (batch time) / 8.
extern "C" __global__ void __launch_bounds__(256) ctc_rows_f32(const float* logits, float* logsums, CTC) {
  Lengths n = CTC_LENGTHS;
  int row = blockIdx.x * 8 + (threadIdx.x >> 5);
  if (row >= batch * time || row % time >= n.frames(row / time)) return;
  float v = row_logsum(logits + (size_t)row * classes, classes);
  if ((threadIdx.x & 31) == 0) logsums[row] = v;
}
CUEMU_EXPORT(ctc_rows_f32)

// For each label of a sequence the next one of the same class, `labels` for none, in links[b][u]; and whether it
// is the first, in links[batch + b][u]. Checks classes. A block a sequence.
extern "C" __global__ void __launch_bounds__(256) ctc_links(int* links, int* status, CTC) {
  Lengths n = CTC_LENGTHS;
  int b = blockIdx.x, count = n.states(b) / 2;
  const int* of = targets + (size_t)b * labels;
  for (int u = threadIdx.x; u < count; u += 256) {
    int c = checked(status, STATUS_TARGET, of[u], classes), next = labels, first = 1;
    for (int k = u + 1; k < count && next == labels; k++)
      if (of[k] == c) next = k;
    for (int k = 0; k < u; k++)
      if (of[k] == c) first = 0;
    links[(size_t)b * labels + u] = next;
    links[((size_t)batch + b) * labels + u] = first;
  }
}
CUEMU_EXPORT(ctc_links)

// States of a thread whose emissions are read a step ahead.
constexpr int AHEAD = 4;

struct Sequence {
  int b, frames, states, blank, classes;
  const int* of;
  const float *logits, *logsums;
  __device__ __forceinline__ int label(int s) const {
    if (s % 2 == 0) return blank;
    int c = of[s / 2];
    return (unsigned)c < (unsigned)classes ? c : 0;
  }
  // Whether state s is also reached from the state two before.
  __device__ __forceinline__ bool skips(int s) const { return s % 2 && s >= 3 && of[s / 2] != of[s / 2 - 1]; }
  __device__ __forceinline__ float emission(int t, int s) const {
    return t >= 0 && t < frames && s < states ? logits[(size_t)t * classes + label(s)] - logsums[t] : -INFINITY;
  }
};
#define SEQUENCE                                                                                                 \
  Sequence q{b, n.frames(b), n.states(b), blank, classes, targets + (size_t)b * labels,                         \
             logits + (size_t)b * time * classes, logsums + (size_t)b * time}

// alpha[b][t][s], rows of 2 labels + 1. Grid: batch.
extern "C" __global__ void __launch_bounds__(1024)
    ctc_alpha_f32(const float* logits, const float* logsums, float* alpha, float* losses, int zero_infinity, CTC) {
  DYN_SMEM(float, rows);
  Lengths n = CTC_LENGTHS;
  int b = blockIdx.x, width = 2 * labels + 1;
  SEQUENCE;
  alpha += (size_t)b * time * width;
  float ahead[AHEAD];
#pragma unroll
  for (int i = 0; i < AHEAD; i++) ahead[i] = q.emission(0, threadIdx.x + i * blockDim.x);
  for (int t = 0; t < q.frames; t++) {
    float *now = rows + (t & 1) * width, *old = rows + (~t & 1) * width;
    float next[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) next[i] = q.emission(t + 1, threadIdx.x + i * blockDim.x);
    int i = 0;
    for (int s = threadIdx.x; s < q.states; s += blockDim.x, i++) {
      float e = i == 0 ? ahead[0] : i == 1 ? ahead[1] : i == 2 ? ahead[2] : i == 3 ? ahead[3] : q.emission(t, s);
      float v;
      if (t == 0) {
        v = s < 2 ? 0.f : -INFINITY;
      } else {
        v = old[s];
        if (s > 0) v = log_add(v, old[s - 1]);
        if (q.skips(s)) v = log_add(v, old[s - 2]);
      }
      v += e;
      now[s] = v;
      alpha[(size_t)t * width + s] = v;
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) ahead[k] = next[k];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    float v = q.frames ? rows[(~q.frames & 1) * width + q.states - 1] : q.states == 1 ? 0.f : -INFINITY;
    if (q.frames && q.states > 1) v = log_add(v, rows[(~q.frames & 1) * width + q.states - 2]);
    losses[b] = v == -INFINITY && zero_infinity ? 0.f : -v;
  }
}
CUEMU_EXPORT(ctc_alpha_f32)

// alpha becomes posteriors: the part of all paths that passes state s at step t. Grid: batch.
extern "C" __global__ void __launch_bounds__(1024)
    ctc_beta_f32(const float* logits, const float* logsums, float* alpha, CTC) {
  DYN_SMEM(float, rows);
  Lengths n = CTC_LENGTHS;
  int b = blockIdx.x, width = 2 * labels + 1;
  SEQUENCE;
  alpha += (size_t)b * time * width;
  if (q.frames == 0) return;
  const float* last = alpha + (size_t)(q.frames - 1) * width;
  float total = last[q.states - 1];
  if (q.states > 1) total = log_add(total, last[q.states - 2]);
  __syncthreads();  // before the last row is overwritten
  // rows hold beta and the emission of the step after.
  float ahead[AHEAD];
#pragma unroll
  for (int i = 0; i < AHEAD; i++) ahead[i] = q.emission(q.frames - 1, threadIdx.x + i * blockDim.x);
  for (int t = q.frames - 1; t >= 0; t--) {
    float *now = rows + (t & 1) * width, *old = rows + (~t & 1) * width;
    float next[AHEAD];
#pragma unroll
    for (int i = 0; i < AHEAD; i++) next[i] = q.emission(t - 1, threadIdx.x + i * blockDim.x);
    int i = 0;
    for (int s = threadIdx.x; s < q.states; s += blockDim.x, i++) {
      float e = i == 0 ? ahead[0] : i == 1 ? ahead[1] : i == 2 ? ahead[2] : i == 3 ? ahead[3] : q.emission(t, s);
      float v;
      if (t == q.frames - 1) {
        v = s >= q.states - 2 ? 0.f : -INFINITY;
      } else {
        v = old[s];
        if (s + 1 < q.states) v = log_add(v, old[s + 1]);
        if (s + 2 < q.states && q.skips(s + 2)) v = log_add(v, old[s + 2]);
      }
      now[s] = v + e;
      float* at = &alpha[(size_t)t * width + s];
      *at = total == -INFINITY ? 0.f : expf(*at + v - total);
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) ahead[k] = next[k];
    __syncthreads();
  }
}
CUEMU_EXPORT(ctc_beta_f32)

// Grid: batch time. A sequence that its frames cannot hold has no gradient.
extern "C" __global__ void __launch_bounds__(256)
    ctc_grad_f32(const float* logits, const float* logsums, const float* posteriors, const int* links, const float* g,
                 float* grad, CTC) {
  __shared__ float part[8];
  Lengths n = CTC_LENGTHS;
  int row = blockIdx.x, b = row / time, t = row % time, states = n.states(b), width = 2 * labels + 1;
  float* to = grad + (size_t)row * classes;
  if (t >= n.frames(b)) {
    for (int v = threadIdx.x; v < classes; v += 256) to[v] = 0.f;
    return;
  }
  const float *from = logits + (size_t)row * classes, *post = posteriors + (size_t)row * width;
  float by = g[b], logsum = logsums[row];
  // Blanks, and all: 0 where no path was possible.
  float blanks = 0.f, all = 0.f;
  for (int s = threadIdx.x; s < states; s += 256) {
    all += post[s];
    if (s % 2 == 0) blanks += post[s];
  }
  for (int d = 16; d; d >>= 1) {
    blanks += __shfl_xor_sync(~0u, blanks, d);
    all += __shfl_xor_sync(~0u, all, d);
  }
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = all;
  __syncthreads();
  all = 0.f;
  for (int w = 0; w < 8; w++) all += part[w];
  __syncthreads();
  if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = blanks;
  __syncthreads();
  for (int v = threadIdx.x; v < classes; v += 256) {
    float p = all > 0.f ? expf(from[v] - logsum) : 0.f;
    if (v == blank)
      for (int w = 0; w < 8; w++) p -= part[w];
    to[v] = by * p;
  }
  __syncthreads();
  for (int u = threadIdx.x; u < states / 2; u += 256) {
    if (!links[((size_t)batch + b) * labels + u]) continue;
    float sum = 0.f;
    for (int k = u; k < labels; k = links[(size_t)b * labels + k]) sum += post[2 * k + 1];
    int c = targets[(size_t)b * labels + u];
    if ((unsigned)c < (unsigned)classes) to[c] -= by * sum;
  }
}
CUEMU_EXPORT(ctc_grad_f32)
