/* Who is this member? What the data directory, the settings and the other members say, before anything is
 * opened. */
#include <stdlib.h>
#include <string.h>

#include "daemon/server/known.h"
#include "daemon/server/new_dir.h"
#include "daemon/server/server_internal.h"

/* The directory knows who it is; the settings of the first start are not needed any more. But settings
 * that describe another member or cluster than the directory's are a mix-up that must not go unseen. */
static enum errc check_identity(struct server *s, struct error *err)
{
    struct identity computed;
    if (!s->config.initial_cluster || s->config.initial_cluster_existing || s->identity.joined)
        return ERR_OK;
    enum errc e = identity_compute(&s->config, &computed, err);
    if (e)
        return e;
    if (computed.member_id != s->identity.member_id)
        e = error_set(
            err, ERR_INVALID,
            "--data-dir %s belongs to member %llx of cluster %llx, but --initial-cluster, "
            "--name and --initial-cluster-token describe member %llx of cluster %llx: "
            "name the right directory, or leave out --initial-cluster",
            s->config.data_dir, (unsigned long long)s->identity.member_id,
            (unsigned long long)s->identity.cluster_id, (unsigned long long)computed.member_id,
            (unsigned long long)computed.cluster_id);
    identity_free(&computed);
    return e;
}

/* A new directory: a member alone begins with what the settings say; else the others are asked (s->join,
 * s->first). */
static enum errc begin_new(struct server *s, struct identity *computed, struct error *err)
{
    enum errc e = ERR_OK;
    if (s->config.initial_cluster_existing) {
        s->join = join_start(s, computed);
    } else if (computed->member_count > 1 && s->config.listen_peer_urls.count > 0) {
        e = port_open_peers(s, false, err);
        if (!e) {
            s->first = first_start(s, computed);
            return ERR_OK;
        }
    } else {
        s->identity = *computed;
        return identity_save(s->disk, s->config.data_dir, &s->identity, err);
    }
    identity_free(computed);
    return e;
}

/* ---- Rejoining ----------------------------------------------------------------------------------- */

static enum errc start_rejoin(struct server *s, struct error *err)
{
    if (s->config.listen_peer_urls.count == 0)
        return error_set(err, ERR_INVALID,
                         "%s belongs to a member that lost its data and rejoins its cluster: start "
                         "quorumd on it",
                         s->config.data_dir);
    s->has_marker = true;
    enum errc e = port_open_peers(s, true, err);
    if (e)
        return e;
    s->rejoin = rejoin_start(s, err);
    return s->rejoin ? ERR_OK : err->code;
}

/* With a marker: the directory holds the data of the old member, which is not worth reading, or none, or
 * already that of the new one. A crash may have come at any step. */
static enum errc begin_marked(struct server *s, enum errc found, struct error *err)
{
    enum errc e = ERR_OK;
    s->has_marker = true;
    if (!found && !marker_is_old(&s->marker, s->identity.member_id) && !s->marker.unknown)
        return ERR_OK;
    identity_free(&s->identity);
    if (found == ERR_CORRUPT && !s->marker.unknown) {
        s->marker.unknown = true; /* the new member's may be what is damaged */
        e = marker_save(s->disk, s->config.data_dir, &s->marker, err);
    }
    if (!e)
        e = member_move_aside(s->disk, s->config.data_dir, err);
    return e ? e : start_rejoin(s, err);
}

void server_rejoin(struct server *s, const struct marker *marker)
{
    struct error err;
    s->marker = *marker;
    enum errc e = marker_save(s->disk, s->config.data_dir, marker, &err);
    if (!e)
        e = member_move_aside(s->disk, s->config.data_dir, &err);
    if (!e)
        e = start_rejoin(s, &err);
    if (e)
        server_fail(s, &err);
}

/* ---- All of it ----------------------------------------------------------------------------------- */

/* Settings that can't begin a cluster are refused before the directory is made. */
enum errc server_begin(struct server *s, struct error *err)
{
    struct identity computed = {0};
    struct error why;
    enum errc e = new_dir_is_complete(s->disk, s->config.data_dir, err);
    if (e)
        return e;
    enum errc marked = marker_load(s->disk, s->config.data_dir, &s->marker, &why);
    if (marked && marked != ERR_NOT_FOUND)
        return error_set(err, marked, "%s", why.message);
    enum errc found = identity_load(s->disk, s->config.data_dir, &s->identity, &why);
    if (found == ERR_NOT_FOUND && marked)
        e = identity_compute(&s->config, &computed, err);
    if (!e)
        e = data_dir_lock(s->disk, s->config.data_dir, &s->lock, err);
    if (!e && !marked && (!found || found == ERR_NOT_FOUND || found == ERR_CORRUPT))
        return begin_marked(s, found, err);
    if (!e && found == ERR_OK)
        return check_identity(s, err);
    if (!e && found == ERR_NOT_FOUND)
        return begin_new(s, &computed, err);
    identity_free(&computed);
    return e ? e : error_set(err, found, "%s", why.message);
}
