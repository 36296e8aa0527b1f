/* Any bytes as what the helper writes. */
#include <string.h>

#include "host/base/status.h"
#include "host/media/video_pipe.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input {
    const uint8_t *bytes;
    size_t left;
    uint64_t frames, samples;
    uint32_t sum;
} input;

static pl_status read_input(void *user, void *to, size_t n, pl_error *err)
{
    input *in = user;
    if (n > in->left)
        return pl_fail(err, PL_ERR_FORMAT, "cut short");
    memcpy(to, in->bytes, n);
    in->bytes += n;
    in->left -= n;
    return PL_OK;
}

static pl_status see(void *user, const pl_video_frame *frame, pl_error *err)
{
    input *in = user;
    (void)err;
    if (++in->frames > 3 || frame->width > 16 || frame->height > 16)
        __builtin_trap();
    in->sum += frame->rgb[frame->width * frame->height * 3 - 1];
    return PL_OK;
}

static pl_status hear(void *user, const float *samples, size_t n, pl_error *err)
{
    input *in = user;
    (void)err;
    if ((in->samples += n) > 1000)
        __builtin_trap();
    in->sum += samples[n - 1] > 0;
    return PL_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size, 0, 0, 0};
    pl_error err;
    const pl_pipe_limits limits = {.frames = 3, .samples = 1000, .side = 16};
    pl_video_pipe(read_input, &in, &limits, &(pl_video_sink){see, hear, &in}, "fuzz", &err);
    return 0;
}
