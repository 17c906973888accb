// cluster.cuh: blocks that run together and read each other's shared memory (sm_90).
//
// The kernel states its cluster with `CLUSTER(x, y, z)` after `__global__`, the launch with
// `Launch::cluster([x, y, z])`: they must agree. A block must not end while another may still read its
// shared memory: end with `cluster_sync()`. `grid_sync` needs a launch whose blocks all run at once
// (`Launch::cooperative()`).
#pragma once
#include "base.cuh"

#if !defined(CUEMU) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define CLUSTER(x, y, z) __cluster_dims__(x, y, z)
#else
#define CLUSTER(x, y, z)
#endif

// Which block of the cluster this is.
DEVFN uint32_t cluster_rank() {
#ifndef CUEMU
  uint32_t r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
#else
  return cuemu::cluster_rank();
#endif
}

// How many blocks the cluster has.
DEVFN uint32_t cluster_size() {
#ifndef CUEMU
  uint32_t r;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
  return r;
#else
  return cuemu::cluster_size();
#endif
}

// All threads of the cluster arrive; what they wrote is seen after their `cluster_wait`.
DEVFN void cluster_arrive() {
#ifndef CUEMU
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#else
  cuemu::cluster_arrive();
#endif
}

// Until all have arrived.
DEVFN void cluster_wait() {
#ifndef CUEMU
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#else
  cuemu::cluster_wait();
#endif
}

// Both.
DEVFN void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}

// Where a variable in shared memory lies in another block of the cluster: an ordinary pointer.
template <class T> DEVFN T* cluster_map(T* p, uint32_t rank) {
#ifndef CUEMU
  uint64_t r;
  asm("mapa.u64 %0, %1, %2;" : "=l"(r) : "l"(p), "r"(rank));
  return (T*)r;
#else
  return (T*)cuemu::map_shared((const void*)p, rank);
#endif
}

// All blocks of the grid meet; what they wrote is seen. `counter` is a zero in global memory that is used for
// nothing else; it may serve any number of meetings of the same grid.
DEVFN void grid_sync(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x + threadIdx.y + threadIdx.z == 0) {
    // The last to come of each round flips the highest bit: the first block adds what the others leave.
    bool first = blockIdx.x + blockIdx.y + blockIdx.z == 0;
    unsigned add = first ? 0x80000000u - (gridDim.x * gridDim.y * gridDim.z - 1) : 1u;
    __threadfence();
    unsigned old = atomicAdd(counter, add);
#ifndef CUEMU
    unsigned now;
    do {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(now) : "l"(counter) : "memory");
    } while (((old ^ now) & 0x80000000u) == 0);
#else
    while (((old ^ *(volatile unsigned*)counter) & 0x80000000u) == 0) cuemu::wait_for("grid_sync");
#endif
    __threadfence();
  }
  __syncthreads();
}
