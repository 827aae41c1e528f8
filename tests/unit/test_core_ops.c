/* The mount's operations against a store in memory: directories, names, reading, renaming, metadata, and what
 * changes made elsewhere become for local watchers. */
#include "mount_calls.h"

static struct fake *begin(const char *const *keys)
{
    struct fake *f = fake_new();
    for (; keys && *keys; keys++)
        fake_put(f, *keys, *keys);
    fake_run(f);
    fake_mount(f, false, true);
    return f;
}

#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- Directories ------------------------------------------------------------------------------------ */

static void test_directories(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/a/b/c", "/a/d", "/e"));
    assert_string_equal(fake_list(f, ""), "a/ e");
    assert_string_equal(fake_list(f, "a"), "b/ d");
    assert_int_equal(fake_mkdir(f, "a", 0755), EEXIST);
    assert_int_equal(fake_mkdir(f, "new", 0755), 0);
    assert_string_equal(fake_get(f, "/new/"), "");
    assert_string_equal(fake_list(f, "new"), "");
    assert_int_equal(fake_rmdir(f, "a"), ENOTEMPTY);
    assert_int_equal(fake_rmdir(f, "e"), ENOTDIR);
    assert_int_equal(fake_unlink(f, "new"), EISDIR);
    assert_int_equal(fake_rmdir(f, "new"), 0);
    assert_string_equal(fake_get(f, "/new/"), "-");
    fake_free(f);
}

/* A directory does not vanish with its last file, as on any file system. */
static void test_last_file_leaves_its_directory(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/a/b/c"));
    int64_t before = f->revision;
    assert_int_equal(fake_unlink(f, "a/b/c"), 0);
    assert_int_equal(f->revision, before + 1);
    assert_string_equal(fake_get(f, "/a/b/"), "");
    assert_string_equal(fake_list(f, "a"), "b/");
    assert_int_equal(fake_rmdir(f, "a/b"), 0);
    assert_string_equal(fake_list(f, "a"), "");
    assert_int_equal(fake_rmdir(f, "a"), 0);
    assert_int_equal(fake_count(f), 0);
    fake_free(f);
}

/* Somebody makes a file in the directory while we remove it: the cluster decides. */
static void test_rmdir_is_decided_by_the_cluster(void **state)
{
    (void)state;
    struct fake *f = begin(NULL);
    assert_int_equal(fake_mkdir(f, "d", 0755), 0);
    fake_walk(f, "d");
    fake_begin_op(f);
    fake_put(f, "/d/late", "x"); /* not delivered yet */
    core_rmdir(f->core, &fake_me, CORE_ROOT_INO, "d", fake_done, f);
    assert_int_equal(fake_end_op(f), ENOTEMPTY);
    assert_string_equal(fake_get(f, "/d/late"), "x");
    fake_free(f);
}

/* ---- Names ------------------------------------------------------------------------------------------ */

static void test_key_that_is_also_a_directory(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/x", "/x/y"));
    assert_string_equal(fake_list(f, ""), "x/");
    assert_string_equal(fake_list(f, "x"), "%self y");
    assert_string_equal(fake_cat(f, "x/%self"), "/x");
    assert_int_equal(fake_save(f, "x/%self", "own"), 0);
    assert_string_equal(fake_get(f, "/x"), "own");
    assert_int_equal(fake_unlink(f, "x/%self"), 0);
    assert_string_equal(fake_get(f, "/x"), "-");
    assert_string_equal(fake_list(f, "x"), "y");
    assert_int_equal(fake_save(f, "x/%self", "again"), 0);
    assert_string_equal(fake_get(f, "/x"), "again");
    fake_free(f);
}

