/* Bodies of forms with files: multipart/form-data (RFC 7578), strictly. */
#ifndef PL_SERVE_MULTIPART_H
#define PL_SERVE_MULTIPART_H

#include "host/base/status.h"

#define PL_MULTIPART_NAME 128

typedef struct pl_multipart_part {
    char name[PL_MULTIPART_NAME];
    char filename[PL_MULTIPART_NAME]; /* "": a field; cut where longer */
    bool is_file;
    const char *data; /* [n] in the body */
    size_t n;
} pl_multipart_part;

/* content_type: the header with the boundary; NULL: there was none. At most `room` parts. Nothing may stand before the first
 * boundary; what stands behind the last is passed over. PL_ERR_UNSUPPORTED: another type of content. */
pl_status pl_multipart_read(const char *content_type, const char *body, size_t n, pl_multipart_part *parts, size_t room,
                            size_t *n_parts, pl_error *err);

#endif
