// wgmma.cuh: Hopper's tensor cores: a warpgroup (128 threads, four warps from a multiple of four) multiplies
// 64 x K by K x N asynchronously, B and usually A in shared memory behind descriptors; K is 32 bytes.
//
// Order of a batch: `wgmma_fence()` (registers are as they were written), any number of `wgmma<..>(d, a, b)`,
// `wgmma_commit()`, `wgmma_wait<N>()` until all but N batches are done. Until then nobody touches the
// accumulators, and the operands stay in shared memory. What ordinary stores wrote needs `fence_async` and a barrier before.
//
// Accumulators: thread t of the warpgroup, warp w = t / 32, lane 4 g + l: d[4 j + 2 h + e] is row 16 w + g + 8 h, column 8 j + 2 l + e.
// A from registers has the fragments of mma.sync m16n8k16 (m16n8k32 for eight bits), a warp for 16 rows.
//
// Layouts behind a descriptor, bytes in rows of the swizzle's S = 32, 64 or 128 bytes:
// * K-major: eight rows of S bytes follow one another (row r at r S), the next eight at `stride`; within S bytes K goes on
//   by adding 32 bytes to the address. Without swizzle: cores of 8 rows by 16 bytes; the next 16 bytes of K at
//   `leading`, the next eight rows at `stride`.
// * MN-major (16-bit types only): eight values of K are eight rows of S bytes of M or N; the next eight of K at `stride`, the
//   next S bytes of M or N at `leading`. Without swizzle: cores of 8 K by 16 bytes of MN; next MN at `stride`, next K at `leading`.
// A tile that TMA loaded with box [S bytes, rows] and swizzle S lies like this, with stride 8 S. It must begin at a multiple of 8 S.
#pragma once
#include "barrier.cuh"

// The descriptor of an operand: SWIZZLE 0, 32, 64 or 128; distances in bytes.
template <int SWIZZLE> DEVFN uint64_t wgmma_desc(const void* p, uint32_t leading, uint32_t stride) {
  static_assert(SWIZZLE == 0 || SWIZZLE == 32 || SWIZZLE == 64 || SWIZZLE == 128, "a swizzle");
  const uint64_t mode = SWIZZLE == 128 ? 1 : SWIZZLE == 64 ? 2 : SWIZZLE == 32 ? 3 : 0;
#ifdef CUEMU
  cuemu::descriptor_address(p, SWIZZLE);
#endif
  return (uint64_t)((s32(p) & 0x3ffff) >> 4) | (uint64_t)((leading & 0x3ffff) >> 4) << 16 | (uint64_t)((stride & 0x3ffff) >> 4) << 32 | mode << 62;
}

// K-major with the 128-byte swizzle: 64 values of 16 bits or 128 of 8 bits a row.
DEVFN uint64_t desc128(const void* p) { return wgmma_desc<128>(p, 16, 1024); }

// Before the first wgmma of a batch, when ordinary code wrote its registers.
DEVFN void wgmma_fence() {
#ifndef CUEMU
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  cuemu::wgmma_fence();
#endif
}

// Closes a batch.
DEVFN void wgmma_commit() {
#ifndef CUEMU
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  cuemu::wgmma_commit();
#endif
}

// Until all but the N youngest batches are done.
template <int N> DEVFN void wgmma_wait() {
#ifndef CUEMU
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#else
  cuemu::wgmma_wait(N);
#endif
}

