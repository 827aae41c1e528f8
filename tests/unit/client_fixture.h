/* A fake cluster for the client's tests: members on one loop that share a history, and switches for what
 * goes wrong. It speaks just enough of etcd's API. */
#ifndef TESTS_CLIENT_FIXTURE_H
#define TESTS_CLIENT_FIXTURE_H

#include <assert.h>

#include "tests/unit/rpc_fixture.h"

#include "lib/base/list.h"
#include "lib/client/client.h"

#define MEMBERS 3
#define HISTORY_MAX 4096
#define NAMED_MAX 64

struct fake_event {
    char key[32], value[32];
    int64_t revision;
};

struct fake_world;

struct fake_member {
    struct fake_world *world;
    struct rpc_server *server;
    char url[256];
    bool running;
    bool no_leader; /* every request is refused with "no leader" */
    bool silent;    /* requests are taken and not answered */
    int puts, ranges, watches, progress_asked, probes;
};

struct fake_world {
    uv_loop_t loop;
    struct fake_member members[MEMBERS];
    bool quorumd;
    const char *version; /* of Maintenance.Status */
    struct fake_event history[HISTORY_MAX];
    size_t history_count;
    int64_t revision, compacted;
    int put_fails_after;       /* so many puts take effect and are answered "leader changed" */
    char named[NAMED_MAX][64]; /* request ids that were answered */
    size_t named_count;
    char last_name[64];
    bool hold_events;     /* events wait for fake_release_events() (a watcher that reads history) */
    bool progress_silent; /* an etcd whose watch is behind: no answer to a progress question */
    bool overtake;        /* progress answers go ahead of held events */
    bool fragment;        /* one event a message */
    struct list watchers;

    int64_t lease_id, lease_ttl;
    int grants, keep_alives, revokes;
    bool lease_gone, keep_alive_silent;
    int grant_fails_after;

    int up, down;
    char state_text[300];
    struct client *client;
};

struct fake_watcher {
    struct list link;
    struct rpc_call *call;
    struct fake_member *member;
    bool created;
    size_t next; /* in the history */
    int pending_progress;
    bool linearizable;
};

/* ---- The server's side --------------------------------------------------------------------------- */

static UNUSED_FN void fake_send(struct rpc_call *call, const ProtobufCMessage *message)
{
    uint8_t packed[8192];
    assert_true(protobuf_c_message_get_packed_size(message) <= sizeof(packed));
    rpc_call_send(call, bytes_of(packed, protobuf_c_message_pack(message, packed)));
}

static UNUSED_FN bool fake_refuses(struct fake_member *m, struct rpc_call *call)
{
    if (m->no_leader)
        rpc_call_fail(call, ERR_NO_LEADER);
    return m->no_leader || m->silent;
}

static UNUSED_FN Etcdserverpb__ResponseHeader fake_header(const struct fake_world *world)
{
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    header.revision = world->revision;
    return header;
}

static UNUSED_FN void fake_watcher_push(struct fake_watcher *w);

static UNUSED_FN void fake_commit(struct fake_world *world, const char *key, const char *value,
                                  bool same_revision)
{
    assert_true(world->history_count < HISTORY_MAX);
    struct fake_event *e = &world->history[world->history_count++];
    snprintf(e->key, sizeof e->key, "%s", key);
    snprintf(e->value, sizeof e->value, "%s", value);
    e->revision = same_revision ? world->revision : ++world->revision;
    LIST_FOR_EACH_SAFE(it, tmp, &world->watchers)
    fake_watcher_push(CONTAINER_OF(it, struct fake_watcher, link));
}

static UNUSED_FN void fake_version(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    (void)message;
    m->probes++;
    if (m->world->quorumd)
        rpc_call_reply(call, bytes_str("1"));
    else
        rpc_call_finish(call, 12, "unknown service quorumfs.Info");
}

static UNUSED_FN void fake_status(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    (void)message;
    Etcdserverpb__StatusResponse r = ETCDSERVERPB__STATUS_RESPONSE__INIT;
    r.version = (char *)m->world->version;
    fake_send(call, &r.base);
    rpc_call_finish(call, 0, "");
}

