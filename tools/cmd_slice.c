/* pleiad slice: a path of a model as a model of its own. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "host/base/clock.h"
#include "host/base/json_out.h"
#include "host/base/outfile.h"
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
    if (s->format == PL_CHECKPOINT_HF && pl_checkpoint_kind(s->checkpoint) == PL_CHECKPOINT_GGUF)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: out of a GGUF file comes a GGUF file; its name must end in .gguf",
                       o->out_file);
    if (pl_same_file(o->model, o->out_file))
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
    pl_pool *pool = NULL;
    PL_TRY(pl_topology_pool(0, false, &pool, err));
    const pl_write_options options = {.pool = pool,
                                      .file_type = file_type(s),
                                      .progress = pl_progress_show,
                                      .progress_user = &s->progress,
                                      .cancelled = pl_interrupt_poll};
    pl_status status = pl_write_gguf(s->e, s->options->out_file, &options, err);
    pl_pool_free(pool);
    return status;
}

static pl_status write_output(slicing *s, pl_error *err)
{
    const pl_write_hf_options options = {
        .progress = pl_progress_show, .progress_user = &s->progress, .cancelled = pl_interrupt_poll};
    double began = pl_clock_seconds();
    pl_progress_start(&s->progress, "Slicing", "B", (double)pl_export_bytes(s->e), !s->options->quiet);
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

static void print(const slicing *s)
{
    const pl_config *c = &s->e->config;
    char size[PL_SIZE_TEXT], count[PL_SIZE_TEXT];
    printf("%s: %s, %s parameters, %d of %d layers, FFN ", s->options->out_file,
           pl_size_text((double)written_bytes(s), size), pl_count_text(parameters(s->e), count), c->n_layers,
           pl_checkpoint_config(s->checkpoint)->n_layers);
    pl_print_widths(c->ffn, NULL, c->n_layers);
    printf("\n");
}

static pl_status print_json(const slicing *s, pl_error *err)
{
    const pl_config *c = &s->e->config;
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "file", s->options->out_file);
    pl_json_put_string(&json, "format", s->format == PL_CHECKPOINT_GGUF ? "gguf" : "hugging_face");
    pl_json_put_int(&json, "bytes", written_bytes(s));
    pl_json_put_int(&json, "parameters", parameters(s->e));
    pl_json_key_array(&json, "layers");
    for (int l = 0; l < c->n_layers; l++) {
        pl_json_begin_object(&json);
        pl_json_put_int(&json, "of", s->e->old_layer[l]);
        pl_json_put_int(&json, "ffn", c->ffn[l]);
        pl_json_end_object(&json);
    }
    pl_json_end_array(&json);
    pl_json_put_double(&json, "seconds", s->seconds);
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
