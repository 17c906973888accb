// A sample of each row of logits: temperature, the k largest, the nucleus of mass p, and a draw of what is left.
//
// A block of 1024 a row. Scores are logits / temperature (temperature 0: the first largest value). The k-th score and
// the end of the nucleus are found by four rounds of a histogram over 8 bits of the scores' order (order.cuh),
// by count and by mass; masses exp(score - max) are whole numbers of 2^-32, so that sums do not depend on
// their order. Scores equal to the last one kept are kept. The draw is the largest of score + Gumbel noise
// (random.cuh), whose number for place i of row r is r * n + i of the stream: no sum of probabilities is needed.
// Bound: the row is read up to 12 times, all but once from L2: 128 K logits in about 40 us.
#include "order.cuh"
#include "random.cuh"
#include "warp.cuh"

enum { THREADS = 1024 };

// The key at which keys up to and with it make up `wanted` (by count, or by mass), among those up to `last`.
DEVFN uint32_t select_key(const float* row, int n, float by, float max, bool mass, uint32_t last, uint64_t wanted, uint64_t* bins, uint32_t* found) {
  const int t = threadIdx.x;
  uint32_t known = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (t < 256) bins[t] = 0;
    __syncthreads();
    for (int i = t; i < n; i += THREADS) {
      const float score = row[i] * by;
      const uint32_t key = order_of(__float_as_uint(score), 1, 1);
      if (key <= last && (shift == 24 || key >> (shift + 8) == known >> (shift + 8)))
        atomicAdd((unsigned long long*)&bins[key >> shift & 255], mass ? (unsigned long long)(expf(score - max) * 4294967296.0f) : 1ull);
    }
    __syncthreads();
    if (t == 0) {
      uint64_t below = 0;
      int bin = 0;
      while (bin < 255 && below + bins[bin] < wanted) below += bins[bin++];
      found[0] = bin;
      bins[0] = below;
    }
    __syncthreads();
    known |= found[0] << shift;
    wanted -= bins[0];
    __syncthreads();
  }
  return known;
}

extern "C" __global__ void __launch_bounds__(1024)
    sample_f32(const float* logits, const uint32_t* key, int* tokens, int n, float temperature, int top_k, float top_p, unsigned stream) {
  __shared__ uint64_t bins[256];
  __shared__ uint32_t found[1];
  __shared__ uint64_t sums[32], bests[32];
  const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  const float* row = logits + (long long)blockIdx.x * n;
  const float by = temperature == 0.0f ? 1.0f : 1.0f / temperature;
  float m = -INFINITY;
  for (int i = t; i < n; i += THREADS) m = fmaxf(m, row[i] * by);
  m = block_max<THREADS>(m);
  // NaN is last: never drawn while anything else is there.
  uint32_t last = 0xfffffffeu;
  if (temperature != 0.0f && top_k > 0 && top_k < n) {
    last = select_key(row, n, by, m, false, last, top_k, bins, found);
  }
  if (temperature != 0.0f && top_p < 1.0f && m > -INFINITY && m < INFINITY) {
    uint64_t sum = 0;
    for (int i = t; i < n; i += THREADS) {
      const float score = row[i] * by;
      if (order_of(__float_as_uint(score), 1, 1) <= last) sum += (uint64_t)(expf(score - m) * 4294967296.0f);
    }
#pragma unroll
    for (int d = 16; d; d >>= 1) {
      const uint32_t high = __shfl_xor_sync(~0u, (uint32_t)(sum >> 32), d), low = __shfl_xor_sync(~0u, (uint32_t)sum, d);
      sum += (uint64_t)high << 32 | low;
    }
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    sum = 0;
    for (int w = 0; w < 32; w++) sum += sums[w];
    const uint64_t wanted = (uint64_t)((double)sum * top_p);
    last = select_key(row, n, by, m, true, last, wanted > 0 ? wanted : 1, bins, found);
  }
  uint64_t best = ~0ull;
  for (int i = t; i < n; i += THREADS) {
    float score = row[i] * by;
    if (order_of(__float_as_uint(score), 1, 1) > last) continue;
    if (temperature != 0.0f) {
      const uint64_t at = (uint64_t)blockIdx.x * n + i;
      const Words w = philox_block(at / 4, stream, key[0], key[1]);
      const int k = (int)(at % 4);
      score += (float)gumbel_of(k < 2 ? (k == 0 ? w.at[0] : w.at[1]) : k == 2 ? w.at[2] : w.at[3]);
    }
    const uint64_t one = (uint64_t)order_of(__float_as_uint(score), 1, 1) << 32 | (uint32_t)i;
    best = one < best ? one : best;
  }
#pragma unroll
  for (int d = 16; d; d >>= 1) {
    const uint32_t high = __shfl_xor_sync(~0u, (uint32_t)(best >> 32), d), low = __shfl_xor_sync(~0u, (uint32_t)best, d);
    const uint64_t other = (uint64_t)high << 32 | low;
    best = other < best ? other : best;
  }
  if (lane == 0) bests[warp] = best;
  __syncthreads();
  if (t == 0) {
    for (int w = 1; w < 32; w++) best = bests[w] < best ? bests[w] : best;
    // A row of nothing but NaN: the first place.
    tokens[blockIdx.x] = best == ~0ull ? 0 : (int)(uint32_t)best;
  }
}
CUEMU_EXPORT(sample_f32)
