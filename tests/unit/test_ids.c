/* Ids as etcd computes them, the list of initial members, and the identity file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/peer/ids.h"
#include "daemon/server/identity.h"
#include "lib/base/memory.h"
#include "tests/sim/simdisk.h"

/* Values printed by etcd 3.4.23 for the same settings. */
static void defaults_have_etcds_ids(void **state)
{
    (void)state;
    struct server_config config;
    struct identity id;
    server_config_defaults(&config);
    assert_int_equal(identity_compute(&config, &id, NULL), ERR_OK);
    assert_int_equal(id.member_id, 0x8e9e05c52164694d);
    assert_int_equal(id.cluster_id, 0xcdf818194e3a8c32);
    assert_int_equal(id.member_count, 1);
    identity_free(&id);
}

static void a_cluster_has_etcds_ids(void **state)
{
    (void)state;
    struct server_config config;
    struct identity id;
    server_config_defaults(&config);
    config.name = "n1";
    config.token = "tkn";
    config.initial_advertise_peer_urls.url[0] = "http://127.0.0.1:23803";
    config.initial_cluster = "n1=http://127.0.0.1:23803,n2=http://127.0.0.1:23804,"
                             "n2=http://10.0.0.2:2380,n3=http://127.0.0.1:23805/";
    assert_int_equal(identity_compute(&config, &id, NULL), ERR_OK);
    assert_int_equal(id.member_id, 0x4be80d0b5085b838);
    assert_int_equal(id.cluster_id, 0x89a89b77113cf37c);
    assert_int_equal(id.member_count, 3);
    assert_int_equal(id.members[1].id, 0xa6535149c4ff3eb2);
    assert_int_equal(id.members[1].peer_url_count, 2);
    assert_int_equal(id.members[2].id, 0x9e5911db17fd9812);
    assert_string_equal(identity_self(&id)->name, "n1");
    identity_free(&id);
}

static void expect_refusal(const char *initial_cluster, const char *text)
{
    struct server_config config;
    struct identity id;
    struct error err;
    server_config_defaults(&config);
    config.initial_cluster = initial_cluster;
    assert_int_equal(identity_compute(&config, &id, &err), ERR_INVALID);
    if (!strstr(err.message, text))
        fail_msg("'%s' is not in '%s'", text, err.message);
}

static void a_wrong_list_is_named(void **state)
{
    (void)state;
    expect_refusal("a=http://localhost:2380", "couldn't find local name \"default\"");
    expect_refusal("default=http://localhost:2381", "--initial-advertise-peer-urls");
    expect_refusal("default", "is not NAME=URL");
    expect_refusal("default=localhost:2380", "http://HOST:PORT");
    expect_refusal("default=https://localhost:2380", "TLS");
    expect_refusal("default=http://localhost:2380,b=http://localhost:2380", "same URLs");
}

static void urls_are_checked(void **state)
{
    (void)state;
    assert_int_equal(url_check("http://127.0.0.1:2379", NULL), ERR_OK);
    assert_int_equal(url_check("http://[::1]:2379", NULL), ERR_OK);
    assert_int_equal(url_check("unix:/run/x", NULL), ERR_OK);
    assert_int_equal(url_check("unix:", NULL), ERR_INVALID);
    assert_int_equal(url_check("http://h", NULL), ERR_INVALID);
    assert_int_equal(url_check("http://h:", NULL), ERR_INVALID);
    assert_int_equal(url_check("http://:1", NULL), ERR_INVALID);
    assert_int_equal(url_check("http://h:70000", NULL), ERR_INVALID);
    assert_int_equal(url_check("http://h:1/path", NULL), ERR_INVALID);
    assert_int_equal(url_check("ftp://h:1", NULL), ERR_INVALID);
    assert_int_equal(url_check("", NULL), ERR_INVALID);
}

/* ---- The file ------------------------------------------------------------------------------------ */

static char *make_dir(void)
{
    char *dir = xstrdup("/tmp/test_ids.XXXXXX");
    assert_non_null(mkdtemp(dir));
    return dir;
}

