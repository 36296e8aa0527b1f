#include "host/engine/needles.h"

#include <stdlib.h>
#include <string.h>

typedef struct needle {
    const char *text;
    size_t length;
    size_t *shorter; /* [length + 1]: of the first i bytes, the longest proper prefix that is also their end */
    size_t state;    /* bytes of text that the stream ends with */
} needle;

struct pl_needles {
    needle *v;
    size_t n;
    char *text;
    size_t *shorter;
};

static size_t advance(const needle *d, size_t state, char byte)
{
    if (state == d->length)
        state = d->shorter[state];
    while (state && d->text[state] != byte)
        state = d->shorter[state];
    return d->text[state] == byte ? state + 1 : 0;
}

static void prepare(needle *d)
{
    d->shorter[0] = 0;
    d->shorter[1] = 0;
    for (size_t i = 1; i < d->length; i++)
        d->shorter[i + 1] = advance(d, d->shorter[i], d->text[i]);
}

static pl_status count_bytes(const char *const *strings, size_t n, const char *what, size_t *bytes, pl_error *err)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (!strings[i] || !strings[i][0])
            return pl_fail(err, PL_ERR_ARGUMENT, "%s[%zu] is empty", what, i);
        size_t length = strlen(strings[i]);
        if (length > SIZE_MAX / (4 * sizeof(size_t)) - sum)
            return pl_fail(err, PL_ERR_ARGUMENT, "%s[%zu] is too long", what, i);
        sum += length;
    }
    *bytes = sum;
    return PL_OK;
}

pl_status pl_needles_create(const char *const *strings, size_t n, const char *what, pl_needles **out, pl_error *err)
{
    size_t bytes = 0;
    PL_TRY(count_bytes(strings, n, what, &bytes, err));
    pl_needles *needles = calloc(1, sizeof *needles);
    if (!needles)
        return pl_fail_memory(err, sizeof *needles, what);
    needles->v = calloc(n + 1, sizeof *needles->v);
    needles->text = malloc(bytes + 1);
    needles->shorter = malloc((bytes + n + 1) * sizeof *needles->shorter);
    if (!needles->v || !needles->text || !needles->shorter) {
        pl_needles_free(needles);
        return pl_fail_memory(err, bytes * (1 + sizeof *needles->shorter), what);
    }
    needles->n = n;
    char *text = needles->text;
    size_t *shorter = needles->shorter;
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(strings[i]);
        memcpy(text, strings[i], length);
        needles->v[i] = (needle){.text = text, .length = length, .shorter = shorter};
        prepare(&needles->v[i]);
        text += length;
        shorter += length + 1;
    }
    *out = needles;
    return PL_OK;
}

void pl_needles_free(pl_needles *needles)
{
    if (!needles)
        return;
    free(needles->v);
    free(needles->text);
    free(needles->shorter);
    free(needles);
}

void pl_needles_reset(pl_needles *needles)
{
    for (size_t i = 0; i < needles->n; i++)
        needles->v[i].state = 0;
}

int32_t pl_needles_feed(pl_needles *needles, char byte)
{
    int32_t found = -1;
    size_t longest = 0;
    for (size_t i = 0; i < needles->n; i++) {
        needle *d = &needles->v[i];
        d->state = advance(d, d->state, byte);
        if (d->state == d->length && d->length > longest) {
            found = (int32_t)i;
            longest = d->length;
        }
    }
    return found;
}

size_t pl_needles_pending(const pl_needles *needles)
{
    size_t pending = 0;
    for (size_t i = 0; i < needles->n; i++)
        if (needles->v[i].state < needles->v[i].length && needles->v[i].state > pending)
            pending = needles->v[i].state;
    return pending;
}

size_t pl_needles_length(const pl_needles *needles, int32_t index)
{
    return needles->v[index].length;
}
