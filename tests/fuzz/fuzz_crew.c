/* Any bytes as a message between ranks: the first is its kind; as they are, and with a checksum that is right. What is read is
 * written again, and is the same. */
#include <stdlib.h>
#include <string.h>

#include "host/batch/crew_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static pl_status copy_item(pl_crew_reader *r, pl_strbuf *out)
{
    pl_work work = {.text = NULL};
    pl_work_result result;
    pl_status status = PL_OK;
    int64_t line;
    if (r->kind == PL_CREW_LINES) {
        status = pl_crew_get_line(r, &work, NULL);
        if (status == PL_OK)
            pl_crew_put_line(out, &work);
        free(work.text);
    } else if (r->kind == PL_CREW_RESULTS) {
        PL_TRY(pl_crew_get_result(r, &result, NULL));
        pl_crew_put_result(out, &result);
    } else {
        PL_TRY(pl_crew_get_back(r, &line, NULL));
        pl_crew_put_back(out, line);
    }
    return status;
}

static pl_status copy(pl_crew_reader *r, pl_strbuf *out)
{
    pl_crew_ask ask;
    pl_error text;
    uint32_t count;
    switch (r->kind) {
    case PL_CREW_LINES:
    case PL_CREW_RESULTS:
    case PL_CREW_BACK:
        while (pl_crew_more(r))
            PL_TRY(copy_item(r, out));
        return PL_OK;
    case PL_CREW_ASK:
        PL_TRY(pl_crew_get_ask(r, &ask, NULL));
        pl_crew_put_ask(out, &ask);
        return PL_OK;
    case PL_CREW_RECALL:
        PL_TRY(pl_crew_get_count(r, &count, NULL));
        pl_crew_put_count(out, count);
        return PL_OK;
    case PL_CREW_PULSE:
    case PL_CREW_BYE: return pl_crew_no_more(r, NULL);
    default: /* a text may be cut, or cleaned */
        PL_TRY(pl_crew_get_text(r, &text, NULL));
        if (strlen(text.message) >= sizeof text.message)
            abort();
        return PL_ERR_UNSUPPORTED;
    }
}

static void look(int kind, const void *data, size_t n)
{
    pl_crew_reader r;
    pl_strbuf again = {0};
    pl_crew_begin(&again);
    if (pl_crew_read(kind, data, n, &r, NULL) == PL_OK && copy(&r, &again) == PL_OK) {
        pl_crew_seal(&again, (pl_crew_kind)kind);
        if (again.failed || again.n != n || memcmp(again.data, data, n) != 0)
            abort();
    }
    pl_strbuf_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    int kind = data[0] % (PL_CREW_KINDS + 1);
    void *exact = malloc(size);
    if (!exact)
        return 0;
    memcpy(exact, data + 1, size - 1);
    look(kind, exact, size - 1);
    free(exact);
    pl_strbuf message = {0};
    pl_crew_begin(&message);
    pl_strbuf_add(&message, data + 1, size - 1);
    pl_crew_seal(&message, (pl_crew_kind)kind);
    look(kind, message.data, message.n);
    pl_strbuf_free(&message);
    return 0;
}
