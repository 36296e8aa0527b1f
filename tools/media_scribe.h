/* What transcribing a file and transcribing live have in common: the model and what it is asked, and where the text goes. */
#ifndef PL_TOOLS_MEDIA_SCRIBE_H
#define PL_TOOLS_MEDIA_SCRIBE_H

#include "host/base/outfile.h"
#include "host/media/transcript.h"
#include "tools/answer.h"

typedef struct pl_scribe {
    pl_options options; /* those of answers; borrows all texts and lists */
    pl_opened opened;
    pl_speech_task task;
    pl_speech_format format;
    pl_strbuf chat; /* JSON: the question, with one sound */
    uint64_t seed;
    pl_outfile out; /* file NULL: standard output */
    pl_speech_segment *segments;
    size_t n, room, printed;
} pl_scribe; /* all zero: nothing */

/* Checks what the options say, opens the model and, with --out, the file. */
pl_status pl_scribe_open(const pl_options *options, pl_scribe *out, pl_error *err);
void pl_scribe_close(pl_scribe *scribe);

/* Where the text goes. */
FILE *pl_scribe_file(const pl_scribe *scribe);

/* The prompt of one sound. */
pl_status pl_scribe_prompt(const pl_scribe *scribe, pl_media *sound, pl_tokens *out, pl_error *err);

/* Keeps the segment that the model's answer is, of seconds from `start` to `end`; *out, which may be NULL, points to it until the
 * next. */
pl_status pl_scribe_keep(pl_scribe *scribe, double start, double end, const pl_strbuf *answer,
                         const pl_speech_segment **out, pl_error *err);

/* Prints the segment in a format that goes segment by segment; does nothing for JSON. */
pl_status pl_scribe_print(pl_scribe *scribe, const pl_speech_segment *segment, pl_error *err);

/* Prints what is printed at the end, which live is nothing, and puts the file in place. */
pl_status pl_scribe_finish(pl_scribe *scribe, double duration, pl_error *err);

#endif
