/* Runs the scenarios in tests/unit/raft/: text files of commands, each block followed by a line `----` and
 * what the members did. REWRITE=1 writes what they do now into the files; read the difference before
 * you keep it.
 *
 *   cluster N [learners L]         N voters 1..N, all with empty logs
 *   rebase                         start anew, the first membership counted as entry 1 (who joins
 *                                  needs a snapshot)
 *   start ID [term T log T1 T2..]  starts a member that is down, with this term and log if given
 *   crash ID [KEPT]                what is not synced is lost, but for the first KEPT appends
 *   tick ID|all N                  `all` delivers everything after each tick
 *   deliver [N]                    everything that is under way, or N messages
 *   drop A B | heal A B            cuts or mends a link; `drop ID`, `heal ID`: all links of a member
 *   clear                          drops what is under way
 *   campaign ID | propose ID TEXT | read ID CONTEXT | transfer ID TO | gone ID PEER
 *   conf ID add-voter|add-learner|remove|update MEMBER
 *   sync ID on|off | persist ID [N]  off: appends wait for `persist`
 *   compact ID INDEX
 *   messages on|off                whether deliveries are shown
 *   status [ID..] | log [ID..]
 *
 * `#` begins a comment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/unit/raft_fixture.h"

#define WORDS_MAX 32

struct scenario {
    struct fixture f;
    bool started;
    const char *file;
    size_t line;
};

struct words {
    char *w[WORDS_MAX];
    size_t n;
};

static uint64_t number(struct scenario *s, const struct words *w, size_t i)
{
    char *end;
    uint64_t v = i < w->n ? strtoull(w->w[i], &end, 10) : 0;
    if (i >= w->n || *end != '\0')
        fail_msg("%s:%zu: %s: argument %zu has to be a number", s->file, s->line, w->w[0], i);
    return v;
}

static uint64_t member(struct scenario *s, const struct words *w, size_t i)
{
    uint64_t id = number(s, w, i);
    if (id < 1 || id > FIXTURE_MEMBERS_MAX)
        fail_msg("%s:%zu: no member %" PRIu64, s->file, s->line, id);
    return id;
}

static void result(struct scenario *s, enum errc rc)
{
    if (rc != ERR_OK)
        buf_printf(&s->f.out, "error: %s\n", errc_text(rc));
}

/* --- commands --------------------------------------------------------------------------------- */

static void do_cluster(struct scenario *s, const struct words *w)
{
    if (s->started)
        fixture_free(&s->f);
    s->started = true;
    fixture_init(&s->f, number(s, w, 1), w->n > 3 ? number(s, w, 3) : 0, 0);
    s->f.show_messages = true;
}

static void do_rebase(struct scenario *s, const struct words *w)
{
    (void)w;
    fixture_rebase(&s->f);
}

static void do_start(struct scenario *s, const struct words *w)
{
    uint64_t id = member(s, w, 1), terms[WORDS_MAX];
    size_t n = 0;
    if (w->n > 4) {
        for (size_t i = 5; i < w->n; i++)
            terms[n++] = number(s, w, i);
        fixture_crash(&s->f, id, 0);
        fixture_set_log(&s->f, id, number(s, w, 3), terms, n);
    }
    fixture_start(&s->f, id);
}

static void do_crash(struct scenario *s, const struct words *w)
{
    fixture_crash(&s->f, member(s, w, 1), w->n > 2 ? number(s, w, 2) : 0);
}

static void do_tick(struct scenario *s, const struct words *w)
{
    if (strcmp(w->w[1], "all") == 0)
        fixture_tick_all(&s->f, number(s, w, 2));
    else
        fixture_tick(&s->f, member(s, w, 1), number(s, w, 2));
}

static void do_deliver(struct scenario *s, const struct words *w)
{
    if (w->n == 1) {
        fixture_deliver(&s->f);
        return;
    }
    for (uint64_t n = number(s, w, 1); n > 0 && s->f.queue_count > 0; n--)
        fixture_deliver_at(&s->f, 0, false);
}

static void do_link(struct scenario *s, const struct words *w)
{
    bool cut = strcmp(w->w[0], "drop") == 0;
    if (w->n == 2)
        fixture_isolate(&s->f, member(s, w, 1), cut);
    else
        fixture_cut(&s->f, member(s, w, 1), member(s, w, 2), cut);
}

static void do_clear(struct scenario *s, const struct words *w)
{
    (void)w;
    fixture_clear(&s->f);
}

static void do_campaign(struct scenario *s, const struct words *w)
{
    uint64_t id = member(s, w, 1);
    result(s, raft_campaign(fixture_raft(&s->f, id)));
    fixture_ready(&s->f, id);
}

