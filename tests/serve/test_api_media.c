/* Images and sound over all APIs, with the small model of tests/golden/multimodal. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* asprintf() */
#endif

#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/base/json_out.h"
#include "tests/serve/demo_server.h"
#include "tests/tower/tower_files.h"
#include "tests/unit/scratch.h"

#define MEDIA PL_TEST_DATA "/golden/media/"
#define RATE 16000

#define IMAGE_ROWS 16
#define AUDIO_ROWS 12

static scratch folder;
static demo_server s;

/* ---- the towers, where a test watches or holds them -------------------------------------------- */

static _Atomic bool holds;
static _Atomic int n_began, n_now, most_at_once;
static sem_t began, go;

static void enter(void)
{
    int now = atomic_fetch_add(&n_now, 1) + 1;
    if (now > atomic_load(&most_at_once))
        atomic_store(&most_at_once, now);
    atomic_fetch_add(&n_began, 1);
    if (atomic_load(&holds)) {
        sem_post(&began);
        sem_wait(&go);
    }
}

pl_status __real_pl_media_create(pl_engine *engine, pl_media_kind kind, const void *bytes, size_t n, const char *name,
                                 const pl_media_params *params, pl_media **out, pl_error *err);
pl_status __wrap_pl_media_create(pl_engine *engine, pl_media_kind kind, const void *bytes, size_t n, const char *name,
                                 const pl_media_params *params, pl_media **out, pl_error *err);
pl_status __wrap_pl_media_create(pl_engine *engine, pl_media_kind kind, const void *bytes, size_t n, const char *name,
                                 const pl_media_params *params, pl_media **out, pl_error *err)
{
    enter();
    pl_status status = __real_pl_media_create(engine, kind, bytes, n, name, params, out, err);
    atomic_fetch_sub(&n_now, 1);
    return status;
}

pl_status __real_pl_media_from_samples(pl_engine *engine, const float *samples, size_t n, const pl_media_params *params,
                                       pl_media **out, pl_error *err);
pl_status __wrap_pl_media_from_samples(pl_engine *engine, const float *samples, size_t n, const pl_media_params *params,
                                       pl_media **out, pl_error *err);
pl_status __wrap_pl_media_from_samples(pl_engine *engine, const float *samples, size_t n, const pl_media_params *params,
                                       pl_media **out, pl_error *err)
{
    enter();
    pl_status status = __real_pl_media_from_samples(engine, samples, n, params, out, err);
    atomic_fetch_sub(&n_now, 1);
    return status;
}

static const char *make_model(void)
{
    tower_tensors all = tower_tensors_make();
    scratch_open(&folder);
    tower_folder_write(&folder, "model", &all);
    tower_tensors_free(&all);
    scratch_copy(&folder, "model/tokenizer.json", PL_TEST_DATA "/golden/multimodal/tokenizer.json");
    scratch_text(&folder, "model/preprocessor_config.json", "{\"size\": {\"height\": 192, \"width\": 192}}");
    return scratch_path(&folder, "model");
}

static void begin_with(bool media_urls)
{
    atomic_store(&holds, false);
    atomic_store(&n_began, 0);
    atomic_store(&most_at_once, 0);
    sem_init(&began, 0, 0);
    sem_init(&go, 0, 0);
    demo_start_with(&s, make_model(), media_urls);
}

static void begin(void)
{
    begin_with(false);
}

static void end(void)
{
    demo_stop(&s);
    scratch_close(&folder);
}

TestSuite(api_media, .init = begin, .fini = end);

/* ---- what is sent ------------------------------------------------------------------------------ */

static char *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *bytes = malloc(1 << 20);
    cr_assert(f && bytes, "%s", path);
    *n = fread(bytes, 1, 1 << 20, f);
    fclose(f);
    return bytes;
}

