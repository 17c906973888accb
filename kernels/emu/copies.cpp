// copies.cpp: copies that run beside the threads. cp.async lands between its issue and its wait, TMA loads between issue
// and the end of their mbarrier's phase, stores between issue and `tma_wait`.
#include "machine.h"
#include <memory>

namespace cuemu {
void aligned(const void* p, size_t bytes, const char* what) {
  if ((uintptr_t)p & (bytes - 1)) fail("%s of %zu bytes at an address that is not a multiple of it", what, bytes);
}

// ---- cp.async

void cp_async(void* to, const void* from, int bytes, int valid) {
  CUEMU_ISSUED();
  Fiber* f = self();
  if (((uintptr_t)to | (uintptr_t)from) & (bytes - 1)) fail("cp.async of %d bytes: both sides must be aligned to it", bytes);
  if (valid < 0 || valid > bytes) fail("cp.async of %d bytes with %d valid ones", bytes, valid);
  check_shared(to, bytes, "cp.async");
  if (valid) check_global(from, valid, "cp.async");
  touch(to, bytes, Write, (uintptr_t)__builtin_return_address(0));
  if (eager(f->block->worker)) {
    memcpy(to, from, valid);
    memset((char*)to + valid, 0, bytes - valid);
    // It still counts: it could have been late.
    f->block->copies[f->lin].open.push_back({nullptr, nullptr, 0, 0});
    return;
  }
  f->block->copies[f->lin].open.push_back({to, from, bytes, valid});
}
static void run(const std::vector<AsyncCopy>& group) {
  for (auto& c : group) {
    if (!c.to) continue;
    memcpy(c.to, c.from, c.valid);
    memset((char*)c.to + c.valid, 0, c.bytes - c.valid);
  }
}
void cp_async_commit() {
  Fiber* f = self();
  auto& q = f->block->copies[f->lin];
  q.groups.push_back(std::move(q.open));
  q.open.clear();
}
void cp_async_wait(int left) {
  Fiber* f = self();
  auto& q = f->block->copies[f->lin];
  while (q.groups.size() > (size_t)left) {
    run(q.groups.front());
    q.groups.pop_front();
  }
}
void cp_async_arrive(uint64_t* bar) {
  Fiber* f = self();
  auto& q = f->block->copies[f->lin];
  for (auto& g : q.groups) run(g);
  q.groups.clear();
  run(q.open);
  q.open.clear();
  mbar_arrive(bar, 0, 1);
}

// ---- tensor maps: what `cuemu_tensor_map` leaves in the 128 bytes

struct Map {
  unsigned char* base;
  uint64_t strides[4];
  uint32_t sizes[5];
  uint16_t box[5];
  uint8_t rank, element, swizzle, mark;
  uint8_t kind;  // 0 integer or bytes, 1 f32, 2 bf16, 3 f16: for reductions
};
static_assert(sizeof(Map) <= 128, "");
constexpr uint8_t MAP = 0x5a;

static uint32_t swizzled(uint32_t at, uint32_t swizzle) {
  return swizzle == 128 ? at ^ (at >> 3 & 0x70) : swizzle == 64 ? at ^ (at >> 3 & 0x30) : swizzle == 32 ? at ^ (at >> 3 & 0x10) : at;
}
static Map map_of(int rank, const TensorMap* map, const void* tile, const char* what) {
  Map m;
  memcpy((void*)&m, map, sizeof m);
  if (m.mark != MAP) fail("%s: not a tensor map", what);
  if (m.rank != rank) fail("%s in %d dimensions with a map of %d", what, rank, m.rank);
  uint32_t unit = m.swizzle ? m.swizzle * 8 : 128;
  if (shared_address(tile) & (unit - 1)) fail("%s: the tile at %u of shared memory is not aligned to %u bytes", what, shared_address(tile), unit);
  return m;
}
static uint32_t bytes_of(const Map& m) {
  uint32_t n = m.element;
  for (int i = 0; i < m.rank; i++) n *= m.box[i];
  return n;
}
// Calls f(bytes before these in the tile, how many, their address or null outside the array), by pieces of at
// most 16 bytes, which a swizzle leaves together.
template <class F> static void each(const Map& m, const Coordinates& c, F f) {
  uint32_t row = m.box[0] * m.element, rows = bytes_of(m) / row;
  uint32_t at[5] = {};
  for (uint32_t r = 0; r < rows; r++) {
    unsigned char* p = m.base;
    bool inside = true;
    for (int d = 1; d < m.rank; d++) {
      int64_t k = (int64_t)c.at[d] + at[d];
      if (k < 0 || k >= m.sizes[d]) inside = false;
      else p += k * m.strides[d - 1];
    }
    for (uint32_t i = 0; i < row;) {
      int64_t x = (int64_t)c.at[0] + i / m.element;
      uint32_t n = std::min(16 - i % 16, row - i);
      bool in = inside && x >= 0 && x + n / m.element <= m.sizes[0];
      if (!in && inside && x + n / m.element > 0 && x < m.sizes[0]) {  // a piece on the edge
        n = m.element;
        in = x >= 0 && x < m.sizes[0];
      }
      f(r * row + i, n, in ? p + x * m.element : nullptr);
      i += n;
    }
    for (int d = 1; d < m.rank && ++at[d] == m.box[d]; d++) at[d] = 0;
  }
}

// ---- loads

static int agent_of(uint32_t bar_at) { return AgentCopies + (bar_at >> 3 & 7); }

static void later(Worker* w, std::function<void()> f) {
  if (eager(w)) f();
  else w->landing.push_back(std::move(f));
}

void bulk_load(void* to, const void* from, uint32_t bytes, uint64_t* bar) {
  CUEMU_ISSUED();
  Fiber* f = self();
  if (bytes % 16 || ((uintptr_t)to | (uintptr_t)from) & 15) fail("tma_load_1d: both sides and the size must be multiples of 16");
  check_shared(to, bytes, "tma_load_1d");
  check_global(from, bytes, "tma_load_1d");
  mbar_shown(bar, "tma_load_1d");
  Block* b = f->block;
  uint32_t at = shared_address(to), bar_at = shared_address(bar);
  int agent = agent_of(bar_at);
  uint32_t number = agent_begin(f, agent);
  agent_touch(f, to, bytes, Write, agent, "tma_load_1d");
  later(b->worker, [=] {
    memcpy(resolve(b, at), from, bytes);
    uint64_t* here = (uint64_t*)resolve(b, bar_at);
    agent_done(b, agent, number, b, bar_at);
    land(b, here, bytes);
  });
}

void tma_load(int rank, void* to, const TensorMap* map, uint64_t* bar, Coordinates at, uint16_t mask) {
  CUEMU_ISSUED();
  Fiber* f = self();
  Block* b = f->block;
  Map m = map_of(rank, map, to, "TMA load");
  uint32_t bytes = bytes_of(m);
  check_shared(to, bytes, "TMA load");
  mbar_shown(bar, "TMA load");
  uint32_t to_at = shared_address(to), bar_at = shared_address(bar);
  int agent = agent_of(bar_at);
  uint32_t number = agent_begin(f, agent);
  if (mask >> b->size) fail("TMA multicast to %x: the cluster has %u blocks", mask, b->size);
  for (unsigned rank = 0; rank < b->size; rank++) {
    if (mask ? !(mask >> rank & 1) : rank != b->rank) continue;
    Block* target = b->worker->blocks[b->first + rank];
    agent_touch(f, resolve(target, to_at), bytes, Write, agent, "TMA load");
    later(b->worker, [=] {
      if (target->live == 0) fail("a TMA multicast lands in a block that has ended");
      each(m, at, [&](uint32_t i, uint32_t n, unsigned char* p) {
        unsigned char* q = resolve(target, swizzled(to_at + i, m.swizzle));
        if (p) memcpy(q, p, n);
        else memset(q, 0, n);
      });
      agent_done(b, agent, number, target, bar_at);
      land(target, (uint64_t*)resolve(target, bar_at), bytes);
    });
  }
}

// ---- stores and reductions

static float half(uint16_t h) {
  uint32_t e = h >> 10 & 31, m = h & 0x3ff;
  float v = e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1.f + m / 1024.f, (int)e - 15) : std::ldexp((float)m, -24);
  return h & 0x8000 ? -v : v;
}
static uint16_t to_half(float x) {
  uint16_t sign = __float_as_uint(x) >> 16 & 0x8000;
  float a = std::fabs(x);
  if (!(a == a)) return 0x7fff;
  if (a >= 65520.f) return sign | 0x7c00;
  if (a < 6.103515625e-05f) return sign | (uint16_t)std::nearbyint(a * 16777216.f);
  uint32_t u = __float_as_uint(a) + 0xfff + (__float_as_uint(a) >> 13 & 1);
  return sign | (uint16_t)((u >> 13) - (112 << 10));
}
static void add(unsigned char* to, const unsigned char* v, int element, int kind) {
  if (element == 4 && kind == 1) {
    float add;
    memcpy(&add, v, 4);
    atomicAdd((float*)to, add);
  } else if (element == 2) {
    // Two blocks may add to the same word.
    uint32_t* word = (uint32_t*)((uintptr_t)to & ~(uintptr_t)3);
    int shift = (uintptr_t)to & 2 ? 16 : 0;
    uint16_t x;
    memcpy(&x, v, 2);
    update(word, [&](uint32_t old) {
      uint16_t o = old >> shift, r;
      if (kind == 3) r = to_half(half(o) + half(x));
      else {
        uint32_t u = __float_as_uint(__uint_as_float((uint32_t)o << 16) + __uint_as_float((uint32_t)x << 16));
        r = (u + 0x7fff + (u >> 16 & 1)) >> 16;
      }
      return (old & ~(0xffffu << shift)) | (uint32_t)r << shift;
    });
  } else if (element == 4) {
    uint32_t x;
    memcpy(&x, v, 4);
    atomicAdd((uint32_t*)to, x);
  } else fail("TMA reduction of values of %d bytes", element);
}

