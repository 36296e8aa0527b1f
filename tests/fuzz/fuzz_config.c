/* config.json, and behind a NUL byte generation_config.json. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/model/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = size > 0 ? memchr(data, 0, size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    const char *generation = end ? (const char *)end + 1 : NULL;
    pl_config config;
    pl_error err;
    if (pl_config_from_json((const char *)data, n, generation, end ? size - n - 1 : 0, "fuzz.json", &config, &err) !=
        PL_OK)
        return 0;
    for (int l = 0; l < config.n_layers; l++)
        if (config.kv_layer[l] < 0 || config.kv_layer[l] >= config.n_kv_layers || config.ffn[l] < 1)
            abort();
    return 0;
}
