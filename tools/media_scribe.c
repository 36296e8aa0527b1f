#include "tools/media_scribe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "tools/console.h"
#include "tools/slurp.h"

#define CONTEXT 2048    /* a clip, what is asked, and more text than anybody says in 30 seconds */
#define MOST_TOKENS 512 /* of a clip's text: an answer that goes on has lost its thread */

/* ---- opening ------------------------------------------------------------------------------------ */

static pl_status find_language(const char *option, const char *given, const char **out, pl_error *err)
{
    *out = given ? pl_speech_language(given) : NULL;
    if (!given || *out)
        return PL_OK;
    return pl_fail(err, PL_ERR_ARGUMENT,
                   "--%s takes a language, by its code (en, de-AT, yue) or English name, not '%.100s'", option, given);
}

static pl_speech_format format_of(const pl_options *options)
{
    static const pl_speech_format formats[] = {
        [PL_TEXT_TXT] = PL_SPEECH_TEXT,
        [PL_TEXT_SRT] = PL_SPEECH_SRT,
        [PL_TEXT_VTT] = PL_SPEECH_VTT,
        [PL_TEXT_JSON] = PL_SPEECH_VERBOSE_JSON,
    };
    return options->json ? PL_SPEECH_VERBOSE_JSON : formats[options->text_format];
}

static void put_part(pl_json *json, const char *type, const char *text)
{
    pl_json_begin_object(json);
    pl_json_put_string(json, "type", type);
    if (text)
        pl_json_put_string(json, "text", text);
    pl_json_end_object(json);
}

static pl_status write_chat(pl_scribe *s, pl_error *err)
{
    pl_strbuf ask = {.data = NULL};
    pl_json json = pl_json_to_buffer();
    pl_speech_ask(&s->task, &ask);
    pl_json_begin_array(&json);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "role", "user");
    pl_json_key_array(&json, "content");
    put_part(&json, "text", pl_strbuf_string(&ask));
    put_part(&json, "audio", NULL);
    pl_json_end_array(&json);
    pl_json_end_object(&json);
    pl_json_end_array(&json);
    s->chat = json.buf;
    s->chat.failed |= ask.failed;
    pl_strbuf_free(&ask);
    return pl_strbuf_check(&s->chat, err);
}

static pl_status open_model(pl_scribe *s, pl_error *err)
{
    pl_opened *opened = &s->opened;
    pl_engine_params params = pl_opened_params(&s->options);
    PL_TRY(pl_opened_model(&s->options, opened, err));
    if (!pl_model_takes(opened->model, PL_MEDIA_AUDIO))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: the model has nothing to hear with; --mmproj FILE gives it that",
                       s->options.model);
    int32_t most = pl_model_context(opened->model);
    params.context = most < CONTEXT ? most : CONTEXT;
    return pl_opened_engine(&s->options, &params, opened, err);
}

pl_status pl_scribe_open(const pl_options *options, pl_scribe *out, pl_error *err)
{
    pl_status status;
    *out = (pl_scribe){.options = *options, .format = format_of(options), .seed = pl_answer_seed(options)};
    out->options.n_predict = MOST_TOKENS;
    out->task.hint = options->prompt;
    PL_TRY_GOTO(find_language("language", options->language, &out->task.language, err));
    PL_TRY_GOTO(find_language("translate", options->translate, &out->task.into, err));
    PL_TRY_GOTO(write_chat(out, err));
    if (options->out_file)
        PL_TRY_GOTO(pl_outfile_open(options->out_file, &out->out, err));
    PL_TRY_GOTO(open_model(out, err));
    return PL_OK;
fail:
    pl_scribe_close(out);
    return status;
}

void pl_scribe_close(pl_scribe *s)
{
    for (size_t i = 0; i < s->n; i++)
        free((void *)(uintptr_t)s->segments[i].text);
    free(s->segments);
    pl_strbuf_free(&s->chat);
    pl_outfile_abort(&s->out);
    pl_opened_free(&s->opened);
    *s = (pl_scribe){.n = 0};
}

/* ---- segments ----------------------------------------------------------------------------------- */

pl_status pl_scribe_prompt(const pl_scribe *s, pl_media *sound, pl_tokens *out, pl_error *err)
{
    return pl_tokenize_chat_media(s->opened.model, s->chat.data, s->chat.n, true, &sound, 1, out, err);
}

static pl_status reserve(pl_scribe *s, pl_error *err)
{
    if (s->n < s->room)
        return PL_OK;
    size_t room = 2 * s->room + 16;
    pl_speech_segment *segments = realloc(s->segments, room * sizeof *segments);
    if (!segments)
        return pl_fail_memory(err, room * sizeof *segments, "segments");
    s->segments = segments;
    s->room = room;
    return PL_OK;
}

static double to_ms(double seconds)
{
    return round(seconds * 1000) / 1000;
}

pl_status pl_scribe_keep(pl_scribe *s, double start, double end, const pl_strbuf *answer, const pl_speech_segment **out,
                         pl_error *err)
{
    size_t n;
    PL_TRY(reserve(s, err));
    const char *said = pl_speech_answer(&s->task, pl_strbuf_string(answer), answer->n, &n);
    char *text = strndup(said, n);
    if (!text)
        return pl_fail_memory(err, n + 1, "segment");
    for (char *p = text; *p; p++)
        *p = *p == '\n' ? ' ' : *p;
    s->segments[s->n] = (pl_speech_segment){.start = to_ms(start), .end = to_ms(end), .text = text};
    if (out)
        *out = &s->segments[s->n];
    s->n++;
    return PL_OK;
}

FILE *pl_scribe_file(const pl_scribe *s)
{
    return s->out.file ? s->out.file : stdout;
}

static pl_status write_text(const pl_scribe *s, pl_strbuf *text, pl_error *err)
{
    pl_status status = pl_strbuf_check(text, err);
    if (status == PL_OK && text->n)
        fwrite(text->data, 1, text->n, pl_scribe_file(s));
    pl_strbuf_free(text);
    return status == PL_OK && !s->out.file ? pl_console_flush(err) : status;
}

static bool in_pieces(const pl_scribe *s)
{
    return s->format != PL_SPEECH_VERBOSE_JSON;
}

pl_status pl_scribe_print(pl_scribe *s, const pl_speech_segment *segment, pl_error *err)
{
    pl_strbuf text = {.data = NULL};
    if (!in_pieces(s) || !*segment->text)
        return PL_OK;
    if (!s->printed)
        pl_speech_print_head(s->format, &text);
    pl_speech_print_segment(s->format, ++s->printed, segment, &text);
    return write_text(s, &text, err);
}

pl_status pl_scribe_finish(pl_scribe *s, double duration, pl_error *err)
{
    pl_strbuf text = {.data = NULL};
    if (!in_pieces(s) && !s->options.live)
        pl_speech_print(&(pl_speech){.task = s->task, .duration = duration, .segments = s->segments, .n = s->n},
                        s->format, &text);
    else if (in_pieces(s) && !s->printed)
        pl_speech_print_head(s->format, &text);
    PL_TRY(write_text(s, &text, err));
    return s->out.file ? pl_outfile_commit(&s->out, err) : PL_OK;
}
