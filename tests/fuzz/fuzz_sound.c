/* Any bytes as sound. */
#include "host/media/sound.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* libsndfile 1.2 forgets some where the headers of an Ogg are damaged. */
const char *__lsan_default_suppressions(void)
{
    return "leak:vorbis_info_init\n";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    pl_sound sound;
    pl_error err;
    size_t cut[4];
    if (pl_sound_decode(data, size, 5, "fuzz", &sound, &err) != PL_OK)
        return 0;
    if (sound.n < 1 || sound.n > 5 * PL_SOUND_RATE)
        __builtin_trap();
    for (size_t i = 0; i < sound.n; i++)
        if (!isfinite(sound.samples[i]))
            __builtin_trap();
    pl_sound_split(sound.samples, sound.n, 1, cut, 4);
    pl_sound_free(&sound);
    return 0;
}
