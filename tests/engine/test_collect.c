/* Collecting importance matrices: the sums are those of what the trace shows, over several paths, in any pieces. */
#include "tests/engine/goldens.h"

#include "host/engine/session.h"
#include "host/measure/collect.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH 40
#define PASSAGES 3
#define BOUND (20.0 / (1 << 24)) /* relative, of a sum: see collect.h; here the other sum is exact */

static const char *const both[] = {"e4b", "e2b"};
static pl_error err;

static pl_passages text(int32_t *ids)
{
    for (int i = 0; i < PASSAGES * LENGTH; i++)
        ids[i] = i % LENGTH ? 2 + (i * 37 + i / 11) % 1000 : 2;
    return (pl_passages){.ids = ids, .n = PASSAGES, .length = LENGTH, .fingerprint = 7};
}

static pl_collector *start(const fixture *f, const pl_passages *p, const char *const *paths, size_t n)
{
    pl_collector *c = NULL;
    cr_assert_eq(pl_collector_create(f->session, p, "a text", paths, n, &c, &err), PL_OK, "%s", err.message);
    return c;
}

static void read_passages(pl_collector *c, int n)
{
    for (int i = 0; i < n; i++)
        cr_assert_eq(pl_collector_next(c, &err), PL_OK, "%s", err.message);
}

static const pl_imatrix_entry *entry_of(pl_collector *c, const char *name)
{
    const pl_imatrix_entry *entry = pl_imatrix_find(pl_collector_matrix(c), name);
    cr_assert_not_null(entry, "%s", name);
    return entry;
}

/* ---- the trace ---- */

/* What of the trace is multiplied with what. */
static const struct {
    const char *tensor, *weights[4];
} operands[] = {
    {"normed", {"attn_q", "attn_k", "attn_v", "laurel_l"}},
    {"mlp_in", {"ffn_gate", "ffn_up"}},
    {"mlp_act", {"ffn_down"}},
};

/* Sums over the rows of one stream, taken off what an entry holds. */
typedef struct leftover {
    pl_imatrix *m; /* the collector's sums, less what the trace has shown */
    int last_layer;
} leftover;

static void take_off(const leftover *l, const char *name, int index, const float *v, int64_t rows, int64_t width)
{
    const pl_imatrix_entry *entry = pl_imatrix_find(l->m, name);
    if (!entry)
        return; /* k and v of layers that share them */
    cr_assert_leq(width, entry->cols, "%s", name);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t k = 0; k < width; k++)
            entry->sum2[index * entry->cols + k] -= (double)v[r * width + k] * (double)v[r * width + k];
    entry->count[index] -= (double)rows;
}

static void take_off_layer(const leftover *l, int layer, const char *what, const pl_trace_tensor *t)
{
    char name[64];
    for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
        for (int k = 0; k < 4 && operands[i].weights[k] && strcmp(operands[i].tensor, what) == 0; k++) {
            snprintf(name, sizeof name, "blk.%d.%s.weight", layer, operands[i].weights[k]);
            take_off(l, name, 0, t->v, t->rows, t->width);
        }
    for (int k = 1; k < 4 && layer == l->last_layer && strcmp(what, "streams") == 0; k++)
        take_off(l, "altup_unembd_proj.weight", k - 1, t->v + k * t->rows * t->width, t->rows, t->width);
}

static void take_off_shown(void *user, const pl_trace_tensor *t)
{
    const leftover *l = user;
    int layer, at = 0;
    if (sscanf(t->name, "layer.%d.%n", &layer, &at) == 1 && at > 0)
        take_off_layer(l, layer, t->name + at, t);
    for (int k = 0; k < 3 && strcmp(t->name, "embeds") == 0; k++)
        take_off(l, "altup_proj.weight", k, t->v, t->rows, t->width);
    if (strcmp(t->name, "embeds") == 0)
        take_off(l, "per_layer_model_proj.weight", 0, t->v, t->rows, t->width);
    if (strcmp(t->name, "final.hidden") == 0)
        take_off(l, "token_embd.weight", 0, t->v, t->rows, t->width);
}

/* Names of tensors whose operands the trace shows. */
static bool is_shown(const char *name)
{
    for (size_t i = 0; i < sizeof operands / sizeof *operands; i++)
        for (int k = 0; k < 4 && operands[i].weights[k]; k++)
            if (strstr(name, operands[i].weights[k]))
                return true;
    return strncmp(name, "blk.", 4) != 0;
}

