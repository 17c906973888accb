// Kernels with one mistake each. What the emulator must say of them stands in wrong.rs.
#include "gpu.cuh"
#define WRONG(name) extern "C" __global__ void name(float* x, float* y, const __grid_constant__ TensorMap map)

// ---- barriers
WRONG(w_race_write_read) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = s[63 - threadIdx.x];
}
CUEMU_EXPORT(w_race_write_read)
WRONG(w_race_read_write) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  float v = s[63 - threadIdx.x];
  s[threadIdx.x] = v;
}
CUEMU_EXPORT(w_race_read_write)
WRONG(w_race_in_warp) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = s[threadIdx.x ^ 1];
}
CUEMU_EXPORT(w_race_in_warp)
WRONG(w_race_with_atomic) {
  __shared__ int s[1];
  if (threadIdx.x == 0) s[0] = 0;
  __syncthreads();
  atomicAdd(s, 1);
  if (threadIdx.x == 0) y[0] = (float)s[0];
}
CUEMU_EXPORT(w_race_with_atomic)
WRONG(w_divergent_barrier) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
CUEMU_EXPORT(w_divergent_barrier)
WRONG(w_divergent_warp) {
  float v = x[threadIdx.x];
  if (threadIdx.x & 1) v = __shfl_xor_sync(~0u, v, 1);
  else __syncwarp();
  y[threadIdx.x] = v;
}
CUEMU_EXPORT(w_divergent_warp)
WRONG(w_mask_without_itself) { y[threadIdx.x] = __shfl_sync(0xffff, x[threadIdx.x], 0); }
CUEMU_EXPORT(w_mask_without_itself)
WRONG(w_half_a_warp) {
  if (threadIdx.x % 32 < 16) __syncwarp();
  y[threadIdx.x] = __shfl_sync(~0u, x[threadIdx.x], 0);
}
CUEMU_EXPORT(w_half_a_warp)
WRONG(w_named_barrier_alone) {
  if (threadIdx.x < 32) named_sync(1, 64);
}
CUEMU_EXPORT(w_named_barrier_alone)
WRONG(w_named_barrier_counts) { named_sync(1, threadIdx.x < 32 ? 32 : 64); }
CUEMU_EXPORT(w_named_barrier_counts)

// ---- mbarriers
#define BARRIER(count)                   \
  __shared__ uint64_t bar;               \
  if (threadIdx.x == 0) {                \
    mbar_init(&bar, count);              \
    mbar_init_fence();                   \
  }                                      \
  __syncthreads();
WRONG(w_barrier_without_init) {
  __shared__ uint64_t bar;
  mbar_arrive(&bar);
}
CUEMU_EXPORT(w_barrier_without_init)
WRONG(w_wrong_parity) {
  BARRIER(64)
  mbar_arrive(&bar);
  mbar_wait(&bar, 0);
  mbar_wait(&bar, 0 + 1 + 2);
  mbar_arrive(&bar);
  mbar_wait(&bar, 0);
  mbar_wait(&bar, 0);
}
CUEMU_EXPORT(w_wrong_parity)
WRONG(w_too_many_arrivals) {
  BARRIER(1)
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 128);
    mbar_arrive(&bar);
  }
}
CUEMU_EXPORT(w_too_many_arrivals)
WRONG(w_expects_more) {
  DYN_SMEM(float, s);
  BARRIER(1)
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 256);
    tma_load_1d(s, x, 128, &bar);
  }
  mbar_wait(&bar, 0);
}
CUEMU_EXPORT(w_expects_more)
WRONG(w_expects_less) {
  DYN_SMEM(float, s);
  BARRIER(2)
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 128);
    tma_load_1d(s, x, 128, &bar);
    tma_load_1d(s + 32, x + 32, 128, &bar);
    mbar_arrive(&bar);
  }
  mbar_wait(&bar, 0);
}
CUEMU_EXPORT(w_expects_less)
WRONG(w_nobody_waits) {
  DYN_SMEM(float, s);
  BARRIER(1)
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 128);
    tma_load_1d(s, x, 128, &bar);
  }
}
CUEMU_EXPORT(w_nobody_waits)

