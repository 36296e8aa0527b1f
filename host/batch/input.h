/* The lines of a batch file. Empty lines are none; lines may end with CR LF, the last one with nothing; a byte order mark before the
 * first is passed over.
 *
 * The file is read once from beginning to end and of each line only its place is kept: 16 bytes, 60 while it is indexed. It is read,
 * never touched through a mapping: where it has been cut meanwhile that is PL_ERR_IO, not a signal. */
#ifndef PL_BATCH_INPUT_H
#define PL_BATCH_INPUT_H

#include "host/base/threads.h"
#include "host/batch/line.h"

typedef struct pl_input pl_input;

typedef struct pl_input_params {
    const char *path;
    size_t most_bytes;       /* of a line, longer ones are faulty and never in memory; 0: 32 MiB; at most 1 GiB */
    pl_pool *pool;           /* looks at lines side by side; borrowed for the call; NULL: one thread */
    pl_progress_fn progress; /* may be NULL */
    void *progress_user;
} pl_input_params;

/* Indexes the file. Of lines with the same custom_id the first stays, the others are faulty. */
pl_status pl_input_open(const pl_input_params *params, pl_input **out, pl_error *err);
void pl_input_free(pl_input *input);

int64_t pl_input_lines(const pl_input *input);
uint64_t pl_input_fingerprint(const pl_input *input); /* of all bytes of the file */

/* Lines that can be answered, in the order in which they should be (order.h). Once; *order: free(). */
pl_status pl_input_order(pl_input *input, uint32_t **order, size_t *n, pl_error *err);

/* The rest is of one line, counted from 0, and may be called by any thread. */
bool pl_input_is_faulty(const pl_input *input, int64_t line);
int64_t pl_input_number(const pl_input *input, int64_t line); /* as editors count: from 1, with empty ones */
size_t pl_input_bytes(const pl_input *input, int64_t line);

/* *text: [n], malloc'ed, with a NUL behind it. */
pl_status pl_input_read(const pl_input *input, int64_t line, char **text, size_t *n, pl_error *err);

/* What is wrong with a faulty line, and its custom_id (free()) where that is known and its own: else NULL. */
pl_status pl_input_fault(const pl_input *input, int64_t line, pl_line_fault *fault, char **custom_id, pl_error *err);

#endif
