/* The form of a call for speech to text: its fields as an object, as other calls have them in JSON, and its file. */
#ifndef PL_SERVE_AUDIO_FORM_H
#define PL_SERVE_AUDIO_FORM_H

#include "host/serve/fields.h"
#include "host/serve/multipart.h"

/* The part "file" goes to *file (n is 0 where there is none), all others to the object: "name[]" to arrays, numbers and
 * booleans where the field is one, the rest as texts. NULL: error says why. json_decref() */
json_t *pl_audio_form_read(const char *content_type, const char *body, size_t n, pl_multipart_part *file,
                           pl_api_error *error);

#endif
