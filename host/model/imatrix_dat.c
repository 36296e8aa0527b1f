/* llama.cpp's older format of importance matrices, ".dat", all little-endian:
 *
 *     i32 entries, then of each   i32 n, name[n]; i32 calls; i32 values, f32 [values]
 *     and, where the writer knew  i32 chunks; i32 n, name of the text[n]
 *
 * A value is the mean of x^2 times `calls`, the chunks that were read. Source: tools/imatrix/imatrix.cpp,
 * common/imatrix-loader.cpp. */
#include "host/base/outfile.h"
#include "host/model/imatrix_parts.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define NAME_MAX_BYTES 256
#define TEXT_NAME_MAX_BYTES 65536
#define ENTRIES_MAX 65536

/* A cursor over the file: nothing is read past its end. */
typedef struct reader {
    const unsigned char *data;
    size_t size, at;
    const char *where;
    pl_error *err;
} reader;

static pl_status take(reader *r, size_t n, const char *what, const unsigned char **out)
{
    if (n > r->size - r->at)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: cut short: %s at byte %zu runs past the end of the file (%zu bytes)",
                       r->where, what, r->at, r->size);
    *out = r->data + r->at;
    r->at += n;
    return PL_OK;
}

static pl_status take_i32(reader *r, const char *what, int32_t low, int32_t high, int32_t *out)
{
    const unsigned char *p = r->data;
    int32_t value = 0;
    PL_TRY(take(r, sizeof value, what, &p));
    memcpy(&value, p, sizeof value);
    if (value < low || value > high)
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: %s at byte %zu is %" PRId32 ", expected %" PRId32 " to %" PRId32,
                       r->where, what, r->at - sizeof value, value, low, high);
    *out = value;
    return PL_OK;
}

static pl_status take_text(reader *r, const char *what, int32_t low, int32_t high, const char **text, int32_t *n)
{
    const unsigned char *p = NULL;
    size_t at = r->at;
    PL_TRY(take_i32(r, what, low, high, n));
    PL_TRY(take(r, (size_t)*n, what, &p));
    if (memchr(p, 0, (size_t)*n))
        return pl_fail(r->err, PL_ERR_FORMAT, "%s: %s at byte %zu holds a NUL", r->where, what, at);
    *text = (const char *)p;
    return PL_OK;
}

/* Files from before there were calls have 0 of them and plain means. */
static pl_status take_entry(reader *r, pl_imatrix *m)
{
    const char *name = NULL;
    const unsigned char *values = NULL;
    int32_t name_bytes = 0, calls = 0, n = 0;
    pl_imatrix_entry *entry = NULL;
    PL_TRY(take_text(r, "a tensor's name", 1, NAME_MAX_BYTES, &name, &name_bytes));
    PL_TRY(take_i32(r, "a number of calls", 0, INT32_MAX, &calls));
    PL_TRY(take_i32(r, "a number of values", 1, INT32_MAX, &n));
    PL_TRY(take(r, (size_t)n * sizeof(float), "a tensor's values", &values));
    char text[NAME_MAX_BYTES + 1];
    snprintf(text, sizeof text, "%.*s", (int)name_bytes, name);
    PL_TRY(pl_imatrix_append(m, text, n, 1, &entry, r->err));
    for (int32_t i = 0; i < n; i++) {
        float value;
        memcpy(&value, values + (size_t)i * sizeof value, sizeof value);
        entry->sum2[i] = (double)value;
    }
    for (int i = 0; i < entry->n_mat; i++)
        entry->count[i] = calls > 0 ? calls : 1;
    return PL_OK;
}

