/* What /proc/self/mountinfo says of mounts, without a request to any file system: statfs or stat of our own
 * mount from the loop thread would wait for ourselves. Safe in any thread. */
#ifndef FUSE_MOUNT_INFO_H
#define FUSE_MOUNT_INFO_H

#include <stdbool.h>
#include <sys/types.h>

/* The topmost mount at exactly this absolute path: its device number (whose minor names the directory
 * /sys/fs/fuse/connections/MINOR of a FUSE mount). False if nothing is mounted there. */
bool mount_info_of_path(const char *path, dev_t *ret_dev);
/* The device of the mount with this id (`mnt_id:` in fdinfo). False: not in our mount namespace. */
bool mount_info_of_id(long id, dev_t *ret_dev);

#endif
