#include "host/serve/media_part.h"

#include "host/serve/base64.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define URL_MOST 8192

void pl_media_part_free(pl_media_part *part)
{
    for (size_t i = 0; i < part->n_rows; i++)
        pl_media_free(part->rows[i]);
    free(part->rows);
    free(part->times);
    free(part->bytes);
    free(part->url);
    *part = (pl_media_part){0};
}

pl_status pl_media_part_add(pl_media_part *part, pl_media *media, pl_error *err)
{
    pl_media **grown = realloc(part->rows, (part->n_rows + 1) * sizeof(pl_media *));
    if (!grown) {
        pl_media_free(media);
        return pl_fail_memory(err, (part->n_rows + 1) * sizeof(pl_media *), "clips");
    }
    part->rows = grown;
    part->rows[part->n_rows++] = media;
    return PL_OK;
}

const char *pl_media_part_name(const pl_media_part *part)
{
    return part->film ? "video" : pl_media_kind_name(part->kind);
}

static bool begins(const char *text, size_t n, const char *with)
{
    size_t n_with = strlen(with);
    return n >= n_with && strncasecmp(text, with, n_with) == 0;
}

bool pl_media_kind_of_type(const char *mime, size_t n, pl_media_kind *out)
{
    bool image = begins(mime, n, "image/");
    *out = image ? PL_MEDIA_IMAGE : PL_MEDIA_AUDIO;
    return image || begins(mime, n, "audio/");
}

static void begin_part(pl_fields *f, const char *name, pl_media_kind kind, pl_media_part *out)
{
    *out = (pl_media_part){.kind = kind};
    snprintf(out->field, sizeof out->field, "%s%s%s", f->where, f->where[0] ? "." : "", name);
}

/* The text itself is given up: it may be most of the request. */
static bool decode(pl_fields *f, const char *name, json_t *value, const char *text, pl_media_part *out)
{
    pl_error err;
    size_t n = strlen(text);
    if (n == 0) {
        pl_field_fail(f, name, "invalid_base64", "Invalid '%s': it is empty.", out->field);
        return false;
    }
    if (pl_base64_decode(text, n, &out->bytes, &out->n, &err) == PL_OK) {
        json_string_set_nocheck(value, "");
        return true;
    }
    if (err.status == PL_ERR_MEMORY)
        pl_field_fail_of(f, name, &err);
    else
        pl_field_fail(f, name, "invalid_base64", "Invalid '%s': %s.", out->field, err.message);
    return false;
}

bool pl_media_read_base64(pl_fields *f, const char *name, pl_media_kind kind, pl_media_part *out)
{
    const char *text = pl_field_required_text(f, name);
    begin_part(f, name, kind, out);
    return !pl_fields_failed(f) && decode(f, name, pl_field_any(f, name), text, out);
}

/* ---- URLs -------------------------------------------------------------------------------------- */

/* Of "data:image/png;base64,AAAA" the type; *data is what follows the comma. False: none with base64. */
static bool split_data_url(const char *url, const char **type, size_t *n_type, const char **data)
{
    static const char scheme[] = "data:", base64[] = ";base64";
    const char *comma = strchr(url, ',');
    *type = url + sizeof scheme - 1;
    size_t n = comma ? (size_t)(comma - *type) : 0, n_base64 = sizeof base64 - 1;
    if (n < n_base64 || strncasecmp(comma - n_base64, base64, n_base64) != 0)
        return false;
    *n_type = n - n_base64;
    *data = comma + 1;
    return true;
}

/* A video's, or any that a part can have; sets out->kind. */
static bool is_of_type(const char *type, size_t n, const pl_media_kind *expected, pl_media_part *out)
{
    if (out->film)
        return begins(type, n, "video/");
    return pl_media_kind_of_type(type, n, &out->kind) && (!expected || out->kind == *expected);
}

