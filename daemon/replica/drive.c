/* One turn of the loop: input into the core, what it has ready onto disk and wire, committed entries into
 * the state machine, answers to those who wait. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"

/* ---- appends under way -------------------------------------------------------------------------- */

static void persist_free(struct persist *p)
{
    list_remove(&p->link);
    for (size_t i = 0; i < p->count; i++) {
        for (size_t k = 0; k < p->messages[i].entry_count; k++)
            raft_entry_unref(p->messages[i].entries[k]);
        free(p->messages[i].entries);
    }
    free(p->messages);
    free(p);
}

static void send_all(struct replica *r, const struct raft_message *messages, size_t count)
{
    for (size_t i = 0; i < count; i++)
        r->config.transport->send(r->config.transport, &messages[i]);
}

static void on_synced(void *ctx, uint64_t token)
{
    struct replica *r = ctx;
    if (r->closing || r->failed)
        return;
    assert(!list_empty(&r->persists));
    struct persist *p = CONTAINER_OF(r->persists.next, struct persist, link);
    assert(p->token == token);
    send_all(r, p->messages, p->count);
    persist_free(p);
    disk_synced(r, token);
    raft_persisted(r->raft, token);
    replica_wake(r);
}

/* A copy that outlives the ready. */
static struct raft_message *copy_messages(const struct raft_message *messages, size_t count)
{
    struct raft_message *copy = xcalloc(count + 1, sizeof(*copy));
    for (size_t i = 0; i < count; i++) {
        copy[i] = messages[i];
        copy[i].entries = NULL;
        if (messages[i].entry_count)
            copy[i].entries = xcalloc(messages[i].entry_count, sizeof(struct raft_entry *));
        for (size_t k = 0; k < messages[i].entry_count; k++)
            copy[i].entries[k] = raft_entry_ref(messages[i].entries[k]);
    }
    return copy;
}

static void persist(struct replica *r, const struct raft_ready *d)
{
    const struct raft_hard_state *hs = d->has_hard_state ? &d->hard_state : NULL;
    if (d->persist_token == 0) {
        assert(d->entry_count == 0 && d->message_after_sync_count == 0);
        if (hs)
            wal_append(r->wal, hs, NULL, 0, NULL, NULL, 0);
        return;
    }
    struct persist *p = xcalloc(1, sizeof(*p));
    p->token = d->persist_token;
    p->begun_ms = replica_now_ms(r);
    p->messages = copy_messages(d->messages_after_sync, d->message_after_sync_count);
    p->count = d->message_after_sync_count;
    list_init(&p->link);
    list_append(&r->persists, &p->link);
    if (d->entry_count)
        disk_appended(r, p->token, d->entries[d->entry_count - 1]->index);
    wal_append(r->wal, hs, d->entries, d->entry_count, on_synced, r, d->persist_token);
}

/* ---- committed entries -------------------------------------------------------------------------- */

static void enqueue(struct replica *r, struct raft_entry *e)
{
    if (r->queue_count == r->queue_cap) {
        size_t cap = r->queue_cap ? r->queue_cap * 2 : APPLY_ENTRIES_A_POLL;
        struct raft_entry **queue = xcalloc(cap, sizeof(struct raft_entry *));
        for (size_t i = 0; i < r->queue_count; i++)
            queue[i] = r->queue[(r->queue_head + i) % r->queue_cap];
        free(r->queue);
        r->queue = queue;
        r->queue_cap = cap;
        r->queue_head = 0;
    }
    r->queue[(r->queue_head + r->queue_count++) % r->queue_cap] = raft_entry_ref(e);
}

static struct raft_entry *dequeue(struct replica *r)
{
    struct raft_entry *e = r->queue[r->queue_head];
    r->queue_head = (r->queue_head + 1) % r->queue_cap;
    r->queue_count--;
    return e;
}

void drive_applied_jumped(struct replica *r, uint64_t index)
{
    while (r->queue_count && r->queue[r->queue_head]->index <= index)
        raft_entry_unref(dequeue(r));
    r->settled_term = mvcc_applied_term(r->store);
    propose_settle(r, r->settled_term);
}

void drive_free(struct replica *r)
{
    while (r->queue_count)
        raft_entry_unref(dequeue(r));
    free(r->queue);
    LIST_FOR_EACH_SAFE(it, tmp, &r->persists)
    persist_free(CONTAINER_OF(it, struct persist, link));
}

/* The request's id without unpacking it: its first field (1, a varint). 0: there is none. */
static uint64_t peek_id(const struct raft_entry *e)
{
    uint64_t id = 0;
    if (e->type != RAFT_ENTRY_COMMAND || e->size == 0 || e->data[0] != 0x08)
        return 0;
    for (size_t i = 1; i < e->size && i <= 10; i++) {
        id |= (uint64_t)(e->data[i] & 0x7f) << (7 * (i - 1));
        if (!(e->data[i] & 0x80))
            return id;
    }
    return 0;
}

