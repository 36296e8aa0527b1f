#include "host/measure/collect.h"

#include "host/engine/session.h"
#include "host/model/fingerprint.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TILE_COLS 256
#define BLOCK_ROWS 16 /* summed in f32 */

/* The sums of one tensor; absent: sum2 NULL. */
typedef struct slot {
    const char *name;
    double *sum2, *count; /* the matrix' [n_mat][cols], [n_mat] */
    double *pass_sum2;    /* the current passage's, likewise */
    double *pass_count;
    int64_t cols;
    int n_mat;
} slot;

struct pl_collector {
    pl_session *session;
    const pl_passages *passages;
    pl_arena *arena;
    pl_imatrix *matrix;
    pl_imatrix_run run;
    slot *slots; /* [n_layers + 1][PL_ROLES], those of the whole model first */
    size_t n_slots;
    double *pass; /* [n_sums] what the slots' pass_* point into */
    double *sums; /* [n_sums] the matrix in the same order, for run */
    size_t n_sums;
    int path; /* of run.paths, on which the session is; -1: not known */
};

static slot *slot_at(const pl_collector *c, int layer, pl_role role)
{
    return &c->slots[(size_t)(layer + 1) * PL_ROLES + role];
}

/* ---- creation ---- */

static pl_status add_slot(pl_collector *c, const pl_weight_cursor *at, pl_error *err)
{
    const pl_weight_info *info = &pl_weight_table[at->role];
    pl_imatrix_entry *entry = NULL;
    char name[PL_WEIGHT_NAME_BYTES];
    pl_weight_name(PL_CHECKPOINT_GGUF, "", at->layer, at->role, 0, name);
    PL_TRY(pl_imatrix_entry_at(c->matrix, name, at->tensor->cols, info->count, &entry, err));
    pl_role role = at->role == PL_ROLE_EMBED ? PL_ROLE_HEAD : at->role;
    *slot_at(c, at->layer, role) = (slot){
        .name = entry->name, .sum2 = entry->sum2, .count = entry->count, .cols = entry->cols, .n_mat = entry->n_mat};
    c->n_sums += (size_t)entry->n_mat * ((size_t)entry->cols + 1);
    return PL_OK;
}

static pl_status add_slots(pl_collector *c, pl_error *err)
{
    const pl_checkpoint *checkpoint = c->session->engine->model->checkpoint;
    const pl_weights *weights = pl_checkpoint_weights(checkpoint);
    for (pl_weight_cursor at = {0}; pl_weight_next(weights, pl_checkpoint_config(checkpoint), &at);) {
        bool multiplied = pl_weight_table[at.role].kind == PL_WEIGHT_MATRIX;
        if (multiplied && at.index == 0 && !(at.role == PL_ROLE_EMBED && weights->head.data))
            PL_TRY(add_slot(c, &at, err));
    }
    c->pass = pl_arena_take(c->arena, c->n_sums, sizeof *c->pass);
    c->sums = pl_arena_take(c->arena, c->n_sums, sizeof *c->sums);
    if (!c->pass || !c->sums)
        return pl_fail_memory(err, c->n_sums * sizeof *c->pass, "the sums of an importance matrix");
    double *next = c->pass;
    for (slot *s = c->slots; s < c->slots + c->n_slots; s++) {
        if (!s->sum2)
            continue;
        s->pass_sum2 = next;
        s->pass_count = next + s->n_mat * s->cols;
        next = s->pass_count + s->n_mat;
    }
    return PL_OK;
}

