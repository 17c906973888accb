// Random values: uniform, normal, Gumbel, Bernoulli, four of a counter (include/random.cuh) a thread.
//
// key: two words, seed and step, on the device. Uniform and Bernoulli are whole numbers' work; the others are
// computed in double precision, as on every device: on an H100 (33 TFLOP/s) about as fast as they are written.
// Bound: 4 bytes (1 byte) a value written.
#include "random.cuh"

enum { UNIFORM, NORMAL, GUMBEL };

extern "C" __global__ void __launch_bounds__(256) random_f32(const uint32_t* key, float* y, long long count, unsigned stream, int kind) {
  const long long b = (long long)blockIdx.x * 256 + threadIdx.x;
  if (b * 4 >= count) return;
  const Words w = philox_block(b, stream, key[0], key[1]);
  Vec<float, 4> v;
  if (kind == NORMAL) {
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
      double p, q;
      normal_of(w.at[k], w.at[k + 1], p, q);
      v[k] = (float)p;
      v[k + 1] = (float)q;
    }
  } else {
#pragma unroll
    for (int k = 0; k < 4; k++) v[k] = kind == UNIFORM ? uniform_of(w.at[k]) : (float)gumbel_of(w.at[k]);
  }
  if (b * 4 + 4 <= count) {
    store<4>(y + b * 4, v);
  } else {
#pragma unroll
    for (int k = 0; k < 4; k++)
      if (b * 4 + k < count) y[b * 4 + k] = v[k];
  }
}
CUEMU_EXPORT(random_f32)

// 1 where the uniform number of 24 bits is below `bound` (0 to 2^24).
extern "C" __global__ void __launch_bounds__(256) random_mask(const uint32_t* key, unsigned char* y, long long count, unsigned stream, unsigned bound) {
  const long long b = (long long)blockIdx.x * 256 + threadIdx.x;
  if (b * 4 >= count) return;
  const Words w = philox_block(b, stream, key[0], key[1]);
#pragma unroll
  for (int k = 0; k < 4; k++)
    if (b * 4 + k < count) y[b * 4 + k] = w.at[k] >> 8 < bound;
}
CUEMU_EXPORT(random_mask)
