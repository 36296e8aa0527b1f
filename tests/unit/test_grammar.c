/* Masks against a plain recogniser, for made grammars and vocabularies, and against single pieces on a real one. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/rng.h"
#include "host/grammar/gbnf.h"
#include "host/grammar/masks.h"
#include "host/text/detokenizer.h"
#include "host/text/token_source.h"
#include "tests/unit/earley.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/grammar_fixture.h"

static size_t below(pl_rng *rng, size_t n)
{
    return (size_t)(pl_rng_next(rng) % n);
}

/* ---- a made vocabulary ---- */

#define VOCAB 420
#define FIRST_BYTE 4
#define EOS 1

/* <pad> <eos> <bos> <unk>, the 256 bytes, and random pieces. */
static pl_tokenizer *make_tokenizer(pl_rng *rng)
{
    static const char *const parts[] = {"a", "b", "c", "\"", "\\", ",", "\xe2\x96\x81", "\xc3\xa9", "\xe6\x97\xa5",
                                        "\n"};
    static const char *const control[] = {"<pad>", "<eos>", "<bos>", "<unk>"};
    static char text[VOCAB * 80];
    static uint64_t offset[VOCAB + 1];
    static float score[VOCAB];
    static int32_t kind[VOCAB];
    size_t n = 0;
    for (int32_t id = 0; id < VOCAB; id++) {
        offset[id] = n;
        score[id] = (float)-id;
        kind[id] = id < FIRST_BYTE ? (id == 3 ? 2 : 3) : id < FIRST_BYTE + 256 ? 6 : 1;
        if (id < FIRST_BYTE)
            n += (size_t)sprintf(text + n, "%s", control[id]);
        else if (id < FIRST_BYTE + 256)
            n += (size_t)sprintf(text + n, "<0x%02X>", (unsigned)(id - FIRST_BYTE));
        else
            for (size_t more = 1 + below(rng, below(rng, 8) ? 5 : 40); more > 0; more--)
                n += (size_t)sprintf(text + n, "%s", parts[below(rng, below(rng, 3) ? 3 : 10)]);
        for (int32_t other = 0; other < id; other++) /* no piece twice */
            if (offset[other + 1] - offset[other] == n - offset[id] &&
                memcmp(text + offset[other], text + offset[id], n - offset[id]) == 0) {
                n = offset[id];
                n += (size_t)sprintf(text + n, "~%d", id);
            }
        offset[id + 1] = n;
    }
    pl_tokenizer *tokenizer = NULL;
    pl_error err = {0};
    pl_vocabulary vocabulary = {VOCAB, text, offset, score, kind};
    cr_assert_eq(pl_tokenizer_from_vocabulary(&vocabulary, "made", NULL, &tokenizer, &err), PL_OK, "%s", err.message);
    return tokenizer;
}

/* ---- made grammars, for both ---- */

static void add_chars(pl_rng *rng, pl_rules *rules, earley *e)
{
    static const pl_code_range plain_out[] = {{0, 0x1f}, {'"', '"'}, {'\\', '\\'}, {0x7f, 0x7f}};
    static const pl_code_range few[] = {{'a', 'b'}, {0xe9, 0xe9}};
    if (below(rng, 3)) {
        pl_rules_chars(rules, plain_out, 4, true);
        earley_chars(e, plain_out, 4, true);
    } else {
        bool negated = below(rng, 2);
        pl_rules_chars(rules, few, 2, negated);
        earley_chars(e, few, 2, negated);
    }
}

static void add_item(pl_rng *rng, pl_rules *rules, int32_t n_rules, earley *e)
{
    static const char *const literals[] = {"a", "b", "ab", "\"", ",", "c", " ", "\xc3\xa9", "\\"};
    int32_t rule = (int32_t)below(rng, (size_t)n_rules);
    size_t kind = below(rng, 10);
    if (kind < 5) {
        const char *literal = literals[below(rng, 9)];
        pl_rules_literal(rules, literal, strlen(literal));
        earley_literal(e, literal);
    } else if (kind < 6) {
        add_chars(rng, rules, e);
    } else if (kind < 8) {
        pl_rules_refer(rules, rule);
        earley_rule(e, rule);
    } else {
        int32_t min = (int32_t)below(rng, 3), max = below(rng, 2) ? PL_RULES_ANY : min + (int32_t)below(rng, 3);
        if (max > 0 && below(rng, 4) == 0)
            max += 35;
        pl_rules_repeat(rules, rule, min, max);
        earley_repeat(e, rule, min, max);
    }
}

