#include "tests/sim/rot.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log/wal_internal.h"
#include "daemon/store/internal.h"
#include "tests/sim/sim.h"

typedef unsigned long long ull;

#define LOG_DIR "data/member/log/"
#define STORE_DIR "data/member/store/"
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
    return is_voter && whole > voters / 2 && repair_may_lose(s, n->id);
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

static const char *damage_words(unsigned how, bool log)
{
    static const char *const of_log[] = {
        "!%m: bits flip in its log (segment %u, sector %u)",
        "!%m: a sector of its log becomes zeros (segment %u, sector %u)",
        "!%m: a sector of its log becomes garbage (segment %u, sector %u)",
        "!%m: its log is cut off (segment %u, sector %u)",
    };
    static const char *const of_store[] = {
        "!%m: bits flip in its store (%u, sector %u)",
        "!%m: a sector of its store becomes zeros (%u, sector %u)",
        "!%m: a sector of its store becomes garbage (%u, sector %u)",
        "!%m: a file of its store is cut off (%u, sector %u)",
    };
    return log ? of_log[how] : of_store[how];
}

bool rot_strike(struct simnode *n, struct simrng *rng)
{
    struct listing l = {0};
    size_t file;
    simdisk_each_file(n->disk, each_file, &l);
    if (l.count == 0 || !pick_file(n, rng, &l, &file))
        return false;
    uint64_t sectors = harmable(n, &l, file) / SECTOR;
    /* No file gets shorter under a process that uses it. */
    enum simdisk_damage how = (enum simdisk_damage)simrng_below(rng, n->replica ? 3 : 4);
    for (int tries = 0; tries < 20; tries++) {
        uint64_t sector = simrng_below(rng, sectors + 1);
        if (!simdisk_harm(n->disk, l.paths[file], sector, how, rng))
            continue;
        uint64_t seq = 0;
        bool log = is_segment(l.paths[file], &seq);
        TRACE5(&n->sim->world, damage_words(how, log), n->id, seq, sector, how, log);
        n->damaged = true;
        return true;
    }
    return false;
}

/* ---- aimed -------------------------------------------------------------------------------------- */

static bool is_store(const char *path)
{
    size_t n = strlen(path);
    return strncmp(path, STORE_DIR, strlen(STORE_DIR)) == 0 && n > 3 &&
           strcmp(path + n - 3, ".db") == 0;
}

/* A row's key and value stand side by side in SQLite's record. */
static bool flip_value(struct simnode *n, struct simrng *rng, const char *path,
                       const struct modelkv *kv)
{
    char text[MODEL_KEY_BYTES + 32], key[MODEL_KEY_BYTES + 1];
    struct buf b = {0};
    model_key(kv->key, key);
    size_t length =
        (size_t)snprintf(text, sizeof(text), "%s%llu", key, (unsigned long long)kv->value);
    simdisk_durable(n->disk, path, &b);
    const uint8_t *at = b.n ? memmem(b.p, b.n, text, length) : NULL;
    uint64_t offset = 0;
    if (at)
        offset =
            (uint64_t)(at - b.p) + MODEL_KEY_BYTES + simrng_below(rng, length - MODEL_KEY_BYTES);
    buf_free(&b);
    if (!at)
        return false;
    TRACE3(&n->sim->world, "!%m: the value of %k at revision %r rots", n->id, kv->key,
           kv->mod_revision);
    simdisk_flip(n->disk, path, offset, (unsigned)simrng_below(rng, 8));
    return true;
}

bool rot_value(struct simnode *n, struct simrng *rng)
{
    const struct model *m = &n->sim->model;
    struct listing l = {0};
    simdisk_each_file(n->disk, each_file, &l);
    for (int tries = 0; tries < 3 * MODEL_KEYS; tries++) {
        const struct modelkv *kv = model_at(m, (uint32_t)simrng_below(rng, MODEL_KEYS), m->last);
        for (size_t i = 0; kv && i < l.count; i++) {
            if (is_store(l.paths[i]) && flip_value(n, rng, l.paths[i], kv)) {
                n->damaged = true;
                return true;
            }
        }
    }
    return false;
}

static bool delete_rows(struct simnode *n, uint64_t from, uint64_t to)
{
    char path[96], sql[128];
    sqlite3 *db = NULL;
    snprintf(path, sizeof(path), STORE_DIR "%s", replica_store(n->replica)->file);
    snprintf(sql, sizeof(sql), "DELETE FROM rev WHERE id BETWEEN %llu AND %llu", (ull)from,
             (ull)to);
    bool good = sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, n->name) == SQLITE_OK &&
                sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK && sqlite3_changes(db) > 0;
    sqlite3_close(db);
    return good;
}

bool rot_last_changes(struct simnode *n, struct simrng *rng, int64_t *ret_revision)
{
    const struct mvcc *store = replica_store(n->replica);
    const struct model *m = &n->sim->model;
    int64_t low = mvcc_compact_revision(store), high = store->committed.revision;
    for (int tries = 0; tries < 100 && high > low; tries++) {
        int64_t revision = high - (int64_t)simrng_below(rng, (uint64_t)(high - low));
        size_t count;
        model_changes(m, revision, &count);
        if (count < 2)
            continue;
        int32_t from = 1 + (int32_t)simrng_below(rng, count - 1);
        if (!delete_rows(n, rev_id(revision, from), rev_id(revision, REV_SUB_MAX)))
            return false;
        TRACE4(&n->sim->world, "!%m: of revision %r only %u of %u changes are left on its disk",
               n->id, revision, from, count);
        n->damaged = true;
        *ret_revision = revision;
        return true;
    }
    return false;
}

void rot_log_place(struct simnode *n, uint64_t *ret_segment, uint64_t *ret_offset)
{
    struct listing l = {0};
    uint64_t seq;
    simdisk_each_file(n->disk, each_file, &l);
    *ret_segment = l.last_segment;
    *ret_offset = 0;
    for (size_t i = 0; i < l.count; i++) {
        if (is_segment(l.paths[i], &seq) && seq == l.last_segment)
            *ret_offset = vouched(n, l.paths[i]);
    }
}

bool rot_log_behind(struct simnode *n, struct simrng *rng, uint64_t segment, uint64_t offset)
{
    struct listing l = {0};
    uint64_t seq, now, end;
    rot_log_place(n, &now, &end);
    offset = now == segment ? offset : WAL_SECTOR;
    if (end <= offset)
        return false;
    uint64_t sector = (offset + simrng_below(rng, end - offset)) / SECTOR;
    simdisk_each_file(n->disk, each_file, &l);
    for (size_t i = 0; i < l.count; i++) {
        if (!is_segment(l.paths[i], &seq) || seq != now ||
            !simdisk_harm(n->disk, l.paths[i], sector, (enum simdisk_damage)simrng_below(rng, 3),
                          rng))
            continue;
        TRACE3(&n->sim->world, "!%m: sector %u of segment %u of its log rots", n->id, sector, now);
        n->damaged = true;
        return true;
    }
    return false;
}

/* ---- writes that go astray ---------------------------------------------------------------------- */

bool rot_misdirect(struct simnode *n, struct simrng *rng)
{
    uint64_t which = 1 + simrng_below(rng, 20);
    TRACE2(&n->sim->world, "!%m: write number %u from now will go astray", n->id, which);
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
        world_fail_about(&n->sim->world, ABOUT(.member = n->id),
                         "member %llu finds damage in %s, but its disk is intact", (ull)n->id,
                         where);
    if (!n->refuses)
        TRACE1(&n->sim->world, "!%m finds damage", n->id);
    n->refuses = true;
}
