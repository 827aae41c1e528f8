/* Members, and the time that they live in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/replica_fixture.h"

struct cluster cl;

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

struct node *node_of(uint64_t id)
{
    for (size_t i = 0; i < cl.count; i++) {
        if (cl.nodes[i].id == id)
            return &cl.nodes[i];
    }
    return NULL;
}

static void on_members(struct replica_transport *t, const struct replica_member *m, size_t count)
{
    (void)t;
    (void)m;
    (void)count;
}

enum errc node_try_start(struct node *n, struct error *err)
{
    char note[512], name[32];
    snprintf(name, sizeof(name), "n%zu", n->number);
    static const char *urls[] = {"http://127.0.0.1:2379"};
    simworker_init(&n->log);
    simworker_init(&n->store);
    n->transport = (struct replica_transport){network_send, on_members};
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

void node_start(struct node *n)
{
    struct error err = {0};
    enum errc code = node_try_start(n, &err);
    if (code != ERR_OK)
        print_error("node %zu: %s\n", n->number, err.message);
    assert_int_equal(code, ERR_OK);
}

void node_crash(struct node *n)
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

struct node *node_add(uint64_t id, bool joins)
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

char *peer_urls[NODES_MAX][1] = {
    {"http://h:1"}, {"http://h:2"}, {"http://h:3"}, {"http://h:4"}, {"http://h:5"}};

void cluster_open(size_t count)
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

void cluster_close(void)
{
    for (size_t i = 0; i < cl.count; i++) {
        node_crash(&cl.nodes[i]);
        free(cl.nodes[i].dir);
    }
    fixture_remove_dir(cl.dir);
}

/* A test's set-up and end. */
int open_one(void **state)
{
    (void)state;
    cluster_open(1);
    return 0;
}

int open_three(void **state)
{
    (void)state;
    cluster_open(3);
    return 0;
}

int close_all(void **state)
{
    (void)state;
    cluster_close();
    return 0;
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

void turn(void)
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

void turns(size_t count)
{
    while (count--)
        turn();
}
