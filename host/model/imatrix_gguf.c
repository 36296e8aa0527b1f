/* Importance matrices in GGUF: of each tensor NAME.in_sum2, f32 [n_mat][cols], and NAME.counts, f32 [n_mat][1], and
 * the keys below. Source: tools/imatrix/imatrix.cpp, common/imatrix-loader.cpp of llama.cpp. */
#include "host/model/gguf.h"
#include "host/model/gguf_writer.h"
#include "host/model/imatrix_parts.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_DATASETS "imatrix.datasets"
#define KEY_CHUNKS "imatrix.chunk_count"
#define KEY_CHUNK_SIZE "imatrix.chunk_size"
#define KEY_MODEL "pleiad.imatrix.model"
#define KEY_MODEL_PRINT "pleiad.imatrix.model_fingerprint"
#define KEY_TEXT_PRINT "pleiad.imatrix.text_fingerprint"
#define KEY_PATHS "pleiad.imatrix.paths"
#define KEY_PASSAGES "pleiad.imatrix.passages"
#define KEY_DONE "pleiad.imatrix.passages_done"
#define KEY_SUMS "pleiad.imatrix.sums"

#define SUMS ".in_sum2"
#define COUNTS ".counts"
#define TEXTS_MAX 65536 /* names of files, paths */
#define PRINT_DIGITS 16

/* ---- reading ---- */

static bool cut_suffix(const char *name, const char *suffix, char *out, size_t size)
{
    size_t n = strlen(name), cut = strlen(suffix);
    if (n <= cut || n - cut >= size || strcmp(name + n - cut, suffix) != 0)
        return false;
    memcpy(out, name, n - cut);
    out[n - cut] = '\0';
    return true;
}

static pl_status partner_of(const pl_gguf *file, const pl_entry *entry, const char *base, const char *suffix,
                            const pl_entry **out, pl_error *err)
{
    char name[PL_IMATRIX_NAME_BYTES + sizeof SUMS];
    snprintf(name, sizeof name, "%s%s", base, suffix);
    *out = pl_tensor_list_find(&file->tensors, name);
    if (!*out)
        return pl_fail(err, PL_ERR_FORMAT, "%s: there is tensor %s, but no %s", file->where, entry->name, name);
    return PL_OK;
}

static pl_status check_type(const pl_entry *entry, pl_error *err)
{
    if (entry->type != PL_F32)
        return pl_fail(err, PL_ERR_FORMAT, "%s: tensor %s is %s, expected F32", entry->where, entry->name,
                       entry->type_name);
    return PL_OK;
}

static void read_values(const pl_entry *entry, double *out)
{
    for (uint64_t i = 0; i < entry->bytes / sizeof(float); i++) {
        float value;
        memcpy(&value, entry->data + i * sizeof value, sizeof value);
        out[i] = (double)value;
    }
}

static int64_t values_of(const pl_entry *entry)
{
    int64_t n = 1; /* the parser has seen that it does not overflow */
    for (int i = 0; i < entry->n_dims; i++)
        n *= entry->dims[i];
    return n;
}

static pl_status read_entry(const pl_gguf *file, const pl_entry *sums, const char *name, pl_imatrix *m, pl_error *err)
{
    const pl_entry *counts = NULL;
    pl_imatrix_entry *entry = NULL;
    PL_TRY(partner_of(file, sums, name, COUNTS, &counts, err));
    PL_TRY(check_type(sums, err)); /* and so that as many values are in the file */
    PL_TRY(check_type(counts, err));
    pl_status status = pl_imatrix_append(m, name, values_of(sums), values_of(counts), &entry, err);
    if (status != PL_OK)
        return pl_fail_within(err, status, "%s", file->where);
    read_values(sums, entry->sum2);
    read_values(counts, entry->count);
    for (int i = (int)values_of(counts); i < entry->n_mat; i++)
        entry->count[i] = entry->count[0];
    return PL_OK;
}

