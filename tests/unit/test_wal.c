/* The write-ahead log on a real disk: what is appended is there after opening again, in every order of
 * appends, cuts, resets and segments. Crashes and failures are in test_wal_recovery.c, damage in test_wal_damage.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/memory.h"
#include "lib/base/worker_thread.h"
#include "tests/sim/simworker.h"

#define SEGMENT 8192

static char *folder;
static char *dir;
static struct simworker worker;
static struct wal *wal;
static struct wal_recovered found;
static struct error err;
static uint64_t tokens[64];
static size_t token_count;
static size_t failures;

static void on_done(void *ctx, uint64_t token)
{
    (void)ctx;
    assert_true(token_count < ARRAY_LEN(tokens));
    tokens[token_count++] = token;
}

static void on_failed(void *ctx, const struct error *cause)
{
    (void)ctx;
    (void)cause;
    failures++;
}

static struct wal_config config(void)
{
    return (struct wal_config){
        .disk = disk_posix(),
        .worker = &worker.base,
        .dir = dir,
        .cluster_id = 7,
        .member_id = 9,
        .segment_bytes = SEGMENT,
        .failed = on_failed,
    };
}

static void open_wal(void)
{
    struct wal_config c = config();
    err.message[0] = '\0';
    enum errc rc = wal_open(&c, &wal, &found, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(rc, ERR_OK);
}

static void close_wal(void)
{
    wal_recovered_free(&found);
    wal_close(wal);
    simworker_drain(&worker);
    wal = NULL;
}

static void reopen(void)
{
    close_wal();
    open_wal();
}

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    folder = xasprintf("%s/test_wal.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    dir = xasprintf("%s/log", folder);
    simworker_init(&worker);
    token_count = failures = 0;
    open_wal();
    return 0;
}

static void remove_file(void *ctx, const char *name)
{
    (void)ctx;
    char *path = xasprintf("%s/%s", dir, name);
    unlink(path);
    free(path);
}

static int tear_down(void **state)
{
    (void)state;
    if (wal)
        close_wal();
    disk_posix()->list(disk_posix(), dir, remove_file, NULL, NULL);
    int rc = rmdir(dir) | rmdir(folder);
    free(dir);
    free(folder);
    return rc;
}

static void count_segment(void *ctx, const char *name)
{
    uint64_t seq;
    if (wal_segment_parse(name, &seq))
        ++*(size_t *)ctx;
}

static size_t segment_files(void)
{
    size_t n = 0;
    assert_int_equal(disk_posix()->list(disk_posix(), dir, count_segment, &n, &err), ERR_OK);
    return n;
}

/* An entry whose content follows from index and term, `size` bytes long. */
static struct raft_entry *make(uint64_t index, uint64_t term, size_t size)
{
    uint8_t *data = xmalloc(size + 1);
    for (size_t i = 0; i < size; i++)
        data[i] = (uint8_t)(index * 31 + term * 7 + i);
    struct raft_entry *e = raft_entry_new(term, index, (enum raft_entry_type)(index % 3),
                                          index * 1000 + term, bytes_of(data, size));
    free(data);
    return e;
}

static void append(uint64_t first, uint64_t last, uint64_t term, size_t size, uint64_t token)
{
    size_t n = (size_t)(last - first + 1);
    struct raft_entry **entries = xcalloc(n, sizeof(*entries));
    for (size_t i = 0; i < n; i++)
        entries[i] = make(first + i, term, size);
    struct raft_hard_state hs = {.term = term, .vote = 3, .commit = first - 1};
    wal_append(wal, &hs, entries, n, on_done, NULL, token);
    for (size_t i = 0; i < n; i++)
        raft_entry_unref(entries[i]);
    free(entries);
}

static void expect_entry(const struct raft_entry *e, uint64_t index, uint64_t term, size_t size)
{
    struct raft_entry *want = make(index, term, size);
    assert_int_equal(e->index, index);
    assert_int_equal(e->term, term);
    assert_int_equal(e->type, want->type);
    assert_int_equal(e->stamp, want->stamp);
    assert_int_equal(e->size, size);
    assert_memory_equal(e->data, want->data, size);
    assert_int_equal(e->refs, 1);
    raft_entry_unref(want);
}

