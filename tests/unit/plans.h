/* Checkpoints, and plans of files to be made of them, that a test takes for granted: where one cannot be had, the
 * test fails. */
#ifndef PL_TESTS_UNIT_PLANS_H
#define PL_TESTS_UNIT_PLANS_H

#include "host/convert/export.h"

pl_checkpoint *must_open(const char *path);

/* Of the path that spec describes, or of everything (NULL). */
pl_export *must_plan(const pl_checkpoint *source, const char *spec, pl_checkpoint_format format);

pl_export_tensor *must_find(const pl_export *plan, const char *name);

#endif
