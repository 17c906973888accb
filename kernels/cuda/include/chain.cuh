// What generated chains (src/chain.rs) are made of: vectors of values to and from memory, and division by
// numbers that the host prepared. Numbers of 16 bits (base.cuh, which the text includes where it has such) are `float` in registers.
#pragma once
#include "math.cuh"

#ifndef CUEMU
#define CUEMU_EXPORT(kernel)
#endif

// `V` neighbouring values from an address that their bytes divide.
template <int V, class T, class R> __device__ __forceinline__ void load(R (&to)[V], const T* from) {
  struct alignas(V * sizeof(T)) Pack { T v[V]; };
  Pack pack = *(const Pack*)from;
#pragma unroll
  for (int k = 0; k < V; k++) to[k] = (R)pack.v[k];
}
template <int V, class T, class R> __device__ __forceinline__ void store(T* to, const R (&from)[V]) {
  struct alignas(V * sizeof(T)) Pack { T v[V]; };
  Pack pack;
#pragma unroll
  for (int k = 0; k < V; k++) pack.v[k] = (T)from[k];
  *(Pack*)to = pack;
}
// The same where only the first `count` are there.
template <int V, class T, class R> __device__ __forceinline__ void load_some(R (&to)[V], const T* from, long long count) {
  if (count >= V) return load<V>(to, from);
#pragma unroll
  for (int k = 0; k < V; k++) to[k] = k < count ? (R)from[k] : (R)0;
}
template <int V, class T, class R> __device__ __forceinline__ void store_some(T* to, const R (&from)[V], long long count) {
  if (count >= V) return store<V>(to, from);
#pragma unroll
  for (int k = 0; k < V; k++)
    if (k < count) to[k] = (T)from[k];
}

// What src/chain/many.rs passes by value: for each of several arrays the first of its blocks, how many values it has, and
// its addresses.
struct Table {
  unsigned long long words[448];
};
// The entry of `size` words whose blocks this block is one of.
__device__ __forceinline__ const unsigned long long* entry(const Table& table, int count, int size) {
  int low = 0, high = count;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (table.words[middle * size] <= blockIdx.x) low = middle;
    else high = middle;
  }
  return table.words + low * size;
}

// n / d for n below 2^31, with multiplier and shift of d (Granlund and Montgomery 1994).
__device__ __forceinline__ unsigned quotient(unsigned n, unsigned multiplier, unsigned shift) {
  return (unsigned)((((unsigned long long)n * multiplier >> 32) + n) >> shift);
}
__device__ __forceinline__ unsigned long long quotient(unsigned long long n, unsigned long long d, unsigned) { return n / d; }
