/* The ops at the shapes of Gemma 3n E4B, for bench_card: what to call, on which operands. */
#ifndef PL_BENCH_CARD_CASES_H
#define PL_BENCH_CARD_CASES_H

#include "host/ops/backend.h"

#define CASE_ROWS 512
#define CASE_CONTEXT 4096
#define CASE_SEQUENCES PL_FUSED_ROWS
#define CASE_HIDDEN 2048
#define CASE_FFN 16384
#define CASE_VOCAB 262400
#define CASE_PLE_COLS (35 * 256)
#define CASE_WEIGHTS 3

/* What changes from step to step, in the ops' memory. */
typedef struct case_plan {
    int32_t slot[CASE_ROWS], position[CASE_ROWS], sequence[CASE_ROWS + CASE_SEQUENCES], width[CASE_ROWS],
        layers[CASE_ROWS], id[CASE_ROWS];
} case_plan;

typedef struct case_operands {
    const case_plan *plan;
    float *wide[3];                      /* [CASE_ROWS][CASE_FFN] values near 1 */
    float *rows[6];                      /* [CASE_ROWS][CASE_HIDDEN], likewise */
    float *streams, *predicted, *vector; /* 4 [CASE_ROWS][CASE_HIDDEN], twice; for all norms */
    float *logits;                       /* [PL_FUSED_ROWS][CASE_VOCAB] */
    pl_act x, mid;                       /* of up to CASE_FFN columns; f32: rows[0], wide[2] */
    pl_kv_layer kv;                      /* CASE_SEQUENCES of CASE_CONTEXT */
    pl_ple_rows table;
    int32_t *bad;
    pl_draw **draws;
    pl_drawn **drawn;
    pl_weight weight[CASE_WEIGHTS]; /* of the case, a copy that was not used lately */
} case_operands;

typedef struct card_case card_case;

struct card_case {
    const char *op, *what;
    void (*run)(const pl_backend *b, const card_case *c, case_operands *o, int n, int turn);
    int most_rows;
    bool fused;
    int position, window; /* of attention */
    float z;              /* of the FFN; 0: dense */
    struct {
        int rows, cols;
        pl_dtype type;
    } weight[CASE_WEIGHTS];
    int n_weights;
};

extern const card_case card_cases[];
extern const int n_card_cases;

#endif
