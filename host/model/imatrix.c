#include "host/model/imatrix.h"

#include "host/base/mapfile.h"
#include "host/model/imatrix_parts.h"
#include "host/model/tensor_list.h"
#include "host/model/weight_table.h"

#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK ((size_t)1 << 20)

pl_status pl_imatrix_create(pl_imatrix **out, pl_error *err)
{
    pl_arena *arena;
    PL_TRY(pl_arena_create(ARENA_CHUNK, &arena, err));
    pl_imatrix *m = pl_arena_take(arena, 1, sizeof *m);
    if (!m) {
        pl_arena_free(arena);
        return pl_fail_memory(err, sizeof *m, "an importance matrix");
    }
    m->arena = arena;
    *out = m;
    return PL_OK;
}

void pl_imatrix_free(pl_imatrix *m)
{
    if (m)
        pl_arena_free(m->arena);
}

/* ---- entries ---- */

static int compare_entries(const void *a, const void *b)
{
    const pl_imatrix_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Of the first n entries, which are sorted: the one of this name, or NULL. */
static pl_imatrix_entry *find_among(const pl_imatrix *m, size_t n, const char *name)
{
    pl_imatrix_entry key = {.name = name};
    return n > 0 ? bsearch(&key, m->entries, n, sizeof key, compare_entries) : NULL;
}

const pl_imatrix_entry *pl_imatrix_find(const pl_imatrix *m, const char *name)
{
    return find_among(m, m->n, name);
}

static pl_status grow(pl_imatrix *m, pl_error *err)
{
    size_t room = m->room > 0 ? 2 * m->room : 64;
    pl_imatrix_entry *entries = pl_arena_take(m->arena, room, sizeof *entries);
    if (!entries)
        return pl_fail_memory(err, room * sizeof *entries, "a list of importance matrices");
    if (m->n > 0)
        memcpy(entries, m->entries, m->n * sizeof *entries);
    m->entries = entries;
    m->room = room;
    return PL_OK;
}

/* Behind the others. name: copied. */
static pl_status append(pl_imatrix *m, const char *name, int64_t cols, int n_mat, pl_imatrix_entry **out, pl_error *err)
{
    int64_t values;
    if (cols < 1 || n_mat < 1 || !pl_mul_i64(cols, n_mat, &values))
        return pl_fail(err, PL_ERR_FORMAT, "tensor %s cannot have %d x %" PRId64 " columns", name, n_mat, cols);
    if (m->n == m->room)
        PL_TRY(grow(m, err));
    pl_imatrix_entry entry = {.name = pl_arena_text(m->arena, name, strlen(name)),
                              .cols = cols,
                              .n_mat = n_mat,
                              .sum2 = pl_arena_take(m->arena, (size_t)values, sizeof(double)),
                              .count = pl_arena_take(m->arena, (size_t)n_mat, sizeof(double))};
    if (!entry.name || !entry.sum2 || !entry.count)
        return pl_fail_memory(err, (size_t)values * sizeof(double), "an importance matrix");
    m->entries[m->n] = entry;
    *out = &m->entries[m->n++];
    return PL_OK;
}

/* How many matrices a tensor of this name is made of; 1 for names that are not the model's. */
static int matrices_of(const char *name)
{
    pl_role role;
    int layer;
    return pl_weight_find(name, &role, &layer) ? pl_weight_table[role].count : 1;
}

pl_status pl_imatrix_append(pl_imatrix *m, const char *name, int64_t values, int64_t counts, pl_imatrix_entry **out,
                            pl_error *err)
{
    if (counts == 1 && values % matrices_of(name) == 0)
        counts = matrices_of(name);
    if (counts < 1 || counts > INT_MAX || values % counts != 0)
        return pl_fail(err, PL_ERR_FORMAT, "tensor %s has %" PRId64 " sums and %" PRId64 " counts", name, values,
                       counts);
    return append(m, name, values / counts, (int)counts, out, err);
}

pl_status pl_imatrix_sort(pl_imatrix *m, const char *where, pl_error *err)
{
    if (m->n > 1)
        qsort(m->entries, m->n, sizeof *m->entries, compare_entries);
    for (size_t i = 1; i < m->n; i++)
        if (strcmp(m->entries[i - 1].name, m->entries[i].name) == 0)
            return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s appears twice", where, m->entries[i].name);
    return PL_OK;
}

static pl_status check_shape(const pl_imatrix_entry *entry, int64_t cols, int n_mat, pl_error *err)
{
    if (entry->cols == cols && entry->n_mat == n_mat)
        return PL_OK;
    return pl_fail(err, PL_ERR_FORMAT, "tensor %s has %d x %" PRId64 " columns, expected %d x %" PRId64, entry->name,
                   n_mat, cols, entry->n_mat, entry->cols);
}

pl_status pl_imatrix_entry_at(pl_imatrix *m, const char *name, int64_t cols, int n_mat, pl_imatrix_entry **out,
                              pl_error *err)
{
    pl_imatrix_entry *entry = find_among(m, m->n, name);
    if (entry) {
        PL_TRY(check_shape(entry, cols, n_mat, err));
        *out = entry;
        return PL_OK;
    }
    PL_TRY(append(m, name, cols, n_mat, &entry, err));
    pl_imatrix_entry made = *entry;
    size_t at = m->n - 1;
    while (at > 0 && strcmp(m->entries[at - 1].name, name) > 0)
        at--;
    memmove(m->entries + at + 1, m->entries + at, (m->n - 1 - at) * sizeof made);
    m->entries[at] = made;
    *out = &m->entries[at];
    return PL_OK;
}

bool pl_imatrix_counted(const pl_imatrix_entry *entry)
{
    for (int i = 0; i < entry->n_mat; i++)
        if (entry->count[i] > 0)
            return true;
    return false;
}

pl_status pl_imatrix_check_writable(const pl_imatrix *m, const char *where, pl_error *err)
{
    bool any = false;
    for (size_t i = 0; i < m->n; i++) {
        const pl_imatrix_entry *entry = &m->entries[i];
        any |= pl_imatrix_counted(entry);
        for (int64_t k = 0; k < entry->n_mat * entry->cols; k++)
            if (!(entry->sum2[k] <= (double)FLT_MAX))
                return pl_fail(err, PL_ERR_NUMERIC, "%s: tensor %s: a sum of squares of %g is too large", where,
                               entry->name, entry->sum2[k]);
    }
    return any ? PL_OK : pl_fail(err, PL_ERR_ARGUMENT, "%s: nothing was counted that could be written", where);
}

pl_status pl_imatrix_check_entry(const pl_imatrix_entry *entry, const char *where, pl_error *err)
{
    for (int i = 0; i < entry->n_mat; i++) {
        double count = entry->count[i];
        if (!(count >= 0) || isinf(count))
            return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s: count %d is %g, expected tokens", where, entry->name, i,
                           count);
        for (int64_t k = 0; k < entry->cols; k++) {
            double sum = entry->sum2[i * entry->cols + k];
            if (!(sum >= 0) || isinf(sum))
                return pl_fail(err, PL_ERR_FORMAT,
                               "%s: tensor %s: the sum of column %" PRId64 " is %g, which sums of squares cannot be",
                               where, entry->name, k, sum);
            if (sum > 0 && count == 0)
                return pl_fail(err, PL_ERR_FORMAT,
                               "%s: tensor %s: the sum of column %" PRId64 " is %g, but no token was counted", where,
                               entry->name, k, sum);
        }
    }
    return PL_OK;
}

