/* Opening model files while allocations fail. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "host/model/checkpoint.h"
#include "host/model/safetensors.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/gguf_builder.h"
#include "tests/unit/scratch.h"

static pl_status open_and_close(void *ctx, pl_error *err)
{
    pl_checkpoint *checkpoint = NULL;
    pl_status status = pl_checkpoint_open(ctx, &checkpoint, err);
    if (status == PL_OK)
        pl_checkpoint_close(checkpoint);
    return status;
}

static char path[512];

Test(model_no_memory, gguf)
{
    scratch s;
    gguf_builder b;
    scratch_open(&s);
    gguf_builder_tiny(&b);
    gguf_builder_text(&b, "pleiad.path.tail", "mix:widths=32");
    snprintf(path, sizeof path, "%s", gguf_builder_write(&b, &s, "tiny.gguf"));
    cr_assert_geq(fail_alloc_each(open_and_close, path), 2);
    gguf_builder_free(&b);
    scratch_close(&s);
}

Test(model_no_memory, folder)
{
    static char folder[] = PL_TEST_DATA "/golden/text/e2b";
    cr_assert_geq(fail_alloc_each(open_and_close, folder), 2);
}

static pl_status open_safetensors(void *ctx, pl_error *err)
{
    pl_safetensors file;
    PL_TRY(pl_safetensors_open(ctx, &file, err));
    pl_safetensors_close(&file);
    return PL_OK;
}

Test(model_no_memory, safetensors)
{
    static char golden[] = PL_TEST_DATA "/golden/text/golden/e4b.p1.safetensors";
    cr_assert_geq(fail_alloc_each(open_safetensors, golden), 2);
}
