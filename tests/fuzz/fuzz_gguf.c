/* A GGUF checkpoint from memory: parsed, bound, and every weight read. */
#include <stdint.h>

#include "host/model/checkpoint_parts.h"
#include "host/model/path.h"
#include "host/model/weight_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_weights(const pl_checkpoint *checkpoint)
{
    const pl_tensor *tensors;
    size_t n = pl_checkpoint_tensors(checkpoint, &tensors);
    for (size_t i = 0; i < n; i++)
        if (tensors[i].data)
            pl_tensor_check_finite(&tensors[i], 0, tensors[i].rows, NULL);
    const pl_tensor *bound = (const pl_tensor *)pl_checkpoint_weights(checkpoint);
    for (size_t i = 0; i < sizeof(pl_weights) / sizeof(pl_tensor); i++)
        if (bound[i].data)
            pl_tensor_check_finite(&bound[i], 0, bound[i].rows, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_checkpoint *checkpoint = NULL;
    pl_error err;
    pl_path path;
    if (pl_checkpoint_create("fuzz.gguf", &checkpoint, &err) != PL_OK)
        return 0;
    if (pl_checkpoint_load_gguf_memory(checkpoint, data, size, &err) == PL_OK) {
        const pl_named_path *paths;
        size_t n = pl_checkpoint_paths(checkpoint, &paths);
        for (size_t i = 0; i < n; i++)
            pl_path_parse(checkpoint, paths[i].name, &path, &err);
        if (pl_path_parse(checkpoint, "e2b", &path, &err) == PL_OK)
            pl_path_bytes(checkpoint, &path);
        read_weights(checkpoint);
    }
    pl_checkpoint_close(checkpoint);
    return 0;
}
