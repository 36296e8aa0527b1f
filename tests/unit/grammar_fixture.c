#include "tests/unit/grammar_fixture.h"

#include <criterion/criterion.h>
#include <string.h>

#define DEMO PL_TEST_DATA "/../tools/demo_model/demo.gguf"

const char fixture_json_grammar[] =
    "root ::= object\n"
    "value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
    "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}))* \"\\\"\" ws\n"
    "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

pl_grammar *fixture_grammar(const pl_model *model, const char *gbnf)
{
    pl_grammar *grammar = NULL;
    pl_rules *rules = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_gbnf_compile(gbnf, strlen(gbnf), &rules, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_grammar_create(rules, model->pieces, &grammar, &err), PL_OK, "%s", err.message);
    return grammar;
}

pl_model *fixture_model(void)
{
    pl_model *model = NULL;
    pl_error err = {0};
    cr_assert_eq(pl_model_open_text(DEMO, &model, &err), PL_OK, "%s", err.message);
    const int32_t eos[] = {pl_tokenizer_id(model->tokenizer, "<eos>", 5)};
    cr_assert_eq(pl_piece_tree_create(model->tokenizer, pl_model_vocab_size(model), eos, 1, &model->pieces, &err),
                 PL_OK, "%s", err.message);
    return model;
}

int32_t fixture_choose(const pl_model *model, pl_rng *rng, const uint32_t *mask)
{
    static const char *const closing[] = {"\"", "}", "]"};
    int32_t vocab = pl_model_vocab_size(model),
            id = pl_tokenizer_id(model->tokenizer, closing[pl_rng_next(rng) % 3], 1);
    if (pl_rng_next(rng) % 3 == 0 && fixture_allows(mask, id))
        return id;
    for (id = (int32_t)(pl_rng_next(rng) % (uint64_t)vocab); !fixture_allows(mask, id);)
        id = (id + 1) % vocab;
    return id;
}