/* ---- reading ---- */

pl_status pl_imatrix_parse(const unsigned char *data, size_t size, const char *where, pl_imatrix **out, pl_error *err)
{
    pl_imatrix *m;
    PL_TRY(pl_imatrix_create(&m, err));
    pl_status status = PL_OK;
    bool gguf = size >= 4 && memcmp(data, "GGUF", 4) == 0;
    PL_TRY_GOTO(gguf ? pl_imatrix_parse_gguf(data, size, where, m, err)
                     : pl_imatrix_parse_dat(data, size, where, m, err));
    PL_TRY_GOTO(pl_imatrix_sort(m, where, err));
    for (size_t i = 0; i < m->n; i++)
        PL_TRY_GOTO(pl_imatrix_check_entry(&m->entries[i], where, err));
    *out = m;
    return PL_OK;
fail:
    pl_imatrix_free(m);
    return status;
}

pl_status pl_imatrix_read(const char *path, pl_imatrix **out, pl_error *err)
{
    pl_mapfile file;
    PL_TRY(pl_mapfile_open(path, &file, err));
    pl_status status = pl_imatrix_parse(file.data, file.size, path, out, err);
    pl_mapfile_close(&file);
    return status;
}

/* ---- adding ---- */

pl_status pl_imatrix_add_dataset(pl_imatrix *m, const char *name, size_t n, pl_error *err)
{
    const char **names = pl_arena_take(m->arena, m->n_datasets + 1, sizeof *names);
    char *copy = pl_arena_text(m->arena, name, n);
    if (!names || !copy)
        return pl_fail_memory(err, n + 1, "the name of a text");
    if (m->n_datasets > 0)
        memcpy(names, m->datasets, m->n_datasets * sizeof *names);
    names[m->n_datasets++] = copy;
    m->datasets = names;
    return PL_OK;
}

