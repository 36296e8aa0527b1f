#include "host/engine/model.h"

#include "host/base/options.h"
#include "host/model/fingerprint.h"
#include "host/model/path.h"
#include "host/text/chat.h"
#include "host/text/detokenizer.h"
#include "host/text/insert.h"
#include "host/text/token_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_folder(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

static pl_status open_json(const char *folder, const char *cache, pl_tokenizer **out, pl_error *err)
{
    static const char name[] = "/tokenizer.json";
    size_t room = strlen(folder) + sizeof name;
    char *path = malloc(room);
    if (!path)
        return pl_fail_memory(err, room, "a path");
    snprintf(path, room, "%s%s", folder, name);
    pl_status status = pl_tokenizer_from_json(path, cache, out, err);
    free(path);
    return status;
}

/* pieces: of a GGUF file, or NULL for a folder. The cache is a convenience: no folder for it, no cache. */
static pl_status open_tokenizer(const char *path, const pl_pieces *pieces, pl_tokenizer **out, pl_error *err)
{
    char *cache = NULL;
    if (pl_cache_dir(&cache, NULL) != PL_OK)
        cache = NULL;
    pl_status status;
    if (pieces) {
        pl_vocabulary v = {pieces->n, pieces->text, pieces->offset, pieces->score, pieces->kind};
        status = pl_tokenizer_from_vocabulary(&v, path, cache, out, err);
    } else {
        status = open_json(path, cache, out, err);
    }
    free(cache);
    return status;
}

static pl_status check_agreement(const pl_model *model, const char *path, pl_error *err)
{
    int32_t size = pl_tokenizer_size(model->tokenizer), vocab = pl_checkpoint_config(model->checkpoint)->vocab;
    if (size > vocab)
        return pl_fail(err, PL_ERR_FORMAT, "%s: the tokenizer has ids up to %d, the embedding only %d rows", path,
                       size - 1, vocab);
    return PL_OK;
}

static pl_status open_all(pl_model *model, const char *path, pl_error *err)
{
    PL_TRY(pl_checkpoint_open(path, &model->checkpoint, err));
    PL_TRY(pl_tower_source_open(model->checkpoint, NULL, &model->towers, err));
    PL_TRY(open_tokenizer(path, pl_checkpoint_pieces(model->checkpoint), &model->tokenizer, err));
    return check_agreement(model, path, err);
}

static pl_status open_text(pl_model *model, const char *path, pl_error *err)
{
    if (is_folder(path))
        return open_tokenizer(path, NULL, &model->tokenizer, err);
    return open_all(model, path, err);
}

static pl_status open_with(pl_status (*open)(pl_model *, const char *, pl_error *), const char *path, pl_model **out,
                           pl_error *err)
{
    if (!path || !*path)
        return pl_fail(err, PL_ERR_ARGUMENT, "no model path was given");
    pl_model *model = calloc(1, sizeof *model);
    if (!model)
        return pl_fail_memory(err, sizeof *model, "model");
    if (pthread_mutex_init(&model->lock, NULL) != 0) {
        free(model);
        return pl_fail(err, PL_ERR_MEMORY, "no memory for a lock");
    }
    pl_status status = open(model, path, err);
    if (status != PL_OK) {
        pl_model_close(model);
        return status;
    }
    *out = model;
    return PL_OK;
}

pl_status pl_model_open(const char *path, pl_model **out, pl_error *err)
{
    return open_with(open_all, path, out, err);
}

pl_status pl_model_open_text(const char *path, pl_model **out, pl_error *err)
{
    return open_with(open_text, path, out, err);
}

void pl_model_close(pl_model *model)
{
    if (!model)
        return;
    pl_piece_tree_free(model->pieces);
    pthread_mutex_destroy(&model->lock);
    pl_tokenizer_free(model->tokenizer);
    pl_tower_source_close(model->towers);
    pl_checkpoint_close(model->checkpoint);
    free(model);
}

uint64_t pl_model_fingerprint(const pl_model *model)
{
    return model->checkpoint ? pl_checkpoint_fingerprint(model->checkpoint) : 0;
}

int32_t pl_model_vocab_size(const pl_model *model)
{
    return model->checkpoint ? pl_checkpoint_config(model->checkpoint)->vocab : pl_tokenizer_size(model->tokenizer);
}

int32_t pl_model_context(const pl_model *model)
{
    return model->checkpoint ? pl_checkpoint_config(model->checkpoint)->context : 0;
}

int32_t pl_model_hidden_size(const pl_model *model)
{
    return model->checkpoint ? pl_checkpoint_config(model->checkpoint)->hidden : 0;
}

/* ---- towers ---- */

pl_status pl_model_add_towers(pl_model *model, const char *path, pl_error *err)
{
    pl_tower_source *source = NULL;
    if (!model->checkpoint)
        return pl_fail(err, PL_ERR_ARGUMENT, "the model was opened for its text tools only");
    PL_TRY(pl_tower_source_open(model->checkpoint, path, &source, err));
    pl_tower_source_close(model->towers);
    model->towers = source;
    return PL_OK;
}

