#include "host/text/tokenizer.h"

#include "host/text/bpe.h"
#include "host/text/detokenizer.h"
#include "host/text/tokenizer_cache.h"
#include "host/text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void pl_ids_free(pl_ids *ids)
{
    free(ids->v);
    *ids = (pl_ids){0};
}

pl_status pl_ids_reserve(pl_ids *ids, size_t more, pl_error *err)
{
    if (more <= ids->room - ids->n)
        return PL_OK;
    if (more > SIZE_MAX / (4 * sizeof *ids->v) - ids->n)
        return pl_fail_memory(err, SIZE_MAX, "token ids");
    size_t room = ids->n + more + ids->room / 2 + 16;
    int32_t *grown = realloc(ids->v, room * sizeof *grown);
    if (!grown)
        return pl_fail_memory(err, room * sizeof *grown, "token ids");
    ids->v = grown;
    ids->room = room;
    return PL_OK;
}

pl_status pl_ids_push(pl_ids *ids, int32_t id, pl_error *err)
{
    PL_TRY(pl_ids_reserve(ids, 1, err));
    ids->v[ids->n++] = id;
    return PL_OK;
}

void pl_tokenizer_free(pl_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    pl_mapfile_close(&tokenizer->file);
    free(tokenizer->image);
    free(tokenizer);
}

/* Where the pieces and merges come from, and a name for exactly that content. */
typedef struct origin {
    pl_status (*read)(const struct origin *from, pl_token_source *src, pl_error *err);
    const char *where;
    uint64_t content[2];
    const pl_mapfile *json;
    const pl_vocabulary *vocabulary;
} origin;

static pl_status read_json(const origin *from, pl_token_source *src, pl_error *err)
{
    return pl_token_source_from_json((const char *)from->json->data, from->json->size, src, err);
}

static pl_status read_vocabulary(const origin *from, pl_token_source *src, pl_error *err)
{
    return pl_token_source_from_vocabulary(from->vocabulary, src, err);
}

static pl_status build(const origin *from, const char *cache_dir, pl_tokenizer *tokenizer, pl_error *err)
{
    pl_status status;
    pl_token_source src;
    pl_token_source_init(&src, from->where, from->content);
    PL_TRY_GOTO(from->read(from, &src, err));
    PL_TRY_GOTO(pl_token_tables_build(&src, &tokenizer->image, &tokenizer->tables, err));
    if (cache_dir)
        pl_tokenizer_cache_store(cache_dir, tokenizer->image);
fail:
    pl_token_source_free(&src);
    return status;
}

static pl_status load_or_build(const origin *from, const char *cache_dir, pl_tokenizer **out, pl_error *err)
{
    pl_tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer)
        return pl_fail_memory(err, sizeof *tokenizer, "a tokenizer");
    pl_status status = PL_OK;
    if (!cache_dir || !pl_tokenizer_cache_load(cache_dir, from->content, &tokenizer->file, &tokenizer->tables))
        status = build(from, cache_dir, tokenizer, err);
    if (status != PL_OK)
        pl_tokenizer_free(tokenizer);
    else
        *out = tokenizer;
    return status;
}

pl_status pl_tokenizer_from_json(const char *path, const char *cache_dir, pl_tokenizer **out, pl_error *err)
{
    pl_mapfile json = {0};
    PL_TRY(pl_mapfile_open(path, &json, err));
    XXH128_hash_t hash = XXH3_128bits(json.data, json.size);
    origin from = {.read = read_json, .where = path, .content = {hash.low64, hash.high64}, .json = &json};
    pl_status status = load_or_build(&from, cache_dir, out, err);
    pl_mapfile_close(&json);
    return status;
}

/* Folds n bytes into content. */
static void fold(uint64_t content[2], const void *data, size_t n)
{
    XXH128_hash_t hash = XXH3_128bits_withSeed(data, n, content[0] ^ content[1]);
    content[0] = hash.low64;
    content[1] = hash.high64;
}

