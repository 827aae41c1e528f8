/* The real disk, in a folder of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/base/disk.h"
#include "lib/base/memory.h"

static struct disk *disk;
static struct error err;
static char *folder;

static char *in_folder(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void remove_name(void *ctx, const char *name)
{
    (void)ctx;
    if (unlink(in_folder(name)) < 0)
        rmdir(in_folder(name));
}

static int make_folder(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    disk = disk_posix();
    folder = xasprintf("%s/test_disk.XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
    (void)state;
    disk->list(disk, folder, remove_name, NULL, NULL);
    int rc = rmdir(folder);
    free(folder);
    return rc;
}

static struct disk_file *open_file(const char *name, int flags)
{
    struct disk_file *f = NULL;
    assert_int_equal(disk->open(disk, in_folder(name), flags, &f, &err), ERR_OK);
    return f;
}

static void writes_are_read_back(void **state)
{
    (void)state;
    char p[16];
    size_t n;
    uint64_t size;
    struct disk_file *f = open_file("a", DISK_WRITE | DISK_CREATE);
    assert_int_equal(disk->write(disk, f, 4, "hello", 5, &err), ERR_OK);
    assert_int_equal(disk->sync(disk, f, &err), ERR_OK);
    assert_int_equal(disk->size(disk, f, &size, &err), ERR_OK);
    assert_int_equal(size, 9);
    disk->close(disk, f);
    f = open_file("a", DISK_READ);
    assert_int_equal(disk->read(disk, f, 0, p, sizeof(p), &n, &err), ERR_OK);
    assert_int_equal(n, 9);
    assert_memory_equal(p, "\0\0\0\0hello", 9);
    assert_int_equal(disk->read(disk, f, 9, p, sizeof(p), &n, &err), ERR_OK);
    assert_int_equal(n, 0);
    /* Opened for reading only. */
    assert_int_equal(disk->write(disk, f, 0, "x", 1, &err), ERR_IO);
    assert_non_null(strstr(err.message, "/a: "));
    disk->close(disk, f);
    disk->close(disk, NULL);
}

static void open_tells_missing_from_existing(void **state)
{
    (void)state;
    struct disk_file *f = NULL;
    assert_int_equal(disk->open(disk, in_folder("none"), DISK_READ, &f, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, in_folder("none")));
    assert_int_equal(disk->open(disk, in_folder("none"), DISK_WRITE, &f, NULL), ERR_NOT_FOUND);
    assert_null(f);
    disk->close(disk, open_file("b", DISK_WRITE | DISK_CREATE | DISK_EXCL));
    int flags = DISK_WRITE | DISK_CREATE | DISK_EXCL;
    assert_int_equal(disk->open(disk, in_folder("b"), flags, &f, &err), ERR_EXISTS);
    assert_null(f);
}

static void allocate_reserves_and_never_shrinks(void **state)
{
    (void)state;
    char p[8];
    size_t n;
    uint64_t size;
    struct disk_file *f = open_file("c", DISK_WRITE | DISK_CREATE);
    assert_int_equal(disk->write(disk, f, 0, "kept", 4, &err), ERR_OK);
    assert_int_equal(disk->allocate(disk, f, 1 << 20, &err), ERR_OK);
    assert_int_equal(disk->size(disk, f, &size, &err), ERR_OK);
    assert_int_equal(size, 1 << 20);
    assert_int_equal(disk->allocate(disk, f, 100, &err), ERR_OK);
    assert_int_equal(disk->allocate(disk, f, 0, &err), ERR_OK);
    assert_int_equal(disk->size(disk, f, &size, &err), ERR_OK);
    assert_int_equal(size, 1 << 20);
    assert_int_equal(disk->read(disk, f, 0, p, 8, &n, &err), ERR_OK);
    assert_memory_equal(p, "kept\0\0\0\0", 8);
    assert_int_equal(disk->truncate(disk, f, 2, &err), ERR_OK);
    assert_int_equal(disk->read(disk, f, 0, p, 8, &n, &err), ERR_OK);
    assert_int_equal(n, 2);
    disk->close(disk, f);
}

static void collect(void *ctx, const char *name)
{
    char *names = ctx;
    strcat(strcat(names, name), "/");
}

static void names_can_be_made_moved_and_listed(void **state)
{
    (void)state;
    char names[256] = "", from[4096], path[4096];
    snprintf(path, sizeof(path), "%s", in_folder("dir"));
    assert_int_equal(disk->mkdir(disk, path, &err), ERR_OK);
    assert_int_equal(disk->mkdir(disk, path, &err), ERR_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    disk->close(disk, open_file("plain", DISK_WRITE | DISK_CREATE));
    assert_int_equal(disk->mkdir(disk, in_folder("plain"), &err), ERR_EXISTS);
    snprintf(from, sizeof(from), "%s", in_folder("plain"));
    assert_int_equal(disk->rename(disk, from, in_folder("dir/moved"), &err), ERR_OK);
    assert_int_equal(disk->rename(disk, from, in_folder("dir/again"), &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "dir/again"));
    assert_int_equal(disk->sync_dir(disk, path, &err), ERR_OK);
    assert_int_equal(disk->list(disk, path, collect, names, &err), ERR_OK);
    assert_string_equal(names, "moved/");
    assert_int_equal(disk->unlink(disk, in_folder("dir/moved"), &err), ERR_OK);
    assert_int_equal(disk->unlink(disk, in_folder("dir/moved"), &err), ERR_NOT_FOUND);
    assert_int_equal(disk->list(disk, in_folder("none"), collect, names, &err), ERR_NOT_FOUND);
    assert_int_equal(disk->sync_dir(disk, in_folder("none"), &err), ERR_NOT_FOUND);
}

/* flock(2) is of the open file, so a second open of this process stands for another process. */
static void lock_is_exclusive_until_close(void **state)
{
    (void)state;
    struct disk_file *first = NULL, *second = NULL;
    assert_int_equal(disk->lock(disk, in_folder("lock"), &first, &err), ERR_OK);
    assert_int_equal(disk->lock(disk, in_folder("lock"), &second, &err), ERR_BUSY);
    assert_null(second);
    disk->close(disk, first);
    assert_int_equal(disk->lock(disk, in_folder("lock"), &second, &err), ERR_OK);
    disk->close(disk, second);
}

static void full_disk_is_no_space(void **state)
{
    (void)state;
    if (access("/dev/full", W_OK) != 0)
        skip();
    struct disk_file *f;
    assert_int_equal(disk->open(disk, "/dev/full", DISK_WRITE, &f, &err), ERR_OK);
    assert_int_equal(disk->write(disk, f, 0, "x", 1, &err), ERR_NO_SPACE);
    assert_non_null(strstr(err.message, "write /dev/full: "));
    disk->close(disk, f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_are_read_back, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(open_tells_missing_from_existing, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(allocate_reserves_and_never_shrinks, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(names_can_be_made_moved_and_listed, make_folder,
                                        drop_folder),
        cmocka_unit_test_setup_teardown(lock_is_exclusive_until_close, make_folder, drop_folder),
        cmocka_unit_test_setup_teardown(full_disk_is_no_space, make_folder, drop_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
