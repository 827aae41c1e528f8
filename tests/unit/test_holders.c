/* Who holds a descriptor: children that open, inherit, close and die. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/rpc_fixture.h"

#include "fuse/holders.h"
#include "fuse/proc_fd.h"
#include "lib/base/memory.h"

static char path[] = "/tmp/quorumfs-holders-XXXXXX";
static uv_loop_t loop;
static struct holders *holders;
static struct stat st;

static int setup(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    uv_loop_init(&loop);
    if (fd < 0 || fstat(fd, &st) != 0)
        return -1;
    close(fd);
    holders = holders_new(&loop, st.st_dev);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    holders_free(holders);
    uv_run(&loop, UV_RUN_DEFAULT);
    unlink(path);
    return uv_loop_close(&loop);
}

/* A child that does `step` whenever it is told to, and answers when it has. */
struct child {
    pid_t pid;
    int control; /* ours */
};

static void step(const struct child *c)
{
    char byte = 'x';
    assert_int_equal(write(c->control, &byte, 1), 1);
    assert_int_equal(read(c->control, &byte, 1), 1);
}

static int my_control; /* the child's end */

static void next(void)
{
    char byte = 'x';
    if (write(my_control, &byte, 1) != 1 || read(my_control, &byte, 1) != 1)
        _exit(1);
}

/* Returns when the child has called next() for the first time. */
static struct child start(void (*run)(void))
{
    int pair[2];
    char byte;
    struct child c;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    c.pid = fork();
    if (c.pid == 0) {
        close(pair[0]);
        my_control = pair[1];
        run();
        _exit(0);
    }
    close(pair[1]);
    c.control = pair[0];
    assert_int_equal(read(c.control, &byte, 1), 1);
    return c;
}

static void end(struct child *c)
{
    close(c->control);
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
}

static bool got_answer;
static struct core_holders_answer answer;

static void on_answer(void *ctx, const struct core_holders_answer *a)
{
    (void)ctx;
    answer = *a;
    got_answer = true;
}

static void ask_mode(int32_t caller, int32_t opener, int pidfd, bool never_shared, int mode)
{
    struct core_holders_query q = {.ino = st.st_ino,
                                   .access_mode = mode,
                                   .caller_pid = caller,
                                   .opener_pid = opener,
                                   .opener_pidfd = pidfd};
    got_answer = false;
    holders_ask(holders, &q, never_shared, on_answer, NULL);
    assert_false(got_answer);
    RUN_UNTIL(&loop, got_answer);
}

static void ask(int32_t caller, int32_t opener)
{
    ask_mode(caller, opener, -1, false, O_WRONLY);
}

static uint64_t looked_at_all(void)
{
    struct holders_counts counts;
    holders_counts(holders, &counts);
    return counts.looked_at_all;
}

static void opens_and_closes(void)
{
    int fd = open(path, O_WRONLY);
    int reader = open(path, O_RDONLY), pair[2];
    int both = open(path, O_RDWR);
    if (pipe(pair) != 0)
        _exit(1);
    next();
    int copy = dup(fd);
    close(fd);
    next(); /* the copy is left */
    close(copy);
    next(); /* a reader and a handle of another mode are left */
    close(both);
    (void)reader;
    next();
}

static void test_caller(void **state)
{
    (void)state;
    struct child c = start(opens_and_closes);
    ask(c.pid, c.pid);
    assert_true(answer.caller_holds);
    assert_false(answer.caller_signaled);
    step(&c);
    ask(c.pid, c.pid);
    assert_true(answer.caller_holds);
    step(&c);
    ask(c.pid, c.pid);
    assert_false(answer.caller_holds || answer.opener_holds || answer.other_holds);
    ask_mode(c.pid, c.pid, -1, false, O_RDWR);
    assert_true(answer.caller_holds);
    step(&c);
    ask_mode(c.pid, c.pid, -1, false, O_RDWR);
    assert_false(answer.caller_holds);
    end(&c);
}

static void idles(void)
{
    next();
    next();
}

static void test_opener_and_others(void **state)
{
    (void)state;
    struct child holder = start(opens_and_closes), caller = start(idles);
    int pidfd = (int)syscall(SYS_pidfd_open, holder.pid, 0);
    ask(caller.pid, holder.pid);
    assert_false(answer.caller_holds);
    assert_true(answer.opener_holds);
    ask_mode(caller.pid, holder.pid, pidfd, true, O_WRONLY);
    assert_true(answer.opener_holds);
    ask(caller.pid, caller.pid);
    assert_true(answer.other_holds);
    assert_false(answer.opener_holds);
    ask_mode(caller.pid, 0x3ffffff, -1, true, O_WRONLY); /* an opener that is gone */
    assert_true(answer.other_holds);

    /* The opener has ended; its id may be anybody's by now, but not its pidfd. */
    kill(holder.pid, SIGKILL);
    waitpid(holder.pid, NULL, 0);
    close(holder.control);
    uint64_t looks = looked_at_all();
    ask_mode(caller.pid, caller.pid, pidfd, true, O_WRONLY);
    assert_false(answer.caller_holds || answer.opener_holds || answer.other_holds);
    assert_int_equal(looked_at_all(), looks + 1);
    close(pidfd);
    end(&caller);
}

