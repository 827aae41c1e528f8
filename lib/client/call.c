/* Unary calls: tried until there is an answer, an error that another try can't change, or the deadline.
 *
 * A write that may have reached a server is tried again only by its name (request id), and only at a
 * quorumd: another server would do it twice. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/client/internal.h"

/* Between two tries: an election takes from a tenth of a second to a second. */
#define RETRY_MS 20
#define RETRY_MS_MAX 500
/* A try that may be repeated elsewhere gets half of the time that is left, but at least this. */
#define TRY_MS_MIN 250
/* The rpc layer ends a try at its deadline; this is the net under it. */
#define DEADLINE_SLACK_MS 200

enum call_state {
    CALL_WAITING, /* for a connection, or to know what the server is */
    CALL_RUNNING,
    CALL_BACKOFF,
    CALL_FAILED, /* the timer hands out `code` */
    CALL_OVER,
};

struct client_call {
    struct list link;      /* in client->calls */
    struct client *client; /* NULL: asked of a client that was closing */
    enum call_state state;
    char *path;
    uint8_t *request;
    size_t request_size;
    const ProtobufCMessageDescriptor *response;
    bool read_only;
    bool needs_leader; /* a member that knows no leader refuses it at once */
    struct session *session;
    uint64_t began, deadline; /* uv_now's clock */
    client_done done;
    void *ctx;

    uv_timer_t timer;
    struct conn *conn; /* of the try under way */
    struct rpc_stream *stream;
    bool try_shortened;
    unsigned tries;
    bool maybe_done; /* a write that was sent and not answered */
    enum errc code;  /* of the last try */
    char text[RPC_STATUS_TEXT_MAX + 64];
};

struct client_call *call_of_link(struct list *link)
{
    return CONTAINER_OF(link, struct client_call, link);
}

static void on_call_closed(uv_handle_t *handle)
{
    struct client_call *call = CONTAINER_OF(handle, struct client_call, timer);
    free(call->path);
    free(call->request);
    free(call);
}

/* Nothing of the client refers to the call any more; its memory goes with its timer. */
static void call_detach(struct client_call *call)
{
    assert(call->state != CALL_OVER);
    call->state = CALL_OVER;
    if (call->stream)
        rpc_stream_cancel(call->stream);
    call->stream = NULL;
    if (call->conn)
        client_conn_release(call->conn);
    call->conn = NULL;
    if (call->session)
        call->session->busy = false;
    if (call->client) {
        list_remove(&call->link);
        call->client->call_count--;
    }
    uv_close((uv_handle_t *)&call->timer, on_call_closed);
}

static void call_finish(struct client_call *call, enum errc code, const char *text,
                        const ProtobufCMessage *message)
{
    struct client_result result = {
        .code = code,
        .text = text,
        .unknown = code != ERR_OK && call->maybe_done,
        .message = message,
    };
    call_detach(call);
    call->done(call->ctx, &result);
}

void call_close(struct client_call *call)
{
    if (call->stream && !call->read_only)
        call->maybe_done = true;
    call_finish(call, ERR_CLOSED, errc_text(ERR_CLOSED), NULL);
}

void client_cancel(struct client_call *call)
{
    if (call->state != CALL_OVER)
        call_detach(call);
}

/* ---- One try ------------------------------------------------------------------------------------- */

static void on_call_timer(uv_timer_t *timer);
static void on_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent);

static void timer_at(struct client_call *call, uint64_t at)
{
    uint64_t now = uv_now(call->timer.loop);
    uv_timer_start(&call->timer, on_call_timer, at > now ? at - now : 0, 0);
}

/* The user hears of it from the timer, not from inside whatever found out. */
static void call_fail_soon(struct client_call *call, enum errc code, const char *text)
{
    call->state = CALL_FAILED;
    call->code = code;
    if (text != call->text)
        snprintf(call->text, sizeof(call->text), "%s", text);
    timer_at(call, 0);
}

static struct session *session_take(struct client *c)
{
    for (size_t i = 0; i < CLIENT_SESSIONS_MAX; i++) {
        struct session *s = &c->sessions[i];
        if (s->busy)
            continue;
        while (s->id == 0)
            s->id = c->env->random(c->env);
        s->busy = true;
        s->seq++;
        return s;
    }
    return NULL;
}

static bool repeatable(const struct client_call *call)
{
    return call->read_only || (call->session && call->client->quorumd);
}

