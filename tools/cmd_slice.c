/* pleiad slice: a path of a model as a model of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/base/clock.h"
#include "host/base/json_out.h"
#include "host/base/progress.h"
#include "host/base/topology.h"
#include "host/convert/recipe.h"
#include "host/convert/write_gguf.h"
#include "host/convert/write_hf.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/size_text.h"

typedef struct slicing {
    const pl_options *options;
    pl_checkpoint *checkpoint;
    pl_export *e;
    pl_progress progress;
    pl_checkpoint_format format;
    double seconds;
} slicing;

/* ---- what to cut --------------------------------------------------------------------------------- */

/* out: PL_PATH_NAME_BYTES */
static pl_status make_spec(const pl_options *o, char *out, pl_error *err)
{
    int n;
    if (o->slice && (o->widths || o->skip))
        return pl_fail(err, PL_ERR_ARGUMENT, "--slice says all of it: leave out --widths and --skip");
    if (!o->slice && !o->widths)
        return pl_fail(err, PL_ERR_ARGUMENT, "say what to cut out: --slice e2b, or --widths W[,W...] and --skip A-B,C");
    if (o->slice)
        n = snprintf(out, PL_PATH_NAME_BYTES, "%s", o->slice);
    else
        n = snprintf(out, PL_PATH_NAME_BYTES, "mix:widths=%s%s%s", o->widths, o->skip ? ";skip=" : "",
                     o->skip ? o->skip : "");
    if (n < 0 || n >= PL_PATH_NAME_BYTES)
        return pl_fail(err, PL_ERR_ARGUMENT, "the path has %d bytes, at most %d are possible", n,
                       PL_PATH_NAME_BYTES - 1);
    return PL_OK;
}

static bool ends_in(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static pl_status check_output(const slicing *s, pl_error *err)
{
    const pl_options *o = s->options;
    struct stat in, out;
    if (s->format == PL_CHECKPOINT_HF && pl_checkpoint_kind(s->checkpoint) == PL_CHECKPOINT_GGUF)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: out of a GGUF file comes a GGUF file; its name must end in .gguf",
                       o->out_file);
    if (stat(o->model, &in) == 0 && stat(o->out_file, &out) == 0 && in.st_dev == out.st_dev && in.st_ino == out.st_ino)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s and %s are the same: a model is not cut in place", o->model,
                       o->out_file);
    return PL_OK;
}

static pl_status plan(slicing *s, pl_error *err)
{
    char spec[PL_PATH_NAME_BYTES];
    pl_path path;
    PL_TRY(make_spec(s->options, spec, err));
    PL_TRY(pl_checkpoint_open(s->options->model, &s->checkpoint, err));
    s->format = ends_in(s->options->out_file, ".gguf") ? PL_CHECKPOINT_GGUF : PL_CHECKPOINT_HF;
    PL_TRY(check_output(s, err));
    PL_TRY(pl_path_parse(s->checkpoint, spec, &path, err));
    return pl_export_plan(s->checkpoint, &path, s->format, &s->e, err);
}

/* ---- writing ------------------------------------------------------------------------------------- */

static void show_progress(void *user, const char *what, double fraction)
{
    pl_progress *progress = user;
    (void)what;
    pl_progress_update(progress, fraction * progress->total);
}

static bool interrupted(void *user)
{
    (void)user;
    return pl_interrupt_pending();
}

static int64_t all_bytes(const pl_export *e)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < e->n; i++)
        if (pl_dtype_describe((int)e->tensors[i].type))
            bytes += e->tensors[i].n_rows * (int64_t)pl_dtype_bytes(e->tensors[i].type, e->tensors[i].n_cols);
    return bytes;
}

/* The source's, which a slice does not change; where it states none, that of its matrices. */
static uint32_t file_type(const slicing *s)
{
    const pl_gguf_value *values;
    size_t n = pl_checkpoint_gguf_values(s->checkpoint, &values);
    for (size_t i = 0; i < n; i++)
        if (strcmp(values[i].key, "general.file_type") == 0 && values[i].type == PL_GGUF_U32 && !values[i].is_array)
            return (uint32_t)pl_gguf_integer_at(&values[i], 0);
    return pl_recipe_file_type(pl_checkpoint_weights(s->checkpoint)->layer[0].up.type);
}

static pl_status write_gguf(slicing *s, pl_error *err)
{
    pl_topology *topology = NULL;
    pl_pool *pool = NULL;
    PL_TRY(pl_topology_open(NULL, &topology, err));
    pl_status status = pl_pool_create(pl_topology_cores(topology), NULL, &pool, err);
    pl_topology_close(topology);
    PL_TRY(status);
    const pl_write_options options = {.pool = pool,
                                      .file_type = file_type(s),
                                      .progress = show_progress,
                                      .progress_user = &s->progress,
                                      .cancelled = interrupted};
    status = pl_write_gguf(s->e, s->options->out_file, &options, err);
    pl_pool_free(pool);
    return status;
}

