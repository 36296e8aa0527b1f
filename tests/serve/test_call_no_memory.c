/* A server whose allocations fail, whichever thread makes them: the client hears of it, and the next request is answered. */
#include "tests/serve/demo_server.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 1000 /* allocations of a request; far more than any of those below makes */

/* ---- allocations ------------------------------------------------------------------------------- */

static _Atomic long until_failure = -1; /* -1: none fails */
static _Thread_local bool spared;       /* the test's own */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool fails(void)
{
    long left = atomic_load(&until_failure);
    while (!spared && left >= 0)
        if (atomic_compare_exchange_weak(&until_failure, &left, left - 1))
            return left == 0;
    return false;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

/* What was not told to the loop, as there was no memory to post it, it looks for now and then: here often. */
pl_status __real_pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err);
pl_status __wrap_pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err);
pl_status __wrap_pl_http_every(pl_http *http, double seconds, void (*fn)(void *user), void *user, pl_error *err)
{
    return __real_pl_http_every(http, seconds / 100, fn, user, err);
}

/* ---- requests ---------------------------------------------------------------------------------- */

static demo_server server;

static void start(void)
{
    spared = true;
    demo_start(&server);
}

static void stop(void)
{
    demo_stop(&server);
}

TestSuite(call_no_memory, .init = start, .fini = stop, .timeout = 600);

/* All the text of an answer, of its one response or of its events. */
static void text_of(const raw_response *r, char *out, size_t room)
{
    static const char key[] = "\"content\":\"";
    size_t n = 0;
    for (const char *at = raw_body(r); (at = strstr(at, key));) {
        at += sizeof key - 1;
        size_t more = strcspn(at, "\"");
        cr_assert_lt(n + more, room);
        memcpy(out + n, at, more);
        n += more;
    }
    out[n] = '\0';
}

/* The answer is whole; or an error says, or a cut shows, that it is not. */
static bool is_answered(const raw_response *r, const char *text, const char *end)
{
    char got[256];
    if (r->status != 200 || r->cut || strstr(raw_body(r), "\"error\""))
        return false;
    text_of(r, got, sizeof got);
    size_t n = strlen(raw_body(r)), n_end = strlen(end);
    cr_assert_str_eq(got, text, "%s", raw_body(r));
    cr_assert(n >= n_end && strcmp(raw_body(r) + n - n_end, end) == 0, "%s", raw_body(r));
    return true;
}

static bool is_told(const raw_response *r)
{
    return r->status == 0 || r->status == 200 || r->status == 503;
}

/* The n-th allocation fails; returns whether there was one. */
static bool ask_failing(const char *body, const char *text, const char *end, long n, int *answered)
{
    atomic_store(&until_failure, n);
    raw_response r = demo_ask(&server, "POST", "/v1/chat/completions", body);
    bool failed = atomic_exchange(&until_failure, -1) < 0;
    if (is_answered(&r, text, end))
        ++*answered;
    else
        cr_assert(failed && is_told(&r), "allocation %ld: %d %s", n, r.status, raw_body(&r));
    raw_free(&r);
    return failed;
}

static void visit(const char *body, const char *text, const char *end)
{
    int n = 0, answered = 0;
    while (ask_failing(body, text, end, n, &answered))
        cr_assert_lt(++n, MOST);
    cr_assert_gt(n - answered, 20, "%d of %d requests were answered", answered, n);
}

#define QUESTION "\"messages\": [{\"role\": \"user\", \"content\": \"What is the capital of France?\"}]"

Test(call_no_memory, whole)
{
    visit("{" QUESTION ", \"max_tokens\": 3, \"logprobs\": true, \"stop\": [\"zzz\"]}", "The capital of", "}");
}

Test(call_no_memory, streams)
{
    visit("{" QUESTION ", \"max_tokens\": 3, \"stream\": true}", "The capital of", "data: [DONE]\n\n");
}

Test(call_no_memory, forms)
{
    visit("{" QUESTION ", \"max_tokens\": 9, \"regex\": \"[a-c]{3}\"}", "bab", "}");
}
