// async.cuh: cp.async, Ampere's copies from global to shared memory past the registers.
//
// A thread's copies since its last commit are a group; `cp_async_wait<N>` waits until all but the N
// youngest groups have landed, for this thread only: other threads' copies need a barrier after it.
// The emulator lets a copy land anywhere between its issue and its wait.
#pragma once
#include "base.cuh"

// 16 bytes, both sides aligned to 16; of them the first `bytes` from memory, zeros after.
DEVFN void cp_async16(void* to, const void* from, int bytes = 16) {
#ifndef CUEMU
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(s32(to)), "l"(from), "r"(bytes) : "memory");
#else
  cuemu::cp_async(to, from, 16, bytes);
#endif
}

// 8 bytes, likewise.
DEVFN void cp_async8(void* to, const void* from, int bytes = 8) {
#ifndef CUEMU
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(s32(to)), "l"(from), "r"(bytes) : "memory");
#else
  cuemu::cp_async(to, from, 8, bytes);
#endif
}

// 4 bytes, likewise.
DEVFN void cp_async4(void* to, const void* from, int bytes = 4) {
#ifndef CUEMU
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(s32(to)), "l"(from), "r"(bytes) : "memory");
#else
  cuemu::cp_async(to, from, 4, bytes);
#endif
}

// Closes the group of the copies issued since the last one.
DEVFN void cp_async_commit() {
#ifndef CUEMU
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  cuemu::cp_async_commit();
#endif
}

// Until all but the N youngest groups of this thread have landed.
template <int N> DEVFN void cp_async_wait() {
#ifndef CUEMU
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
  cuemu::cp_async_wait(N);
#endif
}

// When all copies that this thread issued have landed, one arrival at the barrier, which counts it among
// the arrivals that it was made for.
DEVFN void cp_async_arrive(uint64_t* bar) {
#ifndef CUEMU
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(s32(bar)) : "memory");
#else
  cuemu::cp_async_arrive(bar);
#endif
}
