#include "host/model/fingerprint.h"

#include <string.h>
#include <xxhash.h>

#define SAMPLE_BYTES 1024

uint64_t pl_fingerprint(uint64_t hash, const void *data, size_t n)
{
    return XXH3_64bits_withSeed(data, n, hash);
}

static uint64_t mix_tensor(uint64_t hash, const pl_tensor *t)
{
    int64_t shape[3] = {t->rows, t->cols, t->type};
    hash = pl_fingerprint(pl_fingerprint(hash, t->name, strlen(t->name)), shape, sizeof shape);
    if (!t->data)
        return hash;
    size_t bytes = (size_t)t->rows * pl_tensor_row_bytes(t), n = bytes < SAMPLE_BYTES ? bytes : SAMPLE_BYTES;
    const unsigned char *data = t->data;
    return pl_fingerprint(pl_fingerprint(hash, data, n), data + bytes - n, n);
}

uint64_t pl_checkpoint_fingerprint(const pl_checkpoint *checkpoint)
{
    const pl_tensor *tensors;
    size_t n = pl_checkpoint_tensors(checkpoint, &tensors);
    uint64_t hash = 0;
    for (size_t i = 0; i < n; i++)
        hash = mix_tensor(hash, &tensors[i]);
    return hash;
}