bool pl_model_takes(const pl_model *model, pl_media_kind kind)
{
    if (!model->towers)
        return false;
    return kind == PL_MEDIA_IMAGE ? pl_tower_source_vision(model->towers) != NULL
                                  : pl_tower_source_audio(model->towers) != NULL;
}

size_t pl_model_media_ids(const pl_model *model, pl_media_kind kind)
{
    if (!pl_model_takes(model, kind))
        return 0;
    if (kind == PL_MEDIA_AUDIO)
        return (size_t)pl_tower_source_audio(model->towers)->rows;
    size_t grid = (size_t)pl_tower_source_vision(model->towers)->grid;
    return grid * grid;
}

/* ---- paths ---- */

/* "e4b", what the file declares, "e2b"; NULL behind them. */
static const char *candidate(const pl_model *model, size_t i)
{
    const pl_named_path *declared;
    size_t n = pl_checkpoint_paths(model->checkpoint, &declared);
    return i == 0 ? "e4b" : i <= n ? declared[i - 1].name : i == n + 1 ? "e2b" : NULL;
}

/* Bytes a token of the i-th candidate; 0 where the file has no such path, or has named it before. */
static int64_t offered(const pl_model *model, size_t i)
{
    const char *name = candidate(model, i);
    pl_path path;
    for (size_t before = 0; before < i; before++)
        if (strcmp(name, candidate(model, before)) == 0)
            return 0;
    return pl_path_parse(model->checkpoint, name, &path, NULL) == PL_OK ? pl_path_bytes(model->checkpoint, &path) : 0;
}

/* How many are wider, or as wide and before it. */
static size_t rank_of(const pl_model *model, size_t i)
{
    size_t rank = 0;
    int64_t bytes = offered(model, i);
    for (size_t other = 0; candidate(model, other); other++) {
        int64_t theirs = offered(model, other);
        rank += theirs > bytes || (theirs == bytes && other < i);
    }
    return rank;
}

const char *pl_model_path(const pl_model *model, size_t i)
{
    for (size_t c = 0; model->checkpoint && candidate(model, c); c++)
        if (offered(model, c) > 0 && rank_of(model, c) == i)
            return candidate(model, c);
    return NULL;
}

pl_status pl_model_check_path(const pl_model *model, const char *path, pl_error *err)
{
    pl_path parsed;
    if (!model->checkpoint)
        return pl_fail(err, PL_ERR_ARGUMENT, "the model was opened for its text tools only");
    return pl_path_parse(model->checkpoint, path, &parsed, err);
}

/* ---- text ---- */

static pl_status hand_over(pl_status status, pl_ids *ids, pl_tokens *out)
{
    if (status != PL_OK)
        pl_ids_free(ids);
    else
        *out = (pl_tokens){ids->v, ids->n};
    return status;
}

static pl_status push_bos(const pl_model *model, pl_ids *ids, pl_error *err)
{
    int32_t bos = pl_tokenizer_id(model->tokenizer, "<bos>", 5);
    if (bos < 0)
        return pl_fail(err, PL_ERR_FORMAT, "the tokenizer has no <bos>");
    return pl_ids_push(ids, bos, err);
}

pl_status pl_tokenize(const pl_model *model, const char *text, size_t n_bytes, unsigned flags, pl_tokens *out,
                      pl_error *err)
{
    pl_ids ids = {0};
    pl_status status = flags & PL_TOKENIZE_BOS ? push_bos(model, &ids, err) : PL_OK;
    if (status == PL_OK)
        status = pl_tokenizer_encode(model->tokenizer, text, n_bytes, !(flags & PL_TOKENIZE_NO_SPECIAL), &ids, err);
    return hand_over(status, &ids, out);
}

/* A rendered chat begins with <bos> in its text. */
static pl_status tokenize_rendered(const pl_model *model, char *text, size_t n, pl_tokens *out, pl_error *err)
{
    pl_ids ids = {0};
    pl_status status = pl_tokenizer_encode(model->tokenizer, text, n, true, &ids, err);
    free(text);
    return hand_over(status, &ids, out);
}

static pl_status check_template(const pl_model *model, pl_error *err)
{
    const char *text = model->checkpoint ? pl_checkpoint_chat_template(model->checkpoint) : NULL;
    return text ? pl_chat_template_check(text, err) : PL_OK;
}