static pl_status read_entries(pl_gguf *file, pl_imatrix *m, pl_error *err)
{
    char name[PL_IMATRIX_NAME_BYTES];
    const pl_entry *partner;
    PL_TRY(pl_tensor_list_index(&file->tensors, m->arena, err));
    for (size_t i = 0; i < file->tensors.n; i++) {
        const pl_entry *entry = file->tensors.by_name[i];
        if (cut_suffix(entry->name, COUNTS, name, sizeof name))
            PL_TRY(partner_of(file, entry, name, SUMS, &partner, err));
        else if (cut_suffix(entry->name, SUMS, name, sizeof name))
            PL_TRY(read_entry(file, entry, name, m, err));
    }
    return m->n > 0
               ? PL_OK
               : pl_fail(err, PL_ERR_FORMAT, "%s: no importance matrix: it has no tensor named *%s", file->where, SUMS);
}

/* An array of strings as NUL-terminated copies. */
static pl_status read_texts(const pl_gguf *file, const char *key, pl_arena *arena, const char ***out, size_t *n_out,
                            pl_error *err)
{
    const pl_gguf_value *value = NULL;
    PL_TRY(pl_gguf_array(file, key, PL_GGUF_STRING, &value, err));
    size_t n = value ? value->n : 0;
    if (n > TEXTS_MAX)
        return pl_fail(err, PL_ERR_FORMAT, "%s: key %s: %zu texts cannot be right", file->where, key, n);
    const char **texts = pl_arena_take(arena, n + 1, sizeof *texts);
    const unsigned char *at = value ? value->data : NULL;
    for (size_t i = 0; texts && i < n; i++) {
        uint64_t bytes;
        memcpy(&bytes, at, sizeof bytes);
        texts[i] = pl_arena_text(arena, (const char *)at + sizeof bytes, bytes);
        if (!texts[i])
            return pl_fail_memory(err, bytes, key);
        at += sizeof bytes + bytes;
    }
    if (!texts)
        return pl_fail_memory(err, (n + 1) * sizeof *texts, key);
    *out = texts;
    *n_out = n;
    return PL_OK;
}

static pl_status read_needed_int(const pl_gguf *file, const char *key, int32_t *out, pl_error *err)
{
    if (!pl_gguf_find(file, key))
        return pl_gguf_missing(file, key, err);
    return pl_gguf_int(file, key, 0, INT32_MAX, out, err);
}

static pl_status read_print(const pl_gguf *file, const char *key, uint64_t *out, pl_error *err)
{
    const char *text = NULL;
    size_t n = 0;
    char digits[PRINT_DIGITS + 1] = "";
    PL_TRY(pl_gguf_text(file, key, &text, &n, err));
    if (text && n == PRINT_DIGITS)
        memcpy(digits, text, n);
    if (strspn(digits, "0123456789abcdef") != PRINT_DIGITS)
        return pl_fail(err, PL_ERR_FORMAT, "%s: key %s is not %d hexadecimal digits", file->where, key, PRINT_DIGITS);
    *out = strtoull(digits, NULL, 16);
    return PL_OK;
}

static pl_status read_sums(const pl_gguf *file, pl_arena *arena, pl_imatrix_run *run, pl_error *err)
{
    const pl_gguf_value *value = NULL;
    PL_TRY(pl_gguf_array(file, KEY_SUMS, PL_GGUF_F64, &value, err));
    bool underway = (uint64_t)run->done < (uint64_t)run->passages * run->n_paths;
    if (!value || !underway)
        return value || underway
                   ? pl_fail(err, PL_ERR_FORMAT,
                             "%s: key %s is %s where %" PRId32 " pieces of %" PRId32 " x %zu are done", file->where,
                             KEY_SUMS, value ? "there" : "missing", run->done, run->passages, run->n_paths)
                   : PL_OK;
    double *sums = pl_arena_take(arena, value->n + 1, sizeof *sums);
    if (!sums)
        return pl_fail_memory(err, value->n * sizeof *sums, KEY_SUMS);
    memcpy(sums, value->data, value->n * sizeof *sums);
    for (uint64_t i = 0; i < value->n; i++)
        if (!(sums[i] >= 0) || isinf(sums[i]))
            return pl_fail(err, PL_ERR_FORMAT, "%s: key %s: value %" PRIu64 " is %g, which sums of squares cannot be",
                           file->where, KEY_SUMS, i, sums[i]);
    run->sums = sums;
    run->n_sums = value->n;
    return PL_OK;
}

