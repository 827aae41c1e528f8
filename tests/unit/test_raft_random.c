/* Random schedules with fixed seeds: messages are dropped, duplicated and reordered, links cut, members
 * crash and lose what is not synced, logs are compacted, members come and go. The fixture checks the
 * properties of the paper's Figure 3 all the while; at the end everything heals, and the cluster must
 * elect a leader, commit a proposal and agree. SEED=n runs that seed alone
 * and shows what happens, SEEDS=n the first n. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/raft_fixture.h"

#define SEEDS 1000
#define STEPS 600
#define QUEUE_MAX 400 /* messages under way; beyond, the network drops */

struct run {
    struct fixture f;
    uint64_t random;
    size_t members;
    bool restless; /* members come and go all the time */
    uint64_t read_context;
    size_t proposed;
    /* Linearizability of reads: what was applied anywhere when read i began. */
    uint64_t floor[4096];
    size_t reads_checked[FIXTURE_MEMBERS_MAX + 1];
};

static uint64_t draw(struct run *r, uint64_t below)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return (r->random >> 11) % below;
}

static void network(struct run *r)
{
    struct fixture *f = &r->f;
    while (f->queue_count > QUEUE_MAX)
        fixture_drop_at(f, draw(r, f->queue_count));
    if (f->queue_count == 0)
        return;
    size_t pos = draw(r, 3) == 0 ? draw(r, f->queue_count) : 0;
    uint64_t dice = draw(r, 100);
    if (dice < 8)
        fixture_drop_at(f, pos);
    else /* no transport repeats a proposal */
        fixture_deliver_at(f, pos, dice < 16 && f->queue[pos].type != RAFT_MSG_PROPOSE);
}

static uint64_t applied_anywhere(struct run *r)
{
    return r->f.committed_count == 0 ? 0 : r->f.committed_count - 1;
}

static void begin_read(struct run *r, uint64_t id)
{
    if (r->read_context + 1 >= sizeof r->floor / sizeof *r->floor)
        return;
    uint64_t context = ++r->read_context;
    r->floor[context] = applied_anywhere(r);
    raft_read_index(fixture_raft(&r->f, id), context);
    fixture_ready(&r->f, id);
}

static void check_reads(struct run *r)
{
    for (uint64_t id = 1; id <= r->members; id++) {
        struct fixture_member *m = &r->f.members[id];
        if (m->reads_done == r->reads_checked[id])
            continue;
        r->reads_checked[id] = m->reads_done;
        if (!m->last_read.failed && m->last_read.index < r->floor[m->last_read.context])
            fail_msg("read %" PRIu64 " at index %" PRIu64 ", but %" PRIu64
                     " had been applied when it began",
                     m->last_read.context, m->last_read.index, r->floor[m->last_read.context]);
    }
}

static void change_members(struct run *r, uint64_t id)
{
    enum raft_conf_change_type type = (enum raft_conf_change_type)draw(r, 3);
    fixture_conf(&r->f, id, type, 1 + draw(r, r->members));
}

static void member_event(struct run *r, uint64_t id)
{
    struct fixture *f = &r->f;
    uint64_t dice = draw(r, 1000);
    if (r->restless && draw(r, 8) == 0) {
        change_members(r, id);
    } else if (dice < 500) {
        fixture_tick(f, id, 1);
    } else if (dice < 700) {
        fixture_sync_one(f, id);
    } else if (dice < 850) {
        char text[32];
        snprintf(text, sizeof text, "p%zu", r->proposed++);
        raft_set_time(fixture_raft(f, id), draw(r, 1000000));
        fixture_propose(f, id, text);
    } else if (dice < 920) {
        begin_read(r, id);
    } else if (dice < 935) {
        fixture_compact(f, id, f->members[id].applied - draw(r, 5) % (f->members[id].applied + 1));
    } else if (dice < 945) {
        raft_report_peer_gone(fixture_raft(f, id), 1 + draw(r, r->members));
        fixture_ready(f, id);
    } else if (dice < 952) {
        raft_transfer_leader(fixture_raft(f, id), draw(r, r->members + 1));
        fixture_ready(f, id);
    } else if (dice < 965) {
        change_members(r, id);
    } else if (dice < 980) {
        fixture_cut(f, id, 1 + draw(r, r->members), draw(r, 3) == 0);
    } else if (dice < 990) {
        fixture_crash(f, id, draw(r, f->members[id].append_count + 1));
    } else {
        f->members[id].manual_sync = draw(r, 2) == 0;
    }
}