static pl_status add_datasets(pl_imatrix *m, const pl_imatrix *other, pl_error *err)
{
    for (size_t i = 0; i < other->n_datasets; i++) {
        bool known = false;
        for (size_t k = 0; k < m->n_datasets; k++)
            known |= strcmp(m->datasets[k], other->datasets[i]) == 0;
        if (!known)
            PL_TRY(pl_imatrix_add_dataset(m, other->datasets[i], strlen(other->datasets[i]), err));
    }
    return PL_OK;
}

static void scale_entry(pl_imatrix_entry *entry, double by)
{
    for (int64_t i = 0; i < entry->n_mat * entry->cols; i++)
        entry->sum2[i] *= by;
    for (int i = 0; i < entry->n_mat; i++)
        entry->count[i] *= by;
}

static void add_entry(pl_imatrix_entry *entry, const pl_imatrix_entry *other, double by)
{
    for (int64_t i = 0; i < entry->n_mat * entry->cols; i++)
        entry->sum2[i] += other->sum2[i] * by;
    for (int i = 0; i < entry->n_mat; i++)
        entry->count[i] += other->count[i] * by;
}

/* m's chunk size is known, or neither's is. */
static int64_t chunks_of_size(const pl_imatrix *other, int32_t size)
{
    if (other->chunk_size == 0 || other->chunk_size == size)
        return other->chunks;
    return (int64_t)llround((double)other->chunks * other->chunk_size / size);
}

pl_status pl_imatrix_add(pl_imatrix *m, const pl_imatrix *other, const char *where, pl_error *err)
{
    if (m->chunk_size == 0 && other->chunk_size > 0) {
        for (size_t i = 0; i < m->n; i++)
            scale_entry(&m->entries[i], other->chunk_size);
        m->chunk_size = other->chunk_size;
    }
    double by = other->chunk_size == 0 && m->chunk_size > 0 ? m->chunk_size : 1;
    size_t sorted = m->n;
    for (size_t i = 0; i < other->n; i++) {
        const pl_imatrix_entry *from = &other->entries[i];
        pl_imatrix_entry *entry = find_among(m, sorted, from->name);
        pl_status status = entry ? check_shape(entry, from->cols, from->n_mat, err)
                                 : append(m, from->name, from->cols, from->n_mat, &entry, err);
        if (status != PL_OK)
            return pl_fail_within(err, status, "%s", where);
        add_entry(entry, from, by);
    }
    m->chunks += chunks_of_size(other, m->chunk_size);
    PL_TRY(pl_imatrix_sort(m, where, err));
    return add_datasets(m, other, err);
}
