/* Grammars over the vocabulary of a model. */
#include "host/engine/model.h"
#include "host/grammar/gbnf.h"
#include "host/grammar/json_schema.h"
#include "host/grammar/regex.h"
#include "host/grammar/tool_rules.h"

/* What ends an answer: as the configuration says, or where only text tools were opened the tokens of that name. */
static int find_eos(const pl_model *model, int32_t eos[PL_MAX_EOS])
{
    int n = 0;
    if (model->checkpoint) {
        const pl_config *config = pl_checkpoint_config(model->checkpoint);
        for (; n < config->n_eos && n < PL_MAX_EOS; n++)
            eos[n] = config->eos[n];
        return n;
    }
    int32_t named[] = {pl_tokenizer_id(model->tokenizer, "<eos>", 5),
                       pl_tokenizer_id(model->tokenizer, "<end_of_turn>", 13)};
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        if (named[i] >= 0)
            eos[n++] = named[i];
    return n;
}

/* The lock is what makes this const in spirit: the index is the model's alone. */
static pl_status find_pieces(const pl_model *model, const pl_piece_tree **out, pl_error *err)
{
    pl_model *changed = (pl_model *)(uintptr_t)model;
    pl_status status = PL_OK;
    pthread_mutex_lock(&changed->lock);
    if (!changed->pieces) {
        int32_t eos[PL_MAX_EOS];
        int n = find_eos(model, eos);
        status = pl_piece_tree_create(model->tokenizer, pl_model_vocab_size(model), eos, n, &changed->pieces, err);
    }
    *out = changed->pieces;
    pthread_mutex_unlock(&changed->lock);
    return status;
}

static pl_status compile(pl_grammar_kind kind, const char *text, size_t n, pl_rules **out, pl_error *err)
{
    switch (kind) {
    case PL_GRAMMAR_JSON: return pl_json_object_compile(out, err);
    case PL_GRAMMAR_JSON_SCHEMA: return pl_json_schema_compile(text, n, out, err);
    case PL_GRAMMAR_REGEX: return pl_regex_compile(text, n, out, err);
    case PL_GRAMMAR_GBNF: return pl_gbnf_compile(text, n, out, err);
    case PL_GRAMMAR_TOOLS: return pl_tool_rules_compile(text, n, out, err);
    }
    return pl_fail(err, PL_ERR_ARGUMENT, "%d is no kind of grammar", (int)kind);
}

pl_status pl_grammar_compile(const pl_model *model, pl_grammar_kind kind, const char *text, size_t n, pl_grammar **out,
                             pl_error *err)
{
    pl_rules *rules = NULL;
    const pl_piece_tree *pieces;
    if (!text && kind != PL_GRAMMAR_JSON)
        return pl_fail(err, PL_ERR_ARGUMENT, "a grammar without text");
    PL_TRY(compile(kind, text, n, &rules, err));
    pl_status status = find_pieces(model, &pieces, err);
    if (status == PL_OK)
        return pl_grammar_create(rules, pieces, out, err);
    pl_rules_free(rules);
    return status;
}
