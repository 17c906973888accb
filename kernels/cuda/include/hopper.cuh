// hopper.cuh: products of matrices with TMA and wgmma, persistent and specialised by warpgroup: the body of gemm_sm90.cu and
// gemm_fp8.cu.
//
// Three warpgroups. The first has one thread that brings tiles of a (128 rows) and b (BN columns) by 128 bytes of k into a
// ring of STAGES; the other two multiply 64 rows each by all columns, one batch of wgmma under way while the next is
// issued, and store. A slot of the ring has two barriers: `full` (the producer's announcement and the bytes) and
// `empty` (one arrival from each consumer warp). Tiles are dealt out in turn to as many blocks as there are
// multiprocessors, so that the producer fills the ring for the next tile while consumers store this one.
// With CLUSTER 2 two blocks take tiles one above the other: each brings half of b and sends it to both, so their `empty`
// barriers count both blocks' consumers.
//
// Operands whose k stands together ("K-major") are boxes of 128 bytes by rows; the others boxes of 64 values by 64 of k,
// one after the other. All lie with the 128-byte swizzle, as wgmma's descriptors say.
//
// PROMOTE adds the sums of every 128 bytes of k to sums in full precision, scaled by blocks on the way: tensor cores keep
// but 14 bits of sums of products of eight bits. Factors of b are those of blocks of 128 columns (BLOCKS) or of columns
// (COLUMNS), which are read before the wait for their slot.
//
// `direct`: the result is scaled by alpha alone and c's rows begin at 16 bytes: it leaves by TMA in c's own type. Else it
// passes through the epilogue in f32, 64 columns at a time.
#pragma once
#include "gpu.cuh"
#include "epilogue.cuh"
#include "tiles.cuh"

// Arguments of every kernel. batches: of the batch in all, `inner` of them in its inner level; moves: bit 0 and 1 whether
// a goes on along the inner and outer level, 2 and 3 likewise b. direct: 0, or 1 + the type of c.
// Scales for values of eight bits: sa[i * sa_row + block * sa_block], sb[j / 128 * sb_col + block * sb_block], or null; of
// COLUMNS sb[j + block * sb_block], aligned to 8 bytes, with as many columns as whole tiles have.
#define HOPPER_PARAMS                                                                                                        \
  const __grid_constant__ TensorMap ma, const __grid_constant__ TensorMap mb, const __grid_constant__ TensorMap mc, int m,   \
      int n, int k, int inner, int batches, int moves, int splits, int part, float *partial, int direct, const float *sa,    \
      long long sa_row, long long sa_block, const float *sb, long long sb_col, long long sb_block, EPILOGUE_PARAMS
#define HOPPER_SHAPE \
  HopperShape{m, n, k, inner, batches, moves, splits, part, partial, direct, sa, sa_row, sa_block, sb, sb_col, sb_block, 0, nullptr, nullptr, nullptr, nullptr, nullptr}
struct HopperShape {
  int m, n, k, inner, batches, moves, splits, part;
  float* partial;
  int direct;
  const float* sa;
  long long sa_row, sa_block;
  const float* sb;
  long long sb_col, sb_block;
  // Of products by groups (experts.cu): where experts' choices begin, where their tiles of 128 rows begin, whose each tile
  // is, which choice each row is, where results go.
  int experts;
  const int *starts, *tiles, *of, *rows;
  const unsigned long long* table;
};
enum { BLOCKS = 1, COLUMNS = 2 };
// How products are grouped: rows of a by the matrix b that they meet, or what is summed over by result.
enum { ALONE = 0, BY_ROWS = 1, BY_DEPTH = 2 };

#if HOPPER
// Where tile t of all lies.
template <int GROUPED> struct HopperTile {
  int i0, j0, l0, steps, split, batch, outer, inner;  // batch: the expert, of groups
  __device__ __forceinline__ HopperTile(const HopperShape& s, const TileOrder& order, int t, int depth) {
    order.at(t % order.count, i0, j0);
    t /= order.count;
    if (GROUPED) {
      batch = GROUPED == BY_ROWS ? s.of[i0 / 128] : t, split = outer = inner = 0;
      l0 = GROUPED == BY_ROWS ? 0 : s.tiles[batch] * 128;
      steps = ((GROUPED == BY_ROWS ? s.k : s.starts[batch + 1] - s.starts[batch]) + depth - 1) / depth;
      // Nothing to sum: one step past the end, which reads zeros.
      if (GROUPED == BY_DEPTH && steps == 0) l0 = 1 << 30, steps = 1;
      return;
    }
    batch = t % s.batches, split = t / s.batches, outer = batch / s.inner, inner = batch % s.inner;
    l0 = split * s.part;
    int left = s.k - l0 < s.part ? s.k - l0 : s.part;
    steps = (left + depth - 1) / depth;
  }
};

