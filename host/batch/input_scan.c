#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "host/batch/input_parts.h"

#define PIECE_BYTES ((size_t)4 << 20) /* read at once, and what its lines are looked at together */
#define GRAIN 4
#define LEAST_LINES 1024

static const char mark[3] = "\xef\xbb\xbf";

typedef struct scan {
    pl_input *in;
    const pl_input_params *params;
    XXH3_state_t *hash;
    char *buf;
    size_t fill, capacity;
    uint64_t read; /* bytes of the file so far; the last `fill` of them are in buf */
    size_t begin;  /* in buf: of the line that has not ended yet */
    bool skipping; /* it is too long; what was read of it is gone, it began at `skipped` */
    uint64_t skipped;
    uint32_t number; /* of the line */
    size_t looked;   /* lines */
    atomic_bool no_memory;
} scan;

/* Grows all arrays, or says that it cannot; what they hold stays. */
static pl_status make_room(pl_input *in, pl_error *err)
{
    if (in->n < in->capacity)
        return PL_OK;
    if (in->n >= UINT32_MAX / 2)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: has more than %zu lines", in->path, in->n);
    size_t capacity = in->capacity ? in->capacity * 2 : LEAST_LINES;
    pl_place *places = realloc(in->places, capacity * sizeof *places);
    if (places)
        in->places = places;
    uint64_t *ids = places ? realloc(in->ids, capacity * sizeof *ids) : NULL;
    if (ids)
        in->ids = ids;
    pl_order_key *keys = ids ? realloc(in->keys, capacity * sizeof *keys) : NULL;
    if (!keys)
        return pl_fail_memory(err, capacity * (sizeof *places + sizeof *ids + sizeof *keys), "the index of the lines");
    in->keys = keys;
    in->capacity = capacity;
    return PL_OK;
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    return true;
}

static pl_status add_line(scan *s, uint64_t offset, uint64_t bytes, bool too_long, pl_error *err)
{
    pl_input *in = s->in;
    PL_TRY(make_room(in, err));
    uint32_t shown = bytes < UINT32_MAX ? (uint32_t)bytes : UINT32_MAX;
    in->places[in->n] = (pl_place){
        .offset = offset, .fault = too_long ? PL_PLACE_TOO_LONG : PL_PLACE_GOOD, .bytes = shown, .number = s->number};
    in->ids[in->n] = 0;
    in->keys[in->n] = (pl_order_key){.bytes = shown};
    in->n++;
    return PL_OK;
}

/* A line ends before buf[end]. */
static pl_status end_line(scan *s, size_t end, pl_error *err)
{
    const char *text = s->buf + s->begin;
    uint64_t at = s->read - s->fill + s->begin;
    size_t n = end - s->begin;
    s->begin = end + 1;
    if (s->number == UINT32_MAX)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: has more than %u lines", s->in->path, UINT32_MAX - 1);
    s->number++;
    if (s->skipping) {
        s->skipping = false;
        return add_line(s, s->skipped, at + n - s->skipped, true, err);
    }
    n -= n && text[n - 1] == '\r';
    if (n > s->in->most_bytes)
        return add_line(s, at, n, true, err);
    return is_blank(text, n) ? PL_OK : add_line(s, at, n, false, err);
}

static void look_at(void *ctx, int64_t begin, int64_t end, int thread)
{
    (void)thread;
    scan *s = ctx;
    pl_input *in = s->in;
    for (size_t i = s->looked + (size_t)begin; i < s->looked + (size_t)end; i++) {
        pl_place *place = &in->places[i];
        if (place->fault)
            continue;
        pl_batch_line line;
        pl_line_fault fault;
        const char *text = s->buf + (place->offset - (s->read - s->fill));
        pl_status status = pl_batch_line_parse(text, place->bytes, &line, &fault, NULL);
        if (status == PL_ERR_MEMORY) {
            atomic_store(&s->no_memory, true);
            return;
        }
        if (status == PL_OK)
            pl_order_key_make(line.url, line.body, &in->keys[i]);
        else
            place->fault = PL_PLACE_FAULTY;
        in->ids[i] = line.custom_id ? pl_line_id_hash(line.custom_id) : 0;
        pl_batch_line_free(&line);
    }
}

/* The lines that ended in what was read last; their text is still there. */
static pl_status look_at_new(scan *s, pl_error *err)
{
    int64_t n = (int64_t)(s->in->n - s->looked);
    if (s->params->pool)
        pl_pool_for(s->params->pool, n, GRAIN, look_at, s);
    else
        look_at(s, 0, n, 0);
    if (s->no_memory)
        return pl_fail_memory(err, s->in->most_bytes, "a line of the input");
    s->looked = s->in->n;
    return PL_OK;
}

/* The line that has not ended goes to the front, and if it fills the buffer, that grows; or the line is too long. */
static pl_status keep_rest(scan *s, pl_error *err)
{
    size_t rest = s->fill - s->begin;
    if (!s->skipping && rest >= s->in->most_bytes + 2) {
        s->skipping = true;
        s->skipped = s->read - rest;
    }
    if (s->skipping)
        rest = 0;
    memmove(s->buf, s->buf + s->fill - rest, rest);
    s->fill = rest;
    s->begin = 0;
    if (rest < s->capacity)
        return PL_OK;
    char *grown = realloc(s->buf, s->capacity * 2);
    if (!grown)
        return pl_fail_memory(err, s->capacity * 2, "a line of the input");
    s->buf = grown;
    s->capacity *= 2;
    return PL_OK;
}

static pl_status read_piece(scan *s, pl_error *err)
{
    size_t left = s->in->file.size - s->read, room = s->capacity - s->fill, n = left < room ? left : room;
    char *to = s->buf + s->fill;
    PL_TRY(pl_mapfile_read(&s->in->file, s->in->path, s->read, to, n, err));
    XXH3_64bits_update(s->hash, to, n);
    if (s->read == 0 && n >= sizeof mark && memcmp(to, mark, sizeof mark) == 0)
        s->begin = sizeof mark;
    s->read += n;
    s->fill += n;
    return PL_OK;
}

static pl_status scan_piece(scan *s, pl_error *err)
{
    PL_TRY(read_piece(s, err));
    for (const char *end; (end = memchr(s->buf + s->begin, '\n', s->fill - s->begin));)
        PL_TRY(end_line(s, (size_t)(end - s->buf), err));
    bool last = s->read == s->in->file.size;
    if (last && (s->begin < s->fill || s->skipping)) {
        PL_TRY(end_line(s, s->fill, err));
        s->begin = s->fill;
    }
    PL_TRY(look_at_new(s, err));
    if (s->params->progress)
        s->params->progress(s->params->progress_user, "reading requests", (double)s->read / (double)s->in->file.size);
    return last ? PL_OK : keep_rest(s, err);
}

pl_status pl_input_scan(pl_input *input, const pl_input_params *params, pl_error *err)
{
    pl_status status = PL_OK;
    scan s = {.in = input, .params = params, .hash = XXH3_createState(), .capacity = PIECE_BYTES};
    s.buf = malloc(s.capacity);
    if (!s.hash || !s.buf) {
        status = pl_fail_memory(err, s.capacity, "reading the input");
        goto fail;
    }
    XXH3_64bits_reset(s.hash);
    while (s.read < input->file.size)
        PL_TRY_GOTO(scan_piece(&s, err));
    input->fingerprint = XXH3_64bits_digest(s.hash);
fail:
    XXH3_freeState(s.hash);
    free(s.buf);
    return status;
}