/* What was a file becomes a directory under an open name, and the other way round. */
static void test_file_becomes_directory(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/x"));
    uint64_t file = fake_walk(f, "x");
    fake_put(f, "/x/y", "below");
    fake_run(f);
    assert_int_equal(
        FAKE_OP(f, core_getattr(f->core, &fake_me, file, CORE_NO_HANDLE, fake_done, f)), ESTALE);
    assert_string_equal(fake_cat(f, "x/%self"), "/x");
    assert_string_equal(fake_changes(f), "DELETE x, MKDIR x");
    fake_delete(f, "/x/y");
    fake_run(f);
    assert_string_equal(fake_cat(f, "x"), "/x");
    fake_free(f);
}

static void test_reserved_and_impossible_names(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/a/.quorumfs/meta/b", "/a/b", "/a/.quorumfs/lock/c"));
    assert_string_equal(fake_list(f, ""), "a/");
    assert_string_equal(fake_list(f, "a"), "b");
    assert_int_equal(fake_mkdir(f, "a/.quorumfs", 0755), EPERM);
    assert_int_equal(fake_save(f, "a/%", "x"), EINVAL);
    assert_int_equal(fake_save(f, "%self", "x"), EINVAL);
    assert_int_equal(fake_save(f, "%~x", "x"), EINVAL);
    assert_int_equal(fake_save(f, "100%", "x"), 0);
    assert_string_equal(fake_get(f, "/100%"), "x");
    fake_free(f);
}

static void test_mark_with_content_is_a_file(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/t/"));
    assert_string_equal(fake_list(f, "t"), "%");
    assert_string_equal(fake_cat(f, "t/%"), "/t/");
    fake_put(f, "/t/", "");
    fake_run(f);
    assert_string_equal(fake_list(f, "t"), "");
    fake_put(f, "/t/", "back");
    fake_run(f);
    assert_string_equal(fake_cat(f, "t/%"), "back");
    fake_free(f);
}

/* ---- Reading ---------------------------------------------------------------------------------------- */

static void test_reads_are_of_one_version(void **state)
{
    (void)state;
    struct fake *f = begin(NULL);
    fake_put(f, "/f", "aaaabbbb");
    uint64_t fh = fake_open(f, "f", O_RDONLY);
    assert_string_equal(fake_read(f, fh, 0, 4), "aaaa");
    fake_put(f, "/f", "ccccdddd");
    fake_run(f);
    assert_string_equal(fake_read(f, fh, 4, 4), "bbbb");
    assert_string_equal(fake_read(f, fh, 8, 4), ""); /* the newest does not go on from here */
    assert_string_equal(fake_read(f, fh, 0, 4), "cccc");
    fake_put(f, "/f", "ccccdddd+more");
    fake_run(f);
    assert_string_equal(fake_read(f, fh, 8, 16), "+more"); /* it does: tail -f */
    fake_delete(f, "/f");
    fake_run(f);
    assert_string_equal(fake_read(f, fh, 0, 16), "ccccdddd+more");
    fake_close_only(f, fh);
    fake_free(f);
}

static void test_lookups_reflect_finished_writes(void **state)
{
    (void)state;
    struct fake *f = begin(NULL);
    fake_put(f, "/late", "x"); /* committed, and its event is still on its way */
    assert_int_not_equal(fake_walk(f, "late"), 0);
    assert_true(f->syncs > 0);
    f->fail_sync = ERR_DEADLINE;
    assert_int_equal(fake_walk(f, "late"), 0);
    assert_int_equal(f->error, EAGAIN);
    fake_free(f);
}

/* Whether the lookup is answered without waiting for the store. */
static bool answers_at_once(struct fake *f, const char *name)
{
    f->replied = false;
    core_lookup(f->core, &fake_me, CORE_ROOT_INO, name, fake_done, f);
    bool at_once = f->replied;
    fake_run(f);
    return at_once;
}

