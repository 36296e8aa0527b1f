/* Watching products: every row is shown, at its own width, and nothing else changes. */
#include "tests/engine/goldens.h"

#include "host/engine/session.h"

#include <criterion/criterion.h>
#include <string.h>

#define ROWS 6 /* of each path */

typedef struct seen {
    int64_t rows[PL_MAX_LAYERS + 1][PL_ROLES]; /* those of the whole model first */
    int32_t n_in[2 * ROWS];                    /* ffn_down's, of layer 0 */
    int64_t cols;
} seen;

static void look(void *user, const pl_watch *p)
{
    seen *s = user;
    s->rows[p->layer + 1][p->role] += p->n;
    if (p->role != PL_ROLE_DOWN || p->layer != 0)
        return;
    s->cols = p->cols;
    for (int i = 0; i < p->n && i < 2 * ROWS; i++)
        s->n_in[i] = p->n_in ? p->n_in[i] : -1;
}

/* A step with tokens of two sequences, one of them narrow. */
static void run_both(pl_engine *e, const pl_path *wide, const pl_path *narrow)
{
    const pl_path *paths[2] = {wide, narrow};
    pl_step_row rows[2 * ROWS];
    pl_error err;
    for (int p = 0; p < 2; p++) {
        int32_t id;
        cr_assert_eq(pl_kv_open(e->kv, &id, &err), PL_OK, "%s", err.message);
        cr_assert_eq(pl_kv_extend(e->kv, id, ROWS, &err), PL_OK, "%s", err.message);
        for (int i = 0; i < ROWS; i++)
            rows[2 * i + p] = (pl_step_row){
                .token = 10 + i, .position = i, .sequence = id, .path = paths[p], .wanted = true};
    }
    cr_assert_eq(pl_step_run(e->step, rows, 2 * ROWS, NULL, NULL, &err), PL_OK, "%s", err.message);
}

Test(watch, rows_of_two_paths_at_their_widths)
{
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    pl_path wide, narrow;
    pl_error err;
    cr_assert_eq(pl_path_parse(f.model->checkpoint, "e4b", &wide, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_path_parse(f.model->checkpoint, "e2b", &narrow, &err), PL_OK, "%s", err.message);
    seen s = {.cols = 0};
    pl_step_watch(f.engine->step, look, &s);
    run_both(f.engine, &wide, &narrow);
    cr_assert_eq(s.cols, wide.ffn[0]);
    for (int i = 0; i < 2 * ROWS; i++)
        cr_assert_eq(s.n_in[i], i < ROWS ? wide.ffn[0] : narrow.ffn[0], "row %d", i);
    for (int layer = 0; layer < f.engine->config->n_layers; layer++)
        for (int role = 0; role < PL_LAYER_ROLES; role++) {
            bool matrix = pl_weight_table[role].kind == PL_WEIGHT_MATRIX;
            bool there = matrix && pl_weight_needed(f.engine->config, layer, (pl_role)role);
            cr_assert_eq(s.rows[layer + 1][role], there ? ROWS + (narrow.skip[layer] ? 0 : ROWS) : 0, "layer %d %s",
                         layer, pl_weight_table[role].label);
        }
    cr_assert_eq(s.rows[0][PL_ROLE_PLE_MODEL_PROJ], 2 * ROWS);
    cr_assert_eq(s.rows[0][PL_ROLE_ALTUP_PROJ], 3 * 2 * ROWS);
    cr_assert_eq(s.rows[0][PL_ROLE_ALTUP_UNEMBED], 3 * 2 * ROWS);
    cr_assert_eq(s.rows[0][PL_ROLE_HEAD], 2 * ROWS);
    fixture_close(&f);
}

typedef struct answer {
    int32_t ids[8];
    int n;
} answer;

static bool keep(void *user, const pl_token_event *event)
{
    answer *a = user;
    if (event->id >= 0 && a->n < 8)
        a->ids[a->n++] = event->id;
    return true;
}

static answer make_answer(fixture *f)
{
    answer a = {.n = 0};
    int32_t prompt[40];
    pl_error err;
    for (int i = 0; i < 40; i++)
        prompt[i] = 2 + i * 37 % 1000;
    pl_generation g = pl_generation_default();
    g.sampling.temperature = 0;
    g.ignore_eos = true;
    g.max_tokens = 8;
    g.on_token = keep;
    g.user = &a;
    cr_assert_eq(pl_session_truncate(f->session, 0, NULL), PL_OK);
    cr_assert_eq(pl_generate(f->session, prompt, 40, &g, NULL, &err), PL_OK, "%s", err.message);
    return a;
}

/* A prompt's rows, of which only the last one's logits are asked for, run to the end too. */
Test(watch, all_rows_run_and_the_answer_stays)
{
    fixture f = fixture_open(DEMO_MODEL, 2, 16);
    int last = f.engine->config->n_layers;
    answer plain = make_answer(&f);
    seen s = {.cols = 0};
    pl_session_watch(f.session, look, &s);
    answer watched = make_answer(&f);
    cr_assert_eq(s.rows[last][PL_ROLE_DOWN], 40 + 7, "the answer's last token is not read");
    cr_assert_eq(s.rows[0][PL_ROLE_HEAD], 40 + 7);
    pl_session_watch(f.session, NULL, NULL);
    answer after = make_answer(&f);
    cr_assert_eq(s.rows[last][PL_ROLE_DOWN], 40 + 7, "nothing is shown any more");
    cr_assert(plain.n == 8 && memcmp(&plain, &watched, sizeof plain) == 0 && memcmp(&plain, &after, sizeof plain) == 0);
    fixture_close(&f);
}
