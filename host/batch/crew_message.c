#include "host/batch/crew_message.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define MAGIC 0x31634c50u /* "PLc1" */

typedef struct head {
    uint32_t magic, kind;
    uint64_t hash; /* of what follows, the kind as seed */
} head;

typedef struct line_head {
    int64_t line;
    uint64_t n; /* bytes of the text, which follows the path */
    uint64_t n_path;
} line_head;

typedef struct result_head {
    int64_t line, prompt_tokens, answer_tokens;
    uint64_t n; /* bytes of the record, which follows */
    uint64_t failed;
} result_head;

const char *pl_crew_kind_name(int kind)
{
    static const char *const names[PL_CREW_KINDS] = {
        [PL_CREW_HELLO] = "hello",     [PL_CREW_PULSE] = "pulse",   [PL_CREW_ASK] = "ask",
        [PL_CREW_LINES] = "lines",     [PL_CREW_RECALL] = "recall", [PL_CREW_BACK] = "back",
        [PL_CREW_RESULTS] = "results", [PL_CREW_UNABLE] = "unable", [PL_CREW_END] = "end",
        [PL_CREW_BYE] = "bye"};
    return kind > 0 && kind < PL_CREW_KINDS ? names[kind] : "unknown";
}

/* ---- writing ---- */

void pl_crew_begin(pl_strbuf *buf)
{
    pl_strbuf_add(buf, &(head){.magic = MAGIC}, sizeof(head));
}

void pl_crew_seal(pl_strbuf *buf, pl_crew_kind kind)
{
    if (buf->failed)
        return;
    head h = {MAGIC, kind, XXH3_64bits_withSeed(buf->data + sizeof h, buf->n - sizeof h, kind)};
    memcpy(buf->data, &h, sizeof h);
}

void pl_crew_put_ask(pl_strbuf *buf, const pl_crew_ask *ask)
{
    pl_strbuf_add(buf, ask, sizeof *ask);
}

void pl_crew_put_count(pl_strbuf *buf, uint32_t n)
{
    pl_strbuf_add(buf, &n, sizeof n);
}

void pl_crew_put_text(pl_strbuf *buf, int status, const char *text)
{
    uint32_t code = (uint32_t)status;
    pl_strbuf_add(buf, &code, sizeof code);
    pl_strbuf_add_text(buf, text);
}

void pl_crew_put_line(pl_strbuf *buf, const pl_work *work)
{
    line_head h = {work->line, work->n, strnlen(work->path, sizeof work->path - 1)};
    pl_strbuf_add(buf, &h, sizeof h);
    pl_strbuf_add(buf, work->path, h.n_path);
    pl_strbuf_add(buf, work->text, work->n);
}

void pl_crew_put_back(pl_strbuf *buf, int64_t line)
{
    pl_strbuf_add(buf, &line, sizeof line);
}

void pl_crew_put_result(pl_strbuf *buf, const pl_work_result *result)
{
    result_head h = {result->line, result->prompt_tokens, result->answer_tokens, result->n, result->failed};
    pl_strbuf_add(buf, &h, sizeof h);
    pl_strbuf_add(buf, result->record, result->n);
}

/* ---- reading ---- */

static pl_status damaged(const pl_crew_reader *r, const char *what, pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "a message (%s) between ranks is damaged: %s", pl_crew_kind_name(r->kind), what);
}

pl_status pl_crew_read(int kind, const void *data, size_t n, pl_crew_reader *out, pl_error *err)
{
    head h;
    *out = (pl_crew_reader){.kind = kind};
    if (kind <= 0 || kind >= PL_CREW_KINDS)
        return pl_fail(err, PL_ERR_FORMAT, "a message between ranks is of an unknown kind, %d", kind);
    if (n < sizeof h)
        return damaged(out, "it is cut short", err);
    memcpy(&h, data, sizeof h);
    if (h.magic != MAGIC)
        return damaged(out, "it begins as no message does, or comes from another version or kind of machine", err);
    if (h.kind != (uint32_t)kind)
        return damaged(out, "it says that it is of another kind", err);
    out->at = (const unsigned char *)data + sizeof h;
    out->end = (const unsigned char *)data + n;
    if (h.hash != XXH3_64bits_withSeed(out->at, n - sizeof h, h.kind))
        return damaged(out, "its checksum differs", err);
    return PL_OK;
}

