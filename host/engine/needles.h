/* Finds any of a few strings in a stream of bytes, however the stream is cut (Knuth, Morris, Pratt: one
 * state per string). Stop strings and the breakers of DRY use it.
 * Nothing is allocated after creation. Not thread-safe. */
#ifndef PL_ENGINE_NEEDLES_H
#define PL_ENGINE_NEEDLES_H

#include "host/base/status.h"

typedef struct pl_needles pl_needles;

/* n strings, copied, none of them NULL or empty: PL_ERR_ARGUMENT names the first such as "<what>[i]". */
pl_status pl_needles_create(const char *const *strings, size_t n, const char *what, pl_needles **out, pl_error *err);
void pl_needles_free(pl_needles *needles);

/* Back to the start of a stream. */
void pl_needles_reset(pl_needles *needles);

/* Takes one byte. The index of the longest string that ends with it, or -1. */
int32_t pl_needles_feed(pl_needles *needles, char byte);

/* How many of the last bytes could be the start of a string that is not complete yet. */
size_t pl_needles_pending(const pl_needles *needles);

size_t pl_needles_length(const pl_needles *needles, int32_t index);

#endif