/* Nothing where the file is another program's. */
static pl_status read_run(const pl_gguf *file, pl_imatrix *m, pl_error *err)
{
    const char *model = NULL, **paths = NULL;
    size_t model_bytes = 0;
    PL_TRY(pl_gguf_text(file, KEY_MODEL, &model, &model_bytes, err));
    if (!model)
        return PL_OK;
    pl_imatrix_run *run = pl_arena_take(m->arena, 1, sizeof *run);
    char *name = pl_arena_text(m->arena, model, model_bytes);
    if (!run || !name)
        return pl_fail_memory(err, sizeof *run + model_bytes, KEY_MODEL);
    run->model = name;
    PL_TRY(read_print(file, KEY_MODEL_PRINT, &run->model_print, err));
    PL_TRY(read_print(file, KEY_TEXT_PRINT, &run->text_print, err));
    PL_TRY(read_needed_int(file, KEY_PASSAGES, &run->passages, err));
    PL_TRY(read_needed_int(file, KEY_DONE, &run->done, err));
    PL_TRY(read_texts(file, KEY_PATHS, m->arena, &paths, &run->n_paths, err));
    run->paths = paths;
    if (run->passages == 0 || (uint64_t)run->done > (uint64_t)run->passages * run->n_paths)
        return pl_fail(err, PL_ERR_FORMAT, "%s: key %s is %" PRId32 ", more than %" PRId32 " on each of %zu paths",
                       file->where, KEY_DONE, run->done, run->passages, run->n_paths);
    PL_TRY(read_sums(file, m->arena, run, err));
    m->run = run;
    return PL_OK;
}

pl_status pl_imatrix_parse_gguf(const unsigned char *data, size_t size, const char *where, pl_imatrix *m, pl_error *err)
{
    pl_gguf file;
    int32_t chunks = 0;
    PL_TRY(pl_gguf_parse(data, size, where, m->arena, &file, err));
    PL_TRY(read_entries(&file, m, err));
    PL_TRY(read_texts(&file, KEY_DATASETS, m->arena, &m->datasets, &m->n_datasets, err));
    PL_TRY(read_needed_int(&file, KEY_CHUNKS, &chunks, err));
    PL_TRY(read_needed_int(&file, KEY_CHUNK_SIZE, &m->chunk_size, err));
    m->chunks = chunks;
    return read_run(&file, m, err);
}

/* ---- writing ---- */

static pl_status put_texts(pl_gguf_writer *w, const char *key, const char *const *texts, size_t n, pl_error *err)
{
    size_t *bytes = calloc(n + 1, sizeof *bytes);
    if (!bytes)
        return pl_fail_memory(err, (n + 1) * sizeof *bytes, key);
    for (size_t i = 0; i < n; i++)
        bytes[i] = strlen(texts[i]);
    pl_gguf_put_texts(w, key, texts, bytes, n);
    free(bytes);
    return PL_OK;
}

static void put_print(pl_gguf_writer *w, const char *key, uint64_t print)
{
    char text[PRINT_DIGITS + 1];
    snprintf(text, sizeof text, "%0*" PRIx64, PRINT_DIGITS, print);
    pl_gguf_put_text(w, key, text);
}

