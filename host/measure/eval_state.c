#include "host/measure/eval_state.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/base/json_out.h"
#include "host/base/mapfile.h"
#include "host/base/outfile.h"
#include "host/model/model_json.h"

#define VERSION 1
#define FINGERPRINT_BYTES 17

/* ---- inputs --------------------------------------------------------------------------------------- */

static void look_at(const struct stat *info, pl_eval_input *out)
{
    int64_t modified = (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
    out->bytes += info->st_size;
    out->modified = modified > out->modified ? modified : out->modified;
}

/* The files in it, not those in its folders. */
static pl_status look_at_folder(pl_eval_input *out, pl_error *err)
{
    DIR *folder = opendir(out->file);
    if (!folder)
        return pl_fail(err, PL_ERR_IO, "%s: %s", out->file, strerror(errno));
    const struct dirent *entry;
    while ((entry = readdir(folder))) {
        struct stat info;
        if (fstatat(dirfd(folder), entry->d_name, &info, 0) == 0 && S_ISREG(info.st_mode))
            look_at(&info, out);
    }
    closedir(folder);
    return PL_OK;
}

pl_status pl_eval_input_look(const char *path, pl_eval_input *out, pl_error *err)
{
    struct stat info;
    pl_eval_input found = {.file = realpath(path, NULL)};
    if (!found.file || stat(found.file, &info) != 0) {
        pl_status status = pl_fail(err, errno == ENOMEM ? PL_ERR_MEMORY : PL_ERR_IO, "%s: %s", path, strerror(errno));
        pl_eval_input_free(&found);
        return status;
    }
    pl_status status = PL_OK;
    if (S_ISDIR(info.st_mode))
        status = look_at_folder(&found, err);
    else
        look_at(&info, &found);
    if (status != PL_OK)
        pl_eval_input_free(&found);
    else
        *out = found;
    return status;
}

void pl_eval_input_free(pl_eval_input *input)
{
    if (!input)
        return;
    free(input->file);
    *input = (pl_eval_input){.file = NULL};
}

/* ---- sums ----------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t offset;
    bool whole; /* int64_t, else double */
} sums[] = {
    {"positions", offsetof(pl_quality, n), true},
    {"nll", offsetof(pl_quality, nll), false},
    {"nll2", offsetof(pl_quality, nll2), false},
    {"compared", offsetof(pl_quality, n_compared), true},
    {"ref_nll", offsetof(pl_quality, ref_nll), false},
    {"ref_nll2", offsetof(pl_quality, ref_nll2), false},
    {"nll_ref_nll", offsetof(pl_quality, nll_ref_nll), false},
    {"kl", offsetof(pl_quality, kl), false},
    {"kl2", offsetof(pl_quality, kl2), false},
    {"kl_max", offsetof(pl_quality, kl_max), false},
    {"dp", offsetof(pl_quality, dp), false},
    {"dp2", offsetof(pl_quality, dp2), false},
    {"same_top", offsetof(pl_quality, same_top), true},
};
#define N_SUMS (sizeof sums / sizeof *sums)

static void write_sums(pl_json *json, const pl_quality *q)
{
    pl_json_key_object(json, "sums");
    for (size_t i = 0; i < N_SUMS; i++) {
        const char *field = (const char *)q + sums[i].offset;
        if (sums[i].whole)
            pl_json_put_int(json, sums[i].name, *(const int64_t *)(const void *)field);
        else
            pl_json_put_double(json, sums[i].name, *(const double *)(const void *)field);
    }
    pl_json_end_object(json);
}

static pl_status read_sums(const json_t *object, const char *where, pl_quality *out, pl_error *err)
{
    for (size_t i = 0; i < N_SUMS; i++) {
        char *field = (char *)out + sums[i].offset;
        const json_t *value = pl_member_get(object, sums[i].name);
        if (!value || (sums[i].whole ? !json_is_integer(value) : !json_is_number(value)))
            return pl_fail(err, PL_ERR_FORMAT, "%s: the sum %s is %s, expected a%s number", where, sums[i].name,
                           value ? pl_member_kind(value) : "missing", sums[i].whole ? " whole" : "");
        if (sums[i].whole)
            *(int64_t *)(void *)field = json_integer_value(value);
        else
            *(double *)(void *)field = json_number_value(value);
    }
    return PL_OK;
}

