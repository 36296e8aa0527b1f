/* The vision tower's structure from its tensors: which ones there are says what kind each block is, their shapes say all
 * sizes. Strides are in no tensor: 2 in the stem, in the first block of each stage and where keys are made smaller. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/tower/vision_parts.h"

#define PREFIX "vision_tower.timm_model."
#define NAME_BYTES 160
#define MOST_STAGES 16
#define MOST_BLOCKS 1024 /* of a stage */
#define MOST_SIZE 15     /* of a window */
#define PIXEL_CHANNELS 4

/* A tensor that was found, and where its values will be told. */
typedef struct wanted {
    pl_tensor t;
    pl_tower_matrix *matrix; /* NULL: a vector or a depthwise window */
    const float **floats;
    int taps;         /* of a window: from [out][in][taps] to [out][taps][in]; 1: as it is */
    bool is_stem;     /* a fourth channel is added */
    size_t at, bytes; /* in the backend's memory */
} wanted;

typedef struct loader {
    const pl_tower_source *source;
    pl_backend *backend;
    const pl_tower_turn *turn;
    pl_vision_weights *w;
    wanted *all;
    size_t n, room;
    char base[NAME_BYTES]; /* of the block being looked at */
    const char *where;     /* the file, for messages */
    pl_error *err;
} loader;

/* ---- what there is ---- */

static void full_name(const loader *l, const char *part, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "%s%s", l->base, part);
}

static const pl_entry *look(const loader *l, const char *part)
{
    char name[NAME_BYTES];
    full_name(l, part, name);
    return pl_tower_source_find(l->source, name);
}

/* Room for one more, with the tensor's shape checked as by pl_tower_source_matrix(); NULL: *status says why. */
static wanted *add(loader *l, const char *part, int64_t rows, int64_t cols, pl_status *status)
{
    char name[NAME_BYTES];
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        wanted *all = realloc(l->all, room * sizeof *all);
        if (!all) {
            *status = pl_fail_memory(l->err, room * sizeof *all, "the list of the vision tower's tensors");
            return NULL;
        }
        l->all = all;
        l->room = room;
    }
    wanted *w = &l->all[l->n];
    *w = (wanted){.taps = 1};
    full_name(l, part, name);
    *status = pl_tower_source_matrix(l->source, name, rows, cols, &w->t, l->err);
    if (*status != PL_OK)
        return NULL;
    l->n++;
    return w;
}

/* rows 0: as many as it has. */
static pl_status want_matrix(loader *l, const char *part, int64_t rows, int64_t cols, int taps, pl_tower_matrix *out)
{
    pl_status status;
    wanted *w = add(l, part, rows, cols, &status);
    if (!w)
        return status;
    w->matrix = out;
    w->taps = taps;
    out->rows = w->t.rows;
    return PL_OK;
}

static pl_status want_vector(loader *l, const char *part, int64_t n, const float **out)
{
    pl_status status;
    wanted *w = add(l, part, 0, 0, &status);
    if (!w)
        return status;
    if (w->t.rows * w->t.cols != n)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: tensor %s has %" PRId64 " values, expected %" PRId64, l->where,
                       w->t.name, w->t.rows * w->t.cols, n);
    w->floats = out;
    return PL_OK;
}

/* The side of a window of so many taps. */
static pl_status find_size(const loader *l, const char *name, int64_t taps, int *out)
{
    for (int size = 1; size <= MOST_SIZE; size++)
        if ((int64_t)size * size == taps) {
            *out = size;
            return PL_OK;
        }
    return pl_fail(l->err, PL_ERR_UNSUPPORTED, "%s: tensor %s has %" PRId64 " taps, expected the square of 1 to %d",
                   l->where, name, taps, MOST_SIZE);
}

static pl_status want_depthwise(loader *l, const char *conv, const char *norm, int64_t channels, int stride,
                                pl_vision_depthwise *out)
{
    pl_status status;
    wanted *w = add(l, conv, channels, 0, &status);
    if (!w)
        return status;
    PL_TRY(find_size(l, w->t.name, w->t.cols, &out->size));
    w->floats = &out->w;
    w->taps = (int)w->t.cols;
    out->stride = stride;
    return want_vector(l, norm, channels, &out->norm);
}

/* ---- blocks ---- */

