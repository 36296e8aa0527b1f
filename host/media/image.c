#include "host/media/image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "host/media/image_parts.h"

#define MAX_PIXELS 100000000
#define MAX_SIDE 65535

typedef pl_status (*image_reader)(const pl_image_source *source, pl_image *out, pl_error *err);

typedef struct image_kind {
    const char *name, *magic;
    uint8_t offset, length;
    image_reader read; /* NULL: known, not read */
} image_kind;

static const image_kind kinds[] = {
    {"JPEG", "\xff\xd8\xff", 0, 3, pl_image_jpeg},
    {"PNG", "\x89PNG\r\n\x1a\n", 0, 8, pl_image_png},
    {"WebP", "WEBP", 8, 4, pl_image_webp},
    {"GIF", "GIF8", 0, 4, NULL},
    {"TIFF", "II*\0", 0, 4, NULL},
    {"TIFF", "MM\0*", 0, 4, NULL},
    {"BMP", "BM", 0, 2, NULL},
    {"HEIC or AVIF", "ftyp", 4, 4, NULL},
    {"JPEG XL", "\xff\x0a", 0, 2, NULL},
    {"JPEG XL", "\0\0\0\x0cJXL ", 0, 8, NULL},
    {"JPEG 2000", "\0\0\0\x0cjP  ", 0, 8, NULL},
    {"PDF", "%PDF", 0, 4, NULL},
    {"SVG", "<svg", 0, 4, NULL},
};

static const image_kind *find_kind(const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const image_kind *kind = &kinds[i];
        if (n >= (size_t)kind->offset + kind->length && memcmp(bytes + kind->offset, kind->magic, kind->length) == 0)
            return kind;
    }
    return NULL;
}

pl_status pl_image_decode(const void *bytes, size_t n, int64_t max_pixels, const char *what, pl_image *out,
                          pl_error *err)
{
    memset(out, 0, sizeof *out);
    if (n == 0)
        return pl_fail(err, PL_ERR_FORMAT, "%s is empty", what);
    const image_kind *kind = find_kind(bytes, n);
    if (!kind)
        return pl_fail(err, PL_ERR_FORMAT, "%s is not an image: JPEG, PNG and WebP are read", what);
    if (!kind->read)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s is %s: images are read as JPEG, PNG and WebP", what, kind->name);
    pl_image_source source = {bytes, n, max_pixels > 0 ? max_pixels : MAX_PIXELS, what};
    return kind->read(&source, out, err);
}

void pl_image_free(pl_image *image)
{
    if (!image)
        return;
    free(image->rgb);
    memset(image, 0, sizeof *image);
}

pl_status pl_image_check_size(const pl_image_source *source, int64_t width, int64_t height, pl_error *err)
{
    if (width < 1 || height < 1)
        return pl_fail(err, PL_ERR_FORMAT, "%s has no pixels: it is %" PRId64 " x %" PRId64, source->what, width,
                       height);
    if (width > MAX_SIDE || height > MAX_SIDE)
        return pl_fail(err, PL_ERR_UNSUPPORTED, "%s is too large: %" PRId64 " x %" PRId64 " pixels, sides end at %d",
                       source->what, width, height, MAX_SIDE);
    if (width * height > source->max_pixels)
        return pl_fail(err, PL_ERR_UNSUPPORTED,
                       "%s is too large: %" PRId64 " x %" PRId64 " pixels, the limit is %" PRId64 " in all",
                       source->what, width, height, source->max_pixels);
    return PL_OK;
}

pl_status pl_image_allocate(const pl_image_source *source, int width, int height, pl_image *out, pl_error *err)
{
    size_t bytes = (size_t)width * (size_t)height * 3;
    out->rgb = malloc(bytes);
    if (!out->rgb)
        return pl_fail_memory(err, bytes, source->what);
    out->width = width;
    out->height = height;
    return PL_OK;
}

void pl_image_over_white(const uint8_t *rgba, size_t n, uint8_t *rgb)
{
    for (size_t i = 0; i < n; i++) {
        unsigned alpha = rgba[4 * i + 3], white = 255 * (255 - alpha);
        for (size_t c = 0; c < 3; c++)
            rgb[3 * i + c] = (uint8_t)((2 * (rgba[4 * i + c] * alpha + white) + 255) / 510);
    }
}
