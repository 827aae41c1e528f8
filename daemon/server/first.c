#include "daemon/server/first.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server/ask.h"
#include "daemon/server/server_internal.h"
#include "lib/base/log.h"

#define PERIOD_MS 50 /* between two questions to the same member: a first start waits no longer */
#define CALL_MS 1000 /* local questions: only a starting process keeps one waiting */
#define LINEAR_CALL_MS 2000
#define BRIEFLY_MS 500 /* for those that have not said they are fresh, once a quorum is */
#define FIRST_LOG_MS 2000
#define LOG_MS 10000

struct asked { /* one of the others */
    struct first *first;
    const struct replica_member *member;
    size_t url;
    struct ask *call;
    enum first_answer answer;
    bool linearizable; /* this time */
    uint64_t next_ms;
};

struct first {
    struct server *server;
    struct identity computed;
    struct asked others[RAFT_MEMBERS_MAX];
    size_t count;
    uv_timer_t *timer;
    uint64_t quorum_ms; /* since when a quorum is fresh; 0: none */
    uint64_t next_log_ms;
};

/* ---- What it means ------------------------------------------------------------------------------- */

static bool shares_url(const Etcdserverpb__Member *m, const struct replica_member *self)
{
    for (size_t i = 0; i < m->n_peerurls; i++)
        for (size_t k = 0; k < self->peer_url_count; k++)
            if (!strcmp(m->peerurls[i], self->peer_urls[k]))
                return true;
    return false;
}

enum first_answer first_classify(const Etcdserverpb__MemberListResponse *response,
                                 bool linearizable, const struct identity *computed)
{
    const struct replica_member *self = identity_self(computed);
    if (response->header->cluster_id != computed->cluster_id)
        return FIRST_FOREIGN;
    for (size_t i = 0; i < response->n_members; i++) {
        const Etcdserverpb__Member *m = response->members[i];
        if (!shares_url(m, self))
            continue;
        if (m->n_clienturls > 0 || m->id != computed->member_id)
            return FIRST_PUBLISHED;
        if (linearizable)
            return FIRST_LATE;
        /* Without an election nobody has committed anything: it knows all that there is. */
        return response->header->raft_term <= 1 ? FIRST_FRESH : FIRST_UNSURE;
    }
    return linearizable ? FIRST_REMOVED : FIRST_UNSURE;
}

enum first_verdict first_judge(const enum first_answer *answers, size_t count)
{
    size_t fresh = 0;
    bool late = false, removed = false;
    for (size_t i = 0; i < count; i++) {
        if (answers[i] == FIRST_PUBLISHED)
            return FIRST_REJOIN;
        late |= answers[i] == FIRST_LATE;
        removed |= answers[i] == FIRST_REMOVED;
        fresh += answers[i] == FIRST_FRESH;
    }
    if (removed)
        return FIRST_REFUSE;
    if (late)
        return FIRST_BEGIN;
    if (fresh == count)
        return FIRST_BEGIN;
    return fresh + 1 >= (count + 1) / 2 + 1 ? FIRST_WAIT_BRIEFLY : FIRST_WAIT;
}

/* ---- The end of it ------------------------------------------------------------------------------- */

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void first_free(struct first *f)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->others[i].call)
            ask_cancel(f->others[i].call);
    uv_close((uv_handle_t *)f->timer, on_timer_closed);
    identity_free(&f->computed);
    free(f);
}

static void begin_member(struct first *f)
{
    struct server *s = f->server;
    struct error err;
    s->identity = f->computed;
    f->computed = (struct identity){0};
    s->first = NULL;
    first_free(f);
    enum errc e = identity_save(s->disk, s->config.data_dir, &s->identity, &err);
    if (!e)
        e = server_open_member(s, &err);
    if (e)
        server_fail(s, &err);
}

static void rejoin(struct first *f)
{
    struct server *s = f->server;
    struct marker marker = {.cluster_id = f->computed.cluster_id, .unknown = true};
    snprintf(marker.reason, sizeof(marker.reason), "%s is empty, but this member has run before",
             s->config.data_dir);
    s->first = NULL;
    first_free(f);
    server_rejoin(s, &marker);
}

