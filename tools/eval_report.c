#include "tools/eval_report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "host/base/json_out.h"
#include "tools/console.h"

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

/* ---- the table ------------------------------------------------------------------------------------ */

/* The last part of the path, all of it where two models share that. */
static const char *shown_name(const pl_eval_state *state, const pl_eval_input *model)
{
    for (size_t i = 0; i < state->n; i++) {
        const pl_eval_input *other = state->results[i].model;
        if (strcmp(other->file, model->file) != 0 && strcmp(base_name(other->file), base_name(model->file)) == 0)
            return model->file;
    }
    return base_name(model->file);
}

static void widen(int *width, const char *text)
{
    int n = (int)strlen(text);
    *width = n > *width ? n : *width;
}

/* "12.3456 ± 0.0123", padded to `width` columns: the sign is one column and two bytes. */
static void print_pair(int width, int digits, double value, double error)
{
    char text[64];
    snprintf(text, sizeof text, "%.*f ± %.*f", digits, value, digits, error);
    printf("  %*s", width + 1, text);
}

static void print_result(const pl_eval_state *state, const pl_eval_result *r, int name_width, int path_width)
{
    pl_quality_summary s = pl_quality_summarise(&r->sums);
    printf("%-*s  %-*s  %9.1f", name_width, shown_name(state, r->model), path_width, r->path,
           (double)r->model->bytes / 1e6);
    print_pair(20, s.perplexity < 1e5 ? 4 : 1, s.perplexity, s.perplexity_error);
    if (state->reference) {
        print_pair(19, 5, s.perplexity_ratio, s.perplexity_ratio_error);
        print_pair(19, 6, s.kl, s.kl_error);
        printf("  %9.4f  %9.3f", s.kl_max, 100 * s.dp_rms);
        print_pair(16, 2, 100 * s.same_top, 100 * s.same_top_error);
    }
    putchar('\n');
}

pl_status pl_eval_report_table(const pl_eval_state *state, pl_error *err)
{
    int name_width = 5, path_width = 4;
    for (size_t i = 0; i < state->n; i++) {
        widen(&name_width, shown_name(state, state->results[i].model));
        widen(&path_width, state->results[i].path);
    }
    printf("%-*s  %-*s  %9s  %20s", name_width, "model", path_width, "path", "MB", "perplexity");
    if (state->reference)
        printf("  %19s  %19s  %9s  %9s  %16s", "to the reference's", "KL divergence", "KL max", "RMS dp %",
               "same top %");
    putchar('\n');
    for (size_t i = 0; i < state->n; i++)
        print_result(state, &state->results[i], name_width, path_width);
    return pl_console_flush(err);
}

/* ---- JSON ----------------------------------------------------------------------------------------- */

static void put_text(pl_json *json, const pl_options *options, const pl_passages *passages)
{
    char fingerprint[17];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, passages->fingerprint);
    pl_json_key_object(json, "text");
    pl_json_put_string(json, "file", options->file);
    pl_json_put_string(json, "fingerprint", fingerprint);
    pl_json_put_int(json, "pieces", passages->n);
    pl_json_put_int(json, "length", passages->length);
    pl_json_put_bool(json, "chat", options->chats);
    pl_json_put_int(json, "scored", pl_passages_scored(passages, passages->n));
    pl_json_end_object(json);
}

static void put_reference(pl_json *json, const pl_eval_input *reference)
{
    pl_json_key(json, "reference");
    if (!reference) {
        pl_json_null(json);
        return;
    }
    pl_json_begin_object(json);
    pl_json_put_string(json, "file", reference->file);
    pl_json_put_int(json, "bytes", reference->bytes);
    pl_json_end_object(json);
}

static void put_result(pl_json *json, const pl_eval_result *r, bool compared)
{
    pl_quality_summary s = pl_quality_summarise(&r->sums);
    pl_json_begin_object(json);
    pl_json_put_string(json, "model", r->model->file);
    pl_json_put_int(json, "bytes", r->model->bytes);
    pl_json_put_string(json, "path", r->path);
    pl_json_put_int(json, "positions", r->sums.n);
    pl_json_put_double(json, "nll", r->sums.nll / (double)r->sums.n);
    pl_json_put_double(json, "perplexity", s.perplexity);
    pl_json_put_double(json, "perplexity_error", s.perplexity_error);
    if (compared) {
        pl_json_put_double(json, "reference_perplexity", s.ref_perplexity);
        pl_json_put_double(json, "perplexity_ratio", s.perplexity_ratio);
        pl_json_put_double(json, "perplexity_ratio_error", s.perplexity_ratio_error);
        pl_json_put_double(json, "kl", s.kl);
        pl_json_put_double(json, "kl_error", s.kl_error);
        pl_json_put_double(json, "kl_max", s.kl_max);
        pl_json_put_double(json, "dp_mean", r->sums.dp / (double)r->sums.n);
        pl_json_put_double(json, "dp_rms", s.dp_rms);
        pl_json_put_double(json, "same_top", s.same_top);
        pl_json_put_double(json, "same_top_error", s.same_top_error);
    }
    pl_json_end_object(json);
}

pl_status pl_eval_report_json(const pl_options *options, const pl_eval_state *state, pl_error *err)
{
    pl_json json = pl_json_to_file(stdout);
    pl_json_begin_object(&json);
    put_text(&json, options, state->passages);
    put_reference(&json, state->reference);
    pl_json_key_array(&json, "results");
    for (size_t i = 0; i < state->n; i++)
        put_result(&json, &state->results[i], state->reference != NULL);
    pl_json_end_array(&json);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    return pl_json_flush(&json, "standard output", err);
}
