/* The towers' configurations: of a folder from config.json, of a GGUF file from its clip.* keys and the tensors. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/model/model_json.h"
#include "host/tower/source_parts.h"

#define PATH_BYTES 4096
#define SIDE_MAX 8192
#define SIZE_MAX_VALUE (1 << 24)

const pl_vision_config pl_vision_published = {
    .hidden = 2048, .side = 768, .grid = 16, .vocab = 128, .first_id = 262144, .eps = 1e-6f};
const pl_audio_config pl_audio_published = {.hidden = 1536,
                                            .heads = 8,
                                            .layers = 12,
                                            .mel_bins = 128,
                                            .chunk = 12,
                                            .left = 13,
                                            .right = 0,
                                            .kernel = 5,
                                            .reduction = 4,
                                            .channels = {128, 32},
                                            .rows = 188,
                                            .vocab = 128,
                                            .first_id = 262272,
                                            .residual_weight = 0.5f,
                                            .logit_cap = 50,
                                            .group_eps = 1e-3f,
                                            .clip = 1e10f,
                                            .eps = 1e-6f};
static const pl_media_tokens published_tokens = {255999, 262145, 262144, 256000, 262273, 262272};

/* ---- folders ---- */

typedef struct reader {
    const char *where; /* config.json's path */
    const json_t *root, *vision, *audio;
    pl_tower_source *source;
    pl_error *err;
} reader;

static pl_status read_size(const reader *r, const json_t *object, const char *key, int *out)
{
    return pl_member_int(object, key, r->where, 1, SIZE_MAX_VALUE, out, r->err);
}

/* The whole root of a number of rows, or 0. */
static int square_root(int64_t n)
{
    int64_t root = 0;
    while (root * root < n)
        root++;
    return root * root == n ? (int)root : 0;
}

static pl_status set_grid(pl_tower_source *s, const char *where, const char *key, int tokens, pl_error *err)
{
    s->vision.grid = square_root(tokens);
    if (s->vision.grid == 0 || s->vision.grid > 256)
        return pl_fail(err, PL_ERR_FORMAT, "%s: %s means %d rows for an image, expected the square of 1 to 256", where,
                       key, tokens);
    return PL_OK;
}

static pl_status read_vision(const reader *r)
{
    pl_vision_config *v = &r->source->vision;
    int tokens = v->grid * v->grid;
    PL_TRY(read_size(r, r->vision, "hidden_size", &v->hidden));
    PL_TRY(read_size(r, r->vision, "vocab_size", &v->vocab));
    PL_TRY(read_size(r, r->vision, "vocab_offset", &v->first_id));
    PL_TRY(pl_member_float(r->vision, "rms_norm_eps", r->where, &v->eps, r->err));
    PL_TRY(read_size(r, r->root, "vision_soft_tokens_per_image", &tokens));
    return set_grid(r->source, r->where, "vision_soft_tokens_per_image", tokens, r->err);
}

/* All convolutions of the front end have windows of 3 and steps of 2. */
static pl_status check_windows(const reader *r, const char *key, int expected)
{
    const json_t *value = pl_member_get(r->audio, key);
    for (size_t i = 0; value && i < 2; i++)
        for (size_t j = 0; j < 2; j++) {
            const json_t *item = json_array_get(json_array_get(value, i), j);
            if (!json_is_integer(item) || json_integer_value(item) != expected)
                return pl_fail(r->err, PL_ERR_UNSUPPORTED,
                               "%s: audio_config.%s: only [[%d, %d], [%d, %d]] is supported", r->where, key, expected,
                               expected, expected, expected);
        }
    return PL_OK;
}

