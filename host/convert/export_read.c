#include "host/convert/export.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_ELEMS_MAX 256

static int64_t sum(const pl_export_span *spans, int n, int64_t all)
{
    int64_t total = 0;
    for (int i = 0; i < n; i++)
        total += spans[i].n;
    return spans ? total : all;
}

/* The row of a part that stands for row `row` of what is taken of it. */
static int64_t source_row(const pl_export_tensor *t, int64_t row)
{
    if (!t->rows)
        return row;
    const pl_export_span *span = t->rows;
    while (row >= span->n)
        row -= span++->n;
    return span->from + row;
}

/* The bytes of the source that a row of the file comes from, and of which part; NULL: zeros. */
static const unsigned char *find_row(const pl_export_tensor *t, int64_t row, const pl_tensor **part)
{
    assert(row >= 0 && row < t->n_rows);
    if (!t->source)
        return NULL;
    int64_t part_rows = sum(t->rows, t->n_row_spans, t->source->rows);
    if (part_rows < 1 || row >= part_rows * t->n_parts)
        return NULL;
    *part = &t->source[row / part_rows];
    return pl_tensor_row(*part, source_row(t, row % part_rows));
}

/* out[0..n) = values from..from + n of the row, which may begin and end within blocks. */
static void decode_span(pl_dtype type, const unsigned char *row, int64_t from, int64_t n, float *out)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    int64_t elems = info->block_elems;
    float block[BLOCK_ELEMS_MAX];
    while (n > 0) {
        const unsigned char *at = row + from / elems * info->block_bytes;
        int64_t inside = from % elems, take = n / elems * elems;
        if (inside == 0 && take > 0) {
            pl_decode(type, at, out, take);
        } else {
            take = elems - inside < n ? elems - inside : n;
            pl_decode(type, at, block, elems);
            memcpy(out, block + inside, (size_t)take * sizeof *out);
        }
        from += take;
        out += take;
        n -= take;
    }
}

static void read_row(const pl_export_tensor *t, int64_t row, float *out)
{
    const pl_tensor *part = NULL;
    const unsigned char *data = find_row(t, row, &part);
    if (!data) {
        memset(out, 0, (size_t)t->n_cols * sizeof *out);
    } else if (!t->cols) {
        pl_decode(part->type, data, out, t->n_cols);
    } else {
        for (int i = 0; i < t->n_col_spans; out += t->cols[i++].n)
            decode_span(part->type, data, t->cols[i].from, t->cols[i].n, out);
    }
}

void pl_export_read(const pl_export_tensor *t, int64_t row, int64_t n, float *out)
{
    for (int64_t i = 0; i < n; i++)
        read_row(t, row + i, out + i * t->n_cols);
}

/* True where no block of this type is cut. */
static bool whole_blocks(const pl_export_tensor *t, pl_dtype type)
{
    int64_t elems = pl_dtype_describe((int)type)->block_elems;
    for (int i = 0; t->cols && i < t->n_col_spans; i++)
        if (t->cols[i].from % elems != 0 || t->cols[i].n % elems != 0)
            return false;
    return true;
}

bool pl_export_is_copy(const pl_export_tensor *t)
{
    for (int i = 0; t->source && i < t->n_parts; i++)
        if (t->source[i].type != t->type)
            return false;
    return whole_blocks(t, t->type);
}

void pl_export_copy(const pl_export_tensor *t, int64_t row, int64_t n, void *out)
{
    unsigned char *to = out;
    for (int64_t end = row + n; row < end; row++) {
        const pl_tensor *part = NULL;
        const unsigned char *data = find_row(t, row, &part);
        pl_export_span all = {0, t->n_cols};
        const pl_export_span *cols = t->cols ? t->cols : &all;
        for (int i = 0; i < (t->cols ? t->n_col_spans : 1); i++) {
            size_t bytes = pl_dtype_bytes(t->type, cols[i].n);
            if (data)
                memcpy(to, data + pl_dtype_bytes(t->type, cols[i].from), bytes);
            else
                memset(to, 0, bytes); /* zeros in every type */
            to += bytes;
        }
    }
}
