/* One member of the cluster on a libuv loop: the replica, its peers, and the gRPC services on its client
 * and peer ports. `quorumd` is this and a command line; the mount's embedded mode runs it in a thread.
 *
 * Life cycle: server_config_defaults(), fill in, server_start() on a loop that the caller runs,
 * server_stop() for a graceful end. Errors after the start (a disk that fails, an address that can't be
 * bound while joining) end the server through `stopped` as well. After `stopped` the server is free and
 * the loop may be closed once it has run out of handles.
 *
 * Threading: all calls on the loop's thread. The server starts two workers (log, store) of its own.
 * server_thread_start() wraps all of it into a thread with a loop of its own.
 *
 * Identity: member id = SHA1(sorted peer URLs, token), cluster id = SHA1(sorted member ids), first eight
 * bytes each, as etcd. They are computed when a data directory is first used, and remembered there. */
#ifndef SERVER_SERVER_H
#define SERVER_SERVER_H

#include <uv.h>

#include "lib/base/error.h"

#define SERVER_URLS_MAX 16 /* of one kind; a member has one or two */

struct server_urls {
    const char *url[SERVER_URLS_MAX];
    size_t count;
};

enum server_compaction { SERVER_COMPACTION_PERIODIC, SERVER_COMPACTION_REVISION };

/* Strings are borrowed until server_start() or server_thread_start() returns. */
struct server_config {
    const char *data_dir; /* made if missing (its parent must exist); NULL: "NAME.etcd" */
    const char *name;     /* "default" */
    /* "http://HOST:PORT" or "unix:PATH". Clients: at least one. Peers: none at all makes a cluster of one
     * that no peer can reach (the embedded mode); its ids are those of a default quorumd, so that one
     * can serve the same directory later. Sockets of mode 0600 are made for unix: URLs. */
    struct server_urls listen_client_urls;          /* default http://localhost:2379 */
    struct server_urls advertise_client_urls;       /* empty: what is listened on */
    struct server_urls listen_peer_urls;            /* default http://localhost:2380 */
    struct server_urls initial_advertise_peer_urls; /* default http://localhost:2380 */

    /* "NAME=URL,NAME=URL..." with a name's URLs in several pairs; NULL: this member alone. Only used when
     * the data directory is new. */
    const char *initial_cluster;
    bool initial_cluster_existing; /* joins a running cluster that has added this member already */
    const char *token;             /* "etcd-cluster" */

    uint64_t heartbeat_ms;    /* 100 */
    uint64_t election_ms;     /* 1000; at least 5 heartbeats */
    uint64_t snapshot_count;  /* log entries kept for members that lag; 10,000 */
    uint64_t quota_bytes;     /* of the store; 2 GiB */
    size_t max_request_bytes; /* 1.5 MiB */
    size_t max_txn_ops;       /* 128 */

    enum server_compaction compaction_mode;
    uint64_t compaction_retention; /* ms or revisions; 0: off */

    uint64_t scrub_ms; /* store and log are read through for damage in this time; 1 h, 0: never */

    uint64_t snapshot_stall_ms; /* of a client that takes nothing; 0: api.h's */

    bool quiet; /* the embedded mode: no log lines below warnings */
};

void server_config_defaults(struct server_config *config);

struct server;

/* Opens the data directory, binds the addresses and serves; replays the log meanwhile (blocks for that).
 * On failure nothing is left behind (the loop must run once more to let go of handles).
 * ERR_INVALID: a setting, or a data directory of another cluster or member (err names both ids);
 * ERR_BUSY: an address in use, or the data directory locked by another process; ERR_IO, ERR_NO_SPACE,
 * ERR_CORRUPT: err says what can be done.
 * `stopped` runs exactly once if this returned ERR_OK, with NULL after server_stop(), else with why. */
enum errc server_start(uv_loop_t *loop, const struct server_config *config,
                       struct server **ret_server,
                       void (*stopped)(void *ctx, const struct error *why), void *ctx,
                       struct error *err);

/* After server_start() or `stopped` reported damaged data (ERR_CORRUPT), and the loop has run out or the
 * process is about to end: if the member has others to ask, it gives its id up, moves its data aside, and
 * returns true: the next start with the same settings rejoins the cluster as a new member. Else false, with
 * *err as what to tell the operator. Only a process that starts anew may use the directory then: what the
 * failed server left is still there. Blocking. */
bool server_heal(const struct server_config *config, const struct error *why, struct error *err);

/* Graceful: hands leadership over, lets running calls end (SERVER_STOP_GRACE_MS), closes. */
#define SERVER_STOP_GRACE_MS 3000
void server_stop(struct server *server);

/* What was bound (a port 0 is resolved), valid until `stopped`. */
const char *server_client_url(const struct server *server, size_t i); /* NULL: beyond the last */
const char *server_peer_url(const struct server *server, size_t i);

/* ---- In a thread of its own ---------------------------------------------------------------------- */

struct server_thread;

/* Blocks until the server has started and elected itself (a cluster of one) or has failed; no loop of
 * the caller is involved, and signals stay with the caller. Errors as server_start(). */
enum errc server_thread_start(const struct server_config *config, struct server_thread **ret_thread,
                              struct error *err);

/* True once the server has ended by itself; *ret_why (may be NULL) then says why. Any thread. */
bool server_thread_failed(struct server_thread *thread, struct error *ret_why);

void server_thread_stop(
    struct server_thread *thread); /* graceful; blocks until it has ended; frees */

#endif
