// Transducer losses: RNN-T (Graves 2012) and TDT (Xu et al. 2023), loss and gradient by the joint's logits, in f32
// logarithms, with lengths of both sides; FastEmit (Yu et al. 2021) and clamping as NeMo's warprnnt does them.
//
// Nodes (t, u), t < T frames, u <= U labels; a node's row of logits has V tokens (blank among them), for TDT
// followed by D durations, which have a softmax of their own. Steps:
//   RNN-T  blank (t, u) -> (t + 1, u), label u (t, u) -> (t, u + 1)
//   TDT    blank with duration l > 0 -> (t + l, u), label with any l -> (t + l, u + 1); tokens weigh exp(-sigma) each
// and the last blank leads to (T, U). alpha is the sum of paths to a node, beta from it, both as logarithms:
//   loss = -alpha(T, U),    w(step) = exp(alpha(from) + log p(step) + beta(to) + loss)
//   gradient by logit v = g (softmax_v sum of w over the node's steps - sum of w over those with v)
//
// 1 `transducer_nodes`: a warp a node: the logits are read once, K = 4 + D values a node are kept. 2 `transducer_paths`: two
// blocks a sequence, alpha and beta, along diagonals t + u, a thread a node, one barrier a diagonal. 3 `transducer_grad`: a warp a
// node: the logits read again, their gradient written. 1 and 3 take frames t0 .. t0 + n of every sequence, so that
// the logits of all nodes need never be in memory at once. Bound: 1 and 3 memory; 2 latency of T + U steps.
#include "gpu.cuh"
#include "logsum.cuh"
#include "status.cuh"

constexpr int MOST = 8;  // durations

struct Loss {
  const int *targets, *time_lengths, *label_lengths;
  int batch, time, labels, tokens, blank, durations;
  int duration[MOST];
  __device__ __forceinline__ int frames(int b) const {
    int n = time_lengths ? time_lengths[b] : time;
    return n < 0 ? 0 : n < time ? n : time;
  }
  __device__ __forceinline__ int count(int b) const {
    int n = label_lengths ? label_lengths[b] : labels;
    return n < 0 ? 0 : n < labels ? n : labels;
  }
  __device__ __forceinline__ int kept() const { return 4 + durations; }
  __device__ __forceinline__ size_t node(int b, int t, int u) const {
    return ((size_t)b * time + t) * (labels + 1) + u;
  }
};
#define LOSS                                                                                                     \
  const int *targets, const int *time_lengths, const int *label_lengths, int batch, int time, int labels, int tokens, \
      int blank, int durations, int d0, int d1, int d2, int d3, int d4, int d5, int d6, int d7
#define LOSS_ARGS                                                                                                \
  Loss {                                                                                                         \
    targets, time_lengths, label_lengths, batch, time, labels, tokens, blank, durations, {                       \
      d0, d1, d2, d3, d4, d5, d6, d7                                                                             \
    }                                                                                                            \
  }

// Of each node: log sums of tokens and of durations, logarithms of blank and of the next label, of each duration.
enum { TOKENS = 0, SPANS = 1, BLANK = 2, LABEL = 3, SPAN = 4 };

// The node of this warp among frames t0 .. t0 + n: false outside the array.
__device__ __forceinline__ bool find(const Loss& s, int n, int& b, int& t, int& u, long long& row) {
  row = blockIdx.x * 8ll + (threadIdx.x >> 5);
  if (row >= (long long)s.batch * n * (s.labels + 1)) return false;
  u = (int)(row % (s.labels + 1));
  t = (int)(row / (s.labels + 1) % n);
  b = (int)(row / (s.labels + 1) / n);
  return true;
}

extern "C" __global__ void __launch_bounds__(256)
    transducer_nodes_f32(const float* logits, float* nodes, int* status, float sigma, int t0, int n, LOSS) {
  Loss s = LOSS_ARGS;
  int b, t, u, lane = threadIdx.x & 31;
  long long row;
  if (!find(s, n, b, t, u, row)) return;
  if (t0 + t >= s.frames(b) || u > s.count(b)) return;
  const float* x = logits + (size_t)row * (s.tokens + s.durations);
  float* to = nodes + s.node(b, t0 + t, u) * s.kept();
  float all = row_logsum(x, s.tokens), spans = s.durations ? row_logsum(x + s.tokens, s.durations) : 0.f;
  if (lane == 0) {
    int label = u < s.count(b) ? checked(status, STATUS_TARGET, s.targets[(size_t)b * s.labels + u], s.tokens) : -1;
    to[TOKENS] = all;
    to[SPANS] = spans;
    to[BLANK] = x[s.blank] - all - sigma;
    to[LABEL] = label < 0 ? -INFINITY : x[label] - all - sigma;
  }
  if (lane < s.durations) to[SPAN + lane] = x[s.tokens + lane] - spans;
}
CUEMU_EXPORT(transducer_nodes_f32)

