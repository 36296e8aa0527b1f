#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/batch/crew_message.h"

/* A message of each kind with something in it; returns the kind. */
static int make(int i, pl_strbuf *buf)
{
    pl_work work = {.line = 7, .text = (char[]){"{\"a\": 1}"}, .n = 8, .path = "e2b"};
    pl_work_result result = {
        .line = 9, .record = "{}\n", .n = 3, .failed = true, .prompt_tokens = 4, .answer_tokens = 5};
    static const int kinds[] = {PL_CREW_ASK, PL_CREW_LINES, PL_CREW_RECALL, PL_CREW_BACK, PL_CREW_RESULTS, PL_CREW_END};
    pl_crew_begin(buf);
    for (int twice = 0; twice < 2; twice++) {
        if (kinds[i] == PL_CREW_LINES)
            pl_crew_put_line(buf, &work);
        else if (kinds[i] == PL_CREW_RESULTS)
            pl_crew_put_result(buf, &result);
        else if (kinds[i] == PL_CREW_BACK)
            pl_crew_put_back(buf, 3);
    }
    if (kinds[i] == PL_CREW_ASK)
        pl_crew_put_ask(buf, &(pl_crew_ask){.lines = 3, .waiting = 2, .bytes = 1000});
    else if (kinds[i] == PL_CREW_RECALL)
        pl_crew_put_count(buf, 12);
    else if (kinds[i] == PL_CREW_END)
        pl_crew_put_text(buf, PL_ERR_IO, "no space left");
    pl_crew_seal(buf, (pl_crew_kind)kinds[i]);
    return kinds[i];
}
#define N_MADE 6

static pl_status get_lines(pl_crew_reader *r, pl_error *err)
{
    while (pl_crew_more(r)) {
        pl_work work = {.text = NULL};
        pl_status status = pl_crew_get_line(r, &work, err);
        bool right = status != PL_OK ||
                     (work.line == 7 && work.n == 8 && !strcmp(work.text, "{\"a\": 1}") && !strcmp(work.path, "e2b"));
        free(work.text);
        cr_assert(right);
        PL_TRY(status);
    }
    return PL_OK;
}

static pl_status get_results(pl_crew_reader *r, pl_error *err)
{
    while (pl_crew_more(r)) {
        pl_work_result result;
        PL_TRY(pl_crew_get_result(r, &result, err));
        cr_assert(result.line == 9 && result.n == 3 && !memcmp(result.record, "{}\n", 3) && result.failed &&
                  result.prompt_tokens == 4 && result.answer_tokens == 5);
    }
    return PL_OK;
}

/* The values are checked, too: what is read at all is right. */
static pl_status read_message(int kind, const void *data, size_t n, pl_error *err)
{
    pl_crew_reader r;
    pl_crew_ask ask;
    pl_error text;
    uint32_t count;
    int64_t line;
    PL_TRY(pl_crew_read(kind, data, n, &r, err));
    switch (kind) {
    case PL_CREW_ASK:
        PL_TRY(pl_crew_get_ask(&r, &ask, err));
        cr_assert(ask.lines == 3 && ask.waiting == 2 && ask.bytes == 1000);
        return PL_OK;
    case PL_CREW_LINES: return get_lines(&r, err);
    case PL_CREW_RECALL:
        PL_TRY(pl_crew_get_count(&r, &count, err));
        cr_assert_eq(count, 12);
        return PL_OK;
    case PL_CREW_BACK:
        while (pl_crew_more(&r)) {
            PL_TRY(pl_crew_get_back(&r, &line, err));
            cr_assert_eq(line, 3);
        }
        return PL_OK;
    case PL_CREW_RESULTS: return get_results(&r, err);
    default:
        PL_TRY(pl_crew_get_text(&r, &text, err));
        cr_assert(text.status == PL_ERR_IO && !strcmp(text.message, "no space left"));
        return PL_OK;
    }
}