static void store(uint32_t bytes, const void* from, std::function<void(const unsigned char*)> write) {
  Fiber* f = self();
  Block* b = f->block;
  int agent = AgentBulk + f->warp % 4;
  uint32_t number = agent_begin(f, agent);
  agent_touch(f, from, bytes, Read, agent, "a bulk store");
  auto tile = std::make_shared<std::vector<unsigned char>>(bytes);
  uint32_t at = shared_address(from);
  BulkStore s;
  s.number = number;
  s.read = [=] { memcpy(tile->data(), resolve(b, at), bytes); };
  s.write = [=] { write(tile->data()); };
  if (eager(b->worker)) s.read(), s.write(), s.written = true, s.read = [] {};
  b->bulk[f->lin].open.push_back(std::move(s));
}
void bulk_store(void* to, const void* from, uint32_t bytes, bool sum) {
  CUEMU_ISSUED();
  if (bytes % 16 || ((uintptr_t)to | (uintptr_t)from) & 15) fail("tma_store_1d: both sides and the size must be multiples of 16");
  check_shared(from, bytes, "tma_store_1d");
  check_global(to, bytes, "tma_store_1d");
  store(bytes, from, [=](const unsigned char* tile) {
    if (!sum) memcpy(to, tile, bytes);
    else for (uint32_t i = 0; i < bytes; i += 4) add((unsigned char*)to + i, tile + i, 4, 1);
  });
}
void tma_store(int rank, const TensorMap* map, const void* from, Coordinates at, bool sum) {
  CUEMU_ISSUED();
  Map m = map_of(rank, map, from, "TMA store");
  uint32_t bytes = bytes_of(m);
  check_shared(from, bytes, "TMA store");
  // The swizzle works on addresses; the tile is aligned, so offsets do.
  store(bytes, from, [=](const unsigned char* tile) {
    each(m, at, [&](uint32_t i, uint32_t n, unsigned char* p) {
      const unsigned char* v = tile + swizzled(i, m.swizzle);
      if (!p) return;
      if (!sum) memcpy(p, v, n);
      else for (uint32_t k = 0; k < n; k += m.element) add(p + k, v + k, m.element, m.kind);
    });
  });
}
void bulk_commit() {
  Fiber* f = self();
  auto& q = f->block->bulk[f->lin];
  q.groups.push_back(std::move(q.open));
  q.open.clear();
}
void bulk_wait(int left, bool read) {
  Fiber* f = self();
  auto& q = f->block->bulk[f->lin];
  size_t done = q.groups.size() > (size_t)left ? q.groups.size() - left : 0;
  for (size_t i = 0; i < done; i++) {
    for (auto& s : q.groups[i]) {
      if (!s.was_read) s.read(), s.was_read = true;
      if (!read && !s.written) s.write(), s.written = true;
      agent_done(f, AgentBulk + f->warp % 4, s.number);
    }
  }
  if (!read) q.groups.erase(q.groups.begin(), q.groups.begin() + done);
}

// At the end of a block nothing may be on its way into its memory.
void finish_copies(Block* b) {
  Worker* w = b->worker;
  if (long bytes = announced_bytes(b)) fail("the block ends with %ld bytes announced to an mbarrier that never came (or came unannounced)", bytes);
  if (w->live == 0 && !w->landing.empty()) fail("the block ends while %zu TMA loads are on their way into its shared memory", w->landing.size());
}
}  // namespace cuemu

extern "C" void cuemu_tensor_map(void* out, void* base, uint32_t rank, const uint64_t* sizes, const uint64_t* strides, const uint32_t* box, uint32_t swizzle, uint32_t element, uint32_t kind) {
  cuemu::Map m{};
  m.base = (unsigned char*)base;
  m.rank = rank, m.element = element, m.swizzle = swizzle, m.mark = cuemu::MAP, m.kind = kind;
  for (uint32_t i = 0; i < rank; i++) {
    m.sizes[i] = (uint32_t)sizes[i], m.box[i] = (uint16_t)box[i];
    if (i) m.strides[i - 1] = strides[i - 1];
  }
  memcpy(out, &m, sizeof m);
}
