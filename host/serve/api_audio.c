#include "host/serve/api_audio.h"

#include "host/media/track.h"
#include "host/media/transcript.h"
#include "host/serve/audio_form.h"
#include "host/serve/call.h"
#include "host/serve/openai_put.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CLIP_S 30.0
#define CLIP_LEAST_S 20.0 /* of all but the last: where sound is cut */
#define CLIP_TOKENS 1024  /* most of an answer */

/* A clip is a prompt, and a choice of the call. */
typedef struct speech {
    bool translation;
    pl_multipart_part file; /* in the body */
    pl_speech_task task;
    pl_speech_format format;
    pl_sound sound;
    double duration;
    size_t *cuts; /* [n_cuts] ends of clips */
    size_t n_cuts;
    int32_t next;   /* of a stream: the clip whose text is being told */
    size_t told;    /* bytes of it */
    bool any;       /* text of one before it was told */
    pl_strbuf text; /* all that was told */
} speech;

static speech *speech_of(const pl_call *call)
{
    return pl_call_asked(call)->format_data;
}

/* ---- reading ----------------------------------------------------------------------------------- */

static json_t *parse(pl_call *call, const char *body, size_t n, bool translation, pl_api_error *error)
{
    pl_error err;
    speech *s = pl_call_keep(call, sizeof *s);
    if (!s) {
        pl_fail_memory(&err, sizeof *s, "a call");
        *error = pl_api_error_of(&err);
        return NULL;
    }
    s->translation = translation;
    pl_call_set_data(call, s);
    return pl_audio_form_read(pl_call_content_type(call), body, n, &s->file, error);
}

static json_t *parse_transcription(pl_call *call, const char *body, size_t n, pl_api_error *error)
{
    return parse(call, body, n, false, error);
}

static json_t *parse_translation(pl_call *call, const char *body, size_t n, pl_api_error *error)
{
    return parse(call, body, n, true, error);
}

static const char *read_language(pl_fields *f)
{
    const char *text = pl_field_text(f, "language", NULL), *name = text ? pl_speech_language(text) : NULL;
    if (text && text[0] && !name)
        pl_field_fail(f, "language", "invalid_value",
                      "Invalid 'language': '%.40s' is no language that is known: ISO-639-1 codes are, as 'en'.", text);
    return name;
}

static void read_granularities(pl_fields *f, const speech *s)
{
    json_t *list = pl_field_array(f, "timestamp_granularities", 2);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *word = pl_field_text_at(f, "timestamp_granularities", list, i);
        if (strcmp(word, "segment") != 0)
            pl_field_fail(f, "timestamp_granularities", "unsupported_value",
                          "Unsupported value: '%.40s'. The model gives times of segments only: 'segment'.", word);
    }
    if (list && s->format != PL_SPEECH_VERBOSE_JSON)
        pl_field_fail(f, "timestamp_granularities", "invalid_value",
                      "'timestamp_granularities' needs the response_format 'verbose_json'.");
}

static void read_format(pl_fields *f, speech *s)
{
    static const char *const names[] = {"json", "text", "srt", "verbose_json", "vtt", NULL};
    static const pl_speech_format formats[] = {PL_SPEECH_JSON, PL_SPEECH_TEXT, PL_SPEECH_SRT, PL_SPEECH_VERBOSE_JSON,
                                               PL_SPEECH_VTT};
    s->format = formats[pl_field_choice(f, "response_format", 0, names)];
}

static void read_stream(pl_fields *f, const speech *s, pl_call_spec *spec)
{
    spec->stream = !s->translation && pl_field_bool(f, "stream", false);
    if (spec->stream && s->format != PL_SPEECH_JSON && s->format != PL_SPEECH_TEXT)
        pl_field_fail(f, "response_format", "invalid_value", "With 'stream', response_format is 'json' or 'text'.");
    if (!s->translation && pl_field_given(f, "include"))
        pl_field_fail(f, "include", "unsupported_parameter", "Unsupported parameter: 'include' is not supported here.");
    if (!s->translation)
        pl_field_ignore(f, "chunking_strategy");
}

static const char *keep_text(pl_call *call, pl_fields *f, const char *name)
{
    const char *text = pl_field_text(f, name, NULL);
    const char *kept = text ? pl_call_keep_text(call, text, strlen(text)) : NULL;
    if (text && !kept)
        pl_field_fail_of(f, name, &(pl_error){PL_ERR_MEMORY, "out of memory"});
    return kept;
}