static void call_send(struct client_call *call, struct conn *conn)
{
    struct rpc_header headers[2];
    size_t count = 0;
    char id[64];
    if (call->needs_leader)
        headers[count++] = (struct rpc_header){bytes_str("hasleader"), bytes_str("true")};
    if (call->session) {
        snprintf(id, sizeof(id), "%016" PRIx64 "/%" PRIu64, call->session->id, call->session->seq);
        headers[count++] = (struct rpc_header){bytes_str("quorumfs-request-id"), bytes_str(id)};
    }
    uint64_t left = call->deadline - uv_now(call->client->loop);
    uint64_t try_ms = left;
    if (call->client->endpoint_count > 1 && repeatable(call) && left > TRY_MS_MIN)
        try_ms = left / 2 > TRY_MS_MIN ? left / 2 : TRY_MS_MIN;
    call->try_shortened = try_ms < left;
    call->state = CALL_RUNNING;
    call->tries++;
    call->conn = conn;
    conn->calls++;
    call->stream = rpc_unary(conn->channel, call->path, bytes_of(call->request, call->request_size),
                             try_ms, headers, count, on_answer, call);
    timer_at(call, call->deadline + DEADLINE_SLACK_MS);
}

/* Sends the call, or leaves it waiting. Runs no callback of the user. */
static void call_try(struct client_call *call)
{
    struct conn *conn = client_ready(call->client);
    bool late = uv_now(call->client->loop) >= call->deadline;
    if (!conn || late || (call->maybe_done && conn->kind == KIND_UNKNOWN)) {
        call->state = CALL_WAITING;
        timer_at(call, call->deadline);
        return;
    }
    if (call->maybe_done && conn->kind != KIND_QUORUMD) {
        call_fail_soon(call, call->code, call->text);
        return;
    }
    call_send(call, conn);
}

void call_conn_changed(struct client_call *call)
{
    if (call->state == CALL_WAITING)
        call_try(call);
}

/* ---- The outcome of a try ------------------------------------------------------------------------ */

/* The server says that it did nothing. */
static bool refused(enum errc code)
{
    return code == ERR_NO_LEADER || code == ERR_NOT_LEADER || code == ERR_NOT_LEARNER_CAPABLE ||
           code == ERR_TOO_MANY_REQUESTS;
}

static bool transient(const struct client_call *call, int status, enum errc code)
{
    if (code == ERR_NOT_CAPABLE || code == ERR_CLUSTER_VERSION_UNAVAILABLE)
        return false;
    return status == 14 || refused(code) || (code == ERR_DEADLINE && call->try_shortened);
}

static void call_retry_later(struct client_call *call)
{
    call->state = CALL_BACKOFF;
    uint64_t at = uv_now(call->client->loop) +
                  client_backoff_ms(call->client, call->tries, RETRY_MS, RETRY_MS_MAX);
    timer_at(call, at < call->deadline ? at : call->deadline);
}

static void call_succeeded(struct client_call *call, struct bytes answer)
{
    ProtobufCMessage *message = protobuf_c_message_unpack(call->response, NULL, answer.n, answer.p);
    call->maybe_done = false;
    if (!message) {
        call_finish(call, ERR_INTERNAL, "the server's answer cannot be read", NULL);
        return;
    }
    call_finish(call, ERR_OK, "", message);
    protobuf_c_message_free_unpacked(message, NULL);
}

static void on_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    struct client_call *call = ctx;
    struct conn *conn = call->conn;
    call->stream = NULL;
    call->conn = NULL;
    enum errc code = status == 0 ? ERR_OK : errc_from_grpc(status, text);
    bool retry = status != 0 && transient(call, status, code);
    bool is_etcd = conn->kind == KIND_ETCD;
    if (!retry && code != ERR_DEADLINE)
        client_conn_good(conn);
    /* Only now: it may let go of a connection that has been retired. */
    client_conn_release(conn);
    if (call->state == CALL_OVER) /* the client's state callback may have ended it */
        return;
    if (status == 0) {
        call_succeeded(call, answer);
        return;
    }
    if (!call->read_only && sent && !refused(code) && (retry || code == ERR_DEADLINE))
        call->maybe_done = true;
    else if (!retry)
        call->maybe_done = false; /* quorumd's answer to the name holds for all tries */
    call->code = code;
    snprintf(call->text, sizeof(call->text), "%s", text);
    if (!retry || (call->maybe_done && (!call->session || is_etcd))) {
        call_finish(call, code, call->text, NULL);
        return;
    }
    call_retry_later(call);
    if (client_endpoint_failed(code))
        client_conn_bad(conn, text);
}

static void call_expire(struct client_call *call)
{
    uint64_t ms = uv_now(call->timer.loop) - call->began;
    char text[sizeof(call->text) + 64];
    if (call->tries > 0 && call->code != ERR_OK) {
        snprintf(text, sizeof(text), "%s (given up after %" PRIu64 " ms)", call->text, ms);
        call_finish(call, call->code, text, NULL);
    } else if (call->tries == 0 && call->client->reason[0]) {
        snprintf(text, sizeof(text), "%s (given up after %" PRIu64 " ms)", call->client->reason,
                 ms);
        call_finish(call, ERR_UNAVAILABLE, text, NULL);
    } else {
        call_finish(call, ERR_DEADLINE, errc_text(ERR_DEADLINE), NULL);
    }
}

