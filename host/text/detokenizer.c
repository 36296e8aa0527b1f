#include "host/text/detokenizer.h"

#include "host/text/token_source.h"
#include "host/text/tokenizer_parts.h"
#include "host/text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define META "\xe2\x96\x81" /* U+2581, which stands for a space */
#define REPLACEMENT "\xef\xbf\xbd"

void pl_detokenizer_init(pl_detokenizer *d, const pl_tokenizer *tokenizer, bool skip_special)
{
    *d = (pl_detokenizer){.tokenizer = tokenizer, .skip_special = skip_special};
}

void pl_detokenizer_free(pl_detokenizer *d)
{
    free(d->held);
    free(d->out);
    d->held = NULL;
    d->out = NULL;
    d->n_held = d->held_room = d->out_room = 0;
}

static pl_status reserve_out(pl_detokenizer *d, size_t room, pl_error *err)
{
    if (room <= d->out_room)
        return PL_OK;
    room += room / 2 + 64;
    char *grown = realloc(d->out, room);
    if (!grown)
        return pl_fail_memory(err, room, "decoded text");
    d->out = grown;
    d->out_room = room;
    return PL_OK;
}

static pl_status reserve_held(pl_detokenizer *d, size_t room, pl_error *err)
{
    if (room <= d->held_room)
        return PL_OK;
    room += room / 2 + 64;
    unsigned char *grown = realloc(d->held, room);
    if (!grown)
        return pl_fail_memory(err, room, "held bytes");
    d->held = grown;
    d->held_room = room;
    return PL_OK;
}

pl_status pl_detokenizer_reserve(pl_detokenizer *d, pl_error *err)
{
    PL_TRY(reserve_held(d, PL_DETOKENIZER_RUN, err));
    return reserve_out(d, 3 * PL_DETOKENIZER_RUN + PL_MAX_PIECE_BYTES, err);
}

static pl_status hold(pl_detokenizer *d, int byte, pl_error *err)
{
    PL_TRY(reserve_held(d, d->n_held + 1, err));
    d->held[d->n_held++] = (unsigned char)byte;
    return PL_OK;
}

/* The text of the held run: itself when it is UTF-8 as a whole, else U+FFFD for each of its bytes. That is why
 * nothing of a run can be shown before its end. */
static size_t release(pl_detokenizer *d, char *out)
{
    size_t n = d->n_held;
    d->n_held = 0;
    if (n == 0)
        return 0;
    if (pl_utf8_valid((const char *)d->held, n)) {
        memcpy(out, d->held, n);
        return n;
    }
    for (size_t i = 0; i < n; i++)
        memcpy(out + 3 * i, REPLACEMENT, 3);
    return 3 * n;
}

static size_t piece_text(const char *text, size_t n, char *out)
{
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && memcmp(text + i, META, 3) == 0) {
            out[k++] = ' ';
            i += 3;
        } else {
            out[k++] = text[i++];
        }
    }
    return k;
}

size_t pl_piece_bytes(const pl_tokenizer *tokenizer, int32_t id, char *out)
{
    const pl_token_tables *t = &tokenizer->tables;
    if (id < 0 || (uint32_t)id >= t->head->n_pieces || (t->flags[id] & PL_PIECE_HIDDEN))
        return 0;
    const char *piece = t->index.text + t->index.offset[id];
    size_t n = t->index.offset[id + 1] - t->index.offset[id];
    if (!(t->flags[id] & PL_PIECE_BYTE))
        return piece_text(piece, n, out);
    out[0] = (char)pl_piece_byte(piece, n);
    return 1;
}

pl_status pl_detokenizer_push(pl_detokenizer *d, int32_t id, const char **text, size_t *n, pl_error *err)
{
    const pl_token_tables *t = &d->tokenizer->tables;
    if (id < 0 || (uint32_t)id >= t->head->n_pieces)
        return pl_fail(err, PL_ERR_ARGUMENT, "%d is no token id; they end at %u", id, t->head->n_pieces - 1);
    unsigned flags = t->flags[id];
    const char *piece = t->index.text + t->index.offset[id];
    size_t n_piece = t->index.offset[id + 1] - t->index.offset[id];
    *text = "";
    *n = 0;
    /* what is left out does not end a run of byte pieces */
    if ((flags & PL_PIECE_HIDDEN) || (d->skip_special && (flags & PL_PIECE_SPECIAL)))
        return PL_OK;
    if (flags & PL_PIECE_BYTE)
        return hold(d, pl_piece_byte(piece, n_piece), err);
    PL_TRY(reserve_out(d, 3 * d->n_held + n_piece, err));
    size_t k = release(d, d->out);
    *n = k + piece_text(piece, n_piece, d->out + k);
    *text = d->out;
    return PL_OK;
}

pl_status pl_detokenizer_finish(pl_detokenizer *d, const char **text, size_t *n, pl_error *err)
{
    *text = "";
    *n = 0;
    if (d->n_held == 0)
        return PL_OK;
    PL_TRY(reserve_out(d, 3 * d->n_held, err));
    *n = release(d, d->out);
    *text = d->out;
    return PL_OK;
}