static void test_new(void **state)
{
    (void)state;
    assert_true(found.created);
    assert_int_equal(found.entry_count, 0);
    assert_false(found.has_hard_state);
    assert_int_equal(wal_bytes(wal), SEGMENT);
    reopen();
    assert_false(found.created);
    assert_int_equal(found.cluster_id, 7);
    assert_int_equal(found.member_id, 9);
    assert_int_equal(found.entry_count, 0);
    assert_int_equal(found.cut_bytes, 0);
}

static void test_append(void **state)
{
    (void)state;
    append(1, 3, 1, 10, 101);
    append(4, 4, 2, 0, 102);
    assert_int_equal(token_count, 0); /* never from within the call */
    simworker_drain(&worker);
    assert_int_equal(token_count, 2);
    assert_int_equal(tokens[0], 101);
    assert_int_equal(tokens[1], 102);
    reopen();
    assert_int_equal(found.entry_count, 4);
    assert_int_equal(found.base_index, 0);
    for (uint64_t i = 1; i <= 3; i++)
        expect_entry(found.entries[i - 1], i, 1, 10);
    expect_entry(found.entries[3], 4, 2, 0);
    assert_true(found.has_hard_state);
    assert_int_equal(found.hard_state.term, 2);
    assert_int_equal(found.hard_state.vote, 3);
    assert_int_equal(found.hard_state.commit, 3);
}

/* Appends that arrive while one is written go out together, with one job. */
static void test_group(void **state)
{
    (void)state;
    append(1, 1, 1, 10, 1);
    size_t before = worker.submitted;
    for (uint64_t i = 2; i <= 20; i++)
        append(i, i, 1, 10, i);
    assert_int_equal(worker.submitted, before);
    assert_true(simworker_run_one(&worker)); /* the first append */
    assert_int_equal(token_count, 1);
    assert_true(simworker_run_one(&worker)); /* the spare */
    assert_true(simworker_run_one(&worker)); /* all others */
    assert_int_equal(token_count, 20);
    assert_false(simworker_can_run(&worker));
    for (uint64_t i = 1; i <= 20; i++)
        assert_int_equal(tokens[i - 1], i);
}

static void test_replace(void **state)
{
    (void)state;
    append(1, 10, 1, 20, 1);
    append(6, 7, 2, 30, 2);
    simworker_drain(&worker);
    append(7, 9, 3, 40, 3);
    simworker_drain(&worker);
    reopen();
    assert_int_equal(found.entry_count, 9);
    for (uint64_t i = 1; i <= 9; i++)
        expect_entry(found.entries[i - 1], i,
                     i < 6    ? 1
                     : i == 6 ? 2
                              : 3,
                     i < 6    ? 20
                     : i == 6 ? 30
                              : 40);
}

/* A commit index alone is a hint: it costs no write, and is there after a close in good order. */
static void test_commit_hint(void **state)
{
    (void)state;
    append(1, 5, 1, 20, 1);
    simworker_drain(&worker);
    struct raft_hard_state hs = {.term = 1, .vote = 3, .commit = 5};
    wal_append(wal, &hs, NULL, 0, on_done, NULL, 2);
    simworker_drain(&worker);
    assert_int_equal(token_count, 2);
    reopen();
    assert_int_equal(found.hard_state.commit, 5);
    hs.commit = 99; /* beyond the log: clamped */
    hs.vote = 4;
    wal_append(wal, &hs, NULL, 0, NULL, NULL, 0);
    simworker_drain(&worker);
    reopen();
    assert_int_equal(found.hard_state.commit, 5);
    assert_int_equal(found.hard_state.vote, 4);
}

static void test_many_segments(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 60; i++) {
        append(i, i, 1, 1000, i);
        if (i % 7 == 0)
            simworker_drain(&worker);
    }
    simworker_drain(&worker);
    assert_true(segment_files() >= 8);
    reopen();
    assert_int_equal(found.entry_count, 60);
    for (uint64_t i = 1; i <= 60; i++)
        expect_entry(found.entries[i - 1], i, 1, 1000);
    assert_int_equal(found.hard_state.commit, 59);
}

