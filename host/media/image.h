/* Images from bytes: JPEG, PNG, WebP (the first picture), told by their contents, not by name, and turned as their EXIF
 * data say.
 *
 * Pixels are what the reference's decoders give: libjpeg-turbo with its defaults; grey replicated, palettes looked up, 16
 * bits cut to 8, CMYK turned into RGB as Pillow does, alpha laid over white. */
#ifndef PL_MEDIA_IMAGE_H
#define PL_MEDIA_IMAGE_H

#include "host/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pl_image {
    uint8_t *rgb; /* [height][width][3]; pl_image_free() */
    int width, height;
} pl_image;

/* max_pixels: images with more are refused before any is decoded; 0: 100 million. Sides end at 65535. `what` names the image
 * in messages. PL_ERR_FORMAT: not an image, damaged or cut short; PL_ERR_UNSUPPORTED: a kind that is not read, too large. */
pl_status pl_image_decode(const void *bytes, size_t n, int64_t max_pixels, const char *what, pl_image *out,
                          pl_error *err);
void pl_image_free(pl_image *image);

/* To width x height, both sides forced, by the reference's bilinear filter with antialiasing on bytes: bit for bit that of
 * torchvision (uint8 on a CPU with AVX2). out: [height][width][3] */
pl_status pl_image_resize(const pl_image *image, int width, int height, uint8_t *out, pl_error *err);

#endif
