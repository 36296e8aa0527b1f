/* The loop's side of a call: what has arrived goes through the format to the client. */
#include "host/serve/call_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the exchange ------------------------------------------------------------------------------ */

/* What to do for the exchange's part when it is over or gone. */
static void let_go(pl_call *call)
{
    call->exchange = NULL;
    pl_call_quiet_forget(&call->quiet);
    call_cancel(call);
    call_release(call);
}

void call_gone(void *user)
{
    let_go(user);
}

/* For the log: "e4b, 12 + 34 tokens". */
static void note(const pl_call *call)
{
    char text[120];
    pl_call_usage usage = pl_call_count(call);
    snprintf(text, sizeof text, "%.60s, %lld + %lld tokens", call->choices[0].shown.path, (long long)usage.prompt,
             (long long)usage.answer);
    pl_exchange_note(call->exchange, text);
}

static void begin(pl_call *call)
{
    call->begun = true;
    pl_exchange_set_header(call->exchange, "Cache-Control", "no-cache");
    pl_exchange_begin(call->exchange, 200, "text/event-stream");
    if (call->format->begin)
        call->format->begin(call, &call->out);
}

/* False: the client has gone, or was dropped as an event lacks something. */
static bool send_out(pl_call *call)
{
    if (call->out.failed) {
        pl_exchange_drop(call->exchange);
        return false;
    }
    if (call->out.n == 0)
        return true;
    call->quiet.ticks = 0;
    bool sent = pl_exchange_send(call->exchange, call->out.data, call->out.n);
    pl_strbuf_clear(&call->out);
    return sent;
}

void call_quiet(pl_call_quiet *quiet)
{
    pl_call *call = (pl_call *)((char *)quiet - offsetof(pl_call, quiet));
    pthread_mutex_lock(&call->lock);
    bool streams = call->submitted && call->spec.stream && !call->error.status;
    pthread_mutex_unlock(&call->lock);
    if (!streams)
        return;
    call_hold(call); /* sending may find the client gone */
    if (!call->begun)
        begin(call);
    pl_strbuf_add_text(&call->out, ": \n\n");
    send_out(call);
    call_release(call);
}

void call_respond_failed(pl_call *call, const pl_api_error *error, double retry_after_s)
{
    if (!call->begun) {
        pl_api_fail(call->exchange, error, retry_after_s);
    } else {
        pl_strbuf_clear(&call->out);
        call->format->fail(call, error, &call->out);
        if (!send_out(call))
            return;
        pl_exchange_end(call->exchange);
    }
    let_go(call);
}

static void fail_for_memory(pl_call *call)
{
    pl_error err;
    pl_fail_memory(&err, 0, "a response");
    pl_api_error error = pl_api_error_of(&err);
    call_respond_failed(call, &error, 1);
}

/* ---- pieces ------------------------------------------------------------------------------------ */

/* A piece on its way through the parser. */
typedef struct parsed {
    pl_call *call;
    choice *c;
    pl_call_piece piece; /* its logprob goes with the first text, or alone */
    bool failed;
} parsed;

static bool wants_logprobs(const pl_call *call)
{
    return call->spec.request.generation.n_logprobs >= 0;
}

static bool keep_piece(pl_call *call, choice *c, const pl_call_piece *piece)
{
    pl_call_choice *shown = &c->shown;
    pl_call_piece kept = *piece;
    kept.text = "";
    kept.n_bytes = 0;
    if (call->spec.stream && piece->n_top) { /* others will be where it is now */
        pl_logprob *top = pl_call_keep(call, piece->n_top * sizeof *top);
        if (!top)
            return false;
        kept.top = memcpy(top, piece->top, piece->n_top * sizeof *top);
    }
    if (shown->n_pieces == c->pieces_room) {
        size_t room = c->pieces_room ? 2 * c->pieces_room : 16;
        pl_call_piece *grown = realloc(shown->pieces, room * sizeof *grown);
        if (!grown)
            return false;
        shown->pieces = grown;
        c->pieces_room = room;
    }
    shown->pieces[shown->n_pieces++] = kept;
    return true;
}

