// tma.cuh: Hopper's bulk copies between global and shared memory, one thread for a whole tile.
//
// Loads end at an mbarrier that was told the bytes of the whole box, also of what lies outside the
// array (which reads as zeros). Stores and reductions belong to groups of the thread that issued them:
// `tma_commit`, then `tma_wait_read<N>` before shared memory is written anew and `tma_wait<N>` before the block
// ends or others read. Before a store stands `fence_async` by the threads that wrote the tile, and a barrier.
// Tiles in shared memory are aligned to 128 bytes, with a swizzle to eight of its rows (1,024 bytes for 128).
// Coordinates: the dimension of neighbouring values first. Maps are `const __grid_constant__ TensorMap` arguments.
#pragma once
#include "barrier.cuh"

struct alignas(64) TensorMap {
  unsigned long long opaque[16];
};

// Brings the descriptor into the cache.
DEVFN void tma_prefetch(const TensorMap* map) {
#ifndef CUEMU
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}

// Of maps that stand in memory: what this kernel has written of them is seen by those after it that acquire it ..
DEVFN void tma_release() {
#if !defined(CUEMU) && __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.tensormap::generic.release.gpu;" ::: "memory");
#endif
}
// .. by the thread that then uses the map.
DEVFN void tma_acquire(const TensorMap* map) {
#ifndef CUEMU
  asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
#endif
}

// `bytes` (a multiple of 16, both sides aligned to 16) to shared memory.
DEVFN void tma_load_1d(void* to, const void* from, uint32_t bytes, uint64_t* bar) {
#ifndef CUEMU
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(s32(to)), "l"(from), "r"(bytes), "r"(s32(bar)) : "memory");
#else
  cuemu::bulk_load(to, from, bytes, bar);
#endif
}

// `bytes` from shared memory.
DEVFN void tma_store_1d(void* to, const void* from, uint32_t bytes) {
#ifndef CUEMU
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(s32(from)), "r"(bytes) : "memory");
#else
  cuemu::bulk_store(to, from, bytes, false);
#endif
}

// Floats from shared memory, added to what is there.
DEVFN void tma_reduce_add_1d(float* to, const float* from, uint32_t bytes) {
#ifndef CUEMU
  asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(to), "r"(s32(from)), "r"(bytes) : "memory");
#else
  cuemu::bulk_store(to, from, bytes, true);
#endif
}

// For R dimensions: tma_load_Rd(to, map, bar, x, ...), tma_load_Rd_multicast(.., mask of the cluster's blocks: each gets
// the tile at the same address and its barrier at the same address is told), tma_store_Rd(map, from, x, ...),
// tma_reduce_add_Rd(map, from, x, ...) in the map's type.
#ifndef CUEMU
#define TMA_(R, LOAD_AT, MULTI_AT, STORE_AT)                                                                                      \
  DEVFN void tma_load_##R##d(void* to, const TensorMap* map, uint64_t* bar, P##R##_) {                                                          \
    asm volatile("cp.async.bulk.tensor." #R "d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, " LOAD_AT "], [%2];"               \
                 ::"r"(s32(to)), "l"(map), "r"(s32(bar)), A##R##_ : "memory");                                                              \
  }                                                                                                                                            \
  DEVFN void tma_load_##R##d_multicast(void* to, const TensorMap* map, uint64_t* bar, uint16_t mask, P##R##_) {                                 \
    asm volatile("cp.async.bulk.tensor." #R "d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, " MULTI_AT "], [%2], %3;" \
                 ::"r"(s32(to)), "l"(map), "r"(s32(bar)), "h"(mask), A##R##_ : "memory");                                                   \
  }                                                                                                                                            \
  DEVFN void tma_store_##R##d(const TensorMap* map, const void* from, P##R##_) {                                                                \
    asm volatile("cp.async.bulk.tensor." #R "d.global.shared::cta.bulk_group [%0, " STORE_AT "], [%1];"                                         \
                 ::"l"(map), "r"(s32(from)), A##R##_ : "memory");                                                                           \
  }                                                                                                                                            \
  DEVFN void tma_reduce_add_##R##d(const TensorMap* map, const void* from, P##R##_) {                                                           \
    asm volatile("cp.reduce.async.bulk.tensor." #R "d.global.shared::cta.add.bulk_group [%0, " STORE_AT "], [%1];"                              \
                 ::"l"(map), "r"(s32(from)), A##R##_ : "memory");                                                                           \
  }
#else
#define TMA_(R, LOAD_AT, MULTI_AT, STORE_AT)                                                                 \
  DEVFN void tma_load_##R##d(void* to, const TensorMap* map, uint64_t* bar, P##R##_) {                                     \
    cuemu::tma_load(R, to, map, bar, cuemu::Coordinates A##R##_, 0);                                                  \
  }                                                                                                                       \
  DEVFN void tma_load_##R##d_multicast(void* to, const TensorMap* map, uint64_t* bar, uint16_t mask, P##R##_) {            \
    cuemu::tma_load(R, to, map, bar, cuemu::Coordinates A##R##_, mask);                                               \
  }                                                                                                                       \
  DEVFN void tma_store_##R##d(const TensorMap* map, const void* from, P##R##_) {                                           \
    cuemu::tma_store(R, map, from, cuemu::Coordinates A##R##_, false);                                                \
  }                                                                                                                       \
  DEVFN void tma_reduce_add_##R##d(const TensorMap* map, const void* from, P##R##_) {                                      \
    cuemu::tma_store(R, map, from, cuemu::Coordinates A##R##_, true);                                                 \
  }
#endif
#define P2_ int x, int y
#define P3_ P2_, int z
#define P4_ P3_, int u
#define P5_ P4_, int v
#ifndef CUEMU
#define A2_ "r"(x), "r"(y)
#define A3_ A2_, "r"(z)
#define A4_ A3_, "r"(u)
#define A5_ A4_, "r"(v)
#else
#define A2_ {x, y}
#define A3_ {x, y, z}
#define A4_ {x, y, z, u}
#define A5_ {x, y, z, u, v}
#endif
TMA_(2, "{%3,%4}", "{%4,%5}", "{%2,%3}")
TMA_(3, "{%3,%4,%5}", "{%4,%5,%6}", "{%2,%3,%4}")
TMA_(4, "{%3,%4,%5,%6}", "{%4,%5,%6,%7}", "{%2,%3,%4,%5}")
TMA_(5, "{%3,%4,%5,%6,%7}", "{%4,%5,%6,%7,%8}", "{%2,%3,%4,%5,%6}")
#undef TMA_
#undef A2_
#undef A3_
#undef A4_
#undef A5_
#undef P2_
#undef P3_
#undef P4_
#undef P5_

// Closes the group of this thread's stores and reductions since the last one.
DEVFN void tma_commit() {
#ifndef CUEMU
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#else
  cuemu::bulk_commit();
#endif
}

// Until all but the N youngest groups are written.
template <int N> DEVFN void tma_wait() {
#ifndef CUEMU
  asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory");
#else
  cuemu::bulk_wait(N, false);
#endif
}

// Until all but the N youngest groups have read their shared memory.
template <int N> DEVFN void tma_wait_read() {
#ifndef CUEMU
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory");
#else
  cuemu::bulk_wait(N, true);
#endif
}
