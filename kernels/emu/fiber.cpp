// fiber.cpp: stacks, the switch between them, and the `__shared__` variables that go with a block.
#include "machine.h"
#include <link.h>
#include <sys/mman.h>
#ifdef CUEMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// cuemu_switch(save, load): saves what a call must keep, and the stack pointer in *save; goes on with `load`.
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
constexpr int SAVED = 7, FRAME = 5, RETURN = 6;  // words, and where in them frame pointer and return address are
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
constexpr int SAVED = 20, FRAME = 10, RETURN = 11;
#else
#error "the emulator knows x86-64 and aarch64"
#endif
extern "C" void cuemu_switch(void** save, void* load);

namespace cuemu {
// A stack overflow eats the word at the stack's end first.
static void intact(Fiber* f) {
  if (*(Fiber**)f->stack != f) {
    *(Fiber**)f->stack = f;
    fail("stack overflow: a thread has %zu KiB for its local variables", STACK >> 10);
  }
}

static void entry() {
#ifdef CUEMU_ASAN
  Worker* w = self()->block->worker;
  __sanitizer_finish_switch_fiber(nullptr, w->switches == 1 ? &w->main_bottom : nullptr, w->switches == 1 ? &w->main_size : nullptr);
#endif
  Fiber* f = self();
  f->block->worker->call.kernel(f->block->worker->call.args);
  intact(f);
  exited(f);
  __builtin_unreachable();
}

void make_fibers(Worker* w, unsigned count) {
  if (w->stack_count >= count) return;
  if (w->stacks) {
    munmap(w->stacks, (w->stack_count + 1 + MARGIN) * STACK);
    delete[] w->fibers;
  }
  size_t bytes = (count + 1 + MARGIN) * STACK;
  char* at = (char*)mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    w->stacks = nullptr, w->fibers = nullptr, w->stack_count = 0;
    return;
  }
  w->stacks = at;
  w->stack_count = count;
  w->fibers = new Fiber[count]();
  char* aligned = (char*)(((uintptr_t)at + STACK - 1) & ~(STACK - 1));
  // Below the first stack, where it would overflow to, the first fiber is found too.
  for (unsigned i = 0; i < MARGIN; i++) *(Fiber**)(aligned + i * STACK) = &w->fibers[0];
  for (unsigned i = 0; i < count; i++) w->fibers[i].stack = aligned + (i + MARGIN) * STACK;
}

void start_fiber(Fiber* f) {
#ifdef CUEMU_ASAN
  __asan_unpoison_memory_region(f->stack, STACK);
#endif
  *(Fiber**)f->stack = f;
  // Colours: equal offsets in all stacks would share sets of the cache.
  void** sp = (void**)(f->stack + STACK - 64 - (f->lin * 320u & 0xfc0));
  *--sp = nullptr;  // on x86-64 the entry begins as after a call: 8 off 16
#if defined(__aarch64__)
  *--sp = nullptr;
#endif
  sp -= SAVED;
  memset(sp, 0, SAVED * sizeof *sp);
  sp[RETURN] = (void*)entry;
  f->sp = sp;
}

void enter(Worker* w, Fiber* first) {
  w->switches = 1;
  w->current = first;
#ifdef CUEMU_ASAN
  __sanitizer_start_switch_fiber(&w->main_asan, first->stack, STACK);
#endif
  cuemu_switch(&w->main_sp, first->sp);
#ifdef CUEMU_ASAN
  __sanitizer_finish_switch_fiber(w->main_asan, nullptr, nullptr);
#endif
  w->current = nullptr;
}

void switch_to(Fiber* next) {
  Worker* w = next->block->worker;
  Fiber* me = w->current;
  if (next == me) return;
  intact(me);
  if (w->in_place != next->block) put_in_place(next->block);
  w->current = next;
  w->switches++;
#ifdef CUEMU_ASAN
  __sanitizer_start_switch_fiber(me->done ? nullptr : &me->asan, next->stack, STACK);
#endif
  cuemu_switch(&me->sp, next->sp);
#ifdef CUEMU_ASAN
  __sanitizer_finish_switch_fiber(me->asan, nullptr, nullptr);
#endif
}

void leave_to_main(Worker* w) {
#ifdef CUEMU_ASAN
  __sanitizer_start_switch_fiber(nullptr, w->main_bottom, w->main_size);
#endif
  void* nowhere;
  cuemu_switch(&nowhere, w->main_sp);
}

// ---- `__shared__` variables: all thread-local storage of this library, which has no other

static thread_local char anchor;
uintptr_t library_start, library_end;

struct Found { uintptr_t inside; unsigned char* at; size_t bytes; };
static int find(struct dl_phdr_info* info, size_t, void* data) {
  Found* f = (Found*)data;
  bool ours = false;
  size_t bytes = 0;
  uintptr_t end = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    auto& p = info->dlpi_phdr[i];
    if (p.p_type == PT_LOAD && f->inside - (info->dlpi_addr + p.p_vaddr) < p.p_memsz) ours = true;
    if (p.p_type == PT_LOAD) end = std::max<uintptr_t>(end, info->dlpi_addr + p.p_vaddr + p.p_memsz);
    if (p.p_type == PT_TLS) bytes = p.p_memsz;
  }
  if (!ours) return 0;
  f->at = (unsigned char*)info->dlpi_tls_data;
  f->bytes = bytes;
  library_start = info->dlpi_addr, library_end = end;
  return 1;
}
void statics_of(Worker* w) {
  *(volatile char*)&anchor = 0;  // makes the thread have its copy
  Found f{(uintptr_t)(void*)find, nullptr, 0};
  dl_iterate_phdr(find, &f);
  w->statics = f.at;
  w->statics_bytes = f.at ? f.bytes : 0;
}
void put_in_place(Block* b) {
  Worker* w = b->worker;
  if (w->in_place && w->in_place->statics) memcpy(w->in_place->statics, w->statics, w->statics_bytes);
  if (b->statics) memcpy(w->statics, b->statics, w->statics_bytes);
  w->in_place = b;
}

// ---- where a fiber is: its return addresses, innermost first, by the chain of frames

std::vector<uintptr_t> frames_of(Fiber* f, bool running) {
  std::vector<uintptr_t> out;
  void** frame = running ? (void**)__builtin_frame_address(0) : (void**)((void**)f->sp)[FRAME];
  char *low = f->stack, *high = f->stack + STACK;
  while (out.size() < 24 && (char*)frame >= low && (char*)frame <= high - 16 && !((uintptr_t)frame & 7)) {
    if (frame[1]) out.push_back((uintptr_t)frame[1]);
    if ((char*)frame[0] <= (char*)frame) break;
    frame = (void**)frame[0];
  }
  return out;
}
}  // namespace cuemu