static pl_status get(pl_crew_reader *r, void *out, size_t n, pl_error *err)
{
    if ((size_t)(r->end - r->at) < n)
        return damaged(r, "it is cut short", err);
    memcpy(out, r->at, n);
    r->at += n;
    return PL_OK;
}

pl_status pl_crew_no_more(const pl_crew_reader *r, pl_error *err)
{
    return r->at == r->end ? PL_OK : damaged(r, "it is too long", err);
}

pl_status pl_crew_get_ask(pl_crew_reader *r, pl_crew_ask *out, pl_error *err)
{
    PL_TRY(get(r, out, sizeof *out, err));
    return out->lines ? pl_crew_no_more(r, err) : damaged(r, "it asks for no line", err);
}

pl_status pl_crew_get_count(pl_crew_reader *r, uint32_t *out, pl_error *err)
{
    PL_TRY(get(r, out, sizeof *out, err));
    return pl_crew_no_more(r, err);
}

pl_status pl_crew_get_text(pl_crew_reader *r, pl_error *out, pl_error *err)
{
    uint32_t code;
    PL_TRY(get(r, &code, sizeof code, err));
    int n = (int)(r->end - r->at < PL_ERROR_BYTES ? r->end - r->at : PL_ERROR_BYTES - 1);
    if (code > PL_ERR_BUSY || memchr(r->at, '\0', (size_t)n))
        return damaged(r, "its text is none", err);
    *out = (pl_error){.status = (pl_status)code};
    memcpy(out->message, r->at, (size_t)n);
    for (int i = 0; i < n; i++)
        if ((unsigned char)out->message[i] < ' ')
            out->message[i] = '?';
    r->at = r->end;
    return PL_OK;
}

pl_status pl_crew_get_line(pl_crew_reader *r, pl_work *out, pl_error *err)
{
    line_head h;
    PL_TRY(get(r, &h, sizeof h, err));
    *out = (pl_work){.line = h.line, .n = h.n};
    if (h.line < 0 || h.n_path >= sizeof out->path)
        return damaged(r, "no line has such a number or path", err);
    PL_TRY(get(r, out->path, h.n_path, err));
    if (strlen(out->path) != h.n_path)
        return damaged(r, "there is a zero byte in a path", err);
    if (h.n > (size_t)(r->end - r->at))
        return damaged(r, "it is cut short", err);
    out->text = malloc(h.n + 1);
    if (!out->text)
        return pl_fail_memory(err, h.n + 1, "a line of the batch");
    PL_TRY(get(r, out->text, h.n, err));
    out->text[h.n] = '\0';
    return PL_OK;
}

pl_status pl_crew_get_back(pl_crew_reader *r, int64_t *out, pl_error *err)
{
    PL_TRY(get(r, out, sizeof *out, err));
    return *out >= 0 ? PL_OK : damaged(r, "no line has such a number", err);
}

pl_status pl_crew_get_result(pl_crew_reader *r, pl_work_result *out, pl_error *err)
{
    result_head h;
    PL_TRY(get(r, &h, sizeof h, err));
    if (h.line < 0 || h.prompt_tokens < 0 || h.answer_tokens < 0 || h.failed > 1)
        return damaged(r, "no result has such numbers", err);
    if (h.n == 0 || h.n > (size_t)(r->end - r->at))
        return damaged(r, "it is cut short", err);
    *out = (pl_work_result){h.line, (const char *)r->at, h.n, h.failed != 0, h.prompt_tokens, h.answer_tokens};
    r->at += h.n;
    return memchr(out->record, '\n', h.n) == out->record + h.n - 1 ? PL_OK : damaged(r, "a record is no line", err);
}
