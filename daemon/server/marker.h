/* DATA/rejoin: this member lost its data (wiped, or damaged and moved aside) and comes back as a new one.
 *
 * A member that has forgotten what it voted for and acknowledged must not speak under its old id again. So
 * the process replaces it by ordinary membership changes, as an operator would: the old id is removed, a new
 * one added as a learner with the same peer URLs, and promoted when it has caught up (rejoin.c, promote.c).
 * The marker is on disk before anything else is done, and goes last, so that a crash at any step finds the way
 * on. A text file under a checksum (state_file.h):
 *
 *     quorumd rejoin 1
 *     cluster  HEX           (0: not known)
 *     role     unknown|voter|learner
 *     removing yes|no
 *     unknown  yes|no
 *     old      HEX           (each id that may not be used again)
 *     reason   TEXT
 *
 * Blocking. */
#ifndef SERVER_MARKER_H
#define SERVER_MARKER_H

#include <stdint.h>

#include "lib/base/disk.h"

#define MARKER_OLD_MAX 8 /* damaged again while rejoining: that often it is remembered exactly */

enum marker_role { MARKER_ROLE_UNKNOWN, MARKER_ROLE_VOTER, MARKER_ROLE_LEARNER };

struct marker {
    uint64_t cluster_id;
    enum marker_role role; /* what it was, and will be */
    bool removing;         /* the removal of old[] may have been carried out: adding is next then */
    bool unknown;          /* the old id is not known: it is whoever has this member's peer URLs */
    uint64_t old[MARKER_OLD_MAX];
    size_t old_count;
    char reason[480]; /* as an error's message */
};

/* ERR_NOT_FOUND: there is none. ERR_CORRUPT names the file. */
enum errc marker_load(struct disk *disk, const char *data_dir, struct marker *ret_marker,
                      struct error *err);
enum errc marker_save(struct disk *disk, const char *data_dir, const struct marker *marker,
                      struct error *err);
enum errc marker_remove(struct disk *disk, const char *data_dir, struct error *err);

bool marker_is_old(const struct marker *marker, uint64_t id);
void marker_add_old(struct marker *marker,
                    uint64_t id); /* the first one goes if there are too many */

/* Moves DATA/member to DATA/member.damaged, which replaces an older one; without member/log nothing is
 * worth moving, and nothing is done. */
enum errc member_move_aside(struct disk *disk, const char *data_dir, struct error *err);
enum errc member_remove_damaged(struct disk *disk, const char *data_dir, struct error *err);

#endif
