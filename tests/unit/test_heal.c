/* How a member that lost its data finds out, and what it remembers while it comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "daemon/server/first.h"
#include "daemon/server/known.h"
#include "daemon/server/port.h"
#include "daemon/server/rejoin.h"
#include "daemon/server/state_file.h"
#include "lib/base/memory.h"
#include "tests/unit/temp_store.h"

static struct server_config config; /* member "a" of a, b, c */
static struct identity computed;
static char dir[64];

static int set_up(void **state)
{
    (void)state;
    server_config_defaults(&config);
    fixture_temp_dir(dir);
    config.data_dir = dir;
    config.name = "a";
    config.initial_advertise_peer_urls = (struct server_urls){{"http://a:1"}, 1};
    config.initial_cluster = "a=http://a:1,b=http://b:1,c=http://c:1";
    assert_int_equal(identity_compute(&config, &computed, NULL), ERR_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    identity_free(&computed);
    fixture_remove_dir(dir);
    return 0;
}

/* ---- A membership as another member answers it ---------------------------------------------------- */

struct membership {
    Etcdserverpb__MemberListResponse response;
    Etcdserverpb__ResponseHeader header;
    Etcdserverpb__Member rows[4], *each[4];
    char *peer[4][1], *client[1];
};

static void add(struct membership *l, uint64_t id, const char *peer_url, bool published,
                bool learner)
{
    size_t i = l->response.n_members++;
    etcdserverpb__member__init(&l->rows[i]);
    l->peer[i][0] = (char *)peer_url;
    l->client[0] = (char *)"http://client:1";
    l->rows[i].id = id;
    l->rows[i].peerurls = l->peer[i];
    l->rows[i].n_peerurls = 1;
    l->rows[i].clienturls = l->client;
    l->rows[i].n_clienturls = published;
    l->rows[i].islearner = learner;
    l->each[i] = &l->rows[i];
}

static void begin(struct membership *l, uint64_t term)
{
    memset(l, 0, sizeof(*l));
    etcdserverpb__member_list_response__init(&l->response);
    etcdserverpb__response_header__init(&l->header);
    l->header.cluster_id = computed.cluster_id;
    l->header.raft_term = term;
    l->response.header = &l->header;
    l->response.members = l->each;
    add(l, 2, "http://b:1", true, false);
    add(l, 3, "http://c:1", true, false);
}

/* ---- First start ---------------------------------------------------------------------------------- */

static void an_answer_tells_a_wiped_member_from_a_late_one(void **state)
{
    (void)state;
    struct membership l;
    begin(&l, 5);
    add(&l, computed.member_id, "http://a:1", true, false);
    assert_int_equal(first_classify(&l.response, false, &computed), FIRST_PUBLISHED);
    begin(&l, 5);
    add(&l, computed.member_id, "http://a:1", false, false);
    assert_int_equal(first_classify(&l.response, false, &computed), FIRST_UNSURE);
    assert_int_equal(first_classify(&l.response, true, &computed), FIRST_LATE);
    l.header.raft_term = 1;
    assert_int_equal(first_classify(&l.response, false, &computed), FIRST_FRESH);
    /* Replaced already, and wiped once more before the new member ran. */
    begin(&l, 5);
    add(&l, 77, "http://a:1", false, true);
    assert_int_equal(first_classify(&l.response, false, &computed), FIRST_PUBLISHED);
    begin(&l, 5);
    assert_int_equal(first_classify(&l.response, false, &computed), FIRST_UNSURE);
    assert_int_equal(first_classify(&l.response, true, &computed), FIRST_REMOVED);
    l.header.cluster_id++;
    assert_int_equal(first_classify(&l.response, true, &computed), FIRST_FOREIGN);
}

static void only_a_fresh_quorum_or_a_running_cluster_begins(void **state)
{
    (void)state;
    static const struct {
        enum first_answer answers[4];
        size_t count;
        enum first_verdict verdict;
    } cases[] = {
        {{FIRST_NONE, FIRST_NONE}, 2, FIRST_WAIT},
        {{FIRST_SILENT, FIRST_SILENT}, 2, FIRST_WAIT},
        {{FIRST_FRESH, FIRST_SILENT}, 2, FIRST_WAIT_BRIEFLY},
        {{FIRST_FRESH, FIRST_FRESH}, 2, FIRST_BEGIN},
        {{FIRST_FRESH, FIRST_PUBLISHED}, 2, FIRST_REJOIN},
        {{FIRST_LATE, FIRST_PUBLISHED}, 2, FIRST_REJOIN},
        {{FIRST_SILENT, FIRST_LATE}, 2, FIRST_BEGIN},
        {{FIRST_UNSURE, FIRST_SILENT}, 2, FIRST_WAIT},
        {{FIRST_REMOVED, FIRST_SILENT}, 2, FIRST_REFUSE},
        {{FIRST_FOREIGN, FIRST_SILENT}, 2, FIRST_WAIT},
        {{FIRST_FRESH}, 1, FIRST_BEGIN},
        {{FIRST_SILENT}, 1, FIRST_WAIT},
        {{FIRST_FRESH, FIRST_SILENT, FIRST_SILENT, FIRST_SILENT}, 4, FIRST_WAIT},
        {{FIRST_FRESH, FIRST_FRESH, FIRST_SILENT, FIRST_SILENT}, 4, FIRST_WAIT_BRIEFLY},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(first_judge(cases[i].answers, cases[i].count), cases[i].verdict);
}

static void a_process_knows_its_own_answer(void **state)
{
    (void)state;
    assert_int_equal(port_answer_of(PORT_FRESH_TEXT " (00000000000000ab)", 0xab), PORT_SELF);
    assert_int_equal(port_answer_of(PORT_REJOINING_TEXT " (00000000000000ab)", 0xab), PORT_SELF);
    assert_int_equal(port_answer_of(PORT_FRESH_TEXT " (00000000000000ac)", 0xab), PORT_FRESH);
    assert_int_equal(port_answer_of(PORT_REJOINING_TEXT " (ac)", 0xab), PORT_REJOINING);
    assert_int_equal(port_answer_of("connection refused", 0xab), PORT_NO_ANSWER);
    assert_int_equal(port_answer_of("", 0xab), PORT_NO_ANSWER);
}

static void one_of_two_is_recognized(void **state)
{
    (void)state;
    struct membership l;
    begin(&l, 5);
    const Etcdserverpb__Member *other;
    add(&l, 9, "http://a:1", true, false);
    size_t first = l.response.n_members;
    assert_null(rejoin_only_other(&config, &l.response)); /* begin() has two others */
    for (size_t i = 0; i + 1 < first; i++)
        l.rows[i].islearner = i > 0;
    other = rejoin_only_other(&config, &l.response);
    assert_ptr_equal(other, &l.rows[0]);
    l.rows[first - 1].islearner = true; /* this one is a learner: the other one can do without it */
    assert_null(rejoin_only_other(&config, &l.response));
}

/* ---- Rejoining ------------------------------------------------------------------------------------ */

static void the_next_step_follows_from_marker_and_list(void **state)
{
    (void)state;
    struct membership l;
    const Etcdserverpb__Member *self;
    struct marker m = {.cluster_id = computed.cluster_id, .old = {9}, .old_count = 1};
    begin(&l, 5);
    add(&l, 9, "http://a:1", true, false);
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_REMOVE);
    assert_int_equal(self->id, 9);
    l.rows[2].n_clienturls = 0; /* damaged before it was published */
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_REMOVE);
    /* Who can't tell its old id takes nobody for its new one. */
    l.rows[2].id = 10;
    m.unknown = true;
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_REMOVE);
    m.unknown = false;
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_ADOPT);
    l.rows[2].n_clienturls = 1; /* it ran, and its data are gone as well */
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_REMOVE);
    /* Between removal and addition: ours to add, but never after somebody else's removal. */
    begin(&l, 5);
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_REMOVED);
    m.removing = true;
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_ADD);
    /* There is room for one learner: without it the cluster would lose a voter for nothing. */
    add(&l, 8, "http://d:1", false, true);
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_BUSY);
    add(&l, 9, "http://a:1", true, false);
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_BUSY);
    l.header.cluster_id++;
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_FOREIGN);
    m.cluster_id = 0;
    assert_int_equal(rejoin_judge(&m, &config, &l.response, &self), REJOIN_BUSY);
}

