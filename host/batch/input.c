#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "host/batch/input_parts.h"

#define MOST_BYTES ((size_t)32 << 20)
#define MOST_MOST_BYTES ((size_t)1 << 30)

/* ---- duplicates ----------------------------------------------------------------------------------- */

static pl_status parse(const pl_input *in, size_t line, pl_batch_line *out, pl_line_fault *fault, pl_error *err)
{
    char *text = NULL;
    size_t n = 0;
    PL_TRY(pl_input_read(in, (int64_t)line, &text, &n, err));
    pl_status status = pl_batch_line_parse(text, n, out, fault, err);
    free(text);
    return status;
}

/* *id: as the line has it, free(). */
static pl_status read_id(const pl_input *in, size_t line, char **id, pl_error *err)
{
    pl_batch_line parsed = {0};
    pl_line_fault fault;
    pl_status status = parse(in, line, &parsed, &fault, err);
    if (status != PL_OK && status != PL_ERR_FORMAT)
        return status;
    *id = parsed.custom_id ? strdup(parsed.custom_id) : NULL;
    if (*id)
        status = PL_OK;
    else if (parsed.custom_id)
        status = pl_fail_memory(err, strlen(parsed.custom_id), "a custom_id");
    else
        status = pl_fail(err, PL_ERR_IO, "%s: line %u has changed while it was read", in->path,
                         in->places[line].number);
    pl_batch_line_free(&parsed);
    return status;
}

static pl_status same_id(const pl_input *in, size_t a, size_t b, bool *same, pl_error *err)
{
    char *x = NULL, *y = NULL;
    pl_status status = read_id(in, a, &x, err);
    if (status == PL_OK)
        status = read_id(in, b, &y, err);
    *same = x && y && strcmp(x, y) == 0;
    free(x);
    free(y);
    return status;
}

static pl_status add_duplicate(pl_input *in, size_t line, size_t first, pl_error *err)
{
    size_t n = in->n_duplicates;
    if ((n & (n - 1)) == 0) {
        size_t capacity = n ? 2 * n : 1;
        pl_duplicate *grown = realloc(in->duplicates, capacity * sizeof *grown);
        if (!grown)
            return pl_fail_memory(err, capacity * sizeof *grown, "duplicate lines");
        in->duplicates = grown;
    }
    in->duplicates[in->n_duplicates++] = (pl_duplicate){(uint32_t)line, (uint32_t)first};
    in->places[line].fault = PL_PLACE_DUPLICATE;
    return PL_OK;
}

/* Enters a line into the table, of lines + 1, unless there is one with its id. */
static pl_status enter(pl_input *in, uint32_t *table, size_t mask, size_t line, pl_error *err)
{
    size_t slot = in->ids[line] & mask;
    for (; table[slot]; slot = (slot + 1) & mask) {
        size_t other = table[slot] - 1;
        bool same = false;
        if (in->ids[other] == in->ids[line])
            PL_TRY(same_id(in, other, line, &same, err));
        if (same)
            return add_duplicate(in, line, other, err);
    }
    table[slot] = (uint32_t)line + 1;
    return PL_OK;
}

static pl_status find_duplicates(pl_input *in, pl_error *err)
{
    size_t size = 4;
    while (size < in->n + in->n / 3 + 1)
        size *= 2;
    uint32_t *table = calloc(size, sizeof *table);
    if (!table)
        return pl_fail_memory(err, size * sizeof *table, "finding duplicate lines");
    pl_status status = PL_OK;
    for (size_t i = 0; i < in->n && status == PL_OK; i++)
        if (in->ids[i])
            status = enter(in, table, size - 1, i, err);
    free(table);
    free(in->ids);
    in->ids = NULL;
    return status;
}

/* ---- the input ------------------------------------------------------------------------------------ */

pl_status pl_input_open(const pl_input_params *params, pl_input **out, pl_error *err)
{
    size_t most = params->most_bytes ? params->most_bytes : MOST_BYTES;
    if (most > MOST_MOST_BYTES)
        return pl_fail(err, PL_ERR_ARGUMENT, "lines of %zu bytes are too long, at most %zu can be allowed", most,
                       MOST_MOST_BYTES);
    pl_status status = PL_OK;
    pl_input *in = calloc(1, sizeof *in);
    if (!in)
        return pl_fail_memory(err, sizeof *in, "the input");
    in->most_bytes = most;
    in->path = strdup(params->path);
    if (!in->path) {
        status = pl_fail_memory(err, strlen(params->path) + 1, "the input's path");
        goto fail;
    }
    PL_TRY_GOTO(pl_mapfile_open(params->path, &in->file, err));
    PL_TRY_GOTO(pl_input_scan(in, params, err));
    PL_TRY_GOTO(find_duplicates(in, err));
    *out = in;
    return PL_OK;
fail:
    pl_input_free(in);
    return status;
}

