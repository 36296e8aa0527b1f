#include <math.h>
#include <stdlib.h>

#include "host/base/cpu.h"
#include "host/convert/fit.h"
#include "host/convert/importance.h"
#include "host/convert/read_rows.h"
#include "host/convert/recipe.h"
#include "quant/encode.h"

/* A sample of a tensor: this many rows, fewer where they are long. */
#define SAMPLE_ROWS 64
#define SAMPLE_VALUES (1 << 18)
#define SAMPLE_ROWS_LEAST 8
/* What a byte of the host's memory is worth, where one of the card's is 1: there is several times more of it, and of the
 * table a token reads a row. */
#define HOST_BYTE (1.0 / 32)
#define TENSORS_A_ROUND 8 /* a thread, between looks at `cancelled` */

typedef struct fit {
    const pl_fit_params *params;
    pl_export *e;
    const pl_encoder *encoder;
    pl_fit_item *items;
    size_t *tensor; /* [n] of each item */
    size_t n, n_on_card;
    double *share; /* [n] what a relative error of 1 loses */
    int64_t *units;
    bool *taken; /* [e->n] is an item */
    struct scratch *threads;
    pl_fit_step *steps;
    size_t round;              /* the first item of this one */
    pl_importance *importance; /* [] of its items */
} fit;

typedef struct scratch {
    float *values, *decoded;
    void *encoded;
    pl_error err;
} scratch;

/* ---- bytes --------------------------------------------------------------------------------------- */

static int64_t bytes_at(const pl_export_tensor *t, pl_dtype type)
{
    return t->n_rows * (int64_t)pl_dtype_bytes(type, t->n_cols);
}

int64_t pl_fit_tensor_bytes(const pl_export_tensor *t)
{
    return bytes_at(t, t->type);
}

bool pl_fit_on_card(const pl_export *e, const pl_export_tensor *t)
{
    return t->role < PL_ROLES && t->role != PL_ROLE_PLE_TABLE && !pl_recipe_unread(e, t) &&
           !(t->role == PL_ROLE_K_NORM && t->layer >= e->config.n_kv_layers);
}

int64_t pl_fit_card_bytes(const pl_export *e)
{
    int64_t sum = 0;
    for (size_t i = 0; i < e->n; i++)
        if (pl_fit_on_card(e, &e->tensors[i]))
            sum += pl_fit_tensor_bytes(&e->tensors[i]);
    return sum;
}

/* ---- candidates ---------------------------------------------------------------------------------- */

static void set_candidates(pl_fit_item *item, const pl_export_tensor *t, int64_t unit)
{
    static const pl_dtype of_256[] = {PL_Q2_K, PL_Q3_K, PL_IQ4_XS, PL_Q4_K, PL_Q5_K, PL_Q6_K, PL_Q8_0};
    static const pl_dtype of_32[] = {PL_MXFP4, PL_IQ4_NL, PL_Q4_1, PL_Q5_0, PL_Q5_1, PL_Q8_0};
    static const pl_dtype of_1[] = {PL_F16};
    const pl_dtype *types = unit % 256 == 0 ? of_256 : unit % 32 == 0 ? of_32 : of_1;
    item->n = unit % 256 == 0  ? (int)(sizeof of_256 / sizeof *of_256)
              : unit % 32 == 0 ? (int)(sizeof of_32 / sizeof *of_32)
                               : 1;
    for (int i = 0; i < item->n; i++)
        item->choice[i] = (pl_fit_choice){.type = types[i], .bytes = bytes_at(t, types[i]), .loss = 0};
}

static int fewest_bytes(const pl_fit_item *item)
{
    int best = 0;
    for (int c = 1; c < item->n; c++)
        if (item->choice[c].bytes < item->choice[best].bytes)
            best = c;
    return best;
}

static pl_dtype smallest(const pl_export_tensor *t, int64_t unit)
{
    pl_fit_item item;
    set_candidates(&item, t, unit);
    return item.choice[fewest_bytes(&item)].type;
}

