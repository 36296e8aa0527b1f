/* Reads tokenizer.json. Everything that decides how text becomes ids must be as in Gemma's file; anything else is
 * refused by name. What comes after (post_processor, truncation, padding) is the caller's business. */
#include "host/text/token_source.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define META "\xe2\x96\x81" /* U+2581, which stands for a space */

typedef struct reader {
    pl_token_source *src;
    const json_t *root;
    json_t *vocab;
    const char **piece; /* [n_vocab] by id; owned by the json */
    uint8_t *flags;     /* [n_vocab] */
    size_t n_vocab;
    char *joined; /* room for two pieces */
    size_t joined_room;
} reader;

static const char *string_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool is(const json_t *object, const char *key, const char *want)
{
    return strcmp(string_at(object, key), want) == 0;
}

/* A step that replaces one string by another. */
static bool replaces(const json_t *step, const char *pattern, const char *content)
{
    return is(step, "type", "Replace") && is(json_object_get(step, "pattern"), "String", pattern) &&
           is(step, "content", content);
}

static bool absent(const json_t *value)
{
    return !value || json_is_null(value);
}

static pl_status check_steps(const reader *r, pl_error *err)
{
    const char *where = r->src->where;
    const json_t *normalizer = json_object_get(r->root, "normalizer");
    if (!replaces(normalizer, " ", META))
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s: normalizer (%s) is not Gemma's, which replaces \" \" by \"" META "\"", where,
                       string_at(normalizer, "type"));
    /* this split finds nothing, since no space is left by then */
    const json_t *split = json_object_get(r->root, "pre_tokenizer");
    if (!absent(split) && !(is(split, "type", "Split") && is(json_object_get(split, "pattern"), "String", " ")))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: pre_tokenizer (%s) is not Gemma's, which splits at \" \"", where,
                       string_at(split, "type"));
    const json_t *decoder = json_object_get(r->root, "decoder"), *steps = json_object_get(decoder, "decoders");
    if (!is(decoder, "type", "Sequence") || json_array_size(steps) != 3 ||
        !replaces(json_array_get(steps, 0), META, " ") || !is(json_array_get(steps, 1), "type", "ByteFallback") ||
        !is(json_array_get(steps, 2), "type", "Fuse"))
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s: decoder (%s) is not Gemma's sequence of Replace, ByteFallback and Fuse", where,
                       string_at(decoder, "type"));
    return PL_OK;
}

static pl_status check_model(const reader *r, const json_t *model, pl_error *err)
{
    const char *where = r->src->where;
    if (!json_is_object(model))
        return pl_fail(err, PL_ERR_FORMAT, "%s: model is missing or not an object", where);
    if (!is(model, "type", "BPE"))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: model.type is \"%s\"; only BPE is supported", where,
                       string_at(model, "type"));
    if (!json_is_true(json_object_get(model, "byte_fallback")))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: model.byte_fallback is not true", where);
    if (json_is_true(json_object_get(model, "ignore_merges")))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: model.ignore_merges is true", where);
    if (json_number_value(json_object_get(model, "dropout")) != 0)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: model.dropout is not 0", where);
    static const char *const affix[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++)
        if (!absent(json_object_get(model, affix[i])) && !is(model, affix[i], ""))
            return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: model.%s is not empty", where, affix[i]);
    return PL_OK;
}

