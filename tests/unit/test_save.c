/* When a save becomes a transaction, what guards it, and that its bytes are never lost silently. */
#include "mount_calls.h"

static struct fake *begin(void)
{
    struct fake *f = fake_new();
    fake_put(f, "/old", "old content");
    fake_run(f);
    fake_mount(f, false, true);
    return f;
}

static const char *unsaved_name(struct fake *f)
{
    static char name[256];
    snprintf(name, sizeof name, ".quorumfs/unsaved/%s", fake_list(f, ".quorumfs/unsaved"));
    return name;
}

static void test_save_is_one_put(void **state)
{
    (void)state;
    struct fake *f = begin();
    size_t before = f->txns;
    assert_int_equal(fake_save(f, "new", "content"), 0);
    assert_string_equal(fake_get(f, "/new"), "content");
    assert_int_equal(fake_save(f, "old", "other"), 0);
    assert_string_equal(fake_get(f, "/old"), "other");
    assert_int_equal(f->txns, before + 2);
    assert_int_equal(fake_count(f), 2);
    fake_free(f);
}

/* FLUSH comes for every duplicate of a descriptor: `echo x > f` sends one before the write. */
static void test_flush_rule(void **state)
{
    (void)state;
    static const struct {
        struct core_holders_answer holders;
        bool commits;
    } table[] = {
        {{0}, true},
        {{.caller_holds = true}, false},
        {{.opener_holds = true}, false},
        {{.other_holds = true}, false},
        {{.caller_holds = true, .caller_signaled = true}, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct fake *f = begin();
        uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
        f->holders = (struct core_holders_answer){.caller_holds = true};
        assert_int_equal(fake_flush(f, fh), 0);
        assert_string_equal(fake_get(f, "/old"), "old content");
        assert_int_equal(fake_write(f, fh, 0, "new"), 0);
        f->holders = table[i].holders;
        assert_int_equal(fake_flush(f, fh), 0);
        assert_string_equal(fake_get(f, "/old"), table[i].commits ? "new" : "old content");
        fake_close_only(f, fh); /* RELEASE commits what is left */
        assert_string_equal(fake_get(f, "/old"), "new");
        fake_free(f);
    }
}

static void test_flush_without_changes_asks_nobody(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_RDWR);
    assert_int_equal(fake_close(f, fh), 0);
    assert_int_equal(f->asked, 0);
    fake_free(f);
}

static void test_flush_from_outside_our_namespace_waits(void **state)
{
    (void)state;
    struct fake *f = begin();
    static const struct caller outside = {.pid = 0};
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "new"), 0);
    assert_int_equal(FAKE_OP(f, core_flush(f->core, &outside, fh, fake_done, f)), 0);
    assert_string_equal(fake_get(f, "/old"), "old content");
    fake_close_only(f, fh);
    assert_string_equal(fake_get(f, "/old"), "new");
    fake_free(f);
}

static void test_killed_writer_publishes_nothing(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "half"), 0);
    f->holders.caller_signaled = true;
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "old content");
    assert_string_equal(fake_cat(f, unsaved_name(f)), "half");
    assert_int_equal(fake_unlink(f, unsaved_name(f)), 0);
    assert_string_equal(fake_list(f, ".quorumfs/unsaved"), "");
    fake_free(f);
}

static void test_killed_log_writer_loses_no_line(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_APPEND);
    assert_int_equal(fake_write(f, fh, 0, "+line"), 0);
    f->holders.caller_signaled = true;
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "old content+line");
    fake_free(f);
}

static void test_change_of_what_was_read_is_guarded(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_RDWR);
    assert_int_equal(fake_write(f, fh, 0, "OLD"), 0);
    fake_put(f, "/old", "elsewhere");
    assert_int_equal(fake_close(f, fh), ESTALE);
    assert_string_equal(fake_get(f, "/old"), "elsewhere");
    assert_string_equal(fake_cat(f, unsaved_name(f)), "OLD content");
    fake_free(f);
}