/* Tensors that share a measured value, and so divide it. */
static int group_size(const pl_export *e, const pl_export_tensor *t)
{
    int n = 0;
    for (size_t i = 0; i < e->n; i++) {
        const pl_export_tensor *other = &e->tensors[i];
        n += other->role == t->role && !pl_recipe_unread(e, other) &&
             pl_third_of(&e->config, other->layer) == pl_third_of(&e->config, t->layer);
    }
    return n;
}

static pl_status add_item(fit *f, size_t i, pl_error *err)
{
    const pl_export_tensor *t = &f->e->tensors[i];
    int third = pl_third_of(&f->e->config, t->layer);
    double value = f->params->sensitivity->value[t->role][third];
    pl_fit_item *item = &f->items[f->n];
    set_candidates(item, t, f->units[i]);
    if (item->n == 1)
        value = 0; /* nothing to choose, and so nothing that could have been measured */
    if (!(value >= 0))
        return pl_fail(err, PL_ERR_ARGUMENT, "the sensitivities say nothing of roles.%s[%d], which %s needs",
                       pl_weight_table[t->role].label, third, t->name);
    f->tensor[f->n] = i;
    f->share[f->n] = value / group_size(f->e, t);
    f->taken[i] = true;
    f->n++;
    return PL_OK;
}

/* Those on the card first; what is never read has no loss and gets the smallest type there is. */
static pl_status list_items(fit *f, pl_error *err)
{
    for (int on_card = 1; on_card >= 0; on_card--) {
        for (size_t i = 0; i < f->e->n; i++) {
            pl_export_tensor *t = &f->e->tensors[i];
            bool free_type = pl_recipe_may_change(t) && !(f->params->pinned && f->params->pinned[i]);
            if (!free_type || pl_fit_on_card(f->e, t) != on_card)
                continue;
            if (pl_recipe_unread(f->e, t))
                t->type = smallest(t, f->units[i]);
            else
                PL_TRY(add_item(f, i, err));
        }
        if (on_card)
            f->n_on_card = f->n;
    }
    return PL_OK;
}

/* ---- losses -------------------------------------------------------------------------------------- */

static int64_t sample_rows(const pl_export_tensor *t)
{
    int64_t n = SAMPLE_VALUES / t->n_cols;
    n = n > SAMPLE_ROWS ? SAMPLE_ROWS : n < SAMPLE_ROWS_LEAST ? SAMPLE_ROWS_LEAST : n;
    return n < t->n_rows ? n : t->n_rows;
}

static pl_status take_sample(const fit *f, const pl_export_tensor *t, scratch *s)
{
    int64_t n = sample_rows(t), bad;
    for (int64_t i = 0; i < n; i++)
        if (!pl_read_rows(t, i * t->n_rows / n, 1, s->values + i * t->n_cols, &bad))
            return pl_fail_not_finite(f->e, t, bad, &s->err);
    for (int p = 0; t->source && p < t->n_parts; p++)
        pl_checkpoint_drop(f->e->source, &t->source[p]);
    return PL_OK;
}

static double relative_error(const fit *f, const pl_export_tensor *t, const pl_importance *importance, pl_dtype type,
                             scratch *s)
{
    int64_t n = sample_rows(t);
    pl_encode_error sum = {0, 0};
    for (int64_t i = 0; i < n; i++) {
        const float *weight = pl_importance_row(importance, i * t->n_rows / n), *src = s->values + i * t->n_cols;
        f->encoder->encode(type, src, weight, s->encoded, t->n_cols);
        pl_decode(type, s->encoded, s->decoded, t->n_cols);
        pl_encode_error one = f->encoder->measure(src, s->decoded, weight, t->n_cols);
        sum.error += one.error;
        sum.energy += one.energy;
    }
    return sum.energy > 0 ? sum.error / sum.energy : 0;
}

