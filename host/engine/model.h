/* The inside of pl_model: a checkpoint and the text tools that belong to it. */
#ifndef PL_ENGINE_MODEL_H
#define PL_ENGINE_MODEL_H

#include <pthread.h>

#include "host/grammar/grammar.h"
#include "host/model/checkpoint.h"
#include "host/text/tokenizer.h"
#include "host/tower/source.h"

struct pl_model {
    pl_checkpoint *checkpoint; /* NULL when only the text tools were opened */
    pl_tokenizer *tokenizer;
    pl_tower_source *towers; /* NULL without a checkpoint */
    pthread_mutex_t lock;    /* of pieces */
    pl_piece_tree *pieces;   /* made with the first grammar */
};

#endif