static UNUSED_FN void fake_range(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    (void)message;
    m->ranges++;
    if (fake_refuses(m, call))
        return;
    Etcdserverpb__ResponseHeader header = fake_header(m->world);
    Etcdserverpb__RangeResponse r = ETCDSERVERPB__RANGE_RESPONSE__INIT;
    r.header = &header;
    fake_send(call, &r.base);
    rpc_call_finish(call, 0, "");
}

static UNUSED_FN bool fake_known_name(struct fake_world *world, struct rpc_call *call)
{
    struct bytes name = rpc_call_header(call, "quorumfs-request-id");
    snprintf(world->last_name, sizeof world->last_name, "%.*s", (int)name.n, name.p);
    if (!name.n || !world->quorumd)
        return false;
    for (size_t i = 0; i < world->named_count; i++)
        if (strcmp(world->named[i], world->last_name) == 0)
            return true;
    assert_true(world->named_count < NAMED_MAX);
    snprintf(world->named[world->named_count++], sizeof world->named[0], "%s", world->last_name);
    return false;
}

static UNUSED_FN void fake_put(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    struct fake_world *world = m->world;
    m->puts++;
    if (fake_refuses(m, call))
        return;
    Etcdserverpb__PutRequest *q = etcdserverpb__put_request__unpack(NULL, message.n, message.p);
    assert_non_null(q);
    if (!fake_known_name(world, call)) {
        char key[32], value[32];
        snprintf(key, sizeof key, "%.*s", (int)q->key.len, q->key.data);
        snprintf(value, sizeof value, "%.*s", (int)q->value.len, q->value.data);
        fake_commit(world, key, value, false);
    }
    etcdserverpb__put_request__free_unpacked(q, NULL);
    if (world->put_fails_after > 0) {
        world->put_fails_after--;
        rpc_call_fail(call, ERR_LEADER_CHANGED);
        return;
    }
    Etcdserverpb__ResponseHeader header = fake_header(world);
    Etcdserverpb__PutResponse r = ETCDSERVERPB__PUT_RESPONSE__INIT;
    r.header = &header;
    fake_send(call, &r.base);
    rpc_call_finish(call, 0, "");
}

static UNUSED_FN void fake_send_events(struct fake_watcher *w, size_t from, size_t to,
                                       bool fragment)
{
    Mvccpb__KeyValue kv[64];
    Mvccpb__Event event[64];
    Mvccpb__Event *events[64];
    assert_true(to - from <= 64);
    for (size_t i = from; i < to; i++) {
        struct fake_event *e = &w->member->world->history[i];
        mvccpb__key_value__init(&kv[i - from]);
        mvccpb__event__init(&event[i - from]);
        kv[i - from].key = (ProtobufCBinaryData){strlen(e->key), (uint8_t *)e->key};
        kv[i - from].value = (ProtobufCBinaryData){strlen(e->value), (uint8_t *)e->value};
        kv[i - from].mod_revision = e->revision;
        event[i - from].kv = &kv[i - from];
        events[i - from] = &event[i - from];
    }
    Etcdserverpb__ResponseHeader header = fake_header(w->member->world);
    Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    r.header = &header;
    r.watch_id = 7;
    r.events = events;
    r.n_events = to - from;
    r.fragment = fragment;
    fake_send(w->call, &r.base);
}

static UNUSED_FN void fake_answer_progress(struct fake_watcher *w)
{
    struct fake_world *world = w->member->world;
    bool behind = w->next < world->history_count;
    if (world->progress_silent && !world->quorumd)
        w->pending_progress = 0;
    while (w->pending_progress > 0 && (!behind || world->overtake)) {
        Etcdserverpb__ResponseHeader header = fake_header(world);
        Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;
        r.header = &header;
        r.watch_id = -1;
        fake_send(w->call, &r.base);
        w->pending_progress--;
    }
}

