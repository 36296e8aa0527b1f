/* A safetensors file from memory: parsed, and the ends of every tensor read. */
#include <stdint.h>

#include "host/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_arena *arena = NULL;
    pl_tensor_list list;
    pl_error err;
    volatile unsigned char seen = 0;
    (void)seen;
    if (pl_arena_create(1 << 14, &arena, &err) != PL_OK)
        return 0;
    if (pl_safetensors_parse(data, size, "fuzz.safetensors", arena, &list, &err) == PL_OK)
        for (size_t i = 0; i < list.n; i++)
            if (list.items[i].bytes > 0)
                seen = seen ^ list.items[i].data[0] ^ list.items[i].data[list.items[i].bytes - 1];
    pl_arena_free(arena);
    return 0;
}
