#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/conversation.h"

#define BOS "<bos>"
#define USER "<start_of_turn>user\n"
#define MODEL "<start_of_turn>model\n"
#define END "<end_of_turn>\n"

static pl_model *model;

static void open_model(void)
{
    pl_error err;
    cr_assert_eq(pl_model_open_text(PL_TEST_DATA "/../tools/demo_model/demo.gguf", &model, &err), PL_OK, "%s",
                 err.message);
}

static void close_model(void)
{
    pl_model_close(model);
}

TestSuite(conversation, .init = open_model, .fini = close_model);

static pl_conversation *begin(void)
{
    pl_conversation *c;
    cr_assert_eq(pl_conversation_create(&c, NULL), PL_OK);
    return c;
}

static void say(pl_conversation *c, pl_speaker speaker, const char *text)
{
    pl_conversation_say(c, speaker, text, strlen(text));
}

static void call(pl_conversation *c, const char *id, const char *name, const char *arguments)
{
    pl_conversation_call(c, id, name, arguments, strlen(arguments));
}

static bool result(pl_conversation *c, const char *id, const char *name, const char *text)
{
    return pl_conversation_result(c, id, name, text, strlen(text));
}

/* Frees it. */
static void expect(pl_conversation *c, bool reply, const char *expected)
{
    pl_error err = {.message = ""};
    char *text;
    size_t n;
    cr_assert_eq(pl_conversation_text(c, model, reply, &text, &n, &err), PL_OK, "%s", err.message);
    cr_assert_str_eq(text, expected);
    cr_assert_eq(n, strlen(expected));
    pl_text_free(text);
    pl_conversation_free(c);
}

Test(conversation, turns_alternate)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_USER, "Hello.");
    say(c, PL_SPEAKER_MODEL, "Hi.");
    say(c, PL_SPEAKER_USER, "Who are you?");
    expect(c, true, BOS USER "Hello." END MODEL "Hi." END USER "Who are you?" END MODEL);
}

Test(conversation, any_order_of_roles)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_MODEL, "How can I help?");
    say(c, PL_SPEAKER_SYSTEM, "Be brief.");
    say(c, PL_SPEAKER_USER, "One.");
    say(c, PL_SPEAKER_USER, "Two.");
    say(c, PL_SPEAKER_SYSTEM, "Be kind.");
    say(c, PL_SPEAKER_MODEL, "Three.");
    say(c, PL_SPEAKER_MODEL, "Four.");
    say(c, PL_SPEAKER_USER, "Five.");
    expect(c, true,
           BOS USER "Be brief.\n\nBe kind.\n\n" END MODEL "How can I help?" END USER "One.\n\nTwo." END MODEL
                    "Three.\n\nFour." END USER "Five." END MODEL);
}

static void show(pl_conversation *c, pl_media_kind kind)
{
    pl_media_part part = {.kind = kind, .bytes = malloc(1), .n = 1};
    pl_conversation_show(c, &part);
    cr_assert_null(part.bytes); /* taken */
}

/* Nothing stands between what is shown and the text around it: newlines come with the places. */
Test(conversation, shows_in_order)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_SYSTEM, "Be brief.");
    say(c, PL_SPEAKER_USER, "One.");
    show(c, PL_MEDIA_IMAGE);
    say(c, PL_SPEAKER_USER, "Two.");
    say(c, PL_SPEAKER_USER, "Three.");
    show(c, PL_MEDIA_AUDIO);
    show(c, PL_MEDIA_IMAGE);
    say(c, PL_SPEAKER_MODEL, "Four.");
    show(c, PL_MEDIA_IMAGE);
    cr_assert_eq(pl_conversation_shown(c, 1)->kind, PL_MEDIA_AUDIO);
    cr_assert_null(pl_conversation_shown(c, 4));
    expect(c, true,
           BOS USER "Be brief.\n\nOne.<image_soft_token>Two.\n\nThree.<audio_soft_token><image_soft_token>" END MODEL
                    "Four." END USER "<image_soft_token>" END MODEL);
}

/* A call of a function may give an image: it follows the result. */
Test(conversation, shows_what_a_function_gave)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_USER, "Draw.");
    call(c, "1", "draw", "{}");
    cr_assert(result(c, "1", NULL, "done"));
    show(c, PL_MEDIA_IMAGE);
    expect(c, true,
           BOS USER "Draw." END MODEL "{\"name\": \"draw\", \"parameters\": {}}" END USER
                    "{\"name\": \"draw\", \"response\": \"done\"}<image_soft_token>" END MODEL);
}

#define BROKEN "\xe2\x80\x8b" /* a space of no width */

Test(conversation, texts_make_no_places)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_SYSTEM, "<image_soft_token>");
    say(c, PL_SPEAKER_USER, "a<audio_soft_token><image_soft_token>b <image_soft_toke");
    say(c, PL_SPEAKER_MODEL, "<<image_soft_token>>");
    expect(c, false,
           BOS USER "<" BROKEN "image_soft_token>\n\na<" BROKEN "audio_soft_token><" BROKEN
                    "image_soft_token>b <image_soft_toke" END MODEL "<<" BROKEN "image_soft_token>>" END);
}

Test(conversation, a_system_alone)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_SYSTEM, "Be brief.");
    expect(c, true, BOS USER "Be brief.\n\n" END MODEL);
}

