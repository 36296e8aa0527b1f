#include "host/convert/write_gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "host/base/cpu.h"
#include "host/convert/importance.h"
#include "host/convert/metadata.h"
#include "host/convert/read_rows.h"

/* A piece is what a thread does at a time: its values stay in the second-level cache from reading to encoding. A batch
 * is what is written at a time. */
#define PIECE_VALUES (64 << 10)
#define PIECES_A_THREAD 16

#define FOLDER_BYTES 4096 /* of a path; a longer one fails when the file is opened */

typedef struct piece {
    pl_encode_error error;
    int64_t bad; /* place of the first value that is not finite; -1: all are */
} piece;

/* Rows [row, row + n) of a tensor, as bytes once they are encoded. */
typedef struct batch {
    unsigned char *bytes; /* [room] */
    size_t n_bytes;
} batch;

typedef struct writing {
    const pl_export *e;
    const pl_write_options *options;
    const pl_encoder *encoder;
    pl_gguf_writer *writer;
    float **values, **decoded; /* [threads][piece_room] */
    piece *pieces;             /* [max_pieces] of the current batch */
    int64_t max_pieces;
    batch encoding, pending; /* pending: encoded, not yet written */
    double done, total;      /* bytes */

    const pl_export_tensor *t; /* the current one */
    pl_importance importance;
    int64_t row, n, piece_rows; /* the current batch */
    pl_error append_error;
} writing;

/* ---- one piece ----------------------------------------------------------------------------------- */

static size_t row_bytes(const pl_export_tensor *t)
{
    return pl_dtype_bytes(t->type, t->n_cols);
}

static int64_t piece_rows_of(const pl_export_tensor *t)
{
    int64_t n = PIECE_VALUES / t->n_cols;
    return n < 1 ? 1 : n < t->n_rows ? n : t->n_rows;
}

static bool is_plain(pl_dtype type)
{
    return pl_dtype_describe((int)type)->block_elems == 1;
}

/* bytes: NULL where they were copied, so that only the energy is of interest. */
static void measure(const writing *w, int64_t row, int64_t n, const void *bytes, const float *values, float *decoded,
                    pl_encode_error *sum)
{
    int64_t cols = w->t->n_cols;
    if (bytes)
        pl_decode(w->t->type, bytes, decoded, n * cols);
    for (int64_t i = 0; i < n; i++) {
        const float *before = values + i * cols, *after = bytes ? decoded + i * cols : before;
        pl_encode_error one = w->encoder->measure(before, after, pl_importance_row(&w->importance, row + i), cols);
        sum->error += one.error;
        sum->energy += one.energy;
    }
}