static void do_propose(struct scenario *s, const struct words *w)
{
    result(s, fixture_propose(&s->f, member(s, w, 1), w->n > 2 ? w->w[2] : ""));
}

static void do_read(struct scenario *s, const struct words *w)
{
    uint64_t id = member(s, w, 1);
    result(s, raft_read_index(fixture_raft(&s->f, id), number(s, w, 2)));
    fixture_ready(&s->f, id);
}

static void do_transfer(struct scenario *s, const struct words *w)
{
    uint64_t id = member(s, w, 1);
    result(s, raft_transfer_leader(fixture_raft(&s->f, id), number(s, w, 2)));
    fixture_ready(&s->f, id);
}

static void do_gone(struct scenario *s, const struct words *w)
{
    uint64_t id = member(s, w, 1);
    raft_report_peer_gone(fixture_raft(&s->f, id), member(s, w, 2));
    fixture_ready(&s->f, id);
}

static void do_conf(struct scenario *s, const struct words *w)
{
    static const char *const types[] = {"add-voter", "add-learner", "remove", "update"};
    for (size_t i = 0; w->n == 4 && i < ARRAY_LEN(types); i++) {
        if (strcmp(w->w[2], types[i]) == 0) {
            result(s, fixture_conf(&s->f, member(s, w, 1), (enum raft_conf_change_type)i,
                                   member(s, w, 3)));
            return;
        }
    }
    fail_msg("%s:%zu: conf ID add-voter|add-learner|remove|update MEMBER", s->file, s->line);
}

static void do_sync(struct scenario *s, const struct words *w)
{
    uint64_t id = member(s, w, 1);
    s->f.members[id].manual_sync = strcmp(w->w[2], "off") == 0;
    if (!s->f.members[id].manual_sync)
        fixture_sync(&s->f, id);
}

static void do_persist(struct scenario *s, const struct words *w)
{
    uint64_t id = member(s, w, 1), n = w->n > 2 ? number(s, w, 2) : UINT64_MAX;
    while (n-- > 0 && s->f.members[id].append_count > 0)
        fixture_sync_one(&s->f, id);
}

static void do_compact(struct scenario *s, const struct words *w)
{
    fixture_compact(&s->f, member(s, w, 1), number(s, w, 2));
}

static void do_messages(struct scenario *s, const struct words *w)
{
    s->f.show_messages = strcmp(w->w[1], "on") == 0;
}

static void show_status(struct scenario *s, uint64_t id)
{
    static const char *const states[] = {"probe", "replicate", "snapshot"};
    if (!fixture_up(&s->f, id)) {
        buf_printf(&s->f.out, "%" PRIu64 ": down\n", id);
        return;
    }
    struct raft_status t = fixture_status(&s->f, id);
    buf_printf(&s->f.out,
               "%" PRIu64 ": %s term %" PRIu64 " leader %" PRIu64 " log %" PRIu64 "..%" PRIu64
               " persisted %" PRIu64 " commit %" PRIu64 " applied %" PRIu64 "\n",
               id, fixture_role_name(t.role), t.term, t.leader, t.first_index, t.last_index,
               t.persisted, t.commit, t.applied);
    for (size_t i = 0; i < t.peer_count; i++) {
        if (t.peers[i].id != id)
            buf_printf(&s->f.out, "   %" PRIu64 ": %s match %" PRIu64 " next %" PRIu64 "%s%s\n",
                       t.peers[i].id, states[t.peers[i].state], t.peers[i].match, t.peers[i].next,
                       t.peers[i].learner ? " learner" : "",
                       t.peers[i].recent_active ? "" : " silent");
    }
}

static void show_log(struct scenario *s, uint64_t id)
{
    char text[1024];
    fixture_log_text(&s->f, id, text, sizeof text);
    buf_printf(&s->f.out, "%" PRIu64 ": %s\n", id, text);
}

static void do_show(struct scenario *s, const struct words *w)
{
    void (*show)(struct scenario *, uint64_t) = w->w[0][0] == 's' ? show_status : show_log;
    for (size_t i = 1; i < w->n; i++)
        show(s, member(s, w, i));
    for (uint64_t id = 1; w->n == 1 && id <= FIXTURE_MEMBERS_MAX; id++) {
        if (fixture_up(&s->f, id))
            show(s, id);
    }
}

