/* Any bytes as a grammar; what compiles is run over the same bytes. */
#include <stdlib.h>

#include "host/grammar/gbnf.h"
#include "host/grammar/matcher.h"

#define MOST_STEPS 300

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_rules *rules;
    pl_matcher *matcher;
    pl_error err;
    if (size > 4096 || pl_gbnf_compile((const char *)data, size, &rules, &err) != PL_OK)
        return 0;
    if (pl_matcher_create(rules, 16, 1 << 20, &matcher, &err) != PL_OK)
        return 0;
    uint32_t state = PL_STATE_START;
    for (size_t i = 0; i < size && i < MOST_STEPS; i++) {
        uint32_t next = pl_matcher_step(matcher, state, data[i]);
        if (next == PL_STATE_FAILED)
            break;
        if (next != PL_STATE_DEAD)
            state = next;
        if (pl_matcher_ends(matcher, state) < 0 || pl_matcher_canonical(matcher, state) == PL_STATE_FAILED)
            break;
        uint32_t *held[] = {&state};
        if (pl_matcher_full(matcher) && pl_matcher_forget(matcher, held, 1, &err) != PL_OK)
            break;
    }
    pl_matcher_free(matcher);
    return 0;
}
