#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/engine/stop.h"
#include "tests/unit/fail_alloc.h"

static pl_stop *create(const char *const *strings, size_t n)
{
    pl_stop *stop = NULL;
    pl_error err;
    cr_assert_eq(pl_stop_create(strings, n, &stop, &err), PL_OK);
    return stop;
}

static void expect_feed(pl_stop *stop, const char *piece, const char *shown, int32_t matched)
{
    const char *text = NULL;
    size_t n = 99;
    int32_t which = 99;
    cr_assert_eq(pl_stop_feed(stop, piece, strlen(piece), &text, &n, &which, NULL), PL_OK);
    cr_assert(n == strlen(shown) && memcmp(text, shown, n) == 0, "after \"%s\": \"%.*s\", expected \"%s\"", piece,
              (int)n, text, shown);
    cr_assert_eq(which, matched, "after \"%s\": %d, expected %d", piece, which, matched);
}

static void expect_finish(pl_stop *stop, const char *shown)
{
    const char *text = NULL;
    size_t n = 99;
    pl_stop_finish(stop, &text, &n);
    cr_assert(n == strlen(shown) && memcmp(text, shown, n) == 0, "at the end: \"%.*s\", expected \"%s\"", (int)n, text,
              shown);
    pl_stop_free(stop);
}

Test(stop, holds_back_no_more_than_it_must)
{
    pl_stop *stop = create((const char *const[]){"END"}, 1);
    expect_feed(stop, "the E", "the ", -1);
    expect_feed(stop, "nd, EN", "End, ", -1);
    expect_feed(stop, "", "", -1);
    expect_feed(stop, "D. More", "", 0);
    expect_feed(stop, "more", "", 0);
    expect_finish(stop, "");
}

Test(stop, gives_out_the_rest_at_the_end)
{
    pl_stop *stop = create((const char *const[]){"END", "\n\n\n"}, 2);
    expect_feed(stop, "abc\n\n", "abc", -1);
    expect_feed(stop, "E", "\n\n", -1);
    expect_finish(stop, "E");
    stop = create((const char *const[]){"END"}, 1);
    expect_finish(stop, "");
}

Test(stop, falls_back_to_a_shorter_beginning)
{
    pl_stop *stop = create((const char *const[]){"aabaac"}, 1);
    expect_feed(stop, "aabaa", "", -1);
    expect_feed(stop, "b", "aab", -1);
    expect_feed(stop, "aa", "", -1);
    expect_feed(stop, "a", "aaba", -1);
    expect_feed(stop, "baac", "", 0);
    expect_finish(stop, "");
}

Test(stop, the_first_to_be_complete_wins_then_the_longest)
{
    static const char *const strings[] = {"abcd", "bc", "x", "wx", "vwx", "y", "yz"};
    pl_stop *stop = create(strings, 7);
    expect_feed(stop, "-abcd", "-a", 1);
    pl_stop_reset(stop);
    expect_feed(stop, "-vwx", "-", 4);
    pl_stop_reset(stop);
    expect_feed(stop, "-uwx", "-u", 3);
    pl_stop_reset(stop);
    expect_feed(stop, "-yz", "-", 5);
    expect_finish(stop, "");
}

Test(stop, none)
{
    pl_stop *stop = create(NULL, 0);
    expect_feed(stop, "anything", "anything", -1);
    expect_feed(stop, "", "", -1);
    expect_finish(stop, "");
}

Test(stop, whole_characters)
{
    /* e acute and e grave share their first byte. */
    pl_stop *stop = create((const char *const[]){"\xc3\xa8!"}, 1);
    expect_feed(stop, "caf\xc3\xa9", "caf\xc3\xa9", -1);
    expect_feed(stop, "tr\xc3\xa8", "tr", -1);
    expect_feed(stop, "s\xc3\xa8", "\xc3\xa8s", -1);
    expect_feed(stop, "!", "", 0);
    expect_finish(stop, "");
}

Test(stop, long_pieces)
{
    static char text[100001];
    memset(text, 'E', 100000);
    pl_stop *stop = create((const char *const[]){"END"}, 1);
    const char *shown = NULL;
    size_t n = 0;
    int32_t matched = 0;
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(pl_stop_feed(stop, text, 100000, &shown, &n, &matched, NULL), PL_OK);
        cr_assert_eq(n, i ? 100000 : 99999);
        cr_assert(matched == -1 && memcmp(shown, text, n) == 0);
    }
    expect_feed(stop, "ND", "", 0);
    expect_finish(stop, "");
}

typedef struct pieces {
    int n;
    size_t bytes;
} pieces;

