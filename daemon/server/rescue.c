#include "daemon/server/rescue.h"

#include <stdlib.h>

#include "daemon/replica/rescue.h"
#include "daemon/server/new_dir.h"
#include "lib/base/memory.h"

static void found_name(void *ctx, const char *name)
{
    (void)name;
    *(bool *)ctx = true;
}

static enum errc check_dirs(struct disk *disk, const char *from, const char *to, struct error *err)
{
    char *member = xasprintf("%s/member", from);
    bool any = false;
    enum errc code = disk->list(disk, member, found_name, &any, NULL);
    free(member);
    if (code != ERR_OK || !any)
        return error_set(err, ERR_INVALID, "--data-dir %s: there is no data in it to rescue", from);
    return new_dir_check(disk, "--rescue", to, err);
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
        code = new_dir_begin(disk, new_dir, err);
    if (code == ERR_OK)
        code = replica_rescue(&(struct rescue_config){.disk = disk,
                                                      .from = dir,
                                                      .to = new_dir,
                                                      .cluster_id = id.cluster_id,
                                                      .member = identity_self(&id)},
                              report, ret_lost, err);
    /* Last: without it the directory is none that a server takes for complete. */
    if (code == ERR_OK)
        code = new_dir_end(disk, new_dir, &id, err);
    identity_free(&id);
    if (lock)
        disk->close(disk, lock);
    free(default_dir);
    return code;
}
