// cuemu.h: run CUDA C++ kernels on the CPU for correctness tests (g++/clang++, C++17). Prototype.
// One fiber per CUDA thread, one block at a time per OS thread; blocks are spread over OS threads.
#pragma once
#define CUEMU 1
#include <cstdint>
#include <cstddef>
#include <cstring>
#include <cstdio>
#include <cstdlib>
#include <cmath>
#include <atomic>
#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>
#include <tuple>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static thread_local            // one block at a time per OS thread
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict
#define __align__(n) alignas(n)
#define __CUDA_ARCH__ 900
struct dim3 { unsigned x, y, z; constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };
struct uint3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };  struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; }; struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };
inline float2 make_float2(float a, float b) { return {a, b}; }
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }

namespace cuemu {
struct Fiber; struct Worker;
using CollFn = void (*)(void** args, uint32_t mask);
struct Coll { uint32_t mask = 0, arrived = 0; const char* op = nullptr; CollFn fn = nullptr; void* args[32]; };
struct Warp { uint32_t live = 0; Coll colls[8]; };
struct Fiber { void* sp; uint3 tid; unsigned lin, lane, warp; bool done; const char* where; char* stack; void* asan = nullptr; };
struct Bar { unsigned arrived = 0; unsigned expected = 0; };
#define CUEMU_TLS __thread __attribute__((tls_model("initial-exec")))
extern CUEMU_TLS Fiber* cur;
extern CUEMU_TLS uint3 bidx, bdim, gdim;                   // __thread: no init wrapper on access
extern CUEMU_TLS unsigned char* dynsm; extern CUEMU_TLS unsigned dynsm_bytes;
void syncthreads(const char* where);
void named_bar(int id, int count, bool wait);
void warp_coll(uint32_t mask, const char* op, void* arg, CollFn fn);
void group_coll(int n, const char* op, void* arg, void (*fn)(void** args, int n));   // n consecutive threads (warpgroup=128)
void yield_(); void progress(); void preempt(); bool eager(); void async_push(std::function<void()> f);
struct LaunchCtx { void (*call)(void** args); void** args; };
int launch(dim3 g, dim3 b, unsigned smem, LaunchCtx c);    // 0 ok, nonzero = deadlock / divergence found
extern int threads; extern int order; extern uint64_t switches;   // order: 0 forward, 1 reverse, >1 pseudo-random seed
[[noreturn]] void fail(const char* fmt, ...); const char* last_error();
template <class... A, size_t... I> void unpack(void (*f)(A...), void** a, std::index_sequence<I...>) { f(*(std::decay_t<A>*)a[I]...); }
template <class... A> void unpack(void (*f)(A...), void** a) { unpack(f, a, std::index_sequence_for<A...>{}); }
}
// Same contract as cuLaunchKernel: args[i] points at the i-th parameter.
#define CUEMU_EXPORT(k) extern "C" int cuemu_##k(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned smem, void** args) { \
  return cuemu::launch(dim3(gx, gy, gz), dim3(bx, by, bz), smem, cuemu::LaunchCtx{[](void** a) { cuemu::unpack(k, a); }, args}); }

