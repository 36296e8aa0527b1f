#include "host/media/transcript.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include <strings.h>

#include "host/base/json_out.h"

/* ---- languages ---------------------------------------------------------------------------------- */

typedef struct language {
    char two[3], three[4]; /* ISO 639-1 and 639-3; "": not told apart by it */
    const char *name;
} language;

/* clang-format off */
static const language languages[] = {
    {"af", "afr", "Afrikaans"}, {"am", "amh", "Amharic"}, {"ar", "ara", "Arabic"}, {"as", "", "Assamese"},
    {"az", "aze", "Azerbaijani"}, {"be", "bel", "Belarusian"}, {"bg", "bul", "Bulgarian"}, {"bn", "ben", "Bengali"},
    {"bo", "bod", "Tibetan"}, {"br", "bre", "Breton"}, {"bs", "bos", "Bosnian"}, {"ca", "cat", "Catalan"},
    {"cs", "ces", "Czech"}, {"cy", "cym", "Welsh"}, {"da", "dan", "Danish"}, {"de", "deu", "German"},
    {"el", "ell", "Greek"}, {"en", "eng", "English"}, {"eo", "epo", "Esperanto"}, {"es", "spa", "Spanish"},
    {"et", "est", "Estonian"}, {"eu", "eus", "Basque"}, {"fa", "fas", "Persian"}, {"fi", "fin", "Finnish"},
    {"fo", "fao", "Faroese"}, {"fr", "fra", "French"}, {"fy", "fry", "West Frisian"}, {"ga", "gle", "Irish"},
    {"gd", "gla", "Scottish Gaelic"}, {"gl", "glg", "Galician"}, {"gu", "guj", "Gujarati"}, {"ha", "hau", "Hausa"},
    {"he", "heb", "Hebrew"}, {"hi", "hin", "Hindi"}, {"hr", "hrv", "Croatian"}, {"ht", "hat", "Haitian Creole"},
    {"hu", "hun", "Hungarian"}, {"hy", "hye", "Armenian"}, {"id", "ind", "Indonesian"}, {"ig", "ibo", "Igbo"},
    {"is", "isl", "Icelandic"}, {"it", "ita", "Italian"}, {"ja", "jpn", "Japanese"}, {"jv", "jav", "Javanese"},
    {"ka", "kat", "Georgian"}, {"kk", "kaz", "Kazakh"}, {"km", "khm", "Khmer"}, {"kn", "kan", "Kannada"},
    {"ko", "kor", "Korean"}, {"ku", "kur", "Kurdish"}, {"ky", "kir", "Kyrgyz"}, {"la", "lat", "Latin"},
    {"lb", "ltz", "Luxembourgish"}, {"lg", "lug", "Ganda"}, {"ln", "lin", "Lingala"}, {"lo", "lao", "Lao"},
    {"lt", "lit", "Lithuanian"}, {"lv", "lav", "Latvian"}, {"mg", "mlg", "Malagasy"}, {"mi", "mri", "Maori"},
    {"mk", "mkd", "Macedonian"}, {"ml", "mal", "Malayalam"}, {"mn", "mon", "Mongolian"}, {"mr", "mar", "Marathi"},
    {"ms", "msa", "Malay"}, {"mt", "mlt", "Maltese"}, {"my", "mya", "Burmese"}, {"ne", "nep", "Nepali"},
    {"nl", "nld", "Dutch"}, {"nn", "nno", "Norwegian Nynorsk"}, {"no", "nor", "Norwegian"}, {"ny", "nya", "Chichewa"},
    {"oc", "oci", "Occitan"}, {"om", "orm", "Oromo"}, {"or", "ori", "Odia"}, {"pa", "pan", "Punjabi"},
    {"pl", "pol", "Polish"}, {"ps", "pus", "Pashto"}, {"pt", "por", "Portuguese"}, {"ro", "ron", "Romanian"},
    {"ru", "rus", "Russian"}, {"rw", "kin", "Kinyarwanda"}, {"sa", "san", "Sanskrit"}, {"sd", "snd", "Sindhi"},
    {"si", "sin", "Sinhala"}, {"sk", "slk", "Slovak"}, {"sl", "slv", "Slovenian"}, {"sn", "sna", "Shona"},
    {"so", "som", "Somali"}, {"sq", "sqi", "Albanian"}, {"sr", "srp", "Serbian"}, {"su", "sun", "Sundanese"},
    {"sv", "swe", "Swedish"}, {"sw", "swa", "Swahili"}, {"ta", "tam", "Tamil"}, {"te", "tel", "Telugu"},
    {"tg", "tgk", "Tajik"}, {"th", "tha", "Thai"}, {"ti", "tir", "Tigrinya"}, {"tk", "tuk", "Turkmen"},
    {"tl", "tgl", "Tagalog"}, {"tn", "tsn", "Tswana"}, {"tr", "tur", "Turkish"}, {"tt", "tat", "Tatar"},
    {"ug", "uig", "Uyghur"}, {"uk", "ukr", "Ukrainian"}, {"ur", "urd", "Urdu"}, {"uz", "uzb", "Uzbek"},
    {"vi", "vie", "Vietnamese"}, {"wo", "wol", "Wolof"}, {"xh", "xho", "Xhosa"}, {"yi", "yid", "Yiddish"},
    {"yo", "yor", "Yoruba"}, {"", "yue", "Cantonese"}, {"zh", "zho", "Chinese"}, {"zu", "zul", "Zulu"},
};
/* clang-format on */

