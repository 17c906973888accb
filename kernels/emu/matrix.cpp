// matrix.cpp: tensor cores. ldmatrix and mma.sync act when the warp's last lane arrives; wgmma is recorded at its issue and
// done at its wait, as late as the instruction set allows.
#include "machine.h"

namespace cuemu {
// ---- numbers

static float eight_bits(unsigned code, bool e4m3) {
  int bias = e4m3 ? 7 : 15, m = e4m3 ? 3 : 2;
  unsigned e = (code & 0x7f) >> m, f = code & ((1u << m) - 1);
  float v;
  if (e4m3 ? (code & 0x7f) == 0x7f : e == 31) v = e4m3 || f ? NAN : INFINITY;
  else v = e ? std::ldexp(1.f + (float)f / (1 << m), (int)e - bias) : std::ldexp((float)f / (1 << m), 1 - bias);
  return code & 0x80 ? -v : v;
}
struct Tables {
  float e4m3[256], e5m2[256];
  float f16[65536];
  Tables() {
    for (unsigned i = 0; i < 256; i++) e4m3[i] = eight_bits(i, true), e5m2[i] = eight_bits(i, false);
    for (unsigned h = 0; h < 65536; h++) {
      unsigned e = h >> 10 & 31, m = h & 0x3ff;
      float v = e == 31 ? (m ? NAN : INFINITY) : e ? std::ldexp(1.f + m / 1024.f, (int)e - 15) : std::ldexp((float)m, -24);
      f16[h] = h & 0x8000 ? -v : v;
    }
  }
};
static const Tables tables;
static int size_of(Format f) { return f == FormatE4M3 || f == FormatE5M2 || f == FormatS8 ? 1 : f == FormatTf32 ? 4 : 2; }
static float value(Format f, const void* p) {
  uint16_t h = 0;
  uint8_t b = 0;
  uint32_t u = 0;
  switch (f) {
    case FormatBf16: memcpy(&h, p, 2); return __uint_as_float((uint32_t)h << 16);
    case FormatF16: memcpy(&h, p, 2); return tables.f16[h];
    case FormatE4M3: memcpy(&b, p, 1); return tables.e4m3[b];
    case FormatE5M2: memcpy(&b, p, 1); return tables.e5m2[b];
    case FormatTf32: memcpy(&u, p, 4); return __uint_as_float(u & 0xffffe000u);
    case FormatS8: memcpy(&b, p, 1); return (float)(signed char)b;
  }
  return 0;
}

// ---- ldmatrix, stmatrix

struct Move { uintptr_t row; uint32_t* r; int count; bool transposed; uintptr_t site; };
static uint16_t& cell(uint16_t (&m)[8][8], int lane, int e, bool transposed) {
  int i = lane / 4, j = lane % 4 * 2 + e;
  return transposed ? m[j][i] : m[i][j];
}
template <bool STORE> static void move(void** a, uint32_t mask) {
  const char* what = STORE ? "stmatrix" : "ldmatrix";
  if (mask != ~0u) fail("%s by a part of a warp", what);
  Move* first = (Move*)a[0];
  for (int k = 0; k < first->count; k++) {
    uint16_t m[8][8];
    for (int i = 0; i < 8; i++) {
      Move* of = (Move*)a[k * 8 + i];
      if (of->row & 15) fail("%s: row %d of matrix %d is not aligned to 16 bytes", what, i, k);
      check_shared((void*)of->row, 16, what);
      if (!STORE) memcpy(m[i], (void*)of->row, 16);
    }
    for (int l = 0; l < 32; l++) {
      Move* x = (Move*)a[l];
      for (int e = 0; e < 2; e++) {
        uint16_t& c = cell(m, l, e, x->transposed);
        if (STORE) c = x->r[k] >> 16 * e;
        else if (e == 0) x->r[k] = c;
        else x->r[k] |= (uint32_t)c << 16;
      }
    }
    if (STORE) for (int i = 0; i < 8; i++) memcpy((void*)((Move*)a[k * 8 + i])->row, m[i], 16);
  }
}
void ldmatrix(uint32_t* r, int count, bool transposed, const void* row) {
  uintptr_t site = (uintptr_t)__builtin_return_address(0);
  Move x{(uintptr_t)row, r, count, transposed, site};
  if ((int)self()->lane < count * 8 && is_shared(row)) touch(row, 16, Read, site);
  warp_collective(~0u, count == 4 ? "ldmatrix.x4" : count == 2 ? "ldmatrix.x2" : "ldmatrix.x1", &x, move<false>);
}
void stmatrix(void* row, const uint32_t* r, int count, bool transposed) {
  uintptr_t site = (uintptr_t)__builtin_return_address(0);
  Move x{(uintptr_t)row, (uint32_t*)r, count, transposed, site};
  if ((int)self()->lane < count * 8 && is_shared(row)) touch(row, 16, Write, site);
  warp_collective(~0u, count == 4 ? "stmatrix.x4" : "stmatrix.x2", &x, move<true>);
}

// ---- mma.sync

struct Fragments { Mma kind; void* c; const uint32_t* a; uint32_t b[2]; };
static void multiply(void** p, uint32_t mask) {
  if (mask != ~0u) fail("mma.sync by a part of a warp");
  Mma kind = ((Fragments*)p[0])->kind;
  static const Format formats[][2] = {{FormatBf16, FormatBf16}, {FormatF16, FormatF16}, {FormatTf32, FormatTf32}, {FormatS8, FormatS8},
                                      {FormatE4M3, FormatE4M3}, {FormatE4M3, FormatE5M2}, {FormatE5M2, FormatE4M3}, {FormatE5M2, FormatE5M2}};
  Format fa = formats[kind][0], fb = formats[kind][1];
  int per = 4 / size_of(fa), half = 4 * per;  // values in a register; values of K that four lanes have
  float A[16][32], B[32][8], C[16][8] = {};
  for (int l = 0; l < 32; l++) {
    Fragments* x = (Fragments*)p[l];
    int g = l / 4, t = l % 4 * per;
    for (int e = 0; e < per; e++) {
      int byte = e * size_of(fa);
      for (int h = 0; h < 4; h++) A[g + (h & 1) * 8][t + (h >> 1) * half + e] = value(fa, (const char*)&x->a[h] + byte);
      for (int h = 0; h < 2; h++) B[t + h * half + e][g] = value(fb, (const char*)&x->b[h] + byte);
    }
  }
  // Sums of 32 products of eight-bit integers are exact in a float.
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < 2 * half; k++)
      for (int j = 0; j < 8; j++) C[i][j] += A[i][k] * B[k][j];
  for (int l = 0; l < 32; l++) {
    Fragments* x = (Fragments*)p[l];
    int g = l / 4, t = l % 4 * 2;
    for (int e = 0; e < 4; e++) {
      float v = C[g + (e >> 1) * 8][t + (e & 1)];
      if (kind == MmaS8) ((int*)x->c)[e] += (int)v;
      else ((float*)x->c)[e] += v;
    }
  }
}
void mma(Mma kind, void* c, const uint32_t* a, uint32_t b0, uint32_t b1) {
  Fragments x{kind, c, a, {b0, b1}};
  static const char* names[] = {"mma bf16", "mma f16", "mma tf32", "mma s8", "mma e4m3", "mma e4m3 e5m2", "mma e5m2 e4m3", "mma e5m2"};
  warp_collective(~0u, names[kind], &x, multiply);
}