/* JSON's string of the base64 of n bytes, behind `prefix`; free() */
static char *base64_of(const char *prefix, const void *bytes, size_t n)
{
    char *quoted, *text;
    pl_json json = pl_json_to_buffer();
    pl_json_base64(&json, bytes, n);
    cr_assert_eq(pl_json_take(&json, &quoted, NULL, NULL), PL_OK);
    cr_assert_neq(asprintf(&text, "\"%s%s", prefix, quoted + 1), -1);
    free(quoted);
    return text;
}

static char *file_base64(const char *prefix, const char *name)
{
    char path[512];
    size_t n;
    snprintf(path, sizeof path, "%s%s", MEDIA, name);
    char *bytes = read_all(path, &n), *text = base64_of(prefix, bytes, n);
    free(bytes);
    return text;
}

#define CHAT                                                                                                           \
    "{\"model\": \"demo\", \"max_tokens\": 4, \"ignore_eos\": true, \"messages\": [{\"role\": \"user\", \"content\": [%s]}]}"
#define TEXT(text) "{\"type\": \"text\", \"text\": \"" text "\"}"

/* Parts of a chat; free() */
static char *image_part(const char *name)
{
    char *part, *url = file_base64("data:image/png;base64,", name);
    cr_assert_neq(asprintf(&part, "{\"type\": \"image_url\", \"image_url\": {\"url\": %s}}", url), -1);
    free(url);
    return part;
}

static char *audio_part(const char *name)
{
    char *part, *data = file_base64("", name);
    cr_assert_neq(
        asprintf(&part, "{\"type\": \"input_audio\", \"input_audio\": {\"data\": %s, \"format\": \"wav\"}}", data), -1);
    free(data);
    return part;
}

static json_t *chat(int status, const char *parts)
{
    return demo_post(&s, status, "/v1/chat/completions", CHAT, parts);
}

static int64_t prompt_tokens(const char *parts, int64_t *audio)
{
    json_t *answer = chat(200, parts);
    int64_t n = json_int_at(answer, "usage.prompt_tokens");
    *audio = json_int_at(answer, "usage.prompt_tokens_details.audio_tokens");
    json_decref(answer);
    return n;
}

/* ---- chats ------------------------------------------------------------------------------------- */

/* An image is 16 rows, a clip 12; around both are their begin and end, and newlines that others may take in. */
Test(api_media, counts_what_is_shown)
{
    char *image = image_part("rgba.png"), *audio = audio_part("mono16k.wav"), *both;
    int64_t none, heard = 0;
    int64_t text = prompt_tokens(TEXT("a"), &none);
    cr_assert_eq(none, 0);
    int64_t seen = prompt_tokens(image, &none);
    cr_assert_geq(seen, text - 1 + IMAGE_ROWS + 2);
    cr_assert_leq(seen, text - 1 + IMAGE_ROWS + 2 + 4);
    cr_assert_eq(none, 0);
    cr_assert_neq(asprintf(&both, "%s, %s", image, audio), -1);
    int64_t all = prompt_tokens(both, &heard);
    cr_assert_geq(all, seen + AUDIO_ROWS + 2);
    cr_assert_eq(heard, AUDIO_ROWS);
    free(both);
    free(image);
    free(audio);
}

/* The order of parts is that of the prompt: another order is another prompt, the same one is known. */
Test(api_media, keeps_the_order)
{
    char *image = image_part("rgba.png"), *first, *last;
    cr_assert_neq(asprintf(&first, "%s, %s", image, TEXT("abcabcabcabc")), -1);
    cr_assert_neq(asprintf(&last, "%s, %s", TEXT("abcabcabcabc"), image), -1);
    json_t *a = chat(200, first), *b = chat(200, last), *c = chat(200, first);
    int64_t n = json_int_at(a, "usage.prompt_tokens");
    cr_assert_leq(json_int_at(b, "usage.prompt_tokens_details.cached_tokens"), n - IMAGE_ROWS - 8);
    cr_assert_geq(json_int_at(c, "usage.prompt_tokens_details.cached_tokens"), n - 1);
    cr_assert_str_eq(json_text_at(a, "choices.0.message.content"), json_text_at(c, "choices.0.message.content"));
    json_decref(a);
    json_decref(b);
    json_decref(c);
    free(first);
    free(last);
    free(image);
}

