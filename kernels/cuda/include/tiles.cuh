// tiles.cuh: what kernels of tiles share: the order of tiles, and storing rows of sums.
#pragma once

// Tiles in groups of eight rows of tiles, column by column within a group, so that blocks that run at once share
// operands in the second cache.
struct TileOrder {
  int m, n, wm, wn, tm, tn, count;
  __device__ TileOrder(int m, int n, int wm, int wn) : m(m), n(n), wm(wm), wn(wn), tm((m + wm - 1) / wm), tn((n + wn - 1) / wn), count(tm * tn) {}
  // Where tile `t` begins.
  __device__ __forceinline__ void at(int t, int& i, int& j) const {
    int group = 8 * tn, first = t / group * 8, high = tm - first < 8 ? tm - first : 8, in = t % group;
    i = (first + in % high) * wm;
    j = in / high * wn;
  }
};

// Stores rows of sums that stand in shared memory, `ld` apart, as rows of n; row(s) is the result's row or -1.
template <class Row>
DEVFN void store_rows(float* to, const float* stage, int ld, int rows, int width, Row row, int j0, int n, int t,
                                                  int threads) {
#pragma unroll 1
  for (int q = t; q < rows * width; q += threads) {
    int s = q / width, i = row(s), j = j0 + q % width;
    if (i >= 0 && j < n) to[(long long)i * n + j] = stage[s * ld + q % width];
  }
}
