/* Realtime sessions with the small model of tests/golden/multimodal, over a WebSocket of our own. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* asprintf() */
#endif

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/base/json_out.h"
#include "tests/serve/demo_server.h"
#include "tests/tower/tower_files.h"
#include "tests/unit/scratch.h"

#define AUDIO_ROWS 12
#define UPGRADE                                                                                                        \
    "GET /v1/realtime%s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"      \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"

static scratch folder;
static demo_server s;
static int ws;

/* ---- what the listeners are given, of one session ---------------------------------------------- */

static float *heard;
static size_t n_heard;

pl_status __real_pl_listener_hear(pl_listener *listener, const float *samples, size_t n, pl_error *err);
pl_status __wrap_pl_listener_hear(pl_listener *listener, const float *samples, size_t n, pl_error *err);
pl_status __wrap_pl_listener_hear(pl_listener *listener, const float *samples, size_t n, pl_error *err)
{
    if (heard) {
        memcpy(heard + n_heard, samples, n * sizeof *samples);
        n_heard += n;
    }
    return __real_pl_listener_hear(listener, samples, n, err);
}

/* ---- an answer that stands still before its first token ----------------------------------------- */

static atomic_bool holds;
static pl_generation held;

static bool wait_and_tell(void *user, const pl_token_event *event)
{
    (void)user;
    while (atomic_load(&holds))
        usleep(1000);
    return held.on_token(held.user, event);
}

