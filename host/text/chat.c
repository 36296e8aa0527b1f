#include "host/text/chat.h"

#include "host/base/strbuf.h"

#include <string.h>

/* The white space that Python's str.strip() takes away, in UTF-8. */
static const char *const blanks[] = {
    "\t",           "\n",           "\v",           "\f",           "\r",
    "\x1c",         "\x1d",         "\x1e",         "\x1f",         " ",
    "\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\x80", "\xe2\x80\x81",
    "\xe2\x80\x82", "\xe2\x80\x83", "\xe2\x80\x84", "\xe2\x80\x85", "\xe2\x80\x86",
    "\xe2\x80\x87", "\xe2\x80\x88", "\xe2\x80\x89", "\xe2\x80\x8a", "\xe2\x80\xa8",
    "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80",
};
#define N_BLANKS (sizeof blanks / sizeof blanks[0])

/* The length of the white space character at the start (or the end) of text, or 0. */
static size_t blank_at(const char *text, size_t n, bool end)
{
    for (size_t i = 0; i < N_BLANKS; i++) {
        size_t k = strlen(blanks[i]);
        if (k <= n && memcmp(end ? text + n - k : text, blanks[i], k) == 0)
            return k;
    }
    return 0;
}

static void add_stripped(pl_strbuf *out, const char *text, size_t n)
{
    size_t k;
    while ((k = blank_at(text, n, false)) > 0) {
        text += k;
        n -= k;
    }
    while ((k = blank_at(text, n, true)) > 0)
        n -= k;
    pl_strbuf_add(out, text, n);
}

static void add_part(pl_strbuf *out, const pl_part *part)
{
    switch (part->kind) {
    case PL_PART_TEXT: add_stripped(out, part->text, part->n); break;
    case PL_PART_IMAGE: pl_strbuf_add_text(out, "<image_soft_token>"); break;
    case PL_PART_AUDIO: pl_strbuf_add_text(out, "<audio_soft_token>"); break;
    }
}

static void add_turn(pl_strbuf *out, const pl_turn *turn, const pl_part *prefix)
{
    pl_strbuf_add_text(out, "<start_of_turn>");
    pl_strbuf_add_text(out, strcmp(turn->role, "assistant") == 0 ? "model" : turn->role);
    pl_strbuf_add_text(out, "\n");
    if (prefix) {
        pl_strbuf_add(out, prefix->text, prefix->n);
        pl_strbuf_add_text(out, "\n\n");
    }
    for (size_t i = 0; i < turn->n_parts; i++)
        add_part(out, &turn->parts[i]);
    pl_strbuf_add_text(out, "<end_of_turn>\n");
}

static pl_status check_turns(const pl_turn *turns, size_t n, bool system, pl_error *err)
{
    if (n == 0)
        return pl_fail(err, PL_ERR_ARGUMENT, "the chat has no messages");
    if (system && (turns[0].n_parts == 0 || turns[0].parts[0].kind != PL_PART_TEXT))
        return pl_fail(err, PL_ERR_ARGUMENT, "message 0: a system message must start with text");
    for (size_t i = system; i < n; i++) {
        bool user = (i - system) % 2 == 0;
        if ((strcmp(turns[i].role, "user") == 0) != user)
            return pl_fail(
                err, PL_ERR_ARGUMENT,
                "message %zu: the role is \"%.60s\"; after an optional system message user and assistant must alternate, user first",
                i, turns[i].role);
    }
    return PL_OK;
}

pl_status pl_chat_render(const pl_turn *turns, size_t n, bool reply, char **text, size_t *n_bytes, pl_error *err)
{
    bool system = n > 0 && strcmp(turns[0].role, "system") == 0;
    PL_TRY(check_turns(turns, n, system, err));
    pl_strbuf out = {0};
    pl_strbuf_add_text(&out, "<bos>");
    for (size_t i = system; i < n; i++)
        add_turn(&out, &turns[i], system && i == 1 ? &turns[0].parts[0] : NULL);
    if (reply)
        pl_strbuf_add_text(&out, "<start_of_turn>model\n");
    return pl_strbuf_take(&out, text, n_bytes, err);
}
