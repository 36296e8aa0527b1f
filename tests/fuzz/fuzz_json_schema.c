/* Any bytes as a JSON schema, and as functions that can be called. */
#include <stdlib.h>

#include "host/grammar/json_schema.h"
#include "host/grammar/tool_rules.h"

typedef pl_status (*compile_fn)(const char *text, size_t n, pl_rules **out, pl_error *err);

static void check(compile_fn compile, const uint8_t *data, size_t size)
{
    pl_error err = {0};
    pl_rules *rules = NULL;
    pl_status status = compile((const char *)data, size, &rules, &err);
    if (status != PL_OK && (rules || err.status != status || !err.message[0]))
        abort();
    pl_rules_free(rules);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check(pl_json_schema_compile, data, size);
    check(pl_tool_rules_compile, data, size);
    return 0;
}