static UNUSED_FN void fake_watcher_push(struct fake_watcher *w)
{
    struct fake_world *world = w->member->world;
    if (!w->created || w->member->silent)
        return;
    if (!world->hold_events) {
        size_t end = world->history_count;
        while (w->next < end) {
            size_t to = world->fragment || end - w->next > 64 ? w->next + 1 : end;
            fake_send_events(w, w->next, to, world->fragment && to < end);
            w->next = to;
        }
    }
    fake_answer_progress(w);
}

static UNUSED_FN void fake_release_events(struct fake_world *world)
{
    world->hold_events = false;
    LIST_FOR_EACH_SAFE(it, tmp, &world->watchers)
    fake_watcher_push(CONTAINER_OF(it, struct fake_watcher, link));
}

static UNUSED_FN void fake_watch_started(struct rpc_call *call, void *service)
{
    struct fake_watcher *w = calloc(1, sizeof *w);
    w->member = service;
    w->call = call;
    w->member->watches++;
    list_append(&w->member->world->watchers, &w->link);
    rpc_call_set_user(call, w);
}

static UNUSED_FN void fake_watch_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct fake_watcher *w = rpc_call_user(call);
    list_remove(&w->link);
    free(w);
}

static UNUSED_FN void fake_watch_create(struct fake_watcher *w, int64_t start)
{
    struct fake_world *world = w->member->world;
    Etcdserverpb__ResponseHeader header = fake_header(world);
    Etcdserverpb__WatchResponse r = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    r.header = &header;
    r.watch_id = 7;
    r.created = true;
    fake_send(w->call, &r.base);
    if (start > 0 && start <= world->compacted) {
        r.created = false;
        r.canceled = true;
        r.compact_revision = world->compacted;
        r.cancel_reason = "etcdserver: mvcc: required revision has been compacted";
        fake_send(w->call, &r.base);
        return;
    }
    w->created = true;
    w->next = world->history_count;
    if (start > 0)
        for (w->next = 0; w->next < world->history_count; w->next++)
            if (world->history[w->next].revision >= start)
                break;
    fake_watcher_push(w);
}

static UNUSED_FN void fake_watch_message(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    struct fake_watcher *w = rpc_call_user(call);
    if (fake_refuses(m, call))
        return;
    Etcdserverpb__WatchRequest *q = etcdserverpb__watch_request__unpack(NULL, message.n, message.p);
    assert_non_null(q);
    if (q->request_union_case == ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST) {
        fake_watch_create(w, q->create_request->start_revision);
    } else if (q->request_union_case ==
               ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST) {
        w->linearizable = q->progress_request->linearizable;
        m->progress_asked++;
        w->pending_progress++;
        fake_answer_progress(w);
    }
    etcdserverpb__watch_request__free_unpacked(q, NULL);
}

static UNUSED_FN void fake_grant(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    struct fake_world *world = m->world;
    if (fake_refuses(m, call))
        return;
    Etcdserverpb__LeaseGrantRequest *q =
        etcdserverpb__lease_grant_request__unpack(NULL, message.n, message.p);
    bool exists = world->lease_id && world->lease_id == q->id;
    world->lease_id = q->id;
    world->lease_ttl = q->ttl;
    world->grants++;
    etcdserverpb__lease_grant_request__free_unpacked(q, NULL);
    if (world->grant_fails_after > 0) {
        world->grant_fails_after--;
        rpc_call_fail(call, ERR_TIMEOUT);
    } else if (exists) {
        rpc_call_fail(call, ERR_LEASE_EXISTS);
    } else {
        Etcdserverpb__LeaseGrantResponse r = ETCDSERVERPB__LEASE_GRANT_RESPONSE__INIT;
        r.id = world->lease_id;
        r.ttl = world->lease_ttl;
        fake_send(call, &r.base);
        rpc_call_finish(call, 0, "");
    }
}

