/* The inside of pl_media. */
#ifndef PL_ENGINE_MEDIA_H
#define PL_ENGINE_MEDIA_H

#include "host/engine/soft_rows.h"
#include "host/engine/towers.h"

#define PL_MEDIA_REMEMBERED_BYTES ((size_t)64 << 20) /* of rows that nobody holds */

/* A media of rows [n][text hidden] made elsewhere, found again by key unless that is NULL. */
pl_status pl_media_of_rows(pl_engine *engine, pl_media_kind kind, const pl_soft_key *key, const float *rows, int32_t n,
                           pl_media **out, pl_error *err);

/* A media of rows that are there already, one after another, at least one. */
pl_status pl_media_of_ids(pl_engine *engine, pl_media_kind kind, const int32_t *ids, size_t rows, pl_media **out,
                          pl_error *err);

/* PL_ERR_ARGUMENT names the first sample that is no finite number. */
pl_status pl_samples_check(const float *samples, size_t n, pl_error *err);

#endif
