/* holders and replay on a real FUSE mount: the rule of the last close with real writers, the traps that hang a
 * server, what watchers see. A child serves one file "f" in memory; skipped where nothing can be mounted. */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/rpc_fixture.h"

#include "fuse/holders.h"
#include "fuse/mount_info.h"
#include "fuse/replay.h"
#include "lib/base/memory.h"

#define FILE_INO 0x51f0e1a2b3c4d5u
#define CONTENT_MAX 65536

/* ---- The server, in a child ---------------------------------------------------------------------- */

struct handle {
    int32_t opener;
    int pidfd;
    int flags;
    bool never_shared, dirty, replay;
};

static struct {
    uv_loop_t loop;
    uv_poll_t requests, commands;
    struct fuse_session *se;
    struct fuse_buf buf;
    struct holders *holders;
    struct replay *replay;
    int control;
    char content[CONTENT_MAX];
    size_t size;
    uint64_t token;
    bool storm; /* each replay is followed by the next, untold */
} srv;

/* One line to the test: what became of a close. */
static void tell(const char *what, size_t size)
{
    char line[64];
    int n = snprintf(line, sizeof line, "%s %zu\n", what, size);
    if (write(srv.control, line, (size_t)n) != n)
        _exit(3);
}

static struct stat stat_of(fuse_ino_t ino)
{
    struct stat st = {.st_ino = ino, .st_nlink = 1, .st_mode = S_IFDIR | 0755};
    if (ino == FILE_INO) {
        st.st_mode = S_IFREG | 0644;
        st.st_size = (off_t)srv.size;
    }
    return st;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    if (parent != FUSE_ROOT_ID || strcmp(name, "f") != 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    struct fuse_entry_param e = {.ino = FILE_INO, .attr = stat_of(FILE_INO), .entry_timeout = 1};
    fuse_reply_entry(req, &e);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st = stat_of(ino);
    (void)fi;
    fuse_reply_attr(req, &st, 0);
}

static bool from_replay(fuse_req_t req)
{
    return srv.replay && fuse_req_ctx(req)->pid == replay_tid(srv.replay);
}

static void on_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int set,
                       struct fuse_file_info *fi)
{
    if ((set & FUSE_SET_ATTR_SIZE) && !from_replay(req)) {
        srv.size = (size_t)attr->st_size;
        if (fi)
            ((struct handle *)(uintptr_t)fi->fh)->dirty = true;
    }
    on_getattr(req, ino, fi);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = xcalloc(1, sizeof *h);
    (void)ino;
    h->opener = fuse_req_ctx(req)->pid;
    h->pidfd = (int)syscall(SYS_pidfd_open, h->opener, 0);
    h->flags = fi->flags;
    h->never_shared = true;
    h->replay = from_replay(req);
    if ((fi->flags & O_TRUNC) && !h->replay) {
        srv.size = 0;
        h->dirty = true;
    }
    fi->fh = (uintptr_t)h;
    fi->direct_io = 1;
    fuse_reply_open(req, fi);
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    struct handle *h = (struct handle *)(uintptr_t)fi->fh;
    (void)ino;
    if (!h->replay) {
        if ((size_t)offset + size > CONTENT_MAX) {
            fuse_reply_err(req, EFBIG);
            return;
        }
        memcpy(srv.content + offset, data, size);
        if (srv.size < (size_t)offset + size)
            srv.size = (size_t)offset + size;
        h->dirty = true;
    }
    fuse_reply_write(req, size);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    (void)ino;
    (void)fi;
    size_t at = (size_t)offset < srv.size ? (size_t)offset : srv.size;
    fuse_reply_buf(req, srv.content + at, size < srv.size - at ? size : srv.size - at);
}

struct flush {
    fuse_req_t req;
    struct handle *handle;
};

static void on_holders(void *ctx, const struct core_holders_answer *a)
{
    struct flush *f = ctx;
    if (!a->caller_holds && !a->opener_holds && !a->other_holds) {
        tell(a->caller_signaled ? "killed" : "commit", srv.size);
        f->handle->dirty = false;
    }
    fuse_reply_err(f->req, 0);
    free(f);
}