static UNUSED_FN void fake_keep_alive(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    struct fake_world *world = m->world;
    if (fake_refuses(m, call) || world->keep_alive_silent)
        return;
    Etcdserverpb__LeaseKeepAliveRequest *q =
        etcdserverpb__lease_keep_alive_request__unpack(NULL, message.n, message.p);
    Etcdserverpb__LeaseKeepAliveResponse r = ETCDSERVERPB__LEASE_KEEP_ALIVE_RESPONSE__INIT;
    r.id = q->id;
    r.ttl = world->lease_gone ? 0 : world->lease_ttl;
    world->keep_alives++;
    etcdserverpb__lease_keep_alive_request__free_unpacked(q, NULL);
    fake_send(call, &r.base);
}

static UNUSED_FN void fake_revoke(struct rpc_call *call, void *service, struct bytes message)
{
    struct fake_member *m = service;
    (void)message;
    m->world->revokes++;
    Etcdserverpb__LeaseRevokeResponse r = ETCDSERVERPB__LEASE_REVOKE_RESPONSE__INIT;
    fake_send(call, &r.base);
    rpc_call_finish(call, 0, "");
}

static UNUSED_FN const struct rpc_method fake_methods[] = {
    {.path = "/quorumfs.Info/Version", .message = fake_version},
    {.path = "/etcdserverpb.Maintenance/Status", .message = fake_status},
    {.path = "/etcdserverpb.KV/Range", .message = fake_range},
    {.path = "/etcdserverpb.KV/Put", .message = fake_put},
    {.path = "/etcdserverpb.Watch/Watch",
     .client_streams = true,
     .started = fake_watch_started,
     .message = fake_watch_message,
     .closed = fake_watch_closed},
    {.path = "/etcdserverpb.Lease/LeaseGrant", .message = fake_grant},
    {.path = "/etcdserverpb.Lease/LeaseKeepAlive",
     .client_streams = true,
     .message = fake_keep_alive},
    {.path = "/etcdserverpb.Lease/LeaseRevoke", .message = fake_revoke},
};

/* ---- Members and the client ---------------------------------------------------------------------- */

static UNUSED_FN void fake_member_start(struct fake_world *world, int n)
{
    struct fake_member *m = &world->members[n];
    struct error err = {0};
    m->world = world;
    struct rpc_server_config config = {0};
    m->server = rpc_server_new(&world->loop, &config);
    rpc_server_add(m->server, fake_methods, sizeof fake_methods / sizeof fake_methods[0], m);
    /* Again on its own port after a stop. */
    const char *url = m->url[0] ? m->url : "http://127.0.0.1:0";
    char bound[256];
    if (rpc_server_listen(m->server, url, bound, &err) != ERR_OK)
        fail_msg("%s", err.message);
    snprintf(m->url, sizeof m->url, "%s", bound);
    m->running = true;
}

static UNUSED_FN void fake_member_stopped(void *ctx)
{
    ((struct fake_member *)ctx)->running = false;
}

/* As a crash: connections are cut. */
static UNUSED_FN void fake_member_stop(struct fake_world *world, int n)
{
    rpc_server_stop(world->members[n].server, 0, fake_member_stopped, &world->members[n]);
    RUN_UNTIL(&world->loop, !world->members[n].running);
}

static UNUSED_FN void fake_client_state(void *ctx, bool up, const char *text)
{
    struct fake_world *world = ctx;
    if (up)
        world->up++;
    else
        world->down++;
    snprintf(world->state_text, sizeof world->state_text, "%s", text);
}

/* `members` of the world run and are the client's endpoints. */
static UNUSED_FN void fake_start(struct fake_world *world, int members, uint64_t timeout_ms,
                                 bool quorumd)
{
    memset(world, 0, sizeof *world);
    uv_loop_init(&world->loop);
    list_init(&world->watchers);
    world->quorumd = quorumd;
    world->version = "3.5.9";
    world->revision = 1;
    const char *endpoints[MEMBERS];
    for (int i = 0; i < members; i++) {
        fake_member_start(world, i);
        endpoints[i] = world->members[i].url;
    }
    struct client_config config = {
        .endpoints = endpoints,
        .endpoint_count = (size_t)members,
        .timeout_ms = timeout_ms,
        .request_ids = true,
        .state = fake_client_state,
        .ctx = world,
    };
    struct error err;
    assert_int_equal(client_new(&world->loop, &config, &world->client, &err), ERR_OK);
}

