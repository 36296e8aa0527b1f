#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* F_SETPIPE_SZ */
#endif

#include "tools/media_live.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/base/json_out.h"
#include "host/media/sound.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/media_pauses.h"
#include "tools/media_scribe.h"
#include "tools/slurp.h"

#define PIPE_BYTES (1 << 20)         /* half a minute that waits while an answer is made */
#define BLOCK (5 * PL_PAUSE_FRAME)   /* samples read at once: 0.1 s */
#define BEFORE (15 * PL_PAUSE_FRAME) /* samples from before the first loud one */
#define LONGEST (28 * PL_SOUND_RATE) /* samples of speech without a pause */

typedef struct live {
    pl_scribe scribe;
    pl_tokens around; /* a prompt with a sound at [from, to) */
    size_t from, to;
    int32_t *prompt; /* as far as it is known */
    size_t room;
    pl_listener *listener; /* NULL: nobody speaks */
    pl_pauses pauses;
    float block[BLOCK]; /* samples not looked at yet */
    size_t n_block;
    char odd; /* the first byte of a sample */
    bool has_odd;
    float before[BEFORE]; /* the last ones without speech */
    size_t n_before;
    size_t heard, spoken; /* samples: of all, of the one who speaks */
    double arrived;       /* when the last block was there */
} live;

/* ---- the prompt --------------------------------------------------------------------------------- */

/* What stands around a sound is the same for each: learnt from a second of silence, which loads the tower besides. */
static pl_status learn_prompt(live *l, pl_error *err)
{
    pl_status status;
    pl_media *silence = NULL;
    const int32_t *ids;
    float *samples = calloc(PL_SOUND_RATE, sizeof *samples);
    if (!samples)
        return pl_fail_memory(err, PL_SOUND_RATE * sizeof *samples, "prompt");
    PL_TRY_GOTO(pl_media_from_samples(l->scribe.opened.engine, samples, PL_SOUND_RATE, NULL, &silence, err));
    PL_TRY_GOTO(pl_scribe_prompt(&l->scribe, silence, &l->around, err));
    size_t n = pl_media_ids(silence, &ids);
    while (l->from + n < l->around.n && memcmp(l->around.ids + l->from, ids, n * sizeof *ids) != 0)
        l->from++;
    l->to = l->from + n;
fail:
    pl_media_free(silence);
    free(samples);
    return status;
}

/* The prompt with what has been heard; with `end`, to its end. *n: how long it is. */
static pl_status put_prompt(live *l, bool end, size_t *n, pl_error *err)
{
    const int32_t *ids;
    size_t n_ids = pl_listener_ids(l->listener, &ids), n_end = end ? l->around.n - l->to : 0;
    *n = l->from + n_ids + n_end;
    if (*n > l->room) {
        int32_t *prompt = realloc(l->prompt, 2 * *n * sizeof *prompt);
        if (!prompt)
            return pl_fail_memory(err, 2 * *n * sizeof *prompt, "prompt");
        l->prompt = prompt;
        l->room = 2 * *n;
    }
    memcpy(l->prompt, l->around.ids, l->from * sizeof *ids);
    if (n_ids)
        memcpy(l->prompt + l->from, ids, n_ids * sizeof *ids);
    memcpy(l->prompt + l->from + n_ids, l->around.ids + l->to, n_end * sizeof *ids);
    return PL_OK;
}

/* ---- text --------------------------------------------------------------------------------------- */

static pl_status print_line(live *l, const pl_speech_segment *segment, double first, double all, pl_error *err)
{
    FILE *file = pl_scribe_file(&l->scribe);
    pl_json json = pl_json_to_file(file);
    pl_json_begin_object(&json);
    pl_json_put_double(&json, "start", segment->start);
    pl_json_put_double(&json, "end", segment->end);
    pl_json_put_string(&json, "text", segment->text);
    pl_json_put_double(&json, "first_token_s", first);
    pl_json_put_double(&json, "delay_s", all);
    pl_json_end_object(&json);
    pl_json_newline(&json);
    return pl_json_flush(&json, file == stdout ? "standard output" : l->scribe.options.out_file, err);
}

/* Text appears token by token where it is nothing but the answer. */
static bool streams(const pl_scribe *s)
{
    return s->format == PL_SPEECH_TEXT && !s->task.into && !s->out.file;
}

static pl_status answer(live *l, pl_error *err)
{
    pl_status status;
    pl_scribe *s = &l->scribe;
    pl_answer made = {.tokens = NULL};
    const pl_speech_segment *segment;
    size_t n;
    PL_TRY_GOTO(pl_listener_finish(l->listener, err));
    PL_TRY_GOTO(put_prompt(l, true, &n, err));
    pl_tokens prompt = {.ids = l->prompt, .n = n};
    double begin = pl_clock_seconds();
    PL_TRY_GOTO(pl_answer_make(&s->options, s->seed, streams(s), &s->opened, &prompt, &made, err));
    double end = (double)l->heard / PL_SOUND_RATE;
    PL_TRY_GOTO(pl_scribe_keep(s, end - (double)l->spoken / PL_SOUND_RATE, end, &made.text, &segment, err));
    double first = begin - l->arrived + made.made.prompt_s;
    pl_console_detail(&s->options, "first token %.0f ms after the sound was there", 1000 * first);
    if (s->format == PL_SPEECH_VERBOSE_JSON)
        status = print_line(l, segment, first, pl_clock_seconds() - l->arrived, err);
    else if (!streams(s))
        status = pl_scribe_print(s, segment, err);
fail:
    pl_answer_free(&made);
    pl_listener_free(l->listener);
    l->listener = NULL;
    l->spoken = 0;
    return status;
}

