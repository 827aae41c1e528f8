#include "tests/fault/lossy_journal.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct lossy_real real;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char dir[LOSSY_PATH_MAX], journal[LOSSY_PATH_MAX]; /* empty: the library does nothing */
static int log_fd = -1;
static uint64_t next_number;
static struct lossy_countdown *countdown; /* in the file of LOSSY_COUNTDOWN, or NULL */
static const char *current_call;          /* with the lock held */
static int current_fd;

void lossy_fatal(const char *what, const char *path)
{
    char text[LOSSY_PATH_MAX + 128];
    int n = snprintf(text, sizeof(text), "lossy: %s: %s (%s)\n", path ? path : "", what,
                     errno ? strerror(errno) : "no error");
    if (!real.write || real.write(STDERR_FILENO, text, (size_t)n) < 0)
        _exit(97);
    abort();
}

static void *find(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        lossy_fatal("not in the C library", name);
    return found;
}

/* ISO C has no cast from an object's to a function's address; POSIX has. */
#define FIND(name) (*(void **)&real.name = find(#name))

static void read_setting(const char *name, char *ret_path)
{
    const char *value = getenv(name);
    if (!value || !*value)
        return;
    if (value[0] != '/' || strlen(value) >= LOSSY_PATH_MAX / 2)
        lossy_fatal("must be an absolute path, and a short one", name);
    strcpy(ret_path, value);
}

static void map_countdown(void)
{
    char path[LOSSY_PATH_MAX] = "";
    read_setting("LOSSY_COUNTDOWN", path);
    if (!*path)
        return;
    int fd = real.open(path, O_RDWR | O_CLOEXEC);
    countdown = real.mmap(NULL, sizeof(*countdown), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || countdown == MAP_FAILED)
        lossy_fatal("can't be mapped", path);
    real.close(fd);
}

static void start(void)
{
    FIND(write);
    FIND(open);
    FIND(openat);
    FIND(close);
    FIND(pwrite);
    FIND(writev);
    FIND(pwritev);
    FIND(ftruncate);
    FIND(fallocate);
    FIND(posix_fallocate);
    FIND(fsync);
    FIND(fdatasync);
    FIND(rename);
    FIND(unlink);
    FIND(mkdir);
    FIND(rmdir);
    FIND(link);
    FIND(symlink);
    FIND(truncate);
    FIND(mmap);
    read_setting("LOSSY_DIR", dir);
    read_setting("LOSSY_JOURNAL", journal);
    map_countdown();
    if (!*dir != !*journal)
        lossy_fatal("LOSSY_DIR and LOSSY_JOURNAL belong together", NULL);
}

const struct lossy_real *lossy_real(void)
{
    pthread_once(&once, start);
    return &real;
}

static bool counted(void)
{
    return (countdown->counted == LOSSY_ALL || !strstr(current_call, "write")) &&
           (countdown->counted < LOSSY_NO_WRITES_OR_SYNCS || strcmp(current_call, "sync") != 0);
}

/* A place where the process may be killed. */
static void place(const char *when)
{
    if (!countdown || atomic_load(&countdown->left) <= 0 || !counted() ||
        atomic_fetch_sub(&countdown->left, 1) != 1)
        return;
    char link[64], path[LOSSY_PATH_MAX] = "a path", text[LOSSY_PATH_MAX + 128];
    snprintf(link, sizeof(link), "/proc/self/fd/%d", current_fd);
    ssize_t n = current_fd >= 0 ? readlink(link, path, sizeof(path) - 1) : -1;
    if (n >= 0)
        path[n] = 0;
    int length =
        snprintf(text, sizeof(text), "lossy: killed %s %s of %s\n", when, current_call, path);
    if (real.write(STDERR_FILENO, text, (size_t)length) != length)
        lossy_fatal("standard error", NULL);
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

void lossy_enter(const char *what, int fd)
{
    pthread_mutex_lock(&mutex);
    current_call = what;
    current_fd = fd;
}

void lossy_lock(const char *what, int fd)
{
    lossy_enter(what, fd);
    place("before");
}

void lossy_unlock(void)
{
    place("after");
    pthread_mutex_unlock(&mutex);
}

void lossy_leave(void)
{
    pthread_mutex_unlock(&mutex);
}

bool lossy_covers(const char *path, char *ret_path)
{
    lossy_real();
    size_t n = strlen(dir), length = strlen(path), at = 0;
    if (n == 0)
        return false;
    if (path[0] != '/') {
        if (!getcwd(ret_path, LOSSY_PATH_MAX / 2))
            lossy_fatal("no working folder", path);
        at = strlen(ret_path);
        ret_path[at++] = '/';
    }
    if (at + length >= LOSSY_PATH_MAX)
        return false;
    memcpy(ret_path + at, path, length + 1);
    bool shared_memory = length > 4 && strcmp(path + length - 4, "-shm") == 0;
    return strncmp(ret_path, dir, n) == 0 && (ret_path[n] == '/' || !ret_path[n]) && !shared_memory;
}

/* A log for each process, made with its first record: an unfinished record ends a log, never stands inside. */
static void open_log(void)
{
    char path[LOSSY_PATH_MAX + 32];
    for (unsigned i = 1; log_fd < 0; i++) {
        snprintf(path, sizeof(path), "%s/log.%u", journal, i);
        log_fd = real.open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
        if (log_fd < 0 && errno != EEXIST)
            lossy_fatal("open", path);
        next_number = (uint64_t)i << 40;
    }
}

uint64_t lossy_next(void)
{
    if (log_fd < 0)
        open_log();
    return next_number;
}

static void write_log(const void *p, size_t n)
{
    for (size_t done = 0; done < n;) {
        ssize_t rc = real.write(log_fd, (const char *)p + done, n - done);
        if (rc <= 0)
            lossy_fatal("the journal can't be written", journal);
        done += (size_t)rc;
    }
}

void lossy_append(struct lossy_record *r, const char *path, const char *other_path,
                  const void *saved)
{
    r->number = lossy_next();
    next_number++;
    r->magic = LOSSY_MAGIC;
    r->path_bytes = path ? (uint32_t)strlen(path) + 1 : 0;
    r->other_path_bytes = other_path ? (uint32_t)strlen(other_path) + 1 : 0;
    write_log(r, sizeof(*r));
    write_log(path, r->path_bytes);
    write_log(other_path, r->other_path_bytes);
    write_log(saved, r->saved_bytes);
}

void lossy_keep(const char *path, uint64_t inode)
{
    char kept[LOSSY_PATH_MAX + 32];
    snprintf(kept, sizeof(kept), "%s/inodes/%llu", journal, (unsigned long long)inode);
    if (real.link(path, kept) != 0 && errno != EEXIST)
        lossy_fatal("link", kept);
}

uint64_t lossy_folder(const char *path)
{
    char folder[LOSSY_PATH_MAX];
    size_t n = (size_t)(strrchr(path, '/') - path);
    memcpy(folder, path, n);
    folder[n] = 0;
    struct stat st;
    if (stat(n ? folder : "/", &st) != 0)
        return 0; /* then the call that this is for fails too */
    return st.st_ino;
}
