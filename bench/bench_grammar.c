/* What masks cost.
 *
 *     bench_grammar MODEL [GBNF_FILE ...]
 *
 * Prints CSV. For each grammar: the time to compile it; then mask and accept for each token of made texts, drawn from the
 * masks themselves: `cold` in a grammar just compiled, `warm` the same texts again, `new` others in the same grammar. */
#include "bench/median.h"
#include "host/base/clock.h"
#include "host/base/mapfile.h"
#include "host/base/rng.h"
#include "host/engine/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXTS 20
#define MAX_TOKENS 400

typedef struct times {
    double s[TEXTS * MAX_TOKENS];
    size_t n;
} times;

typedef struct text {
    int32_t id[MAX_TOKENS];
    int n;
} text;

static const char json_gbnf[] =
    "root ::= object\n"
    "value ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n"
    "object ::= \"{\" ws (string \":\" ws value (\",\" ws string \":\" ws value)*)? \"}\" ws\n"
    "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\" ws\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}))* \"\\\"\" ws\n"
    "number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

static const char person_schema[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":\"integer\",\"minimum\":0,"
    "\"maximum\":150},\"email\":{\"type\":\"string\",\"maxLength\":80},\"tags\":{\"type\":\"array\",\"items\":"
    "{\"type\":\"string\"},\"maxItems\":8}},\"required\":[\"name\",\"age\"],\"additionalProperties\":false}";

static const char order_schema[] =
    "{\"type\":\"object\",\"properties\":{\"id\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}-[0-9]{4,8}$\"},"
    "\"status\":{\"enum\":[\"new\",\"paid\",\"packed\",\"sent\",\"returned\"]},\"placed\":{\"type\":\"string\","
    "\"format\":\"date-time\"},\"lines\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":50,\"items\":{\"$ref\":"
    "\"#/$defs/line\"}},\"note\":{\"anyOf\":[{\"type\":\"string\",\"maxLength\":200},{\"type\":\"null\"}]},"
    "\"address\":{\"type\":\"object\",\"properties\":{\"street\":{\"type\":\"string\",\"minLength\":1,\"maxLength\":100},"
    "\"city\":{\"type\":\"string\"},\"zip\":{\"type\":\"string\",\"pattern\":\"^[0-9]{5}$\"},\"country\":{\"enum\":"
    "[\"DE\",\"FR\",\"GB\",\"US\",\"JP\"]}},\"required\":[\"street\",\"city\",\"zip\",\"country\"],"
    "\"additionalProperties\":false}},\"required\":[\"id\",\"status\",\"lines\",\"address\"],\"additionalProperties\":"
    "false,\"$defs\":{\"line\":{\"type\":\"object\",\"properties\":{\"sku\":{\"type\":\"string\"},\"title\":{\"type\":"
    "\"string\",\"maxLength\":60},\"count\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":999},\"price\":{\"type\":"
    "\"number\",\"minimum\":0}},\"required\":[\"sku\",\"count\",\"price\"],\"additionalProperties\":false}}}";

static const char tree_schema[] =
    "{\"$ref\":\"#/$defs/node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"value\":{\"type\":[\"string\","
    "\"number\",\"boolean\",\"null\"]},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/node\"}}},"
    "\"required\":[\"value\"],\"additionalProperties\":false}}}";

static const char date_regex[] = "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01]): \\w+( \\w+){2,30}\\.";

/* ---- texts ---- */

static bool allowed(const uint32_t *mask, int32_t id)
{
    return id >= 0 && mask[id / 32] >> id % 32 & 1;
}

/* Uniform over the mask, but each fourth time something that closes what is open, so that texts end. */
static int32_t draw(const pl_model *model, const uint32_t *mask, pl_rng *rng)
{
    static const char *const closing[] = {"\"", "}", "]", ")", "\n", ".", "\"}", "\","};
    int32_t vocab = pl_model_vocab_size(model);
    if (pl_rng_next(rng) % 4 == 0)
        for (size_t i = 0, first = pl_rng_next(rng); i < 8; i++) {
            const char *piece = closing[(first + i) % 8];
            int32_t id = pl_tokenizer_id(model->tokenizer, piece, strlen(piece));
            if (allowed(mask, id))
                return id;
        }
    uint64_t n = 0, which;
    for (int32_t w = 0; w < (vocab + 31) / 32; w++)
        n += (uint64_t)__builtin_popcount(mask[w]);
    which = pl_rng_next(rng) % (n ? n : 1);
    for (int32_t id = 0;; id++)
        if (allowed(mask, id) && which-- == 0)
            return id;
}

static bool is_end(const pl_model *model, int32_t id)
{
    return pl_tokenizer_is_special(model->tokenizer, id);
}

/* Draws a text, or with made->n goes through that one; the times of mask and accept go to t. */
static pl_status run_text(const pl_model *model, pl_grammar *grammar, text *made, pl_rng *rng, times *t, pl_error *err)
{
    pl_grammar_place *place;
    const uint32_t *mask;
    bool drawn = made->n == 0;
    PL_TRY(pl_grammar_begin(grammar, &place, err));
    pl_status status = PL_OK;
    for (int i = 0; status == PL_OK && (drawn ? i < MAX_TOKENS : i < made->n); i++) {
        double start = pl_clock_seconds();
        status = pl_grammar_mask(place, &mask, err);
        double masked = pl_clock_seconds();
        if (status != PL_OK)
            break;
        if (drawn)
            made->id[made->n++] = draw(model, mask, rng);
        double chosen = pl_clock_seconds();
        status = pl_grammar_accept(place, made->id[i], err);
        t->s[t->n++] = masked - start + pl_clock_seconds() - chosen;
        if (is_end(model, made->id[i]))
            break;
    }
    pl_grammar_place_free(place);
    return status;
}

