/* Where threads wait for one another: barriers of a block, meetings of the lanes of a warp. */
#include "tests/cuda/warp.hpp"
#include "tests/cuda/grid.hpp"
#include "tests/cuda/sanitize.hpp"

namespace emu
{

/* ---- barriers of a block */

static void open_barrier(barrier *bar)
{
    const int n = bar->arrived;
    bar->result = bar->kind == tally::count ? bar->count : bar->kind == tally::all ? bar->count == n : bar->count > 0;
    for (thread *t : bar->waiting)
        make_ready(t);
    bar->waiting.clear();
    bar->arrived = bar->count = 0;
    bar->generation++;
}

static int wait_at(int id, int wanted, tally kind, int predicate, const char *what, site at)
{
    thread *me = self();
    block *b = me->owner;
    const int all = static_cast<int>(b->threads.size());
    if (id < 0 || id >= barriers)
        fail("%s at %s:%d: no barrier %d", what, at.file, at.line, id);
    barrier *bar = &b->bars[id];
    me->waits_for = what;
    me->at = at;
    me->fenced = false;
    if (wanted != all && (wanted <= 0 || wanted > all || wanted % static_cast<int>(warp_lanes) != 0))
        fail("%s at %s:%d: %d threads are not whole warps of this block of %d", what, at.file, at.line, wanted, all);
    if (bar->arrived && (bar->wanted != wanted || bar->kind != kind))
        fail("%s at %s:%d for %d threads, others wait in %s for %d", what, at.file, at.line, wanted, bar->what,
             bar->wanted);
    if (wanted == all && b->alive != all)
        fail("%s at %s:%d after %d threads of the block have left", what, at.file, at.line, all - b->alive);
    bar->wanted = wanted;
    bar->kind = kind;
    bar->what = what;
    bar->arrived++;
    bar->count += predicate != 0;
    const char *order = &bar->order[bar->generation % 2];
    release(order);
    bar->waiting.push_back(me);
    if (bar->arrived == wanted) {
        open_barrier(bar);
        anyone_next();
    } else {
        stop_here(state::at_barrier);
    }
    acquire(order);
    return bar->result;
}

void sync_threads(site at)
{
    wait_at(0, static_cast<int>(self()->owner->threads.size()), tally::count, 0, "__syncthreads", at);
}

int sync_threads_tally(tally what, int predicate, site at)
{
    return wait_at(0, static_cast<int>(self()->owner->threads.size()), what, predicate, "__syncthreads with a vote",
                   at);
}

void bar_sync(int id, int threads, site at)
{
    wait_at(id, threads, tally::count, 0, "bar_sync", at);
}

/* ---- meetings of a warp */

/* Places are taken in turn, so that who is slow to leave one meets nobody in the next. */
static meeting *place_for(warp *w, uint32_t mask)
{
    const unsigned n = sizeof w->meetings / sizeof w->meetings[0];
    for (unsigned i = 0; w->open && i < n; i++)
        if (w->meetings[i].arrived && w->meetings[i].mask == mask)
            return &w->meetings[i];
    do
        w->latest = (w->latest + 1) % n;
    while (w->meetings[w->latest].arrived);
    return &w->meetings[w->latest];
}

meeting *meet_begin(const char *what, int detail, uint32_t mask, site at)
{
    thread *me = self();
    warp *w = me->own_warp;
    mask &= w->present;
    me->waits_for = what;
    me->at = at;
    if (!(mask >> me->lane & 1))
        fail("%s at %s:%d: the mask %08x lacks lane %u, which calls it", what, at.file, at.line, mask, me->lane);
    if (mask & w->exited)
        fail("%s at %s:%d: the mask %08x names lanes that have left (%08x)", what, at.file, at.line, mask,
             mask & w->exited);
    meeting *m = place_for(w, mask);
    if (m->arrived && (m->what != what || m->detail != detail))
        fail("%s (%d) at %s:%d with mask %08x, other lanes wait in %s (%d)", what, detail, at.file, at.line, mask,
             m->what, m->detail);
    if (!m->arrived) {
        m->mask = mask;
        m->what = what;
        m->detail = detail;
        w->open++;
    }
    m->arrived |= 1u << me->lane;
    return m;
}

void meet_wait()
{
    stop_here(state::in_warp);
}

void meet_end(meeting *m)
{
    thread *me = self();
    warp *w = me->own_warp;
    m->arrived = 0;
    w->open--;
    progress_made();
    for_lanes(m->mask & ~(1u << me->lane), [w](unsigned l) { make_ready(&w->lanes[l]); });
    if (by_chance(2)) /* the last to come is not always the first to go */
        anyone_next();
}

lane_slot *my_slot()
{
    thread *me = self();
    return &me->own_warp->slot[me->lane];
}

void sync_warp(uint32_t mask, site at)
{
    meeting *m = meet_begin("__syncwarp", 0, mask, at);
    release(&m->order);
    if (m->arrived == m->mask)
        meet_end(m);
    else
        meet_wait();
    acquire(&m->order);
}

uint32_t active_mask()
{
    const warp *w = self()->own_warp;
    return w->present & ~w->exited;
}

uint32_t vote_sync(vote what, uint32_t mask, int predicate, site at)
{
    lane_slot *slot = my_slot();
    slot->in = predicate != 0;
    meet("a vote", static_cast<int>(what), mask, at, [what](warp *w, uint32_t lanes) {
        uint32_t ballot = 0;
        for_lanes(lanes, [&](unsigned l) { ballot |= static_cast<uint32_t>(w->slot[l].in) << l; });
        const uint32_t r = what == vote::ballot ? ballot : what == vote::any ? ballot != 0 : ballot == lanes;
        for_lanes(lanes, [&](unsigned l) { w->slot[l].out = r; });
    });
    return static_cast<uint32_t>(slot->out);
}

static int source_lane(shuffle how, int lane, int argument, int width)
{
    const int first = lane & ~(width - 1), end = first + width;
    int from = lane;
    switch (how) {
    case shuffle::index: return first + (argument & (width - 1));
    case shuffle::up: from = lane - argument; return from < first ? lane : from;
    case shuffle::down: from = lane + argument; return from >= end ? lane : from;
    case shuffle::exclusive_or: from = lane ^ argument; return from >= end ? lane : from;
    }
    return from;
}

uint64_t shuffle_sync(shuffle how, uint32_t mask, uint64_t value, int argument, int width, site at)
{
    lane_slot *slot = my_slot();
    slot->in = value;
    slot->argument = argument;
    if (width <= 0 || width > 32 || (width & (width - 1)))
        fail("a shuffle at %s:%d: its width is %d", at.file, at.line, width);
    meet("a shuffle", static_cast<int>(how) * 64 + width, mask, at, [how, width](warp *w, uint32_t lanes) {
        for_lanes(lanes, [&](unsigned l) {
            const int from = source_lane(how, static_cast<int>(l), w->slot[l].argument, width);
            if (from < 0 || from >= 32 || !(lanes >> from & 1))
                fail("a shuffle at %s:%d: lane %u reads lane %d, which is not in the mask %08x", w->lanes[l].at.file,
                     w->lanes[l].at.line, l, from, lanes);
            w->slot[l].out = w->slot[from].in;
        });
    });
    return slot->out;
}

static uint32_t combined(reduce what, uint32_t a, uint32_t b)
{
    const int32_t x = static_cast<int32_t>(a), y = static_cast<int32_t>(b);
    switch (what) {
    case reduce::add: return a + b;
    case reduce::max_signed: return x > y ? a : b;
    case reduce::min_signed: return x < y ? a : b;
    case reduce::max_unsigned: return a > b ? a : b;
    case reduce::min_unsigned: return a < b ? a : b;
    case reduce::bit_and: return a & b;
    case reduce::bit_or: return a | b;
    case reduce::bit_xor: return a ^ b;
    }
    return 0;
}

uint32_t reduce_sync(reduce what, uint32_t mask, uint32_t value, site at)
{
    lane_slot *slot = my_slot();
    slot->in = value;
    meet("a reduction", static_cast<int>(what), mask, at, [what](warp *w, uint32_t lanes) {
        const unsigned first = static_cast<unsigned>(__builtin_ctz(lanes));
        uint32_t r = static_cast<uint32_t>(w->slot[first].in);
        for_lanes(lanes & (lanes - 1),
                  [&](unsigned l) { r = combined(what, r, static_cast<uint32_t>(w->slot[l].in)); });
        for_lanes(lanes, [&](unsigned l) { w->slot[l].out = r; });
    });
    return static_cast<uint32_t>(slot->out);
}

/* All 32 lanes as five exchanges would combine them. */
template <class F> static float butterfly(const char *what, float value, site at, F combine)
{
    lane_slot *slot = my_slot();
    memcpy(&slot->in, &value, sizeof value);
    if (self()->own_warp->n != warp_lanes)
        fail("%s at %s:%d: the warp has only %u lanes", what, at.file, at.line, self()->own_warp->n);
    meet(what, 0, 0xffffffffu, at, [combine](warp *w, uint32_t) {
        float v[warp_lanes], next[warp_lanes];
        for (unsigned l = 0; l < warp_lanes; l++)
            memcpy(&v[l], &w->slot[l].in, sizeof v[l]);
        for (unsigned bit = 16; bit > 0; bit >>= 1) {
            for (unsigned l = 0; l < warp_lanes; l++)
                next[l] = combine(v[l], v[l ^ bit]);
            memcpy(v, next, sizeof v);
        }
        for (unsigned l = 0; l < warp_lanes; l++)
            memcpy(&w->slot[l].out, &v[l], sizeof v[l]);
    });
    memcpy(&value, &slot->out, sizeof value);
    return value;
}

float warp_sum(float value, site at)
{
    return butterfly("kd::warp_sum", value, at, [](float a, float b) { return a + b; });
}

float warp_max(float value, site at)
{
    return butterfly("kd::warp_max", value, at, [](float a, float b) { return fmaxf(a, b); });
}

/* ---- the end of a thread */

void check_leaves(thread *t)
{
    const warp *w = t->own_warp;
    if (!t->copies.empty())
        fail("the thread leaves, and never waited for %zu copies into shared memory", t->copies.size());
    for (const meeting &m : w->meetings)
        if (w->open && m.arrived && m.mask >> t->lane & 1) {
            const site at = w->lanes[__builtin_ctz(m.arrived)].at;
            fail("lane %u leaves, and lanes %08x wait for it in %s at %s:%d", t->lane, m.arrived, m.what, at.file,
                 at.line);
        }
    const barrier &bar = t->owner->bars[0];
    if (bar.arrived)
        fail("the thread leaves, and %d of its block wait in %s at %s:%d", bar.arrived, bar.what,
             bar.waiting[0]->at.file, bar.waiting[0]->at.line);
}

} // namespace emu
