/* Reader of one safetensors file: u64 length, JSON header of that length, data.
 * Source: safetensors 0.5 (Rust), whose checks on names, shapes and offsets are kept. */
#ifndef PL_MODEL_SAFETENSORS_H
#define PL_MODEL_SAFETENSORS_H

#include "host/base/mapfile.h"
#include "host/model/tensor_list.h"

typedef struct pl_safetensors {
    pl_mapfile file;
    pl_arena *arena;
    pl_tensor_list tensors; /* indexed; dtypes other than F32, F16, BF16 have type -1 */
} pl_safetensors;

/* Lists the tensors of `size` bytes at data. Names live in the arena, contents stay where they are; `where`
 * is borrowed as long as the list lives. */
pl_status pl_safetensors_parse(const unsigned char *data, size_t size, const char *where, pl_arena *arena,
                               pl_tensor_list *out, pl_error *err);

pl_status pl_safetensors_open(const char *path, pl_safetensors *out, pl_error *err);
void pl_safetensors_close(pl_safetensors *file);

#endif
