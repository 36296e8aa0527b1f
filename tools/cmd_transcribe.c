/* pleiad transcribe: speech to text, from a recording or as it is spoken. */
#include <string.h>
#include <unistd.h>

#include "host/base/clock.h"
#include "host/base/progress.h"
#include "tools/commands.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/media_clips.h"
#include "tools/media_live.h"
#include "tools/media_scribe.h"
#include "tools/slurp.h"

#define SUBTITLE_SECONDS 10 /* of a clip: more text than that hides the picture */

static double clip_seconds(const pl_options *options)
{
    if (options->clip > 0)
        return options->clip;
    bool subtitles = options->text_format == PL_TEXT_SRT || options->text_format == PL_TEXT_VTT;
    return subtitles ? SUBTITLE_SECONDS : PL_CLIP_SECONDS;
}

static pl_status check_options(const pl_options *options, pl_error *err)
{
    if (options->live && strcmp(options->in_file, "-") != 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "--live reads standard input, '-', not '%.200s'", options->in_file);
    if (strcmp(options->in_file, "-") == 0 && isatty(STDIN_FILENO))
        return pl_fail(err, PL_ERR_ARGUMENT, "standard input is a terminal: pipe sound into it, as from%s",
                       options->live ? " arecord -f S16_LE -r 16000 -t raw" : " cat talk.mp3");
    if (options->clip > 0 && options->clip < 1)
        return pl_fail(err, PL_ERR_ARGUMENT, "--clip takes 0, or 1 to 30 seconds, not %g", (double)options->clip);
    if (options->json && options->text_format != PL_TEXT_TXT && options->text_format != PL_TEXT_JSON)
        return pl_fail(err, PL_ERR_ARGUMENT, "--json and --format say two things");
    return PL_OK;
}

static pl_status transcribe_clip(pl_scribe *s, const pl_clip *clip, pl_progress *progress, pl_error *err)
{
    pl_status status;
    pl_media *sound = NULL;
    pl_tokens prompt = {.ids = NULL};
    pl_answer answer = {.tokens = NULL};
    pl_media_params params = {.stop = pl_interrupt_poll};
    const pl_speech_segment *segment;
    PL_TRY_GOTO(pl_media_from_samples(s->opened.engine, clip->samples, clip->n, &params, &sound, err));
    PL_TRY_GOTO(pl_scribe_prompt(s, sound, &prompt, err));
    PL_TRY_GOTO(pl_answer_make(&s->options, s->seed, false, &s->opened, &prompt, &answer, err));
    if (answer.made.finish == PL_FINISH_CANCEL)
        PL_TRY_GOTO(pl_fail(err, PL_ERR_CANCELLED, "stopped"));
    PL_TRY_GOTO(pl_scribe_keep(s, clip->start, clip->end, &answer.text, &segment, err));
    pl_progress_hide(progress);
    PL_TRY_GOTO(pl_scribe_print(s, segment, err));
fail:
    pl_answer_free(&answer);
    pl_tokens_free(&prompt);
    pl_media_free(sound);
    return status;
}

static pl_status transcribe_clips(pl_scribe *s, pl_clips *clips, double *seconds, pl_error *err)
{
    pl_status status;
    pl_clip clip;
    pl_progress progress;
    pl_progress_start(&progress, "transcribing", " s", clips->seconds, !s->options.quiet);
    pl_progress_update(&progress, 0);
    PL_TRY_GOTO(pl_clips_next(clips, &clip, err));
    while (clip.n) {
        PL_TRY_GOTO(transcribe_clip(s, &clip, &progress, err));
        *seconds = clip.end;
        pl_progress_update(&progress, clip.end);
        PL_TRY_GOTO(pl_clips_next(clips, &clip, err));
    }
fail:
    pl_progress_finish(&progress);
    return status;
}

static pl_status transcribe_file(const pl_options *options, pl_error *err)
{
    pl_status status;
    pl_scribe scribe = {.n = 0};
    pl_clips clips = {.reader = NULL};
    pl_strbuf bytes = {.data = NULL};
    double seconds = 0;
    const char *path = strcmp(options->in_file, "-") == 0 ? NULL : options->in_file;
    PL_TRY_GOTO(pl_slurp(options->in_file, &bytes, err));
    PL_TRY_GOTO(pl_clips_open(bytes.data, bytes.n, path, clip_seconds(options), &clips, err));
    PL_TRY_GOTO(pl_scribe_open(options, &scribe, err));
    pl_interrupt_catch();
    double begin = pl_clock_seconds();
    PL_TRY_GOTO(transcribe_clips(&scribe, &clips, &seconds, err));
    PL_TRY_GOTO(pl_scribe_finish(&scribe, seconds, err));
    double took = pl_clock_seconds() - begin;
    pl_console_note(options, "%.1f s of sound in %.1f s, %.1f times as fast as it was spoken; path %s", seconds, took,
                    seconds / took, pl_session_path(scribe.opened.session));
fail:
    pl_scribe_close(&scribe);
    pl_clips_close(&clips);
    pl_strbuf_free(&bytes);
    return status;
}

pl_status pl_cmd_transcribe(const pl_options *options, pl_error *err)
{
    PL_TRY(check_options(options, err));
    return options->live ? pl_transcribe_live(options, err) : transcribe_file(options, err);
}
