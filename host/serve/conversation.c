#include "host/serve/conversation.h"

#include <stdlib.h>
#include <string.h>

typedef struct turn {
    bool model;
    pl_strbuf text;
} turn;

/* Where something was shown: in this turn, before this byte of its text. */
typedef struct place {
    size_t turn, at;
    pl_media_part part;
} place;

/* By pl_media_kind; they get newlines around them where they become tokens. */
static const char *const placeholders[] = {"<image_soft_token>", "<audio_soft_token>"};

struct pl_conversation {
    pl_strbuf system;
    pl_strbuf offer; /* of functions; "": none */
    turn *turns;
    size_t n_turns, room;
    place *places;
    size_t n_places, places_room;
    pl_strbuf calls; /* the last things that the model said, not yet in its turn */
    size_t n_calls;
    json_t *names;  /* of calls, by their ids */
    bool open;      /* the last thing said is text of the model */
    bool no_memory; /* something was lost */
};

pl_status pl_conversation_create(pl_conversation **out, pl_error *err)
{
    pl_conversation *c = calloc(1, sizeof *c);
    json_t *names = json_object();
    if (!c || !names) {
        free(c);
        json_decref(names);
        return pl_fail_memory(err, sizeof *c, "a conversation");
    }
    c->names = names;
    *out = c;
    return PL_OK;
}

void pl_conversation_free(pl_conversation *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n_turns; i++)
        pl_strbuf_free(&c->turns[i].text);
    for (size_t i = 0; i < c->n_places; i++)
        pl_media_part_free(&c->places[i].part);
    free(c->turns);
    free(c->places);
    pl_strbuf_free(&c->system);
    pl_strbuf_free(&c->offer);
    pl_strbuf_free(&c->calls);
    json_decref(c->names);
    free(c);
}

/* ---- what was said ----------------------------------------------------------------------------- */

static int add_dumped(const char *bytes, size_t n, void *user)
{
    pl_strbuf_add(user, bytes, n);
    return 0;
}

static void add_json(pl_strbuf *out, const json_t *value)
{
    if (!value || json_dump_callback(value, add_dumped, out, JSON_ENCODE_ANY) != 0)
        out->failed = true;
}

static void add_quoted(pl_strbuf *out, const char *text, size_t n)
{
    json_t *value = json_stringn_nocheck(text, n);
    add_json(out, value);
    json_decref(value);
}

/* Places of images and sound are made here alone: in what is said, their names are text. */
static void add_said(pl_strbuf *out, const char *text, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t kind = 0; kind < 2; kind++) {
            size_t n_name = strlen(placeholders[kind]);
            if (n - i < n_name || memcmp(text + i, placeholders[kind], n_name) != 0)
                continue;
            pl_strbuf_add(out, text + from, i + 1 - from);
            pl_strbuf_add_text(out, "\u200b");
            from = i + 1;
        }
    pl_strbuf_add(out, text + from, n - from);
}

static void add_paragraph(pl_strbuf *out, const char *text, size_t n)
{
    if (out->n && n)
        pl_strbuf_add_text(out, "\n\n");
    add_said(out, text, n);
}

static void add_turn(pl_conversation *c, bool model)
{
    if (c->n_turns == c->room) {
        size_t room = c->room ? 2 * c->room : 8;
        turn *grown = realloc(c->turns, room * sizeof *grown);
        if (!grown) {
            c->no_memory = true;
            return;
        }
        c->turns = grown;
        c->room = room;
    }
    c->turns[c->n_turns++] = (turn){.model = model};
}

/* The user speaks first, if only to say nothing. NULL: there was no memory. */
static turn *turn_of(pl_conversation *c, bool model)
{
    if (model && c->n_turns == 0)
        add_turn(c, false);
    if (c->n_turns == 0 || c->turns[c->n_turns - 1].model != model)
        add_turn(c, model);
    return c->no_memory ? NULL : &c->turns[c->n_turns - 1];
}

static void say(pl_conversation *c, bool model, const char *text, size_t n)
{
    turn *t = turn_of(c, model);
    if (!t)
        return;
    add_paragraph(&t->text, text, n); /* the template trims what stands between places */
    c->open = model && (c->open || n || t->text.n == 0);
}

static void end_calls(pl_conversation *c)
{
    if (c->n_calls == 0)
        return;
    if (c->n_calls > 1)
        pl_strbuf_add_text(&c->calls, "]");
    c->no_memory = c->no_memory || c->calls.failed;
    bool list = c->n_calls > 1;
    if (!c->no_memory)
        say(c, true, c->calls.data + !list, c->calls.n - !list);
    pl_strbuf_clear(&c->calls);
    c->n_calls = 0;
    c->open = false;
}

void pl_conversation_say(pl_conversation *c, pl_speaker speaker, const char *text, size_t n)
{
    end_calls(c);
    if (speaker == PL_SPEAKER_SYSTEM)
        add_paragraph(&c->system, text, n);
    else
        say(c, speaker == PL_SPEAKER_MODEL, text, n);
}

