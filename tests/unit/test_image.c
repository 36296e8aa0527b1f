/* Images: every kind against the reference's decoders, resizing bit for bit, files that are wrong. */
#define _GNU_SOURCE /* memmem() */
#include <criterion/criterion.h>

#include "host/media/image.h"
#include "host/media/image_parts.h"
#include "host/model/safetensors.h"
#include "tests/tower/tower_files.h"
#include "tests/unit/fail_alloc.h"
#include "tests/unit/scratch.h"

#define MEDIA PL_TEST_DATA "/golden/media/"
#define IMAGES PL_TEST_DATA "/golden/vision/images/"

static pl_error err;

static void setup(void)
{
    memset(&err, 0, sizeof err);
}

TestSuite(image, .init = setup);

static pl_status decode(const char *folder, const char *name, int64_t max_pixels, pl_image *out)
{
    char path[512];
    size_t n;
    snprintf(path, sizeof path, "%s%s", folder, name);
    char *bytes = read_file(path, &n);
    unsigned char *exact = exact_copy(bytes, n);
    pl_status status = pl_image_decode(exact, n, max_pixels, name, out, &err);
    free(exact);
    free(bytes);
    return status;
}

static pl_image decode_good(const char *folder, const char *name)
{
    pl_image image;
    cr_assert_eq(decode(folder, name, 0, &image), PL_OK, "%s", err.message);
    return image;
}

static void expect_pixels(const char *folder, const char *name, const pl_entry *expected)
{
    pl_image image = decode_good(folder, name);
    cr_assert(image.height == expected->dims[0] && image.width == expected->dims[1], "%s is %d x %d", name, image.width,
              image.height);
    for (uint64_t i = 0; i < expected->bytes; i++)
        cr_assert_eq(image.rgb[i], expected->data[i], "%s: byte %d is %d, expected %d", name, (int)i, image.rgb[i],
                     expected->data[i]);
    pl_image_free(&image);
}

/* Kinds, orientations, depths, palettes, transparency, CMYK, the first picture of an animation. */
Test(image, as_the_reference_decodes)
{
    pl_safetensors goldens;
    int images = 0;
    cr_assert_eq(pl_safetensors_open(MEDIA "media.safetensors", &goldens, &err), PL_OK, "%s", err.message);
    for (size_t i = 0; i < goldens.tensors.n; i++) {
        const pl_entry *expected = &goldens.tensors.items[i];
        if (strcmp(expected->type_name, "U8") != 0 || strncmp(expected->name, "pattern", 7) == 0)
            continue;
        expect_pixels(MEDIA, expected->name, expected);
        images++;
    }
    cr_assert_eq(images, 21);
    pl_safetensors_close(&goldens);
}

Test(image, as_the_oracle_decodes)
{
    pl_safetensors goldens;
    int images = 0;
    cr_assert_eq(pl_safetensors_open(PL_TEST_DATA "/golden/vision/preprocess.safetensors", &goldens, &err), PL_OK);
    for (size_t i = 0; i < goldens.tensors.n; i++) {
        const pl_entry *expected = &goldens.tensors.items[i];
        char name[64];
        if (sscanf(expected->name, "%63[^/]/decoded", name) != 1 || !strstr(expected->name, "/decoded") ||
            strstr(expected->name, "rows"))
            continue;
        expect_pixels(IMAGES, name, expected);
        images++;
    }
    cr_assert_eq(images, 10);
    pl_safetensors_close(&goldens);
}

/* `rows` of a golden are channel-first and some of the rows only. */
static void expect_rows(const pl_image *image, int side, const pl_entry *rows)
{
    uint8_t *out = malloc((size_t)side * (size_t)side * 3);
    cr_assert_eq(pl_image_resize(image, side, side, out, &err), PL_OK, "%s", err.message);
    int n = (int)rows->dims[1], step = side / n;
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < n; y++)
            for (int x = 0; x < side; x++) {
                int got = out[((y * step) * side + x) * 3 + c], expected = rows->data[(c * n + y) * side + x];
                cr_assert_eq(got, expected, "%s: (%d, %d) channel %d is %d, expected %d", rows->name, x, y * step, c,
                             got, expected);
            }
    free(out);
}

static pl_image make_pattern(int side, int variant)
{
    return (pl_image){tower_pattern(side, variant), side, side};
}

