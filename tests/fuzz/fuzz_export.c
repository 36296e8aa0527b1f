/* A GGUF checkpoint from memory, whole and sliced: planned, every value read and copied, its keys written anew. */
#include <stdint.h>
#include <stdlib.h>

#include "host/convert/metadata.h"
#include "host/model/checkpoint_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_tensor(const pl_export_tensor *t)
{
    size_t row_bytes = pl_dtype_bytes(t->type, t->n_cols);
    float *values = malloc((size_t)t->n_cols * sizeof *values + 1);
    unsigned char *bytes = malloc(row_bytes + 1);
    bool copy = pl_export_is_copy(t);
    for (int64_t row = 0; values && bytes && row < t->n_rows; row++) {
        pl_export_read(t, row, 1, values);
        if (copy)
            pl_export_copy(t, row, 1, bytes);
    }
    free(bytes);
    free(values);
}

static void write_keys(const pl_export *e)
{
    pl_gguf_writer *w = NULL;
    if (pl_gguf_writer_create(&w, NULL) != PL_OK)
        return;
    pl_metadata_put(w, e, 0, NULL);
    for (size_t i = 0; i < e->n; i++)
        pl_gguf_declare(w, e->tensors[i].name, e->tensors[i].type, e->tensors[i].dims, e->tensors[i].n_dims);
    pl_gguf_writer_begin(w, "/dev/null", NULL);
    pl_gguf_writer_free(w);
}

static void try_plan(const pl_checkpoint *checkpoint, const pl_path *path)
{
    pl_export *e = NULL;
    pl_error err;
    if (pl_export_plan(checkpoint, path, PL_CHECKPOINT_GGUF, &e, &err) != PL_OK)
        return;
    for (size_t i = 0; i < e->n; i++)
        read_tensor(&e->tensors[i]);
    write_keys(e);
    pl_export_free(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_checkpoint *checkpoint = NULL;
    pl_error err;
    pl_path path;
    if (pl_checkpoint_create("fuzz.gguf", &checkpoint, &err) != PL_OK)
        return 0;
    if (pl_checkpoint_load_gguf_memory(checkpoint, data, size, &err) == PL_OK) {
        try_plan(checkpoint, NULL);
        if (pl_path_parse(checkpoint, "e2b", &path, &err) == PL_OK)
            try_plan(checkpoint, &path);
        if (pl_path_parse(checkpoint, "mix:widths=1;skip=1", &path, &err) == PL_OK)
            try_plan(checkpoint, &path);
    }
    pl_checkpoint_close(checkpoint);
    return 0;
}