static int check_leftover(const pl_imatrix *m, const pl_imatrix *whole)
{
    int shown = 0;
    for (size_t i = 0; i < m->n; i++) {
        const pl_imatrix_entry *left = &m->entries[i], *all = pl_imatrix_find(whole, left->name);
        if (!is_shown(left->name))
            continue;
        shown++;
        for (int k = 0; k < left->n_mat; k++)
            cr_assert(left->count[k] == 0 && all->count[k] == 2 * LENGTH, "%s[%d] counted %g", left->name, k,
                      all->count[k]);
        for (int64_t k = 0; k < left->n_mat * left->cols; k++)
            cr_assert_leq(fabs(left->sum2[k]), BOUND * all->sum2[k], "%s column %d: %g of %g too much", left->name,
                          (int)k, left->sum2[k], all->sum2[k]);
    }
    return shown;
}

Test(collect, the_sums_are_what_the_trace_shows)
{
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    fixture f = fixture_open(DEMO_MODEL, 2, 16); /* a passage takes three steps */
    pl_collector *c = start(&f, &p, NULL, 0);
    read_passages(c, 2);
    pl_imatrix *m = NULL;
    cr_assert_eq(pl_imatrix_create(&m, NULL), PL_OK);
    cr_assert_eq(pl_imatrix_add(m, pl_collector_matrix(c), "collector", &err), PL_OK, "%s", err.message);
    leftover l = {m, f.engine->config->n_layers - 1};
    pl_session_trace(f.session, take_off_shown, &l);
    float *logits = malloc(LENGTH * (size_t)pl_model_vocab_size(f.model) * sizeof *logits);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pl_logits(f.session, ids + i * LENGTH, LENGTH, false, logits, &err), PL_OK);
    free(logits);
    const pl_config *config = f.engine->config;
    cr_assert_eq(check_leftover(m, pl_collector_matrix(c)), 5 * config->n_layers + 2 * config->n_kv_layers + 4);
    pl_imatrix_free(m);
    pl_collector_free(c);
    fixture_close(&f);
}

/* Also of what no trace shows: every matrix of every layer counts every token, and sees something. */
Test(collect, every_matrix_is_seen)
{
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    pl_collector *c = start(&f, &p, NULL, 0);
    read_passages(c, 1);
    const pl_imatrix *m = pl_collector_matrix(c);
    const pl_config *config = f.engine->config;
    cr_assert_eq(m->n, (size_t)(9 * config->n_layers + 2 * config->n_kv_layers + 4));
    for (size_t i = 0; i < m->n; i++) {
        const pl_imatrix_entry *entry = &m->entries[i];
        for (int k = 0; k < entry->n_mat; k++) {
            double sum = 0;
            for (int64_t col = 0; col < entry->cols; col++)
                sum += entry->sum2[k * entry->cols + col];
            cr_assert(entry->count[k] == LENGTH && sum > 0, "%s[%d]: %g in %g tokens", entry->name, k, sum,
                      entry->count[k]);
        }
    }
    cr_assert_eq(entry_of(c, "altup_proj.weight")->n_mat, 3);
    cr_assert(m->chunks == 1 && m->chunk_size == LENGTH && strcmp(m->datasets[0], "a text") == 0);
    pl_collector_free(c);
    fixture_close(&f);
}

/* ---- paths ---- */

static int64_t width_on_e2b(const fixture *f, int layer)
{
    pl_path path;
    cr_assert_eq(pl_path_parse(f->model->checkpoint, "e2b", &path, &err), PL_OK, "%s", err.message);
    return path.skip[layer] ? 0 : path.ffn[layer];
}

static void compare_down(const fixture *f, int layer, pl_collector *one, pl_collector *other, pl_collector *together)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.ffn_down.weight", layer);
    const pl_imatrix_entry *wide = entry_of(one, name), *narrow = entry_of(other, name),
                           *sum = entry_of(together, name);
    int64_t width = width_on_e2b(f, layer);
    cr_assert_lt(width, wide->cols);
    cr_assert_eq(narrow->count[0], width > 0 ? PASSAGES * LENGTH : 0);
    cr_assert_eq(sum->count[0], wide->count[0] + narrow->count[0]);
    for (int64_t k = 0; k < wide->cols; k++) {
        if (k >= width)
            cr_assert_eq(narrow->sum2[k], 0, "%s column %d", name, (int)k);
        double want = wide->sum2[k] + narrow->sum2[k]; /* added up passage by passage, so not bit for bit */
        cr_assert_leq(fabs(sum->sum2[k] - want), 1e-14 * want, "%s column %d", name, (int)k);
    }
}

