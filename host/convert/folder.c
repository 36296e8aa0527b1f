#include "host/convert/folder.h"

#include <stdio.h>
#include <unistd.h>

#include "host/base/mapfile.h"
#include "host/model/model_json.h"

pl_status pl_folder_join(const char *folder, const char *name, char *out, pl_error *err)
{
    int n = snprintf(out, PL_FOLDER_PATH_BYTES, "%s/%s", folder, name);
    if (n < 0 || n >= PL_FOLDER_PATH_BYTES)
        return pl_fail(err, PL_ERR_ARGUMENT, "%s: the path is too long", folder);
    return PL_OK;
}

pl_status pl_folder_json(const char *folder, const char *name, json_t **out, pl_error *err)
{
    char path[PL_FOLDER_PATH_BYTES];
    pl_mapfile file;
    *out = NULL;
    PL_TRY(pl_folder_join(folder, name, path, err));
    if (access(path, F_OK) != 0)
        return PL_OK;
    PL_TRY(pl_mapfile_open(path, &file, err));
    pl_status status = pl_member_parse((const char *)file.data, file.size, path, out, err);
    pl_mapfile_close(&file);
    return status;
}
