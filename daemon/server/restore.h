/* `quorumd --restore FILE --data-dir DIR`: a snapshot's file becomes the data directory of one member of a new
 * cluster, as `etcdctl snapshot restore` does: the cluster and this member are what --name, --initial-cluster,
 * --initial-cluster-token and --initial-advertise-peer-urls say. No server runs. See daemon/replica/restore.h. */
#ifndef SERVER_RESTORE_H
#define SERVER_RESTORE_H

#include "daemon/server/server.h"
#include "lib/base/bytes.h"
#include "lib/base/disk.h"

/* *ret_report: a line for the terminal. ERR_INVALID: a setting is wrong, DIR isn't empty, or FILE is no snapshot;
 * ERR_CORRUPT: FILE is damaged: then nothing was begun. The disk's errors may leave a DIR that says that it isn't
 * finished. */
enum errc server_restore(const struct server_config *config, const char *file, struct buf *report,
                         struct error *err);

/* The same on any disk, for tests: config->data_dir is set, and nobody else is on it. */
enum errc restore_on_disk(struct disk *disk, const char *sqlite_vfs,
                          const struct server_config *config, const char *file, struct buf *report,
                          struct error *err);

#endif
