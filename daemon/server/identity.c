#include "daemon/server/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/peer/ids.h"
#include "daemon/server/state_file.h"
#include "lib/base/memory.h"

#define HEAD "quorumd identity 2"
#define HEAD_WITHOUT_CHECKSUM "quorumd identity 1" /* as earlier versions wrote it */

void identity_free(struct identity *id)
{
    for (size_t i = 0; i < id->member_count; i++) {
        struct replica_member *m = &id->members[i];
        free(m->name);
        for (size_t k = 0; k < m->peer_url_count; k++)
            free(m->peer_urls[k]);
        free(m->peer_urls);
    }
    free(id->members);
    *id = (struct identity){0};
}

static void add_url(struct replica_member *m, const char *url)
{
    m->peer_urls = xrealloc(m->peer_urls, (m->peer_url_count + 1) * sizeof(*m->peer_urls));
    m->peer_urls[m->peer_url_count++] = xstrdup(url);
}

void identity_add(struct identity *id, uint64_t member_id, const char *name, bool learner,
                  char *const *peer_urls, size_t count)
{
    id->members = xrealloc(id->members, (id->member_count + 1) * sizeof(*id->members));
    struct replica_member *m = &id->members[id->member_count++];
    *m = (struct replica_member){.id = member_id, .name = xstrdup(name), .learner = learner};
    for (size_t i = 0; i < count; i++)
        add_url(m, peer_urls[i]);
}

const struct replica_member *identity_self(const struct identity *id)
{
    for (size_t i = 0; i < id->member_count; i++)
        if (id->members[i].id == id->member_id)
            return &id->members[i];
    return NULL;
}

void identity_from_list(struct identity *ret_identity,
                        const Etcdserverpb__MemberListResponse *response, uint64_t member_id,
                        const char *name)
{
    struct identity id = {
        .joined = true, .cluster_id = response->header->cluster_id, .member_id = member_id};
    for (size_t i = 0; i < response->n_members && i < RAFT_MEMBERS_MAX; i++) {
        const Etcdserverpb__Member *m = response->members[i];
        identity_add(&id, m->id, m->id == member_id ? name : m->name, m->islearner, m->peerurls,
                     m->n_peerurls);
    }
    *ret_identity = id;
}

/* ---- From the settings --------------------------------------------------------------------------- */

static struct replica_member *member_named(struct identity *id, const char *name)
{
    for (size_t i = 0; i < id->member_count; i++)
        if (!strcmp(id->members[i].name, name))
            return &id->members[i];
    return NULL;
}

/* "NAME=URL,NAME=URL"; `list` is cut up. */
static enum errc parse_cluster(char *list, struct identity *id, struct error *err)
{
    char *save;
    for (char *pair = strtok_r(list, ",", &save); pair; pair = strtok_r(NULL, ",", &save)) {
        char *url = strchr(pair, '=');
        struct error why;
        if (!url || url == pair)
            return error_set(err, ERR_INVALID, "--initial-cluster: '%s' is not NAME=URL", pair);
        *url++ = 0;
        size_t n = strlen(url);
        if (n && url[n - 1] == '/')
            url[n - 1] = 0;
        if (url_check(url, &why))
            return error_set(err, ERR_INVALID, "--initial-cluster: %s", why.message);
        struct replica_member *m = member_named(id, pair);
        if (m)
            add_url(m, url);
        else if (id->member_count == RAFT_MEMBERS_MAX)
            return error_set(err, ERR_INVALID, "--initial-cluster: more than %d members",
                             RAFT_MEMBERS_MAX);
        else
            identity_add(id, 0, pair, false, &url, 1);
    }
    return ERR_OK;
}

static bool has_url(const struct server_urls *urls, const char *url)
{
    for (size_t i = 0; i < urls->count; i++)
        if (!strcmp(urls->url[i], url))
            return true;
    return false;
}

/* etcd's rule: the list and --initial-advertise-peer-urls say the same of this member. */
static enum errc check_self(const struct server_config *config, const struct replica_member *self,
                            struct error *err)
{
    const struct server_urls *urls = &config->initial_advertise_peer_urls;
    if (!self)
        return error_set(err, ERR_INVALID,
                         "couldn't find local name \"%s\" in the initial cluster configuration: "
                         "add %s=%s to --initial-cluster, or set --name",
                         config->name, config->name, urls->count ? urls->url[0] : "URL");
    bool same = self->peer_url_count == urls->count;
    for (size_t i = 0; same && i < self->peer_url_count; i++)
        same = has_url(urls, self->peer_urls[i]);
    if (!same)
        return error_set(err, ERR_INVALID,
                         "--initial-cluster has %s=%s, but --initial-advertise-peer-urls is %s: "
                         "make them the same",
                         self->name, self->peer_urls[0], urls->count ? urls->url[0] : "empty");
    return ERR_OK;
}