/* ---- writing -------------------------------------------------------------------------------------- */

static void format_fingerprint(const pl_passages *passages, char out[FINGERPRINT_BYTES])
{
    snprintf(out, FINGERPRINT_BYTES, "%016" PRIx64, passages->fingerprint);
}

static void put_input(pl_json *json, const char *key, const pl_eval_input *input)
{
    pl_json_key(json, key);
    if (!input) {
        pl_json_null(json);
        return;
    }
    pl_json_begin_object(json);
    pl_json_put_string(json, "file", input->file);
    pl_json_put_int(json, "bytes", input->bytes);
    pl_json_put_int(json, "modified", input->modified);
    pl_json_end_object(json);
}

static void write_result(pl_json *json, const pl_eval_result *r)
{
    pl_json_begin_object(json);
    put_input(json, "model", r->model);
    pl_json_put_string(json, "path", r->path);
    pl_json_put_int(json, "pieces", r->done);
    write_sums(json, &r->sums);
    pl_json_end_object(json);
}

static void write_state(pl_json *json, const pl_eval_state *state)
{
    char text[FINGERPRINT_BYTES];
    format_fingerprint(state->passages, text);
    pl_json_begin_object(json);
    pl_json_put_int(json, "pleiad_eval", VERSION);
    pl_json_put_string(json, "text", text);
    pl_json_put_int(json, "length", state->passages->length);
    pl_json_put_int(json, "pieces", state->passages->n);
    put_input(json, "reference", state->reference);
    pl_json_key_array(json, "results");
    for (size_t i = 0; i < state->n; i++)
        write_result(json, &state->results[i]);
    pl_json_end_array(json);
    pl_json_end_object(json);
    pl_json_newline(json);
}

pl_status pl_eval_state_save(const char *file, const pl_eval_state *state, pl_error *err)
{
    pl_outfile out;
    PL_TRY(pl_outfile_open(file, &out, err));
    pl_json json = pl_json_to_file(out.file);
    write_state(&json, state);
    return pl_outfile_commit(&out, err);
}

/* ---- reading -------------------------------------------------------------------------------------- */

static pl_status need(const void *value, const char *what, const char *where, pl_error *err)
{
    return value ? PL_OK : pl_fail(err, PL_ERR_FORMAT, "%s: %s is missing", where, what);
}

static bool is_input(const json_t *object, const pl_eval_input *input)
{
    return json_integer_value(json_object_get(object, "bytes")) == input->bytes &&
           json_integer_value(json_object_get(object, "modified")) == input->modified;
}

static pl_status input_name(const json_t *object, const char *where, const char **out, pl_error *err)
{
    *out = NULL;
    PL_TRY(pl_member_text(object, "file", where, out, err));
    return need(*out, "the file of an input", where, err);
}

static pl_status check_version(const json_t *root, const char *where, pl_error *err)
{
    int version = 0;
    PL_TRY(pl_member_int(root, "pleiad_eval", where, 0, INT32_MAX, &version, err));
    if (version == 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: is not the state of an evaluation", where);
    if (version != VERSION)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: is a state of version %d, expected %d", where, version, VERSION);
    return PL_OK;
}

static pl_status check_text(const json_t *root, const pl_passages *passages, const char *where, pl_error *err)
{
    int length = 0, n = 0;
    const char *text = NULL;
    char want[FINGERPRINT_BYTES];
    PL_TRY(check_version(root, where, err));
    PL_TRY(pl_member_int(root, "length", where, 1, INT32_MAX, &length, err));
    PL_TRY(pl_member_int(root, "pieces", where, 1, INT32_MAX, &n, err));
    PL_TRY(pl_member_text(root, "text", where, &text, err));
    PL_TRY(need(text, "the fingerprint of the text", where, err));
    if (length != passages->length)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is of pieces of %d tokens, this run of %d", where, length,
                       passages->length);
    if (n != passages->n)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is of %d pieces of a text, this run of %d", where, n, passages->n);
    format_fingerprint(passages, want);
    if (strcmp(text, want) != 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: is of another text, or of another tokenizer", where);
    return PL_OK;
}

static pl_status check_reference(const json_t *root, const pl_eval_input *reference, const char *where, pl_error *err)
{
    const json_t *object = NULL;
    const char *name = "none";
    PL_TRY(pl_member_object(root, "reference", where, &object, err));
    if (object)
        PL_TRY(input_name(object, where, &name, err));
    if (!object != !reference || (object && strcmp(name, reference->file) != 0))
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: its reference is %s, of this run %s", where, name,
                       reference ? reference->file : "none");
    if (object && !is_input(object, reference))
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: the reference %s has changed since", where, name);
    return PL_OK;
}

