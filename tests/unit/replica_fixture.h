/* A cluster of replicas in one process: simulated time, workers driven by the test, messages over queues
 * that can be cut. Disks are the real one, in a temporary folder. A crash keeps what was written. */
#ifndef TESTS_REPLICA_FIXTURE_H
#define TESTS_REPLICA_FIXTURE_H

#include <string.h>

#include "daemon/replica/replica.h"
#include "lib/base/list.h"
#include "tests/unit/temp_store.h"

#define NODES_MAX 5
#define TICK_MS 100
#define ELECTION_TICKS 10
#define TURNS_MAX 20000 /* of a wait: two thousand simulated seconds */
#define TURNS_A_TICK 20

struct parcel {
    struct list link;
    struct raft_message m;
};

struct transfer { /* one stream of a snapshot */
    struct replica_snapshot *source;
    struct node *from, *to;
    struct replica_announcement announcement;
    uint64_t stream;
    bool begun, waiting, last;
    uint64_t offset;
    size_t chunks;
    uint8_t *chunk;
};

struct node {
    struct replica_transport transport; /* first */
    size_t number;
    uint64_t id;
    char *dir;
    struct replica *replica; /* NULL: down */
    struct simworker log, store;
    struct list inbox;
    bool cut, joins; /* cut: no message in or out */
    bool log_hangs;
    size_t log_every; /* turns from one job of the log's disk to the next; 0: none in between */
    bool removed, fatal;
    uint64_t leader;
    char disk_note[256];     /* the last of its notes about disks */
    char snapshot_note[320]; /* the same about snapshots */
    size_t leader_changes, snapshots_in;
    struct transfer transfer; /* to another node */
};

static struct cluster {
    char dir[64];
    struct node nodes[NODES_MAX];
    size_t count; /* that exist */
    struct replica_member initial[NODES_MAX];
    size_t initial_count;
    uint64_t now_ms, seed, turn;
    uint64_t snapshot_entries, quota_bytes, lease_checkpoint_ms, request_timeout_ms;
    size_t uncommitted_bytes_max;
    size_t snapshot_chunk;    /* bytes; 0: the default */
    size_t stream_chunks_max; /* a stream breaks after so many; 0: never */
    size_t streams;           /* of snapshots, so far */
    uint64_t bytes_carried;   /* by them */
} cl;

static uint64_t env_mono(struct env *e)
{
    (void)e;
    return cl.now_ms * 1000000;
}

static uint64_t env_wall(struct env *e)
{
    (void)e;
    return 1700000000000000000u + cl.now_ms * 1000000;
}

static uint64_t env_draw(struct env *e)
{
    (void)e;
    cl.seed ^= cl.seed << 13;
    cl.seed ^= cl.seed >> 7;
    cl.seed ^= cl.seed << 17;
    return cl.seed;
}

static struct env test_env = {env_mono, env_wall, env_draw};

/* ---- messages ----------------------------------------------------------------------------------- */

static struct node *node_of(uint64_t id)
{
    for (size_t i = 0; i < cl.count; i++) {
        if (cl.nodes[i].id == id)
            return &cl.nodes[i];
    }
    return NULL;
}

static void parcel_free(struct parcel *p)
{
    list_remove(&p->link);
    for (size_t i = 0; i < p->m.entry_count; i++)
        raft_entry_unref(p->m.entries[i]);
    free(p->m.entries);
    free(p);
}

/* What either side waits for is not told it any more. */
static void transfer_drop(struct transfer *t)
{
    if (t->to->replica)
        replica_receive_snapshot_leave(t->to->replica, t->stream);
    free(t->chunk);
    *t = (struct transfer){0};
}

static void transfer_end(struct transfer *t, bool ok)
{
    struct replica_snapshot *source = t->from->replica ? t->source : NULL;
    transfer_drop(t);
    if (source)
        replica_snapshot_sent(source, ok);
}

