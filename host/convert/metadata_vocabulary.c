/* The vocabulary of a tokenizer.json as llama.cpp's converter states it. It holds no scores: those of the original
 * follow from the ids, since pieces are numbered in the order of their merges. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/mapfile.h"
#include "host/convert/metadata_parts.h"
#include "host/text/token_source.h"

#define META "\xe2\x96\x81" /* U+2581, which stands for a space */
#define SCORE_ADDED (-1000.0f)
#define SCORE_UNUSED (-10000.0f)

enum { NORMAL = 1, CONTROL = 3, USER_DEFINED, UNUSED, BYTE };

typedef struct vocabulary {
    const char *where;
    pl_token_source src;
    size_t n;
    const char **text; /* [n] and so on, in the arena */
    size_t *bytes;
    float *score;
    int32_t *kind;
    pl_arena *arena;
    pl_error *err;
} vocabulary;

static bool equals(const char *text, size_t n, const char *other)
{
    return n == strlen(other) && memcmp(text, other, n) == 0;
}

/* The converter takes these for control tokens whatever the tokenizer says. */
static bool looks_special(const char *text, size_t n)
{
    return equals(text, n, "<pad>") || equals(text, n, "<mask>") || equals(text, n, "<2mass>") ||
           equals(text, n, "[@BOS@]") || (n > 8 && memcmp(text, "<unused", 7) == 0 && text[n - 1] == '>') ||
           (n > 3 && memcmp(text, "<|", 2) == 0 && memcmp(text + n - 2, "|>", 2) == 0);
}

static pl_status set_text(vocabulary *v, size_t id, const char *text, size_t n)
{
    v->text[id] = pl_arena_text(v->arena, text, n);
    v->bytes[id] = n;
    return v->text[id] ? PL_OK : pl_fail_memory(v->err, n + 1, "a piece");
}

/* A token that is matched in the text before merging; spaces are written as such. */
static pl_status set_added(vocabulary *v, size_t id, const char *text, size_t n, bool special)
{
    bool control = special || looks_special(text, n);
    PL_TRY(set_text(v, id, text, n));
    v->score[id] = SCORE_ADDED;
    v->kind[id] = control ? CONTROL : USER_DEFINED;
    if (control || !strstr(v->text[id], META))
        return PL_OK;
    char *plain = pl_arena_text(v->arena, text, n), *to = plain;
    if (!plain)
        return pl_fail_memory(v->err, n + 1, "a piece");
    for (const char *at = v->text[id]; *at; to++) {
        bool space = strncmp(at, META, strlen(META)) == 0;
        *to = space ? ' ' : *at;
        at += space ? strlen(META) : 1;
    }
    v->text[id] = plain;
    v->bytes[id] = (size_t)(to - plain);
    return PL_OK;
}

static pl_status set_pieces(vocabulary *v)
{
    const pl_token_source *src = &v->src;
    size_t n = src->n < v->n ? src->n : v->n, first = 0;
    for (size_t i = 0; i < src->n; i++)
        if (src->flags[i] & PL_PIECE_BYTE)
            first = i + 1;
    for (size_t i = 0; i < n; i++) {
        const char *text = src->text + src->offset[i];
        size_t bytes = src->offset[i + 1] - src->offset[i];
        if (src->flags[i] & PL_PIECE_ADDED) {
            PL_TRY(set_added(v, i, text, bytes, src->flags[i] & PL_PIECE_SPECIAL));
            continue;
        }
        v->text[i] = text;
        v->bytes[i] = bytes;
        v->kind[i] = src->flags[i] & PL_PIECE_BYTE ? BYTE : NORMAL;
        v->score[i] = v->kind[i] == BYTE ? 0 : (float)first - (float)i;
    }
    return PL_OK;
}

static pl_status set_unused(vocabulary *v)
{
    for (size_t i = v->src.n; i < v->n; i++) {
        char text[32];
        int n = snprintf(text, sizeof text, "[PAD%zu]", i);
        PL_TRY(set_text(v, i, text, (size_t)n));
        v->score[i] = SCORE_UNUSED;
        v->kind[i] = UNUSED;
    }
    return PL_OK;
}

/* Slots behind the pieces that only tokenizer_config.json names. */
static pl_status name_slots(vocabulary *v, const json_t *config)
{
    const char *key;
    json_t *token;
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), key, token)
    {
        const char *text = json_string_value(json_object_get(token, "content"));
        char *end;
        unsigned long id = strtoul(key, &end, 10);
        if (*end != '\0' || end == key || !text || id < v->src.n || id >= v->n)
            continue;
        PL_TRY(set_added(v, id, text, strlen(text), json_is_true(json_object_get(token, "special"))));
    }
    return PL_OK;
}

/* Pieces are merged in the order of their scores: that of their ids, which must be that of the merges. Runs of white
 * space come first everywhere. */
static pl_status check_order(const vocabulary *v)
{
    const pl_token_source *src = &v->src;
    uint32_t last = 0;
    for (size_t i = 0; i < src->n_merges; i++) {
        uint32_t result = src->merge[i].result;
        if (src->flags[result] & PL_PIECE_ADDED)
            continue;
        if (result < last)
            return pl_fail(v->err, PL_ERR_UNSUPPORTED,
                           "%s: merge %zu makes piece %u, an earlier one piece %u: an order that GGUF cannot tell",
                           v->where, i, result, last);
        last = result;
    }
    return PL_OK;
}

