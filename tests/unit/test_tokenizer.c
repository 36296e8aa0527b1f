#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/text/chat.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/tokenizer_fixture.h"

static void expect_goldens(const pl_tokenizer *tokenizer)
{
    json_t *golden = fixture_json(SMALL_GOLDEN), *row;
    size_t i;
    json_array_foreach(json_object_get(golden, "cases"), i, row)
    {
        const json_t *text = json_array_get(row, 0), *ids = json_array_get(row, 1), *plain = json_array_get(row, 2),
                     *decoded = json_array_get(row, 3), *without = json_array_get(row, 4);
        decoded = json_is_null(decoded) ? text : decoded;
        const char *what = json_string_value(text);
        fixture_expect_ids(tokenizer, what, json_string_length(text), true, ids, what);
        fixture_expect_ids(tokenizer, what, json_string_length(text), false, json_is_null(plain) ? ids : plain, what);
        fixture_expect_text(tokenizer, ids, false, decoded, what);
        fixture_expect_text(tokenizer, ids, true, json_is_null(without) ? decoded : without, what);
    }
    cr_assert_gt(i, 200);
    json_array_foreach(json_object_get(golden, "decode"), i, row)
    {
        char what[32];
        snprintf(what, sizeof what, "decode[%zu]", i);
        fixture_expect_text(tokenizer, json_array_get(row, 0), false, json_array_get(row, 1), what);
        fixture_expect_text(tokenizer, json_array_get(row, 0), true, json_array_get(row, 2), what);
    }
    cr_assert_gt(i, 80);
    json_decref(golden);
}

static void expect(const pl_tokenizer *tokenizer, const char *text, size_t n, const int32_t *ids, size_t n_ids)
{
    pl_error err;
    pl_ids got = {0};
    cr_assert_eq(pl_tokenizer_encode(tokenizer, text, n, true, &got, &err), PL_OK);
    cr_expect(got.n == n_ids && memcmp(got.v, ids, n_ids * sizeof *ids) == 0, "\"%.*s\": %zu ids", (int)n, text, got.n);
    pl_ids_free(&got);
}

Test(tokenizer, equals_the_reference)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    expect_goldens(tokenizer);
    pl_tokenizer_free(tokenizer);
}

Test(tokenizer, from_a_gguf_vocabulary_equals_the_reference)
{
    json_t *json = fixture_json(SMALL_TOKENIZER);
    fixture_vocabulary vocabulary = fixture_vocabulary_of(json);
    pl_vocabulary view = fixture_view(&vocabulary);
    pl_error err;
    pl_tokenizer *tokenizer;
    cr_assert(pl_tokenizer_from_vocabulary(&view, "small", NULL, &tokenizer, &err) == PL_OK, "%s", err.message);
    fixture_vocabulary_free(&vocabulary);
    expect_goldens(tokenizer);
    json_t *added;
    size_t i;
    json_array_foreach(json_object_get(json, "added_tokens"), i, added)
    {
        int32_t id = (int32_t)json_integer_value(json_object_get(added, "id"));
        cr_expect_eq(pl_tokenizer_is_special(tokenizer, id), json_is_true(json_object_get(added, "special")), "id %d",
                     id);
    }
    pl_tokenizer_free(tokenizer);
    json_decref(json);
}

/* Puts the merge of "n" and "o" first: the order no longer follows from the ids, so the ranks in the file must be
 * what counts. */