static pl_status check_paths(pl_collector *c, const char *const *paths, size_t n, pl_error *err)
{
    const char **copies = pl_arena_take(c->arena, n, sizeof *copies);
    if (!copies)
        return pl_fail_memory(err, n * sizeof *copies, "a list of paths");
    for (size_t i = 0; i < n; i++) {
        pl_path parsed;
        PL_TRY(pl_path_parse(c->session->engine->model->checkpoint, paths[i], &parsed, err));
        for (size_t k = 0; k < i; k++)
            if (strcmp(paths[k], paths[i]) == 0)
                return pl_fail(err, PL_ERR_ARGUMENT, "path %s is given twice", paths[i]);
        copies[i] = pl_arena_text(c->arena, paths[i], strlen(paths[i]));
        if (!copies[i])
            return pl_fail_memory(err, strlen(paths[i]), "a path");
    }
    c->run.paths = copies;
    c->run.n_paths = n;
    return PL_OK;
}

static pl_status describe(pl_collector *c, const char *text_name, pl_error *err)
{
    const pl_checkpoint *checkpoint = c->session->engine->model->checkpoint;
    const char **datasets = pl_arena_take(c->arena, 1, sizeof *datasets);
    char *name = pl_arena_text(c->arena, text_name, strlen(text_name));
    if (!datasets || !name)
        return pl_fail_memory(err, strlen(text_name), "the name of a text");
    datasets[0] = name;
    c->matrix->datasets = datasets;
    c->matrix->n_datasets = 1;
    c->matrix->chunk_size = c->passages->length;
    c->matrix->run = &c->run;
    c->run.model = pl_checkpoint_name(checkpoint);
    c->run.model_print = pl_checkpoint_fingerprint(checkpoint);
    c->run.text_print = c->passages->fingerprint;
    c->run.passages = c->passages->n;
    return PL_OK;
}

static pl_status check_size(const pl_passages *passages, const pl_session *session, size_t n_paths, pl_error *err)
{
    if (passages->length > session->engine->context)
        return pl_fail(err, PL_ERR_CONTEXT, "pieces of %d tokens do not fit the context of %d", passages->length,
                       session->engine->context);
    if (n_paths > (size_t)(INT32_MAX / passages->n))
        return pl_fail(err, PL_ERR_ARGUMENT, "%d pieces on %zu paths are too many", passages->n, n_paths);
    return PL_OK;
}

pl_status pl_collector_create(pl_session *session, const pl_passages *passages, const char *text_name,
                              const char *const *paths, size_t n_paths, pl_collector **out, pl_error *err)
{
    const char *own = pl_session_path(session);
    PL_TRY(check_size(passages, session, n_paths, err));
    pl_collector *c = calloc(1, sizeof *c);
    if (!c)
        return pl_fail_memory(err, sizeof *c, "an importance matrix");
    pl_status status = PL_OK;
    c->session = session;
    c->passages = passages;
    c->path = -1;
    c->n_slots = (size_t)(session->engine->config->n_layers + 1) * PL_ROLES;
    PL_TRY_GOTO(pl_imatrix_create(&c->matrix, err));
    c->arena = c->matrix->arena;
    c->slots = pl_arena_take(c->arena, c->n_slots, sizeof *c->slots);
    if (!c->slots) {
        status = pl_fail_memory(err, c->n_slots * sizeof *c->slots, "an importance matrix");
        goto fail;
    }
    PL_TRY_GOTO(check_paths(c, n_paths > 0 ? paths : &own, n_paths > 0 ? n_paths : 1, err));
    PL_TRY_GOTO(add_slots(c, err));
    PL_TRY_GOTO(describe(c, text_name, err));
    *out = c;
    return PL_OK;
fail:
    pl_collector_free(c);
    return status;
}

void pl_collector_free(pl_collector *c)
{
    if (!c)
        return;
    pl_imatrix_free(c->matrix);
    free(c);
}

/* ---- summing ---- */

typedef struct summing {
    const pl_watch *product;
    double *sum2;
} summing;

