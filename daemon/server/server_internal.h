/* What the files of daemon/server share: one running member. */
#ifndef SERVER_INTERNAL_H
#define SERVER_INTERNAL_H

#include "daemon/api/api.h"
#include "daemon/server/config.h"
#include "daemon/server/identity.h"
#include "daemon/server/marker.h"
#include "daemon/server/port.h"
#include "daemon/server/server.h"
#include "lib/base/worker_thread.h"

#define SERVER_PEER_GRACE_MS 100 /* the peers' streams never end by themselves */

enum server_state {
    SERVER_JOINING, /* asks the others who it is */
    SERVER_RUNNING,
    SERVER_HANDING_OVER, /* leadership, before the end */
    SERVER_CLOSING_CLIENTS,
    SERVER_CLOSING_PEERS,
    SERVER_CLOSING_HANDLES,
};

struct compactor { /* compactor.c */
    struct compactor_sample {
        uint64_t at_ms;
        int64_t revision;
    } samples[11]; /* a retention, in tenths */
    size_t sample_count;
    uint64_t next_ms;
    struct replica_op *op;
    bool waiting; /* for the rows of the last compaction to be gone */
};

struct server {
    uv_loop_t *loop;
    struct server_config config; /* a copy */
    enum server_state state;
    struct disk *disk;
    struct disk_file *lock;
    struct identity identity;
    struct worker *log_worker, *store_worker;
    struct replica *replica;
    struct peers *peers;
    struct api *api;
    struct rpc_server *clients, *peer_port;
    char client_urls[SERVER_URLS_MAX][256], peer_urls[SERVER_URLS_MAX][256];
    struct server_urls advertised; /* into config or client_urls */
    struct port_waiting waiting;
    struct join *join; /* at most one of the three, while joining */
    struct first *first;
    struct rejoin *rejoin;
    bool has_marker; /* it has rejoined, and isn't done with it */
    struct marker marker;
    struct promotion {
        struct peer_forward *forward;
        struct replica_op *disarming;
        size_t disarmed; /* of the marker's old ids */
        uint64_t next_ms, log_ms;
    } promotion;
    struct noting {   /* of DATA/members: known.c */
        bool busy;    /* it is being written */
        bool fails;   /* the last time it could not be, which has been said */
        uint32_t crc; /* of what was written */
        uint64_t next_ms, backoff_ms;
    } noting;
    struct error damage; /* code: reported by a read, to be acted upon in the next turn */
    struct compactor compactor;

    uv_timer_t ticks;
    uv_check_t turn;
    uv_idle_t busy;
    int open_handles;
    void (*closed)(struct server *s); /* when the last of them is */
    uint64_t last_tick_ms;
    uint64_t handover_until_ms;
    uint64_t removed_until_ms; /* 0: still a member */
    bool woken;
    size_t voters, learners;      /* as last logged */
    uint64_t led_ms, lack_log_ms; /* lacking.c: when there last was a leader, when to say so next */

    void (*stopped)(void *ctx, const struct error *why);
    void *ctx;
    bool silent; /* the start failed: `stopped` isn't called */
    bool failed;
    struct error why;
};

/* ---- server.c */
enum errc server_open_member(struct server *s, struct error *err); /* identity is there */
void server_fail(struct server *s, const struct error *why);       /* the member can't go on */
void server_close(struct server *s);                               /* in order, from any state */

/* ---- begin.c */
/* ERR_OK with the directory locked and s->identity, or with s->join, s->first or s->rejoin on its way to it. */
enum errc server_begin(struct server *s, struct error *err);
/* Writes the marker and starts on it; a failure is the server's end. */
void server_rejoin(struct server *s, const struct marker *marker);

/* ---- drive.c */
void drive_init(struct server *s);
void drive_start(struct server *s);
void drive_close(struct server *s, void (*closed)(struct server *s));
void drive_replica_config(struct server *s, struct replica_config *config);
void drive_wake(struct server *s);
void drive_removed(void *server);                          /* from the replica or a peer */
void drive_damaged(void *server, const struct error *err); /* from a read */

/* ---- join.c: asks the members of a running cluster who they are */
struct join *join_start(struct server *s, const struct identity *computed);
void join_free(struct join *j);

/* ---- first.c; takes over `computed` */
struct first *first_start(struct server *s, struct identity *computed);
void first_free(struct first *f);

/* ---- rejoin.c: by s->marker; NULL: nobody to ask */
struct rejoin *rejoin_start(struct server *s, struct error *err);
void rejoin_free(struct rejoin *r);

/* ---- promote.c */
void promote_tick(struct server *s);

/* ---- lacking.c: says, now and then, what is missing while there is no leader */
void lacking_tick(struct server *s);

/* ---- compactor.c */
void compactor_tick(struct server *s, uint64_t now_ms);

#endif