/* The name of a place is no place: were it one, there would be fewer images than places. */
Test(api_media, texts_make_no_places)
{
    char *image = image_part("rgba.png"), *parts;
    cr_assert_neq(asprintf(&parts, "%s, %s, %s", TEXT("<image_soft_token>"), image,
                           TEXT("<audio_soft_token> <image_soft_token>")),
                  -1);
    json_decref(chat(200, parts));
    json_decref(chat(200, TEXT("<image_soft_token>")));
    free(parts);
    free(image);
}

Test(api_media, other_apis_show_the_same)
{
    char *data = file_base64("", "rgba.png"), *url = file_base64("data:image/png;base64,", "rgba.png"), *image;
#define MESSAGE                                                                                                        \
    "\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"source\": {\"type\": \"base64\", "      \
    "\"media_type\": \"image/png\", \"data\": %s}}, {\"type\": \"text\", \"text\": \"a\"}]}]}"
    json_t *message = demo_post(&s, 200, "/v1/messages", "{\"model\": \"demo\", \"max_tokens\": 3, " MESSAGE, data);
    json_t *count = demo_post(&s, 200, "/v1/messages/count_tokens", "{\"model\": \"demo\", " MESSAGE, data);
    json_t *response = demo_post(
        &s, 200, "/v1/responses",
        "{\"model\": \"demo\", \"max_output_tokens\": 3, \"input\": [{\"role\": \"user\", \"content\": "
        "[{\"type\": \"input_image\", \"image_url\": %s}, {\"type\": \"input_text\", \"text\": \"a\"}]}]}",
        url);
    cr_assert_neq(asprintf(&image, "{\"type\": \"image_url\", \"image_url\": {\"url\": %s}}, %s", url, TEXT("a")), -1);
    json_t *openai = chat(200, image);
    int64_t n = json_int_at(openai, "usage.prompt_tokens");
    cr_assert_eq(json_int_at(message, "usage.input_tokens") + json_int_at(message, "usage.cache_read_input_tokens"), n);
    cr_assert_eq(json_int_at(count, "input_tokens"), n);
    cr_assert_eq(json_int_at(response, "usage.input_tokens"), n);
    json_decref(message);
    json_decref(count);
    json_decref(response);
    json_decref(openai);
    free(image);
    free(data);
    free(url);
}

Test(api_media, tells_what_it_takes)
{
    json_t *props = demo_get(&s, 200, "/props");
    cr_assert(json_is_true(json_at(props, "modalities.vision")));
    cr_assert(json_is_true(json_at(props, "modalities.audio")));
    json_decref(props);
    json_t *models = demo_get(&s, 200, "/v1/models");
    cr_assert_str_eq(json_text_at(models, "data.0.pleiad.input.1"), "image");
    cr_assert_str_eq(json_text_at(models, "data.0.pleiad.input.2"), "audio");
    json_decref(models);
}

/* ---- what is wrong ----------------------------------------------------------------------------- */

static void expect_error(const char *parts, const char *param, const char *code, const char *says)
{
    json_t *e = chat(400, parts);
    cr_expect_str_eq(json_text_at(e, "error.type"), "invalid_request_error");
    cr_expect_str_eq(json_text_at(e, "error.param"), param, "%s", json_text_at(e, "error.message"));
    cr_expect_str_eq(json_text_at(e, "error.code"), code, "%s", json_text_at(e, "error.message"));
    cr_expect(strstr(json_text_at(e, "error.message"), says), "%s", json_text_at(e, "error.message"));
    json_decref(e);
}