static pl_status find_attention(loader *l, pl_vision_block *b)
{
    pl_vision_attention *a = &b->attention;
    b->attends = true;
    b->out = b->in;
    b->residual = true;
    if (b->stride != 1)
        return pl_fail(l->err, PL_ERR_UNSUPPORTED, "%s: %s is an attention block at the beginning of a stage", l->where,
                       l->base);
    PL_TRY(want_vector(l, "norm.weight", b->in, &b->norm));
    PL_TRY(want_matrix(l, "attn.query.proj.weight", 0, b->in, 1, &a->query));
    PL_TRY(want_matrix(l, "attn.key.proj.weight", 0, b->in, 1, &a->key));
    PL_TRY(want_matrix(l, "attn.value.proj.weight", 0, b->in, 1, &a->value));
    if (a->query.rows % a->key.rows != 0 || a->key.rows > 4096 || a->value.rows > 4096)
        return pl_fail(l->err, PL_ERR_FORMAT,
                       "%s: %sattn: queries of %" PRId64 " values are no whole number of heads of %" PRId64, l->where,
                       l->base, a->query.rows, a->key.rows);
    a->key_dim = (int)a->key.rows;
    a->value_dim = (int)a->value.rows;
    a->heads = (int)(a->query.rows / a->key.rows);
    PL_TRY(want_matrix(l, "attn.output.proj.weight", b->in, (int64_t)a->heads * a->value_dim, 1, &a->output));
    if (look(l, "attn.key.down_conv.weight")) {
        PL_TRY(want_depthwise(l, "attn.key.down_conv.weight", "attn.key.norm.weight", b->in, 2, &a->key_down));
        PL_TRY(want_depthwise(l, "attn.value.down_conv.weight", "attn.value.norm.weight", b->in, 2, &a->value_down));
    }
    return PL_OK;
}

static pl_status find_edge(loader *l, pl_vision_block *b)
{
    char name[NAME_BYTES];
    pl_tensor t;
    full_name(l, "conv_exp.weight", name);
    PL_TRY(pl_tower_source_matrix(l->source, name, 0, 0, &t, l->err));
    if (t.cols % b->in != 0)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: tensor %s has rows of %" PRId64 " values for %" PRId64 " channels",
                       l->where, name, t.cols, b->in);
    PL_TRY(find_size(l, name, t.cols / b->in, &b->size));
    PL_TRY(want_matrix(l, "conv_exp.weight", 0, t.cols, b->size * b->size, &b->first));
    b->hidden = b->first.rows;
    PL_TRY(want_vector(l, "bn1.weight", b->hidden, &b->first_norm));
    PL_TRY(want_matrix(l, "conv_pwl.weight", 0, b->hidden, 1, &b->last));
    return want_vector(l, "bn2.weight", b->last.rows, &b->last_norm);
}

static pl_status find_bottleneck(loader *l, pl_vision_block *b)
{
    bool mid = look(l, "dw_mid.conv.weight") != NULL;
    if (look(l, "dw_start.conv.weight"))
        PL_TRY(want_depthwise(l, "dw_start.conv.weight", "dw_start.bn.weight", b->in, mid ? 1 : b->stride, &b->start));
    PL_TRY(want_matrix(l, "pw_exp.conv.weight", 0, b->in, 1, &b->first));
    b->hidden = b->first.rows;
    b->size = 1;
    PL_TRY(want_vector(l, "pw_exp.bn.weight", b->hidden, &b->first_norm));
    if (mid)
        PL_TRY(want_depthwise(l, "dw_mid.conv.weight", "dw_mid.bn.weight", b->hidden, b->stride, &b->mid));
    if (b->stride != 1 && !b->start.size && !b->mid.size)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: %s has neither dw_start nor dw_mid to make the map smaller",
                       l->where, l->base);
    PL_TRY(want_matrix(l, "pw_proj.conv.weight", 0, b->hidden, 1, &b->last));
    return want_vector(l, "pw_proj.bn.weight", b->last.rows, &b->last_norm);
}

static pl_status find_block(loader *l, pl_vision_block *b)
{
    b->stride = b->index == 0 ? 2 : 1;
    if (look(l, "attn.query.proj.weight")) {
        PL_TRY(find_attention(l, b));
    } else {
        PL_TRY(look(l, "conv_exp.weight") ? find_edge(l, b) : find_bottleneck(l, b));
        b->out = b->last.rows;
        b->residual = b->stride == 1 && b->in == b->out;
    }
    return look(l, "layer_scale.gamma") ? want_vector(l, "layer_scale.gamma", b->out, &b->gamma) : PL_OK;
}

static bool set_base(loader *l, int stage, int index)
{
    static const char *const parts[] = {"attn.query.proj.weight", "conv_exp.weight", "pw_exp.conv.weight"};
    snprintf(l->base, sizeof l->base, PREFIX "blocks.%d.%d.", stage, index);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (look(l, parts[i]))
            return true;
    return false;
}

static pl_status count_blocks(loader *l)
{
    pl_vision_weights *w = l->w;
    while (w->n_stages < MOST_STAGES && set_base(l, w->n_stages, 0)) {
        for (int index = 0; index < MOST_BLOCKS && set_base(l, w->n_stages, index); index++)
            w->n_blocks++;
        w->n_stages++;
    }
    if (w->n_stages < 2)
        return pl_fail(l->err, PL_ERR_FORMAT, "%s: the vision tower has %d stages of blocks, at least 2 are needed",
                       l->where, w->n_stages);
    w->blocks = pl_arena_take(w->arena, (size_t)w->n_blocks, sizeof *w->blocks);
    return w->blocks ? PL_OK : pl_fail_memory(l->err, (size_t)w->n_blocks * sizeof *w->blocks, "the vision tower");
}

