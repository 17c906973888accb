// Routing of tokens to experts: scores from logits, the k best, their weights.
//
//   p = softmax(logits) or sigmoid(logits);  chosen = the k largest of p + bias, the lower index first among equals
//   weight = p[chosen] (/ sum of the chosen p) x scale
//
// A warp a token, 8 tokens a block; a lane keeps experts lane, lane + 32, .. in registers (256 at most); k times
// the warp's largest (5 shuffles of value and index). No shared memory. Bound: one read of the logits.
// What the chosen experts then do, and the order of rows by expert, is in gemm.cu (`experts_route`).
#include "gpu.cuh"

constexpr int EACH = 8;  // experts of a lane

extern "C" __global__ void __launch_bounds__(256)
    router_top_f32(const float* logits, const float* bias, int* chosen, float* weights, int tokens, int experts, int k,
                   int sigmoid, int normalise, float scale) {
  int token = blockIdx.x * 8 + (threadIdx.x >> 5), lane = threadIdx.x & 31;
  if (token >= tokens) return;
  const float* x = logits + (size_t)token * experts;
  float p[EACH], key[EACH], most = -INFINITY, all = 0.f;
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int e = lane + i * 32;
    p[i] = e < experts ? x[e] : -INFINITY;
    most = fmaxf(most, p[i]);
  }
  for (int d = 16; d; d >>= 1) most = fmaxf(most, __shfl_xor_sync(~0u, most, d));
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    p[i] = sigmoid ? 1.f / (1.f + expf(-p[i])) : expf(p[i] - most);
    if (lane + i * 32 < experts) all += p[i];
  }
  for (int d = 16; d; d >>= 1) all += __shfl_xor_sync(~0u, all, d);
#pragma unroll
  for (int i = 0; i < EACH; i++) {
    int e = lane + i * 32;
    if (!sigmoid) p[i] /= all;
    key[i] = e < experts ? p[i] + (bias ? bias[e] : 0.f) : -INFINITY;
  }
  unsigned taken = 0;  // by this lane
  float sum = 0.f, mine = 0.f;
  int my_expert = 0;
  for (int n = 0; n < k; n++) {
    float best = -INFINITY, of = 0.f;
    int index = 1 << 30;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      int e = lane + i * 32;
      // A key that is no number comes before all others.
      bool free = e < experts && !(taken >> i & 1);
      if (free && (index == 1 << 30 || key[i] > best || (key[i] != key[i] && best == best))) {
        best = key[i];
        of = p[i];
        index = e;
      }
    }
    for (int d = 16; d; d >>= 1) {
      float other = __shfl_xor_sync(~0u, best, d), other_of = __shfl_xor_sync(~0u, of, d);
      int other_index = __shfl_xor_sync(~0u, index, d);
      bool a = best != best, b = other != other, none = index == 1 << 30;
      bool equal = a || b ? a == b : other == best;
      bool above = a || b ? b && !a : other > best;
      if (other_index != 1 << 30 && (none || above || (equal && other_index < index))) {
        best = other;
        of = other_of;
        index = other_index;
      }
    }
    if (index % 32 == lane) taken |= 1u << (index / 32);
    sum += of;
    if (n % 32 == lane) {
      mine = of;
      my_expert = index;
    }
    // A full warp of choices, or the last: written together; sums are divided by afterwards.
    if (n % 32 == 31 || n + 1 == k) {
      int at = n / 32 * 32 + lane;
      if (at <= n) {
        chosen[(size_t)token * k + at] = my_expert;
        weights[(size_t)token * k + at] = mine * scale;
      }
    }
  }
  if (!normalise) return;
  __syncwarp();
  for (int n = lane; n < k; n += 32) weights[(size_t)token * k + n] /= sum;
}
CUEMU_EXPORT(router_top_f32)