static bool give_piece(pl_call *call, choice *c, const pl_call_piece *piece)
{
    bool likely = wants_logprobs(call) && piece->id >= 0;
    if (piece->n_bytes == 0 && !likely)
        return true;
    pl_strbuf_add(&c->shown.text, piece->text, piece->n_bytes);
    if (call->spec.stream && call->format->piece)
        call->format->piece(call, c->index, piece, &call->out);
    bool keep = likely && (!call->spec.stream || call->format->repeats);
    return !c->shown.text.failed && (!keep || keep_piece(call, c, piece));
}

static void give_content(parsed *p)
{
    p->piece.text = p->call->content.data ? p->call->content.data : "";
    p->piece.n_bytes = p->call->content.n;
    if (p->call->content.failed || !give_piece(p->call, p->c, &p->piece))
        p->failed = true;
    pl_strbuf_clear(&p->call->content);
    p->piece = (pl_call_piece){.id = -1, .logprob = NAN, .text = ""};
}

static void on_content(void *user, const char *text, size_t n)
{
    parsed *p = user;
    pl_strbuf_add(&p->call->content, text, n);
}

static void give_tool(parsed *p, pl_tool_piece piece)
{
    if (p->failed || piece.index >= (int32_t)p->c->shown.n_tools)
        return;
    const pl_tool_call *tool = &p->c->shown.tools[piece.index];
    piece.id = tool->id;
    piece.name = tool->name.data;
    if (p->call->spec.stream && p->call->format->tool)
        p->call->format->tool(p->call, p->c->index, &piece, &p->call->out);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

static void name_tool(const parsed *p, int32_t index, char id[32])
{
    uint64_t place = (uint64_t)p->c->index << 32 | (uint64_t)index;
    uint64_t word = mix(p->call->random ^ mix(place + 1));
    snprintf(id, 32, "call_%016llx%08llx", (unsigned long long)word, (unsigned long long)(mix(word) >> 32));
}

static void on_begin(void *user, int32_t index, const char *name)
{
    parsed *p = user;
    pl_call_choice *shown = &p->c->shown;
    if (p->call->content.n)
        give_content(p);
    pl_tool_call *grown = realloc(shown->tools, (shown->n_tools + 1) * sizeof *grown);
    if (!grown) {
        p->failed = true;
        return;
    }
    shown->tools = grown;
    pl_tool_call *tool = &grown[shown->n_tools++];
    *tool = (pl_tool_call){.id = ""};
    name_tool(p, index, tool->id);
    pl_strbuf_add_text(&tool->name, name);
    pl_strbuf_add(&tool->arguments, "", 0);
    p->failed = p->failed || tool->name.failed || tool->arguments.failed;
    give_tool(p, (pl_tool_piece){.index = index, .begin = true, .arguments = ""});
}

static void on_arguments(void *user, int32_t index, const char *text, size_t n)
{
    parsed *p = user;
    if (p->failed)
        return;
    pl_tool_call *tool = &p->c->shown.tools[index];
    pl_strbuf_add(&tool->arguments, text, n);
    p->failed = tool->arguments.failed;
    give_tool(p, (pl_tool_piece){.index = index, .arguments = text, .n_bytes = n});
}

static void on_end(void *user, int32_t index)
{
    give_tool(user, (pl_tool_piece){.index = index, .end = true, .arguments = ""});
}

/* end: after the choice's last piece. */
static bool parse_piece(pl_call *call, choice *c, const pl_call_piece *piece, bool end)
{
    parsed p = {.call = call, .c = c, .piece = *piece};
    const pl_tool_sink sink = {&p, on_content, on_begin, on_arguments, on_end};
    pl_tool_parse(&c->parser, piece->text, piece->n_bytes, &sink);
    bool failed = c->parser.held.failed;
    if (end)
        pl_tool_parse_end(&c->parser, &sink);
    give_content(&p);
    return !p.failed && !failed;
}

/* ---- what has arrived -------------------------------------------------------------------------- */

static bool take_end(pl_call *call, choice *c)
{
    const pl_call_piece nothing = {.text = "", .id = -1, .logprob = NAN};
    if (call->spec.tools && !parse_piece(call, c, &nothing, true))
        return false;
    c->shown.done = true;
    call->n_told++;
    if (call->spec.stream && call->format->choice_done)
        call->format->choice_done(call, c->index, &call->out);
    return true;
}

static bool take_arrival(pl_call *call, const arrival *a)
{
    choice *c = &call->choices[a->choice];
    const pl_call_piece piece = {.text = call->looked.text.data + a->text,
                                 .n_bytes = a->n_bytes,
                                 .id = a->id,
                                 .logprob = a->logprob,
                                 .top = a->n_top ? call->looked.top + a->top : NULL,
                                 .n_top = a->n_top};
    c->shown.begun = true;
    if (a->done)
        return take_end(call, c);
    return call->spec.tools ? parse_piece(call, c, &piece, false) : give_piece(call, c, &piece);
}

static bool take_arrivals(pl_call *call)
{
    for (size_t i = 0; i < call->looked.n; i++)
        if (!take_arrival(call, &call->looked.list[i]))
            return false;
    return !call->out.failed;
}

static pl_status print_whole(pl_call *call, const char **type, char **text, size_t *n)
{
    pl_json json = pl_json_to_buffer();
    pl_strbuf plain = {0};
    if (call->format->plain) {
        *type = call->format->plain(call, &plain);
        pl_status status = pl_strbuf_take(&plain, text, n, NULL);
        pl_strbuf_free(&plain);
        return status;
    }
    *type = "application/json";
    call->format->whole(call, &json);
    return pl_json_take(&json, text, n, NULL);
}

static void respond_whole(pl_call *call)
{
    const char *type;
    char *text;
    size_t n;
    if (print_whole(call, &type, &text, &n) != PL_OK) {
        fail_for_memory(call);
        return;
    }
    note(call);
    pl_exchange_respond(call->exchange, 200, type, text, n);
    free(text);
    let_go(call);
}

static void show(pl_call *call)
{
    bool whole = !call->spec.stream;
    if (!whole && !call->begun && call->looked.n)
        begin(call);
    if (!take_arrivals(call)) {
        fail_for_memory(call);
        return;
    }
    bool over = call->n_told == call->n_choices;
    if (whole) {
        if (over)
            respond_whole(call);
        return;
    }
    if (over && call->format->end)
        call->format->end(call, &call->out);
    if (!send_out(call) || !over)
        return;
    note(call);
    pl_exchange_end(call->exchange);
    let_go(call);
}

/* What has arrived becomes what is looked at; its room is used for the next. A call that is not streamed is looked at
 * once, when it is whole. */
static bool swap(pl_call *call)
{
    if (!call->submitted || (!call->spec.stream && call->n_open > 0))
        return false;
    arrivals empty = call->looked;
    empty.n = empty.n_top = 0;
    pl_strbuf_clear(&empty.text);
    call->looked = call->arrived;
    call->arrived = empty;
    return true;
}

void call_look(pl_call_news_item *item)
{
    pl_call *call = (pl_call *)item;
    pthread_mutex_lock(&call->lock);
    call->told = false;
    pl_api_error error = call->error;
    bool fresh = !error.status && swap(call);
    pthread_mutex_unlock(&call->lock);
    if (call->exchange && error.status)
        call_respond_failed(call, &error, call->retry_after_s);
    else if (call->exchange && fresh)
        show(call);
    call_release(call);
}
