/* The tensors that a file lists, whatever its format, in file order, found by name. */
#ifndef PL_MODEL_TENSOR_LIST_H
#define PL_MODEL_TENSOR_LIST_H

#include "host/base/arena.h"
#include "host/ops/tensor.h"

#define PL_MAX_DIMS 8

typedef struct pl_entry {
    const char *name;
    const char *where;         /* the file it stands in, for messages */
    const unsigned char *data; /* borrowed from the mapping, any alignment; NULL when it has no bytes */
    uint64_t bytes;            /* 0 for a type of unknown size */
    int64_t dims[PL_MAX_DIMS]; /* row-major, outermost first */
    int n_dims;
    int type; /* pl_dtype; of other types GGUF's id, or -1 */
    const char *type_name;
} pl_entry;

typedef struct pl_tensor_list {
    pl_entry *items;
    size_t n;
    const pl_entry **by_name; /* sorted; made by pl_tensor_list_index() */
} pl_tensor_list;

/* Makes by_name; two tensors of one name are an error that names both files. */
pl_status pl_tensor_list_index(pl_tensor_list *list, pl_arena *arena, pl_error *err);

/* NULL when there is none. */
const pl_entry *pl_tensor_list_find(const pl_tensor_list *list, const char *name);

/* No two tensors of one data section may share a byte. With `dense`, every byte of it belongs to a tensor.
 * Entries of unknown size count as empty. */
pl_status pl_tensor_list_check_layout(const pl_tensor_list *list, const unsigned char *base, uint64_t size, bool dense,
                                      pl_arena *arena, pl_error *err);

/* a * b; false when it does not fit. */
static inline bool pl_mul_i64(int64_t a, int64_t b, int64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

#endif
