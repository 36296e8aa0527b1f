#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "host/base/outfile.h"
#include "host/batch/file_io.h"
#include "host/batch/results_parts.h"
#include "host/batch/span_reader.h"

/* What is written in place of the part, where that is not what OUT shall be. */
typedef struct copy {
    pl_results *r;
    pl_span_reader reader;
    pl_outfile out;
    XXH3_state_t *hash;
    pl_journal_entry *entries; /* [lines] where the order is theirs, else NULL */
} copy;

static pl_status copy_record(copy *c, const pl_journal_entry *entry, pl_error *err)
{
    const char *bytes;
    PL_TRY(pl_span_get(&c->reader, entry->offset, entry->bytes, &bytes, err));
    if (!bytes || XXH3_64bits(bytes, entry->bytes) != entry->sum)
        return pl_fail(err, PL_ERR_IO,
                       "%s: the result of request %llu was damaged after it was written; start again, so that "
                       "it is done again",
                       c->reader.path, (unsigned long long)entry->line + 1);
    XXH3_64bits_update(c->hash, bytes, entry->bytes);
    return pl_outfile_write(&c->out, bytes, entry->bytes, err);
}

static pl_status copy_entry(void *user, uint64_t index, const pl_journal_entry *entry, bool *keep, pl_error *err)
{
    (void)index;
    (void)keep;
    copy *c = user;
    if (!entry || entry->line >= (uint64_t)c->r->stats.lines)
        return PL_OK;
    if (!c->entries)
        return copy_record(c, entry, err);
    c->entries[entry->line] = *entry;
    return PL_OK;
}

static pl_status copy_all(copy *c, pl_error *err)
{
    PL_TRY(pl_journal_each(c->r->journal, copy_entry, c, err));
    for (int64_t i = 0; c->entries && i < c->r->stats.lines; i++)
        PL_TRY(copy_record(c, &c->entries[i], err));
    return PL_OK;
}

/* Says that OUT is whole, so that the part may go. */
static pl_status mark_finished(copy *c, pl_error *err)
{
    pl_results *r = c->r;
    const pl_journal_entry mark = {
        .line = PL_JOURNAL_FINISHED, .offset = r->vouched, .sum = XXH3_64bits_digest(c->hash)};
    PL_TRY(pl_journal_add(r->journal, &mark, err));
    PL_TRY(pl_journal_sync(r->journal, err));
    r->finished = true;
    return PL_OK;
}

static pl_status rewrite(pl_results *r, bool ordered, pl_error *err)
{
    pl_status status = PL_OK;
    size_t bytes = (size_t)r->stats.lines * sizeof(pl_journal_entry);
    copy c = {.r = r, .hash = XXH3_createState(), .entries = ordered ? malloc(bytes + 1) : NULL};
    if (!c.hash || (ordered && !c.entries)) {
        status = pl_fail_memory(err, bytes, "the order of the results");
        goto fail;
    }
    XXH3_64bits_reset(c.hash);
    PL_TRY_GOTO(pl_span_reader_open(r->fd, r->renamed ? r->out : r->part, &c.reader, err));
    PL_TRY_GOTO(pl_outfile_open(r->out, &c.out, err));
    PL_TRY_GOTO(pl_outfile_reserve(&c.out, r->vouched, err));
    PL_TRY_GOTO(copy_all(&c, err));
    PL_TRY_GOTO(pl_outfile_commit(&c.out, err));
    PL_TRY_GOTO(mark_finished(&c, err));
fail:
    pl_outfile_abort(&c.out);
    pl_span_reader_close(&c.reader);
    XXH3_freeState(c.hash);
    free(c.entries);
    return status;
}

static pl_status rename_part(pl_results *r, pl_error *err)
{
    if (rename(r->part, r->out) != 0)
        return pl_fail(err, PL_ERR_IO, "%s: cannot become %s: %s", r->part, r->out, strerror(errno));
    r->renamed = true;
    return pl_folder_sync(r->out, err);
}

static pl_status remove_part(const pl_results *r, pl_error *err)
{
    if (unlink(r->part) != 0 && errno != ENOENT)
        return pl_fail(err, PL_ERR_IO, "%s: cannot remove: %s", r->part, strerror(errno));
    return PL_OK;
}

pl_status pl_results_finish(pl_results *results, bool ordered, pl_error *err)
{
    pl_results *r = results;
    if (r->stats.done != r->stats.lines)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: %lld of %lld lines have no result yet", r->out,
                       (long long)(r->stats.lines - r->stats.done), (long long)r->stats.lines);
    if (!r->finished)
        PL_TRY(pl_results_sync(r, err));
    bool as_it_is = !ordered && r->vouched == r->tail;
    if (!r->finished && !as_it_is)
        PL_TRY(rewrite(r, ordered, err));
    if (r->finished)
        return remove_part(r, err);
    return r->renamed ? PL_OK : rename_part(r, err);
}
