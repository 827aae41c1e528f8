/* The peer port: batches of Raft messages. Nothing that arrives is trusted before it is checked. */
#include "daemon/peer/peer_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/log.h"

struct receiver { /* of one incoming stream */
    uint64_t received;
};

static void on_started(struct rpc_call *call, void *service)
{
    (void)service;
    rpc_call_set_user(call, xcalloc(1, sizeof(struct receiver)));
}

static void refuse(struct rpc_call *call, enum errc code, const char *text)
{
    log_warn("peer", "refused a stream from=%s: %s", rpc_call_peer(call), text);
    rpc_call_finish(call, errc_grpc_code(code), text);
}

/* A stranger tries again and again; the log has it once (until others have filled the list). */
static void refuse_stranger(struct peers *p, struct rpc_call *call, uint64_t from, const char *text)
{
    for (size_t i = 0; i < ARRAY_LEN(p->strangers); i++) {
        if (p->strangers[i] == from) {
            rpc_call_finish(call, errc_grpc_code(ERR_BUSY), text);
            return;
        }
    }
    p->strangers[p->stranger_next++ % ARRAY_LEN(p->strangers)] = from;
    refuse(call, ERR_BUSY, text);
}

/* True: go on with the next message. Messages for another member (an address was given to a new member)
 * are dropped, as a network may. */
static bool take(struct peers *p, uint64_t from, const Raftpb__Message *wire)
{
    struct raft_message m;
    if (wire->type == RAFT_MSG_SNAPSHOT || wire->from != from || codec_from_wire(wire, &m))
        return false;
    if (m.to == p->member_id)
        replica_receive(p->replica, &m);
    codec_message_free(&m);
    return true;
}

/* A leader that removed itself says who is to take over right after it has told of the commit: it comes from a
 * member that is none any more, and would be missed for an election timeout. */
static void take_last_words(struct peers *p, const Raftpb__MessageBatch *batch)
{
    for (size_t i = 0; i < batch->n_messages; i++) {
        if (batch->messages[i]->type == RAFT_MSG_TIMEOUT_NOW)
            take(p, batch->from, batch->messages[i]);
    }
}

/* With each batch, not only a stream's first: a follower that is removed hears no more of the leader, not even
 * that its removal is committed, and would campaign for ever on the stream that it has
 * (tests/fault/test_members.py). */
static bool check_sender(struct peers *p, struct rpc_call *call, const Raftpb__MessageBatch *batch)
{
    char text[160];
    if (batch->cluster_id != p->cluster_id) {
        snprintf(text, sizeof(text),
                 "cluster id mismatch: the sender is of cluster %llx, member %llx is of %llx",
                 (unsigned long long)batch->cluster_id, (unsigned long long)p->member_id,
                 (unsigned long long)p->cluster_id);
        refuse_stranger(p, call, batch->from, text);
        return false;
    }
    if (batch->from == 0 || batch->from == p->member_id) {
        snprintf(text, sizeof(text), "member id mismatch: a batch from member %llx at member %llx",
                 (unsigned long long)batch->from, (unsigned long long)p->member_id);
        refuse_stranger(p, call, batch->from, text);
        return false;
    }
    if (!peer_find(p, batch->from) && replica_was_removed(p->replica, batch->from)) {
        take_last_words(p, batch);
        refuse_stranger(p, call, batch->from, PEER_REMOVED_TEXT);
        return false;
    }
    return true;
}

static void acknowledge(struct rpc_call *call, uint64_t received)
{
    Raftpb__PeerAck ack = RAFTPB__PEER_ACK__INIT;
    uint8_t packed[16];
    ack.received = received;
    rpc_call_send(call, bytes_of(packed, raftpb__peer_ack__pack(&ack, packed)));
}

/* Batches between two acknowledgements; the first one is acknowledged at once. */
#define ACK_EVERY 1024

static void on_message(struct rpc_call *call, void *service, struct bytes message)
{
    struct peers *p = service;
    struct receiver *receiver = rpc_call_user(call);
    Raftpb__MessageBatch *batch = codec_batch_unpack(message);
    if (!batch) {
        refuse(call, ERR_INVALID, "a damaged batch of messages (checksum or encoding)");
        return;
    }
    if (!check_sender(p, call, batch))
        goto out;
    for (size_t i = 0; i < batch->n_messages; i++) {
        if (!take(p, batch->from, batch->messages[i])) {
            refuse(call, ERR_INVALID, "a malformed Raft message");
            goto out;
        }
    }
    if (receiver->received++ % ACK_EVERY == 0)
        acknowledge(call, receiver->received);
out:
    raftpb__message_batch__free_unpacked(batch, NULL);
}

static void on_half_closed(struct rpc_call *call, void *service)
{
    (void)service;
    rpc_call_finish(call, 0, "");
}

static void on_closed(struct rpc_call *call, void *service)
{
    (void)service;
    free(rpc_call_user(call));
}

const struct rpc_method peer_messages_method = {
    .path = "/raftpb.Peer/Messages",
    .client_streams = true,
    .started = on_started,
    .message = on_message,
    .half_closed = on_half_closed,
    .closed = on_closed,
};
