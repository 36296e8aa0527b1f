/* Weights that are not numbers. */
#ifndef PL_MODEL_WEIGHT_CHECK_H
#define PL_MODEL_WEIGHT_CHECK_H

#include "host/base/status.h"
#include "host/ops/tensor.h"

/* Reads rows [row0, row0 + n_rows): PL_ERR_FORMAT names tensor, row and column of the first value that is
 * NaN or infinite, of a quantised tensor the first column of the block whose scale is (MXFP4: the value, as its
 * scales are finite but may be too large for it). About as fast as memory. Any thread. */
pl_status pl_tensor_check_finite(const pl_tensor *tensor, int64_t row0, int64_t n_rows, pl_error *err);

#endif
