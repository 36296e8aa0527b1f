#include "tools/answer_grammar.h"

#include <string.h>

#include "tools/slurp.h"

typedef struct source {
    const char *option, *text, *file;
    pl_grammar_kind kind;
} source;

static pl_status compile(const source *from, const pl_model *model, pl_grammar **out, pl_error *err)
{
    pl_strbuf read = {.data = NULL};
    pl_status status = PL_OK;
    if (from->file)
        status = pl_slurp(from->file, &read, err);
    if (status == PL_OK) {
        const char *text = from->file ? pl_strbuf_string(&read) : from->text;
        status = pl_grammar_compile(model, from->kind, text, from->file ? read.n : strlen(text), out, err);
        if (status != PL_OK)
            status = pl_fail_within(err, status, "%s", from->file ? from->file : from->option);
    }
    pl_strbuf_free(&read);
    return status;
}

pl_status pl_answer_grammar(const pl_options *options, const pl_model *model, pl_grammar **out, pl_error *err)
{
    const source sources[] = {
        {"--grammar", options->grammar, NULL, PL_GRAMMAR_GBNF},
        {"--grammar-file", NULL, options->grammar_file, PL_GRAMMAR_GBNF},
        {"--json-schema", options->json_schema, NULL, PL_GRAMMAR_JSON_SCHEMA},
        {"--json-schema-file", NULL, options->json_schema_file, PL_GRAMMAR_JSON_SCHEMA},
        {"--regex", options->regex, NULL, PL_GRAMMAR_REGEX},
    };
    const source *given = NULL;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        if (!sources[i].text && !sources[i].file)
            continue;
        if (given)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s and %s both say what the answer may be", given->option,
                           sources[i].option);
        given = &sources[i];
    }
    *out = NULL;
    return given ? compile(given, model, out, err) : PL_OK;
}