/* Each alone, and then the server goes on. */
Test(api_media, refuses_bad_files)
{
    static const struct {
        const char *image, *image_code, *sound, *sound_code;
    } files[] = {{"mono16k.wav", "invalid_image", "rgba.png", "invalid_audio"},
                 {"make_media.py", "invalid_image", "make_media.py", "invalid_audio"},
                 {"clip.mp4", "unsupported_value", "silent.mkv", "unsupported_value"}}; /* it has no sound */
    for (size_t i = 0; i < 3; i++) {
        char *image = image_part(files[i].image), *audio = audio_part(files[i].sound);
        expect_error(image, "messages[0].content[0].image_url.url", files[i].image_code, "messages[0].content[0]");
        expect_error(audio, "messages[0].content[0].input_audio.data", files[i].sound_code, "messages[0].content[0]");
        free(image);
        free(audio);
    }
    char path[] = MEDIA "rgba.png";
    size_t n;
    char *bytes = read_all(path, &n), *url = base64_of("data:image/png;base64,", bytes, n / 2), *part;
    cr_assert_neq(asprintf(&part, "%s, {\"type\": \"image_url\", \"image_url\": {\"url\": %s}}", TEXT("cut"), url), -1);
    expect_error(part, "messages[0].content[1].image_url.url", "invalid_image", "messages[0].content[1]");
    free(part);
    free(url);
    free(bytes);
    json_decref(chat(200, TEXT("a")));
}

Test(api_media, fetches_nothing_unless_allowed)
{
    expect_error("{\"type\": \"image_url\", \"image_url\": {\"url\": \"http://127.0.0.1:1/a.png\"}}",
                 "messages[0].content[0].image_url.url", "unsupported_value", "--allow-media-urls");
    expect_error("{\"type\": \"image_url\", \"image_url\": {\"url\": \"file:///etc/hostname\"}}",
                 "messages[0].content[0].image_url.url", "invalid_url", "http");
}

/* ---- company ----------------------------------------------------------------------------------- */

static int send_chat(const char *parts)
{
    char *body, *head;
    int fd = raw_connect(pl_http_address(s.http));
    int n = asprintf(&body, CHAT, parts);
    cr_assert_neq(n, -1);
    cr_assert_neq(
        asprintf(&head, "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", n), -1);
    raw_send(fd, head);
    raw_send(fd, body);
    free(head);
    free(body);
    return fd;
}

static void expect_answer(int fd)
{
    raw_response response = raw_read(fd, false);
    cr_assert_eq(response.status, 200, "%s", raw_body(&response));
    raw_free(&response);
    close(fd);
}

/* While one image is encoded, texts are answered, and no other is encoded. */
Test(api_media, images_do_not_hold_up_texts)
{
    char *image = image_part("rgba.png"), *audio = audio_part("mono16k.wav");
    int fds[4];
    atomic_store(&holds, true);
    for (int i = 0; i < 4; i++)
        fds[i] = send_chat(i % 2 ? audio : image);
    sem_wait(&began);
    for (int i = 0; i < 5; i++)
        json_decref(chat(200, TEXT("a")));
    cr_assert_eq(atomic_load(&n_began), 1);
    atomic_store(&holds, false);
    sem_post(&go);
    for (int i = 0; i < 4; i++)
        expect_answer(fds[i]);
    cr_assert_eq(atomic_load(&n_began), 4);
    cr_assert_eq(atomic_load(&most_at_once), 1);
    free(image);
    free(audio);
}

/* Who leaves is not encoded for any more: neither what goes on, nor what has not begun. */
Test(api_media, stops_for_who_leaves)
{
    char *image = image_part("rgba.png"), *two;
    cr_assert_neq(asprintf(&two, "%s, %s", image, image), -1);
    atomic_store(&holds, true);
    int fd = send_chat(two);
    sem_wait(&began);
    close(fd);
    while (pl_http_count(s.http).exchanges > 0)
        usleep(1000);
    atomic_store(&holds, false);
    sem_post(&go);
    expect_answer(send_chat(image));
    cr_assert_eq(atomic_load(&n_began), 2); /* the one held, and the last */
    pl_tower_stats stats;
    pl_engine_towers(s.engine, &stats);
    cr_assert_eq(stats.images, 1);
    free(two);
    free(image);
}