static bool add_place(pl_conversation *c, place p)
{
    if (c->n_places == c->places_room) {
        size_t room = c->places_room ? 2 * c->places_room : 4;
        place *grown = realloc(c->places, room * sizeof *grown);
        if (!grown)
            return false;
        c->places = grown;
        c->places_room = room;
    }
    c->places[c->n_places++] = p;
    return true;
}

void pl_conversation_show(pl_conversation *c, pl_media_part *part)
{
    end_calls(c);
    turn *t = turn_of(c, false);
    if (t && add_place(c, (place){.turn = c->n_turns - 1, .at = t->text.n, .part = *part})) {
        c->open = false;
        *part = (pl_media_part){0};
    } else {
        c->no_memory = true;
        pl_media_part_free(part);
    }
}

pl_media_part *pl_conversation_shown(pl_conversation *c, size_t i)
{
    return i < c->n_places ? &c->places[i].part : NULL;
}

void pl_conversation_call(pl_conversation *c, const char *id, const char *name, const char *arguments, size_t n)
{
    pl_strbuf *out = &c->calls;
    pl_strbuf_add_text(out, c->n_calls++ ? ", " : "["); /* the bracket is for several */
    pl_strbuf_add_text(out, "{\"name\": ");
    add_quoted(out, name, strlen(name));
    pl_strbuf_add_text(out, ", \"parameters\": ");
    pl_strbuf_add(out, n ? arguments : "{}", n ? n : 2);
    pl_strbuf_add_text(out, "}");
    if (id && json_object_set_new_nocheck(c->names, id, json_string_nocheck(name)) != 0)
        c->no_memory = true;
    c->open = false;
}

static bool is_json(const char *text, size_t n)
{
    json_t *value = n && (text[0] == '{' || text[0] == '[') ? json_loadb(text, n, 0, NULL) : NULL;
    json_decref(value);
    return value != NULL;
}

bool pl_conversation_result(pl_conversation *c, const char *id, const char *name, const char *text, size_t n)
{
    pl_strbuf out = {0};
    if (!name)
        name = id ? json_string_value(json_object_get(c->names, id)) : NULL;
    if (!name)
        return false;
    end_calls(c);
    pl_strbuf_add_text(&out, "{\"name\": ");
    add_quoted(&out, name, strlen(name));
    pl_strbuf_add_text(&out, ", \"response\": ");
    if (is_json(text, n))
        pl_strbuf_add(&out, text, n);
    else
        add_quoted(&out, text, n);
    pl_strbuf_add_text(&out, "}");
    c->no_memory = c->no_memory || out.failed;
    if (!c->no_memory)
        say(c, false, out.data, out.n);
    pl_strbuf_free(&out);
    return true;
}

void pl_conversation_offer(pl_conversation *c, const json_t *tools, bool parallel)
{
    pl_strbuf *out = &c->offer;
    pl_strbuf_add_text(out, "You have access to functions. If you decide to invoke any of the function(s), you MUST "
                            "put it in the format of {\"name\": function name, \"parameters\": dictionary of argument "
                            "name and its value}");
    if (parallel)
        pl_strbuf_add_text(out, ", several as a JSON array of these");
    pl_strbuf_add_text(out, "\n\nYou SHOULD NOT include any other text in the response if you call a function\n");
    add_json(out, tools);
}

/* ---- as a prompt ------------------------------------------------------------------------------- */

static bool is_lost(const pl_conversation *c)
{
    bool lost = c->no_memory || c->system.failed || c->offer.failed;
    for (size_t i = 0; i < c->n_turns; i++)
        lost = lost || c->turns[i].text.failed;
    return lost;
}

static json_t *text_part(const char *text, size_t n)
{
    return json_pack("{s:s, s:o}", "type", "text", "text", json_stringn_nocheck(text, n));
}

/* A part is one that was shown, or several: a video's frames behind their times, clips. */
static bool add_shown(json_t *parts, const pl_media_part *part)
{
    bool done = true;
    if (part->n_rows == 0)
        return json_array_append_new(parts, json_pack("{s:s}", "type", pl_media_kind_name(part->kind))) == 0;
    for (size_t i = 0; done && i < part->n_rows; i++) {
        const char *type = pl_media_kind_name(pl_media_kind_of(part->rows[i]));
        const char *at = part->times ? part->times[i] : "";
        if (at[0])
            done = json_array_append_new(parts, text_part(at, strlen(at))) == 0;
        done = done && json_array_append_new(parts, json_pack("{s:s}", "type", type)) == 0;
    }
    return done;
}

/* A turn's content: a text, or the parts of one in which something was shown; at: the first place that is not in an earlier
 * turn. NULL: no memory. */
