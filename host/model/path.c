#include "host/model/path.h"

#include "host/model/weight_table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct parser {
    const pl_config *config;
    const pl_weights *weights;
    pl_path *out;
    pl_error *err;
} parser;

static void take_everything(const pl_config *c, pl_path *out)
{
    out->n_layers = c->n_layers;
    for (int l = 0; l < c->n_layers; l++) {
        out->skip[l] = false;
        out->ffn[l] = c->ffn[l];
    }
}

static bool even_ffn(const pl_config *c, int width)
{
    for (int l = 0; l < c->n_layers; l++)
        if (c->ffn[l] != width)
            return false;
    return true;
}

static bool published_e2b(const pl_config *c)
{
    return c->n_layers == 30 && c->hidden == 2048 && c->n_kv_layers == 20 && even_ffn(c, 8192);
}

/* The first whole period of the shared layers is skipped, up to its global layer; false where none would
 * remain: such a file is the small model already. */
static bool skip_first_period(const pl_config *c, pl_path *out)
{
    int end = c->n_kv_layers;
    while (end < c->n_layers && c->local[end])
        end++;
    if (end + 1 >= c->n_layers)
        return false;
    for (int l = c->n_kv_layers; l <= end; l++)
        out->skip[l] = true;
    return true;
}

static void take_e2b(const pl_config *c, pl_path *out)
{
    take_everything(c, out);
    if (published_e2b(c) || !skip_first_period(c, out))
        return;
    for (int l = 0; l < c->n_layers; l++)
        out->ffn[l] = out->skip[l] ? 0 : (c->ffn[l] + 1) / 2;
}

static pl_status wrong(const parser *p, const char *fmt, ...) PL_PRINTF(2, 3);

static pl_status wrong(const parser *p, const char *fmt, ...)
{
    char what[PL_ERROR_BYTES];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return pl_fail(p->err, PL_ERR_ARGUMENT, "%s", what);
}

/* A number of at most nine digits at *text, which moves behind it. */
static bool take_number(const char **text, int *out)
{
    int value = 0, digits = 0;
    for (; **text >= '0' && **text <= '9' && digits < 9; (*text)++, digits++)
        value = 10 * value + (**text - '0');
    *out = value;
    return digits > 0 && !(**text >= '0' && **text <= '9');
}

static pl_status skip_layer(const parser *p, int layer)
{
    const pl_config *c = p->config;
    if (c->n_kv_layers == c->n_layers)
        return wrong(p, "layer %d of skip: this model has no shared layers, none may be skipped", layer);
    if (layer < c->n_kv_layers || layer >= c->n_layers)
        return wrong(p, "layer %d of skip: only layers %d to %d may be skipped", layer, c->n_kv_layers,
                     c->n_layers - 1);
    if (p->out->skip[layer])
        return wrong(p, "layer %d of skip: named twice", layer);
    p->out->skip[layer] = true;
    return PL_OK;
}

static pl_status parse_skip(const parser *p, const char *text)
{
    const char *at = text;
    for (;;) {
        int first, last;
        if (!take_number(&at, &first))
            return wrong(p, "skip: '%.40s' is not a list of layers such as 20-24 or 20,22", text);
        last = first;
        bool range = *at == '-';
        at += range;
        if (range && !take_number(&at, &last))
            return wrong(p, "skip: '%.40s' is not a list of layers such as 20-24 or 20,22", text);
        if (last < first)
            return wrong(p, "skip: %d-%d runs backwards", first, last);
        for (int l = first; l <= last; l++)
            PL_TRY(skip_layer(p, l));
        if (*at == '\0' || *at == ';')
            return PL_OK;
        if (*at++ != ',')
            return wrong(p, "skip: '%.40s' is not a list of layers such as 20-24 or 20,22", text);
    }
}

static pl_status set_width(const parser *p, int layer, int width)
{
    const pl_tensor *down = &p->weights->layer[layer].down;
    int block = pl_dtype_describe((int)down->type)->block_elems, full = p->config->ffn[layer];
    if (width < 1 || width > full)
        return wrong(p, "width %d: layer %d takes 1 to %d", width, layer, full);
    if (width % block != 0)
        return wrong(p, "width %d: quantised ffn_down of layer %d needs multiples of %d", width, layer, block);
    p->out->ffn[layer] = width;
    return PL_OK;
}

