#include "host/engine/share.h"

#define PIECE ((size_t)64 << 20)

void pl_share_pieces(const pl_share *share, pl_stream *s, void *memory, size_t bytes, size_t ready, size_t *done)
{
    while (*done < bytes) {
        size_t n = bytes - *done < PIECE ? bytes - *done : PIECE;
        if (ready - *done < n)
            return;
        share->comm->broadcast(share->comm, s, (char *)memory + *done, n, 0);
        *done += n;
    }
}
