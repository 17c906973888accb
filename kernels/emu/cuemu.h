// cuemu.h: CUDA C++ on the CPU, for tests. Included before a kernel file, it lets a C++17 compiler take the
// kernel's text as it is.
//
// What is where: here, what nvcc knows by itself (keywords, vector types, `threadIdx`, shuffles, votes,
// atomics, mathematics), and what the second bodies in `kernels/cuda/include` call. `machine.h`: the parts of the
// emulated machine. `fiber.cpp`: stacks and the switch between them; `scheduler.cpp`: who runs next, launches,
// errors; `barrier.cpp`: warps, barriers, mbarriers; `copies.cpp`: cp.async and TMA; `matrix.cpp`: ldmatrix,
// mma, wgmma; `memory.cpp`: who may touch what, and races.
//
// One fiber runs a CUDA thread. The blocks of a cluster (or of a cooperative grid) are one set of fibers; a
// set runs on one OS thread, other sets beside it. Whole-warp and whole-warpgroup operations execute once,
// when their last lane arrives. The schedule is adversarial (first thread first, last first, or by a seed with
// threads put off), and asynchronous copies and products happen as late as they may, at once, or by the seed.
//
// A fiber finds itself by its stack pointer (stacks are aligned; their lowest word points to the fiber), so no
// thread-local variable is needed but the kernels' own `__shared__` ones.
#pragma once
#define CUEMU 1
#include <algorithm>
#include <cfloat>
#include <climits>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local  // one block at a time per OS thread; clusters exchange the contents
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_ARCH__ 900

// ---- vector types

struct dim3 {
  unsigned x, y, z;
  // Launches make one on the caller's stack, where no fiber is: this must not call the emulator.
  __attribute__((no_sanitize("thread"))) constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 { unsigned x, y, z; };
struct int3 { int x, y, z; };
struct float3 { float x, y, z; };
#define CUEMU_VECTORS(T, name, align)                                              \
  struct alignas(2 * sizeof(T)) name##2 { T x, y; };                               \
  struct alignas(align) name##4 { T x, y, z, w; };                                 \
  static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                \
  static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUEMU_VECTORS(float, float, 16)
CUEMU_VECTORS(int, int, 16)
CUEMU_VECTORS(unsigned, uint, 16)
CUEMU_VECTORS(short, short, 8)
CUEMU_VECTORS(unsigned short, ushort, 8)
CUEMU_VECTORS(signed char, char, 4)
CUEMU_VECTORS(unsigned char, uchar, 4)
CUEMU_VECTORS(double, double, 16)
CUEMU_VECTORS(long long, longlong, 16)
CUEMU_VECTORS(unsigned long long, ulonglong, 16)

// ---- the emulator, as kernels and headers see it

struct TensorMap;
namespace cuemu {
struct Block;
struct Fiber {
  void* sp;
  Block* block;
  uint3 tid, bidx, bdim, gdim;
  unsigned lin, lane, warp;  // place in the block, lane, warp of the block
  unsigned id;               // place in the set
  const char* where;         // what it waits for
  const char* site;          // where in the text, when known
  char* stack;
  void* asan;
  bool done;
};
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t STACK = 256 << 10;  // red zones between variables
#else
constexpr size_t STACK = 64 << 10;
#endif

// Reads a word past the instrumentation of memory accesses.
static inline void* peek(void* const& at) {
  void* v;
#if defined(__x86_64__)
  asm("movq %1, %0" : "=r"(v) : "m"(at));
#else
  asm("ldr %0, %1" : "=r"(v) : "m"(at));
#endif
  return v;
}
static inline unsigned peek(const unsigned& at) {
  unsigned v;
#if defined(__x86_64__)
  asm("movl %1, %0" : "=r"(v) : "m"(at));
#else
  asm("ldr %w0, %1" : "=r"(v) : "m"(at));
#endif
  return v;
}
static inline Fiber* self() { return (Fiber*)peek(*(void**)((uintptr_t)__builtin_frame_address(0) & ~(STACK - 1))); }
static inline uint3 peek(const uint3& v) { return {peek(v.x), peek(v.y), peek(v.z)}; }

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void aligned(const void* p, size_t bytes, const char* what);

// Collectives: `run` is called once, by the last to arrive, with everybody's arguments.
void warp_collective(uint32_t mask, const char* op, void* arg, void (*run)(void** args, uint32_t mask));
void group_collective(const char* op, void* arg, void (*run)(void** args));  // a warpgroup of 128
void sync_warp(uint32_t mask);
int sync_threads(const char* site, int vote = 0);  // gives the number of votes, in the two high bits all and any
void named_barrier(int id, int threads, bool wait);
void wait_for(const char* what);  // one turn of a loop that polls memory
unsigned active_mask();

// Shared memory.
void* dynamic_shared();
uint32_t shared_address(const void* p);
void* map_shared(const void* p, uint32_t rank);
uint32_t cluster_rank();
uint32_t cluster_size();
void cluster_arrive();
void cluster_wait();

void mbar_init(uint64_t* bar, int count);
void mbar_init_fence();
void mbar_arrive(uint64_t* bar, uint32_t bytes, int arrivals);
bool mbar_try(uint64_t* bar, uint32_t parity);
void mbar_wait(uint64_t* bar, uint32_t parity);
void fence_async();

void cp_async(void* to, const void* from, int bytes, int valid);
void cp_async_commit();
void cp_async_wait(int left);
void cp_async_arrive(uint64_t* bar);

struct Coordinates { int at[5]; };
void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* bar);
void bulk_store(void* to, const void* from, uint32_t bytes, bool add);
void tma_load(int rank, void* to, const TensorMap* map, uint64_t* bar, Coordinates at, uint16_t mask);
void tma_store(int rank, const TensorMap* map, const void* from, Coordinates at, bool add);
void bulk_commit();
void bulk_wait(int left, bool read);

enum Format { FormatBf16, FormatF16, FormatE4M3, FormatE5M2, FormatTf32, FormatS8 };
template <class T> constexpr Format format();
enum Mma { MmaBf16, MmaF16, MmaTf32, MmaS8, MmaE4M3E4M3, MmaE4M3E5M2, MmaE5M2E4M3, MmaE5M2E5M2 };
void ldmatrix(uint32_t* r, int count, bool transposed, const void* row);
void stmatrix(void* row, const uint32_t* r, int count, bool transposed);
void mma(Mma kind, void* c, const uint32_t* a, uint32_t b0, uint32_t b1);
struct WgmmaShape { int n; Format a, b; int mn_a, mn_b; };
void wgmma(WgmmaShape shape, float* d, uint64_t a, const uint32_t* a_registers, uint64_t b, int scale_d);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int left);
void descriptor_address(const void* p, int swizzle);
void set_registers(int count, bool less);