static pl_status parse_widths(const parser *p, const char *text)
{
    int widths[PL_MAX_LAYERS], n = 0, kept = 0;
    for (const char *at = text;; at++) {
        int width;
        if (!take_number(&at, &width) || (*at != ',' && *at != ';' && *at != '\0'))
            return wrong(p, "widths: '%.40s' is not a list of numbers", text);
        if (n < PL_MAX_LAYERS)
            widths[n] = width;
        n++;
        if (*at != ',')
            break;
    }
    for (int l = 0; l < p->config->n_layers; l++)
        kept += !p->out->skip[l];
    if (n != 1 && n != kept)
        return wrong(p, "widths: %d values for %d kept layers", n, kept);
    for (int l = 0, i = 0; l < p->config->n_layers; l++)
        if (p->out->skip[l])
            p->out->ffn[l] = 0;
        else
            PL_TRY(set_width(p, l, n == 1 ? widths[0] : widths[i++]));
    return PL_OK;
}

/* Skips count first: widths are those of the layers that remain. */
static pl_status parse_mix(const parser *p, const char *text)
{
    const char *widths = NULL, *skip = NULL;
    for (const char *part = text; part; part = strchr(part, ';')) {
        part += part > text && *part == ';';
        const char **slot = strncmp(part, "widths=", 7) == 0 ? &widths : strncmp(part, "skip=", 5) == 0 ? &skip : NULL;
        if (!slot)
            return wrong(p, "'%.*s' is neither widths=W[,W...] nor skip=A-B,C", (int)strcspn(part, ";"), part);
        if (*slot)
            return wrong(p, "'%.*s' is given twice", (int)strcspn(part, "="), part);
        *slot = strchr(part, '=') + 1;
    }
    if (!widths)
        return wrong(p, "widths=W[,W...] is missing");
    take_everything(p->config, p->out);
    if (skip)
        PL_TRY(parse_skip(p, skip));
    return parse_widths(p, widths);
}

static pl_status parse_spec(const parser *p, const char *spec)
{
    if (strncmp(spec, "mix:", 4) == 0)
        return parse_mix(p, spec + 4);
    if (strcmp(spec, "full") == 0) {
        take_everything(p->config, p->out);
        return PL_OK;
    }
    return wrong(p, "'%.80s' is neither full nor mix:widths=W[,W...][;skip=A-B,C]", spec);
}

static const char *declared(const pl_checkpoint *checkpoint, const char *name)
{
    const pl_named_path *paths;
    size_t n = pl_checkpoint_paths(checkpoint, &paths);
    for (size_t i = 0; i < n; i++)
        if (strcmp(paths[i].name, name) == 0)
            return paths[i].spec;
    return NULL;
}

static pl_status unknown(const pl_checkpoint *checkpoint, const char *text, pl_error *err)
{
    const pl_named_path *paths;
    size_t n = pl_checkpoint_paths(checkpoint, &paths), at = 0;
    char names[256] = "";
    for (size_t i = 0; i < n && at < sizeof names; i++) {
        if (strcmp(paths[i].name, "e4b") == 0 || strcmp(paths[i].name, "e2b") == 0)
            continue;
        int wrote = snprintf(names + at, sizeof names - at, "%s, ", paths[i].name);
        at += wrote > 0 ? (size_t)wrote : 0;
    }
    return pl_fail(err, PL_ERR_ARGUMENT,
                   "path '%.80s' is not known: expected e4b, e2b, %sor mix:widths=W[,W...][;skip=A-B,C]", text, names);
}

/* The widths that a rule gives must fit the blocks as well. */
static pl_status check_widths(const parser *p)
{
    for (int l = 0; l < p->config->n_layers; l++)
        if (!p->out->skip[l] && p->out->ffn[l] != p->config->ffn[l])
            PL_TRY(set_width(p, l, p->out->ffn[l]));
    return PL_OK;
}

