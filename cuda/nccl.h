/* NCCL, as far as it is used. It is looked for when the program runs, so that one program serves machines with and without it;
 * what stands here has been the same in all its versions 2, and tests/cuda/test_comm_nccl.c holds it against nccl.h where there is
 * one. */
#ifndef PL_CUDA_NCCL_H
#define PL_CUDA_NCCL_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PL_NCCL_LIBRARY "libnccl.so.2"
#define PL_NCCL_LEAST_VERSION 20906 /* 2.9.6: the first whose work can be recorded in several threads */

typedef struct ncclComm *pl_nccl_comm;

/* ncclResult_t, ncclDataType_t, ncclRedOp_t */
enum { PL_NCCL_SUCCESS = 0, PL_NCCL_IN_PROGRESS = 7 };
enum { PL_NCCL_INT8 = 0, PL_NCCL_FLOAT32 = 7, PL_NCCL_FLOAT64 = 8 };
enum { PL_NCCL_SUM = 0 };

/* Its functions, by their names without "nccl". */
typedef struct pl_nccl {
    int (*GetVersion)(int *version);
    const char *(*GetErrorString)(int result);
    int (*CommInitAll)(pl_nccl_comm *comms, int n, const int *devices);
    int (*CommDestroy)(pl_nccl_comm comm);
    int (*CommAbort)(pl_nccl_comm comm);
    int (*CommGetAsyncError)(pl_nccl_comm comm, int *result);
    int (*AllReduce)(const void *from, void *to, size_t n, int type, int op, pl_nccl_comm comm, cudaStream_t stream);
    int (*AllGather)(const void *from, void *to, size_t n, int type, pl_nccl_comm comm, cudaStream_t stream);
    int (*Broadcast)(const void *from, void *to, size_t n, int type, int root, pl_nccl_comm comm, cudaStream_t stream);
} pl_nccl;

/* It stays loaded. false: there is none, and why. */
bool pl_nccl_load(pl_nccl *out, char *why, size_t room);

#ifdef __cplusplus
}
#endif

#endif
