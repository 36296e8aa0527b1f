#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/text/detokenizer.h"
#include "host/text/token_source.h"
#include "host/text/utf8.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/tokenizer_fixture.h"

#define BYTE(b) (238 + 0x##b)

static void expect_push(pl_detokenizer *d, int32_t id, const char *shown)
{
    pl_error err;
    const char *text;
    size_t n;
    cr_assert_eq(pl_detokenizer_push(d, id, &text, &n, &err), PL_OK);
    cr_expect(n == strlen(shown) && memcmp(text, shown, n) == 0, "id %d: \"%.*s\", expected \"%s\"", id, (int)n, text,
              shown);
}

static void expect_finish(pl_detokenizer *d, const char *shown)
{
    pl_error err;
    const char *text;
    size_t n;
    cr_assert_eq(pl_detokenizer_finish(d, &text, &n, &err), PL_OK);
    cr_expect(n == strlen(shown) && memcmp(text, shown, n) == 0, "end: \"%.*s\", expected \"%s\"", (int)n, text, shown);
}

Test(detokenizer, gives_single_pieces_as_bytes)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    char out[PL_MAX_PIECE_BYTES];
    int32_t control = pl_tokenizer_id(tokenizer, "<bos>", 5), space = pl_tokenizer_id(tokenizer, "\xe2\x96\x81", 3);
    cr_expect(pl_piece_bytes(tokenizer, pl_tokenizer_id(tokenizer, "a", 1), out) == 1 && out[0] == 'a');
    cr_expect(pl_piece_bytes(tokenizer, BYTE(E4), out) == 1 && out[0] == '\xe4');
    cr_expect(pl_piece_bytes(tokenizer, space, out) == 1 && out[0] == ' ');
    cr_expect(pl_piece_bytes(tokenizer, control, out) == 5 && memcmp(out, "<bos>", 5) == 0);
    cr_expect_eq(pl_piece_bytes(tokenizer, -1, out), 0);
    cr_expect_eq(pl_piece_bytes(tokenizer, pl_tokenizer_size(tokenizer), out), 0);
    pl_tokenizer_free(tokenizer);
}

Test(detokenizer, holds_a_run_of_bytes_until_it_ends)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    pl_detokenizer d;
    pl_detokenizer_init(&d, tokenizer, true);
    int32_t a = pl_tokenizer_id(tokenizer, "a", 1);
    expect_push(&d, a, "a");
    expect_push(&d, BYTE(E4), "");
    expect_push(&d, BYTE(B8), "");
    expect_push(&d, BYTE(96), "");
    expect_push(&d, a,
                "\xe4\xb8\x96"
                "a");
    expect_push(&d, BYTE(E4), "");
    expect_push(&d, BYTE(41), "");
    expect_push(&d, a,
                "\xef\xbf\xbd\xef\xbf\xbd"
                "a"); /* the whole run is lost, not only its bad byte */
    expect_push(&d, BYTE(C3), "");
    expect_push(&d, 2, ""); /* <bos>, left out, does not end the run */
    expect_push(&d, BYTE(A9), "");
    expect_finish(&d, "\xc3\xa9");
    expect_finish(&d, "");
    expect_push(&d, 138, "  ");
    pl_detokenizer_free(&d);
    pl_detokenizer_init(&d, tokenizer, false);
    expect_push(&d, BYTE(C3), "");
    expect_push(&d, 2, "\xef\xbf\xbd<bos>");
    pl_detokenizer_free(&d);
    pl_tokenizer_free(tokenizer);
}

Test(detokenizer, gives_in_parts_what_decode_gives_at_once)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    uint64_t state = 1;
    for (int round = 0; round < 400; round++) {
        int32_t ids[24];
        size_t n = (size_t)round % 24 + 1, n_all = 0, n_whole, n_part;
        for (size_t i = 0; i < n; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            uint32_t r = (uint32_t)(state >> 33);
            ids[i] = (int32_t)(r % 3 ? 238 + r / 3 % 256 : r / 3 % 1088);
        }
        char all[2048], *whole;
        const char *part;
        pl_error err;
        pl_detokenizer d;
        pl_detokenizer_init(&d, tokenizer, round % 2);
        for (size_t i = 0; i <= n; i++) {
            cr_assert_eq(i < n ? pl_detokenizer_push(&d, ids[i], &part, &n_part, &err)
                               : pl_detokenizer_finish(&d, &part, &n_part, &err),
                         PL_OK);
            cr_assert(pl_utf8_valid(part, n_part));
            memcpy(all + n_all, part, n_part);
            n_all += n_part;
        }
        cr_assert_eq(pl_tokenizer_decode(tokenizer, ids, n, round % 2, &whole, &n_whole, &err), PL_OK);
        cr_assert(n_all == n_whole && memcmp(all, whole, n_all) == 0, "round %d", round);
        free(whole);
        pl_detokenizer_free(&d);
    }
    pl_tokenizer_free(tokenizer);
}

Test(detokenizer, refuses_ids_out_of_range_and_goes_on)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    pl_detokenizer d;
    pl_error err;
    const char *text;
    size_t n;
    pl_detokenizer_init(&d, tokenizer, false);
    expect_push(&d, BYTE(41), "");
    cr_expect_eq(pl_detokenizer_push(&d, 1088, &text, &n, &err), PL_ERR_ARGUMENT);
    cr_expect_eq(pl_detokenizer_push(&d, -1, &text, &n, &err), PL_ERR_ARGUMENT);
    cr_expect_str_eq(err.message, "-1 is no token id; they end at 1087");
    expect_finish(&d, "A");
    pl_detokenizer_free(&d);
    pl_tokenizer_free(tokenizer);
}

static pl_status stream(void *ctx, pl_error *err)
{
    pl_status status = PL_OK;
    const char *text;
    size_t n;
    pl_detokenizer d;
    pl_detokenizer_init(&d, ctx, false);
    for (int i = 0; i < 200; i++)
        PL_TRY_GOTO(pl_detokenizer_push(&d, BYTE(41), &text, &n, err));
    PL_TRY_GOTO(pl_detokenizer_push(&d, 2, &text, &n, err));
    PL_TRY_GOTO(pl_detokenizer_push(&d, BYTE(FF), &text, &n, err));
    PL_TRY_GOTO(pl_detokenizer_finish(&d, &text, &n, err));
fail:
    pl_detokenizer_free(&d);
    return status;
}

Test(detokenizer, survives_every_failed_allocation)
{
    pl_tokenizer *tokenizer = fixture_tokenizer();
    cr_expect_geq(fail_alloc_each(stream, tokenizer), 3);
    pl_tokenizer_free(tokenizer);
}
