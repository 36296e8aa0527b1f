#include "tools/media_shown.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/progress.h"
#include "tools/console.h"
#include "tools/interrupt.h"
#include "tools/media_clips.h"
#include "tools/media_film.h"
#include "tools/slurp.h"

#define STDIN_NAME "standard input"

/* ---- parts -------------------------------------------------------------------------------------- */

static void cut(pl_showing *s, size_t n)
{
    while (s->n > n) {
        pl_shown_part *part = &s->parts[--s->n];
        const int32_t *ids;
        s->tokens -= pl_media_ids(part->media, &ids);
        pl_media_free(part->media);
        free(part->text);
        free(part->file);
    }
}

void pl_showing_free(pl_showing *showing)
{
    cut(showing, 0);
    free(showing->parts);
    *showing = (pl_showing){.parts = NULL};
}

pl_status pl_showing_take(pl_showing *s, const char *text, const char *file, pl_media *media, pl_error *err)
{
    pl_shown_part part = {.text = text ? strdup(text) : NULL, .file = strdup(file), .media = media};
    pl_shown_part *parts = s->parts;
    if (s->n == s->room) {
        parts = realloc(s->parts, (2 * s->room + 4) * sizeof *parts);
        if (parts) {
            s->parts = parts;
            s->room = 2 * s->room + 4;
        }
    }
    if (!parts || !part.file || (text && !part.text)) {
        pl_media_free(media);
        free(part.text);
        free(part.file);
        return pl_fail_memory(err, (2 * s->room + 4) * sizeof *parts, file);
    }
    const int32_t *ids;
    s->tokens += pl_media_ids(media, &ids);
    s->parts[s->n++] = part;
    return PL_OK;
}

static bool has_sound(const char *kind)
{
    return strcmp(kind, "audio") == 0;
}

static const char *placeholder(const pl_media *media)
{
    return pl_media_kind_of(media) == PL_MEDIA_IMAGE ? "<image_soft_token>" : "<audio_soft_token>";
}

void pl_showing_put(const pl_showing *showing, bool files, pl_json *json)
{
    for (size_t i = 0; i < showing->n; i++) {
        const pl_shown_part *part = &showing->parts[i];
        if (part->text) {
            pl_json_begin_object(json);
            pl_json_put_string(json, "type", "text");
            pl_json_put_string(json, "text", part->text);
            pl_json_end_object(json);
        }
        pl_json_begin_object(json);
        pl_json_put_string(json, "type", pl_media_kind_name(pl_media_kind_of(part->media)));
        if (files)
            pl_json_put_string(json, "file", part->file);
        pl_json_end_object(json);
    }
}

void pl_showing_list(const pl_showing *showing, pl_media **media)
{
    for (size_t i = 0; i < showing->n; i++)
        media[i] = showing->parts[i].media;
}

void pl_showing_print(const pl_showing *showing, pl_strbuf *out)
{
    for (size_t i = 0; i < showing->n; i++) {
        if (showing->parts[i].text)
            pl_strbuf_add_text(out, showing->parts[i].text);
        pl_strbuf_add_text(out, placeholder(showing->parts[i].media));
    }
}

/* ---- checks ------------------------------------------------------------------------------------- */

static pl_status check_tower(const char *kind, const pl_model *model, pl_error *err)
{
    if (pl_model_takes(model, has_sound(kind) ? PL_MEDIA_AUDIO : PL_MEDIA_IMAGE))
        return PL_OK;
    return pl_fail(err, PL_ERR_UNSUPPORTED, "the model has nothing to %s with; --mmproj FILE gives it that",
                   has_sound(kind) ? "hear" : "see");
}

pl_status pl_showing_check(const pl_options *options, const pl_model *model, pl_error *err)
{
    for (size_t i = 0; i < options->shown.n; i++) {
        const pl_shown *shown = &options->shown.items[i];
        if (check_tower(shown->kind, model, err) != PL_OK)
            return pl_fail_within(err, PL_ERR_UNSUPPORTED, "--%s %s", shown->kind, shown->file);
        if (strcmp(shown->file, "-") != 0 && access(shown->file, R_OK) != 0)
            return pl_fail(err, PL_ERR_IO, "%s: %s", shown->file, strerror(errno));
    }
    return PL_OK;
}

/* ---- files -------------------------------------------------------------------------------------- */