// Launches: `call` unpacks the arguments as cuLaunchKernel has them, addresses of the values.
struct Call { void (*kernel)(void** args); void** args; };
int launch(dim3 grid, dim3 block, unsigned shared, Call call);
void fetch(void* to, const void* from, size_t bytes);
template <class T> T argument(void* from) {
  T v;
  fetch((void*)&v, from, sizeof v);
  return v;
}
template <class... A, size_t... I> void unpack(void (*f)(A...), void** a, std::index_sequence<I...>) {
  void* at[sizeof...(A) + 1];
  fetch(at, a, sizeof...(A) * sizeof(void*));
  f(argument<std::decay_t<A>>(at[I])...);
}
template <class... A> void unpack(void (*f)(A...), void** a) { unpack(f, a, std::index_sequence_for<A...>{}); }
}  // namespace cuemu

#define CUEMU_EXPORT(kernel)                                                                                          \
  extern "C" __attribute__((no_sanitize("thread"))) int cuemu_##kernel(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,         \
                                unsigned shared, void** args) {                                                       \
    return cuemu::launch(dim3(gx, gy, gz), dim3(bx, by, bz), shared, {[](void** a) { cuemu::unpack(kernel, a); }, args}); \
  }

#define threadIdx (cuemu::peek(cuemu::self()->tid))
#define blockIdx (cuemu::peek(cuemu::self()->bidx))
#define blockDim (cuemu::peek(cuemu::self()->bdim))
#define gridDim (cuemu::peek(cuemu::self()->gdim))
#define warpSize 32
#define CUEMU_STR2(x) #x
#define CUEMU_STR(x) CUEMU_STR2(x)
#define CUEMU_HERE __FILE__ ":" CUEMU_STR(__LINE__)
#define __syncthreads() ((void)cuemu::sync_threads(CUEMU_HERE))
#define __syncthreads_count(p) (cuemu::sync_threads(CUEMU_HERE, !!(p)) & 0xffff)
#define __syncthreads_and(p) (cuemu::sync_threads(CUEMU_HERE, !!(p)) >> 30 & 1)
#define __syncthreads_or(p) ((cuemu::sync_threads(CUEMU_HERE, !!(p)) & 0xffff) != 0)
static inline void __syncwarp(unsigned mask = ~0u) { cuemu::sync_warp(mask); }
static inline void __threadfence() { __sync_synchronize(); }
static inline void __threadfence_block() {}
static inline void __threadfence_system() { __sync_synchronize(); }
static inline void __nanosleep(unsigned) { cuemu::wait_for("__nanosleep"); }
static inline unsigned __activemask() { return cuemu::active_mask(); }
#define __trap() cuemu::fail("__trap")
static inline long long clock64() { return 0; }

