/* Forms with files, and the fields of those for speech to text. */
#include <criterion/criterion.h>
#include <string.h>

#include "host/serve/audio_form.h"
#include "host/serve/multipart.h"

#define TYPE "multipart/form-data; boundary=XX"
#define FIELD(name, value) "--XX\r\nContent-Disposition: form-data; name=\"" name "\"\r\n\r\n" value "\r\n"
#define FILE_PART(name, bytes)                                                                                         \
    "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" name                                          \
    "\"\r\nContent-Type: audio/wav\r\n\r\n" bytes "\r\n"
#define END "--XX--\r\n"

#define ROOM 4

static pl_multipart_part parts[ROOM];
static pl_error err;

static pl_status read_form(const char *type, const char *body, size_t *n)
{
    err = (pl_error){.message = ""};
    return pl_multipart_read(type, body, strlen(body), parts, ROOM, n, &err);
}

static void expect_part(size_t i, const char *name, const char *data)
{
    cr_assert_str_eq(parts[i].name, name);
    cr_assert_eq(parts[i].n, strlen(data), "%s: %zu", name, parts[i].n);
    cr_assert_eq(memcmp(parts[i].data, data, parts[i].n), 0, "%s", name);
}

Test(multipart, reads_fields_and_files)
{
    size_t n = 0;
    cr_assert_eq(
        read_form(TYPE, FIELD("model", "demo") FILE_PART("a b.wav", "R\r\n--X\r\n\r\nI") FIELD("prompt", "") END, &n),
        PL_OK, "%s", err.message);
    cr_assert_eq(n, 3);
    expect_part(0, "model", "demo");
    cr_assert_not(parts[0].is_file);
    expect_part(1, "file", "R\r\n--X\r\n\r\nI");
    cr_assert(parts[1].is_file);
    cr_assert_str_eq(parts[1].filename, "a b.wav");
    expect_part(2, "prompt", "");
}

/* As clients write it: quotes, capitals, other parameters, spaces behind a boundary, something behind the end. */
Test(multipart, reads_other_ways_to_write)
{
    size_t n = 0;
    cr_assert_eq(
        read_form("Multipart/Form-Data; charset=utf-8; Boundary=\"X X\"",
                  "--X X  \r\nX-Other: a\r\ncontent-disposition:form-data;NAME=model; filename*=utf-8''b\r\n\r\nv"
                  "\r\n--X X--epilogue",
                  &n),
        PL_OK, "%s", err.message);
    cr_assert_eq(n, 1);
    expect_part(0, "model", "v");
    cr_assert_eq(read_form(TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\\\"b\"\r\n\r\n1\r\n" END, &n),
                 PL_OK);
    expect_part(0, "a\"b", "1");
    cr_assert_eq(read_form(TYPE, END, &n), PL_OK);
    cr_assert_eq(n, 0);
}

static void expect_refused(const char *type, const char *body, const char *says)
{
    size_t n;
    pl_status status = read_form(type, body, &n);
    cr_assert_neq(status, PL_OK, "'%s' is read", body);
    cr_assert(strstr(err.message, says), "'%s': %s", body, err.message);
}

Test(multipart, refuses_what_is_wrong)
{
    expect_refused(NULL, END, "multipart/form-data");
    expect_refused("application/json", END, "application/json");
    expect_refused("multipart/form-data", END, "boundary");
    expect_refused("multipart/form-data; boundary=", END, "boundary");
    expect_refused(
        "multipart/form-data; boundary=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", END,
        "boundary");
    expect_refused(TYPE, "", "does not begin");
    expect_refused(TYPE, "preamble\r\n" END, "does not begin");
    expect_refused(TYPE, "--XX", "does not end");
    expect_refused(TYPE, "--XX-\r\n", "does not end");
    expect_refused(TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1", "cut short");
    expect_refused(TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n1\r\n" END, "headers");
    expect_refused(TYPE, "--XX\r\n\r\n\r\n1\r\n" END, "part 1");
    expect_refused(TYPE, "--XX\r\nContent-Type: a\r\n\r\n1\r\n" END, "Content-Disposition");
    expect_refused(TYPE, FIELD("a", "1") "--XX\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n1\r\n" END,
                   "part 2");
    expect_refused(TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n" END, "Content-Disposition");
    expect_refused(TYPE, "--XX\r\nContent-Disposition: form-data; name=\"a\" b\r\n\r\n1\r\n" END,
                   "Content-Disposition");
    expect_refused(TYPE, "--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n" END, "Content-Disposition");
    expect_refused(TYPE, FIELD("a", "1") FIELD("b", "1") FIELD("c", "1") FIELD("d", "1") FIELD("e", "1") END,
                   "more than 4");
}

/* ---- as fields --------------------------------------------------------------------------------- */

static pl_api_error error;
static pl_multipart_part file;

static json_t *fields_of(const char *body)
{
    error = (pl_api_error){0};
    return pl_audio_form_read(TYPE, body, strlen(body), &file, &error);
}

Test(audio_form, makes_an_object)
{
    json_t *f = fields_of(FILE_PART("a.wav", "RIFF") FIELD("temperature", "0.5") FIELD("stream", "true")
                              FIELD("language", "12") FIELD("timestamp_granularities[]", "segment")
                                  FIELD("timestamp_granularities[]", "word") FIELD("seed", "x") END);
    cr_assert_not_null(f, "%s", error.message);
    cr_assert_eq(json_object_size(f), 5);
    cr_assert_eq(json_number_value(json_object_get(f, "temperature")), 0.5);
    cr_assert(json_is_true(json_object_get(f, "stream")));
    cr_assert_str_eq(json_string_value(json_object_get(f, "language")), "12");
    cr_assert_str_eq(json_string_value(json_object_get(f, "seed")), "x");
    json_t *list = json_object_get(f, "timestamp_granularities");
    cr_assert_eq(json_array_size(list), 2);
    cr_assert_str_eq(json_string_value(json_array_get(list, 1)), "word");
    cr_assert_eq(file.n, 4);
    json_decref(f);
}

static void expect_field_refused(const char *body, int status, const char *param, const char *says)
{
    cr_assert_null(fields_of(body), "%s", body);
    cr_assert_eq(error.status, status, "%s", error.message);
    cr_assert_str_eq(error.param, param, "%s", error.message);
    cr_assert(strstr(error.message, says), "%s", error.message);
}

Test(audio_form, refuses_what_is_wrong)
{
    expect_field_refused(FIELD("a", "1") FIELD("a", "2") END, 400, "a", "once");
    expect_field_refused(FIELD("a", "\xff") END, 400, "a", "UTF-8");
    expect_field_refused(FILE_PART("a", "") END, 400, "file", "empty");
    expect_field_refused(FILE_PART("a", "1") FILE_PART("a", "1") END, 400, "file", "once");
    expect_field_refused("--XX\r\nContent-Disposition: form-data; name=\"a\"; filename=\"b\"\r\n\r\n1\r\n" END, 400,
                         "a", "file");
    expect_field_refused(FIELD("a", "1") "--XX\r\n", 400, "", "cut short");
    cr_assert_null(pl_audio_form_read("application/json", "{}", 2, &file, &error));
    cr_assert_eq(error.status, 415);
}
