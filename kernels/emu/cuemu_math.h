// cuemu_math.h: atomics, bits and the mathematics that nvcc knows by itself.
#pragma once

// ---- atomics: a compare-and-swap of the bits, outside the instrumented text

namespace cuemu {
bool swap32(void* at, uint32_t* expected, uint32_t wanted);
bool swap64(void* at, uint64_t* expected, uint64_t wanted);
uint64_t atomic_load(const void* at, int bytes);
template <class T, class F> T update(T* at, F next) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics are of 4 or 8 bytes");
  using U = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  U old = (U)atomic_load(at, sizeof(T)), wanted;
  for (;;) {
    T was, now;
    memcpy((void*)&was, &old, sizeof was);
    now = next(was);
    memcpy(&wanted, &now, sizeof now);
    bool done;
    if constexpr (sizeof(T) == 4) done = swap32(at, &old, wanted);
    else done = swap64(at, &old, wanted);
    if (done) return was;
  }
}
template <class T> struct same { using type = T; };
}  // namespace cuemu
#define CUEMU_ATOMIC(name, next) \
  template <class T> T name(T* at, typename cuemu::same<T>::type v) { return cuemu::update(at, [v](T old) -> T { return next; }); }
CUEMU_ATOMIC(atomicAdd, old + v)
CUEMU_ATOMIC(atomicSub, old - v)
CUEMU_ATOMIC(atomicMax, old < v ? v : old)
CUEMU_ATOMIC(atomicMin, v < old ? v : old)
CUEMU_ATOMIC(atomicAnd, old & v)
CUEMU_ATOMIC(atomicOr, old | v)
CUEMU_ATOMIC(atomicXor, old ^ v)
CUEMU_ATOMIC(atomicExch, (void(old), v))
CUEMU_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
template <class T> T atomicCAS(T* at, typename cuemu::same<T>::type expected, typename cuemu::same<T>::type v) {
  return cuemu::update(at, [=](T old) -> T { return old == expected ? v : old; });
}

// ---- bits

static inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
static inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static inline int __float_as_int(float f) { return (int)__float_as_uint(f); }
static inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
static inline long long __double_as_longlong(double d) { long long u; memcpy(&u, &d, 8); return u; }
static inline double __longlong_as_double(long long u) { double d; memcpy(&d, &u, 8); return d; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
  return r;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
  uint64_t v = a | (uint64_t)b << 32;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) {
    unsigned k = s >> 4 * i & 15, byte = v >> 8 * (k & 7) & 0xff;
    r |= (k & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
  }
  return r;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
static inline int __mulhi(int a, int b) { return (int64_t)a * b >> 32; }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned s) { return s & 31 ? high << (s & 31) | low >> (32 - (s & 31)) : high; }
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned s) { return s & 31 ? low >> (s & 31) | high << (32 - (s & 31)) : low; }
static inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
  return c;
}

// ---- loads and stores with cache hints

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> T __ldca(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
template <class T> void __stcg(T* p, T v) { *p = v; }
template <class T> void __stwt(T* p, T v) { *p = v; }

// ---- mathematics

// The C library has names like these of its own.
#define __expf cuemu_expf
#define __exp10f cuemu_exp10f
#define __logf cuemu_logf
#define __log2f cuemu_log2f
#define __sinf cuemu_sinf
#define __cosf cuemu_cosf
#define __powf cuemu_powf
#define __tanhf cuemu_tanhf
#define __sincosf cuemu_sincosf

static inline float cuemu_expf(float x) { return std::exp(x); }
static inline float cuemu_exp10f(float x) { return std::pow(10.f, x); }
static inline float cuemu_logf(float x) { return std::log(x); }
static inline float cuemu_log2f(float x) { return std::log2(x); }
static inline float cuemu_sinf(float x) { return std::sin(x); }
static inline float cuemu_cosf(float x) { return std::cos(x); }
static inline float cuemu_powf(float x, float y) { return std::pow(x, y); }
static inline float cuemu_tanhf(float x) { return std::tanh(x); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.f / a; }
static inline float __fsqrt_rn(float a) { return std::sqrt(a); }
static inline float __frsqrt_rn(float a) { return 1.f / std::sqrt(a); }
static inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float rsqrtf(float x) { return 1.f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1. / std::sqrt(x); }
static inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }
static inline float sinpif(float x) { return (float)std::sin(3.14159265358979323846 * x); }
static inline float cospif(float x) { return (float)std::cos(3.14159265358979323846 * x); }
static inline void cuemu_sincos(float x, float* s, float* c) { *s = std::sin(x); *c = std::cos(x); }
static inline void cuemu_sincosf(float x, float* s, float* c) { cuemu_sincos(x, s, c); }
static inline int __float2int_rn(float x) { return (int)std::nearbyint(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline int __float2int_rd(float x) { return (int)std::floor(x); }
static inline int __float2int_ru(float x) { return (int)std::ceil(x); }
static inline unsigned __float2uint_rn(float x) { return (unsigned)std::nearbyint(x); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
using std::isfinite;
using std::isinf;
using std::isnan;
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmin((T)a, (T)b);
  else return (T)b < (T)a ? (T)b : (T)a;
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return std::fmax((T)a, (T)b);
  else return (T)a < (T)b ? (T)b : (T)a;
}
