// What stands before products with chosen experts' matrices on tensor cores (gemm_grouped_sm80.cu, gemm_grouped_sm90.cu):
// rows sorted by expert and rounded, each expert's beginning at a multiple of 128 rows with zeros behind them, so that
// every tile of 128 rows belongs to one expert and every slab of an expert's rows can be summed over whole.
//
// experts_tiles: where each expert's tiles begin, whose each tile is, which choice each row is (-1 for zeros); a block an
// expert, a warp's sum over the experts before it. experts_rows: rows gathered and converted, a warp a row, 8 values a lane.
// experts_matrices: matrices converted, those of experts that were chosen alone, 8 values a thread. tile_table: tensor
// maps to memory, 16 a launch. Threads 256; registers at most 40. Bound: bytes read and written over bandwidth.
#include "gpu.cuh"
#include "number.cuh"

constexpr int THREADS = 256, HIGH = 128;

DEVFN int tiles_of(const int* starts, int e) { return (starts[e + 1] - starts[e] + HIGH - 1) / HIGH; }

// tiles[e] .. tiles[e + 1] are e's, `of` says so for each, rows[128 t + r] is the choice at row r of tile t. Grid: experts.
extern "C" __global__ void __launch_bounds__(THREADS)
    experts_tiles(int experts, const int* starts, const int* order, int* tiles, int* of, int* rows) {
  int e = blockIdx.x, lane = threadIdx.x & 31, first = 0;
  for (int before = lane; before < e; before += 32) first += tiles_of(starts, before);
  for (int d = 16; d; d >>= 1) first += __shfl_xor_sync(~0u, first, d);
  int own = tiles_of(starts, e), from = starts[e], count = starts[e + 1] - from;
  if (threadIdx.x == 0) {
    tiles[e] = first;
    if (e == experts - 1) tiles[experts] = first + own;
  }
  for (int t = threadIdx.x; t < own; t += THREADS) of[first + t] = e;
  for (int r = threadIdx.x; r < own * HIGH; r += THREADS) rows[first * HIGH + r] = r < count ? order[from + r] : -1;
}
CUEMU_EXPORT(experts_tiles)

// Eight values from j on of a line of `width`, zeros past it, stored as another type at a multiple of 16 bytes.
DEVFN void eight(const float* x, int j, int width, bool together, char* y, int type) {
  float v[8];
  if (together && j + 8 <= width) {
    *(float4*)&v[0] = *(const float4*)(x + j);
    *(float4*)&v[4] = *(const float4*)(x + j + 4);
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = x && j + i < width ? x[j + i] : 0.f;
  }
  if (type == F32) {
    *(float4*)(y + j * 4) = *(float4*)&v[0];
    *(float4*)(y + j * 4 + 16) = *(float4*)&v[4];
  } else if (type == BF16) {
    *(uint4*)(y + j * 2) = make_uint4(pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7]));
  } else {
    *(uint4*)(y + j * 2) = make_uint4(pack_f16(v[0], v[1]), pack_f16(v[2], v[3]), pack_f16(v[4], v[5]), pack_f16(v[6], v[7]));
  }
}

// y[p] = x[rows[p] / shared], lines of `width` f32 as lines of `line` (a multiple of 8) of a type; zeros where no choice is.
// Grid: as many rows as there may be, 8 a block.
extern "C" __global__ void __launch_bounds__(THREADS)
    experts_rows(int experts, const int* tiles, const int* rows, const float* x, int width, int shared, char* y, int type, int line) {
  int p = blockIdx.x * 8 + threadIdx.x / 32;
  if (p >= tiles[experts] * HIGH) return;
  int choice = rows[p];
  const float* from = choice < 0 ? nullptr : x + (long long)(choice / shared) * width;
  bool together = from && width % 4 == 0 && ((size_t)x & 15) == 0;
  char* to = y + (long long)p * line * (type == F32 ? 4 : 2);
  for (int j = (threadIdx.x & 31) * 8; j < line; j += 256) eight(from, j, from ? width : 0, together, to, type);
}
CUEMU_EXPORT(experts_rows)

// The matrices of experts that were chosen, `high` lines of `width` f32, as lines of `line` of a type, one after the other.
// Grid: eights of a matrix by 256, experts.
extern "C" __global__ void __launch_bounds__(THREADS)
    experts_matrices(const int* starts, const unsigned long long* table, int high, int width, char* y, int type, int line) {
  int e = blockIdx.y;
  if (starts[e] == starts[e + 1]) return;
  const float* x = (const float*)table[e];
  int per = line / 8;
  long long at = (long long)blockIdx.x * THREADS + threadIdx.x, i = at / per;
  if (i >= high) return;
  bool together = width % 4 == 0 && ((size_t)x & 15) == 0;
  char* to = y + ((long long)e * high + i) * line * (type == F32 ? 4 : 2);
  eight(x + i * width, (int)(at % per) * 8, width, together, to, type);
}
CUEMU_EXPORT(experts_matrices)

// Writes up to 16 tensor maps to memory, where kernels of later launches read them after `tma_acquire`.
#define MAP(i) const __grid_constant__ TensorMap m##i
extern "C" __global__ void tile_table(TensorMap* table, int first, int count, MAP(0), MAP(1), MAP(2), MAP(3), MAP(4), MAP(5), MAP(6),
                                      MAP(7), MAP(8), MAP(9), MAP(10), MAP(11), MAP(12), MAP(13), MAP(14), MAP(15)) {
  const TensorMap* const all[16] = {&m0, &m1, &m2, &m3, &m4, &m5, &m6, &m7, &m8, &m9, &m10, &m11, &m12, &m13, &m14, &m15};
  int word = threadIdx.x;
  if (word >= 16) return;
#pragma unroll
  for (int i = 0; i < 16; i++)
    if (i < count) table[first + i].opaque[word] = all[i]->opaque[word];
  tma_release();
}
CUEMU_EXPORT(tile_table)
