/* Ranks on the CPU, each a thread with a backend of its own: they meet at each call (see host/ops/comm.h). */
#ifndef PL_CPU_COMM_LOCAL_H
#define PL_CPU_COMM_LOCAL_H

#include "host/ops/comm.h"

pl_status pl_comm_create_local(pl_backend *const *backends, int n, pl_comm **out, pl_error *err);

#endif