static void show(struct run *r)
{
    if (r->f.show_trace)
        fwrite(r->f.out.p, 1, r->f.out.n, stderr);
    r->f.out.n = 0;
}

static void heal(struct run *r)
{
    struct fixture *f = &r->f;
    for (uint64_t a = 1; a <= r->members; a++) {
        fixture_isolate(f, a, false);
        f->members[a].manual_sync = false;
        if (fixture_up(f, a))
            fixture_sync(f, a);
        else
            fixture_start(f, a);
    }
    /* A member that was removed and doesn't know it may still ask for votes: nobody minds. */
    for (size_t i = 0; i < 200 && fixture_leader(f) == 0; i++)
        fixture_tick_all(f, 1);
    fixture_tick_all(f, 6 * FIXTURE_ELECTION_TICKS);
    show(r);
    uint64_t leader = fixture_leader(f);
    assert_int_not_equal(leader, 0);
    assert_int_equal(fixture_propose(f, leader, "last"), ERR_OK);
    fixture_tick_all(f, FIXTURE_ELECTION_TICKS);
    show(r);
    struct raft_status s = fixture_status(f, leader);
    assert_int_equal(s.role, RAFT_LEADER);
    assert_int_equal(s.commit, s.last_index);
    for (size_t i = 0; i < s.conf.voter_count; i++) {
        struct raft_status o = fixture_status(f, s.conf.voters[i]);
        assert_int_equal(o.applied, s.commit);
        assert_memory_equal(&o.conf, &s.conf, sizeof s.conf);
    }
}

static size_t run(uint64_t seed)
{
    static struct run r;
    memset(&r, 0, sizeof r);
    r.random = seed * 0x9e3779b97f4a7c15u | 1;
    size_t voters = 1 + draw(&r, 5), learners = draw(&r, 2);
    fixture_init(&r.f, voters, learners, seed);
    r.f.check_refused = true;
    fixture_rebase(&r.f);
    r.f.show_trace = getenv("SEED") != NULL;
    r.f.show_messages = r.f.show_trace;
    r.members = voters + learners + 1; /* one more that may be added later */
    r.restless = draw(&r, 2) == 0;
    fixture_start(&r.f, r.members);
    for (uint64_t id = 1; id <= r.members; id++)
        r.f.members[id].manual_sync = draw(&r, 2) == 0;
    for (size_t i = 0; i < STEPS; i++) {
        for (size_t k = draw(&r, 8); k > 0; k--)
            network(&r);
        uint64_t id = 1 + draw(&r, r.members);
        if (fixture_up(&r.f, id))
            member_event(&r, id);
        else if (draw(&r, 4) == 0)
            fixture_start(&r.f, id);
        check_reads(&r);
        if (i % 16 == 0)
            fixture_check_logs(&r.f);
        show(&r);
    }
    heal(&r);
    size_t committed = r.f.committed_count;
    fixture_free(&r.f);
    return committed;
}

static void test_random_schedules(void **state)
{
    (void)state;
    const char *one = getenv("SEED");
    if (one != NULL) {
        run(strtoull(one, NULL, 10));
        return;
    }
    const char *many = getenv("SEEDS");
    uint64_t seeds = many == NULL ? SEEDS : strtoull(many, NULL, 10);
    size_t committed = 0;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        fprintf(stderr, "\rSEED=%" PRIu64 " ", seed);
        committed += run(seed);
    }
    fprintf(stderr, "\n%" PRIu64 " seeds, %zu entries committed\n", seeds, committed);
    assert_true(committed > seeds * 10); /* the schedules get something done */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_schedules)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
