#include "host/media/track.h"

#include <stdlib.h>
#include <string.h>

pl_status pl_track_hear(void *user, const float *samples, size_t n, pl_error *err)
{
    pl_track *t = user;
    t->longer = t->longer || n > t->most - t->sound.n;
    if (t->longer) {
        pl_sound_free(&t->sound);
        t->room = 0;
        return PL_OK;
    }
    if (t->sound.n + n > t->room) {
        size_t room = 2 * t->room + n + PL_SOUND_RATE;
        float *larger = realloc(t->sound.samples, room * sizeof *larger);
        if (!larger)
            return pl_fail_memory(err, room * sizeof *larger, "sound");
        t->sound.samples = larger;
        t->room = room;
    }
    memcpy(t->sound.samples + t->sound.n, samples, n * sizeof *samples);
    t->sound.n += n;
    return PL_OK;
}

static pl_status decode_elsewhere(const void *bytes, size_t n, double max_s, const char *what,
                                  const pl_video_params *given, pl_sound *out, pl_error *err)
{
    pl_track track = {.most = SIZE_MAX};
    pl_video_params params = given ? *given : (pl_video_params){.max_s = 0};
    const pl_video_sink sink = {.sound = pl_track_hear, .user = &track};
    params.max_s = max_s;
    pl_status status = pl_video_read_bytes(bytes, n, what, &params, &sink, err);
    if (status == PL_OK && track.sound.n == 0)
        status = pl_fail(err, PL_ERR_FORMAT, "%s: no sound in it", what);
    if (status == PL_OK)
        *out = track.sound;
    else
        pl_sound_free(&track.sound);
    return status;
}

pl_status pl_track_decode(const void *bytes, size_t n, double max_s, const char *what, const pl_video_params *params,
                          pl_sound *out, pl_error *err)
{
    return pl_sound_is_elsewhere(bytes, n) ? decode_elsewhere(bytes, n, max_s, what, params, out, err)
                                           : pl_sound_decode(bytes, n, max_s, what, out, err);
}
