// barrier.cuh: mbarriers (sm_90; objects of 8 bytes in shared memory), named barriers (0 to 15, 0 is
// `__syncthreads`), the fence between ordinary accesses and the asynchronous units.
//
// An mbarrier's phase ends when its arrivals have all come and no announced byte is outstanding; then it
// begins anew with the same count. Who waits names the parity of the phase that he waits for: the
// phases of a fresh barrier are 0, 1, 0, ...; waiting for parity 1 on a fresh one returns at once (how
// producers find their first slots free).
#pragma once
#include "base.cuh"

// Makes a barrier of `count` arrivals a phase. One thread; then `mbar_init_fence` and a barrier of all who use it.
DEVFN void mbar_init(uint64_t* bar, int count) {
#ifndef CUEMU
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(s32(bar)), "r"(count) : "memory");
#else
  cuemu::mbar_init(bar, count);
#endif
}

// Lets the asynchronous units and the cluster see new barriers.
DEVFN void mbar_init_fence() {
#ifndef CUEMU
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#else
  cuemu::mbar_init_fence();
#endif
}

// Announces bytes and arrives.
DEVFN void mbar_expect(uint64_t* bar, uint32_t bytes) {
#ifndef CUEMU
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(s32(bar)), "r"(bytes) : "memory");
#else
  cuemu::mbar_arrive(bar, bytes, 1);
#endif
}

// Announces bytes without arriving.
DEVFN void mbar_expect_more(uint64_t* bar, uint32_t bytes) {
#ifndef CUEMU
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(s32(bar)), "r"(bytes) : "memory");
#else
  cuemu::mbar_arrive(bar, bytes, 0);
#endif
}

// Arrives.
DEVFN void mbar_arrive(uint64_t* bar) {
#ifndef CUEMU
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(s32(bar)) : "memory");
#else
  cuemu::mbar_arrive(bar, 0, 1);
#endif
}

// Arrives at the same barrier of another block of the cluster.
DEVFN void mbar_arrive_at(uint64_t* bar, uint32_t rank) {
#ifndef CUEMU
  asm volatile("{.reg .b32 r;\n mapa.shared::cluster.u32 r, %0, %1;\n mbarrier.arrive.release.cluster.shared::cluster.b64 _, [r];}" ::"r"(s32(bar)), "r"(rank) : "memory");
#else
  cuemu::mbar_arrive((uint64_t*)cuemu::map_shared(bar, rank), 0, 1);
#endif
}

// Whether the phase of this parity has ended; may wait a little first.
DEVFN bool mbar_try(uint64_t* bar, uint32_t parity) {
#ifndef CUEMU
  uint32_t done;
  asm volatile("{.reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;}" : "=r"(done) : "r"(s32(bar)), "r"(parity) : "memory");
  return done != 0;
#else
  return cuemu::mbar_try(bar, parity);
#endif
}

// Until the phase of this parity has ended.
DEVFN void mbar_wait(uint64_t* bar, uint32_t parity) {
#ifndef CUEMU
  while (!mbar_try(bar, parity)) {
  }
#else
  cuemu::mbar_wait(bar, parity);
#endif
}

// The same where arrivals come from other blocks of the cluster and their writes are to be seen.
DEVFN void mbar_wait_cluster(uint64_t* bar, uint32_t parity) {
#ifndef CUEMU
  uint32_t done;
  do {
    asm volatile("{.reg .pred p;\n mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;}" : "=r"(done) : "r"(s32(bar)), "r"(parity) : "memory");
  } while (!done);
#else
  cuemu::mbar_wait(bar, parity);
#endif
}

// Waits at named barrier `id` (1 to 15) until `threads` threads (a multiple of 32) are there.
DEVFN void named_sync(int id, int threads) {
#ifndef CUEMU
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  cuemu::named_barrier(id, threads, true);
#endif
}

// Counts at a named barrier without waiting.
DEVFN void named_arrive(int id, int threads) {
#ifndef CUEMU
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
  cuemu::named_barrier(id, threads, false);
#endif
}

// Between ordinary writes to shared memory and their reading by wgmma or a bulk store: the writer calls
// it, then comes the barrier.
DEVFN void fence_async() {
#ifndef CUEMU
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
  cuemu::fence_async();
#endif
}