static void read_fields(pl_call *call, pl_fields *f, speech *s, pl_call_spec *spec)
{
    pl_generation *g = &spec->request.generation;
    pl_call_read_common(call, f, spec);
    g->sampling.temperature = 0;
    pl_call_read_sampling(call, f, 1, spec);
    g->max_tokens = g->max_tokens < 0 || g->max_tokens > CLIP_TOKENS ? CLIP_TOKENS : g->max_tokens;
    s->task.language = read_language(f);
    s->task.into = s->translation ? pl_speech_language("english") : NULL;
    s->task.hint = keep_text(call, f, "prompt");
    read_format(f, s);
    read_granularities(f, s);
    read_stream(f, s, spec);
    if (!s->file.data)
        pl_field_fail(f, "file", "missing_required_parameter", "Missing required parameter: 'file'.");
}

static pl_status cut(speech *s, pl_error *err)
{
    size_t room = (size_t)(s->duration / CLIP_LEAST_S) + 2;
    s->cuts = calloc(room, sizeof *s->cuts);
    if (!s->cuts)
        return pl_fail_memory(err, room * sizeof *s->cuts, "cuts");
    s->n_cuts = pl_sound_split(s->sound.samples, s->sound.n, CLIP_S, s->cuts, room);
    assert(s->n_cuts > 0 && s->n_cuts <= room); /* no sound is empty */
    return PL_OK;
}

static bool decode(pl_call *call, speech *s, pl_call_spec *spec, pl_api_error *error)
{
    pl_error err;
    const pl_media_part part = {.kind = PL_MEDIA_AUDIO, .field = "file"};
    if (!pl_media_part_check(pl_call_service(call), &part, error))
        return false;
    const char *name = s->file.filename[0] ? s->file.filename : "file";
    pl_status status = pl_track_decode(s->file.data, s->file.n, 0, name, NULL, &s->sound, &err);
    if (status == PL_OK) {
        s->duration = (double)s->sound.n / PL_SOUND_RATE;
        status = cut(s, &err);
    }
    if (status == PL_OK) {
        spec->n_prompts = s->n_cuts;
        spec->prompts = pl_call_keep(call, s->n_cuts * sizeof *spec->prompts);
        status = spec->prompts ? PL_OK : pl_fail_memory(&err, s->n_cuts * sizeof *spec->prompts, "prompts");
    }
    if (status != PL_OK)
        *error = pl_media_error(&part, &err);
    return status == PL_OK;
}

static bool read_speech(pl_call *call, json_t *body, pl_call_spec *spec, pl_api_error *error)
{
    pl_fields f = pl_fields_of(body, error, "%s", "");
    speech *s = speech_of(call);
    spec->prompt_field = "file";
    read_fields(call, &f, s, spec);
    return pl_fields_done(&f) && decode(call, s, spec, error);
}

/* ---- prompts ----------------------------------------------------------------------------------- */

static pl_status tell(const pl_call *call, const speech *s, pl_media_part *part, pl_tokens *out, pl_error *err)
{
    pl_conversation *c;
    pl_strbuf text = {0};
    pl_status status;
    PL_TRY(pl_conversation_create(&c, err));
    pl_speech_ask(&s->task, &text);
    if (text.failed) {
        status = pl_fail_memory(err, text.n, "a prompt");
    } else {
        pl_conversation_say(c, PL_SPEAKER_USER, text.data, text.n);
        pl_conversation_show(c, part);
        status = pl_conversation_tokens(c, pl_service_model(pl_call_service(call)), out, err);
    }
    pl_strbuf_free(&text);
    pl_conversation_free(c);
    return status;
}

static bool make_prompt(pl_call *call, size_t i, const pl_media_stop *stop, pl_tokens *out, pl_api_error *error)
{
    const speech *s = speech_of(call);
    pl_media_part part = {.kind = PL_MEDIA_AUDIO, .field = "file"};
    pl_error err = {.message = ""};
    size_t from = i ? s->cuts[i - 1] : 0;
    pl_status status = pl_media_part_encode_clip(pl_call_service(call), &part, s->sound.samples + from,
                                                 s->cuts[i] - from, stop, &err);
    if (status == PL_OK)
        status = tell(call, s, &part, out, &err);
    if (status != PL_OK)
        *error = pl_media_error(&part, &err);
    pl_media_part_free(&part);
    return status == PL_OK;
}

static void release(pl_call *call)
{
    speech *s = speech_of(call);
    if (s)
        pl_sound_free(&s->sound);
}

static void free_speech(pl_call *call)
{
    speech *s = speech_of(call);
    if (!s)
        return;
    free(s->cuts);
    pl_strbuf_free(&s->text);
}

/* ---- writing ----------------------------------------------------------------------------------- */

static const char *answer_of(const pl_call *call, int32_t i, size_t *n)
{
    const pl_strbuf *text = &pl_call_choice_at(call, i)->text;
    return pl_speech_answer(&speech_of(call)->task, text->data ? text->data : "", text->n, n);
}