/* Returns how many of the goldens of a file it has compared. */
static int expect_resized(const char *path)
{
    pl_safetensors goldens;
    int images = 0;
    cr_assert_eq(pl_safetensors_open(path, &goldens, &err), PL_OK, "%s", err.message);
    for (size_t i = 0; i < goldens.tensors.n; i++) {
        const pl_entry *rows = &goldens.tensors.items[i];
        char name[64];
        int side, size, variant;
        pl_image image;
        if (sscanf(rows->name, "pattern%dv%d_%d_rows", &size, &variant, &side) == 3)
            image = make_pattern(size, variant);
        else if (sscanf(rows->name, "%63[^/]/resized_%d_rows", name, &side) == 2)
            image = decode_good(IMAGES, name);
        else
            continue;
        expect_rows(&image, side, rows);
        pl_image_free(&image);
        images++;
    }
    pl_safetensors_close(&goldens);
    return images;
}

/* Goldens of the oracle at the tower's sides, and two so small that the weights reach their most bits. */
Test(image, resized_bit_for_bit)
{
    cr_assert_eq(expect_resized(PL_TEST_DATA "/golden/vision/preprocess.safetensors"), 40);
    cr_assert_eq(expect_resized(MEDIA "media.safetensors"), 2);
}

Test(image, resized_on_one_axis_or_none)
{
    pl_image image = make_pattern(40, 1);
    uint8_t same[40 * 40 * 3], wide[80 * 40 * 3], tall[40 * 80 * 3], both[80 * 80 * 3], again[80 * 80 * 3];
    cr_assert_eq(pl_image_resize(&image, 40, 40, same, &err), PL_OK);
    cr_assert_arr_eq(same, image.rgb, sizeof same);
    cr_assert_eq(pl_image_resize(&image, 80, 40, wide, &err), PL_OK);
    cr_assert_eq(pl_image_resize(&image, 40, 80, tall, &err), PL_OK);
    cr_assert_eq(pl_image_resize(&image, 80, 80, both, &err), PL_OK);
    cr_assert_eq(pl_image_resize(&(pl_image){wide, 80, 40}, 80, 80, again, &err), PL_OK);
    cr_assert_arr_eq(again, both, sizeof both);
    cr_assert_eq(pl_image_resize(&image, 1, 1, same, &err), PL_OK);
    expect_failure(pl_image_resize(&image, 0, 40, same, &err), PL_ERR_ARGUMENT, &err, WORDS("40 x 40", "0 x 40"));
    pl_image_free(&image);
}

/* ---- what is wrong ------------------------------------------------------------------------------ */

static pl_status decode_bytes(const void *bytes, size_t n)
{
    pl_image image;
    unsigned char *exact = exact_copy(bytes, n);
    pl_status status = pl_image_decode(exact, n, 0, "picture", &image, &err);
    cr_assert(status == PL_OK || (!image.rgb && image.width == 0), "a failed picture holds something");
    free(exact);
    pl_image_free(&image);
    return status;
}

