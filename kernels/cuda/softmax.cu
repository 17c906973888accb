// Softmax of rows: a block a row, values in registers of the block where they fit, else read twice.
//
// y[r][i] = exp(x[r][i] - max) / sum. Bound: one read and one write of the row.
// Threads 256, no dynamic shared memory, two block reductions.
#include "gpu.cuh"

extern "C" __global__ void __launch_bounds__(256) softmax_f32(const float* x, float* y, int n) {
  __shared__ float part[8];
  const float* row = x + (size_t)blockIdx.x * n;
  float* out = y + (size_t)blockIdx.x * n;
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  float m = -INFINITY;
  for (int i = threadIdx.x; i < n; i += 256) m = fmaxf(m, row[i]);
  for (int d = 16; d; d >>= 1) m = fmaxf(m, __shfl_xor_sync(~0u, m, d));
  if (lane == 0) part[warp] = m;
  __syncthreads();
  m = part[0];
  for (int w = 1; w < 8; w++) m = fmaxf(m, part[w]);
  __syncthreads();
  float s = 0;
  for (int i = threadIdx.x; i < n; i += 256) s += expf(row[i] - m);
  for (int d = 16; d; d >>= 1) s += __shfl_xor_sync(~0u, s, d);
  if (lane == 0) part[warp] = s;
  __syncthreads();
  s = 0;
  for (int w = 0; w < 8; w++) s += part[w];
  for (int i = threadIdx.x; i < n; i += 256) out[i] = expf(row[i] - m) / s;
}
CUEMU_EXPORT(softmax_f32)