// Keeps the compiler from moving uses of an accumulator over a wait or a fence: name it before and after.
template <int N> DEVFN void wgmma_hold(float (&d)[N]) {
#ifndef CUEMU
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// The warpgroup gives registers back until it has R a thread, or takes them (multiples of 8, 24 to 256).
template <int R> DEVFN void reg_dec() {
  static_assert(R >= 24 && R <= 256 && R % 8 == 0, "a number of registers");
#if !defined(CUEMU)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(R));
#else
  cuemu::set_registers(R, true);
#endif
}
template <int R> DEVFN void reg_inc() {
  static_assert(R >= 24 && R <= 256 && R % 8 == 0, "a number of registers");
#if !defined(CUEMU)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(R));
#else
  cuemu::set_registers(R, false);
#endif
}

// wgmma<N, A, B>(d, a, b, scale_d): d = a b + (scale_d ? d : 0). A, B: bf16, bf16; f16, f16; or any two of e4m3, e5m2.
// TA, TB: 1 for an MN-major operand (16-bit types only). wgmma_rs: A from registers.
template <int N, class A, class B> struct Wgmma;

#define WL16_ "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define WL32_ WL16_ ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define WL48_ WL32_ ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define WL64_ WL48_ ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WL96_ WL64_ ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define WL128_ WL96_ ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define W8_(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WD16_ W8_(0), W8_(8)
#define WD32_ WD16_, W8_(16), W8_(24)
#define WD48_ WD32_, W8_(32), W8_(40)
#define WD64_ WD48_, W8_(48), W8_(56)
#define WD96_ WD64_, W8_(64), W8_(72), W8_(80), W8_(88)
#define WD128_ WD96_, W8_(96), W8_(104), W8_(112), W8_(120)

// P0.. are the numbers of the operands after the R accumulators.
#ifndef CUEMU
#define WGMMA16_(N, R, T, NAME, P0, P1, P2, P3, P4, P5, P6)                                                                          \
  template <> struct Wgmma<N, T, T> {                                                                                                \
    template <int TA, int TB> static DEVICE_ void ss(float (&d)[R], uint64_t a, uint64_t b, int scale_d) {                           \
      asm volatile("{.reg .pred p;\n setp.ne.b32 p, " P2 ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME      \
                   " {" WL##R##_ "}, " P0 ", " P1 ", p, 1, 1, " P3 ", " P4 ";}"                                                      \
                   : WD##R##_ : "l"(a), "l"(b), "r"(scale_d), "n"(TA), "n"(TB));                                                     \
    }                                                                                                                                \
    template <int TB> static DEVICE_ void rs(float (&d)[R], const uint32_t (&a)[4], uint64_t b, int scale_d) {                       \
      asm volatile("{.reg .pred p;\n setp.ne.b32 p, " P5 ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME      \
                   " {" WL##R##_ "}, {" P0 "," P1 "," P2 "," P3 "}, " P4 ", p, 1, 1, " P6 ";}"                                       \
                   : WD##R##_ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(scale_d), "n"(TB));                          \
    }                                                                                                                                \
  };
#define WGMMA8_(N, R, A, B, NAMES, P0, P1, P2, P3, P4, P5, P6)                                                                       \
  template <> struct Wgmma<N, A, B> {                                                                                                \
    template <int TA, int TB> static DEVICE_ void ss(float (&d)[R], uint64_t a, uint64_t b, int scale_d) {                           \
      static_assert(TA == 0 && TB == 0, "values of eight bits are K-major");                                                         \
      asm volatile("{.reg .pred p;\n setp.ne.b32 p, " P2 ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k32.f32." NAMES              \
                   " {" WL##R##_ "}, " P0 ", " P1 ", p, 1, 1;}"                                                                      \
                   : WD##R##_ : "l"(a), "l"(b), "r"(scale_d));                                                                       \
    }                                                                                                                                \
    template <int TB> static DEVICE_ void rs(float (&d)[R], const uint32_t (&a)[4], uint64_t b, int scale_d) {                       \
      static_assert(TB == 0, "values of eight bits are K-major");                                                                    \
      asm volatile("{.reg .pred p;\n setp.ne.b32 p, " P5 ", 0;\n wgmma.mma_async.sync.aligned.m64n" #N "k32.f32." NAMES              \
                   " {" WL##R##_ "}, {" P0 "," P1 "," P2 "," P3 "}, " P4 ", p, 1, 1;}"                                               \
                   : WD##R##_ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(scale_d));                                   \
    }                                                                                                                                \
  };
#define DEVICE_ __device__ __forceinline__
#define WGMMA_N_(N, R, ...)                               \
  WGMMA16_(N, R, bf16, "bf16", __VA_ARGS__)               \
  WGMMA16_(N, R, f16, "f16", __VA_ARGS__)                 \
  WGMMA8_(N, R, e4m3, e4m3, "e4m3.e4m3", __VA_ARGS__)     \
  WGMMA8_(N, R, e4m3, e5m2, "e4m3.e5m2", __VA_ARGS__)     \
  WGMMA8_(N, R, e5m2, e4m3, "e5m2.e4m3", __VA_ARGS__)     \
  WGMMA8_(N, R, e5m2, e5m2, "e5m2.e5m2", __VA_ARGS__)
WGMMA_N_(32, 16, "%16", "%17", "%18", "%19", "%20", "%21", "%22")
WGMMA_N_(64, 32, "%32", "%33", "%34", "%35", "%36", "%37", "%38")
WGMMA_N_(96, 48, "%48", "%49", "%50", "%51", "%52", "%53", "%54")
WGMMA_N_(128, 64, "%64", "%65", "%66", "%67", "%68", "%69", "%70")
WGMMA_N_(192, 96, "%96", "%97", "%98", "%99", "%100", "%101", "%102")
WGMMA_N_(256, 128, "%128", "%129", "%130", "%131", "%132", "%133", "%134")
#undef WGMMA16_
#undef WGMMA8_
#undef WGMMA_N_
#undef DEVICE_
#else
template <int N, class A, class B> struct Wgmma {
  static_assert(sizeof(A) == sizeof(B) && sizeof(A) <= 2, "bf16, f16, e4m3, e5m2");
  template <int TA, int TB> static void ss(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d) {
    static_assert(sizeof(A) == 2 || (TA == 0 && TB == 0), "values of eight bits are K-major");
    cuemu::wgmma({N, cuemu::format<A>(), cuemu::format<B>(), TA, TB}, d, a, nullptr, b, scale_d);
  }
  template <int TB> static void rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d) {
    static_assert(sizeof(A) == 2 || TB == 0, "values of eight bits are K-major");
    cuemu::wgmma({N, cuemu::format<A>(), cuemu::format<B>(), 0, TB}, d, 0, a, b, scale_d);
  }
};
namespace cuemu {
template <> constexpr Format format<::bf16>() { return FormatBf16; }
template <> constexpr Format format<::f16>() { return FormatF16; }
template <> constexpr Format format<::e4m3>() { return FormatE4M3; }
template <> constexpr Format format<::e5m2>() { return FormatE5M2; }
}  // namespace cuemu
#endif
#undef WL16_
#undef WL32_
#undef WL48_
#undef WL64_
#undef WL96_
#undef WL128_
#undef W8_
#undef WD16_
#undef WD32_
#undef WD48_
#undef WD64_
#undef WD96_
#undef WD128_

template <int N, class A, class B = A, int TA = 0, int TB = 0> DEVFN void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, int scale_d = 1) {
  Wgmma<N, A, B>::template ss<TA, TB>(d, a, b, scale_d);
}
template <int N, class A, class B = A, int TB = 0> DEVFN void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int scale_d = 1) {
  Wgmma<N, A, B>::template rs<TB>(d, a, b, scale_d);
}
