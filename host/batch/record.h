/* The lines of a batch's output, as OpenAI has them:
 *
 *     {"id": "batch_req_...", "custom_id": "a", "response": {"status_code": 200, "request_id": "...", "body": {...}}, "error": null}
 *     {"id": "batch_req_...", "custom_id": "a", "response": null, "error": {"code", "message", "line", "param"}}
 *
 * The first is what a request came to, errors of the server too; the second is for lines that are no request. */
#ifndef PL_BATCH_RECORD_H
#define PL_BATCH_RECORD_H

#include "host/batch/line.h"

#define PL_RECORD_ID_BYTES 35 /* all ids are so long, with a NUL */

/* Of what results depend on beside the requests, for the ids of their records. */
uint64_t pl_record_seed(const char *settings);

/* The id of a line's record: the same whenever and wherever it is made. line: counted from 0; text: NULL where it is too long. */
void pl_record_id(uint64_t seed, int64_t line, const char *text, size_t n, char out[PL_RECORD_ID_BYTES]);

/* body: the response's JSON, of any layout. *out: [*n_out] with the end of its line, free(). */
pl_status pl_record_response(const char *id, const char *custom_id, int status, const char *request_id,
                             const char *body, size_t n, char **out, size_t *n_out, pl_error *err);

/* custom_id: NULL where it is not known; number: of the line, as editors count. */
pl_status pl_record_fault(const char *id, const char *custom_id, int64_t number, const pl_line_fault *fault, char **out,
                          size_t *n_out, pl_error *err);

#endif
