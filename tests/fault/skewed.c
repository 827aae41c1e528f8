/* LD_PRELOAD: clocks that are wrong, for one process (test_clocks.py).
 *
 * $SKEWED_FILE has two numbers of 8 bytes in the machine's order: nanoseconds that are added to the wall clock, read
 * anew by every call, so that the clock jumps whenever somebody writes there; and, read once at the start, the
 * parts per million by which all clocks run too fast from then on (negative: too slow). What sleeps in the kernel
 * sleeps by the right clock. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND_NS 1000000000
#define PPM 1000000

struct skew {
    int64_t wall_ns, fast_ppm;
};

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static const volatile struct skew *skew; /* NULL: clocks are right */
static int64_t fast_ppm, begun_ns;       /* by the monotonic clock */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int64_t ns_of(const struct timespec *t)
{
    return (int64_t)t->tv_sec * SECOND_NS + t->tv_nsec;
}

static void start(void)
{
    /* ISO C has no cast from an object's to a function's address; POSIX has. */
    *(void **)&real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("SKEWED_FILE");
    if (!path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *mapped =
        fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct skew), PROT_READ, MAP_SHARED, fd, 0);
    if (mapped == MAP_FAILED) {
        perror(path);
        abort(); /* a test with right clocks would prove nothing */
    }
    close(fd);
    struct timespec now;
    real_clock_gettime(CLOCK_MONOTONIC, &now);
    begun_ns = ns_of(&now);
    skew = mapped;
    fast_ppm = skew->fast_ppm;
}

/* How far a clock that is `fast_ppm` too fast has run ahead since the start. */
static int64_t ahead_ns(void)
{
    struct timespec now;
    real_clock_gettime(CLOCK_MONOTONIC, &now);
    return (ns_of(&now) - begun_ns) / PPM * fast_ppm;
}

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    pthread_once(&once, start);
    int rc = real_clock_gettime(clock, ret);
    if (rc != 0 || !skew)
        return rc;
    int64_t ns = ns_of(ret);
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        ns += skew->wall_ns + ahead_ns();
        break;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_BOOTTIME:
        ns += ahead_ns();
        break;
    default: /* processor time */
        return rc;
    }
    *ret = (struct timespec){ns / SECOND_NS, ns % SECOND_NS};
    return 0;
}

int gettimeofday(struct timeval *ret, void *zone)
{
    (void)zone;
    struct timespec t;
    int rc = clock_gettime(CLOCK_REALTIME, &t);
    *ret = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return rc;
}

time_t time(time_t *ret)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (ret)
        *ret = t.tv_sec;
    return t.tv_sec;
}