static void on_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = (struct handle *)(uintptr_t)fi->fh;
    int32_t pid = fuse_req_ctx(req)->pid;
    h->never_shared &= pid == h->opener;
    if (!h->dirty) {
        fuse_reply_err(req, 0);
        return;
    }
    struct flush *f = xcalloc(1, sizeof *f);
    *f = (struct flush){req, h};
    struct core_holders_query q = {.ino = ino,
                                   .access_mode = h->flags & O_ACCMODE,
                                   .caller_pid = pid,
                                   .opener_pid = h->opener,
                                   .opener_pidfd = h->pidfd};
    holders_ask(srv.holders, &q, h->never_shared, on_holders, f);
}

static void on_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = (struct handle *)(uintptr_t)fi->fh;
    (void)ino;
    if (h->dirty)
        tell("release", srv.size);
    if (h->pidfd >= 0)
        close(h->pidfd);
    free(h);
    fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {.lookup = on_lookup,
                                                    .getattr = on_getattr,
                                                    .setattr = on_setattr,
                                                    .open = on_open,
                                                    .read = on_read,
                                                    .write = on_write,
                                                    .flush = on_flush,
                                                    .release = on_release};

static void on_requests(uv_poll_t *poll, int status, int events)
{
    (void)poll;
    (void)status;
    (void)events;
    int n = fuse_session_receive_buf(srv.se, &srv.buf);
    if (n > 0)
        fuse_session_process_buf(srv.se, &srv.buf);
    else if (n != -EINTR && n != -EAGAIN)
        uv_stop(&srv.loop); /* unmounted */
}

static void notify(void *ctx, uint64_t ino)
{
    (void)ctx;
    fuse_lowlevel_notify_inval_inode(srv.se, ino, 0, 0);
}

static void remote_overwrite(void)
{
    srv.size = (size_t)snprintf(srv.content, CONTENT_MAX, "remote %d", (int)++srv.token);
    struct core_change change = {
        .kind = CHANGE_OVERWRITE, .path = "f", .ino = FILE_INO, .token = srv.token};
    if (!replay_push(srv.replay, &change))
        _exit(4);
}

static void replayed(void *ctx, uint64_t token)
{
    (void)ctx;
    if (!srv.storm)
        tell("replayed", (size_t)token);
    else if (token == 500)
        tell("storm", 0);
    if (srv.storm)
        remote_overwrite();
}

static void replay_stopped(void *ctx)
{
    (void)ctx;
    srv.replay = NULL;
    tell("stopped", 0);
}

/* 'o': a remote overwrite; 'b': one after the other from now on; 's': stop the replay. */
static void on_command(uv_poll_t *poll, int status, int events)
{
    char c;
    (void)poll;
    (void)status;
    (void)events;
    if (read(srv.control, &c, 1) != 1)
        _exit(0);
    if (c == 's') {
        replay_stop(srv.replay, replay_stopped, NULL);
        return;
    }
    srv.storm = c == 'b';
    remote_overwrite();
}