Test(crew_message, what_was_written_is_read)
{
    for (int i = 0; i < N_MADE; i++) {
        pl_strbuf buf = {0};
        int kind = make(i, &buf);
        cr_assert_eq(read_message(kind, buf.data, buf.n, NULL), PL_OK, "%s", pl_crew_kind_name(kind));
        pl_strbuf_free(&buf);
    }
}

static void expect_refused(int kind, const void *data, size_t n, int at)
{
    pl_error err = {0};
    char *exact = malloc(n ? n : 1);
    memcpy(exact, data, n);
    cr_assert_eq(read_message(kind, exact, n, &err), PL_ERR_FORMAT, "%s, %d", pl_crew_kind_name(kind), at);
    cr_assert(strstr(err.message, "message") && strstr(err.message, pl_crew_kind_name(kind)), "%s", err.message);
    free(exact);
}

Test(crew_message, cut_or_changed_anywhere_it_is_refused)
{
    for (int i = 0; i < N_MADE; i++) {
        pl_strbuf buf = {0};
        int kind = make(i, &buf);
        for (size_t n = 0; n < buf.n; n++)
            expect_refused(kind, buf.data, n, (int)n);
        for (size_t bit = 0; bit < 8 * buf.n; bit++) {
            buf.data[bit / 8] ^= (char)(1 << bit % 8);
            expect_refused(kind, buf.data, buf.n, (int)bit);
            buf.data[bit / 8] ^= (char)(1 << bit % 8);
        }
        expect_refused(kind % (PL_CREW_KINDS - 1) + 1, buf.data, buf.n, -1);
        pl_strbuf_free(&buf);
    }
}

/* With a checksum that is right: by what it says. */
Test(crew_message, a_content_that_cannot_be_is_refused)
{
    static const struct {
        int64_t line, prompt, answer;
        uint64_t n, failed;
        const char *record;
    } results[] = {{-1, 0, 0, 3, 0, "{}\n"}, {0, -1, 0, 3, 0, "{}\n"}, {0, 0, -1, 3, 0, "{}\n"},
                   {0, 0, 0, 3, 2, "{}\n"},  {0, 0, 0, 0, 0, "{}\n"},  {0, 0, 0, 4, 0, "{}\n"},
                   {0, 0, 0, 2, 0, "{}\n"},  {0, 0, 0, 3, 0, "\n}\n"}, {0, 0, 0, UINT64_MAX, 0, "{}\n"}};
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        pl_strbuf buf = {0};
        pl_crew_begin(&buf);
        pl_strbuf_add(&buf, &results[i], 40);
        pl_strbuf_add(&buf, results[i].record, 3);
        pl_crew_seal(&buf, PL_CREW_RESULTS);
        expect_refused(PL_CREW_RESULTS, buf.data, buf.n, (int)i);
        pl_strbuf_free(&buf);
    }
    static const struct {
        int64_t line;
        uint64_t n, n_path;
        const char *bytes;
    } lines[] = {{-1, 1, 1, "ab"}, {0, 2, 1, "ab"},          {0, 0, 3, "ab"},         {0, 0, PL_WORK_PATH, "ab"},
                 {0, 0, 2, "a\0"}, {0, UINT64_MAX, 1, "ab"}, {0, 0, UINT64_MAX, "ab"}};
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        pl_strbuf buf = {0};
        pl_crew_begin(&buf);
        pl_strbuf_add(&buf, &lines[i], 24);
        pl_strbuf_add(&buf, lines[i].bytes, 2);
        pl_crew_seal(&buf, PL_CREW_LINES);
        expect_refused(PL_CREW_LINES, buf.data, buf.n, (int)i);
        pl_strbuf_free(&buf);
    }
}

Test(crew_message, kinds_that_there_are_not_are_named)
{
    pl_error err = {0};
    pl_crew_reader r;
    cr_assert_eq(pl_crew_read(77, "", 0, &r, &err), PL_ERR_FORMAT);
    cr_assert(strstr(err.message, "77"));
}
