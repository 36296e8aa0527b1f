/* Recognises Gemma's chat templates by what they can print: outside of its tags a template of theirs has only white
 * space, and inside them every string is one of those below. A template that treats a chat in another way
 * needs another string for it. */
#include "host/text/chat.h"

#include <string.h>

static const char *const allowed[] = {
    "",
    "\n",
    "\n\n",
    "<audio_soft_token>",
    "<bos>",
    "<end_of_turn>",
    "<end_of_turn>\n",
    "<image_soft_token>",
    "<start_of_image>",
    "<start_of_turn>",
    "<start_of_turn>model\n",
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "Invalid content type",
    "assistant",
    "audio",
    "content",
    "image",
    "model",
    "role",
    "system",
    "text",
    "type",
    "user",
};

static const char *const required[] = {
    "add_generation_prompt", "assistant", "<end_of_turn>", "messages", "model",
    "<start_of_turn>",       "system",    "trim",          "user",
};

#define MAX_STRING 80 /* longer than any of those */

static bool is_allowed(const char *text)
{
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
        if (strcmp(text, allowed[i]) == 0)
            return true;
    return false;
}

/* Reads the string whose quote is at *at into out, cut at MAX_STRING; leaves *at behind its end. */
static bool read_string(const char **at, char out[MAX_STRING + 1])
{
    const char *s = *at;
    char quote = *s++;
    size_t n = 0;
    for (; *s && *s != quote; s++) {
        char c = *s;
        if (c == '\\' && s[1])
            c = *++s == 'n' ? '\n' : *s;
        if (n < MAX_STRING)
            out[n++] = c;
    }
    out[n] = '\0';
    *at = *s ? s + 1 : s;
    return *s == quote;
}

/* Checks one tag, from behind its opening to behind its closing, "}}" or "%}". */
static pl_status check_tag(const char **at, char closing, pl_error *err)
{
    const char *s = *at;
    while (*s && !(s[0] == closing && s[1] == '}')) {
        if (*s != '\'' && *s != '"') {
            s++;
            continue;
        }
        char text[MAX_STRING + 1];
        if (!read_string(&s, text))
            return pl_fail(err, PL_ERR_UNSUPPORTED, "the chat template has a string that does not end");
        if (!is_allowed(text))
            return pl_fail(err, PL_ERR_UNSUPPORTED, "the chat template has the string \"%s\", which Gemma's have not",
                           text);
    }
    if (!*s)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the chat template has a tag that does not end");
    *at = s + 2;
    return PL_OK;
}

static pl_status check_comment(const char **at, pl_error *err)
{
    const char *end = strstr(*at, "#}");
    if (!end)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the chat template has a comment that does not end");
    *at = end + 2;
    return PL_OK;
}

pl_status pl_chat_template_check(const char *text, pl_error *err)
{
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
        if (!strstr(text, required[i]))
            return pl_fail(err, PL_ERR_UNSUPPORTED, "the chat template does not mention %s, as Gemma's do",
                           required[i]);
    if (!strstr(text, "bos_token") && !strstr(text, "<bos>"))
        return pl_fail(err, PL_ERR_UNSUPPORTED, "the chat template does not mention bos_token, as Gemma's do");
    for (const char *at = text; *at;) {
        bool tag = at[0] == '{' && (at[1] == '{' || at[1] == '%' || at[1] == '#');
        if (!tag && !strchr(" \t\r\n", *at))
            return pl_fail(err, PL_ERR_UNSUPPORTED,
                           "the chat template prints \"%.20s\" outside of its tags, Gemma's print nothing there", at);
        if (!tag) {
            at++;
            continue;
        }
        char kind = at[1];
        at += 2;
        if (kind == '#')
            PL_TRY(check_comment(&at, err));
        else
            PL_TRY(check_tag(&at, kind == '{' ? '}' : '%', err));
    }
    return PL_OK;
}
