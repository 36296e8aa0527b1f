/* What precision is worth in each part of a model: the mean KL divergence (nats a token) that a relative squared error
 * of 1 would cost, as small errors extrapolate, when all tensors of a role in a third of the depth have it. A tensor's
 * own share is the group's value divided by the number of its tensors.
 *
 * As JSON: {"model": NAME, "text": NAME, "roles": {"down": [first, middle, last third], ..., "embed": [whole model]}}
 * with the labels of weight_table.h, matrices and tables only; null where a group has no tensors that are read. */
#ifndef PL_CONVERT_SENSITIVITY_H
#define PL_CONVERT_SENSITIVITY_H

#include "host/model/weight_table.h"

#define PL_THIRDS 3
#define PL_SENSITIVITY_NAME_BYTES 256

typedef struct pl_sensitivity {
    char model[PL_SENSITIVITY_NAME_BYTES], text[PL_SENSITIVITY_NAME_BYTES]; /* what it was measured on */
    double value[PL_ROLES][PL_THIRDS]; /* of roles of the whole model [0] alone; NAN: not measured; never negative */
} pl_sensitivity;

/* What serves without measurements on the model itself: relative values only, a loss in nats does not follow from it. */
const pl_sensitivity *pl_sensitivity_default(void);

/* The third that a layer belongs to; 0 for layer -1, of the whole model. */
int pl_third_of(const pl_config *config, int layer);

/* How many values a role has: PL_THIRDS, 1 for roles of the whole model, 0 for vectors. */
int pl_sensitivity_values(pl_role role);

/* Every role of matrices and tables must be there, but for the head of models that have one of their own. `where`
 * names the source in messages. */
pl_status pl_sensitivity_parse(const char *json, size_t n, const char *where, pl_sensitivity *out, pl_error *err);
pl_status pl_sensitivity_read(const char *path, pl_sensitivity *out, pl_error *err);
pl_status pl_sensitivity_write(const pl_sensitivity *sensitivity, const char *path, pl_error *err);

#endif