// ---- memory
WRONG(w_load_past_the_end) { y[threadIdx.x] = x[threadIdx.x + 64]; }
CUEMU_EXPORT(w_load_past_the_end)
WRONG(w_store_before) { y[(int)threadIdx.x - 1] = x[threadIdx.x]; }
CUEMU_EXPORT(w_store_before)
WRONG(w_null) {
  float* p = x[0] == 12345.f ? y : nullptr;
  p[0] = 1;
}
CUEMU_EXPORT(w_null)
WRONG(w_past_dynamic_shared) {
  DYN_SMEM(float, s);
  s[threadIdx.x + 100] = 1;
}
CUEMU_EXPORT(w_past_dynamic_shared)
WRONG(w_misaligned_load) {
  Vec<float, 4> v = load<4>(x + 1 + threadIdx.x % 2);
  y[threadIdx.x] = v[0];
}
CUEMU_EXPORT(w_misaligned_load)
WRONG(w_atomic_outside) { atomicAdd(y + 64, 1.f); }
CUEMU_EXPORT(w_atomic_outside)
__device__ float deep(float* a, int n) {
  volatile float here[256];
  here[n % 256] = a[0];
  return n ? deep(a, n - 1) + here[n % 256] : here[0];
}
WRONG(w_deep) { y[threadIdx.x] = deep(x, 100); }
CUEMU_EXPORT(w_deep)

// ---- asynchronous copies
WRONG(w_copy_not_waited) {
  DYN_SMEM(float, s);
  cp_async16(s + 4 * threadIdx.x, x + 4 * (threadIdx.x % 16));
  cp_async_commit();
}
CUEMU_EXPORT(w_copy_not_waited)
WRONG(w_copy_not_committed) {
  DYN_SMEM(float, s);
  cp_async16(s + 4 * threadIdx.x, x + 4 * (threadIdx.x % 16));
  cp_async_wait<0>();
}
CUEMU_EXPORT(w_copy_not_committed)
WRONG(w_copy_out_of_bounds) {
  DYN_SMEM(float, s);
  cp_async16(s + 4 * threadIdx.x, x + 4 * threadIdx.x);
  cp_async_commit();
  cp_async_wait<0>();
}
CUEMU_EXPORT(w_copy_out_of_bounds)
WRONG(w_copy_misaligned) {
  DYN_SMEM(float, s);
  cp_async16(s + threadIdx.x, x);
}
CUEMU_EXPORT(w_copy_misaligned)
WRONG(w_copies_of_others) {
  DYN_SMEM(float, s);
  cp_async4(s + threadIdx.x, x + threadIdx.x);
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = s[63 - threadIdx.x];
}
CUEMU_EXPORT(w_copies_of_others)
WRONG(w_tile_misaligned) {
  DYN_SMEM(float, s);
  BARRIER(1)
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 256);
    tma_load_2d(s + 4, &map, &bar, 0, 0);
  }
  mbar_wait(&bar, 0);
}
CUEMU_EXPORT(w_tile_misaligned)
WRONG(w_rank) {
  DYN_SMEM(float, s);
  BARRIER(1)
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 256);
    tma_load_3d(s, &map, &bar, 0, 0, 0);
  }
  mbar_wait(&bar, 0);
}
CUEMU_EXPORT(w_rank)
WRONG(w_tile_reused) {
  DYN_SMEM(float, s);
  BARRIER(1)
  for (int i = 0; i < 2; i++) {
    if (threadIdx.x == 0) {
      mbar_expect(&bar, 256);
      tma_load_2d(s, &map, &bar, 0, 0);
    }
    mbar_wait(&bar, i & 1);
    y[threadIdx.x] = s[threadIdx.x];
  }
}
CUEMU_EXPORT(w_tile_reused)
WRONG(w_store_not_waited) {
  DYN_SMEM(float, s);
  s[threadIdx.x] = 1;
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store_2d(&map, s, 0, 0);
    tma_commit();
  }
}
CUEMU_EXPORT(w_store_not_waited)
WRONG(w_store_without_fence) {
  DYN_SMEM(float, s);
  s[threadIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store_2d(&map, s, 0, 0);
    tma_commit();
    tma_wait<0>();
  }
}
CUEMU_EXPORT(w_store_without_fence)
WRONG(w_stored_tile_reused) {
  DYN_SMEM(float, s);
  s[threadIdx.x] = 1;
  fence_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    tma_store_2d(&map, s, 0, 0);
    tma_commit();
    s[0] = 2;
    tma_wait<0>();
  }
}
CUEMU_EXPORT(w_stored_tile_reused)

// ---- wgmma
#define OPERANDS                                                              \
  DYN_SMEM(bf16, s);                                                          \
  for (int i = threadIdx.x; i < 8192; i += 128) s[i] = bf16(1.f);             \
  fence_async();                                                              \
  __syncthreads();                                                            \
  float d[32];                                                                \
  for (int i = 0; i < 32; i++) d[i] = 0;                                      \
  uint64_t a = desc128(s), b = desc128(s + 4096);
