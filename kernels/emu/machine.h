// machine.h: the parts of the emulated machine. A `Worker` (one OS thread) runs a set of blocks: a block alone, a
// cluster, or a whole cooperative grid.
#pragma once
#include "cuemu.h"
#include <deque>
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

#if defined(__SANITIZE_ADDRESS__)
#define CUEMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUEMU_ASAN 1
#endif
#endif

namespace cuemu {
constexpr unsigned MARGIN = 8;  // stacks' worth of room below the first
constexpr unsigned MAX_THREADS = 1024, MAX_SHARED = 227 << 10, WINDOW = 256 << 10;
constexpr unsigned MAX_BLOCKS = 132;  // in one set: a cooperative grid is at most one block a multiprocessor

// A whole-warp operation that some lanes have reached.
struct Collective {
  uint32_t mask = 0, arrived = 0;
  const char* op = nullptr;
  void (*run)(void**, uint32_t) = nullptr;
  void* args[32];
};
struct Warp {
  uint32_t live = 0;
  Collective open[8];
};
struct Group {  // a warpgroup
  int arrived = 0;
  const char* op = nullptr;
  void (*run)(void**) = nullptr;
  void* args[128];
  int registers = 0;
};
struct NamedBarrier {
  unsigned arrived = 0, expected = 0;
  int votes = 0, result = 0;
  const char* site = nullptr;
  std::vector<Fiber*> members, waiting;
};

// What has been copied by cp.async and not waited for, of one thread.
struct AsyncCopy { void* to; const void* from; int bytes, valid; };
struct CopyQueue {
  std::vector<AsyncCopy> open;
  std::deque<std::vector<AsyncCopy>> groups;
};

// A bulk store: `read` takes the tile out of shared memory, `write` lands it.
struct BulkStore {
  uint32_t number = 0;
  std::function<void()> read, write;
  bool was_read = false, written = false;
};
struct BulkQueue {
  std::vector<BulkStore> open;
  std::deque<std::vector<BulkStore>> groups;
};

// A warpgroup product that was issued and not waited for.
struct Product {
  WgmmaShape shape;
  uint64_t a, b;
  bool a_in_registers;
  uint32_t number;
  int scale_d;
  bool first;                       // of those in flight on these accumulators
  float* d[128];
  std::vector<uint32_t> a_values;   // [128][4]
  std::vector<float> d_values;      // [128][n / 2], what the accumulators held at the issue
};
struct ProductQueue {
  std::vector<Product> open;
  std::deque<std::vector<Product>> groups;
  bool fenced = false;
  std::unordered_map<float*, std::vector<float>> results;  // by thread 0's accumulators: what the last wait left
};

struct Clocks;  // memory.cpp: who has seen whose accesses

struct Block {
  struct Worker* worker;
  uint3 index;
  unsigned place;               // in the set
  unsigned first, size, rank;   // its cluster: first block in the set, blocks, own rank
  unsigned char* shared;        // dynamic shared memory, WINDOW bytes of addresses
  unsigned char* statics;       // the block's `__shared__` variables while another block's are in place
  unsigned threads, live, warps;
  Fiber* fibers;
  Warp warp[32];
  Group group[8];
  NamedBarrier barrier[16];
  uint32_t run[32], poll[32], runnable;  // lanes of each warp that can go on, that poll; warps with such lanes, by priority
  uint8_t priority[32], position[32];
  unsigned turn;
  std::vector<uint64_t*> mbarriers;
  uintptr_t issued;             // where the last asynchronous operation was asked for
  CopyQueue copies[MAX_THREADS];
  BulkQueue bulk[MAX_THREADS];
  ProductQueue products[8];
};
struct ClusterBarrier {
  unsigned arrived = 0, phase = 0;
};

struct Worker {
  std::vector<Block*> blocks;
  unsigned live = 0, cluster_blocks = 1;
  std::vector<ClusterBarrier> clusters;
  std::vector<uint8_t> cluster_phase;    // of each fiber
  Block* in_place = nullptr;             // whose `__shared__` variables are in place
  unsigned at = 0;                       // the block that runs
  Fiber* fibers = nullptr;
  char* stacks = nullptr;
  size_t stack_count = 0;
  unsigned char* statics = nullptr;      // this thread's `__shared__` variables
  size_t statics_bytes = 0;
  void* main_sp = nullptr;
  void* main_asan = nullptr;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
  Call call{};
  Fiber* current = nullptr;
  unsigned shared_bytes = 0;
  uint64_t random = 1, idle = 0, switches = 0;
  std::deque<std::function<void()>> landing;  // TMA loads in flight
  bool failed = false;
  Clocks* clocks = nullptr;
  uint64_t range_start = 1, range_end = 0;    // the buffer that was touched last
  unsigned polls = 0;

