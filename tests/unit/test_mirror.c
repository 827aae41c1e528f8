/* How the mirror follows the store, and what becomes of a remote change: for the tree, for the kernel's view,
 * and for the replay that tells local watchers. */
#include "mount_calls.h"

static struct fake *begin(bool cached)
{
    struct fake *f = fake_new();
    fake_put(f, "/d/old", "old");
    fake_run(f);
    fake_mount(f, cached, true);
    fake_walk(f, "d"); /* the kernel knows it: changes in it are replayed */
    return f;
}

static void test_changes_become_replays(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    fake_put(f, "/d/new", "1");
    fake_put(f, "/d/new", "2");
    fake_delete(f, "/d/new");
    fake_put(f, "/d/sub/", "");
    fake_delete(f, "/d/sub/");
    fake_put(f, "/top/deep/file", "x");
    fake_run(f);
    assert_string_equal(fake_changes(f), "CREATE d/new, OVERWRITE d/new, DELETE d/new, "
                                         "MKDIR d/sub, RMDIR d/sub, MKDIR top");
    fake_free(f);
}

/* Nobody can watch a directory that was never looked up. */
static void test_only_what_the_kernel_knows(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    fake_put(f, "/d/sub/file", "x");
    fake_run(f);
    assert_string_equal(fake_changes(f), "MKDIR d/sub");
    fake_put(f, "/d/sub/file", "y");
    fake_delete(f, "/d/sub/file");
    fake_run(f);
    assert_string_equal(fake_changes(f), "RMDIR d/sub");
    fake_free(f);
}

static void test_own_changes_are_not_replayed(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    assert_int_equal(fake_save(f, "d/own", "1"), 0);
    assert_int_equal(fake_save(f, "d/own", "2"), 0);
    assert_int_equal(fake_rename(f, "d/own", "d/two", 0), 0);
    assert_int_equal(fake_unlink(f, "d/two"), 0);
    assert_int_equal(fake_mkdir(f, "d/sub", 0700), 0);
    assert_int_equal(fake_rmdir(f, "d/sub"), 0);
    assert_string_equal(fake_changes(f), "");
    fake_free(f);
}

