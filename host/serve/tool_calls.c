#include "host/serve/tool_calls.h"

#include <jansson.h>
#include <string.h>

/* A head longer than this is no call. */
#define HEAD_BYTES 4096

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* ---- what comes before the arguments ----------------------------------------------------------- */

/* Reads on over texts that may still grow: each step is done, or is cut short, or fails. */
typedef enum reading { READ, SHORT, WRONG } reading;

typedef struct cursor {
    const char *at, *end;
} cursor;

static void skip_blanks(cursor *c)
{
    while (c->at < c->end && is_blank(*c->at))
        c->at++;
}

static reading read_text(cursor *c, const char *text)
{
    for (; *text; text++, c->at++) {
        if (c->at == c->end)
            return SHORT;
        if (*c->at != *text)
            return WRONG;
    }
    return READ;
}

static reading read_char(cursor *c, char expected)
{
    const char text[2] = {expected, '\0'};
    skip_blanks(c);
    return read_text(c, text);
}

/* A JSON string; *begin and *n with its quotes. */
static reading read_string(cursor *c, const char **begin, size_t *n)
{
    skip_blanks(c);
    *begin = c->at;
    if (c->at == c->end)
        return SHORT;
    if (*c->at != '"')
        return WRONG;
    for (const char *s = c->at + 1; s < c->end; s++) {
        if (*s == '\\') {
            s++;
        } else if (*s == '"') {
            *n = (size_t)(s + 1 - *begin);
            c->at = s + 1;
            return READ;
        }
    }
    return SHORT;
}

static bool is_word(const char *begin, size_t n, const char *word)
{
    return n == strlen(word) + 2 && memcmp(begin + 1, word, n - 2) == 0;
}

/* {"name": "f", "parameters": up to the value, which is to be an object; or {"name": "f"}: then *bare. */
static reading read_head(cursor *c, const char **name, size_t *n_name, bool *bare)
{
    const char *key;
    size_t n_key;
    reading r = read_char(c, '{');
    if (r == READ)
        r = read_string(c, &key, &n_key);
    if (r == READ && !is_word(key, n_key, "name"))
        return WRONG;
    if (r == READ)
        r = read_char(c, ':');
    if (r == READ)
        r = read_string(c, name, n_name);
    if (r != READ)
        return r;
    skip_blanks(c);
    *bare = c->at < c->end && *c->at == '}';
    if (*bare)
        return READ;
    r = read_char(c, ',');
    if (r == READ)
        r = read_string(c, &key, &n_key);
    if (r == READ && !is_word(key, n_key, "parameters") && !is_word(key, n_key, "arguments"))
        return WRONG;
    if (r == READ)
        r = read_char(c, ':');
    skip_blanks(c);
    if (r == READ && c->at == c->end)
        return SHORT;
    return r == READ && *c->at != '{' ? WRONG : r;
}

/* Blanks, ```json (or ``` alone) and [: what may stand before the first object. */
static reading read_opening(cursor *c, bool *list)
{
    skip_blanks(c);
    if (c->at < c->end && *c->at == '`') {
        if (read_text(c, "```") != READ)
            return c->at == c->end ? SHORT : WRONG;
        cursor word = *c;
        reading r = read_text(&word, "json");
        if (r == SHORT)
            return SHORT;
        if (r == READ)
            *c = word;
        skip_blanks(c);
    }
    if (c->at == c->end)
        return SHORT;
    *list = *c->at == '[';
    if (*list)
        c->at++;
    skip_blanks(c);
    if (c->at == c->end)
        return SHORT;
    return *c->at == '{' ? READ : WRONG;
}

/* ---- steps ------------------------------------------------------------------------------------- */

/* Everything held is text after all. */
static void to_text(pl_tool_parser *p, const pl_tool_sink *sink)
{
    p->stage = PL_TOOL_TEXT;
    if (p->held.n)
        sink->content(sink->user, p->held.data, p->held.n);
    pl_strbuf_clear(&p->held);
}

/* Takes the first n bytes from what is held. */
static void drop(pl_tool_parser *p, size_t n)
{
    p->held.n -= n;
    memmove(p->held.data, p->held.data + n, p->held.n + 1);
}

static bool is_function(const pl_tool_parser *p, const char *name)
{
    if (!p->names)
        return true;
    for (const char *const *other = p->names; *other; other++)
        if (strcmp(*other, name) == 0)
            return true;
    return false;
}

static bool begin_call(pl_tool_parser *p, const char *quoted, size_t n, const pl_tool_sink *sink)
{
    json_t *name = json_loadb(quoted, n, JSON_DECODE_ANY, NULL);
    if (!name || !json_string_length(name) || !is_function(p, json_string_value(name))) {
        json_decref(name);
        return false;
    }
    sink->begin(sink->user, p->n_calls++, json_string_value(name));
    json_decref(name);
    return true;
}

