#include "host/engine/stop.h"

#include <stdlib.h>
#include <string.h>

#include "host/engine/needles.h"
#include "host/text/utf8.h"

#define FIRST_ROOM 4096 /* twice what a piece of text from one token holds, so that feeding them allocates nothing */

struct pl_stop {
    pl_needles *needles;
    char *text; /* what the last call showed, then what is held */
    size_t n, room;
    size_t shown;
    int32_t matched;
};

pl_status pl_stop_create(const char *const *strings, size_t n, pl_stop **out, pl_error *err)
{
    if (n && !strings)
        return pl_fail(err, PL_ERR_ARGUMENT, "stop is NULL, expected %zu strings", n);
    if (n > INT32_MAX)
        return pl_fail(err, PL_ERR_ARGUMENT, "%zu stop strings are too many", n);
    for (size_t i = 0; i < n; i++)
        if (strings[i] && !pl_utf8_valid(strings[i], strlen(strings[i])))
            return pl_fail(err, PL_ERR_ARGUMENT, "stop[%zu] is not UTF-8", i);
    pl_stop *stop = calloc(1, sizeof *stop);
    if (!stop)
        return pl_fail_memory(err, sizeof *stop, "stop strings");
    pl_status status = pl_needles_create(strings, n, "stop", &stop->needles, err);
    if (status != PL_OK)
        goto fail;
    stop->room = FIRST_ROOM;
    stop->text = malloc(stop->room);
    if (!stop->text) {
        status = pl_fail_memory(err, stop->room, "stop strings");
        goto fail;
    }
    stop->matched = -1;
    *out = stop;
    return PL_OK;

fail:
    pl_stop_free(stop);
    return status;
}

void pl_stop_free(pl_stop *stop)
{
    if (!stop)
        return;
    pl_needles_free(stop->needles);
    free(stop->text);
    free(stop);
}

void pl_stop_reset(pl_stop *stop)
{
    pl_needles_reset(stop->needles);
    stop->n = 0;
    stop->shown = 0;
    stop->matched = -1;
}

static pl_status make_room(pl_stop *stop, size_t n, pl_error *err)
{
    if (n <= stop->room - stop->n)
        return PL_OK;
    if (n > SIZE_MAX / 2 - stop->n)
        return pl_fail_memory(err, n, "text");
    size_t room = 2 * (stop->n + n);
    char *text = realloc(stop->text, room);
    if (!text)
        return pl_fail_memory(err, room, "text");
    stop->text = text;
    stop->room = room;
    return PL_OK;
}

static void forget_shown(pl_stop *stop)
{
    stop->n -= stop->shown;
    memmove(stop->text, stop->text + stop->shown, stop->n);
    stop->shown = 0;
}

pl_status pl_stop_feed(pl_stop *stop, const char *text, size_t n, const char **shown, size_t *n_shown, int32_t *matched,
                       pl_error *err)
{
    forget_shown(stop);
    if (stop->matched < 0) {
        PL_TRY(make_room(stop, n, err));
        size_t i = 0;
        while (i < n && stop->matched < 0) {
            stop->text[stop->n++] = text[i];
            stop->matched = pl_needles_feed(stop->needles, text[i++]);
        }
        if (stop->matched >= 0)
            stop->n -= pl_needles_length(stop->needles, stop->matched);
        stop->shown = stop->matched >= 0 ? stop->n : stop->n - pl_needles_pending(stop->needles);
    }
    *shown = stop->text;
    *n_shown = stop->shown;
    *matched = stop->matched;
    return PL_OK;
}

void pl_stop_finish(pl_stop *stop, const char **shown, size_t *n_shown)
{
    forget_shown(stop);
    pl_needles_reset(stop->needles);
    stop->shown = stop->n;
    *shown = stop->text;
    *n_shown = stop->n;
}
