/* A snapshot's file becomes a member's data: all of it, or a directory that says that it isn't complete, wherever
 * the power fails; and no file that is damaged becomes anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/replica/internal.h"
#include "daemon/server/new_dir.h"
#include "daemon/server/restore.h"
#include "daemon/store/frame.h"
#include "daemon/store/kv.h"
#include "lib/base/memory.h"
#include "lib/snapfile/file.h"
#include "tests/sim/simdisk.h"
#include "tests/sim/simvfs.h"
#include "tests/sim/simworker.h"

#define VFS "restore"
#define ROWS 300
#define FILE_NAME "snap.db"
#define LEASE 0x77

static struct machine {
    struct env env;
    struct simrng rng;
    struct simdisk *disk;
    struct simvfs *vfs;
    struct simworker log, store;
    struct replica_transport transport;
    struct replica *replica;
    struct error err;
} mc;

static uint64_t env_mono(struct env *e)
{
    (void)e;
    return UINT64_C(1000000000000);
}

static uint64_t env_wall(struct env *e)
{
    (void)e;
    return UINT64_C(1700000000000000000);
}

static uint64_t env_random(struct env *e)
{
    (void)e;
    return simrng_next(&mc.rng);
}

static void machine_make(uint64_t seed)
{
    memset(&mc, 0, sizeof(mc));
    mc.env = (struct env){env_mono, env_wall, env_random};
    mc.rng.state = seed;
    mc.disk = simdisk_new(seed);
    mc.vfs = simvfs_new(VFS, simdisk_disk(mc.disk), &mc.env);
    simvfs_seed((uint32_t)seed + 1);
}

static void machine_free(void)
{
    simvfs_free(mc.vfs);
    simdisk_free(mc.disk);
}

/* ---- the file ------------------------------------------------------------------------------------ */

struct make {
    struct buf file, frame;
    uint32_t seq;
    uint64_t rows, digest;
    size_t skip;  /* this row is left out, though it is counted; 0: none */
    size_t wrong; /* this one's checksum is wrong; 0: none */
};

static void end_frame(struct make *m)
{
    frame_end(&m->frame, m->seq++);
    buf_append(&m->file, m->frame.p, m->frame.n);
    m->frame.n = 0;
    frame_begin(&m->frame);
}

static void add_bucket(struct make *m, enum mvcc_bucket bucket, const char *key, const char *value)
{
    record_bucket(&m->frame, bucket, bytes_str(key), bytes_str(value));
    m->rows++;
    m->digest += bucket_row_digest(bucket, bytes_str(key), bytes_str(value));
}

/* Lease 0x77 as the store keeps it. */
static void add_lease(struct make *m)
{
    uint8_t key[8], packed[64];
    Raftpb__LeaseRow row = RAFTPB__LEASE_ROW__INIT;
    put_le64(key, LEASE);
    row.id = LEASE;
    row.ttl = 60;
    size_t n = raftpb__lease_row__pack(&row, packed);
    record_bucket(&m->frame, MVCC_BUCKET_LEASE, bytes_of(key, 8), bytes_of(packed, n));
    m->rows++;
    m->digest += bucket_row_digest(MVCC_BUCKET_LEASE, bytes_of(key, 8), bytes_of(packed, n));
}

static void add_row(struct make *m, size_t i)
{
    char key[16], value[64];
    snprintf(key, sizeof(key), "k%04zu", i);
    snprintf(value, sizeof(value), "value-%04zu", i);
    struct key_facts facts = {(int64_t)i + 1, 1, i % 10 == 0 ? LEASE : 0, i};
    struct mvcc_kv *kv =
        kv_new(rev_id((int64_t)i + 1, 0), bytes_str(key), bytes_str(value), &facts, i);
    struct row row;
    row_of_kv(kv, false, &row);
    m->rows++;
    m->digest += row_digest(row.id, row.crc);
    row.crc ^= i == m->wrong;
    if (i != m->skip)
        record_row(&m->frame, &row);
    mvcc_kv_unref(kv);
    if (i % 50 == 0)
        end_frame(m);
}

