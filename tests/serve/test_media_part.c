/* Images and sound as requests bring them: base64, data URLs, addresses. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "host/serve/base64.h"
#include "host/serve/media_part.h"

static pl_api_error error;
static pl_media_part part;

/* ---- base64 ------------------------------------------------------------------------------------ */

static void expect_bytes(const char *text, const void *bytes, size_t n)
{
    unsigned char *out = NULL;
    size_t n_out = 0;
    pl_error err = {.message = ""};
    cr_assert_eq(pl_base64_decode(text, strlen(text), &out, &n_out, &err), PL_OK, "%s: %s", text, err.message);
    cr_assert_eq(n_out, n, "%s", text);
    cr_assert(n == 0 || memcmp(out, bytes, n) == 0, "%s", text);
    free(out);
}

/* RFC 4648, section 10, and each value of a digit. */
Test(base64, decodes)
{
    static const char *const vectors[][2] = {{"", ""},
                                             {"Zg==", "f"},
                                             {"Zm8=", "fo"},
                                             {"Zm9v", "foo"},
                                             {"Zm9vYg==", "foob"},
                                             {"Zm9vYmE=", "fooba"},
                                             {"Zm9vYmFy", "foobar"}};
    unsigned char all[48];
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++)
        expect_bytes(vectors[i][0], vectors[i][1], strlen(vectors[i][1]));
    for (unsigned i = 0; i < 16; i++) {
        unsigned bits = (4 * i) << 18 | (4 * i + 1) << 12 | (4 * i + 2) << 6 | (4 * i + 3);
        all[3 * i] = (unsigned char)(bits >> 16);
        all[3 * i + 1] = (unsigned char)(bits >> 8);
        all[3 * i + 2] = (unsigned char)bits;
    }
    expect_bytes("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", all, sizeof all);
}

Test(base64, refuses_all_else)
{
    static const char *const wrong[] = {"Z",     "Zg",       "Zg=",      "Zm9v\n",   "Zm 9v===",  "Zh==",    "Zm9=",
                                        "====",  "Z===",     "Zg==Zg==", "Zm9v-_==", "Zm9vé=",    "=Zm9",    "Zm=v",
                                        "Zm9v=", "Zm9v====", "Zm9vZg=a", "Zm9\x01",  "////////=", "Zg==\r\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        unsigned char *out;
        size_t n;
        pl_error err = {.message = ""};
        cr_assert_eq(pl_base64_decode(wrong[i], strlen(wrong[i]), &out, &n, &err), PL_ERR_FORMAT, "'%s'", wrong[i]);
        cr_assert(strstr(err.message, "not base64"), "%s", err.message);
    }
}

/* ---- fields ------------------------------------------------------------------------------------ */

static bool read_with(const char *json, bool (*read)(pl_fields *f, pl_media_part *out))
{
    json_t *root = json_loads(json, 0, NULL);
    cr_assert_not_null(root, "%s", json);
    error = (pl_api_error){0};
    part = (pl_media_part){0};
    pl_fields f = pl_fields_of(root, &error, "messages[0].content[1].x");
    bool good = read(&f, &part) && pl_fields_done(&f);
    json_decref(root);
    return good;
}

static bool read_url(pl_fields *f, pl_media_part *out)
{
    static const pl_media_kind image = PL_MEDIA_IMAGE;
    return pl_media_read_url(f, "url", &image, out);
}

static bool read_sound(pl_fields *f, pl_media_part *out)
{
    return pl_media_read_input_audio(f, out);
}

static void expect_refused(const char *json, bool (*read)(pl_fields *f, pl_media_part *out), const char *param,
                           const char *code, const char *says)
{
    cr_assert_not(read_with(json, read), "%s", json);
    cr_assert_eq(error.status, 400);
    cr_assert_str_eq(error.param, param, "%s", json);
    cr_assert_str_eq(error.code, code, "%s: %s", json, error.message);
    cr_assert(strstr(error.message, says), "%s: %s", json, error.message);
    pl_media_part_free(&part);
}

Test(media_part, reads_data_urls)
{
    cr_assert(read_with("{\"url\": \"data:image/png;base64,Zm9v\"}", read_url), "%s", error.message);
    cr_assert_eq(part.kind, PL_MEDIA_IMAGE);
    cr_assert_eq(part.n, 3);
    cr_assert_eq(memcmp(part.bytes, "foo", 3), 0);
    cr_assert_str_eq(part.field, "messages[0].content[1].x.url");
    pl_media_part_free(&part);
    cr_assert(read_with("{\"url\": \"DATA:Image/JPEG;name=a.jpg;BASE64,Zg==\"}", read_url), "%s", error.message);
    cr_assert_eq(part.n, 1);
    pl_media_part_free(&part);
}

Test(media_part, keeps_addresses)
{
    cr_assert(read_with("{\"url\": \"https://example.org/a.png?b=[1]\"}", read_url), "%s", error.message);
    cr_assert_str_eq(part.url, "https://example.org/a.png?b=[1]");
    cr_assert_null(part.bytes);
    pl_media_part_free(&part);
}

