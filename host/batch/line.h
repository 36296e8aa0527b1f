/* A line of a batch file, as OpenAI has it:
 *
 *     {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}
 *
 * Other members are passed over. What is in the body is the server's business, except that nothing can be streamed. */
#ifndef PL_BATCH_LINE_H
#define PL_BATCH_LINE_H

#include "host/base/status.h"

#include <jansson.h>

#define PL_LINE_ID_BYTES 512 /* most that a custom_id has */

typedef struct pl_batch_line {
    json_t *root;          /* owns the rest */
    const char *custom_id; /* NULL: not known, of a faulty line only */
    const char *url;       /* one of those that are answered; lives for ever */
    json_t *body;          /* an object */
} pl_batch_line;

/* What is wrong with a line, for the "error" of its record. */
typedef struct pl_line_fault {
    const char *code;  /* OpenAI's, lives for ever; so does param */
    const char *param; /* the member that is wrong, or NULL */
    char message[512];
} pl_line_fault;

/* PL_ERR_FORMAT: the line is faulty; *fault says how (err says nothing), and out->custom_id is what it has, where that much can be
 * told. PL_ERR_MEMORY: it could not be looked at. out: pl_batch_line_free() after PL_OK and PL_ERR_FORMAT. */
pl_status pl_batch_line_parse(const char *text, size_t n, pl_batch_line *out, pl_line_fault *fault, pl_error *err);
void pl_batch_line_free(pl_batch_line *line);

/* Never 0. */
uint64_t pl_line_id_hash(const char *custom_id);

#endif
