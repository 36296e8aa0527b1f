#include "host/measure/probe.h"

#include "host/base/cpu.h"
#include "host/engine/engine.h"
#include "host/measure/divergence.h"
#include "quant/encode.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PROBE_TYPE PL_Q4_0
#define PIECE 64 /* positions whose logits are held at once */

/* One tensor of the model and its 4-bit twin. */
typedef struct twin {
    const pl_tensor *from;
    pl_weight *place; /* NULL: the per-layer table */
    pl_weight original, probe;
    pl_tensor blocks; /* its data is `memory` */
    size_t memory_bytes, packed_bytes;
    void *memory, *packed;
    double relative_error;
} twin;

typedef struct probe {
    pl_engine *engine;
    const pl_probe_params *params;
    const pl_encoder *encoder;
    pl_session *reference, *changed;
    float *logits, *reference_logits; /* [PIECE][vocab] */
    twin *twins;                      /* of one part */
    size_t n_twins;
    pl_ple_rows rows; /* the original per-layer table */
    int parts, done;  /* passages run, for progress */
    pl_error *err;
} probe;

/* ---- twins -------------------------------------------------------------------------------------- */

typedef struct encode_job {
    const probe *p;
    twin *t;
    const int32_t *rows;     /* which ones; NULL: all */
    pl_encode_error *errors; /* of each of them */
    _Atomic bool no_memory;
} encode_job;

static void encode_rows(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    encode_job *j = ctx;
    const pl_tensor *from = j->t->from;
    float *values = malloc((size_t)from->cols * 2 * sizeof *values);
    if (!values) {
        atomic_store(&j->no_memory, true);
        return;
    }
    float *back = values + from->cols;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = j->rows ? j->rows[i] : i;
        void *blocks = (char *)j->t->memory + (size_t)row * pl_tensor_row_bytes(&j->t->blocks);
        pl_decode(from->type, pl_tensor_row(from, row), values, from->cols);
        j->p->encoder->encode(PROBE_TYPE, values, NULL, blocks, from->cols);
        pl_decode(PROBE_TYPE, blocks, back, from->cols);
        j->errors[i] = j->p->encoder->measure(values, back, NULL, from->cols);
    }
    free(values);
}

static double relative_error(const pl_encode_error *errors, int64_t n)
{
    double error = 0, energy = 0;
    for (int64_t i = 0; i < n; i++) {
        error += errors[i].error;
        energy += errors[i].energy;
    }
    return energy > 0 ? error / energy : 0;
}

/* Fills t->blocks: address space for all rows, memory only for those that are written. */
static pl_status encode_twin(probe *p, twin *t, const int32_t *rows, int64_t n_rows)
{
    t->blocks = (pl_tensor){.name = t->from->name, .rows = t->from->rows, .cols = t->from->cols, .type = PROBE_TYPE};
    t->memory_bytes = (size_t)t->from->rows * pl_tensor_row_bytes(&t->blocks);
    void *memory = mmap(NULL, t->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                        0);
    if (memory == MAP_FAILED)
        return pl_fail_memory(p->err, t->memory_bytes, t->from->name);
    t->blocks.data = t->memory = memory;
    encode_job job = {.p = p, .t = t, .rows = rows, .errors = calloc((size_t)n_rows, sizeof *job.errors)};
    if (job.errors)
        pl_pool_for(p->engine->backend->pool, n_rows, 16, encode_rows, &job);
    bool no_memory = !job.errors || atomic_load(&job.no_memory);
    if (!no_memory)
        t->relative_error = relative_error(job.errors, n_rows);
    free(job.errors);
    return no_memory ? pl_fail_memory(p->err, (size_t)n_rows * sizeof *job.errors, t->from->name) : PL_OK;
}

static pl_status load_twin(probe *p, twin *t)
{
    pl_backend *b = p->engine->backend;
    t->original = *t->place;
    t->packed_bytes = b->weight_bytes(b, &t->blocks);
    t->packed = b->memory_take(b, t->packed_bytes);
    if (!t->packed)
        return pl_fail_memory(p->err, t->packed_bytes, t->from->name);
    return b->weight_load(b, &t->blocks, t->packed, &t->probe, p->err);
}