/* Rule 0 is the root; the last is a character, so that repetitions of characters are frequent. */
static void make_rules(pl_rng *rng, pl_rules *rules, earley *e)
{
    int32_t n_rules = 2 + (int32_t)below(rng, 4);
    earley_begin(e, n_rules);
    for (int32_t r = 0; r < n_rules; r++)
        pl_rules_new(rules);
    for (int32_t r = 0; r < n_rules; r++)
        for (size_t a = 1 + below(rng, 3); a > 0; a--) {
            pl_rules_alternative(rules, r);
            earley_alternative(e, r);
            if (r == n_rules - 1)
                add_chars(rng, rules, e);
            else
                for (size_t i = below(rng, 5); i > 0; i--)
                    add_item(rng, rules, n_rules, e);
        }
    earley_end(e);
}

/* ---- one against the other ---- */

static void compare(const pl_tokenizer *tokenizer, earley *e, const uint32_t *mask, size_t n_text, int round)
{
    for (int32_t id = 0; id < VOCAB; id++) {
        char text[PL_MAX_PIECE_BYTES];
        size_t n = pl_tokenizer_is_special(tokenizer, id) ? 0 : pl_piece_bytes(tokenizer, id, text);
        bool expected = n > 0 && earley_continues(e, text, n);
        cr_assert_eq(fixture_allows(mask, id), expected, "round %d: piece %d (%.*s) after %zu bytes: %d, expected %d",
                     round, id, (int)n, text, n_text, fixture_allows(mask, id), expected);
    }
}

static bool pick(pl_rng *rng, const uint32_t *mask, int32_t *id)
{
    int32_t first = below(rng, 3) ? FIRST_BYTE + 256 : FIRST_BYTE;
    for (int32_t start = (int32_t)below(rng, VOCAB), i = 0; i < 2 * VOCAB; i++) {
        *id = (start + i) % VOCAB;
        if ((*id >= first || i >= VOCAB) && fixture_allows(mask, *id))
            return true;
    }
    return false;
}

/* Grammars that are too ambiguous are told so. */
static bool too_ambiguous(pl_status status, const pl_error *err)
{
    return status == PL_ERR_UNSUPPORTED && strstr(err->message, "too many");
}

/* False: the grammar was refused. */
static bool follow(pl_rng *rng, const pl_tokenizer *tokenizer, pl_masks *masks, earley *e, int round)
{
    uint32_t mask[(VOCAB + 31) / 32], state = PL_STATE_START, *held[] = {&state};
    size_t n_text = 0;
    int32_t id;
    pl_error err = {0};
    for (int step = 0; step < 8 && n_text < 50; step++) {
        cr_assert_eq(pl_masks_trim(masks, held, 1, &err), PL_OK, "%s", err.message);
        pl_status status = pl_masks_find(masks, state, mask, &err);
        if (too_ambiguous(status, &err))
            return false;
        cr_assert_eq(status, PL_OK, "%s", err.message);
        cr_assert_eq(pl_matcher_ends(pl_masks_matcher(masks), state), earley_complete(e), "round %d", round);
        compare(tokenizer, e, mask, n_text, round);
        if (!pick(rng, mask, &id))
            return true;
        char text[PL_MAX_PIECE_BYTES];
        size_t n = pl_piece_bytes(tokenizer, id, text);
        for (size_t i = 0; i < n; i++) {
            state = pl_matcher_step(pl_masks_matcher(masks), state, (uint8_t)text[i]);
            if (state == PL_STATE_FAILED)
                return false;
        }
        cr_assert_neq(state, PL_STATE_DEAD);
        earley_take(e, text, n);
        n_text += n;
    }
    return true;
}