static void forks_a_holder(void)
{
    int fd = open(path, O_WRONLY);
    next(); /* alone */
    pid_t pid = fork();
    if (pid == 0) {
        if (fork() == 0) { /* a grandchild holds it, its parent ends */
            char byte;
            while (recv(my_control, &byte, 1, MSG_PEEK) > 0)
                usleep(1000);
        }
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    close(fd);
    next();
}

/* The look at all is left out only where nobody else can have one. */
static void test_when_all_are_looked_at(void **state)
{
    (void)state;
    struct child c = start(idles);
    uint64_t looks = looked_at_all();
    ask_mode(c.pid, c.pid, -1, true, O_WRONLY);
    assert_int_equal(looked_at_all(), looks);
    ask_mode(c.pid, c.pid, -1, false, O_WRONLY);
    assert_int_equal(looked_at_all(), looks + 1);
    /* We have children. */
    ask_mode(getpid(), getpid(), -1, true, O_WRONLY);
    assert_int_equal(looked_at_all(), looks + 2);
    end(&c);

    c = start(forks_a_holder);
    step(&c);
    ask_mode(c.pid, c.pid, -1, false, O_WRONLY);
    assert_true(answer.other_holds);
    end(&c); /* the grandchild ends with our side of the socket */
}

static void *thread_waits(void *ctx)
{
    (void)ctx;
    next();
    next();
    return NULL;
}

static void leader_ends(void)
{
    pthread_t thread;
    if (open(path, O_WRONLY) < 0 || pthread_create(&thread, NULL, thread_waits, NULL))
        _exit(1);
    syscall(SYS_exit, 0); /* this thread only */
}

/* A process whose first thread has ended shows its descriptors at the others. */
static void test_ended_leader(void **state)
{
    (void)state;
    struct child c = start(leader_ends);
    struct proc_file file = {st.st_ino, st.st_dev, O_WRONLY};
    int32_t except[] = {getpid()};
    RUN_UNTIL(&loop, proc_holds(c.pid, &file) == PROC_YES);
    assert_true(proc_any_holds(&file, except, 1));
    file.dev++; /* the same number on another device */
    assert_false(proc_any_holds(&file, except, 1));
    end(&c);
}

static void has_many(void)
{
    for (int i = 0; i < 200; i++)
        if (open("/dev/null", O_WRONLY) < 0 || socket(AF_UNIX, SOCK_STREAM, 0) < 0)
            _exit(1);
    int fd = open(path, O_RDWR);
    char moved[64];
    snprintf(moved, sizeof moved, "%s-moved", path);
    if (fd < 0 || rename(path, moved) != 0)
        _exit(1);
    next();
    unlink(moved);
    next();
    next();
}

/* Neither a new name nor none hides a descriptor. */
static void test_renamed_and_deleted(void **state)
{
    (void)state;
    struct child c = start(has_many);
    ask_mode(c.pid, c.pid, -1, true, O_RDWR);
    assert_true(answer.caller_holds);
    step(&c);
    ask_mode(c.pid, c.pid, -1, true, O_RDWR);
    assert_true(answer.caller_holds);
    end(&c);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(stat(path, &st), 0);
}

static void test_processes(void **state)
{
    (void)state;
    struct child c = start(idles);
    assert_int_equal(proc_of_thread(c.pid), c.pid);
    assert_int_equal(proc_of_thread(0x3ffffff), 0);
    int pidfd = (int)syscall(SYS_pidfd_open, c.pid, 0);
    assert_int_equal(proc_of_pidfd(pidfd), c.pid);
    assert_false(proc_killed(c.pid));
    assert_false(proc_has_children(c.pid));
    assert_true(proc_has_children(getpid()));
    kill(c.pid, SIGKILL);
    RUN_UNTIL(&loop, proc_of_pidfd(pidfd) == 0);
    assert_true(proc_killed(c.pid)); /* nobody has waited for it yet */
    end(&c);
    assert_false(proc_killed(c.pid));
    close(pidfd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caller),
        cmocka_unit_test(test_opener_and_others),
        cmocka_unit_test(test_when_all_are_looked_at),
        cmocka_unit_test(test_ended_leader),
        cmocka_unit_test(test_renamed_and_deleted),
        cmocka_unit_test(test_processes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