  uint32_t draw() {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    return random >> 33;
  }
};

// ---- settings of a launch
struct Range { uint64_t start, bytes; };
struct Settings {
  int threads = 0;
  int order = 0;  // 0 first thread first, 1 last first, more: a seed
  int check = 0;  // 1: accesses are checked for bounds, 2: and for races
  unsigned cluster[3] = {1, 1, 1};
  int cooperative = 0;
  const Range* ranges = nullptr;  // the device's buffers, in order
  size_t range_count = 0;
};
extern Settings settings;
static inline bool seeded() { return settings.order > 1; }
// Whether an asynchronous operation happens at its issue.
static inline bool eager(Worker* w) { return settings.order == 1 || (seeded() && (w->draw() >> 5 & 1)); }

extern uintptr_t library_start, library_end;  // this library in memory

// Keeps the place from which an asynchronous operation is asked for.
#define CUEMU_ISSUED() (self()->block->issued = (uintptr_t)__builtin_return_address(0))

// ---- fiber.cpp
void make_fibers(Worker* w, unsigned count);
void start_fiber(Fiber* f);
void enter(Worker* w, Fiber* first);
void switch_to(Fiber* next);
void leave_to_main(Worker* w);
void statics_of(Worker* w);
void put_in_place(Block* b);
std::vector<uintptr_t> frames_of(Fiber* f, bool running);  // return addresses, innermost first

// ---- scheduler.cpp
void block_here(const char* what, const char* site = nullptr);
void make_runnable(Fiber* f);
void make_runnable(Block* b, unsigned warp, uint32_t lanes);
void poll_again(const char* what);
void progress(Worker* w);
void preempt();
void next_fiber();
void exited(Fiber* f);
const char* last_error();
std::string text_place(const std::vector<uintptr_t>& addresses);  // "softmax.cu:17", the innermost that is a kernel's
std::string thread_name(Fiber* f);

// ---- barrier.cpp
void leave_barriers(Fiber* f);
void land(Block* b, uint64_t* bar, int64_t bytes);
void mbar_shown(uint64_t* bar, const char* what);  // an asynchronous unit, or another block, uses it
std::string open_mbarriers(Block* b);
long announced_bytes(Block* b);  // to mbarriers, and not come: 0 at the end of a right block

// ---- copies.cpp
void finish_copies(Block* b);

// ---- matrix.cpp
void finish_products(Block* b);

// ---- memory.cpp
enum Access { Read, Write, Atomic };
unsigned char* resolve(Block* b, uint32_t address);   // a cluster address, as memory
Block* owner(const void* p, uint32_t* offset);         // the block whose shared memory this is
bool is_shared(const void* p);
void check_global(const void* p, size_t bytes, const char* what);
void check_shared(const void* p, size_t bytes, const char* what);
void begin_clocks(Worker* w);
// Shared memory touched by the thread that runs.
void touch(const void* p, size_t bytes, Access kind, uintptr_t site);
static inline bool races() { return settings.check > 1; }
enum Agent { AgentCopies = 0, AgentBulk = 8, AgentProducts = 12, AGENTS = 20 };  // eight by mbarrier, four by warp, eight by warpgroup
// Work that `thread` gives a unit: it has a number of its own. What it touches must be settled for the thread, and is
// settled for those who learn that the unit has done this number.
uint32_t agent_begin(Fiber* thread, int agent);
void agent_touch(Fiber* thread, const void* p, size_t bytes, Access kind, int agent, const char* what);
void agent_done(Fiber* learner, int agent, uint32_t number);                     // of the learner's own block
void agent_done(Block* from, int agent, uint32_t number, Block* at, uint32_t bar);  // who waits for this barrier will learn
void learn_together(const std::vector<Fiber*>& members);   // a barrier of some threads
void learn_block(Block* b);                                 // of a block
void learn_cluster(Worker* w, unsigned cluster);
void give(Fiber* f, uint64_t* bar);
void take(Fiber* f, uint64_t* bar);
}  // namespace cuemu