pl_status __real_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err);
pl_status __wrap_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err);
pl_status __wrap_pl_scheduler_submit(pl_scheduler *scheduler, const pl_request *request, uint64_t *id, pl_error *err)
{
    pl_request r = *request;
    if (atomic_load(&holds)) {
        held = r.generation;
        r.generation.on_token = wait_and_tell;
    }
    return __real_pl_scheduler_submit(scheduler, &r, id, err);
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

/* ---- a client ---------------------------------------------------------------------------------- */

static raw_response upgrade(int fd, const char *query, const char *headers)
{
    char *text;
    cr_assert_neq(asprintf(&text, UPGRADE, query, headers), -1);
    raw_send(fd, text);
    free(text);
    return raw_read(fd, true);
}

static void read_bytes(int fd, void *to, size_t n)
{
    char *at = to;
    for (ssize_t got; n > 0; at += got, n -= (size_t)got) {
        got = recv(fd, at, n, 0);
        cr_assert_gt(got, 0, "the connection ended, or nothing came within %d s", RAW_PATIENCE_S);
    }
}

/* free(); the kind of frame in *kind */
static char *read_frame(int fd, unsigned *kind, size_t *n)
{
    unsigned char head[2], more[8];
    read_bytes(fd, head, 2);
    *kind = head[0];
    *n = head[1];
    size_t bytes = head[1] == 126 ? 2 : head[1] == 127 ? 8 : 0;
    read_bytes(fd, more, bytes);
    for (size_t i = 0; i < bytes; i++)
        *n = (i ? *n << 8 : 0) | more[i];
    char *text = calloc(1, *n + 1);
    cr_assert(text);
    read_bytes(fd, text, *n);
    return text;
}

static json_t *read_event(int fd)
{
    unsigned kind;
    size_t n;
    char *text = read_frame(fd, &kind, &n);
    cr_assert_eq(kind, 0x81, "%02x", kind);
    json_t *event = json_loadb(text, n, 0, NULL);
    cr_assert(event, "%s", text);
    free(text);
    return event;
}

/* The next event, which must be this one; json_decref(). */
static json_t *expect(int fd, const char *type)
{
    json_t *event = read_event(fd);
    char *text = json_dumps(event, 0);
    cr_assert_str_eq(json_text_at(event, "type"), type, "%s", text);
    free(text);
    return event;
}

static void skip(int fd, const char *type)
{
    json_decref(expect(fd, type));
}

/* The next event of this type; json_decref(). */
static json_t *find(int fd, const char *type)
{
    json_t *event;
    while (strcmp(json_text_at(event = read_event(fd), "type"), type) != 0)
        json_decref(event);
    return event;
}

static void send_frame(int fd, unsigned first, const char *text, size_t n)
{
    unsigned char head[14] = {(unsigned char)first, 0xff};
    char *masked = malloc(n + 1);
    cr_assert(masked);
    for (size_t i = 0; i < 8; i++)
        head[2 + i] = (unsigned char)((uint64_t)n >> (56 - 8 * i));
    memset(head + 10, 0x5a, 4);
    for (size_t i = 0; i < n; i++)
        masked[i] = (char)(text[i] ^ 0x5a);
    if (n < 126) {
        head[1] = (unsigned char)(0x80 | n);
        memmove(head + 2, head + 10, 4);
    } else if (n < 65536) {
        head[1] = 0xfe;
        memmove(head + 2, head + 8, 6);
    }
    raw_send_bytes(fd, head, n < 126 ? 6 : n < 65536 ? 8 : 14);
    raw_send_bytes(fd, masked, n);
    free(masked);
}

static void tell(int fd, const char *text)
{
    send_frame(fd, 0x81, text, strlen(text));
}

static int join(const char *query, const char *headers)
{
    int fd = raw_connect(pl_http_address(s.http));
    raw_response r = upgrade(fd, query, headers);
    cr_assert_eq(r.status, 101, "%d", r.status);
    cr_assert_str_eq(raw_header(&r, "Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    raw_free(&r);
    skip(fd, "session.created");
    return fd;
}

static void begin(void)
{
    demo_start_with(&s, make_model(), false);
    ws = join("?model=demo", "");
}

static void end(void)
{
    close(ws);
    demo_stop(&s);
    scratch_close(&folder);
}

TestSuite(api_realtime, .init = begin, .fini = end);

/* ---- sound ------------------------------------------------------------------------------------- */

/* JSON's string; free() */
static char *base64_of(const void *bytes, size_t n)
{
    char *text;
    pl_json json = pl_json_to_buffer();
    pl_json_base64(&json, bytes, n);
    cr_assert_eq(pl_json_take(&json, &text, NULL, NULL), PL_OK);
    return text;
}

static void append(int fd, const void *pcm, size_t n)
{
    char *text = base64_of(pcm, n), *event;
    cr_assert_neq(asprintf(&event, "{\"type\": \"input_audio_buffer.append\", \"audio\": %s}", text), -1);
    tell(fd, event);
    free(event);
    free(text);
}

/* Events that append `seconds` of a buzz, in pieces of `piece` samples. */
static void speak(int fd, int rate, double seconds, size_t piece)
{
    size_t n = (size_t)(rate * seconds);
    int16_t *samples = malloc(n * sizeof *samples);
    cr_assert(samples);
    for (size_t i = 0; i < n; i++)
        samples[i] = (int16_t)((int)(i * 200 / (size_t)rate % 2 ? 6000 : -6000) + (int)(i * 7919 % 997));
    for (size_t at = 0; at < n; at += piece) {
        append(fd, samples + at, 2 * (n - at < piece ? n - at : piece));
    }
    free(samples);
}

static void commit(int fd)
{
    tell(fd, "{\"type\": \"input_audio_buffer.commit\"}");
    skip(fd, "input_audio_buffer.committed");
    skip(fd, "conversation.item.added");
    skip(fd, "conversation.item.done");
}

#define RESPOND                                                                                                        \
    "{\"type\": \"response.create\", \"response\": {\"max_output_tokens\": 6, \"output_modalities\": [\"text\"]}}"

/* The whole of a response; its response.done, json_decref(). */
static json_t *respond(int fd)
{
    pl_strbuf text = {0};
    json_t *event;
    skip(fd, "response.created");
    skip(fd, "response.output_item.added");
    skip(fd, "conversation.item.added");
    skip(fd, "response.content_part.added");
    for (; strcmp(json_text_at(event = read_event(fd), "type"), "response.output_text.delta") == 0; json_decref(event))
        pl_strbuf_add_text(&text, json_text_at(event, "delta"));
    cr_assert_str_eq(json_text_at(event, "type"), "response.output_text.done");
    cr_assert_str_eq(json_text_at(event, "text"), text.data ? text.data : "");
    json_decref(event);
    skip(fd, "response.content_part.done");
    skip(fd, "response.output_item.done");
    skip(fd, "conversation.item.done");
    event = expect(fd, "response.done");
    cr_assert_str_eq(json_text_at(event, "response.output.0.content.0.text"), text.data ? text.data : "");
    pl_strbuf_free(&text);
    return event;
}

static json_t *ask(int fd)
{
    tell(fd, RESPOND);
    return respond(fd);
}

/* ---- tests ------------------------------------------------------------------------------------- */

Test(api_realtime, answers_text)
{
    tell(ws, "{\"type\": \"conversation.item.create\", \"item\": {\"type\": \"message\", \"role\": \"user\", "
             "\"content\": [{\"type\": \"input_text\", \"text\": \"abc\"}]}}");
    json_t *item = expect(ws, "conversation.item.added");
    cr_assert_str_eq(json_text_at(item, "item.content.0.text"), "abc");
    cr_assert(json_is_null(json_at(item, "previous_item_id")));
    json_decref(item);
    skip(ws, "conversation.item.done");
    json_t *first = ask(ws), *second = ask(ws);
    cr_assert_gt(json_int_at(first, "response.usage.output_tokens"), 0);
    cr_assert_eq(json_int_at(first, "response.usage.input_token_details.audio_tokens"), 0);
    cr_assert_gt(json_int_at(second, "response.usage.input_tokens"), json_int_at(first, "response.usage.input_tokens"),
                 "the first answer is no part of the second prompt");
    json_decref(first);
    json_decref(second);
}

/* Speech in pieces and in one, of both rates, is as many tokens; longer than a clip, it is several. */
Test(api_realtime, hears)
{
    static const char slower[] =
        "{\"type\": \"session.update\", \"session\": {\"type\": \"realtime\", \"audio\": {"
        "\"input\": {\"turn_detection\": null, \"format\": {\"type\": \"audio/pcm\", \"rate\": "
        "16000}}}}}";
    speak(ws, 24000, 1, 2400);
    commit(ws);
    json_t *first = ask(ws);
    cr_assert_eq(json_int_at(first, "response.usage.input_token_details.audio_tokens"), AUDIO_ROWS);
    json_decref(first);
    tell(ws, slower);
    json_t *updated = expect(ws, "session.updated");
    cr_assert_eq(json_int_at(updated, "session.audio.input.format.rate"), 16000);
    json_decref(updated);
    speak(ws, 16000, 1, 16000);
    commit(ws);
    json_t *second = ask(ws);
    cr_assert_eq(json_int_at(second, "response.usage.input_token_details.audio_tokens"), 2 * AUDIO_ROWS);
    json_decref(second);
}

/* Whether it came in pieces or at once: the same is answered. */
Test(api_realtime, hears_the_same_in_pieces)
{
    int other = join("", "");
    speak(ws, 24000, 0.4, 601);
    speak(other, 24000, 0.4, 9600);
    commit(ws);
    commit(other);
    json_t *a = ask(ws), *b = ask(other);
    cr_assert_str_eq(json_text_at(a, "response.output.0.content.0.text"),
                     json_text_at(b, "response.output.0.content.0.text"));
    json_decref(a);
    json_decref(b);
    close(other);
}

/* All samples, at 16 kHz and of full scale 1, and none of the sound before a clear. */
Test(api_realtime, hears_each_sample)
{
    static const int16_t few[] = {-32768, 16384, 0, 1, 32767, -1};
    int16_t samples[1600];
    heard = malloc(100000 * sizeof *heard);
    cr_assert(heard);
    speak(ws, 24000, 0.5, 700);
    commit(ws);
    cr_assert(n_heard >= 7999 && n_heard <= 8001, "%zu", n_heard);
    n_heard = 0;
    tell(ws, "{\"type\": \"session.update\", \"session\": {\"audio\": {\"input\": {\"format\": {\"rate\": 16000}}}}}");
    skip(ws, "session.updated");
    for (size_t i = 0; i < 1600; i++)
        samples[i] = few[i % 6];
    append(ws, samples, sizeof samples);
    commit(ws);
    cr_assert_eq(n_heard, 1600);
    for (size_t i = 0; i < 1600; i++)
        cr_assert_eq((double)heard[i], few[i % 6] / 32768.0, "%zu", i);
    free(heard);
    heard = NULL;
}

/* What is heard as it comes is answered as the same in a file is. */
Test(api_realtime, hears_what_a_file_says)
{
    FILE *f = fopen(PL_TEST_DATA "/golden/multimodal/clip0.wav", "rb");
    unsigned char wav[40000];
    cr_assert(f);
    size_t n = fread(wav, 1, sizeof wav, f), head = 44;
    fclose(f);
    cr_assert(n > head && memcmp(wav + 36, "data", 4) == 0 && memcmp(wav + 24, "\x80\x3e\0\0\0\x7d\0\0", 8) == 0,
              "not 16 kHz, one channel, 16 bits");
    tell(ws, "{\"type\": \"session.update\", \"session\": {\"audio\": {\"input\": {\"format\": {\"type\": "
             "\"audio/pcm\", \"rate\": 16000}}}}}");
    skip(ws, "session.updated");
    for (size_t at = head; at < n; at += 1000)
        append(ws, wav + at, n - at < 1000 ? n - at : 1000);
    commit(ws);
    json_t *spoken = ask(ws);
    char *text = base64_of(wav, n);
    json_t *read = demo_post(&s, 200, "/v1/chat/completions",
                             "{\"model\": \"demo\", \"max_tokens\": 6, \"messages\": [{\"role\": \"user\", "
                             "\"content\": [{\"type\": \"input_audio\", \"input_audio\": {\"format\": \"wav\", "
                             "\"data\": %s}}]}]}",
                             text);
    cr_assert_str_eq(json_text_at(spoken, "response.output.0.content.0.text"),
                     json_text_at(read, "choices.0.message.content"));
    cr_assert_gt(strlen(json_text_at(read, "choices.0.message.content")), 0);
    cr_assert_eq(json_int_at(spoken, "response.usage.input_tokens"), json_int_at(read, "usage.prompt_tokens"));
    json_decref(spoken);
    json_decref(read);
    free(text);
}

/* An item with speech; longer than a clip, it is several. */
Test(api_realtime, hears_long_items)
{
    enum { N = 24000 * 31 };
    int16_t *samples = calloc(N, sizeof *samples);
    char *event, *audio;
    cr_assert(samples);
    for (size_t i = 0; i < N; i++)
        samples[i] = (int16_t)(i * 7919 % 9973);
    audio = base64_of(samples, N * sizeof *samples);
    cr_assert_neq(
        asprintf(&event,
                 "{\"type\": \"conversation.item.create\", \"item\": {\"role\": \"user\", \"content\": "
                 "[{\"type\": \"input_text\", \"text\": \"a\"}, {\"type\": \"input_audio\", \"audio\": %s}]}}",
                 audio),
        -1);
    tell(ws, event);
    skip(ws, "conversation.item.added");
    skip(ws, "conversation.item.done");
    tell(ws, RESPOND);
    json_t *done = NULL;
    for (bool over = false; !over;) {
        json_decref(done);
        done = read_event(ws);
        over = strcmp(json_text_at(done, "type"), "response.done") == 0 ||
               strcmp(json_text_at(done, "type"), "error") == 0;
    }
    char *text = json_dumps(done, 0);
    cr_assert_gt(json_int_at(done, "response.usage.input_token_details.audio_tokens"), 3 * AUDIO_ROWS, "%s", text);
    json_decref(done);
    free(text);
    free(event);
    free(audio);
    free(samples);
}

static void expect_error(const char *event, const char *code, const char *param)
{
    tell(ws, event);
    json_t *e = expect(ws, "error");
    cr_expect_str_eq(json_text_at(e, "error.code"), code, "%s: %s", event, json_text_at(e, "error.message"));
    cr_expect_str_eq(json_text_at(e, "error.param"), param, "%s: %s", event, json_text_at(e, "error.message"));
    json_decref(e);
}

/* Each alone, and the session goes on. */
Test(api_realtime, says_what_is_wrong)
{
    expect_error("{", "", "");
    expect_error("{}", "missing_required_parameter", "type");
    expect_error("{\"type\": \"hello\"}", "invalid_value", "type");
    expect_error("{\"type\": \"input_audio_buffer.commit\"}", "input_audio_buffer_commit_empty", "");
    expect_error("{\"type\": \"input_audio_buffer.append\", \"audio\": \"AA=\"}", "invalid_base64", "audio");
    expect_error("{\"type\": \"input_audio_buffer.append\", \"audio\": \"AAAA\"}", "invalid_value", "audio");
    expect_error("{\"type\": \"response.cancel\"}", "response_cancel_not_active", "");
    expect_error("{\"type\": \"session.update\", \"session\": {\"turn_detection\": {\"type\": \"server_vad\"}}}",
                 "unsupported_parameter", "session.turn_detection");
    expect_error("{\"type\": \"session.update\", \"session\": {\"modalities\": [\"audio\"]}}", "unsupported_value",
                 "session.modalities");
    expect_error("{\"type\": \"session.update\", \"session\": {\"instructions\": 1}}", "invalid_type",
                 "session.instructions");
    expect_error("{\"type\": \"conversation.item.create\", \"item\": {\"role\": \"user\", \"content\": [{\"type\": "
                 "\"input_text\", \"text\": \"a\"}, {\"type\": \"input_text\"}]}}",
                 "missing_required_parameter", "item.content[1].text");
    tell(ws, "{\"type\": \"conversation.item.create\", \"item\": {\"role\": \"user\", \"content\": [{\"type\": "
             "\"input_text\", \"text\": \"a\"}]}}");
    json_t *item = expect(ws, "conversation.item.added");
    cr_assert(json_is_null(json_at(item, "previous_item_id")), "half an item was kept");
    json_decref(item);
    skip(ws, "conversation.item.done");
    tell(ws, "{\"type\": \"event\", \"event_id\": \"mine\"}");
    json_t *e = expect(ws, "error");
    cr_assert_str_eq(json_text_at(e, "error.event_id"), "mine");
    json_decref(e);
    tell(ws, "{\"type\": \"session.update\", \"session\": {\"instructions\": \"b\", \"max_output_tokens\": 3}}");
    json_t *updated = expect(ws, "session.updated");
    cr_assert_str_eq(json_text_at(updated, "session.instructions"), "b");
    json_decref(updated);
    json_t *done = ask(ws);
    cr_assert_gt(json_int_at(done, "response.usage.input_tokens"), 0);
    json_decref(done);
}

/* What was cleared is not heard. */
Test(api_realtime, clears)
{
    speak(ws, 24000, 0.3, 7200);
    tell(ws, "{\"type\": \"input_audio_buffer.clear\"}");
    skip(ws, "input_audio_buffer.cleared");
    expect_error("{\"type\": \"input_audio_buffer.commit\"}", "input_audio_buffer_commit_empty", "");
    speak(ws, 24000, 0.05, 7200);
    expect_error("{\"type\": \"input_audio_buffer.commit\"}", "invalid_value", "");
}

Test(api_realtime, cancels)
{
    tell(ws, "{\"type\": \"session.update\", \"session\": {\"instructions\": \"abc\"}}");
    skip(ws, "session.updated");
    atomic_store(&holds, true);
    tell(ws, "{\"type\": \"response.create\"}");
    tell(ws, "{\"type\": \"response.create\"}");
    json_t *event = find(ws, "error");
    cr_assert_str_eq(json_text_at(event, "error.code"), "conversation_already_has_active_response");
    json_decref(event);
    tell(ws, "{\"type\": \"response.cancel\"}");
    tell(ws, "{\"type\": \"session.update\", \"session\": {\"instructions\": \"ab\"}}");
    json_decref(find(ws, "session.updated")); /* what was told before has been done */
    atomic_store(&holds, false);
    event = find(ws, "response.done");
    cr_assert_str_eq(json_text_at(event, "response.status"), "cancelled");
    json_decref(event);
}

Test(api_realtime, says_names_of_the_beta)
{
    int fd = join("", "OpenAI-Beta: realtime=v1\r\nSec-WebSocket-Protocol: realtime, x\r\n");
    tell(fd, "{\"type\": \"conversation.item.create\", \"item\": {\"type\": \"message\", \"role\": \"user\", "
             "\"content\": [{\"type\": \"input_text\", \"text\": \"abc\"}]}}");
    skip(fd, "conversation.item.created");
    tell(fd, "{\"type\": \"response.create\", \"response\": {\"max_output_tokens\": 4, \"modalities\": [\"text\"]}}");
    skip(fd, "response.created");
    skip(fd, "response.output_item.added");
    skip(fd, "conversation.item.created");
    skip(fd, "response.content_part.added");
    json_t *event = read_event(fd);
    cr_assert_eq(strncmp(json_text_at(event, "type"), "response.text.d", 15), 0, "%s", json_text_at(event, "type"));
    json_decref(event);
    close(fd);
}

static void expect_refused(const char *query, const char *headers, int status)
{
    int fd = raw_connect(pl_http_address(s.http));
    raw_response r = upgrade(fd, query, headers);
    cr_expect_eq(r.status, status, "%s %s: %d", query, headers, r.status);
    raw_free(&r);
    close(fd);
}

Test(api_realtime, checks_who_asks)
{
    expect_refused("?model=other", "", 404);
    expect_refused("?model=demo:nowhere", "", 404);
    expect_refused("", "Origin: http://example.org\r\n", 403);
    raw_response r = demo_ask(&s, "GET", "/v1/realtime", NULL);
    cr_assert_eq(r.status, 400);
    raw_free(&r);
}

/* Pings are answered, a close ends it, and so do bytes that are no frames. */
Test(api_realtime, speaks_websocket)
{
    unsigned kind;
    size_t n;
    send_frame(ws, 0x89, "hi", 2);
    char *text = read_frame(ws, &kind, &n);
    cr_assert_eq(kind, 0x8a);
    cr_assert_str_eq(text, "hi");
    free(text);
    send_frame(ws, 0x88, "\x03\xe8", 2);
    text = read_frame(ws, &kind, &n);
    cr_assert_eq(kind, 0x88);
    cr_assert_eq(memcmp(text, "\x03\xe8", 3), 0);
    free(text);
    cr_assert_eq(raw_read_end(ws), 0);
    int fd = join("", "");
    raw_send(fd, "GET / HTTP/1.1\r\n\r\n");
    text = read_frame(fd, &kind, &n);
    cr_assert_eq(kind, 0x88);
    free(text);
    close(fd);
}

/* Whoever leaves in the middle of anything leaves nothing behind (as the sanitizers see it), and disturbs nobody. */
Test(api_realtime, clients_vanish)
{
    for (int i = 0; i < 6; i++) {
        int fd = join("", "");
        speak(fd, 24000, 0.5, 4800);
        if (i % 2)
            tell(fd, "{\"type\": \"input_audio_buffer.commit\"}");
        if (i % 3)
            tell(fd, "{\"type\": \"response.create\"}");
        close(fd);
    }
    speak(ws, 24000, 0.4, 2400);
    commit(ws);
    json_decref(ask(ws));
    while (pl_http_count(s.http).connections > 1)
        usleep(1000);
}
