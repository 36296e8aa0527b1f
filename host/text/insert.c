#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif

#include "host/text/insert.h"

#include "host/base/strbuf.h"

#include <stdlib.h>
#include <string.h>

static const char *const placeholder[] = {
    [PL_PART_IMAGE] = "<image_soft_token>", [PL_PART_AUDIO] = "<audio_soft_token>"};
static const char *const plural[] = {[PL_PART_IMAGE] = "images", [PL_PART_AUDIO] = "clips of sound"};

#define AROUND "\n\n"

typedef struct place {
    const char *at; /* NULL: there is none */
    size_t length;
    pl_part_kind kind;
} place;

static place next_of(const char *text, size_t n, pl_part_kind kind)
{
    size_t length = strlen(placeholder[kind]);
    return (place){memmem(text, n, placeholder[kind], length), length, kind};
}

static place next_place(const char *text, size_t n)
{
    place image = next_of(text, n, PL_PART_IMAGE), audio = next_of(text, n, PL_PART_AUDIO);
    return image.at && (!audio.at || image.at < audio.at) ? image : audio;
}

static size_t count_inserts(const pl_insert *inserts, size_t n, pl_part_kind kind)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += inserts[i].kind == kind;
    return count;
}

static pl_status check_count(const char *text, size_t n, pl_part_kind kind, const pl_insert *inserts, size_t n_inserts,
                             pl_error *err)
{
    size_t given = count_inserts(inserts, n_inserts, kind), wanted = 0;
    const char *end = text + n;
    for (place p = next_of(text, n, kind); p.at; p = next_of(text, (size_t)(end - text), kind)) {
        text = p.at + p.length;
        wanted++;
    }
    if (given == wanted)
        return PL_OK;
    return pl_fail(err, PL_ERR_ARGUMENT, "the prompt has %zu times %s, but %zu %s are given", wanted, placeholder[kind],
                   given, plural[kind]);
}

static const pl_insert *take(const pl_insert *inserts, pl_part_kind kind, size_t *taken)
{
    size_t i = *taken;
    while (inserts[i].kind != kind)
        i++;
    *taken = i + 1;
    return &inserts[i];
}

static pl_status push_insert(const pl_insert *insert, pl_ids *out, pl_error *err)
{
    PL_TRY(pl_ids_reserve(out, insert->n + 2, err));
    out->v[out->n++] = insert->begin;
    memcpy(out->v + out->n, insert->ids, insert->n * sizeof *out->v);
    out->n += insert->n;
    out->v[out->n++] = insert->end;
    return PL_OK;
}

/* The text between two places, with what belongs to them. */
static pl_status encode_between(const pl_tokenizer *tokenizer, const char *text, size_t n, bool first, bool last,
                                bool special, pl_ids *out, pl_error *err)
{
    pl_strbuf buf = {0};
    char *all = NULL;
    size_t n_all = 0;
    if (first && last)
        return pl_tokenizer_encode(tokenizer, text, n, special, out, err);
    pl_strbuf_add_text(&buf, first ? "" : AROUND);
    pl_strbuf_add(&buf, text, n);
    pl_strbuf_add_text(&buf, last ? "" : AROUND);
    PL_TRY(pl_strbuf_take(&buf, &all, &n_all, err));
    pl_status status = pl_tokenizer_encode(tokenizer, all, n_all, special, out, err);
    free(all);
    return status;
}

static pl_status encode(const pl_tokenizer *tokenizer, const char *text, size_t n, bool special,
                        const pl_insert *inserts, pl_ids *out, pl_error *err)
{
    const char *end = text + n;
    size_t taken[PL_PART_AUDIO + 1] = {0};
    for (bool first = true;; first = false) {
        place p = next_place(text, (size_t)(end - text));
        const char *to = p.at ? p.at : end;
        PL_TRY(encode_between(tokenizer, text, (size_t)(to - text), first, !p.at, special, out, err));
        if (!p.at)
            return PL_OK;
        PL_TRY(push_insert(take(inserts, p.kind, &taken[p.kind]), out, err));
        text = p.at + p.length;
    }
}

pl_status pl_tokenizer_encode_with(const pl_tokenizer *tokenizer, const char *text, size_t n, bool special,
                                   const pl_insert *inserts, size_t n_inserts, pl_ids *out, pl_error *err)
{
    size_t before = out->n;
    PL_TRY(check_count(text, n, PL_PART_IMAGE, inserts, n_inserts, err));
    PL_TRY(check_count(text, n, PL_PART_AUDIO, inserts, n_inserts, err));
    pl_status status = encode(tokenizer, text, n, special, inserts, out, err);
    if (status != PL_OK)
        out->n = before;
    return status;
}
