/* A data directory that is made without a server: `quorumd --rescue` and `--restore`.
 *
 * Whatever ends the making half way, DIR/unfinished stays, and a server refuses to start there: what lies in it is
 * no member, and must not become an empty one. Blocking. */
#ifndef SERVER_NEW_DIR_H
#define SERVER_NEW_DIR_H

#include "daemon/server/identity.h"

/* DIR must not be there, or be empty (but for what mkfs leaves). ERR_INVALID names the flag. */
enum errc new_dir_check(struct disk *disk, const char *flag, const char *dir, struct error *err);
/* Makes DIR, the mark and DIR/member, durably. */
enum errc new_dir_begin(struct disk *disk, const char *dir, struct error *err);
/* Its identity is saved, and the mark goes: it is complete when this returns. */
enum errc new_dir_end(struct disk *disk, const char *dir, const struct identity *identity,
                      struct error *err);
/* ERR_INVALID: the mark is there, with the way out. */
enum errc new_dir_is_complete(struct disk *disk, const char *dir, struct error *err);

#endif
