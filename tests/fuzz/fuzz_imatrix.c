/* Importance matrices in both formats: read, added to themselves, and again as a collection's base. */
#include <stdint.h>

#include "host/model/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_imatrix *m = NULL, *sum = NULL;
    pl_error err;
    if (pl_imatrix_parse(data, size, "fuzz", &m, &err) != PL_OK)
        return 0;
    if (pl_imatrix_create(&sum, &err) == PL_OK) {
        sum->chunk_size = 512;
        if (pl_imatrix_add(sum, m, "fuzz", &err) == PL_OK)
            pl_imatrix_add(sum, m, "fuzz", &err);
        for (size_t i = 0; i < m->n; i++)
            if (pl_imatrix_find(sum, m->entries[i].name) == NULL)
                __builtin_trap();
    }
    pl_imatrix_free(sum);
    pl_imatrix_free(m);
    return 0;
}
