/* Streams of snapshots: what daemon/peer does over gRPC, chunk by chunk. A stream breaks when its link is reset or cut,
 * and in some runs always after a few chunks. The sender notices at once, the receiver then or, as with a connection
 * that is half open, much later. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/peer/codec.h"
#include "lib/base/memory.h"
#include "tests/sim/sim.h"

#define DAMAGED_PERCENT 20 /* of chunks, where links damage at all */
#define STALL_MS 3000      /* without a step: the stream is given up, as by a keepalive */

struct snapstream {
    struct list link; /* net->streams */
    struct sim *sim;
    uint64_t from, to, from_boot, to_boot, epoch;
    struct replica_snapshot *source; /* NULL: the sender is through with it */
    bool receiving;                  /* the receiver's replica may call back */
    bool waiting;                    /* ... and will */
    uint64_t name;                   /* of the stream, with the receiver's replica */
    struct replica_announcement announcement;
    struct mvcc_snapshot_at at; /* of the next chunk */
    struct buf chunk;
    uint32_t sum;
    bool last;
    bool damaged; /* a chunk was, on its way */
    enum errc refusal;
    unsigned chunks;
    uint64_t steps;
    unsigned events; /* scheduled, pointing here */
};

typedef void (*stream_fn)(struct snapstream *t);

static struct simnode *sender(struct snapstream *t)
{
    struct simnode *n = sim_node(t->sim, t->from);
    return n->replica && n->boot == t->from_boot && t->source ? n : NULL;
}

static struct simnode *receiver(struct snapstream *t)
{
    struct simnode *n = sim_node(t->sim, t->to);
    return n->replica && n->boot == t->to_boot && t->receiving ? n : NULL;
}

static void free_if_over(struct snapstream *t)
{
    if (t->source || t->receiving || t->events)
        return;
    list_remove(&t->link);
    buf_free(&t->chunk);
    free(t);
}

static void receiver_leaves(struct snapstream *t)
{
    struct simnode *n = receiver(t);
    t->receiving = false;
    if (!n)
        return;
    replica_receive_snapshot_leave(n->replica, t->name);
    simnode_settle(n);
}

static void sender_leaves(struct snapstream *t, enum errc code)
{
    struct simnode *n = sender(t);
    struct replica_snapshot *source = t->source;
    t->source = NULL;
    if (!n)
        return;
    TRACE4(&t->sim->world, "=%m: the stream of its snapshot for %m broke at byte %u: %e", t->from,
           t->to, t->at.offset, code);
    replica_snapshot_broken(source, code);
    simnode_settle(n);
}

static void give_up(struct snapstream *t)
{
    receiver_leaves(t);
    sender_leaves(t, ERR_OK);
}

/* The connection is gone. A receiver that doesn't notice keeps the stream until another one takes over. */
static void cut_off(struct snapstream *t)
{
    if (simrng_chance(&t->sim->net.rng, 50))
        receiver_leaves(t);
    sender_leaves(t, ERR_OK);
}

static void on_event(struct world *w, void *ctx, uint64_t fn, uint64_t to)
{
    struct snapstream *t = ctx;
    struct simnode *n = sim_node(t->sim, to);
    if (n->replica && w->now < n->paused_until) {
        world_after(w, n->paused_until - w->now, on_event, t, fn, to);
        return;
    }
    t->steps++;
    if (t->sim->net.links[t->from][t->to].epoch != t->epoch)
        cut_off(t);
    else
        ((stream_fn)(uintptr_t)fn)(t);
    t->events--;
    free_if_over(t);
}

/* The next step, at the other end; lost if the link is cut, and then the stall is noticed. */
static void pass(struct snapstream *t, uint64_t from, uint64_t to, stream_fn fn)
{
    struct link *l = &t->sim->net.links[from][to];
    if (l->cut)
        return;
    t->events++;
    world_after(&t->sim->world, simnet_delay(&t->sim->net, l), on_event, t, (uintptr_t)fn, to);
}

static void on_stall(struct world *w, void *ctx, uint64_t steps, uint64_t b)
{
    struct snapstream *t = ctx;
    if (t->source || t->receiving) {
        if (t->steps == steps)
            give_up(t);
        else
            world_after(w, STALL_MS * MS, on_stall, t, t->steps, b);
    }
    if (t->source || t->receiving)
        return;
    t->events--;
    free_if_over(t);
}

/* ---- what was promised -------------------------------------------------------------------------- */

static struct carried *carried(struct snapstream *t)
{
    return &t->sim->net.carried[t->from][t->to];
}

/* What a receiver has acknowledged it still has: after a broken stream, and after the end of its process too, if
 * the power stayed and its disk was honest. */
