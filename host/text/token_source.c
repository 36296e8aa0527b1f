#include "host/text/token_source.h"

#include "host/text/utf8.h"

#include <stdlib.h>
#include <string.h>

void pl_token_source_init(pl_token_source *src, const char *where, const uint64_t source[2])
{
    *src = (pl_token_source){.where = where, .source = {source[0], source[1]}};
}

void pl_token_source_free(pl_token_source *src)
{
    free(src->text);
    free(src->offset);
    free(src->flags);
    free(src->slot);
    free(src->merge);
    *src = (pl_token_source){0};
}

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int pl_piece_byte(const char *text, size_t n)
{
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>' || hex(text[3]) < 0 || hex(text[4]) < 0)
        return -1;
    return hex(text[3]) * 16 + hex(text[4]);
}

static pl_status grow_pieces(pl_token_source *src, pl_error *err)
{
    size_t room = src->piece_room ? 2 * src->piece_room : 2048;
    uint32_t *offset = realloc(src->offset, (room + 1) * sizeof *offset);
    if (!offset)
        return pl_fail_memory(err, (room + 1) * sizeof *offset, "the tokenizer's pieces");
    src->offset = offset;
    uint8_t *flags = realloc(src->flags, room);
    if (!flags)
        return pl_fail_memory(err, room, "the tokenizer's pieces");
    src->flags = flags;
    src->piece_room = room;
    src->offset[0] = 0;
    return PL_OK;
}

static pl_status append_text(pl_token_source *src, const char *text, size_t n, pl_error *err)
{
    if (n > UINT32_MAX - src->text_bytes)
        return pl_fail(err, PL_ERR_FORMAT, "%s: the pieces together are longer than 4 GiB", src->where);
    if (n > src->text_room - src->text_bytes) {
        size_t room = 2 * src->text_room + n + 4096;
        char *grown = realloc(src->text, room);
        if (!grown)
            return pl_fail_memory(err, room, "the tokenizer's pieces");
        src->text = grown;
        src->text_room = room;
    }
    if (n)
        memcpy(src->text + src->text_bytes, text, n);
    src->text_bytes += n;
    return PL_OK;
}

pl_status pl_token_source_piece(pl_token_source *src, const char *text, size_t n, unsigned flags, pl_error *err)
{
    uint32_t id = src->n;
    if (id >= PL_MAX_PIECES)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: more than %d pieces", src->where, PL_MAX_PIECES);
    if (n == 0 && !(flags & PL_PIECE_HIDDEN))
        return pl_fail(err, PL_ERR_FORMAT, "%s: piece %u has no text", src->where, id);
    if (n > PL_MAX_PIECE_BYTES)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: piece %u has %zu bytes; %d are supported", src->where, id, n,
                       PL_MAX_PIECE_BYTES);
    if (!pl_utf8_valid(text, n))
        return pl_fail(err, PL_ERR_FORMAT, "%s: piece %u is not valid UTF-8", src->where, id);
    if (id >= src->piece_room)
        PL_TRY(grow_pieces(src, err));
    PL_TRY(append_text(src, text, n, err));
    if (pl_piece_byte(text, n) >= 0)
        flags |= PL_PIECE_BYTE;
    src->flags[id] = (uint8_t)flags;
    src->offset[id + 1] = (uint32_t)src->text_bytes;
    src->n++;
    return PL_OK;
}

pl_status pl_token_source_index(pl_token_source *src, pl_error *err)
{
    uint32_t bits = pl_index_bits(src->n);
    size_t bytes = sizeof *src->slot << bits;
    src->slot = malloc(bytes);
    if (!src->slot)
        return pl_fail_memory(err, bytes, "the tokenizer's index");
    memset(src->slot, 0xff, bytes);
    src->index = (pl_piece_index){
        .text = src->text, .offset = src->offset, .slot = src->slot, .bits = bits, .seed = src->source[0]};
    for (uint32_t i = 0; i < src->n; i++) {
        if (src->flags[i] & PL_PIECE_HIDDEN)
            continue;
        int32_t held = pl_piece_enter(&src->index, src->slot, i);
        if (held >= 0)
            return pl_fail(err, PL_ERR_FORMAT, "%s: pieces %d and %u have the same text \"%.*s\"", src->where, held, i,
                           (int)(src->offset[i + 1] - src->offset[i]), src->text + src->offset[i]);
    }
    return PL_OK;
}

int32_t pl_token_source_find(const pl_token_source *src, const char *text, size_t n)
{
    int32_t id = pl_piece_find(&src->index, text, n);
    return id >= 0 && (src->flags[id] & PL_PIECE_MODEL) ? id : -1;
}

pl_status pl_token_source_merge(pl_token_source *src, uint32_t left, uint32_t right, uint32_t result, pl_error *err)
{
    if (src->n_merges >= PL_MAX_MERGES)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s: more than %d merges", src->where, PL_MAX_MERGES);
    if (src->n_merges == src->merge_room) {
        size_t room = src->merge_room ? 2 * src->merge_room : 4096;
        pl_merge *grown = realloc(src->merge, room * sizeof *grown);
        if (!grown)
            return pl_fail_memory(err, room * sizeof *grown, "the tokenizer's merges");
        src->merge = grown;
        src->merge_room = room;
    }
    src->merge[src->n_merges++] = (pl_merge){left, right, result};
    return PL_OK;
}
