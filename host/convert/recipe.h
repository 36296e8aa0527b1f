/* Which tensor gets which type: recipes by name. Those of llama.cpp's names pick the very types that its llama-quantize
 * picks (source: its llama-quant.cpp); q3 to q6 are ours: as large as one of those, with the types that lose the least
 * within that (fit.h); the others are one type for all matrices. */
#ifndef PL_CONVERT_RECIPE_H
#define PL_CONVERT_RECIPE_H

#include "host/convert/export.h"

typedef struct pl_recipe_params {
    const char *type;             /* "q4", "q4_k_m", "f16"; case does not count */
    bool pure;                    /* the type itself for all matrices; needs a name that is a type's */
    bool importance;              /* there is an importance matrix */
    const char *const *overrides; /* "PATTERN=TYPE", the last that matches counts */
    size_t n_overrides;
} pl_recipe_params;

/* Of q3 to q6 the recipe of llama.cpp whose size they keep to; NULL for all others. */
const char *pl_recipe_size_like(const char *type);

/* Sets the types of e's tensors; of q3 to q6 those of the recipe that they are like. A type whose blocks do not fit a tensor's rows, or ffn_down's on a path that e
 * declares, gives way to the nearest one that fits; in an override it is an error. file_type: GGUF's number. */
pl_status pl_recipe_apply(pl_export *e, const pl_recipe_params *params, uint32_t *file_type, pl_error *err);

/* A pattern is fnmatch(3)'s, for names with or without ".weight"; vectors have no other type. One that matches nothing
 * is an error. pinned: [e->n], true for what matched; may be NULL. */
pl_status pl_recipe_override(pl_export *e, const char *const *overrides, size_t n, bool *pinned, pl_error *err);

/* Whether the type can hold tensors that the file may give another type at all. */
bool pl_recipe_may_change(const pl_export_tensor *t);

/* Columns of each tensor's rows that must be whole blocks: [e->n], a common divisor of the row's length and, of
 * ffn_down, of the widths of all nested paths. */
pl_status pl_recipe_units(const pl_export *e, int64_t *units, pl_error *err);

/* K/V matrices of layers that read others' K/V: in the file for llama.cpp's sake alone. */
bool pl_recipe_unread(const pl_export *e, const pl_export_tensor *t);

/* GGUF's number for a mix of types by the type that holds the most. */
uint32_t pl_recipe_file_type(pl_dtype most);

#endif