static void remove_dir(char *dir)
{
    char *command = xasprintf("rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    free(command);
    free(dir);
}

static void an_identity_is_remembered(void **state)
{
    (void)state;
    char *dir = make_dir();
    struct disk *disk = disk_posix();
    char *url = (char *)"http://a:1";
    struct identity id = {.cluster_id = 0xabc, .member_id = 0xdef, .joined = true}, read;
    identity_add(&id, 0xdef, "me and myself", false, &url, 1);
    identity_add(&id, 0x123, "", true, &url, 1);
    assert_int_equal(identity_load(disk, dir, &read, NULL), ERR_NOT_FOUND);
    assert_int_equal(identity_save(disk, dir, &id, NULL), ERR_OK);
    assert_int_equal(identity_load(disk, dir, &read, NULL), ERR_OK);
    assert_int_equal(read.cluster_id, 0xabc);
    assert_int_equal(read.member_id, 0xdef);
    assert_true(read.joined);
    assert_int_equal(read.member_count, 2);
    assert_string_equal(read.members[0].name, "me and myself");
    assert_string_equal(read.members[0].peer_urls[0], "http://a:1");
    assert_string_equal(read.members[1].name, "");
    assert_true(read.members[1].learner);
    identity_free(&id);
    identity_free(&read);
    remove_dir(dir);
}

/* The directory's own entry in its parent was never synced: a power loss took all data with it (found by
 * tests/fault/test_power.py). */
static void an_identity_survives_a_power_loss(void **state)
{
    (void)state;
    char *url = (char *)"http://a:1";
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct simrng rng = {seed};
        struct simdisk *sim = simdisk_new(seed);
        struct disk *disk = simdisk_disk(sim);
        struct identity id = {.cluster_id = 0xabc, .member_id = 0xdef}, read;
        struct disk_file *lock;
        identity_add(&id, 0xdef, "me", false, &url, 1);
        assert_int_equal(data_dir_lock(disk, "/var/lib/data", &lock, NULL), ERR_OK);
        assert_int_equal(identity_save(disk, "/var/lib/data", &id, NULL), ERR_OK);
        simdisk_power_off(sim);
        simdisk_crash(sim, &rng);
        disk->close(disk, lock);
        assert_int_equal(identity_load(disk, "/var/lib/data", &read, NULL), ERR_OK);
        identity_free(&id);
        identity_free(&read);
        simdisk_free(sim);
    }
}

static void a_damaged_identity_is_refused(void **state)
{
    (void)state;
    static const char *const contents[] = {
        "",
        "something else\n",
        "quorumd identity 1\n",
        "quorumd identity 1\ncluster\tabc\nmember\tdef\n",
        "quorumd identity 1\ncluster\txyz\nmember\tdef\npeer\tdef\tvoter\tn\thttp://a:1\n",
        "quorumd identity 1\ncluster\tabc\nmember\tdef\npeer\tdef\n",
        "quorumd identity 1\ncluster\tabc\nmember\tdef\nwhat\t1\npeer\tdef\tvoter\tn\thttp://a:1\n",
    };
    char *dir = make_dir();
    char *member = xasprintf("%s/member", dir), *path = xasprintf("%s/identity", member);
    struct identity id;
    assert_int_equal(disk_posix()->mkdir(disk_posix(), member, NULL), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(contents); i++) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(contents[i], f);
        fclose(f);
        assert_int_equal(identity_load(disk_posix(), dir, &id, NULL), ERR_CORRUPT);
    }
    free(member);
    free(path);
    remove_dir(dir);
}

static void a_directory_is_locked_and_checked(void **state)
{
    (void)state;
    char *dir = make_dir();
    struct disk *disk = disk_posix();
    struct disk_file *lock;
    struct error err;
    char *data = xasprintf("%s/data", dir), *deep = xasprintf("%s/a/b/c/", dir);
    char *file = xasprintf("%s/file", dir), *below_file = xasprintf("%s/file/data", dir);
    assert_int_equal(data_dir_lock(disk, data, &lock, &err), ERR_OK);
    disk->close(disk, lock);
    assert_int_equal(data_dir_lock(disk, deep, &lock, &err),
                     ERR_OK); /* with its parents, as etcd does */
    disk->close(disk, lock);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fclose(f);
    assert_int_not_equal(data_dir_lock(disk, below_file, &lock, &err), ERR_OK);
    assert_non_null(strstr(err.message, below_file));
    char *member = xasprintf("%s/member", data), *wal = xasprintf("%s/wal", member);
    assert_int_equal(disk->mkdir(disk, member, NULL), ERR_OK);
    assert_int_equal(disk->mkdir(disk, wal, NULL), ERR_OK);
    assert_int_equal(data_dir_lock(disk, data, &lock, &err), ERR_INVALID);
    assert_non_null(strstr(err.message, "etcd"));
    free(member);
    free(wal);
    free(data);
    free(deep);
    free(file);
    free(below_file);
    remove_dir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_have_etcds_ids),
        cmocka_unit_test(a_cluster_has_etcds_ids),
        cmocka_unit_test(a_wrong_list_is_named),
        cmocka_unit_test(urls_are_checked),
        cmocka_unit_test(an_identity_is_remembered),
        cmocka_unit_test(an_identity_survives_a_power_loss),
        cmocka_unit_test(a_damaged_identity_is_refused),
        cmocka_unit_test(a_directory_is_locked_and_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
