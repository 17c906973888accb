// Sorting of rows with the places of the values, and the k first of rows.
//
// A value and its place are one key of 64 bits: the value's order (NaN last in both directions, -0 as 0) above
// the place, so that keys differ, any sorting is stable, and equal values keep their order.
// sort_tiles: a block sorts 2048 keys in shared memory (bitonic: 66 steps of 1024 exchanges, 512 threads).
// sort_merge: two sorted runs become one; each block finds by a binary search which 2048 keys of the result
//   are its own (merge path; Green, McColl and Bader 2012), loads them and each of 256 threads merges 8.
// sort_finish: keys become values and places.
// top: the k first (k <= 2048) of long rows by a block of 1024: four rounds of a histogram over 8 bits of the
//   value's order find the k-th, a last one collects what is before it and the first of its equals; then
//   bitonic. Five reads of the row, four of them from L2 (a row of 128 K logits is 512 KiB).
// Bound: tiles and merges each read and write 8 bytes a value. Shared memory 16 KiB (top: 17 KiB).
#include "order.cuh"
#include "warp.cuh"

// Sorts COUNT keys in shared memory by THREADS threads.
template <int COUNT, int THREADS> DEVFN void bitonic(uint64_t* keys) {
  for (int size = 2; size <= COUNT; size *= 2)
    for (int step = size / 2; step; step /= 2) {
      __syncthreads();
      for (int p = threadIdx.x; p < COUNT / 2; p += THREADS) {
        const int i = p / step * 2 * step + p % step, j = i + step;
        const uint64_t a = keys[i], b = keys[j];
        if ((a > b) == ((i & size) == 0)) {
          keys[i] = b;
          keys[j] = a;
        }
      }
    }
  __syncthreads();
}

// Rows of at most 2048 go straight to their results, of longer ones tiles of keys to `keys`.
extern "C" __global__ void __launch_bounds__(512)
    sort_tiles(const uint32_t* x, uint64_t* keys, uint32_t* values, int* places, int n, int first, int tiles, int real, int descending) {
  __shared__ uint64_t own[2048];
  const long long row = blockIdx.x / tiles;
  const int start = blockIdx.x % tiles * 2048;
  for (int i = threadIdx.x; i < 2048; i += 512) {
    const int at = start + i;
    own[i] = at < n ? (uint64_t)order_of(x[row * n + at], real, descending) << 32 | (uint32_t)at : ~0ull;
  }
  bitonic<2048, 512>(own);
  for (int i = threadIdx.x; i < 2048; i += 512) {
    const int at = start + i;
    if (tiles > 1) {
      if (at < n) keys[row * n + at] = own[i];
    } else if (at < first) {
      const int place = (int)(uint32_t)own[i];
      values[row * first + at] = x[row * n + place];
      places[row * first + at] = place;
    }
  }
}
CUEMU_EXPORT(sort_tiles)

// How many of the first `d` keys of the merged a and b are of a.
DEVFN int of_first(const uint64_t* a, int na, const uint64_t* b, int nb, int d) {
  int low = d > nb ? d - nb : 0, high = d < na ? d : na;
  while (low < high) {
    const int mid = (low + high) / 2;
    if (a[mid] < b[d - 1 - mid]) low = mid + 1;
    else high = mid;
  }
  return low;
}

extern "C" __global__ void __launch_bounds__(256) sort_merge(const uint64_t* from, uint64_t* to, int n, int tiles, int run) {
  __shared__ uint64_t own[2048];
  const long long row = blockIdx.x / tiles;
  from += row * n;
  to += row * n;
  const int start = blockIdx.x % tiles * 2048, pair = start / run / 2 * 2 * run;
  const int na = run < n - pair ? run : n - pair, nb = run < n - pair - na ? run : n - pair - na;
  const uint64_t *a = from + pair, *b = a + na;
  const int d0 = start - pair, d1 = d0 + 2048 < na + nb ? d0 + 2048 : na + nb;
  const int a0 = of_first(a, na, b, nb, d0), a1 = of_first(a, na, b, nb, d1);
  const int count_a = a1 - a0, count = d1 - d0;
  for (int i = threadIdx.x; i < count; i += 256) own[i] = i < count_a ? a[a0 + i] : b[d0 - a0 + i - count_a];
  __syncthreads();
  const int d = threadIdx.x * 8 < count ? threadIdx.x * 8 : count;
  int i = of_first(own, count_a, own + count_a, count - count_a, d), j = count_a + d - i;
  uint64_t out[8];
#pragma unroll
  for (int k = 0; k < 8; k++) {
    const bool left = j >= count || (i < count_a && own[i] < own[j]);
    out[k] = d + k < count ? own[left ? i : j] : 0;
    if (left) i++;
    else j++;
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < 8; k++)
    if (d + k < count) own[d + k] = out[k];
  __syncthreads();
  for (int k = threadIdx.x; k < count; k += 256) to[start + k] = own[k];
}
CUEMU_EXPORT(sort_merge)

