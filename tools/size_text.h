/* Numbers as people read them. */
#ifndef PL_TOOLS_SIZE_TEXT_H
#define PL_TOOLS_SIZE_TEXT_H

#include <stdint.h>

#define PL_SIZE_TEXT 32

/* "4.24 GB"; returns out. */
const char *pl_size_text(double bytes, char out[PL_SIZE_TEXT]);

/* "3,523,215,360"; returns out. */
const char *pl_count_text(int64_t n, char out[PL_SIZE_TEXT]);

#endif