Test(tokenizer, goes_by_the_ranks_in_the_file)
{
    json_t *json = fixture_json(SMALL_TOKENIZER), *merges = json_object_get(json_object_get(json, "model"), "merges"),
           *merge = NULL;
    size_t i;
    json_array_foreach(merges, i, merge)
    {
        if (strcmp(json_string_value(json_array_get(merge, 0)), "n") == 0 &&
            strcmp(json_string_value(json_array_get(merge, 1)), "o") == 0)
            break;
    }
    cr_assert_lt(i, json_array_size(merges));
    json_incref(merge);
    json_array_remove(merges, i);
    json_array_insert_new(merges, 0, merge);
    char *folder = fixture_folder(), path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    cr_assert_eq(json_dump_file(json, path, 0), 0);
    pl_error err;
    pl_tokenizer *tokenizer, *small = fixture_tokenizer();
    cr_assert(pl_tokenizer_from_json(path, NULL, &tokenizer, &err) == PL_OK, "%s", err.message);
    pl_ids ids = {0}, usual = {0};
    cr_assert_eq(pl_tokenizer_encode(tokenizer, "ino", 3, true, &ids, &err), PL_OK);
    cr_assert_eq(pl_tokenizer_encode(small, "ino", 3, true, &usual, &err), PL_OK);
    cr_expect(ids.n == 2 && ids.v[0] == pl_tokenizer_id(small, "i", 1) && ids.v[1] == pl_tokenizer_id(small, "no", 2));
    cr_expect(usual.n == 2 && usual.v[0] == pl_tokenizer_id(small, "in", 2) &&
              usual.v[1] == pl_tokenizer_id(small, "o", 1));
    pl_ids_free(&ids);
    pl_ids_free(&usual);
    pl_tokenizer_free(tokenizer);
    pl_tokenizer_free(small);
    json_decref(json);
    fixture_remove(folder);
}

/* A merge across the place before a space, where words are cut otherwise: a piece "n\u2581t" in place of "\u2581only". */
Test(tokenizer, follows_merges_that_cross_a_space)
{
    json_t *json = fixture_json(SMALL_TOKENIZER), *model = json_object_get(json, "model"),
           *vocab = json_object_get(model, "vocab"), *merges = json_object_get(model, "merges");
    json_object_set(vocab, "n\xe2\x96\x81t", json_object_get(vocab, "\xe2\x96\x81only"));
    json_object_del(vocab, "\xe2\x96\x81only");
    json_array_set_new(merges, json_array_size(merges) - 1, json_pack("[s,s]", "n", "\xe2\x96\x81t"));
    char *folder = fixture_folder(), path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    cr_assert_eq(json_dump_file(json, path, 0), 0);
    pl_error err;
    pl_tokenizer *tokenizer;
    cr_assert(pl_tokenizer_from_json(path, NULL, &tokenizer, &err) == PL_OK, "%s", err.message);
    expect(tokenizer, "n tz", 4,
           (int32_t[]){pl_tokenizer_id(tokenizer, "n\xe2\x96\x81t", 5), pl_tokenizer_id(tokenizer, "z", 1)}, 2);
    pl_tokenizer_free(tokenizer);
    json_decref(json);
    fixture_remove(folder);
}

/* All merges written "a b" instead of ["a", "b"]. */
Test(tokenizer, reads_merges_written_as_one_string)
{
    json_t *json = fixture_json(SMALL_TOKENIZER), *model = json_object_get(json, "model"), *lines = json_array(),
           *merge;
    size_t i;
    json_array_foreach(json_object_get(model, "merges"), i, merge)
    {
        json_array_append_new(lines, json_sprintf("%s %s", json_string_value(json_array_get(merge, 0)),
                                                  json_string_value(json_array_get(merge, 1))));
    }
    json_object_set_new(model, "merges", lines);
    char *folder = fixture_folder(), path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    cr_assert_eq(json_dump_file(json, path, 0), 0);
    pl_error err;
    pl_tokenizer *tokenizer;
    cr_assert(pl_tokenizer_from_json(path, NULL, &tokenizer, &err) == PL_OK, "%s", err.message);
    expect_goldens(tokenizer);
    pl_tokenizer_free(tokenizer);
    json_decref(json);
    fixture_remove(folder);
}

#define BYTE(b) (238 + 0x##b)