static void serve(const char *mount_point, int control)
{
    char *argv[] = {(char *)"test", NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    dev_t dev;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    srv.control = control;
    srv.se = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (!srv.se || fuse_session_mount(srv.se, mount_point) != 0 ||
        !mount_info_of_path(mount_point, &dev)) {
        tell("unmountable", 0);
        _exit(1);
    }
    uv_loop_init(&srv.loop);
    srv.holders = holders_new(&srv.loop, dev);
    struct replay_config config = {.loop = &srv.loop,
                                   .mount_point = mount_point,
                                   .dev = dev,
                                   .notify = notify,
                                   .replayed = replayed};
    struct error err;
    if (replay_start(&config, &srv.replay, &err) != ERR_OK)
        _exit(2);
    uv_poll_init(&srv.loop, &srv.requests, fuse_session_fd(srv.se));
    uv_poll_start(&srv.requests, UV_READABLE, on_requests);
    uv_poll_init(&srv.loop, &srv.commands, control);
    uv_poll_start(&srv.commands, UV_READABLE, on_command);
    tell("mounted", 0);
    uv_run(&srv.loop, UV_RUN_DEFAULT);
    tell("unmounted", 0);
    _exit(0);
}

/* ---- The test's side ------------------------------------------------------------------------------ */

static char mount_point[] = "/tmp/quorumfs-kernel-XXXXXX";
static char file[64];
static int control = -1;
static pid_t server;
static bool mounted;

/* The next line the server tells within the time, or "". */
static const char *line_within(int ms)
{
    static char line[64];
    size_t n = 0;
    struct pollfd p = {.fd = control, .events = POLLIN};
    while (n < sizeof line - 1 && poll(&p, 1, ms) == 1 && read(control, line + n, 1) == 1 &&
           line[n] != '\n')
        n++;
    line[n] = '\0';
    return line;
}

static void expect(const char *line)
{
    assert_string_equal(line_within(10000), line);
}

/* Asks for something that the server answers after all that it had to say before. */
static void expect_nothing_more(void)
{
    assert_string_equal(line_within(50), "");
}

static int start_server(void **state)
{
    int pair[2];
    (void)state;
    if (!mkdtemp(mount_point) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return -1;
    snprintf(file, sizeof file, "%s/f", mount_point);
    setenv("F", file, 1);
    server = fork();
    if (server == 0) {
        close(pair[0]);
        serve(mount_point, pair[1]);
    }
    close(pair[1]);
    control = pair[0];
    mounted = strcmp(line_within(10000), "mounted 0") == 0;
    return 0;
}

static int end_server(void **state)
{
    (void)state;
    if (mounted)
        umount2(mount_point, MNT_DETACH);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    return rmdir(mount_point);
}

static void shell(const char *command)
{
    int status = system(command);
    assert_true(WIFEXITED(status));
}

#define NEEDS_MOUNT                                                                                \
    do {                                                                                           \
        (void)state;                                                                               \
        if (!mounted)                                                                              \
            skip();                                                                                \
    } while (0)

static void test_one_commit_at_the_last_close(void **state)
{
    static const struct {
        const char *command, *line;
    } cases[] = {
        {"echo hello > $F", "commit 6"},
        {": > $F", "commit 0"},
        {"{ echo a; /bin/echo b; } > $F", "commit 4"},
        {"bash -c 'exec 3> $F; echo a >&3; /bin/echo b >&3; exec 3>&-'", "commit 4"},
        {"for i in 1 2 3; do /bin/echo $i; done > $F", "commit 6"},
        {"( (sleep .1; echo late) & ) > $F", "commit 5"},
        {"echo piped | tee $F > /dev/null", "commit 6"},
        {"(echo a; (echo b; exec /bin/echo c)) > $F", "commit 6"},
        {"dd if=/dev/zero of=$F bs=1000 count=5 2> /dev/null", "commit 5000"},
        {"echo x | cp /dev/stdin $F", "commit 2"},
    };
    NEEDS_MOUNT;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        shell(cases[i].command);
        const char *line = line_within(10000);
        if (strcmp(line, cases[i].line) != 0)
            fail_msg("%s: %s", cases[i].command, line);
    }
    expect_nothing_more();
}

static int open_to_write(int more_flags)
{
    int fd = open(file, O_WRONLY | O_TRUNC | more_flags);
    if (fd < 0)
        _exit(1);
    return fd;
}

static int run_child(void (*run)(void))
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20); /* a server that hangs is found */
        run();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void write_and_exec(void)
{
    if (write(open_to_write(O_CLOEXEC), "12345", 5) == 5)
        execl("/bin/true", "true", (char *)NULL);
    _exit(1);
}

/* FLUSH from inside execve(2): a look at the wrong file of /proc hangs the server here. */
static void test_closed_by_exec(void **state)
{
    NEEDS_MOUNT;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(run_child(write_and_exec), 0);
        expect("commit 5");
    }
    expect_nothing_more();
}

static void write_and_die(void)
{
    if (write(open_to_write(0), "half", 4) == 4)
        raise(SIGKILL);
    _exit(1);
}

static void *waits(void *ctx)
{
    (void)ctx;
    pause();
    return NULL;
}

static void with_threads(bool die)
{
    pthread_t t;
    if (write(open_to_write(0), "whole", 5) != 5)
        _exit(1);
    for (int i = 0; i < 8; i++)
        if (pthread_create(&t, NULL, waits, NULL))
            _exit(1);
    if (die)
        raise(SIGTERM);
    _exit(7);
}

static void threads_exit(void)
{
    with_threads(false);
}

static void threads_die(void)
{
    with_threads(true);
}

static void test_killed_writer(void **state)
{
    NEEDS_MOUNT;
    assert_true(WIFSIGNALED(run_child(write_and_die)));
    expect("killed 4");
    /* exit(3) ends the other threads as if by a signal, and one of them may be the last. */
    for (int i = 0; i < 30; i++) {
        assert_int_equal(WEXITSTATUS(run_child(threads_exit)), 7);
        expect("commit 5");
        assert_true(WIFSIGNALED(run_child(threads_die)));
        expect("killed 5");
    }
    expect_nothing_more();
}