/* Also proves that nothing is left on the loop. */
static UNUSED_FN void fake_end(struct fake_world *world)
{
    if (world->client)
        client_free(world->client);
    for (int i = 0; i < MEMBERS; i++)
        if (world->members[i].running)
            fake_member_stop(world, i);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&world->loop), 0);
}

/* ---- What calls answered ------------------------------------------------------------------------- */

struct answer {
    int count;
    enum errc code;
    bool unknown;
    int64_t revision;
    char text[1200];
};

static UNUSED_FN void answer_done(void *ctx, const struct client_result *result)
{
    struct answer *a = ctx;
    a->count++;
    a->code = result->code;
    a->unknown = result->unknown;
    snprintf(a->text, sizeof a->text, "%s", result->text);
    if (result->code != ERR_OK)
        return;
    if (result->message->descriptor == &etcdserverpb__put_response__descriptor)
        a->revision = ((const Etcdserverpb__PutResponse *)result->message)->header->revision;
    else if (result->message->descriptor == &etcdserverpb__range_response__descriptor)
        a->revision = ((const Etcdserverpb__RangeResponse *)result->message)->header->revision;
}

static UNUSED_FN struct client_call *ask_put(struct client *c, const char *key, const char *value,
                                             uint64_t timeout_ms, struct answer *a)
{
    memset(a, 0, sizeof *a);
    Etcdserverpb__PutRequest q = ETCDSERVERPB__PUT_REQUEST__INIT;
    q.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    q.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
    return client_put(c, &q, timeout_ms, answer_done, a);
}

static UNUSED_FN struct client_call *ask_range(struct client *c, uint64_t timeout_ms,
                                               struct answer *a)
{
    memset(a, 0, sizeof *a);
    Etcdserverpb__RangeRequest q = ETCDSERVERPB__RANGE_REQUEST__INIT;
    q.key = (ProtobufCBinaryData){1, (uint8_t *)"k"};
    return client_range(c, &q, timeout_ms, answer_done, a);
}

/* ---- What a watch said --------------------------------------------------------------------------- */

struct seen {
    int64_t revision;     /* of the last call */
    size_t events, calls; /* calls with events */
    int64_t compacted;
    int ups, downs;
    char text[300];
    int64_t last_event;         /* revision of the last event */
    bool disordered;            /* a revision came in two calls, or went back */
    struct client_watch **stop; /* set: the events callback stops this watch */
};

static UNUSED_FN void seen_events(void *ctx, const Mvccpb__Event *const *events, size_t count,
                                  int64_t revision)
{
    struct seen *s = ctx;
    int64_t before = s->last_event;
    if (revision < s->revision)
        s->disordered = true;
    s->revision = revision;
    for (size_t i = 0; i < count; i++) {
        int64_t r = events[i]->kv->mod_revision;
        if (r <= before || r < s->last_event || r > revision)
            s->disordered = true;
        s->last_event = r;
    }
    s->events += count;
    s->calls += count > 0;
    if (s->stop && *s->stop) {
        client_watch_stop(*s->stop);
        *s->stop = NULL;
    }
}

static UNUSED_FN void seen_compacted(void *ctx, int64_t compact_revision)
{
    ((struct seen *)ctx)->compacted = compact_revision;
}

static UNUSED_FN void seen_state(void *ctx, bool up, const char *text)
{
    struct seen *s = ctx;
    if (up)
        s->ups++;
    else
        s->downs++;
    snprintf(s->text, sizeof s->text, "%s", text);
}

static UNUSED_FN const struct client_watch_handler seen_handler = {seen_events, seen_compacted,
                                                                   seen_state};

static UNUSED_FN struct client_watch *watch_all(struct fake_world *world, int64_t start,
                                                struct seen *s)
{
    memset(s, 0, sizeof *s);
    struct client_watch_spec spec = {
        .key = bytes_of("\0", 1), .end = bytes_of("\0", 1), .start_revision = start};
    return client_watch_start(world->client, &spec, &seen_handler, s);
}

#endif
