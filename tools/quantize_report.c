#include "tools/quantize_report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/convert/fit.h"
#include "host/convert/recipe.h"
#include "tools/size_text.h"

/* Rows of the table: the roles of matrices, then what has no row of its own. */
enum { ROW_UNREAD = PL_ROLES, ROW_VECTORS, ROW_OTHERS, ROWS };

#define TYPES 41 /* GGUF's numbers of types go up to 40 */

typedef struct row {
    int tensors, of_type[TYPES];
    int64_t values, bytes;
    pl_encode_error error;
} row;

static int row_of(const pl_export *e, const pl_export_tensor *t)
{
    if (t->role >= PL_ROLES)
        return ROW_OTHERS;
    if (pl_recipe_unread(e, t))
        return ROW_UNREAD;
    return pl_recipe_may_change(t) ? (int)t->role : ROW_VECTORS;
}

static const char *row_label(int i)
{
    switch (i) {
    case ROW_UNREAD: return "k, v never read";
    case ROW_VECTORS: return "norms, mixing";
    case ROW_OTHERS: return "not text";
    default: return pl_weight_table[i].label;
    }
}

static void add_tensor(row *r, const pl_quantize_report *report, size_t i)
{
    const pl_export_tensor *t = &report->e->tensors[i];
    r->tensors++;
    r->of_type[t->type]++;
    r->values += t->n_rows * t->n_cols;
    r->bytes += pl_fit_tensor_bytes(t);
    if (report->errors) {
        r->error.error += report->errors[i].error;
        r->error.energy += report->errors[i].energy;
    }
}

static void fill(const pl_quantize_report *report, row rows[ROWS], row *all)
{
    memset(rows, 0, ROWS * sizeof *rows);
    memset(all, 0, sizeof *all);
    for (size_t i = 0; i < report->e->n; i++) {
        add_tensor(&rows[row_of(report->e, &report->e->tensors[i])], report, i);
        add_tensor(all, report, i);
    }
}

static double bits(const row *r)
{
    return r->values > 0 ? 8.0 * (double)r->bytes / (double)r->values : 0;
}

/* Root of the relative squared error: how large the error is beside the values; NAN where none was measured. */
static double relative_error(pl_encode_error e)
{
    return e.energy > 0 ? sqrt(e.error / e.energy) : NAN;
}

/* ---- for people ---------------------------------------------------------------------------------- */

static void list_types(const row *r, char *out, size_t size)
{
    size_t at = 0;
    *out = '\0';
    for (int type = 0; type < TYPES && at < size; type++)
        if (r->of_type[type] > 0) {
            int wrote = snprintf(out + at, size - at, "%s%s x %d", at ? ", " : "", pl_dtype_describe(type)->name,
                                 r->of_type[type]);
            at += wrote > 0 ? (size_t)wrote : 0;
        }
}

static void print_row(const char *label, const row *r, bool with_types)
{
    char count[PL_SIZE_TEXT], size[PL_SIZE_TEXT], types[160] = "", error[16] = "";
    if (with_types)
        list_types(r, types, sizeof types);
    if (r->error.error > 0)
        snprintf(error, sizeof error, "%.3g %%", 100 * relative_error(r->error));
    printf("  %-16s %15s %10s %6.2f %9s  %s\n", label, pl_count_text(r->values, count),
           pl_size_text((double)r->bytes, size), bits(r), error, types);
}

static void print_card(const pl_quantize_report *report)
{
    char weights[PL_SIZE_TEXT], kv[PL_SIZE_TEXT], work[PL_SIZE_TEXT], all[PL_SIZE_TEXT];
    printf("A card holds %s: weights %s, %d tokens of K/V %s, the work of a step %s\n",
           pl_size_text((double)(report->card_weights + report->card_kv + report->card_work), all),
           pl_size_text((double)report->card_weights, weights), report->context,
           pl_size_text((double)report->card_kv, kv), pl_size_text((double)report->card_work, work));
}

