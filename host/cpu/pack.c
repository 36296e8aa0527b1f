/* Repacking of block-typed weights into panels (see panel.h), and a row back out of them. */
#include "host/cpu/pack.h"

#include "host/cpu/block_rows.h"
#include "host/cpu/neuron.h"

#include <stdatomic.h>
#include <string.h>

/* ---- whole panels ---- */

typedef struct pack_job {
    const pl_tensor *t;
    int64_t first, end; /* rows */
    uint8_t *dst;
    pl_panel_type panel;
    const pl_weight *neurons; /* instead of dst: a matrix in one of their layouts, or NULL */
    _Atomic int64_t bad_row;  /* the first row with a scale that is not finite, or end */
} pack_job;

static void note_bad_row(pack_job *job, int64_t row)
{
    int64_t seen = atomic_load(&job->bad_row);
    while (row < seen && !atomic_compare_exchange_weak(&job->bad_row, &seen, row))
        ;
}

/* The first of the rows with a scale that is infinite or not a number, or PL_PANEL_ROWS. */
static int first_bad(const pl_panel_group *groups, int n)
{
    uint16_t bad[PL_PANEL_ROWS] = {0};
    int row = 0;
    for (int i = 0; i < n; i++)
        for (int r = 0; r < PL_PANEL_ROWS; r++)
            bad[r] |= (uint16_t)((groups[i].d[r] & 0x7c00) == 0x7c00) | (uint16_t)((groups[i].m[r] & 0x7c00) == 0x7c00);
    while (row < PL_PANEL_ROWS && !bad[row])
        row++;
    return row;
}

static void pack_panel(pack_job *job, uint8_t *panel, int64_t row)
{
    const pl_tensor *t = job->t;
    int64_t rows = job->end - row, n_groups = t->cols / PL_GROUP;
    pl_panel_group groups[PL_SPAN_GROUPS] = {0};
    pl_block_rows from = {pl_tensor_row(t, row), pl_tensor_row_bytes(t),
                          rows < PL_PANEL_ROWS ? (int)rows : PL_PANEL_ROWS};
    size_t bytes = pl_dtype_bytes(t->type, PL_SPAN);
    for (int64_t at = 0; at < n_groups; at += PL_SPAN_GROUPS, from.first += bytes, panel += pl_span_bytes(job->panel)) {
        int n = n_groups - at < PL_SPAN_GROUPS ? (int)(n_groups - at) : PL_SPAN_GROUPS;
        pl_block_rows_read(t->type, &from, n, groups);
        int bad = first_bad(groups, n);
        if (bad < PL_PANEL_ROWS)
            note_bad_row(job, row + bad);
        if (job->neurons)
            pl_neuron_put(job->neurons, row / PL_PANEL_ROWS, at / PL_SPAN_GROUPS, groups, n);
        else
            pl_panel_put(t->type, panel, groups, n);
    }
}

static void pack_panels(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    pack_job *job = ctx;
    size_t bytes = job->neurons ? 0 : pl_panel_bytes(job->panel, job->t->cols);
    for (int64_t p = begin; p < end; p++)
        pack_panel(job, job->dst + (size_t)p * bytes, job->first + p * PL_PANEL_ROWS);
}

size_t pl_pack_bytes(const pl_tensor *t)
{
    pl_panel_type panel = pl_panel_describe(t->type);
    return panel.bits ? (size_t)pl_panel_count(t->rows) * pl_panel_bytes(panel, t->cols) : 0;
}

/* grain: panels that one thread puts together. */
static pl_status run_job(pl_pool *pool, pack_job *job, int64_t grain, pl_error *err)
{
    atomic_init(&job->bad_row, job->end);
    pl_pool_for(pool, pl_panel_count(job->end - job->first), grain, pack_panels, job);
    int64_t bad = atomic_load(&job->bad_row);
    if (bad < job->end)
        return pl_fail(err, PL_ERR_FORMAT, "tensor %s, row %lld: a block's scale is not finite", job->t->name,
                       (long long)bad);
    return PL_OK;
}

pl_status pl_pack_rows(pl_pool *pool, const pl_tensor *t, int64_t row, int64_t n, void *dst, pl_error *err)
{
    pack_job job = {.t = t, .first = row, .end = row + n, .dst = dst, .panel = pl_panel_describe(t->type)};
    return run_job(pool, &job, 1, err);
}

static pl_weight as_in_file(const pl_tensor *t)
{
    return (pl_weight){.name = t->name,
                       .data = t->data,
                       .rows = t->rows,
                       .cols = t->cols,
                       .type = t->type,
                       .bytes = (size_t)t->rows * pl_tensor_row_bytes(t)};
}

pl_status pl_pack(pl_pool *pool, const pl_tensor *t, void *dst, pl_weight *out, pl_error *err)
{
    *out = as_in_file(t);
    size_t bytes = pl_pack_bytes(t);
    if (bytes == 0)
        return PL_OK;
    PL_TRY(pl_pack_rows(pool, t, 0, t->rows, dst, err));
    out->data = dst;
    out->packed = true;
    out->bytes = bytes;
    return PL_OK;
}

pl_status pl_pack_neurons(pl_pool *pool, const pl_tensor *t, pl_weight_layout layout, void *dst, pl_weight *out,
                          pl_error *err)
{
    if (layout == PL_PANELS || !pl_neuron_fits(t->type, t->rows, t->cols, layout))
        return pl_pack(pool, t, dst, out, err);
    *out = as_in_file(t);
    out->data = dst;
    out->packed = true;
    out->layout = layout;
    out->bytes = pl_pack_bytes(t);
    pack_job job = {.t = t, .end = t->rows, .dst = dst, .panel = pl_panel_describe(t->type), .neurons = out};
    return run_job(pool, &job, pl_neuron_shared_panels(t->type, layout), err);
}

/* ---- a row back ---- */

static void panel_row(const pl_weight *w, int64_t row, float *out)
{
    pl_panel_type t = pl_panel_describe(w->type);
    int lane = (int)(row % PL_PANEL_ROWS);
    const uint8_t *panel = (const uint8_t *)w->data + (size_t)(row / PL_PANEL_ROWS) * pl_panel_bytes(t, w->cols);
    uint8_t work[PL_NEURON_SPAN_BYTES] __attribute__((aligned(64)));
    for (int64_t i = 0; i < w->cols / PL_GROUP; i++) {
        const uint8_t *span = panel + (size_t)(i / PL_SPAN_GROUPS) * pl_span_bytes(t);
        pl_group_values g;
        if (w->layout != PL_PANELS) {
            pl_neuron_span(w, row / PL_PANEL_ROWS, i / PL_SPAN_GROUPS, (int)(i % PL_SPAN_GROUPS) + 1, work);
            span = work;
        }
        pl_panel_get(w->type, span, (int)(i % PL_SPAN_GROUPS), lane, &g);
        for (int l = 0; l < PL_GROUP; l++) {
            float value = g.d[l / 16] * (float)(g.code[l] - t.offset);
            out[PL_GROUP * i + l] = pl_has_minimum(t.kind) ? value + g.m[l / 16] : value;
        }
    }
}

void pl_weight_row(const pl_weight *w, int64_t row, float *out)
{
    if (w->packed)
        panel_row(w, row, out);
    else
        pl_decode(w->type, (const char *)w->data + (size_t)row * pl_dtype_bytes(w->type, w->cols), out, w->cols);
}