Test(grammar, masks_equal_a_plain_recogniser)
{
    pl_rng rng;
    pl_rng_seed(&rng, 7);
    earley *e = earley_create();
    int compared = 0, refused = 0, ambiguous = 0;
    for (int round = 0; round < 150; round++) {
        pl_error err = {0};
        pl_rules *rules = NULL;
        pl_piece_tree *tree = NULL;
        pl_masks *masks = NULL;
        pl_tokenizer *tokenizer = make_tokenizer(&rng);
        cr_assert_eq(pl_piece_tree_create(tokenizer, VOCAB, (int32_t[]){EOS}, 1, &tree, &err), PL_OK);
        cr_assert_eq(pl_rules_create(&rules, &err), PL_OK);
        make_rules(&rng, rules, e);
        pl_status status = pl_rules_finish(rules, 0, NULL, NULL, &err);
        if (status != PL_ERR_UNSUPPORTED)
            cr_assert_eq(status == PL_OK, earley_productive(e), "round %d: %s", round, err.message);
        if (status == PL_OK) {
            status = pl_masks_create(rules, tree, round % 2 ? 1 << 20 : 2000, &masks, &err);
            cr_assert_eq(status, PL_OK, "%s", err.message);
            for (int text = 0; text < 2; text++) {
                earley_start(e);
                ambiguous += !follow(&rng, tokenizer, masks, e, round);
            }
            compared++;
        } else {
            refused += status == PL_ERR_UNSUPPORTED;
            pl_rules_free(rules);
        }
        pl_masks_free(masks);
        pl_piece_tree_free(tree);
        pl_tokenizer_free(tokenizer);
    }
    earley_free(e);
    cr_assert(compared > 60 && refused > 10 && ambiguous < compared / 4, "%d compared, %d left recursive, %d ambiguous",
              compared, refused, ambiguous);
}

/* ---- a real vocabulary ---- */

static void read_piece(pl_matcher *matcher, const pl_model *model, const char *text, size_t n_text, int32_t id,
                       const uint32_t *mask)
{
    char all[4096];
    size_t n = pl_piece_bytes(model->tokenizer, id, all + n_text), allowed;
    bool ends;
    memcpy(all, text, n_text);
    cr_assert_eq(pl_matcher_read(matcher, all, n_text + n, &allowed, &ends, NULL), PL_OK);
    if (pl_tokenizer_is_special(model->tokenizer, id)) {
        pl_matcher_read(matcher, all, n_text, &allowed, &ends, NULL);
        cr_assert_eq(fixture_allows(mask, id), ends && id == model->pieces->eos[0], "token %d", id);
    } else {
        cr_assert_eq(fixture_allows(mask, id), n > 0 && allowed == n_text + n,
                     "after \"%.*s\": piece %d, %zu bytes, %zu of %zu allowed", (int)n_text, text, id, n, allowed,
                     n_text + n);
    }
}

static void compare_with_pieces(const pl_model *model, const char *source)
{
    pl_grammar *grammar = fixture_grammar(model, source);
    pl_rules *rules = NULL;
    pl_matcher *matcher = NULL;
    pl_rng rng;
    pl_rng_seed(&rng, 3);
    cr_assert_eq(pl_gbnf_compile(source, strlen(source), &rules, NULL), PL_OK);
    cr_assert_eq(pl_matcher_create(rules, 0, 1 << 26, &matcher, NULL), PL_OK);
    for (int text = 0; text < 3; text++) {
        char out[2048];
        size_t n = 0;
        pl_grammar_place *place = NULL;
        cr_assert_eq(pl_grammar_begin(grammar, &place, NULL), PL_OK);
        for (int step = 0; step < 25; step++) {
            const uint32_t *mask = NULL;
            cr_assert_eq(pl_grammar_mask(place, &mask, NULL), PL_OK);
            for (int32_t id = 0; id < pl_model_vocab_size(model); id++)
                read_piece(matcher, model, out, n, id, mask);
            int32_t id = fixture_choose(model, &rng, mask);
            cr_assert_eq(pl_grammar_accept(place, id, NULL), PL_OK);
            if (pl_tokenizer_is_special(model->tokenizer, id))
                break;
            n += pl_piece_bytes(model->tokenizer, id, out + n);
        }
        pl_grammar_place_free(place);
    }
    pl_matcher_free(matcher);
    pl_grammar_free(grammar);
}

Test(grammar, masks_of_a_real_vocabulary)
{
    static const char *const sources[] = {
        fixture_json_grammar,
        "root ::= \"[\" word (\",\" word)* \"]\"\nword ::= \"\\\"\" [a-zA-Z0-9_-]{2,9} \"\\\"\"",
        "root ::= word (\" \" word){2,30} [.!]?\nword ::= [a-zA-Z0-9_]+",
        "root ::= (name \"=\" [^;]* \";\"){1,3}\nname ::= [a-z.-]+ [0-9]{0,3} | \"\\\"\" .{4,11} \"\\\"\"",
        "root ::= (any \"x\"){2}\nany ::= [^\\x00-\\x08]* \"y\"?",
        "root ::= [^<]* (\"<call>\" [^<]+ \"</call>\")?",
    };
    pl_model *model = fixture_model();
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        compare_with_pieces(model, sources[i]);
    pl_model_close(model);
}

