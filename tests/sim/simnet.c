#include "tests/sim/simnet.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/peer/codec.h"
#include "lib/base/memory.h"
#include "tests/sim/note.h"
#include "tests/sim/sim.h"

struct packet {
    uint64_t from, to, epoch;
    uint64_t first, last; /* entries in it, 0: none */
    bool damaged, again;  /* again: a duplicate */
    size_t size;
    uint8_t data[];
};

void simnet_init(struct simnet *net, struct sim *s)
{
    *net = (struct simnet){.sim = s, .rng = world_rng(&s->world, 1)};
    list_init(&net->streams);
}

void simnet_free(struct simnet *net)
{
    snapstream_free_all(net);
}

uint64_t simnet_delay(struct simnet *net, const struct link *l)
{
    const struct faults *f = &net->sim->faults;
    uint64_t range = net->sim->calm ? MS : f->delay_max;
    uint64_t delay = 50000 + simrng_below(&net->rng, range);
    if (!net->sim->calm && simrng_chance(&net->rng, f->late_percent))
        delay += simrng_below(&net->rng, f->late_max);
    return delay + l->slow;
}

/* ---- sending ------------------------------------------------------------------------------------ */

void simnet_members(struct replica_transport *t, const struct replica_member *members, size_t count)
{
    (void)t, (void)members, (void)count; /* ids are addresses here */
}

void simnet_send(struct replica_transport *t, const struct raft_message *m)
{
    struct simnode *n = CONTAINER_OF(t, struct simnode, transport);
    if (!sim_node(n->sim, m->to))
        return;
    if (m->type == RAFT_MSG_SNAPSHOT) {
        snapstream_begin(n, m->to);
        return;
    }
    struct buf *b = &n->outbox[m->to];
    if (b->n == 0)
        codec_batch_begin(b, n->sim->cluster_id, n->id);
    codec_batch_add(b, m);
    if (m->type == RAFT_MSG_APPEND && m->entry_count > 0) {
        if (!n->outbox_entries[m->to].first)
            n->outbox_entries[m->to].first = m->index + 1;
        n->outbox_entries[m->to].last = m->index + m->entry_count;
    }
}

static void on_unreachable(struct world *w, void *ctx, uint64_t id, uint64_t boot)
{
    (void)w;
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_unreachable, id, boot))
        return;
    replica_peer_unreachable(n->replica, id);
    simnode_settle(n);
}

static void on_gone(struct world *w, void *ctx, uint64_t id, uint64_t boot)
{
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_gone, id, boot))
        return;
    TRACE2(w, "%m: its connection to %m is reset", n->id, id);
    replica_peer_gone(n->replica, id);
    simnode_settle(n);
}

static void on_arrival(struct world *w, void *ctx, uint64_t a, uint64_t b);