static void test_truncating_save_takes_precedence(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "mine"), 0);
    fake_put(f, "/old", "elsewhere");
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "mine");
    fake_free(f);
}

/* vim: OPEN, SETATTR size=0, WRITE, FSYNC, FLUSH. */
static void test_truncation_through_the_handle(void **state)
{
    (void)state;
    struct fake *f = begin();
    struct stat st = {.st_size = 0};
    uint64_t fh = fake_open(f, "old", O_WRONLY);
    uint64_t ino = fake_walk(f, "old");
    assert_int_equal(
        FAKE_OP(f, core_setattr(f->core, &fake_me, ino, fh, CORE_SET_SIZE, &st, fake_done, f)), 0);
    assert_string_equal(fake_get(f, "/old"), "old content");
    assert_int_equal(fake_write(f, fh, 0, "by vim"), 0);
    size_t before = f->txns;
    assert_int_equal(FAKE_OP(f, core_fsync(f->core, &fake_me, fh, fake_done, f)), 0);
    assert_string_equal(fake_get(f, "/old"), "by vim");
    assert_int_equal(fake_close(f, fh), 0);
    assert_int_equal(f->txns, before + 1);
    fake_free(f);
}

static void test_truncate_without_a_handle(void **state)
{
    (void)state;
    struct fake *f = begin();
    struct stat st = {.st_size = 3};
    uint64_t ino = fake_walk(f, "old");
    assert_int_equal(FAKE_OP(f, core_setattr(f->core, &fake_me, ino, CORE_NO_HANDLE, CORE_SET_SIZE,
                                             &st, fake_done, f)),
                     0);
    assert_string_equal(fake_get(f, "/old"), "old");
    assert_int_equal(f->reply.st.st_size, 3);
    fake_free(f);
}

static void test_appends_lose_no_line(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_APPEND);
    assert_int_equal(fake_write(f, fh, 11, "+mine"), 0);
    f->hold_txns = true;
    fake_begin_op(f);
    core_flush(f->core, &fake_me, fh, fake_done, f);
    fake_run(f);
    assert_false(f->replied);
    fake_release_txns(f);
    assert_true(f->replied);
    assert_string_equal(fake_get(f, "/old"), "old content+mine");
    /* Somebody appends between our read and our transaction: the first try fails, the second adds. */
    assert_int_equal(fake_write(f, fh, 0, "+again"), 0);
    fake_put(f, "/old", "old content+mine+theirs");
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "old content+mine+theirs+again");
    fake_free(f);
}

/* Two mounts make the same log at the same time: the first line of each stays. */
static void test_appends_to_a_new_file(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "log", O_WRONLY | O_CREAT | O_APPEND);
    assert_int_equal(fake_write(f, fh, 0, "mine"), 0);
    fake_put(f, "/log", "theirs+");
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/log"), "theirs+mine");
    fake_free(f);
}

/* dd of too much: the part that fitted is not the file. */
static void test_part_of_what_is_too_large_is_not_published(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "large", O_WRONLY | O_CREAT | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "fits"), 0);
    assert_int_equal(fake_write(f, fh, 3 << 20, "not"), EFBIG);
    assert_int_equal(fake_close(f, fh), EFBIG);
    assert_string_equal(fake_get(f, "/large"), "-");
    assert_string_equal(fake_cat(f, unsaved_name(f)), "fits");
    fake_free(f);
}

static void test_open_log_commits_when_idle(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_APPEND);
    assert_int_equal(fake_write(f, fh, 0, "+1"), 0);
    core_tick(f->core);
    fake_run(f);
    assert_string_equal(fake_get(f, "/old"), "old content");
    f->now_ms += 1500;
    core_tick(f->core);
    fake_run(f);
    assert_string_equal(fake_get(f, "/old"), "old content+1");
    assert_int_equal(fake_close(f, fh), 0);
    fake_free(f);
}