#define KEEP \
  for (int i = 0; i < 32; i++) y[(threadIdx.x * 32 + i) % 64] = d[i];
WRONG(w_wgmma_not_waited) {
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, b);
  wgmma_commit();
  KEEP
}
CUEMU_EXPORT(w_wgmma_not_waited)
WRONG(w_accumulators_touched) {
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, b);
  wgmma_commit();
  d[3] = 0;
  wgmma_wait<0>();
  KEEP
}
CUEMU_EXPORT(w_accumulators_touched)
WRONG(w_wgmma_without_fence) {
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, b);
  wgmma_commit();
  wgmma_wait<0>();
  d[3] = 0;
  wgmma<64, bf16>(d, a, b);
  wgmma_commit();
  wgmma_wait<0>();
  KEEP
}
CUEMU_EXPORT(w_wgmma_without_fence)
WRONG(w_operands_without_fence) {
  OPERANDS
  s[threadIdx.x] = bf16(2.f);
  __syncthreads();
  wgmma_fence();
  wgmma<64, bf16>(d, a, b);
  wgmma_commit();
  wgmma_wait<0>();
  KEEP
}
CUEMU_EXPORT(w_operands_without_fence)
WRONG(w_operands_overwritten) {
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, b);
  wgmma_commit();
  s[threadIdx.x] = bf16(2.f);
  wgmma_wait<0>();
  KEEP
}
CUEMU_EXPORT(w_operands_overwritten)
WRONG(w_released_too_early) {
  BARRIER(128)
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, b);
  wgmma_commit();
  mbar_arrive(&bar);
  if (threadIdx.x == 0) {
    mbar_wait(&bar, 0);
    mbar_expect_more(&bar, 256);
    tma_load_2d(s, &map, &bar, 0, 0);
  }
  wgmma_wait<0>();
  mbar_arrive(&bar);
  mbar_wait(&bar, 1);
  KEEP
}
CUEMU_EXPORT(w_released_too_early)
WRONG(w_half_a_warpgroup) {
  OPERANDS
  if (threadIdx.x < 64) wgmma_fence();
}
CUEMU_EXPORT(w_half_a_warpgroup)
WRONG(w_operand_past_the_end) {
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, desc128(s + 8192 - 512));
  wgmma_commit();
  wgmma_wait<0>();
  KEEP
}
CUEMU_EXPORT(w_operand_past_the_end)
WRONG(w_operand_misaligned) {
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, desc128(s + 64));
  wgmma_commit();
  wgmma_wait<0>();
  KEEP
}
CUEMU_EXPORT(w_operand_misaligned)
WRONG(w_too_many_registers) {
  reg_inc<256>();
}
CUEMU_EXPORT(w_too_many_registers)
WRONG(w_registers_the_wrong_way) {
  reg_dec<240>();
}
CUEMU_EXPORT(w_registers_the_wrong_way)
WRONG(w_operand_moved_off) {
  OPERANDS
  wgmma_fence();
  wgmma<64, bf16>(d, a, b + 128 / 16);
  wgmma_commit();
  wgmma_wait<0>();
  KEEP
}
CUEMU_EXPORT(w_operand_moved_off)
WRONG(w_barrier_not_shown) {
  DYN_SMEM(float, s);
  __shared__ uint64_t bar;
  if (threadIdx.x == 0) mbar_init(&bar, 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    mbar_expect(&bar, 256);
    tma_load_2d(s, &map, &bar, 0, 0);
  }
  mbar_wait(&bar, 0);
}
CUEMU_EXPORT(w_barrier_not_shown)

// ---- clusters
WRONG(w_neighbour_has_ended) {
  __shared__ float s[1];
  s[0] = 1;
  cluster_sync();
  if (cluster_rank() == 0) {
    for (int i = 0; i < 100; i++) __nanosleep(10);
    y[0] = cluster_map(s, 1)[0];
  }
}
CUEMU_EXPORT(w_neighbour_has_ended)
WRONG(w_neighbour_not_ready) {
  __shared__ float s[64];
  s[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = cluster_map(s, cluster_rank() ^ 1)[threadIdx.x];
  cluster_sync();
}
CUEMU_EXPORT(w_neighbour_not_ready)
WRONG(w_multicast_beyond) {
  DYN_SMEM(float, s);
  BARRIER(1)
  cluster_sync();
  if (threadIdx.x == 0 && cluster_rank() == 0) tma_load_2d_multicast(s, &map, &bar, 5, 0, 0);
  cluster_sync();
}
CUEMU_EXPORT(w_multicast_beyond)