static pl_status find_blocks(loader *l)
{
    pl_vision_weights *w = l->w;
    int64_t channels = w->stem_channels;
    int stage = 0, index = 0;
    for (int i = 0; i < w->n_blocks; i++, index++) {
        pl_vision_block *b = &w->blocks[i];
        if (!set_base(l, stage, index)) {
            set_base(l, ++stage, index = 0);
            w->fine = channels;
        }
        b->stage = stage;
        b->index = index;
        b->in = channels;
        PL_TRY(find_block(l, b));
        channels = b->out;
    }
    w->coarse = channels;
    return PL_OK;
}

static pl_status find_stem(loader *l)
{
    pl_vision_weights *w = l->w;
    pl_tensor t;
    PL_TRY(pl_tower_source_matrix(l->source, PREFIX "conv_stem.conv.weight", 0, 0, &t, l->err));
    l->where = pl_tower_source_find(l->source, t.name)->where;
    if (t.cols % 3 != 0)
        return pl_fail(l->err, PL_ERR_FORMAT,
                       "%s: tensor " PREFIX "conv_stem.conv.weight: rows of %" PRId64
                       " values are not for three colours",
                       l->where, t.cols);
    snprintf(l->base, sizeof l->base, PREFIX);
    PL_TRY(find_size(l, "conv_stem.conv.weight", t.cols / 3, &w->stem_size));
    PL_TRY(want_matrix(l, "conv_stem.conv.weight", 0, t.cols, (int)(t.cols / 3), &w->stem));
    l->all[l->n - 1].is_stem = true;
    w->stem_channels = w->stem.rows;
    return want_vector(l, "conv_stem.bn.weight", w->stem_channels, &w->stem_norm);
}

static pl_status find_adapter(loader *l)
{
    pl_vision_weights *w = l->w;
    int64_t hidden = w->hidden = pl_tower_source_vision(l->source)->hidden;
    snprintf(l->base, sizeof l->base, PREFIX "msfa.");
    PL_TRY(want_matrix(l, "ffn.pw_exp.conv.weight", 0, w->fine + w->coarse, 1, &w->join_first));
    w->joined = w->join_first.rows;
    PL_TRY(want_vector(l, "ffn.pw_exp.bn.weight", w->joined, &w->join_first_norm));
    PL_TRY(want_matrix(l, "ffn.pw_proj.conv.weight", hidden, w->joined, 1, &w->join_last));
    PL_TRY(want_vector(l, "ffn.pw_proj.bn.weight", hidden, &w->join_last_norm));
    return want_vector(l, "norm.weight", hidden, &w->out_norm);
}

/* ---- loading ---- */

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Windows of more than one tap are turned, as bf16 or f16 where they are, else as f32. */
static pl_dtype turned_type(const wanted *w)
{
    return (w->t.type == PL_BF16 || w->t.type == PL_F16) && !w->is_stem ? w->t.type : PL_F32;
}

static int64_t turned_cols(const wanted *w)
{
    return w->is_stem ? (int64_t)w->taps * PIXEL_CHANNELS : w->t.cols;
}

static pl_status place(loader *l)
{
    size_t at = 0;
    for (size_t i = 0; i < l->n; i++) {
        wanted *w = &l->all[i];
        w->at = at;
        w->bytes = (size_t)(w->t.rows * w->t.cols) * sizeof(float);
        if (w->matrix)
            w->bytes = l->backend->tower->ready_bytes(w->t.rows, turned_cols(w),
                                                      w->taps > 1 ? turned_type(w) : w->t.type);
        at += aligned(w->bytes);
    }
    l->w->bytes = at;
    l->w->memory = l->backend->memory_take(l->backend, at);
    return l->w->memory ? PL_OK : pl_backend_fail_memory(l->backend, at, "the vision tower", l->err);
}

/* The stem's fourth channel is the bias where the window's tap always lies on the map. */
static pl_status set_bias(const loader *l, const wanted *w, float *turned)
{
    static const char name[] = PREFIX "conv_stem.conv.bias";
    if (!pl_tower_source_find(l->source, name))
        return PL_OK;
    float *bias = malloc((size_t)w->t.rows * sizeof *bias);
    if (!bias)
        return pl_fail_memory(l->err, (size_t)w->t.rows * sizeof *bias, name);
    pl_status status = pl_tower_source_vector(l->source, name, w->t.rows, bias, l->err);
    int size = l->w->stem_size, middle = (size - 1) / 2;
    for (int64_t r = 0; r < w->t.rows && status == PL_OK; r++)
        turned[(r * w->taps + middle * size + middle) * PIXEL_CHANNELS + 3] = bias[r];
    free(bias);
    return status;
}

