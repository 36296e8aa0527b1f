#include "tests/unit/fail_alloc.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Some of those that allocate are threads. */
static struct {
    atomic_bool on;
    atomic_long until_failure;
    atomic_long live;
} state;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *p);

static bool fails(void)
{
    bool now = state.on && atomic_fetch_sub(&state.until_failure, 1) == 0;
    if (now)
        errno = ENOMEM;
    return now;
}

static void *counted(void *p)
{
    state.live += p != NULL;
    return p;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : counted(__real_calloc(n, size));
}

void *__wrap_realloc(void *old, size_t size)
{
    if (fails())
        return NULL;
    void *p = __real_realloc(old, size);
    state.live += p && !old;
    return p;
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : counted(__real_aligned_alloc(alignment, size));
}

char *__wrap_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = __wrap_malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

void __wrap_free(void *p)
{
    state.live -= p != NULL;
    __real_free(p);
}

int fail_alloc_each(fail_alloc_fn work, void *ctx)
{
    for (int n = 0;; n++) {
        pl_error err = {0};
        long live = state.live;
        state.until_failure = n;
        state.on = true;
        pl_status status = work(ctx, &err);
        state.on = false;
        bool failed = state.until_failure < 0;
        cr_assert_eq(state.live, live, "%ld allocations left behind when number %d fails", state.live - live, n);
        if (!failed) {
            cr_assert_eq(status, PL_OK, "%s", err.message);
            return n;
        }
        cr_assert_eq(status, PL_ERR_MEMORY, "allocation %d of many fails: status %d, %s", n, (int)status, err.message);
        cr_assert_neq(err.message[0], '\0');
    }
}
