/* What drafts cost and bring.
 *
 *     bench_draft costs MODEL THREADS [PATH [DRAFT_PATH]]     the time of a step by its rows; what follows for any acceptance
 *     bench_draft gains MODEL THREADS [PATH]     the speed where proposals are right with this chance or that, measured
 *     bench_draft chats MODEL THREADS CHATS.txt [PATH [DRAFT_PATH]]     what is accepted on text, and the speed with it
 *
 * CHATS.txt holds chats in the model's template, each beginning with <bos>: tools/demo_model/heldout.txt. The first answer of
 * each is generated, greedily. */
#include "bench/median.h"
#include "host/base/rng.h"
#include "host/include/pleiad.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8, ROUNDS = 5, STEPS = 5, PROMPT = 48, CHATS = 150, ANSWER = 200, DRAFTED = 3, KNOWN = 64, PAIRS = 3 };

typedef struct opened {
    pl_model *model;
    pl_engine *engine;
    pl_session *session;
} opened;

static void check(pl_status status, const pl_error *err)
{
    if (status == PL_OK)
        return;
    fprintf(stderr, "bench_draft: %s\n", err->message);
    exit(1);
}

static opened open_model(const char *file, int threads)
{
    opened o;
    pl_error err;
    pl_engine_params params = {.backend = PL_BACKEND_CPU, .threads = threads, .context = 1024, .sessions = 1};
    check(pl_model_open(file, &o.model, &err), &err);
    check(pl_engine_create(o.model, &params, &o.engine, &err), &err);
    check(pl_session_create(o.engine, &o.session, &err), &err);
    return o;
}

static void set_path(const opened *o, const char *path)
{
    pl_error err;
    check(pl_session_set_path(o->session, path, PL_SWITCH_EXACT, &err), &err);
}

static pl_generation greedy(int max, bool ends, pl_drafting draft)
{
    pl_generation params = pl_generation_default();
    params.max_tokens = max;
    params.sampling.temperature = 0;
    params.ignore_eos = !ends;
    params.draft = draft;
    return params;
}

static pl_generated generate(const opened *o, const int32_t *ids, size_t n, pl_generation params)
{
    pl_error err;
    pl_generated made;
    check(pl_generate(o->session, ids, n, &params, &made, &err), &err);
    return made;
}

static void make_prompt(int32_t ids[PROMPT])
{
    for (int i = 0; i < PROMPT; i++)
        ids[i] = 100 + i * 17 % 900;
}

/* Each step gives a token beside the proposals that were accepted. */
static double tokens_a_step(size_t tokens, const pl_draft_counts *drafts)
{
    uint64_t accepted = 0;
    for (int i = 0; i < PL_DRAFT_SOURCES; i++)
        accepted += drafts->accepted[i];
    return (double)tokens / (double)(tokens - accepted);
}

/* ---- costs -------------------------------------------------------------------------------------- */

/* As good as never the most likely token of random weights. */
static int32_t propose_nonsense(void *user, const int32_t *tokens, size_t n, int32_t most, int32_t *out)
{
    (void)user;
    (void)tokens;
    for (int32_t i = 0; i < most; i++)
        out[i] = 9 + (int32_t)(n % 5) + i;
    return most;
}

static double seconds_of(const opened *o, pl_drafting draft)
{
    int32_t ids[PROMPT];
    make_prompt(ids);
    pl_generated made = generate(o, ids, PROMPT, greedy(STEPS + 1, false, draft));
    return made.generate_s * tokens_a_step(made.n_tokens - 1, &made.drafts) / (double)(made.n_tokens - 1);
}

static double step_seconds(const opened *o, int rows)
{
    return seconds_of(o, (pl_drafting){.most = rows - 1, .propose = propose_nonsense});
}

/* Of one proposal: what steps take longer that verify DRAFTED of the path's than those that verify as many of others. */
static double draft_seconds(const opened *o, const char *draft_path, double verifying_s)
{
    return (seconds_of(o, (pl_drafting){.most = DRAFTED, .path = draft_path}) - verifying_s) / DRAFTED;
}

/* Tokens that k proposals yield, each accepted by this chance where those before it were. */
static double tokens_of(double chance, int k)
{
    double tokens = 1;
    for (int i = 1; i <= k; i++)
        tokens += pow(chance, i);
    return tokens;
}

static void print_gain(const double *seconds, double draft_s, double chance)
{
    int best = 0;
    double gain = 1;
    for (int k = 1; k <= MOST; k++) {
        double g = tokens_of(chance, k) * seconds[1] / (seconds[1 + k] + k * draft_s);
        if (g > gain) {
            gain = g;
            best = k;
        }
    }
    printf("  %4.2f (%d)", gain, best);
}