/* All answers' texts, one after another, each with a NUL. */
static bool collect(const pl_call *call, pl_speech_segment *segments, size_t *offsets, pl_strbuf *texts)
{
    const speech *s = speech_of(call);
    for (size_t i = 0; i < s->n_cuts; i++) {
        size_t n;
        const char *text = answer_of(call, (int32_t)i, &n);
        offsets[i] = texts->n;
        pl_strbuf_add(texts, text, n);
        pl_strbuf_add(texts, "", 1);
        segments[i].start = i ? (double)s->cuts[i - 1] / PL_SOUND_RATE : 0;
        segments[i].end = (double)s->cuts[i] / PL_SOUND_RATE;
    }
    for (size_t i = 0; i < s->n_cuts && !texts->failed; i++)
        segments[i].text = texts->data + offsets[i];
    return !texts->failed;
}

static const char *plain(pl_call *call, pl_strbuf *out)
{
    const speech *s = speech_of(call);
    pl_speech_segment *segments = calloc(s->n_cuts, sizeof *segments);
    size_t *offsets = calloc(s->n_cuts, sizeof *offsets);
    pl_strbuf texts = {0};
    if (segments && offsets && collect(call, segments, offsets, &texts)) {
        const pl_speech all = {.task = s->task, .duration = s->duration, .segments = segments, .n = s->n_cuts};
        pl_speech_print(&all, s->format, out);
    } else {
        out->failed = true;
    }
    pl_strbuf_free(&texts);
    free(segments);
    free(offsets);
    return s->format == PL_SPEECH_JSON || s->format == PL_SPEECH_VERBOSE_JSON ? "application/json"
                                                                              : "text/plain; charset=utf-8";
}

/* ---- a stream: the clips' texts in order, whichever is answered first -------------------------- */

static void put_delta(speech *s, const char *text, size_t n, pl_strbuf *out)
{
    pl_json json = pl_json_to_buffer();
    pl_strbuf_add(&s->text, text, n);
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "type", "transcript.text.delta");
    pl_json_key(&json, "delta");
    pl_json_text(&json, text, n);
    pl_json_end_object(&json);
    pl_call_event(out, NULL, &json);
}

/* What is there of the clip whose turn it is, and was not told. White space may turn out to be its end. */
static void tell_more(pl_call *call, pl_strbuf *out)
{
    speech *s = speech_of(call);
    size_t n;
    const char *text = answer_of(call, s->next, &n);
    if (n <= s->told)
        return;
    if (s->told == 0 && s->any)
        put_delta(s, " ", 1, out);
    put_delta(s, text + s->told, n - s->told, out);
    s->told = n;
}

static void stream_piece(pl_call *call, int32_t choice, const pl_call_piece *piece, pl_strbuf *out)
{
    (void)piece;
    if (choice == speech_of(call)->next)
        tell_more(call, out);
}

static void stream_choice_done(pl_call *call, int32_t choice, pl_strbuf *out)
{
    speech *s = speech_of(call);
    (void)choice;
    while (s->next < pl_call_choices(call) && pl_call_choice_at(call, s->next)->done) {
        tell_more(call, out);
        s->any = s->any || s->told;
        s->told = 0;
        s->next++;
    }
    if (s->next < pl_call_choices(call))
        tell_more(call, out);
}

static void stream_end(pl_call *call, pl_strbuf *out)
{
    const speech *s = speech_of(call);
    pl_call_usage usage = pl_call_count(call);
    pl_json json = pl_json_to_buffer();
    pl_json_begin_object(&json);
    pl_json_put_string(&json, "type", "transcript.text.done");
    pl_json_key(&json, "text");
    pl_json_text(&json, s->text.data ? s->text.data : "", s->text.n);
    pl_json_key_object(&json, "usage");
    pl_json_put_string(&json, "type", "tokens");
    pl_json_put_int(&json, "input_tokens", usage.prompt);
    pl_json_put_int(&json, "output_tokens", usage.answer);
    pl_json_put_int(&json, "total_tokens", usage.prompt + usage.answer);
    pl_json_end_object(&json);
    pl_json_end_object(&json);
    pl_call_event(out, NULL, &json);
    pl_openai_done(out);
    if (s->text.failed)
        out->failed = true;
}

static const pl_call_format transcription = {
    .parse = parse_transcription,
    .read = read_speech,
    .prompt = make_prompt,
    .release = release,
    .piece = stream_piece,
    .choice_done = stream_choice_done,
    .end = stream_end,
    .fail = pl_openai_fail,
    .plain = plain,
    .free = free_speech,
};

static const pl_call_format translation = {
    .parse = parse_translation,
    .read = read_speech,
    .prompt = make_prompt,
    .release = release,
    .plain = plain,
    .free = free_speech,
};

void pl_api_transcriptions(void *user, pl_exchange *x)
{
    pl_call_start(user, x, &transcription);
}

void pl_api_translations(void *user, pl_exchange *x)
{
    pl_call_start(user, x, &translation);
}
