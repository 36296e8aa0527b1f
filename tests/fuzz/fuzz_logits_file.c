/* A file of logits from memory: its heading, then every row. */
#include <stdint.h>
#include <stdlib.h>

#include "host/measure/logits_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_logits_file file;
    pl_error err;
    float floor;
    if (pl_logits_file_parse(data, size, "fuzz", &file, &err) != PL_OK)
        return 0;
    float *row = malloc((size_t)file.vocab * sizeof *row);
    for (int32_t p = 0; row && p < file.n; p++)
        for (int32_t i = 0; i < pl_passage_scored(file.length); i++)
            pl_logits_file_row(&file, p, i, row, &floor, &err);
    free(row);
    return 0;
}
