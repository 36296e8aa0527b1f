/* Images, sound and video as requests bring them: data URLs, base64, addresses.
 *
 *     service thread   pl_media_read_*() of each part, while a body is read: text to bytes, nothing else
 *     media thread     pl_media_part_encode(): bytes to rows of a prompt (media_encode.h) */
#ifndef PL_SERVE_MEDIA_PART_H
#define PL_SERVE_MEDIA_PART_H

#include "host/media/film.h"
#include "host/serve/fields.h"

typedef struct pl_media_part {
    pl_media_kind kind;   /* of a video: image */
    bool film;            /* it is a video */
    char field[128];      /* that it came in, for errors: "messages[0].content[1].image_url.url" */
    unsigned char *bytes; /* [n] of a file; NULL: not there, or no more */
    size_t n;
    char *url;       /* where it is to be fetched; NULL: nowhere */
    int32_t side;    /* pixels that an image is brought to; 0: the model's */
    pl_media **rows; /* [n_rows] once encoded; sound may be several clips */
    char (*times)
        [PL_FILM_TIME]; /* [n_rows] of a video: of a frame its time, said before it, of a clip ""; NULL: of no video */
    size_t n_rows;
} pl_media_part;

/* "image", "audio" or "video". */
const char *pl_media_part_name(const pl_media_part *part);

void pl_media_part_free(pl_media_part *part); /* what it holds */

/* Adds the rows of one image or clip; takes the media over, whatever comes of it. */
pl_status pl_media_part_add(pl_media_part *part, pl_media *media, pl_error *err);

/* "image/png" is an image, "audio/wav" sound; any capitals. False: neither. */
bool pl_media_kind_of_type(const char *mime, size_t n, pl_media_kind *out);

/* The field `name`: a data URL with base64, or http(s). expected: what it must be; NULL: what its type says, which it must then
 * have. False: told to f. */
bool pl_media_read_url(pl_fields *f, const char *name, const pl_media_kind *expected, pl_media_part *out);

/* The field "url" of a video: a data URL of a type video/..., or http(s). */
bool pl_media_read_video(pl_fields *f, pl_media_part *out);

/* The field `name`: base64 alone. */
bool pl_media_read_base64(pl_fields *f, const char *name, pl_media_kind kind, pl_media_part *out);

/* OpenAI's field "detail" of an image: "low" is 256 pixels, all others, and none, the model's own: 0. */
int32_t pl_media_read_detail(pl_fields *f);

/* OpenAI's {"data", "format"} of "input_audio"; the format is only checked to be one there is. */
bool pl_media_read_input_audio(pl_fields *f, pl_media_part *out);

/* OpenAI's {"file_data", "filename"} of a file that is an image or sound. */
bool pl_media_read_file(pl_fields *f, pl_media_part *out);

#endif
