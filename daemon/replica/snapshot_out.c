/* Snapshots on their way out, to members that lag behind the log.
 *
 * A stream that breaks is not a snapshot that failed: it is kept, with what it reads from, and the transport is asked
 * for another stream as soon as the member is heard of again. To the core it is one transfer all the time. Without
 * a step forward for REPLICA_SNAPSHOT_KEEP_MS it is given up, since compaction waits for it. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define SNAPSHOT_OF(link_) CONTAINER_OF(link_, struct replica_snapshot, link)

static void note_given_up(struct replica_snapshot *s, const char *why)
{
    char text[256];
    snprintf(text, sizeof(text),
             "gives up the snapshot at %" PRIu64 " for member %" PRIx64 ", whose stream broke: %s",
             s->announcement.id.index, s->to, why);
    replica_note(s->replica, text);
}

static void snapshot_free(struct replica_snapshot *s)
{
    list_remove(&s->link);
    mvcc_snapshot_end(s->source);
    free(s);
}

static void report(struct replica_snapshot *s, bool ok)
{
    struct replica *r = s->replica;
    uint64_t to = s->to;
    snapshot_free(s);
    raft_report_snapshot(r->raft, to, ok);
    replica_wake(r);
}

static struct replica_snapshot *find_kept(struct replica *r, uint64_t to)
{
    for (struct list *it = r->snapshots.next; it != &r->snapshots; it = it->next) {
        struct replica_snapshot *s = SNAPSHOT_OF(it);
        if (s->to == to && !s->streaming)
            return s;
    }
    return NULL;
}

/* What makes it useless for the member, whatever comes of its stream; NULL: nothing. */
static const char *is_obsolete(const struct replica_snapshot *s)
{
    const struct replica *r = s->replica;
    if (!replica_leads(r) || r->status.term != s->announcement.message.term)
        return "this member doesn't lead any more";
    if (r->status.first_index > s->announcement.id.index + 1)
        return "the log has been cut behind it";
    return NULL;
}

static struct replica_snapshot *snapshot_new(struct replica *r, uint64_t to)
{
    struct replica_snapshot *s = xcalloc(1, sizeof(*s));
    struct replica_announcement *a = &s->announcement;
    s->replica = r;
    s->to = to;
    s->source = mvcc_snapshot_begin(r->store, &a->id.index, &a->id.term);
    a->id.maker = r->member_id;
    a->id.serial = r->config.env->random(r->config.env);
    a->size = mvcc_size_in_use(r->store);
    list_init(&s->link);
    list_append(&r->snapshots, &s->link);
    /* The membership is as of the applied entry, like the data (canonical/raft#250). */
    a->message = (struct raft_message){
        .type = RAFT_MSG_SNAPSHOT,
        .from = r->member_id,
        .to = to,
        .term = r->status.term,
        .snapshot_index = a->id.index,
        .snapshot_term = a->id.term,
    };
    if (MUTANT(snapshot_with_newest_membership)) /* canonical/raft#250 */
        a->message.snapshot_conf = r->status.conf;
    else
        member_list_conf(&r->members, &a->message.snapshot_conf);
    return s;
}

struct replica_snapshot *replica_snapshot_open(struct replica *r, uint64_t to,
                                               struct replica_announcement *ret_announcement)
{
    replica_refresh(r);
    struct replica_snapshot *s = find_kept(r, to);
    const char *obsolete = s ? is_obsolete(s) : NULL;
    if (obsolete) {
        note_given_up(s, obsolete);
        snapshot_free(s);
        s = NULL;
    }
    if (!replica_leads(r) || r->failed || r->closing || r->in.installing) {
        if (s)
            snapshot_free(s);
        raft_report_snapshot(r->raft, to, false);
        return NULL;
    }
    if (s)
        s->resent = true;
    else
        s = snapshot_new(r, to);
    s->streaming = true;
    *ret_announcement = s->announcement;
    return s;
}

enum errc replica_snapshot_go_on(struct replica_snapshot *s, const struct mvcc_snapshot_at *at)
{
    enum errc code = mvcc_snapshot_seek(s->source, at);
    char text[256];
    if (code != ERR_OK)
        snprintf(text, sizeof(text),
                 "member %" PRIx64 " is at no place of the snapshot at %" PRIu64 " (offset %" PRIu64
                 "): it begins anew",
                 s->to, s->announcement.id.index, at->offset);
    else if (at->offset > 0)
        snprintf(text, sizeof(text),
                 "the snapshot at %" PRIu64 " for member %" PRIx64 " goes on from offset %" PRIu64,
                 s->announcement.id.index, s->to, at->offset);
    else if (s->resent)
        snprintf(text, sizeof(text),
                 "the snapshot at %" PRIu64 " for member %" PRIx64
                 " begins anew: the member has nothing of it",
                 s->announcement.id.index, s->to);
    else
        return code;
    replica_note(s->replica, text);
    return code;
}

