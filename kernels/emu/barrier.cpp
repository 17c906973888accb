// barrier.cpp: what threads meet at. Warps, warpgroups, `__syncthreads`, named barriers, mbarriers, clusters.
#include "machine.h"

namespace cuemu {
// ---- warps

static void complete(Block* b, unsigned warp, Collective& c) {
  uint32_t arrived = c.arrived;
  // On the stack, where the kernel's text may read without being asked for bounds.
  void* args[32];
  memcpy(args, c.args, sizeof args);
  c.arrived = 0;
  c.run(args, arrived);
  Fiber* me = self();
  if (!me->done && me->block == b && me->warp == warp) arrived &= ~(1u << me->lane);
  make_runnable(b, warp, arrived);
  progress(b->worker);
}

void warp_collective(uint32_t mask, const char* op, void* arg, void (*run)(void**, uint32_t)) {
  Fiber* f = self();
  Warp& warp = f->block->warp[f->warp];
  uint32_t me = 1u << f->lane;
  if (!(mask & me)) fail("%s with the mask %08x, which leaves lane %u itself out", op, mask, f->lane);
  Collective* c = nullptr;
  for (auto& k : warp.open) if (k.arrived && k.mask == mask) { c = &k; break; }
  if (!c) for (auto& k : warp.open) if (!k.arrived) { c = &k; break; }
  if (!c) fail("%s: the warp's lanes are in more than eight different collectives", op);
  if (!c->arrived) c->mask = mask, c->op = op, c->run = run;
  if (c->op != op && strcmp(c->op, op)) fail("divergent warp: lane %u is in %s, others in %s", f->lane, op, c->op);
  c->args[f->lane] = arg;
  c->arrived |= me;
  if (c->arrived == (mask & warp.live)) complete(f->block, f->warp, *c);
  else block_here(op);
}

void sync_warp(uint32_t mask) {
  warp_collective(mask, "__syncwarp", self(), [](void** a, uint32_t mask) {
    std::vector<Fiber*> all;
    for (int l = 0; l < 32; l++) if (mask >> l & 1) all.push_back((Fiber*)a[l]);
    learn_together(all);
  });
}

unsigned active_mask() { return self()->block->warp[self()->warp].live; }

void group_collective(const char* op, void* arg, void (*run)(void**)) {
  Fiber* f = self();
  Block* b = f->block;
  unsigned g = f->lin / 128;
  if (b->threads < (g + 1) * 128) fail("%s outside a whole warpgroup of 128 threads", op);
  Group& c = b->group[g];
  if (c.arrived && strcmp(c.op, op)) fail("divergent warpgroup: thread %u is in %s, others in %s", f->lin, op, c.op);
  c.op = op, c.run = run;
  c.args[f->lin % 128] = arg;
  if (++c.arrived < 128) return block_here(op);
  void* args[128];
  memcpy(args, c.args, sizeof args);
  c.arrived = 0;
  run(args);
  for (unsigned i = 0; i < 128; i++) if (g * 128 + i != f->lin) make_runnable(&b->fibers[g * 128 + i]);
  progress(b->worker);
}

// ---- blocks

static void release(Block* b, NamedBarrier& x, bool whole) {
  if (whole) learn_block(b);
  else learn_together(x.members);
  x.result = x.votes | (x.votes == (int)x.arrived ? 1 << 30 : 0);
  for (Fiber* f : x.waiting) make_runnable(f);
  x.waiting.clear();
  x.members.clear();
  x.arrived = x.expected = 0;
  x.votes = 0;
  progress(b->worker);
}

int sync_threads(const char* site, int vote) {
  Fiber* f = self();
  Block* b = f->block;
  auto& x = b->barrier[0];
  if (x.arrived && x.site != site && strcmp(x.site, site)) fail("divergent __syncthreads: thread %u is at %s, others at %s", f->lin, site, x.site);
  x.site = site;
  x.votes += vote;
  x.waiting.push_back(f);
  // The last to arrive goes back to the scheduler too, so that a preferred warp can run ahead.
  if (++x.arrived >= b->live) release(b, x, true);
  block_here("__syncthreads", site);
  return x.result;
}

void named_barrier(int id, int threads, bool wait) {
  Fiber* f = self();
  Block* b = f->block;
  if (id < 1 || id > 15) fail("named barrier %d: 1 to 15 are free to use", id);
  if (threads <= 0 || threads % 32 || threads > (int)b->threads) fail("named barrier %d of %d threads: expected a multiple of 32, at most the block's %u", id, threads, b->threads);
  auto& x = b->barrier[id];
  if (x.arrived && x.expected != (unsigned)threads) fail("named barrier %d of %d threads, others said %u", id, threads, x.expected);
  for (Fiber* m : x.members) if (m == f) fail("named barrier %d: the thread arrives twice in one phase", id);
  x.expected = threads;
  x.members.push_back(f);
  bool last = ++x.arrived == (unsigned)threads;
  if (wait) x.waiting.push_back(f);
  if (last) release(b, x, false);
  if (wait) block_here("a named barrier");
  else preempt();
}

// A thread that has ended is waited for by nobody.
void leave_barriers(Fiber* f) {
  Block* b = f->block;
  Warp& warp = b->warp[f->warp];
  warp.live &= ~(1u << f->lane);
  for (auto& c : warp.open) if (c.arrived && c.arrived == (c.mask & warp.live)) complete(b, f->warp, c);
  auto& x = b->barrier[0];
  if (x.arrived && x.arrived >= b->live) release(b, x, true);
  ClusterBarrier& k = b->worker->clusters[b->first / b->size];
  unsigned live = 0;
  for (unsigned i = 0; i < b->size; i++) live += b->worker->blocks[b->first + i]->live;
  if (k.arrived && k.arrived >= live) k.arrived = 0, k.phase++, learn_cluster(b->worker, b->first);
}

// ---- mbarriers: their state is in their 64 bits, with a mark that tells a barrier from other memory

struct State {
  // shown: to the asynchronous units and to other blocks, by a fence after it was made
  uint64_t phase : 1, pending : 12, count : 12, mark : 6, shown : 1;
  int64_t bytes : 32;
};
static_assert(sizeof(State) == 8, "");
constexpr unsigned MARK = 0x35;

static State* state(uint64_t* bar, const char* what) {
  if ((uintptr_t)bar & 7) fail("%s: an mbarrier is aligned to 8 bytes", what);
  if (!is_shared(bar)) fail("%s: the mbarrier is not in shared memory", what);
  State* s = (State*)bar;
  if (s->mark != MARK) fail("%s: no mbarrier is there: mbar_init is missing, or not yet seen, or overwritten", what);
  return s;
}
static void turn(Block* b, State* s) {
  progress(b->worker);
  if (s->pending == 0 && s->bytes == 0) s->phase ^= 1, s->pending = s->count;
}

void mbar_init(uint64_t* bar, int count) {
  if ((uintptr_t)bar & 7) fail("mbar_init: an mbarrier is aligned to 8 bytes");
  if (!is_shared(bar)) fail("mbar_init: the mbarrier is not in shared memory");
  if (count < 1 || count > 4095) fail("mbar_init of %d arrivals: the emulator takes 1 to 4,095", count);
  State s{};
  s.pending = s.count = count;
  s.mark = MARK;
  memcpy(bar, &s, 8);
  self()->block->mbarriers.push_back(bar);
}
void mbar_init_fence() {
  for (uint64_t* bar : self()->block->mbarriers)
    if (((State*)bar)->mark == MARK) ((State*)bar)->shown = 1;
}
void mbar_shown(uint64_t* bar, const char* what) {
  if (!state(bar, what)->shown) fail("%s: the mbarrier is new, and mbar_init_fence() is missing behind mbar_init", what);
}

void mbar_arrive(uint64_t* bar, uint32_t bytes, int arrivals) {
  uint32_t offset;
  Block* b = owner(bar, &offset);
  State* s = state(bar, bytes ? "mbar_expect" : "mbar_arrive");
  if ((unsigned)arrivals > s->pending) fail("mbarrier: more arrivals than the %u that it was made for", (unsigned)s->count);
  if (bytes >= 1u << 20) fail("mbarrier: %u bytes announced, at most 1,048,575 are possible", bytes);
  if (b != self()->block) mbar_shown(bar, "mbar_arrive_at");
  if (arrivals) give(self(), bar);
  s->bytes += bytes;
  s->pending -= arrivals;
  turn(b, s);
  preempt();
}

// Bytes of a copy that arrived.
void land(Block* b, uint64_t* bar, int64_t bytes) {
  State* s = state(bar, "a copy that lands");
  if (s->bytes - bytes < -(1 << 20)) fail("mbarrier: more bytes arrive than were announced");
  s->bytes -= bytes;
  turn(b, s);
}

bool mbar_try(uint64_t* bar, uint32_t parity) {
  State* s = state(bar, "mbar_try");
  if (s->phase == (parity & 1)) {
    poll_again("mbar_try");
    if (s->phase == (parity & 1)) return false;
  }
  take(self(), bar);
  return true;
}
void mbar_wait(uint64_t* bar, uint32_t parity) {
  State* s = state(bar, "mbar_wait");
  while (((volatile State*)s)->phase == (parity & 1)) poll_again("mbar_wait");
  take(self(), bar);
}

std::string open_mbarriers(Block* b) {
  std::string out;
  for (size_t i = 0; i < b->mbarriers.size(); i++) {
    uint64_t* bar = b->mbarriers[i];
    State* s = (State*)bar;
    if (b->worker->in_place != b && bar >= (uint64_t*)b->worker->statics && bar < (uint64_t*)(b->worker->statics + b->worker->statics_bytes))
      s = (State*)(b->statics + ((unsigned char*)bar - b->worker->statics));
    if (s->mark != MARK || (s->pending == s->count && !s->bytes)) continue;
    if (out.size() > 400) break;
    out += "; mbarrier " + std::to_string(i) + " of block " + std::to_string(b->place) + " lacks " + std::to_string((unsigned)s->pending) + " arrivals and " +
           std::to_string((long long)s->bytes) + " bytes";
  }
  return out;
}

long announced_bytes(Block* b) {
  for (uint64_t* bar : b->mbarriers) {
    State* s = (State*)bar;
    if (s->mark == MARK && s->bytes) return (long)s->bytes;
  }
  return 0;
}

// ---- clusters

uint32_t cluster_rank() { return self()->block->rank; }
uint32_t cluster_size() { return self()->block->size; }
void cluster_arrive() {
  Fiber* f = self();
  Block* b = f->block;
  Worker* w = b->worker;
  ClusterBarrier& k = w->clusters[b->first / b->size];
  if (w->cluster_phase[f->id] & 2) fail("cluster_arrive twice without cluster_wait");
  w->cluster_phase[f->id] = 2 | (k.phase & 1);
  unsigned live = 0;
  for (unsigned i = 0; i < b->size; i++) live += w->blocks[b->first + i]->live;
  if (++k.arrived >= live) {
    k.arrived = 0;
    k.phase++;
    learn_cluster(w, b->first);
    progress(w);
  }
}
void cluster_wait() {
  Fiber* f = self();
  Worker* w = f->block->worker;
  if (!(w->cluster_phase[f->id] & 2)) fail("cluster_wait without cluster_arrive");
  ClusterBarrier* k = &w->clusters[f->block->first / f->block->size];
  while ((((volatile ClusterBarrier*)k)->phase & 1) == (w->cluster_phase[f->id] & 1)) poll_again("cluster_wait");
  w->cluster_phase[f->id] = 0;
}
}  // namespace cuemu