static pl_status read_channels(const reader *r)
{
    const json_t *value = pl_member_get(r->audio, "sscp_conv_channel_size");
    for (size_t i = 0; value && i < 2; i++) {
        const json_t *item = json_array_get(value, i);
        json_int_t n = json_integer_value(item);
        if (!json_is_integer(item) || n < 1 || n > SIZE_MAX_VALUE)
            return pl_fail(r->err, PL_ERR_FORMAT, "%s: audio_config.sscp_conv_channel_size: value %zu is not a size",
                           r->where, i);
        r->source->audio.channels[i] = (int)n;
    }
    PL_TRY(check_windows(r, "sscp_conv_kernel_size", 3));
    return check_windows(r, "sscp_conv_stride_size", 2);
}

static pl_status read_audio(const reader *r)
{
    pl_audio_config *a = &r->source->audio;
    const json_t *o = r->audio;
    PL_TRY(read_size(r, o, "hidden_size", &a->hidden));
    PL_TRY(read_size(r, o, "conf_num_attention_heads", &a->heads));
    PL_TRY(pl_member_int(o, "conf_num_hidden_layers", r->where, 1, 1000, &a->layers, r->err));
    PL_TRY(read_size(r, o, "input_feat_size", &a->mel_bins));
    PL_TRY(pl_member_int(o, "conf_attention_chunk_size", r->where, 1, 4096, &a->chunk, r->err));
    PL_TRY(pl_member_int(o, "conf_attention_context_left", r->where, 1, 4096, &a->left, r->err));
    PL_TRY(pl_member_int(o, "conf_attention_context_right", r->where, 0, 4096, &a->right, r->err));
    PL_TRY(pl_member_int(o, "conf_conv_kernel_size", r->where, 1, 1024, &a->kernel, r->err));
    PL_TRY(pl_member_int(o, "conf_reduction_factor", r->where, 1, 1024, &a->reduction, r->err));
    PL_TRY(pl_member_int(r->root, "audio_soft_tokens_per_image", r->where, 1, 1 << 16, &a->rows, r->err));
    PL_TRY(read_size(r, o, "vocab_size", &a->vocab));
    PL_TRY(read_size(r, o, "vocab_offset", &a->first_id));
    PL_TRY(pl_member_float(o, "conf_residual_weight", r->where, &a->residual_weight, r->err));
    PL_TRY(pl_member_float(o, "conf_attention_logit_cap", r->where, &a->logit_cap, r->err));
    PL_TRY(pl_member_float(o, "sscp_conv_group_norm_eps", r->where, &a->group_eps, r->err));
    PL_TRY(pl_member_float(o, "gradient_clipping", r->where, &a->clip, r->err));
    PL_TRY(pl_member_float(o, "rms_norm_eps", r->where, &a->eps, r->err));
    return read_channels(r);
}

static pl_status read_token(const reader *r, const char *key, int32_t published, int32_t *out)
{
    int vocab = pl_checkpoint_config(r->source->checkpoint)->vocab;
    *out = r->source->has_vision || r->source->has_audio ? published : -1;
    PL_TRY(pl_member_int(r->root, key, r->where, 0, INT32_MAX, out, r->err));
    if (*out >= vocab)
        *out = -1;
    return PL_OK;
}

static pl_status read_tokens(const reader *r)
{
    const pl_media_tokens *p = &published_tokens;
    pl_media_tokens *t = &r->source->tokens;
    PL_TRY(read_token(r, "boi_token_id", p->image_begin, &t->image_begin));
    PL_TRY(read_token(r, "image_token_id", p->image, &t->image));
    PL_TRY(read_token(r, "eoi_token_id", p->image_end, &t->image_end));
    PL_TRY(read_token(r, "boa_token_id", p->audio_begin, &t->audio_begin));
    PL_TRY(read_token(r, "audio_token_id", p->audio, &t->audio));
    return read_token(r, "eoa_token_id", p->audio_end, &t->audio_end);
}

static pl_status parse_file(const char *path, json_t **out, pl_error *err)
{
    pl_mapfile file;
    PL_TRY(pl_mapfile_open(path, &file, err));
    pl_status status = pl_member_parse((const char *)file.data, file.size, path, out, err);
    pl_mapfile_close(&file);
    return status;
}

