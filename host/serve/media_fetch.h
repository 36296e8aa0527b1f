/* Files from addresses that clients give, by the program curl: only where whoever runs the server allows it. */
#ifndef PL_SERVE_MEDIA_FETCH_H
#define PL_SERVE_MEDIA_FETCH_H

#include "host/base/status.h"

/* url: http or https; redirects to these alone are followed. At most `most` bytes, at most max_s seconds; stop (may be NULL) is
 * asked now and then. *out: free(). PL_ERR_IO says what failed. */
pl_status pl_media_fetch(const char *url, size_t most, double max_s, bool (*stop)(void *user), void *user,
                         unsigned char **out, size_t *n, pl_error *err);

#endif