pl_media_params pl_showing_params(const pl_options *options)
{
    static const int32_t sides[] = {0, 256, 512, 768};
    return (pl_media_params){.image_side = sides[options->image_size], .stop = pl_interrupt_poll};
}

static pl_status add_image(pl_showing *s, const pl_options *options, const pl_opened *opened, const char *file,
                           const pl_strbuf *bytes, pl_error *err)
{
    pl_media *media;
    pl_media_params params = pl_showing_params(options);
    PL_TRY(pl_media_create(opened->engine, PL_MEDIA_IMAGE, bytes->data, bytes->n, file, &params, &media, err));
    return pl_showing_take(s, NULL, file, media, err);
}

/* So many more, before they are encoded. */
static pl_status check_clips(const pl_showing *s, const pl_opened *opened, const char *file, size_t n, pl_error *err)
{
    pl_engine_info info;
    pl_engine_describe(opened->engine, &info);
    size_t tokens = s->tokens + n * pl_model_media_ids(opened->model, PL_MEDIA_AUDIO);
    if (tokens < (size_t)info.context)
        return PL_OK;
    return pl_fail(err, PL_ERR_CONTEXT, "%s: what is heard would take %zu tokens; the context holds %d (--ctx-size)",
                   file, tokens, info.context);
}

static pl_status add_clips(pl_showing *s, const pl_options *options, const pl_opened *opened, const char *file,
                           pl_clips *clips, pl_progress *progress, pl_error *err)
{
    pl_clip clip;
    pl_media *media;
    pl_media_params params = pl_showing_params(options);
    PL_TRY(check_clips(s, opened, file, (size_t)(clips->seconds / PL_CLIP_SECONDS), err));
    PL_TRY(pl_clips_next(clips, &clip, err));
    while (clip.n) {
        PL_TRY(check_clips(s, opened, file, 1, err));
        PL_TRY(pl_media_from_samples(opened->engine, clip.samples, clip.n, &params, &media, err));
        PL_TRY(pl_showing_take(s, NULL, file, media, err));
        pl_progress_update(progress, clip.end);
        PL_TRY(pl_clips_next(clips, &clip, err));
    }
    return PL_OK;
}

static pl_status add_recording(pl_showing *s, const pl_options *options, const pl_opened *opened, const char *path,
                               const pl_strbuf *bytes, pl_error *err)
{
    pl_clips clips;
    pl_progress progress;
    const char *name = path ? path : STDIN_NAME;
    PL_TRY(pl_clips_open(bytes->data, bytes->n, path, PL_CLIP_SECONDS, &clips, err));
    pl_progress_start(&progress, name, " s", clips.seconds, !options->quiet);
    pl_status status = add_clips(s, options, opened, name, &clips, &progress, err);
    pl_progress_finish(&progress);
    pl_clips_close(&clips);
    return status;
}

static pl_status add_file(pl_showing *s, const pl_options *options, const pl_opened *opened, const pl_shown *what,
                          pl_error *err)
{
    pl_strbuf bytes = {.data = NULL};
    const char *path = strcmp(what->file, "-") == 0 ? NULL : what->file;
    if (strcmp(what->kind, "video") == 0)
        return path ? pl_showing_add_film(s, options, opened, path, err)
                    : pl_fail(err, PL_ERR_ARGUMENT, "--video takes a file, not standard input");
    pl_status status = pl_slurp(what->file, &bytes, err);
    if (status == PL_OK)
        status = has_sound(what->kind) ? add_recording(s, options, opened, path, &bytes, err)
                                       : add_image(s, options, opened, path ? path : STDIN_NAME, &bytes, err);
    pl_strbuf_free(&bytes);
    return status;
}

pl_status pl_showing_add(pl_showing *showing, const pl_options *options, const pl_opened *opened, const pl_shown *what,
                         pl_error *err)
{
    size_t before = showing->n, tokens = showing->tokens;
    pl_status status = check_tower(what->kind, opened->model, err);
    if (status == PL_OK)
        status = add_file(showing, options, opened, what, err);
    if (status != PL_OK)
        cut(showing, before);
    else
        pl_console_detail(options, "%s: %zu tokens", what->file, showing->tokens - tokens);
    return status;
}

pl_status pl_showing_add_all(pl_showing *showing, const pl_options *options, const pl_opened *opened, pl_error *err)
{
    for (size_t i = 0; i < options->shown.n; i++)
        PL_TRY(pl_showing_add(showing, options, opened, &options->shown.items[i], err));
    return PL_OK;
}