static pl_status join(const pl_tower_source *s, const char *name, char *out, pl_error *err)
{
    int n = snprintf(out, PATH_BYTES, "%s/%s", pl_checkpoint_path(s->checkpoint), name);
    if (n < 0 || n >= PATH_BYTES)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: the path is too long", pl_checkpoint_path(s->checkpoint));
    return PL_OK;
}

/* Where the folder has it, preprocessor_config.json states the side of images; they are scaled to both sides. */
static pl_status read_side(pl_tower_source *s, pl_error *err)
{
    char path[PATH_BYTES];
    json_t *root = NULL;
    const json_t *size = NULL;
    int width;
    PL_TRY(join(s, "preprocessor_config.json", path, err));
    if (access(path, F_OK) != 0)
        return PL_OK;
    PL_TRY(parse_file(path, &root, err));
    pl_status status;
    PL_TRY_GOTO(pl_member_object(root, "size", path, &size, err));
    if (size) {
        PL_TRY_GOTO(pl_member_int(size, "height", path, 1, SIDE_MAX, &s->vision.side, err));
        width = s->vision.side;
        PL_TRY_GOTO(pl_member_int(size, "width", path, 1, SIDE_MAX, &width, err));
        if (width != s->vision.side)
            status = pl_fail(err, PL_ERR_UNSUPPORTED, "%s: size is %d times %d, only squares are supported", path,
                             s->vision.side, width);
    }
fail:
    json_decref(root);
    return status;
}

static pl_status read_folder(reader *r)
{
    pl_tower_source *s = r->source;
    PL_TRY(pl_member_object(r->root, "vision_config", r->where, &r->vision, r->err));
    PL_TRY(pl_member_object(r->root, "audio_config", r->where, &r->audio, r->err));
    PL_TRY(read_tokens(r));
    if (s->has_vision) {
        PL_TRY(read_vision(r));
        PL_TRY(read_side(s, r->err));
    }
    return s->has_audio ? read_audio(r) : PL_OK;
}

/* Of the folder's root, or the text model's ids alone where its weights hold no towers. */
pl_status pl_tower_config_from_folder(pl_tower_source *source, pl_error *err)
{
    char path[PATH_BYTES];
    json_t *root = NULL;
    source->vision = pl_vision_published;
    source->audio = pl_audio_published;
    PL_TRY(join(source, "config.json", path, err));
    PL_TRY(parse_file(path, &root, err));
    reader r = {.where = path, .root = root, .source = source, .err = err};
    pl_status status = read_folder(&r);
    json_decref(root);
    return status;
}

/* ---- GGUF ---- */

static int32_t find_piece(const pl_pieces *p, const char *text)
{
    size_t n = strlen(text);
    for (int32_t i = p->n - 1; i >= 0; i--)
        if (p->offset[i + 1] - p->offset[i] == n && memcmp(p->text + p->offset[i], text, n) == 0)
            return i;
    return -1;
}

/* Files whose vocabulary ends with fillers name no ids beyond the text's: those of the published model. */
static int32_t find_token(const pl_pieces *p, const char *text, int32_t published)
{
    enum { PUBLISHED_VOCAB = 262400 };
    int32_t id = find_piece(p, text);
    return id < 0 && p->n == PUBLISHED_VOCAB ? published : id;
}

static void tokens_from_pieces(pl_tower_source *s)
{
    const pl_media_tokens *p = &published_tokens;
    const pl_pieces *pieces = pl_checkpoint_pieces(s->checkpoint);
    s->tokens = (pl_media_tokens){
        .image_begin = find_token(pieces, "<start_of_image>", p->image_begin),
        .image = find_token(pieces, "<image_soft_token>", p->image),
        .image_end = find_token(pieces, "<end_of_image>", p->image_end),
        .audio_begin = find_token(pieces, "<start_of_audio>", p->audio_begin),
        .audio = find_token(pieces, "<audio_soft_token>", p->audio),
        .audio_end = find_token(pieces, "<end_of_audio>", p->audio_end),
    };
    s->vision.first_id = s->tokens.image_end;
    s->audio.first_id = s->tokens.audio_end;
}

