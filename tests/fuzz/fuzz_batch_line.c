/* Any bytes as a batch file: each line is read as it is handed out, or its fault is told in a record that is JSON. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/batch/input.h"
#include "host/batch/record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_good(const pl_input *input, int64_t line)
{
    char *text;
    size_t n;
    pl_batch_line parsed;
    pl_line_fault fault;
    if (pl_input_read(input, line, &text, &n, NULL) != PL_OK ||
        pl_batch_line_parse(text, n, &parsed, &fault, NULL) != PL_OK || !parsed.custom_id || !parsed.url)
        abort();
    pl_batch_line_free(&parsed);
    free(text);
}

static void check_faulty(const pl_input *input, int64_t line)
{
    char *custom_id, *record;
    size_t n;
    pl_line_fault fault;
    if (pl_input_fault(input, line, &fault, &custom_id, NULL) != PL_OK || !fault.code || !*fault.message ||
        pl_record_fault("batch_req_1", custom_id, pl_input_number(input, line), &fault, &record, &n, NULL) != PL_OK)
        abort();
    json_t *root = json_loadb(record, n, 0, NULL);
    if (!root)
        abort();
    json_decref(root);
    free(record);
    free(custom_id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[64];
    int fd = memfd_create("in", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const pl_input_params params = {.path = path, .most_bytes = 500};
    pl_input *input;
    uint32_t *order;
    size_t n;
    if (pl_input_open(&params, &input, NULL) != PL_OK || pl_input_order(input, &order, &n, NULL) != PL_OK)
        abort();
    for (size_t i = 0; i < n; i++)
        check_good(input, order[i]);
    for (int64_t i = 0; i < pl_input_lines(input); i++)
        if (pl_input_is_faulty(input, i))
            check_faulty(input, i);
    free(order);
    pl_input_free(input);
    close(fd);
    return 0;
}