static void send_command(char c)
{
    assert_int_equal(write(control, &c, 1), 1);
}

static void test_replayed_overwrite(void **state)
{
    NEEDS_MOUNT;
    char buffer[4096] __attribute__((aligned(8))), content[64], expected[64];
    int watch = inotify_init1(IN_CLOEXEC);
    struct pollfd p = {.fd = watch, .events = POLLIN};
    assert_true(inotify_add_watch(watch, file, IN_MODIFY | IN_CLOSE_WRITE) >= 0);
    for (int i = 1; i <= 100; i++) {
        struct stat st;
        send_command('o');
        uint32_t seen = 0;
        while (!(seen & IN_CLOSE_WRITE)) {
            assert_int_equal(poll(&p, 1, 10000), 1);
            ssize_t n = read(watch, buffer, sizeof buffer);
            for (ssize_t at = 0; at < n;) {
                const struct inotify_event *e = (const void *)(buffer + at);
                seen |= e->mask;
                at += (ssize_t)(sizeof *e + e->len);
            }
            /* Whoever is woken sees the new state. */
            snprintf(expected, sizeof expected, "remote %d", i);
            assert_int_equal(stat(file, &st), 0);
            assert_int_equal(st.st_size, strlen(expected));
        }
        assert_true(seen & IN_MODIFY);
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, content, sizeof content - 1);
        close(fd);
        assert_true(n > 0);
        content[n] = '\0';
        assert_string_equal(content, expected);
        snprintf(expected, sizeof expected, "replayed %d", i);
        expect(expected);
    }
    close(watch);
}

/* A server killed in the middle of replays must end, and so must who uses its mount. */
static void test_killed_server(void **state)
{
    NEEDS_MOUNT;
    int fd = open(file, O_RDONLY | O_CLOEXEC), watch = inotify_init1(IN_CLOEXEC);
    assert_true(inotify_add_watch(watch, file, IN_MODIFY) >= 0);
    send_command('b');
    expect("storm 0");
    kill(server, SIGKILL);
    int ended = (int)syscall(SYS_pidfd_open, server, 0);
    struct pollfd p = {.fd = ended, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 10000), 1);
    close(ended);
    char byte;
    assert_int_equal(read(fd, &byte, 1), -1);
    assert_int_equal(errno, ENOTCONN);
    close(fd);
    close(watch);
    assert_int_equal(umount2(mount_point, MNT_DETACH), 0);
    mounted = false;
}

static void test_stop_and_unmount(void **state)
{
    NEEDS_MOUNT;
    send_command('o');
    expect("replayed 1");
    /* Idle, the replay does not keep the mount busy. */
    int rc = -1;
    for (int i = 0; rc != 0 && i < 100; i++) {
        rc = umount2(mount_point, 0);
        if (rc != 0)
            usleep(10000);
    }
    assert_int_equal(rc, 0);
    mounted = false;
    expect("unmounted 0");
}

static void test_stop(void **state)
{
    NEEDS_MOUNT;
    for (int i = 0; i < 100; i++)
        send_command('o');
    send_command('s');
    const char *line;
    do {
        line = line_within(10000);
    } while (strncmp(line, "replayed", 8) == 0);
    assert_string_equal(line, "stopped 0");
}

static int restart_server(void **state)
{
    strcpy(mount_point, "/tmp/quorumfs-kernel-XXXXXX");
    return start_server(state);
}

int main(void)
{
    const struct CMUnitTest holders[] = {
        cmocka_unit_test(test_one_commit_at_the_last_close),
        cmocka_unit_test(test_closed_by_exec),
        cmocka_unit_test(test_killed_writer),
        cmocka_unit_test(test_replayed_overwrite),
        cmocka_unit_test(test_stop),
    };
    const struct CMUnitTest killed[] = {cmocka_unit_test(test_killed_server)};
    const struct CMUnitTest unmount[] = {cmocka_unit_test(test_stop_and_unmount)};
    int failed = cmocka_run_group_tests(holders, start_server, end_server);
    failed += cmocka_run_group_tests(killed, restart_server, end_server);
    failed += cmocka_run_group_tests(unmount, restart_server, end_server);
    return failed;
}
