#include "tools/size_text.h"

#include <stddef.h>
#include <stdio.h>

const char *pl_size_text(double bytes, char out[PL_SIZE_TEXT])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes >= 999.5 && unit < 4) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, PL_SIZE_TEXT, "%.*f %s", unit == 0 || bytes >= 100 ? 0 : bytes >= 10 ? 1 : 2, bytes, units[unit]);
    return out;
}

const char *pl_count_text(int64_t n, char out[PL_SIZE_TEXT])
{
    char digits[PL_SIZE_TEXT];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)n), at = 0;
    for (int i = 0; i < length && at < PL_SIZE_TEXT - 2; i++) {
        if (i && (length - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
    return out;
}

void pl_print_widths(const int *ffn, const bool *skip, int n_layers)
{
    int run = 0, width = 0;
    bool first = true;
    for (int l = 0; l <= n_layers; l++) {
        if (l < n_layers && skip && skip[l])
            continue;
        if (l < n_layers && (run == 0 || ffn[l] == width)) {
            width = ffn[l];
            run++;
            continue;
        }
        printf("%s%d x %d", first ? "" : ", ", width, run);
        first = false;
        width = l < n_layers ? ffn[l] : 0;
        run = 1;
    }
}