static void print_gains(const double *seconds, double draft_s, const char *draft_path)
{
    static const double chance[] = {0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1};
    enum { CHANCES = sizeof chance / sizeof *chance };
    printf("times faster, and by how many proposals, where each is accepted with a chance of\n        ");
    for (int i = 0; i < CHANCES; i++)
        printf("  %8.2f", chance[i]);
    printf("\nfree    ");
    for (int i = 0; i < CHANCES; i++)
        print_gain(seconds, 0, chance[i]);
    printf("\n%-8.8s", draft_path ? draft_path : "");
    for (int i = 0; draft_path && i < CHANCES; i++)
        print_gain(seconds, draft_s, chance[i]);
    printf("\n");
}

static int costs(const opened *o, const char *path, const char *draft_path)
{
    double times[MOST + 2][ROUNDS], median[MOST + 2] = {0}, drafting[ROUNDS], draft_s = 0;
    step_seconds(o, 1);
    for (int r = 0; r < ROUNDS; r++) {
        set_path(o, path);
        for (int rows = 1; rows <= MOST + 1; rows++)
            times[rows][r] = step_seconds(o, rows);
        if (draft_path)
            drafting[r] = draft_seconds(o, draft_path, times[1 + DRAFTED][r]);
    }
    printf("rows      ms  of one\n");
    for (int rows = 1; rows <= MOST + 1; rows++) {
        median[rows] = pl_median(times[rows], ROUNDS);
        printf("%4d  %6.2f   %5.3f\n", rows, 1e3 * median[rows], median[rows] / median[1]);
    }
    if (draft_path) {
        draft_s = pl_median(drafting, ROUNDS);
        printf("a proposal by %s: %.2f ms, %.3f\n", draft_path, 1e3 * draft_s, draft_s / median[1]);
    }
    print_gains(median, draft_s, draft_path);
    return 0;
}

/* ---- gains -------------------------------------------------------------------------------------- */

/* An answer that is known, and proposed: each token is right with this chance. */
typedef struct known {
    int32_t ids[PROMPT + KNOWN];
    size_t n; /* prompt, and answer as far as it was heard */
    bool differs;
    double chance;
    pl_rng rng;
} known;

static bool hear_first(void *user, const pl_token_event *event)
{
    known *k = user;
    if (event->id >= 0 && k->n < PROMPT + KNOWN)
        k->ids[k->n++] = event->id;
    return true;
}

static bool hear_again(void *user, const pl_token_event *event)
{
    known *k = user;
    k->differs = k->differs || (event->id >= 0 && event->id != k->ids[k->n++]);
    return true;
}

static int32_t propose_known(void *user, const int32_t *tokens, size_t n, int32_t most, int32_t *out)
{
    known *k = user;
    int32_t i = 0;
    (void)tokens;
    for (; i < most && n + (size_t)i < PROMPT + KNOWN; i++)
        out[i] = k->ids[n + (size_t)i] ^ (pl_rng_uniform(&k->rng) >= k->chance);
    return i;
}

static pl_generated answer_known(const opened *o, known *k, pl_token_fn hear, pl_drafting draft)
{
    pl_generation params = greedy(KNOWN, false, draft);
    params.on_token = hear;
    params.user = k;
    k->n = PROMPT;
    pl_generated made = generate(o, k->ids, PROMPT, params);
    if (k->differs) {
        fprintf(stderr, "bench_draft: an answer with drafts differs\n");
        exit(1);
    }
    return made;
}

static double speed_of(const pl_generated *made)
{
    return (double)(made->n_tokens - 1) / made->generate_s;
}

/* Behind an answer that is not counted: what pays is learned. */
static void print_measured(const opened *o, known *k)
{
    const pl_drafting draft = {.most = -1, .propose = propose_known, .user = k};
    double plain[PAIRS], faster[PAIRS], a_step[PAIRS];
    answer_known(o, k, hear_again, draft);
    for (int r = 0; r < PAIRS; r++) {
        pl_generated made = answer_known(o, k, hear_again, (pl_drafting){0});
        plain[r] = speed_of(&made);
        made = answer_known(o, k, hear_again, draft);
        faster[r] = speed_of(&made) / plain[r];
        a_step[r] = tokens_a_step(made.n_tokens, &made.drafts);
    }
    printf("%6.2f  %11.2f  %6.2f  %6.2f\n", k->chance, pl_median(a_step, PAIRS), pl_median(plain, PAIRS),
           pl_median(faster, PAIRS));
}

static void renew_session(opened *o, const char *path)
{
    pl_error err;
    pl_session_free(o->session);
    o->session = NULL;
    check(pl_session_create(o->engine, &o->session, &err), &err);
    set_path(o, path);
}

static int gains(opened *o, const char *path)
{
    static const double chance[] = {0, 0.5, 0.7, 0.8, 0.9, 1};
    known k = {.chance = 1};
    make_prompt(k.ids);
    pl_rng_seed(&k.rng, 1);
    set_path(o, path);
    answer_known(o, &k, hear_first, (pl_drafting){0});
    printf("chance  tokens/step  plain/s  faster\n");
    for (size_t i = 0; i < sizeof chance / sizeof *chance; i++) {
        k.chance = chance[i];
        renew_session(o, path);
        print_measured(o, &k);
    }
    return 0;
}

