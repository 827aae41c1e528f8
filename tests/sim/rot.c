#include "tests/sim/rot.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/log/wal_internal.h"
#include "tests/sim/sim.h"

typedef unsigned long long ull;

#define LOG_DIR "data/member/log/"
#define FILES_MAX 64
#define SECTOR 512u /* simdisk_harm() */

/* ---- who may be harmed -------------------------------------------------------------------------- */

/* Who runs and has the newest membership that anybody has applied; NULL if those who do are down. */
static const struct simnode *newest(struct sim *s)
{
    const struct simnode *best = NULL;
    uint64_t applied = 0, ever = 0;
    for (size_t i = 0; i < s->node_count; i++) {
        const struct simnode *n = s->nodes[i];
        if (n->replica && mvcc_applied_index(replica_store(n->replica)) >= applied) {
            best = n;
            applied = mvcc_applied_index(replica_store(n->replica));
        }
        ever = n->applied_checked > ever ? n->applied_checked : ever;
    }
    return applied >= ever ? best : NULL;
}

bool rot_may_harm(struct sim *s, const struct simnode *n)
{
    const struct simnode *at = newest(s);
    /* A healthy member is on its way out: soon a majority may be another one. */
    if (!at || n->gone || n->damaged || repair_is_tight(s))
        return false;
    size_t count, voters = 0, whole = 0;
    bool is_voter = false;
    const struct replica_member *all = replica_members(at->replica, &count);
    for (size_t i = 0; i < count; i++) {
        const struct simnode *other = sim_node(s, all[i].id);
        if (all[i].learner)
            continue;
        voters++;
        is_voter |= other == n;
        whole += other && other != n && !other->gone && !other->damaged;
    }
    return is_voter && whole > voters / 2;
}

/* ---- which bytes may be harmed ------------------------------------------------------------------ */

struct listing {
    char paths[FILES_MAX][96];
    uint64_t sizes[FILES_MAX];
    size_t count;
    uint64_t last_segment;
};

static bool is_segment(const char *path, uint64_t *ret_seq)
{
    return strncmp(path, LOG_DIR, strlen(LOG_DIR)) == 0 &&
           wal_segment_parse(path + strlen(LOG_DIR), ret_seq);
}

static void each_file(void *ctx, const char *path, uint64_t durable_size)
{
    struct listing *l = ctx;
    uint64_t seq;
    if (is_segment(path, &seq) && seq > l->last_segment)
        l->last_segment = seq;
    if (durable_size == 0 || l->count == FILES_MAX || strlen(path) >= sizeof(l->paths[0]))
        return;
    strcpy(l->paths[l->count], path);
    l->sizes[l->count++] = durable_size;
}

/* How much of the last segment a later batch on the disk vouches for. */
static uint64_t vouched(struct simnode *n, const char *path)
{
    struct buf b = {0};
    struct wal_head head;
    uint32_t chain;
    uint64_t end = 0;
    simdisk_durable(n->disk, path, &b);
    if (b.n >= WAL_SECTOR && wal_head_decode(b.p, &head, &chain)) {
        for (uint64_t at = WAL_SECTOR; at + WAL_SECTOR <= b.n; at += WAL_SECTOR) {
            struct wal_batch batch;
            if (wal_batch_decode(b.p + at, &batch, &chain) && batch.seq == head.seq &&
                batch.nonce == head.nonce && batch.offset == at && batch.synced > end)
                end = batch.synced;
        }
    }
    buf_free(&b);
    return end;
}

static uint64_t harmable(struct simnode *n, const struct listing *l, size_t file)
{
    uint64_t seq, size = l->sizes[file];
    if (!is_segment(l->paths[file], &seq) || seq < l->last_segment)
        return size;
    uint64_t end = vouched(n, l->paths[file]);
    return end < size ? end : size;
}

/* Log and store are drawn equally often, whatever the number of their files. */
static bool pick_file(struct simnode *n, struct simrng *rng, const struct listing *l,
                      size_t *ret_file)
{
    bool log = simrng_chance(rng, 50);
    size_t from = (size_t)simrng_below(rng, l->count);
    for (size_t i = 0; i < l->count; i++) {
        size_t at = (from + i) % l->count;
        bool in_log = strncmp(l->paths[at], LOG_DIR, strlen(LOG_DIR)) == 0;
        if (in_log == log && harmable(n, l, at) > 0) {
            *ret_file = at;
            return true;
        }
    }
    return false;
}

bool rot_strike(struct simnode *n, struct simrng *rng)
{
    struct listing l = {0};
    size_t file;
    simdisk_each_file(n->disk, each_file, &l);
    if (l.count == 0 || !pick_file(n, rng, &l, &file))
        return false;
    uint64_t sectors = harmable(n, &l, file) / SECTOR;
    enum simdisk_damage how = (enum simdisk_damage)simrng_below(rng, 3);
    for (int tries = 0; tries < 20; tries++) {
        uint64_t sector = simrng_below(rng, sectors + 1);
        if (!simdisk_harm(n->disk, l.paths[file], sector, how, rng))
            continue;
        uint64_t seq = 0;
        bool log = is_segment(l.paths[file], &seq);
        TRACE5(&n->sim->world,
               "n%llu: its disk rots: 0 bits, 1 zeros, 2 garbage: %llu; of the log %llu (segment "
               "%llu), sector %llu",
               n->id, how, log, seq, sector);
        n->damaged = true;
        return true;
    }
    return false;
}

/* ---- writes that go astray ---------------------------------------------------------------------- */

bool rot_misdirect(struct simnode *n, struct simrng *rng)
{
    uint64_t which = 1 + simrng_below(rng, 20);
    TRACE2(&n->sim->world, "n%llu: the %lluth write from now goes astray", n->id, which);
    simdisk_misdirect_at(n->disk, which);
    n->damaged = n->astray = true;
    return true;
}

bool rot_is_loss(struct simnode *n)
{
    const char *path;
    uint64_t offset, seq;
    bool happened = simdisk_astray(n->disk, &path, &offset);
    if (n->astray && !happened)
        n->damaged = n->astray = false; /* it dies before */
    if (!happened || !is_segment(path, &seq))
        return false;
    struct listing l = {0};
    simdisk_each_file(n->disk, each_file, &l);
    return seq >= l.last_segment && vouched(n, path) <= offset;
}

/* ---- damage that was found ---------------------------------------------------------------------- */

void rot_found(struct simnode *n, const char *where)
{
    if (!n->damaged)
        world_fail(&n->sim->world, "member %llu finds damage in %s, but its disk is intact",
                   (ull)n->id, where);
    if (!n->refuses)
        TRACE1(&n->sim->world, "n%llu finds damage", n->id);
    n->refuses = true;
}
