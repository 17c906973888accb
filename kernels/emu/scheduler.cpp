// scheduler.cpp: who runs next; launches; what went wrong, in words.
//
// In the order 0 the first thread that can run does, in 1 the last, else a drawn order of warps with threads put
// off now and then. Threads that poll (an mbarrier, a word in memory) run when nothing else can; when they have
// all polled often without anything happening, the set is dead.
#include "machine.h"
#include <atomic>
#include <chrono>
#include <cstdarg>
#include <dlfcn.h>
#include <mutex>
#include <sys/mman.h>
#include <thread>

namespace cuemu {
Settings settings;

// ---- errors: the launch gives up, its fibers are abandoned, the words are its result

static std::mutex error_lock;
static std::string error_text;
const char* last_error() { return error_text.c_str(); }

// The compiler's tools come with an `addr2line`, which also knows what was inlined where.
std::string text_place(const std::vector<uintptr_t>& addresses) {
  Dl_info here;
  if (addresses.empty() || !dladdr((void*)text_place, &here)) return "";
  char word[64];
  std::string command = "addr2line -i -e '" + std::string(here.dli_fname) + "'";
  for (auto a : addresses) {
    if (a < (uintptr_t)here.dli_fbase) continue;
    snprintf(word, sizeof word, " 0x%zx", (size_t)(a - (uintptr_t)here.dli_fbase - 1));
    command += word;
  }
  std::string found, first;
  if (FILE* f = popen((command + " 2>/dev/null").c_str(), "r")) {
    char line[4096];
    while (fgets(line, sizeof line, f)) {
      std::string s = line;
      s = s.substr(0, s.find_first_of(" \n"));
      s = s.substr(s.rfind('/') == std::string::npos ? 0 : s.rfind('/') + 1);
      if (first.empty() && s.find(".cuh:") != std::string::npos) first = s;
      if (found.empty() && s.find(".cu:") != std::string::npos) found = s;
    }
    pclose(f);
  }
  if (found.empty()) found = first;
  if (found.empty()) {
    snprintf(word, sizeof word, "+0x%zx", (size_t)(addresses[0] - (uintptr_t)here.dli_fbase));
    found = word;
  }
  return found;
}

std::string thread_name(Fiber* f) {
  char s[160];
  int n = snprintf(s, sizeof s, "thread %u", f->lin);
  if (f->bdim.y > 1 || f->bdim.z > 1) n += snprintf(s + n, sizeof s - n, " (%u,%u,%u)", f->tid.x, f->tid.y, f->tid.z);
  snprintf(s + n, sizeof s - n, " of block (%u,%u,%u)", f->bidx.x, f->bidx.y, f->bidx.z);
  return s;
}

static void report(Worker* w, const std::string& text) {
  std::lock_guard<std::mutex> l(error_lock);
  if (error_text.empty()) error_text = text;
  w->failed = true;
}

void fail(const char* format, ...) {
  char text[1024];
  va_list a;
  va_start(a, format);
  vsnprintf(text, sizeof text, format, a);
  va_end(a);
  Fiber* f = self();
  Worker* w = f->block->worker;
  std::string at = text_place(frames_of(f, true));
  // At a thread's end no line of the kernel is left on the stack.
  if (at.empty() || at[0] == '+') at = f->block->issued ? text_place({f->block->issued}) : "its end";
  report(w, std::string(text) + " [" + thread_name(f) + " at " + at + "]");
  leave_to_main(w);
  __builtin_unreachable();
}

static std::string waits(Fiber* f) { return thread_name(f) + " waits in " + (f->where ? f->where : "?") + " at " + text_place(frames_of(f, false)); }

static void deadlock(Worker* w) {
  unsigned done = 0, blocked = 0;
  std::string text;
  std::vector<std::string> seen;
  for (Block* b : w->blocks) {
    for (unsigned i = 0; i < b->threads; i++) {
      Fiber* f = &b->fibers[i];
      if (f->done) { done++; continue; }
      blocked++;
      // One of each kind is told.
      std::string kind = std::string(f->where ? f->where : "?") + (f->site ? f->site : "") + std::to_string(f->lin / 32);
      bool known = false;
      for (auto& s : seen) known |= s == kind;
      if (!known && seen.size() < 4) {
        seen.push_back(kind);
        // The current fiber's saved stack pointer is old, but its frames are found from here.
        text += "; " + (f == w->current ? thread_name(f) + " waits in " + (f->where ? f->where : "?") + " at " + text_place(frames_of(f, true)) : waits(f));
      }
    }
    text += open_mbarriers(b);
  }
  report(w, "deadlock: " + std::to_string(done) + " threads have ended, " + std::to_string(blocked) + " wait for ever" + text);
  leave_to_main(w);
}

// ---- who is next

void make_runnable(Block* b, unsigned warp, uint32_t lanes) {
  if (!lanes) return;
  b->run[warp] |= lanes;
  b->runnable |= 1u << b->position[warp];
}
void make_runnable(Fiber* f) { make_runnable(f->block, f->warp, 1u << f->lane); }
void progress(Worker* w) { w->idle = 0; }

static bool land_one(Worker* w) {
  if (w->landing.empty()) return false;
  // By the seed, copies overtake each other.
  size_t i = seeded() ? w->draw() % w->landing.size() : 0;
  auto f = std::move(w->landing[i]);
  w->landing.erase(w->landing.begin() + i);
  f();
  w->idle = 0;
  return true;
}

static Fiber* runnable_of(Block* b) {
  if (!b->runnable) return nullptr;
  unsigned warp = b->priority[__builtin_ctz(b->runnable)];
  uint32_t lanes = b->run[warp];
  unsigned lane = settings.order == 1 ? 31 - __builtin_clz(lanes) : __builtin_ctz(lanes);
  lanes &= ~(1u << lane);
  b->run[warp] = lanes;
  if (!lanes) b->runnable &= b->runnable - 1;
  return &b->fibers[warp * 32 + lane];
}
static Fiber* polling_of(Block* b) {
  for (unsigned k = 0; k < b->warps; k++) {
    unsigned warp = (b->turn + k) % b->warps;
    if (uint32_t lanes = b->poll[warp]) {
      unsigned lane = __builtin_ctz(lanes);
      b->poll[warp] &= lanes - 1;
      b->turn = warp + 1;
      return &b->fibers[warp * 32 + lane];
    }
  }
  return nullptr;
}
static Fiber* pick(Worker* w) {
  unsigned n = w->blocks.size();
  if (seeded()) {
    if (!w->landing.empty() && (w->draw() & 7) == 0) land_one(w);
    if (n > 1 && (w->draw() & 7) == 0) w->at = w->draw() % n;
    if ((w->draw() & 15) == 0)
      if (Fiber* f = polling_of(w->blocks[w->at])) { w->idle++; return f; }
  }
  for (;;) {
    for (unsigned k = 0; k < n; k++) {
      Block* b = w->blocks[(w->at + k) % n];
      if (Fiber* f = runnable_of(b)) { w->at = b->place; return f; }
    }
    if (!land_one(w)) break;
  }
  if (++w->idle > 64ull * w->live + 64) return nullptr;
  for (unsigned k = 1; k <= n; k++) {
    Block* b = w->blocks[(w->at + k) % n];
    if (Fiber* f = polling_of(b)) { w->at = b->place; return f; }
  }
  return nullptr;
}
void next_fiber() {
  Worker* w = self()->block->worker;
  Fiber* f = pick(w);
  if (!f) deadlock(w);
  switch_to(f);
}
void block_here(const char* what, const char* site) {
  Fiber* f = self();
  f->where = what;
  f->site = site;
  next_fiber();
}
void poll_again(const char* what) {
  Fiber* f = self();
  f->block->poll[f->warp] |= 1u << f->lane;
  block_here(what);
}
// By the seed, whoever did something that others wait for is put off.
void preempt() {
  if (seeded() && (self()->block->worker->draw() & 3) == 0) poll_again("nothing: it was put off");
}
// A poll of memory. What it waits for may also come from a block on another OS thread: only time tells.
void wait_for(const char* what) {
  Worker* w = self()->block->worker;
  static std::atomic<int64_t> patience{0};
  auto now = [] { return (int64_t)std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  if (w->polls++ == 0) patience = now() + 20;
  if ((w->polls & 1023) == 0) {
    std::this_thread::yield();
    if (now() > patience) fail("%s: waited 20 s for memory to change", what);
  }
  w->idle = 0;
  poll_again(what);
}

void exited(Fiber* f) {
  Block* b = f->block;
  Worker* w = b->worker;
  if (!b->copies[f->lin].open.empty() || !b->copies[f->lin].groups.empty()) fail("the thread ends with a cp.async that it has not waited for");
  for (auto& g : b->bulk[f->lin].groups)
    for (auto& s : g) if (!s.was_read) fail("the thread ends while its bulk store may still read shared memory: tma_wait_read<0>() is missing");
  if (!b->bulk[f->lin].open.empty()) fail("the thread ends with a bulk store without tma_commit()");
  for (auto& g : b->bulk[f->lin].groups) for (auto& s : g) if (!s.written) s.write();
  f->done = true;
  w->live--;
  w->idle = 0;
  if (--b->live == 0) {
    finish_copies(b);
    finish_products(b);
  }
  leave_barriers(f);
  if (w->live == 0) leave_to_main(w);
  f->where = "its end";
  next_fiber();
}

// ---- launches

static void prepare(Worker* w, Block* b, uint3 index, dim3 dims, uint3 grid, unsigned place) {
  b->index = index;
  b->threads = b->live = dims.x * dims.y * dims.z;
  b->warps = (b->threads + 31) / 32;
  b->place = place;
  b->fibers = w->fibers + place * b->threads;
  memset(b->shared, 0xff, w->shared_bytes);  // NaN as f32, bf16 and e4m3
  b->runnable = b->turn = 0;
  b->issued = 0;
  b->mbarriers.clear();
  for (auto& g : b->group) g.arrived = 0, g.registers = 0;
  for (auto& x : b->barrier) x.arrived = x.expected = 0, x.votes = 0, x.members.clear(), x.waiting.clear();
  for (auto& p : b->products) p.open.clear(), p.groups.clear(), p.results.clear(), p.fenced = false;
  for (unsigned k = 0; k < b->warps; k++) {
    unsigned lanes = b->threads - k * 32;
    b->warp[k].live = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    for (auto& c : b->warp[k].open) c.arrived = 0;
    b->run[k] = b->poll[k] = 0;
    b->priority[k] = settings.order == 1 ? b->warps - 1 - k : k;
  }
  if (seeded()) for (unsigned k = b->warps; k > 1; k--) std::swap(b->priority[k - 1], b->priority[w->draw() % k]);
  for (unsigned k = 0; k < b->warps; k++) b->position[b->priority[k]] = k;
  for (unsigned i = 0; i < b->threads; i++) {
    Fiber* f = &b->fibers[i];
    f->block = b;
    f->tid = {i % dims.x, i / dims.x % dims.y, i / (dims.x * dims.y)};
    f->bidx = index;
    f->bdim = {dims.x, dims.y, dims.z};
    f->gdim = grid;
    f->lin = i, f->lane = i & 31, f->warp = i >> 5, f->id = place * b->threads + i;
    f->done = false;
    f->where = "start", f->site = nullptr;
    b->copies[i].open.clear(), b->copies[i].groups.clear();
    b->bulk[i].open.clear(), b->bulk[i].groups.clear();
    start_fiber(f);
    make_runnable(f);
  }
}

static Block* new_block(Worker* w) {
  Block* b = new Block();
  b->worker = w;
  // Pages that nobody touches cost nothing; a gap of the same size stands between blocks.
  void* at = mmap(nullptr, 2 * WINDOW, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) { delete b; return nullptr; }
  b->shared = (unsigned char*)(((uintptr_t)at + 1023) & ~(uintptr_t)1023);
  return b;
}
static std::mutex spare_lock;
static std::vector<Worker*> spare;

int launch(dim3 grid, dim3 dims, unsigned shared, Call call) {
  error_text.clear();
  unsigned threads = dims.x * dims.y * dims.z;
  const unsigned* c = settings.cluster;
  unsigned in_cluster = c[0] * c[1] * c[2];
  uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
  auto refuse = [](const std::string& s) { error_text = s; return 1; };
  if (!threads || threads > MAX_THREADS) return refuse("a block of " + std::to_string(threads) + " threads: 1 to 1,024 are possible");
  if (shared > MAX_SHARED) return refuse(std::to_string(shared) + " bytes of dynamic shared memory: 232,448 are possible");
  if (!in_cluster || in_cluster > 16 || grid.x % c[0] || grid.y % c[1] || grid.z % c[2]) return refuse("the grid is not made of whole clusters of at most 16 blocks");
  if (settings.cooperative && blocks > MAX_BLOCKS) return refuse("a cooperative grid of " + std::to_string(blocks) + " blocks: they cannot all run at once");
  unsigned in_set = settings.cooperative ? (unsigned)blocks : in_cluster;
  uint64_t sets = blocks / in_set;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> failed{false};
  auto work = [&] {
    Worker* w = nullptr;
    {
      std::lock_guard<std::mutex> l(spare_lock);
      if (!spare.empty()) w = spare.back(), spare.pop_back();
    }
    if (!w) w = new Worker();
    statics_of(w);
    w->call = call;
    w->shared_bytes = shared;
    w->failed = false;
    w->range_start = 1, w->range_end = 0;
    make_fibers(w, in_set * threads);
    while (w->blocks.size() < in_set)
      if (Block* b = new_block(w)) w->blocks.push_back(b);
      else break;
    std::vector<Block*> all = w->blocks;
    if (!w->stacks || all.size() < in_set) {
      report(w, "the emulator has no memory for " + std::to_string(in_set * threads) + " threads");
      failed = true;
    }
    w->blocks.assign(all.begin(), all.begin() + std::min<size_t>(in_set, all.size()));
    for (uint64_t i; !failed && (i = next++) < sets;) {
      w->random = (uint64_t)settings.order * 0x9E3779B97F4A7C15ull + i * 7919 + 1;
      w->live = in_set * threads;
      w->at = settings.order == 1 ? in_set - 1 : 0;
      w->idle = 0;
      w->polls = 0;
      w->landing.clear();
      w->in_place = nullptr;
      w->cluster_blocks = in_cluster;
      w->clusters.assign(in_set / in_cluster, {});
      w->cluster_phase.assign(w->live, 0);
      unsigned per_row = grid.x / c[0], per_plane = per_row * (grid.y / c[1]);
      for (unsigned k = 0; k < in_set; k++) {
        Block* b = w->blocks[k];
        uint64_t cluster = i * (in_set / in_cluster) + k / in_cluster;
        unsigned rank = k % in_cluster;
        uint3 index = {(unsigned)(cluster % per_row) * c[0] + rank % c[0], (unsigned)(cluster / per_row % (grid.y / c[1])) * c[1] + rank / c[0] % c[1],
                       (unsigned)(cluster / per_plane) * c[2] + rank / (c[0] * c[1])};
        b->first = k - rank, b->size = in_cluster, b->rank = rank;
        if (in_set > 1) {
          b->statics = (unsigned char*)realloc(b->statics, w->statics_bytes + 1);
          memset(b->statics, 0xff, w->statics_bytes);
        } else {
          free(b->statics);
          b->statics = nullptr;
        }
        prepare(w, b, index, dims, {grid.x, grid.y, grid.z}, k);
      }
      if (in_set == 1) memset(w->statics, 0xff, w->statics_bytes);
      begin_clocks(w);
      Fiber* first = pick(w);
      put_in_place(first->block);
      enter(w, first);
      if (w->failed) failed = true;
    }
    w->blocks = all;
    std::lock_guard<std::mutex> l(spare_lock);
    spare.push_back(w);
  };
  int workers = settings.threads ? settings.threads : (int)std::thread::hardware_concurrency();
  if (workers < 1) workers = 1;
  if ((uint64_t)workers > sets) workers = (int)sets;
  if (workers <= 1) work();
  else {
    std::vector<std::thread> v;
    for (int t = 0; t < workers; t++) v.emplace_back(work);
    for (auto& t : v) t.join();
  }
  return failed ? 2 : 0;
}
}  // namespace cuemu

extern "C" void cuemu_config(const cuemu::Settings* s) { cuemu::settings = *s; }
extern "C" const char* cuemu_error() { return cuemu::last_error(); }