static pl_status put_run(pl_gguf_writer *w, const pl_imatrix_run *run, pl_error *err)
{
    pl_gguf_put_text(w, KEY_MODEL, run->model);
    put_print(w, KEY_MODEL_PRINT, run->model_print);
    put_print(w, KEY_TEXT_PRINT, run->text_print);
    pl_gguf_put_u32(w, KEY_PASSAGES, (uint32_t)run->passages);
    pl_gguf_put_u32(w, KEY_DONE, (uint32_t)run->done);
    if (run->sums)
        pl_gguf_put_array(w, KEY_SUMS, PL_GGUF_F64, run->sums, run->n_sums);
    return put_texts(w, KEY_PATHS, run->paths, run->n_paths, err);
}

static pl_status put_keys(pl_gguf_writer *w, const pl_imatrix *m, pl_error *err)
{
    pl_gguf_put_text(w, "general.type", "imatrix");
    PL_TRY(put_texts(w, KEY_DATASETS, m->datasets, m->n_datasets, err));
    pl_gguf_put_u32(w, KEY_CHUNKS, m->chunks < INT32_MAX ? (uint32_t)m->chunks : INT32_MAX);
    pl_gguf_put_u32(w, KEY_CHUNK_SIZE, (uint32_t)m->chunk_size);
    return m->run ? put_run(w, m->run, err) : PL_OK;
}

static void declare(pl_gguf_writer *w, const pl_imatrix_entry *entry)
{
    char name[PL_IMATRIX_NAME_BYTES + sizeof SUMS];
    int64_t sums[2] = {entry->n_mat, entry->cols}, counts[2] = {entry->n_mat, 1};
    int lone = entry->n_mat == 1;
    snprintf(name, sizeof name, "%s%s", entry->name, SUMS);
    pl_gguf_declare(w, name, PL_F32, sums + lone, 2 - lone);
    snprintf(name, sizeof name, "%s%s", entry->name, COUNTS);
    pl_gguf_declare(w, name, PL_F32, counts + lone, 2 - lone);
}

static pl_status append_values(pl_gguf_writer *w, const double *values, int64_t n, pl_error *err)
{
    float piece[1024];
    for (int64_t at = 0; at < n;) {
        size_t k = 0;
        for (; k < sizeof piece / sizeof piece[0] && at < n; k++)
            piece[k] = (float)values[at++];
        PL_TRY(pl_gguf_writer_append(w, piece, k * sizeof piece[0], err));
    }
    return PL_OK;
}

static pl_status check_names(const pl_imatrix *m, const char *path, pl_error *err)
{
    for (size_t i = 0; i < m->n; i++)
        if (strlen(m->entries[i].name) >= PL_IMATRIX_NAME_BYTES)
            return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: the name %s is too long", path, m->entries[i].name);
    return PL_OK;
}

static pl_status write_all(const pl_imatrix *m, pl_gguf_writer *w, const char *path, pl_error *err)
{
    PL_TRY(put_keys(w, m, err));
    for (size_t i = 0; i < m->n; i++)
        if (pl_imatrix_counted(&m->entries[i]))
            declare(w, &m->entries[i]);
    PL_TRY(pl_gguf_writer_begin(w, path, err));
    for (size_t i = 0; i < m->n; i++) {
        const pl_imatrix_entry *entry = &m->entries[i];
        if (!pl_imatrix_counted(entry))
            continue;
        PL_TRY(append_values(w, entry->sum2, entry->n_mat * entry->cols, err));
        PL_TRY(append_values(w, entry->count, entry->n_mat, err));
    }
    return pl_gguf_writer_commit(w, err);
}

pl_status pl_imatrix_write_gguf(const pl_imatrix *m, const char *path, pl_error *err)
{
    pl_gguf_writer *w;
    PL_TRY(pl_imatrix_check_writable(m, path, err));
    PL_TRY(check_names(m, path, err));
    PL_TRY(pl_gguf_writer_create(&w, err));
    pl_status status = write_all(m, w, path, err);
    pl_gguf_writer_free(w);
    return status;
}