static void post(struct simnet *net, const struct packet *p)
{
    struct link *l = &net->links[p->from][p->to];
    const struct faults *f = &net->sim->faults;
    bool calm = net->sim->calm;
    if (l->cut || (!calm && simrng_chance(&net->rng, f->loss_percent))) {
        note_lost(net->sim,
                  l->cut ? ">entries %i to %j from %m to %m are lost: the link is cut"
                         : ">entries %i to %j from %m to %m are lost on the way",
                  p->from, p->to, p->first, p->last);
        return;
    }
    struct packet *copy = xmalloc(sizeof(*copy) + p->size);
    memcpy(copy, p, sizeof(*copy) + p->size);
    copy->epoch = l->epoch;
    if (!calm && simrng_below(&net->rng, 1000) < f->damage_permille) {
        copy->damaged = true;
        uint64_t bit = simrng_below(&net->rng, 8 * p->size);
        copy->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    uint64_t at = net->sim->world.now + simnet_delay(net, l);
    bool reorder = !calm && simrng_chance(&net->rng, f->reorder_percent);
    if (!reorder && at <= l->last)
        at = l->last + 1;
    if (!reorder)
        l->last = at;
    world_after(&net->sim->world, at - net->sim->world.now, on_arrival, net, (uintptr_t)copy, 0);
}

static void flush_to(struct simnode *n, uint64_t to)
{
    struct simnet *net = &n->sim->net;
    struct buf *b = &n->outbox[to];
    codec_batch_end(b);
    struct packet *p = xmalloc(sizeof(*p) + b->n);
    *p = (struct packet){
        .from = n->id,
        .to = to,
        .size = b->n,
        .first = n->outbox_entries[to].first,
        .last = n->outbox_entries[to].last,
    };
    n->outbox_entries[to].first = 0;
    memcpy(p->data, b->p, b->n);
    b->n = 0;
    net->sent++;
    post(net, p);
    p->again = true;
    if (!n->sim->calm && simrng_chance(&net->rng, n->sim->faults.duplicate_percent))
        post(net, p);
    free(p);
    struct simnode *other = sim_node(n->sim, to);
    if (!other->replica && !net->links[n->id][to].cut && simrng_chance(&net->rng, 30))
        simnode_after(n, simnet_delay(net, &net->links[n->id][to]), on_unreachable, to);
}

void simnet_flush(struct simnode *n)
{
    for (uint64_t to = 1; to <= n->sim->node_count; to++) {
        if (n->outbox[to].n)
            flush_to(n, to);
    }
}

/* ---- arriving ----------------------------------------------------------------------------------- */

static void hand_over(struct simnode *n, const struct packet *p)
{
    struct world *w = &n->sim->world;
    Raftpb__MessageBatch *batch = codec_batch_unpack(bytes_of(p->data, p->size));
    if (p->damaged) {
        if (batch)
            world_fail(w, "a damaged batch passed its checksum");
        TRACE2(w, "!%m gets a damaged packet of %m, and drops it", n->id, p->from);
        simnet_reset(&n->sim->net, p->from, p->to);
        return;
    }
    if (!batch)
        world_fail(w, "a whole batch did not pass its checksum");
    for (size_t i = 0; i < batch->n_messages; i++) {
        struct raft_message m;
        if (codec_from_wire(batch->messages[i], &m) != ERR_OK)
            world_fail(w, "a member sent a message that can't be decoded");
        note_message(n, &m);
        /* No transport repeats a proposal: one without a session would be applied twice. */
        if (!p->again || m.type != RAFT_MSG_PROPOSE)
            replica_receive(n->replica, &m);
        codec_message_free(&m);
    }
    raftpb__message_batch__free_unpacked(batch, NULL);
    simnode_settle(n);
}

static void on_arrival(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    struct simnet *net = ctx;
    struct packet *p = (struct packet *)(uintptr_t)a;
    struct link *l = &net->links[p->from][p->to];
    struct simnode *n = sim_node(net->sim, p->to);
    if (n->replica && w->now < n->paused_until && l->epoch == p->epoch) {
        world_after(w, n->paused_until - w->now, on_arrival, net, a, b);
        return;
    }
    if (n->replica && !l->cut && l->epoch == p->epoch) {
        net->delivered++;
        hand_over(n, p);
    } else {
        note_lost(net->sim,
                  n->replica ? ">entries %i to %j from %m to %m are lost with the connection"
                             : ">entries %i to %j from %m to %m arrive nowhere: it is down",
                  p->from, p->to, p->first, p->last);
    }
    free(p);
}

/* ---- connections -------------------------------------------------------------------------------- */

void simnet_reset(struct simnet *net, uint64_t a, uint64_t b)
{
    struct simnode *na = sim_node(net->sim, a), *nb = sim_node(net->sim, b);
    net->links[a][b].epoch++;
    net->links[b][a].epoch++;
    if (na->replica)
        simnode_after(na, simnet_delay(net, &net->links[b][a]), on_gone, b);
    if (nb->replica)
        simnode_after(nb, simnet_delay(net, &net->links[a][b]), on_gone, a);
}

void simnet_reset_all(struct simnode *n, bool loud)
{
    struct simnet *net = &n->sim->net;
    for (size_t i = 0; i < n->sim->node_count; i++) {
        struct simnode *other = n->sim->nodes[i];
        if (other == n)
            continue;
        net->links[n->id][other->id].epoch++;
        net->links[other->id][n->id].epoch++;
        if (loud && other->replica && !net->links[n->id][other->id].cut)
            simnode_after(other, simnet_delay(net, &net->links[n->id][other->id]), on_gone, n->id);
    }
}

void simnet_drop_all(struct simnode *n)
{
    snapstream_drop(n);
    for (size_t i = 0; i < NODE_LINKS_MAX; i++)
        n->outbox[i].n = n->outbox_entries[i].first = 0;
}

void simnet_cut(struct simnet *net, uint64_t from, uint64_t to, bool cut)
{
    net->links[from][to].cut = cut;
}

void simnet_heal(struct simnet *net)
{
    for (size_t i = 0; i < NET_LINKS; i++) {
        for (size_t k = 0; k < NET_LINKS; k++) {
            net->links[i][k].cut = false;
            net->links[i][k].slow = 0;
        }
    }
}