/* ---- speech to text ---------------------------------------------------------------------------- */

/* A wav of so many seconds, 16 bits: a tone that is loud but for the last second of every 25. free() */
static char *wav_of(double seconds, size_t *n)
{
    uint32_t samples = (uint32_t)(seconds * RATE), bytes = 2 * samples;
    char *wav = calloc(1, 44 + bytes);
    cr_assert(wav);
    const uint32_t sizes[] = {36 + bytes, 16, 0x10001, RATE, 2 * RATE, 0x100002, bytes};
    memcpy(wav, "RIFF", 4);
    memcpy(wav + 4, &sizes[0], 4);
    memcpy(wav + 8, "WAVEfmt ", 8);
    memcpy(wav + 16, &sizes[1], 20);
    memcpy(wav + 36, "data", 4);
    memcpy(wav + 40, &sizes[6], 4);
    for (uint32_t i = 0; i < samples; i++) {
        int16_t v = i / RATE % 25 == 24 ? 0 : (int16_t)(i * 1500 % 20000 - 10000);
        memcpy(wav + 44 + 2 * (size_t)i, &v, 2);
    }
    *n = 44 + bytes;
    return wav;
}

#define PART(name) "--XX\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n"
#define FIELD(name, value) PART(name) value "\r\n"

static raw_response transcribe(const char *path, const char *fields, const char *file, size_t n)
{
    pl_strbuf head = {0}, body = {0};
    int fd = raw_connect(pl_http_address(s.http));
    pl_strbuf_add_text(&body, fields);
    if (file) {
        pl_strbuf_add_text(&body, "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n");
        pl_strbuf_add(&body, file, n);
        pl_strbuf_add_text(&body, "\r\n");
    }
    pl_strbuf_add_text(&body, "--XX--\r\n");
    pl_strbuf_printf(
        &head,
        "POST /v1/audio/%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=XX\r\n"
        "Content-Length: %zu\r\n\r\n",
        path, body.n);
    raw_send(fd, head.data);
    raw_send_bytes(fd, body.data, body.n);
    raw_response response = raw_read(fd, false);
    close(fd);
    pl_strbuf_free(&head);
    pl_strbuf_free(&body);
    return response;
}

static json_t *transcribe_json(const char *path, const char *fields, const char *file, size_t n, int status)
{
    raw_response response = transcribe(path, fields, file, n);
    cr_assert_eq(response.status, status, "%s: %s", fields, raw_body(&response));
    json_t *root = json_loads(raw_body(&response), 0, NULL);
    cr_assert(root, "%s", raw_body(&response));
    raw_free(&response);
    return root;
}

/* More clips than are answered at once. */
Test(api_media, transcribes_long_sound_in_segments)
{
    size_t n;
    char *wav = wav_of(150, &n);
    json_t *t = transcribe_json("transcriptions",
                                FIELD("model", "demo") FIELD("response_format", "verbose_json")
                                    FIELD("timestamp_granularities[]", "segment"),
                                wav, n, 200);
    const json_t *segments = json_at(t, "segments");
    cr_assert_eq(json_number_value(json_at(t, "duration")), 150);
    cr_assert_eq(atomic_load(&n_began), 6); /* cut where it is quiet: every 25 s */
    cr_assert_geq(json_array_size(segments), 1);
    cr_assert_leq(json_array_size(segments), 6); /* one that says nothing is left out */
    double before = 0;
    for (size_t i = 0; i < json_array_size(segments); i++) {
        double from = json_number_value(json_at(json_array_get(segments, i), "start"));
        double to = json_number_value(json_at(json_array_get(segments, i), "end"));
        cr_assert(from >= before && to > from && to - from <= 30 && to <= 150, "%g to %g", from, to);
        before = to;
    }
    json_decref(t);
    free(wav);
}