static pl_status resolve(const pl_checkpoint *checkpoint, const parser *p, const char *text)
{
    const char *spec = strcmp(text, "full") == 0 ? text : declared(checkpoint, text);
    if (spec || strncmp(text, "mix:", 4) == 0)
        return parse_spec(p, spec ? spec : text);
    if (strcmp(text, "e4b") == 0) {
        if (published_e2b(p->config))
            return pl_fail(p->err, PL_ERR_ARGUMENT, "path e4b: this file holds E2B only");
        return parse_spec(p, "full");
    }
    if (strcmp(text, "e2b") == 0) {
        take_e2b(p->config, p->out);
        return check_widths(p);
    }
    return unknown(checkpoint, text, p->err);
}

pl_status pl_path_parse(const pl_checkpoint *checkpoint, const char *text, pl_path *out, pl_error *err)
{
    pl_path path = {0};
    parser p = {pl_checkpoint_config(checkpoint), pl_checkpoint_weights(checkpoint), &path, err};
    size_t n = strlen(text);
    if (n >= sizeof path.name)
        return pl_fail(err, PL_ERR_ARGUMENT, "the path's text has %zu bytes, at most %zu are possible", n,
                       sizeof path.name - 1);
    memcpy(path.name, text, n + 1);
    PL_TRY(resolve(checkpoint, &p, text));
    *out = path;
    return PL_OK;
}

const char *pl_path_default(const pl_checkpoint *checkpoint)
{
    const pl_config *c = pl_checkpoint_config(checkpoint);
    pl_path path;
    if (pl_path_parse(checkpoint, "e2b", &path, NULL) != PL_OK)
        return "e4b";
    for (int l = 0; l < c->n_layers; l++)
        if (path.ffn[l] != c->ffn[l])
            return "e4b";
    return "e2b";
}

bool pl_path_same_kv(const pl_config *config, const pl_path *a, const pl_path *b)
{
    for (int l = 0; l < config->n_kv_layers; l++)
        if (a->ffn[l] != b->ffn[l])
            return false;
    return true;
}

/* Sums over the weights that one token meets: elements of matrices, bytes of everything. */
typedef struct tally {
    int64_t elements, bytes;
} tally;

/* The size that one token meets of a dimension: FFN width and per-layer inputs are the path's. */
static int64_t on_path(const pl_config *c, const pl_path *path, int layer, pl_size size, int64_t full)
{
    if (size == PL_SIZE_F)
        return path->ffn[layer];
    if (size != PL_SIZE_LP)
        return full;
    int64_t kept = 0;
    for (int l = 0; l < c->n_layers; l++)
        kept += !path->skip[l];
    return kept * c->ple_dim;
}

/* The embedding is read whole only as the head of a tied model. */
static bool met(const pl_weights *w, const pl_path *path, const pl_weight_cursor *at)
{
    if (at->layer >= 0)
        return !path->skip[at->layer];
    return at->role != PL_ROLE_PLE_TABLE && !(at->role == PL_ROLE_EMBED && w->head.data);
}

static tally count_path(const pl_checkpoint *checkpoint, const pl_path *path)
{
    const pl_config *c = pl_checkpoint_config(checkpoint);
    const pl_weights *w = pl_checkpoint_weights(checkpoint);
    tally t = {0, 0};
    for (pl_weight_cursor at = {0}; pl_weight_next(w, c, &at);) {
        if (!met(w, path, &at))
            continue;
        const pl_weight_info *info = &pl_weight_table[at.role];
        int64_t rows = on_path(c, path, at.layer, info->rows, at.tensor->rows);
        int64_t cols = on_path(c, path, at.layer, info->cols, at.tensor->cols);
        t.elements += at.tensor->rows > 1 ? rows * cols : 0;
        t.bytes += rows * (int64_t)pl_dtype_bytes(at.tensor->type, cols);
    }
    return t;
}

int64_t pl_path_weights(const pl_checkpoint *checkpoint, const pl_path *path)
{
    return count_path(checkpoint, path).elements;
}

int64_t pl_path_bytes(const pl_checkpoint *checkpoint, const pl_path *path)
{
    return count_path(checkpoint, path).bytes;
}