Test(collect, paths_add_up)
{
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    pl_collector *wide = start(&f, &p, both, 1), *narrow = start(&f, &p, both + 1, 1);
    pl_collector *together = start(&f, &p, both, 2);
    cr_assert(pl_collector_total(together) == 2 * PASSAGES && pl_collector_done(together) == 0);
    read_passages(wide, PASSAGES);
    read_passages(narrow, PASSAGES);
    read_passages(together, 2 * PASSAGES);
    int skipped = 0;
    for (int layer = 0; layer < f.engine->config->n_layers; layer++) {
        compare_down(&f, layer, wide, narrow, together);
        skipped += width_on_e2b(&f, layer) == 0;
    }
    cr_assert_gt(skipped, 0);
    cr_assert_eq(entry_of(together, "token_embd.weight")->count[0], 2 * PASSAGES * LENGTH);
    pl_collector_free(wide);
    pl_collector_free(narrow);
    pl_collector_free(together);
    fixture_close(&f);
}

/* ---- going on ---- */

static void write_to(pl_collector *c, const char *path)
{
    cr_assert_eq(pl_imatrix_write_gguf(pl_collector_matrix(c), path, &err), PL_OK, "%s", err.message);
}

static void check_same_files(const char *a, const char *b, const char *what)
{
    size_t n, k;
    char *x = read_file(a, &n), *y = read_file(b, &k);
    cr_assert(n == k && memcmp(x, y, n) == 0, "%s", what);
    free(x);
    free(y);
}

Test(collect, resumed_anywhere_and_on_any_threads_it_is_the_same_file)
{
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    scratch s;
    char whole[512], part[512];
    scratch_open(&s);
    snprintf(whole, sizeof whole, "%s", scratch_path(&s, "whole"));
    snprintf(part, sizeof part, "%s", scratch_path(&s, "part"));
    fixture f = fixture_open(DEMO_MODEL, 1, 0);
    pl_collector *c = start(&f, &p, both, 2);
    read_passages(c, 2 * PASSAGES);
    write_to(c, whole);
    pl_collector_free(c);
    fixture_close(&f);
    f = fixture_open(DEMO_MODEL, 3, 0);
    for (int stop = 1; stop <= 2 * PASSAGES; stop++) {
        c = start(&f, &p, both, 2);
        read_passages(c, stop);
        write_to(c, part);
        pl_collector_free(c);
        pl_imatrix *file = NULL;
        cr_assert_eq(pl_imatrix_read(part, &file, &err), PL_OK, "%s", err.message);
        c = start(&f, &p, both, 2);
        cr_assert_eq(pl_collector_resume(c, file, part, &err), PL_OK, "%s", err.message);
        pl_imatrix_free(file);
        cr_assert_eq(pl_collector_done(c), stop);
        read_passages(c, 2 * PASSAGES - stop);
        if (stop < 2 * PASSAGES)
            write_to(c, part);
        check_same_files(whole, part, "stopped and resumed");
        pl_collector_free(c);
    }
    fixture_close(&f);
    scratch_close(&s);
}

static void cancel(void *user, const pl_trace_tensor *t)
{
    (void)t;
    pl_session_cancel(user);
}

Test(collect, a_cancelled_passage_leaves_nothing)
{
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    fixture f = fixture_open(DEMO_MODEL, 2, 16);
    pl_collector *c = start(&f, &p, both, 1), *calm = start(&f, &p, both, 1);
    read_passages(calm, 2);
    read_passages(c, 1);
    pl_session_trace(f.session, cancel, f.session);
    cr_assert_eq(pl_collector_next(c, &err), PL_ERR_CANCELLED);
    cr_assert_eq(pl_collector_done(c), 1);
    pl_session_trace(f.session, NULL, NULL);
    read_passages(c, 1);
    const pl_imatrix *a = pl_collector_matrix(c), *b = pl_collector_matrix(calm);
    cr_assert(a->run->n_sums > 0 && a->run->n_sums == b->run->n_sums);
    cr_assert_eq(memcmp(a->run->sums, b->run->sums, a->run->n_sums * sizeof *a->run->sums), 0);
    pl_collector_free(c);
    pl_collector_free(calm);
    fixture_close(&f);
}

