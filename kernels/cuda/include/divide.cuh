// divide.cuh: division of numbers below 2^31 by one that stays the same, as a product and a shift
// (Granlund and Montgomery 1994). Made once a thread, it replaces some twenty instructions by three.
#pragma once

struct Divide {
  unsigned factor, shift, by;
  __device__ __forceinline__ explicit Divide(int divisor) : factor(0), shift(0), by((unsigned)divisor) {
    while ((1ull << shift) < by) shift++;
    factor = (unsigned)(((1ull << 32) * ((1ull << shift) - by)) / by + 1);
  }
  __device__ __forceinline__ int quotient(int n) const {
    return (int)(((unsigned)(((unsigned long long)factor * (unsigned)n) >> 32) + (unsigned)n) >> shift);
  }
  // n becomes the remainder, the quotient is returned.
  __device__ __forceinline__ int split(int& n) const {
    int q = quotient(n);
    n -= q * (int)by;
    return q;
  }
};
