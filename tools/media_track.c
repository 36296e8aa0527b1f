#include "tools/media_track.h"

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
