#include "host/text/tokenizer_cache.h"

#include "host/base/outfile.h"
#include "host/base/strbuf.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* NULL without memory. */
static char *file_name(const char *dir, const uint64_t source[2])
{
    pl_strbuf name = {0};
    char *out;
    pl_strbuf_printf(&name, "%s/tokenizer-%016" PRIx64 "%016" PRIx64 ".tables", dir, source[1], source[0]);
    return pl_strbuf_take(&name, &out, NULL, NULL) == PL_OK ? out : NULL;
}

bool pl_tokenizer_cache_load(const char *dir, const uint64_t source[2], pl_mapfile *file, pl_token_tables *out)
{
    char *path = file_name(dir, source);
    if (!path)
        return false;
    pl_mapfile found;
    bool sound = pl_mapfile_open(path, &found, NULL) == PL_OK;
    free(path);
    if (!sound)
        return false;
    if (!pl_token_tables_bind(found.data, found.size, source, out)) {
        pl_mapfile_close(&found);
        return false;
    }
    *file = found;
    return true;
}

/* Makes dir and what lies above it, where missing. */
static void make_dirs(const char *dir)
{
    char *path = strdup(dir);
    if (!path)
        return;
    for (char *at = path + 1; *path && *at; at++)
        if (*at == '/') {
            *at = '\0';
            mkdir(path, 0777);
            *at = '/';
        }
    mkdir(path, 0777);
    free(path);
}

void pl_tokenizer_cache_store(const char *dir, void *image)
{
    pl_token_tables_seal(image);
    const pl_tables_header *head = image;
    pl_outfile out;
    char *path = file_name(dir, head->source);
    if (!path)
        return;
    make_dirs(dir);
    if (pl_outfile_open(path, &out, NULL) == PL_OK) {
        fwrite(image, 1, head->bytes, out.file);
        (void)pl_outfile_commit(&out, NULL); /* tells of a failed write too */
    }
    free(path);
}
