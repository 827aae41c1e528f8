/* What the server at the other end is: a quorumd answers /quorumfs.Info/Version, an etcd has no such
 * method. Of an etcd the version is asked too, since old ones let progress answers overtake events. */
#include <stdio.h>
#include <stdlib.h>

#include "lib/client/internal.h"

#define PROBE_MS 2000      /* for each question */
#define PROBE_AGAIN_MS 500 /* after a failure that says nothing about the server's kind */

#define GRPC_UNIMPLEMENTED 12
#define GRPC_DEADLINE 4
#define GRPC_UNAVAILABLE 14

static void known(struct conn *conn, enum server_kind kind)
{
    struct client *c = conn->client;
    conn->kind = kind;
    c->quorumd = kind == KIND_QUORUMD;
    if (c->conn == conn)
        client_tell_parts(c);
}

static void again_later(struct conn *conn)
{
    conn->probe_at = uv_now(conn->client->loop) + PROBE_AGAIN_MS;
    client_step_at(conn->client, conn->probe_at);
}

/* Whether a server of this version may send a progress answer ahead of events that it had already queued
 * (etcd#15220, mended in 3.4.25 and 3.5.8). An unreadable version counts as a recent one. */
static bool overtakes(const char *version)
{
    int major, minor, patch;
    if (sscanf(version, "%d.%d.%d", &major, &minor, &patch) != 3 || major != 3)
        return false;
    return minor < 4 || (minor == 4 && patch < 25) || (minor == 5 && patch < 8);
}

static void on_status(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    (void)text;
    (void)sent;
    struct conn *conn = ctx;
    conn->probe = NULL;
    if (status == GRPC_UNAVAILABLE || status == GRPC_DEADLINE) {
        again_later(conn);
        return;
    }
    /* A server that refuses to tell is taken for an old one: that costs time, not correctness. */
    conn->progress_overtakes = true;
    Etcdserverpb__StatusResponse *r =
        status == 0 ? etcdserverpb__status_response__unpack(NULL, answer.n, answer.p) : NULL;
    if (r) {
        conn->progress_overtakes = overtakes(r->version);
        etcdserverpb__status_response__free_unpacked(r, NULL);
    }
    known(conn, KIND_ETCD);
}

static void on_version(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    (void)text;
    (void)answer;
    (void)sent;
    struct conn *conn = ctx;
    conn->probe = NULL;
    if (status == 0) {
        known(conn, KIND_QUORUMD);
    } else if (status == GRPC_UNAVAILABLE || status == GRPC_DEADLINE) {
        again_later(conn);
    } else {
        /* An empty message is the empty StatusRequest. */
        conn->probe = rpc_unary(conn->channel, "/etcdserverpb.Maintenance/Status", BYTES_EMPTY,
                                PROBE_MS, NULL, 0, on_status, conn);
    }
}

void detect_start(struct conn *conn)
{
    conn->probe_at = 0;
    if (conn->probe || conn->kind != KIND_UNKNOWN || !conn->up)
        return;
    conn->probe = rpc_unary(conn->channel, "/quorumfs.Info/Version", BYTES_EMPTY, PROBE_MS, NULL, 0,
                            on_version, conn);
}

void detect_stop(struct conn *conn)
{
    conn->probe_at = 0;
    if (conn->probe)
        rpc_stream_cancel(conn->probe);
    conn->probe = NULL;
}
