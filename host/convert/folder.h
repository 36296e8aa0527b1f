/* Files of a Hugging Face folder, by name. */
#ifndef PL_CONVERT_FOLDER_H
#define PL_CONVERT_FOLDER_H

#include <jansson.h>

#include "host/base/status.h"

#define PL_FOLDER_PATH_BYTES 4096

/* out: PL_FOLDER_PATH_BYTES. */
pl_status pl_folder_join(const char *folder, const char *name, char *out, pl_error *err);

/* An object; NULL where there is no such file. *out is the caller's: json_decref(). */
pl_status pl_folder_json(const char *folder, const char *name, json_t **out, pl_error *err);

#endif
