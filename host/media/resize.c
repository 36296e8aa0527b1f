/* The reference's resize: two passes, across and then down, with whole-numbered weights and a rounding to bytes after
 * each. Source: ATen's UpSampleKernel for uint8 (itself after Pillow's Resample). */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "host/media/image.h"

/* For each output: which inputs it takes, and with what weights, in units of 1 / 2^bits. */
typedef struct axis {
    int *first, *count;
    int16_t *weights; /* [outputs][taps] */
    int taps, bits;
} axis;

static void axis_free(axis *a)
{
    free(a->first);
    free(a->count);
    free(a->weights);
}

/* The most inputs that an output takes. */
static int count_taps(double support)
{
    return (int)ceil(support) * 2 + 1;
}

/* Weights of output i, into w; returns how many and sets the first input. */
static int triangle(int from, double scale, int i, double *w, int *first)
{
    double support = scale > 1 ? scale : 1, centre = scale * (i + 0.5), sum = 0;
    int low = (int)(centre - support + 0.5), high = (int)(centre + support + 0.5);
    low = low > 0 ? low : 0;
    high = high < from ? high : from;
    int n = high - low;
    for (int j = 0; j < n; j++) {
        double x = fabs((low + j - centre + 0.5) / support);
        w[j] = x < 1 ? 1 - x : 0;
        sum += w[j];
    }
    for (int j = 0; j < n; j++)
        w[j] /= sum;
    *first = low;
    return n;
}

/* As many bits as keep the largest weight in 15. */
static int choose_bits(double largest)
{
    int bits = 0;
    while (bits < 22 && (int)(0.5 + largest * (1 << (bits + 1))) < 1 << 15)
        bits++;
    return bits;
}

static void fill_axis(axis *a, int from, int to, double *w)
{
    double scale = (double)from / to, largest = 0;
    for (int i = 0; i < to; i++) {
        a->count[i] = triangle(from, scale, i, w, &a->first[i]);
        for (int j = 0; j < a->count[i]; j++)
            largest = w[j] > largest ? w[j] : largest;
    }
    a->bits = choose_bits(largest);
    for (int i = 0; i < to; i++) {
        triangle(from, scale, i, w, &a->first[i]);
        for (int j = 0; j < a->count[i]; j++)
            a->weights[(size_t)i * (size_t)a->taps + (size_t)j] = (int16_t)floor(0.5 + w[j] * (1 << a->bits));
    }
}

static pl_status axis_create(axis *a, int from, int to, pl_error *err)
{
    double scale = (double)from / to;
    a->taps = count_taps(scale > 1 ? scale : 1);
    size_t n = (size_t)to, taps = (size_t)a->taps;
    double *w = malloc(taps * sizeof *w);
    a->first = malloc(n * sizeof *a->first);
    a->count = malloc(n * sizeof *a->count);
    a->weights = malloc(n * taps * sizeof *a->weights);
    bool good = w && a->first && a->count && a->weights;
    if (good)
        fill_axis(a, from, to, w);
    free(w);
    return good ? PL_OK : pl_fail_memory(err, n * taps * sizeof *a->weights, "resizing an image");
}

static uint8_t to_byte(int32_t sum, int bits)
{
    sum >>= bits;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void across(const axis *a, const uint8_t *from, int to_width, uint8_t *to)
{
    int32_t half = a->bits > 0 ? 1 << (a->bits - 1) : 0;
    for (int x = 0; x < to_width; x++, to += 3) {
        const int16_t *w = a->weights + (size_t)x * (size_t)a->taps;
        const uint8_t *p = from + 3 * (size_t)a->first[x];
        int32_t red = half, green = half, blue = half;
        for (int j = 0; j < a->count[x]; j++, p += 3) {
            red += p[0] * w[j];
            green += p[1] * w[j];
            blue += p[2] * w[j];
        }
        to[0] = to_byte(red, a->bits);
        to[1] = to_byte(green, a->bits);
        to[2] = to_byte(blue, a->bits);
    }
}

/* Row y of the result from rows of n bytes; sums: [n] */
static void down(const axis *a, const uint8_t *from, size_t n, int y, int32_t *sums, uint8_t *to)
{
    int32_t half = a->bits > 0 ? 1 << (a->bits - 1) : 0;
    for (size_t i = 0; i < n; i++)
        sums[i] = half;
    for (int j = 0; j < a->count[y]; j++) {
        const uint8_t *row = from + (size_t)(a->first[y] + j) * n;
        int16_t w = a->weights[(size_t)y * (size_t)a->taps + (size_t)j];
        for (size_t i = 0; i < n; i++)
            sums[i] += row[i] * w;
    }
    for (size_t i = 0; i < n; i++)
        to[i] = to_byte(sums[i], a->bits);
}

static pl_status resize_across(const pl_image *image, int width, uint8_t *out, pl_error *err)
{
    axis a = {0};
    pl_status status = axis_create(&a, image->width, width, err);
    for (int y = 0; status == PL_OK && y < image->height; y++)
        across(&a, image->rgb + (size_t)y * (size_t)image->width * 3, width, out + (size_t)y * (size_t)width * 3);
    axis_free(&a);
    return status;
}

static pl_status resize_down(const uint8_t *rgb, int from, int to, size_t row_bytes, uint8_t *out, pl_error *err)
{
    axis a = {0};
    pl_status status = axis_create(&a, from, to, err);
    int32_t *sums = malloc(row_bytes * sizeof *sums);
    if (status == PL_OK && !sums)
        status = pl_fail_memory(err, row_bytes * sizeof *sums, "resizing an image");
    for (int y = 0; status == PL_OK && y < to; y++)
        down(&a, rgb, row_bytes, y, sums, out + (size_t)y * row_bytes);
    free(sums);
    axis_free(&a);
    return status;
}

pl_status pl_image_resize(const pl_image *image, int width, int height, uint8_t *out, pl_error *err)
{
    if (image->width < 1 || image->height < 1 || width < 1 || height < 1 || width > UINT16_MAX || height > UINT16_MAX)
        return pl_fail(err, PL_ERR_ARGUMENT, "an image of %d x %d cannot be brought to %d x %d", image->width,
                       image->height, width, height);
    size_t row_bytes = (size_t)width * 3;
    if (image->height == height && image->width != width)
        return resize_across(image, width, out, err);
    if (image->width == width) {
        if (image->height != height)
            return resize_down(image->rgb, image->height, height, row_bytes, out, err);
        memcpy(out, image->rgb, row_bytes * (size_t)height);
        return PL_OK;
    }
    uint8_t *wide = malloc(row_bytes * (size_t)image->height);
    if (!wide)
        return pl_fail_memory(err, row_bytes * (size_t)image->height, "resizing an image");
    pl_status status = resize_across(image, width, wide, err);
    if (status == PL_OK)
        status = resize_down(wide, image->height, height, row_bytes, out, err);
    free(wide);
    return status;
}
