/* How the own disk does beside the others'. A leader's disk that hangs is the core's business
 * (daemon/raft/disk.c); one that is only far slower than the others' is noticed here, where the milliseconds
 * are known: now and then an append is timed until it is synced here, and until a majority can be made of
 * the others that have it. If that goes on for some seconds, leadership goes to the fastest of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/replica/internal.h"

#define SAMPLE_EVERY_MS                                                                            \
    500 /* so that a window is some seconds long: one slow sync is not a slow disk */
#define WINDOW_MS_MAX 15000 /* what is older says nothing about now */
#define OWN_MS_MIN 100      /* slower than this is worth a change of leader, ... */
#define OWN_FACTOR_MIN 5    /* ... if it is so many times what the others need */
/* When all disks are slow by turns, leadership doesn't go in circles. */
#define HOLD_OFF_MS 60000

static void forget(struct replica *r)
{
    uint64_t hold_off = r->disk.hold_off_until_ms;
    r->disk = (struct disk_watch){.hold_off_until_ms = hold_off};
}

void disk_appended(struct replica *r, uint64_t token, uint64_t index)
{
    struct disk_watch *d = &r->disk;
    uint64_t now = replica_now_ms(r);
    if (r->status.role != RAFT_LEADER || d->token || now < d->next_ms)
        return;
    d->token = token;
    d->index = index;
    d->begun_ms = now;
    d->next_ms = now + SAMPLE_EVERY_MS;
    d->own_done = false;
    memset(d->peer_ms, 0xff, sizeof(d->peer_ms));
}

void disk_synced(struct replica *r, uint64_t token)
{
    struct disk_watch *d = &r->disk;
    if (d->token == 0 || token < d->token || d->own_done)
        return;
    d->own_done = true;
    d->own_ms = replica_now_ms(r) - d->begun_ms;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* When so many of the other voters had it that, with one of them as the leader, it would have been
 * committed; UINT64_MAX: not yet. */
static uint64_t time_of_others(const struct replica *r, uint64_t *ret_fastest)
{
    uint64_t times[RAFT_MEMBERS_MAX], best = UINT64_MAX;
    size_t n = 0;
    for (size_t i = 0; i < r->status.peer_count; i++) {
        const struct raft_peer_status *p = &r->status.peers[i];
        if (p->learner || p->id == r->member_id)
            continue;
        times[n++] = r->disk.peer_ms[i];
        if (r->disk.peer_ms[i] < best) {
            best = r->disk.peer_ms[i];
            *ret_fastest = p->id;
        }
    }
    size_t quorum = (n + 1) / 2 + 1;
    if (quorum > n)
        return UINT64_MAX; /* no majority without this member */
    qsort(times, n, sizeof(*times), compare);
    return times[quorum - 1];
}

static void note_peers(struct replica *r, uint64_t now)
{
    struct disk_watch *d = &r->disk;
    for (size_t i = 0; i < r->status.peer_count; i++) {
        if (r->status.peers[i].match >= d->index && d->peer_ms[i] == UINT64_MAX)
            d->peer_ms[i] = now - d->begun_ms;
    }
}

static uint64_t median(const uint64_t *values)
{
    uint64_t sorted[DISK_SAMPLES];
    memcpy(sorted, values, sizeof(sorted));
    qsort(sorted, DISK_SAMPLES, sizeof(*sorted), compare);
    return sorted[DISK_SAMPLES / 2];
}

static void judge(struct replica *r, uint64_t now, uint64_t fastest)
{
    struct disk_watch *d = &r->disk;
    if (d->count < DISK_SAMPLES || now < d->hold_off_until_ms || r->status.transferee)
        return;
    uint64_t own = median(d->own), others = median(d->others);
    if (own < OWN_MS_MIN || own / OWN_FACTOR_MIN < others)
        return;
    char text[256];
    snprintf(text, sizeof(text),
             "this member's disk is far slower than the others': an append takes %llu ms here and "
             "%llu ms there (medians of %d in %llu s); hands leadership over to %llx",
             (unsigned long long)own, (unsigned long long)others, DISK_SAMPLES,
             (unsigned long long)((now - d->at[d->count % DISK_SAMPLES]) / 1000),
             (unsigned long long)fastest);
    if (raft_transfer_leader(r->raft, fastest) != ERR_OK)
        return;
    replica_note(r, text);
    forget(r);
    d->hold_off_until_ms = now + HOLD_OFF_MS;
    replica_wake(r);
}

void disk_watch(struct replica *r)
{
    struct disk_watch *d = &r->disk;
    if (r->status.role != RAFT_LEADER || r->status.term != d->term) {
        if (d->term)
            forget(r);
        d->term = r->status.role == RAFT_LEADER ? r->status.term : 0;
        return;
    }
    if (d->token == 0)
        return;
    uint64_t now = replica_now_ms(r), fastest = 0;
    note_peers(r, now);
    if (!d->own_done)
        return;
    uint64_t others = time_of_others(r, &fastest);
    if (others == UINT64_MAX && now - d->begun_ms < WINDOW_MS_MAX)
        return;
    if (d->count && now - d->at[(d->count - 1) % DISK_SAMPLES] > WINDOW_MS_MAX)
        d->count = 0;
    size_t at = d->count++ % DISK_SAMPLES;
    d->at[at] = now;
    d->own[at] = d->own_ms;
    d->others[at] = others;
    d->token = 0;
    judge(r, now, fastest);
}

uint64_t replica_log_silent_ms(const struct replica *r)
{
    if (list_empty(&r->persists))
        return 0;
    return replica_now_ms(r) - CONTAINER_OF(r->persists.next, struct persist, link)->begun_ms;
}

bool replica_log_hangs(const struct replica *r)
{
    return replica_log_silent_ms(r) > leader_election_ms(r);
}