static void refuse(struct first *f)
{
    struct server *s = f->server;
    struct error why;
    error_set(&why, ERR_INVALID,
              "the cluster of --initial-cluster runs without this member, which was removed from "
              "it: add it with `etcdctl member add`, and start it with --initial-cluster-state "
              "existing");
    s->first = NULL;
    first_free(f);
    server_fail(s, &why);
}

static void log_waiting(struct first *f, uint64_t now)
{
    if (now < f->next_log_ms)
        return;
    f->next_log_ms = now + LOG_MS;
    for (size_t i = 0; i < f->count; i++) {
        static const char *const texts[] = {
            [FIRST_NONE] = "does not answer",
            [FIRST_SILENT] = "does not answer",
            [FIRST_FRESH] = "is on its first start",
            [FIRST_UNSURE] = "runs, but has no quorum to say whether this member has run before",
            [FIRST_FOREIGN] = "is of another cluster: compare --initial-cluster and the token",
        };
        const struct asked *a = &f->others[i];
        log_warn("server", "waiting for the others of --initial-cluster: %s (%s) %s",
                 a->member->name, a->member->peer_urls[0],
                 texts[a->answer] ? texts[a->answer] : "");
    }
}

/* ---- Asking -------------------------------------------------------------------------------------- */

static void on_answer(void *ctx, int status, const char *text, struct bytes answer)
{
    struct asked *a = ctx;
    struct first *f = a->first;
    a->call = NULL;
    a->next_ms = uv_now(f->server->loop) + PERIOD_MS;
    Etcdserverpb__MemberListResponse *response = ask_member_list(status, answer);
    bool unsure = a->answer == FIRST_UNSURE && !response;
    if (response)
        a->answer = first_classify(response, a->linearizable, &f->computed);
    else if (port_answer_of(text, 0) == PORT_FRESH)
        a->answer = FIRST_FRESH;
    else if (!unsure || !a->linearizable)
        a->answer = FIRST_SILENT;
    if (response)
        etcdserverpb__member_list_response__free_unpacked(response, NULL);
    else
        a->url = (a->url + 1) % a->member->peer_url_count;
    a->linearizable = a->answer == FIRST_UNSURE && !a->linearizable;
}

static void ask(struct asked *a, uint64_t now)
{
    struct server *s = a->first->server;
    if (a->call || now < a->next_ms)
        return;
    a->call = ask_members(s->loop, a->member->peer_urls[a->url], a->linearizable,
                          a->linearizable ? LINEAR_CALL_MS : CALL_MS, on_answer, a);
}

static void on_timer(uv_timer_t *timer)
{
    struct first *f = timer->data;
    uint64_t now = uv_now(timer->loop);
    enum first_answer answers[RAFT_MEMBERS_MAX];
    for (size_t i = 0; i < f->count; i++)
        answers[i] = f->others[i].answer;
    enum first_verdict verdict = first_judge(answers, f->count);
    if (verdict == FIRST_WAIT_BRIEFLY) {
        if (f->quorum_ms == 0)
            f->quorum_ms = now;
        if (now - f->quorum_ms >= BRIEFLY_MS)
            verdict = FIRST_BEGIN;
    } else {
        f->quorum_ms = 0;
    }
    switch (verdict) {
    case FIRST_BEGIN:
        begin_member(f);
        return;
    case FIRST_REJOIN:
        rejoin(f);
        return;
    case FIRST_REFUSE:
        refuse(f);
        return;
    default:
        break;
    }
    log_waiting(f, now);
    for (size_t i = 0; i < f->count; i++)
        ask(&f->others[i], now);
}

struct first *first_start(struct server *s, struct identity *computed)
{
    struct first *f = xcalloc(1, sizeof(*f));
    f->server = s;
    f->computed = *computed;
    f->next_log_ms = uv_now(s->loop) + FIRST_LOG_MS;
    for (size_t i = 0; i < computed->member_count; i++)
        if (computed->members[i].id != computed->member_id)
            f->others[f->count++] = (struct asked){.first = f, .member = &computed->members[i]};
    f->timer = xcalloc(1, sizeof(*f->timer));
    uv_timer_init(s->loop, f->timer);
    f->timer->data = f;
    uv_timer_start(f->timer, on_timer, 0, PERIOD_MS / 5);
    return f;
}