Test(image, other_kinds_are_named)
{
    static const struct {
        const char *bytes, *name;
        size_t n;
    } others[] = {
        {"GIF89a........", "GIF", 14},
        {"II*\0........", "TIFF", 12},
        {"\0\0\0\x1c"
         "ftypheic....",
         "HEIC", 16},
        {"BM............", "BMP", 14},
        {"%PDF-1.7........", "PDF", 16},
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        expect_failure(decode_bytes(others[i].bytes, others[i].n), PL_ERR_UNSUPPORTED, &err,
                       WORDS("picture", others[i].name));
    expect_failure(decode_bytes("", 0), PL_ERR_FORMAT, &err, WORDS("picture", "empty"));
    expect_failure(decode_bytes("a text, named .jpg", 18), PL_ERR_FORMAT, &err, WORDS("picture", "not an image"));
    expect_failure(decode_bytes("\xff\xd8\xff", 3), PL_ERR_FORMAT, &err, WORDS("picture"));
    expect_failure(decode_bytes("RIFF\4\0\0\0WEBP", 12), PL_ERR_FORMAT, &err, WORDS("picture", "WebP"));
    expect_failure(decode_bytes("\x89PNG\r\n\x1a\n", 8), PL_ERR_FORMAT, &err, WORDS("picture", "cut short"));
}

/* Contents decide, not names. */
Test(image, png_named_jpg)
{
    size_t n;
    char *bytes = read_file(MEDIA "rgba.png", &n);
    pl_image image;
    cr_assert_eq(pl_image_decode(bytes, n, 0, "cat.jpg", &image, &err), PL_OK, "%s", err.message);
    cr_assert_eq(image.width, 17);
    pl_image_free(&image);
    free(bytes);
}

/* Whole is only what has all its pixels. What follows them (JPEG's last marker, PNG's last chunk) may be missing. */
Test(image, cut_files)
{
    static const struct {
        const char *name;
        size_t tail;
    } files[] = {
        {"exif1.jpg", 2},         {"cmyk.jpg", 2},   {"rgb16.png", 16}, {"rgba.png", 16},     {"interlaced.png", 16},
        {"palette_trns.png", 16}, {"lossy.webp", 0}, {"alpha.webp", 1}, {"animated.webp", 1},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[512];
        size_t n;
        snprintf(path, sizeof path, MEDIA "%s", files[i].name);
        char *bytes = read_file(path, &n);
        for (size_t keep = 0; keep < n - files[i].tail; keep += 1 + keep / 64)
            cr_assert_neq(decode_bytes(bytes, keep), PL_OK, "%s, %zu of %zu bytes", files[i].name, keep, n);
        cr_assert_eq(decode_bytes(bytes, n), PL_OK, "%s", err.message);
        free(bytes);
    }
}

/* The end marker is there, pixels are not. */
Test(image, jpeg_with_a_hole)
{
    size_t n;
    char *bytes = read_file(IMAGES "jpeg444_160x120.jpg", &n);
    for (size_t keep = n / 4; keep < n - 200; keep += 1001) {
        unsigned char *holed = exact_copy(bytes, keep + 2);
        memcpy(holed + keep, "\xff\xd9", 2);
        expect_failure(decode_bytes(holed, keep + 2), PL_ERR_FORMAT, &err, WORDS("picture", "premature end of data"));
        free(holed);
    }
    free(bytes);
}

Test(image, cut_progressive_jpeg)
{
    size_t n;
    char *bytes = read_file(IMAGES "jpeg420prog_96x200.jpg", &n);
    for (size_t keep = 100; keep + 2 < n; keep += 97)
        expect_failure(decode_bytes(bytes, keep), PL_ERR_FORMAT, &err, WORDS("picture"));
    free(bytes);
}

Test(image, limits_before_decoding)
{
    static const char *const names[] = {"exif6.jpg", "cmyk.jpg", "rgba.png", "alpha.webp", "animated.webp"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        pl_image image;
        expect_failure(decode(MEDIA, names[i], 12 * 17 - 1, &image), PL_ERR_UNSUPPORTED, &err,
                       WORDS(names[i], "17 x 12", "limit is 203"));
        cr_assert_eq(decode(MEDIA, names[i], 12 * 17, &image), PL_OK, "%s", err.message);
        pl_image_free(&image);
    }
}

static uint32_t crc32_of(const uint8_t *bytes, size_t n)
{
    uint32_t crc = ~0u;
    for (size_t i = 0; i < n; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static void put_big(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static pl_status decode_png_of(uint32_t width, uint32_t height)
{
    size_t n;
    char *file = read_file(MEDIA "rgba.png", &n);
    uint8_t *bytes = (uint8_t *)file;
    put_big(bytes + 16, width);
    put_big(bytes + 20, height);
    put_big(bytes + 29, crc32_of(bytes + 12, 17));
    pl_status status = decode_bytes(bytes, n);
    free(file);
    return status;
}

/* Small files that say they are huge: nothing of that size is allocated. */
Test(image, huge_dimensions)
{
    size_t n;
    expect_failure(decode_png_of(0x7fffffff, 0x7fffffff), PL_ERR_UNSUPPORTED, &err, WORDS("picture", "too large"));
    expect_failure(decode_png_of(65536, 1), PL_ERR_UNSUPPORTED, &err, WORDS("65536 x 1"));
    expect_failure(decode_png_of(50000, 50000), PL_ERR_UNSUPPORTED, &err, WORDS("50000 x 50000", "100000000"));
    expect_failure(decode_png_of(0, 12), PL_ERR_FORMAT, &err, WORDS("picture"));
    expect_failure(decode_png_of(18, 12), PL_ERR_FORMAT, &err, WORDS("picture", "cut short"));

    char *bytes = read_file(MEDIA "exif1.jpg", &n);
    char *frame = memmem(bytes, n, "\xff\xc0\0\x11\x08", 5);
    cr_assert_not_null(frame);
    memcpy(frame + 5, "\xff\xdc\xff\xdc", 4);
    expect_failure(decode_bytes(bytes, n), PL_ERR_UNSUPPORTED, &err, WORDS("65500 x 65500"));
    free(bytes);

    bytes = read_file(MEDIA "animated.webp", &n);
    cr_assert_eq(memcmp(bytes + 12, "VP8X", 4), 0);
    memcpy(bytes + 24, "\xff\x3f\0\xff\x3f\0", 6);
    expect_failure(decode_bytes(bytes, n), PL_ERR_UNSUPPORTED, &err, WORDS("16384 x 16384"));
    free(bytes);
}

Test(image, a_small_frame_on_a_large_canvas_is_white_around)
{
    size_t n;
    pl_image image;
    char *bytes = read_file(MEDIA "animated.webp", &n);
    memcpy(bytes + 24, "\x1f\0\0\x1f\0\0", 6);
    cr_assert_eq(pl_image_decode(bytes, n, 0, "picture", &image, &err), PL_OK, "%s", err.message);
    cr_assert(image.width == 32 && image.height == 32);
    cr_assert_eq(image.rgb[32 * 32 * 3 - 1], 255);
    cr_assert_eq(image.rgb[17 * 3], 255);
    pl_image_free(&image);
    free(bytes);
}

/* A chunk of text that becomes 20 MiB, a profile likewise: refused where 16 MiB end. */
Test(image, chunks_that_explode)
{
    pl_image image;
    expect_failure(decode(MEDIA, "bomb_text.png", 0, &image), PL_ERR_FORMAT, &err, WORDS("bomb_text.png"));
    expect_failure(decode(MEDIA, "bomb_profile.png", 0, &image), PL_ERR_FORMAT, &err, WORDS("bomb_profile.png"));
}

/* Each scan is a few bytes and a walk over the whole image. */
Test(image, jpeg_of_many_scans)
{
    size_t n, m = 0;
    char *file = read_file(IMAGES "jpeg420prog_96x200.jpg", &n);
    char *first = memmem(file, n, "\xff\xda", 2),
         *next = memmem(first + 2, n - (size_t)(first + 2 - file), "\xff\xc4", 2);
    size_t head = (size_t)(first - file), scan = (size_t)(next - first);
    uint8_t *bytes = malloc(head + 300 * scan);
    memcpy(bytes, file, m = head);
    for (int i = 0; i < 300; i++, m += scan)
        memcpy(bytes + m, first, scan);
    expect_failure(decode_bytes(bytes, m), PL_ERR_UNSUPPORTED, &err, WORDS("picture", "100 scans"));
    free(bytes);
    free(file);
}

Test(image, exif_that_is_wrong_turns_nothing)
{
    static const uint8_t good[] = "MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0";
    uint8_t bad[sizeof good - 1];
    size_t n = sizeof bad;
    cr_assert_eq(pl_exif_orientation(good, n), 6);
    for (size_t keep = 0; keep < n - 2; keep++) {
        unsigned char *exact = exact_copy(good, keep);
        cr_assert_eq(pl_exif_orientation(exact, keep), 1, "%zu bytes", keep);
        free(exact);
    }
    static const struct {
        uint8_t at, value;
    } changes[] = {{0, 'I'}, {4, 0xff}, {7, 0xff}, {8, 0xff}, {11, 0x13}, {13, 4}, {19, 0}, {19, 9}};
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        memcpy(bad, good, n);
        bad[changes[i].at] = changes[i].value;
        cr_assert_eq(pl_exif_orientation(bad, n), changes[i].at == 8 ? 6 : 1, "change %zu", i);
    }
}

static pl_status decode_named(void *name, pl_error *e)
{
    char path[512];
    size_t n;
    pl_image image;
    uint8_t out[5 * 7 * 3];
    snprintf(path, sizeof path, MEDIA "%s", (const char *)name);
    FILE *file = fopen(path, "rb");
    static uint8_t bytes[4096];
    n = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    PL_TRY(pl_image_decode(bytes, n, 0, name, &image, e));
    pl_status status = pl_image_resize(&image, 5, 7, out, e);
    pl_image_free(&image);
    return status;
}

Test(image, no_memory)
{
    char names[][16] = {"exif6.jpg", "cmyk.jpg", "rgba.png", "rgb16.png", "exif8.webp", "alpha.webp"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        cr_assert_geq(fail_alloc_each(decode_named, names[i]), 5, "%s", names[i]);
}
