#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "host/batch/file_io.h"
#include "host/batch/results_parts.h"

static bool is_done(const pl_results *r, int64_t line)
{
    return r->done[line / 64] >> (line % 64) & 1;
}

void pl_results_mark(pl_results *results, const pl_journal_entry *entry)
{
    results->done[entry->line / 64] |= UINT64_C(1) << (entry->line % 64);
    results->vouched += entry->bytes;
    pl_results_stats *s = &results->stats;
    s->done++;
    s->failed += entry->failed != 0;
    s->prompt_tokens += entry->prompt_tokens;
    s->answer_tokens += entry->answer_tokens;
    s->bytes += entry->bytes;
}

bool pl_results_has(const pl_results *results, int64_t line)
{
    pl_results *r = (pl_results *)(uintptr_t)results;
    pthread_mutex_lock(&r->lock);
    bool has = line >= 0 && line < r->stats.lines && is_done(r, line);
    pthread_mutex_unlock(&r->lock);
    return has;
}

static pl_status check(const pl_results *r, const pl_work_result *result, pl_error *err)
{
    if (result->line < 0 || result->line >= r->stats.lines)
        return pl_fail(err, PL_ERR_FORMAT, "a result is of line %lld, the input has %lld", (long long)result->line,
                       (long long)r->stats.lines);
    if (result->n == 0 || result->n > UINT32_MAX ||
        memchr(result->record, '\n', result->n) != result->record + result->n - 1)
        return pl_fail(err, PL_ERR_FORMAT, "the result of line %lld (%zu bytes) is not one line",
                       (long long)result->line, result->n);
    return PL_OK;
}

static uint32_t clamp(int64_t n)
{
    return n < 0 ? 0 : n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

/* The result first, then the entry that vouches for it. What was half written goes again; where not even that works, the next
 * start does it. */
static pl_status append(pl_results *r, const pl_journal_entry *entry, const char *record, pl_error *err)
{
    pl_status status = pl_file_write(r->fd, r->part, r->tail, record, entry->bytes, err);
    if (status == PL_OK)
        status = pl_journal_add(r->journal, entry, err);
    if (status != PL_OK) {
        (void)!ftruncate(r->fd, (off_t)r->tail);
        return status;
    }
    r->tail += entry->bytes;
    pl_results_mark(r, entry);
    return PL_OK;
}

pl_status pl_results_add(pl_results *results, const pl_work_result *result, bool *added, pl_error *err)
{
    if (added)
        *added = false;
    PL_TRY(check(results, result, err));
    pl_journal_entry entry = {.line = (uint64_t)result->line,
                              .sum = XXH3_64bits(result->record, result->n),
                              .bytes = (uint32_t)result->n,
                              .failed = result->failed,
                              .prompt_tokens = clamp(result->prompt_tokens),
                              .answer_tokens = clamp(result->answer_tokens)};
    pthread_mutex_lock(&results->lock);
    bool is_new = !is_done(results, result->line);
    entry.offset = results->tail;
    pl_status status = is_new ? append(results, &entry, result->record, err) : PL_OK;
    pthread_mutex_unlock(&results->lock);
    if (added)
        *added = is_new && status == PL_OK;
    return status;
}

pl_status pl_results_sync(pl_results *results, pl_error *err)
{
    if (results->fd >= 0)
        PL_TRY(pl_file_sync(results->fd, results->part, err));
    return results->journal ? pl_journal_sync(results->journal, err) : PL_OK;
}

pl_results_stats pl_results_count(pl_results *results)
{
    pthread_mutex_lock(&results->lock);
    pl_results_stats stats = results->stats;
    pthread_mutex_unlock(&results->lock);
    return stats;
}

pl_status pl_results_forget(pl_results *results, pl_error *err)
{
    return results->journal ? pl_journal_remove(results->journal, err) : PL_OK;
}

void pl_results_close(pl_results *results)
{
    if (!results)
        return;
    if (results->fd >= 0)
        close(results->fd);
    pl_journal_close(results->journal);
    pthread_mutex_destroy(&results->lock);
    free(results->out);
    free(results->part);
    free(results->journal_path);
    free(results->done);
    free(results);
}
