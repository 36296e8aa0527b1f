/* Base64 (RFC 4648, section 4), strictly: the plain alphabet, padded, nothing between, no bits left over. */
#ifndef PL_SERVE_BASE64_H
#define PL_SERVE_BASE64_H

#include "host/base/status.h"

/* *out: free(); never NULL. PL_ERR_FORMAT names the first place that is wrong. */
pl_status pl_base64_decode(const char *text, size_t n, unsigned char **out, size_t *n_out, pl_error *err);

#endif
