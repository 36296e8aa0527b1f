/* Shared memory, copies into it, and what orders memory between threads. */
#include "tests/cuda/sanitize.hpp"
#include "tests/cuda/warp.hpp"

#include <stdlib.h>

namespace emu
{

/* ---- shared memory: static variables with gaps, then from a fixed place the dynamic part, then a gap */

constexpr size_t dynamic_at = shared_default + 2 * shared_gap * 16;
constexpr unsigned char nan_byte = 0xff;

static size_t shared_bytes()
{
    return dynamic_at + running->what->dynamic_bytes + shared_gap;
}

void shared_begin(block *b)
{
    const size_t bytes = (shared_bytes() + 127) / 128 * 128;
    if (running->shared_free.empty() || with_tsan) {
        b->shared = static_cast<char *>(aligned_alloc(128, bytes));
        if (!b->shared)
            fail("no memory for %zu bytes of shared memory", bytes);
    } else {
        b->shared = running->shared_free.back();
        running->shared_free.pop_back();
    }
    permit(b->shared, bytes);
    memset(b->shared, nan_byte, bytes);
    forbid(b->shared, dynamic_at);
    forbid(b->shared + dynamic_at + running->what->dynamic_bytes, shared_gap);
}

static void check_gap(const block *b, size_t offset, const char *name)
{
    for (size_t i = 0; i < shared_gap; i++)
        if (static_cast<unsigned char>(b->shared[offset + i]) != nan_byte)
            fail("%s: block (%u,%u,%u) wrote past the end of %s in shared memory (byte %zu after it)",
                 running->what->kernel, b->index.x, b->index.y, b->index.z, name, i);
}

void shared_end(block *b)
{
    permit(b->shared, shared_bytes());
    for (const shared_variable &v : running->variables)
        check_gap(b, v.offset + v.bytes, v.name);
    check_gap(b, dynamic_at + running->what->dynamic_bytes, "the dynamic part");
    running->shared_free.push_back(b->shared);
    b->shared = nullptr;
}

static const shared_variable &variable_of(const void *key, size_t bytes, const char *name)
{
    for (const shared_variable &v : running->variables)
        if (v.key == key)
            return v;
    const size_t offset = running->variables.empty()
                              ? 0
                              : (running->variables.back().offset + running->variables.back().bytes + shared_gap + 15) /
                                    16 * 16;
    running->static_bytes += (bytes + 15) / 16 * 16;
    if (running->static_bytes > shared_default || offset + bytes + shared_gap > dynamic_at)
        fail("%s: static shared memory above 48 KiB", name);
    if (running->static_bytes + running->what->dynamic_bytes > shared_opt_in)
        fail("%s: %zu bytes of static and %zu of dynamic shared memory are more than a card has", name,
             running->static_bytes, running->what->dynamic_bytes);
    running->variables.push_back({key, name, offset, bytes});
    return running->variables.back();
}

void *static_shared(const void *key, size_t bytes, const char *name)
{
    const shared_variable &v = variable_of(key, bytes, name);
    char *p = self()->owner->shared + v.offset;
    permit(p, bytes);
    return p;
}

void *dynamic_shared()
{
    return self()->owner->shared + dynamic_at;
}

void check_shared(const void *p, size_t bytes, const char *what, site at)
{
    const char *shared = self()->owner->shared, *q = static_cast<const char *>(p);
    bool inside = q >= shared + dynamic_at && q + bytes <= shared + dynamic_at + running->what->dynamic_bytes;
    for (const shared_variable &v : running->variables)
        inside = inside || (q >= shared + v.offset && q + bytes <= shared + v.offset + v.bytes);
    if (!inside)
        fail("%s at %s:%d: %p is not in the shared memory of this block", what, at.file, at.line, p);
}

void misaligned(const void *p, size_t alignment, const char *what, site at)
{
    fail("%s at %s:%d: %p is not aligned to %zu bytes", what, at.file, at.line, p, alignment);
}

/* ---- cp.async: the target holds NaNs until the copy has been waited for */

void cp_async(void *dst, const void *src, int bytes, int valid, site at)
{
    thread *me = self();
    check_aligned(dst, static_cast<size_t>(bytes), "cp_async to", at);
    check_shared(dst, static_cast<size_t>(bytes), "cp_async to", at);
    note_write(dst, static_cast<size_t>(bytes));
    if (valid) {
        check_aligned(src, static_cast<size_t>(bytes), "cp_async from", at);
        note_read(src, static_cast<size_t>(valid));
        if (const void *bad = forbidden(src, static_cast<size_t>(valid)))
            fail("cp_async at %s:%d: %p is outside what it may read", at.file, at.line, bad);
    }
    if (me->copies.size() == max_copies)
        fail("cp_async at %s:%d: more than %zu copies under way", at.file, at.line, max_copies);
    async_copy copy = {
        static_cast<char *>(dst), static_cast<const char *>(src), bytes, valid, me->groups, by_chance(2), {}};
    if (copy.read)
        memcpy(copy.value, src, static_cast<size_t>(valid));
    memset(dst, nan_byte, static_cast<size_t>(bytes));
    me->copies.push_back(copy);
}

void cp_async_commit()
{
    self()->groups++;
}

static void deliver(const async_copy &copy)
{
    const size_t valid = static_cast<size_t>(copy.valid);
    if (valid)
        memcpy(copy.dst, copy.read ? copy.value : copy.src, valid);
    memset(copy.dst + valid, 0, static_cast<size_t>(copy.bytes) - valid);
    note_write(copy.dst, static_cast<size_t>(copy.bytes));
}

void cp_async_wait(int groups)
{
    thread *me = self();
    size_t kept = 0;
    for (const async_copy &copy : me->copies) {
        if (copy.group + static_cast<unsigned>(groups) < me->groups)
            deliver(copy);
        else
            me->copies[kept++] = copy;
    }
    me->copies.resize(kept);
}

/* ---- order between threads: a fence before an atomic releases, one after it acquires */

void fence()
{
    thread *me = self();
    me->fenced = true;
    if (me->last_atomic)
        acquire(me->last_atomic);
    me->last_atomic = nullptr;
}

void before_atomic(const void *p)
{
    if (by_chance(8))
        give_way();
    if (self()->fenced)
        release(p);
}

void after_atomic(const void *p)
{
    self()->last_atomic = p;
    progress_made();
}

unsigned ld_acquire(const unsigned *p)
{
    spin();
    const unsigned v = __atomic_load_n(p, __ATOMIC_ACQUIRE);
    acquire(p);
    return v;
}

unsigned atom_add_release(unsigned *p, unsigned v)
{
    if (by_chance(8))
        give_way();
    release(p);
    progress_made();
    return __atomic_fetch_add(p, v, __ATOMIC_ACQ_REL);
}

unsigned atom_add_acq_rel(unsigned *p, unsigned v)
{
    const unsigned old = atom_add_release(p, v);
    acquire(p);
    return old;
}

} // namespace emu