/* An entry larger than a segment gets a segment of its own size, and the log stays usable. */
static void test_large_entry(void **state)
{
    (void)state;
    append(1, 1, 1, 100, 1);
    append(2, 2, 1, 5 * SEGMENT, 2);
    append(3, 3, 1, 100, 3);
    simworker_drain(&worker);
    append(4, 4, 1, 3000000, 4); /* also larger than a batch */
    append(5, 6, 1, 100, 5);
    simworker_drain(&worker);
    assert_int_equal(token_count, 5);
    reopen();
    assert_int_equal(found.entry_count, 6);
    expect_entry(found.entries[1], 2, 1, 5 * SEGMENT);
    expect_entry(found.entries[3], 4, 1, 3000000);
    expect_entry(found.entries[5], 6, 1, 100);
    wal_cut(wal, 6, 1);
    append(7, 7, 1, 3000, 6);
    simworker_drain(&worker);
    assert_true(wal_bytes(wal) <= 3 * SEGMENT); /* the odd sizes are gone, one spare is kept */
}

static void test_cut(void **state)
{
    (void)state;
    uint64_t most = 0;
    for (uint64_t i = 1; i <= 200; i++) {
        append(i, i, 1, 1000, i);
        simworker_drain(&worker);
        token_count = 0;
        if (i > 10)
            wal_cut(wal, i - 10, 1);
        simworker_drain(&worker);
        most = wal_bytes(wal) > most ? wal_bytes(wal) : most;
    }
    assert_true(most <= 5 * SEGMENT); /* recycled, not grown */
    reopen();
    assert_int_equal(found.base_index, 190); /* exact, because the log was closed */
    assert_int_equal(found.base_term, 1);
    assert_int_equal(found.entry_count, 10);
    for (uint64_t i = 191; i <= 200; i++)
        expect_entry(found.entries[i - 191], i, 1, 1000);
    wal_cut(wal, 200, 1); /* all of it */
    wal_cut(wal, 150, 1); /* behind the base: nothing */
    simworker_drain(&worker);
    reopen();
    assert_int_equal(found.base_index, 200);
    assert_int_equal(found.entry_count, 0);
    append(201, 202, 4, 10, 1);
    simworker_drain(&worker);
    reopen();
    assert_int_equal(found.entry_count, 2);
    expect_entry(found.entries[0], 201, 4, 10);
}

static void test_reset(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 30; i++)
        append(i, i, 1, 1000, i);
    simworker_drain(&worker);
    token_count = 0;
    wal_reset(wal, 1000, 5, on_done, NULL, 77);
    append(1001, 1003, 6, 50, 78);
    simworker_drain(&worker);
    assert_int_equal(token_count, 2);
    assert_int_equal(tokens[0], 77);
    assert_int_equal(segment_files(), 1);
    reopen();
    assert_int_equal(found.base_index, 1000);
    assert_int_equal(found.base_term, 5);
    assert_int_equal(found.entry_count, 3);
    expect_entry(found.entries[2], 1003, 6, 50);
    assert_int_equal(found.hard_state.term, 6);
    wal_reset(wal, 1002, 6, NULL, NULL, 0); /* back behind the last, above the base */
    simworker_drain(&worker);
    reopen();
    assert_int_equal(found.base_index, 1002);
    assert_int_equal(found.entry_count, 0);
    assert_int_equal(found.hard_state.commit, 1002); /* what the base implies */
}

/* Hard state survives the segments in which it was written. */
static void test_hard_state_moves_on(void **state)
{
    (void)state;
    struct raft_hard_state hs = {.term = 41, .vote = 8, .commit = 0};
    wal_append(wal, &hs, NULL, 0, NULL, NULL, 0);
    for (uint64_t i = 1; i <= 40; i++) {
        struct raft_entry *e = make(i, 41, 1000);
        wal_append(wal, NULL, &e, 1, NULL, NULL, 0);
        raft_entry_unref(e);
        simworker_drain(&worker);
    }
    wal_cut(wal, 40, 41);
    simworker_drain(&worker);
    assert_int_equal(segment_files(), 1);
    reopen();
    assert_int_equal(found.hard_state.term, 41);
    assert_int_equal(found.hard_state.vote, 8);
}

