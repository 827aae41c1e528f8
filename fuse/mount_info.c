#include "fuse/mount_info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

/* proc(5): space, tab, newline and backslash in paths are written \ooo. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from;) {
        if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
            from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 4;
        } else {
            *to++ = *from++;
        }
    }
    *to = '\0';
}

struct mount_line {
    long id;
    dev_t dev;
    char *path; /* in the line itself */
};

/* "36 35 98:0 /root /mount/point options ..." */
static bool parse_line(char *line, struct mount_line *ret)
{
    unsigned major_number, minor_number;
    int root_at = 0;
    if (sscanf(line, "%ld %*d %u:%u %n", &ret->id, &major_number, &minor_number, &root_at) != 3 ||
        root_at == 0)
        return false;
    char *path = strchr(line + root_at, ' ');
    if (!path)
        return false;
    path++;
    char *end = strchr(path, ' ');
    if (!end)
        return false;
    *end = '\0';
    unescape(path);
    ret->dev = makedev(major_number, minor_number);
    ret->path = path;
    return true;
}

static bool find(long id, const char *path, dev_t *ret_dev)
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t cap = 0;
    bool found = false;
    if (!f)
        return false;
    while (getline(&line, &cap, f) > 0) {
        struct mount_line m;
        if (!parse_line(line, &m) || (path ? strcmp(m.path, path) != 0 : m.id != id))
            continue;
        *ret_dev = m.dev; /* a later line of the same path lies on top */
        found = true;
    }
    free(line);
    fclose(f);
    return found;
}

bool mount_info_of_path(const char *path, dev_t *ret_dev)
{
    return find(0, path, ret_dev);
}

bool mount_info_of_id(long id, dev_t *ret_dev)
{
    return find(id, NULL, ret_dev);
}