// ---- wgmma: operands behind descriptors (layouts: wgmma.cuh)

static uint32_t swizzled(uint32_t at, uint32_t s) {
  return s == 128 ? at ^ (at >> 3 & 0x70) : s == 64 ? at ^ (at >> 3 & 0x30) : s == 32 ? at ^ (at >> 3 & 0x10) : at;
}
// The address of value `k` of row (or column) `r` of an operand.
static uint32_t place(uint64_t desc, Format f, bool mn_major, int r, int k) {
  uint32_t start = (uint32_t)(desc & 0x3fff) << 4, leading = (uint32_t)(desc >> 16 & 0x3fff) << 4, stride = (uint32_t)(desc >> 32 & 0x3fff) << 4;
  uint32_t mode = desc >> 62, row = mode == 1 ? 128 : mode == 2 ? 64 : mode == 3 ? 32 : 16;
  uint32_t at, size = size_of(f);
  if (!mn_major) {
    uint32_t byte = k * size;
    at = start + r / 8 * stride + r % 8 * row + (mode ? byte : byte / 16 * leading + byte % 16);
  } else {
    uint32_t byte = r * size;
    at = mode ? start + byte / row * leading + byte % row + k / 8 * stride + k % 8 * row
              : start + byte / 16 * stride + byte % 16 + k / 8 * leading + k % 8 * 16;
  }
  return swizzled(at, mode ? row : 0);
}
void descriptor_address(const void* p, int swizzle) {
  uint32_t at = shared_address(p);
  if (at >= WINDOW) fail("wgmma: operands must lie in dynamic shared memory");
  if (at & 15) fail("wgmma: the operand at %u of shared memory is not aligned to 16 bytes", at);
  // A start inside the first of its eight rows is how K goes on.
  if (swizzle && (at & (swizzle * 8 - 1)) >= (uint32_t)swizzle) fail("wgmma: the operand at %u does not begin in the first row of a %d-byte swizzle", at, swizzle);
}

