/* JPEG with libjpeg-turbo. */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "host/media/image_parts.h"

/* Encoders write some ten; each scan walks over the whole image, however few bytes it has. */
#define MAX_SCANS 100

typedef struct jpeg_reader {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf out;
    const pl_image_source *source;
    pl_error *err;
    pl_status status;
    JSAMPLE *row; /* four components */
} jpeg_reader;

static void give_up(jpeg_reader *r)
{
    char message[JMSG_LENGTH_MAX];
    j_common_ptr cinfo = (j_common_ptr)&r->cinfo;
    (*r->errors.format_message)(cinfo, message);
    switch (r->errors.msg_code) {
    case JERR_OUT_OF_MEMORY: r->status = PL_ERR_MEMORY; break;
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
    case JERR_NOTIMPL: r->status = PL_ERR_UNSUPPORTED; break;
    default: r->status = PL_ERR_FORMAT;
    }
    pl_fail(r->err, r->status, "%s: %s", r->source->what, message);
    longjmp(r->out, 1);
}

static void on_error(j_common_ptr cinfo)
{
    give_up(cinfo->client_data);
}

/* Warnings of lost data end the reading; what others tell does not show in the pixels. */
static void on_message(j_common_ptr cinfo, int level)
{
    if (level >= 0)
        return;
    switch (cinfo->err->msg_code) {
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_JPEG_EOF:
    case JWRN_MUST_RESYNC: give_up(cinfo->client_data); break;
    default: break;
    }
}

static void on_progress(j_common_ptr cinfo)
{
    jpeg_reader *r = cinfo->client_data;
    if (r->cinfo.input_scan_number <= MAX_SCANS)
        return;
    r->status = pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s has more than %d scans", r->source->what, MAX_SCANS);
    longjmp(r->out, 1);
}

static int find_orientation(jpeg_reader *r)
{
    for (jpeg_saved_marker_ptr marker = r->cinfo.marker_list; marker; marker = marker->next)
        if (marker->data_length >= 6 && memcmp(marker->data, "Exif\0\0", 6) == 0)
            return pl_exif_orientation(marker->data, marker->data_length);
    return 1;
}

/* As Pillow: four components are stored inverted, with or without Adobe's marker. */
static void cmyk_row(const JSAMPLE *cmyk, int width, uint8_t *rgb)
{
    for (int x = 0; x < width; x++)
        for (int c = 0; c < 3; c++) {
            unsigned black = cmyk[4 * x + 3], product = (255u - cmyk[4 * x + c]) * black + 128;
            rgb[3 * x + c] = (uint8_t)(black - ((product + (product >> 8)) >> 8));
        }
}

static pl_status read_pixels(jpeg_reader *r, pl_image *out)
{
    struct jpeg_decompress_struct *cinfo = &r->cinfo;
    jpeg_save_markers(cinfo, JPEG_APP0 + 1, 0xffff);
    jpeg_mem_src(cinfo, r->source->bytes, r->source->n);
    jpeg_read_header(cinfo, TRUE);
    PL_TRY(pl_image_check_size(r->source, cinfo->image_width, cinfo->image_height, r->err));
    if (cinfo->num_components != 1 && cinfo->num_components != 3 && cinfo->num_components != 4)
        return pl_fail(r->err, PL_ERR_UNSUPPORTED, "%s has %d colour components", r->source->what,
                       cinfo->num_components);
    bool cmyk = cinfo->num_components == 4;
    cinfo->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(cinfo);
    PL_TRY(pl_image_allocate(r->source, (int)cinfo->image_width, (int)cinfo->image_height, out, r->err));
    if (cmyk && !(r->row = malloc((size_t)out->width * 4)))
        return pl_fail_memory(r->err, (size_t)out->width * 4, r->source->what);
    while (cinfo->output_scanline < cinfo->output_height) {
        uint8_t *rgb = out->rgb + (size_t)cinfo->output_scanline * (size_t)out->width * 3;
        JSAMPROW row = cmyk ? r->row : rgb;
        jpeg_read_scanlines(cinfo, &row, 1);
        if (cmyk)
            cmyk_row(r->row, out->width, rgb);
    }
    return pl_image_turn(out, find_orientation(r), r->err);
}

pl_status pl_image_jpeg(const pl_image_source *source, pl_image *out, pl_error *err)
{
    jpeg_reader *r = calloc(1, sizeof *r);
    if (!r)
        return pl_fail_memory(err, sizeof *r, source->what);
    r->source = source;
    r->err = err;
    r->cinfo.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    r->progress.progress_monitor = on_progress;
    r->cinfo.client_data = r;
    if (setjmp(r->out) == 0) {
        jpeg_create_decompress(&r->cinfo);
        r->cinfo.progress = &r->progress;
        r->status = read_pixels(r, out);
    }
    jpeg_destroy_decompress(&r->cinfo);
    pl_status status = r->status;
    free(r->row);
    free(r);
    if (status != PL_OK)
        pl_image_free(out);
    return status;
}