Test(tokenizer, makes_byte_pieces_of_bytes_that_are_not_utf8)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    int32_t a = pl_tokenizer_id(tokenizer, "a", 1);
    expect(tokenizer,
           "a\xff"
           "a",
           3, (int32_t[]){a, BYTE(FF), a}, 3);
    expect(tokenizer, "\xe4\xb8", 2, (int32_t[]){BYTE(E4), BYTE(B8)}, 2);
    expect(tokenizer, "\xc0\x80", 2, (int32_t[]){BYTE(C0), BYTE(80)}, 2);
    expect(tokenizer, "\xed\xa0\x80", 3, (int32_t[]){BYTE(ED), BYTE(A0), BYTE(80)}, 3);
    expect(tokenizer, "\xf4\x90\x80\x80", 4, (int32_t[]){BYTE(F4), BYTE(90), BYTE(80), BYTE(80)}, 4);
    expect(tokenizer, "\xf0\x9f\x98", 3, (int32_t[]){BYTE(F0), BYTE(9F), BYTE(98)}, 3);
    /* a character cut by an added token */
    expect(tokenizer, "\xe2\x96<bos>\x81", 8, (int32_t[]){BYTE(E2), BYTE(96), 2, BYTE(81)}, 4);
    pl_tokenizer_free(tokenizer);
}

Test(tokenizer, appends)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    pl_error err;
    pl_ids ids = {0};
    cr_assert_eq(pl_ids_push(&ids, 2, &err), PL_OK);
    cr_assert_eq(pl_tokenizer_encode(tokenizer, "\n\n<eos>", 7, true, &ids, &err), PL_OK);
    cr_assert_eq(pl_tokenizer_encode(tokenizer, "", 0, true, &ids, &err), PL_OK);
    cr_assert_eq(ids.n, 3);
    cr_expect(ids.v[0] == 2 && ids.v[1] == 108 && ids.v[2] == 1);
    pl_ids_free(&ids);
    pl_tokenizer_free(tokenizer);
}

Test(tokenizer, knows_its_pieces)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    cr_expect_eq(pl_tokenizer_size(tokenizer), 1088);
    cr_expect_eq(pl_tokenizer_id(tokenizer, "<bos>", 5), 2);
    cr_expect_eq(pl_tokenizer_id(tokenizer, "<audio_soft_token>", 18), 1057);
    cr_expect_eq(pl_tokenizer_id(tokenizer, "<bos", 4), -1);
    cr_expect_eq(pl_tokenizer_id(tokenizer, "", 0), -1);
    cr_expect(pl_tokenizer_is_special(tokenizer, 106));
    cr_expect(!pl_tokenizer_is_special(tokenizer, 107));
    cr_expect(!pl_tokenizer_is_special(tokenizer, -1));
    cr_expect(!pl_tokenizer_is_special(tokenizer, 1088));
    pl_tokenizer_free(tokenizer);
    pl_tokenizer_free(NULL);
}

Test(tokenizer, refuses_ids_out_of_range)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    pl_error err;
    char *text = NULL;
    size_t n;
    cr_expect_eq(pl_tokenizer_decode(tokenizer, (int32_t[]){2, 1088}, 2, false, &text, &n, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "position 1: 1088 is no token id; they end at 1087");
    cr_expect_eq(pl_tokenizer_decode(tokenizer, (int32_t[]){-1}, 1, false, &text, &n, &err), PL_ERR_ARGUMENT);
    cr_expect_null(text);
    pl_tokenizer_free(tokenizer);
}

/* A word without a space, far longer than those that are merged in an array: the same ids as its halves
 * would be hard to say, but runs of one piece are not. */
Test(tokenizer, takes_a_long_line)
{
    enum { N = 1 << 20 };
    pl_tokenizer *tokenizer = fixture_tokenizer();
    char *text = malloc(N);
    pl_error err;
    pl_ids ids = {0};
    for (size_t i = 0; i < N; i++)
        text[i] = "get"[i % 3];
    cr_assert_eq(pl_tokenizer_encode(tokenizer, text, N, true, &ids, &err), PL_OK);
    int32_t get = pl_tokenizer_id(tokenizer, "get", 3);
    cr_assert_geq(get, 0);
    cr_expect_eq(ids.n, N / 3 + 1); /* 2^20 = 3 * 349525 + 1 */
    for (size_t i = 0; i + 1 < ids.n; i++)
        cr_assert_eq(ids.v[i], get, "id %zu", i);
    pl_ids_free(&ids);
    free(text);
    pl_tokenizer_free(tokenizer);
}

