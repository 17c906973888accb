// Draws of tokens from rows of logits: temperature, the k largest, the nucleus of mass p, the least share of the largest's
// probability, and a draw of what is left. The same tokens as `mobilis_kernels::cpu::sample` gives, but for sums of `double` in
// another order.
//
// A block of 1024 a row. Scores are (logit - largest) / temperature; weights exp(score) in `double`. The k-th largest logit and
// the end of the nucleus are found by four rounds of a histogram over 8 bits of their order (order.cuh), by count and by
// mass; masses are whole numbers of 2^-44, so that sums do not depend on their order. Of scores equal to the
// nucleus' last, the first places are kept that it still needs, found by the same histograms over places. The draw
// is the place where seed, sequence and step (one Philox block) fall in the cumulative weight in the order of
// places: each thread sums a run of places, warps and then one thread find the run, which goes through it.
// Shared memory 12 KB, no spills. Bound: the row is read up to 16 times, all but once from L2: 128 K logits in about 60 us.
#include "order.cuh"
#include "random.cuh"
#include "warp.cuh"

enum { THREADS = 1024, NOTHING = -1, NOT_NUMBERS = -2 };

// The key up to which (it included) those that `key` gives places have `wanted` mass together, and the mass before it. A key of
// all ones is left out.
template <class Key, class Mass>
DEVFN uint32_t select_key(int n, const Key& key, const Mass& mass, uint64_t wanted, uint64_t* bins, uint32_t* found, uint64_t& before) {
  const int t = threadIdx.x;
  uint32_t known = 0;
  before = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    if (t < 256) bins[t] = 0;
    __syncthreads();
    for (int i = t; i < n; i += THREADS) {
      const uint32_t k = key(i);
      if (k != 0xffffffffu && (shift == 24 || k >> (shift + 8) == known >> (shift + 8)))
        atomicAdd((unsigned long long*)&bins[k >> shift & 255], (unsigned long long)mass(i));
    }
    __syncthreads();
    if (t == 0) {
      uint64_t below = 0;
      int bin = 0;
      while (bin < 255 && below + bins[bin] < wanted) below += bins[bin++];
      found[0] = bin;
      bins[0] = below;
    }
    __syncthreads();
    known |= found[0] << shift;
    wanted -= bins[0];
    before += bins[0];
    __syncthreads();
  }
  return known;
}