static void test_stale_reads_wait_once(void **state)
{
    (void)state;
    struct fake *f = fake_new();
    f->stale_allow = true;
    fake_put(f, "/old", "x");
    fake_run(f);
    fake_mount(f, false, true);
    f->fail_sync = ERR_DEADLINE;
    assert_false(answers_at_once(f, "old"));
    assert_true(answers_at_once(f, "old"));
    assert_true(answers_at_once(f, "old"));
    f->fail_sync = ERR_OK; /* a leader again: the next call asks, all later ones know */
    fake_put(f, "/new", "x");
    assert_true(answers_at_once(f, "old"));
    assert_false(answers_at_once(f, "new"));
    assert_int_not_equal(fake_walk(f, "new"), 0);
    f->fail_sync = ERR_DEADLINE;
    assert_false(answers_at_once(f, "old"));
    f->fail_sync = ERR_OK;
    f->now_ms += 5000; /* nobody has asked since: it is not known any more */
    fake_put(f, "/newer", "x");
    assert_int_not_equal(fake_walk(f, "newer"), 0);
    fake_free(f);
}

static void test_own_changes_are_seen_before_the_watch_brings_them(void **state)
{
    (void)state;
    struct fake *f = fake_new();
    fake_mount(f, true, true);
    assert_int_equal(fake_save(f, "mine", "1"), 0);
    const struct store_watch_handler *handler = f->handler;
    f->handler = NULL; /* the watch is silent from here on */
    assert_int_equal(fake_save(f, "mine", "22"), 0);
    assert_string_equal(fake_cat(f, "mine"), "22");
    assert_int_equal(fake_unlink(f, "mine"), 0);
    assert_int_equal(fake_walk(f, "mine"), 0);
    f->handler = handler;
    fake_free(f);
}

/* ---- Renaming --------------------------------------------------------------------------------------- */

static void test_rename_file(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/a", "/b", "/d/x"));
    uint64_t ino = fake_walk(f, "a");
    fake_walk(f, "b");
    int64_t before = f->revision;
    assert_int_equal(fake_rename(f, "a", "b", 1), EEXIST);
    assert_int_equal(fake_rename(f, "a", "d", 0), EISDIR);
    assert_int_equal(fake_rename(f, "a", "b", 0), 0);
    assert_int_equal(f->revision, before + 1);
    assert_string_equal(fake_get(f, "/b"), "/a");
    assert_string_equal(fake_get(f, "/a"), "-");
    assert_int_equal(fake_walk(f, "b"), ino);
    assert_int_equal(fake_rename(f, "d/x", "x", 0), 0);
    assert_string_equal(fake_get(f, "/d/"), "");
    assert_string_equal(fake_changes(f), "");
    fake_free(f);
}

static void test_exchange(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/a", "/b"));
    uint64_t a = fake_walk(f, "a"), b = fake_walk(f, "b");
    assert_int_equal(fake_rename(f, "a", "b", 2), 0);
    assert_string_equal(fake_cat(f, "a"), "/b");
    assert_string_equal(fake_cat(f, "b"), "/a");
    assert_int_equal(fake_walk(f, "b"), a);
    assert_int_equal(fake_walk(f, "a"), b);
    fake_free(f);
}

static void test_rename_directory(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/d/1", "/d/s/2", "/other"));
    uint64_t dir = fake_walk(f, "d"), file = fake_walk(f, "d/s/2");
    int64_t before = f->revision;
    assert_int_equal(fake_rename(f, "d", "d/s/in", 0), EINVAL);
    assert_int_equal(fake_rename(f, "d", "e", 0), 0);
    assert_int_equal(f->revision, before + 1);
    assert_string_equal(fake_list(f, ""), "e/ other");
    assert_string_equal(fake_list(f, "e/s"), "2");
    assert_int_equal(fake_walk(f, "e"), dir);
    assert_int_equal(fake_walk(f, "e/s/2"), file);
    assert_string_equal(fake_get(f, "/e/s/2"), "/d/s/2");
    assert_int_equal(fake_mkdir(f, "empty", 0755), 0);
    assert_int_equal(fake_rename(f, "e", "empty", 0), 0);
    assert_string_equal(fake_list(f, "empty"), "1 s/");
    assert_int_equal(fake_rename(f, "empty", "other", 0), ENOTDIR);
    assert_string_equal(fake_changes(f), "");
    fake_free(f);
}

