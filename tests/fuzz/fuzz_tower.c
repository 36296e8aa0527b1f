/* An mmproj file from memory: its keys and names, the image tower that its tensors make, and an image through it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host/base/cpu.h"
#include "host/model/checkpoint_parts.h"
#include "host/tower/source_parts.h"
#include "host/tower/vision.h"

#define SIDE 32
#define TEXT_HIDDEN 8
#define MOST_GRID 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of a text model what the towers ask it for. */
static void set_text_model(pl_checkpoint *checkpoint)
{
    static const char text[] = "<start_of_image><image_soft_token><end_of_image><start_of_audio><audio_soft_token>"
                               "<end_of_audio>";
    static uint64_t offset[7];
    for (size_t i = 0, n = 0; i < sizeof text - 1; i++)
        if (text[i] == '>')
            offset[++n] = i + 1;
    checkpoint->format = PL_CHECKPOINT_GGUF;
    checkpoint->config.hidden = TEXT_HIDDEN;
    checkpoint->config.vocab = 6;
    checkpoint->pieces = (pl_pieces){.n = 6, .text = text, .offset = offset};
}

static void encode(const pl_tower_source *source)
{
    static pl_backend *backend;
    static uint8_t rgb[SIDE * SIDE * 3];
    static float rows[MOST_GRID * MOST_GRID * TEXT_HIDDEN];
    pl_backend_shape shape = {.max_rows = 1, .max_context = 16, .heads = {1, 1, 16}};
    pl_vision *vision = NULL;
    pl_error err;
    if (!backend && pl_backend_cpu(&shape, 1, NULL, PL_CPU_NONE, &backend, &err) != PL_OK)
        abort();
    if (pl_vision_create(source, backend, NULL, &vision, &err) == PL_OK)
        pl_vision_encode(vision, rgb, SIDE, NULL, NULL, rows, &err);
    pl_vision_free(vision);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_error err;
    pl_tower_source source = {.where = "fuzz.gguf"};
    pl_checkpoint *checkpoint = NULL;
    if (pl_checkpoint_create("text.gguf", &checkpoint, &err) != PL_OK)
        return 0;
    set_text_model(checkpoint);
    source.checkpoint = checkpoint;
    if (pl_arena_create(1 << 12, &source.arena, &err) == PL_OK &&
        pl_tower_source_read(&source, data, size, &err) == PL_OK && pl_tower_config_check(&source, &err) == PL_OK) {
        pl_tower_source_vision_bytes(&source);
        pl_tower_source_audio_bytes(&source);
        if (source.has_vision && source.vision.grid <= MOST_GRID)
            encode(&source);
    }
    pl_arena_free(source.arena);
    pl_checkpoint_close(checkpoint);
    return 0;
}
