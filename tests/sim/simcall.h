/* A client's request to one member, and the answer: what daemon/api does, without gRPC.
 *
 * Requests and answers travel with a delay, may be lost with the connection, and die with the member's
 * process. Nobody promises an answer: who asks keeps a timer. */
#ifndef SIM_SIMCALL_H
#define SIM_SIMCALL_H

#include "lib/base/error.h"
#include "tests/sim/model.h"

struct sim;
struct simnode;

enum simreq_kind {
    REQ_PUT,
    REQ_DELETE,
    REQ_DELETE_RANGE, /* [key, key2) */
    REQ_CAS,          /* if value(key) == expected: put key, get it; else get it */
    REQ_NESTED,       /* see simcall_txn.c */
    REQ_OLD_TXN,      /* get key as of `revision`, put key */
    REQ_GET,
    REQ_RANGE, /* [key, key2) */
    REQ_COMPACT,
    REQ_GRANT,
    REQ_REVOKE,
    REQ_KEEPALIVE,
    REQ_DISARM, /* takes the NOSPACE alarm of member `lease` back */
};

struct simreq {
    enum simreq_kind kind;
    uint32_t key, key2;
    uint64_t value, expected;
    size_t
        size; /* of the value of a REQ_PUT: the number is followed by so many bytes in all; 0: none */
    int64_t revision; /* of reads, 0: the newest; of a compaction */
    bool serializable;
    int64_t lease, ttl;
    uint64_t client_id, client_seq; /* 0: no session */
};

struct simanswer {
    enum errc code;
    bool refused; /* the member was down: the request did not even begin */
    int64_t revision, ttl, deleted;
    bool succeeded;
    struct modelkv *kvs; /* without sub and stamp */
    size_t count;
};

typedef void (*simcall_done)(void *ctx, uint64_t token, const struct simanswer *answer);

void call_send(struct sim *s, uint64_t node, const struct simreq *request, simcall_done done,
               void *ctx, uint64_t token);
void calls_drop_all(struct simnode *n); /* its process died */

/* ---- simcall_txn.c: requests as messages, and what the answers hold */
struct call_message;
struct call_message *call_message_new(const struct simreq *q);
void call_message_free(struct call_message *m);
/* Everything the request needs is inside of the message. */
void *call_message_internal(struct call_message *m); /* Raftpb__InternalRequest * */
void *call_message_range(struct call_message *m);    /* Etcdserverpb__RangeRequest * */
/* Fills revision, succeeded, kvs, ... from the response of the request's kind. */
void call_take(struct model *m, const struct simreq *q, const void *message, struct simanswer *a);

#endif
