/* Standard output holds what was asked for, standard error everything else. */
#ifndef PL_TOOLS_CONSOLE_H
#define PL_TOOLS_CONSOLE_H

#include "host/base/options.h"

/* Opens what is closed of descriptors 0 to 2, so that no file of ours takes their place; writing to them still
 * fails. */
void pl_console_prepare(void);

/* "pleiad: error: ..." */
void pl_console_error(const pl_options *options, const pl_error *error);

/* Lines on standard error: notes unless --quiet, details only with --verbose. */
void pl_console_note(const pl_options *options, const char *fmt, ...) PL_PRINTF(2, 3);
void pl_console_detail(const pl_options *options, const char *fmt, ...) PL_PRINTF(2, 3);

/* Writes out what standard output still holds back; an error where it cannot be written. */
pl_status pl_console_flush(pl_error *err);

#endif