/* False: more text is needed. */
static bool step_head(pl_tool_parser *p, const pl_tool_sink *sink)
{
    cursor c = {p->held.data, p->held.data + p->held.n};
    const char *name;
    size_t n_name;
    bool bare = false;
    reading r = READ;
    if (p->stage == PL_TOOL_START)
        r = read_opening(&c, &p->list);
    if (r == READ)
        r = read_head(&c, &name, &n_name, &bare);
    if (r == SHORT && p->held.n < HEAD_BYTES)
        return false;
    if (r != READ || !begin_call(p, name, n_name, sink)) {
        to_text(p, sink);
        return true;
    }
    if (bare) {
        sink->arguments(sink->user, p->n_calls - 1, "{}", 2);
        sink->end(sink->user, p->n_calls - 1);
    }
    p->depth = 0;
    p->string = p->escaped = false;
    p->stage = bare ? PL_TOOL_TAIL : PL_TOOL_ARGUMENTS;
    drop(p, (size_t)(c.at - p->held.data));
    return true;
}

/* Whether the object ends with this character. */
static bool ends_object(pl_tool_parser *p, char c)
{
    if (p->string) {
        bool plain = p->escaped || (c != '\\' && c != '"');
        p->string = plain || c == '\\';
        p->escaped = !p->escaped && c == '\\';
        return false;
    }
    p->string = c == '"';
    if (c == '{' || c == '[')
        p->depth++;
    else if (c == '}' || c == ']')
        return --p->depth == 0;
    return false;
}

static bool step_arguments(pl_tool_parser *p, const pl_tool_sink *sink)
{
    size_t n = 0;
    bool ended = false;
    while (n < p->held.n && !ended)
        ended = ends_object(p, p->held.data[n++]);
    if (n)
        sink->arguments(sink->user, p->n_calls - 1, p->held.data, n);
    drop(p, n);
    if (ended) {
        sink->end(sink->user, p->n_calls - 1);
        p->stage = PL_TOOL_TAIL;
    }
    return ended;
}

/* Blanks and what closes the object. */
static bool step_tail(pl_tool_parser *p, const pl_tool_sink *sink)
{
    cursor c = {p->held.data, p->held.data + p->held.n};
    reading r = read_char(&c, '}');
    if (r == SHORT)
        return false;
    if (r == WRONG) {
        to_text(p, sink);
        return true;
    }
    drop(p, (size_t)(c.at - p->held.data));
    p->stage = PL_TOOL_AFTER;
    return true;
}

/* After an object: another, or the ends of list and fence, which say nothing. */
static bool step_after(pl_tool_parser *p, const pl_tool_sink *sink)
{
    size_t n = 0;
    for (; n < p->held.n; n++) {
        char c = p->held.data[n];
        if (!is_blank(c) && !(p->list && (c == ',' || c == ']')))
            break;
        p->list = p->list && c != ']';
    }
    drop(p, n);
    if (p->held.n == 0)
        return false;
    if (p->held.data[0] == '{') {
        p->stage = PL_TOOL_HEAD;
        return true;
    }
    cursor c = {p->held.data, p->held.data + p->held.n};
    reading r = read_text(&c, "```");
    if (r == SHORT)
        return false;
    if (r == READ)
        drop(p, 3);
    else
        to_text(p, sink);
    return true;
}

void pl_tool_parse(pl_tool_parser *p, const char *text, size_t n, const pl_tool_sink *sink)
{
    if (n == 0)
        return;
    if (p->stage == PL_TOOL_TEXT) {
        sink->content(sink->user, text, n);
        return;
    }
    pl_strbuf_add(&p->held, text, n);
    if (p->held.failed)
        return;
    for (bool on = true; on && p->stage != PL_TOOL_TEXT && p->held.n;) {
        switch (p->stage) {
        case PL_TOOL_START:
        case PL_TOOL_HEAD: on = step_head(p, sink); break;
        case PL_TOOL_ARGUMENTS: on = step_arguments(p, sink); break;
        case PL_TOOL_TAIL: on = step_tail(p, sink); break;
        case PL_TOOL_AFTER: on = step_after(p, sink); break;
        case PL_TOOL_TEXT: break;
        }
    }
}

void pl_tool_parse_end(pl_tool_parser *p, const pl_tool_sink *sink)
{
    if (p->stage == PL_TOOL_START || p->stage == PL_TOOL_HEAD)
        to_text(p, sink);
    pl_tool_parser_free(p);
}

void pl_tool_parser_free(pl_tool_parser *p)
{
    pl_strbuf_free(&p->held);
}