/* Ids come with the text model, also where the towers stand in a file beside it. */
static pl_status read_ids(pl_tower_source *s, pl_error *err)
{
    if (pl_checkpoint_kind(s->checkpoint) == PL_CHECKPOINT_GGUF) {
        tokens_from_pieces(s);
        return PL_OK;
    }
    char path[PATH_BYTES];
    json_t *root = NULL;
    pl_status status;
    PL_TRY(join(s, "config.json", path, err));
    PL_TRY(parse_file(path, &root, err));
    reader r = {.where = path, .root = root, .source = s, .err = err};
    PL_TRY_GOTO(pl_member_object(root, "vision_config", path, &r.vision, err));
    PL_TRY_GOTO(pl_member_object(root, "audio_config", path, &r.audio, err));
    PL_TRY_GOTO(read_size(&r, r.vision, "vocab_offset", &s->vision.first_id));
    PL_TRY_GOTO(read_size(&r, r.audio, "vocab_offset", &s->audio.first_id));
    status = read_tokens(&r);
fail:
    json_decref(root);
    return status;
}

static int64_t dim(const pl_tower_source *s, const char *name, int d, int64_t otherwise)
{
    const pl_entry *entry = pl_tower_source_find(s, name);
    bool usable = entry && d < entry->n_dims && entry->dims[d] > 0 && entry->dims[d] <= SIZE_MAX_VALUE;
    return usable ? entry->dims[d] : otherwise;
}

static pl_status check_kind(const pl_gguf *keys, const char *key, const char *expected, pl_error *err)
{
    const char *text;
    size_t n;
    PL_TRY(pl_gguf_text(keys, key, &text, &n, err));
    if (text && (n != strlen(expected) || memcmp(text, expected, n) != 0))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: %s is %.*s, expected %s", keys->where, key, n < 64 ? (int)n : 64,
                       text, expected);
    return PL_OK;
}

/* There a patch's side is chosen so that side / patch is the number of rows. */
static pl_status vision_from_gguf(pl_tower_source *s, const pl_gguf *keys, pl_error *err)
{
    pl_vision_config *v = &s->vision;
    int patch = 3;
    PL_TRY(check_kind(keys, "clip.vision.projector_type", "gemma3nv", err));
    PL_TRY(pl_gguf_int(keys, "clip.vision.embedding_length", 1, SIZE_MAX_VALUE, &v->hidden, err));
    PL_TRY(pl_gguf_int(keys, "clip.vision.image_size", 1, SIDE_MAX, &v->side, err));
    PL_TRY(pl_gguf_int(keys, "clip.vision.patch_size", 1, SIDE_MAX, &patch, err));
    PL_TRY(pl_gguf_float(keys, "clip.vision.attention.layer_norm_epsilon", &v->eps, err));
    v->vocab = (int)dim(s, "embed_vision.embedding.weight", 0, v->vocab);
    return set_grid(s, keys->where, "clip.vision.image_size / patch_size", v->side / patch, err);
}

