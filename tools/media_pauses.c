#include "tools/media_pauses.h"

#include <math.h>

#define SOFTEST 0.004F       /* what is softer is no speech, however quiet the room is */
#define ABOVE 3.0F           /* times the background: speech */
#define RISE 1.005F          /* a frame: a background that grows louder is learnt within seconds, */
#define RISE_SPEAKING 1.001F /* or half a minute, since it may be somebody who does not pause */
#define FALL 0.3F
#define BEGIN_FRAMES 2
#define END_FRAMES 30

static float loudness(const float *frame)
{
    float sum = 0;
    for (int i = 0; i < PL_PAUSE_FRAME; i++)
        sum += frame[i] * frame[i];
    return sqrtf(sum / PL_PAUSE_FRAME);
}

bool pl_pauses_hear(pl_pauses *p, const float *frame)
{
    float now = loudness(frame), least = SOFTEST / ABOVE, rise = p->speaking ? RISE_SPEAKING : RISE;
    p->background = now < p->background ? p->background + FALL * (now - p->background) : p->background * rise;
    if (!(p->background > least))
        p->background = least;
    bool loud = now > ABOVE * p->background;
    p->loud = loud ? p->loud + 1 : 0;
    p->quiet = loud ? 0 : p->quiet + 1;
    if (p->loud >= BEGIN_FRAMES)
        p->speaking = true;
    else if (p->quiet >= END_FRAMES)
        p->speaking = false;
    return p->speaking;
}