static void a_marker_comes_back_as_it_was(void **state)
{
    (void)state;
    struct disk *disk = disk_posix();
    struct error err;
    struct marker m = {.cluster_id = 0xabc, .role = MARKER_ROLE_LEARNER, .removing = true}, read;
    assert_int_equal(marker_load(disk, dir, &read, &err), ERR_NOT_FOUND);
    for (uint64_t id = 1; id <= MARKER_OLD_MAX + 2; id++)
        marker_add_old(&m, id);
    marker_add_old(&m, MARKER_OLD_MAX + 2);
    snprintf(m.reason, sizeof(m.reason), "a file: at 5\tand\nmore");
    assert_int_equal(marker_save(disk, dir, &m, &err), ERR_OK);
    assert_int_equal(marker_load(disk, dir, &read, &err), ERR_OK);
    assert_int_equal(read.cluster_id, 0xabc);
    assert_int_equal(read.role, MARKER_ROLE_LEARNER);
    assert_true(read.removing);
    assert_false(read.unknown);
    assert_int_equal(read.old_count, MARKER_OLD_MAX);
    assert_true(marker_is_old(&read, MARKER_OLD_MAX + 2));
    assert_false(marker_is_old(&read, 2));
    assert_string_equal(read.reason, "a file: at 5 and more");
    assert_int_equal(marker_remove(disk, dir, &err), ERR_OK);
    assert_int_equal(marker_remove(disk, dir, &err), ERR_OK);
    assert_int_equal(marker_load(disk, dir, &read, &err), ERR_NOT_FOUND);
}