static enum errc apply_command(struct replica *r, const struct raft_entry *e, struct error *err)
{
    struct arena arena = {0};
    struct apply_result result = {0};
    struct replica_op *op = request_find(r, peek_id(e));
    enum errc code = apply_entry(r->apply, e, &arena, op ? &result : NULL, err);
    /* Again: a watcher's callback may have cancelled it. */
    op = code == ERR_OK && op ? request_find(r, result.request_id) : NULL;
    if (op && op->kind == OP_PROPOSAL)
        request_complete(op, &result);
    else if (op && op->kind == OP_RENEWAL)
        renewal_taken_back(op);
    arena_free(&arena);
    return code;
}

static enum errc apply_one(struct replica *r, const struct raft_entry *e, struct error *err)
{
    if (e->type == RAFT_ENTRY_CONF)
        return members_apply_conf(r, e, err);
    if (members_is_bootstrap(e)) {
        enum errc code = members_apply_bootstrap(r, e, err);
        members_tell(r);
        return code;
    }
    return apply_command(r, e, err);
}

static bool may_apply(const struct replica *r)
{
    return r->queue_count && !r->failed && !r->in.installing &&
           mvcc_backlog_bytes(r->store) < APPLY_BACKLOG_MAX;
}

static void apply_some(struct replica *r)
{
    size_t bytes = 0;
    for (size_t n = 0; n < APPLY_ENTRIES_A_POLL && bytes < APPLY_BYTES_A_POLL && may_apply(r);
         n++) {
        struct raft_entry *e = dequeue(r);
        struct error err = {0};
        enum errc code = apply_one(r, e, &err);
        bytes += e->size;
        uint64_t index = e->index, term = e->term;
        raft_entry_unref(e);
        if (code != ERR_OK) {
            if (err.code == ERR_OK)
                error_set(&err, code, "entry %llu can't be applied: %s", (unsigned long long)index,
                          errc_text(code));
            replica_fail(r, &err);
            return;
        }
        raft_applied(r->raft, index);
        if (term != r->settled_term) {
            r->settled_term = term;
            propose_settle(r, term);
        }
    }
}

/* ---- the turn ----------------------------------------------------------------------------------- */

static void carry_out(struct replica *r)
{
    struct raft_ready d;
    raft_ready(r->raft, &d);
    if (d.has_snapshot)
        snapshot_install(r, &d);
    persist(r, &d);
    send_all(r, d.messages, d.message_count);
    for (size_t i = 0; i < d.committed_count; i++)
        enqueue(r, d.committed[i]);
    for (size_t i = 0; i < d.read_state_count; i++)
        read_confirmed(r, &d.read_states[i]);
    for (size_t i = 0; i < d.refusal_count; i++)
        propose_refused(r, &d.refusals[i]);
}

/* As damage that a checksum shows: this member is of no use any more, and must not speak under its id. */
static void fail_forgetful(struct replica *r)
{
    struct error err;
    error_set(&err, ERR_CORRUPT,
              "%s: the log ends at entry %llu, but this member had acknowledged entry %llu in term "
              "%llu: its disk lost synced data, or an older copy of the directory was put back",
              r->config.data_dir, (unsigned long long)r->status.last_index,
              (unsigned long long)r->status.forgotten, (unsigned long long)r->status.term);
    replica_fail(r, &err);
}

bool replica_poll(struct replica *r)
{
    if (r->failed || r->closing)
        return false;
    raft_set_time(r->raft, r->config.env->wall_ns(r->config.env));
    replica_refresh(r);
    if (r->status.forgotten) {
        fail_forgetful(r);
        return false;
    }
    propose_pending(r);
    if (!list_empty(&r->reads_waiting))
        read_begin_round(r);
    size_t turns = 0;
    for (; turns < READIES_A_POLL && raft_has_ready(r->raft) && !r->failed; turns++)
        carry_out(r);
    snapshot_drop_refused(r);
    apply_some(r);
    if (r->failed)
        return false;
    replica_refresh(r);
    leader_watch(r);
    disk_watch(r);
    read_complete(r);
    requests_deliver_finished(r);
    bool watching = watch_hub_work(r->hub);
    return watching || raft_has_ready(r->raft) || may_apply(r) || !list_empty(&r->finished) ||
           (!r->read_context && !list_empty(&r->reads_waiting) && r->status.leader);
}

void replica_tick(struct replica *r)
{
    if (r->failed || r->closing)
        return;
    raft_set_time(r->raft, r->config.env->wall_ns(r->config.env));
    raft_tick(r->raft);
    replica_refresh(r);
    duties_tick(r);
    replica_wake(r);
}
