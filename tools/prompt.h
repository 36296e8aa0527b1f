/* Where the prompt of `pleiad run` comes from. */
#ifndef PL_TOOLS_PROMPT_H
#define PL_TOOLS_PROMPT_H

#include "host/base/options.h"
#include "host/base/strbuf.h"

/* --prompt, --file and a piped standard input, those that are there, in this order, a blank line between them.
 * Standard input is read where it is a pipe or a file, no --file is given and there is no chat to be had; one
 * newline at the end of a file or pipe is dropped. *given is false, and out empty, when none of them is there. */
pl_status pl_prompt_read(const pl_options *options, pl_strbuf *out, bool *given, pl_error *err);

#endif
