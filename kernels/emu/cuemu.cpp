#include "cuemu.h"
#include <cstdarg>
#include <functional>
#include <thread>
#include <vector>
#include <mutex>
#include <sys/mman.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/asan_interface.h>
#define ASAN 1
#endif
#undef threadIdx
#undef blockIdx
namespace cuemu {
CUEMU_TLS Fiber* cur; CUEMU_TLS uint3 bidx, bdim, gdim;
CUEMU_TLS unsigned char* dynsm; CUEMU_TLS unsigned dynsm_bytes;
int threads = 0, order = 0; uint64_t switches = 0;
constexpr size_t STACK = 32 << 10, MAXT = 1024, DYN = 228 << 10;
#if defined(__x86_64__)
asm(R"(
.text
.type cuemu_switch,@function
cuemu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
)");
#elif defined(__aarch64__)
asm(R"(
.text
.type cuemu_switch,%function
cuemu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#endif
extern "C" void cuemu_switch(void** save, void* load);

struct GColl { int arrived = 0; const char* op = nullptr; void (*fn)(void**, int) = nullptr; void* args[1024]; };
struct Worker {
  Fiber f[MAXT]; Warp warps[32]; GColl gc[8]; Bar bars[16]; char* stacks; unsigned n, live; void* main_sp; LaunchCtx ctx; uint64_t sw = 0;
  // runnable lanes per warp; prio = order in which warps are tried; spin = fibers polling an mbarrier (only run when nothing else can)
  uint32_t run[32], spin[32]; uint8_t prio[32], pos[32]; uint32_t runp = 0; unsigned nw = 0, idle = 0, rr = 0; uint64_t rng = 1; std::vector<uint16_t> barw[16]; const char* barwhere[16]; bool failed = false;
  std::vector<std::function<void()>> async; size_t ah = 0;              // TMA copies in flight
  uint32_t rnd() { rng = rng * 6364136223846793005ull + 1442695040888963407ull; return rng >> 33; }
  void push(unsigned i) { run[i >> 5] |= 1u << (i & 31); runp |= 1u << pos[i >> 5]; }
  void push_warp(unsigned w, uint32_t lanes) { if (lanes) { run[w] |= lanes; runp |= 1u << pos[w]; } }
  bool async_one() { if (ah == async.size()) return false; auto f = std::move(async[ah++]); if (ah == async.size()) { async.clear(); ah = 0; } f(); idle = 0; return true; }
  Fiber* pick() {
    if (order > 1 && ah < async.size() && (rnd() & 7) == 0) async_one();
    bool poll_first = order > 1 && (rnd() & 15) == 0;
    for (;;) {
      if (poll_first) { poll_first = false; for (unsigned k = 0; k < nw; k++) if (uint32_t m = spin[k]) { unsigned l = __builtin_ctz(m); spin[k] &= ~(1u << l); if (++idle > 64 * n + 64) return nullptr; return &f[k * 32 + l]; } }
      if (runp) { unsigned w = prio[__builtin_ctz(runp)]; uint32_t m = run[w]; unsigned l = order == 1 ? 31 - __builtin_clz(m) : __builtin_ctz(m); if (!(run[w] = m & ~(1u << l))) runp &= runp - 1; return &f[w * 32 + l]; }
      if (async_one()) continue;
      for (unsigned k = 0; k < nw; k++) { unsigned w = (rr + k) % nw; if (uint32_t m = spin[w]) { unsigned l = __builtin_ctz(m); spin[w] &= ~(1u << l); rr = w + 1; if (++idle > 64 * n + 64) return nullptr; return &f[w * 32 + l]; } }
      return nullptr;
    }
  }
  void* masan = nullptr;
};
static CUEMU_TLS Worker* W;
static char g_err[512]; static std::mutex g_mu;
static void to_main();
// The launch gives up: the block's fibers are abandoned, the error is the launch's result.
void fail(const char* fmt, ...) { { std::lock_guard<std::mutex> l(g_mu); va_list a; va_start(a, fmt); vsnprintf(g_err, sizeof g_err, fmt, a); va_end(a); } W->failed = true; to_main(); __builtin_unreachable(); }
const char* last_error() { return g_err; }

#ifdef ASAN
static void* g_mstack_dummy;
static thread_local const void* main_bottom; static thread_local size_t main_size;
#endif
static void entry();
static void to_main() {
#ifdef ASAN
  __sanitizer_start_switch_fiber(nullptr, main_bottom, main_size);
#endif
  void* dummy; cuemu_switch(&dummy, W->main_sp);
}
static void go(Fiber* t) { Fiber* me = cur; if (t == me) return; cur = t; W->sw++;
#ifdef ASAN
  __sanitizer_start_switch_fiber(&me->asan, t->stack, STACK);
#endif
  cuemu_switch(&me->sp, t->sp);
#ifdef ASAN
  __sanitizer_finish_switch_fiber(me->asan, nullptr, nullptr);
#endif
}
static void deadlock() {
  Worker* w = W; unsigned in_bar = 0, done = 0; const char* a = nullptr; const char* b = nullptr; unsigned ia = 0, ib = 0;
  for (unsigned i = 0; i < w->n; i++) { if (w->f[i].done) { done++; continue; } in_bar++; if (!a) { a = w->f[i].where; ia = i; } else if (w->f[i].where != a && !b) { b = w->f[i].where; ib = i; } }
  fail("cuemu: deadlock in block (%u,%u,%u): %u threads exited, %u blocked; thread %u at %s; thread %u at %s", bidx.x, bidx.y, bidx.z, done, in_bar, ia, a ? a : "-", ib, b ? b : "-");
}
static void switch_next() { Fiber* nx = W->pick(); if (!nx) deadlock(); go(nx); }
static void block_here(const char* where) { cur->where = where; switch_next(); }
void yield_() { cur->where = "mbarrier wait"; W->spin[cur->warp] |= 1u << cur->lane; switch_next(); }
void progress() { W->idle = 0; }
void preempt() { if (order > 1 && (W->rnd() & 3) == 0) { const char* w = cur->where; yield_(); cur->where = w; } }
bool eager() { return order == 1 || (order > 1 && (W->rng >> 7 & 1)); }
void async_push(std::function<void()> f) { W->async.push_back(std::move(f)); }
static void release(int id) { Worker* w = W; auto& v = w->barw[id]; for (auto i : v) w->push(i); v.clear(); w->bars[id].arrived = 0; w->idle = 0; }
void syncthreads(const char* where) { Worker* w = W; auto& b = w->bars[0];
  if (b.arrived && w->barwhere[0] != where && strcmp(w->barwhere[0], where)) fail("cuemu: divergent __syncthreads in block (%u,%u,%u): thread %u at %s, others at %s", bidx.x, bidx.y, bidx.z, cur->lin, where, w->barwhere[0]);
  w->barwhere[0] = where;
  // the last to arrive also goes back to the scheduler, so a preferred warp can run ahead
  w->barw[0].push_back(cur->lin); if (++b.arrived >= w->live) release(0); block_here(where); }
void named_bar(int id, int count, bool wait) { Worker* w = W; if (++w->bars[id].arrived >= (unsigned)count) { release(id); return; } if (wait) { w->barw[id].push_back(cur->lin); block_here("bar.sync"); } }
static void complete(Warp& wp, Coll& c, unsigned base) { (void)wp; c.fn(c.args, c.arrived); uint32_t a = c.arrived; c.arrived = 0; if (!cur->done) a &= ~(1u << cur->lane); W->push_warp(base >> 5, a); }
void warp_coll(uint32_t mask, const char* op, void* arg, CollFn fn) {
  Warp& wp = W->warps[cur->warp]; uint32_t me = 1u << cur->lane;
  if (!(mask & me)) fail("cuemu: thread %u calls %s with a mask %08x without itself", cur->lin, op, mask);
  Coll* c = nullptr; for (auto& k : wp.colls) if (k.arrived && k.mask == mask) { c = &k; break; }
  if (!c) { for (auto& k : wp.colls) if (!k.arrived) { c = &k; break; } if (!c) fail("cuemu: too many divergent collectives"); c->mask = mask; c->op = op; c->fn = fn; }
  if (c->op != op && strcmp(c->op, op)) fail("cuemu: divergent warp collective in block (%u,%u,%u) warp %u: %s vs %s (lane %u)", bidx.x, bidx.y, bidx.z, cur->warp, c->op, op, cur->lane);
  c->args[cur->lane] = arg; c->arrived |= me;
  if (c->arrived == (mask & wp.live)) { complete(wp, *c, cur->lin - cur->lane); return; }
  block_here(op);
}
void group_coll(int n, const char* op, void* arg, void (*fn)(void**, int)) {
  unsigned g = cur->lin / n, k = cur->lin % n; GColl& c = W->gc[g];
  if (c.arrived && strcmp(c.op, op)) fail("cuemu: divergent group collective %s vs %s", c.op, op);
  c.op = op; c.fn = fn; c.args[k] = arg;
  if (++c.arrived == n) { fn(c.args, n); c.arrived = 0; for (int i = 0; i < n; i++) if (g * n + i != cur->lin) W->push(g * n + i); return; }
  block_here(op);
}
static void entry() {
#ifdef ASAN
  __sanitizer_finish_switch_fiber(nullptr, &main_bottom, &main_size);
#endif
  for (;;) {
    W->ctx.call(W->ctx.args);
    Worker* w = W; Fiber* me = cur; me->done = true; w->live--;
    Warp& wp = w->warps[me->warp]; wp.live &= ~(1u << me->lane);
    for (auto& c : wp.colls) if (c.arrived && c.arrived == (c.mask & wp.live)) complete(wp, c, me->lin - me->lane);
    if (w->bars[0].arrived && w->bars[0].arrived >= w->live) release(0);
    if (w->live == 0) to_main();
    else { me->where = "exited"; Fiber* nx = w->pick(); if (!nx) deadlock();
      cur = nx; w->sw++;
#ifdef ASAN
      __sanitizer_start_switch_fiber(nullptr, nx->stack, STACK);
#endif
      void* d; cuemu_switch(&d, nx->sp); }
  }
}
static void init_fiber(Fiber& f) {
  void** sp = (void**)(f.stack + STACK - (f.lin * 320u & 0x1fc0)); *--sp = nullptr;   // colour the stacks: equal offsets would share L1 sets
#if defined(__x86_64__)
  *--sp = (void*)entry; for (int i = 0; i < 6; i++) *--sp = nullptr;   // rsp%16 == 8 at entry
#elif defined(__aarch64__)
  sp -= 20; memset(sp, 0, 160); sp[11] = (void*)entry;
#endif
  f.sp = sp;
}
static Worker* get_worker() {
  static thread_local struct H { Worker* w = nullptr; ~H() { if (w) { munmap(w->stacks, STACK * MAXT); delete w; } } } h;
  if (!h.w) { h.w = new Worker(); h.w->stacks = (char*)mmap(nullptr, STACK * MAXT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    madvise(h.w->stacks, STACK * MAXT, MADV_HUGEPAGE);
    for (unsigned i = 0; i < MAXT; i++) h.w->f[i].stack = h.w->stacks + i * STACK; }
  return h.w;
}
static bool run_block(dim3 b, LaunchCtx c) {
  Worker* w = W; w->n = w->live = b.x * b.y * b.z; w->ctx = c; w->failed = false;
  for (auto& v : w->barw) v.clear(); for (auto& x : w->bars) x.arrived = 0; for (auto& g : w->gc) g.arrived = 0;
  for (unsigned k = 0; k < (w->n + 31) / 32; k++) { w->warps[k].live = w->n - k * 32 >= 32 ? 0xffffffffu : (1u << (w->n - k * 32)) - 1; for (auto& q : w->warps[k].colls) q.arrived = 0; }
  for (unsigned i = 0; i < w->n; i++) { Fiber& f = w->f[i]; f.tid = {i % b.x, i / b.x % b.y, i / (b.x * b.y)}; f.lin = i; f.lane = i & 31; f.warp = i >> 5; f.done = false; f.where = "start"; init_fiber(f); }
  w->nw = (w->n + 31) / 32; w->idle = w->rr = 0; w->async.clear(); w->ah = 0; memset(w->run, 0, sizeof w->run); w->runp = 0; memset(w->spin, 0, sizeof w->spin);
  for (unsigned k = 0; k < w->nw; k++) w->prio[k] = order == 1 ? w->nw - 1 - k : k;
  if (order > 1) { w->rng = (uint64_t)order * 0x9E3779B97F4A7C15ull + bidx.x * 7919 + bidx.y * 104729; for (unsigned k = w->nw; k > 1; k--) std::swap(w->prio[k - 1], w->prio[w->rnd() % k]); }
  for (unsigned k = 0; k < w->nw; k++) w->pos[w->prio[k]] = k;
  for (unsigned i = 0; i < w->n; i++) w->push(i);
  Fiber* nx = w->pick(); cur = nx;
#ifdef ASAN
  for (unsigned i = 0; i < w->n; i++) __asan_unpoison_memory_region(w->f[i].stack, STACK);
  __sanitizer_start_switch_fiber(&w->masan, nx->stack, STACK);
#endif
  cuemu_switch(&w->main_sp, nx->sp);
#ifdef ASAN
  __sanitizer_finish_switch_fiber(w->masan, nullptr, nullptr);
#endif
  cur = nullptr; return !w->failed;
}
int launch(dim3 g, dim3 b, unsigned smem, LaunchCtx c) {
  if (b.x * b.y * b.z > MAXT || !(b.x * b.y * b.z) || smem > DYN) return 1;
  uint64_t nb = (uint64_t)g.x * g.y * g.z; std::atomic<uint64_t> next{0}; std::atomic<int> rc{0};
  int nt = threads ? threads : (int)std::thread::hardware_concurrency(); if ((uint64_t)nt > nb) nt = (int)nb;
  auto work = [&] { W = get_worker(); W->sw = 0; bdim = {b.x, b.y, b.z}; gdim = {g.x, g.y, g.z};
    unsigned char* sm = (unsigned char*)aligned_alloc(1024, (smem + 1023) / 1024 * 1024 + 1024); dynsm = sm; dynsm_bytes = smem;
    for (uint64_t i; !rc && (i = next++) < nb;) { bidx = {(unsigned)(i % g.x), (unsigned)(i / g.x % g.y), (unsigned)(i / ((uint64_t)g.x * g.y))};
      memset(sm, 0xff, smem);                       // poison: NaN for f32/bf16
      if (!run_block(b, c)) rc = 2; }
    __atomic_fetch_add(&switches, W->sw, __ATOMIC_RELAXED); free(sm); };
  if (nt <= 1) work(); else { std::vector<std::thread> v; for (int t = 0; t < nt; t++) v.emplace_back(work); for (auto& t : v) t.join(); }
  return rc;
}
}
extern "C" void cuemu_config(int threads, int order) { cuemu::threads = threads; cuemu::order = order; }
extern "C" uint64_t cuemu_switches() { uint64_t s = cuemu::switches; cuemu::switches = 0; return s; }
extern "C" const char* cuemu_error() { return cuemu::last_error(); }