static void on_call_timer(uv_timer_t *timer)
{
    struct client_call *call = CONTAINER_OF(timer, struct client_call, timer);
    if (call->state == CALL_FAILED) {
        call_finish(call, call->code, call->text, NULL);
    } else if (uv_now(timer->loop) >= call->deadline) {
        if (call->state == CALL_RUNNING && !call->read_only)
            call->maybe_done = true;
        call_expire(call);
    } else if (call->state == CALL_BACKOFF) {
        call_try(call);
    }
}

/* ---- Asking -------------------------------------------------------------------------------------- */

struct call_spec {
    const char *path;
    const ProtobufCMessage *request;
    const ProtobufCMessageDescriptor *response;
    bool read_only, named, needs_leader;
    uint64_t timeout_ms;
    client_done done;
    void *ctx;
};

static struct client_call *call_start(struct client *c, const struct call_spec *spec)
{
    struct client_call *call = xcalloc(1, sizeof(*call));
    int rc = uv_timer_init(c->loop, &call->timer);
    assert(rc == 0);
    call->path = xstrdup(spec->path);
    call->request_size = protobuf_c_message_get_packed_size(spec->request);
    call->request = xmalloc(call->request_size + 1);
    protobuf_c_message_pack(spec->request, call->request);
    call->response = spec->response;
    call->read_only = spec->read_only;
    call->needs_leader = spec->needs_leader;
    call->done = spec->done;
    call->ctx = spec->ctx;
    call->began = uv_now(c->loop);
    call->deadline = call->began + (spec->timeout_ms ? spec->timeout_ms : c->timeout_ms);
    list_init(&call->link);
    if (c->closing) {
        call_fail_soon(call, ERR_CLOSED, errc_text(ERR_CLOSED));
        return call;
    }
    call->client = c;
    list_append(&c->calls, &call->link);
    c->call_count++;
    if (c->call_count > CLIENT_CALLS_MAX) {
        call_fail_soon(call, ERR_TOO_MANY_REQUESTS, errc_text(ERR_TOO_MANY_REQUESTS));
        return call;
    }
    if (spec->named && c->request_ids)
        call->session = session_take(c);
    call_try(call);
    return call;
}

struct client_call *client_range(struct client *c, const Etcdserverpb__RangeRequest *r,
                                 uint64_t timeout_ms, client_done done, void *ctx)
{
    return call_start(c, &(struct call_spec){
                             .path = "/etcdserverpb.KV/Range",
                             .request = &r->base,
                             .response = &etcdserverpb__range_response__descriptor,
                             .read_only = true,
                             .needs_leader = !r->serializable,
                             .timeout_ms = timeout_ms,
                             .done = done,
                             .ctx = ctx,
                         });
}

struct client_call *client_put(struct client *c, const Etcdserverpb__PutRequest *r,
                               uint64_t timeout_ms, client_done done, void *ctx)
{
    return call_start(c, &(struct call_spec){
                             .path = "/etcdserverpb.KV/Put",
                             .request = &r->base,
                             .response = &etcdserverpb__put_response__descriptor,
                             .named = true,
                             .needs_leader = true,
                             .timeout_ms = timeout_ms,
                             .done = done,
                             .ctx = ctx,
                         });
}

struct client_call *client_delete(struct client *c, const Etcdserverpb__DeleteRangeRequest *r,
                                  uint64_t timeout_ms, client_done done, void *ctx)
{
    return call_start(c, &(struct call_spec){
                             .path = "/etcdserverpb.KV/DeleteRange",
                             .request = &r->base,
                             .response = &etcdserverpb__delete_range_response__descriptor,
                             .named = true,
                             .needs_leader = true,
                             .timeout_ms = timeout_ms,
                             .done = done,
                             .ctx = ctx,
                         });
}

static bool only_ranges(Etcdserverpb__RequestOp *const *ops, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ops[i]->request_case != ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE)
            return false;
    return true;
}

struct client_call *client_txn(struct client *c, const Etcdserverpb__TxnRequest *r,
                               uint64_t timeout_ms, client_done done, void *ctx)
{
    bool read_only = only_ranges(r->success, r->n_success) && only_ranges(r->failure, r->n_failure);
    return call_start(c, &(struct call_spec){
                             .path = "/etcdserverpb.KV/Txn",
                             .request = &r->base,
                             .response = &etcdserverpb__txn_response__descriptor,
                             .read_only = read_only,
                             .named = !read_only,
                             .needs_leader = true,
                             .timeout_ms = timeout_ms,
                             .done = done,
                             .ctx = ctx,
                         });
}

struct client_call *client_unary(struct client *c, const char *path,
                                 const ProtobufCMessage *request,
                                 const ProtobufCMessageDescriptor *response, bool read_only,
                                 uint64_t timeout_ms, client_done done, void *ctx)
{
    return call_start(c, &(struct call_spec){
                             .path = path,
                             .request = request,
                             .response = response,
                             .read_only = read_only,
                             .timeout_ms = timeout_ms,
                             .done = done,
                             .ctx = ctx,
                         });
}