/* Columns [from, to) of rows [first, last), to be added to sum2. */
static void sum_block(const pl_watch *p, int first, int last, int64_t from, int64_t to, double *sum2)
{
    float part[TILE_COLS] = {0};
    for (int r = first; r < last; r++) {
        int64_t end = p->n_in && p->n_in[r] < to ? p->n_in[r] : to;
        const float *x = p->x + r * p->ld + from;
        for (int64_t k = 0; k < end - from; k++)
            part[k] += x[k] * x[k];
    }
    for (int64_t k = 0; k < to - from; k++)
        sum2[from + k] += (double)part[k];
}

static void sum_tiles(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    const summing *s = ctx;
    const pl_watch *p = s->product;
    for (int64_t tile = begin; tile < end; tile++) {
        int64_t from = tile * TILE_COLS, to = from + TILE_COLS < p->cols ? from + TILE_COLS : p->cols;
        for (int first = 0; first < p->n; first += BLOCK_ROWS)
            sum_block(p, first, first + BLOCK_ROWS < p->n ? first + BLOCK_ROWS : p->n, from, to, s->sum2);
    }
}

static void add_product(void *user, const pl_watch *product)
{
    pl_collector *c = user;
    const slot *s = slot_at(c, product->layer, product->role);
    summing work = {product, s->pass_sum2 + product->index * s->cols};
    int64_t tiles = (product->cols + TILE_COLS - 1) / TILE_COLS;
    pl_pool_for(c->session->engine->backend->pool, tiles, 1, sum_tiles, &work);
    s->pass_count[product->index] += product->n;
}

/* The passage that was read becomes part of the matrix. */
static pl_status commit(pl_collector *c, pl_error *err)
{
    for (slot *s = c->slots; s < c->slots + c->n_slots; s++) {
        for (int64_t i = 0; s->sum2 && i < s->n_mat * s->cols; i++)
            if (!isfinite(s->pass_sum2[i]))
                return pl_fail(err, PL_ERR_NUMERIC, "piece %d: what %s is multiplied with is too large to be squared",
                               c->run.done % c->run.passages, s->name);
    }
    for (slot *s = c->slots; s < c->slots + c->n_slots; s++) {
        for (int64_t i = 0; s->sum2 && i < s->n_mat * s->cols; i++)
            s->sum2[i] += s->pass_sum2[i];
        for (int i = 0; i < s->n_mat; i++)
            s->count[i] += s->pass_count[i];
    }
    c->run.done++;
    return PL_OK;
}

static pl_status read_passage(pl_collector *c, pl_error *err)
{
    pl_session *s = c->session;
    int path = c->run.done / c->run.passages, passage = c->run.done % c->run.passages;
    if (c->path != path)
        PL_TRY(pl_session_set_path(s, c->run.paths[path], PL_SWITCH_EXACT, err));
    c->path = path;
    const int32_t *ids = c->passages->ids + (int64_t)passage * c->passages->length;
    pl_soft_holds holds = {0};
    PL_TRY(pl_session_truncate(s, 0, err));
    PL_TRY(pl_engine_hold_ids(s->engine, ids, (size_t)c->passages->length, "token", &holds, err));
    pl_session_adopt(s, ids, c->passages->length, &holds);
    atomic_store(&s->cancelled, false);
    memset(c->pass, 0, c->n_sums * sizeof *c->pass);
    pl_session_watch(s, add_product, c);
    pl_status status = pl_session_read(s, c->passages->length, true, NULL, NULL, err);
    pl_session_watch(s, NULL, NULL);
    return status;
}

pl_status pl_collector_next(pl_collector *c, pl_error *err)
{
    PL_TRY(read_passage(c, err));
    return commit(c, err);
}

int32_t pl_collector_done(const pl_collector *c)
{
    return c->run.done;
}

int32_t pl_collector_total(const pl_collector *c)
{
    return c->run.passages * (int32_t)c->run.n_paths;
}

/* ---- files ---- */

