/* A text in passages. */
#include <criterion/criterion.h>
#include <string.h>

#include "host/measure/passages.h"

#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"
#define BOS 2

static pl_model *open_demo(void)
{
    pl_model *model;
    pl_error err;
    cr_assert_eq(pl_model_open_text(DEMO, &model, &err), PL_OK, "%s", err.message);
    return model;
}

static const char text[] = "one two three <start_of_turn> four five six seven eight nine ten eleven twelve";

static pl_passages cut(const pl_model *model, const char *what, int32_t length, int32_t limit)
{
    pl_passages p;
    pl_error err;
    cr_assert_eq(pl_passages_cut(model, what, strlen(what), length, limit, "x", &p, &err), PL_OK, "%s", err.message);
    cr_assert_eq(p.length, length);
    return p;
}

Test(passages, hold_the_text_with_bos_first)
{
    pl_model *model = open_demo();
    pl_tokens tokens;
    cr_assert_eq(pl_tokenize(model, text, strlen(text), PL_TOKENIZE_BOS | PL_TOKENIZE_NO_SPECIAL, &tokens, NULL),
                 PL_OK);
    pl_passages p = cut(model, text, 5, -1);
    cr_assert_eq(p.n, (int32_t)(tokens.n / 5));
    cr_assert_gt(p.n, 2);
    for (int32_t i = 0; i < p.n * 5; i++)
        cr_expect_eq(p.ids[i], i % 5 ? tokens.ids[i] : BOS, "token %d", i);
    pl_passages_free(&p);
    cr_expect_null(p.ids);
    pl_tokens_free(&tokens);
    pl_model_close(model);
}

Test(passages, limit_and_fingerprint)
{
    pl_model *model = open_demo();
    pl_passages all = cut(model, text, 5, -1), two = cut(model, text, 5, 2), same = cut(model, text, 5, all.n + 1);
    pl_passages longer = cut(model, text, 6, -1), other = cut(model, "One two three four five six seven", 5, 2);
    cr_expect_eq(two.n, 2);
    cr_expect_eq(same.n, all.n);
    cr_expect_eq(same.fingerprint, all.fingerprint);
    cr_expect_neq(two.fingerprint, all.fingerprint);
    cr_expect_neq(longer.fingerprint, all.fingerprint);
    cr_expect_neq(other.fingerprint, two.fingerprint);
    pl_passages_free(&all);
    pl_passages_free(&two);
    pl_passages_free(&same);
    pl_passages_free(&longer);
    pl_passages_free(&other);
    pl_model_close(model);
}

static const char chat[] = "<start_of_turn>model\nLost.<end_of_turn>\n<start_of_turn>user\nHow many?<end_of_turn>\n"
                           "<start_of_turn>model\nTwo.<end_of_turn>\n<start_of_turn>user\nWhy?<end_of_turn>\n"
                           "<start_of_turn>model\nWho knows.<end_of_turn>\n";

/* Answers count, with the mark that ends them; one whose question is cut off does not. */
Test(passages, of_chats)
{
    pl_model *model = open_demo();
    pl_passages p, plain;
    pl_error err;
    pl_tokens all;
    cr_assert_eq(pl_tokenize(model, chat, strlen(chat), PL_TOKENIZE_BOS, &all, NULL), PL_OK);
    int32_t length = (int32_t)all.n;
    cr_assert_eq(pl_passages_cut_chats(model, chat, strlen(chat), length, -1, "x", &p, &err), PL_OK, "%s", err.message);
    cr_assert_eq(p.n, 1);
    int32_t counted[64];
    size_t n = 0;
    for (int32_t i = 0; i + 1 < length; i++)
        if (pl_passages_scores(&p, 0, i))
            counted[n++] = p.ids[i + 1];
    cr_expect_eq(pl_passages_scored(&p, 1), (int64_t)n);
    char *text_of;
    size_t bytes;
    cr_assert_eq(pl_detokenize(model, counted, n, false, &text_of, &bytes, &err), PL_OK);
    cr_expect_str_eq(text_of, "Two.<end_of_turn>Who knows.<end_of_turn>");
    cr_assert_eq(pl_passages_cut(model, chat, strlen(chat), length, -1, "x", &plain, &err), PL_OK, "%s", err.message);
    cr_expect_neq(plain.fingerprint, p.fingerprint);
    cr_expect_eq(pl_passages_cut_chats(model, text, strlen(text), 5, -1, "x.txt", &p, &err), PL_ERR_ARGUMENT);
    cr_expect_not_null(strstr(err.message, "x.txt"));
    pl_text_free(text_of);
    pl_tokens_free(&all);
    pl_passages_free(&p);
    pl_passages_free(&plain);
    pl_model_close(model);
}

Test(passages, too_little_text)
{
    pl_model *model = open_demo();
    pl_passages p;
    pl_error err;
    cr_expect_eq(pl_passages_cut(model, "a", 1, 100, -1, "some.txt", &p, &err), PL_ERR_ARGUMENT);
    cr_expect(strstr(err.message, "some.txt: 2 tokens") && strstr(err.message, "100"), "%s", err.message);
    cr_expect_eq(pl_passages_cut(model, "", 0, 2, -1, "some.txt", &p, &err), PL_ERR_ARGUMENT);
    cr_expect_eq(pl_passages_cut(model, text, strlen(text), 2, 0, "some.txt", &p, &err), PL_ERR_ARGUMENT);
    cr_expect_eq(pl_passages_cut(model, text, strlen(text), 0, -1, "some.txt", &p, &err), PL_ERR_ARGUMENT);
    pl_passages_free(NULL);
    pl_model_close(model);
}

Test(passages, what_is_scored)
{
    static const int32_t want[][3] = {{3, 1, 1}, {4, 2, 1}, {5, 2, 2}, {128, 64, 63}, {512, 256, 255}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        cr_expect_eq(pl_passage_first(want[i][0]), want[i][1]);
        cr_expect_eq(pl_passage_scored(want[i][0]), want[i][2]);
    }
}