static void transfer_break(struct transfer *t, enum errc code)
{
    struct replica_snapshot *source = t->from->replica ? t->source : NULL;
    transfer_drop(t);
    if (source)
        replica_snapshot_broken(source, code);
}

static void enqueue(struct node *to, const struct raft_message *m)
{
    struct parcel *p = xcalloc(1, sizeof(*p));
    p->m = *m;
    p->m.entries = m->entry_count ? xcalloc(m->entry_count, sizeof(struct raft_entry *)) : NULL;
    /* Each member has entries of its own, as over a wire. */
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct raft_entry *e = m->entries[i];
        p->m.entries[i] =
            raft_entry_new(e->term, e->index, e->type, e->stamp, bytes_of(e->data, e->size));
    }
    list_init(&p->link);
    list_append(&to->inbox, &p->link);
}

static void on_send(struct replica_transport *transport, const struct raft_message *m)
{
    struct node *from = (struct node *)transport, *to = node_of(m->to);
    if (!to || !to->replica || from->cut || to->cut) {
        if (m->type == RAFT_MSG_SNAPSHOT)
            replica_peer_unreachable(from->replica, m->to);
        return;
    }
    if (m->type == RAFT_MSG_SNAPSHOT) {
        if (from->transfer.source)
            return;
        from->transfer = (struct transfer){.from = from, .to = to};
        from->transfer.source =
            replica_snapshot_open(from->replica, m->to, &from->transfer.announcement);
        cl.streams++;
        return;
    }
    enqueue(to, m);
    if (m->type == RAFT_MSG_PROPOSE_REFUSED) /* a network may say it twice */
        enqueue(to, m);
}

static void on_members(struct replica_transport *t, const struct replica_member *m, size_t count)
{
    (void)t;
    (void)m;
    (void)count;
}

static void on_chunk_stored(void *ctx, enum errc code)
{
    struct transfer *t = ctx;
    t->waiting = false;
    if (code != ERR_OK) {
        transfer_break(t, code);
        return;
    }
    replica_snapshot_acknowledged(t->source);
    t->chunks++;
    if (t->last) {
        t->to->snapshots_in++;
        transfer_end(t, true);
    } else if (cl.stream_chunks_max && t->chunks >= cl.stream_chunks_max) {
        transfer_break(t, ERR_OK);
    }
}

static void on_chunk_read(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct transfer *t = ctx;
    if (code != ERR_OK || !t->to->replica) {
        transfer_end(t, false);
        return;
    }
    free(t->chunk);
    t->chunk = bytes_dup(chunk);
    t->last = last;
    struct replica_chunk c = {bytes_of(t->chunk, chunk.n), t->offset,
                              replica_snapshot_at(t->source).sum, last};
    t->offset += chunk.n;
    cl.bytes_carried += chunk.n;
    enum errc refused = replica_receive_snapshot_chunk(t->to->replica, t->stream, &c);
    if (refused)
        transfer_break(t, refused);
}

static void on_stream_begun(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    struct transfer *t = ctx;
    t->waiting = false;
    if (code != ERR_OK) {
        transfer_break(t, code);
        return;
    }
    t->begun = true;
    t->offset = at.offset;
    if (replica_snapshot_go_on(t->source, &at) != ERR_OK)
        transfer_end(t, false);
}

static void transfer_step(struct transfer *t)
{
    t->waiting = true;
    if (t->begun) {
        replica_snapshot_next(t->source, on_chunk_read, t);
        return;
    }
    struct replica_receiver receiver = {on_stream_begun, on_chunk_stored, t};
    enum errc code = t->to->replica ? replica_receive_snapshot_begin(
                                          t->to->replica, &t->announcement, &receiver, &t->stream)
                                    : ERR_OK;
    if (code || !t->to->replica)
        transfer_break(t, code);
}

/* ---- life of a node ----------------------------------------------------------------------------- */

static void on_fatal(void *ctx, const struct error *err)
{
    struct node *n = ctx;
    print_message("node %zu: %s\n", n->number, err->message);
    n->fatal = true;
}