static enum errc compute_ids(const char *token, const char *name, struct identity *id,
                             struct error *err)
{
    uint64_t ids[RAFT_MEMBERS_MAX];
    for (size_t i = 0; i < id->member_count; i++) {
        struct replica_member *m = &id->members[i];
        m->id = ids[i] = member_id_compute(m->peer_urls, m->peer_url_count, token, -1);
        if (!strcmp(m->name, name))
            id->member_id = m->id;
        for (size_t k = 0; k < i; k++)
            if (ids[k] == ids[i])
                return error_set(err, ERR_INVALID,
                                 "--initial-cluster: members %s and %s have the same URLs",
                                 id->members[k].name, m->name);
    }
    id->cluster_id = cluster_id_compute(ids, id->member_count);
    return ERR_OK;
}

enum errc identity_compute(const struct server_config *config, struct identity *ret_identity,
                           struct error *err)
{
    struct identity id = {0};
    enum errc e = ERR_OK;
    if (config->initial_cluster) {
        char *list = xstrdup(config->initial_cluster);
        e = parse_cluster(list, &id, err);
        free(list);
        if (!e)
            e = check_self(config, member_named(&id, config->name), err);
    } else {
        const struct server_urls *urls = &config->initial_advertise_peer_urls;
        identity_add(&id, 0, config->name, false, (char *const *)urls->url, urls->count);
    }
    if (!e)
        e = compute_ids(config->token, config->name, &id, err);
    if (e) {
        identity_free(&id);
        return e;
    }
    *ret_identity = id;
    return ERR_OK;
}

/* ---- The file ------------------------------------------------------------------------------------ */

static enum errc parse_peer(char **fields, size_t count, struct identity *id)
{
    uint64_t member_id;
    if (count < 4 || count > 4 + SERVER_URLS_MAX || !state_file_hex(fields[1], &member_id) ||
        id->member_count == RAFT_MEMBERS_MAX)
        return ERR_CORRUPT;
    identity_add(id, member_id, fields[3], !strcmp(fields[2], "learner"), fields + 4, count - 4);
    return ERR_OK;
}

static enum errc parse_line(char *line, struct identity *id)
{
    char *fields[5 + SERVER_URLS_MAX];
    size_t count = state_file_fields(line, fields, ARRAY_LEN(fields));
    if (count == 2 && !strcmp(fields[0], "cluster"))
        return state_file_hex(fields[1], &id->cluster_id) ? ERR_OK : ERR_CORRUPT;
    if (count == 2 && !strcmp(fields[0], "member"))
        return state_file_hex(fields[1], &id->member_id) ? ERR_OK : ERR_CORRUPT;
    if (count == 2 && !strcmp(fields[0], "origin")) {
        id->joined = !strcmp(fields[1], "joined");
        return ERR_OK;
    }
    return !strcmp(fields[0], "peer") ? parse_peer(fields, count, id) : ERR_CORRUPT;
}

static enum errc parse_file(char *text, bool checked, struct identity *id)
{
    char *save, *line = strtok_r(text, "\n", &save);
    if (!line || strcmp(line, checked ? HEAD : HEAD_WITHOUT_CHECKSUM) != 0)
        return ERR_CORRUPT;
    while ((line = strtok_r(NULL, "\n", &save)) != NULL)
        if (parse_line(line, id))
            return ERR_CORRUPT;
    return id->cluster_id && identity_self(id) ? ERR_OK : ERR_CORRUPT;
}

enum errc identity_read(struct disk *disk, const char *path, struct identity *ret_identity,
                        struct error *err)
{
    struct identity id = {0};
    char *text;
    bool checked;
    enum errc e = state_file_read(disk, path, &text, &checked, err);
    if (e)
        return e;
    if (parse_file(text, checked, &id)) {
        identity_free(&id);
        e = error_set(err, ERR_CORRUPT, "%s is damaged: it does not say who this member is", path);
    } else {
        *ret_identity = id;
    }
    free(text);
    return e;
}