static void test_first_write_checks_the_quorum(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    f->now_ms += 5000;
    f->fail_sync = ERR_DEADLINE;
    assert_int_equal(fake_write(f, fh, 0, "x"), EROFS);
    f->fail_sync = ERR_OK;
    f->no_space = true;
    f->now_ms += 5000;
    assert_int_equal(fake_write(f, fh, 0, "x"), ENOSPC);
    fake_close_only(f, fh);
    fake_free(f);
}

static void test_too_large(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_RDWR);
    assert_int_equal(fake_write(f, fh, 3 << 20, "x"), EFBIG);
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "old content");
    fake_free(f);
}

static void test_failed_save_keeps_its_bytes(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "fresh", O_WRONLY | O_CREAT | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "precious"), 0);
    f->fail_txn = ERR_NO_SPACE;
    assert_int_equal(fake_close(f, fh), ENOSPC);
    assert_int_equal(fake_walk(f, "fresh"), 0);
    assert_string_equal(fake_cat(f, unsaved_name(f)), "precious");
    fake_free(f);
}

static void test_failed_fsync_is_tried_again_at_close(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "again"), 0);
    f->fail_txn = ERR_TIMEOUT;
    assert_int_equal(FAKE_OP(f, core_fsync(f->core, &fake_me, fh, fake_done, f)), EAGAIN);
    f->fail_txn = ERR_OK;
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "again");
    fake_free(f);
}

static void test_unknown_outcome_is_found_out(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "made it"), 0);
    f->fail_txn = ERR_UNAVAILABLE;
    f->fail_unknown = true; /* the answer was lost, not the transaction */
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_list(f, ".quorumfs/unsaved"), "");
    fake_free(f);
}

static void test_exclusive_create_reserves(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "only", O_WRONLY | O_CREAT | O_EXCL);
    assert_true(fh != 0);
    assert_string_equal(fake_get(f, "/only"), "-");
    assert_string_equal(fake_get(f, "/.quorumfs/new/only"), "");
    assert_int_equal(fake_open(f, "only", O_WRONLY | O_CREAT | O_EXCL), 0);
    assert_int_equal(f->error, EEXIST);
    assert_int_equal(fake_write(f, fh, 0, "mine"), 0);
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/only"), "mine");
    assert_string_equal(fake_get(f, "/.quorumfs/new/only"), "-");
    /* Reserved by another mount. */
    fake_put(f, "/.quorumfs/new/theirs", "");
    assert_int_equal(fake_open(f, "theirs", O_WRONLY | O_CREAT | O_EXCL), 0);
    assert_int_equal(f->error, EEXIST);
    fake_free(f);
}

static void test_removed_before_close_is_not_saved(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "short", O_WRONLY | O_CREAT | O_EXCL);
    assert_int_equal(fake_write(f, fh, 0, "x"), 0);
    assert_int_equal(fake_unlink(f, "short"), 0);
    assert_int_equal(fake_close(f, fh), 0);
    assert_int_equal(fake_count(f), 1);
    fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "x"), 0);
    assert_int_equal(fake_unlink(f, "old"), 0);
    assert_int_equal(fake_close(f, fh), 0);
    assert_int_equal(fake_count(f), 0);
    fake_free(f);
}

/* sed -i, an editor's save: a dropping renamed to the real name is one put of it. */
static void test_droppings_stay_home(void **state)
{
    (void)state;
    struct fake *f = begin();
    size_t before = f->txns;
    assert_int_equal(fake_save(f, "sedABCDEF", "new content"), 0);
    assert_int_equal(f->txns, before);
    assert_string_equal(fake_cat(f, "sedABCDEF"), "new content");
    assert_int_equal(fake_rename(f, "sedABCDEF", "old", 0), 0);
    assert_int_equal(f->txns, before + 1);
    assert_string_equal(fake_get(f, "/old"), "new content");
    assert_int_equal(fake_count(f), 1);
    assert_string_equal(fake_list(f, ""), "old");
    fake_free(f);
}