static void on_leader(void *ctx, uint64_t leader, uint64_t term, bool self)
{
    struct node *n = ctx;
    (void)term;
    assert_int_equal(self, leader == n->id);
    n->leader = leader;
    n->leader_changes++;
}

static void keep_note(char *to, size_t size, const char *text, const char *about)
{
    if (!strstr(text, about))
        return;
    size_t n = strnlen(text, size - 1);
    memcpy(to, text, n);
    to[n] = 0;
}

static void on_note(void *ctx, const char *text)
{
    struct node *n = ctx;
    keep_note(n->disk_note, sizeof(n->disk_note), text, "disk");
    keep_note(n->snapshot_note, sizeof(n->snapshot_note), text, "snapshot at");
}

static void on_removed(void *ctx)
{
    ((struct node *)ctx)->removed = true;
}

static enum errc node_try_start(struct node *n, struct error *err)
{
    char note[512], name[32];
    snprintf(name, sizeof(name), "n%zu", n->number);
    static const char *urls[] = {"http://127.0.0.1:2379"};
    simworker_init(&n->log);
    simworker_init(&n->store);
    n->transport = (struct replica_transport){on_send, on_members};
    struct replica_config config = {
        .data_dir = n->dir,
        .name = name,
        .env = &test_env,
        .disk = disk_posix(),
        .log_worker = &n->log.base,
        .store_worker = &n->store.base,
        .transport = &n->transport,
        .cluster_id = 0xc1,
        .member_id = n->id,
        .initial_members = cl.initial,
        .initial_member_count = cl.initial_count,
        .join = n->joins,
        .client_urls = urls,
        .client_url_count = 1,
        .tick_ms = TICK_MS,
        .election_ticks = ELECTION_TICKS,
        .snapshot_entries = cl.snapshot_entries,
        .quota_bytes = cl.quota_bytes,
        .lease_checkpoint_ms = cl.lease_checkpoint_ms,
        .request_timeout_ms = cl.request_timeout_ms,
        .wal_segment_bytes = 256 * 1024,
        .uncommitted_bytes_max = cl.uncommitted_bytes_max,
        .snapshot_chunk_bytes = cl.snapshot_chunk,
        .fatal = on_fatal,
        .leader_changed = on_leader,
        .removed = on_removed,
        .note = on_note,
        .ctx = n,
    };
    n->leader = 0;
    n->fatal = false;
    return replica_open(&config, &n->replica, note, err);
}

static void node_start(struct node *n)
{
    struct error err = {0};
    enum errc code = node_try_start(n, &err);
    if (code != ERR_OK)
        print_error("node %zu: %s\n", n->number, err.message);
    assert_int_equal(code, ERR_OK);
}

static void node_crash(struct node *n)
{
    struct replica *r = n->replica;
    if (!r)
        return;
    for (size_t i = 0; i < cl.count; i++) {
        struct transfer *t = &cl.nodes[i].transfer;
        if (t->source && (t->from == n || t->to == n))
            transfer_break(t, ERR_OK);
    }
    n->replica = NULL;
    replica_abandon(r);
    simworker_drain(&n->log); /* the log closes when its job is through */
    simworker_init(&n->store);
    LIST_FOR_EACH_SAFE(it, tmp, &n->inbox)
    parcel_free(CONTAINER_OF(it, struct parcel, link));
    n->leader = 0;
}

static struct node *node_add(uint64_t id, bool joins)
{
    struct node *n = &cl.nodes[cl.count];
    *n = (struct node){.number = cl.count, .id = id, .joins = joins};
    list_init(&n->inbox);
    n->dir = xasprintf("%s/%zu", cl.dir, n->number);
    struct error err;
    assert_int_equal(disk_posix()->mkdir(disk_posix(), n->dir, &err), ERR_OK);
    cl.count++;
    return n;
}

static char *peer_urls[NODES_MAX][1] = {
    {"http://h:1"}, {"http://h:2"}, {"http://h:3"}, {"http://h:4"}, {"http://h:5"}};

