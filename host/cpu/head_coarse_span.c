/* How the head's coarse copy is made (see head_screen.h): sixteen rows and 256 columns at a time, once for each instruction set.
 *
 * Values stand as codes do in panels: of a group eight chunks, in each four columns of a row after those of the row before. */
#include "host/base/isa.h"
#include "host/cpu/head_coarse.h"
#include "host/cpu/matmul_tile.h"

#include <math.h>
#include <string.h>

#define LEAST_STEP 0x1p-14f
#define LARGEST_STEP 60000.0f
#define CHUNKS 8
#define COLUMNS 4 /* of a chunk */
#define VALUES PL_CHUNK_BYTES

typedef float chunk_values[VALUES];

static void repeat_rows(const float *row, float *out)
{
    for (int r = 0; r < PL_PANEL_ROWS; r++)
        for (int i = 0; i < COLUMNS; i++)
            out[r * COLUMNS + i] = row[r];
}

static void repeat_columns(const float *column, float *out)
{
    for (int r = 0; r < PL_PANEL_ROWS; r++)
        memcpy(out + r * COLUMNS, column, COLUMNS * sizeof *column);
}

/* ---- the weights ---- */

static void packed_values(pl_panel_type t, const pl_span_codes *codes, int group, chunk_values *w)
{
    chunk_values d, m;
    for (int c = 0; c < CHUNKS; c++) {
        const uint8_t *code = codes->code[group] + c * VALUES;
        int at = pl_has_halves(t.kind) ? 2 * group + c / 4 : group;
        if (c % 4 == 0) {
            repeat_rows(codes->d[at], d);
            if (pl_has_minimum(t.kind))
                repeat_rows(codes->m[at], m);
        }
        for (int i = 0; i < VALUES; i++)
            w[c][i] = d[i] * (float)(code[i] - t.offset);
        for (int i = 0; i < VALUES && pl_has_minimum(t.kind); i++)
            w[c][i] += m[i];
    }
}

static void plain_values(const pl_weight *w, int64_t panel, int64_t column, chunk_values *out)
{
    float group[PL_GROUP];
    size_t row_bytes = pl_dtype_bytes(w->type, w->cols), before = pl_dtype_bytes(w->type, column);
    for (int r = 0; r < PL_PANEL_ROWS; r++) {
        int64_t row = panel * PL_PANEL_ROWS + r;
        memset(group, 0, sizeof group);
        if (row < w->rows)
            pl_decode(w->type, (const char *)w->data + (size_t)row * row_bytes + before, group, PL_GROUP);
        for (int c = 0; c < CHUNKS; c++)
            memcpy(out[c] + r * COLUMNS, group + c * COLUMNS, COLUMNS * sizeof *group);
    }
}

/* ---- the copy ---- */

/* The least f16 that is a step for weights up to `largest`: no subnormal one, so that all but ten bits of the fraction
 * are rounded up. */
static void choose_step(float largest, uint16_t *half, float *step)
{
    float d = largest / PL_HEAD_CENTRE;
    d = d < LEAST_STEP ? LEAST_STEP : d;
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    bits = (bits + 0x1fff) & ~0x1fffu;
    bool fits = d <= LARGEST_STEP;
    memcpy(&d, &bits, sizeof d);
    *half = fits && largest != 0 ? (uint16_t)((bits >> 13) - (112 << 10)) : 0;
    *step = largest == 0 ? 0 : fits ? d : INFINITY;
}

/* Magnitudes order like their bits. */
static void choose_steps(const chunk_values *w, uint16_t half[PL_PANEL_ROWS], float step[PL_PANEL_ROWS])
{
    int32_t most[VALUES] = {0};
    float largest[PL_PANEL_ROWS];
    for (int c = 0; c < CHUNKS; c++) {
        int32_t bits[VALUES];
        memcpy(bits, w[c], sizeof bits);
        for (int i = 0; i < VALUES; i++) {
            int32_t size = bits[i] & INT32_MAX;
            most[i] = size > most[i] ? size : most[i];
        }
    }
    for (int r = 0; r < PL_PANEL_ROWS; r++) {
        int32_t size = 0;
        for (int i = r * COLUMNS; i < (r + 1) * COLUMNS; i++)
            size = most[i] > size ? most[i] : size;
        memcpy(&largest[r], &size, sizeof largest[r]);
    }
    for (int r = 0; r < PL_PANEL_ROWS; r++)
        choose_step(largest[r], &half[r], &step[r]);
}

/* zero: [PL_GROUP] */
static void choose_codes(const chunk_values *w, const float *zero, const float step[PL_PANEL_ROWS], uint8_t *body)
{
    float row[PL_PANEL_ROWS];
    uint8_t code[CHUNKS][VALUES];
    chunk_values inverse, centre;
    for (int r = 0; r < PL_PANEL_ROWS; r++) {
        float inverse_step = 1 / step[r];
        row[r] = step[r] > 0 && step[r] <= LARGEST_STEP ? inverse_step : 0;
    }
    repeat_rows(row, inverse);
    for (int c = 0; c < CHUNKS; c++) {
        repeat_columns(zero + c * COLUMNS, centre);
        for (int i = 0; i < VALUES; i++) {
            float v = w[c][i] * inverse[i] + centre[i];
            v = v > 0 ? v : 0;
            code[c][i] = (uint8_t)(int32_t)(v < 15 ? v : 15);
        }
    }
    for (int c = 0; c < CHUNKS / 2; c++)
        for (int i = 0; i < VALUES; i++)
            body[c * VALUES + i] = (uint8_t)(code[c][i] | code[c + CHUNKS / 2][i] << 4);
}

void PL_ISA_NAME(pl_head_coarse_span)(const pl_weight *w, int64_t panel, int64_t span, const float *zero, uint8_t *out,
                                      float step[PL_SPAN_GROUPS][PL_PANEL_ROWS])
{
    const pl_panel_type from = pl_panel_describe(w->type), to = pl_panel_describe(PL_Q4_0);
    const int64_t left = w->cols / PL_GROUP - span * PL_SPAN_GROUPS;
    const int groups = left < PL_SPAN_GROUPS ? (int)left : PL_SPAN_GROUPS;
    pl_span_codes codes;
    if (w->packed)
        PL_ISA_NAME(pl_unpack)
    (w->type,
     (const uint8_t *)w->data + (size_t)panel * pl_panel_bytes(from, w->cols) + (size_t)span * pl_span_bytes(from),
     groups, &codes);
    memset(out, 0, (size_t)to.head_bytes);
    for (int g = 0; g < groups; g++) {
        chunk_values value[CHUNKS];
        uint16_t half[PL_PANEL_ROWS];
        const int64_t column = span * PL_SPAN + g * PL_GROUP;
        if (w->packed)
            packed_values(from, &codes, g, value);
        else
            plain_values(w, panel, column, value);
        choose_steps(value, half, step[g]);
        memcpy(out + g * sizeof half, half, sizeof half);
        choose_codes(value, zero + column, step[g], out + to.head_bytes + g * pl_group_bytes(to));
    }
}