pl_status pl_tokenize_chat(const pl_model *model, const pl_message *messages, size_t n, bool reply, pl_tokens *out,
                           pl_error *err)
{
    PL_TRY(check_template(model, err));
    pl_part *parts = calloc(n ? n : 1, sizeof *parts);
    pl_turn *turns = calloc(n ? n : 1, sizeof *turns);
    char *text = NULL;
    size_t n_bytes = 0;
    pl_status status = parts && turns ? PL_OK : pl_fail_memory(err, n * sizeof *turns, "messages");
    for (size_t i = 0; status == PL_OK && i < n; i++) {
        const char *content = messages[i].content ? messages[i].content : "";
        parts[i] = (pl_part){PL_PART_TEXT, content, strlen(content)};
        turns[i] = (pl_turn){messages[i].role, &parts[i], 1};
    }
    if (status == PL_OK)
        status = pl_chat_render(turns, n, reply, &text, &n_bytes, err);
    free(parts);
    free(turns);
    return status == PL_OK ? tokenize_rendered(model, text, n_bytes, out, err) : status;
}

pl_status pl_tokenize_chat_json(const pl_model *model, const char *json, size_t n, bool reply, pl_tokens *out,
                                pl_error *err)
{
    char *text = NULL;
    size_t n_bytes = 0;
    PL_TRY(check_template(model, err));
    PL_TRY(pl_chat_render_json(json, n, reply, &text, &n_bytes, err));
    return tokenize_rendered(model, text, n_bytes, out, err);
}

/* What stands for each of the media; free() it. */
static pl_status describe_media(const pl_model *model, pl_media *const *media, size_t n, pl_insert **out, pl_error *err)
{
    pl_insert *inserts = calloc(n + 1, sizeof *inserts);
    if (!inserts)
        return pl_fail_memory(err, n * sizeof *inserts, "images and sound");
    for (size_t i = 0; i < n; i++) {
        const pl_media_tokens *t = pl_tower_source_tokens(model->towers);
        bool image = pl_media_kind_of(media[i]) == PL_MEDIA_IMAGE;
        inserts[i] = (pl_insert){.kind = image ? PL_PART_IMAGE : PL_PART_AUDIO,
                                 .begin = image ? t->image_begin : t->audio_begin,
                                 .end = image ? t->image_end : t->audio_end};
        inserts[i].n = pl_media_ids(media[i], &inserts[i].ids);
    }
    *out = inserts;
    return PL_OK;
}

static pl_status check_media(const pl_model *model, pl_media *const *media, size_t n, pl_error *err)
{
    for (size_t i = 0; i < n; i++)
        if (!pl_model_takes(model, pl_media_kind_of(media[i])))
            return pl_fail(err, PL_ERR_UNSUPPORTED, "media %zu is %s, for which the model has no tower", i,
                           pl_media_kind_name(pl_media_kind_of(media[i])));
    return PL_OK;
}

static pl_status encode_with_media(const pl_model *model, const char *text, size_t n_bytes, bool special,
                                   pl_media *const *media, size_t n_media, pl_ids *ids, pl_error *err)
{
    pl_insert *inserts = NULL;
    PL_TRY(check_media(model, media, n_media, err));
    PL_TRY(describe_media(model, media, n_media, &inserts, err));
    pl_status status = pl_tokenizer_encode_with(model->tokenizer, text, n_bytes, special, inserts, n_media, ids, err);
    free(inserts);
    return status;
}

pl_status pl_tokenize_media(const pl_model *model, const char *text, size_t n_bytes, unsigned flags,
                            pl_media *const *media, size_t n_media, pl_tokens *out, pl_error *err)
{
    pl_ids ids = {0};
    pl_status status = flags & PL_TOKENIZE_BOS ? push_bos(model, &ids, err) : PL_OK;
    if (status == PL_OK)
        status = encode_with_media(model, text, n_bytes, !(flags & PL_TOKENIZE_NO_SPECIAL), media, n_media, &ids, err);
    return hand_over(status, &ids, out);
}

pl_status pl_tokenize_chat_media(const pl_model *model, const char *json, size_t n, bool reply, pl_media *const *media,
                                 size_t n_media, pl_tokens *out, pl_error *err)
{
    char *text = NULL;
    size_t n_bytes = 0;
    pl_ids ids = {0};
    PL_TRY(check_template(model, err));
    PL_TRY(pl_chat_render_json(json, n, reply, &text, &n_bytes, err));
    pl_status status = encode_with_media(model, text, n_bytes, true, media, n_media, &ids, err);
    free(text);
    return hand_over(status, &ids, out);
}

pl_status pl_detokenize(const pl_model *model, const int32_t *ids, size_t n, bool skip_special, char **out,
                        size_t *n_bytes, pl_error *err)
{
    return pl_tokenizer_decode(model->tokenizer, ids, n, skip_special, out, n_bytes, err);
}

_Static_assert(PL_TOKEN_BYTES >= PL_MAX_PIECE_BYTES, "any token fits");

size_t pl_token_bytes(const pl_model *model, int32_t id, char *out)
{
    return pl_piece_bytes(model->tokenizer, id, out);
}

void pl_tokens_free(pl_tokens *tokens)
{
    if (!tokens)
        return;
    free(tokens->ids);
    *tokens = (pl_tokens){0};
}

void pl_text_free(char *text)
{
    free(text);
}