// ---- shuffles and votes

namespace cuemu {
template <class T> struct Shuffle { T value; unsigned from; T out; };
template <class T> T shuffle(unsigned mask, T value, unsigned from, const char* op) {
  Shuffle<T> s{value, from, value};
  warp_collective(mask, op, &s, [](void** a, uint32_t mask) {
    for (int l = 0; l < 32; l++) {
      if (!(mask >> l & 1)) continue;
      auto* me = (Shuffle<T>*)a[l];
      if (mask >> me->from & 1) me->out = ((Shuffle<T>*)a[me->from])->value;
    }
  });
  return s.out;
}
struct Vote { unsigned value, out; };
static inline unsigned lane() { return peek(self()->lane); }
}  // namespace cuemu
template <class T> T __shfl_sync(unsigned m, T v, int l, int w = 32) { return cuemu::shuffle(m, v, (cuemu::lane() & ~(w - 1)) | (l & (w - 1)), "__shfl_sync"); }
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) {
  int me = cuemu::lane(), from = me ^ x;
  return cuemu::shuffle(m, v, from < (me & ~(w - 1)) + w ? from : me, "__shfl_xor_sync");
}
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) {
  int me = cuemu::lane(), from = me + d;
  return cuemu::shuffle(m, v, (from & ~(w - 1)) == (me & ~(w - 1)) ? from : me, "__shfl_down_sync");
}
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) {
  int me = cuemu::lane(), from = me - (int)d;
  return cuemu::shuffle(m, v, from >= (me & ~(w - 1)) ? from : me, "__shfl_up_sync");
}
static inline unsigned __ballot_sync(unsigned m, int p) {
  cuemu::Vote v{(unsigned)!!p, 0};
  cuemu::warp_collective(m, "__ballot_sync", &v, [](void** a, uint32_t mask) {
    unsigned r = 0;
    for (int l = 0; l < 32; l++) if (mask >> l & 1) r |= ((cuemu::Vote*)a[l])->value << l;
    for (int l = 0; l < 32; l++) if (mask >> l & 1) ((cuemu::Vote*)a[l])->out = r;
  });
  return v.out;
}
static inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
static inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, !p) == 0; }
template <class T> unsigned __match_any_sync(unsigned m, T v) {
  unsigned out = 0;
  for (int l = 0; l < 32; l++) {
    if (!(m >> l & 1)) continue;
    T other = __shfl_sync(m, v, l);
    if (memcmp(&other, &v, sizeof v) == 0) out |= 1u << l;
  }
  return out;
}
template <class T, class Op> T cuemu_reduce(unsigned m, T v, Op op) {
  T r = v;
  bool first = true;
  for (int l = 0; l < 32; l++) {
    if (!(m >> l & 1)) continue;
    T other = __shfl_sync(m, v, l);
    r = first ? other : op(r, other);
    first = false;
  }
  return r;
}
template <class T> T __reduce_add_sync(unsigned m, T v) { return cuemu_reduce(m, v, [](T a, T b) { return a + b; }); }
template <class T> T __reduce_max_sync(unsigned m, T v) { return cuemu_reduce(m, v, [](T a, T b) { return a < b ? b : a; }); }
template <class T> T __reduce_min_sync(unsigned m, T v) { return cuemu_reduce(m, v, [](T a, T b) { return b < a ? b : a; }); }
static inline unsigned __reduce_or_sync(unsigned m, unsigned v) { return cuemu_reduce(m, v, [](unsigned a, unsigned b) { return a | b; }); }
static inline unsigned __reduce_and_sync(unsigned m, unsigned v) { return cuemu_reduce(m, v, [](unsigned a, unsigned b) { return a & b; }); }

#include "cuemu_math.h"
