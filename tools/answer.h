/* One answer: generated, streamed, and kept for what comes after. */
#ifndef PL_TOOLS_ANSWER_H
#define PL_TOOLS_ANSWER_H

#include "host/base/options.h"
#include "host/base/strbuf.h"
#include "tools/opened.h"

typedef struct pl_answer_token {
    int32_t id;
    float logprob;
} pl_answer_token;

typedef struct pl_answer {
    pl_strbuf text;
    pl_answer_token *tokens;
    pl_logprob *top; /* [n_tokens][n_top] */
    size_t n_tokens, n_top, room;
    pl_generated made;
} pl_answer;

void pl_answer_free(pl_answer *answer);

/* Answers the prompt as the options say; with `stream` the text appears on standard output as it comes, and ends
 * with a newline. Ctrl-C stops it: PL_OK with made.finish PL_FINISH_CANCEL. An unwritable standard output is an
 * error. The answer is empty before, and valid whatever is returned. */
pl_status pl_answer_make(const pl_options *options, uint64_t seed, bool stream, const pl_opened *opened,
                         const pl_tokens *prompt, pl_answer *out, pl_error *err);

/* The seed that the options ask for, or one that nobody can guess. */
uint64_t pl_answer_seed(const pl_options *options);

/* The line of speeds on standard error. */
void pl_answer_report(const pl_options *options, const pl_answer *answer, const pl_session *session);

/* Tokens a second; 0 where there were none to measure. */
double pl_answer_prompt_rate(const pl_generated *made);
double pl_answer_rate(const pl_generated *made);

/* One JSON object with all there is to say, on standard output. */
pl_status pl_answer_print_json(const pl_answer *answer, const pl_model *model, const pl_session *session, uint64_t seed,
                               pl_error *err);

#endif
