#include "host/engine/draft.h"

#include <criterion/criterion.h>
#include <math.h>

enum { ROOM = 4096 };

static int32_t propose(void *user, const int32_t *tokens, size_t n, int32_t most, int32_t *out)
{
    (void)tokens;
    (void)n;
    for (int32_t i = 0; i < most; i++)
        out[i] = *(const int32_t *)user;
    return most;
}

/* A machine on which the first row takes 10 ms and each other row_s. */
typedef struct machine {
    double row_s;
    pl_draft_sense sense;
    int32_t token;
    double spent_s; /* on rows of proposals and steps of the path */
    double all_s;
} machine;

static pl_draft *draft_of(machine *m, int most, const char *path)
{
    pl_draft *d = NULL;
    pl_drafting asked = {.most = most, .path = path, .propose = propose, .user = &m->token};
    cr_assert_eq(pl_draft_create(&asked, ROOM, 1 << 18, &d, NULL), PL_OK);
    return d;
}

/* A step in which `accepted` proposals, at most, are right. Returns how many were verified. */
static int step(machine *m, pl_draft *d, int most, int accepted, double path_share)
{
    static const int32_t nothing[2] = {1, 2};
    pl_draft_find(d, &m->sense, nothing, 2, most);
    int by_path = pl_drafts_choose(&m->sense, &d, 1, 1, 1, most, most, path_share);
    if (by_path > 0) {
        d->kind = PL_DRAFT_KIND_PATH;
        d->item.n = by_path;
        for (int i = 0; i < by_path; i++)
            pl_draft_cost_learn(&m->sense.path_cost, 1, 0.010 * path_share);
    }
    int n = d->item.n;
    double extra = n * m->row_s + by_path * 0.010 * path_share;
    pl_draft_cost_learn(&m->sense.cost, 1 + n, 0.010 + n * m->row_s);
    m->spent_s += extra;
    m->all_s += 0.010 + extra;
    if (n > 0)
        pl_draft_settle(d, &m->sense, accepted < n ? accepted : n);
    return n;
}

/* Images and sound stand in a prompt as ids beyond the vocabulary, which nothing draws. */
Test(draft_choose, proposals_are_tokens)
{
    static const int32_t text[] = {7, 8, 9, 500, 10, 7, 8};
    pl_drafting asked = {.most = 4};
    pl_draft_sense sense = {.probe = {0}};
    pl_draft *d = NULL;
    cr_assert_eq(pl_draft_create(&asked, ROOM, 501, &d, NULL), PL_OK);
    pl_draft_find(d, &sense, text, 7, 4);
    cr_expect_eq(d->item.most, 4);
    pl_draft_free(d);
    cr_assert_eq(pl_draft_create(&asked, ROOM, 500, &d, NULL), PL_OK);
    pl_draft_find(d, &sense, text, 7, 4);
    cr_expect_eq(d->item.most, 1);
    cr_expect_eq(d->token[0], 9);
    pl_draft_free(d);
}

Test(draft_choose, what_never_helps_costs_next_to_nothing)
{
    machine m = {.row_s = 0.001};
    pl_draft *d = draft_of(&m, -1, NULL);
    for (int i = 0; i < 2000; i++)
        step(&m, d, 8, 0, 0);
    cr_assert_leq(m.spent_s, 0.02 * m.all_s, "%g of %g s", m.spent_s, m.all_s);
    cr_assert_gt(d->counts.drafted[PL_DRAFT_GIVEN], 40, "nobody looks again");
    pl_draft_free(d);
}

Test(draft_choose, a_path_that_never_helps_neither)
{
    machine m = {.row_s = 0.001};
    pl_draft *d = draft_of(&m, -1, "e2b");
    d->asked.propose = NULL;
    for (int i = 0; i < 2000; i++)
        step(&m, d, 8, 0, 0.6);
    cr_assert_leq(m.spent_s, 0.02 * m.all_s, "%g of %g s", m.spent_s, m.all_s);
    cr_assert_gt(d->counts.drafted[PL_DRAFT_PATH], 10, "nobody looks again");
    pl_draft_free(d);
}

Test(draft_choose, a_full_step_takes_nothing)
{
    machine m = {.row_s = 0.001};
    pl_draft *d = draft_of(&m, -1, "e2b");
    static const int32_t nothing[2] = {1, 2};
    for (int i = 0; i < 500; i++) {
        pl_draft_find(d, &m.sense, nothing, 2, 8);
        pl_draft_cost_learn(&m.sense.cost, 1, 0.010);
        cr_assert_eq(pl_drafts_choose(&m.sense, &d, 1, 8, 8, 0, 8, 0.1), 0, "step %d", i);
        cr_assert_eq(d->item.n, 0, "step %d", i);
    }
    pl_draft_free(d);
}

Test(draft_choose, what_helps_again_is_found_again)
{
    machine m = {.row_s = 0.001};
    pl_draft *d = draft_of(&m, -1, NULL);
    for (int i = 0; i < 200; i++)
        step(&m, d, 8, 0, 0);
    int verified = 0;
    for (int i = 0; i < 1500; i++)
        verified = step(&m, d, 8, 8, 0);
    cr_assert_eq(verified, 8);
    pl_draft_free(d);
}

Test(draft_choose, what_is_asked_for_is_done)
{
    machine m = {.row_s = 0.1};
    pl_draft *d = draft_of(&m, 5, NULL);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(step(&m, d, 12, 0, 0), 5);
    cr_assert_eq(step(&m, d, 3, 0, 0), 3, "there is no more room");
    cr_assert_eq(step(&m, d, 0, 0, 0), 0);
    cr_assert_eq(step(&m, d, -1, 0, 0), 0);
    pl_draft_free(d);
}

/* Of two answers one repeats itself. */
Test(draft_choose, each_answer_has_its_own_chances)
{
    machine m = {.row_s = 0.0005};
    pl_draft *d[2] = {draft_of(&m, -1, NULL), draft_of(&m, -1, NULL)};
    static const int32_t nothing[2] = {1, 2};
    int n[2] = {0, 0};
    for (int i = 0; i < 300; i++) {
        for (int k = 0; k < 2; k++)
            pl_draft_find(d[k], &m.sense, nothing, 2, 8);
        pl_drafts_choose(&m.sense, d, 2, 2, 2, 62, 8, 1);
        n[0] = d[0]->item.n;
        n[1] = d[1]->item.n;
        pl_draft_cost_learn(&m.sense.cost, 2 + n[0] + n[1], 0.010 + (1 + n[0] + n[1]) * m.row_s);
        pl_draft_settle(d[0], &m.sense, n[0]);
        pl_draft_settle(d[1], &m.sense, 0);
    }
    cr_assert_eq(n[0], 8);
    cr_assert_leq(n[1], 1, "%d of the other", n[1]);
    pl_draft_free(d[0]);
    pl_draft_free(d[1]);
}