enum errc identity_load(struct disk *disk, const char *data_dir, struct identity *ret_identity,
                        struct error *err)
{
    char *path = xasprintf("%s/member/identity", data_dir);
    enum errc e = identity_read(disk, path, ret_identity, err);
    free(path);
    return e;
}

void identity_print(struct buf *b, const struct identity *id)
{
    buf_printf(b, HEAD "\ncluster\t%llx\nmember\t%llx\norigin\t%s\n",
               (unsigned long long)id->cluster_id, (unsigned long long)id->member_id,
               id->joined ? "joined" : "new");
    for (size_t i = 0; i < id->member_count; i++) {
        const struct replica_member *m = &id->members[i];
        buf_printf(b, "peer\t%llx\t%s\t%s", (unsigned long long)m->id,
                   m->learner ? "learner" : "voter", m->name);
        for (size_t k = 0; k < m->peer_url_count; k++)
            buf_printf(b, "\t%s", m->peer_urls[k]);
        buf_printf(b, "\n");
    }
}

static char *parent_of(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n ? xasprintf("%.*s", (int)n, path) : xstrdup(".");
}

/* The directory may be new: its entry in the parent must last as long as what is in it. Who made it elsewhere
 * may not let us read the parent; then it is older than we are. */
static enum errc sync_parent(struct disk *disk, const char *path, struct error *err)
{
    char *parent = parent_of(path);
    enum errc e = disk->sync_dir(disk, parent, err);
    free(parent);
    return e == ERR_PERMISSION_DENIED ? ERR_OK : e;
}

enum errc identity_save(struct disk *disk, const char *data_dir, const struct identity *identity,
                        struct error *err)
{
    char *dir = xasprintf("%s/member", data_dir);
    struct buf b = {0};
    identity_print(&b, identity);
    enum errc e = disk->mkdir(disk, dir, err);
    if (!e)
        e = disk->sync_dir(disk, data_dir, err);
    if (!e)
        e = sync_parent(disk, data_dir, err);
    if (!e)
        e = state_file_write(disk, dir, "identity", buf_bytes(&b), err);
    buf_free(&b);
    free(dir);
    return e;
}

/* ---- The directory ------------------------------------------------------------------------------- */

static void look_for_etcd(void *ctx, const char *name)
{
    if (!strcmp(name, "wal") || !strcmp(name, "snap"))
        *(bool *)ctx = true;
}

/* As `mkdir -p`. The name of each parent that may be new is on disk before anything is put into it; that of
 * `path` itself is identity_save()'s. */
static enum errc make_dirs(struct disk *disk, const char *path, struct error *err)
{
    enum errc e = disk->mkdir(disk, path, err);
    char *parent = parent_of(path);
    if (e == ERR_NOT_FOUND && strlen(parent) < strlen(path)) {
        e = make_dirs(disk, parent, err);
        if (!e)
            e = sync_parent(disk, parent, err);
        if (!e)
            e = disk->mkdir(disk, path, err);
    }
    free(parent);
    return e;
}

enum errc data_dir_lock(struct disk *disk, const char *data_dir, struct disk_file **ret_lock,
                        struct error *err)
{
    struct error why;
    bool is_etcds = false;
    enum errc e = make_dirs(disk, data_dir, &why);
    if (e)
        return error_set(err, e == ERR_EXISTS ? ERR_INVALID : e,
                         "--data-dir %s: %s: name a directory that can be made", data_dir,
                         why.message);
    char *member = xasprintf("%s/member", data_dir);
    disk->list(disk, member, look_for_etcd, &is_etcds, &why); /* it need not exist */
    free(member);
    if (is_etcds)
        return error_set(
            err, ERR_INVALID,
            "--data-dir %s belongs to etcd (it has member/wal): name another directory "
            "and copy the keys over the network",
            data_dir);
    char *path = xasprintf("%s/quorumd.lock", data_dir);
    e = disk->lock(disk, path, ret_lock, &why);
    free(path);
    if (e == ERR_BUSY)
        return error_set(err, e,
                         "--data-dir %s is in use by another process: stop that one, or name "
                         "another directory",
                         data_dir);
    if (e)
        return error_set(err, e, "--data-dir %s: %s: make it a directory that this user may write",
                         data_dir, why.message);
    return ERR_OK;
}