/* ---- sound -------------------------------------------------------------------------------------- */

static pl_status hear(live *l, const float *samples, size_t n, pl_error *err)
{
    PL_TRY(pl_listener_hear(l->listener, samples, n, err));
    l->spoken += n;
    return PL_OK;
}

static void keep_before(live *l, const float *frame)
{
    if (l->n_before == BEFORE) {
        l->n_before -= PL_PAUSE_FRAME;
        memmove(l->before, l->before + PL_PAUSE_FRAME, l->n_before * sizeof *frame);
    }
    memcpy(l->before + l->n_before, frame, PL_PAUSE_FRAME * sizeof *frame);
    l->n_before += PL_PAUSE_FRAME;
}

static pl_status take_frame(live *l, const float *frame, pl_error *err)
{
    bool speaking = pl_pauses_hear(&l->pauses, frame);
    l->heard += PL_PAUSE_FRAME;
    if (!speaking && !l->listener) {
        keep_before(l, frame);
        return PL_OK;
    }
    if (!l->listener) {
        PL_TRY(pl_listener_create(l->scribe.opened.engine, &l->listener, err));
        PL_TRY(hear(l, l->before, l->n_before, err));
        l->n_before = 0;
    }
    PL_TRY(hear(l, frame, PL_PAUSE_FRAME, err));
    return speaking && l->spoken + PL_PAUSE_FRAME <= LONGEST ? PL_OK : answer(l, err);
}

static pl_status take_block(live *l, pl_error *err)
{
    size_t at = 0, n;
    for (; at + PL_PAUSE_FRAME <= l->n_block; at += PL_PAUSE_FRAME)
        PL_TRY(take_frame(l, l->block + at, err));
    l->n_block -= at;
    memmove(l->block, l->block + at, l->n_block * sizeof *l->block);
    if (!l->listener)
        return PL_OK;
    PL_TRY(put_prompt(l, false, &n, err));
    return pl_session_prepare(l->scribe.opened.session, l->prompt, n, err);
}

/* ---- input -------------------------------------------------------------------------------------- */

static void take_bytes(live *l, const unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (l->has_odd)
            l->block[l->n_block++] = (float)(int16_t)((unsigned char)l->odd | bytes[i] << 8) / 32768.0F;
        l->odd = (char)bytes[i];
        l->has_odd = !l->has_odd;
    }
}

/* Some more samples behind those in the block; *more: false at the end of the input, and on Ctrl-C. */
static pl_status read_some(live *l, bool *more, pl_error *err)
{
    unsigned char bytes[2 * BLOCK];
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    *more = false;
    if (poll(&input, 1, -1) < 0)
        return errno == EINTR ? PL_OK : pl_fail(err, PL_ERR_IO, "standard input: %s", strerror(errno));
    ssize_t n = read(STDIN_FILENO, bytes, 2 * (BLOCK - l->n_block) - l->has_odd);
    if (n < 0)
        return pl_fail(err, PL_ERR_IO, "standard input: %s", strerror(errno));
    l->arrived = pl_clock_seconds();
    take_bytes(l, bytes, (size_t)n);
    *more = n > 0 && !pl_interrupt_pending();
    return PL_OK;
}

static pl_status listen(live *l, pl_error *err)
{
    for (bool more = true; more;) {
        PL_TRY(read_some(l, &more, err));
        PL_TRY(take_block(l, err));
    }
    l->heard += l->n_block;
    if (!l->listener)
        return PL_OK;
    PL_TRY(hear(l, l->block, l->n_block, err));
    return answer(l, err);
}

pl_status pl_transcribe_live(const pl_options *options, pl_error *err)
{
    pl_status status;
    live *l = calloc(1, sizeof *l);
    if (!l)
        return pl_fail_memory(err, sizeof *l, "sound");
    fcntl(STDIN_FILENO, F_SETPIPE_SZ, PIPE_BYTES);
    PL_TRY_GOTO(pl_scribe_open(options, &l->scribe, err));
    pl_interrupt_catch();
    PL_TRY_GOTO(learn_prompt(l, err));
    pl_console_note(options, "listening; Ctrl-C ends it");
    PL_TRY_GOTO(listen(l, err));
    PL_TRY_GOTO(pl_scribe_finish(&l->scribe, (double)l->heard / PL_SOUND_RATE, err));
fail:
    pl_listener_free(l->listener);
    pl_tokens_free(&l->around);
    free(l->prompt);
    pl_scribe_close(&l->scribe);
    free(l);
    return status;
}
