/* The bytes of one call in both directions, and their flow control: what a call of the server and a
 * stream of the client share.
 *
 * Out: framed messages queue in `tx`; the session takes them when the windows allow. In: chunks become
 * messages; while paused they are kept and the stream's window is not given back, so that at most
 * CONN_STREAM_WINDOW bytes gather.
 *
 * Counted references, because a callback may end its own call or close the whole connection: one for
 * the user's handle, one while the session knows the stream, one while messages are delivered. */
#ifndef RPC_TRANSFER_H
#define RPC_TRANSFER_H

#include "lib/rpc/conn.h"
#include "lib/rpc/frame.h"

struct transfer;
struct transfer_ops {
    void (*message)(struct transfer *t, struct bytes message);
    void (*ended)(struct transfer *t); /* the peer's end, after its last message */
    void (*broken)(struct transfer *t, int grpc_status,
                   const char *text); /* a bad or large frame */
    void (*writable)(struct transfer *t);
    void (*overrun)(struct transfer *t); /* the producer ignores that it isn't writable */
    /* All is sent and transfer_finish() was called: the call may add trailers. May be NULL. */
    void (*sent_all)(struct transfer *t, uint32_t *data_flags);
    void (*freed)(struct transfer *t);
};

struct transfer {
    const struct transfer_ops *ops;
    struct turn *turn;
    struct conn *conn; /* NULL: not yet or not any more on one */
    int32_t stream_id; /* valid while conn is set */
    unsigned refs;
    struct turn_item later; /* callbacks that wait for the end of the turn */
    /* Out. */
    struct buf tx;
    size_t tx_off;  /* bytes of tx that the session has taken */
    bool deferred;  /* the session waits for nghttp2_session_resume_data */
    bool finishing; /* no more messages follow */
    bool full;      /* transfer_writable() says no until half is gone */
    bool tell_writable;
    /* In. */
    struct frame_reader rx;
    bool paused;
    bool deaf;        /* what comes is of no interest any more */
    bool dispatching; /* a message of rx is in the user's hands */
    bool peer_ended, end_told;
    size_t unconsumed; /* bytes not given back to the stream's window */
    size_t owed;       /* ... to the connection's window */
    size_t counted;    /* this call's part of conn->buffered */
};

void transfer_init(struct transfer *t, const struct transfer_ops *ops, struct turn *turn,
                   size_t message_max);
void transfer_attach(struct transfer *t, struct conn *conn,
                     int32_t stream_id);  /* takes a reference */
void transfer_detach(struct transfer *t); /* the session forgot the stream: drops that reference */
void transfer_ref(struct transfer *t);
void transfer_unref(struct transfer *t);

void transfer_send(struct transfer *t, struct bytes message);
void transfer_finish(struct transfer *t);
void transfer_discard_unsent(struct transfer *t);
bool transfer_writable(const struct transfer *t);
size_t transfer_queued(const struct transfer *t);
/* The data provider of the request or response: source.ptr is the transfer. */
ssize_t transfer_provide(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
                         uint32_t *data_flags, nghttp2_data_source *source, void *user_data);

void transfer_receive(struct transfer *t, struct bytes chunk);
void transfer_receive_end(struct transfer *t);
void transfer_pause(struct transfer *t);
void transfer_resume(struct transfer *t);
void transfer_deafen(struct transfer *t);

#endif