static json_t *turn_content(const pl_conversation *c, size_t index, size_t *at)
{
    const pl_strbuf *text = &c->turns[index].text;
    const char *data = text->data ? text->data : "";
    size_t from = 0;
    if (*at == c->n_places || c->places[*at].turn != index)
        return json_stringn_nocheck(data, text->n);
    json_t *parts = json_array();
    bool done = parts != NULL;
    for (; done && *at < c->n_places && c->places[*at].turn == index; ++*at) {
        const place *p = &c->places[*at];
        if (p->at > from)
            done = json_array_append_new(parts, text_part(data + from, p->at - from)) == 0;
        from = p->at;
        done = done && add_shown(parts, &p->part);
    }
    if (done && text->n > from)
        done = json_array_append_new(parts, text_part(data + from, text->n - from)) == 0;
    if (!done)
        json_decref(parts);
    return done ? parts : NULL;
}

/* Takes content, which may be NULL. */
static bool add_message(json_t *list, const char *role, json_t *content)
{
    return json_array_append_new(list, json_pack("{s:s, s:o}", "role", role, "content", content)) == 0;
}

/* [{"role", "content"}], as text. */
static void list_messages(const pl_conversation *c, pl_strbuf *out)
{
    pl_strbuf system = {0};
    json_t *list = json_array();
    pl_strbuf_add(&system, c->system.data, c->system.n);
    if (c->offer.n && system.n)
        pl_strbuf_add_text(&system, "\n\n");
    pl_strbuf_add(&system, c->offer.data, c->offer.n);
    bool done = list && !system.failed;
    if (done && system.n)
        done = add_message(list, "system", json_stringn_nocheck(system.data, system.n));
    pl_strbuf_free(&system);
    for (size_t i = 0, at = 0; i < c->n_turns && done; i++)
        done = add_message(list, c->turns[i].model ? "assistant" : "user", turn_content(c, i, &at));
    add_json(out, done ? list : NULL);
    json_decref(list);
}

/* All rows of what was shown, in order; NULL: no memory. */
static pl_media **list_media(const pl_conversation *c, size_t *n)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < c->n_places; i++)
        total += c->places[i].part.n_rows;
    pl_media **list = malloc((total + 1) * sizeof(pl_media *));
    for (size_t i = 0; i < c->n_places && list; i++)
        for (size_t k = 0; k < c->places[i].part.n_rows; k++)
            list[at++] = c->places[i].part.rows[k];
    *n = total;
    return list;
}

static pl_status tokenize(const pl_conversation *c, const pl_model *model, bool reply, pl_tokens *out, pl_error *err)
{
    size_t n_media;
    pl_strbuf json = {0};
    pl_media **media = list_media(c, &n_media);
    pl_status status;
    list_messages(c, &json);
    if (json.failed || !media)
        status = pl_fail_memory(err, json.n, "a conversation");
    else if (n_media)
        status = pl_tokenize_chat_media(model, json.data, json.n, reply, media, n_media, out, err);
    else
        status = pl_tokenize_chat_json(model, json.data, json.n, reply, out, err);
    free(media);
    pl_strbuf_free(&json);
    return status;
}

/* Takes the end of the last turn away. */
static pl_status reopen(const pl_model *model, pl_tokens *tokens, pl_error *err)
{
    static const char text[] = "<end_of_turn>\n";
    pl_tokens end;
    PL_TRY(pl_tokenize(model, text, sizeof text - 1, 0, &end, err));
    if (end.n < tokens->n && memcmp(tokens->ids + tokens->n - end.n, end.ids, end.n * sizeof *end.ids) == 0)
        tokens->n -= end.n;
    pl_tokens_free(&end);
    return PL_OK;
}

static pl_status finish(pl_conversation *c, pl_error *err)
{
    end_calls(c);
    if (c->n_turns == 0 && (c->system.n || c->offer.n))
        add_turn(c, false);
    return is_lost(c) ? pl_fail_memory(err, 0, "a conversation") : PL_OK;
}

pl_status pl_conversation_tokens(pl_conversation *c, const pl_model *model, pl_tokens *out, pl_error *err)
{
    PL_TRY(finish(c, err));
    bool model_last = c->n_turns && c->turns[c->n_turns - 1].model;
    if (model_last && !c->open)
        return pl_fail(err, PL_ERR_ARGUMENT, "the last message calls functions whose results are not there");
    PL_TRY(tokenize(c, model, !model_last, out, err));
    pl_status status = model_last ? reopen(model, out, err) : PL_OK;
    if (status != PL_OK)
        pl_tokens_free(out);
    return status;
}

pl_status pl_conversation_text(pl_conversation *c, const pl_model *model, bool reply, char **out, size_t *n_bytes,
                               pl_error *err)
{
    pl_tokens tokens;
    PL_TRY(finish(c, err));
    PL_TRY(reply ? pl_conversation_tokens(c, model, &tokens, err) : tokenize(c, model, false, &tokens, err));
    pl_status status = pl_detokenize(model, tokens.ids, tokens.n, false, out, n_bytes, err);
    pl_tokens_free(&tokens);
    return status;
}
