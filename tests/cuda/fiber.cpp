#include "tests/cuda/fiber.hpp"
#include "tests/cuda/emu.hpp"
#include "tests/cuda/sanitize.hpp"

#include <sys/mman.h>
#include <vector>

/* Callee-saved registers of x86-64; the rest is dead across a call. */
extern "C" void emu_switch_stacks(void **save, void *load);
asm(R"(
.text
.globl emu_switch_stacks
.type emu_switch_stacks, @function
emu_switch_stacks:
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
    ret
.size emu_switch_stacks, . - emu_switch_stacks
)");

/* A race is an error like any other the shim finds: the first one ends the program. */
extern "C" const char *__tsan_default_options();
extern "C" const char *__tsan_default_options()
{
    return "halt_on_error=1";
}

namespace emu
{

namespace
{

constexpr size_t page = 4096;
constexpr size_t stack_bytes = 64 * 1024;
constexpr size_t stacks_at_once = 64;
constexpr int saved_registers = 6;

struct stack {
    char *base;
    void *tsan;
};

std::vector<stack> stacks;
fiber *came_from;

void add_stacks()
{
    void *map = mmap(nullptr, stacks_at_once * stack_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED)
        fail("no memory for the stacks of %zu threads", stacks.size() + stacks_at_once);
    for (size_t i = 0; i < stacks_at_once; i++) {
        stack s = {static_cast<char *>(map) + i * stack_bytes, nullptr};
        mprotect(s.base, page, PROT_NONE); /* may fail when there are very many: then without */
#if defined(EMU_TSAN)
        s.tsan = __tsan_create_fiber(0);
#endif
        stacks.push_back(s);
    }
}

} // namespace

void fiber_bind_stack(fiber *f, size_t i)
{
    while (i >= stacks.size())
        add_stacks();
    f->stack = stacks[i].base + page;
    f->tsan = stacks[i].tsan;
    /* Tops one under the other at the same distance would share few lines of the cache. */
    f->stack_bytes = stack_bytes - page - i * 7 % 64 * 128;
}

void fiber_start(fiber *f, void (*entry)())
{
    permit(f->stack, f->stack_bytes);
    void **sp = reinterpret_cast<void **>(const_cast<char *>(static_cast<const char *>(f->stack)) + f->stack_bytes);
    *--sp = nullptr; /* where entry() would return to */
    *--sp = reinterpret_cast<void *>(entry);
    for (int i = 0; i < saved_registers; i++)
        *--sp = nullptr;
    f->sp = sp;
    f->asan = nullptr;
}

void fiber_adopt_thread([[maybe_unused]] fiber *f)
{
#if defined(EMU_TSAN)
    f->tsan = __tsan_get_current_fiber();
#endif
}

/* Who stopped to let this one run; the first to come from the thread itself tells where its stack is. */
static void arrived([[maybe_unused]] void *asan)
{
#if defined(EMU_ASAN)
    const void *stack;
    size_t bytes;
    __sanitizer_finish_switch_fiber(asan, &stack, &bytes);
    if (!came_from->stack) {
        came_from->stack = stack;
        came_from->stack_bytes = bytes;
    }
#endif
}

void fiber_switch(fiber *from, fiber *to, [[maybe_unused]] bool done)
{
#if defined(EMU_ASAN)
    __sanitizer_start_switch_fiber(done ? nullptr : &from->asan, to->stack, to->stack_bytes);
#endif
#if defined(EMU_TSAN)
    __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
    came_from = from;
    emu_switch_stacks(&from->sp, to->sp);
    arrived(from->asan);
}

void fiber_entered()
{
    arrived(nullptr);
}

} // namespace emu