const char *pl_speech_language(const char *text)
{
    size_t n = strcspn(text, "-_");
    bool code = n == 2 || n == 3;
    for (size_t i = 0; i < sizeof languages / sizeof languages[0]; i++) {
        const language *l = &languages[i];
        if (strcasecmp(text, l->name) == 0 ||
            (code && strncasecmp(text, n == 2 ? l->two : l->three, n) == 0 && (n == 3 || l->two[0])))
            return l->name;
    }
    return NULL;
}

/* ---- prompts and answers ------------------------------------------------------------------------ */

static void say_language(const char *before, const char *name, pl_strbuf *out)
{
    if (name)
        pl_strbuf_printf(out, " %s %s", before, name);
}

void pl_speech_ask(const pl_speech_task *task, pl_strbuf *out)
{
    if (task->hint && *task->hint)
        pl_strbuf_printf(out, "For names and style, text from the same recording: %s\n", task->hint);
    pl_strbuf_add_text(out, "Transcribe the following speech segment");
    say_language("in", task->language, out);
    if (!task->into) {
        pl_strbuf_add_text(out, ":");
        return;
    }
    pl_strbuf_printf(out, ", then translate it into %s. When formatting the answer, first output the transcription",
                     task->into);
    say_language("in", task->language, out);
    pl_strbuf_printf(out, ", then one newline, then output the string '%s: ', then the translation in %s.", task->into,
                     task->into);
}

static const char *trim(const char *text, size_t *n)
{
    while (*n && isspace((unsigned char)text[*n - 1]))
        --*n;
    while (*n && isspace((unsigned char)*text)) {
        text++;
        --*n;
    }
    return text;
}

/* Behind "English:" at the beginning of a line; 0: there is none. */
static size_t behind_name(const char *answer, size_t n_answer, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; i + n < n_answer; i++)
        if ((i == 0 || answer[i - 1] == '\n') && memcmp(answer + i, name, n) == 0 && answer[i + n] == ':')
            return i + n + 1;
    return 0;
}

const char *pl_speech_answer(const pl_speech_task *task, const char *answer, size_t n_answer, size_t *n)
{
    size_t skip = task->into ? behind_name(answer, n_answer, task->into) : 0;
    *n = n_answer - skip;
    return trim(answer + skip, n);
}

/* ---- formats ------------------------------------------------------------------------------------ */

static void print_time(double seconds, char point, pl_strbuf *out)
{
    long long ms = llround(fmax(seconds, 0) * 1000);
    pl_strbuf_printf(out, "%02lld:%02lld:%02lld%c%03lld", ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, point,
                     ms % 1000);
}

static void print_span(const pl_speech_segment *segment, char point, pl_strbuf *out)
{
    print_time(segment->start, point, out);
    pl_strbuf_add_text(out, " --> ");
    print_time(segment->end, point, out);
    pl_strbuf_add_text(out, "\n");
}

