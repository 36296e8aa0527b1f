/* Numbers as people read them. */
#ifndef PL_TOOLS_SIZE_TEXT_H
#define PL_TOOLS_SIZE_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#define PL_SIZE_TEXT 32

/* "4.24 GB"; returns out. */
const char *pl_size_text(double bytes, char out[PL_SIZE_TEXT]);

/* "3,523,215,360"; returns out. */
const char *pl_count_text(int64_t n, char out[PL_SIZE_TEXT]);

/* The widths of the layers that run, equal neighbours together: "16384 x 10, 8192 x 20". skip: [n_layers] or NULL. */
void pl_print_widths(const int *ffn, const bool *skip, int n_layers);

#endif
