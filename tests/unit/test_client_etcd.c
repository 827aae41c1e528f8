/* The client against the distribution's etcd: what it believes of a real server. Skipped without one. */
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/client_fixture.h"

#define ETCD "/usr/bin/etcd"

struct etcd {
    char dir[64], client_url[64], peer_url[64], cluster[80];
    pid_t pid;
};

static int free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void etcd_run(struct etcd *e)
{
    e->pid = fork();
    assert_true(e->pid >= 0);
    if (e->pid)
        return;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failed test leaves none behind */
    int log = open("/dev/null", O_WRONLY);
    dup2(log, 1);
    dup2(log, 2);
    execl(ETCD, "etcd", "--data-dir", e->dir, "--listen-client-urls", e->client_url,
          "--advertise-client-urls", e->client_url, "--listen-peer-urls", e->peer_url,
          "--initial-advertise-peer-urls", e->peer_url, "--initial-cluster", e->cluster,
          "--unsafe-no-fsync", (char *)NULL);
    _exit(127);
}

static void etcd_kill(struct etcd *e)
{
    kill(e->pid, SIGKILL);
    waitpid(e->pid, NULL, 0);
}

static void etcd_start(struct etcd *e)
{
    strcpy(e->dir, "/tmp/quorumfs-etcd-XXXXXX");
    assert_non_null(mkdtemp(e->dir));
    snprintf(e->client_url, sizeof e->client_url, "http://127.0.0.1:%d", free_port());
    snprintf(e->peer_url, sizeof e->peer_url, "http://127.0.0.1:%d", free_port());
    snprintf(e->cluster, sizeof e->cluster, "default=%s", e->peer_url);
    etcd_run(e);
}

static void etcd_end(struct etcd *e)
{
    char command[128];
    etcd_kill(e);
    snprintf(command, sizeof command, "rm -rf '%s'", e->dir);
    assert_int_equal(system(command), 0);
}

static void world_start(struct fake_world *world, const struct etcd *e)
{
    memset(world, 0, sizeof *world);
    uv_loop_init(&world->loop);
    list_init(&world->watchers);
    const char *url = e->client_url;
    struct client_config config = {.endpoints = &url,
                                   .endpoint_count = 1,
                                   .timeout_ms = 20000,
                                   .request_ids = true,
                                   .state = fake_client_state,
                                   .ctx = world};
    struct error err;
    assert_int_equal(client_new(&world->loop, &config, &world->client, &err), ERR_OK);
}

static void delete_done(void *ctx, const struct client_result *result)
{
    struct answer *a = ctx;
    a->count++;
    a->code = result->code;
    if (result->code == ERR_OK)
        a->revision =
            ((const Etcdserverpb__DeleteRangeResponse *)result->message)->header->revision;
}

static void ask_delete(struct client *c, const char *key, struct answer *a)
{
    memset(a, 0, sizeof *a);
    Etcdserverpb__DeleteRangeRequest q = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    q.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    client_delete(c, &q, 0, delete_done, a);
}

struct point {
    int count;
    enum errc code;
};

static void point_done(void *ctx, enum errc code, int64_t revision)
{
    struct point *p = ctx;
    (void)revision;
    p->count++;
    p->code = code;
}

static void sync_point(struct fake_world *world, struct client_watch *w)
{
    struct point p = {0};
    client_watch_sync(w, 0, point_done, &p);
    RUN_UNTIL(&world->loop, p.count);
    assert_int_equal(p.code, ERR_OK);
}

/* Writes and deletes, each followed by a sync point: the watch must have shown it by then. */
static void writes_and_syncs(struct fake_world *world, struct client_watch *w, struct seen *s)
{
    struct answer a;
    for (int i = 0; i < 200; i++) {
        if (i % 3 == 2)
            ask_delete(world->client, "k", &a);
        else
            ask_put(world->client, "k", "v", 0, &a);
        RUN_UNTIL(&world->loop, a.count);
        assert_int_equal(a.code, ERR_OK);
        sync_point(world, w);
        assert_int_equal(s->last_event, a.revision);
        sync_point(world, w);
    }
    assert_int_equal(s->events, 200);
    assert_false(s->disordered);
}

/* Longer than a busy machine needs to start etcd again: the lease must outlive the crash. */
#define LEASE_TTL_S 60

static void on_granted(void *ctx, enum errc code, int64_t id)
{
    assert_int_equal(code, ERR_OK);
    *(int64_t *)ctx = id;
}

static void on_lost(void *ctx)
{
    *(int64_t *)ctx = -1;
}

static void test_etcd(void **state)
{
    (void)state;
    if (access(ETCD, X_OK) != 0)
        skip();
    struct etcd e;
    struct fake_world world;
    struct seen s, late;
    struct answer a;
    int64_t lease = 0;
    etcd_start(&e);
    world_start(&world, &e);
    struct client_watch *w = watch_all(&world, 0, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    assert_false(client_is_quorumd(world.client));
    writes_and_syncs(&world, w, &s);

    struct client_lease *l =
        client_lease_start(world.client, LEASE_TTL_S, on_granted, on_lost, &lease);
    RUN_UNTIL(&world.loop, lease > 0);

    /* A crash: the watch goes on where it was. */
    etcd_kill(&e);
    RUN_UNTIL(&world.loop, s.downs == 1); /* else the put might go out on the dead connection */
    etcd_run(&e);
    ask_put(world.client, "k", "after", 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    /* Not after a sync point: on a watch that has just been resumed, the progress answers of etcd before 3.4.25
     * can overtake events however long one waits (etcd-io/etcd#15220; see client_watch_sync). */
    RUN_UNTIL(&world.loop, s.last_event >= a.revision);
    assert_int_equal(s.last_event, a.revision);
    assert_int_equal(s.events, 201);
    assert_false(s.disordered);

    /* History from a past revision, and one that is gone. */
    struct client_watch *h = watch_all(&world, 2, &late);
    RUN_UNTIL(&world.loop, late.last_event >= a.revision);
    assert_int_equal(late.events, 201);
    client_watch_stop(h);
    Etcdserverpb__CompactionRequest q = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    q.revision = a.revision;
    memset(&a, 0, sizeof a);
    client_unary(world.client, "/etcdserverpb.KV/Compact", &q.base,
                 &etcdserverpb__compaction_response__descriptor, false, 0, answer_done, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    h = watch_all(&world, 2, &late);
    RUN_UNTIL(&world.loop, late.compacted);
    assert_int_equal(late.compacted, q.revision);
    client_watch_stop(h);

    assert_true(lease > 0); /* kept alive all the time */
    client_lease_stop(l, true);
    client_watch_stop(w);
    fake_end(&world);
    etcd_end(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_etcd)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
