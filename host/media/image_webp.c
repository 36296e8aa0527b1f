/* WebP with libwebp: the picture, or the first one of an animation. */
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/demux.h>

#include "host/media/image_parts.h"

static pl_status webp_error(const pl_image_source *source, pl_error *err)
{
    return pl_fail(err, PL_ERR_FORMAT, "%s: damaged or cut short: not a whole WebP picture", source->what);
}

static pl_status read_alpha(const pl_image_source *source, const WebPIterator *frame, uint8_t *to, size_t stride,
                            pl_error *err)
{
    size_t width = (size_t)frame->width, height = (size_t)frame->height, bytes = width * height * 4;
    uint8_t *rgba = malloc(bytes);
    if (!rgba)
        return pl_fail_memory(err, bytes, source->what);
    bool good = WebPDecodeRGBAInto(frame->fragment.bytes, frame->fragment.size, rgba, bytes, (int)width * 4) != NULL;
    for (size_t y = 0; good && y < height; y++)
        pl_image_over_white(rgba + y * width * 4, width, to + y * stride);
    free(rgba);
    return good ? PL_OK : webp_error(source, err);
}

/* A frame may be smaller than the canvas, which is white around it. */
static pl_status read_frame(const pl_image_source *source, const WebPIterator *frame, pl_image *out, pl_error *err)
{
    if (frame->x_offset < 0 || frame->y_offset < 0 || frame->width < 1 || frame->height < 1 ||
        frame->width > out->width - frame->x_offset || frame->height > out->height - frame->y_offset)
        return webp_error(source, err);
    size_t stride = (size_t)out->width * 3, at = (size_t)frame->y_offset * stride + (size_t)frame->x_offset * 3;
    size_t room = (size_t)out->height * stride - at;
    memset(out->rgb, 255, (size_t)out->height * stride);
    if (frame->has_alpha)
        return read_alpha(source, frame, out->rgb + at, stride, err);
    if (!WebPDecodeRGBInto(frame->fragment.bytes, frame->fragment.size, out->rgb + at, room, (int)stride))
        return webp_error(source, err);
    return PL_OK;
}

static pl_status turn(WebPDemuxer *demuxer, pl_image *out, pl_error *err)
{
    WebPChunkIterator exif;
    int orientation = 1;
    if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &exif)) {
        orientation = pl_exif_orientation(exif.chunk.bytes, exif.chunk.size);
        WebPDemuxReleaseChunkIterator(&exif);
    }
    return pl_image_turn(out, orientation, err);
}

pl_status pl_image_webp(const pl_image_source *source, pl_image *out, pl_error *err)
{
    WebPData data = {source->bytes, source->n};
    WebPDemuxer *demuxer = WebPDemux(&data);
    if (!demuxer)
        return webp_error(source, err);
    WebPIterator frame = {0};
    pl_status status;
    uint32_t width = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH);
    uint32_t height = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
    PL_TRY_GOTO(pl_image_check_size(source, width, height, err));
    PL_TRY_GOTO(pl_image_allocate(source, (int)width, (int)height, out, err));
    status = WebPDemuxGetFrame(demuxer, 1, &frame) ? read_frame(source, &frame, out, err) : webp_error(source, err);
    WebPDemuxReleaseIterator(&frame);
    if (status == PL_OK)
        status = turn(demuxer, out, err);
fail:
    WebPDemuxDelete(demuxer);
    if (status != PL_OK)
        pl_image_free(out);
    return status;
}
