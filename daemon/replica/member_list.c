#include "daemon/replica/member_list.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"

static char **copy_urls(char *const *urls, size_t count)
{
    char **copy = xcalloc(count + 1, sizeof(char *));
    for (size_t i = 0; i < count; i++)
        copy[i] = xstrdup(urls[i]);
    return copy;
}

static void free_urls(char **urls, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(urls[i]);
    free(urls);
}

static void member_free(struct replica_member *m)
{
    free(m->name);
    free_urls(m->peer_urls, m->peer_url_count);
    free_urls(m->client_urls, m->client_url_count);
}

void member_list_clear(struct member_list *l)
{
    for (size_t i = 0; i < l->count; i++)
        member_free(&l->members[i]);
    l->count = 0;
}

struct replica_member *member_list_find(struct member_list *l, uint64_t id)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->members[i].id == id)
            return &l->members[i];
    }
    return NULL;
}

void member_list_set(struct member_list *l, const struct replica_member *m)
{
    struct replica_member copy = {
        .id = m->id,
        .name = xstrdup(m->name ? m->name : ""),
        .peer_urls = copy_urls(m->peer_urls, m->peer_url_count),
        .peer_url_count = m->peer_url_count,
        .client_urls = copy_urls(m->client_urls, m->client_url_count),
        .client_url_count = m->client_url_count,
        .learner = m->learner,
    };
    struct replica_member *old = member_list_find(l, m->id);
    if (old) {
        member_free(old);
        *old = copy;
        return;
    }
    assert(l->count < RAFT_MEMBERS_MAX);
    size_t i = l->count++;
    for (; i > 0 && l->members[i - 1].id > m->id; i--)
        l->members[i] = l->members[i - 1];
    l->members[i] = copy;
}

void member_list_remove(struct member_list *l, uint64_t id)
{
    struct replica_member *m = member_list_find(l, id);
    if (!m)
        return;
    member_free(m);
    size_t i = (size_t)(m - l->members);
    memmove(m, m + 1, (l->count - i - 1) * sizeof(*m));
    l->count--;
}

void member_list_conf(const struct member_list *l, struct raft_conf *ret_conf)
{
    *ret_conf = (struct raft_conf){0};
    for (size_t i = 0; i < l->count; i++) {
        if (l->members[i].learner)
            ret_conf->learners[ret_conf->learner_count++] = l->members[i].id;
        else
            ret_conf->voters[ret_conf->voter_count++] = l->members[i].id;
    }
}

bool member_list_has_url(const struct member_list *l, uint64_t id, char *const *urls, size_t count)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct replica_member *m = &l->members[i];
        for (size_t a = 0; m->id != id && a < m->peer_url_count; a++) {
            for (size_t b = 0; b < count; b++) {
                if (strcmp(m->peer_urls[a], urls[b]) == 0)
                    return true;
            }
        }
    }
    return false;
}

/* ---- who was removed ---------------------------------------------------------------------------- */

void removed_members_clear(struct removed_members *r)
{
    free(r->ids);
    *r = (struct removed_members){0};
}

void removed_members_add(struct removed_members *r, uint64_t id)
{
    if (r->count == r->cap) {
        r->cap = r->cap ? 2 * r->cap : 8;
        r->ids = xrealloc(r->ids, r->cap * sizeof(*r->ids));
    }
    r->ids[r->count++] = id;
}

bool removed_members_has(const struct removed_members *r, uint64_t id)
{
    for (size_t i = 0; i < r->count; i++) {
        if (r->ids[i] == id)
            return true;
    }
    return false;
}

/* ---- on the wire -------------------------------------------------------------------------------- */

void member_to_wire(const struct replica_member *m, Raftpb__Member *ret_wire)
{
    raftpb__member__init(ret_wire);
    ret_wire->id = m->id;
    ret_wire->name = m->name ? m->name : (char *)protobuf_c_empty_string;
    ret_wire->peer_urls = m->peer_urls;
    ret_wire->n_peer_urls = m->peer_url_count;
    ret_wire->client_urls = m->client_urls;
    ret_wire->n_client_urls = m->client_url_count;
    ret_wire->learner = m->learner;
}

void member_from_wire(const Raftpb__Member *wire, struct replica_member *ret_member)
{
    *ret_member = (struct replica_member){
        .id = wire->id,
        .name = wire->name,
        .peer_urls = wire->peer_urls,
        .peer_url_count = wire->n_peer_urls,
        .client_urls = wire->client_urls,
        .client_url_count = wire->n_client_urls,
        .learner = wire->learner,
    };
}