void pl_quantize_print(const pl_options *options, const pl_quantize_report *report)
{
    row rows[ROWS], all;
    char size[PL_SIZE_TEXT];
    fill(report, rows, &all);
    printf("  %-16s %15s %10s %6s %9s  %s\n", "part", "parameters", "size", "bits", report->errors ? "error" : "",
           "types");
    for (int i = 0; i < ROWS; i++)
        if (rows[i].tensors > 0)
            print_row(row_label(i), &rows[i], true);
    all.error = (pl_encode_error){0, 0}; /* parts have scales of their own */
    print_row("= all", &all, false);
    if (report->errors)
        printf("%s: %s in %.1f s, %.2f bits a weight\n", options->out_file,
               pl_size_text((double)report->file_bytes, size), report->seconds, bits(&all));
    print_card(report);
    if (isfinite(report->predicted_loss))
        printf("Predicted divergence %.2g nats a token\n", report->predicted_loss);
}

/* ---- for programs -------------------------------------------------------------------------------- */

static void put_types(pl_json *json, const row *r)
{
    pl_json_key_object(json, "types");
    for (int type = 0; type < TYPES; type++)
        if (r->of_type[type] > 0)
            pl_json_put_int(json, pl_dtype_describe(type)->name, r->of_type[type]);
    pl_json_end_object(json);
}

static void put_row(pl_json *json, const char *label, const row *r)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "part", label);
    pl_json_put_int(json, "tensors", r->tensors);
    pl_json_put_int(json, "parameters", r->values);
    pl_json_put_int(json, "bytes", r->bytes);
    pl_json_put_double(json, "relative_error", relative_error(r->error));
    put_types(json, r);
    pl_json_end_object(json);
}

static void put_tensor(pl_json *json, const pl_quantize_report *report, size_t i)
{
    const pl_export_tensor *t = &report->e->tensors[i];
    pl_json_begin_object(json);
    pl_json_put_string(json, "name", t->name);
    pl_json_put_string(json, "type", pl_dtype_describe((int)t->type)->name);
    pl_json_put_int(json, "bytes", pl_fit_tensor_bytes(t));
    pl_json_put_double(json, "relative_error", report->errors ? relative_error(report->errors[i]) : NAN);
    pl_json_end_object(json);
}

static void put_card(pl_json *json, const pl_quantize_report *report)
{
    pl_json_key_object(json, "card");
    pl_json_put_int(json, "weights", report->card_weights);
    pl_json_put_int(json, "kv", report->card_kv);
    pl_json_put_int(json, "work", report->card_work);
    pl_json_put_int(json, "context", report->context);
    pl_json_end_object(json);
}

static void put_report(pl_json *json, const pl_options *options, const pl_quantize_report *report)
{
    row rows[ROWS], all;
    fill(report, rows, &all);
    pl_json_begin_object(json);
    pl_json_put_string(json, "file", report->errors ? options->out_file : NULL);
    pl_json_put_int(json, "bytes", report->file_bytes);
    pl_json_put_double(json, "bits_per_weight", bits(&all));
    pl_json_put_double(json, "seconds", report->seconds);
    pl_json_put_double(json, "predicted_divergence", report->predicted_loss);
    put_card(json, report);
    pl_json_key_array(json, "parts");
    for (int i = 0; i < ROWS; i++)
        if (rows[i].tensors > 0)
            put_row(json, row_label(i), &rows[i]);
    pl_json_end_array(json);
    pl_json_key_array(json, "tensors");
    for (size_t i = 0; i < report->e->n; i++)
        put_tensor(json, report, i);
    pl_json_end_array(json);
    pl_json_end_object(json);
    pl_json_newline(json);
}

pl_status pl_quantize_print_json(const pl_options *options, const pl_quantize_report *report, pl_error *err)
{
    pl_json json = pl_json_to_file(stdout);
    put_report(&json, options, report);
    return pl_json_flush(&json, "standard output", err);
}
