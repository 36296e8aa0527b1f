#include "host/base/free_memory.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 4096
#define LINE_BYTES 4096

/* The number behind `key` at the start of a line of the file; or, with key "", at its very start. */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
    char line[LINE_BYTES];
    bool found = false;
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file)) {
        char *end = line;
        if (strncmp(line, key, strlen(key)) == 0)
            *out = strtoull(line + strlen(key), &end, 10);
        found = end > line;
    }
    fclose(file);
    return found;
}

/* The control group of this process in version 2's one hierarchy: "/user.slice/...". */
static bool read_group(const char *root, char out[PATH_BYTES])
{
    char path[PATH_BYTES], line[LINE_BYTES];
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof line, file)) {
        found = strncmp(line, "0::/", 4) == 0;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, PATH_BYTES, "%s", line + 3);
    }
    fclose(file);
    return found;
}

/* What the limit of one group leaves; its page cache can be given up. */
static uint64_t left_in_group(const char *root, const char *group)
{
    char path[3 * PATH_BYTES];
    uint64_t most, used, cached = 0;
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.max", root, group);
    if (!read_number(path, "", &most))
        return UINT64_MAX; /* "max", or no such file */
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.current", root, group);
    if (!read_number(path, "", &used))
        return UINT64_MAX;
    snprintf(path, sizeof path, "%s/sys/fs/cgroup%s/memory.stat", root, group);
    read_number(path, "file ", &cached);
    used -= cached < used ? cached : used;
    return used < most ? most - used : 1;
}

size_t pl_free_memory_of(const char *root)
{
    char path[PATH_BYTES], group[PATH_BYTES];
    uint64_t kib, left;
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (!read_number(path, "MemAvailable:", &kib))
        return 0;
    left = kib * 1024;
    if (!read_group(root, group))
        return left;
    for (;;) { /* this group and all that it is in */
        uint64_t here = left_in_group(root, strcmp(group, "/") == 0 ? "" : group);
        left = here < left ? here : left;
        char *slash = strrchr(group, '/');
        if (!slash || !group[1])
            return left;
        slash[slash == group] = '\0';
    }
}

size_t pl_free_memory(void)
{
    return pl_free_memory_of("");
}