/* From [out][in][taps] to [out][taps][channels]. */
static void turn(const wanted *w, const float *from, int64_t row, float *to)
{
    int64_t in = w->t.cols / w->taps, channels = turned_cols(w) / w->taps;
    float *out = to + row * turned_cols(w);
    for (int64_t c = 0; c < in; c++)
        for (int64_t k = 0; k < w->taps; k++)
            out[k * channels + c] = from[c * w->taps + k];
}

/* Values that are bf16 or f16; in place. */
static void narrow(const float *from, int64_t n, pl_dtype type, uint16_t *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, from + i, sizeof bits);
        to[i] = type == PL_F16 ? pl_f32_to_f16(from[i]) : (uint16_t)(bits >> 16);
    }
}

static pl_status ready(const loader *l, const pl_tensor *t, void *dst, pl_tower_matrix *out)
{
    PL_TRY(pl_tower_turn_begin(l->turn, l->err));
    pl_status status = l->backend->tower->ready(l->backend->stream, t, dst, out, l->err);
    pl_tower_turn_end(l->turn);
    return status;
}

/* The whole tensor turned, in `room` as f32 [rows][turned_cols] with one row more behind it. */
static pl_status ready_turned(const loader *l, const wanted *w, float *room, void *dst)
{
    int64_t cols = turned_cols(w);
    float *row = room + w->t.rows * cols;
    for (int64_t r = 0; r < w->t.rows; r++) {
        pl_decode(w->t.type, pl_tensor_row(&w->t, r), row, w->t.cols);
        turn(w, row, r, room);
    }
    if (w->is_stem)
        PL_TRY(set_bias(l, w, room));
    pl_tensor t = {w->t.name, room, w->t.rows, cols, turned_type(w)};
    if (t.type != PL_F32)
        narrow(room, t.rows * cols, t.type, (uint16_t *)room);
    return ready(l, &t, dst, w->matrix);
}

static pl_status load_matrix(const loader *l, const wanted *w, void *dst)
{
    if (w->taps == 1)
        return ready(l, &w->t, dst, w->matrix);
    size_t bytes = (size_t)((w->t.rows + 1) * turned_cols(w)) * sizeof(float);
    float *room = calloc(bytes, 1);
    if (!room)
        return pl_fail_memory(l->err, bytes, w->t.name);
    pl_status status = ready_turned(l, w, room, dst);
    free(room);
    return status;
}

/* A vector, or a window of each channel: [channels][taps] to [taps][channels]. */
static pl_status load_floats(const loader *l, const wanted *w, void *dst)
{
    int64_t n = w->t.rows * w->t.cols, channels = n / w->taps;
    float *values = malloc(2 * w->bytes), *turned = values + n;
    if (!values)
        return pl_fail_memory(l->err, 2 * w->bytes, w->t.name);
    pl_status status = pl_tower_source_vector(l->source, w->t.name, n, values, l->err);
    if (status == PL_OK) {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t k = 0; k < w->taps; k++)
                turned[k * channels + c] = values[c * w->taps + k];
        l->backend->upload(l->backend->stream, dst, turned, w->bytes);
        *w->floats = dst;
    }
    free(values);
    return status;
}

static pl_status load_all(loader *l)
{
    for (size_t i = 0; i < l->n; i++) {
        const wanted *w = &l->all[i];
        void *dst = (char *)l->w->memory + w->at;
        pl_status status = w->matrix ? load_matrix(l, w, dst) : load_floats(l, w, dst);
        if (status != PL_OK)
            return status;
        pl_tower_source_drop(l->source, &w->t);
    }
    return PL_OK;
}

pl_status pl_vision_weights_load(const pl_tower_source *source, pl_backend *backend, const pl_tower_turn *turn,
                                 pl_vision_weights *out, pl_error *err)
{
    loader l = {.source = source, .backend = backend, .turn = turn, .w = out, .err = err};
    pl_status status;
    *out = (pl_vision_weights){0};
    PL_TRY_GOTO(pl_arena_create(1 << 16, &out->arena, err));
    PL_TRY_GOTO(find_stem(&l));
    PL_TRY_GOTO(count_blocks(&l));
    PL_TRY_GOTO(find_blocks(&l));
    PL_TRY_GOTO(find_adapter(&l));
    PL_TRY_GOTO(place(&l));
    status = load_all(&l);
fail:
    free(l.all);
    return status;
}

void pl_vision_weights_free(pl_vision_weights *weights, pl_backend *backend)
{
    backend->memory_give(backend, weights->memory, weights->bytes);
    pl_arena_free(weights->arena);
}
