/* Bins far below a loud tone hold little but what rounding made of the tone. So frames are made in f32, to the bit as
 * NumPy makes them for the reference; the transform is one of doubles, as NumPy's is, whose parts are rounded to f32
 * for the magnitudes; the rest is in double again. */
#include "host/media/mel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SIZE 1024 /* of the transform; the second half of its input is zero */
#define WINDOW 512
#define PASSES 5 /* 4^5 = 1024 */
#define FLOOR 1e-5

/* Frames go through together, each in its lane. */
#define LANES 2
typedef double lanes __attribute__((vector_size(8 * LANES)));

typedef struct filter {
    int first, n; /* bins */
    int weights;  /* where theirs begin */
} filter;

struct pl_mel {
    float window[WINDOW];
    double turn[SIZE / 4][6]; /* cosine and sine of 2 pi j k / SIZE at [k], j = 1, 2, 3 */
    filter filters[PL_MEL_BINS];
    double weights[2 * SIZE]; /* a bin is in two filters at most */
};

/* NumPy's cosine of f32, x in [0, 2 pi): its polynomials' last bits are the window's. */
static float numpy_cos(float x)
{
    const float magic = 0x1.8p+23f; /* adding it rounds to an integer */
    float quarter = fmaf(x, 0x1.45f306p-1f, magic) - magic;
    float r = fmaf(quarter, -0x1.921fb0p+00f, x);
    r = fmaf(quarter, -0x1.5110b4p-22f, r);
    r = fmaf(quarter, -0x1.846988p-48f, r);
    float square = r * r, v;
    int turn = (int)quarter & 3;
    if (turn & 1) {
        v = fmaf(0x1.7d3bbcp-19f, square, -0x1.a06bbap-13f);
        v = fmaf(v, square, 0x1.11119ap-07f);
        v = fmaf(v, square, -0x1.555556p-03f);
        v = fmaf(v * square, r, r);
    } else {
        v = fmaf(0x1.98e616p-16f, square, -0x1.6c06dcp-10f);
        v = fmaf(v, square, 0x1.55553cp-05f);
        v = fmaf(v, square, -0.5f);
        v = fmaf(v, square, 1.0f);
    }
    return turn == 1 || turn == 2 ? -v : v;
}

static void make_window(float *window)
{
    const float full_turn = (float)(2 * M_PI);
    for (int i = 0; i < WINDOW; i++)
        window[i] = 0.5f * (1.0f - numpy_cos(full_turn * (float)i / WINDOW));
}

static void make_turns(double (*turn)[6])
{
    for (int k = 0; k < SIZE / 4; k++)
        for (int j = 1; j <= 3; j++) {
            turn[k][2 * j - 2] = cos(2 * M_PI * j * k / SIZE);
            turn[k][2 * j - 1] = sin(2 * M_PI * j * k / SIZE);
        }
}

/* Triangles over points equally far apart on HTK's mel scale, 125 to 7600 Hz. */
static void make_filters(filter *filters, double *weights)
{
    const double low = 2595.0 * log10(1.0 + 125.0 / 700.0), high = 2595.0 * log10(1.0 + 7600.0 / 700.0);
    double point[PL_MEL_BINS + 2];
    for (int i = 0; i < PL_MEL_BINS + 2; i++)
        point[i] = 700.0 * (pow(10.0, (low + (high - low) * i / (PL_MEL_BINS + 1)) / 2595.0) - 1.0);
    int used = 0;
    for (int m = 0; m < PL_MEL_BINS; m++) {
        filters[m] = (filter){.weights = used};
        for (int bin = 0; bin <= SIZE / 2; bin++) {
            double f = bin * (16000.0 / SIZE);
            double up = (f - point[m]) / (point[m + 1] - point[m]);
            double down = (point[m + 2] - f) / (point[m + 2] - point[m + 1]);
            double weight = up < down ? up : down;
            if (weight <= 0)
                continue;
            if (filters[m].n++ == 0)
                filters[m].first = bin;
            weights[used++] = weight;
        }
    }
}

pl_status pl_mel_create(pl_mel **out, pl_error *err)
{
    pl_mel *mel = malloc(sizeof *mel);
    if (!mel)
        return pl_fail_memory(err, sizeof *mel, "the sound's features");
    make_window(mel->window);
    make_turns(mel->turn);
    make_filters(mel->filters, mel->weights);
    *out = mel;
    return PL_OK;
}

void pl_mel_free(pl_mel *mel)
{
    free(mel);
}

int pl_mel_frames(size_t n, bool more)
{
    if (n > PL_MEL_CLIP)
        n = PL_MEL_CLIP;
    if (!more)
        n = (n + 127) / 128 * 128;
    return n < PL_MEL_FRAME ? 0 : (int)((n - PL_MEL_FRAME) / PL_MEL_HOP) + 1;
}

