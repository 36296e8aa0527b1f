/* Whether a batch was done before: an output that was finished, whose journal is gone. */
#ifndef PL_BATCH_ANSWERED_H
#define PL_BATCH_ANSWERED_H

#include "host/batch/input.h"

/* *is: the file `out` has one result for each line of the input and nothing else, by the ids of its records, so that they are of the
 * same settings, too (record.h). False as well where there is no such file, or a journal beside it. */
pl_status pl_batch_is_answered(const char *out, const pl_input *input, uint64_t seed, bool *is, pl_error *err);

#endif
