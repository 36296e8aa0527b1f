/* The inside of pl_model: a checkpoint and the text tools that belong to it. */
#ifndef PL_ENGINE_MODEL_H
#define PL_ENGINE_MODEL_H

#include "host/model/checkpoint.h"
#include "host/text/tokenizer.h"

struct pl_model {
    pl_checkpoint *checkpoint; /* NULL when only the text tools were opened */
    pl_tokenizer *tokenizer;
};

#endif
