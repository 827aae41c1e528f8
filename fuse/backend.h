/* What the mount's state machine needs of a store: reads, transactions, a watch, a sync point.
 *
 * backend_client.c implements it over lib/client for quorumd and etcd; tests and the simulator have their
 * own. The core never sees a socket, a protobuf message or a loop: only this.
 *
 * Threading: one thread. No callback runs inside the call that asks. Everything that a callback is handed
 * is borrowed until it returns; everything that a call is handed may go when the call returns. Every call
 * ends with exactly one `done` within its timeout (the watch aside), also when the backend is closed. */
#ifndef FUSE_BACKEND_H
#define FUSE_BACKEND_H

#include "lib/base/bytes.h"
#include "lib/base/error.h"

struct store_kv {
    struct bytes key, value;
    int64_t create_revision, mod_revision, version, lease;
    uint64_t stamp_ns; /* wall clock of the leader at the put; 0: the store doesn't say */
};

struct store_event {
    bool deletion; /* kv holds only the key and mod_revision then */
    struct store_kv kv;
};

/* [key, end); end empty: the one key; end of one zero byte: everything from key on. */
struct store_range {
    struct bytes key, end;
    int64_t limit;    /* 0: none */
    int64_t revision; /* 0: the newest, linearizable */
    bool keys_only;
};

struct store_range_result {
    enum errc code;
    const char *text; /* words for an error */
    const struct store_kv *kvs;
    size_t count;
    bool more;        /* the limit cut the answer */
    int64_t revision; /* the store's when it answered */
};

enum store_target { STORE_CREATE, STORE_MOD, STORE_VERSION };
enum store_relation { STORE_EQUAL, STORE_LESS, STORE_GREATER };

/* Holds if it holds for every key of the range; a key that doesn't exist has 0 in each target. A range
 * without keys holds. */
struct store_compare {
    struct bytes key, end;
    enum store_target target;
    enum store_relation relation;
    int64_t operand;
};

enum store_op_kind { STORE_PUT, STORE_DELETE, STORE_GET };

struct store_op {
    enum store_op_kind kind;
    struct bytes key, end; /* end: STORE_DELETE and STORE_GET */
    struct bytes value;    /* STORE_PUT */
    int64_t lease;         /* STORE_PUT */
    bool keys_only;        /* STORE_GET */
};

/* All compares hold: `ops` run as one revision. Otherwise `otherwise` runs (reads only). */
struct store_txn {
    const struct store_compare *compares;
    size_t compare_count;
    const struct store_op *ops;
    size_t op_count;
    const struct store_op *otherwise;
    size_t otherwise_count;
};

struct store_txn_result {
    enum errc code;
    const char *text;
    bool unknown; /* failed, but may have taken effect all the same */
    bool succeeded;
    int64_t revision;           /* of the transaction if it wrote */
    const struct store_kv *kvs; /* what the STORE_GETs of the branch that ran found, joined */
    size_t count;
};

struct store_watch_handler {
    /* Whole revisions, in order, none twice, none skipped. No events: everything up to `revision` has been
     * delivered. */
    void (*events)(void *ctx, const struct store_event *events, size_t count, int64_t revision);
    /* The history from the start revision on is gone; the watch is over. */
    void (*compacted)(void *ctx);
    void (*state)(void *ctx, bool up, const char *text);
};

struct store_member {
    uint64_t id;
    const char *name;
    const char *client_url; /* the first; "" if it has none */
    bool learner;
};

#define STORE_MEMBERS_MAX 16 /* more members than any cluster has; what is over is not listed */

struct store_status {
    enum errc code;
    const char *text;     /* words for an error */
    const char *endpoint; /* that answered */
    const char *version;
    uint64_t member_id, leader_id; /* leader 0: there is none */
    uint64_t term;
    int64_t revision;
    int64_t db_size, db_quota; /* quota 0: not known */
    bool no_space;             /* the store refuses writes for want of space */
    struct store_member members[STORE_MEMBERS_MAX];
    size_t member_count;
};

typedef void (*store_range_done)(void *ctx, const struct store_range_result *r);
typedef void (*store_txn_done)(void *ctx, const struct store_txn_result *r);
typedef void (*store_sync_done)(void *ctx, enum errc code, int64_t revision);
typedef void (*store_status_done)(void *ctx, const struct store_status *s);

struct backend {
    void (*range)(struct backend *b, const struct store_range *r, uint64_t timeout_ms,
                  store_range_done done, void *ctx);
    void (*txn)(struct backend *b, const struct store_txn *t, uint64_t timeout_ms,
                store_txn_done done, void *ctx);
    /* One watch at a time: a new one replaces the old. `handler` must outlive it. */
    void (*watch)(struct backend *b, struct bytes key, struct bytes end, int64_t start_revision,
                  const struct store_watch_handler *handler, void *ctx);
    /* `done(ERR_OK)` when the watch has delivered everything that was committed, anywhere, before this
     * call. */
    void (*sync)(struct backend *b, uint64_t timeout_ms, store_sync_done done, void *ctx);
    /* Grants a lease and keeps it alive as long as the backend lives: `granted` once, and `lost` when it is gone
     * (then another may be asked for). One at a time. */
    void (*lease)(struct backend *b, int64_t ttl_s,
                  void (*granted)(void *ctx, enum errc code, int64_t id), void (*lost)(void *ctx),
                  void *ctx);
    void (*status)(struct backend *b, uint64_t timeout_ms, store_status_done done, void *ctx);
};

#endif