static void cluster_open(size_t count)
{
    memset(&cl, 0, sizeof(cl));
    cl.seed = 0x9e3779b97f4a7c15u;
    cl.now_ms = 1000000;
    cl.snapshot_entries = 1000;
    fixture_temp_dir(cl.dir);
    for (size_t i = 0; i < count; i++) {
        cl.initial[i] = (struct replica_member){
            .id = 101 + i, .name = "", .peer_urls = peer_urls[i], .peer_url_count = 1};
        node_add(101 + i, false);
    }
    cl.initial_count = count;
    for (size_t i = 0; i < count; i++)
        node_start(&cl.nodes[i]);
}

static void cluster_close(void)
{
    for (size_t i = 0; i < cl.count; i++) {
        node_crash(&cl.nodes[i]);
        free(cl.nodes[i].dir);
    }
    fixture_remove_dir(cl.dir);
}

/* ---- time --------------------------------------------------------------------------------------- */

static void node_turn(struct node *n)
{
    while (n->replica && !list_empty(&n->inbox)) {
        struct parcel *p = CONTAINER_OF(n->inbox.next, struct parcel, link);
        if (!n->cut)
            replica_receive(n->replica, &p->m);
        parcel_free(p);
    }
    bool log_runs = !n->log_hangs && (n->log_every == 0 || cl.turn % n->log_every == 0);
    for (int i = 0; log_runs && i < (n->log_every ? 1 : 2); i++)
        simworker_run_one(&n->log);
    simworker_run_one(&n->store);
    struct transfer *t = &n->transfer;
    if (t->source && (n->cut || t->to->cut))
        transfer_break(t, ERR_OK);
    else if (t->source && !t->waiting)
        transfer_step(t);
    if (n->replica)
        replica_poll(n->replica);
}

static void turn(void)
{
    cl.turn++;
    if (cl.turn % TURNS_A_TICK == 0)
        cl.now_ms += TICK_MS;
    for (size_t i = 0; i < cl.count; i++) {
        struct node *n = &cl.nodes[i];
        if (!n->replica)
            continue;
        if (cl.turn % TURNS_A_TICK == 0)
            replica_tick(n->replica);
        node_turn(n);
        assert_false(n->fatal);
    }
}

static void turns(size_t count)
{
    while (count--)
        turn();
}

#define WAIT(condition)                                                                            \
    do {                                                                                           \
        size_t waited_ = 0;                                                                        \
        while (!(condition)) {                                                                     \
            turn();                                                                                \
            if (++waited_ > TURNS_MAX)                                                             \
                fail_msg("never happened: %s", #condition);                                        \
        }                                                                                          \
    } while (0)

static struct node *leader_node(void)
{
    for (size_t i = 0; i < cl.count; i++) {
        struct node *n = &cl.nodes[i];
        if (n->replica && !n->cut && n->leader == n->id &&
            lessor_is_primary(replica_lessor(n->replica)))
            return n;
    }
    return NULL;
}

static struct node *wait_leader(void)
{
    WAIT(leader_node());
    return leader_node();
}

static inline struct node *follower_node(void)
{
    struct node *leader = wait_leader();
    for (size_t i = 0; i < cl.count; i++) {
        if (&cl.nodes[i] != leader && cl.nodes[i].replica && !cl.nodes[i].cut)
            return &cl.nodes[i];
    }
    return NULL;
}

/* ---- requests ----------------------------------------------------------------------------------- */

struct answer {
    bool done;
    enum errc code;
    int64_t revision; /* of a put, a grant or a transaction */
    int64_t lease;
    size_t calls;
};

static void on_answer(void *ctx, const struct apply_result *result)
{
    struct answer *a = ctx;
    a->done = true;
    a->calls++;
    a->code = result->code;
    if (result->code != ERR_OK)
        return;
    if (result->message->descriptor == &etcdserverpb__put_response__descriptor)
        a->revision = ((const Etcdserverpb__PutResponse *)result->message)->header->revision;
    if (result->message->descriptor == &etcdserverpb__lease_grant_response__descriptor)
        a->lease = ((const Etcdserverpb__LeaseGrantResponse *)result->message)->id;
}

static void on_code(void *ctx, enum errc code)
{
    struct answer *a = ctx;
    a->done = true;
    a->calls++;
    a->code = code;
}

static struct replica_op *propose_put(struct node *n, const char *key, const char *value,
                                      int64_t lease, struct answer *a)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    put.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    put.value = (ProtobufCBinaryData){strlen(value), (uint8_t *)value};
    put.lease = lease;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
    request.put = &put;
    *a = (struct answer){0};
    return replica_propose(n->replica, &request, on_answer, a);
}

