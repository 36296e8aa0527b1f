#define _GNU_SOURCE
/* Any bytes as text, and as ids, for the small model's tokenizer: the ids are those of plain BPE over everything
 * between added tokens, UTF-8 comes back unchanged, and text in parts equals text at once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/text/detokenizer.h"
#include "host/text/tokenizer_parts.h"
#include "host/text/utf8.h"

#define MAX_TEXT 1500 /* the plain way takes quadratic time */

static pl_tokenizer *tokenizer;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    pl_error err;
    if (pl_tokenizer_from_json(PL_TEST_DATA "/golden/text/e4b/tokenizer.json", NULL, &tokenizer, &err) != PL_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    return 0;
}

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* All of text[0..n) as one word. */
static void plain_bpe(const char *text, size_t n, pl_ids *out)
{
    const pl_token_tables *t = &tokenizer->tables;
    static uint32_t id[3 * MAX_TEXT];
    size_t k = 0;
    for (size_t at = 0; at < n;) {
        uint32_t code = 0;
        size_t length = pl_utf8_next(text + at, n - at, &code);
        uint32_t whole = length ? pl_char_id(t, code == ' ' ? 0x2581 : code) : PL_NO_ID;
        if (length == 0)
            length = 1;
        for (size_t i = 0; whole == PL_NO_ID && i < length; i++)
            id[k++] = t->head->byte_id[(unsigned char)text[at + i]];
        if (whole != PL_NO_ID)
            id[k++] = whole;
        at += length;
    }
    for (;;) {
        uint32_t best = PL_NO_RANK;
        size_t place = 0;
        for (size_t i = 0; i + 1 < k; i++) {
            uint32_t rank = pl_pair_rank(t, id[i], id[i + 1]);
            if (rank < best) {
                best = rank;
                place = i;
            }
        }
        if (best == PL_NO_RANK)
            break;
        id[place] = t->result[best];
        k--;
        memmove(id + place + 1, id + place + 2, (k - place - 1) * sizeof *id);
    }
    for (size_t i = 0; i < k; i++)
        require(pl_ids_push(out, (int32_t)id[i], NULL) == PL_OK);
}

static void plain_encode(const char *text, size_t n, pl_ids *out)
{
    size_t start = 0;
    for (size_t at = 0; at < n;) {
        uint32_t id;
        size_t length = pl_added_match(&tokenizer->tables, text + at, n - at, &id);
        if (length) {
            plain_bpe(text + start, at - start, out);
            require(pl_ids_push(out, (int32_t)id, NULL) == PL_OK);
            start = at + length;
        }
        at += length ? length : 1;
    }
    plain_bpe(text + start, n - start, out);
}

static void check_decode(const int32_t *ids, size_t n, bool skip_special)
{
    char *whole;
    const char *part;
    size_t n_whole, n_part, at = 0;
    pl_detokenizer d;
    require(pl_tokenizer_decode(tokenizer, ids, n, skip_special, &whole, &n_whole, NULL) == PL_OK);
    require(pl_utf8_valid(whole, n_whole));
    pl_detokenizer_init(&d, tokenizer, skip_special);
    for (size_t i = 0; i <= n; i++) {
        require((i < n ? pl_detokenizer_push(&d, ids[i], &part, &n_part, NULL)
                       : pl_detokenizer_finish(&d, &part, &n_part, NULL)) == PL_OK);
        require(pl_utf8_valid(part, n_part));
        require(n_part <= n_whole - at && memcmp(whole + at, part, n_part) == 0);
        at += n_part;
    }
    require(at == n_whole);
    pl_detokenizer_free(&d);
    free(whole);
}

static void check_text(const char *text, size_t n)
{
    pl_ids ids = {0}, plain = {0};
    char *back;
    size_t n_back;
    require(pl_tokenizer_encode(tokenizer, text, n, true, &ids, NULL) == PL_OK);
    plain_encode(text, n, &plain);
    require(ids.n == plain.n && (ids.n == 0 || memcmp(ids.v, plain.v, ids.n * sizeof *ids.v) == 0));
    check_decode(ids.v, ids.n, false);
    require(pl_tokenizer_decode(tokenizer, ids.v, ids.n, false, &back, &n_back, NULL) == PL_OK);
    if (pl_utf8_valid(text, n) && !memmem(text, n, "\xe2\x96\x81", 3))
        require(n == n_back && memcmp(back, text, n) == 0);
    free(back);
    pl_ids_free(&ids);
    require(pl_tokenizer_encode(tokenizer, text, n, false, &ids, NULL) == PL_OK);
    for (size_t i = 0; i < ids.n; i++)
        require(!pl_tokenizer_is_special(tokenizer, ids.v[i]));
    pl_ids_free(&ids);
    pl_ids_free(&plain);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > MAX_TEXT)
        size = MAX_TEXT;
    check_text((const char *)data, size);
    int32_t ids[MAX_TEXT / 2];
    for (size_t i = 0; i < size / 2; i++)
        ids[i] = (data[2 * i] << 8 | data[2 * i + 1]) % pl_tokenizer_size(tokenizer);
    check_decode(ids, size / 2, false);
    check_decode(ids, size / 2, true);
    return 0;
}