/* A cue ends at an empty line, and of VTT its text is markup. */
static void print_cue(const char *text, bool vtt, pl_strbuf *out)
{
    for (const char *at = text; *at; at++) {
        if (*at == '\n' && (at == text || at[-1] == '\n'))
            continue;
        if (vtt && (*at == '&' || *at == '<' || *at == '>'))
            pl_strbuf_add_text(out, *at == '&' ? "&amp;" : *at == '<' ? "&lt;" : "&gt;");
        else
            pl_strbuf_add(out, at, 1);
    }
    pl_strbuf_add_text(out, "\n\n");
}

void pl_speech_print_head(pl_speech_format format, pl_strbuf *out)
{
    if (format == PL_SPEECH_VTT)
        pl_strbuf_add_text(out, "WEBVTT\n\n");
}

void pl_speech_print_segment(pl_speech_format format, size_t number, const pl_speech_segment *segment, pl_strbuf *out)
{
    if (format == PL_SPEECH_TEXT) {
        pl_strbuf_add_text(out, segment->text);
        pl_strbuf_add_text(out, "\n");
        return;
    }
    bool vtt = format == PL_SPEECH_VTT;
    if (!vtt)
        pl_strbuf_printf(out, "%zu\n", number);
    print_span(segment, vtt ? '.' : ',', out);
    print_cue(segment->text, vtt, out);
}

void pl_speech_join(const pl_speech *speech, pl_strbuf *out)
{
    for (size_t i = 0, n = 0; i < speech->n; i++)
        if (*speech->segments[i].text) {
            pl_strbuf_add_text(out, n++ ? " " : "");
            pl_strbuf_add_text(out, speech->segments[i].text);
        }
}

static void put_segments(const pl_speech *speech, pl_json *json)
{
    pl_json_key_array(json, "segments");
    for (size_t i = 0, id = 0; i < speech->n; i++) {
        const pl_speech_segment *segment = &speech->segments[i];
        if (!*segment->text)
            continue;
        pl_json_begin_object(json);
        pl_json_put_size(json, "id", id++);
        pl_json_put_double(json, "start", segment->start);
        pl_json_put_double(json, "end", segment->end);
        pl_json_put_string(json, "text", segment->text);
        pl_json_end_object(json);
    }
    pl_json_end_array(json);
}

static void put_language(const char *name, pl_json *json)
{
    char lower[32];
    size_t n = 0;
    for (; name && name[n] && n + 1 < sizeof lower; n++)
        lower[n] = (char)tolower((unsigned char)name[n]);
    lower[n] = '\0';
    pl_json_put_string(json, "language", name ? lower : NULL);
}

static void print_json(const pl_speech *speech, bool verbose, pl_strbuf *out)
{
    pl_json json = pl_json_to_buffer();
    pl_strbuf text = {.data = NULL};
    pl_speech_join(speech, &text);
    pl_json_begin_object(&json);
    if (verbose) {
        pl_json_put_string(&json, "task", speech->task.into ? "translate" : "transcribe");
        put_language(speech->task.into ? speech->task.into : speech->task.language, &json);
        pl_json_put_double(&json, "duration", speech->duration);
    }
    pl_json_put_string(&json, "text", text.data ? text.data : "");
    if (verbose)
        put_segments(speech, &json);
    pl_json_end_object(&json);
    pl_strbuf_add(out, json.buf.data, json.buf.n);
    pl_strbuf_add_text(out, "\n");
    out->failed |= json.buf.failed || text.failed;
    pl_strbuf_free(&text);
    pl_json_free(&json);
}

void pl_speech_print(const pl_speech *speech, pl_speech_format format, pl_strbuf *out)
{
    if (format == PL_SPEECH_JSON || format == PL_SPEECH_VERBOSE_JSON) {
        print_json(speech, format == PL_SPEECH_VERBOSE_JSON, out);
        return;
    }
    pl_speech_print_head(format, out);
    for (size_t i = 0, number = 1; i < speech->n; i++)
        if (*speech->segments[i].text)
            pl_speech_print_segment(format, number++, &speech->segments[i], out);
}