Test(media_part, refuses_urls_that_are_none)
{
    static const char field[] = "messages[0].content[1].x.url";
    expect_refused("{}", read_url, field, "missing_required_parameter", "url");
    expect_refused("{\"url\": 3}", read_url, field, "invalid_type", "string");
    expect_refused("{\"url\": \"file:///etc/passwd\"}", read_url, field, "invalid_url", field);
    expect_refused("{\"url\": \"/etc/passwd\"}", read_url, field, "invalid_url", field);
    expect_refused("{\"url\": \"ftp://a/b\"}", read_url, field, "invalid_url", field);
    expect_refused("{\"url\": \"https://a/b c\"}", read_url, field, "invalid_url", field);
    expect_refused("{\"url\": \"data:image/png,abc\"}", read_url, field, "invalid_base64", "base64");
    expect_refused("{\"url\": \"data:image/png;base64\"}", read_url, field, "invalid_base64", "base64");
    expect_refused("{\"url\": \"data:image/png;base64,\"}", read_url, field, "invalid_base64", "empty");
    expect_refused("{\"url\": \"data:image/png;base64,Zg=\"}", read_url, field, "invalid_base64", "multiple of 4");
    expect_refused("{\"url\": \"data:audio/wav;base64,Zg==\"}", read_url, field, "unsupported_value", "audio/wav");
    expect_refused("{\"url\": \"data:;base64,Zg==\"}", read_url, field, "unsupported_value", "image");
    expect_refused("{\"url\": \"data:image/png;base64,Zg==\", \"size\": 1}", read_url, "messages[0].content[1].x.size",
                   "unknown_parameter", "size");
}

Test(media_part, reads_sound)
{
    cr_assert(read_with("{\"data\": \"Zm9v\", \"format\": \"flac\"}", read_sound), "%s", error.message);
    cr_assert_eq(part.kind, PL_MEDIA_AUDIO);
    cr_assert_eq(part.n, 3);
    pl_media_part_free(&part);
    static const char *const others[] = {"m4a", "mp4", "webm"};
    for (size_t i = 0; i < 3; i++) {
        char json[64];
        snprintf(json, sizeof json, "{\"data\": \"Zm9v\", \"format\": \"%s\"}", others[i]);
        cr_assert(read_with(json, read_sound), "%s", error.message);
        pl_media_part_free(&part);
    }
    expect_refused("{\"data\": \"Zm9v\", \"format\": \"aac\"}", read_sound, "messages[0].content[1].x.format",
                   "invalid_value", "'ogg'");
    expect_refused("{\"data\": \"Zm9v\"}", read_sound, "messages[0].content[1].x.format", "missing_required_parameter",
                   "format");
    expect_refused("{\"format\": \"wav\"}", read_sound, "messages[0].content[1].x.data", "missing_required_parameter",
                   "data");
    expect_refused("{\"data\": \"\", \"format\": \"wav\"}", read_sound, "messages[0].content[1].x.data",
                   "invalid_base64", "empty");
}

Test(media_part, reads_videos)
{
    static const char field[] = "messages[0].content[1].x.url";
    cr_assert(read_with("{\"url\": \"data:video/mp4;base64,Zm9v\"}", pl_media_read_video), "%s", error.message);
    cr_assert(part.film && part.kind == PL_MEDIA_IMAGE && part.n == 3);
    cr_assert_str_eq(pl_media_part_name(&part), "video");
    cr_assert_str_eq(part.field, field);
    pl_media_part_free(&part);
    cr_assert(read_with("{\"url\": \"https://example.org/a.mp4\"}", pl_media_read_video));
    cr_assert(part.film && part.url);
    pl_media_part_free(&part);
    expect_refused("{\"url\": \"data:image/png;base64,Zg==\"}", pl_media_read_video, field, "unsupported_value",
                   "video expected, but its type is 'image/png'");
    expect_refused("{\"url\": \"file:///a.mp4\"}", pl_media_read_video, field, "invalid_url", field);
    expect_refused("{}", pl_media_read_video, field, "missing_required_parameter", "url");
    expect_refused("{\"url\": \"data:video/mp4;base64,Zg==\"}", read_url, field, "unsupported_value", "image expected");
}

Test(media_part, files_are_what_their_type_says)
{
    static const char field[] = "messages[0].content[1].x.file_data";
    cr_assert(
        read_with("{\"file_data\": \"data:audio/mpeg;base64,Zm9v\", \"filename\": \"a.mp3\"}", pl_media_read_file));
    cr_assert_eq(part.kind, PL_MEDIA_AUDIO);
    pl_media_part_free(&part);
    cr_assert(read_with("{\"file_data\": \"data:image/webp;base64,Zm9v\"}", pl_media_read_file));
    cr_assert_eq(part.kind, PL_MEDIA_IMAGE);
    pl_media_part_free(&part);
    expect_refused("{\"file_data\": \"data:application/pdf;base64,Zm9v\"}", pl_media_read_file, field,
                   "unsupported_value", "application/pdf");
    expect_refused("{\"file_data\": \"https://a/b.png\"}", pl_media_read_file, field, "invalid_url", "data URL");
    expect_refused("{\"file_id\": \"file-1\"}", pl_media_read_file, "messages[0].content[1].x.file_id",
                   "unsupported_parameter", "file_data");
}

Test(media_part, detail_is_a_size)
{
    static const struct {
        const char *json;
        int32_t side;
    } cases[] = {{"{}", 0},
                 {"{\"detail\": null}", 0},
                 {"{\"detail\": \"auto\"}", 0},
                 {"{\"detail\": \"low\"}", 256},
                 {"{\"detail\": \"high\"}", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *root = json_loads(cases[i].json, 0, NULL);
        error = (pl_api_error){0};
        pl_fields f = pl_fields_of(root, &error, "x");
        cr_assert_eq(pl_media_read_detail(&f), cases[i].side, "%s", cases[i].json);
        cr_assert(pl_fields_done(&f));
        json_decref(root);
    }
}
