/* Types that lose the least within what a card holds.
 *
 * What a tensor loses at a type: the sensitivity of its part (sensitivity.h) times its relative squared error at that
 * type, measured on a sample of its rows. Losses of tensors add up. */
#ifndef PL_CONVERT_FIT_H
#define PL_CONVERT_FIT_H

#include "host/base/threads.h"
#include "host/convert/export.h"
#include "host/convert/sensitivity.h"
#include "host/model/imatrix.h"

typedef struct pl_fit_choice {
    pl_dtype type;
    int64_t bytes;
    double loss; /* not negative */
} pl_fit_choice;

#define PL_FIT_CHOICES 12

typedef struct pl_fit_item {
    pl_fit_choice choice[PL_FIT_CHOICES]; /* in any order */
    int n, chosen;
} pl_fit_item;

typedef struct pl_fit_step {
    size_t item;
    int from, to, order; /* of its item's steps */
    double rate;         /* loss saved a byte */
} pl_fit_step;

/* Sets chosen: of each item one, all together at most `budget` bytes, with nearly the least loss. *rate: what another
 * byte would save; 0 where everything has the least loss that it can have. False where even the fewest bytes, which it
 * chooses then, are too many. scratch: room for n * PL_FIT_CHOICES. */
bool pl_fit_choose(pl_fit_item *items, size_t n, int64_t budget, pl_fit_step *scratch, double *rate);

typedef struct pl_fit_params {
    pl_pool *pool;
    const pl_imatrix *imatrix; /* NULL: all errors count the same */
    const pl_sensitivity *sensitivity;
    int64_t card_bytes;      /* what there is */
    int64_t reserved_bytes;  /* of it not for weights: K/V, the work of a step */
    int64_t table_bytes;     /* the per-layer table takes at most these; 0: any */
    const bool *pinned;      /* [e->n] tensors whose type stays as it is; may be NULL */
    pl_progress_fn progress; /* may be NULL; what: the tensor's name */
    void *progress_user;
    bool (*cancelled)(void *user); /* may be NULL */
    void *cancelled_user;
} pl_fit_params;

typedef struct pl_fit_result {
    double loss; /* predicted mean KL divergence, nats a token */
    double rate; /* what another byte would save */
} pl_fit_result;

/* Sets the types of e's matrices. The per-layer table, which is not on the card, gets the type at which its last bytes
 * save what a byte on the card would, counted at an eighth: computers have several times as much memory as cards. So a
 * tight card makes the whole file smaller, a roomy one all of it better. PL_ERR_ARGUMENT with the smallest possible
 * size where it cannot fit. */
pl_status pl_fit_types(pl_export *e, const pl_fit_params *params, pl_fit_result *out, pl_error *err);

/* Bytes of e's weights that a card holds: all that a token's computation reads but the per-layer table. */
int64_t pl_fit_card_bytes(const pl_export *e);

/* Whether this tensor is among them. */
bool pl_fit_on_card(const pl_export *e, const pl_export_tensor *t);

/* Bytes of a tensor in the file. */
int64_t pl_fit_tensor_bytes(const pl_export_tensor *t);

#endif