const pl_imatrix *pl_collector_matrix(pl_collector *c)
{
    double *at = c->sums;
    for (slot *s = c->slots; s < c->slots + c->n_slots; s++) {
        if (!s->sum2)
            continue;
        memcpy(at, s->sum2, (size_t)(s->n_mat * s->cols) * sizeof *at);
        memcpy(at + s->n_mat * s->cols, s->count, (size_t)s->n_mat * sizeof *at);
        at += s->n_mat * (s->cols + 1);
    }
    bool all = c->run.done == pl_collector_total(c);
    c->run.sums = all ? NULL : c->sums;
    c->run.n_sums = all ? 0 : c->n_sums;
    c->matrix->chunks = c->run.done;
    return c->matrix;
}

static bool same_paths(const pl_imatrix_run *a, const pl_imatrix_run *b)
{
    bool same = a->n_paths == b->n_paths;
    for (size_t i = 0; same && i < a->n_paths; i++)
        same = strcmp(a->paths[i], b->paths[i]) == 0;
    return same;
}

/* "e4b, e2b", cut to fit. */
static const char *list_paths(const pl_imatrix_run *run, char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < run->n_paths && at < size - 1; i++) {
        int n = snprintf(out + at, size - at, "%s%s", i > 0 ? ", " : "", run->paths[i]);
        at = at + (size_t)n < size ? at + (size_t)n : size - 1;
    }
    return out;
}

static pl_status check_text(const pl_collector *c, const pl_imatrix *file, const char *where, pl_error *err)
{
    const pl_imatrix_run *run = file->run, *own = &c->run;
    if (file->chunk_size != c->passages->length)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s cannot go on: its pieces have %d tokens, these %d (--ctx-size)",
                       where, file->chunk_size, c->passages->length);
    if (run->passages != own->passages)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s cannot go on: its text has %d pieces, this one %d (--file, --chunks)", where, run->passages,
                       own->passages);
    if (run->text_print != own->text_print)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s cannot go on: it is of another text of the same length (fingerprint %016" PRIx64
                       ", this one's %016" PRIx64 ")",
                       where, run->text_print, own->text_print);
    return PL_OK;
}

static pl_status check_same(const pl_collector *c, const pl_imatrix *file, const char *where, pl_error *err)
{
    const pl_imatrix_run *run = file->run, *own = &c->run;
    char before[128], now[128];
    if (file->chunk_size == 0)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s cannot go on: a .dat holds means only and not what they are of; add it to another run with "
                       "--in-file",
                       where);
    if (!run)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s cannot go on: it does not say what went into it; add it to another run with --in-file",
                       where);
    if (run->model_print != own->model_print)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s cannot go on: it is of another model, '%s' (fingerprint %016" PRIx64
                       "); this is '%s' (%016" PRIx64 ")",
                       where, run->model, run->model_print, own->model, own->model_print);
    PL_TRY(check_text(c, file, where, err));
    if (!same_paths(run, own))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s cannot go on: its paths are %s; these are %s", where,
                       list_paths(run, before, sizeof before), list_paths(own, now, sizeof now));
    return PL_OK;
}

pl_status pl_collector_resume(pl_collector *c, const pl_imatrix *file, const char *where, pl_error *err)
{
    PL_TRY(check_same(c, file, where, err));
    const pl_imatrix_run *run = file->run;
    if (run->sums && run->n_sums != c->n_sums)
        return pl_fail(err, PL_ERR_FORMAT, "%s: it holds %zu sums to go on with, expected %zu", where, run->n_sums,
                       c->n_sums);
    const double *at = run->sums;
    for (slot *s = c->slots; at && s < c->slots + c->n_slots; s++) {
        if (!s->sum2)
            continue;
        memcpy(s->sum2, at, (size_t)(s->n_mat * s->cols) * sizeof *at);
        memcpy(s->count, at + s->n_mat * s->cols, (size_t)s->n_mat * sizeof *at);
        at += s->n_mat * (s->cols + 1);
    }
    c->run.done = run->done;
    return PL_OK;
}
