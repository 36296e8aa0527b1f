/* Orientation: what EXIF data tell, and turning accordingly. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "host/media/image_parts.h"

#define TAG_ORIENTATION 0x0112
#define TYPE_SHORT 3

typedef struct tiff {
    const uint8_t *bytes;
    size_t n;
    bool big; /* big-endian */
} tiff;

/* The number of `bytes` bytes at `at`; 0 beyond the end. */
static uint32_t read_number(const tiff *t, size_t at, size_t bytes)
{
    uint32_t value = 0;
    if (at > t->n || t->n - at < bytes)
        return 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint32_t)t->bytes[at + i] << 8 * (t->big ? bytes - 1 - i : i);
    return value;
}

int pl_exif_orientation(const uint8_t *exif, size_t n)
{
    if (n >= 6 && memcmp(exif, "Exif\0\0", 6) == 0) {
        exif += 6;
        n -= 6;
    }
    if (n < 8 || (memcmp(exif, "II*\0", 4) != 0 && memcmp(exif, "MM\0*", 4) != 0))
        return 1;
    tiff t = {exif, n, exif[0] == 'M'};
    size_t at = read_number(&t, 4, 4);
    size_t entries = read_number(&t, at, 2);
    at += 2;
    for (size_t i = 0; i < entries && at < n; i++, at += 12) {
        if (read_number(&t, at, 2) != TAG_ORIENTATION)
            continue;
        uint32_t orientation = read_number(&t, at + 8, 2);
        bool good = read_number(&t, at + 2, 2) == TYPE_SHORT && orientation >= 1 && orientation <= 8;
        return good ? (int)orientation : 1;
    }
    return 1;
}

/* Where pixel (0, 0) and its neighbours to the right and below go, in pixels of the result. */
typedef struct turn {
    ptrdiff_t start, right, down;
} turn;

static turn find_turn(int orientation, ptrdiff_t w, ptrdiff_t h)
{
    switch (orientation) {
    case 2: return (turn){w - 1, -1, w};
    case 3: return (turn){w * h - 1, -1, -w};
    case 4: return (turn){w * (h - 1), 1, -w};
    case 5: return (turn){0, h, 1};
    case 6: return (turn){h - 1, h, -1};
    case 7: return (turn){w * h - 1, -h, -1};
    case 8: return (turn){h * (w - 1), -h, 1};
    default: return (turn){0, 1, w};
    }
}

pl_status pl_image_turn(pl_image *image, int orientation, pl_error *err)
{
    if (orientation <= 1 || orientation > 8)
        return PL_OK;
    ptrdiff_t w = image->width, h = image->height;
    uint8_t *turned = malloc((size_t)w * (size_t)h * 3);
    if (!turned)
        return pl_fail_memory(err, (size_t)w * (size_t)h * 3, "turning an image");
    turn t = find_turn(orientation, w, h);
    const uint8_t *from = image->rgb;
    for (ptrdiff_t y = 0; y < h; y++)
        for (ptrdiff_t x = 0; x < w; x++, from += 3)
            memcpy(turned + 3 * (t.start + x * t.right + y * t.down), from, 3);
    free(image->rgb);
    image->rgb = turned;
    if (orientation >= 5) {
        image->width = (int)h;
        image->height = (int)w;
    }
    return PL_OK;
}
