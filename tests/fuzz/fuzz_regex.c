/* Any bytes as a regular expression, whole and in a JSON string, and with bounds of the length. */
#include <stdlib.h>

#include "host/grammar/regex.h"

static void check(pl_status status, const pl_error *err)
{
    if (status != PL_OK && (err->status != status || !err->message[0]))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_error err = {0};
    pl_rules *rules = NULL;
    int32_t rule;
    pl_status status = pl_regex_compile((const char *)data, size, &rules, &err);
    check(status, &err);
    pl_rules_free(rules);
    if (pl_rules_create(&rules, &err) != PL_OK)
        abort();
    status = pl_regex_add_sized(rules, (const char *)data, size, PL_REGEX_IN_JSON, 2, 5, &rule, &err);
    if (status == PL_OK)
        status = pl_rules_finish(rules, rule, NULL, NULL, &err);
    check(status, &err);
    pl_rules_free(rules);
    return 0;
}
