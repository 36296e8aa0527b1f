#include "host/model/weight_check.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Values looked at together: the loop over them has no exit, so that compilers vectorise it. */
#define CHUNK 512

/* One added to an exponent of all ones carries into the place of the sign. */
static bool chunk_bad_32(const uint32_t *v, int n)
{
    uint32_t carried = 0;
    for (int i = 0; i < n; i++)
        carried |= (v[i] & 0x7fffffffu) + 0x00800000u;
    return carried >> 31;
}

/* one: the last place of the exponent */
static bool chunk_bad_16(const uint16_t *v, int n, uint16_t one)
{
    uint16_t carried = 0;
    for (int i = 0; i < n; i++)
        carried = (uint16_t)(carried | ((v[i] & 0x7fff) + one));
    return carried >> 15;
}

static int64_t first_bad_32(const uint32_t *v, int64_t n)
{
    for (int64_t i = 0; i < n; i += CHUNK) {
        int m = n - i < CHUNK ? (int)(n - i) : CHUNK;
        if (!chunk_bad_32(v + i, m))
            continue;
        for (int j = 0;; j++)
            if (chunk_bad_32(v + i + j, 1))
                return i + j;
    }
    return n;
}

static int64_t first_bad_16(const uint16_t *v, int64_t n, uint16_t one)
{
    for (int64_t i = 0; i < n; i += CHUNK) {
        int m = n - i < CHUNK ? (int)(n - i) : CHUNK;
        if (!chunk_bad_16(v + i, m, one))
            continue;
        for (int j = 0;; j++)
            if (chunk_bad_16(v + i + j, 1, one))
                return i + j;
    }
    return n;
}

/* Byte offsets of a block's f16 scales; the second is -1 where there is one only. */
static void scale_offsets(pl_dtype type, int *first, int *second)
{
    *first = 0;
    *second = -1;
    switch (type) {
    case PL_Q4_1:
    case PL_Q5_1:
    case PL_Q4_K:
    case PL_Q5_K: *second = 2; break;
    case PL_Q2_K:
        *first = (int)offsetof(pl_block_q2_k, d);
        *second = (int)offsetof(pl_block_q2_k, dmin);
        break;
    case PL_Q3_K: *first = (int)offsetof(pl_block_q3_k, d); break;
    case PL_Q6_K: *first = (int)offsetof(pl_block_q6_k, d); break;
    default: break;
    }
}

static bool bad_half(const unsigned char *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return (h & 0x7c00) == 0x7c00;
}

static int64_t first_bad_block(pl_dtype type, const unsigned char *data, int64_t n)
{
    const pl_dtype_info *info = pl_dtype_describe((int)type);
    int64_t blocks = n / info->block_elems;
    int first, second;
    scale_offsets(type, &first, &second);
    for (int64_t i = 0; i < blocks; i++, data += info->block_bytes)
        if (bad_half(data + first) || (second >= 0 && bad_half(data + second)))
            return i * info->block_elems;
    return n;
}

/* Scales up to 2^127 are finite, what they scale need not be. */
static int64_t first_bad_mxfp4(const unsigned char *data, int64_t n)
{
    const int always_finite = 252; /* twice a code is 12 at most, and 12 * 2^(252 - 128) < 2^128 */
    for (int64_t i = 0; i < n; i += 32, data += sizeof(pl_block_mxfp4)) {
        float value[32];
        if (data[0] <= always_finite)
            continue;
        pl_decode(PL_MXFP4, data, value, 32);
        for (int j = 0; j < 32; j++)
            if (!isfinite(value[j]))
                return i + j;
    }
    return n;
}

static int64_t first_bad(pl_dtype type, const void *data, int64_t n)
{
    switch (type) {
    case PL_F32: return first_bad_32(data, n);
    case PL_F16: return first_bad_16(data, n, 0x0400);
    case PL_BF16: return first_bad_16(data, n, 0x0080);
    case PL_MXFP4: return first_bad_mxfp4(data, n);
    case PL_NVFP4: return n; /* any byte is a finite scale */
    default: return first_bad_block(type, data, n);
    }
}

pl_status pl_tensor_check_finite(const pl_tensor *tensor, int64_t row0, int64_t n_rows, pl_error *err)
{
    int64_t n = n_rows * tensor->cols;
    if (n <= 0)
        return PL_OK;
    int64_t bad = first_bad(tensor->type, pl_tensor_row(tensor, row0), n);
    if (bad == n)
        return PL_OK;
    bool one_value = pl_dtype_describe((int)tensor->type)->block_elems == 1 || tensor->type == PL_MXFP4;
    const char *what = one_value ? "the value" : "the scale of the block";
    return pl_fail(err, PL_ERR_FORMAT, "tensor %s: %s at row %" PRId64 ", column %" PRId64 " is not a finite number",
                   tensor->name, what, row0 + bad / tensor->cols, bad % tensor->cols);
}
