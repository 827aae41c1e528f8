/* The replay on an ordinary directory: what watchers are told, merging, bounds, what it must not touch. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/rpc_fixture.h"

#include "fuse/mount_info.h"
#include "fuse/replay.h"
#include "lib/base/memory.h"

#define TOKENS_MAX 1000

struct world {
    uv_loop_t loop;
    char dir[64];
    int watch;
    struct replay *replay;
    uint64_t tokens;
    int answered[TOKENS_MAX];
    size_t answers;
    bool stopped;
    /* the notifier */
    uint64_t notified[TOKENS_MAX];
    size_t notified_count;
    bool hold;
    sem_t entered, go_on;
};

static void on_notify(void *ctx, uint64_t ino)
{
    struct world *w = ctx;
    w->notified[w->notified_count++] = ino;
    if (w->hold) {
        sem_post(&w->entered);
        sem_wait(&w->go_on);
    }
}

static void on_replayed(void *ctx, uint64_t token)
{
    struct world *w = ctx;
    assert_true(token > 0 && token <= w->tokens);
    w->answered[token]++;
    w->answers++;
}

static void on_stopped(void *ctx)
{
    ((struct world *)ctx)->stopped = true;
}

static void start(struct world *w, dev_t dev, size_t queue_max)
{
    memset(w, 0, sizeof *w);
    uv_loop_init(&w->loop);
    sem_init(&w->entered, 0, 0);
    sem_init(&w->go_on, 0, 0);
    strcpy(w->dir, "/tmp/quorumfs-replay-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    struct stat st;
    assert_int_equal(stat(w->dir, &st), 0);
    struct replay_config config = {.loop = &w->loop,
                                   .mount_point = w->dir,
                                   .dev = dev ? dev : st.st_dev,
                                   .queue_max = queue_max,
                                   .notify = on_notify,
                                   .replayed = on_replayed,
                                   .ctx = w};
    struct error err;
    if (replay_start(&config, &w->replay, &err) != ERR_OK)
        fail_msg("%s", err.message);
    w->watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    assert_true(inotify_add_watch(w->watch, w->dir, IN_ALL_EVENTS & ~(IN_ACCESS | IN_OPEN)) >= 0);
}

static void end(struct world *w)
{
    char command[128];
    replay_stop(w->replay, on_stopped, w);
    RUN_UNTIL(&w->loop, w->stopped);
    for (uint64_t i = 1; i <= w->tokens; i++)
        assert_int_equal(w->answered[i], 1);
    close(w->watch);
    assert_int_equal(uv_loop_close(&w->loop), 0);
    snprintf(command, sizeof command, "rm -rf '%s'", w->dir);
    assert_int_equal(system(command), 0);
    sem_destroy(&w->entered);
    sem_destroy(&w->go_on);
}

static bool push(struct world *w, enum core_change_kind kind, const char *path, const char *path2,
                 uint64_t ino)
{
    struct core_change change = {.kind = kind,
                                 .path = path,
                                 .path2 = path2,
                                 .ino = ino,
                                 .mode = kind == CHANGE_MKDIR ? 0755 : 0640,
                                 .content = kind == CHANGE_CREATE && path2,
                                 .token = w->tokens + 1};
    bool taken = replay_push(w->replay, &change);
    w->tokens += taken;
    return taken;
}

static void settle(struct world *w)
{
    RUN_UNTIL(&w->loop, w->answers == w->tokens);
}

/* What the watch saw since the last call, as "EVENT name;...". */
static const char *events(struct world *w)
{
    static const struct {
        uint32_t bit;
        const char *name;
    } names[] = {{IN_CREATE, "CREATE"},           {IN_MODIFY, "MODIFY"},
                 {IN_CLOSE_WRITE, "CLOSE_WRITE"}, {IN_CLOSE_NOWRITE, "CLOSE"},
                 {IN_ATTRIB, "ATTRIB"},           {IN_DELETE, "DELETE"},
                 {IN_MOVED_FROM, "FROM"},         {IN_MOVED_TO, "TO"}};
    static char text[65536];
    char buffer[65536] __attribute__((aligned(8)));
    ssize_t n = read(w->watch, buffer, sizeof buffer);
    size_t length = 0;
    text[0] = '\0';
    for (ssize_t at = 0; at < n;) {
        const struct inotify_event *e = (const void *)(buffer + at);
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            if (e->mask & names[i].bit)
                length += (size_t)snprintf(text + length, sizeof text - length, "%s %s;",
                                           names[i].name, e->len ? e->name : "");
        at += (ssize_t)(sizeof *e + e->len);
    }
    return text;
}

static const char *path_of(struct world *w, const char *name)
{
    static char path[4][300];
    static int next;
    next = (next + 1) % 4;
    snprintf(path[next], sizeof path[next], "%s/%s", w->dir, name);
    return path[next];
}

static void make(struct world *w, const char *name, const char *content)
{
    int fd = open(path_of(w, name), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
    events(w);
}

static void test_each_kind(void **state)
{
    (void)state;
    struct world w;
    struct stat st;
    start(&w, 0, 0);
    push(&w, CHANGE_CREATE, "f", NULL, 0);
    settle(&w);
    assert_string_equal(events(&w), "CREATE f;CLOSE_WRITE f;");
    push(&w, CHANGE_CREATE, "g", "content", 0);
    settle(&w);
    assert_string_equal(events(&w), "CREATE g;MODIFY g;CLOSE_WRITE g;");
    push(&w, CHANGE_OVERWRITE, "f", NULL, 77);
    settle(&w);
    assert_string_equal(events(&w), "MODIFY f;CLOSE_WRITE f;");
    assert_int_equal(w.notified_count, 1);
    assert_int_equal(w.notified[0], 77);
    push(&w, CHANGE_ATTRIB, "f", NULL, 78);
    settle(&w);
    assert_string_equal(events(&w), "ATTRIB f;");
    assert_int_equal(w.notified[1], 78);
    assert_int_equal(stat(path_of(&w, "f"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    push(&w, CHANGE_RENAME, "f", "h", 0);
    settle(&w);
    assert_string_equal(events(&w), "FROM f;TO h;");
    push(&w, CHANGE_MKDIR, "d", NULL, 0);
    settle(&w);
    assert_string_equal(events(&w), "CREATE d;");
    push(&w, CHANGE_CREATE, "d/x", NULL, 0);
    push(&w, CHANGE_RENAME, "d/x", "x", 0);
    push(&w, CHANGE_RENAME, "d", "e", 0);
    push(&w, CHANGE_RMDIR, "e", NULL, 0);
    push(&w, CHANGE_SYMLINK, "s", "target", 0);
    push(&w, CHANGE_DELETE, "s", NULL, 0);
    push(&w, CHANGE_DELETE, "x", NULL, 0);
    settle(&w);
    assert_string_equal(events(&w), "TO x;FROM d;TO e;DELETE e;CREATE s;DELETE s;DELETE x;");
    struct replay_counts counts;
    replay_counts(w.replay, &counts);
    assert_int_equal(counts.repeated, 13);
    assert_int_equal(counts.failed + counts.fallbacks + counts.merged + counts.waiting, 0);
    end(&w);
}

static void test_failures_go_on(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0, 0);
    make(&w, "there", "");
    push(&w, CHANGE_DELETE, "not-there", NULL, 0);
    push(&w, CHANGE_CREATE, "no/dir", NULL, 0);
    push(&w, CHANGE_CREATE, "there", NULL, 0);
    push(&w, CHANGE_RENAME, "there", "no/dir", 0);
    push(&w, CHANGE_OVERWRITE, "not-there", NULL, 0);
    push(&w, CHANGE_CREATE, "made", NULL, 0);
    settle(&w);
    assert_string_equal(events(&w), "CREATE made;CLOSE_WRITE made;");
    struct replay_counts counts;
    replay_counts(w.replay, &counts);
    assert_int_equal(counts.failed, 5);
    assert_int_equal(counts.last_errno, ENOENT);
    end(&w);
}

/* While a change is held up, later ones of one file become one; the file's last state is told anew. */
static void test_merging(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0, 0);
    make(&w, "a", "");
    make(&w, "b", "");
    w.hold = true;
    push(&w, CHANGE_OVERWRITE, "a", NULL, 1);
    sem_wait(&w.entered);
    for (int i = 0; i < 100; i++) {
        push(&w, CHANGE_OVERWRITE, "b", NULL, 0);
        push(&w, CHANGE_OVERWRITE, "a", NULL, 0); /* the one under way may be past it */
    }
    push(&w, CHANGE_CREATE, "c", NULL, 0);
    push(&w, CHANGE_OVERWRITE, "c", NULL, 0); /* its content comes with the creation */
    push(&w, CHANGE_DELETE, "b", NULL, 0);
    push(&w, CHANGE_CREATE, "b", NULL, 0); /* another b */
    RUN_UNTIL(&w.loop, w.answers == 199);  /* what was merged is answered already */
    w.hold = false;
    sem_post(&w.go_on);
    settle(&w);
    assert_string_equal(events(&w), "MODIFY a;CLOSE_WRITE a;MODIFY b;CLOSE_WRITE b;MODIFY a;"
                                    "CLOSE_WRITE a;CREATE c;MODIFY c;CLOSE_WRITE c;DELETE b;"
                                    "CREATE b;CLOSE_WRITE b;");
    struct replay_counts counts;
    replay_counts(w.replay, &counts);
    assert_int_equal(counts.merged, 199);
    end(&w);
}

/* Behind a rename, or a new file of the name, a path stands for something else. */
static void test_no_merging_over_a_rename(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0, 0);
    make(&w, "held", "");
    make(&w, "a", "");
    make(&w, "b", "");
    w.hold = true;
    push(&w, CHANGE_OVERWRITE, "held", NULL, 1);
    sem_wait(&w.entered);
    push(&w, CHANGE_OVERWRITE, "a", NULL, 0);
    push(&w, CHANGE_RENAME, "a", "c", 0);
    push(&w, CHANGE_RENAME, "b", "a", 0);
    push(&w, CHANGE_OVERWRITE, "a", NULL, 0);
    push(&w, CHANGE_DELETE, "a", NULL, 0);
    push(&w, CHANGE_CREATE, "a", NULL, 0);
    push(&w, CHANGE_ATTRIB, "a", NULL, 0);
    push(&w, CHANGE_ATTRIB, "a", NULL, 0);
    w.hold = false;
    sem_post(&w.go_on);
    settle(&w);
    assert_string_equal(events(&w),
                        "MODIFY held;CLOSE_WRITE held;MODIFY a;CLOSE_WRITE a;FROM a;TO c;FROM b;"
                        "TO a;MODIFY a;CLOSE_WRITE a;DELETE a;CREATE a;CLOSE_WRITE a;ATTRIB a;");
    end(&w);
}

static void test_bound(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0, 2);
    make(&w, "held", "");
    make(&w, "a", "");
    w.hold = true;
    push(&w, CHANGE_OVERWRITE, "held", NULL, 1);
    sem_wait(&w.entered);
    assert_true(push(&w, CHANGE_OVERWRITE, "a", NULL, 0));
    assert_true(push(&w, CHANGE_CREATE, "b", NULL, 0));
    assert_false(push(&w, CHANGE_CREATE, "c", NULL, 0));
    assert_true(push(&w, CHANGE_OVERWRITE, "a", NULL, 0)); /* needs no room */
    w.hold = false;
    sem_post(&w.go_on);
    settle(&w);
    struct replay_counts counts;
    replay_counts(w.replay, &counts);
    assert_int_equal(counts.refused, 1);
    assert_int_equal(counts.merged, 1);
    assert_true(push(&w, CHANGE_CREATE, "c", NULL, 0));
    end(&w);
}

static void test_lease_and_executable(void **state)
{
    (void)state;
    struct world w;
    struct replay_counts counts;
    char command[200];
    start(&w, 0, 0);
    make(&w, "leased", "content");
    signal(SIGIO, SIG_IGN);
    int fd = open(path_of(&w, "leased"), O_RDONLY | O_CLOEXEC);
    if (fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
        events(&w);
        push(&w, CHANGE_OVERWRITE, "leased", NULL, 0);
        settle(&w);
        assert_string_equal(events(&w), "MODIFY leased;");
        replay_counts(w.replay, &counts);
        assert_int_equal(counts.fallbacks, 1);
        fcntl(fd, F_SETLEASE, F_UNLCK);
    }
    close(fd);

    snprintf(command, sizeof command, "cp /bin/sleep '%s'", path_of(&w, "program"));
    assert_int_equal(system(command), 0);
    int ready[2];
    assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        execl(path_of(&w, "program"), "sleep", "100", (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    char c;
    assert_int_equal(read(ready[0], &c, 1), 0); /* closed by the exec */
    close(ready[0]);
    events(&w);
    push(&w, CHANGE_OVERWRITE, "program", NULL, 0);
    settle(&w);
    assert_string_equal(events(&w), "MODIFY program;");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    replay_counts(w.replay, &counts);
    assert_int_equal(counts.failed, 0);
    end(&w);
}

static void test_nothing_outside(void **state)
{
    (void)state;
    struct world w;
    struct replay_counts counts;
    char outside[] = "/tmp/quorumfs-outside-XXXXXX", command[100];
    struct stat st;
    start(&w, 0, 0);
    assert_non_null(mkdtemp(outside));
    snprintf(command, sizeof command, "echo precious > %s/f; echo up > %s/../up-%s", outside,
             outside, outside + 5);
    assert_int_equal(system(command), 0);
    assert_int_equal(symlink(outside, path_of(&w, "link")), 0);
    snprintf(command, sizeof command, "%s/f", outside);
    assert_int_equal(symlink(command, path_of(&w, "f")), 0);
    events(&w);
    snprintf(command, sizeof command, "../up-%s", outside + 5);
    push(&w, CHANGE_DELETE, "link/f", NULL, 0);
    push(&w, CHANGE_OVERWRITE, "link/f", NULL, 0);
    push(&w, CHANGE_OVERWRITE, "f", NULL, 0);
    push(&w, CHANGE_CREATE, "link/new", NULL, 0);
    push(&w, CHANGE_DELETE, command, NULL, 0);
    push(&w, CHANGE_OVERWRITE, outside, NULL, 0);
    settle(&w);
    replay_counts(w.replay, &counts);
    assert_int_equal(counts.failed, 6);
    snprintf(command, sizeof command, "%s/f", outside);
    assert_int_equal(stat(command, &st), 0);
    assert_int_equal(st.st_size, 9);
    snprintf(command, sizeof command,
             "test $(cat %s/f) = precious && test ! -e %s/new && rm /tmp/up-%s", outside, outside,
             outside + 5);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "rm -r %s", outside);
    assert_int_equal(system(command), 0);
    end(&w);
}

/* Something else is mounted there by now: nothing is done to it. */
static void test_other_device(void **state)
{
    (void)state;
    struct world w;
    struct replay_counts counts;
    start(&w, 1, 0);
    make(&w, "a", "x");
    push(&w, CHANGE_DELETE, "a", NULL, 0);
    settle(&w);
    assert_string_equal(events(&w), "");
    replay_counts(w.replay, &counts);
    assert_int_equal(counts.failed, 1);
    end(&w);
}

static int descriptors_of(int32_t tid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/fd", tid);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    struct dirent *e;
    while ((e = readdir(dir)))
        n += e->d_name[0] != '.' && atoi(e->d_name) > 2;
    closedir(dir);
    return n;
}

static void test_own_descriptors(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0, 0);
    assert_true(replay_tid(w.replay) > 0 && replay_tid(w.replay) != getpid());
    assert_int_equal(descriptors_of(replay_tid(w.replay)), 1);
    push(&w, CHANGE_CREATE, "a", NULL, 0);
    settle(&w);
    /* Idle again, it lets go of the mount. */
    RUN_UNTIL(&w.loop, descriptors_of(replay_tid(w.replay)) == 1);
    end(&w);
}

static void test_stop_gives_up_what_waits(void **state)
{
    (void)state;
    struct world w;
    start(&w, 0, 0);
    make(&w, "held", "");
    w.hold = true;
    push(&w, CHANGE_OVERWRITE, "held", NULL, 1);
    sem_wait(&w.entered);
    for (int i = 0; i < 50; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%d", i);
        push(&w, CHANGE_CREATE, name, NULL, 0);
    }
    replay_stop(w.replay, on_stopped, &w);
    struct core_change change = {.kind = CHANGE_CREATE, .path = "late", .token = 900};
    assert_false(replay_push(w.replay, &change));
    for (int i = 0; i < 5; i++)
        uv_run(&w.loop, UV_RUN_NOWAIT);
    assert_false(w.stopped); /* the change under way is waited for, without blocking the loop */
    w.hold = false;
    sem_post(&w.go_on);
    RUN_UNTIL(&w.loop, w.stopped);
    for (uint64_t i = 1; i <= w.tokens; i++)
        assert_int_equal(w.answered[i], 1);
    assert_string_equal(events(&w), "MODIFY held;CLOSE_WRITE held;");
    close(w.watch);
    assert_int_equal(uv_loop_close(&w.loop), 0);
    assert_int_equal(unlink(path_of(&w, "held")), 0);
    assert_int_equal(rmdir(w.dir), 0);
}

static void test_mount_info(void **state)
{
    (void)state;
    dev_t dev;
    struct stat st;
    assert_int_equal(stat("/proc", &st), 0);
    assert_true(mount_info_of_path("/proc", &dev));
    assert_true(dev == st.st_dev);
    assert_false(mount_info_of_path("/proc/not a mount", &dev));
    assert_false(mount_info_of_id(-1, &dev));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),       cmocka_unit_test(test_failures_go_on),
        cmocka_unit_test(test_merging),         cmocka_unit_test(test_no_merging_over_a_rename),
        cmocka_unit_test(test_bound),           cmocka_unit_test(test_lease_and_executable),
        cmocka_unit_test(test_nothing_outside), cmocka_unit_test(test_other_device),
        cmocka_unit_test(test_own_descriptors), cmocka_unit_test(test_stop_gives_up_what_waits),
        cmocka_unit_test(test_mount_info),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