static pl_status use(void *ctx, pl_error *err)
{
    pl_status status;
    pl_ids ids = {0};
    char *text = NULL;
    size_t n;
    pl_tokenizer *tokenizer = NULL;
    if (ctx)
        PL_TRY_GOTO(pl_tokenizer_from_vocabulary(ctx, "small", NULL, &tokenizer, err));
    else
        PL_TRY_GOTO(pl_tokenizer_from_json(SMALL_TOKENIZER, NULL, &tokenizer, err));
    static const char in[] = "<bos>some words and thequickbrownfoxjumpsoverthelazydogthequickbrownfoxjumps\xff";
    PL_TRY_GOTO(pl_tokenizer_encode(tokenizer, in, strlen(in), true, &ids, err));
    PL_TRY_GOTO(pl_tokenizer_decode(tokenizer, ids.v, ids.n, false, &text, &n, err));
fail:
    free(text);
    pl_ids_free(&ids);
    pl_tokenizer_free(tokenizer);
    return status;
}

Test(tokenizer, survives_every_failed_allocation)
{
    cr_expect_gt(fail_alloc_each(use, NULL), 15);
    json_t *json = fixture_json(SMALL_TOKENIZER);
    fixture_vocabulary vocabulary = fixture_vocabulary_of(json);
    pl_vocabulary view = fixture_view(&vocabulary);
    cr_expect_gt(fail_alloc_each(use, &view), 15);
    fixture_vocabulary_free(&vocabulary);
    json_decref(json);
}

#ifdef PL_PUBLISHED_TOKENIZER
/* The published file is too large to keep here; the build names it and a golden made for it. */
static void expect_published(const pl_tokenizer *tokenizer, const json_t *golden)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(golden, "cases"), i, entry)
    {
        const json_t *text = json_object_get(entry, "text"), *ids = json_object_get(entry, "ids");
        const char *what = json_string_value(json_object_get(entry, "name"));
        fixture_expect_ids(tokenizer, json_string_value(text), json_string_length(text), true, ids, what);
        fixture_expect_text(tokenizer, ids, false, json_object_get(entry, "decoded"), what);
        fixture_expect_text(tokenizer, ids, true, json_object_get(entry, "decoded_plain"), what);
    }
    json_array_foreach(json_object_get(golden, "decode"), i, entry)
    {
        fixture_expect_text(tokenizer, json_object_get(entry, "ids"), false, json_object_get(entry, "text"), "decode");
        fixture_expect_text(tokenizer, json_object_get(entry, "ids"), true, json_object_get(entry, "text_plain"),
                            "decode");
    }
    json_array_foreach(json_object_get(golden, "chat"), i, entry)
    {
        const json_t *rendered = json_object_get(entry, "rendered");
        char *json = json_dumps(entry, 0), *text;
        size_t n;
        pl_error err;
        cr_assert(pl_chat_render_json(json, strlen(json), false, &text, &n, &err) == PL_OK, "%s", err.message);
        cr_expect(n == json_string_length(rendered) && memcmp(text, json_string_value(rendered), n) == 0, "chat %zu",
                  i);
        fixture_expect_ids(tokenizer, text, n, true, json_object_get(entry, "ids"), "chat");
        free(text);
        free(json);
    }
}

Test(tokenizer, published_equals_the_reference)
{
    json_t *golden = fixture_json(PL_PUBLISHED_GOLDEN);
    pl_error err;
    pl_tokenizer *tokenizer;
    cr_assert(pl_tokenizer_from_json(PL_PUBLISHED_TOKENIZER, NULL, &tokenizer, &err) == PL_OK, "%s", err.message);
    expect_published(tokenizer, golden);
    pl_tokenizer_free(tokenizer);
    json_t *json = fixture_json(PL_PUBLISHED_TOKENIZER);
    fixture_vocabulary vocabulary = fixture_vocabulary_of(json);
    json_decref(json);
    pl_vocabulary view = fixture_view(&vocabulary);
    cr_assert(pl_tokenizer_from_vocabulary(&view, "published", NULL, &tokenizer, &err) == PL_OK, "%s", err.message);
    expect_published(tokenizer, golden);
    pl_tokenizer_free(tokenizer);
    fixture_vocabulary_free(&vocabulary);
    json_decref(golden);
}
#endif
