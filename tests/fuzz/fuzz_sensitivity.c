/* Files of sensitivities: what is read holds only what may be there. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "host/convert/sensitivity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_sensitivity read;
    pl_error err;
    if (pl_sensitivity_parse((const char *)data, size, "fuzz.json", &read, &err) != PL_OK)
        return 0;
    for (int role = 0; role < PL_ROLES; role++)
        for (int i = 0; i < pl_sensitivity_values((pl_role)role); i++)
            if (!isnan(read.value[role][i]) && !(read.value[role][i] >= 0 && read.value[role][i] <= 1e30))
                abort();
    return 0;
}