static pl_status measure_item(fit *f, size_t item, const pl_importance *importance, scratch *s)
{
    const pl_export_tensor *t = &f->e->tensors[f->tensor[item]];
    PL_TRY(take_sample(f, t, s));
    for (int c = 0; c < f->items[item].n; c++) {
        pl_fit_choice *choice = &f->items[item].choice[c];
        choice->loss = f->share[item] * relative_error(f, t, importance, choice->type, s);
    }
    return PL_OK;
}

static void measure_some(void *ctx, int64_t begin, int64_t end, int thread)
{
    fit *f = ctx;
    scratch *s = &f->threads[thread];
    for (int64_t i = begin; i < end && s->err.status == PL_OK; i++)
        (void)measure_item(f, f->round + (size_t)i, &f->importance[i], s);
}

static pl_status first_failure(const fit *f, pl_error *err)
{
    for (int i = 0; i < pl_pool_threads(f->params->pool); i++)
        if (f->threads[i].err.status != PL_OK) {
            if (err)
                *err = f->threads[i].err;
            return f->threads[i].err.status;
        }
    return PL_OK;
}

static size_t items_a_round(const fit *f)
{
    return (size_t)pl_pool_threads(f->params->pool) * TENSORS_A_ROUND;
}

static pl_status measure_round(fit *f, size_t n, pl_error *err)
{
    pl_status status = PL_OK;
    size_t got = 0;
    for (; got < n && status == PL_OK; got++)
        status = pl_importance_get(f->params->imatrix, &f->e->tensors[f->tensor[f->round + got]], &f->importance[got],
                                   err);
    if (status == PL_OK) {
        pl_pool_for(f->params->pool, (int64_t)n, 1, measure_some, f);
        status = first_failure(f, err);
    }
    for (size_t i = 0; i < got; i++)
        pl_importance_free(&f->importance[i]);
    return status;
}

static pl_status measure_all(fit *f, pl_error *err)
{
    const pl_fit_params *p = f->params;
    for (f->round = 0; f->round < f->n; f->round += items_a_round(f)) {
        size_t left = f->n - f->round, n = left < items_a_round(f) ? left : items_a_round(f);
        if (p->cancelled && p->cancelled(p->cancelled_user))
            return pl_fail(err, PL_ERR_CANCELLED, "cancelled");
        PL_TRY(measure_round(f, n, err));
        if (p->progress)
            p->progress(p->progress_user, f->e->tensors[f->tensor[f->round]].name,
                        (double)(f->round + n) / (double)f->n);
    }
    return PL_OK;
}

/* ---- the choice ---------------------------------------------------------------------------------- */

static pl_status fail_too_small(const fit *f, int64_t weights, pl_error *err)
{
    const pl_fit_params *p = f->params;
    return pl_fail(err, PL_ERR_ARGUMENT,
                   "--fit: %.1f MB are too few: weights take at least %.1f MB, K/V and the work of a step %.1f MB, "
                   "together %.1f MB",
                   (double)p->card_bytes / 1e6, (double)weights / 1e6, (double)p->reserved_bytes / 1e6,
                   (double)(weights + p->reserved_bytes) / 1e6);
}

static void set_type(fit *f, size_t item)
{
    f->e->tensors[f->tensor[item]].type = f->items[item].choice[f->items[item].chosen].type;
}

/* At the exchange rate of the card's bytes; rate 0: the least loss. most: bytes; 0: any. */
static void choose_off_card(pl_fit_item *item, double rate, int64_t most)
{
    rate *= HOST_BYTE;
    item->chosen = fewest_bytes(item);
    for (int c = 0; c < item->n; c++) {
        const pl_fit_choice *a = &item->choice[c], *b = &item->choice[item->chosen];
        double difference = a->loss - b->loss + rate * (double)(a->bytes - b->bytes);
        if ((most == 0 || a->bytes <= most) && (difference < 0 || (difference == 0 && a->bytes < b->bytes)))
            item->chosen = c;
    }
}