/* ---- chats -------------------------------------------------------------------------------------- */

static char *read_file(const char *name)
{
    FILE *f = fopen(name, "rb");
    char *text = NULL;
    if (f && fseek(f, 0, SEEK_END) == 0) {
        long n = ftell(f);
        rewind(f);
        text = n >= 0 ? calloc(1, (size_t)n + 1) : NULL;
        if (text && fread(text, 1, (size_t)n, f) != (size_t)n)
            text[0] = '\0';
    }
    if (f)
        fclose(f);
    if (!text || !text[0]) {
        fprintf(stderr, "bench_draft: cannot read %s\n", name);
        exit(1);
    }
    return text;
}

static size_t read_chats(const opened *o, const char *text, pl_tokens *out)
{
    static const char begin[] = "<bos>", turn[] = "<start_of_turn>model\n";
    size_t n = 0;
    pl_error err;
    for (const char *at = strstr(text, begin); at && n < CHATS; at = strstr(at + 1, begin)) {
        const char *end = strstr(at, turn);
        if (end)
            check(pl_tokenize(o->model, at, (size_t)(end - at) + sizeof turn - 1, 0, &out[n++], &err), &err);
    }
    return n;
}

typedef struct total {
    double seconds;
    size_t tokens;
    pl_draft_counts drafts;
} total;

static void answer_all(const opened *o, const pl_tokens *chats, size_t n, pl_drafting draft, total *sum)
{
    for (size_t i = 0; i < n; i++) {
        pl_generated made = generate(o, chats[i].ids, chats[i].n, greedy(ANSWER, true, draft));
        sum->seconds += made.generate_s;
        sum->tokens += made.n_tokens;
        for (int k = 0; k < PL_DRAFT_SOURCES; k++) {
            sum->drafts.drafted[k] += made.drafts.drafted[k];
            sum->drafts.accepted[k] += made.drafts.accepted[k];
        }
    }
}

static void print_total(const char *name, int most, const total *sum, double plain_s)
{
    printf("%-12s %4d  %6.3f  %6.3f", name, most, tokens_a_step(sum->tokens, &sum->drafts), plain_s / sum->seconds);
    for (int k = PL_DRAFT_NGRAM; k < PL_DRAFT_SOURCES; k++)
        printf("  %6llu of %6llu", (unsigned long long)sum->drafts.accepted[k],
               (unsigned long long)sum->drafts.drafted[k]);
    printf("\n");
}

static int chats(const opened *o, const char *file, const char *path, const char *draft_path)
{
    static const int most[] = {-1, 1, 2, 4, 8};
    static pl_tokens chat[CHATS];
    char *text = read_file(file);
    size_t n = read_chats(o, text, chat);
    free(text);
    set_path(o, path);
    printf("%zu chats on %s\ndrafts      most  tokens/step  faster   accepted: ngram            path\n", n, path);
    for (int by_path = 0; by_path <= (draft_path != NULL); by_path++)
        for (size_t i = 0; i < sizeof most / sizeof *most; i++) {
            pl_drafting draft = {.most = most[i], .path = by_path ? draft_path : NULL};
            total plain = {0}, sum = {0};
            answer_all(o, chat, n, (pl_drafting){0}, &plain);
            answer_all(o, chat, n, draft, &sum);
            print_total(by_path ? draft_path : "ngram", most[i], &sum, plain.seconds);
        }
    for (size_t i = 0; i < n; i++)
        pl_tokens_free(&chat[i]);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 3 ? argv[1] : "";
    bool of_chats = argc > 4 && strcmp(what, "chats") == 0, measured = strcmp(what, "gains") == 0;
    if (!of_chats && !measured && strcmp(what, "costs") != 0) {
        fprintf(stderr, "usage: bench_draft costs MODEL THREADS [PATH [DRAFT_PATH]]\n"
                        "       bench_draft gains MODEL THREADS [PATH]\n"
                        "       bench_draft chats MODEL THREADS CHATS.txt [PATH [DRAFT_PATH]]\n");
        return 2;
    }
    int first = of_chats ? 5 : 4;
    const char *path = argc > first ? argv[first] : "e4b", *draft_path = argc > first + 1 ? argv[first + 1] : NULL;
    opened o = open_model(argv[2], (int)strtol(argv[3], NULL, 10));
    int code = of_chats   ? chats(&o, argv[4], path, draft_path)
               : measured ? gains(&o, path)
                          : costs(&o, path, draft_path);
    pl_session_free(o.session);
    pl_engine_free(o.engine);
    pl_model_close(o.model);
    return code;
}
