/* What the readers of the kinds of images share. */
#ifndef PL_MEDIA_IMAGE_PARTS_H
#define PL_MEDIA_IMAGE_PARTS_H

#include "host/media/image.h"

typedef struct pl_image_source {
    const uint8_t *bytes;
    size_t n;
    int64_t max_pixels;
    const char *what;
} pl_image_source;

/* On failure nothing is held. */
pl_status pl_image_jpeg(const pl_image_source *source, pl_image *out, pl_error *err);
pl_status pl_image_png(const pl_image_source *source, pl_image *out, pl_error *err);
pl_status pl_image_webp(const pl_image_source *source, pl_image *out, pl_error *err);

/* Whether an image of this size is within the limits. */
pl_status pl_image_check_size(const pl_image_source *source, int64_t width, int64_t height, pl_error *err);

/* Memory for its pixels, after pl_image_check_size(). */
pl_status pl_image_allocate(const pl_image_source *source, int width, int height, pl_image *out, pl_error *err);

/* n pixels with alpha over white, as Pillow composes them. rgb may be rgba. */
void pl_image_over_white(const uint8_t *rgba, size_t n, uint8_t *rgb);

/* The orientation, 1 to 8, that EXIF data tell (with or without "Exif\0\0" before); 1 where they tell none or are damaged. */
int pl_exif_orientation(const uint8_t *exif, size_t n);

/* Turns and mirrors it upright. */
pl_status pl_image_turn(pl_image *image, int orientation, pl_error *err);

#endif