static pl_status choose(fit *f, pl_fit_result *out, pl_error *err)
{
    int64_t fixed = 0, least = 0;
    for (size_t i = 0; i < f->e->n; i++)
        if (pl_fit_on_card(f->e, &f->e->tensors[i]) && !f->taken[i])
            fixed += pl_fit_tensor_bytes(&f->e->tensors[i]);
    int64_t budget = f->params->card_bytes - f->params->reserved_bytes - fixed;
    *out = (pl_fit_result){0, 0};
    if (!pl_fit_choose(f->items, f->n_on_card, budget, f->steps, &out->rate)) {
        for (size_t i = 0; i < f->n_on_card; i++)
            least += f->items[i].choice[f->items[i].chosen].bytes;
        return fail_too_small(f, fixed + least, err);
    }
    for (size_t i = f->n_on_card; i < f->n; i++)
        choose_off_card(&f->items[i], out->rate, f->params->table_bytes);
    for (size_t i = 0; i < f->n; i++) {
        set_type(f, i);
        out->loss += f->items[i].choice[f->items[i].chosen].loss;
    }
    return PL_OK;
}

/* ---- memory -------------------------------------------------------------------------------------- */

static void *take(fit *f, size_t n, size_t size, pl_status *status, pl_error *err)
{
    void *p = pl_arena_take(f->e->arena, n, size);
    if (!p && *status == PL_OK)
        *status = pl_fail_memory(err, n * size, "types");
    return p;
}

static pl_status prepare(fit *f, pl_error *err)
{
    size_t n = f->e->n;
    pl_status status = PL_OK;
    f->items = take(f, n, sizeof *f->items, &status, err);
    f->tensor = take(f, n, sizeof *f->tensor, &status, err);
    f->share = take(f, n, sizeof *f->share, &status, err);
    f->units = take(f, n, sizeof *f->units, &status, err);
    f->taken = take(f, n, sizeof *f->taken, &status, err);
    f->steps = take(f, n * PL_FIT_CHOICES, sizeof *f->steps, &status, err);
    f->threads = take(f, (size_t)pl_pool_threads(f->params->pool), sizeof *f->threads, &status, err);
    f->importance = take(f, items_a_round(f), sizeof *f->importance, &status, err);
    PL_TRY(status);
    return pl_recipe_units(f->e, f->units, err);
}

static pl_status take_scratch(fit *f, pl_error *err)
{
    int64_t most = 0, longest = 0;
    for (size_t i = 0; i < f->n; i++) {
        const pl_export_tensor *t = &f->e->tensors[f->tensor[i]];
        int64_t values = sample_rows(t) * t->n_cols;
        most = values > most ? values : most;
        longest = t->n_cols > longest ? t->n_cols : longest;
    }
    for (int i = 0; i < pl_pool_threads(f->params->pool); i++) {
        scratch *s = &f->threads[i];
        s->values = calloc((size_t)most + 1, sizeof *s->values);
        s->decoded = calloc((size_t)longest + 1, sizeof *s->decoded);
        s->encoded = calloc((size_t)longest + 1, sizeof(float));
        if (!s->values || !s->decoded || !s->encoded)
            return pl_fail_memory(err, (size_t)most * sizeof(float), "samples");
    }
    return PL_OK;
}

static void free_scratch(fit *f)
{
    for (int i = 0; i < pl_pool_threads(f->params->pool); i++) {
        free(f->threads[i].values);
        free(f->threads[i].decoded);
        free(f->threads[i].encoded);
    }
}

pl_status pl_fit_types(pl_export *e, const pl_fit_params *params, pl_fit_result *out, pl_error *err)
{
    fit f = {.params = params, .e = e, .encoder = pl_encoder_select(pl_cpu_features(PL_CPU_ALL))};
    PL_TRY(prepare(&f, err));
    PL_TRY(list_items(&f, err));
    pl_status status = take_scratch(&f, err);
    if (status == PL_OK)
        status = measure_all(&f, err);
    free_scratch(&f);
    PL_TRY(status);
    return choose(&f, out, err);
}