extern "C" __global__ void __launch_bounds__(256)
    sort_finish(const uint64_t* keys, const uint32_t* x, uint32_t* values, int* places, long long total, int n, int first) {
  const long long at = (long long)blockIdx.x * 256 + threadIdx.x;
  if (at >= total) return;
  const long long row = at / first;
  const int place = (int)(uint32_t)keys[row * n + at % first];
  values[at] = x[row * n + place];
  places[at] = place;
}
CUEMU_EXPORT(sort_finish)

extern "C" __global__ void __launch_bounds__(1024)
    top_places(const uint32_t* x, uint32_t* values, int* places, int n, int first, int real, int descending) {
  __shared__ uint64_t own[2048];
  __shared__ int bins[256];
  __shared__ int found[2], counts[32];
  const uint32_t* row = x + (long long)blockIdx.x * n;
  const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  // `known` bits of the k-th key, of `rest` that are still to be taken among keys that begin with them.
  uint32_t known = 0;
  int rest = first;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (t < 256) bins[t] = 0;
    __syncthreads();
    for (int i = t; i < n; i += 1024) {
      const uint32_t key = order_of(row[i], real, descending);
      if (shift == 24 || key >> (shift + 8) == known >> (shift + 8)) atomicAdd(&bins[key >> shift & 255], 1);
    }
    __syncthreads();
    if (t == 0) {
      int below = 0, bin = 0;
      while (below + bins[bin] < rest) below += bins[bin++];
      found[0] = bin;
      found[1] = below;
    }
    __syncthreads();
    known |= (uint32_t)found[0] << shift;
    rest -= found[1];
    __syncthreads();
  }
  // Keys before the k-th in any order (sorting follows), its equals by their places.
  for (int i = t; i < 2048; i += 1024) own[i] = ~0ull;
  if (t == 0) found[0] = found[1] = 0;
  __syncthreads();
  const int equals_from = first - rest;
  for (int start = 0; start < n; start += 1024) {
    const int i = start + t;
    const uint32_t key = i < n ? order_of(row[i], real, descending) : ~0u;
    if (i < n && key < known) own[atomicAdd(&found[0], 1)] = (uint64_t)key << 32 | (uint32_t)i;
    const bool equal = i < n && key == known;
    const unsigned votes = __ballot_sync(~0u, equal);
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int before = found[1], all = 0;
    for (int w = 0; w < 32; w++) {
      before += w < warp ? counts[w] : 0;
      all += counts[w];
    }
    before += __popc(votes & ((1u << lane) - 1));
    if (equal && before < rest) own[equals_from + before] = (uint64_t)key << 32 | (uint32_t)i;
    __syncthreads();
    if (t == 0) found[1] += all;
    __syncthreads();
  }
  bitonic<2048, 1024>(own);
  for (int i = t; i < first; i += 1024) {
    const int place = (int)(uint32_t)own[i];
    values[(long long)blockIdx.x * first + i] = row[place];
    places[(long long)blockIdx.x * first + i] = place;
  }
}
CUEMU_EXPORT(top_places)

// Places of the largest (smallest) of [outer, n, inner], the first of equals; NaN beats all. Rows: a warp each.
extern "C" __global__ void __launch_bounds__(256) arg_extreme_rows(const uint32_t* x, int* y, long long rows, int n, int real, int largest) {
  const long long r = (long long)blockIdx.x * 8 + threadIdx.x / 32;
  const uint32_t* row = x + (r < rows ? r : 0) * n;
  const int lane = threadIdx.x & 31;
  uint64_t best = ~0ull;
#pragma unroll 4
  for (int i = lane; i < n; i += 32) {
    // The order of a sort puts NaN last: here first.
    const uint32_t key = order_of(row[i], real, largest) + (real ? 1u : 0u);
    const uint64_t one = (uint64_t)key << 32 | (uint32_t)i;
    best = one < best ? one : best;
  }
#pragma unroll
  for (int d = 16; d; d >>= 1) {
    const uint32_t high = __shfl_xor_sync(~0u, (uint32_t)(best >> 32), d), low = __shfl_xor_sync(~0u, (uint32_t)best, d);
    const uint64_t other = (uint64_t)high << 32 | low;
    best = other < best ? other : best;
  }
  if (r < rows && lane == 0) y[r] = (int)(uint32_t)best;
}
CUEMU_EXPORT(arg_extreme_rows)

extern "C" __global__ void __launch_bounds__(256) arg_extreme_columns(const uint32_t* x, int* y, long long columns, int n, long long inner, int real, int largest) {
  const long long c = (long long)blockIdx.x * 256 + threadIdx.x;
  if (c >= columns) return;
  const uint32_t* at = x + c / inner * n * inner + c % inner;
  uint64_t best = ~0ull;
#pragma unroll 4
  for (int i = 0; i < n; i++) {
    const uint32_t key = order_of(at[i * inner], real, largest) + (real ? 1u : 0u);
    const uint64_t one = (uint64_t)key << 32 | (uint32_t)i;
    best = one < best ? one : best;
  }
  y[c] = (int)(uint32_t)best;
}
CUEMU_EXPORT(arg_extreme_columns)