/* A snapshot at revision ROWS + 1 of a cluster with members, an alarm and a removed member. */
static void make_file(size_t skip, size_t wrong, struct buf *ret_file)
{
    struct make m = {.skip = skip, .wrong = wrong};
    struct db_state state = {
        .applied = 500, .term = 9, .stamp = 77, .revision = ROWS + 1, .compact_revision = -1};
    frame_begin(&m.frame);
    record_head(&m.frame, &state);
    add_bucket(&m, MVCC_BUCKET_MEMBER, "\1\1\1\1\1\1\1\1", "not read");
    add_bucket(&m, MVCC_BUCKET_META, "removed12345678", "1");
    add_bucket(&m, MVCC_BUCKET_ALARM, "alarm", "1");
    add_lease(&m);
    for (size_t i = 1; i <= ROWS; i++)
        add_row(&m, i);
    record_tail(&m.frame, m.rows, m.digest);
    end_frame(&m);
    static const uint8_t zeros[SNAPFILE_ALIGN];
    buf_append(&m.file, zeros, snapfile_padding(m.file.n));
    uint8_t digest[SHA256_BYTES];
    struct sha256 *h = sha256_new();
    sha256_add(h, m.file.p, m.file.n);
    sha256_end(h, digest);
    sha256_free(h);
    buf_append(&m.file, digest, sizeof(digest));
    buf_free(&m.frame);
    *ret_file = m.file;
}

static void put_file(struct bytes content)
{
    struct disk *d = simdisk_disk(mc.disk);
    struct disk_file *f;
    assert_int_equal(d->open(d, FILE_NAME, DISK_WRITE | DISK_CREATE, &f, &mc.err), ERR_OK);
    assert_int_equal(d->truncate(d, f, 0, &mc.err), ERR_OK);
    assert_int_equal(d->write(d, f, 0, content.p, content.n, &mc.err), ERR_OK);
    assert_int_equal(d->sync(d, f, &mc.err), ERR_OK);
    d->close(d, f);
    assert_int_equal(d->sync_dir(d, "", &mc.err), ERR_OK);
}

/* ---- restoring ----------------------------------------------------------------------------------- */

static enum errc restore(void)
{
    struct server_config config;
    struct buf report = {0};
    server_config_defaults(&config);
    config.name = "b";
    config.data_dir = "data";
    config.initial_cluster = "a=http://h:1,b=http://h:2,c=http://h:3";
    config.initial_advertise_peer_urls.url[0] = "http://h:2";
    config.initial_advertise_peer_urls.count = 1;
    enum errc code =
        restore_on_disk(simdisk_disk(mc.disk), VFS, &config, FILE_NAME, &report, &mc.err);
    buf_free(&report);
    return code;
}

static void found(void *ctx, const char *name)
{
    (void)name;
    ++*(size_t *)ctx;
}

static size_t names_in(const char *dir)
{
    struct disk *d = simdisk_disk(mc.disk);
    size_t count = 0;
    return d->list(d, dir, found, &count, NULL) == ERR_OK ? count : 0;
}

static void on_send(struct replica_transport *t, const struct raft_message *m)
{
    (void)t, (void)m;
}

static void on_members(struct replica_transport *t, const struct replica_member *m, size_t n)
{
    (void)t, (void)m, (void)n;
}

static void on_fatal(void *ctx, const struct error *err)
{
    (void)ctx;
    fail_msg("%s", err->message);
}

static void start(const struct identity *id)
{
    char note[512];
    simworker_init(&mc.log);
    simworker_init(&mc.store);
    mc.transport = (struct replica_transport){on_send, on_members};
    struct replica_config config = {
        .data_dir = "data",
        .name = "b",
        .env = &mc.env,
        .disk = simdisk_disk(mc.disk),
        .sqlite_vfs = VFS,
        .log_worker = &mc.log.base,
        .store_worker = &mc.store.base,
        .transport = &mc.transport,
        .cluster_id = id->cluster_id,
        .member_id = id->member_id,
        .initial_members = id->members,
        .initial_member_count = id->member_count,
        .tick_ms = 100,
        .election_ticks = 10,
        .snapshot_entries = 100,
        .fatal = on_fatal,
    };
    if (replica_open(&config, &mc.replica, note, &mc.err) != ERR_OK)
        fail_msg("%s", mc.err.message);
}

static void stop(void)
{
    replica_abandon(mc.replica);
    simworker_drain(&mc.log);
    mc.replica = NULL;
    simdisk_kill_process(mc.disk);
    simvfs_crash(mc.vfs);
}

/* What a member says that was started on what is there. */
static void check_member(void)
{
    struct identity id = {0};
    assert_int_equal(identity_load(simdisk_disk(mc.disk), "data", &id, &mc.err), ERR_OK);
    start(&id);
    struct mvcc *store = replica_store(mc.replica);
    assert_int_equal(mvcc_revision(store), ROWS + 1);
    assert_int_equal(mvcc_applied_index(store), 500);
    for (size_t i = 1; i <= ROWS; i++) {
        char key[16], value[64];
        snprintf(key, sizeof(key), "k%04zu", i);
        snprintf(value, sizeof(value), "value-%04zu", i);
        struct mvcc_kv *kv = mvcc_get(store, bytes_str(key), true);
        assert_non_null(kv);
        assert_true(bytes_equal(kv->value, bytes_str(value)));
        assert_int_equal(kv->mod_revision, i + 1);
        assert_int_equal(kv->lease, i % 10 == 0 ? LEASE : 0);
        mvcc_kv_unref(kv);
    }
    size_t count;
    const struct replica_member *members = replica_members(mc.replica, &count);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(members[i].peer_url_count, 1);
    assert_int_equal(lessor_count(replica_lessor(mc.replica)), 1);
    assert_false(apply_alarm_nospace(replica_apply(mc.replica)));
    uint64_t removed;
    memcpy(&removed, "12345678", 8);
    assert_false(replica_was_removed(mc.replica, removed));
    stop();
    identity_free(&id);
}