static void encode(const writing *w, int64_t row, int64_t n, const float *values, unsigned char *out)
{
    const pl_export_tensor *t = w->t;
    if (!w->importance.weight) {
        w->encoder->encode(t->type, values, NULL, out, n * t->n_cols);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        w->encoder->encode(t->type, values + i * t->n_cols, pl_importance_row(&w->importance, row + i),
                           out + (size_t)i * row_bytes(t), t->n_cols);
}

static void do_piece(const writing *w, int64_t index, int thread)
{
    const pl_export_tensor *t = w->t;
    piece *p = &w->pieces[index];
    int64_t from = index * w->piece_rows, left = w->n - from, n = left < w->piece_rows ? left : w->piece_rows;
    unsigned char *out = w->encoding.bytes + (size_t)from * row_bytes(t);
    float *values = w->values[thread];
    bool copy = pl_export_is_copy(t);
    *p = (piece){.error = {0, 0}, .bad = -1};
    if ((!copy || is_plain(t->type) || w->options->errors) && !pl_read_rows(t, w->row + from, n, values, &p->bad))
        return;
    if (copy)
        pl_export_copy(t, w->row + from, n, out);
    else
        encode(w, w->row + from, n, values, out);
    if (w->options->errors)
        measure(w, w->row + from, n, copy ? NULL : out, values, w->decoded[thread], &p->error);
}

/* Item 0 writes the batch before, so that the disk has work while the others encode. */
static void do_items(void *ctx, int64_t begin, int64_t end, int thread)
{
    writing *w = ctx;
    for (int64_t i = begin; i < end; i++)
        if (i > 0)
            do_piece(w, i - 1, thread);
        else if (w->pending.n_bytes > 0)
            (void)pl_gguf_writer_append(w->writer, w->pending.bytes, w->pending.n_bytes, &w->append_error);
}

/* ---- one batch ----------------------------------------------------------------------------------- */

/* The rows of part p of the source behind the file's rows [row, end); false where there are none, or where rows are
 * picked out and so lie apart. */
static bool find_view(const pl_export_tensor *t, int p, int64_t row, int64_t end, pl_tensor *view)
{
    int64_t each = t->n_rows / t->n_parts, from = row - p * each, to = end - p * each;
    *view = t->source[p];
    from = from > 0 ? from : 0;
    to = to < view->rows ? to : view->rows; /* the rest is padding */
    if (t->rows || from >= to)
        return false;
    view->data = pl_tensor_row(view, from);
    view->rows = to - from;
    return true;
}

/* So that the disk reads while the processor encodes. */
static void expect_rows(const writing *w, const pl_export_tensor *t, int64_t row, int64_t n)
{
    pl_tensor view;
    for (int p = 0; t->source && p < t->n_parts; p++)
        if (find_view(t, p, row, row + n, &view))
            pl_checkpoint_will_need(w->e->source, &view);
}

/* What will not be read again leaves memory. */
static void drop_rows(const writing *w)
{
    const pl_export_tensor *t = w->t;
    pl_tensor view;
    bool last = w->row + w->n == t->n_rows;
    for (int p = 0; t->source && p < t->n_parts; p++)
        if (find_view(t, p, w->row, w->row + w->n, &view))
            pl_checkpoint_drop(w->e->source, &view);
        else if (t->rows && last)
            pl_checkpoint_drop(w->e->source, &t->source[p]);
}

static void swap_batches(writing *w)
{
    batch written = w->pending;
    w->pending = w->encoding;
    w->encoding = written;
}

static pl_status do_batch(writing *w, pl_encode_error *sum, pl_error *err)
{
    const pl_write_options *o = w->options;
    if (o->cancelled && o->cancelled(o->cancelled_user))
        return pl_fail(err, PL_ERR_CANCELLED, "cancelled");
    int64_t n_pieces = (w->n + w->piece_rows - 1) / w->piece_rows;
    pl_pool_for(o->pool, n_pieces + 1, 1, do_items, w);
    if (w->append_error.status != PL_OK) {
        if (err)
            *err = w->append_error;
        return w->append_error.status;
    }
    drop_rows(w);
    for (int64_t i = 0; i < n_pieces; i++) {
        if (w->pieces[i].bad >= 0)
            return pl_fail_not_finite(w->e, w->t, w->pieces[i].bad, err);
        sum->error += w->pieces[i].error.error;
        sum->energy += w->pieces[i].error.energy;
    }
    w->encoding.n_bytes = (size_t)w->n * row_bytes(w->t);
    w->done += (double)w->encoding.n_bytes;
    swap_batches(w);
    if (o->progress)
        o->progress(o->progress_user, w->t->name, w->done / w->total);
    return PL_OK;
}

static int64_t batch_rows(const writing *w, const pl_export_tensor *t, int64_t row)
{
    int64_t most = w->max_pieces * piece_rows_of(t), left = t->n_rows - row;
    return left < most ? left : most;
}

/* The batch after the current one, be it of the next tensor. */
static void expect_next(const writing *w, size_t index)
{
    int64_t next = w->row + w->n;
    const pl_export_tensor *t = w->t;
    if (next == t->n_rows && index + 1 < w->e->n) {
        t = &w->e->tensors[index + 1];
        next = 0;
    }
    if (next < t->n_rows)
        expect_rows(w, t, next, batch_rows(w, t, next));
}

static pl_status write_tensor(writing *w, size_t index, pl_error *err)
{
    const pl_export_tensor *t = &w->e->tensors[index];
    pl_encode_error sum = {0, 0};
    w->t = t;
    w->piece_rows = piece_rows_of(t);
    PL_TRY(pl_importance_get(w->options->imatrix, t, &w->importance, err));
    pl_status status = PL_OK;
    for (w->row = 0; w->row < t->n_rows && status == PL_OK; w->row += w->n) {
        w->n = batch_rows(w, t, w->row);
        expect_next(w, index);
        status = do_batch(w, &sum, err);
    }
    pl_importance_free(&w->importance);
    if (status == PL_OK && w->options->errors)
        w->options->errors[index] = sum;
    return status;
}

/* ---- the whole file ------------------------------------------------------------------------------ */

/* Told now rather than after minutes. What stands at `path` already and is no regular file is written in place. */
static pl_status check_space(const char *path, uint64_t bytes, pl_error *err)
{
    struct stat st;
    struct statvfs fs;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return PL_OK;
    const char *slash = strrchr(path, '/');
    char folder[FOLDER_BYTES] = ".";
    if (slash)
        snprintf(folder, sizeof folder, "%.*s", (int)(slash - path) + 1, path);
    bool known = statvfs(folder, &fs) == 0 && fs.f_blocks > 0;
    uint64_t available = known ? (uint64_t)fs.f_bavail * fs.f_frsize : 0;
    if (known && available < bytes)
        return pl_fail(err, PL_ERR_IO, "%s: the file will have %.1f MB, the disk has only %.1f MB left", path,
                       (double)bytes / 1e6, (double)available / 1e6);
    return PL_OK;
}

static pl_status begin(writing *w, const char *path, pl_error *err)
{
    PL_TRY(pl_metadata_put(w->writer, w->e, w->options->file_type, err));
    for (size_t i = 0; i < w->e->n; i++) {
        const pl_export_tensor *t = &w->e->tensors[i];
        pl_gguf_declare(w->writer, t->name, t->type, t->dims, t->n_dims);
        w->total += (double)t->n_rows * (double)row_bytes(t);
    }
    PL_TRY(check_space(path, pl_gguf_writer_bytes(w->writer), err));
    return pl_gguf_writer_begin(w->writer, path, err);
}

static pl_status write_all(writing *w, pl_error *err)
{
    for (size_t i = 0; i < w->e->n; i++)
        PL_TRY(write_tensor(w, i, err));
    if (w->pending.n_bytes > 0)
        PL_TRY(pl_gguf_writer_append(w->writer, w->pending.bytes, w->pending.n_bytes, err));
    return pl_gguf_writer_commit(w->writer, err);
}

static pl_status take_buffers(writing *w, pl_error *err)
{
    int threads = pl_pool_threads(w->options->pool);
    size_t values = 1, bytes = 1;
    w->max_pieces = (int64_t)threads * PIECES_A_THREAD;
    for (size_t i = 0; i < w->e->n; i++) {
        const pl_export_tensor *t = &w->e->tensors[i];
        int64_t rows = piece_rows_of(t), all = rows * w->max_pieces < t->n_rows ? rows * w->max_pieces : t->n_rows;
        size_t a_piece = (size_t)(rows * t->n_cols), a_batch = (size_t)all * row_bytes(t);
        values = a_piece > values ? a_piece : values;
        bytes = a_batch > bytes ? a_batch : bytes;
    }
    w->values = calloc((size_t)threads, sizeof *w->values);
    w->decoded = calloc((size_t)threads, sizeof *w->decoded);
    w->pieces = calloc((size_t)w->max_pieces, sizeof *w->pieces);
    w->encoding.bytes = malloc(bytes);
    w->pending.bytes = malloc(bytes);
    if (!w->values || !w->decoded || !w->pieces || !w->encoding.bytes || !w->pending.bytes)
        return pl_fail_memory(err, 2 * bytes, "what is written at a time");
    for (int i = 0; i < threads; i++) {
        w->values[i] = malloc(values * sizeof(float));
        w->decoded[i] = malloc(values * sizeof(float));
        if (!w->values[i] || !w->decoded[i])
            return pl_fail_memory(err, values * sizeof(float), "what is encoded at a time");
    }
    return PL_OK;
}

static void free_buffers(writing *w)
{
    for (int i = 0; i < pl_pool_threads(w->options->pool); i++) {
        if (w->values)
            free(w->values[i]);
        if (w->decoded)
            free(w->decoded[i]);
    }
    free(w->values);
    free(w->decoded);
    free(w->pieces);
    free(w->encoding.bytes);
    free(w->pending.bytes);
}

pl_status pl_write_gguf(const pl_export *e, const char *path, const pl_write_options *options, pl_error *err)
{
    pl_status status;
    writing w = {.e = e, .options = options, .encoder = pl_encoder_select(pl_cpu_features(PL_CPU_ALL))};
    PL_TRY(pl_importance_check(options->imatrix, e, err));
    PL_TRY_GOTO(pl_gguf_writer_create(&w.writer, err));
    PL_TRY_GOTO(take_buffers(&w, err));
    PL_TRY_GOTO(begin(&w, path, err));
    PL_TRY_GOTO(write_all(&w, err));
fail:
    pl_gguf_writer_free(w.writer);
    free_buffers(&w);
    return status;
}