/* A frame into its lane: preemphasis, window. */
static void load_frame(const pl_mel *mel, const float *samples, size_t n_samples, size_t at, double *lane)
{
    float x[WINDOW] = {0};
    if (at < n_samples)
        memcpy(x, samples + at, (n_samples - at < WINDOW ? n_samples - at : WINDOW) * sizeof *x);
    lane[0] = 0; /* as the window is there */
    for (int i = 1; i < WINDOW; i++)
        lane[i * LANES] = (x[i] - 0.97f * x[i - 1]) * mel->window[i];
}

/* The ends of a run have no imaginary part: its first value, and in the middle the last. */
static void pass_ends(lanes *out, const lanes *a, const lanes *b, const lanes *c, const lanes *d, int run)
{
    lanes even = a[0] + c[0], odd = d[0] + b[0];
    out[0] = even + odd;
    out[2 * run - 1] = a[0] - c[0];
    out[2 * run] = d[0] - b[0];
    out[4 * run - 1] = even - odd;
    if (run == 1)
        return;
    const double root = 0.70710678118654752440;
    int last = run - 1;
    lanes re = root * (b[last] - d[last]), im = -root * (b[last] + d[last]);
    out[last] = a[last] + re;
    out[run] = im - c[last];
    out[2 * run + last] = a[last] - re;
    out[3 * run] = im + c[last];
}

/* Values i - 1 (real) and i (imaginary) of four runs, three of them turned back first, to four values of the run that
 * they become: two from its front and, as they come mirrored, two from behind. */
static void pass_middle(lanes *out, const lanes *a, const lanes *b, const lanes *c, const lanes *d, int run, int i,
                        const double *turn)
{
    lanes b_re = turn[0] * b[i - 1] + turn[1] * b[i], b_im = turn[0] * b[i] - turn[1] * b[i - 1];
    lanes c_re = turn[2] * c[i - 1] + turn[3] * c[i], c_im = turn[2] * c[i] - turn[3] * c[i - 1];
    lanes d_re = turn[4] * d[i - 1] + turn[5] * d[i], d_im = turn[4] * d[i] - turn[5] * d[i - 1];
    lanes odd_re = d_re + b_re, odd_im = b_im + d_im, cross_re = b_im - d_im, cross_im = d_re - b_re;
    lanes even_re = a[i - 1] + c_re, even_im = a[i] + c_im, diff_re = a[i - 1] - c_re, diff_im = a[i] - c_im;
    lanes *front = out + i, *back = out + 2 * run - i;
    front[-1] = even_re + odd_re;
    front[0] = odd_im + even_im;
    front[2 * run - 1] = diff_re + cross_re;
    front[2 * run] = cross_im + diff_im;
    back[-1] = diff_re - cross_re;
    back[0] = cross_im - diff_im;
    back[2 * run - 1] = even_re - odd_re;
    back[2 * run] = odd_im - even_im;
}

/* Runs of `run` values, a quarter of the array apart, to runs of four times as many. */
static void pass(const pl_mel *mel, lanes *out, const lanes *in, int run)
{
    const int quarter = SIZE / 4, step = SIZE / (4 * run);
    for (int k = 0; k < quarter; k += run) {
        const lanes *a = in + k, *b = a + quarter, *c = b + quarter, *d = c + quarter;
        pass_ends(out + 4 * k, a, b, c, d, run);
        for (int i = 2; i < run; i += 2)
            pass_middle(out + 4 * k, a, b, c, d, run, i, mel->turn[step * i / 2]);
    }
}

/* One frame's bins, real and imaginary parts in turn from the first imaginary one on, to logarithms. */
static void finish_frame(const pl_mel *mel, const double *lane, float *out)
{
    float magnitude[SIZE / 2];
    int end = mel->filters[PL_MEL_BINS - 1].first + mel->filters[PL_MEL_BINS - 1].n;
    for (int bin = mel->filters[0].first; bin < end; bin++) {
        float re = (float)lane[(2 * bin - 1) * LANES], im = (float)lane[2 * bin * LANES];
        magnitude[bin] = sqrtf(re * re + im * im);
    }
    for (int m = 0; m < PL_MEL_BINS; m++) {
        const filter *f = &mel->filters[m];
        double sum = 0;
        for (int i = 0; i < f->n; i++)
            sum += mel->weights[f->weights + i] * magnitude[f->first + i];
        out[m] = (float)log(sum > FLOOR ? sum : FLOOR);
    }
}

void pl_mel_compute(const pl_mel *mel, const float *samples, size_t n_samples, int first, int n, float *out)
{
    lanes buffer[2][SIZE];
    for (int at = 0; at < n; at += LANES) {
        int used = n - at < LANES ? n - at : LANES;
        memset(buffer[0], 0, sizeof buffer[0]);
        for (int i = 0; i < used; i++)
            load_frame(mel, samples, n_samples, (size_t)(first + at + i) * PL_MEL_HOP, (double *)buffer[0] + i);
        for (int p = 0, run = 1; p < PASSES; p++, run *= 4)
            pass(mel, buffer[(p + 1) % 2], buffer[p % 2], run);
        for (int i = 0; i < used; i++)
            finish_frame(mel, (const double *)buffer[PASSES % 2] + i, out + (int64_t)(at + i) * PL_MEL_BINS);
    }
}
