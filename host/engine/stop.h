/* Stop strings over a stream of text: what can be shown is given out, what could still become a stop
 * string is held back, and nothing of a stop string is ever shown.
 *
 *     stop string "END":   feed "the E"  -> "the "        ("E" is held)
 *                          feed "nd, EN" -> "End, "       ("EN" is held)
 *                          feed "D."     -> "", stopped   (the rest is dropped)
 *
 * The stop string that is complete first ends the stream; of several that are complete at the same byte,
 * the longest. So the result depends on the text alone, not on the pieces it comes in.
 * Stop strings are UTF-8 and pieces hold whole characters, so what is shown holds whole characters. */
#ifndef PL_ENGINE_STOP_H
#define PL_ENGINE_STOP_H

#include "host/base/status.h"

typedef struct pl_stop pl_stop;

/* strings: n of them, copied; n may be 0. PL_ERR_ARGUMENT names one that is NULL, empty or not UTF-8. */
pl_status pl_stop_create(const char *const *strings, size_t n, pl_stop **out, pl_error *err);
void pl_stop_free(pl_stop *stop);

/* Back to the start of a stream. */
void pl_stop_reset(pl_stop *stop);

/* *shown (valid until the next call, not terminated): the text that can be shown after this piece.
 * *matched: the index of the stop string that ended the stream, or -1; once it is not -1, further pieces
 * show nothing. Allocates only to grow: for pieces longer than any before. */
pl_status pl_stop_feed(pl_stop *stop, const char *text, size_t n, const char **shown, size_t *n_shown, int32_t *matched,
                       pl_error *err);

/* The end of the stream: what is still held, nothing after a match. */
void pl_stop_finish(pl_stop *stop, const char **shown, size_t *n_shown);

#endif
