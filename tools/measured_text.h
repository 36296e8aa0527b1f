/* The text that a command measures with, as its options say. */
#ifndef PL_TOOLS_MEASURED_TEXT_H
#define PL_TOOLS_MEASURED_TEXT_H

#include "host/base/options.h"
#include "host/base/strbuf.h"
#include "host/measure/passages.h"

/* How messages call it. */
const char *pl_measured_text_name(const pl_options *options);

/* The passages of `text`, the content of options->file, in the model's tokens: pl_passages_free(). */
pl_status pl_measured_text_cut(const pl_options *options, const pl_model *model, const pl_strbuf *text,
                               pl_passages *out, pl_error *err);

#endif
