#include "host/engine/step_plan.h"

#include <math.h>

#define NEAR_S 1.0 /* a wished moment counts as long as it is not further away than this, or gone by longer */

typedef struct planner {
    pl_plan_item *items;
    const pl_step_cost *cost;
    const pl_plan_limits *limits;
    double prompt_weight;
    int32_t rows, wanted, sequences, prompt_rows; /* given out */
    double weighted;
    double prompt_s; /* what a step may take with prompts in it */
} planner;

static bool decodes(const pl_plan_item *item)
{
    return item->ready && item->running && item->answering && item->to_read == 1;
}

static bool is_near(const pl_plan_item *item, double now)
{
    return item->due_s > 0 && item->due_s - now < NEAR_S && now - item->due_s < NEAR_S;
}

/* Whether prompt a goes before prompt b. */
static bool prompt_before(const planner *p, int32_t ia, int32_t ib)
{
    const pl_plan_item *a = &p->items[ia], *b = &p->items[ib];
    if (a->priority != b->priority)
        return a->priority > b->priority;
    bool near_a = is_near(a, p->limits->now_s), near_b = is_near(b, p->limits->now_s);
    if (near_a != near_b)
        return near_a;
    if (near_a && a->due_s != b->due_s)
        return a->due_s < b->due_s;
    if (a->client_served != b->client_served)
        return a->client_served < b->client_served;
    if (a->running != b->running)
        return a->running;
    return a->arrived_s != b->arrived_s ? a->arrived_s < b->arrived_s : ia < ib;
}

static bool answer_before(const planner *p, int32_t ia, int32_t ib)
{
    const pl_plan_item *a = &p->items[ia], *b = &p->items[ib];
    return a->last_step != b->last_step ? a->last_step < b->last_step : ia < ib;
}

typedef bool (*before_fn)(const planner *p, int32_t a, int32_t b);

/* A heap rather than a sort: of a thousand that wait, a step takes a few. */
static void sift(const planner *p, int32_t *heap, int32_t n, int32_t at, before_fn before)
{
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(p, heap[child + 1], heap[child]))
            child++;
        if (!before(p, heap[child], heap[at]))
            return;
        int32_t moved = heap[at];
        heap[at] = heap[child];
        heap[child] = moved;
    }
}

static void make_heap(const planner *p, int32_t *heap, int32_t n, before_fn before)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--)
        sift(p, heap, n, i, before);
}

static int32_t pop(const planner *p, int32_t *heap, int32_t *n, before_fn before)
{
    int32_t first = heap[0];
    heap[0] = heap[--*n];
    sift(p, heap, *n, 0, before);
    return first;
}

static void give(planner *p, pl_plan_item *item, int32_t rows)
{
    bool done = rows == item->to_read;
    item->rows = rows;
    p->rows += rows;
    p->wanted += done;
    p->weighted += item->weight * (p->prompt_weight * (rows - done) + done);
}

static void plan_answers(planner *p, int32_t *order, int32_t n, int32_t most)
{
    if (n > most)
        make_heap(p, order, n, answer_before);
    for (int32_t given = 0; given < most && n > 0; given++) {
        int32_t i = n > most - given ? pop(p, order, &n, answer_before) : order[--n];
        give(p, &p->items[i], 1);
    }
}

/* Where prompts wait, something of each step is left to them. */
static int32_t most_answers(const pl_plan_limits *limits, bool prompts)
{
    int32_t rows = limits->rows, wanted = limits->wanted;
    if (prompts) {
        rows = rows > 2 * PL_PLAN_LEAST ? rows - PL_PLAN_LEAST : (rows + 1) / 2;
        wanted = wanted > 1 ? wanted - 1 : 1;
    }
    return rows < wanted ? rows : wanted;
}

/* Time of a step with prompts in it, by how many heads wait for a prompt and for an answer. */
static double prompt_seconds(const planner *p, int32_t prompts, int32_t answers)
{
    double share = answers > 0 ? (double)prompts / answers : 0;
    double s = (1 + fmax(share, PL_PLAN_PROMPT_SHARE)) * pl_step_cost_expect(p->cost, p->weighted);
    return fmax(s, p->limits->step_s);
}

/* Rows of a prompt for which the step has time. */
static int32_t rows_in_time(const planner *p, const pl_plan_item *item, bool answers)
{
    if (!answers)
        return p->limits->rows;
    double row = item->weight * p->prompt_weight * p->cost->row_s;
    double left = p->prompt_s - pl_step_cost_expect(p->cost, p->weighted);
    double rows = row > 0 ? left / row : p->limits->rows;
    int32_t least = PL_PLAN_LEAST - p->prompt_rows;
    return rows >= p->limits->rows ? p->limits->rows : rows > least ? (int32_t)rows : least;
}

static void plan_prompt(planner *p, pl_plan_item *item, bool answers)
{
    if (!item->running && p->sequences == p->limits->sequences)
        return;
    int32_t rows = rows_in_time(p, item, answers), room = p->limits->rows - p->rows;
    rows = rows < room ? rows : room;
    rows = rows < item->to_read ? rows : item->to_read;
    if (rows == item->to_read && p->wanted == p->limits->wanted)
        rows--;
    if (rows <= 0)
        return;
    p->sequences += !item->running;
    p->prompt_rows += rows;
    give(p, item, rows);
}

void pl_plan_step(pl_plan_item *items, int32_t n, int32_t *order, const pl_step_cost *cost, double prompt_weight,
                  const pl_plan_limits *limits, pl_plan *out)
{
    planner p = {.items = items, .cost = cost, .limits = limits, .prompt_weight = prompt_weight};
    int32_t answers = 0, prompts = 0, begun = 0;
    for (int32_t i = 0; i < n; i++) {
        items[i].rows = 0;
        if (decodes(&items[i])) {
            order[answers++] = i;
        } else if (items[i].ready && (items[i].running || limits->sequences > 0)) {
            order[n - ++prompts] = i;
            begun += items[i].running;
        }
    }
    int32_t fresh = prompts - begun, heads = begun + (fresh < limits->sequences ? fresh : limits->sequences);
    plan_answers(&p, order, answers, most_answers(limits, prompts > 0));

    p.prompt_s = prompt_seconds(&p, heads, p.rows);
    int32_t *heap = order + n - prompts;
    make_heap(&p, heap, prompts, prompt_before);
    while (prompts > 0 && p.rows < limits->rows && rows_in_time(&p, &items[heap[0]], answers > 0) > 0)
        plan_prompt(&p, &items[pop(&p, heap, &prompts, prompt_before)], answers > 0);
    *out = (pl_plan){p.rows, p.wanted, p.weighted};
}

int32_t pl_plan_victim(const pl_plan_item *items, int32_t n, int32_t needy)
{
    int32_t victim = -1;
    for (int32_t i = 0; i < n; i++) {
        const pl_plan_item *item = &items[i], *last = &items[victim < 0 ? needy : victim];
        if (i == needy || !item->running)
            continue;
        if (item->priority < last->priority || (item->priority == last->priority && item->arrived_s > last->arrived_s))
            victim = i;
    }
    return victim;
}
