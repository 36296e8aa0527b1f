/* Speech to text: /v1/audio/transcriptions and /v1/audio/translations, as OpenAI's. */
#ifndef PL_SERVE_API_AUDIO_H
#define PL_SERVE_API_AUDIO_H

#include "host/serve/http.h"

void pl_api_transcriptions(void *user, pl_exchange *x); /* user: a service */
void pl_api_translations(void *user, pl_exchange *x);

#endif
