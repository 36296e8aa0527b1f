/* The vision tower: MobileNet-V5 as Gemma 3n uses it, from pixels to rows of a prompt.
 *
 * Written once, as a walk over the op table; every size comes from the tensors.
 * Source: timm's mobilenetv5_300m_enc; transformers' Gemma3nMultimodalEmbedder. */
#ifndef PL_TOWER_VISION_H
#define PL_TOWER_VISION_H

#include "host/tower/embedder.h"
#include "host/tower/turn.h"

typedef struct pl_vision pl_vision;

/* Reads and packs the weights. backend: runs its ops (backend->tower is not NULL); borrowed, as is the source. turn may be NULL;
 * where it says that it is over, nothing is left. */
pl_status pl_vision_create(const pl_tower_source *source, pl_backend *backend, const pl_tower_turn *turn,
                           pl_vision **out, pl_error *err);
void pl_vision_free(pl_vision *vision);
size_t pl_vision_bytes(const pl_vision *vision); /* of memory that it holds */

/* rgb: [side][side][3] bytes, side a multiple of 32; rows: [grid * grid][text hidden]. turn, show may be NULL. One call at a
 * time. */
pl_status pl_vision_encode(pl_vision *vision, const uint8_t *rgb, int side, const pl_tower_turn *turn,
                           const pl_tower_show *show, float *rows, pl_error *err);

#endif
