/* Cards that work together, over NCCL. */
#ifndef PL_CUDA_COMM_NCCL_H
#define PL_CUDA_COMM_NCCL_H

#include "cuda/queue.h"
#include "host/ops/comm.h"

/* A pl_backend's comm_create. PL_ERR_UNSUPPORTED: there is no NCCL here, or a card comes twice. */
pl_status pl_cuda_comm_create(pl_backend *const *backends, int n, pl_comm **out, pl_error *err);

/* Makes s->card fail where the cards of s->comm work together no more. Called now and then while work of s is waited for,
 * which might else never end, and after it. */
void pl_cuda_comm_look(pl_stream *s);

#endif