/* Damage that a snapshot comes upon is this member's own: it would come upon it again and again. */
static void on_out_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct replica_snapshot *s = ctx;
    struct replica *r = s->replica;
    s->reading = false;
    if (s->streaming)
        s->done(s->ctx, code, chunk, last); /* may end it */
    if (code != ERR_CORRUPT)
        return;
    struct error err;
    error_set(&err, code,
              "a row of the store is damaged (its checksum is wrong; found by a snapshot)");
    replica_fail(r, &err);
}

void replica_snapshot_next(struct replica_snapshot *s,
                           void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last),
                           void *ctx)
{
    assert(s->streaming && !s->reading);
    if (!replica_leads(s->replica) || s->announcement.message.term != s->replica->status.term) {
        done(ctx, ERR_NOT_LEADER, BYTES_EMPTY, false); /* the receiver couldn't install it */
        return;
    }
    s->done = done;
    s->ctx = ctx;
    s->reading = true;
    mvcc_snapshot_next(s->source, on_out_chunk, s);
}

struct mvcc_snapshot_at replica_snapshot_at(const struct replica_snapshot *s)
{
    return mvcc_snapshot_at(s->source);
}

void replica_snapshot_acknowledged(struct replica_snapshot *s)
{
    s->broken_ms = 0;
}

/* ---- the log behind it -------------------------------------------------------------------------- */

static void catch_up_begins(struct replica *r, uint64_t id, uint64_t index)
{
    size_t i = 0;
    while (i < r->catching_up_count && r->catching_up[i].id != id)
        i++;
    if (i == r->catching_up_count && i == RAFT_MEMBERS_MAX)
        return;
    r->catching_up_count += i == r->catching_up_count;
    r->catching_up[i] = (struct catching_up){id, index, replica_now_ms(r)};
}

/* False: it has caught up with where the log would begin without it, or hasn't moved for too long. */
static bool is_catching_up(const struct replica *r, struct catching_up *c, uint64_t to)
{
    uint64_t now = replica_now_ms(r);
    for (size_t i = 0; i < r->status.peer_count; i++) {
        const struct raft_peer_status *p = &r->status.peers[i];
        if (p->id != c->id)
            continue;
        if (p->match > c->index) {
            c->index = p->match;
            c->progress_ms = now;
        }
        return replica_leads(r) && (c->index < to || p->match < c->index) &&
               now - c->progress_ms < REPLICA_SNAPSHOT_KEEP_MS;
    }
    return false;
}

uint64_t snapshot_lowest(struct replica *r, uint64_t to)
{
    uint64_t lowest = UINT64_MAX;
    for (const struct list *it = r->snapshots.next; it != &r->snapshots; it = it->next) {
        uint64_t index = SNAPSHOT_OF(it)->announcement.id.index;
        lowest = index < lowest ? index : lowest;
    }
    for (size_t i = 0; i < r->catching_up_count;) {
        struct catching_up *c = &r->catching_up[i];
        if (!is_catching_up(r, c, to)) {
            *c = r->catching_up[--r->catching_up_count];
            continue;
        }
        lowest = c->index < lowest ? c->index : lowest;
        i++;
    }
    return lowest;
}

/* ---- ends --------------------------------------------------------------------------------------- */

void replica_snapshot_sent(struct replica_snapshot *s, bool ok)
{
    if (ok)
        catch_up_begins(s->replica, s->to, s->announcement.id.index);
    report(s, ok);
}

void replica_snapshot_broken(struct replica_snapshot *s, enum errc code)
{
    struct replica *r = s->replica;
    uint64_t now = replica_now_ms(r);
    bool refused = code == ERR_BUSY || code == ERR_NO_SPACE;
    if (code == ERR_EXISTS) {
        replica_snapshot_sent(s, true);
        return;
    }
    s->streaming = false;
    if (!s->broken_ms)
        s->broken_ms = now;
    s->retry_ms = now + (refused ? REPLICA_SNAPSHOT_RETRY_MS : r->config.tick_ms);
    if (code != ERR_OK && !refused && code != ERR_CANCELLED)
        report(s, false);
    replica_wake(r);
}

void snapshot_out_tick(struct replica *r)
{
    LIST_FOR_EACH_SAFE(it, tmp, &r->snapshots)
    {
        struct replica_snapshot *s = SNAPSHOT_OF(it);
        if (s->streaming || s->reading)
            continue;
        uint64_t now = replica_now_ms(r);
        const char *why = is_obsolete(s);
        if (!why && now - s->broken_ms >= REPLICA_SNAPSHOT_KEEP_MS)
            why = "nothing of it has arrived for too long";
        if (why) {
            note_given_up(s, why);
            report(s, false);
        } else if (now >= s->retry_ms && leader_finds_active(r, s->to)) {
            s->retry_ms = now + r->config.tick_ms; /* if the transport can't yet */
            r->config.transport->send(r->config.transport, &s->announcement.message);
        }
    }
}

void snapshot_out_end(struct replica *r)
{
    LIST_FOR_EACH_SAFE(it, tmp, &r->snapshots)
    snapshot_free(SNAPSHOT_OF(it));
}