static const struct {
    const char *name;
    void (*run)(struct scenario *s, const struct words *w);
    size_t words_min;
} commands[] = {
    {"cluster", do_cluster, 2},   {"rebase", do_rebase, 1},   {"start", do_start, 2},
    {"crash", do_crash, 2},       {"tick", do_tick, 3},       {"deliver", do_deliver, 1},
    {"drop", do_link, 2},         {"heal", do_link, 2},       {"clear", do_clear, 1},
    {"campaign", do_campaign, 2}, {"propose", do_propose, 3}, {"read", do_read, 3},
    {"transfer", do_transfer, 3}, {"gone", do_gone, 3},       {"conf", do_conf, 4},
    {"sync", do_sync, 3},         {"persist", do_persist, 2}, {"compact", do_compact, 3},
    {"messages", do_messages, 2}, {"status", do_show, 1},     {"log", do_show, 1},
};

static void run_command(struct scenario *s, char *line)
{
    struct words w = {0};
    char *save = NULL;
    for (char *p = strtok_r(line, " ", &save); p != NULL && w.n < WORDS_MAX;
         p = strtok_r(NULL, " ", &save))
        w.w[w.n++] = p;
    if (w.n == 0 || w.w[0][0] == '#')
        return;
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        if (strcmp(w.w[0], commands[i].name) == 0 && w.n >= commands[i].words_min) {
            if (!s->started && commands[i].run != do_cluster)
                fail_msg("%s:%zu: `cluster` comes first", s->file, s->line);
            commands[i].run(s, &w);
            return;
        }
    }
    fail_msg("%s:%zu: no such command, or it needs more: %s", s->file, s->line, w.w[0]);
}

/* --- files ------------------------------------------------------------------------------------ */

static char *read_whole(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        fail_msg("can't open %s", path);
    struct buf b = {0};
    char chunk[4096];
    size_t n;
    while ((n = fread(chunk, 1, sizeof chunk, file)) > 0)
        buf_append(&b, chunk, n);
    fclose(file);
    buf_append(&b, "", 1);
    return (char *)b.p;
}

/* Runs the commands of `text` and gives the text as it would have to be. */
static void run_text(struct scenario *s, char *text, struct buf *ret_actual)
{
    bool expected = false; /* inside of the lines under a `----` */
    char *line = text;
    while (*line != '\0') {
        char *end = strchrnul(line, '\n'), *next = *end == '\0' ? end : end + 1;
        *end = '\0';
        s->line++;
        if (expected && *line != '\0') {
            line = next;
            continue;
        }
        buf_printf(ret_actual, "%s\n", line);
        if (expected) {
            expected = false; /* an empty line ends the block */
        } else if (strcmp(line, "----") == 0) {
            buf_append(ret_actual, s->f.out.p, s->f.out.n);
            s->f.out.n = 0;
            expected = true;
        } else {
            run_command(s, line);
        }
        line = next;
    }
}

static void first_difference(const char *path, const char *want, const char *got)
{
    size_t line = 1;
    while (*want != '\0' && *got != '\0') {
        const char *w = strchrnul(want, '\n'), *g = strchrnul(got, '\n');
        if (w - want != g - got || memcmp(want, got, (size_t)(w - want)) != 0)
            break;
        want = *w == '\0' ? w : w + 1;
        got = *g == '\0' ? g : g + 1;
        line++;
    }
    fail_msg("%s:%zu:\n  expected: %.*s\n  got:      %.*s", path, line,
             (int)(strchrnul(want, '\n') - want), want, (int)(strchrnul(got, '\n') - got), got);
}

static void run_file(const char *name)
{
    char *path = xasprintf("%s/%s", RAFT_SCENARIO_DIR, name);
    char *text = read_whole(path), *want = xstrdup(text);
    struct scenario s = {.file = name};
    struct buf actual = {0};
    run_text(&s, text, &actual);
    if (s.started)
        fixture_free(&s.f);
    buf_append(&actual, "", 1);
    if (strcmp(want, (char *)actual.p) != 0) {
        if (getenv("REWRITE") == NULL)
            first_difference(path, want, (char *)actual.p);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs((char *)actual.p, file);
        assert_int_equal(fclose(file), 0);
    }
    buf_free(&actual);
    free(text);
    free(want);
    free(path);
}

static int is_scenario(const struct dirent *d)
{
    size_t n = strlen(d->d_name);
    return n > 4 && strcmp(d->d_name + n - 4, ".txt") == 0;
}

static void test_scenarios(void **state)
{
    (void)state;
    struct dirent **files;
    int n = scandir(RAFT_SCENARIO_DIR, &files, is_scenario, alphasort);
    assert_true(n >= 10); /* they are there */
    for (int i = 0; i < n; i++) {
        run_file(files[i]->d_name);
        free(files[i]);
    }
    free(files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scenarios)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
