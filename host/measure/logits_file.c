#include "host/measure/logits_file.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

#include "host/measure/divergence.h"

#define MAGIC "_logits_"
#define MAGIC_BYTES 8
#define HEADING_BYTES (MAGIC_BYTES + 3 * sizeof(int32_t))
#define SCALE_BYTES (2 * sizeof(float))
#define RANGE 16.0f /* how far below a row's largest value it goes */
#define CODES 65535
#define MAX_VOCAB (1 << 24)

size_t pl_logits_row_bytes(int32_t vocab)
{
    return SCALE_BYTES + ((size_t)vocab + 1) / 2 * 2 * sizeof(uint16_t);
}

/* ---- reading -------------------------------------------------------------------------------------- */

static int32_t read_int(const unsigned char *bytes)
{
    int32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

bool pl_logits_file_is(const char *path)
{
    char start[MAGIC_BYTES];
    FILE *file = fopen(path, "rb");
    bool is = file && fread(start, 1, sizeof start, file) == sizeof start && memcmp(start, MAGIC, sizeof start) == 0;
    if (file)
        fclose(file);
    return is;
}

static pl_status check_heading(const pl_logits_file *f, size_t n_bytes, pl_error *err)
{
    if (f->length < 3 || f->length > INT32_MAX / 2 || f->vocab < 1 || f->vocab > MAX_VOCAB || f->n < 1)
        return pl_fail(err, PL_ERR_FORMAT, "%s: the heading says %d pieces of %d tokens of a vocabulary of %d",
                       f->where, f->n, f->length, f->vocab);
    size_t rows, ids, want;
    if (__builtin_mul_overflow((size_t)f->n * (size_t)pl_passage_scored(f->length), f->row_bytes, &rows) ||
        __builtin_mul_overflow((size_t)f->n * (size_t)f->length, sizeof(int32_t), &ids) ||
        __builtin_add_overflow(rows, ids + HEADING_BYTES, &want) || want != n_bytes)
        return pl_fail(err, PL_ERR_FORMAT,
                       "%s: has %zu bytes, which %d pieces of %d tokens of a vocabulary of %d do not take; it may be "
                       "cut short",
                       f->where, n_bytes, f->n, f->length, f->vocab);
    return PL_OK;
}

pl_status pl_logits_file_parse(const unsigned char *data, size_t n_bytes, const char *where, pl_logits_file *out,
                               pl_error *err)
{
    if (n_bytes < HEADING_BYTES || memcmp(data, MAGIC, MAGIC_BYTES) != 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: is no file of logits: does not start with " MAGIC, where);
    pl_logits_file f = {
        .where = where,
        .ids = data + HEADING_BYTES,
        .length = read_int(data + MAGIC_BYTES),
        .vocab = read_int(data + MAGIC_BYTES + sizeof(int32_t)),
        .n = read_int(data + MAGIC_BYTES + 2 * sizeof(int32_t)),
    };
    f.row_bytes = f.vocab > 0 ? pl_logits_row_bytes(f.vocab) : 0;
    PL_TRY(check_heading(&f, n_bytes, err));
    f.rows = f.ids + (size_t)f.n * (size_t)f.length * sizeof(int32_t);
    *out = f;
    return PL_OK;
}

pl_status pl_logits_file_open(const char *path, pl_logits_file *out, pl_error *err)
{
    pl_mapfile map;
    PL_TRY(pl_mapfile_open(path, &map, err));
    pl_status status = pl_logits_file_parse(map.data, map.size, path, out, err);
    if (status != PL_OK)
        pl_mapfile_close(&map);
    else
        out->map = map;
    return status;
}

void pl_logits_file_close(pl_logits_file *file)
{
    if (!file)
        return;
    pl_mapfile_close(&file->map);
    *file = (pl_logits_file){.where = NULL};
}

/* The first token of a passage is <bos>, whatever the file has there. */
static pl_status check_ids(const pl_logits_file *file, const pl_passages *passages, pl_error *err)
{
    for (int32_t p = 0; p < passages->n; p++)
        for (int32_t i = 1; i < passages->length; i++) {
            size_t at = (size_t)p * (size_t)passages->length + (size_t)i;
            int32_t id = read_int(file->ids + at * sizeof(int32_t));
            if (id != passages->ids[at])
                return pl_fail(err, PL_ERR_ARGUMENT,
                               "%s: is of another text: token %d of piece %d is %d there, here %d", file->where, i, p,
                               id, passages->ids[at]);
        }
    return PL_OK;
}

static pl_status check_marks(const pl_passages *passages, const char *where, pl_error *err)
{
    if (!passages->scored)
        return PL_OK;
    return pl_fail(err, PL_ERR_ARGUMENT, "%s: a file of logits is of the second half of each piece, not of answers",
                   where);
}

pl_status pl_logits_file_check(const pl_logits_file *file, const pl_passages *passages, int32_t vocab, pl_error *err)
{
    PL_TRY(check_marks(passages, file->where, err));
    if (file->vocab != vocab)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is of a vocabulary of %d tokens, the model's has %d", file->where,
                       file->vocab, vocab);
    if (file->length != passages->length)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is of pieces of %d tokens, expected %d", file->where, file->length,
                       passages->length);
    PL_TRY(check_ids(file,
                     &(pl_passages){.ids = passages->ids,
                                    .n = passages->n < file->n ? passages->n : file->n,
                                    .length = passages->length},
                     err));
    if (file->n < passages->n)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: holds the first %d pieces of the text, which has %d", file->where,
                       file->n, passages->n);
    return PL_OK;
}