static void check_kept(struct snapstream *t)
{
    struct carried *c = carried(t);
    const struct faults *f = &t->sim->faults;
    struct simnode *n = sim_node(t->sim, t->to);
    uint64_t serial = t->announcement.id.serial;
    bool kept = c->serial == serial && c->powers == n->powers && c->thrown == n->thrown;
    if (kept && !n->damaged && !f->on[FAULT_IO_ERROR] && !f->on[FAULT_DISK_FULL] &&
        t->at.offset < c->acked)
        world_fail_about(
            &t->sim->world, ABOUT(.member = t->to, .other = t->from),
            "member %llu acknowledged %llu bytes of a snapshot, and then had only %llu",
            (unsigned long long)t->to, (unsigned long long)c->acked,
            (unsigned long long)t->at.offset);
    if (c->serial != serial)
        *c = (struct carried){.serial = serial};
    c->powers = n->powers;
    c->thrown = n->thrown;
    c->acked = t->at.offset;
    t->sim->net.stats.resumed += t->at.offset > 0;
}

static void count_sent(struct snapstream *t)
{
    struct carried *c = carried(t);
    struct snapshot_stats *stats = &t->sim->net.stats;
    uint64_t end = t->at.offset + t->chunk.n;
    stats->bytes += t->chunk.n;
    if (t->at.offset < c->sent)
        stats->bytes_again += (end < c->sent ? end : c->sent) - t->at.offset;
    c->sent = end > c->sent ? end : c->sent;
}

/* ---- the sender --------------------------------------------------------------------------------- */

static void arrive_chunk(struct snapstream *t);

/* TCP's sum misses some. Whatever it is, the receiver must not take the snapshot. */
static void may_damage(struct snapstream *t)
{
    const struct sim *s = t->sim;
    struct simrng *rng = &t->sim->net.rng;
    if (s->calm || s->faults.damage_permille == 0 || t->chunk.n == 0 ||
        !simrng_chance(rng, DAMAGED_PERCENT))
        return;
    uint64_t bit = simrng_below(rng, 8 * t->chunk.n);
    t->chunk.p[bit / 8] ^= (uint8_t)(1u << bit % 8);
    t->damaged = true;
    TRACE3(&t->sim->world,
           "!%m: a bit of its snapshot for %m is flipped on the way (bit %u of a chunk)", t->from,
           t->to, bit);
}

static void on_read(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct snapstream *t = ctx;
    t->steps++;
    if (code != ERR_OK) {
        struct simnode *n = sender(t);
        struct replica_snapshot *source = t->source;
        t->source = NULL;
        if (code == ERR_CORRUPT && n)
            rot_found(n, "the store, sending a snapshot");
        replica_snapshot_sent(source, false);
        return; /* whoever made the replica call this settles it */
    }
    t->chunk.n = 0;
    buf_append(&t->chunk, chunk.p, chunk.n);
    t->last = last;
    t->sum = replica_snapshot_at(t->source).sum;
    count_sent(t);
    may_damage(t);
    pass(t, t->from, t->to, arrive_chunk);
}

static void read_next(struct snapstream *t)
{
    replica_snapshot_next(t->source, on_read, t);
}

static void arrive_begun(struct snapstream *t)
{
    struct simnode *n = sender(t);
    if (!n)
        return;
    check_kept(t);
    if (replica_snapshot_go_on(t->source, &t->at) == ERR_OK) {
        read_next(t);
    } else {
        struct replica_snapshot *source = t->source;
        t->source = NULL;
        replica_snapshot_sent(source, false);
    }
    simnode_settle(n);
}

static void arrive_ack(struct snapstream *t)
{
    struct simnode *n = sender(t);
    if (!n)
        return;
    /* At the end all must arrive in bounded time. */
    unsigned chunks_max = t->sim->calm ? 0 : t->sim->faults.stream_chunks_max;
    t->at.offset += t->chunk.n;
    carried(t)->acked = t->at.offset;
    replica_snapshot_acknowledged(t->source);
    if (t->last) {
        struct replica_snapshot *source = t->source;
        t->source = NULL;
        t->sim->net.stats.whole++;
        TRACE2(&t->sim->world, "=%m: its snapshot for %m is all there", t->from, t->to);
        replica_snapshot_sent(source, true);
    } else if (chunks_max && ++t->chunks >= chunks_max) {
        cut_off(t);
        return;
    } else {
        read_next(t);
    }
    simnode_settle(n);
}

static void arrive_refusal(struct snapstream *t)
{
    sender_leaves(t, t->refusal);
}

