/* The API keys of `pleiad serve`. */
#ifndef PL_TOOLS_SERVE_KEYS_H
#define PL_TOOLS_SERVE_KEYS_H

#include "host/base/options.h"
#include "host/base/strbuf.h"

typedef struct pl_serve_keys {
    pl_strbuf text;
    const char **items; /* [n] into the text */
    size_t n;
} pl_serve_keys; /* all zero: none */

/* options->api_key_file: a key a line; blanks around it do not count, nor do lines that are empty or begin with #. A file
 * without a key is an error, one that others may read a note on standard error. */
pl_status pl_serve_keys_read(const pl_options *options, pl_serve_keys *out, pl_error *err);
void pl_serve_keys_free(pl_serve_keys *keys);

#endif