static size_t row_at(const pl_logits_file *file, int32_t passage, int32_t row)
{
    return ((size_t)passage * (size_t)pl_passage_scored(file->length) + (size_t)row) * file->row_bytes;
}

pl_status pl_logits_file_row(const pl_logits_file *file, int32_t passage, int32_t row, float *out, float *floor,
                             pl_error *err)
{
    const unsigned char *bytes = file->rows + row_at(file, passage, row);
    float scale, low;
    memcpy(&scale, bytes, sizeof scale);
    memcpy(&low, bytes + sizeof scale, sizeof low);
    float range = scale * CODES;
    if (!(range >= 0 && range <= 2 * RANGE) || !(low <= 0.01f) || !isfinite(low))
        return pl_fail(err, PL_ERR_FORMAT, "%s: row %d of piece %d goes from %g up by %g, expected a log-probability",
                       file->where, row, passage, (double)low, (double)range);
    bytes += SCALE_BYTES;
    for (int32_t i = 0; i < file->vocab; i++) {
        uint16_t code;
        memcpy(&code, bytes + (size_t)i * sizeof code, sizeof code);
        out[i] = scale * (float)code + low;
    }
    *floor = range < RANGE * 0.9999f ? -INFINITY : low;
    return PL_OK;
}

void pl_logits_file_drop(const pl_logits_file *file, int32_t passage)
{
    size_t bytes = (size_t)pl_passage_scored(file->length) * file->row_bytes;
    if (file->map.data)
        pl_mapfile_drop(&file->map, (size_t)(file->rows - file->map.data) + row_at(file, passage, 0), bytes);
}

/* ---- writing -------------------------------------------------------------------------------------- */

static void limits(const float *v, int32_t n, float *low, float *high)
{
    float least = v[0], most = v[0];
    for (int32_t i = 1; i < n; i++) {
        least = v[i] < least ? v[i] : least;
        most = v[i] > most ? v[i] : most;
    }
    *low = least > most - RANGE ? least : most - RANGE;
    *high = most;
}

void pl_logits_encode(const float *logits, int32_t vocab, unsigned char *row)
{
    float low, high;
    limits(logits, vocab, &low, &high);
    float scale = (high - low) / CODES, floor = (float)((double)low - pl_log_sum_exp(logits, vocab));
    float inverse = scale > 0 ? 1 / scale : 0;
    memcpy(row, &scale, sizeof scale);
    memcpy(row + sizeof scale, &floor, sizeof floor);
    row += SCALE_BYTES;
    for (int32_t i = 0; i < vocab; i++) {
        float steps = (logits[i] - low) * inverse + 0.5f;
        uint16_t code = (uint16_t)(steps < 0 ? 0 : steps > CODES ? CODES : steps);
        memcpy(row + (size_t)i * sizeof code, &code, sizeof code);
    }
    if (vocab % 2)
        memset(row + (size_t)vocab * sizeof(uint16_t), 0, sizeof(uint16_t));
}

static pl_status put(pl_logits_writer *w, const void *bytes, size_t size, size_t n, pl_error *err)
{
    errno = 0;
    if (fwrite(bytes, size, n, w->out.file) == n)
        return PL_OK;
    return pl_fail(err, PL_ERR_IO, "%s: cannot write: %s", w->out.path, errno ? strerror(errno) : "write failed");
}

pl_status pl_logits_writer_open(const char *path, const pl_passages *passages, int32_t vocab, pl_logits_writer *out,
                                pl_error *err)
{
    pl_status status;
    int32_t heading[3] = {passages->length, vocab, passages->n};
    pl_logits_writer w = {
        .row_bytes = pl_logits_row_bytes(vocab),
        .rows_left = (int64_t)passages->n * pl_passage_scored(passages->length),
    };
    PL_TRY(check_marks(passages, path, err));
    PL_TRY(pl_outfile_open(path, &w.out, err));
    PL_TRY_GOTO(put(&w, MAGIC, 1, MAGIC_BYTES, err));
    PL_TRY_GOTO(put(&w, heading, sizeof *heading, 3, err));
    PL_TRY_GOTO(put(&w, passages->ids, sizeof *passages->ids, (size_t)passages->n * (size_t)passages->length, err));
    *out = w;
    return PL_OK;
fail:
    pl_logits_writer_abort(&w);
    return status;
}

pl_status pl_logits_writer_add(pl_logits_writer *writer, const unsigned char *rows, int64_t n, pl_error *err)
{
    assert(n <= writer->rows_left);
    writer->rows_left -= n;
    return put(writer, rows, writer->row_bytes, (size_t)n, err);
}

pl_status pl_logits_writer_commit(pl_logits_writer *writer, pl_error *err)
{
    assert(writer->rows_left == 0);
    return pl_outfile_commit(&writer->out, err);
}

void pl_logits_writer_abort(pl_logits_writer *writer)
{
    if (writer)
        pl_outfile_abort(&writer->out);
}
