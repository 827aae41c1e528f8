/* The network between the members of replica_fixture.h: queues of messages, and streams of snapshots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/replica_fixture.h"

void parcel_free(struct parcel *p)
{
    list_remove(&p->link);
    for (size_t i = 0; i < p->m.entry_count; i++)
        raft_entry_unref(p->m.entries[i]);
    free(p->m.entries);
    free(p);
}

/* What either side waits for is not told it any more. */
static void transfer_drop(struct transfer *t)
{
    if (t->to->replica)
        replica_receive_snapshot_leave(t->to->replica, t->stream);
    free(t->chunk);
    *t = (struct transfer){0};
}

static void transfer_end(struct transfer *t, bool ok)
{
    struct replica_snapshot *source = t->from->replica ? t->source : NULL;
    transfer_drop(t);
    if (source)
        replica_snapshot_sent(source, ok);
}

void transfer_break(struct transfer *t, enum errc code)
{
    struct replica_snapshot *source = t->from->replica ? t->source : NULL;
    transfer_drop(t);
    if (source)
        replica_snapshot_broken(source, code);
}

static void enqueue(struct node *to, const struct raft_message *m)
{
    struct parcel *p = xcalloc(1, sizeof(*p));
    p->m = *m;
    p->m.entries = m->entry_count ? xcalloc(m->entry_count, sizeof(struct raft_entry *)) : NULL;
    /* Each member has entries of its own, as over a wire. */
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct raft_entry *e = m->entries[i];
        p->m.entries[i] =
            raft_entry_new(e->term, e->index, e->type, e->stamp, bytes_of(e->data, e->size));
    }
    list_init(&p->link);
    list_append(&to->inbox, &p->link);
}

void network_send(struct replica_transport *transport, const struct raft_message *m)
{
    struct node *from = (struct node *)transport, *to = node_of(m->to);
    if (!to || !to->replica || from->cut || to->cut) {
        if (m->type == RAFT_MSG_SNAPSHOT)
            replica_peer_unreachable(from->replica, m->to);
        return;
    }
    if (m->type == RAFT_MSG_SNAPSHOT) {
        if (from->transfer.source)
            return;
        from->transfer = (struct transfer){.from = from, .to = to};
        from->transfer.source =
            replica_snapshot_open(from->replica, m->to, &from->transfer.announcement);
        cl.streams++;
        return;
    }
    enqueue(to, m);
    if (m->type == RAFT_MSG_PROPOSE_REFUSED) /* a network may say it twice */
        enqueue(to, m);
}

static void on_chunk_stored(void *ctx, enum errc code)
{
    struct transfer *t = ctx;
    t->waiting = false;
    if (code != ERR_OK) {
        transfer_break(t, code);
        return;
    }
    replica_snapshot_acknowledged(t->source);
    t->chunks++;
    if (t->last) {
        t->to->snapshots_in++;
        transfer_end(t, true);
    } else if (cl.stream_chunks_max && t->chunks >= cl.stream_chunks_max) {
        transfer_break(t, ERR_OK);
    }
}

static void on_chunk_read(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct transfer *t = ctx;
    if (code != ERR_OK || !t->to->replica) {
        transfer_end(t, false);
        return;
    }
    free(t->chunk);
    t->chunk = bytes_dup(chunk);
    t->last = last;
    struct replica_chunk c = {bytes_of(t->chunk, chunk.n), t->offset,
                              replica_snapshot_at(t->source).sum, last};
    t->offset += chunk.n;
    cl.bytes_carried += chunk.n;
    enum errc refused = replica_receive_snapshot_chunk(t->to->replica, t->stream, &c);
    if (refused)
        transfer_break(t, refused);
}

static void on_stream_begun(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    struct transfer *t = ctx;
    t->waiting = false;
    if (code != ERR_OK) {
        transfer_break(t, code);
        return;
    }
    t->begun = true;
    t->offset = at.offset;
    if (replica_snapshot_go_on(t->source, &at) != ERR_OK)
        transfer_end(t, false);
}

void transfer_step(struct transfer *t)
{
    t->waiting = true;
    if (t->begun) {
        replica_snapshot_next(t->source, on_chunk_read, t);
        return;
    }
    struct replica_receiver receiver = {on_stream_begun, on_chunk_stored, t};
    enum errc code = t->to->replica ? replica_receive_snapshot_begin(
                                          t->to->replica, &t->announcement, &receiver, &t->stream)
                                    : ERR_OK;
    if (code || !t->to->replica)
        transfer_break(t, code);
}