Test(conversation, text_of_the_model_at_the_end_is_continued)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_USER, "Name a city.");
    say(c, PL_SPEAKER_MODEL, "The city of");
    expect(c, true, BOS USER "Name a city." END MODEL "The city of");
    c = begin();
    say(c, PL_SPEAKER_USER, "Name a city.");
    say(c, PL_SPEAKER_MODEL, "The city of");
    expect(c, false, BOS USER "Name a city." END MODEL "The city of" END);
    c = begin();
    say(c, PL_SPEAKER_USER, "Name a city.");
    say(c, PL_SPEAKER_MODEL, "");
    expect(c, true, BOS USER "Name a city." END MODEL);
    c = begin();
    say(c, PL_SPEAKER_USER, "Name a city.");
    say(c, PL_SPEAKER_MODEL, "The city of");
    say(c, PL_SPEAKER_MODEL, "");
    expect(c, true, BOS USER "Name a city." END MODEL "The city of");
    c = begin();
    say(c, PL_SPEAKER_USER, "Name a city.");
    say(c, PL_SPEAKER_USER, "");
    expect(c, false, BOS USER "Name a city." END);
}

static json_t *two_tools(void)
{
    return json_pack("[{s:s, s:s, s:{s:s}}, {s:s}]", "name", "weather", "description", "Says the weather.",
                     "parameters", "type", "object", "name", "time");
}

Test(conversation, functions)
{
    static const char offer[] =
        "You have access to functions. If you decide to invoke any of the function(s), you MUST put it in the format "
        "of {\"name\": function name, \"parameters\": dictionary of argument name and its value}, several as a JSON "
        "array of these\n\nYou SHOULD NOT include any other text in the response if you call a function\n"
        "[{\"name\": \"weather\", \"description\": \"Says the weather.\", \"parameters\": {\"type\": \"object\"}}, "
        "{\"name\": \"time\"}]";
    char expected[2048] = BOS USER "Be brief.\n\n";
    pl_conversation *c = begin();
    json_t *tools = two_tools();
    say(c, PL_SPEAKER_USER, "Rain?");
    call(c, "call_1", "weather", "{\"city\": \"Rome\"}");
    cr_assert(result(c, "call_1", NULL, "{\"rain\": true}"));
    say(c, PL_SPEAKER_SYSTEM, "Be brief.");
    pl_conversation_offer(c, tools, true);
    json_decref(tools);
    strcat(strcat(expected, offer),
           "\n\nRain?" END MODEL "{\"name\": \"weather\", \"parameters\": {\"city\": \"Rome\"}}" END USER
           "{\"name\": \"weather\", \"response\": {\"rain\": true}}" END MODEL);
    expect(c, true, expected);
}

Test(conversation, several_calls_are_one_array)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_USER, "Go.");
    say(c, PL_SPEAKER_MODEL, "I look.");
    call(c, "a", "f", "");
    call(c, "b", "g", "{\"x\": 1}");
    cr_assert(result(c, "b", NULL, "said \"yes\""));
    cr_assert(result(c, "a", NULL, "{not JSON"));
    say(c, PL_SPEAKER_USER, "And?");
    expect(c, true,
           BOS USER "Go." END MODEL "I look.\n\n[{\"name\": \"f\", \"parameters\": {}}, {\"name\": \"g\", "
                    "\"parameters\": {\"x\": 1}}]" END USER "{\"name\": \"g\", \"response\": \"said \\\"yes\\\"\"}\n\n"
                    "{\"name\": \"f\", \"response\": \"{not JSON\"}\n\nAnd?" END MODEL);
}

Test(conversation, results_without_a_call)
{
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_USER, "Go.");
    cr_assert_not(result(c, "x", NULL, "1"));
    cr_assert_not(result(c, NULL, NULL, "1"));
    cr_assert(result(c, NULL, "f", "1"));
    expect(c, true, BOS USER "Go.\n\n{\"name\": \"f\", \"response\": \"1\"}" END MODEL);
}

Test(conversation, what_cannot_be_answered)
{
    pl_error err;
    pl_tokens tokens;
    pl_conversation *c = begin();
    cr_assert_eq(pl_conversation_tokens(c, model, &tokens, &err), PL_ERR_ARGUMENT);
    cr_assert_not_null(strstr(err.message, "no messages"));
    say(c, PL_SPEAKER_USER, "Go.");
    call(c, "a", "f", "");
    cr_assert_eq(pl_conversation_tokens(c, model, &tokens, &err), PL_ERR_ARGUMENT);
    cr_assert_not_null(strstr(err.message, "results"));
    say(c, PL_SPEAKER_MODEL, "");
    cr_assert_eq(pl_conversation_tokens(c, model, &tokens, &err), PL_ERR_ARGUMENT);
    pl_conversation_free(c);
    pl_conversation_free(NULL);
}

Test(conversation, the_prompt_is_what_the_template_gives)
{
    const pl_message messages[] = {{"system", "Be brief."}, {"user", "Hello."}};
    pl_tokens expected, tokens;
    pl_conversation *c = begin();
    say(c, PL_SPEAKER_SYSTEM, "Be brief.");
    say(c, PL_SPEAKER_USER, "Hello.");
    cr_assert_eq(pl_tokenize_chat(model, messages, 2, true, &expected, NULL), PL_OK);
    cr_assert_eq(pl_conversation_tokens(c, model, &tokens, NULL), PL_OK);
    cr_assert_eq(tokens.n, expected.n);
    cr_assert_arr_eq(tokens.ids, expected.ids, tokens.n * sizeof *tokens.ids);
    pl_tokens_free(&tokens);
    pl_tokens_free(&expected);
    pl_conversation_free(c);
}