static pl_status read_vocab(reader *r, pl_error *err)
{
    const char *where = r->src->where;
    r->n_vocab = json_object_size(r->vocab);
    if (!json_is_object(r->vocab) || r->n_vocab == 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: model.vocab is missing, empty or not an object", where);
    if (r->n_vocab > PL_MAX_PIECES)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: model.vocab has more than %d pieces", where, PL_MAX_PIECES);
    r->piece = calloc(r->n_vocab, sizeof *r->piece);
    r->flags = calloc(r->n_vocab, 1);
    if (!r->piece || !r->flags)
        return pl_fail_memory(err, r->n_vocab * sizeof *r->piece, "the vocabulary");
    const char *text = NULL;
    json_t *value;
    json_object_foreach(r->vocab, text, value)
    {
        json_int_t id = json_integer_value(value);
        if (!json_is_integer(value))
            return pl_fail(err, PL_ERR_FORMAT, "%s: model.vocab[\"%.60s\"] is not an integer", where, text);
        if (id < 0 || (size_t)id >= r->n_vocab)
            return pl_fail(err, PL_ERR_FORMAT, "%s: model.vocab[\"%.60s\"] is %lld; the ids of %zu pieces are 0 to %zu",
                           where, text, (long long)id, r->n_vocab, r->n_vocab - 1);
        if (r->piece[id])
            return pl_fail(err, PL_ERR_FORMAT, "%s: model.vocab: id %lld is given to \"%.60s\" and \"%.60s\"", where,
                           (long long)id, r->piece[id], text);
        r->piece[id] = text;
        r->flags[id] = PL_PIECE_MODEL;
    }
    return PL_OK;
}

/* One entry of added_tokens: its text, id and whether it is a control token. */
static pl_status read_added(const reader *r, size_t i, const char **text, json_int_t *id, bool *special, pl_error *err)
{
    const char *where = r->src->where;
    const json_t *entry = json_array_get(json_object_get(r->root, "added_tokens"), i);
    const json_t *number = json_object_get(entry, "id"), *flag = json_object_get(entry, "special");
    *text = json_string_value(json_object_get(entry, "content"));
    if (!*text || !**text)
        return pl_fail(err, PL_ERR_FORMAT, "%s: added_tokens[%zu].content is missing, empty or not a string", where, i);
    if (!json_is_integer(number))
        return pl_fail(err, PL_ERR_FORMAT, "%s: added_tokens[%zu].id is missing or not an integer", where, i);
    if (!json_is_boolean(flag))
        return pl_fail(err, PL_ERR_FORMAT, "%s: added_tokens[%zu].special is missing or not a boolean", where, i);
    static const char *const off[] = {"single_word", "lstrip", "rstrip", "normalized"};
    for (size_t k = 0; k < 4; k++) {
        const json_t *value = json_object_get(entry, off[k]);
        if (value && !json_is_false(value))
            return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: added_tokens[%zu].%s is not false", where, i, off[k]);
    }
    *id = json_integer_value(number);
    *special = json_is_true(flag);
    return PL_OK;
}

/* Marks the added tokens that are pieces of the model too; then takes the pieces over, and after them the other
 * added tokens. Those must be numbered on from the vocabulary's end in the order of the list, since that
 * is how the reference numbers them whatever the file says. */
static pl_status read_pieces(reader *r, pl_error *err)
{
    const char *where = r->src->where;
    const json_t *list = json_object_get(r->root, "added_tokens");
    if (!absent(list) && !json_is_array(list))
        return pl_fail(err, PL_ERR_FORMAT, "%s: added_tokens is not an array", where);
    size_t n_added = json_array_size(list);
    const char *text = NULL;
    json_int_t id = 0;
    bool special = false;
    for (size_t i = 0; i < n_added; i++) {
        PL_TRY(read_added(r, i, &text, &id, &special, err));
        const json_t *known = json_object_get(r->vocab, text);
        if (!known)
            continue;
        if (json_integer_value(known) != id)
            return pl_fail(err, PL_ERR_FORMAT,
                           "%s: added_tokens[%zu] (\"%.60s\") has id %lld, in model.vocab it is %lld", where, i, text,
                           (long long)id, (long long)json_integer_value(known));
        if (r->flags[id] & PL_PIECE_ADDED)
            return pl_fail(err, PL_ERR_FORMAT, "%s: added_tokens[%zu] (\"%.60s\") is listed twice", where, i, text);
        r->flags[id] |= (uint8_t)(PL_PIECE_ADDED | (special ? PL_PIECE_SPECIAL : 0));
    }
    for (size_t i = 0; i < r->n_vocab; i++) {
        const char *piece = r->piece[i]; /* there: ids without gaps were checked */
        PL_TRY(pl_token_source_piece(r->src, piece, piece ? strlen(piece) : 0, r->flags[i], err));
    }
    for (size_t i = 0; i < n_added; i++) {
        PL_TRY(read_added(r, i, &text, &id, &special, err));
        if (json_object_get(r->vocab, text))
            continue;
        if (id != (json_int_t)r->src->n)
            return pl_fail(err, PL_ERR_FORMAT,
                           "%s: added_tokens[%zu] (\"%.60s\") has id %lld; the next after the vocabulary is %u", where,
                           i, text, (long long)id, r->src->n);
        unsigned flags = PL_PIECE_ADDED | (special ? PL_PIECE_SPECIAL : 0u);
        PL_TRY(pl_token_source_piece(r->src, text, strlen(text), flags, err));
    }
    return pl_token_source_index(r->src, err);
}

/* The two halves of a merge, written ["a", "b"] or "a b". */
static bool halves(const json_t *merge, const char **a, size_t *n_a, const char **b, size_t *n_b)
{
    if (json_is_array(merge)) {
        *a = json_string_value(json_array_get(merge, 0));
        *b = json_string_value(json_array_get(merge, 1));
        if (json_array_size(merge) != 2 || !*a || !*b)
            return false;
        *n_a = strlen(*a);
        *n_b = strlen(*b);
        return true;
    }
    *a = json_string_value(merge);
    const char *space = *a ? strchr(*a, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return false;
    *n_a = (size_t)(space - *a);
    *b = space + 1;
    *n_b = strlen(*b);
    return true;
}

static pl_status read_merge(reader *r, size_t i, const json_t *merge, pl_error *err)
{
    pl_token_source *src = r->src;
    const char *half[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    if (!halves(merge, &half[0], &n[0], &half[1], &n[1]))
        return pl_fail(err, PL_ERR_FORMAT, "%s: model.merges[%zu] is neither [\"a\", \"b\"] nor \"a b\"", src->where,
                       i);
    int32_t id[3];
    for (size_t k = 0; k < 2; k++) {
        id[k] = pl_token_source_find(src, half[k], n[k]);
        if (id[k] < 0)
            return pl_fail(err, PL_ERR_FORMAT, "%s: model.merges[%zu]: \"%.*s\" is not in model.vocab", src->where, i,
                           n[k] < 60 ? (int)n[k] : 60, half[k]);
    }
    if (!r->joined || n[0] + n[1] > r->joined_room) {
        size_t room = 2 * (n[0] + n[1]);
        char *grown = realloc(r->joined, room);
        if (!grown)
            return pl_fail_memory(err, room, "a merge");
        r->joined = grown;
        r->joined_room = room;
    }
    memcpy(r->joined, half[0], n[0]);
    memcpy(r->joined + n[0], half[1], n[1]);
    id[2] = pl_token_source_find(src, r->joined, n[0] + n[1]);
    if (id[2] < 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s: model.merges[%zu]: the result \"%.*s\" is not in model.vocab",
                       src->where, i, n[0] + n[1] < 60 ? (int)(n[0] + n[1]) : 60, r->joined);
    return pl_token_source_merge(src, (uint32_t)id[0], (uint32_t)id[1], (uint32_t)id[2], err);
}

static pl_status read_all(reader *r, pl_error *err)
{
    if (!json_is_object(r->root))
        return pl_fail(err, PL_ERR_FORMAT, "%s: not a JSON object", r->src->where);
    const json_t *model = json_object_get(r->root, "model");
    PL_TRY(check_model(r, model, err));
    PL_TRY(check_steps(r, err));
    r->vocab = json_object_get(model, "vocab");
    PL_TRY(read_vocab(r, err));
    PL_TRY(read_pieces(r, err));
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_array(merges))
        return pl_fail(err, PL_ERR_FORMAT, "%s: model.merges is missing or not an array", r->src->where);
    for (size_t i = 0; i < json_array_size(merges); i++)
        PL_TRY(read_merge(r, i, json_array_get(merges, i), err));
    return PL_OK;
}

pl_status pl_token_source_from_json(const char *json, size_t n, pl_token_source *src, pl_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(json ? json : "", n, JSON_REJECT_DUPLICATES, &why);
    if (!root && json_error_code(&why) == json_error_out_of_memory)
        return pl_fail_memory(err, n, "a tokenizer.json");
    if (!root)
        return pl_fail(err, PL_ERR_FORMAT, "%s: line %d, column %d: %s", src->where, why.line, why.column, why.text);
    reader r = {.src = src, .root = root};
    pl_status status = read_all(&r, err);
    free(r.joined);
    free(r.flags);
    free(r.piece);
    json_decref(root);
    return status;
}