/* A file was deleted elsewhere, and its event is still on its way, when its directory is renamed here. */
static void test_rename_directory_ahead_of_a_deletion(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/d/1", "/d/2"));
    fake_walk(f, "d");
    const struct store_watch_handler *handler = f->handler;
    f->handler = NULL;
    fake_delete(f, "/d/2");
    fake_begin_op(f);
    core_rename(f->core, &fake_me, CORE_ROOT_INO, "d", CORE_ROOT_INO, "e", 0, fake_done, f);
    assert_int_equal(fake_end_op(f), 0);
    f->handler = handler;
    assert_string_equal(fake_list(f, "e"), "1");
    fake_free(f);
}

/* ---- Metadata --------------------------------------------------------------------------------------- */

static int chmod_path(struct fake *f, const char *path, uint32_t mode)
{
    struct stat st = {.st_mode = mode};
    uint64_t ino = fake_walk(f, path);
    return FAKE_OP(
        f, core_setattr(f->core, &fake_me, ino, CORE_NO_HANDLE, CORE_SET_MODE, &st, fake_done, f));
}

static uint32_t mode_of(struct fake *f, const char *path)
{
    fake_walk(f, path);
    return f->reply.st.st_mode & 07777;
}

static void test_metadata(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/d/f"));
    assert_int_equal(mode_of(f, "d/f"), 0644);
    assert_int_equal(chmod_path(f, "d/f", 0600), 0);
    assert_string_equal(fake_get(f, "/d/.quorumfs/meta/f"), "mode=0600\n");
    assert_int_equal(mode_of(f, "d/f"), 0600);
    assert_int_equal(fake_save(f, "d/f", "saved"), 0);
    assert_int_equal(mode_of(f, "d/f"), 0600);
    assert_int_equal(fake_rename(f, "d/f", "g", 0), 0);
    assert_int_equal(mode_of(f, "g"), 0600);
    assert_string_equal(fake_get(f, "/d/.quorumfs/meta/f"), "-");
    assert_int_equal(chmod_path(f, "g", 0644), 0);
    assert_string_equal(fake_get(f, "/.quorumfs/meta/g"), "-");
    assert_int_equal(chmod_path(f, "d", 0700), 0);
    assert_string_equal(fake_get(f, "/d/.quorumfs/meta/"), "mode=0700\n");
    assert_int_equal(mode_of(f, "d"), 0700);
    assert_int_equal(fake_rmdir(f, "d"), 0);
    assert_int_equal(fake_count(f), 1);
    fake_free(f);
}

/* A key that was deleted and made again elsewhere is not the file that had the mode. */
static void test_metadata_of_an_earlier_life(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/f"));
    assert_int_equal(chmod_path(f, "f", 0600), 0);
    fake_delete(f, "/f");
    fake_put(f, "/f", "new life");
    fake_run(f);
    assert_int_equal(mode_of(f, "f"), 0644);
    fake_free(f);
}

static void test_times_by_hand_end_with_the_next_save(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/f"));
    struct stat st = {.st_mtim = {.tv_sec = 981173106}};
    uint64_t ino = fake_walk(f, "f");
    assert_int_equal(FAKE_OP(f, core_setattr(f->core, &fake_me, ino, CORE_NO_HANDLE, CORE_SET_MTIME,
                                             &st, fake_done, f)),
                     0);
    assert_int_equal(f->reply.st.st_mtim.tv_sec, 981173106);
    assert_int_equal(fake_save(f, "f", "x"), 0);
    fake_walk(f, "f");
    assert_true(f->reply.st.st_mtim.tv_sec > 1600000000);
    fake_free(f);
}

