/* Any bytes as an image, then resized. */
#include "host/media/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_image image;
    pl_error err;
    uint8_t out[24 * 16 * 3];
    if (pl_image_decode(data, size, 1 << 20, "fuzz", &image, &err) != PL_OK)
        return 0;
    if (image.width < 1 || image.height < 1 || (int64_t)image.width * image.height > 1 << 20)
        __builtin_trap();
    pl_image_resize(&image, 24, 16, out, &err);
    pl_image_free(&image);
    return 0;
}