/* Backup by rename, new file, backup removed: one put. */
static void test_backup_by_rename(void **state)
{
    (void)state;
    struct fake *f = begin();
    int64_t before = f->revision;
    assert_int_equal(fake_rename(f, "old", "old~", 0), 0);
    assert_string_equal(fake_list(f, ""), "old~");
    assert_string_equal(fake_cat(f, "old~"), "old content");
    assert_int_equal(fake_save(f, "old", "edited"), 0);
    assert_int_equal(fake_unlink(f, "old~"), 0);
    f->now_ms += 10000;
    core_tick(f->core);
    fake_run(f);
    assert_int_equal(f->revision, before + 1);
    assert_string_equal(fake_get(f, "/old"), "edited");
    /* Without a successor the cluster hears of it in the end. */
    assert_int_equal(fake_rename(f, "old", "old~", 0), 0);
    f->now_ms += 10000;
    core_tick(f->core);
    fake_run(f);
    assert_string_equal(fake_get(f, "/old"), "-");
    fake_free(f);
}

/* os.replace() of a file that is still open: its content goes to the new name at close. */
static void test_rename_before_close(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "sedABCDEF", O_WRONLY | O_CREAT | O_EXCL);
    assert_int_equal(fake_write(f, fh, 0, "late"), 0);
    assert_int_equal(fake_rename(f, "sedABCDEF", "old", 0), 0);
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "late");
    fh = fake_open(f, "tmp", O_WRONLY | O_CREAT | O_EXCL);
    assert_int_equal(fake_write(f, fh, 0, "later"), 0);
    assert_int_equal(fake_rename(f, "tmp", "old", 0), 0);
    assert_int_equal(fake_close(f, fh), 0);
    assert_string_equal(fake_get(f, "/old"), "later");
    assert_int_equal(fake_count(f), 1);
    fake_free(f);
}

static void ended(void *ctx)
{
    *(bool *)ctx = true;
}

static void test_shutdown_commits(void **state)
{
    (void)state;
    struct fake *f = begin();
    uint64_t fh = fake_open(f, "old", O_WRONLY | O_TRUNC);
    assert_int_equal(fake_write(f, fh, 0, "at the end"), 0);
    bool over = false;
    core_shutdown(f->core, ended, &over);
    fake_run(f);
    assert_true(over);
    assert_string_equal(fake_get(f, "/old"), "at the end");
    fake_close_only(f, fh);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_is_one_put),
        cmocka_unit_test(test_flush_rule),
        cmocka_unit_test(test_flush_without_changes_asks_nobody),
        cmocka_unit_test(test_flush_from_outside_our_namespace_waits),
        cmocka_unit_test(test_killed_writer_publishes_nothing),
        cmocka_unit_test(test_killed_log_writer_loses_no_line),
        cmocka_unit_test(test_change_of_what_was_read_is_guarded),
        cmocka_unit_test(test_truncating_save_takes_precedence),
        cmocka_unit_test(test_truncation_through_the_handle),
        cmocka_unit_test(test_truncate_without_a_handle),
        cmocka_unit_test(test_appends_lose_no_line),
        cmocka_unit_test(test_appends_to_a_new_file),
        cmocka_unit_test(test_part_of_what_is_too_large_is_not_published),
        cmocka_unit_test(test_open_log_commits_when_idle),
        cmocka_unit_test(test_first_write_checks_the_quorum),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_failed_save_keeps_its_bytes),
        cmocka_unit_test(test_failed_fsync_is_tried_again_at_close),
        cmocka_unit_test(test_unknown_outcome_is_found_out),
        cmocka_unit_test(test_exclusive_create_reserves),
        cmocka_unit_test(test_removed_before_close_is_not_saved),
        cmocka_unit_test(test_droppings_stay_home),
        cmocka_unit_test(test_backup_by_rename),
        cmocka_unit_test(test_rename_before_close),
        cmocka_unit_test(test_shutdown_commits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
