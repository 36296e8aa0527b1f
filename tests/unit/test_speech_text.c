#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

#include "host/media/transcript.h"

static const pl_speech_segment segments[] = {
    {0, 1.5, "Hello, world."},
    {1.5, 3, ""},
    {3, 3725.0006, "5 < 6 & \"so\"\n\non"},
};

static const pl_speech speech = {.task = {.language = "German"}, .duration = 3725.5, .segments = segments, .n = 3};

static void expect_taken(pl_strbuf *buf, const char *expected)
{
    char *text = NULL;
    cr_assert(eq(int, pl_strbuf_take(buf, &text, NULL, NULL), PL_OK));
    cr_expect_str_eq(text, expected);
    free(text);
}

static void expect_printed(pl_speech_format format, const char *expected)
{
    pl_strbuf out = {.data = NULL};
    pl_speech_print(&speech, format, &out);
    expect_taken(&out, expected);
}

Test(speech_text, languages_go_by_codes_and_names)
{
    static const char *const german[] = {"de", "DE", "de-AT", "de_CH", "deu", "german", "German"};
    for (size_t i = 0; i < sizeof german / sizeof german[0]; i++)
        cr_expect_str_eq(pl_speech_language(german[i]), "German");
    cr_expect_str_eq(pl_speech_language("yue"), "Cantonese");
    cr_expect_str_eq(pl_speech_language("scottish gaelic"), "Scottish Gaelic");
    static const char *const none[] = {"", "-", "d", "xx", "germ", "de1", "-de", "xyz-de"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        cr_expect(pl_speech_language(none[i]) == NULL, "'%s'", none[i]);
}

static void expect_asked(pl_speech_task task, const char *expected)
{
    pl_strbuf out = {.data = NULL};
    pl_speech_ask(&task, &out);
    expect_taken(&out, expected);
}

Test(speech_text, prompts_are_those_that_are_documented)
{
    expect_asked((pl_speech_task){.language = "English"}, "Transcribe the following speech segment in English:");
    expect_asked((pl_speech_task){.language = NULL}, "Transcribe the following speech segment:");
    expect_asked((pl_speech_task){.hint = "Pleiad, MatFormer", .language = "English"},
                 "For names and style, text from the same recording: Pleiad, MatFormer\n"
                 "Transcribe the following speech segment in English:");
    expect_asked((pl_speech_task){.language = "Spanish", .into = "English"},
                 "Transcribe the following speech segment in Spanish, then translate it into English. "
                 "When formatting the answer, first output the transcription in Spanish, then one newline, then output "
                 "the string 'English: ', then the translation in English.");
    expect_asked((pl_speech_task){.into = "French"},
                 "Transcribe the following speech segment, then translate it into French. "
                 "When formatting the answer, first output the transcription, then one newline, then output "
                 "the string 'French: ', then the translation in French.");
}

static void expect_answer(const char *into, const char *answer, const char *expected)
{
    size_t n;
    pl_speech_task task = {.into = into};
    const char *text = pl_speech_answer(&task, answer, strlen(answer), &n);
    cr_expect(n == strlen(expected) && memcmp(text, expected, n) == 0, "'%s' gave '%.*s'", answer, (int)n, text);
}

Test(speech_text, answers_lose_their_edges)
{
    expect_answer(NULL, " \n Hello \t\n", "Hello");
    expect_answer(NULL, "", "");
    expect_answer(NULL, " \n", "");
    expect_answer(NULL, "Hola\nEnglish: Hello", "Hola\nEnglish: Hello");
    expect_answer("English", "Hola\nEnglish: Hello\n", "Hello");
    expect_answer("English", "English: Hello", "Hello");
    expect_answer("English", "Hola\nEnglish:", "");
    expect_answer("English", "Speak English: no\nyes", "Speak English: no\nyes");
    expect_answer("English", "Hello", "Hello");
    expect_answer("English", "English", "English");
}

Test(speech_text, text_has_a_line_for_each_segment)
{
    expect_printed(PL_SPEECH_TEXT, "Hello, world.\n5 < 6 & \"so\"\n\non\n");
}

Test(speech_text, srt_numbers_what_was_said)
{
    expect_printed(PL_SPEECH_SRT, "1\n00:00:00,000 --> 00:00:01,500\nHello, world.\n\n"
                                  "2\n00:00:03,000 --> 01:02:05,001\n5 < 6 & \"so\"\non\n\n");
}

Test(speech_text, vtt_escapes_markup)
{
    expect_printed(PL_SPEECH_VTT, "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nHello, world.\n\n"
                                  "00:00:03.000 --> 01:02:05.001\n5 &lt; 6 &amp; \"so\"\non\n\n");
}

Test(speech_text, json_is_openai_s)
{
    expect_printed(PL_SPEECH_JSON, "{\"text\":\"Hello, world. 5 < 6 & \\\"so\\\"\\n\\non\"}\n");
    expect_printed(PL_SPEECH_VERBOSE_JSON,
                   "{\"task\":\"transcribe\",\"language\":\"german\",\"duration\":3725.5,"
                   "\"text\":\"Hello, world. 5 < 6 & \\\"so\\\"\\n\\non\",\"segments\":["
                   "{\"id\":0,\"start\":0,\"end\":1.5,\"text\":\"Hello, world.\"},"
                   "{\"id\":1,\"start\":3,\"end\":3725.0006,\"text\":\"5 < 6 & \\\"so\\\"\\n\\non\"}]}\n");
}

Test(speech_text, silence_prints_as_nothing)
{
    pl_strbuf out = {.data = NULL};
    pl_speech_print(&(pl_speech){.task = {.into = "English"}, .duration = 2}, PL_SPEECH_VERBOSE_JSON, &out);
    expect_taken(&out,
                 "{\"task\":\"translate\",\"language\":\"english\",\"duration\":2,\"text\":\"\",\"segments\":[]}\n");
    pl_speech_print(&(pl_speech){.n = 0}, PL_SPEECH_VTT, &out);
    expect_taken(&out, "WEBVTT\n\n");
    pl_speech_print(&(pl_speech){.n = 0}, PL_SPEECH_SRT, &out);
    pl_strbuf_add_text(&out, "");
    expect_taken(&out, "");
}
