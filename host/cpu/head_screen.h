/* The head for those who only want its largest outputs: all rows at four bits, then few of them exactly.
 *
 * A coarse copy of the matrix has in each block of 32 columns a step D and codes c of four bits, with
 *
 *     w = D (c - 7 - u[k]) + e,   |e| <= D / 2
 *
 * u[k] in [0, 1) are random numbers, one a column, drawn once. Over the draw the errors e of a row are independent and
 * uniform whatever the weights, so that the error of its product with x, s^2 = sum D^2 x^2 / 12 over the row,
 * is sub-Gaussian: beyond 10 s with a probability below e^-50. Activations are rounded to eight bits by random numbers,
 * too, which makes s a little larger. Only the wanted rows need to be within the bound, at most
 * PL_HEAD_TOP of them: a step can miss one with a probability below 2^-64. No bound that holds for sure is of use: by
 * Cauchy-Schwarz it is 45 s for 2048 columns, and lets all rows pass.
 *
 * The k rows that look best are computed exactly; the k-th best of what comes out is a floor under the k-th best row.
 * Panels with a row whose bound reaches that floor are computed exactly as well, by the one matrix product there is:
 * their outputs have its bits. docs/numerics.md has the rest of the bound.
 *
 * A guess at the largest is made among few panels only, exactly: the first eighth of the vocabulary, where what is common
 * stands, and those of tokens that were read lately. */
#ifndef PL_CPU_HEAD_SCREEN_H
#define PL_CPU_HEAD_SCREEN_H

#include "host/cpu/matmul.h"
#include "host/ops/ops.h"

typedef struct pl_head_screen pl_head_screen;

typedef struct pl_head_screen_count {
    int64_t calls;    /* that asked for the top only */
    int64_t screened; /* rows that were answered from the coarse copy */
    int64_t guessed;  /* rows of guesses */
    int64_t bytes;    /* of weights read by all calls */
    int64_t products; /* of a code and a byte of an activation */
} pl_head_screen_count;

/* For w, which is borrowed. *out = NULL where it would not pay or cannot be done. The copy is made by and by, in the
 * first calls below, which read w whole. */
pl_status pl_head_screen_create(const pl_weight *w, pl_head_screen **out, pl_error *err);
void pl_head_screen_free(pl_head_screen *h);

/* What a new one takes, once it is made; 0: there will be none. */
size_t pl_head_screen_bytes(int64_t rows, int64_t cols, pl_dtype type);

/* Steps read these tokens; ids beyond the head's rows are none. */
void pl_head_screen_see(pl_head_screen *h, const int32_t *id, int n);

/* See head_top in ops.h. */
void pl_head_screen_top(pl_head_screen *h, pl_stream *s, const pl_ops *ops, pl_act *x, float *logits, int n,
                        const int32_t *top, float cap);

pl_head_screen_count pl_head_screen_counted(const pl_head_screen *h);

/* For tests: the coarse products of n quantised rows and what they may be off, both [n][w->rows]. Makes the copy. */
void pl_head_screen_look(pl_head_screen *h, pl_stream *s, const pl_act *x, int n, float *coarse, float *bound);

#endif
