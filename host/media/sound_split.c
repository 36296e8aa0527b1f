/* Where to cut long sound. */
#include <math.h>

#include "host/media/sound.h"

#define MAX_PIECE_S 30.0
#define STEP (PL_SOUND_RATE / 100)
#define MOMENT (10 * STEP) /* as long as a pause between words is */
#define QUIET 0.1          /* of the piece's power: pauses are 10 dB below the speech around them */

static double power(const float *samples, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)samples[i] * samples[i];
    return sum / (double)n;
}

/* The middle of the quietest moment in the last third of a piece; its end where none is quiet. Of equals the last. */
static size_t find_cut(const float *samples, size_t n)
{
    double least = QUIET * power(samples, n);
    size_t best = n;
    for (size_t at = n - n / 3; at + MOMENT <= n; at += STEP) {
        double here = power(samples + at, MOMENT);
        if (here <= least) {
            least = here;
            best = at + MOMENT / 2;
        }
    }
    return best;
}

size_t pl_sound_split(const float *samples, size_t n, double max_s, size_t *cut, size_t room)
{
    double longest_s = max_s > 0 && max_s < MAX_PIECE_S ? max_s : MAX_PIECE_S;
    size_t longest = (size_t)(longest_s * PL_SOUND_RATE), n_cuts = 0;
    longest = longest > 0 ? longest : 1;
    for (size_t at = 0; at < n; n_cuts++) {
        at += n - at > longest ? find_cut(samples + at, longest) : n - at;
        if (n_cuts < room)
            cut[n_cuts] = at;
    }
    return n_cuts;
}