static void report(const char *name, const char *what, times *t)
{
    double sum = 0;
    double median = pl_median(t->s, t->n);
    for (size_t i = 0; i < t->n; i++)
        sum += t->s[i];
    printf("%s,%s,%zu,%.2f,%.2f,%.2f,%.0f\n", name, what, t->n, 1e6 * median, 1e6 * t->s[t->n * 99 / 100],
           1e6 * t->s[t->n - 1], (double)t->n / sum);
    fflush(stdout);
}

static pl_status run_texts(const char *name, const char *what, const pl_model *model, pl_grammar *grammar, text *texts,
                           pl_rng *rng, pl_error *err)
{
    static times t;
    t.n = 0;
    for (int i = 0; i < TEXTS; i++)
        PL_TRY(run_text(model, grammar, &texts[i], rng, &t, err));
    report(name, what, &t);
    return PL_OK;
}

static pl_status bench(const char *name, const pl_model *model, pl_grammar_kind kind, const char *source, size_t n,
                       pl_error *err)
{
    static text texts[TEXTS], others[TEXTS];
    pl_grammar *grammar;
    pl_rng rng;
    pl_rng_seed(&rng, 1);
    for (int i = 0; i < TEXTS; i++)
        texts[i].n = others[i].n = 0;
    double start = pl_clock_seconds();
    PL_TRY(pl_grammar_compile(model, kind, source, n, &grammar, err));
    printf("%s,compile,1,%.2f,,,\n", name, 1e6 * (pl_clock_seconds() - start));
    pl_status status = run_texts(name, "cold", model, grammar, texts, &rng, err);
    if (status == PL_OK)
        status = run_texts(name, "warm", model, grammar, texts, &rng, err);
    if (status == PL_OK)
        status = run_texts(name, "new", model, grammar, others, &rng, err);
    pl_grammar_free(grammar);
    return status;
}

/* A choice of 5000 words. */
static pl_status bench_words(const pl_model *model, pl_error *err)
{
    static char source[5000 * 24];
    size_t n = (size_t)snprintf(source, sizeof source, "root ::= \"word 0\"");
    for (unsigned i = 1; i < 5000; i++)
        n += (size_t)snprintf(source + n, sizeof source - n, " | \"%x %u\"", i * 2654435761u >> 8, i);
    return bench("5000 words", model, PL_GRAMMAR_GBNF, source, n, err);
}

static pl_status bench_file(const pl_model *model, const char *path, pl_error *err)
{
    pl_mapfile file;
    const char *slash = strrchr(path, '/');
    PL_TRY(pl_mapfile_open(path, &file, err));
    pl_status status = bench(slash ? slash + 1 : path, model, PL_GRAMMAR_GBNF, (const char *)file.data, file.size, err);
    pl_mapfile_close(&file);
    return status;
}

static pl_status bench_all(const pl_model *model, pl_error *err)
{
    static const struct {
        const char *name;
        pl_grammar_kind kind;
        const char *text;
    } set[] = {{"json gbnf", PL_GRAMMAR_GBNF, json_gbnf},         {"json object", PL_GRAMMAR_JSON, ""},
               {"person", PL_GRAMMAR_JSON_SCHEMA, person_schema}, {"order", PL_GRAMMAR_JSON_SCHEMA, order_schema},
               {"tree", PL_GRAMMAR_JSON_SCHEMA, tree_schema},     {"date and words", PL_GRAMMAR_REGEX, date_regex}};
    for (size_t i = 0; i < sizeof set / sizeof *set; i++)
        PL_TRY(bench(set[i].name, model, set[i].kind, set[i].text, strlen(set[i].text), err));
    return bench_words(model, err);
}

int main(int argc, char **argv)
{
    pl_model *model = NULL;
    pl_grammar *first = NULL;
    pl_error err = {0};
    if (argc < 2) {
        fprintf(stderr, "bench_grammar MODEL [GBNF_FILE ...]\n");
        return 1;
    }
    pl_status status = pl_model_open_text(argv[1], &model, &err);
    double start = pl_clock_seconds();
    if (status == PL_OK)
        status = pl_grammar_compile(model, PL_GRAMMAR_GBNF, "root ::= \"a\"", 12, &first, &err);
    printf("grammar,what,tokens,median us,p99 us,max us,tokens/s\nindex of pieces,make,1,%.0f,,,\n",
           1e6 * (pl_clock_seconds() - start));
    for (int i = 2; i < argc && status == PL_OK; i++)
        status = bench_file(model, argv[i], &err);
    if (argc == 2 && status == PL_OK)
        status = bench_all(model, &err);
    if (status != PL_OK)
        fprintf(stderr, "%s\n", err.message);
    pl_grammar_free(first);
    pl_model_close(model);
    return status != PL_OK;
}
