/* What the ranks of a crew tell each other: messages with a checksum, read strictly. Numbers in the machine's byte order, by
 * which a rank of another order is refused. */
#ifndef PL_BATCH_CREW_MESSAGE_H
#define PL_BATCH_CREW_MESSAGE_H

#include "host/base/strbuf.h"
#include "host/batch/work.h"

typedef enum pl_crew_kind {
    PL_CREW_HELLO = 1, /* to rank 0: the name of the machine */
    PL_CREW_PULSE,     /* nothing: the rank is alive */
    PL_CREW_ASK,       /* to rank 0: how many lines; replaces what was asked for before */
    PL_CREW_LINES,     /* at least one */
    PL_CREW_RECALL,    /* so many lines should come back */
    PL_CREW_BACK,      /* to rank 0: these lines, as many as are still in stock */
    PL_CREW_RESULTS,   /* to rank 0 */
    PL_CREW_UNABLE,    /* to rank 0: why this rank does not work */
    PL_CREW_END,       /* how the job ended */
    PL_CREW_BYE,       /* to rank 0, after END: the last message */
    PL_CREW_KINDS
} pl_crew_kind;

const char *pl_crew_kind_name(int kind);

typedef struct pl_crew_ask {
    uint32_t lines, waiting; /* waiting: of how many an engine could make use now */
    uint64_t bytes;          /* most; one line may have more */
} pl_crew_ask;

/* ---- writing: begin, put, seal; failed allocations are the buffer's ---- */

/* buf: empty. */
void pl_crew_begin(pl_strbuf *buf);
void pl_crew_put_ask(pl_strbuf *buf, const pl_crew_ask *ask);
void pl_crew_put_count(pl_strbuf *buf, uint32_t n);
void pl_crew_put_text(pl_strbuf *buf, int status, const char *text);
void pl_crew_put_line(pl_strbuf *buf, const pl_work *work);
void pl_crew_put_back(pl_strbuf *buf, int64_t line);
void pl_crew_put_result(pl_strbuf *buf, const pl_work_result *result);
void pl_crew_seal(pl_strbuf *buf, pl_crew_kind kind);

/* ---- reading ---- */

typedef struct pl_crew_reader {
    int kind;
    const unsigned char *at, *end;
} pl_crew_reader;

/* PL_ERR_FORMAT, here as below: what came is no such message; the error says which and what is wrong. */
pl_status pl_crew_read(int kind, const void *data, size_t n, pl_crew_reader *out, pl_error *err);

/* Each takes what stands next. */
pl_status pl_crew_get_ask(pl_crew_reader *r, pl_crew_ask *out, pl_error *err);
pl_status pl_crew_get_count(pl_crew_reader *r, uint32_t *out, pl_error *err);
pl_status pl_crew_get_text(pl_crew_reader *r, pl_error *out, pl_error *err); /* out->status: any */
pl_status pl_crew_get_line(pl_crew_reader *r, pl_work *out, pl_error *err);  /* out->text: malloc'ed */
pl_status pl_crew_get_back(pl_crew_reader *r, int64_t *out, pl_error *err);
pl_status pl_crew_get_result(pl_crew_reader *r, pl_work_result *out, pl_error *err); /* out->record: in the message */

static inline bool pl_crew_more(const pl_crew_reader *r)
{
    return r->at < r->end;
}

/* Nothing stands behind what was read. */
pl_status pl_crew_no_more(const pl_crew_reader *r, pl_error *err);

#endif