#define threadIdx (cuemu::cur->tid)
#define blockIdx (cuemu::bidx)
#define blockDim (cuemu::bdim)
#define gridDim (cuemu::gdim)
#define warpSize 32
#define CUEMU_STR2(x) #x
#define CUEMU_STR(x) CUEMU_STR2(x)
#define __syncthreads() cuemu::syncthreads(__FILE__ ":" CUEMU_STR(__LINE__))
inline void __syncwarp(unsigned m = 0xffffffffu) { cuemu::warp_coll(m, "syncwarp", nullptr, [](void**, uint32_t) {}); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() {}

namespace cuemu {
template <class T> struct Shf { T v; unsigned src; T out; };
template <class T> T shfl(unsigned m, T v, int src, const char* nm) {
  Shf<T> s{v, (unsigned)src, v};
  warp_coll(m, nm, &s, [](void** a, uint32_t mk) { for (int l = 0; l < 32; l++) if (mk >> l & 1) { auto* s = (Shf<T>*)a[l];
    if (mk >> s->src & 1) s->out = ((Shf<T>*)a[s->src])->v; } });
  return s.out;
}
}
template <class T> T __shfl_sync(unsigned m, T v, int l, int w = 32) { int me = cuemu::cur->lane; return cuemu::shfl(m, v, (me & ~(w - 1)) | (l & (w - 1)), "shfl"); }
template <class T> T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) { int me = cuemu::cur->lane, s = me ^ x; return cuemu::shfl(m, v, s < (me & ~(w - 1)) + w ? s : me, "shfl_xor"); }
template <class T> T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) { int me = cuemu::cur->lane, s = me + d; return cuemu::shfl(m, v, (s & ~(w - 1)) == (me & ~(w - 1)) ? s : me, "shfl_down"); }
template <class T> T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) { int me = cuemu::cur->lane, s = me - (int)d; return cuemu::shfl(m, v, s >= (me & ~(w - 1)) ? s : me, "shfl_up"); }
inline unsigned __ballot_sync(unsigned m, int p) { struct B { unsigned p, r; } b{(unsigned)!!p, 0};
  cuemu::warp_coll(m, "ballot", &b, [](void** a, uint32_t mk) { unsigned r = 0; for (int l = 0; l < 32; l++) if (mk >> l & 1) r |= ((B*)a[l])->p << l; for (int l = 0; l < 32; l++) if (mk >> l & 1) ((B*)a[l])->r = r; }); return b.r; }
inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, !p) == 0; }
inline unsigned __activemask() { return 0xffffffffu; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

template <class T> T cuemu_add(T* p, T v) { if constexpr (std::is_integral_v<T>) return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
  else { using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>; U* q = (U*)p; U o = __atomic_load_n(q, __ATOMIC_RELAXED), n; T f;
    do { memcpy(&f, &o, sizeof f); T g = f + v; memcpy(&n, &g, sizeof n); } while (!__atomic_compare_exchange_n(q, &o, n, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)); return f; } }
template <class T, class V> T atomicAdd(T* p, V v) { return cuemu_add<T>(p, (T)v); }
template <class T> T atomicMax(T* p, T v) { T o = __atomic_load_n(p, __ATOMIC_RELAXED); while (o < v && !__atomic_compare_exchange_n(p, &o, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)); return o; }
template <class T> T atomicCAS(T* p, T c, T v) { __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); return c; }
template <class T> T atomicExch(T* p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }

// fast math
inline float __expf(float x) { return std::exp(x); } inline float exp2f_(float x) { return std::exp2(x); }
inline float __fdividef(float a, float b) { return a / b; } inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
inline float __logf(float x) { return std::log(x); } inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
using std::min; using std::max;
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
template <class T> T __ldg(const T* p) { return *p; }

// bf16 / fp8 (round to nearest even; e4m3 saturating)
struct __nv_bfloat16 { uint16_t x; };
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
inline __nv_bfloat16 __float2bfloat16(float f) { uint32_t u = __float_as_uint(f); if ((u & 0x7fffffff) > 0x7f800000) return {(uint16_t)0x7fff}; return {(uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16)}; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __float2bfloat16(f); }
inline float __bfloat162float(__nv_bfloat16 b) { return __uint_as_float((uint32_t)b.x << 16); }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__float2bfloat16(a), __float2bfloat16(b)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }
struct __nv_fp8_e4m3 { uint8_t __x; __nv_fp8_e4m3() = default;
  explicit __nv_fp8_e4m3(float f) { uint32_t u = __float_as_uint(f); uint8_t s = u >> 24 & 0x80; float a = std::fabs(f);
    if (!(a == a)) { __x = s | 0x7f; return; } if (a > 448.f) a = 448.f;
    if (a < 0.015625f) { __x = s | (uint8_t)std::nearbyint(a * 512.f); return; }       // subnormal, step 2^-9 (carries into the first normal)
    uint32_t v = __float_as_uint(a); v += 0x7ffff + (v >> 20 & 1); __x = s | (uint8_t)std::min<uint32_t>(((v >> 20) - (120u << 3)), 0x7e); }
  explicit operator float() const { int e = __x >> 3 & 15, m = __x & 7; float v = (e == 15 && m == 7) ? NAN : e ? std::ldexp(1.f + m / 8.f, e - 7) : std::ldexp(m / 8.f, -6); return __x & 0x80 ? -v : v; } };