static int32_t find(const vocabulary *v, const char *text)
{
    for (size_t i = 0; text && i < v->n; i++)
        if (equals(v->text[i], v->bytes[i], text))
            return (int32_t)i;
    return -1;
}

/* The id of a token that tokenizer_config.json names; a text, or an object that holds it. */
static int32_t named(const vocabulary *v, const json_t *config, const char *key, const char *fallback)
{
    const json_t *value = json_object_get(config, key);
    const char *text = json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    int32_t id = find(v, text);
    return id >= 0 ? id : find(v, fallback);
}

static bool flag(const json_t *config, const char *key, bool fallback)
{
    const json_t *value = json_object_get(config, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

/* One stop token has a key of its own; readers know <eos> and <end_of_turn> by name. One more fits. */
static pl_status put_stops(pl_gguf_writer *w, const vocabulary *v, const pl_config *c, int32_t eos)
{
    int32_t other = -1;
    if (eos < 0 && c->n_eos > 0)
        eos = c->eos[0];
    if (eos >= 0)
        pl_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)eos);
    for (int i = 0; i < c->n_eos; i++) {
        int32_t id = c->eos[i];
        if (id == eos || equals(v->text[id], v->bytes[id], "<eos>") ||
            equals(v->text[id], v->bytes[id], "<end_of_turn>"))
            continue;
        if (other >= 0)
            return pl_fail(v->err, PL_ERR_UNSUPPORTED, "%s: stop tokens %d, %d and %d are more than GGUF can tell",
                           v->where, eos, other, id);
        other = id;
    }
    if (other >= 0)
        pl_gguf_put_u32(w, "tokenizer.ggml.eot_token_id", (uint32_t)other);
    return PL_OK;
}

static pl_status put(pl_gguf_writer *w, const vocabulary *v, const pl_config *c, const json_t *config)
{
    int32_t unknown = named(v, config, "unk_token", "<unk>");
    pl_gguf_put_text(w, "tokenizer.ggml.model", "llama");
    pl_gguf_put_text(w, "tokenizer.ggml.pre", "default");
    pl_gguf_put_texts(w, "tokenizer.ggml.tokens", v->text, v->bytes, v->n);
    pl_gguf_put_array(w, "tokenizer.ggml.scores", PL_GGUF_F32, v->score, v->n);
    pl_gguf_put_array(w, "tokenizer.ggml.token_type", PL_GGUF_I32, v->kind, v->n);
    pl_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)c->bos);
    PL_TRY(put_stops(w, v, c, named(v, config, "eos_token", NULL)));
    if (unknown >= 0)
        pl_gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", (uint32_t)unknown);
    pl_gguf_put_u32(w, "tokenizer.ggml.padding_token_id", (uint32_t)c->pad);
    pl_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", flag(config, "add_bos_token", true));
    pl_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", flag(config, "add_eos_token", false));
    pl_gguf_put_bool(w, "tokenizer.ggml.add_sep_token", false);
    pl_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false);
    return PL_OK;
}

static pl_status read_source(vocabulary *v)
{
    static const uint64_t seed[2] = {0, 0};
    pl_mapfile file;
    PL_TRY(pl_mapfile_open(v->where, &file, v->err));
    pl_token_source_init(&v->src, v->where, seed);
    pl_status status = pl_token_source_from_json((const char *)file.data, file.size, &v->src, v->err);
    pl_mapfile_close(&file);
    return status;
}

static pl_status make(vocabulary *v, const json_t *config)
{
    PL_TRY(pl_arena_create(1 << 16, &v->arena, v->err));
    PL_TRY(read_source(v));
    PL_TRY(check_order(v));
    v->text = pl_arena_take(v->arena, v->n, sizeof *v->text);
    v->bytes = pl_arena_take(v->arena, v->n, sizeof *v->bytes);
    v->score = pl_arena_take(v->arena, v->n, sizeof *v->score);
    v->kind = pl_arena_take(v->arena, v->n, sizeof *v->kind);
    if (!v->text || !v->bytes || !v->score || !v->kind)
        return pl_fail_memory(v->err, v->n * (sizeof *v->text + sizeof *v->bytes), "the vocabulary");
    PL_TRY(set_pieces(v));
    PL_TRY(set_unused(v));
    return name_slots(v, config);
}

pl_status pl_metadata_put_vocabulary(pl_gguf_writer *w, const pl_export *e, const json_t *tokenizer_config,
                                     pl_error *err)
{
    char path[PL_FOLDER_PATH_BYTES];
    vocabulary v = {.where = path, .n = (size_t)e->config.vocab, .err = err};
    PL_TRY(pl_folder_join(pl_checkpoint_path(e->source), "tokenizer.json", path, err));
    pl_status status = make(&v, tokenizer_config);
    if (status == PL_OK)
        status = put(w, &v, &e->config, tokenizer_config);
    pl_token_source_free(&v.src);
    pl_arena_free(v.arena);
    return status;
}