static void test_owner_and_lock(void **state)
{
    (void)state;
    struct wal_config c = config();
    struct wal *second;
    struct wal_recovered r;
    assert_int_equal(wal_open(&c, &second, &r, &err), ERR_BUSY);
    assert_non_null(strstr(err.message, dir));
    close_wal();
    c.member_id = 10;
    assert_int_equal(wal_open(&c, &wal, &r, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "member 9 of cluster 7"));
    c.member_id = 9;
    c.cluster_id = 8;
    assert_int_equal(wal_open(&c, &wal, &r, &err), ERR_INVALID);
    c.cluster_id = c.member_id = 0; /* whoever it is */
    assert_int_equal(wal_open(&c, &wal, &found, &err), ERR_OK);
    assert_int_equal(found.member_id, 9);
    c.segment_bytes = 100;
    assert_int_equal(wal_open(&c, &second, &r, &err), ERR_INVALID);
}

/* Opening and closing over and over must not use up the log. */
static void test_idle_reopen(void **state)
{
    (void)state;
    append(1, 1, 1, 100, 1);
    simworker_drain(&worker);
    for (int i = 0; i < 40; i++)
        reopen();
    assert_int_equal(segment_files(), 1);
    assert_int_equal(found.entry_count, 1);
}

static void close_it(void *ctx, uint64_t token)
{
    on_done(ctx, token);
    wal_close(wal);
    wal = NULL;
}

static void test_close(void **state)
{
    (void)state;
    append(1, 1, 1, 10, 1);
    assert_true(simworker_run(&worker)); /* written, its completion under way */
    append(2, 2, 1, 10, 2);
    close_wal();
    assert_int_equal(token_count, 0);
    open_wal();
    assert_int_equal(found.entry_count, 1); /* the second one was dropped */
    struct raft_entry *e = make(2, 1, 10);
    wal_append(wal, NULL, &e, 1, close_it, NULL, 3);
    wal_append(wal, NULL, NULL, 0, on_done, NULL, 4);
    raft_entry_unref(e);
    simworker_drain(&worker);
    assert_int_equal(token_count, 1); /* closed from within: nothing afterwards */
    wal_recovered_free(&found);
    open_wal();
    assert_int_equal(found.entry_count, 2);
}

struct threaded {
    uv_loop_t loop;
    struct worker *worker;
    uint64_t done;
};

static void on_threaded_done(void *ctx, uint64_t token)
{
    struct threaded *t = ctx;
    assert_int_equal(token, t->done + 1);
    t->done = token;
}

/* On a real thread, as the daemon runs it: entries are let go of while others are written. */
static void test_thread(void **state)
{
    (void)state;
    close_wal();
    struct threaded t = {0};
    assert_int_equal(uv_loop_init(&t.loop), 0);
    assert_int_equal(worker_thread_start(&t.loop, "wal", &t.worker, &err), ERR_OK);
    struct wal_config c = config();
    c.worker = t.worker;
    assert_int_equal(wal_open(&c, &wal, &found, &err), ERR_OK);
    for (uint64_t i = 1; i <= 300; i++) {
        struct raft_entry *e = make(i, 1, 200);
        wal_append(wal, NULL, &e, 1, on_threaded_done, &t, i);
        raft_entry_unref(e);
        if (i % 3 == 0)
            uv_run(&t.loop, UV_RUN_NOWAIT);
        if (i % 50 == 0)
            wal_cut(wal, i - 20, 1);
    }
    while (t.done < 300)
        uv_run(&t.loop, UV_RUN_ONCE);
    struct raft_entry *e = make(301, 1, 200);
    wal_append(wal, NULL, &e, 1, on_threaded_done, &t, 301);
    raft_entry_unref(e);
    wal_recovered_free(&found);
    wal_close(wal);
    worker_thread_stop(t.worker);
    uv_run(&t.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&t.loop), 0);
    open_wal();
    assert_int_equal(found.base_index, 280);
    assert_true(found.entry_count >= 20);
    for (uint64_t i = 281; i <= 300; i++)
        expect_entry(found.entries[i - 281], i, 1, 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_new),
        TEST(test_append),
        TEST(test_group),
        TEST(test_replace),
        TEST(test_commit_hint),
        TEST(test_many_segments),
        TEST(test_large_entry),
        TEST(test_cut),
        TEST(test_reset),
        TEST(test_hard_state_moves_on),
        TEST(test_owner_and_lock),
        TEST(test_idle_reopen),
        TEST(test_close),
        TEST(test_thread),
    };
    return cmocka_run_group_tests_name("wal", tests, NULL, NULL);
}
