#include "daemon/server/new_dir.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/server/state_file.h"
#include "lib/base/memory.h"

#define MARK "unfinished"

static void found_name(void *ctx, const char *name)
{
    bool *any = ctx;
    *any |= strcmp(name, "lost+found") != 0;
}

enum errc new_dir_check(struct disk *disk, const char *flag, const char *dir, struct error *err)
{
    bool any = false;
    struct error why;
    enum errc code = disk->list(disk, dir, found_name, &any, &why);
    if (code == ERR_OK && any)
        return error_set(err, ERR_INVALID,
                         "%s %s: there is something in it: name a directory that is new or empty",
                         flag, dir);
    if (code != ERR_OK && code != ERR_NOT_FOUND)
        return error_set(err, ERR_INVALID, "%s %s: %s: name a directory that is new or empty", flag,
                         dir, why.message);
    return ERR_OK;
}

enum errc new_dir_begin(struct disk *disk, const char *dir, struct error *err)
{
    char *member = xasprintf("%s/member", dir);
    enum errc code = disk->mkdir(disk, dir, err);
    if (code == ERR_OK)
        code = state_file_write(
            disk, dir, MARK,
            bytes_str("a member is being made here; if nothing does so any more, delete all of "
                      "this directory\n"),
            err);
    if (code == ERR_OK)
        code = disk->mkdir(disk, member, err);
    if (code == ERR_OK)
        code = disk->sync_dir(disk, dir, err);
    free(member);
    return code;
}

enum errc new_dir_end(struct disk *disk, const char *dir, const struct identity *identity,
                      struct error *err)
{
    enum errc code = identity_save(disk, dir, identity, err);
    return code == ERR_OK ? state_file_remove(disk, dir, MARK, err) : code;
}

enum errc new_dir_is_complete(struct disk *disk, const char *dir, struct error *err)
{
    struct disk_file *f;
    char *path = xasprintf("%s/" MARK, dir);
    enum errc code = disk->open(disk, path, DISK_READ, &f, NULL);
    free(path);
    if (code != ERR_OK) /* whatever else is wrong with DIR is found by its next user */
        return ERR_OK;
    disk->close(disk, f);
    return error_set(err, ERR_INVALID,
                     "--data-dir %s: a restore or rescue into it did not end: delete the directory "
                     "and do it again",
                     dir);
}