extern "C" __global__ void __launch_bounds__(1024)
    sample_f32(const float* logits, const float* settings, const int* numbers, int* tokens, int n) {
  __shared__ uint64_t bins[256];
  __shared__ uint32_t found[1];
  __shared__ double sums[THREADS], parts[32];
  const int t = threadIdx.x, lane = t & 31, warp = t >> 5;
  const float* row = logits + (long long)blockIdx.x * n;
  const float temperature = settings[blockIdx.x * 3], p = settings[blockIdx.x * 3 + 1], least = settings[blockIdx.x * 3 + 2];
  const int* number = numbers + blockIdx.x * 5;
  // The largest, the largest that is finite, and whether there is NaN.
  float most = -INFINITY, offset = -INFINITY, strange = 0.f;
  uint64_t best = ~0ull;
  for (int i = t; i < n; i += THREADS) {
    const float x = row[i];
    most = fmaxf(most, x);
    if (fabsf(x) < INFINITY) offset = fmaxf(offset, x);
    if (x != x) strange = 1.f;
    const uint64_t one = (uint64_t)order_of(__float_as_uint(x), 1, 1) << 32 | (uint32_t)i;
    best = one < best ? one : best;
  }
  most = block_max<THREADS>(most);
  offset = block_max<THREADS>(offset);
  strange = block_max<THREADS>(strange);
  best = block_reduce<THREADS>(best, Min());
  if (strange != 0.f || most == -INFINITY || temperature <= 0.f) {
    if (t == 0) tokens[blockIdx.x] = strange != 0.f ? NOT_NUMBERS : most == -INFINITY ? NOTHING : (int)(uint32_t)best;
    return;
  }
  if (offset == -INFINITY) offset = 0.f;
  const float top = (most - offset) / temperature;
  auto score = [&](float x) { return (x - offset) / temperature; };
  // Beside the largest, also where both are infinite.
  auto weight = [&](float s) { return s == top ? 1.0 : exp((double)s - (double)top); };
  auto mass = [&](float s) { return (uint64_t)(weight(s) * 17592186044416.0); };
  uint64_t before;
  // The k largest logits, and all that equal the last of them.
  uint32_t last = 0xfffffffeu;
  if (number[0] > 0 && number[0] < n)
    last = select_key(n, [&](int i) { return order_of(__float_as_uint(row[i]), 1, 1); }, [](int) { return 1; }, number[0], bins, found, before);
  auto among = [&](float x) { return x > -INFINITY && order_of(__float_as_uint(x), 1, 1) <= last; };
  // The nucleus ends with score `end` at place `end_at`.
  uint32_t end = 0xfffffffeu;
  int end_at = n;
  if (p < 1.f) {
    auto key = [&](int i) { return among(row[i]) ? order_of(__float_as_uint(score(row[i])), 1, 1) : 0xffffffffu; };
    uint64_t all = 0;
    for (int i = t; i < n; i += THREADS)
      if (among(row[i])) all += mass(score(row[i]));
    all = block_reduce<THREADS>(all, Sum());
    const double goal = (double)all * (double)p;
    const uint64_t wanted = (uint64_t)ceil(goal);
    end = select_key(n, key, [&](int i) { return mass(score(row[i])); }, wanted > 0 ? wanted : 1, bins, found, before);
    // Those with that score are alike: as many of them as are still needed.
    uint64_t each = 0;
    for (int i = t; i < n; i += THREADS)
      if (key(i) == end) each = mass(score(row[i]));
    each = block_reduce<THREADS>(each, Max());
    const double missing = (goal - (double)before) / (double)(each > 0 ? each : 1);
    const uint64_t many = missing > 1.0 ? (uint64_t)ceil(missing) : 1;
    end_at = (int)select_key(n, [&](int i) { return key(i) == end ? (uint32_t)i : 0xffffffffu; }, [](int) { return 1; }, many, bins, found, before);
  }
  auto kept = [&](int i, double& w) {
    const float x = row[i];
    if (!among(x)) return false;
    const float s = score(x);
    const uint32_t key = order_of(__float_as_uint(s), 1, 1);
    if (p < 1.f && (key > end || (key == end && i > end_at))) return false;
    w = weight(s);
    return w >= (double)least;
  };
  const int run = (n + THREADS - 1) / THREADS, first = t * run;
  double sum = 0.0, w;
  for (int i = first; i < n && i < first + run; i++)
    if (kept(i, w)) sum += w;
  sums[t] = sum;
  __syncthreads();
  if (lane == 0) {
    sum = 0.0;
    for (int l = 0; l < 32; l++) sum += sums[t + l];
    parts[warp] = sum;
  }
  __syncthreads();
  if (t != 0) return;
  double total = 0.0;
  for (int v = 0; v < 32; v++) total += parts[v];
  // 53 bits from 0 to 1.
  const Words words = philox({{(uint32_t)number[4], 0, (uint32_t)number[3], 0x5A4D504Cu}}, (uint32_t)number[1], (uint32_t)number[2]);
  const uint64_t bits = ((uint64_t)words.at[0] << 32 | words.at[1]) >> 11;
  const double goal = (double)bits / 9007199254740992.0 * total;
  // The run in which the sum passes the goal, or the last one that has anything.
  double so_far = 0.0, to_there = 0.0;
  int chosen = 0;
  bool there = false;
  for (int v = 0; v < 32 && !there; v++) {
    if (so_far + parts[v] <= goal && v < 31) {
      for (int l = 0; l < 32; l++)
        if (sums[v * 32 + l] > 0.0) chosen = v * 32 + l;
      so_far += parts[v];
      to_there = so_far - sums[chosen];
      continue;
    }
    for (int l = 0; l < 32 && !there; l++) {
      const double more = sums[v * 32 + l];
      if (more > 0.0) chosen = v * 32 + l, to_there = so_far;
      so_far += more;
      there = more > 0.0 && so_far > goal;
    }
  }
  int token = 0;
  for (int i = chosen * run; i < n && i < chosen * run + run; i++)
    if (kept(i, w) && w > 0.0) {
      token = i;
      to_there += w;
      if (to_there > goal) break;
    }
  tokens[blockIdx.x] = token;
}
CUEMU_EXPORT(sample_f32)