/* ---- the receiver ------------------------------------------------------------------------------- */

static void refuse(struct snapstream *t, enum errc code)
{
    t->receiving = false;
    t->refusal = code;
    pass(t, t->to, t->from, arrive_refusal);
}

static void on_begun(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    struct snapstream *t = ctx;
    t->steps++;
    t->waiting = false;
    if (code != ERR_OK) {
        refuse(t, code);
        return;
    }
    t->at = at;
    pass(t, t->to, t->from, arrive_begun);
}

static void on_stored(void *ctx, enum errc code)
{
    struct snapstream *t = ctx;
    t->waiting = false;
    t->steps++;
    struct simnode *n = receiver(t);
    assert(n);
    if (code == ERR_OK && t->damaged)
        world_fail_about(&t->sim->world, ABOUT(.member = t->to, .other = t->from),
                         "member %llu took a snapshot that was damaged on its way",
                         (unsigned long long)t->to);
    if (code == ERR_CORRUPT && !t->damaged && !sim_node(t->sim, t->from)->damaged && !n->damaged)
        world_fail_about(&t->sim->world, ABOUT(.member = t->to, .other = t->from),
                         "member %llu finds the snapshot of the intact %llu damaged",
                         (unsigned long long)t->to, (unsigned long long)t->from);
    if (code != ERR_OK) {
        refuse(t, code);
        return;
    }
    t->receiving = !t->last;
    pass(t, t->to, t->from, arrive_ack);
}

static void arrive_chunk(struct snapstream *t)
{
    struct simnode *n = receiver(t);
    if (!n || t->waiting)
        return;
    struct replica_chunk chunk = {buf_bytes(&t->chunk), t->at.offset, t->sum, t->last};
    t->waiting = true;
    enum errc code = replica_receive_snapshot_chunk(n->replica, t->name, &chunk);
    if (code != ERR_OK) {
        t->waiting = false;
        refuse(t, code);
    }
    simnode_settle(n);
}

static void arrive_announcement(struct snapstream *t)
{
    struct simnode *n = sim_node(t->sim, t->to);
    if (!n->replica)
        return;
    struct replica_receiver r = {on_begun, on_stored, t};
    t->receiving = t->waiting = true;
    t->to_boot = n->boot;
    enum errc code = replica_receive_snapshot_begin(n->replica, &t->announcement, &r, &t->name);
    TRACE4(&t->sim->world, "=%m is offered a snapshot by %m, of all up to entry %u: %e", t->to,
           t->from, t->announcement.id.index, code);
    if (code != ERR_OK) {
        t->waiting = false;
        refuse(t, code);
    }
    simnode_settle(n);
}

/* ---- begin and end ------------------------------------------------------------------------------ */

static void on_begin(struct world *w, void *ctx, uint64_t to, uint64_t boot)
{
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_begin, to, boot))
        return;
    struct replica_announcement a;
    struct replica_snapshot *source = replica_snapshot_open(n->replica, to, &a);
    if (source) {
        struct snapstream *t = xcalloc(1, sizeof(*t));
        t->sim = n->sim;
        t->from = n->id;
        t->to = to;
        t->from_boot = n->boot;
        t->epoch = n->sim->net.links[n->id][to].epoch;
        t->source = source;
        t->announcement = a;
        list_init(&t->link);
        list_append(&n->sim->net.streams, &t->link);
        n->sim->net.stats.streams++;
        TRACE3(w, "=%m begins to send %m a snapshot of all up to entry %u", n->id, to, a.id.index);
        t->events++;
        world_after(w, STALL_MS * MS, on_stall, t, 0, 0);
        pass(t, t->from, t->to, arrive_announcement);
    }
    simnode_settle(n);
}

void snapstream_begin(struct simnode *from, uint64_t to)
{
    simnode_after(from, 10000, on_begin, to); /* not inside of send() */
}

void snapstream_drop(struct simnode *n)
{
    LIST_FOR_EACH_SAFE(it, tmp, &n->sim->net.streams)
    {
        struct snapstream *t = CONTAINER_OF(it, struct snapstream, link);
        if (t->from == n->id && t->from_boot == n->boot)
            t->source = NULL; /* replica_abandon() frees it */
        if (t->to == n->id && t->receiving && t->to_boot == n->boot)
            t->receiving = false;
    }
}

void snapstream_free_all(struct simnet *net)
{
    LIST_FOR_EACH_SAFE(it, tmp, &net->streams)
    {
        struct snapstream *t = CONTAINER_OF(it, struct snapstream, link);
        buf_free(&t->chunk);
        free(t);
    }
    list_init(&net->streams);
}
