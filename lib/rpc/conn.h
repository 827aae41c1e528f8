/* A connection: a libuv stream and an nghttp2 session, the part that server and client share.
 *
 * Output waits for the end of the turn and goes out in one write, CONN_OUT_MAX bytes at a time; the
 * next is taken from the session only when the socket took the last. Windows are updated by hand
 * (transfer.h), so that a paused call stops its sender.
 *
 * Life: conn_init, conn_start once the handle is connected, then it ends exactly once (by the peer, an
 * error, or conn_end), which runs ops->down; its memory lives until ops->freed, which runs from the
 * loop after every call on the stack has returned. Between the two, the session is still there, but
 * nothing comes in or goes out. */
#ifndef RPC_CONN_H
#define RPC_CONN_H

#include <nghttp2/nghttp2.h>
#include <uv.h>

#include "lib/base/bytes.h"
#include "lib/base/list.h"
#include "lib/rpc/deadline.h"
#include "lib/rpc/turn.h"

/* One stream may be as much ahead of its reader as one full-speed round trip needs; the connection four
 * times that, so that one paused stream does not stop the others. */
#define CONN_STREAM_WINDOW (1024 * 1024)
#define CONN_WINDOW (4 * 1024 * 1024)
/* Bytes in one write: large enough that the system call does not count, small enough to be cheap. */
#define CONN_OUT_MAX (256 * 1024)
/* Bytes of incomplete or held back messages of all calls of a connection: over the first the
 * connection's window closes for paused calls, over the second a server refuses calls. */
#define CONN_HELD_MAX (16 * 1024 * 1024)
#define CONN_BUFFERED_MAX (256 * 1024 * 1024)
/* "SETTINGS_MAX_HEADER_LIST_SIZE": a token and some metadata, not a body. */
#define CONN_HEADER_LIST_MAX (16 * 1024)
/* Frames that wait while the peer does not read: more, and a server stops reading from it. */
#define CONN_FRAMES_WAITING_MAX 1000
/* How long an ended connection stays to let its last words be read. */
#define CONN_LINGER_MS 1000

struct conn;
struct conn_ops {
    /* Bytes from the peer, before the session sees them; false: they are dealt with. May be NULL. */
    bool (*input)(struct conn *c, struct bytes bytes);
    /* The connection is over: end its calls. `refused`: the peer's process is gone. */
    void (*down)(struct conn *c, bool refused, const char *reason);
    void (*freed)(struct conn *c);
};

struct conn {
    union {
        uv_handle_t any;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } handle;
    struct turn *turn;
    struct deadlines *deadlines;
    const struct conn_ops *ops;
    nghttp2_session *session; /* NULL before conn_start */
    struct turn_item flush;
    struct deadline linger;
    struct buf out;
    uv_write_t write;
    uv_shutdown_t shutdown;
    /* Stop reading while too much waits to be sent. A server only: if both sides did, both would stop. */
    bool bounded;
    bool silent; /* nothing goes out yet: a server sets it before conn_start */
    bool reading;
    bool writing;         /* `out` is libuv's until the write is done */
    bool ended;           /* ops->down has run; the session is not to be used */
    bool closed;          /* uv_close was called */
    size_t buffered;      /* see CONN_HELD_MAX */
    uint64_t received_ms; /* when the last bytes came, on uv_now()'s clock */
    char peer[64];        /* "127.0.0.1:4711", "unix:" */
};

/* Makes the libuv handle, not connected. */
void conn_init(struct conn *c, uv_loop_t *loop, bool is_unix, struct turn *turn,
               struct deadlines *deadlines, const struct conn_ops *ops);

/* Makes the session, sends the settings and begins to read. `max_streams` 0: a client's side. */
void conn_start(struct conn *c, const nghttp2_session_callbacks *callbacks, uint32_t max_streams);

void conn_schedule_flush(struct conn *c); /* after anything was submitted to the session */
void conn_flush_now(struct conn *c);      /* only outside of the session's callbacks */

/* Ends it at once. */
void conn_end(struct conn *c, bool refused, const char *reason);
/* Ends it after what is in `last_words` (may be empty) and already written was sent; the socket stays
 * for a moment, so that a reset does not overtake the words. */
void conn_end_gently(struct conn *c, struct bytes last_words, const char *reason);

#define CONN_NV(literal_name, literal_value)                                                       \
    ((nghttp2_nv){(uint8_t *)(literal_name), (uint8_t *)(literal_value), sizeof(literal_name) - 1, \
                  sizeof(literal_value) - 1,                                                       \
                  NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE})

static inline nghttp2_nv conn_nv(const char *name, struct bytes value)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value.p, strlen(name), value.n, 0};
}

#endif