/* What has no key is as published; the epsilon's says 1e-5 whatever the model. */
static pl_status audio_from_gguf(pl_tower_source *s, const pl_gguf *keys, pl_error *err)
{
    static const char *const convolutions[] = {"audio_tower.subsample_conv_projection.conv_0.conv.weight",
                                               "audio_tower.subsample_conv_projection.conv_1.conv.weight"};
    pl_audio_config *a = &s->audio;
    PL_TRY(check_kind(keys, "clip.audio.projector_type", "gemma3na", err));
    PL_TRY(pl_gguf_int(keys, "clip.audio.embedding_length", 1, SIZE_MAX_VALUE, &a->hidden, err));
    PL_TRY(pl_gguf_int(keys, "clip.audio.attention.head_count", 1, SIZE_MAX_VALUE, &a->heads, err));
    PL_TRY(pl_gguf_int(keys, "clip.audio.block_count", 1, 1000, &a->layers, err));
    PL_TRY(pl_gguf_int(keys, "clip.audio.num_mel_bins", 1, SIZE_MAX_VALUE, &a->mel_bins, err));
    PL_TRY(pl_gguf_int(keys, "pleiad.audio.rows", 1, 1 << 16, &a->rows, err));
    a->vocab = (int)dim(s, "embed_audio.embedding.weight", 0, a->vocab);
    a->kernel = (int)dim(s, "audio_tower.conformer.0.lconv1d.depthwise_conv1d.weight", 2, a->kernel);
    for (int i = 0; i < 2; i++)
        a->channels[i] = (int)dim(s, convolutions[i], 0, a->channels[i]);
    return PL_OK;
}

pl_status pl_tower_config_from_gguf(pl_tower_source *source, const pl_gguf *keys, pl_error *err)
{
    source->vision = pl_vision_published;
    source->audio = pl_audio_published;
    PL_TRY(read_ids(source, err));
    if (source->has_vision)
        PL_TRY(vision_from_gguf(source, keys, err));
    return source->has_audio ? audio_from_gguf(source, keys, err) : PL_OK;
}

/* ---- both ---- */

typedef struct tower_facts {
    const char *what, *embedder;
    int hidden, vocab;
    int32_t first_id;
    int32_t ids[3];
} tower_facts;

static pl_status check_tower(const pl_tower_source *s, const tower_facts *f, pl_error *err)
{
    const pl_config *text = pl_checkpoint_config(s->checkpoint);
    char name[PL_TOWER_NAME_BYTES];
    pl_tensor t;
    snprintf(name, sizeof name, "%s.embedding_projection.weight", f->embedder);
    PL_TRY(pl_tower_source_matrix(s, name, 0, f->hidden, &t, err));
    if (t.rows != text->hidden)
        return pl_fail(err, PL_ERR_FORMAT,
                       "%s: tensor %s makes rows of %" PRId64 " values, but the text model %s has %d: they are not "
                       "parts of one model",
                       s->where, name, t.rows, pl_checkpoint_path(s->checkpoint), text->hidden);
    for (int i = 0; i < 3; i++)
        if (f->ids[i] < 0)
            return pl_fail(err, PL_ERR_FORMAT, "%s: the vocabulary lacks the ids that stand around %s",
                           pl_checkpoint_path(s->checkpoint), f->what);
    if (f->first_id < 0 || f->first_id > text->vocab - f->vocab)
        return pl_fail(err, PL_ERR_FORMAT, "%s: %d ids for %s from %d on, but the vocabulary has %d", s->where,
                       f->vocab, f->what, f->first_id, text->vocab);
    return PL_OK;
}

pl_status pl_tower_config_check(pl_tower_source *s, pl_error *err)
{
    const pl_media_tokens *t = &s->tokens;
    const pl_vision_config *v = &s->vision;
    const pl_audio_config *a = &s->audio;
    tower_facts image = {"images", "embed_vision", v->hidden,
                         v->vocab, v->first_id,    {t->image_begin, t->image, t->image_end}};
    tower_facts sound = {"sound",  "embed_audio", a->hidden,
                         a->vocab, a->first_id,   {t->audio_begin, t->audio, t->audio_end}};
    if (s->has_vision)
        PL_TRY(check_tower(s, &image, err));
    if (s->has_vision && v->side % 32 != 0)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: images of %d pixels a side, expected a multiple of 32", s->where,
                       v->side);
    if (s->has_audio)
        PL_TRY(check_tower(s, &sound, err));
    if (s->has_audio && a->hidden % a->heads != 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: the audio tower has %d values for %d heads", s->where, a->hidden,
                       a->heads);
    return PL_OK;
}
