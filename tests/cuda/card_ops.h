/* A backend whose ops copy their operands to the card, run there and copy the results back, so that the cases of
 * tests/ops judge the kernels as they judge the CPU's ops. A test program takes it in place of the CPU's: it is linked
 * with --wrap=pl_backend_cpu. Every backend is a fresh card with another order of threads and blocks. */
#ifndef PL_TESTS_CUDA_CARD_OPS_H
#define PL_TESTS_CUDA_CARD_OPS_H

#include "host/ops/backend.h"

pl_status __wrap_pl_backend_cpu(const pl_backend_shape *shape, int threads, const int *cpus, unsigned allowed,
                                pl_backend **out, pl_error *err);

#endif