void pl_input_free(pl_input *input)
{
    if (!input)
        return;
    pl_mapfile_close(&input->file);
    free(input->path);
    free(input->places);
    free(input->ids);
    free(input->keys);
    free(input->duplicates);
    free(input);
}

int64_t pl_input_lines(const pl_input *input)
{
    return (int64_t)input->n;
}

uint64_t pl_input_fingerprint(const pl_input *input)
{
    return input->fingerprint;
}

pl_status pl_input_order(pl_input *input, uint32_t **order, size_t *n, pl_error *err)
{
    assert(input->keys || !input->n);
    uint32_t *lines = malloc(input->n * sizeof *lines + 1);
    if (!lines)
        return pl_fail_memory(err, input->n * sizeof *lines, "the order of the lines");
    size_t count = 0;
    for (size_t i = 0; i < input->n; i++)
        if (!input->places[i].fault)
            lines[count++] = (uint32_t)i;
    pl_order_sort(input->keys, lines, count);
    free(input->keys);
    input->keys = NULL;
    *order = lines;
    *n = count;
    return PL_OK;
}

/* ---- a line --------------------------------------------------------------------------------------- */

static const pl_place *place_of(const pl_input *input, int64_t line)
{
    assert(line >= 0 && (size_t)line < input->n);
    return &input->places[line];
}

bool pl_input_is_faulty(const pl_input *input, int64_t line)
{
    return place_of(input, line)->fault != PL_PLACE_GOOD;
}

int64_t pl_input_number(const pl_input *input, int64_t line)
{
    return place_of(input, line)->number;
}

size_t pl_input_bytes(const pl_input *input, int64_t line)
{
    return place_of(input, line)->bytes;
}

pl_status pl_input_read(const pl_input *input, int64_t line, char **text, size_t *n, pl_error *err)
{
    const pl_place *place = place_of(input, line);
    assert(place->fault != PL_PLACE_TOO_LONG);
    char *made = malloc((size_t)place->bytes + 1);
    if (!made)
        return pl_fail_memory(err, (size_t)place->bytes + 1, "a line of the input");
    pl_status status = pl_mapfile_read(&input->file, input->path, place->offset, made, place->bytes, err);
    if (status != PL_OK) {
        free(made);
        return status;
    }
    made[place->bytes] = '\0';
    *text = made;
    *n = place->bytes;
    return PL_OK;
}

static int compare_duplicates(const void *a, const void *b)
{
    uint32_t x = ((const pl_duplicate *)a)->line, y = ((const pl_duplicate *)b)->line;
    return x < y ? -1 : x > y;
}

static pl_status tell_duplicate(const pl_input *in, size_t line, pl_line_fault *fault, pl_error *err)
{
    pl_duplicate wanted = {.line = (uint32_t)line};
    const pl_duplicate *found = bsearch(&wanted, in->duplicates, in->n_duplicates, sizeof wanted, compare_duplicates);
    assert(found);
    char *id;
    PL_TRY(read_id(in, line, &id, err));
    *fault = (pl_line_fault){.code = "duplicate_custom_id", .param = "custom_id"};
    snprintf(fault->message, sizeof fault->message, "The 'custom_id' of line %u is that of line %u already: '%.200s'.",
             in->places[line].number, in->places[found->first].number, id);
    free(id);
    return PL_OK;
}

static pl_status tell_faulty(const pl_input *in, size_t line, pl_line_fault *fault, char **custom_id, pl_error *err)
{
    pl_batch_line parsed = {0};
    pl_status status = parse(in, line, &parsed, fault, err);
    if (status != PL_OK && status != PL_ERR_FORMAT)
        return status;
    if (status == PL_OK)
        status = pl_fail(err, PL_ERR_IO, "%s: line %u has changed while it was read", in->path,
                         in->places[line].number);
    else
        status = PL_OK;
    if (status == PL_OK && parsed.custom_id && !(*custom_id = strdup(parsed.custom_id)))
        status = pl_fail_memory(err, strlen(parsed.custom_id), "a custom_id");
    pl_batch_line_free(&parsed);
    return status;
}

pl_status pl_input_fault(const pl_input *input, int64_t line, pl_line_fault *fault, char **custom_id, pl_error *err)
{
    const pl_place *place = place_of(input, line);
    *custom_id = NULL;
    assert(place->fault);
    if (place->fault == PL_PLACE_DUPLICATE)
        return tell_duplicate(input, (size_t)line, fault, err);
    if (place->fault == PL_PLACE_FAULTY)
        return tell_faulty(input, (size_t)line, fault, custom_id, err);
    *fault = (pl_line_fault){.code = "line_too_long"};
    snprintf(fault->message, sizeof fault->message, "The line has %s%u bytes, at most %zu are allowed.",
             place->bytes == UINT32_MAX ? "more than " : "", place->bytes, input->most_bytes);
    return PL_OK;
}