/* All forms say the same text, and a stream's pieces make it up. */
Test(api_media, forms_of_a_transcript)
{
    size_t n;
    char *wav = wav_of(62, &n);
    json_t *t = transcribe_json("transcriptions", "", wav, n, 200);
    const char *text = json_text_at(t, "text");
    cr_assert_neq(text[0], '\0');
    raw_response vtt = transcribe("transcriptions", FIELD("response_format", "vtt"), wav, n);
    cr_assert_eq(strncmp(raw_body(&vtt), "WEBVTT\n\n00:00:00.000 --> ", 25), 0, "%s", raw_body(&vtt));
    cr_assert(strstr(raw_header(&vtt, "content-type"), "text/plain"));
    raw_response srt = transcribe("transcriptions", FIELD("response_format", "srt"), wav, n);
    cr_assert_eq(strncmp(raw_body(&srt), "1\n00:00:00,000 --> ", 19), 0, "%s", raw_body(&srt));
    raw_response stream = transcribe("transcriptions", FIELD("stream", "true"), wav, n);
    pl_strbuf pieces = {0};
    const char *done = NULL;
    json_t *last = NULL;
    for (char *at = strstr(raw_body(&stream), "data: "); at; at = strstr(at + 1, "data: ")) {
        json_t *event = json_loadb(at + 6, strcspn(at + 6, "\n"), 0, NULL);
        pl_strbuf_add_text(&pieces, json_text_at(event, "delta"));
        if (strcmp(json_text_at(event, "type"), "transcript.text.done") == 0) {
            last = json_incref(event);
            done = json_text_at(last, "text");
        }
        json_decref(event);
    }
    cr_assert(done);
    cr_assert_str_eq(pieces.data, text);
    cr_assert_str_eq(done, text);
    cr_assert(strstr(raw_body(&stream), "data: [DONE]"));
    pl_strbuf_free(&pieces);
    json_decref(last);
    json_decref(t);
    raw_free(&vtt);
    raw_free(&srt);
    raw_free(&stream);
    free(wav);
}

static void expect_refused(const char *path, const char *fields, const char *file, size_t n, const char *param,
                           const char *says)
{
    json_t *e = transcribe_json(path, fields, file, n, 400);
    cr_expect_str_eq(json_text_at(e, "error.param"), param, "%s", json_text_at(e, "error.message"));
    cr_expect(strstr(json_text_at(e, "error.message"), says), "%s", json_text_at(e, "error.message"));
    json_decref(e);
}

Test(api_media, refuses_wrong_transcriptions)
{
    size_t n;
    char *wav = wav_of(1, &n);
    expect_refused("transcriptions", FIELD("model", "demo"), NULL, 0, "file", "file");
    expect_refused("transcriptions", "", "nothing", 7, "file", "a.wav");
    expect_refused("transcriptions", "", wav, 44, "file", "a.wav");
    expect_refused("transcriptions", FIELD("language", "klingon"), wav, n, "language", "klingon");
    expect_refused("transcriptions", FIELD("response_format", "xml"), wav, n, "response_format", "xml");
    expect_refused("transcriptions",
                   FIELD("response_format", "verbose_json") FIELD("timestamp_granularities[]", "word"), wav, n,
                   "timestamp_granularities", "word");
    expect_refused("transcriptions", FIELD("timestamp_granularities[]", "segment"), wav, n, "timestamp_granularities",
                   "verbose_json");
    expect_refused("transcriptions", FIELD("temperature", "hot"), wav, n, "temperature", "decimal");
    expect_refused("transcriptions", FIELD("colour", "red"), wav, n, "colour", "colour");
    expect_refused("translations", FIELD("stream", "true"), wav, n, "stream", "stream");
    expect_refused("transcriptions", FIELD("stream", "true") FIELD("response_format", "srt"), wav, n, "response_format",
                   "stream");
    json_t *e = demo_post(&s, 415, "/v1/audio/transcriptions", "{}");
    cr_expect(strstr(json_text_at(e, "error.message"), "multipart/form-data"));
    json_decref(e);
    e = transcribe_json("transcriptions", FIELD("model", "whisper-1"), wav, n, 404);
    cr_expect_str_eq(json_text_at(e, "error.param"), "model");
    json_decref(e);
    json_decref(transcribe_json("translations", FIELD("prompt", "Ada"), wav, n, 200));
    free(wav);
}

