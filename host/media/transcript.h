/* Speech to text: what the model is asked, and how its answers are written down. */
#ifndef PL_MEDIA_TRANSCRIPT_H
#define PL_MEDIA_TRANSCRIPT_H

#include "host/base/strbuf.h"

/* "de", "de-AT", "deu" or "german" gives "German"; NULL where it is no language that is known. */
const char *pl_speech_language(const char *text);

typedef struct pl_speech_task {
    const char *language; /* spoken, as pl_speech_language() gives it; NULL: not told */
    const char *into;     /* translated into, likewise; NULL: only transcribed */
    const char *hint;     /* text of the same kind, for names and style; NULL: none */
} pl_speech_task;

/* Adds the text that stands before the sound in the user's turn: what Google's publication of Gemma 3n gives, with the
 * format of translations as Google's documentation of audio has it, so that pl_speech_answer() finds them. */
void pl_speech_ask(const pl_speech_task *task, pl_strbuf *out);

/* The part of an answer that counts: without white space around it, of a translation what follows its name. */
const char *pl_speech_answer(const pl_speech_task *task, const char *answer, size_t n_answer, size_t *n);

typedef struct pl_speech_segment {
    double start, end; /* seconds */
    const char *text;  /* NUL-terminated; one line, may be empty: nothing was said */
} pl_speech_segment;

typedef struct pl_speech {
    pl_speech_task task;
    double duration; /* seconds */
    const pl_speech_segment *segments;
    size_t n;
} pl_speech;

typedef enum pl_speech_format {
    PL_SPEECH_TEXT, /* a segment a line */
    PL_SPEECH_SRT,
    PL_SPEECH_VTT,
    PL_SPEECH_JSON,         /* OpenAI's {"text"} */
    PL_SPEECH_VERBOSE_JSON, /* OpenAI's, with segments */
} pl_speech_format;

/* Adds the whole, ending with a newline. Empty segments are left out. */
void pl_speech_print(const pl_speech *speech, pl_speech_format format, pl_strbuf *out);

/* In pieces, as segments come: the beginning (VTT has one) and one segment, of TEXT, SRT or VTT. number: counted from 1. */
void pl_speech_print_head(pl_speech_format format, pl_strbuf *out);
void pl_speech_print_segment(pl_speech_format format, size_t number, const pl_speech_segment *segment, pl_strbuf *out);

/* The texts of the segments with one space between them. */
void pl_speech_join(const pl_speech *speech, pl_strbuf *out);

#endif
