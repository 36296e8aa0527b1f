#include "tests/unit/matches.h"

#include <criterion/criterion.h>
#include <string.h>

pl_matcher *matcher_of(pl_rules *rules)
{
    pl_matcher *matcher;
    pl_error err = {0};
    cr_assert_eq(pl_matcher_create(rules, 0, (size_t)64 << 20, &matcher, &err), PL_OK, "%s", err.message);
    return matcher;
}

bool matches_text(pl_matcher *matcher, const char *text, size_t n)
{
    pl_error err = {0};
    size_t allowed;
    bool may_end;
    cr_assert_eq(pl_matcher_read(matcher, text, n, &allowed, &may_end, &err), PL_OK, "%s", err.message);
    return allowed == n && may_end;
}

bool matches(pl_matcher *matcher, const char *text)
{
    return matches_text(matcher, text, strlen(text));
}