static pl_status stream(void *ctx, pl_error *err)
{
    static const char text[5000] = "some text STO";
    const pieces *p = ctx;
    pl_stop *stop = NULL;
    const char *shown = NULL;
    size_t n = 0;
    int32_t matched = -1;
    PL_TRY(pl_stop_create((const char *const[]){"END", "STOP"}, 2, &stop, err));
    pl_status status = PL_OK;
    for (int i = 0; i < p->n && status == PL_OK; i++)
        status = pl_stop_feed(stop, text, p->bytes, &shown, &n, &matched, err);
    pl_stop_free(stop);
    return status;
}

Test(stop, allocates_at_creation_and_for_long_pieces)
{
    int at_creation = fail_alloc_each(stream, &(pieces){0, 0});
    cr_assert_eq(fail_alloc_each(stream, &(pieces){1000, 2000}), at_creation);
    cr_assert_eq(fail_alloc_each(stream, &(pieces){1000, 5000}), at_creation + 1);
}

Test(stop, bad_strings)
{
    static const struct {
        const char *strings[2];
        const char *message;
    } cases[] = {
        {{"a", ""}, "stop[1] is empty"},
        {{NULL, "a"}, "stop[0] is empty"},
        {{"a", "b\xc3"}, "stop[1] is not UTF-8"},
        {{"\xa9", "b"}, "stop[0] is not UTF-8"},
    };
    pl_stop *stop = NULL;
    pl_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(pl_stop_create(cases[i].strings, 2, &stop, &err), PL_ERR_ARGUMENT);
        cr_assert_str_eq(err.message, cases[i].message);
        cr_assert_null(stop);
    }
    cr_assert_eq(pl_stop_create(NULL, 3, &stop, &err), PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, "stop is NULL, expected 3 strings");
    pl_stop_free(NULL);
}

/* ---- against a search of the whole text, for any way to cut it --------------------------------- */

static uint64_t random_state = 5;

static size_t random_below(size_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (size_t)(random_state >> 33) % n;
}

/* The longest string that ends at text[n], or -1. */
static int32_t plain_match(const char *text, size_t n, char strings[4][8], size_t n_strings)
{
    int32_t which = -1;
    for (size_t i = 0; i < n_strings; i++) {
        size_t m = strlen(strings[i]);
        if (m <= n && memcmp(text + n - m, strings[i], m) == 0 && (which < 0 || m > strlen(strings[which])))
            which = (int32_t)i;
    }
    return which;
}

/* The longest end of text that begins one of the strings. */
static size_t plain_held(const char *text, size_t n, char strings[4][8], size_t n_strings)
{
    size_t held = 0;
    for (size_t i = 0; i < n_strings; i++)
        for (size_t m = strlen(strings[i]) - 1; m > held; m--)
            if (m <= n && memcmp(text + n - m, strings[i], m) == 0)
                held = m;
    return held;
}

/* How much of text can be shown. */
static size_t plain_shown(const char *text, size_t n, char strings[4][8], size_t n_strings, int32_t *which)
{
    for (size_t end = 1; end <= n; end++) {
        *which = plain_match(text, end, strings, n_strings);
        if (*which >= 0)
            return end - strlen(strings[*which]);
    }
    return n - plain_held(text, n, strings, n_strings);
}

Test(stop, equals_a_search_of_the_whole_text)
{
    for (int round = 0; round < 3000; round++) {
        char strings[4][8], text[120], out[120];
        const char *list[4];
        size_t n_strings = 1 + random_below(4), kinds = 2 + random_below(3), n = random_below(sizeof text), shown = 0;
        for (size_t i = 0; i < n_strings; i++) {
            size_t m = 1 + random_below(7);
            for (size_t j = 0; j < m; j++)
                strings[i][j] = (char)('a' + random_below(kinds));
            strings[i][m] = 0;
            list[i] = strings[i];
        }
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + random_below(kinds + round % 2));
        pl_stop *stop = create(list, n_strings);
        for (size_t at = 0; at < n;) {
            size_t piece = random_below(1 + n - at), n_out = 0;
            const char *given = NULL;
            int32_t which = -1, expected = -1;
            cr_assert_eq(pl_stop_feed(stop, text + at, piece, &given, &n_out, &which, NULL), PL_OK);
            memcpy(out + shown, given, n_out);
            shown += n_out;
            at += piece;
            size_t cut = plain_shown(text, at, strings, n_strings, &expected);
            cr_assert(shown == cut && memcmp(out, text, cut) == 0, "round %d: %zu of %zu shown, expected %zu", round,
                      shown, at, cut);
            cr_assert_eq(which, expected);
        }
        pl_stop_free(stop);
    }
}
