// memory.cpp: who may touch what, and races.
//
// Kernel files are compiled with -fsanitize=thread, which puts a call before every load and store; the calls
// end here and not in a sanitizer's library. Global accesses must lie in a buffer of the device, shared ones in
// the block's allotment.
//
// Races (FastTrack, C. Flanagan and S. Freund 2009, with two readers kept instead of all): every thread and every
// asynchronous unit has a clock that goes on when it lets others know what it did. A word of shared memory remembers who
// wrote it and who read it, and when. An access is ordered after another when its thread has learned, through
// barriers, of the other's clock at that time. `__syncthreads`, named barriers, `__syncwarp`, mbarriers and cluster
// barriers make learn; shuffles do not. What ordinary stores wrote must moreover have passed a `fence_async` before wgmma or
// a bulk store reads it.
#include "machine.h"
#include <map>

namespace cuemu {
// ---- shared addresses: the block's own from 0 (dynamic) and WINDOW (`__shared__` variables); those of other blocks have
// the block's place and one in the highest byte

Block* owner(const void* p, uint32_t* offset) {
  Block* me = self()->block;
  Worker* w = me->worker;
  uintptr_t a = (uintptr_t)p;
  auto in = [&](const void* base, size_t bytes, uint32_t add) {
    uintptr_t d = a - (uintptr_t)base;
    if (d >= bytes) return false;
    *offset = add + (uint32_t)d;
    return true;
  };
  if (in(me->shared, WINDOW, 0)) return me;
  if (in(w->statics, w->statics_bytes, WINDOW)) return w->in_place ? w->in_place : me;
  if (w->blocks.size() > 1)
    for (Block* b : w->blocks)
      if (in(b->shared, WINDOW, 0) || (b->statics && in(b->statics, w->statics_bytes, WINDOW))) return b;
  return nullptr;
}
bool is_shared(const void* p) {
  uint32_t offset;
  return owner(p, &offset) != nullptr;
}
uint32_t shared_address(const void* p) {
  uint32_t offset;
  Block* b = owner(p, &offset);
  if (!b) fail("an address that is not in shared memory is used as one that is");
  return b == self()->block ? offset : offset | (b->place + 1) << 24;
}
unsigned char* resolve(Block* b, uint32_t address) {
  Worker* w = b->worker;
  if (address >> 24) b = w->blocks[(address >> 24) - 1];
  uint32_t at = address & 0xffffff;
  if (at < WINDOW) return b->shared + at;
  return (w->in_place == b || !b->statics ? w->statics : b->statics) + (at - WINDOW);
}
void* map_shared(const void* p, uint32_t rank) {
  Block* b = self()->block;
  uint32_t at;
  if (owner(p, &at) != b) fail("only an address in the block's own shared memory can be found in another block");
  if (rank >= b->size) fail("block %u of a cluster of %u", rank, b->size);
  return resolve(b->worker->blocks[b->first + rank], at);
}
void* dynamic_shared() { return self()->block->shared; }

// ---- bounds

void check_shared(const void* p, size_t bytes, const char* what) {
  uint32_t at;
  Block* b = owner(p, &at);
  if (!b) fail("%s: the address is not in shared memory", what);
  if (at < WINDOW && at + bytes > b->worker->shared_bytes)
    fail("%s: bytes %u to %zu of dynamic shared memory, the launch has %u", what, at, at + bytes, b->worker->shared_bytes);
}

static bool known_global(Worker* w, uint64_t a, size_t bytes) {
  if (a >= w->range_start && a + bytes <= w->range_end) return true;
  size_t low = 0, high = settings.range_count;
  while (low < high) {
    size_t mid = (low + high) / 2;
    if (settings.ranges[mid].start <= a) low = mid + 1;
    else high = mid;
  }
  if (low) {
    const Range& r = settings.ranges[low - 1];
    if (a + bytes <= r.start + r.bytes) {
      w->range_start = r.start, w->range_end = r.start + r.bytes;
      return true;
    }
  }
  return a >= library_start && a + bytes <= library_end;  // constants
}
void check_global(const void* p, size_t bytes, const char* what) {
  if (!settings.check) return;
  Worker* w = self()->block->worker;
  uint64_t a = (uint64_t)p;
  if (known_global(w, a, bytes)) return;
  if (is_shared(p)) fail("%s: an address in shared memory where one in global memory is expected", what);
  const Range *below = nullptr, *above = nullptr;
  for (size_t i = 0; i < settings.range_count; i++) {
    const Range& r = settings.ranges[i];
    if (r.start <= a) below = &r;
    else if (!above) above = &r;
  }
  if (a < 4096) fail("%s of %zu bytes at the null pointer", what, bytes);
  if (below && a - (below->start + below->bytes) < 1 << 20)
    fail("%s of %zu bytes out of bounds: %lld bytes past the end of a buffer of %llu", what, bytes, (long long)(a - below->start - below->bytes), (unsigned long long)below->bytes);
  if (above && above->start - a < 1 << 20)
    fail("%s of %zu bytes out of bounds: %lld bytes before a buffer of %llu", what, bytes, (long long)(above->start - a), (unsigned long long)above->bytes);
  fail("%s of %zu bytes out of bounds: at %p, in no buffer", what, bytes, p);
}

// ---- clocks

struct Cell {
  uint32_t write, read[2];              // clocks
  uint32_t write_site, read_site[2];    // offsets in this library
  uint16_t writer, reader[2];           // who
  uint8_t write_mask, read_mask[2];     // which of the word's bytes; 0: nobody
  uint8_t atomic;
};
struct Clocks {
  unsigned threads = 0, total = 0;
  std::vector<uint32_t> clock;                       // of each thread, then of each unit
  std::vector<std::vector<uint32_t>> seen;           // by thread: what it has learned since the block's last barrier
  std::vector<uint32_t> seen_epoch;
  std::vector<std::vector<uint32_t>> floor;          // by block: what all its threads know
  std::vector<uint32_t> epoch;                       // by block
  std::vector<uint32_t> fenced;                      // by thread: its clock at its last fence_async
  std::vector<std::vector<uint32_t>> fence_seen;     // by thread: what it knew then
  std::map<std::pair<unsigned, uint32_t>, std::vector<uint32_t>> barriers;
  std::vector<std::vector<Cell>> cells;              // by block: dynamic, then `__shared__`
  std::unordered_map<uint64_t, Cell> global;         // by address: what the set has written
  unsigned block_threads = 1;
  unsigned block_of(unsigned thread) const { return thread / block_threads; }
};
constexpr uint32_t GLOBAL = ~0u;  // in the place of an address in shared memory

void begin_clocks(Worker* w) {
  if (!races()) return;
  if (!w->clocks) w->clocks = new Clocks();
  Clocks& c = *w->clocks;
  unsigned blocks = w->blocks.size();
  c.threads = w->live;
  c.total = c.threads + blocks * AGENTS;
  c.clock.assign(c.total, 1);
  c.seen.resize(c.threads), c.fence_seen.resize(c.threads);
  for (auto& f : c.fence_seen) f.clear();
  c.seen_epoch.assign(c.threads, 0);
  c.fenced.assign(c.threads, 0);
  c.floor.resize(blocks);
  for (auto& f : c.floor) f.assign(c.total, 0);
  c.epoch.assign(blocks, 1);
  c.barriers.clear();
  c.cells.resize(blocks);
  c.global.clear();
  c.block_threads = c.threads / blocks;
  for (auto& x : c.cells) x.assign(w->shared_bytes / 4 + w->statics_bytes / 4 + 2, Cell{});
}

static Clocks& clocks(Worker* w) { return *w->clocks; }
static bool has_seen(Clocks& c, Fiber* f) { return c.seen_epoch[f->id] == c.epoch[f->block->place]; }
static std::vector<uint32_t>& seen(Clocks& c, Fiber* f) {
  auto& s = c.seen[f->id];
  if (!has_seen(c, f)) {
    s.assign(c.total, 0);
    c.seen_epoch[f->id] = c.epoch[f->block->place];
  }
  return s;
}
static void join(std::vector<uint32_t>& to, const std::vector<uint32_t>& from) {
  if (to.size() < from.size()) to.resize(from.size(), 0);
  uint32_t* a = to.data();
  const uint32_t* b = from.data();
  for (size_t i = 0, n = from.size(); i < n; i++) a[i] = a[i] < b[i] ? b[i] : a[i];
}
static bool knows(Clocks& c, Fiber* f, unsigned who, uint32_t when) {
  return who == f->id || when <= c.floor[f->block->place][who] || (has_seen(c, f) && when <= c.seen[f->id][who]);
}
// What a thread passes on: all it has learned and done.
static void pass_on(Clocks& c, Fiber* f, std::vector<uint32_t>& to) {
  if (to.size() < c.total) to.resize(c.total, 0);
  if (has_seen(c, f)) join(to, c.seen[f->id]);
  to[f->id] = std::max(to[f->id], c.clock[f->id]);
}

void learn_together(const std::vector<Fiber*>& members) {
  if (!races()) return;
  Clocks& c = clocks(members[0]->block->worker);
  std::vector<uint32_t> all(c.total, 0);
  for (Fiber* f : members) pass_on(c, f, all);
  for (Fiber* f : members) {
    join(seen(c, f), all);
    c.clock[f->id]++;
  }
}
void learn_block(Block* b) {
  if (!races()) return;
  Clocks& c = clocks(b->worker);
  auto& floor = c.floor[b->place];
  for (unsigned i = 0; i < b->threads; i++) {
    pass_on(c, &b->fibers[i], floor);
    c.clock[b->fibers[i].id]++;
  }
  c.epoch[b->place]++;
}
void learn_cluster(Worker* w, unsigned first) {
  if (!races()) return;
  Clocks& c = clocks(w);
  unsigned size = w->blocks[first]->size;
  std::vector<uint32_t> all(c.total, 0);
  for (unsigned k = first; k < first + size; k++) {
    join(all, c.floor[k]);
    for (unsigned i = 0; i < w->blocks[k]->threads; i++) {
      pass_on(c, &w->blocks[k]->fibers[i], all);
      c.clock[w->blocks[k]->fibers[i].id]++;
    }
  }
  for (unsigned k = first; k < first + size; k++) c.floor[k] = all;
}
static std::vector<uint32_t>& barrier_of(Clocks& c, const uint64_t* bar) {
  uint32_t at = 0;
  Block* b = owner(bar, &at);
  auto& v = c.barriers[{b->place, at}];
  if (v.size() < c.total) v.resize(c.total, 0);
  return v;
}
void give(Fiber* f, uint64_t* bar) {
  if (!races()) return;
  Clocks& c = clocks(f->block->worker);
  auto& to = barrier_of(c, bar);
  uint32_t at = 0;
  if (owner(bar, &at) != f->block) join(to, c.floor[f->block->place]);
  pass_on(c, f, to);
  c.clock[f->id]++;
}
void take(Fiber* f, uint64_t* bar) {
  if (!races()) return;
  Clocks& c = clocks(f->block->worker);
  join(seen(c, f), barrier_of(c, bar));
}
void fence_async() {
  mbar_init_fence();
  if (!races()) return;
  Fiber* f = self();
  Clocks& c = clocks(f->block->worker);
  c.fenced[f->id] = c.clock[f->id]++;
  c.fence_seen[f->id] = c.floor[f->block->place];
  if (has_seen(c, f)) join(c.fence_seen[f->id], c.seen[f->id]);
}

static unsigned agent_id(Clocks& c, Block* b, int agent) { return c.threads + b->place * AGENTS + agent; }
uint32_t agent_begin(Fiber* f, int agent) {
  if (!races()) return 0;
  Clocks& c = clocks(f->block->worker);
  return ++c.clock[agent_id(c, f->block, agent)];
}
void agent_done(Fiber* f, int agent, uint32_t number) {
  if (!races()) return;
  Clocks& c = clocks(f->block->worker);
  uint32_t& s = seen(c, f)[agent_id(c, f->block, agent)];
  s = std::max(s, number);
}
void agent_done(Block* from, int agent, uint32_t number, Block* at, uint32_t bar) {
  if (!races()) return;
  Clocks& c = clocks(at->worker);
  auto& v = c.barriers[{at->place, bar}];
  if (v.size() < c.total) v.resize(c.total, 0);
  uint32_t& s = v[agent_id(c, from, agent)];
  s = std::max(s, number);
}

// ---- accesses

static std::string who(Worker* w, Clocks& c, unsigned id) {
  if (id < c.threads) return thread_name(&w->fibers[id]);
  int agent = (id - c.threads) % AGENTS;
  return agent >= AgentProducts ? "a wgmma in flight" : agent >= AgentBulk ? "a bulk store in flight" : "a TMA load in flight";
}
[[noreturn]] static void race(Worker* w, Clocks& c, uint32_t at, const char* now, const char* then, unsigned other, uint32_t site) {
  std::string place = site ? " at " + text_place({library_start + site}) : "";
  std::string where = at == GLOBAL ? "global memory" : at < WINDOW ? "byte " + std::to_string(at) + " of dynamic shared memory" : "a __shared__ variable";
  fail("race on %s: %s it while %s %s it%s, with no barrier between", where.c_str(), now, who(w, c, other).c_str(), then, place.c_str());
}

// One word: `id` touches the bytes of `mask`; what it must have seen, `f` must.
static void touch_cell(Worker* w, Clocks& c, Fiber* f, Cell& x, uint32_t at, uint8_t mask, Access kind, unsigned id, uint32_t site, const char* what) {
  bool agent = id >= c.threads;
  const char* now = what ? what : kind == Read ? "the thread reads" : "the thread writes";
  if ((x.write_mask & mask) && x.writer != id && !(kind == Atomic && x.atomic)) {
    if (!knows(c, f, x.writer, x.write)) race(w, c, at, agent ? (std::string(what) + (kind == Read ? " reads" : " writes")).c_str() : now, "writes", x.writer, x.write_site);
    if (agent && kind == Read && x.writer < c.threads && x.write > c.fenced[x.writer] &&
        (c.fence_seen[f->id].empty() || x.write > c.fence_seen[f->id][x.writer]) && !(x.writer == f->id && x.write <= c.fenced[f->id]))
      fail("%s reads byte %u of shared memory, which %s wrote at %s: fence_async() is missing between", what, at, who(w, c, x.writer).c_str(), text_place({library_start + x.write_site}).c_str());
  }
  if (kind == Read) {
    int slot = -1;
    for (int i = 0; i < 2 && slot < 0; i++)
      if (!x.read_mask[i] || (x.reader[i] == id && (x.read_mask[i] & ~mask) == 0) || knows(c, f, x.reader[i], x.read[i])) slot = i;
    if (slot < 0) slot = w->draw() & 1;
    x.reader[slot] = id, x.read[slot] = c.clock[id], x.read_mask[slot] = mask, x.read_site[slot] = site;
    return;
  }
  for (int i = 0; i < 2; i++) {
    if (!(x.read_mask[i] & mask)) continue;
    if (x.reader[i] != id && !knows(c, f, x.reader[i], x.read[i]))
      race(w, c, at, agent ? (std::string(what) + " writes").c_str() : now, "reads", x.reader[i], x.read_site[i]);
    x.read_mask[i] &= ~mask;
  }
  if (x.writer == id && x.write == c.clock[id] && x.write_mask) x.write_mask |= mask;
  else x.write_mask = mask;
  x.writer = id, x.write = c.clock[id], x.write_site = site, x.atomic = kind == Atomic;
}
static void touch_word(Worker* w, Clocks& c, Fiber* f, Block* b, uint32_t at, uint8_t mask, Access kind, unsigned id, uint32_t site, const char* what) {
  auto& cells = c.cells[b->place];
  size_t index = at < WINDOW ? at / 4 : w->shared_bytes / 4 + 1 + (at - WINDOW) / 4;
  if (index < cells.size()) touch_cell(w, c, f, cells[index], at, mask, kind, id, site, what);
}
// Global memory: only words that the set has written have a cell, and only threads of one block are held against
// each other (what orders blocks, flags and atomics, is not followed).
static void touch_global(Fiber* f, uint64_t address, size_t bytes, Access kind, uint32_t site) {
  Worker* w = f->block->worker;
  Clocks& c = clocks(w);
  for (uint64_t k = address & ~3ull; k < address + bytes; k += 4) {
    uint8_t mask = 15;
    if (k < address) mask &= 15 << (address - k);
    if (k + 4 > address + bytes) mask &= 15 >> (k + 4 - address - bytes);
    auto found = c.global.find(k);
    if (found == c.global.end()) {
      if (kind == Read) continue;
      found = c.global.emplace(k, Cell{}).first;
    }
    Cell& x = found->second;
    if (x.write_mask && c.block_of(x.writer) != f->block->place) {
      if (kind != Read) x = Cell{};
      else continue;
    }
    touch_cell(w, c, f, x, GLOBAL, mask, kind, f->id, site, nullptr);
  }
}
static void touch_bytes(Fiber* f, Block* b, uint32_t at, size_t bytes, Access kind, unsigned id, uint32_t site, const char* what) {
  Worker* w = b->worker;
  Clocks& c = clocks(w);
  for (uint32_t k = at & ~3u; k < at + bytes; k += 4) {
    uint8_t mask = 15;
    if (k < at) mask &= 15 << (at - k);
    if (k + 4 > at + bytes) mask &= 15 >> (k + 4 - at - bytes);
    touch_word(w, c, f, b, k, mask, kind, id, site, what);
  }
}
void touch(const void* p, size_t bytes, Access kind, uintptr_t site) {
  if (!races()) return;
  uint32_t at;
  Fiber* f = self();
  if (Block* b = owner(p, &at)) touch_bytes(f, b, at, bytes, kind, f->id, (uint32_t)(site - library_start), nullptr);
}
void agent_touch(Fiber* f, const void* p, size_t bytes, Access kind, int agent, const char* what) {
  if (!races()) return;
  uint32_t at;
  Clocks& c = clocks(f->block->worker);
  if (Block* b = owner(p, &at)) touch_bytes(f, b, at, bytes, kind, agent_id(c, f->block, agent), 0, what);
}

static void access(const void* p, size_t bytes, Access kind, uintptr_t site) {
  if (!settings.check) return;
  uintptr_t a = (uintptr_t)p;
  if ((a ^ (uintptr_t)__builtin_frame_address(0)) < STACK) return;  // a local variable
  Fiber* f = self();
  Worker* w = f->block->worker;
  if (f != w->current) fail("stack overflow: a thread has %zu KiB for its local variables", STACK >> 10);
  if (a - (uintptr_t)w->stacks < (w->stack_count + 1 + MARGIN) * STACK) return;  // another lane's, in a shuffle
  if (known_global(w, a, bytes)) {
    if (races()) touch_global(f, a, bytes, kind, (uint32_t)(site - library_start));
    return;
  }
  uint32_t at;
  Block* b = owner(p, &at);
  if (!b) return check_global(p, bytes, kind == Read ? "load" : kind == Write ? "store" : "atomic");
  if (at < WINDOW && at + bytes > w->shared_bytes)
    fail("%s of %zu bytes at byte %u of dynamic shared memory, the launch has %u", kind == Read ? "load" : "store", bytes, at, w->shared_bytes);
  if (b != f->block && b->live == 0) fail("shared memory of a block that has ended is touched");
  if (races()) touch_bytes(f, b, at, bytes, kind, f->id, (uint32_t)(site - library_start), nullptr);
}

// ---- atomics

bool swap32(void* at, uint32_t* expected, uint32_t wanted) {
  if ((uintptr_t)at & 3) fail("an atomic on 4 bytes at an address that is not a multiple of 4");
  return __atomic_compare_exchange_n((uint32_t*)at, expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
bool swap64(void* at, uint64_t* expected, uint64_t wanted) {
  if ((uintptr_t)at & 7) fail("an atomic on 8 bytes at an address that is not a multiple of 8");
  return __atomic_compare_exchange_n((uint64_t*)at, expected, wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
uint64_t atomic_load(const void* at, int bytes) {
  access(at, bytes, Atomic, (uintptr_t)__builtin_return_address(0));
  if ((uintptr_t)at & (bytes - 1)) fail("an atomic on %d bytes at an address that is not a multiple of it", bytes);
  return bytes == 4 ? __atomic_load_n((const uint32_t*)at, __ATOMIC_SEQ_CST) : __atomic_load_n((const uint64_t*)at, __ATOMIC_SEQ_CST);
}
void fetch(void* to, const void* from, size_t bytes) { memcpy(to, from, bytes); }

// Loops that poll memory through `volatile` would never let others run.
static void polled(const void* p, size_t bytes, uintptr_t site) {
  access(p, bytes, Atomic, site);
  if ((self()->block->worker->random++ & 15) == 0) wait_for("a loop over a volatile load");
}
#define SITE ((uintptr_t)__builtin_return_address(0))
extern "C" {
#define HOOKS(n)                                                                                  \
  void __tsan_read##n(void* p) { access(p, n, Read, SITE); }                                      \
  void __tsan_write##n(void* p) { access(p, n, Write, SITE); }                                    \
  void __tsan_unaligned_read##n(void* p) { access(p, n, Read, SITE); }                            \
  void __tsan_unaligned_write##n(void* p) { access(p, n, Write, SITE); }                          \
  void __tsan_volatile_read##n(void* p) { polled(p, n, SITE); }                                   \
  void __tsan_volatile_write##n(void* p) { access(p, n, Atomic, SITE); }                          \
  void __tsan_unaligned_volatile_read##n(void* p) { polled(p, n, SITE); }                         \
  void __tsan_unaligned_volatile_write##n(void* p) { access(p, n, Atomic, SITE); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
void __tsan_read_range(void* p, size_t n) { access(p, n, Read, SITE); }
void __tsan_write_range(void* p, size_t n) { access(p, n, Write, SITE); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_atomic_thread_fence(int) { __sync_synchronize(); }
void __tsan_atomic_signal_fence(int) {}
}
}  // namespace cuemu