static char *path_of(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static bool exists(const char *name)
{
    char *path = path_of(name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

static void make(const char *name)
{
    char *path = path_of(name);
    assert_int_equal(disk_posix()->mkdir(disk_posix(), path, NULL), ERR_OK);
    free(path);
}

static void damaged_data_moves_aside_once(void **state)
{
    (void)state;
    struct disk *disk = disk_posix();
    struct error err;
    make("member");
    assert_int_equal(member_move_aside(disk, dir, &err), ERR_OK);
    assert_true(exists("member")); /* nothing in it: a member that was about to begin */
    make("member/log");
    make("member/first");
    assert_int_equal(member_move_aside(disk, dir, &err), ERR_OK);
    assert_false(exists("member"));
    assert_true(exists("member.damaged/first"));
    assert_int_equal(member_move_aside(disk, dir, &err), ERR_OK); /* after a crash: done already */
    assert_true(exists("member.damaged/first"));
    make("member");
    make("member/log");
    assert_int_equal(member_move_aside(disk, dir, &err), ERR_OK);
    assert_false(exists("member.damaged/first"));
    assert_int_equal(member_remove_damaged(disk, dir, &err), ERR_OK);
    assert_int_equal(member_remove_damaged(disk, dir, &err), ERR_OK);
    assert_false(exists("member.damaged"));
}

/* ---- Damage in the small files --------------------------------------------------------------------- */

/* A flipped digit of an id once went unseen until the log refused to belong to it. */
static void every_flipped_bit_of_an_identity_is_damage(void **state)
{
    (void)state;
    struct disk *disk = disk_posix();
    struct identity id;
    assert_int_equal(identity_save(disk, dir, &computed, NULL), ERR_OK);
    char *path = path_of("member/identity");
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    setbuf(file, NULL);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    for (long at = 0; at < size; at++) {
        fseek(file, at, SEEK_SET);
        int byte = fgetc(file);
        for (int bit = 0; bit < 8; bit++) {
            fseek(file, at, SEEK_SET);
            fputc(byte ^ (1 << bit), file);
            assert_int_equal(identity_load(disk, dir, &id, NULL), ERR_CORRUPT);
        }
        fseek(file, at, SEEK_SET);
        fputc(byte, file);
    }
    assert_int_equal(identity_load(disk, dir, &id, NULL), ERR_OK);
    identity_free(&id);
    while (--size > 0) {
        assert_int_equal(ftruncate(fileno(file), size), 0);
        assert_int_equal(identity_load(disk, dir, &id, NULL), ERR_CORRUPT);
    }
    fclose(file);
    free(path);
}

static void whom_to_ask_survives_the_damage(void **state)
{
    (void)state;
    struct disk *disk = disk_posix();
    struct known known;
    known_load(disk, &config, &known);
    assert_int_equal(known.count, 2);
    assert_int_equal(known.cluster_id, computed.cluster_id);
    known_free(&known);
    config.initial_cluster = NULL;
    known_load(disk, &config, &known);
    assert_int_equal(known.count, 0);
    assert_int_equal(identity_save(disk, dir, &computed, NULL), ERR_OK);
    struct buf text = {0};
    struct identity now = {.cluster_id = computed.cluster_id, .member_id = computed.member_id};
    char *own[] = {(char *)"http://a:1"}, *other[] = {(char *)"http://d:1"};
    identity_add(&now, computed.member_id, "a", true, own, 1);
    identity_add(&now, 4, "", false, other, 1);
    identity_print(&text, &now);
    assert_int_equal(state_file_write(disk, dir, "members", buf_bytes(&text), NULL), ERR_OK);
    known_load(disk, &config, &known);
    assert_int_equal(known.count, 3);
    assert_string_equal(known.urls[0], "http://d:1");
    assert_true(known.learner);
    known_free(&known);
    identity_free(&now);
    buf_free(&text);
}

/* The whole of what happens to a damaged directory, from here and from an interrupted attempt. */
static void damage_leaves_a_marker_and_no_data(void **state)
{
    (void)state;
    struct disk *disk = disk_posix();
    struct error why, err;
    struct marker m;
    error_set(&why, ERR_CORRUPT, "row 7 is damaged");
    assert_int_equal(identity_save(disk, dir, &computed, NULL), ERR_OK);
    make("member/log");
    for (int round = 0; round < 2; round++) {
        assert_true(server_heal(&config, &why, &err));
        assert_false(exists("member"));
        assert_true(exists("member.damaged/log"));
        assert_int_equal(marker_load(disk, dir, &m, &err), ERR_OK);
        assert_int_equal(m.old_count, 1);
        assert_int_equal(m.old[0], computed.member_id);
        assert_int_equal(m.unknown, round == 1); /* nothing to read an id from any more */
        assert_string_equal(m.reason, "row 7 is damaged");
    }
    error_set(&why, ERR_IO, "no disk");
    assert_false(server_heal(&config, &why, &err));
    assert_string_equal(err.message, "no disk");
}

static void alone_there_is_nobody_to_come_back_from(void **state)
{
    (void)state;
    struct error why, err;
    error_set(&why, ERR_CORRUPT, "row 7 is damaged");
    config.initial_cluster = NULL;
    make("member");
    make("member/log");
    assert_false(server_heal(&config, &why, &err));
    assert_true(exists("member/log"));
    assert_non_null(strstr(err.message, "row 7 is damaged"));
    assert_non_null(strstr(err.message, "--rescue NEWDIR"));
    config.initial_cluster = "a=http://a:1,b=http://b:1";
    config.listen_peer_urls.count = 0; /* the embedded mode */
    assert_false(server_heal(&config, &why, &err));
    assert_true(exists("member/log"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(an_answer_tells_a_wiped_member_from_a_late_one),
        TEST(only_a_fresh_quorum_or_a_running_cluster_begins),
        TEST(a_process_knows_its_own_answer),
        TEST(the_next_step_follows_from_marker_and_list),
        TEST(one_of_two_is_recognized),
        TEST(a_marker_comes_back_as_it_was),
        TEST(damaged_data_moves_aside_once),
        TEST(every_flipped_bit_of_an_identity_is_damage),
        TEST(whom_to_ask_survives_the_damage),
        TEST(damage_leaves_a_marker_and_no_data),
        TEST(alone_there_is_nobody_to_come_back_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