pl_status pl_tokenizer_from_vocabulary(const pl_vocabulary *vocabulary, const char *where, const char *cache_dir,
                                       pl_tokenizer **out, pl_error *err)
{
    origin from = {.read = read_vocabulary, .where = where, .vocabulary = vocabulary};
    size_t n = vocabulary->n > 0 ? (size_t)vocabulary->n : 0;
    if (n > 0) {
        fold(from.content, vocabulary->offset, (n + 1) * sizeof *vocabulary->offset);
        fold(from.content, vocabulary->text, (size_t)vocabulary->offset[n]);
        fold(from.content, vocabulary->score, n * sizeof *vocabulary->score);
        fold(from.content, vocabulary->kind, n * sizeof *vocabulary->kind);
    }
    return load_or_build(&from, cache_dir, out, err);
}

int32_t pl_tokenizer_size(const pl_tokenizer *tokenizer)
{
    return (int32_t)tokenizer->tables.head->n_pieces;
}

int32_t pl_tokenizer_id(const pl_tokenizer *tokenizer, const char *text, size_t n)
{
    return pl_piece_find(&tokenizer->tables.index, text, n);
}

bool pl_tokenizer_is_special(const pl_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < pl_tokenizer_size(tokenizer) && (tokenizer->tables.flags[id] & PL_PIECE_SPECIAL);
}

static pl_status encode(const pl_token_tables *t, const char *text, size_t n, bool special, pl_bpe_work *work,
                        pl_ids *out, pl_error *err)
{
    size_t start = 0; /* of the plain text before the next added token */
    for (size_t at = 0; at < n;) {
        uint32_t id = 0;
        size_t length = t->head->root[(unsigned char)text[at]] ? pl_added_match(t, text + at, n - at, &id) : 0;
        if (length && (special || !(t->flags[id] & PL_PIECE_SPECIAL))) {
            if (at > start)
                PL_TRY(pl_bpe_encode(t, text + start, at - start, work, out, err));
            PL_TRY(pl_ids_push(out, (int32_t)id, err));
            start = at + length;
        }
        /* a control token that counts as text is stepped over whole, as the reference does */
        at += length ? length : 1;
    }
    return n > start ? pl_bpe_encode(t, text + start, n - start, work, out, err) : PL_OK;
}

pl_status pl_tokenizer_encode(const pl_tokenizer *tokenizer, const char *text, size_t n, bool special, pl_ids *out,
                              pl_error *err)
{
    if (n > INT32_MAX)
        return pl_fail(err, PL_ERR_ARGUMENT, "a text of %zu bytes is too long; %d can be encoded at a time", n,
                       INT32_MAX);
    pl_bpe_work work = {0};
    size_t before = out->n;
    pl_status status = encode(&tokenizer->tables, text, n, special, &work, out, err);
    if (status != PL_OK)
        out->n = before;
    pl_bpe_work_free(&work);
    return status;
}

/* No fewer bytes than ids can decode to. */
static pl_status decoded_room(const pl_token_tables *t, const int32_t *ids, size_t n, size_t *room, pl_error *err)
{
    *room = 1;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint32_t)ids[i] >= t->head->n_pieces)
            return pl_fail(err, PL_ERR_ARGUMENT, "position %zu: %d is no token id; they end at %u", i, ids[i],
                           t->head->n_pieces - 1);
        /* a byte piece is longer than the three bytes of U+FFFD */
        size_t bytes = t->index.offset[ids[i] + 1] - t->index.offset[ids[i]];
        if (bytes > SIZE_MAX - *room)
            return pl_fail_memory(err, SIZE_MAX, "decoded text");
        *room += bytes;
    }
    return PL_OK;
}

pl_status pl_tokenizer_decode(const pl_tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                              char **text, size_t *n_bytes, pl_error *err)
{
    pl_status status = PL_OK;
    size_t room, n_all = 0, n_part;
    PL_TRY(decoded_room(&tokenizer->tables, ids, n, &room, err));
    char *all = malloc(room);
    if (!all)
        return pl_fail_memory(err, room, "decoded text");
    const char *part;
    pl_detokenizer d;
    pl_detokenizer_init(&d, tokenizer, skip_special);
    for (size_t i = 0; i <= n; i++) {
        PL_TRY_GOTO(i < n ? pl_detokenizer_push(&d, ids[i], &part, &n_part, err)
                          : pl_detokenizer_finish(&d, &part, &n_part, err));
        memcpy(all + n_all, part, n_part);
        n_all += n_part;
    }
    all[n_all] = '\0';
    *text = all;
    *n_bytes = n_all;
    all = NULL;
fail:
    free(all);
    pl_detokenizer_free(&d);
    return status;
}
