/* The scheduler: which thread of which block runs next. */
#include "tests/cuda/grid.hpp"
#include "tests/cuda/sanitize.hpp"

#include <algorithm>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace emu
{

__thread const thread_view *current;
grid *running;
unsigned long long bank_conflicts;

/* ---- reports */

void fail(const char *format, ...)
{
    fflush(stdout);
    fprintf(stderr, "emu: ");
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    if (current) {
        const uint3 b = current->block->index, t = current->index;
        fprintf(stderr, "  in %s, block (%u,%u,%u), thread (%u,%u,%u)\n", running->what->kernel, b.x, b.y, b.z, t.x,
                t.y, t.z);
    }
    fflush(stderr);
    abort();
}

static void report_lanes(const block &b, const warp &w)
{
    for (unsigned first = 0, end; first < w.n; first = end) {
        const thread &t = w.lanes[first];
        for (end = first + 1; end < w.n && w.lanes[end].now == t.now && w.lanes[end].at.line == t.at.line; end++)
            ;
        fprintf(stderr, "  block (%u,%u,%u) warp %zu lanes %u-%u ", b.index.x, b.index.y, b.index.z,
                static_cast<size_t>(&w - b.warps.data()), first, end - 1);
        if (t.now == state::exited)
            fprintf(stderr, "have left\n");
        else if (t.now == state::ready)
            fprintf(stderr, "run, last seen at %s:%d\n", t.at.file, t.at.line);
        else
            fprintf(stderr, "wait in %s at %s:%d\n", t.waits_for, t.at.file, t.at.line);
    }
}

void report_stuck(const char *how)
{
    fflush(stdout);
    fprintf(stderr, "emu: %s in %s\n", how, running->what->kernel);
    int warps = 0;
    for (const block &b : running->slots)
        for (const warp &w : b.warps)
            if (b.active && warps++ < 16)
                report_lanes(b, w);
    fflush(stderr);
    abort();
}

/* ---- chance */

static uint64_t random_state = 1;
static bool shuffled;

void seed_order(uint64_t seed)
{
    shuffled = seed != 0;
    random_state = 0x853c49e6748fea9bull ^ seed * 0x9e3779b97f4a7c15ull;
    for (int i = 0; i < 4; i++)
        random_below(2);
}

uint32_t random_below(uint32_t n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return static_cast<uint32_t>((random_state >> 16 & 0xffffffffu) * n >> 32);
}

bool by_chance(unsigned one_in)
{
    return shuffled && random_below(one_in) == 0;
}

static uint32_t random_bit_of(uint32_t mask)
{
    const uint32_t turn = random_below(warp_lanes);
    const uint32_t turned = turn ? mask >> turn | mask << (warp_lanes - turn) : mask;
    return (static_cast<uint32_t>(__builtin_ctz(turned)) + turn) % warp_lanes;
}

/* ---- who runs */

static uint32_t warp_bit(const warp *w)
{
    return 1u << (w - w->owner->warps.data());
}

void make_ready(thread *t)
{
    t->now = state::ready;
    t->own_warp->ready |= 1u << t->lane;
    t->owner->ready_warps |= warp_bit(t->own_warp);
}

static void make_wait(thread *t, state why)
{
    t->now = why;
    t->own_warp->ready &= ~(1u << t->lane);
    if (!t->own_warp->ready)
        t->owner->ready_warps &= ~warp_bit(t->own_warp);
}

static uint32_t choose(uint32_t mask)
{
    return shuffled ? random_bit_of(mask) : static_cast<uint32_t>(__builtin_ctz(mask));
}

static thread *any_of(block *b)
{
    warp &w = b->warps[choose(b->ready_warps)];
    return &w.lanes[choose(w.ready)];
}

static block *any_block(const block *but)
{
    const size_t n = running->slots.size(), first = random_below(static_cast<uint32_t>(n));
    for (size_t i = 0; i < n; i++) {
        block *b = &running->slots[(first + i) % n];
        if (b != but && b->active && b->ready_warps)
            return b;
    }
    return nullptr;
}

/* Mostly the same warp, sometimes another one, seldom another block: threads drift apart and the cache stays warm. */
static thread *next_after(const thread *t)
{
    block *b = t->owner;
    if (t->own_warp->ready && !by_chance(8))
        return &t->own_warp->lanes[choose(t->own_warp->ready)];
    if (!b->ready_warps || by_chance(64)) {
        block *other = any_block(b);
        b = other ? other : b;
    }
    return b->ready_warps ? any_of(b) : nullptr;
}

/* Someone else, of another block if there is one. By chance even with the plain order: else two could wait for a third
 * for ever. */
static thread *other_than(const thread *t)
{
    block *b = any_block(t->owner);
    if (!b)
        b = t->owner;
    if (!b->ready_warps)
        return nullptr;
    warp &w = b->warps[random_bit_of(b->ready_warps)];
    return &w.lanes[random_bit_of(w.ready)];
}

static void go_to(thread *t, bool done)
{
    thread *me = self();
    if (t == me)
        return;
    current = t;
    fiber_switch(me ? &me->run : &running->host, t ? &t->run : &running->host, done);
}

static unsigned long long idle_turns;

void progress_made()
{
    idle_turns = 0;
}

void stop_here(state why)
{
    thread *me = self();
    make_wait(me, why);
    progress_made();
    thread *next = next_after(me);
    if (!next)
        report_stuck("deadlock");
    go_to(next, false);
}

void anyone_next()
{
    progress_made();
    go_to(next_after(self()), false);
}

void give_way()
{
    thread *next = other_than(self());
    if (next)
        go_to(next, false);
}

void spin()
{
    static time_t since;
    const unsigned long long patience = 1000000, glance = 1024;
    if (++idle_turns == patience)
        since = time(nullptr);
    if (idle_turns > patience && idle_turns % glance == 0) {
        usleep(50); /* a thread of the host may have to set what this waits for */
        if (time(nullptr) - since > 20)
            report_stuck("livelock: only busy waits run");
    }
    give_way();
}

/* ---- a grid from its first to its last thread */

static void leave()
{
    thread *me = self();
    block *b = me->owner;
    make_wait(me, state::exited);
    me->own_warp->exited |= 1u << me->lane;
    b->alive--;
    check_leaves(me);
    progress_made();
    if (b->alive == 0) {
        b->active = false;
        go_to(nullptr, true);
    }
    thread *next = next_after(me);
    if (!next)
        report_stuck("deadlock");
    go_to(next, true);
}

static void thread_main()
{
    fiber_entered();
    acquire(&running->begins);
    running->what->code->run();
    release(&running->ends);
    leave();
}

static void lay_out(block *b, size_t *stack)
{
    const dim3 size = running->what->block;
    const size_t n = static_cast<size_t>(size.x) * size.y * size.z;
    b->owner = running;
    b->block_size = size;
    b->grid_size = running->what->grid;
    b->threads.resize(n);
    b->warps.resize((n + warp_lanes - 1) / warp_lanes);
    for (size_t i = 0; i < n; i++) {
        thread &t = b->threads[i];
        t.index = make_uint3(static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
                             static_cast<unsigned>(i / size.x / size.y));
        t.lane = static_cast<unsigned>(i % warp_lanes);
        t.owner = b;
        t.block = b;
        t.own_warp = &b->warps[i / warp_lanes];
        t.copies.reserve(
            max_copies); /* nothing is allocated while a fiber runs: ThreadSanitizer would not know where */
        fiber_bind_stack(&t.run, (*stack)++);
    }
    for (size_t i = 0; i < b->warps.size(); i++) {
        warp &w = b->warps[i];
        w.lanes = &b->threads[i * warp_lanes];
        w.owner = b;
        w.n = static_cast<unsigned>(std::min<size_t>(warp_lanes, n - i * warp_lanes));
        w.present = w.n == warp_lanes ? 0xffffffffu : (1u << w.n) - 1;
    }
    for (barrier &bar : b->bars)
        bar.waiting.reserve(n);
}

static void begin_block(block *b, uint32_t index)
{
    const dim3 &size = running->what->grid;
    b->index = make_uint3(index % size.x, index / size.x % size.y, index / size.x / size.y);
    b->alive = static_cast<int>(b->threads.size());
    b->active = true;
    shared_begin(b);
    for (barrier &bar : b->bars) {
        bar.wanted = bar.arrived = bar.count = 0;
        bar.waiting.clear();
    }
    for (warp &w : b->warps) {
        w.ready = w.exited = w.open = 0;
        for (meeting &m : w.meetings)
            m.arrived = 0;
    }
    for (thread &t : b->threads) {
        t.copies.clear();
        t.groups = 0;
        t.fenced = false;
        t.last_atomic = nullptr;
        t.at = {"its start", 0};
        fiber_start(&t.run, thread_main);
        make_ready(&t);
    }
    release(&running->begins);
}

/* How many blocks run side by side. With ThreadSanitizer many: it cannot tell apart the threads of two blocks that
 * used the same fiber one after the other. */
static size_t side_by_side(const grid &g)
{
    const size_t threads = static_cast<size_t>(g.what->block.x) * g.what->block.y * g.what->block.z;
    if (g.what->cooperative)
        return g.blocks;
    const size_t some = with_tsan ? std::max<size_t>(1, 1024 / threads) : shuffled ? 1 + random_below(4) : 1;
    return std::min(g.blocks, some);
}

static void shuffle_order(grid *g)
{
    g->order.resize(g->blocks);
    for (size_t i = 0; i < g->blocks; i++)
        g->order[i] = static_cast<uint32_t>(i);
    for (size_t i = g->blocks; shuffled && i > 1; i--)
        std::swap(g->order[i - 1], g->order[random_below(static_cast<uint32_t>(i))]);
}

/* The next block takes the place of one that is through. */
static void refill(grid *g)
{
    for (block &b : g->slots) {
        if (b.active)
            continue;
        if (b.shared)
            shared_end(&b);
        if (g->started < g->blocks)
            begin_block(&b, g->order[g->started++]);
    }
}

void run_launch(const launch &what)
{
    if (running)
        fail("%s starts while %s runs", what.kernel, running->what->kernel);
    grid g;
    g.what = &what;
    g.blocks = static_cast<size_t>(what.grid.x) * what.grid.y * what.grid.z;
    running = &g;
    fiber_adopt_thread(&g.host);
    shuffle_order(&g);
    g.slots.resize(side_by_side(g));
    size_t stack = 0;
    for (block &b : g.slots)
        lay_out(&b, &stack);
    progress_made();
    for (;;) {
        refill(&g);
        block *b = any_block(nullptr);
        if (!b)
            break;
        go_to(any_of(b), false);
    }
    for (const block &b : g.slots)
        if (b.active)
            report_stuck("deadlock");
    acquire(&g.ends);
    for (char *shared : g.shared_free)
        free(shared);
    running = nullptr;
}

} // namespace emu
