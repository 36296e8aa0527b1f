#include "tests/unit/plans.h"

#include <criterion/criterion.h>
#include <string.h>

pl_checkpoint *must_open(const char *path)
{
    pl_checkpoint *checkpoint = NULL;
    pl_error err;
    cr_assert_eq(pl_checkpoint_open(path, &checkpoint, &err), PL_OK, "%s", err.message);
    return checkpoint;
}

pl_export *must_plan(const pl_checkpoint *source, const char *spec, pl_checkpoint_format format)
{
    pl_export *plan = NULL;
    pl_path path;
    pl_error err;
    if (spec)
        cr_assert_eq(pl_path_parse(source, spec, &path, &err), PL_OK, "%s", err.message);
    cr_assert_eq(pl_export_plan(source, spec ? &path : NULL, format, &plan, &err), PL_OK, "%s", err.message);
    return plan;
}

pl_export_tensor *must_find(const pl_export *plan, const char *name)
{
    for (size_t i = 0; i < plan->n; i++)
        if (strcmp(plan->tensors[i].name, name) == 0)
            return &plan->tensors[i];
    cr_assert_fail("no tensor %s", name);
    return NULL;
}
