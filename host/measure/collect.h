/* Collects an importance matrix: for every matrix of the model and each of its columns, the sum over the tokens of a
 * text of the square of what that column is multiplied with.
 *
 * Several paths go into one matrix, and every one reads the whole text. A token on a path with a narrower FFN adds
 * nothing to the columns of ffn_down that the path leaves out, but it counts there: an error in those weights costs
 * this token nothing, so the mean over all tokens is what an error costs on the whole. Layers that a path skips are not
 * counted on it; that scales all columns of a matrix alike, which changes nothing of how it is quantised. The head's
 * entry is that of token_embd.weight where the two are tied.
 *
 * Numerics: squares and sums of up to 16 rows in f32, those in double: within 17 * 2^-24 of the exact sum, the
 * same for any number of threads. Sums change passage by passage: what is cut off in the middle leaves nothing. */
#ifndef PL_MEASURE_COLLECT_H
#define PL_MEASURE_COLLECT_H

#include "host/measure/passages.h"
#include "host/model/imatrix.h"

typedef struct pl_collector pl_collector;

/* text_name: the dataset's, copied. paths: as pl_session_set_path() takes them, all checked here, copied; none: the
 * session's own. Borrows session and passages; the session's context must hold a passage. */
pl_status pl_collector_create(pl_session *session, const pl_passages *passages, const char *text_name,
                              const char *const *paths, size_t n_paths, pl_collector **out, pl_error *err);
void pl_collector_free(pl_collector *c);

/* Goes on where `file` stopped, as if nothing had happened in between. Refuses what another model, text, length of
 * passages or list of paths went into, naming what differs; `where` names the file. */
pl_status pl_collector_resume(pl_collector *c, const pl_imatrix *file, const char *where, pl_error *err);

/* Reads the next passage. PL_ERR_CANCELLED after pl_session_cancel(), with the passage not counted. */
pl_status pl_collector_next(pl_collector *c, pl_error *err);

/* Passages, over all paths. */
int32_t pl_collector_done(const pl_collector *c);
int32_t pl_collector_total(const pl_collector *c);

/* What there is so far, to be written; pl_imatrix_write_gguf() makes a file that can be resumed of it. The collector's
 * own: changed by the next passage. */
const pl_imatrix *pl_collector_matrix(pl_collector *c);

#endif