static bool read_data_url(pl_fields *f, const char *name, const pl_media_kind *expected, const char *url,
                          pl_media_part *out)
{
    const char *type, *data;
    size_t n_type;
    if (!split_data_url(url, &type, &n_type, &data)) {
        pl_field_fail(f, name, "invalid_base64", "Invalid '%s': expected 'data:TYPE;base64,...'.", out->field);
        return false;
    }
    if (!is_of_type(type, n_type, expected, out)) {
        pl_field_fail(f, name, "unsupported_value", "Invalid '%s': %s expected, but its type is '%.*s'.", out->field,
                      out->film  ? "video"
                      : expected ? pl_media_kind_name(*expected)
                                 : "an image or audio",
                      n_type < 60 ? (int)n_type : 60, type);
        return false;
    }
    return decode(f, name, pl_field_any(f, name), data, out);
}

static bool keep_url(pl_fields *f, const char *name, const char *url, pl_media_part *out)
{
    for (const char *p = url; *p; p++)
        if (*p <= ' ' || *p > '~' || p - url >= URL_MOST) {
            pl_field_fail(f, name, "invalid_url", "Invalid '%s': no URL of at most %d characters.", out->field,
                          URL_MOST);
            return false;
        }
    out->url = strdup(url);
    if (!out->url)
        pl_field_fail_of(f, name, &(pl_error){PL_ERR_MEMORY, "out of memory"});
    return out->url != NULL;
}

static bool read_url(pl_fields *f, const char *name, const pl_media_kind *expected, pl_media_part *out)
{
    const char *url = pl_field_required_text(f, name);
    size_t n = strlen(url);
    if (pl_fields_failed(f))
        return false;
    if (begins(url, n, "data:"))
        return read_data_url(f, name, expected, url, out);
    if (expected && (begins(url, n, "http://") || begins(url, n, "https://")))
        return keep_url(f, name, url, out);
    pl_field_fail(f, name, "invalid_url", "Invalid '%s': expected a data URL%s.", out->field,
                  expected ? " or one of http or https" : "");
    return false;
}

bool pl_media_read_url(pl_fields *f, const char *name, const pl_media_kind *expected, pl_media_part *out)
{
    begin_part(f, name, expected ? *expected : PL_MEDIA_IMAGE, out);
    return read_url(f, name, expected, out);
}

bool pl_media_read_video(pl_fields *f, pl_media_part *out)
{
    static const pl_media_kind frames = PL_MEDIA_IMAGE;
    begin_part(f, "url", frames, out);
    out->film = true;
    return read_url(f, "url", &frames, out);
}

/* ---- OpenAI's objects -------------------------------------------------------------------------- */

int32_t pl_media_read_detail(pl_fields *f)
{
    static const char *const words[] = {"auto", "low", "high", "original", NULL};
    return pl_field_choice(f, "detail", 0, words) == 1 ? 256 : 0;
}

bool pl_media_read_input_audio(pl_fields *f, pl_media_part *out)
{
    static const char *const formats[] = {"wav", "mp3", "flac", "ogg", "m4a", "mp4", "webm", NULL};
    pl_field_require(f, "format");
    pl_field_choice(f, "format", 0, formats);
    return pl_media_read_base64(f, "data", PL_MEDIA_AUDIO, out) && pl_fields_done(f);
}

bool pl_media_read_file(pl_fields *f, pl_media_part *out)
{
    if (pl_field_given(f, "file_id"))
        pl_field_fail(f, "file_id", "unsupported_parameter",
                      "Unsupported parameter: 'file_id'. Nothing is stored here: send the file as 'file_data'.");
    if (pl_field_given(f, "file_url"))
        pl_field_fail(f, "file_url", "unsupported_parameter",
                      "Unsupported parameter: 'file_url': send the file as 'file_data'.");
    pl_field_text(f, "filename", NULL);
    pl_field_text(f, "detail", NULL);
    return pl_media_read_url(f, "file_data", NULL, out);
}
