#include "daemon/server/restore.h"

#include <stdlib.h>

#include "daemon/replica/restore.h"
#include "daemon/server/new_dir.h"
#include "lib/base/memory.h"

static enum errc fill(struct disk *disk, const char *sqlite_vfs, const char *dir, const char *file,
                      const struct identity *id, struct error *err)
{
    struct error why;
    enum errc code = new_dir_begin(disk, dir, &why);
    if (code == ERR_OK)
        code = replica_restore(&(struct restore_config){.disk = disk,
                                                        .sqlite_vfs = sqlite_vfs,
                                                        .file = file,
                                                        .data_dir = dir,
                                                        .cluster_id = id->cluster_id,
                                                        .member_id = id->member_id,
                                                        .members = id->members,
                                                        .member_count = id->member_count},
                               &why);
    /* Last: without it the directory is none that a server takes for complete. */
    if (code == ERR_OK)
        code = new_dir_end(disk, dir, id, &why);
    return code == ERR_OK ? ERR_OK
                          : error_set(err, code,
                                      "--data-dir %s: %s: delete what was begun there, and restore "
                                      "again when the cause is gone",
                                      dir, why.message);
}

static void tell(struct buf *report, const char *file, const struct snapfile_info *info,
                 const struct identity *id)
{
    buf_printf(report, "restored %s: revision %lld, %llu rows, as member %llx of cluster %llx\n",
               file, (long long)info->head.revision, (unsigned long long)info->keys,
               (unsigned long long)id->member_id, (unsigned long long)id->cluster_id);
}

enum errc restore_on_disk(struct disk *disk, const char *sqlite_vfs,
                          const struct server_config *config, const char *file, struct buf *report,
                          struct error *err)
{
    struct identity id = {0};
    struct snapfile_info info;
    struct error why;
    enum errc code = identity_compute(config, &id, err);
    if (code == ERR_OK)
        code = new_dir_check(disk, "--data-dir", config->data_dir, err);
    if (code == ERR_OK && (code = import_check(disk, file, &info, &why)) != ERR_OK)
        error_set(err, code, "--restore %s", why.message);
    if (code == ERR_OK)
        code = fill(disk, sqlite_vfs, config->data_dir, file, &id, err);
    if (code == ERR_OK)
        tell(report, file, &info, &id);
    identity_free(&id);
    return code;
}

enum errc server_restore(const struct server_config *config, const char *file, struct buf *report,
                         struct error *err)
{
    struct server_config own = *config;
    char *dir = config->data_dir ? NULL : xasprintf("%s.etcd", config->name);
    own.data_dir = dir ? dir : config->data_dir;
    enum errc code = restore_on_disk(disk_posix(), NULL, &own, file, report, err);
    free(dir);
    return code;
}