/* The event of an own transaction comes before its answer: it is still known as our own. */
static void test_event_before_the_answer(void **state)
{
    (void)state;
    struct fake *f = begin(true);
    uint64_t fh = fake_open(f, "d/old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "mine"), 0);
    f->hold_txns = true;
    fake_begin_op(f);
    core_flush(f->core, &fake_me, fh, fake_done, f);
    fake_put(f, "/d/other", "theirs");
    fake_run(f);
    assert_false(f->replied);
    fake_release_txns(f);
    assert_true(f->replied);
    assert_int_equal(f->error, 0);
    assert_string_equal(fake_changes(f), "CREATE d/other");
    fake_close_only(f, fh);
    fake_free(f);
}

static void test_rename_elsewhere(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    uint64_t dir = fake_walk(f, "d"), ino = fake_walk(f, "d/old");
    fake_move(f, "/d/old", "/d/new");
    fake_run(f);
    assert_string_equal(fake_changes(f), "RENAME d/old d/new");
    /* The kernel still has the old name; the replay finds it and moves the inode. */
    assert_int_equal(FAKE_OP(f, core_getattr(f->core, &fake_me, ino, CORE_NO_HANDLE, fake_done, f)),
                     ESTALE);
    assert_int_equal(FAKE_OP(f, core_lookup(f->core, &fake_replayer, dir, "old", fake_done, f)), 0);
    assert_int_equal(f->reply.st.st_ino, ino);
    assert_int_equal(
        FAKE_OP(f, core_rename(f->core, &fake_replayer, dir, "old", dir, "new", 0, fake_done, f)),
        0);
    assert_int_equal(fake_walk(f, "d/new"), ino);
    fake_free(f);
}

/* Two candidates with the same content: no rename, but a deletion and two creations. */
static void test_ambiguous_rename(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    struct fake_answer *events = fake_begin(f);
    fake_store_delete(f, bytes_str("/d/old"), BYTES_EMPTY, events);
    fake_store_put(f, bytes_str("/d/1"), bytes_str("old"), 0, events);
    fake_store_put(f, bytes_str("/d/2"), bytes_str("old"), 0, events);
    fake_run(f);
    assert_string_equal(fake_changes(f), "CREATE d/1, CREATE d/2, DELETE d/old");
    fake_free(f);
}

static void test_directory_renamed_elsewhere(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    fake_put(f, "/d/s/2", "two");
    fake_run(f);
    fake_changes(f);
    uint64_t ino = fake_walk(f, "d"), below = fake_walk(f, "d/s/2");
    struct fake_answer *events = fake_begin(f);
    fake_store_delete(f, bytes_str("/d/"), bytes_str("/d0"), events);
    fake_store_put(f, bytes_str("/e/old"), bytes_str("old"), 0, events);
    fake_store_put(f, bytes_str("/e/s/2"), bytes_str("two"), 0, events);
    fake_run(f);
    assert_string_equal(fake_changes(f), "RENAME d e");
    assert_int_equal(FAKE_OP(f, core_rename(f->core, &fake_replayer, CORE_ROOT_INO, "d",
                                            CORE_ROOT_INO, "e", 0, fake_done, f)),
                     0);
    assert_int_equal(fake_walk(f, "e"), ino);
    assert_int_equal(fake_walk(f, "e/s/2"), below);
    fake_free(f);
}

/* The replay's own requests: a create finds no file though there is one, a delete finds one though there is
 * none, and nothing of it reaches the store. */
static void test_replayed_requests(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    uint64_t dir = fake_walk(f, "d");
    fake_put(f, "/d/new", "1");
    fake_run(f);
    size_t txns = f->txns;
    assert_int_not_equal(fake_walk(f, "d/new"), 0);
    assert_int_equal(FAKE_OP(f, core_lookup(f->core, &fake_replayer, dir, "new", fake_done, f)),
                     ENOENT);
    assert_int_equal(FAKE_OP(f, core_create(f->core, &fake_replayer, dir, "new", 0644,
                                            O_CREAT | O_EXCL | O_WRONLY, fake_done, f)),
                     0);
    uint64_t fh = f->reply.fh;
    assert_int_equal(f->reply.st.st_size, 1);
    assert_int_equal(
        FAKE_OP(f, core_write(f->core, &fake_replayer, fh, 0, bytes_str("z"), fake_done, f)), 0);
    assert_int_equal(FAKE_OP(f, core_flush(f->core, &fake_replayer, fh, fake_done, f)), 0);
    core_release(f->core, &fake_replayer, fh);
    fake_changes(f);
    fake_delete(f, "/d/new");
    fake_run(f);
    assert_int_equal(fake_walk(f, "d/new"), 0);
    assert_int_equal(FAKE_OP(f, core_lookup(f->core, &fake_replayer, dir, "new", fake_done, f)), 0);
    assert_int_equal(FAKE_OP(f, core_unlink(f->core, &fake_replayer, dir, "new", fake_done, f)), 0);
    assert_int_equal(f->txns, txns);
    fake_free(f);
}

/* The history is compacted while the watch is away: what differs is found by comparing. */
static void test_compaction_gap(void **state)
{
    (void)state;
    struct fake *f = begin(false);
    fake_put(f, "/d/gone", "x");
    fake_put(f, "/d/same", "x");
    fake_run(f);
    fake_changes(f);
    const struct store_watch_handler *handler = f->handler;
    f->handler = NULL;
    fake_delete(f, "/d/gone");
    fake_put(f, "/d/old", "changed");
    fake_put(f, "/d/new", "new");
    fake_run(f);
    f->handler = handler;
    handler->compacted(f->handler_ctx);
    fake_run(f);
    assert_string_equal(fake_list(f, "d"), "new old same");
    assert_string_equal(fake_cat(f, "d/old"), "changed");
    assert_string_equal(fake_changes(f), "CREATE d/new, OVERWRITE d/old, DELETE d/gone");
    fake_put(f, "/d/after", "x");
    fake_run(f);
    assert_string_equal(fake_changes(f), "CREATE d/after");
    fake_free(f);
}

/* An older event of a key that we have deleted since must not bring it back. */
static void test_own_deletion_ahead_of_the_watch(void **state)
{
    (void)state;
    struct fake *f = begin(true);
    fake_walk(f, "d/old");
    const struct store_watch_handler *handler = f->handler;
    fake_put(f, "/d/keeps", "the directory");
    fake_run(f);
    f->handler = NULL; /* the watch lags */
    assert_int_equal(fake_unlink(f, "d/old"), 0);
    f->handler = handler;
    struct store_event late = {.kv = {.key = bytes_str("/d/old"),
                                      .value = bytes_str("late"),
                                      .create_revision = 1,
                                      .mod_revision = f->revision - 1,
                                      .version = 2}};
    f->handler->events(f->handler_ctx, &late, 1, f->revision - 1);
    fake_put(f, "/d/x", "1");
    fake_run(f);
    assert_string_equal(fake_list(f, "d"), "keeps x");
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_changes_become_replays),
        cmocka_unit_test(test_only_what_the_kernel_knows),
        cmocka_unit_test(test_own_changes_are_not_replayed),
        cmocka_unit_test(test_event_before_the_answer),
        cmocka_unit_test(test_rename_elsewhere),
        cmocka_unit_test(test_ambiguous_rename),
        cmocka_unit_test(test_directory_renamed_elsewhere),
        cmocka_unit_test(test_replayed_requests),
        cmocka_unit_test(test_compaction_gap),
        cmocka_unit_test(test_own_deletion_ahead_of_the_watch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
