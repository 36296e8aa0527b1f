#include "tools/measured_text.h"

#include <string.h>

#include "tools/slurp.h"

const char *pl_measured_text_name(const pl_options *options)
{
    return strcmp(options->file, "-") == 0 ? "standard input" : options->file;
}

/* llama.cpp drops one newline at the end, too: the same file gives the same tokens. */
pl_status pl_measured_text_cut(const pl_options *options, const pl_model *model, const pl_strbuf *text,
                               pl_passages *out, pl_error *err)
{
    size_t n = text->n - (text->n && text->data[text->n - 1] == '\n');
    return (options->chats ? pl_passages_cut_chats : pl_passages_cut)(model, pl_strbuf_string(text), n,
                                                                      options->n_context, options->chunks,
                                                                      pl_measured_text_name(options), out, err);
}
