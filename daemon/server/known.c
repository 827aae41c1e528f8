#include "daemon/server/known.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/server/server_internal.h"
#include "daemon/server/state_file.h"
#include "lib/base/crc32c.h"
#include "lib/base/log.h"

#define NAME "members"
#define NOTE_BACKOFF_MIN_MS 1000
#define NOTE_BACKOFF_MAX_MS 60000

bool known_is_own(const struct server_config *config, const char *url)
{
    const struct server_urls *own = &config->initial_advertise_peer_urls;
    for (size_t i = 0; i < own->count; i++)
        if (!strcmp(own->url[i], url))
            return true;
    return false;
}

void known_add(struct known *known, const struct server_config *config, const char *url)
{
    if (known_is_own(config, url) || known->count == KNOWN_URLS_MAX)
        return;
    for (size_t i = 0; i < known->count; i++)
        if (!strcmp(known->urls[i], url))
            return;
    known->urls[known->count++] = xstrdup(url);
}

static void add_identity(struct known *known, const struct server_config *config,
                         const struct identity *id)
{
    for (size_t i = 0; i < id->member_count; i++)
        for (size_t k = 0; k < id->members[i].peer_url_count; k++)
            known_add(known, config, id->members[i].peer_urls[k]);
}

static bool add_file(struct known *known, struct disk *disk, const struct server_config *config,
                     const char *name)
{
    struct identity id;
    char *path = xasprintf("%s/%s", config->data_dir, name);
    bool found = identity_read(disk, path, &id, NULL) == ERR_OK;
    free(path);
    if (!found)
        return false;
    add_identity(known, config, &id);
    if (!known->cluster_id)
        known->cluster_id = id.cluster_id;
    if (!strcmp(name, NAME))
        known->learner = identity_self(&id)->learner;
    identity_free(&id);
    return true;
}

void known_load(struct disk *disk, const struct server_config *config, struct known *ret_known)
{
    struct identity id;
    *ret_known = (struct known){0};
    add_file(ret_known, disk, config, NAME);
    add_file(ret_known, disk, config, "member/identity");
    add_file(ret_known, disk, config, "member.damaged/identity");
    if (!config->initial_cluster || identity_compute(config, &id, NULL))
        return;
    add_identity(ret_known, config, &id);
    if (!ret_known->cluster_id && !config->initial_cluster_existing)
        ret_known->cluster_id = id.cluster_id;
    identity_free(&id);
}

void known_free(struct known *known)
{
    for (size_t i = 0; i < known->count; i++)
        free(known->urls[i]);
    known->count = 0;
}

/* ---- Writing ------------------------------------------------------------------------------------- */

struct note {
    struct job job;
    struct server *server;
    struct buf text;
    struct error err;
};

static void write_note(struct job *job)
{
    struct note *n = CONTAINER_OF(job, struct note, job);
    n->err.code = ERR_OK;
    state_file_write(n->server->disk, n->server->config.data_dir, NAME, buf_bytes(&n->text),
                     &n->err);
}

static void note_later(struct server *s, const struct error *why)
{
    struct noting *n = &s->noting;
    if (!n->fails) {
        log_warn("server", "the list of members could not be noted, tried again until it can: %s",
                 why->message);
        n->backoff_ms = NOTE_BACKOFF_MIN_MS;
    }
    n->crc = 0;
    n->next_ms = uv_now(s->loop) + n->backoff_ms;
    n->backoff_ms *= 2;
    if (n->backoff_ms > NOTE_BACKOFF_MAX_MS)
        n->backoff_ms = NOTE_BACKOFF_MAX_MS;
}

static void on_noted(struct job *job)
{
    struct note *n = CONTAINER_OF(job, struct note, job);
    struct server *s = n->server;
    s->noting.busy = false;
    if (n->err.code)
        note_later(s, &n->err);
    else if (s->noting.fails)
        log_info("server", "the list of members is noted again in %s/" NAME, s->config.data_dir);
    s->noting.fails = n->err.code != ERR_OK;
    buf_free(&n->text);
    free(n);
}

void known_note(struct server *s)
{
    struct identity id = {.cluster_id = s->identity.cluster_id,
                          .member_id = s->identity.member_id,
                          .joined = s->identity.joined};
    const struct replica_member *members = replica_members(s->replica, &id.member_count);
    if (s->noting.busy || uv_now(s->loop) < s->noting.next_ms || !s->peer_port ||
        s->state != SERVER_RUNNING)
        return;
    id.members = (struct replica_member *)members; /* only read */
    if (!identity_self(&id))
        return; /* a member that joins, and has not learned of itself */
    struct buf text = {0};
    identity_print(&text, &id);
    uint32_t crc = crc32c(0, text.p, text.n);
    if (crc == s->noting.crc) {
        buf_free(&text);
        return;
    }
    struct note *n = xcalloc(1, sizeof(*n));
    n->job.run = write_note;
    n->job.done = on_noted;
    n->server = s;
    n->text = text;
    s->noting.busy = true;
    s->noting.crc = crc;
    s->store_worker->submit(s->store_worker, &n->job);
}