static inline int64_t must_put(struct node *n, const char *key, const char *value)
{
    struct answer a;
    propose_put(n, key, value, 0, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    return a.revision;
}

static inline int64_t grant(struct node *n, int64_t ttl)
{
    Etcdserverpb__LeaseGrantRequest g = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    g.ttl = ttl;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT;
    request.lease_grant = &g;
    struct answer a = {0};
    replica_propose(n->replica, &request, on_answer, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    return a.lease;
}

static inline enum errc read_point(struct node *n)
{
    struct answer a = {0};
    replica_read(n->replica, on_code, &a);
    WAIT(a.done);
    return a.code;
}

/* The value of a key in the node's own state. */
static inline const char *local_value(struct node *n, const char *key)
{
    static char text[256];
    struct mvcc_kv *kv = mvcc_get(replica_store(n->replica), bytes_str(key), true);
    if (!kv)
        return NULL;
    snprintf(text, sizeof(text), "%.*s", (int)kv->value.n, kv->value.p);
    bool gone = kv->tombstone;
    mvcc_kv_unref(kv);
    return gone ? NULL : text;
}

struct hash {
    bool done;
    uint32_t hash;
};

static void on_hash(void *ctx, enum errc code, uint32_t hash, int64_t compact_revision,
                    int64_t hash_revision)
{
    struct hash *h = ctx;
    (void)compact_revision;
    (void)hash_revision;
    assert_int_equal(code, ERR_OK);
    h->hash = hash;
    h->done = true;
}

static uint64_t applied(const struct node *n)
{
    return mvcc_applied_index(replica_store(n->replica));
}

static bool all_even(void)
{
    uint64_t most = 0;
    for (size_t i = 0; i < cl.count; i++) {
        if (cl.nodes[i].replica && applied(&cl.nodes[i]) > most)
            most = applied(&cl.nodes[i]);
    }
    for (size_t i = 0; i < cl.count; i++) {
        if (cl.nodes[i].replica && !cl.nodes[i].removed && applied(&cl.nodes[i]) != most)
            return false;
    }
    return true;
}

/* All that run have the same revision and the same HashKV. */
static void assert_all_equal(void)
{
    WAIT(all_even());
    struct hash first = {0};
    int64_t revision = 0;
    for (size_t i = 0; i < cl.count; i++) {
        struct node *n = &cl.nodes[i];
        if (!n->replica || n->removed)
            continue;
        struct hash h = {0};
        mvcc_hash_kv(replica_store(n->replica), 0, on_hash, &h);
        WAIT(h.done);
        if (!first.done) {
            first = h;
            revision = mvcc_revision(replica_store(n->replica));
        }
        assert_int_equal(h.hash, first.hash);
        assert_int_equal(mvcc_revision(replica_store(n->replica)), revision);
    }
}

/* A test's set-up and end. */
static inline int open_one(void **state)
{
    (void)state;
    cluster_open(1);
    return 0;
}

static inline int open_three(void **state)
{
    (void)state;
    cluster_open(3);
    return 0;
}

static inline int close_all(void **state)
{
    (void)state;
    cluster_close();
    return 0;
}

#endif
