/* JSON of model folders: parsing with limits, and typed members whose errors name file and key. */
#ifndef PL_MODEL_MODEL_JSON_H
#define PL_MODEL_MODEL_JSON_H

#include <jansson.h>

#include "host/base/status.h"

/* The root must be an object. *out is the caller's: json_decref(). */
pl_status pl_member_parse(const char *text, size_t n, const char *where, json_t **out, pl_error *err);

/* Members of an object. Where the key is absent or null, *out keeps its value. `where` names the file. */
pl_status pl_member_int(const json_t *object, const char *key, const char *where, int low, int high, int *out,
                        pl_error *err);
pl_status pl_member_float(const json_t *object, const char *key, const char *where, float *out, pl_error *err);
pl_status pl_member_bool(const json_t *object, const char *key, const char *where, bool *out, pl_error *err);

/* Borrowed from the object. */
pl_status pl_member_text(const json_t *object, const char *key, const char *where, const char **out, pl_error *err);
pl_status pl_member_object(const json_t *object, const char *key, const char *where, const json_t **out, pl_error *err);

/* The member, or NULL where it is absent or null. */
const json_t *pl_member_get(const json_t *object, const char *key);

/* "an integer", "a list" ... for messages */
const char *pl_member_kind(const json_t *value);

#endif