struct Issue { WgmmaShape shape; float* d; uint64_t a; const uint32_t* registers; uint64_t b; int scale_d; };
constexpr uint32_t UNTOUCHED = 0x7fc0beef;  // a NaN: what accumulators hold while a product is in flight

static ProductQueue& products_of(Fiber* f) { return f->block->products[f->lin / 128]; }

static void run(Block* b, Product& p) {
  int n = p.shape.n, k_size = 32 / size_of(p.shape.a);
  std::vector<float> A(64 * 32), B(32 * 256), C(64 * 256);
  for (int k = 0; k < k_size; k++) {
    for (int r = 0; r < 64; r++) {
      if (p.a_in_registers) {
        int per = 4 / size_of(p.shape.a), half = 4 * per;
        int lane = r % 8 * 4 + k % half / per, h = r % 16 / 8 + k / half * 2;
        A[r * 32 + k] = value(p.shape.a, (const char*)&p.a_values[(r / 16 * 32 + lane) * 4 + h] + k % per * size_of(p.shape.a));
      } else A[r * 32 + k] = value(p.shape.a, b->shared + place(p.a, p.shape.a, p.shape.mn_a, r, k));
    }
    for (int c = 0; c < n; c++) B[k * 256 + c] = value(p.shape.b, b->shared + place(p.b, p.shape.b, p.shape.mn_b, c, k));
  }
  for (int i = 0; i < 64; i++)
    for (int k = 0; k < k_size; k++) {
      float a = A[i * 32 + k];
      for (int j = 0; j < n; j++) C[i * 256 + j] += a * B[k * 256 + j];
    }
  for (int t = 0; t < 128; t++) {
    float* d = p.d[t];
    if (p.first) {
      for (int i = 0; i < n / 2; i++) {
        uint32_t u;
        memcpy(&u, &d[i], 4);
        if (u != UNTOUCHED) fail("thread %d of the warpgroup touched its accumulators between wgmma and wgmma_wait", t);
      }
      memcpy(d, &p.d_values[t * (n / 2)], n / 2 * 4);
    }
    int row = t / 32 * 16 + t % 32 / 4, column = t % 4 * 2;
    for (int i = 0; i < n / 2; i++) {
      float c = C[(row + (i >> 1 & 1) * 8) * 256 + i / 4 * 8 + column + (i & 1)];
      d[i] = (p.scale_d ? d[i] : 0.f) + c;
    }
  }
}

static bool in_flight(ProductQueue& q, float* d) {
  for (auto& p : q.open) if (p.d[0] == d) return true;
  for (auto& g : q.groups) for (auto& p : g) if (p.d[0] == d) return true;
  return false;
}

