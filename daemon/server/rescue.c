#include "daemon/server/rescue.h"

#include <stdlib.h>

#include "daemon/replica/rescue.h"
#include "daemon/server/identity.h"
#include "lib/base/memory.h"

static void found_name(void *ctx, const char *name)
{
    (void)name;
    *(bool *)ctx = true;
}

/* DIR must be there, and NEWDIR must not hold anything. */
static enum errc check_dirs(struct disk *disk, const char *from, const char *to, struct error *err)
{
    char *member = xasprintf("%s/member", from);
    bool any = false;
    enum errc code = disk->list(disk, member, found_name, &any, NULL);
    free(member);
    if (code != ERR_OK || !any)
        return error_set(err, ERR_INVALID, "--data-dir %s: there is no data in it to rescue", from);
    any = false;
    code = disk->list(disk, to, found_name, &any, NULL);
    if (code == ERR_OK && any)
        return error_set(err, ERR_INVALID, "--rescue %s: name a directory that is new or empty",
                         to);
    return ERR_OK;
}

static enum errc make_dir(struct disk *disk, const char *dir, struct error *err)
{
    char *member = xasprintf("%s/member", dir);
    enum errc code = disk->mkdir(disk, dir, err);
    if (code == ERR_OK)
        code = disk->mkdir(disk, member, err);
    if (code == ERR_OK)
        code = disk->sync_dir(disk, dir, err);
    free(member);
    return code;
}

enum errc server_rescue(const struct server_config *config, const char *new_dir, struct buf *report,
                        bool *ret_lost, struct error *err)
{
    struct disk *disk = disk_posix();
    struct disk_file *lock = NULL;
    struct identity id = {0};
    struct server_config alone = *config;
    alone.initial_cluster = NULL; /* this member alone */
    char *default_dir = xasprintf("%s.etcd", config->name);
    const char *dir = config->data_dir ? config->data_dir : default_dir;
    enum errc code = check_dirs(disk, dir, new_dir, err);
    if (code == ERR_OK)
        code = data_dir_lock(disk, dir, &lock, err);
    if (code == ERR_OK)
        code = identity_compute(&alone, &id, err);
    if (code == ERR_OK)
        code = make_dir(disk, new_dir, err);
    if (code == ERR_OK)
        code = replica_rescue(&(struct rescue_config){.disk = disk,
                                                      .from = dir,
                                                      .to = new_dir,
                                                      .cluster_id = id.cluster_id,
                                                      .member = identity_self(&id)},
                              report, ret_lost, err);
    /* Last: without it the directory is none that a server takes for complete. */
    if (code == ERR_OK)
        code = identity_save(disk, new_dir, &id, err);
    identity_free(&id);
    if (lock)
        disk->close(disk, lock);
    free(default_dir);
    return code;
}
