/* Snapshots on their way: what daemon/peer does over gRPC, chunk by chunk. */
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
    uint64_t from, to, from_boot, to_boot;
    struct replica_snapshot *source; /* NULL: the sender is through with it */
    bool receiving;                  /* the receiver has begun, and not ended */
    bool storing;                    /* a chunk is with the receiver's replica */
    struct raft_message message;
    struct buf chunk;
    bool last;
    bool damaged; /* a chunk was, on its way */
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

/* Both ends give up, each if it is still there. */
static void give_up(struct snapstream *t)
{
    struct simnode *n = receiver(t);
    if (n) {
        t->receiving = false;
        n->receiving = NULL;
        replica_receive_snapshot_abort(n->replica);
        simnode_settle(n);
    }
    t->receiving = false;
    n = sender(t);
    if (n) {
        struct replica_snapshot *source = t->source;
        t->source = NULL;
        TRACE2(&t->sim->world, "=%m: its snapshot for %m did not get through", t->from, t->to);
        replica_snapshot_sent(source, false);
        simnode_settle(n);
    }
    t->source = NULL;
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

/* ---- the sender --------------------------------------------------------------------------------- */

static void arrive_chunk(struct snapstream *t);

/* TCP's sum misses some. Whatever it is, the receiver must not take the snapshot. */
static void may_damage(struct snapstream *t)
{
    const struct sim *s = t->sim;
    struct simrng *rng = &t->sim->net.rng;
    if (s->calm || s->faults.damage_permille == 0 || !simrng_chance(rng, DAMAGED_PERCENT))
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
    may_damage(t);
    pass(t, t->from, t->to, arrive_chunk);
}

static void arrive_ack(struct snapstream *t)
{
    struct simnode *n = sender(t);
    if (!n)
        return;
    if (t->last) {
        struct replica_snapshot *source = t->source;
        t->source = NULL;
        TRACE2(&t->sim->world, "=%m: its snapshot for %m is all there", t->from, t->to);
        replica_snapshot_sent(source, true);
    } else {
        replica_snapshot_next(t->source, on_read, t);
    }
    simnode_settle(n);
}

static void arrive_refusal(struct snapstream *t)
{
    give_up(t);
}

/* ---- the receiver ------------------------------------------------------------------------------- */

static void on_stored(void *ctx, enum errc code)
{
    struct snapstream *t = ctx;
    t->storing = false;
    t->steps++;
    struct simnode *n = receiver(t);
    assert(n);
    if (code == ERR_OK && !t->last) {
        pass(t, t->to, t->from, arrive_ack);
        return;
    }
    t->receiving = false;
    n->receiving = NULL;
    if (code == ERR_OK && t->damaged)
        world_fail_about(&t->sim->world, ABOUT(.member = t->to, .other = t->from),
                         "member %llu took a snapshot that was damaged on its way",
                         (unsigned long long)t->to);
    if (code == ERR_CORRUPT && !t->damaged && !sim_node(t->sim, t->from)->damaged && !n->damaged)
        world_fail_about(&t->sim->world, ABOUT(.member = t->to, .other = t->from),
                         "member %llu finds the snapshot of the intact %llu damaged",
                         (unsigned long long)t->to, (unsigned long long)t->from);
    if (code != ERR_OK)
        replica_receive_snapshot_abort(n->replica);
    pass(t, t->to, t->from, code == ERR_OK ? arrive_ack : arrive_refusal);
}

static void arrive_chunk(struct snapstream *t)
{
    struct simnode *n = receiver(t);
    if (!n || t->storing)
        return;
    t->storing = true;
    replica_receive_snapshot_chunk(n->replica, buf_bytes(&t->chunk), t->last, on_stored, t);
    simnode_settle(n);
}

static void arrive_announcement(struct snapstream *t)
{
    struct simnode *n = sim_node(t->sim, t->to);
    if (!n->replica)
        return;
    enum errc code = replica_receive_snapshot_begin(n->replica, &t->message);
    TRACE4(&t->sim->world, "=%m is offered a snapshot by %m, of all up to entry %u: %e", t->to,
           t->from, t->message.snapshot_index, code);
    if (code == ERR_OK) {
        t->receiving = true;
        t->to_boot = n->boot;
        n->receiving = t;
        pass(t, t->to, t->from, arrive_ack);
    } else {
        pass(t, t->to, t->from, arrive_refusal);
    }
    simnode_settle(n);
}

/* ---- begin and end ------------------------------------------------------------------------------ */

static void on_begin(struct world *w, void *ctx, uint64_t to, uint64_t boot)
{
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_begin, to, boot))
        return;
    struct raft_message m;
    struct replica_snapshot *source = replica_snapshot_open(n->replica, to, &m);
    if (source) {
        struct snapstream *t = xcalloc(1, sizeof(*t));
        t->sim = n->sim;
        t->from = n->id;
        t->to = to;
        t->from_boot = n->boot;
        t->source = source;
        t->message = m;
        list_init(&t->link);
        list_append(&n->sim->net.streams, &t->link);
        TRACE3(w, "=%m begins to send %m a snapshot of all up to entry %u", n->id, to,
               m.snapshot_index);
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
    n->receiving = NULL;
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
