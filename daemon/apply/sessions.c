#include "daemon/apply/sessions.h"

#include <stdlib.h>

#include "daemon/apply/apply.h"
#include "lib/base/memory.h"

#define SESSION_BUCKETS 8192 /* a power of two, twice APPLY_SESSIONS_MAX */

void sessions_init(struct sessions *s)
{
    *s = (struct sessions){.buckets = xcalloc(SESSION_BUCKETS, sizeof(*s->buckets))};
    list_init(&s->oldest);
}

static struct session **slot(const struct sessions *s, uint64_t client_id)
{
    struct session **at = &s->buckets[(client_id * 0x9e3779b97f4a7c15u >> 40) % SESSION_BUCKETS];
    while (*at && (*at)->client_id != client_id)
        at = &(*at)->next;
    return at;
}

static void drop(struct sessions *s, struct session *e)
{
    *slot(s, e->client_id) = e->next;
    list_remove(&e->link);
    free((void *)e->response.p);
    free(e);
    s->count--;
}

void sessions_free(struct sessions *s)
{
    if (!s->buckets)
        return;
    LIST_FOR_EACH_SAFE(it, tmp, &s->oldest)
    drop(s, CONTAINER_OF(it, struct session, link));
    free(s->buckets);
    *s = (struct sessions){0};
}

const struct session *sessions_find(const struct sessions *s, uint64_t client_id)
{
    return *slot(s, client_id);
}

/* Stamps never go back in the log, so the place is at the end but for equal stamps (and at loading). */
static void link_in_order(struct sessions *s, struct session *e)
{
    struct list *before = &s->oldest;
    while (before->prev != &s->oldest) {
        const struct session *p = CONTAINER_OF(before->prev, struct session, link);
        if (p->stamp < e->stamp || (p->stamp == e->stamp && p->client_id < e->client_id))
            break;
        before = before->prev;
    }
    list_append(before, &e->link); /* puts it in front of `before` */
}

static struct session *set(struct sessions *s, uint64_t client_id, uint64_t seq, uint64_t stamp,
                           uint32_t code, struct bytes response)
{
    struct session **at = slot(s, client_id);
    struct session *e = *at;
    if (!e) {
        e = *at = xcalloc(1, sizeof(*e));
        e->client_id = client_id;
        s->count++;
    } else {
        list_remove(&e->link);
        free((void *)e->response.p);
    }
    list_init(&e->link);
    e->seq = seq;
    e->stamp = stamp;
    e->error = code;
    e->response = response.n ? bytes_of(bytes_dup(response), response.n) : BYTES_EMPTY;
    link_in_order(s, e);
    return e;
}

void sessions_remember(struct sessions *s, struct mvcc *store, uint64_t client_id, uint64_t seq,
                       uint64_t stamp, enum errc code, struct bytes response)
{
    set(s, client_id, seq, stamp, code, response);
    Raftpb__SessionRow row = RAFTPB__SESSION_ROW__INIT;
    row.seq = seq;
    row.stamp = stamp;
    row.error = code;
    row.response = (ProtobufCBinaryData){response.n, (uint8_t *)response.p};
    size_t n = raftpb__session_row__get_packed_size(&row);
    uint8_t *packed = xmalloc(n ? n : 1), key[8];
    raftpb__session_row__pack(&row, packed);
    put_le64(key, client_id);
    mvcc_bucket_put(store, MVCC_BUCKET_SESSION, bytes_of(key, 8), bytes_of(packed, n));
    free(packed);
    while (s->count > APPLY_SESSIONS_MAX) {
        struct session *oldest = CONTAINER_OF(s->oldest.next, struct session, link);
        put_le64(key, oldest->client_id);
        mvcc_bucket_put(store, MVCC_BUCKET_SESSION, bytes_of(key, 8), BYTES_EMPTY);
        drop(s, oldest);
    }
}

struct load {
    struct sessions *sessions;
    bool bad;
};

static void load_row(void *ctx, struct bytes key, struct bytes value)
{
    struct load *l = ctx;
    Raftpb__SessionRow *row =
        key.n == 8 ? raftpb__session_row__unpack(NULL, value.n, value.p) : NULL;
    if (!row) {
        l->bad = true;
        return;
    }
    set(l->sessions, get_le64(key.p), row->seq, row->stamp, row->error,
        bytes_of(row->response.data, row->response.len));
    raftpb__session_row__free_unpacked(row, NULL);
}

enum errc sessions_load(struct sessions *s, struct mvcc *store, struct error *err)
{
    struct load l = {s, false};
    enum errc code = mvcc_bucket_each(store, MVCC_BUCKET_SESSION, load_row, &l, err);
    if (code != ERR_OK)
        return code;
    if (l.bad)
        return error_set(err, ERR_CORRUPT, "a row of the sessions can't be decoded");
    return ERR_OK;
}
