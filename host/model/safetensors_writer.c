#include "host/model/safetensors_writer.h"

#include <stdlib.h>
#include <string.h>

#include "host/base/json_out.h"
#include "host/base/outfile.h"

#define VALUE_BYTES 4 /* of both types */

static pl_status tensor_bytes(const pl_out_tensor *t, uint64_t *out, pl_error *err)
{
    uint64_t bytes = VALUE_BYTES;
    for (int i = 0; i < t->n_dims; i++)
        if (t->dims[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)t->dims[i], &bytes) || bytes > INT64_MAX)
            return pl_fail(err, PL_ERR_ARGUMENT, "tensor %s: shape overflows", t->name);
    *out = bytes;
    return PL_OK;
}

static void describe(pl_json *json, const pl_out_tensor *t, int64_t begin, int64_t end)
{
    pl_json_key(json, t->name);
    pl_json_begin_object(json);
    pl_json_key(json, "dtype");
    pl_json_string(json, t->dtype == PL_OUT_F32 ? "F32" : "I32");
    pl_json_key(json, "shape");
    pl_json_begin_array(json);
    for (int i = 0; i < t->n_dims; i++)
        pl_json_int(json, t->dims[i]);
    pl_json_end_array(json);
    pl_json_key(json, "data_offsets");
    pl_json_begin_array(json);
    pl_json_int(json, begin);
    pl_json_int(json, end);
    pl_json_end_array(json);
    pl_json_end_object(json);
}

static pl_status check_names(const pl_out_tensor *tensors, size_t n, pl_error *err)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(tensors[i].name, tensors[j].name) == 0)
                return pl_fail(err, PL_ERR_ARGUMENT, "two tensors are named %s", tensors[i].name);
    return PL_OK;
}

/* *out is the caller's. */
static pl_status make_header(const pl_out_tensor *tensors, size_t n, char **out, size_t *bytes, pl_error *err)
{
    pl_json json = pl_json_to_buffer();
    pl_status status;
    uint64_t begin = 0, size = 0;
    PL_TRY_GOTO(check_names(tensors, n, err));
    pl_json_begin_object(&json);
    for (size_t i = 0; i < n; i++) {
        PL_TRY_GOTO(tensor_bytes(&tensors[i], &size, err));
        describe(&json, &tensors[i], (int64_t)begin, (int64_t)(begin + size));
        begin += size;
    }
    pl_json_end_object(&json);
    return pl_json_take(&json, out, bytes, err);
fail:
    pl_json_free(&json);
    return status;
}

/* The header's length, the header, and spaces so that the data starts on eight bytes. */
static void write_header(FILE *file, const char *header, size_t n)
{
    uint64_t padded = (n + 7) / 8 * 8;
    fwrite(&padded, sizeof padded, 1, file);
    fwrite(header, 1, n, file);
    fwrite("       ", 1, (size_t)padded - n, file);
}

pl_status pl_safetensors_write(const char *path, const pl_out_tensor *tensors, size_t n, pl_error *err)
{
    pl_outfile file = {0};
    char *header = NULL;
    size_t header_bytes = 0;
    uint64_t size = 0;
    pl_status status;
    PL_TRY_GOTO(make_header(tensors, n, &header, &header_bytes, err));
    PL_TRY_GOTO(pl_outfile_open(path, &file, err));
    write_header(file.file, header, header_bytes);
    for (size_t i = 0; i < n; i++) {
        PL_TRY_GOTO(tensor_bytes(&tensors[i], &size, err));
        fwrite(tensors[i].data, 1, size, file.file);
    }
    status = pl_outfile_commit(&file, err);
fail:
    pl_outfile_abort(&file);
    free(header);
    return status;
}
