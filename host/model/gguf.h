/* Reader of one GGUF v3 file. Everything it hands out lies inside the file, checked.
 * Source: ggml's gguf.cpp; its limits on names and counts are widened, its checks kept. */
#ifndef PL_MODEL_GGUF_H
#define PL_MODEL_GGUF_H

#include "host/model/tensor_list.h"

typedef enum pl_gguf_type {
    PL_GGUF_U8,
    PL_GGUF_I8,
    PL_GGUF_U16,
    PL_GGUF_I16,
    PL_GGUF_U32,
    PL_GGUF_I32,
    PL_GGUF_F32,
    PL_GGUF_BOOL,
    PL_GGUF_STRING,
    PL_GGUF_ARRAY,
    PL_GGUF_U64,
    PL_GGUF_I64,
    PL_GGUF_F64,
} pl_gguf_type;

typedef struct pl_gguf_value {
    const char *key;
    pl_gguf_type type; /* of the value, of an array of its elements */
    bool is_array;
    uint64_t n;                /* elements; of a lone string its bytes, else 1 */
    const unsigned char *data; /* first element, any alignment; strings of arrays follow their u64 lengths */
} pl_gguf_value;

typedef struct pl_gguf {
    const char *where;
    const pl_gguf_value *values; /* sorted by key */
    size_t n_values;
    pl_tensor_list tensors; /* not indexed: parts of a split file are joined first */
} pl_gguf;

/* Lists what `size` bytes at data hold. Names live in the arena, contents stay where they are; `where` is
 * borrowed as long as the list lives. */
pl_status pl_gguf_parse(const unsigned char *data, size_t size, const char *where, pl_arena *arena, pl_gguf *out,
                        pl_error *err);

/* NULL when the key is absent. */
const pl_gguf_value *pl_gguf_find(const pl_gguf *file, const char *key);

/* Typed values: where the key is absent, *out keeps its value; a value of another kind or outside low..high
 * is an error that names file and key. Any integer type will do for an integer. */
pl_status pl_gguf_int(const pl_gguf *file, const char *key, int64_t low, int64_t high, int *out, pl_error *err);
pl_status pl_gguf_float(const pl_gguf *file, const char *key, float *out, pl_error *err);
pl_status pl_gguf_bool(const pl_gguf *file, const char *key, bool *out, pl_error *err);

/* The text (not NUL-terminated), or NULL when the key is absent. */
pl_status pl_gguf_text(const pl_gguf *file, const char *key, const char **out, size_t *n, pl_error *err);

/* The array whose elements have this type, or NULL when the key is absent. */
pl_status pl_gguf_array(const pl_gguf *file, const char *key, pl_gguf_type type, const pl_gguf_value **out,
                        pl_error *err);

pl_status pl_gguf_missing(const pl_gguf *file, const char *key, pl_error *err);

/* Element i as an integer; the type must be one (see pl_gguf_is_integer). */
int64_t pl_gguf_integer_at(const pl_gguf_value *value, uint64_t i);
bool pl_gguf_is_integer(pl_gguf_type type);

/* "u32", "string" ... for messages */
const char *pl_gguf_type_name(pl_gguf_type type);

/* Of one value; 0 for strings and arrays. */
int pl_gguf_type_bytes(pl_gguf_type type);

#endif