Test(grammar, tokens_that_are_not_allowed)
{
    pl_model *model = fixture_model();
    pl_grammar *grammar = fixture_grammar(model, "root ::= \"ab\" \"c\"?");
    pl_grammar_place *place = NULL;
    const uint32_t *mask = NULL;
    pl_error err = {0};
    int32_t a = pl_tokenizer_id(model->tokenizer, "a", 1), b = pl_tokenizer_id(model->tokenizer, "b", 1);
    int32_t c = pl_tokenizer_id(model->tokenizer, "c", 1), eos = model->pieces->eos[0];
    cr_assert_eq(pl_grammar_begin(grammar, &place, &err), PL_OK);
    cr_assert_eq(pl_grammar_accept(place, a, &err), PL_ERR_ARGUMENT, "before the first mask");
    cr_assert_eq(pl_grammar_mask(place, &mask, &err), PL_OK);
    cr_assert(fixture_allows(mask, a) && !fixture_allows(mask, b) && !fixture_allows(mask, eos));
    cr_assert_eq(pl_grammar_accept(place, b, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_grammar_accept(place, -1, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_grammar_accept(place, 1 << 30, &err), PL_ERR_ARGUMENT);
    cr_assert_eq(pl_grammar_accept(place, a, &err), PL_OK);
    cr_assert_eq(pl_grammar_mask(place, &mask, &err), PL_OK);
    cr_assert_eq(pl_grammar_accept(place, b, &err), PL_OK);
    cr_assert_eq(pl_grammar_mask(place, &mask, &err), PL_OK);
    cr_assert(fixture_allows(mask, c) && fixture_allows(mask, eos));
    cr_assert_eq(pl_grammar_accept(place, eos, &err), PL_OK);
    cr_assert_eq(pl_grammar_mask(place, &mask, &err), PL_OK);
    cr_assert(fixture_allows(mask, eos) && !fixture_allows(mask, c));
    pl_grammar_place_free(place);
    pl_grammar_free(grammar);
    pl_model_close(model);
}

Test(grammar, a_vocabulary_that_cannot_go_on)
{
    pl_model *model = fixture_model();
    pl_piece_tree_free(model->pieces);
    model->pieces = NULL; /* without the bytes: the first ids of the vocabulary are special */
    cr_assert_eq(pl_piece_tree_create(model->tokenizer, 4, NULL, 0, &model->pieces, NULL), PL_OK);
    pl_grammar *grammar = fixture_grammar(model, "root ::= \"ab\"");
    pl_grammar_place *place = NULL;
    const uint32_t *mask = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_grammar_begin(grammar, &place, &err), PL_OK);
    cr_assert_eq(pl_grammar_mask(place, &mask, &err), PL_ERR_ARGUMENT);
    cr_assert_str_eq(err.message, "no token goes on behind \"\" as the grammar says");
    pl_grammar_place_free(place);
    pl_grammar_free(grammar);
    pl_model_close(model);
}

/* ---- no memory ---- */

static pl_status answer(void *ctx, pl_error *err)
{
    pl_model *model = ctx;
    pl_rules *rules = NULL;
    pl_piece_tree *tree = NULL;
    pl_grammar *grammar = NULL;
    pl_grammar_place *place = NULL;
    const uint32_t *mask = NULL;
    pl_status status = pl_piece_tree_create(model->tokenizer, 600, (int32_t[]){1}, 1, &tree, err);
    if (status == PL_OK)
        status = pl_gbnf_compile(fixture_json_grammar, strlen(fixture_json_grammar), &rules, err);
    if (status == PL_OK)
        status = pl_grammar_create(rules, tree, &grammar, err);
    if (status == PL_OK)
        status = pl_grammar_begin(grammar, &place, err);
    for (const char *c = "{\"a"; status == PL_OK && *c; c++) {
        status = pl_grammar_mask(place, &mask, err);
        if (status == PL_OK) {
            char byte[8];
            snprintf(byte, sizeof byte, "<0x%02X>", (unsigned)*c);
            status = pl_grammar_accept(place, pl_tokenizer_id(model->tokenizer, byte, 6), err);
        }
    }
    pl_grammar_place_free(place);
    pl_grammar_free(grammar);
    pl_piece_tree_free(tree);
    return status;
}

Test(grammar, no_memory)
{
    pl_model *model = fixture_model();
    cr_assert_gt(fail_alloc_each(answer, model), 50);
    pl_model_close(model);
}
