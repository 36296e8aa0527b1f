/* Stacks of their own on one thread, and the way from one to another. */
#ifndef PL_TESTS_CUDA_FIBER_HPP
#define PL_TESTS_CUDA_FIBER_HPP

#include <stddef.h>

namespace emu
{

struct fiber {
    void *sp = nullptr; /* where it stopped */
    const void *stack = nullptr;
    size_t stack_bytes = 0;
    void *asan = nullptr, *tsan = nullptr;
};

/* Stack number i of a pool that grows as needed and lives as long as the process; the page below each is forbidden. */
void fiber_bind_stack(fiber *f, size_t i);

/* The next switch to f calls entry(), which must not return. */
void fiber_start(fiber *f, void (*entry)());

/* The fiber that is the calling thread itself. */
void fiber_adopt_thread(fiber *f);

/* Continues `to`; returns when something switches back to `from`. done: nothing ever will. */
void fiber_switch(fiber *from, fiber *to, bool done);

/* First thing in entry(). */
void fiber_entered();

} // namespace emu

#endif