static void test_symlink(void **state)
{
    (void)state;
    struct fake *f = begin(NULL);
    assert_int_equal(
        FAKE_OP(f, core_symlink(f->core, &fake_me, "some/where", CORE_ROOT_INO, "l", fake_done, f)),
        0);
    assert_true(S_ISLNK(f->reply.st.st_mode));
    uint64_t ino = f->reply.st.st_ino;
    assert_string_equal(fake_get(f, "/l"), "some/where");
    assert_int_equal(FAKE_OP(f, core_readlink(f->core, &fake_me, ino, fake_done, f)), 0);
    assert_string_equal(f->data, "some/where");
    fake_free(f);
}

/* A link is renamed over a file elsewhere: for the kernel that is another inode. */
static void test_link_replaces_file(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/f"));
    uint64_t file = fake_walk(f, "f");
    struct fake_answer *events = fake_begin(f);
    fake_store_put(f, bytes_str("/f"), bytes_str("target"), 0, events);
    fake_store_put(f, bytes_str("/.quorumfs/meta/f"), bytes_str("type=symlink\n"), 0, events);
    fake_run(f);
    assert_int_equal(
        FAKE_OP(f, core_getattr(f->core, &fake_me, file, CORE_NO_HANDLE, fake_done, f)), ESTALE);
    assert_int_not_equal(fake_walk(f, "f"), file);
    assert_true(S_ISLNK(f->reply.st.st_mode));
    fake_free(f);
}

static void test_xattrs(void **state)
{
    (void)state;
    struct fake *f = begin(KEYS("/f"));
    uint64_t ino = fake_walk(f, "f");
    assert_int_equal(
        FAKE_OP(f, core_getxattr(f->core, &fake_me, ino, "user.quorumfs.key", fake_done, f)), 0);
    assert_string_equal(f->data, "/f");
    assert_int_equal(
        FAKE_OP(f, core_getxattr(f->core, &fake_me, ino, "user.quorumfs.version", fake_done, f)),
        0);
    assert_string_equal(f->data, "1");
    assert_int_equal(FAKE_OP(f, core_getxattr(f->core, &fake_me, ino, "user.mine", fake_done, f)),
                     ENODATA);
    assert_int_equal(FAKE_OP(f, core_setxattr(f->core, &fake_me, ino, "user.mine",
                                              bytes_str("value"), 0, fake_done, f)),
                     0);
    assert_int_equal(FAKE_OP(f, core_getxattr(f->core, &fake_me, ino, "user.mine", fake_done, f)),
                     0);
    assert_string_equal(f->data, "value");
    assert_int_equal(
        FAKE_OP(f, core_removexattr(f->core, &fake_me, ino, "user.mine", fake_done, f)), 0);
    assert_int_equal(FAKE_OP(f, core_getxattr(f->core, &fake_me, ino, "user.mine", fake_done, f)),
                     ENODATA);
    fake_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directories),
        cmocka_unit_test(test_last_file_leaves_its_directory),
        cmocka_unit_test(test_rmdir_is_decided_by_the_cluster),
        cmocka_unit_test(test_key_that_is_also_a_directory),
        cmocka_unit_test(test_file_becomes_directory),
        cmocka_unit_test(test_reserved_and_impossible_names),
        cmocka_unit_test(test_mark_with_content_is_a_file),
        cmocka_unit_test(test_reads_are_of_one_version),
        cmocka_unit_test(test_lookups_reflect_finished_writes),
        cmocka_unit_test(test_stale_reads_wait_once),
        cmocka_unit_test(test_own_changes_are_seen_before_the_watch_brings_them),
        cmocka_unit_test(test_rename_file),
        cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_rename_directory),
        cmocka_unit_test(test_rename_directory_ahead_of_a_deletion),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_metadata_of_an_earlier_life),
        cmocka_unit_test(test_times_by_hand_end_with_the_next_save),
        cmocka_unit_test(test_symlink),
        cmocka_unit_test(test_link_replaces_file),
        cmocka_unit_test(test_xattrs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