static void issue(void** args) {
  Fiber* f = self();
  Block* b = f->block;
  ProductQueue& q = products_of(f);
  Issue* one = (Issue*)args[0];
  Product p;
  p.shape = one->shape, p.a = one->a, p.b = one->b, p.scale_d = one->scale_d;
  p.a_in_registers = one->registers != nullptr;
  int half = p.shape.n / 2;
  p.first = !in_flight(q, one->d);
  for (int t = 0; t < 128; t++) {
    Issue* x = (Issue*)args[t];
    if (x->b != p.b || x->a != p.a || !!x->scale_d != !!p.scale_d || x->shape.n != p.shape.n) fail("wgmma: descriptors, scale or shape differ inside the warpgroup (thread %d)", t);
    p.d[t] = x->d;
    if (p.a_in_registers) p.a_values.insert(p.a_values.end(), x->registers, x->registers + 4);
  }
  if (!q.fenced) {
    auto last = q.results.find(p.d[0]);
    bool same = last != q.results.end() && last->second.size() == (size_t)half * 128 && !p.a_in_registers;
    for (int t = 0; same && p.first && t < 128; t++) same = memcmp(p.d[t], &last->second[t * half], half * 4) == 0;
    if (!same && p.first) fail("wgmma without wgmma_fence() after its registers were written");
  }
  // The operands must be complete for the warpgroup, and stay until it knows that the product is done.
  Fiber* leader = &b->fibers[f->lin / 128 * 128];
  int agent = AgentProducts + f->lin / 128;
  int k_size = 32 / size_of(p.shape.a);
  p.number = agent_begin(leader, agent);
  auto operand = [&](uint64_t desc, Format format, bool mn, int rows, const char* what) {
    uint32_t start = (uint32_t)(desc & 0x3fff) << 4, mode = desc >> 62, row = mode == 1 ? 128 : mode == 2 ? 64 : 32;
    if (mode && start % (row * 8) >= row) fail("wgmma: %s at %u does not begin in the first row of a %u-byte swizzle", what, start, row);
    int step = 16 / size_of(format);  // values that lie together
    for (int r = 0; r < rows; r += mn ? step : 1)
      for (int k = 0; k < k_size; k += mn ? 1 : step) {
        uint32_t at = place(desc, format, mn, r, k);
        if (at + 16 > b->worker->shared_bytes) fail("wgmma: %s reads byte %u of shared memory, which has %u", what, at, b->worker->shared_bytes);
        agent_touch(leader, b->shared + at, 16, Read, agent, what);
      }
  };
  if (!p.a_in_registers) operand(p.a, p.shape.a, p.shape.mn_a, 64, "operand A");
  operand(p.b, p.shape.b, p.shape.mn_b, p.shape.n, "operand B");
  if (p.first) {
    p.d_values.resize((size_t)half * 128);
    for (int t = 0; t < 128; t++) {
      memcpy(&p.d_values[t * half], p.d[t], half * 4);
      for (int i = 0; i < half; i++) memcpy(&p.d[t][i], &UNTOUCHED, 4);
    }
  }
  q.open.push_back(std::move(p));
}
void wgmma(WgmmaShape shape, float* d, uint64_t a, const uint32_t* registers, uint64_t b, int scale_d) {
  CUEMU_ISSUED();
  Issue x{shape, d, a, registers, b, scale_d};
  group_collective("wgmma", &x, issue);
}
void wgmma_fence() {
  group_collective("wgmma_fence", nullptr, [](void**) { products_of(self()).fenced = true; });
}
void wgmma_commit() {
  group_collective("wgmma_commit", nullptr, [](void**) {
    auto& q = products_of(self());
    q.groups.push_back(std::move(q.open));
    q.open.clear();
  });
}
void wgmma_wait(int left) {
  group_collective("wgmma_wait", (void*)(uintptr_t)left, [](void** args) {
    Fiber* f = self();
    size_t left = (size_t)args[0];
    for (int t = 1; t < 128; t++) if ((size_t)args[t] != left) fail("wgmma_wait: threads of the warpgroup wait for different numbers");
    auto& q = products_of(f);
    if (q.groups.size() > left) q.fenced = false;
    uint32_t number = 0;
    while (q.groups.size() > left) {
      auto group = std::move(q.groups.front());
      q.groups.pop_front();
      for (auto& p : group) run(f->block, p);
      for (auto& p : group) {
        int half = p.shape.n / 2;
        number = p.number;
        auto& r = q.results[p.d[0]];
        r.resize((size_t)half * 128);
        for (int t = 0; t < 128; t++) memcpy(&r[t * half], p.d[t], half * 4);
      }
    }
    if (number)
      for (int t = 0; t < 128; t++) agent_done(&f->block->fibers[f->lin / 128 * 128 + t], AgentProducts + f->lin / 128, number);
  });
}

// A block begins with what its threads may have at most, by eights, and its warpgroups share that.
static int registers_of(Block* b) { return std::min(65536 / (int)b->threads / 8 * 8, 256); }
static void check_registers(Block* b) {
  int sum = 0, first = registers_of(b), groups = b->threads / 128;
  for (int g = 0; g < groups; g++) sum += b->group[g].registers ? b->group[g].registers : first;
  if (sum > first * groups) fail("setmaxnreg: the block waits for ever for %d registers, it has %d and nobody gives more back", sum * 128, first * groups * 128);
}
struct Registers { int count; bool less; };
void set_registers(int count, bool less) {
  Registers r{count, less};
  group_collective(less ? "setmaxnreg.dec" : "setmaxnreg.inc", &r, [](void** args) {
    Fiber* f = self();
    Block* b = f->block;
    Registers* r = (Registers*)args[0];
    int& own = b->group[f->lin / 128].registers;
    int first = registers_of(b), has = own ? own : first;
    if (r->less ? r->count > has : r->count < has) fail("setmaxnreg: %s %d registers a thread, it has %d", r->less ? "down to" : "up to", r->count, has);
    own = r->count;
    int sum = 0, groups = b->threads / 128;
    for (int g = 0; g < groups; g++) sum += b->group[g].registers;
    if (sum > first * groups) fail("setmaxnreg: the block's warpgroups ask for %d registers, the block has %d", sum * 128, first * groups * 128);
  });
}
void finish_products(Block* b) {
  for (auto& q : b->products)
    if (!q.open.empty() || !q.groups.empty()) fail("the block ends with a wgmma that it has not waited for");
  check_registers(b);
}
}  // namespace cuemu