static pl_status write_output(slicing *s, pl_error *err)
{
    const pl_write_hf_options options = {
        .progress = show_progress, .progress_user = &s->progress, .cancelled = interrupted};
    double began = pl_clock_seconds();
    pl_progress_start(&s->progress, "Slicing", "B", (double)all_bytes(s->e), !s->options->quiet);
    pl_status status = s->format == PL_CHECKPOINT_GGUF ? write_gguf(s, err)
                                                       : pl_write_hf(s->e, s->options->out_file, &options, err);
    pl_progress_finish(&s->progress);
    s->seconds = pl_clock_seconds() - began;
    return status;
}

/* ---- what was written ---------------------------------------------------------------------------- */

/* Of the file, or of the folder's weights. */
static int64_t written_bytes(const slicing *s)
{
    struct stat info;
    char path[4096];
    snprintf(path, sizeof path, "%s%s", s->options->out_file,
             s->format == PL_CHECKPOINT_HF ? "/model.safetensors" : "");
    return stat(path, &info) == 0 ? (int64_t)info.st_size : 0;
}

/* Of the text model, without what only fills the file up. */
static int64_t parameters(const pl_export *e)
{
    int64_t n = 0;
    for (size_t i = 0; i < e->n; i++) {
        const pl_export_tensor *t = &e->tensors[i];
        if (t->role == PL_ROLE_PLE_TABLE)
            n += (int64_t)e->config.ple_vocab * t->n_cols;
        else if (t->role != PL_ROLES && t->source)
            n += t->n_rows * t->n_cols;
    }
    return n;
}

static bool even(const pl_config *c)
{
    for (int l = 1; l < c->n_layers; l++)
        if (c->ffn[l] != c->ffn[0])
            return false;
    return true;
}

/* Equal neighbours together: "16384 x 10, 8192 x 20". */
static void print_widths(const pl_config *c)
{
    for (int l = 0, run = 1; l < c->n_layers; l += run) {
        for (run = 1; l + run < c->n_layers && c->ffn[l + run] == c->ffn[l];)
            run++;
        printf("%s%d x %d", l > 0 ? ", " : "", c->ffn[l], run);
    }
}

static void print(const slicing *s)
{
    const pl_config *c = &s->e->config;
    char size[PL_SIZE_TEXT], count[PL_SIZE_TEXT];
    printf("%s: %s, %s parameters, %d of %d layers, FFN ", s->options->out_file,
           pl_size_text((double)written_bytes(s), size), pl_count_text(parameters(s->e), count), c->n_layers,
           pl_checkpoint_config(s->checkpoint)->n_layers);
    print_widths(c);
    printf("\n");
}

static pl_status print_json(const slicing *s, pl_error *err)
{
    const pl_config *c = &s->e->config;
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_object(&json);
    pl_json_key(&json, "file");
    pl_json_string(&json, s->options->out_file);
    pl_json_key(&json, "format");
    pl_json_string(&json, s->format == PL_CHECKPOINT_GGUF ? "gguf" : "hugging_face");
    pl_json_key(&json, "bytes");
    pl_json_int(&json, written_bytes(s));
    pl_json_key(&json, "parameters");
    pl_json_int(&json, parameters(s->e));
    pl_json_key(&json, "layers");
    pl_json_begin_array(&json);
    for (int l = 0; l < c->n_layers; l++) {
        pl_json_begin_object(&json);
        pl_json_key(&json, "of");
        pl_json_int(&json, s->e->old_layer[l]);
        pl_json_key(&json, "ffn");
        pl_json_int(&json, c->ffn[l]);
        pl_json_end_object(&json);
    }
    pl_json_end_array(&json);
    pl_json_key(&json, "seconds");
    pl_json_double(&json, s->seconds);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    return pl_json_flush(&json, "standard output", err);
}

static pl_status slice(slicing *s, pl_error *err)
{
    PL_TRY(plan(s, err));
    PL_TRY(write_output(s, err));
    if (s->format == PL_CHECKPOINT_GGUF && !even(&s->e->config))
        pl_console_note(s->options, "%s: the layers differ in width, which llama.cpp cannot run", s->options->out_file);
    if (s->options->json)
        return print_json(s, err);
    if (!s->options->quiet)
        print(s);
    return PL_OK;
}

pl_status pl_cmd_slice(const pl_options *options, pl_error *err)
{
    slicing s = {.options = options};
    pl_interrupt_catch();
    pl_status status = slice(&s, err);
    pl_export_free(s.e);
    pl_checkpoint_close(s.checkpoint);
    return status;
}