template <class A, class B, bool KA, bool KB, int BN, int STAGES, int CLUSTER, int PROMOTE, int GROUPED = ALONE> struct Hopper {
  typedef HopperTile<GROUPED> At;
  static constexpr int DEPTH = 128 / sizeof(A), ABYTES = 128 * 128, BBYTES = BN * 128, SLOT = ABYTES + BBYTES;
  static constexpr int LD = 68, STAGE = 64 * LD * 4;

  static __device__ __forceinline__ void produce(const HopperShape& s, const TileOrder& order, const TensorMap* ma, const TensorMap* mb, char* ring,
                                                 uint64_t* full, uint64_t* empty, int total, int rank) {
    int slot = 0, parity = 0;
    constexpr int HALF = BN / CLUSTER;
    for (int t = blockIdx.x / CLUSTER; t < total; t += gridDim.x / CLUSTER) {
      At tile(s, order, t, DEPTH);
      int i0 = tile.i0 + rank * 128, j0 = tile.j0 + rank * HALF;
      int ai = s.moves & 1 ? tile.inner : 0, ao = s.moves & 2 ? tile.outer : 0;
      int bi = s.moves & 4 ? tile.inner : 0, bo = s.moves & 8 ? tile.outer : 0;
      const TensorMap* of_b = mb;
      if (GROUPED == BY_ROWS) tma_acquire(of_b += tile.batch);
      for (int step = 0; step < tile.steps; step++) {
        int l = tile.l0 + step * DEPTH;
        char *a = ring + slot * SLOT, *b = a + ABYTES + rank * HALF * 128;
        mbar_wait(&empty[slot], parity ^ 1);
        mbar_expect(&full[slot], SLOT);
        if (KA) tma_load_4d(a, ma, &full[slot], l, i0, ai, ao);
        else
          for (int h = 0; h < 2; h++) tma_load_4d(a + h * 8192, ma, &full[slot], i0 + h * 64, l, ai, ao);
        for (int h = 0; h < (KB ? 1 : HALF / 64); h++) {
          int x = KB ? l : j0 + h * 64, y = KB ? j0 : l;
          if (CLUSTER > 1) tma_load_4d_multicast(b + h * 8192, of_b, &full[slot], 3, x, y, bi, bo);
          else tma_load_4d(b + h * 8192, of_b, &full[slot], x, y, bi, bo);
        }
        if (++slot == STAGES) slot = 0, parity ^= 1;
      }
    }
  }

  // A slot is read: one lane of each warp says so to all producers that write it.
  static __device__ __forceinline__ void release(uint64_t* empty) {
    if ((threadIdx.x & 31) != 0) return;
    if (CLUSTER == 1) mbar_arrive(empty);
    else
      for (int r = 0; r < CLUSTER; r++) mbar_arrive_at(empty, r);
  }

  static __device__ __forceinline__ void multiply(float (&d)[BN / 2], const char* slot, int group, bool add) {
    const char *a = slot + group * 8192, *b = slot + ABYTES;
#pragma unroll
    for (int s = 0; s < 4; s++) {
      uint64_t da = KA ? wgmma_desc<128>(a + s * 32, 16, 1024) : wgmma_desc<128>(a + s * 2048, 8192, 1024);
      uint64_t db = KB ? wgmma_desc<128>(b + s * 32, 16, 1024) : wgmma_desc<128>(b + s * 2048, 8192, 1024);
      wgmma<BN, A, B, !KA, !KB>(d, da, db, s > 0 || add);
    }
  }

  // The sums of one tile.
  static __device__ __forceinline__ void sums(float (&d)[BN / 2], const HopperShape& s, const At& tile, int i0, char* ring, uint64_t* full,
                                              uint64_t* empty, int group, int& slot, int& parity) {
    int before = 0;
    wgmma_hold(d);
    for (int step = 0; step < tile.steps; step++) {
      mbar_wait_cluster(&full[slot], parity);
      wgmma_fence();
      multiply(d, ring + slot * SLOT, group, step > 0);
      wgmma_commit();
      if (step > 0) {
        wgmma_wait<1>();
        release(&empty[before]);
      }
      before = slot;
      if (++slot == STAGES) slot = 0, parity ^= 1;
    }
    wgmma_wait<0>();
    wgmma_hold(d);
    release(&empty[before]);
  }

  // The same with sums of every slot added, scaled, to full ones.
  static __device__ __forceinline__ void promoted(float (&d)[BN / 2], const HopperShape& s, const At& tile, int i0, char* ring, uint64_t* full,
                                                  uint64_t* empty, int group, int& slot, int& parity) {
    float part[BN / 2];
#pragma unroll
    for (int i = 0; i < BN / 2; i++) d[i] = part[i] = 0.f;
    int row = i0 + group * 64 + (threadIdx.x >> 5 & 3) * 16 + (threadIdx.x >> 2 & 7), last = s.m - 1;
    const float* low = s.sa + (row < last ? row : last) * s.sa_row;
    const float* high = s.sa + (row + 8 < last ? row + 8 : last) * s.sa_row;
    const float* columns = s.sb + (PROMOTE == COLUMNS ? tile.j0 + (threadIdx.x & 3) * 2 : tile.j0 / 128 * s.sb_col);
    for (int step = 0; step < tile.steps; step++) {
      int block = tile.l0 / DEPTH + step;
      float x = 1.f, y = 1.f;
      if (s.sa) x = low[block * s.sa_block], y = high[block * s.sa_block];
      float2 z[PROMOTE == COLUMNS ? BN / 8 : 1];
      if (PROMOTE == COLUMNS) {
#pragma unroll
        for (int j = 0; j < BN / 8; j++) z[j] = *(const float2*)(columns + block * s.sb_block + j * 8);
      } else if (s.sb) {
        float w = columns[block * s.sb_block];
        x *= w, y *= w;
      }
      mbar_wait_cluster(&full[slot], parity);
      wgmma_hold(part);
      wgmma_fence();
      multiply(part, ring + slot * SLOT, group, false);
      wgmma_commit();
      wgmma_wait<0>();
      wgmma_hold(part);
      release(&empty[slot]);
      if (++slot == STAGES) slot = 0, parity ^= 1;
#pragma unroll
      for (int j = 0; j < BN / 8; j++) {
        float2 w = PROMOTE == COLUMNS ? z[j] : make_float2(1.f, 1.f);
        d[j * 4] = fmaf(part[j * 4], x * w.x, d[j * 4]);
        d[j * 4 + 1] = fmaf(part[j * 4 + 1], x * w.y, d[j * 4 + 1]);
        d[j * 4 + 2] = fmaf(part[j * 4 + 2], y * w.x, d[j * 4 + 2]);
        d[j * 4 + 3] = fmaf(part[j * 4 + 3], y * w.y, d[j * 4 + 3]);
      }
    }
  }

  // Stores by TMA: 64 rows in passes of two boxes of 128 bytes.
  template <int TYPE>
  static __device__ __forceinline__ void leave(float (&d)[BN / 2], float alpha, const TensorMap* mc, char* stage, int group, int i, int j0,
                                               const At& tile) {
    constexpr int WIDE = TYPE == F32 ? 64 : 128;
    int t = threadIdx.x & 127, lane = t & 31, warp = t >> 5;
#pragma unroll
    for (int pass = 0; pass < BN / WIDE; pass++) {
      if (t == 0) tma_wait_read<0>();
      named_sync(1 + group, 128);
#pragma unroll
      for (int q = 0; q < WIDE / 8; q += 2) {
        int j = pass * WIDE / 8 + q;
        if (TYPE == F32) {
#pragma unroll
          for (int h = 0; h < 4; h++) {
            // Value h of columns 8 q ..: rows 8 apart, then the next 8 columns.
            int r = warp * 16 + (lane >> 2) + (h & 1) * 8, c = (q + (h >> 1)) % 4 * 2 + (lane >> 1 & 1), at = (j + (h >> 1)) * 4 + (h & 1) * 2;
            *(float2*)(stage + q / 4 * 8192 + r * 128 + (c ^ (r & 7)) * 16 + (lane & 1) * 8) = make_float2(alpha * d[at], alpha * d[at + 1]);
          }
        } else {
          uint32_t r[4];
#pragma unroll
          for (int h = 0; h < 4; h++) {
            float x = alpha * d[j * 4 + h * 2], y = alpha * d[j * 4 + h * 2 + 1];
            r[h] = TYPE == BF16 ? pack_bf16(x, y) : pack_f16(x, y);
          }
          int row = warp * 16 + (lane & 15), c = q + (lane >> 4);
          stmatrix_x4(stage + c / 8 * 8192 + row * 128 + (c % 8 ^ (row & 7)) * 16, r);
        }
      }
      fence_async();
      named_sync(1 + group, 128);
      if (t == 0) {
        for (int h = 0; h < 2; h++) tma_store_4d(mc, stage + h * 8192, j0 + pass * WIDE + h * WIDE / 2, i, tile.inner, tile.outer);
        tma_commit();
      }
    }
  }

  // Stores through the epilogue, or as the sums of a split.
  static __device__ __forceinline__ void finish(float (&d)[BN / 2], const HopperShape& s, const Epilogue& e, float* stage, int group, int i0,
                                                const At& tile, float& most) {
    int t = threadIdx.x & 127, lane = t & 31, warp = t >> 5;
    float* to = GROUPED == BY_DEPTH ? (float*)s.table[tile.batch] : s.partial + ((long long)tile.split * s.batches + tile.batch) * s.m * s.n;
#pragma unroll 1
    for (int pass = 0; pass < BN / 64; pass++) {
      named_sync(1 + group, 128);
#pragma unroll
      for (int p = 0; p < BN / 64; p++)
        if (p == pass)
#pragma unroll
          for (int j = 0; j < 8; j++)
#pragma unroll
            for (int h = 0; h < 2; h++)
              *(float2*)(stage + (warp * 16 + h * 8 + (lane >> 2)) * LD + j * 8 + (lane & 3) * 2) =
                  make_float2(d[(p * 8 + j) * 4 + h * 2], d[(p * 8 + j) * 4 + h * 2 + 1]);
      named_sync(1 + group, 128);
      auto row = [&](int r) { return GROUPED == BY_ROWS ? s.rows[i0 + r] : i0 + r < s.m ? i0 + r : -1; };
      int j0 = tile.j0 + pass * 64;
      if (GROUPED == BY_DEPTH || s.partial) store_rows(to, stage, LD, 64, 64, row, j0, s.n, t, 128);
      else epilogue_rows(e, stage, LD, 64, 64, row, j0, s.n, tile.outer, tile.inner, t, 128, most);
    }
  }

  static __device__ __forceinline__ void run(const TensorMap* ma, const TensorMap* mb, const TensorMap* mc, const HopperShape& s, const Epilogue& e) {
    DYN_SMEM(char, memory);
    char *ring = memory, *stages = memory + STAGES * SLOT;
    uint64_t *full = (uint64_t*)(stages + 2 * STAGE), *empty = full + STAGES;
    int rank = CLUSTER > 1 ? (int)cluster_rank() : 0, group = (int)(threadIdx.x / 128) - 1;
    TileOrder order(GROUPED == BY_ROWS ? s.tiles[s.experts] * 128 : s.m, s.n, 128 * CLUSTER, BN);
    int total = order.count * (GROUPED == BY_DEPTH ? s.experts : s.batches * s.splits);
    if (threadIdx.x == 0) {
      tma_prefetch(ma);
      if (GROUPED != BY_ROWS) tma_prefetch(mb);
      for (int i = 0; i < STAGES; i++) mbar_init(&full[i], 1), mbar_init(&empty[i], 8 * CLUSTER);
      mbar_init_fence();
    }
    __syncthreads();
    if (CLUSTER > 1) cluster_sync();
    if (group < 0) {
      reg_dec<40>();
      if (threadIdx.x == 0) produce(s, order, ma, mb, ring, full, empty, total, rank);
      __syncwarp();
    } else {
      reg_inc<232>();
      char* stage = stages + group * STAGE;
      int slot = 0, parity = 0;
      float most = 0.f;
      for (int t = blockIdx.x / CLUSTER; t < total; t += gridDim.x / CLUSTER) {
        At tile(s, order, t, DEPTH);
        int i0 = tile.i0 + rank * 128;
        float d[BN / 2];
        if (PROMOTE) promoted(d, s, tile, i0, ring, full, empty, group, slot, parity);
        else sums(d, s, tile, i0, ring, full, empty, group, slot, parity);
        i0 += group * 64;
        if (GROUPED || s.direct == 0) finish(d, s, e, (float*)stage, group, i0, tile, most);
        else if (s.direct == 1 + F32) leave<F32>(d, e.alpha, mc, stage, group, i0, tile.j0, tile);
        else if (s.direct == 1 + BF16) leave<BF16>(d, e.alpha, mc, stage, group, i0, tile.j0, tile);
        else leave<F16>(d, e.alpha, mc, stage, group, i0, tile.j0, tile);
      }
      if (s.direct && (threadIdx.x & 127) == 0) tma_wait<0>();
      if (GROUPED != BY_DEPTH && !s.direct && !s.partial) epilogue_amax(e, most);
    }
    if (CLUSTER > 1) cluster_sync();
  }
};
#endif