static void refuses(pl_collector *c, const pl_imatrix *like, pl_imatrix_run run, int32_t length,
                    const char *const *words)
{
    pl_imatrix file = *like;
    file.run = &run;
    file.chunk_size = length;
    pl_status status = pl_collector_resume(c, &file, "old.gguf", &err);
    expect_failure(status, err.status, &err, words);
    expect_failure(status, err.status, &err, WORDS("old.gguf"));
    cr_assert_eq(pl_collector_done(c), 1, "nothing changed");
}

Test(collect, what_does_not_belong_together)
{
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    pl_collector *c = start(&f, &p, both, 2);
    read_passages(c, 1);
    const pl_imatrix *m = pl_collector_matrix(c);
    pl_imatrix_run good = *m->run, run = good;
    run.model_print ^= 1;
    refuses(c, m, run, LENGTH, WORDS("another model", "Pleiad demo", "fingerprint"));
    refuses(c, m, good, LENGTH + 1, WORDS("41 tokens", "these 40", "--ctx-size"));
    run = good;
    run.passages = 9;
    refuses(c, m, run, LENGTH, WORDS("9 pieces", "this one 3", "--chunks"));
    run = good;
    run.text_print = 8;
    refuses(c, m, run, LENGTH, WORDS("another text", "0000000000000008", "0000000000000007"));
    run = good;
    run.n_paths = 1;
    refuses(c, m, run, LENGTH, WORDS("paths are e4b; these are e4b, e2b"));
    run = good;
    run.n_sums--;
    refuses(c, m, run, LENGTH, WORDS("sums"));
    refuses(c, m, good, 0, WORDS(".dat", "--in-file"));
    pl_imatrix file = *m;
    file.run = NULL;
    expect_failure(pl_collector_resume(c, &file, "x", &err), PL_ERR_UNSUPPORTED, &err, WORDS("x", "does not say"));
    pl_collector_free(c);
    fixture_close(&f);
}

Test(collect, what_cannot_be_asked_for)
{
    static const char *const twice[] = {"e2b", "e2b"}, *const wrong[] = {"e4b", "nonsense"};
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    fixture f = fixture_open(DEMO_MODEL, 2, 0);
    pl_collector *c = NULL;
    expect_failure(pl_collector_create(f.session, &p, "t", twice, 2, &c, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("e2b", "twice"));
    expect_failure(pl_collector_create(f.session, &p, "t", wrong, 2, &c, &err), PL_ERR_ARGUMENT, &err,
                   WORDS("nonsense"));
    p.length = 4096;
    expect_failure(pl_collector_create(f.session, &p, "t", both, 2, &c, &err), PL_ERR_CONTEXT, &err, WORDS("4096"));
    p.length = LENGTH;
    p.n = INT32_MAX;
    expect_failure(pl_collector_create(f.session, &p, "t", both, 2, &c, &err), PL_ERR_ARGUMENT, &err, WORDS("2 paths"));
    p.n = PASSAGES;
    ids[5] = -1;
    c = start(&f, &p, both, 2);
    expect_failure(pl_collector_next(c, &err), PL_ERR_ARGUMENT, &err, WORDS("token 5", "-1"));
    pl_collector_free(c);
    fixture_close(&f);
}

typedef struct creation {
    pl_session *session;
    const pl_passages *passages;
} creation;

static pl_status create_and_free(void *ctx, pl_error *e)
{
    const creation *what = ctx;
    pl_collector *c = NULL;
    PL_TRY(pl_collector_create(what->session, what->passages, "t", both, 2, &c, e));
    pl_collector_free(c);
    return PL_OK;
}

Test(collect, no_memory)
{
    int32_t ids[PASSAGES * LENGTH];
    pl_passages p = text(ids);
    fixture f = fixture_open(DEMO_MODEL, 1, 0);
    creation what = {f.session, &p};
    cr_assert_geq(fail_alloc_each(create_and_free, &what), 3);
    fixture_close(&f);
}