/* Sums that such a run cannot have left behind are no good to go on with. */
static pl_status check_sums(const pl_eval_state *state, int done, const pl_quality *q, const char *where, pl_error *err)
{
    int64_t n = pl_passages_scored(state->passages, done);
    bool finite = true;
    for (size_t i = 0; i < N_SUMS; i++)
        if (!sums[i].whole)
            finite &= isfinite(*(const double *)(const void *)((const char *)q + sums[i].offset)) != 0;
    if (!finite || q->n != n || q->n_compared != (state->reference ? n : 0) || q->same_top < 0 || q->same_top > n)
        return pl_fail(err, PL_ERR_FORMAT, "%s: holds sums that are not of %d pieces", where, done);
    return PL_OK;
}

static pl_status take_result(const json_t *object, pl_eval_state *state, const char *where, pl_error *err)
{
    const json_t *model = NULL, *sums_object = NULL;
    const char *name, *path = NULL;
    int done = 0;
    PL_TRY(pl_member_object(object, "model", where, &model, err));
    PL_TRY(need(model, "the model of a result", where, err));
    PL_TRY(input_name(model, where, &name, err));
    PL_TRY(pl_member_text(object, "path", where, &path, err));
    PL_TRY(need(path, "the path of a result", where, err));
    PL_TRY(pl_member_int(object, "pieces", where, 0, state->passages->n, &done, err));
    PL_TRY(pl_member_object(object, "sums", where, &sums_object, err));
    PL_TRY(need(sums_object, "the sums of a result", where, err));
    for (size_t i = 0; i < state->n; i++) {
        pl_eval_result *r = &state->results[i];
        if (strcmp(r->model->file, name) != 0 || strcmp(r->path, path) != 0)
            continue;
        if (!is_input(model, r->model))
            return pl_fail(err, PL_ERR_ARGUMENT, "%s: %s has changed since", where, name);
        pl_quality q;
        PL_TRY(read_sums(sums_object, where, &q, err));
        PL_TRY(check_sums(state, done, &q, where, err));
        r->done = done;
        r->sums = q;
        return PL_OK;
    }
    return pl_fail(err, PL_ERR_ARGUMENT, "%s: holds %s on path %s, which this run does not measure", where, name, path);
}

static pl_status take_state(const json_t *root, pl_eval_state *state, const char *where, pl_error *err)
{
    PL_TRY(check_text(root, state->passages, where, err));
    PL_TRY(check_reference(root, state->reference, where, err));
    const json_t *results = json_object_get(root, "results");
    if (!json_is_array(results))
        return pl_fail(err, PL_ERR_FORMAT, "%s: results is %s, expected a list", where,
                       results ? pl_member_kind(results) : "missing");
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *object = json_array_get(results, i);
        if (!json_is_object(object))
            return pl_fail(err, PL_ERR_FORMAT, "%s: result %zu is %s, expected an object", where, i,
                           pl_member_kind(object));
        PL_TRY(take_result(object, state, where, err));
    }
    return PL_OK;
}

pl_status pl_eval_state_resume(const char *file, pl_eval_state *state, pl_error *err)
{
    pl_mapfile map;
    json_t *root;
    if (access(file, F_OK) != 0 && errno == ENOENT)
        return PL_OK;
    PL_TRY(pl_mapfile_open(file, &map, err));
    pl_status status = pl_member_parse(map.data ? (const char *)map.data : "", map.size, file, &root, err);
    if (status == PL_OK) {
        status = take_state(root, state, file, err);
        json_decref(root);
    }
    pl_mapfile_close(&map);
    return status;
}