/* ---- what the helper reads --------------------------------------------------------------------- */

static char *video_part(const char *name)
{
    char *part, *url = file_base64("data:video/mp4;base64,", name);
    cr_assert_neq(asprintf(&part, "{\"type\": \"video_url\", \"video_url\": {\"url\": %s}}", url), -1);
    free(url);
    return part;
}

#ifndef PL_HAVE_FRAMES
Test(api_media, says_that_the_helper_is_not_there)
{
    size_t n;
    char *video = video_part("clip.mp4"), *audio = audio_part("sound.m4a"), *m4a = read_all(MEDIA "sound.m4a", &n);
    expect_error(video, "messages[0].content[0].video_url.url", "unsupported_value", "pleiad-frames");
    expect_error(audio, "messages[0].content[0].input_audio.data", "unsupported_value", "pleiad-frames");
    expect_refused("transcriptions", "", m4a, n, "file", "pleiad-frames");
    free(video);
    free(audio);
    free(m4a);
}
#else
#define TWO_SECONDS 13 /* rows of 200 frames */

Test(api_media, hears_what_is_in_containers)
{
    size_t n;
    int64_t heard;
    char *audio = audio_part("sound.m4a"), *m4a = read_all(MEDIA "sound.m4a", &n);
    json_t *t = transcribe_json("transcriptions", FIELD("response_format", "verbose_json"), m4a, n, 200);
    cr_expect_float_eq(json_number_value(json_at(t, "duration")), 2, 0.1);
    json_decref(t);
    prompt_tokens(audio, &heard);
    cr_expect_eq(heard, TWO_SECONDS);
    expect_refused("transcriptions", "", m4a, n / 4, "file", "a.wav");
    free(audio);
    free(m4a);
}

/* As the same frames, times and sound one by one. */
Test(api_media, sees_and_hears_videos)
{
    int64_t heard;
    pl_tower_stats stats;
    char *video = video_part("clip.mp4"), *image = image_part("rgba.png"), *audio = audio_part("sound.m4a"), *parts;
    cr_assert_neq(asprintf(&parts, "%s, %s, %s, %s, %s", TEXT("00:00"), image, TEXT("00:01"), image, audio), -1);
    int64_t n = prompt_tokens(video, &heard);
    cr_expect_eq(heard, TWO_SECONDS);
    pl_engine_towers(s.engine, &stats);
    cr_expect_eq(stats.images, 2);
    cr_expect_eq(stats.clips, 1);
    cr_expect_eq(prompt_tokens(parts, &heard), n);
    free(parts);
    free(video);

    video = video_part("silent.mkv");
    prompt_tokens(video, &heard);
    cr_expect_eq(heard, 0);
    free(video);
    video = video_part("rgba.png");
    expect_error(video, "messages[0].content[0].video_url.url", "invalid_video", "messages[0].content[0]");
    free(video);
    free(image);
    free(audio);
}
#endif

/* ---- addresses --------------------------------------------------------------------------------- */

Test(api_media_urls, are_fetched_where_allowed)
{
    char part[256];
    begin_with(true);
    const char *base = pl_http_address(s.http);
    snprintf(part, sizeof part, "{\"type\": \"image_url\", \"image_url\": {\"url\": \"%s/openapi.json\"}}", base);
    if (system("command -v curl > /dev/null") == 0) {
        expect_error(part, "messages[0].content[0].image_url.url", "invalid_image", "not an image");
        snprintf(part, sizeof part, "{\"type\": \"image_url\", \"image_url\": {\"url\": \"%s/none\"}}", base);
        expect_error(part, "messages[0].content[0].image_url.url", "invalid_image_url", "answers with an error");
    } else {
        expect_error(part, "messages[0].content[0].image_url.url", "invalid_image_url", "curl");
    }
    end();
}
