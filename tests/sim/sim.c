#include "tests/sim/sim.h"

#include <stdlib.h>

#include "lib/base/memory.h"
#include "tests/sim/note.h"

/* The liveness phase: a share of the time, within bounds. By LIVE_AFTER all is available again, in the
 * last part nothing new is asked, and all members become equal. */
#define CALM_MIN (18 * SECOND)
#define LIVE_AFTER (9 * SECOND)
#define QUIET (4 * SECOND)
#define SETTLE_STEP (300 * MS)
#define SETTLE_STEPS_MAX 60
#define SETTLE_WATCH (1200 * MS) /* a watch asks for its progress every 900 ms at least */

static size_t draw_size(struct world *w)
{
    static const size_t sizes[] = {3, 3, 3, 3, 3, 3, 5, 5, 1, 7};
    return sizes[simrng_below(&w->rng, ARRAY_LEN(sizes))];
}

/* All that the seed decides before the first member is there. */
static void draw(struct sim *s, const struct sim_options *o)
{
    world_init(&s->world, o->seed);
    s->world.print_state = note_state;
    s->world.state_ctx = s;
    s->world.loud = o->loud;
    faults_draw(&s->faults, s);
    s->initial_count = draw_size(&s->world);
    if (o->nodes)
        s->initial_count = o->nodes;
    if (o->clients)
        s->faults.client_count = o->clients;
    scenario_draw(&s->scenario, s, o->scenario);
    without_apply(&s->faults, o->without);
}

void sim_draw(const struct sim_options *o, struct sim_drawn *ret_drawn)
{
    struct sim *s = xcalloc(1, sizeof(*s));
    draw(s, o);
    *ret_drawn = (struct sim_drawn){s->initial_count, s->faults.client_count,
                                    without_drawn(&s->faults), s->scenario.kind};
    world_free(&s->world);
    free(s);
}

static void begin(struct sim *s, const struct sim_options *o)
{
    draw(s, o);
    simvfs_seed((uint32_t)o->seed | 1);
    s->cluster_id = SIM_CLUSTER_ID;
    simnet_init(&s->net, s);
    model_init(&s->model, &s->world);
    check_init(&s->check);
    for (size_t i = 0; i < s->initial_count; i++)
        s->nodes[s->node_count++] = simnode_new(s, i + 1, false);
    for (size_t i = 0; i < s->initial_count; i++)
        simnode_start(s->nodes[i]);
    clients_start(&s->clients, s);
    leases_start(&s->leases, s);
    watches_start(&s->watches, s);
    admin_start(&s->admin, s);
    faults_start(&s->faults);
    scenario_start(&s->scenario);
    disaster_start(&s->disaster, s);
    if (o->begun)
        o->begun(s);
}

static void run_until(struct sim *s, uint64_t until)
{
    while (world_step(&s->world, until))
        ;
}

static void check_alive(struct sim *s)
{
    struct clients *c = &s->clients;
    for (size_t i = 0; i < c->count; i++) {
        if (c->all[i].calm_succeeded == 0)
            world_fail(&s->world, "liveness: client %zu had no success in %llu s without faults",
                       i + 1, (unsigned long long)(LIVE_AFTER / SECOND));
    }
}

static void end(struct sim *s, struct sim_result *r)
{
    check_equal(s);
    hashes_check(s);
    watches_check_end(&s->watches);
    leases_check_end(&s->leases);
    repair_check_end(&s->admin);
    r->undecided = clients_check_histories(&s->clients);
    for (size_t i = 0; i < s->node_count; i++)
        world_mix(&s->world, simdisk_trace(s->nodes[i]->disk));
    r->hash = s->world.hash;
    r->events = s->world.events;
    r->snapshots = s->net.stats;
    r->requests = s->clients.asked;
    r->refused = s->clients.refused;
    r->revisions = (uint64_t)s->model.last;
}

/* A lease may end, or be checkpointed, in the very last moment: what was applied reaches all members, and every
 * watch, before they are compared. */
static void settle(struct sim *s)
{
    uint64_t applied;
    for (size_t i = 0; i < SETTLE_STEPS_MAX; i++) {
        applied = s->check.applied_last;
        run_until(s, s->world.now + SETTLE_STEP);
        if (applied == s->check.applied_last &&
            s->world.now - s->model.seen_at[s->model.last] >= SETTLE_WATCH)
            return;
    }
}

struct simnode *sim_leader(struct sim *s)
{
    for (size_t i = 0; i < s->node_count; i++) {
        struct raft_status status;
        if (!s->nodes[i]->replica)
            continue;
        replica_status(s->nodes[i]->replica, &status);
        if (status.role == RAFT_LEADER)
            return s->nodes[i];
    }
    return NULL;
}

void sim_run(const struct sim_options *o, struct sim_result *ret_result, struct world **ret_world)
{
    struct sim *s = xcalloc(1, sizeof(*s));
    *ret_world = &s->world;
    uint64_t total = o->seconds * SECOND;
    uint64_t calm = total / 4 > CALM_MIN ? total / 4 : CALM_MIN;
    begin(s, o);
    run_until(s, total > calm ? total - calm : 0);
    s->calm = true;
    scenario_stop(&s->scenario);
    faults_stop(&s->faults);
    run_until(s, s->world.now + LIVE_AFTER);
    check_alive(s);
    run_until(s, (total > calm ? total : calm) - QUIET);
    s->load_over = true;
    run_until(s, s->world.now + QUIET);
    hashes_ask(s);
    settle(s);
    end(s, ret_result);
    /* The process ends now; the worlds' memory goes with it. What is freed here is what a leak of the
     * code under test would hide in. */
    for (size_t i = 0; i < s->node_count; i++) {
        s->nodes[i]->gone = true;
        if (s->nodes[i]->replica)
            simnode_crash(s->nodes[i], false);
    }
    for (size_t i = 0; i < s->node_count; i++)
        simnode_free(s->nodes[i]);
    disaster_free(&s->disaster);
    simnet_free(&s->net);
    clients_free(&s->clients);
    check_free(&s->check);
    model_free(&s->model);
    *ret_world = NULL;
    world_free(&s->world);
    free(s);
}
