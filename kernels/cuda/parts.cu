// The sum of the parts of a long sum, in their order: the same bits each time. A thread a value; bound: memory.
#include "gpu.cuh"

extern "C" __global__ void __launch_bounds__(256) sum_parts_f32(const float* parts, float* to, int count, int n) {
  int i = blockIdx.x * 256 + threadIdx.x;
  if (i >= n) return;
  float sum = 0.f;
  for (int p = 0; p < count; p++) sum += parts[(size_t)p * n + i];
  to[i] = sum;
}
CUEMU_EXPORT(sum_parts_f32)