pl_status pl_imatrix_parse_dat(const unsigned char *data, size_t size, const char *where, pl_imatrix *m, pl_error *err)
{
    reader r = {data, size, 0, where, err};
    int32_t n = 0, chunks = 0, name_bytes = 0;
    const char *name = NULL;
    size_t entry_min = 3 * sizeof(int32_t) + 1 + sizeof(float);
    if (size >= sizeof n)
        memcpy(&n, data, sizeof n);
    r.at = sizeof n;
    if (n < 1 || n > ENTRIES_MAX || (size_t)n > (size - sizeof n) / entry_min)
        return pl_fail(err, PL_ERR_FORMAT, "%s: not an importance matrix, neither GGUF nor .dat", where);
    for (int32_t i = 0; i < n; i++)
        PL_TRY(take_entry(&r, m));
    if (r.at == size)
        return PL_OK;
    PL_TRY(take_i32(&r, "the number of chunks", 0, INT32_MAX, &chunks));
    m->chunks = chunks;
    if (r.at == size)
        return PL_OK;
    PL_TRY(take_text(&r, "the text's name", 0, TEXT_NAME_MAX_BYTES, &name, &name_bytes));
    if (r.at != size)
        return pl_fail(err, PL_ERR_FORMAT, "%s: %zu bytes after the end", where, size - r.at);
    return name_bytes > 0 ? pl_imatrix_add_dataset(m, name, (size_t)name_bytes, err) : PL_OK;
}

/* ---- writing ---- */

static void put_i32(FILE *file, int64_t value)
{
    int32_t v = value > INT32_MAX ? INT32_MAX : (int32_t)value;
    fwrite(&v, sizeof v, 1, file);
}

static void put_text(FILE *file, const char *text)
{
    size_t n = strlen(text);
    put_i32(file, (int64_t)n);
    fwrite(text, 1, n, file);
}

static int64_t calls_of(const pl_imatrix_entry *entry, int32_t chunk_size)
{
    double most = 0;
    for (int i = 0; i < entry->n_mat; i++)
        most = entry->count[i] > most ? entry->count[i] : most;
    double calls = ceil(most / (chunk_size > 0 ? chunk_size : 1));
    return calls < INT32_MAX ? (int64_t)calls : INT32_MAX;
}

/* Of a matrix that nothing was counted for all columns weigh 1. */
static void put_entry(FILE *file, const pl_imatrix_entry *entry, int32_t chunk_size)
{
    int64_t calls = calls_of(entry, chunk_size), n = entry->n_mat * entry->cols;
    put_text(file, entry->name);
    put_i32(file, calls);
    put_i32(file, n);
    for (int64_t i = 0; i < n; i++) {
        double count = entry->count[i / entry->cols], mean = count > 0 ? entry->sum2[i] / count : 1;
        float value = (float)(mean * (double)calls);
        fwrite(&value, sizeof value, 1, file);
    }
}

static pl_status check_fits(const pl_imatrix *m, const char *path, pl_error *err)
{
    PL_TRY(pl_imatrix_check_writable(m, path, err));
    for (size_t i = 0; i < m->n; i++)
        if (m->entries[i].cols > INT32_MAX / m->entries[i].n_mat || strlen(m->entries[i].name) > NAME_MAX_BYTES)
            return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: tensor %s is too large for a .dat", path, m->entries[i].name);
    return PL_OK;
}

pl_status pl_imatrix_write_dat(const pl_imatrix *m, const char *path, pl_error *err)
{
    pl_outfile out;
    int64_t n = 0;
    PL_TRY(check_fits(m, path, err));
    PL_TRY(pl_outfile_open(path, &out, err));
    for (size_t i = 0; i < m->n; i++)
        n += pl_imatrix_counted(&m->entries[i]);
    put_i32(out.file, n);
    for (size_t i = 0; i < m->n; i++)
        if (pl_imatrix_counted(&m->entries[i]))
            put_entry(out.file, &m->entries[i], m->chunk_size);
    put_i32(out.file, m->chunks);
    put_text(out.file, m->n_datasets > 0 ? m->datasets[m->n_datasets - 1] : "");
    return pl_outfile_commit(&out, err);
}