static void drop_twins(probe *p)
{
    pl_backend *b = p->engine->backend;
    for (size_t i = 0; i < p->n_twins; i++) {
        twin *t = &p->twins[i];
        if (t->memory)
            munmap(t->memory, t->memory_bytes);
        if (t->packed)
            b->memory_give(b, t->packed, t->packed_bytes);
    }
    p->n_twins = 0;
}

static int by_id(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The rows of the per-layer table that the passages look up, and row 0, which stands for ids beyond. */
static pl_status table_rows(const probe *p, int32_t **out, int64_t *n_out)
{
    const pl_passages *passages = p->params->passages;
    size_t n = (size_t)passages->n * (size_t)passages->length, kept = 0;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    if (!ids)
        return pl_fail_memory(p->err, (n + 1) * sizeof *ids, "token ids");
    memcpy(ids, passages->ids, n * sizeof *ids);
    ids[n] = 0;
    qsort(ids, n + 1, sizeof *ids, by_id);
    for (size_t i = 0; i <= n && ids[i] < p->engine->ple_rows.vocab; i++)
        if (i == 0 || ids[i] != ids[kept - 1])
            ids[kept++] = ids[i];
    *out = ids;
    *n_out = (int64_t)kept;
    return PL_OK;
}

static pl_status make_table_twin(probe *p, twin *t)
{
    int32_t *rows = NULL;
    int64_t n = 0;
    PL_TRY(table_rows(p, &rows, &n));
    pl_status status = encode_twin(p, t, rows, n);
    free(rows);
    return status;
}

/* The twins of a role in a third of the depth; n_twins is 0 where there is nothing to probe. */
static pl_status make_twins(probe *p, pl_role role, int third)
{
    pl_net *net = p->engine->net;
    const pl_weights *weights = pl_checkpoint_weights(p->engine->model->checkpoint);
    int block = pl_dtype_describe(PROBE_TYPE)->block_elems;
    for (pl_weight_cursor at = {0}; pl_weight_next(weights, net->config, &at);) {
        if (at.role != role || pl_third_of(net->config, at.layer) != third || at.tensor->cols % block != 0)
            continue;
        twin *t = &p->twins[p->n_twins++];
        *t = (twin){.from = at.tensor};
        if (role == PL_ROLE_PLE_TABLE) {
            PL_TRY(make_table_twin(p, t));
            continue;
        }
        t->place = pl_net_weight(net, at.layer, role, at.index);
        PL_TRY(encode_twin(p, t, NULL, at.tensor->rows));
        PL_TRY(load_twin(p, t));
    }
    return PL_OK;
}

static pl_ple_rows rows_of(const probe *p, const pl_tensor *table)
{
    pl_ple_rows rows = p->rows;
    rows.base = table->data;
    rows.type = table->type;
    rows.row_bytes = pl_tensor_row_bytes(table);
    return rows;
}

/* Puts the twins into the model, or the originals back. A tied head goes with the embedding. */
static void swap_in(probe *p, bool twins)
{
    for (size_t i = 0; i < p->n_twins; i++) {
        const twin *t = &p->twins[i];
        if (t->place)
            *t->place = twins ? t->probe : t->original;
        else
            p->engine->ple_rows = twins ? rows_of(p, &t->blocks) : p->rows;
    }
    if (!pl_checkpoint_weights(p->engine->model->checkpoint)->head.data)
        p->engine->net->head = p->engine->net->embed;
}

/* ---- runs --------------------------------------------------------------------------------------- */

static pl_status run_passage(probe *p, int32_t passage, pl_quality *quality)
{
    const pl_passages *passages = p->params->passages;
    int32_t length = passages->length, vocab = p->engine->config->vocab;
    const int32_t *ids = passages->ids + (size_t)passage * (size_t)length;
    for (int32_t at = 0; at < length; at += PIECE) {
        int32_t n = length - at < PIECE ? length - at : PIECE;
        PL_TRY(pl_logits(p->reference, ids + at, (size_t)n, at > 0, p->reference_logits, p->err));
        swap_in(p, true);
        pl_status status = pl_logits(p->changed, ids + at, (size_t)n, at > 0, p->logits, p->err);
        swap_in(p, false);
        PL_TRY(status);
        for (int32_t i = 0; i < n && at + i + 1 < length; i++)
            if (pl_passages_scores(passages, passage, at + i))
                pl_quality_add(quality, p->logits + (size_t)i * (size_t)vocab,
                               p->reference_logits + (size_t)i * (size_t)vocab, vocab, ids[at + i + 1]);
    }
    return PL_OK;
}

static pl_status run_path(probe *p, const char *path, pl_quality *quality)
{
    const pl_probe_params *params = p->params;
    const pl_passages *passages = params->passages;
    PL_TRY(pl_session_set_path(p->reference, path, PL_SWITCH_EXACT, p->err));
    PL_TRY(pl_session_set_path(p->changed, path, PL_SWITCH_EXACT, p->err));
    for (int32_t i = 0; i < passages->n; i++) {
        if (params->cancelled && params->cancelled(params->user))
            return pl_fail(p->err, PL_ERR_CANCELLED, "cancelled");
        PL_TRY(run_passage(p, i, quality));
        p->done++;
        if (params->progress)
            params->progress(params->user, "probing",
                             (double)p->done / ((double)p->parts * (double)params->n_paths * (double)passages->n));
    }
    return PL_OK;
}

static pl_status run_part(probe *p, double *value)
{
    pl_quality quality = {0};
    double error = 0;
    for (size_t i = 0; i < p->n_twins; i++)
        error += p->twins[i].relative_error / (double)p->n_twins;
    for (size_t i = 0; i < p->params->n_paths; i++)
        PL_TRY(run_path(p, p->params->paths[i], &quality));
    *value = error > 0 ? quality.kl / (double)quality.n_compared / error : 0;
    return PL_OK;
}

static pl_status probe_part(probe *p, pl_role role, int third, double *value)
{
    pl_status status = make_twins(p, role, third);
    *value = NAN;
    if (status == PL_OK && p->n_twins > 0)
        status = run_part(p, value);
    drop_twins(p);
    return status;
}

static bool has_part(const probe *p, pl_role role, int third)
{
    const pl_weights *weights = pl_checkpoint_weights(p->engine->model->checkpoint);
    for (pl_weight_cursor at = {0}; pl_weight_next(weights, p->engine->config, &at);)
        if (at.role == role && pl_third_of(p->engine->config, at.layer) == third)
            return true;
    return false;
}

static pl_status probe_parts(probe *p, pl_sensitivity *out)
{
    for (pl_role role = 0; role < PL_ROLES; role++)
        for (int third = 0; third < pl_sensitivity_values(role); third++)
            p->parts += has_part(p, role, third);
    for (pl_role role = 0; role < PL_ROLES; role++)
        for (int third = 0; third < pl_sensitivity_values(role); third++)
            PL_TRY(probe_part(p, role, third, &out->value[role][third]));
    return PL_OK;
}

pl_status pl_probe_sensitivity(pl_engine *engine, const pl_probe_params *params, pl_sensitivity *out, pl_error *err)
{
    probe p = {.engine = engine,
               .params = params,
               .encoder = pl_encoder_select(pl_cpu_features(PL_CPU_ALL)),
               .rows = engine->ple_rows,
               .err = err};
    size_t logits_bytes = PIECE * (size_t)engine->config->vocab * sizeof(float);
    pl_sensitivity found = *out;
    pl_status status = PL_OK;
    p.twins = calloc((size_t)engine->config->n_layers + PL_ALTUP, sizeof *p.twins);
    p.logits = malloc(logits_bytes);
    p.reference_logits = malloc(logits_bytes);
    if (!p.twins || !p.logits || !p.reference_logits) {
        status = pl_fail_memory(err, 2 * logits_bytes, "logits");
        goto fail;
    }
    PL_TRY_GOTO(pl_session_create(engine, &p.reference, err));
    PL_TRY_GOTO(pl_session_create(engine, &p.changed, err));
    PL_TRY_GOTO(probe_parts(&p, &found));
    *out = found;
fail:
    pl_session_free(p.reference);
    pl_session_free(p.changed);
    free(p.logits);
    free(p.reference_logits);
    free(p.twins);
    return status;
}
