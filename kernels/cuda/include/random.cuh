// Philox 4x32-10 (Salmon et al. 2011) and the distributions made of it: the same words as `mobilis_kernels::philox`,
// the same formulas in `double`, so that all devices draw the same.
#pragma once
#include "base.cuh"

struct Words { uint32_t at[4]; };

DEVFN Words philox(Words c, uint32_t k0, uint32_t k1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64_t x = (uint64_t)c.at[0] * 0xD2511F53u, y = (uint64_t)c.at[2] * 0xCD9E8D57u;
    c = {{(uint32_t)(y >> 32) ^ c.at[1] ^ k0, (uint32_t)y, (uint32_t)(x >> 32) ^ c.at[3] ^ k1, (uint32_t)x}};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}
// Words 4 b to 4 b + 3 of a stream.
DEVFN Words philox_block(uint64_t b, uint32_t stream, uint32_t seed, uint32_t step) {
  return philox({{(uint32_t)b, (uint32_t)(b >> 32), stream, step}}, seed, 0);
}
// Multiples of 2^-24 below 1.
DEVFN float uniform_of(uint32_t w) { return (float)(w >> 8) * 5.9604644775390625e-8f; }
// Strictly between 0 and 1.
DEVFN double open_of(uint32_t w) { return ((double)w + 0.5) / 4294967296.0; }
DEVFN double gumbel_of(uint32_t w) { return -log(-log(open_of(w))); }
// Two normal numbers of two words (Box and Muller 1958).
DEVFN void normal_of(uint32_t a, uint32_t b, double& x, double& y) {
  const double radius = sqrt(-2.0 * log(open_of(a)));
  double s, c;
#ifndef CUEMU
  // Without the reduction of large angles, which needs local memory.
  sincospi(2.0 * open_of(b), &s, &c);
#else
  s = sin(6.283185307179586 * open_of(b));
  c = cos(6.283185307179586 * open_of(b));
#endif
  x = radius * c;
  y = radius * s;
}