static void test_all_of_it(void **state)
{
    (void)state;
    struct buf file;
    make_file(0, 0, &file);
    machine_make(1);
    put_file(buf_bytes(&file));
    if (restore() != ERR_OK)
        fail_msg("%s", mc.err.message);
    check_member();
    assert_int_equal(restore(), ERR_INVALID); /* there is something in it now */
    check_member();
    machine_free();
    buf_free(&file);
}

/* Whether it was cut before it ended. */
static bool cut_at(struct bytes file, uint64_t n, uint64_t seed)
{
    machine_make(seed);
    put_file(file);
    simdisk_power_off_at(mc.disk, n);
    enum errc code = restore();
    bool cut = simdisk_is_off(mc.disk);
    if (cut)
        simdisk_power_off_at(mc.disk, 0);
    simdisk_power_off(mc.disk);
    simdisk_crash(mc.disk, &mc.rng);
    simvfs_crash(mc.vfs);
    assert_true(cut || code == ERR_OK);
    struct identity id = {0};
    struct disk *d = simdisk_disk(mc.disk);
    if (new_dir_is_complete(d, "data", &mc.err) == ERR_OK) {
        if (identity_load(d, "data", &id, &mc.err) == ERR_OK)
            check_member();
        else /* nothing was begun: a server there begins anew, with nothing left over */
            assert_int_equal(names_in("data/member"), 0);
        identity_free(&id);
    } else {
        assert_true(cut); /* what was answered with success is a member */
    }
    machine_free();
    return cut;
}

static void test_power_fails(void **state)
{
    (void)state;
    struct buf file;
    make_file(0, 0, &file);
    uint64_t n = 1;
    while (cut_at(buf_bytes(&file), n, 1000 + n))
        n++;
    assert_true(n > 50);
    buf_free(&file);
}

static void must_refuse(struct bytes content)
{
    put_file(content);
    enum errc code = restore();
    assert_true(code == ERR_CORRUPT || code == ERR_INVALID);
    assert_int_equal(names_in("data"), 0);
}

static void test_damaged_files(void **state)
{
    (void)state;
    struct buf file;
    machine_make(3);
    make_file(0, 0, &file);
    for (int i = 0; i < 300; i++) {
        size_t at = (size_t)simrng_below(&mc.rng, file.n);
        uint8_t bit = (uint8_t)(1u << simrng_below(&mc.rng, 8));
        file.p[at] ^= bit;
        must_refuse(buf_bytes(&file));
        file.p[at] ^= bit;
    }
    for (int i = 0; i < 100; i++) /* cut off anywhere, and at each whole sector */
        must_refuse(bytes_of(file.p, (size_t)simrng_below(&mc.rng, file.n)));
    for (size_t n = 0; n < file.n; n += SNAPFILE_ALIGN)
        must_refuse(bytes_of(file.p, n));
    buf_free(&file);
    make_file(100, 0, &file); /* its hash is right, but a row is missing */
    must_refuse(buf_bytes(&file));
    buf_free(&file);
    make_file(0, 100, &file); /* or damaged: by the disk of the member that sent it */
    must_refuse(buf_bytes(&file));
    assert_non_null(strstr(mc.err.message, "checksum"));
    buf_free(&file);
    machine_free();
}

static void test_other_files(void **state)
{
    (void)state;
    static uint8_t bbolt[4096 + 32];
    machine_make(4);
    assert_int_equal(restore(), ERR_NOT_FOUND);
    put_le32(bbolt + 16, 0xed0cdaed);
    put_file(bytes_of(bbolt, sizeof(bbolt)));
    assert_int_equal(restore(), ERR_INVALID);
    assert_non_null(strstr(mc.err.message, "etcd"));
    put_file(bytes_str("SQLite format 3"));
    assert_int_equal(restore(), ERR_INVALID);
    put_file(BYTES_EMPTY);
    assert_int_equal(restore(), ERR_INVALID);
    machine_free();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_of_it),
        cmocka_unit_test(test_power_fails),
        cmocka_unit_test(test_damaged_files),
        cmocka_unit_test(test_other_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
