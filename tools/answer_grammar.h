/* What the options say an answer may be. */
#ifndef PL_TOOLS_ANSWER_GRAMMAR_H
#define PL_TOOLS_ANSWER_GRAMMAR_H

#include "host/base/options.h"

/* *out: NULL where they say nothing. PL_ERR_ARGUMENT where they say it twice. */
pl_status pl_answer_grammar(const pl_options *options, const pl_model *model, pl_grammar **out, pl_error *err);

#endif
