/* What a member does about damage to its data: it gives its id up, and rejoins (marker.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server/config.h"
#include "daemon/server/known.h"
#include "daemon/server/marker.h"
#include "lib/base/log.h"
#include "lib/base/memory.h"

/* The damaged member's id must never be used again; if it can't be read, it is whoever has the URLs. */
static void fill_marker(struct disk *disk, const struct server_config *config,
                        const struct known *known, const char *reason, struct marker *m)
{
    struct identity id;
    bool again = marker_load(disk, config->data_dir, m, NULL) == ERR_OK;
    if (!again) {
        *m = (struct marker){.cluster_id = known->cluster_id};
        if (known->learner)
            m->role = MARKER_ROLE_LEARNER;
    }
    m->removing = false;
    snprintf(m->reason, sizeof(m->reason), "%s", reason);
    if (identity_load(disk, config->data_dir, &id, NULL)) {
        m->unknown = true;
        return;
    }
    m->cluster_id = id.cluster_id;
    marker_add_old(m, id.member_id);
    identity_free(&id);
}

static bool give_up_member(struct disk *disk, const struct server_config *config,
                           const struct error *why, struct error *err)
{
    struct known known;
    struct marker marker;
    known_load(disk, config, &known);
    bool alone = known.count == 0;
    if (!alone)
        fill_marker(disk, config, &known, why->message, &marker);
    known_free(&known);
    if (alone)
        return error_set(
                   err, why->code,
                   "%.320s. `quorumd --rescue NEWDIR --data-dir %s` rescues what can still be read",
                   why->message, config->data_dir) == ERR_OK;
    log_error("server",
              "damaged data: %s. This member gives up its id and rejoins the cluster as a new one; "
              "the damaged data is kept in %s/member.damaged until then",
              why->message, config->data_dir);
    return marker_save(disk, config->data_dir, &marker, err) == ERR_OK &&
           member_move_aside(disk, config->data_dir, err) == ERR_OK;
}

bool server_heal(const struct server_config *config, const struct error *why, struct error *err)
{
    struct server_config copy = *config;
    struct disk *disk = disk_posix();
    struct disk_file *lock;
    *err = *why;
    if (why->code != ERR_CORRUPT || config->listen_peer_urls.count == 0)
        return false;
    char *data_dir =
        config->data_dir ? xstrdup(config->data_dir) : xasprintf("%s.etcd", config->name);
    copy.data_dir = data_dir;
    bool healing = false;
    if (data_dir_lock(disk, data_dir, &lock, err) == ERR_OK) {
        healing = give_up_member(disk, &copy, why, err);
        disk->close(disk, lock);
    }
    free(data_dir);
    return healing;
}