// Grid: batch, 2. The losses come from alpha.
extern "C" __global__ void __launch_bounds__(1024)
    transducer_paths_f32(const float* nodes, float* alpha, float* beta, float* losses, LOSS) {
  Loss s = LOSS_ARGS;
  int b = blockIdx.x, T = s.frames(b), U = s.count(b), K = s.kept();
  bool forward = blockIdx.y == 0;
  float* to = (forward ? alpha : beta) + s.node(b, 0, 0);
  nodes += s.node(b, 0, 0) * K;
  int width = s.labels + 1;
  for (int step = 0; step < T + U; step++) {
    int d = forward ? step : T + U - 1 - step;
    for (int u = threadIdx.x; u <= U; u += blockDim.x) {
      int t = d - u;
      if (t < 0 || t >= T) continue;
      float v = -INFINITY;
      if (forward) {
        if (d == 0) v = 0.f;
        if (s.durations == 0) {
          int before = (t - 1) * width + u, left = t * width + u - 1;
          if (t > 0) v = log_add(v, to[before] + nodes[(size_t)before * K + BLANK]);
          if (u > 0) v = log_add(v, to[left] + nodes[(size_t)left * K + LABEL]);
        }
#pragma unroll
        for (int i = 0; i < MOST; i++) {
          if (i >= s.durations) break;
          int from = t - s.duration[i];
          if (from < 0) continue;
          int before = from * width + u, left = before - 1;
          if (s.duration[i] > 0)
            v = log_add(v, to[before] + nodes[(size_t)before * K + BLANK] + nodes[(size_t)before * K + SPAN + i]);
          if (u > 0) v = log_add(v, to[left] + nodes[(size_t)left * K + LABEL] + nodes[(size_t)left * K + SPAN + i]);
        }
      } else {
        const float* at = nodes + (size_t)(t * width + u) * K;
        if (s.durations == 0) {
          float after = t + 1 < T ? to[(t + 1) * width + u] : u == U ? 0.f : -INFINITY;
          v = at[BLANK] + after;
          if (u < U) v = log_add(v, at[LABEL] + to[t * width + u + 1]);
        }
#pragma unroll
        for (int i = 0; i < MOST; i++) {
          if (i >= s.durations) break;
          int into = t + s.duration[i];
          float after = into < T ? to[into * width + u] : into == T && u == U ? 0.f : -INFINITY;
          if (s.duration[i] > 0) v = log_add(v, at[BLANK] + at[SPAN + i] + after);
          if (u < U && into < T) v = log_add(v, at[LABEL] + at[SPAN + i] + to[into * width + u + 1]);
        }
      }
      to[t * width + u] = v;
    }
    __syncthreads();
  }
  if (!forward || threadIdx.x) return;
  float v = -INFINITY;
  if (s.durations == 0 && T > 0) {
    int last = (T - 1) * width + U;
    v = to[last] + nodes[(size_t)last * K + BLANK];
  }
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    if (i >= s.durations) break;
    int last = (T - s.duration[i]) * width + U;
    if (s.duration[i] > 0 && s.duration[i] <= T)
      v = log_add(v, to[last] + nodes[(size_t)last * K + BLANK] + nodes[(size_t)last * K + SPAN + i]);
  }
  losses[b] = -v;
}
CUEMU_EXPORT(transducer_paths_f32)

// g is by the losses, of each sequence. `fastemit` and `clamp` (0 for none) as in NeMo's warprnnt.
extern "C" __global__ void __launch_bounds__(256)
    transducer_grad_f32(const float* logits, const float* nodes, const float* alpha, const float* beta,
                        const float* losses, const float* g, float* grad, float fastemit, float clamp, int t0, int n,
                        LOSS) {
  Loss s = LOSS_ARGS;
  int b, t, u, lane = threadIdx.x & 31;
  long long row;
  if (!find(s, n, b, t, u, row)) return;
  t += t0;
  int T = s.frames(b), U = s.count(b), wide = s.tokens + s.durations, width = s.labels + 1;
  const float* x = logits + (size_t)row * wide;
  float *to = grad + (size_t)row * wide, loss = losses[b];
  bool on = t < T && u <= U && loss < INFINITY;
  if (!on) {
    for (int v = lane; v < wide; v += 32) to[v] = 0.f;
    return;
  }
  size_t node = s.node(b, t, u);
  const float *at = nodes + node * s.kept(), *betas = beta + s.node(b, 0, 0);
  float here = alpha[node] + loss, blanks = 0.f, emitted = 0.f, spans[MOST] = {};
  if (s.durations == 0) {
    float after = t + 1 < T ? betas[(t + 1) * width + u] : u == U ? 0.f : -INFINITY;
    blanks = expf(here + at[BLANK] + after);
    if (u < U) emitted = expf(here + at[LABEL] + betas[t * width + u + 1]);
  }
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    if (i >= s.durations) break;
    int into = t + s.duration[i];
    float after = into < T ? betas[into * width + u] : into == T && u == U ? 0.f : -INFINITY, blank = 0.f, label = 0.f;
    if (s.duration[i] > 0) blank = expf(here + at[BLANK] + at[SPAN + i] + after);
    if (u < U && into < T) label = expf(here + at[LABEL] + at[SPAN + i] + betas[into * width + u + 1]);
    blanks += blank;
    emitted += label;
    spans[i] = blank + label;
  }
  float by = g[b], all = blanks + emitted, lifted = emitted * (1.f + fastemit);
  int label = u < U ? s.targets[(size_t)b * s.labels + u] : -1;
  auto bounded = [&](float v) { return clamp > 0.f ? fminf(fmaxf(v, -clamp), clamp) : v; };
  for (int v = lane; v < s.tokens; v += 32) {
    float d = expf(x[v] - at[TOKENS]) * (all + fastemit * emitted);
    if (v == s.blank) d -= blanks;
    if (v == label) d -= lifted;
    to[v] = by * bounded(d);
  }
#pragma unroll
  for (int i = 0; i < MOST; i++)
    if (lane == i && i < s.durations) to[s.tokens + i] = by * bounded(expf(at[SPAN + i]) * all - spans[i]);
}
CUEMU_EXPORT(transducer_grad_f32)
