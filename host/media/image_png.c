/* PNG with libspng. */
#include <stdlib.h>
#include <string.h>

#include <spng.h>

#include "host/media/image_parts.h"

/* What the chunks beside the pixels may hold, unpacked: profiles, texts, EXIF. */
#define MAX_CHUNKS_BYTES ((size_t)16 << 20)

static pl_status png_error(const pl_image_source *source, int code, pl_error *err)
{
    if (code == SPNG_EMEM)
        return pl_fail(err, PL_ERR_MEMORY, "%s: out of memory", source->what);
    if (code == SPNG_EOVERFLOW)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s is too large for PNG to be read", source->what);
    return pl_fail(err, PL_ERR_FORMAT, "%s: damaged or cut short: %s", source->what, spng_strerror(code));
}

/* Whether its pixels have alpha. Reads all chunks before the pixels. */
static pl_status find_alpha(const pl_image_source *source, spng_ctx *png, int colour, bool *alpha, pl_error *err)
{
    struct spng_trns trns;
    int code = spng_get_trns(png, &trns);
    if (code != 0 && code != SPNG_ECHUNKAVAIL)
        return png_error(source, code, err);
    *alpha = code == 0 || colour == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA || colour == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
    return PL_OK;
}

/* With alpha, the pixels are laid over white where they are, and what is left behind them is given back. */
static pl_status read_alpha(const pl_image_source *source, spng_ctx *png, size_t pixels, pl_image *out, pl_error *err)
{
    free(out->rgb);
    out->rgb = malloc(pixels * 4);
    if (!out->rgb)
        return pl_fail_memory(err, pixels * 4, source->what);
    int code = spng_decode_image(png, out->rgb, pixels * 4, SPNG_FMT_RGBA8, SPNG_DECODE_TRNS);
    if (code != 0)
        return png_error(source, code, err);
    pl_image_over_white(out->rgb, pixels, out->rgb);
    uint8_t *smaller = realloc(out->rgb, pixels * 3);
    if (!smaller)
        return pl_fail_memory(err, pixels * 3, source->what);
    out->rgb = smaller;
    return PL_OK;
}

static pl_status read_pixels(const pl_image_source *source, spng_ctx *png, pl_image *out, pl_error *err)
{
    struct spng_ihdr header;
    struct spng_exif exif;
    bool alpha = false;
    /* A chunk of pixels may be as long as the file. */
    size_t longest = source->n > MAX_CHUNKS_BYTES ? source->n : MAX_CHUNKS_BYTES;
    spng_set_chunk_limits(png, longest < INT32_MAX ? longest : INT32_MAX, MAX_CHUNKS_BYTES);
    spng_set_crc_action(png, SPNG_CRC_ERROR, SPNG_CRC_DISCARD);
    int code = spng_set_png_buffer(png, source->bytes, source->n);
    if (code == 0)
        code = spng_get_ihdr(png, &header);
    if (code != 0)
        return png_error(source, code, err);
    PL_TRY(pl_image_check_size(source, header.width, header.height, err));
    size_t pixels = (size_t)header.width * header.height;
    PL_TRY(pl_image_allocate(source, (int)header.width, (int)header.height, out, err));
    PL_TRY(find_alpha(source, png, header.color_type, &alpha, err));
    if (alpha)
        PL_TRY(read_alpha(source, png, pixels, out, err));
    else if ((code = spng_decode_image(png, out->rgb, pixels * 3, SPNG_FMT_RGB8, 0)) != 0)
        return png_error(source, code, err);
    if (spng_get_exif(png, &exif) == 0)
        return pl_image_turn(out, pl_exif_orientation((const uint8_t *)exif.data, exif.length), err);
    return PL_OK;
}

pl_status pl_image_png(const pl_image_source *source, pl_image *out, pl_error *err)
{
    spng_ctx *png = spng_ctx_new(0);
    if (!png)
        return pl_fail(err, PL_ERR_MEMORY, "%s: out of memory", source->what);
    pl_status status = read_pixels(source, png, out, err);
    spng_ctx_free(png);
    if (status != PL_OK)
        pl_image_free(out);
    return status;
}
